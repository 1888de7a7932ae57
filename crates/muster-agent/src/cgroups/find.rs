//! Which controllers are mounted where.

use super::{Controller, Part, Version};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// How this machine mounts its control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Not at all.
    None,
    V1,
    /// Some controllers by version 1, with version 2 beside.
    Hybrid,
    V2,
}

impl Layout {
    /// In a word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }
}

/// The mounts that are used: each with the controllers that are to be had there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounts {
    pub(crate) layout: Layout,
    pub(crate) parts: Vec<Part>,
    /// Where this process is in the hierarchy of version 2.
    pub(crate) here: Option<PathBuf>,
}

impl Mounts {
    /// Those of this process.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Ok(Self::read(&mounts, &groups))
    }

    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub(super) fn read(mounts: &str, groups: &str) -> Self {
        let (mut v1, mut v2): (Vec<Part>, Option<Part>) = Default::default();
        let mut taken = BTreeSet::new();
        let mut any_v1 = false;
        for line in mounts.lines() {
            let Some((dir, kind, options)) = mount(line) else { continue };
            match kind {
                "cgroup" => {
                    let found = options.split(',').filter_map(Controller::find);
                    // A hierarchy may be mounted at several places: the first will do.
                    let controllers: BTreeSet<_> = found.filter(|it| taken.insert(*it)).collect();
                    any_v1 |= !controllers.is_empty();
                    if !controllers.is_empty() && controllers != BTreeSet::from([Controller::Cpuset]) {
                        v1.push(Part { version: Version::V1, dir, controllers });
                    }
                }
                "cgroup2" if v2.is_none() => {
                    let listed = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
                    let listed = listed.split_whitespace().filter_map(Controller::find);
                    let controllers = listed.filter(|it| *it != Controller::Cpuset).collect();
                    v2 = Some(Part { version: Version::V2, dir, controllers });
                }
                _ => {}
            }
        }
        let layout = match (any_v1, &v2) {
            (false, None) => Layout::None,
            (true, None) => Layout::V1,
            (true, Some(_)) => Layout::Hybrid,
            (false, Some(_)) => Layout::V2,
        };
        let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let here = v2.as_ref().zip(own).map(|(v2, own)| v2.dir.join(own.trim_start_matches('/')));
        let mut parts = v1;
        if let Some(mut v2) = v2 {
            v2.controllers.retain(|it| !taken.contains(it));
            if v2.controllers.contains(&Controller::Cpu) {
                v2.controllers.insert(Controller::Cpuacct);
            }
            if !taken.contains(&Controller::Freezer) {
                v2.controllers.insert(Controller::Freezer);
            }
            if !v2.controllers.is_empty() {
                parts.push(v2);
            }
        }
        Self { layout, parts, here }
    }
}

/// Mount point, kind of file system and its own options.
fn mount(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (mount, system) = line.split_once(" - ")?;
    let dir = unescape(mount.split(' ').nth(4)?);
    let mut system = system.split(' ');
    Some((Path::new(&dir).to_owned(), system.next()?, system.nth(1)?))
}

/// Spaces and the like are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte.into());
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use Controller::*;

    fn names(mounts: &Mounts) -> Vec<(Version, String, Vec<Controller>)> {
        let one = |part: &Part| {
            let name = part.dir.file_name().unwrap().to_string_lossy().into_owned();
            (part.version, name, part.controllers.iter().copied().collect())
        };
        mounts.parts.iter().map(one).collect()
    }

    #[test]
    fn version_1_is_found_with_what_is_mounted_together() {
        let mounts = Mounts::read(
            "22 1 8:1 / / rw - ext4 /dev/sda rw\n\
             31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             32 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             33 25 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             34 25 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
             35 25 0:30 / /mnt/again rw - cgroup cgroup rw,memory\n",
            "4:memory:/x\n",
        );
        assert_eq!(mounts.layout, Layout::V1);
        let found = [
            (Version::V1, "cpu,cpuacct".to_owned(), vec![Cpu, Cpuacct]),
            (Version::V1, "memory".into(), vec![Memory]),
        ];
        assert_eq!(names(&mounts), found, "cpuset alone is of no use");
    }

    #[test]
    fn version_2_has_what_its_root_lists_and_is_a_freezer() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("with space");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("cgroup.controllers"), "cpuset cpu io memory hugetlb pids\n").unwrap();
        let escaped = root.display().to_string().replace(' ', "\\040");
        let line = format!("30 23 0:26 / {escaped} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        let mounts = Mounts::read(&line, "0::/system.slice/muster.service\n");
        assert_eq!(mounts.layout, Layout::V2);
        let all = vec![Cpu, Cpuacct, Memory, Pids, Freezer];
        assert_eq!(names(&mounts), [(Version::V2, "with space".to_owned(), all)]);
        assert_eq!(mounts.here, Some(root.join("system.slice/muster.service")));
    }

    #[test]
    fn a_hybrid_host_has_each_controller_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("unified");
        fs::create_dir(&root).unwrap();
        let mounts = |listed: &str, freezer: &str| {
            fs::write(root.join("cgroup.controllers"), listed).unwrap();
            let text = format!(
                "32 31 0:29 / /c/cpu rw - cgroup cgroup rw,cpu\n{freezer}\
                 41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n",
                root.display()
            );
            Mounts::read(&text, "0::/\n")
        };
        let freezer = "37 31 0:34 / /c/freezer rw - cgroup cgroup rw,freezer\n";
        let v1 = [(Version::V1, "cpu".to_owned(), vec![Cpu]), (Version::V1, "freezer".into(), vec![Freezer])];
        let only_others = mounts("hugetlb\n", freezer);
        assert_eq!((only_others.layout, names(&only_others)), (Layout::Hybrid, v1.to_vec()));
        let both = mounts("memory pids\n", freezer);
        assert_eq!(names(&both)[2], (Version::V2, "unified".to_owned(), vec![Memory, Pids]));
        let no_freezer = mounts("memory\n", "");
        assert_eq!(names(&no_freezer)[1], (Version::V2, "unified".to_owned(), vec![Memory, Freezer]));
        assert_eq!(Mounts::read("22 1 8:1 / / rw - ext4 /dev/sda rw\n", "").layout, Layout::None);
    }
}
