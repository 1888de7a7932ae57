//! Archives as nobody should make them, and such as everybody does.

use super::*;
use crate::tree::{Owner, Tree};
use ::tar::{Builder, EntryType, Header};
use std::{
    fs,
    io::{Cursor, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

/// An archive that is written entry by entry, with names that no writer of archives would let pass.
struct Made(Builder<Vec<u8>>);

impl Made {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, name: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name);
        gnu.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name.as_bytes(), b"", 0o644, content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name.as_bytes(), b"", 0o755, b"")
    }

    fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(EntryType::Symlink, name.as_bytes(), to.as_bytes(), 0o777, b"")
    }

    fn link(self, name: &str, to: &str) -> Self {
        self.entry(EntryType::Link, name.as_bytes(), to.as_bytes(), 0o644, b"")
    }

    fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn rules() -> Rules {
    Rules::layer(Limits::default())
}

fn unpack(archive: &[u8], into: &Path, rules: &Rules) -> Result<Unpacked, ImageError> {
    let mut tree = Tree::new(into, Owner::Writer)?;
    let done = tar(archive, &mut tree, rules)?;
    tree.finish()?;
    Ok(done)
}

#[test]
fn an_archive_becomes_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Made::new()
        .entry(EntryType::Directory, b"./", b"", 0o711, b"")
        .entry(EntryType::Directory, b"./closed/", b"", 0o555, b"")
        .file("./closed/inner", "content")
        .symlink("etc", "/etc")
        .symlink("up", "../../..")
        .link("same", "closed/inner")
        .entry(EntryType::Fifo, b"pipe", b"", 0o600, b"")
        .entry(EntryType::Regular, b"set", b"", 0o4755, b"")
        .entry(EntryType::Char, b"null", b"", 0o666, b"")
        .file("without/a/parent", "")
        .end();
    let done = unpack(&archive, dir.path(), &rules()).unwrap();
    assert_eq!((done.entries, done.bytes), (10, 7));
    let mode = |name: &str| fs::symlink_metadata(dir.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode(""), mode("closed"), mode("set"), mode("without")), (0o711, 0o555, 0o4755, 0o755));
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!((read("same"), read("closed/inner")), ("content".into(), "content".into()));
    let about = fs::metadata(dir.path().join("same")).unwrap();
    assert_eq!((about.nlink(), about.mtime()), (2, 1_000_000));
    assert_eq!(fs::read_link(dir.path().join("etc")).unwrap(), Path::new("/etc"));
    assert!(!dir.path().join("null").exists(), "devices are left out");
}

#[test]
fn an_archive_for_a_sandbox_gives_no_rights_and_leaves_its_root_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let archive = Made::new()
        .entry(EntryType::Directory, b"./", b"", 0o777, b"")
        .entry(EntryType::Regular, b"set", b"", 0o6755, b"")
        .file(".wh.name", "kept")
        .end();
    let rules = Rules::archive(Limits::default());
    unpack(&archive, dir.path(), &rules).unwrap();
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode(""), mode("set")), (0o700, 0o755));
    assert_eq!(fs::read_to_string(dir.path().join(".wh.name")).unwrap(), "kept");
    let device = Made::new().entry(EntryType::Char, b"null", b"", 0o666, b"").end();
    let why = unpack(&device, dir.path(), &rules).unwrap_err().to_string();
    assert_eq!(why, "the archive's entry \"null\" is a device, which is not allowed here");
}

/// What each of these archives tries, it does not get; and nothing is written beside the tree.
#[test]
fn hostile_archives_are_refused() {
    let outer = tempfile::tempdir().unwrap();
    let outside = outer.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let out = outside.to_str().unwrap();
    for (archive, part) in [
        (Made::new().file("/etc/passwd", "x"), "has an absolute name"),
        (Made::new().file("../outside/x", "x"), "has .. in its name"),
        (Made::new().file("a/../../outside/x", "x"), "has .. in its name"),
        (Made::new().dir("a/.."), "has .. in its name"),
        (Made::new().symlink("a", out).file("a/x", "x"), "goes through \"a\", which is a link"),
        (Made::new().symlink("a", out).dir("a/b"), "goes through \"a\", which is a link"),
        (Made::new().symlink("a", out).symlink("b", "a").file("b/x", "x"), "goes through \"b\""),
        (Made::new().symlink("a", "../outside").link("x", "a/secret"), "which is not there"),
        (Made::new().link("x", "../outside/secret"), "has .. in its name"),
        (Made::new().link("x", &format!("{out}/secret")), "has an absolute name"),
        (Made::new().link("x", "none"), "is a hard link to \"none\", which is not there"),
        (Made::new().dir("d").link("x", "d"), "which is a directory"),
        (Made::new().file("a", "x").file("a/b", "x"), "which is a link or a file"),
        (Made::new().entry(EntryType::new(b'Z'), b"x", b"", 0o644, b""), "of the kind 'Z'"),
        (Made::new().file(".", "x"), "has no name"),
        (Made::new().file(".wh.", ""), "removes nothing"),
        (Made::new().file("a/.wh...", ""), "removes nothing"),
    ] {
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        let error = unpack(&archive.end(), &root, &rules()).unwrap_err();
        assert!(matches!(error, ImageError::Entry { .. }) && error.to_string().contains(part), "{error}");
        fs::remove_dir_all(&root).unwrap();
        let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["secret"], "{part}");
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
}

/// A link that is there is replaced, never written through; also one that somebody else made.
#[test]
fn what_is_there_is_replaced_and_not_written_to() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir_all(root.join("full/of/things")).unwrap();
    fs::write(outer.path().join("secret"), "secret").unwrap();
    symlink(outer.path().join("secret"), root.join("link")).unwrap();
    fs::hard_link(outer.path().join("secret"), root.join("hard")).unwrap();
    let archive =
        Made::new().file("link", "new").file("hard", "new").file("full", "new").file("full", "newer").end();
    unpack(&archive, &root, &rules()).unwrap();
    assert_eq!(fs::read_to_string(outer.path().join("secret")).unwrap(), "secret");
    assert_eq!(fs::read_to_string(root.join("hard")).unwrap(), "new");
    assert_eq!(fs::read_to_string(root.join("full")).unwrap(), "newer");
    let through = Made::new().dir("d").file("d/x", "x").symlink("d", "..").file("d/secret", "x").end();
    let error = unpack(&through, &root, &rules()).unwrap_err();
    assert!(error.to_string().contains("goes through \"d\""), "{error}");
}

#[test]
fn everything_has_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let small = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        Rules::layer(limits)
    };
    let zeros = vec![0; 1 << 20];
    let bomb = Made::new().entry(EntryType::Regular, b"zeros", b"", 0o644, &zeros).end();
    let two = Made::new().file("a", "").file("b", "").end();
    let mut long = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(0);
    long.append_data(&mut header, "n".repeat(200_000), &[][..]).unwrap();
    let long = long.into_inner().unwrap();
    let deep = Made::new().dir("a/b/c/d").end();
    for (archive, rules, key) in [
        (&bomb, small(|it| it.unpacked_bytes_max = 1 << 19), "unpacked_bytes_max"),
        (&two, small(|it| it.entries_max = 1), "entries_max"),
        (&long, small(|it| it.header_bytes_max = 100_000), "header_bytes_max"),
        (&long, small(|it| it.path_bytes_max = 4_096), "path_bytes_max"),
        (&deep, small(|it| it.depth_max = 3), "depth_max"),
    ] {
        let error = unpack(archive, dir.path(), &rules).unwrap_err();
        assert!(error.to_string().contains(key), "{key}: {error}");
    }
    // A header that claims more than there is costs neither memory nor disk.
    let mut header = Header::new_gnu();
    header.set_path("much").unwrap();
    header.set_size(1 << 40);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    let mut cut = header.as_bytes().to_vec();
    cut.extend([1; 512]);
    assert!(unpack(&cut, dir.path(), &rules()).is_err());
    assert!(unpack(&bomb[..1_024], dir.path(), &rules()).is_err(), "an archive that is cut is damaged");
}

#[test]
fn whiteouts_are_noted_and_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Made::new()
        .file("a/.wh.gone", "")
        .file("b/.wh..wh..opq", "")
        .file(".wh.top", "")
        .file(".wh..wh.plnk", "")
        .end();
    let done = unpack(&archive, dir.path(), &rules()).unwrap();
    assert_eq!(done.whiteouts, BTreeSet::from(["a/gone".into(), "top".into()]));
    assert_eq!(done.opaques, BTreeSet::from(["b".into()]));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn zipped(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let options = ::zip::write::SimpleFileOptions::default().unix_permissions(*mode);
        if name.ends_with('/') {
            writer.add_directory(*name, options).unwrap();
        } else if let Some(name) = name.strip_suffix('@') {
            writer.add_symlink(name, std::str::from_utf8(content).unwrap(), options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(content).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

fn unzip(archive: Vec<u8>, into: &Path, rules: &Rules) -> Result<Unpacked, ImageError> {
    let mut tree = Tree::new(into, Owner::Writer)?;
    let done = zip(Cursor::new(archive), &mut tree, rules)?;
    tree.finish().map(|_| done)
}

#[test]
fn zip_archives_obey_the_same_rules() {
    let dir = tempfile::tempdir().unwrap();
    let rules = Rules::archive(Limits::default());
    let archive = zipped(&[("d/", 0o700, b""), ("d/run", 0o755, b"hello"), ("to@", 0o777, b"d/run")]);
    assert_eq!(unzip(archive, dir.path(), &rules).unwrap().bytes, 5);
    assert_eq!(fs::metadata(dir.path().join("to")).unwrap().mode() & 0o777, 0o755);
    assert_eq!(fs::read_to_string(dir.path().join("to")).unwrap(), "hello");
    let zeros = vec![0; 1 << 20];
    for (archive, part) in [
        (zipped(&[("../x", 0o644, b"")]), "has .. in its name"),
        (zipped(&[("/etc/x", 0o644, b"")]), "has an absolute name"),
        (zipped(&[("a@", 0o777, b"/tmp"), ("a/x", 0o644, b"")]), "goes through \"a\""),
        (zipped(&[("zeros", 0o644, &zeros)]), "unpacked_bytes_max"),
        (zipped(&[("a", 0o644, b""), ("b", 0o644, b""), ("c", 0o644, b"")]), "entries_max"),
        (b"no zip".to_vec(), "the zip archive cannot be read"),
    ] {
        let limits = Limits { unpacked_bytes_max: 1 << 19, entries_max: 2, ..Limits::default() };
        let error = unzip(archive, dir.path(), &Rules { limits, ..rules }).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}
