//! Against trees of plain files: what is written where. `tests/agent/limits.rs` shows that the kernel heeds it.

use super::*;
use std::{fs, path::Path};

fn file(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

/// A hierarchy with a group `muster/key/1.7.0` in it, which has these files.
fn hierarchy(root: &Path, name: &str, with: &[(&str, &str)]) -> PathBuf {
    let group = root.join(name).join("muster/key/1.7.0");
    fs::create_dir_all(&group).unwrap();
    for dir in [&group, group.parent().unwrap()] {
        with.iter().for_each(|(name, text)| file(dir, name, text));
    }
    group
}

fn part(version: Version, dir: &Path, controllers: &[Controller]) -> Part {
    Part { version, dir: dir.to_owned(), controllers: controllers.iter().copied().collect() }
}

const V1_MEMORY: &[(&str, &str)] = &[
    ("cgroup.procs", ""),
    ("memory.limit_in_bytes", "9223372036854771712\n"),
    ("memory.memsw.limit_in_bytes", "9223372036854771712\n"),
    ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"),
    ("memory.max_usage_in_bytes", "4096\n"),
];
const V1_CPU: &[(&str, &str)] = &[
    ("cgroup.procs", ""),
    ("cpu.shares", "1024\n"),
    ("cpu.cfs_quota_us", "-1\n"),
    ("cpu.cfs_period_us", "100000\n"),
];
const V2: &[(&str, &str)] = &[
    ("cgroup.procs", ""),
    ("cgroup.subtree_control", ""),
    ("cgroup.freeze", "0\n"),
    ("cpu.weight", "100\n"),
    ("cpu.max", "max 100000\n"),
    ("memory.max", "max\n"),
    ("memory.swap.max", "max\n"),
    ("memory.oom.group", "0\n"),
    ("memory.peak", "6\n"),
    ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
    ("pids.max", "max\n"),
];

fn limits() -> Limits {
    Limits {
        cpu_milli: Some(1_500),
        cpu_quota_milli: Some(250),
        memory_bytes: Some(64 << 20),
        pids: Some(40),
    }
}

#[test]
fn version_1_has_its_files_in_each_hierarchy() {
    let root = tempfile::tempdir().unwrap();
    let memory = hierarchy(root.path(), "memory", V1_MEMORY);
    let cpu = hierarchy(root.path(), "cpu,cpuacct", V1_CPU);
    let pids = hierarchy(root.path(), "pids", &[("cgroup.procs", ""), ("pids.max", "max\n")]);
    let group = Group::at(vec![
        part(Version::V1, &memory, &[Controller::Memory]),
        part(Version::V1, &cpu, &[Controller::Cpu, Controller::Cpuacct]),
        part(Version::V1, &pids, &[Controller::Pids]),
    ]);
    group.set(&limits()).unwrap();
    group.join(17).unwrap();
    assert_eq!(read(&cpu, "cpu.shares"), "1536");
    assert_eq!(
        (read(&cpu, "cpu.cfs_quota_us"), read(&cpu, "cpu.cfs_period_us")),
        ("25000".into(), "100000".into())
    );
    assert_eq!(read(&memory, "memory.limit_in_bytes"), "67108864");
    assert_eq!(read(&memory, "memory.memsw.limit_in_bytes"), "67108864");
    assert_eq!(read(&pids, "pids.max"), "40");
    for dir in [&memory, &cpu, &pids] {
        assert_eq!(read(dir, "cgroup.procs"), "17");
    }
    assert_eq!(group.processes(), [17].into());
    // No quota any more, and less memory than anything can start with.
    group.set(&Limits { cpu_quota_milli: None, pids: None, memory_bytes: Some(1), ..limits() }).unwrap();
    assert_eq!((read(&cpu, "cpu.cfs_quota_us"), read(&pids, "pids.max")), ("-1".into(), "max".into()));
    assert_eq!(read(&memory, "memory.limit_in_bytes"), "33554432");
}

#[test]
fn version_1_tells_a_kill_for_its_own_limit_from_one_for_want_of_all_memory() {
    let root = tempfile::tempdir().unwrap();
    let memory = hierarchy(root.path(), "memory", V1_MEMORY);
    let group = Group::at(vec![part(Version::V1, &memory, &[Controller::Memory])]);
    assert_eq!(group.oom(), None);
    file(&memory, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
    assert_eq!(group.oom(), None, "the machine had none");
    file(&memory, "memory.limit_in_bytes", "33554432\n");
    assert_eq!(group.oom(), None, "it was far from its limit");
    file(&memory, "memory.max_usage_in_bytes", "33550336\n");
    assert_eq!(group.oom(), Some(Oom { limit_bytes: 33_554_432, peak_bytes: 33_550_336 }));
}

#[test]
fn groups_of_version_1_are_filled_where_the_processors_are_named() {
    let root = tempfile::tempdir().unwrap();
    let group = hierarchy(root.path(), "cpu,cpuset", V1_CPU);
    let parent = group.parent().unwrap();
    file(parent, "cpuset.cpus", "0-1\n");
    file(parent, "cpuset.mems", "0\n");
    file(&group, "cpuset.cpus", "\n");
    file(&group, "cpuset.mems", "");
    v1::fill(&part(Version::V1, &group, &[Controller::Cpu, Controller::Cpuset])).unwrap();
    assert_eq!((read(&group, "cpuset.cpus"), read(&group, "cpuset.mems")), ("0-1".into(), "0".into()));
}

#[test]
fn version_2_has_all_in_one_directory() {
    let root = tempfile::tempdir().unwrap();
    let dir = hierarchy(root.path(), "unified", V2);
    use Controller::*;
    let group = Group::at(vec![part(Version::V2, &dir, &[Cpu, Cpuacct, Memory, Pids, Freezer])]);
    group.set(&limits()).unwrap();
    for (name, text) in [
        ("cpu.weight", "59"),
        ("cpu.max", "25000 100000"),
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", "40"),
    ] {
        assert_eq!(read(&dir, name), text, "{name}");
    }
    group.set(&Limits { memory_bytes: Some(33 << 20), cpu_quota_milli: None, ..limits() }).unwrap();
    assert_eq!(read(&dir, "memory.max"), "67108864", "never less than was promised: it would kill");
    assert_eq!(read(&dir, "cpu.max"), "max 100000");
    group.set(&Limits { memory_bytes: Some(65 << 20), ..limits() }).unwrap();
    assert_eq!(read(&dir, "memory.max"), (65 << 20).to_string());
    assert_eq!(group.oom(), None);
    file(&dir, "memory.events", "low 0\nmax 9\noom 2\noom_kill 1\n");
    assert_eq!(group.oom(), Some(Oom { limit_bytes: 65 << 20, peak_bytes: 6 }));
}

#[test]
fn a_hybrid_host_has_each_limit_where_its_controller_is() {
    let root = tempfile::tempdir().unwrap();
    let cpu = hierarchy(root.path(), "cpu", V1_CPU);
    let unified = hierarchy(root.path(), "unified", V2);
    let group = Group::at(vec![
        part(Version::V1, &cpu, &[Controller::Cpu]),
        part(Version::V2, &unified, &[Controller::Memory]),
    ]);
    group.set(&limits()).unwrap();
    assert_eq!((read(&cpu, "cpu.shares"), read(&unified, "memory.max")), ("1536".into(), "67108864".into()));
    assert_eq!((read(&unified, "cpu.weight"), read(&unified, "pids.max")), ("100\n".into(), "max\n".into()));
}

#[test]
fn what_cannot_be_enforced_is_said_with_the_reason() {
    let root = tempfile::tempdir().unwrap();
    hierarchy(root.path(), "memory", V1_MEMORY);
    fs::write(root.path().join("plain"), "").unwrap();
    let mounts = Mounts {
        layout: Layout::V1,
        parts: vec![
            part(Version::V1, &root.path().join("memory"), &[Controller::Memory]),
            part(Version::V1, &root.path().join("plain"), &[Controller::Pids]),
        ],
        here: None,
    };
    let groups = Cgroups::open(Path::new("muster"), "key", &mounts).unwrap();
    let can = groups.can();
    assert_eq!(can.memory, Ok(()));
    assert!(can.pids.as_ref().unwrap_err().contains("cannot make the control group"), "{can:?}");
    assert!(can.cpu.as_ref().unwrap_err().contains("cpu controller is not mounted"), "{can:?}");
    assert_eq!(groups.names(), ["1.7.0".to_owned()].into());
    // As long as it is held, it is nobody else's; another key is.
    let error = Cgroups::open(Path::new("/muster"), "key", &mounts).unwrap_err().to_string();
    assert!(error.contains("in use by another agent") && error.contains("muster/key"), "{error}");
    Cgroups::open(Path::new("muster"), "other", &mounts).unwrap();
    drop(groups);
    Cgroups::open(Path::new("muster"), "key", &mounts).unwrap();
    let none = Cgroups::open(Path::new(""), "key", &mounts).unwrap();
    assert!(none.can().memory.as_ref().unwrap_err().contains("cgroup-root is empty"));
    assert!(none.of("1.7.0").is_empty());
}

#[test]
fn version_2_hands_controllers_down_and_says_which_it_could_not() {
    let root = tempfile::tempdir().unwrap();
    hierarchy(root.path(), "unified", V2);
    let mount = root.path().join("unified");
    for dir in [mount.clone(), mount.join("muster")] {
        file(&dir, "cgroup.subtree_control", "memory\n");
    }
    let all = [Controller::Memory, Controller::Pids, Controller::Freezer];
    let mounts = Mounts { layout: Layout::V2, parts: vec![part(Version::V2, &mount, &all)], here: None };
    let groups = Cgroups::open(Path::new("muster"), "key", &mounts).unwrap();
    assert_eq!(
        read(&mount.join("muster/key"), "cgroup.subtree_control"),
        "+pids",
        "the last that was written"
    );
    assert_eq!((&groups.can().memory, &groups.can().pids), (&Ok(()), &Ok(())));
    drop(groups);
    fs::remove_file(mount.join("cgroup.subtree_control")).unwrap();
    let groups = Cgroups::open(Path::new("muster"), "key", &mounts).unwrap();
    let why = groups.can().memory.as_ref().unwrap_err();
    assert!(why.contains("+memory") && why.contains("cgroup.subtree_control"), "{why}");
    assert_eq!(groups.can().freezer, Ok(()), "part of every group");
}

#[test]
fn what_is_used_is_read_of_version_1() {
    let root = tempfile::tempdir().unwrap();
    let memory = hierarchy(root.path(), "memory", V1_MEMORY);
    let cpu = hierarchy(root.path(), "cpu,cpuacct", V1_CPU);
    let pids = hierarchy(root.path(), "pids", &[("cgroup.procs", "17\n18\n"), ("pids.current", "5\n")]);
    for (dir, name, text) in [
        (&memory, "memory.usage_in_bytes", "9000\n"),
        (
            &memory,
            "memory.stat",
            "cache 1\nrss 2\ntotal_cache 100\ntotal_rss 200\ntotal_rss_huge 7\ntotal_swap 3\n",
        ),
        (&cpu, "cpuacct.usage_user", "1500000\n"),
        (&cpu, "cpuacct.stat", "user 300\nsystem 200\n"),
        (&cpu, "cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 2000000\n"),
        (&cpu, "cpu.cfs_quota_us", "25000\n"),
    ] {
        file(dir, name, text);
    }
    let group = Group::at(vec![
        part(Version::V1, &memory, &[Controller::Memory]),
        part(Version::V1, &cpu, &[Controller::Cpu, Controller::Cpuacct]),
        part(Version::V1, &pids, &[Controller::Pids]),
    ]);
    let ticks = rustix::param::clock_ticks_per_second();
    let expected = Usage {
        user_us: Some(1_500),
        system_us: Some(200 * 1_000_000 / ticks),
        quota_milli: Some(250),
        periods: Some(9),
        throttled: Some(4),
        throttled_us: Some(2_000),
        memory: Some(9_000),
        anonymous: Some(200),
        cache: Some(100),
        swap: Some(3),
        processes: Some(2),
        threads: Some(5),
        ..Usage::default()
    };
    assert_eq!(group.usage(), expected);
    file(&cpu, "cpu.cfs_quota_us", "-1\n");
    file(&memory, "memory.limit_in_bytes", "33554432\n");
    assert_eq!(group.usage(), Usage { quota_milli: None, memory_limit: Some(32 << 20), ..expected });
    assert_eq!(Group::at(Vec::new()).usage(), Usage::default());
}

#[test]
fn what_is_used_is_read_of_version_2() {
    use Controller::*;
    let root = tempfile::tempdir().unwrap();
    let dir = hierarchy(root.path(), "unified", V2);
    for (name, text) in [
        ("cgroup.procs", "17\n"),
        (
            "cpu.stat",
            "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1\n",
        ),
        ("cpu.max", "150000 100000\n"),
        ("memory.current", "9000\n"),
        ("memory.swap.current", "10\n"),
        ("memory.stat", "anon 200\nfile 100\nfile_mapped 50\nunevictable 1\n"),
        ("pids.current", "5\n"),
    ] {
        file(&dir, name, text);
    }
    let group = Group::at(vec![part(Version::V2, &dir, &[Cpu, Cpuacct, Memory, Pids, Freezer])]);
    let expected = Usage {
        user_us: Some(5),
        system_us: Some(4),
        quota_milli: Some(1_500),
        periods: Some(3),
        throttled: Some(2),
        throttled_us: Some(1),
        memory: Some(9_000),
        memory_and_swap: Some(9_010),
        memory_limit: None,
        anonymous: Some(200),
        cache: Some(100),
        mapped: Some(50),
        swap: Some(10),
        unevictable: Some(1),
        processes: Some(1),
        threads: Some(5),
    };
    assert_eq!(group.usage(), expected);
    file(&dir, "memory.max", "4096\n");
    file(&dir, "cpu.max", "max 100000\n");
    assert_eq!(group.usage(), Usage { quota_milli: None, memory_limit: Some(4_096), ..expected });
}
