//! The law: unpacking a sequence of layers is what a simple model of it says, as a copy and as an overlay.

use super::{
    layout::{Entry, image},
    mounts_below, pull, store,
};
use muster_image::Rootfs;
use proptest::prelude::*;
use std::{collections::BTreeMap, fs, path::Path};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Dir,
    File(Vec<u8>),
    Symlink(String),
}

type Model = BTreeMap<String, Node>;

/// What one layer does.
#[derive(Debug, Clone)]
enum Op {
    Dir(String),
    File(String, u8),
    Symlink(String),
    Gone(String),
    Opaque(String),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|parts| parts.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => path().prop_map(Op::Dir),
        4 => (path(), any::<u8>()).prop_map(|(path, byte)| Op::File(path, byte)),
        1 => path().prop_map(Op::Symlink),
        3 => path().prop_map(Op::Gone),
        1 => path().prop_map(Op::Opaque),
    ]
}

fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(i, _)| &path[..i])
}

fn remove(model: &mut Model, path: &str, itself: bool) {
    let below = format!("{path}/");
    model.retain(|it, _| !(it.starts_with(&below) || itself && it == path));
}

/// The entries of a layer of these operations, without those that no builder writes: below something that is no
/// directory in the same layer, and what takes the place of a directory in which the same layer removes something. Directories are named before what is in them.
fn entries(ops: &[Op]) -> (Vec<Entry>, Model, Vec<String>, Vec<String>) {
    let mut own = Model::new();
    let (mut gone, mut opaque, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for op in ops {
        let (Op::Dir(path) | Op::File(path, _) | Op::Symlink(path) | Op::Gone(path) | Op::Opaque(path)) = op;
        let inside = if matches!(op, Op::Opaque(_)) { format!("{path}/x") } else { path.clone() };
        if above(&inside).any(|dir| own.get(dir).is_some_and(|node| *node != Node::Dir)) {
            continue;
        }
        let is_above = |it: &String| it.starts_with(&format!("{path}/"));
        let removes = gone.iter().any(is_above) || opaque.iter().any(|it| it == path || is_above(it));
        if matches!(op, Op::File(..) | Op::Symlink(_)) && removes {
            continue;
        }
        for dir in above(&inside) {
            if own.insert(dir.to_owned(), Node::Dir).is_none() {
                all.push(Entry::Dir(dir.to_owned(), 0o755));
            }
        }
        match op {
            Op::Dir(path) => {
                if own.get(path) != Some(&Node::Dir) {
                    own.insert(path.clone(), Node::Dir);
                }
                all.push(Entry::Dir(path.clone(), 0o755));
            }
            Op::File(path, byte) => {
                remove(&mut own, path, true);
                own.insert(path.clone(), Node::File(vec![*byte]));
                all.push(Entry::File(path.clone(), vec![*byte]));
            }
            Op::Symlink(path) => {
                remove(&mut own, path, true);
                own.insert(path.clone(), Node::Symlink("to".into()));
                all.push(Entry::Symlink(path.clone(), "to".into()));
            }
            Op::Gone(path) => {
                let (dir, name) = path.rsplit_once('/').map_or(("", path.as_str()), |it| it);
                let dir = if dir.is_empty() { String::new() } else { format!("{dir}/") };
                all.push(Entry::File(format!("{dir}.wh.{name}"), Vec::new()));
                gone.push(path.clone());
            }
            Op::Opaque(path) => {
                all.push(Entry::File(format!("{path}/.wh..wh..opq"), Vec::new()));
                opaque.push(path.clone());
            }
        }
    }
    (all, own, gone, opaque)
}

/// What a layer shows on top of what is below.
fn apply(model: &mut Model, own: Model, gone: &[String], opaque: &[String]) {
    for path in gone {
        remove(model, path, true);
    }
    for path in opaque {
        remove(model, path, false);
    }
    for (path, node) in own {
        // A directory stays if there is one; anything else takes the place of all that was there.
        if node != Node::Dir || model.get(&path).is_some_and(|it| *it != Node::Dir) {
            remove(model, &path, true);
        }
        model.insert(path, node);
    }
}

fn seen(root: &Path) -> Model {
    let mut model = Model::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let node = if kind.is_dir() {
                todo.push(path.clone());
                Node::Dir
            } else if kind.is_symlink() {
                Node::Symlink(fs::read_link(&path).unwrap().to_str().unwrap().to_owned())
            } else {
                Node::File(fs::read(&path).unwrap())
            };
            model.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), node);
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn layers_come_to_what_the_model_says(
        layers in prop::collection::vec(prop::collection::vec(op(), 0..8), 1..5),
    ) {
        let mut model = Model::new();
        let mut written = Vec::new();
        for ops in &layers {
            let (entries, own, gone, opaque) = entries(ops);
            apply(&mut model, own, &gone, &opaque);
            written.push(entries);
        }
        let at = tempfile::tempdir().unwrap();
        image(&written).write_oci(&at.path().join("layout"), "1");
        let image = pull(&store(at.path()), &format!("oci:{}/layout:1", at.path().display())).unwrap();
        let copied = Rootfs::prepare(&image, &at.path().join("copy"), false).unwrap();
        prop_assert_eq!(&seen(&copied.root), &model);
        if rustix::process::geteuid().is_root() {
            let made = Rootfs::prepare(&image, &at.path().join("overlay"), true).unwrap();
            made.mount().unwrap();
            let shown = seen(&made.root);
            made.undo().unwrap();
            prop_assert_eq!(&shown, &model);
            prop_assert_eq!(mounts_below(at.path()), 0);
        }
    }
}
