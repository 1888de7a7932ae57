//! Root file systems: overlays and copies show the same, and nothing stays behind.

use super::{
    is_root,
    layout::{Entry, dir, file, image},
    mounts_below, pull, store,
};
use muster_image::{How, Mount, Rootfs, probe_overlay};
use std::{fs, os::unix::fs::MetadataExt, path::Path};

fn layers() -> Vec<Vec<Entry>> {
    vec![
        vec![
            Entry::Dir("./".into(), 0o751),
            dir("bin"),
            file("bin/run", "old"),
            file("gone", "x"),
            dir("emptied"),
            file("emptied/x", "x"),
            dir("replaced"),
            file("replaced/x", "x"),
            Entry::Symlink("link".into(), "/bin".into()),
        ],
        vec![
            dir("bin"),
            file("bin/run", "new"),
            Entry::Link("bin/same".into(), "bin/run".into()),
            file(".wh.gone", ""),
            dir("emptied"),
            file("emptied/.wh..wh..opq", ""),
            file("emptied/y", "y"),
            file(".wh.replaced", ""),
            dir("replaced"),
            file("replaced/y", "y"),
        ],
    ]
}

fn check(root: &Path) {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let names = |name: &str| {
        let all = fs::read_dir(root.join(name)).unwrap();
        let mut all: Vec<_> = all.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    };
    assert_eq!(names(""), ["bin", "emptied", "link", "replaced"]);
    assert_eq!((names("emptied"), names("replaced")), (vec!["y".to_owned()], vec!["y".to_owned()]));
    assert_eq!((read("bin/run"), read("bin/same")), ("new".into(), "new".into()));
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/bin"));
    assert_eq!(fs::metadata(root).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(fs::metadata(root.join("bin/run")).unwrap().mtime(), 1_700_000_000);
}

#[test]
fn copies_show_what_the_layers_say() {
    let at = tempfile::tempdir().unwrap();
    image(&layers()).write_oci(&at.path().join("layout"), "1");
    let image = pull(&store(at.path()), &format!("oci:{}/layout:1", at.path().display())).unwrap();
    let place = at.path().join("container");
    let made = Rootfs::prepare(&image, &place, false).unwrap();
    assert_eq!((made.how, made.mounts.len(), &made.layers), (How::Copy, 0, &image.used()));
    check(&made.root);
    assert_eq!(fs::metadata(made.root.join("bin/same")).unwrap().nlink(), 2);
    assert!(Rootfs::prepare(&image, &place, false).is_err(), "there is one");
    assert_eq!(Rootfs::read(&place).unwrap().as_ref(), Some(&made));
    // What a task writes is its own.
    fs::write(made.root.join("bin/run"), "mine").unwrap();
    assert_eq!(fs::read_to_string(image.layers()[1].content().join("bin/run")).unwrap(), "new");
    made.undo().unwrap();
    assert_eq!(Rootfs::read(&place).unwrap(), None);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
}

#[test]
fn overlays_show_the_same_and_nothing_stays_mounted() {
    if !is_root("overlays") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    // One that ended between has left its own.
    let left = at.path().join("overlay-probe/root");
    fs::create_dir_all(&left).unwrap();
    let bound =
        Mount::Bind { source: left.clone(), target: left.clone(), read_only: false, recursive: false };
    bound.perform().unwrap();
    probe_overlay(at.path()).unwrap();
    assert!(!left.exists(), "nothing stays mounted");
    // Names that mean something in the options of a mount, and many layers with long ones.
    for (place, extra) in [("container", 0), ("with:odd,name", 0), ("many", 100)] {
        let mut all = layers();
        all.extend((0..extra).map(|i| vec![dir("bin"), file(&format!("bin/f{i}"), "x")]));
        image(&all).write_oci(&at.path().join(format!("layout-{extra}")), "1");
        let name = format!("oci:{}/layout-{extra}:1", at.path().display());
        let store = store(at.path());
        let image = pull(&store, &name).unwrap();
        let place = at.path().join(place);
        let made = Rootfs::prepare(&image, &place, true).unwrap();
        assert_eq!(made.how, How::Overlay);
        let read = Rootfs::read(&place).unwrap().unwrap();
        let guard = Unmount(&read);
        read.mount().unwrap();
        check(&made.root);
        fs::write(made.root.join("bin/run"), "mine").unwrap();
        assert_eq!(fs::read_to_string(image.layers()[1].content().join("bin/run")).unwrap(), "new");
        drop(guard);
        made.undo().unwrap();
        made.unmount().unwrap();
        assert_eq!(mounts_below(at.path()), 0);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }
}

/// Whoever tried before may have been killed while its overlay was there.
#[test]
fn a_probe_takes_away_what_the_one_before_left() {
    if !is_root("overlays") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let path = at.path().join("overlay-probe").join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let (lower, target) = (vec![made("lower")], made("root"));
    let left = Mount::Overlay { lower, upper: made("upper"), work: made("work"), target };
    left.perform().unwrap();
    assert_eq!(mounts_below(at.path()), 1);
    probe_overlay(at.path()).unwrap();
    let stay = mounts_below(at.path());
    left.undo().unwrap();
    assert_eq!(stay, 0);
    assert_eq!(fs::read_dir(at.path()).unwrap().count(), 0);
}

struct Unmount<'a>(&'a Rootfs);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        self.0.unmount().unwrap();
    }
}

#[test]
fn directories_that_a_layer_does_not_name_keep_what_they_are() {
    let at = tempfile::tempdir().unwrap();
    let layers = [
        vec![Entry::Dir("srv".into(), 0o2770), file("srv/x", "x")],
        vec![file("srv/y", "y"), file("new/z", "z")],
    ];
    image(&layers).write_oci(&at.path().join("layout"), "1");
    let image = pull(&store(at.path()), &format!("oci:{}/layout:1", at.path().display())).unwrap();
    let made = Rootfs::prepare(&image, &at.path().join("container"), true).unwrap();
    assert_eq!(made.how, How::Copy, "an overlay would show another mode");
    let mode = |name: &str| fs::metadata(made.root.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("srv"), mode("new")), (0o2770, 0o755));
    made.undo().unwrap();
}

/// An overlay takes no directory twice, and builders write the same empty layer again and again.
#[test]
fn an_image_may_have_a_layer_twice() {
    if !is_root("overlays") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let (one, none) = (vec![file("x", "1")], vec![]);
    for (i, (layers, how)) in [
        ([none.clone(), one.clone(), none.clone()], How::Overlay),
        ([one.clone(), vec![file("x", "2")], one], How::Copy),
    ]
    .into_iter()
    .enumerate()
    {
        image(&layers).write_oci(&at.path().join("layout"), "1");
        let image = pull(&store(at.path()), &format!("oci:{}/layout:1", at.path().display())).unwrap();
        let made = Rootfs::prepare(&image, &at.path().join(format!("container-{i}")), true).unwrap();
        let guard = Unmount(&made);
        made.mount().unwrap();
        assert_eq!((made.how, fs::read_to_string(made.root.join("x")).unwrap().as_str()), (how, "1"));
        drop(guard);
        made.undo().unwrap();
    }
    assert_eq!(mounts_below(at.path()), 0);
}

#[test]
fn a_directory_is_an_image_and_is_not_written_to() {
    let at = tempfile::tempdir().unwrap();
    let unpacked = at.path().join("unpacked");
    fs::create_dir_all(unpacked.join("bin")).unwrap();
    fs::write(unpacked.join("bin/run"), "run").unwrap();
    let image = pull(&store(at.path()), &format!("dir:{}", unpacked.display())).unwrap();
    for overlay in [false, true] {
        if overlay && !is_root("an overlay over a directory") {
            continue;
        }
        let made = Rootfs::prepare(&image, &at.path().join(format!("container-{overlay}")), overlay).unwrap();
        let guard = Unmount(&made);
        made.mount().unwrap();
        fs::write(made.root.join("bin/run"), "mine").unwrap();
        assert_eq!(fs::read_to_string(unpacked.join("bin/run")).unwrap(), "run");
        drop(guard);
        made.undo().unwrap();
    }
    assert_eq!(mounts_below(at.path()), 0);
}

#[test]
fn binds_are_made_and_taken_away() {
    if !is_root("bind mounts") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let (source, target) = (at.path().join("source"), at.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(source.join("x"), "x").unwrap();
    let bind = Mount::Bind { source, target: target.clone(), read_only: true, recursive: true };
    bind.perform().unwrap();
    let seen = fs::read_to_string(target.join("x"));
    let refused = fs::write(target.join("x"), "y");
    bind.undo().unwrap();
    bind.undo().unwrap();
    assert_eq!((seen.unwrap().as_str(), mounts_below(at.path())), ("x", 0));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}
