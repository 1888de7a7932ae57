//! Images from the disk: layouts and archives that the tests write, stores, root file systems, and the law that a
//! sequence of layers is what a simple model of it says.

#![allow(clippy::unwrap_used)]

mod layout;
mod model;
mod registry;
mod rootfs;
mod store;

use muster_image::{Image, ImageError, Settings, Store};
use std::{fs, path::Path};

/// A store below this directory that takes images from all of it.
fn store(dir: &Path) -> Store {
    let settings = Settings { roots: vec![dir.to_owned()], ..Settings::default() };
    Store::open(&dir.join("store"), settings).unwrap()
}

/// Pulls with a runtime of its own.
fn pull(store: &Store, name: &str) -> Result<Image, ImageError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(store.pull(name))
}

/// Whether this is root; without root says what is not tested, and in CI as root nothing is left out.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not root: {what} is not tested");
    }
    root
}

fn mounts_below(dir: &Path) -> usize {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines().filter(|line| line.contains(dir.to_str().unwrap())).count()
}
