//! The control groups that runtimes leave.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Removes the group of this path, and what is below it, from every hierarchy. A runtime has each container in all of
/// them, also in those that nobody here sets limits in, and one that was killed removed none. Groups with processes
/// stay, and their paths are told.
pub fn remove_groups(path: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Ok(path) = path.strip_prefix("/") else { return Vec::new() };
    if path.as_os_str().is_empty() {
        return Vec::new();
    }
    let groups = hierarchies(&mounts).into_iter().map(|mount| mount.join(path));
    groups.filter(|group| group.is_dir() && !remove(group)).collect()
}

/// Removes the group of this path from every hierarchy where nothing is in it: neither processes nor other groups.
pub fn remove_empty_groups(path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Ok(path) = path.strip_prefix("/") else { return };
    if path.as_os_str().is_empty() {
        return;
    }
    for mount in hierarchies(&mounts) {
        let _ = fs::remove_dir(mount.join(path)); // refused where something is
    }
}

fn hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let is_one = system.starts_with("cgroup ") || system.starts_with("cgroup2 ");
        is_one.then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    };
    mountinfo.lines().filter_map(mount).collect()
}

fn remove(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let stay = below.filter(|entry| !remove(&entry.path())).count();
    stay == 0 && fs::remove_dir(dir).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_control_groups_are_meant() {
        let text = "31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                    32 25 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                    33 25 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    22 1 8:1 / / rw - ext4 /dev/sda rw\n";
        let found: Vec<_> = hierarchies(text).into_iter().map(|it| it.display().to_string()).collect();
        assert_eq!(found, ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"]);
        assert!(remove_groups(Path::new("/")).is_empty(), "never all of them");
        assert!(remove_groups(Path::new("relative")).is_empty());
    }
}
