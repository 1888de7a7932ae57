//! All that is kept of former runs, and what the protocol's own facts add to it.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::path::{Path, PathBuf};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    all.map(|entry| entry.unwrap().path()).collect()
}

#[track_caller]
fn replay(target: &str, run: fn(&[u8])) {
    let all = files(&here("corpus").join(target));
    assert!(all.len() >= 10, "{target} has {} inputs", all.len());
    for path in all {
        let data = std::fs::read(&path).unwrap();
        if std::panic::catch_unwind(|| run(&data)).is_err() {
            panic!("{}: see above", path.display());
        }
    }
}

#[test]
fn json_is_a_call_or_is_refused() {
    replay("json", muster_fuzz::json);
}

#[test]
fn protobuf_is_a_call_or_is_refused() {
    replay("protobuf", muster_fuzz::protobuf);
}

#[test]
fn a_registry_takes_whatever_a_log_holds() {
    replay("apply", muster_fuzz::apply);
}

/// Every entry that is stored by a release, one after the other in one log, in several orders.
#[test]
fn a_registry_takes_what_releases_stored() {
    let hex = files(&here("../muster-raft/golden/v1"));
    let mut entries: Vec<Vec<u8>> = hex
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("entry-"))
        .map(|path| bytes_of(&std::fs::read_to_string(path).unwrap()))
        .collect();
    entries.sort();
    for _ in 0..entries.len() {
        entries.rotate_left(1);
        let log: Vec<u8> = entries.iter().flat_map(|entry| framed(entry)).collect();
        muster_fuzz::apply(&log);
    }
}

fn framed(entry: &[u8]) -> Vec<u8> {
    let length = u16::try_from(entry.len()).unwrap();
    [&length.to_le_bytes()[..], entry].concat()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
