//! What is asked for is in the specification.

use muster_container::{Base, Bind, Bundle, DEFAULT_CAPABILITIES, Ids, Limits, Pids, Process, Rlimit};
use serde_json::{Value, json};

fn bundle() -> Bundle {
    Bundle {
        process: Process {
            program: "/bin/app".into(),
            args: ["app", "-v"].map(str::to_owned).to_vec(),
            env: [("A".to_owned(), "b".to_owned())].into(),
            cwd: "/srv".into(),
            ids: Ids { uid: 0, gid: 0, groups: vec![7] },
            rlimits: vec![Rlimit { name: "RLIMIT_CORE".into(), soft: 0, hard: 1 }],
            capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
        },
        root: "/c/root".into(),
        read_only: true,
        base: Base::Image,
        binds: vec![
            Bind { source: "/a".into(), target: "/b".into(), read_only: true },
            Bind { source: "/c".into(), target: "/d".into(), read_only: false },
        ],
        hostname: Some("name".into()),
        limits: Limits {
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            memory_bytes: Some(64 << 20),
            pids: Some(100),
        },
        cgroup: Some("/muster/a/1".into()),
        pids: Pids::Of("/proc/7/ns/pid".into()),
    }
}

fn spec(bundle: &Bundle) -> Value {
    serde_json::to_value(bundle.spec().unwrap()).unwrap()
}

#[test]
fn all_that_is_asked_for_is_in_the_specification() {
    let spec = spec(&bundle());
    for (pointer, expected) in [
        ("/process/args", json!(["/bin/app", "-v"])),
        ("/process/env", json!(["A=b"])),
        ("/process/cwd", json!("/srv")),
        ("/process/terminal", json!(false)),
        ("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [7]})),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 1}])),
        ("/root", json!({"path": "/c/root", "readonly": true})),
        ("/hostname", json!("name")),
        ("/linux/cgroupsPath", json!("/muster/a/1")),
        ("/linux/resources/memory", json!({"limit": 64 << 20, "swap": 64 << 20})),
        ("/linux/resources/cpu", json!({"shares": 512, "quota": 50_000, "period": 100_000})),
        ("/linux/resources/pids", json!({"limit": 100})),
        ("/linux/resources/devices", json!([{"allow": false, "access": "rwm"}])),
    ] {
        assert_eq!(spec.pointer(pointer), Some(&expected), "{pointer}");
    }
    let mounts = spec["mounts"].as_array().unwrap();
    let targets: Vec<&str> = mounts.iter().map(|it| it["destination"].as_str().unwrap()).collect();
    assert_eq!(targets, ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/b", "/d"]);
    assert_eq!(mounts[6]["options"], json!(["bind", "ro", "rprivate"]));
    assert_eq!(mounts[7]["options"], json!(["rbind", "rw", "rprivate"]));
    let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
    let kinds: Vec<&str> = namespaces.iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["mount", "ipc", "uts", "pid"], "the machine's network, and no user namespace");
    assert_eq!(namespaces[3]["path"], json!("/proc/7/ns/pid"));
}

#[test]
fn what_is_not_asked_for_is_not_in_it() {
    let plain = Bundle {
        limits: Limits::default(),
        hostname: None,
        pids: Pids::Host,
        cgroup: None,
        base: Base::Host,
        ..bundle()
    };
    let spec = spec(&plain);
    for pointer in [
        "/hostname",
        "/linux/cgroupsPath",
        "/linux/resources/memory",
        "/linux/resources/cpu",
        "/linux/resources/pids",
    ] {
        assert_eq!(spec.pointer(pointer), None, "{pointer}");
    }
    assert_eq!(spec["linux"]["namespaces"].as_array().unwrap().len(), 2);
    assert_eq!(spec["mounts"].as_array().unwrap().len(), 7, "its own but for /sys");
}

#[test]
fn who_is_not_root_may_nothing_to_begin_with() {
    let mut bundle = bundle();
    let all = |spec: &Value, set: &str| spec["process"]["capabilities"][set].as_array().map_or(0, Vec::len);
    let root = spec(&bundle);
    assert_eq!((all(&root, "effective"), all(&root, "bounding")), (13, 13));
    bundle.process.ids.uid = 1;
    let other = spec(&bundle);
    assert_eq!(["effective", "permitted", "ambient", "bounding"].map(|set| all(&other, set)), [0, 0, 0, 13]);
}

#[test]
fn names_that_are_none_are_refused() {
    let mut wrong = bundle();
    wrong.process.capabilities = vec!["CAP_NONE".into()];
    assert!(wrong.spec().unwrap_err().to_string().contains("CAP_NONE"));
    let mut wrong = bundle();
    wrong.process.rlimits[0].name = "RLIMIT_NONE".into();
    assert!(wrong.spec().unwrap_err().to_string().contains("RLIMIT_NONE"));
    let mut wrong = bundle();
    wrong.limits.memory_bytes = Some(u64::MAX);
    assert!(wrong.spec().unwrap_err().to_string().contains("too large"));
}
