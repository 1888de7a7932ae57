//! Whose a process in an image is: names are looked up in the image's own `/etc/passwd` and `/etc/group`.

use crate::below::open_in;
use rustix::io::Errno;
use std::{
    io::{ErrorKind, Read},
    path::Path,
};

/// The most that is read of either file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Groups that one user is a member of.
const GROUPS_MAX: usize = 1_024;

/// A user, by numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// Its other groups, in order.
    pub groups: Vec<u32>,
    /// Where it is at home; `/` where nothing is said.
    pub home: String,
}

/// Finds a user of an image, written `USER[:GROUP]`, each by name or number; empty is root. A number need not be in the
/// image's files; its groups are what they say, else 0.
///
/// # Errors
/// A name is not in the image. The error says which, and of which file.
pub fn user(root: &Path, named: &str) -> Result<User, String> {
    let passwd =
        read_below(root, "etc/passwd").map_err(|error| format!("the image's /etc/passwd: {error}"))?;
    let group = read_below(root, "etc/group").map_err(|error| format!("the image's /etc/group: {error}"))?;
    find(&passwd, &group, named)
}

fn find(passwd: &str, group: &str, named: &str) -> Result<User, String> {
    let (name, group_name) = match named.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (named, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        let uid = fields.get(2).and_then(|uid| uid.parse::<u32>().ok());
        fields.first() == Some(&name) || number.is_some() && uid == number
    });
    let (uid, gid, home, known) = match line {
        Some(fields) => {
            let field = |i: usize| fields.get(i).copied().unwrap_or_default();
            let id = |i: usize| {
                field(i)
                    .parse::<u32>()
                    .map_err(|_| format!("the image's /etc/passwd has a damaged line for {name:?}"))
            };
            (id(2)?, id(3)?, field(5), Some(field(0)))
        }
        None => match number {
            Some(uid) => (uid, 0, "/", None),
            None => return Err(format!("there is no user {name:?} in the image's /etc/passwd")),
        },
    };
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    if let Some(group_name) = group_name {
        // Who names a group gets that one and no other, as with docker.
        return Ok(User { uid, gid: group_id(group, group_name)?, groups: Vec::new(), home });
    }
    let mut groups = Vec::new();
    for fields in group.lines().map(|line| line.split(':').collect::<Vec<_>>()) {
        let is_member =
            known.is_some_and(|user| fields.get(3).is_some_and(|all| all.split(',').any(|it| it == user)));
        if is_member && let Some(id) = fields.get(2).and_then(|id| id.parse::<u32>().ok()) {
            groups.push(id);
        }
        if groups.len() > GROUPS_MAX {
            return Err(format!(
                "the user {name:?} is in more than {GROUPS_MAX} groups of the image's /etc/group"
            ));
        }
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(User { uid, gid, groups, home })
}

fn group_id(group: &str, name: &str) -> Result<u32, String> {
    let of_name = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1).and_then(|id| id.parse().ok())).flatten()
    });
    of_name
        .or_else(|| name.parse().ok())
        .ok_or_else(|| format!("there is no group {name:?} in the image's /etc/group"))
}

/// Reads a file of the image as a process in it would: links are resolved within it. Empty if there is none.
fn read_below(root: &Path, path: &str) -> std::io::Result<String> {
    let file = match open_in(root, Path::new(path)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => return Ok(String::new()),
        done => done?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(std::io::Error::other(format!("it has more than {} MB", FILE_BYTES_MAX >> 20))),
        false => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:100:200::/srv/app:\nodd:x:one:1::/:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\nweb:x:33:app\nnone:x:\n";

    #[test]
    fn names_and_numbers_are_found() {
        let is = |named: &str, uid, gid, groups: &[u32], home: &str| {
            let expected = User { uid, gid, groups: groups.to_vec(), home: home.into() };
            assert_eq!(find(PASSWD, GROUP, named), Ok(expected), "{named}");
        };
        is("", 0, 0, &[10], "/root");
        is("app", 100, 200, &[10, 33], "/srv/app");
        is("100", 100, 200, &[10, 33], "/srv/app");
        is("app:web", 100, 33, &[], "/srv/app");
        is("app:77", 100, 77, &[], "/srv/app");
        is("4711", 4711, 0, &[], "/");
    }

    #[test]
    fn who_is_not_there_is_told() {
        for (named, part) in [
            ("nobody", "no user \"nobody\""),
            ("app:nobody", "no group \"nobody\""),
            ("odd", "damaged line"),
            ("-1", "no user \"-1\""),
            ("4294967296", "no user"),
        ] {
            let why = find(PASSWD, GROUP, named).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    /// The image's links lead within the image, not to the machine's files.
    #[test]
    fn files_are_those_of_the_image() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(user(dir.path(), "7").unwrap().uid, 7);
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        symlink("/etc/real", dir.path().join("etc/passwd")).unwrap();
        assert!(user(dir.path(), "root").is_err(), "a link to nothing");
        fs::write(dir.path().join("etc/real"), "inner:x:5:6::/:\n").unwrap();
        assert_eq!(user(dir.path(), "inner").map(|it| (it.uid, it.gid)), Ok((5, 6)));
        symlink("../../../../../../etc/group", dir.path().join("etc/group")).unwrap();
        assert!(user(dir.path(), "inner").is_ok(), "a link to itself is no file");
    }
}
