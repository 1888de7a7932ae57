//! What a user can get wrong before anything runs: one sentence that names the thing and the fix, an exit code
//! that is not 0, and nothing overwritten.

#![allow(clippy::unwrap_used)]

use muster_testkit::{Plan, TestCluster};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn muster(args: &[&str]) -> Command {
    let binary = std::env::var_os("MUSTER_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_muster").into());
    let mut command = Command::new(binary);
    command.args(args).env_remove("MUSTER_MASTER").env_remove("MUSTER_LOG").stdin(Stdio::null());
    command
}

/// A process that is to run until the test ends.
struct Running(Child);

impl Running {
    /// Starts it and waits until it logs this.
    fn start(args: &[&str], logs: &str) -> Self {
        let mut child = muster(args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let this = Self(child);
        let mut lines = Vec::new();
        let mut said = said.lines();
        for line in said.by_ref().map(Result::unwrap) {
            if line.contains(logs) {
                // Somebody must go on reading, lest it block.
                std::thread::spawn(move || said.for_each(drop));
                return this;
            }
            lines.push(line);
        }
        panic!("it never logged {logs:?}: {lines:#?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs something that must end by itself, and soon.
fn output(args: &[&str]) -> Output {
    let mut child = muster(args).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= until {
            child.kill().unwrap();
            panic!("it runs on: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::yield_now();
    }
    child.wait_with_output().unwrap()
}

/// One sentence on standard error that has all these parts, and no success.
#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let output = output(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("muster: ")).collect();
    assert!(!output.status.success() && errors.len() == 1, "{:?}: {said}", output.status);
    let missing: Vec<_> = parts.iter().filter(|part| !errors[0].contains(**part)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in {:?}", errors[0]);
}

/// All files below a directory with their bytes; the lock is held, not written.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file() && entry.file_name() != "lock");
    files.map(|entry| (entry.path().to_owned(), std::fs::read(entry.path()).unwrap())).collect()
}

/// A single master's directory and address.
struct Master {
    dir: tempfile::TempDir,
    members: String,
}

impl Master {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { dir: tempfile::tempdir().unwrap(), members: format!("m1=127.0.0.1:{port}") }
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("m1")
    }

    fn args(&self) -> Vec<String> {
        let data_dir = self.data_dir().to_str().unwrap().to_owned();
        ["master", "--name", "m1", "--members", &self.members, "--data-dir", &data_dir]
            .map(String::from)
            .into()
    }

    fn run(&self) -> Running {
        let args = self.args();
        Running::start(&args.iter().map(String::as_str).collect::<Vec<_>>(), "leading")
    }

    /// One that led and was killed.
    fn with_data() -> Self {
        let this = Self::new();
        drop(this.run());
        this
    }

    /// It must not start, and must leave everything as it is.
    #[track_caller]
    fn is_refused(&self, change: impl FnOnce(&mut Vec<String>), parts: &[&str]) {
        let mut args = self.args();
        change(&mut args);
        let before = contents(&self.data_dir());
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), parts);
        let after = contents(&self.data_dir());
        let changed: Vec<_> =
            before.iter().filter(|(path, bytes)| after.get(*path) != Some(*bytes)).collect();
        let changed: Vec<_> = changed.into_iter().map(|(path, _)| path).collect();
        let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
        assert!(changed.is_empty() && new.is_empty(), "changed: {changed:?}, new: {new:?}");
    }
}

#[test]
fn a_configuration_with_an_unknown_key_or_a_wrong_unit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("muster.toml");
    let path = file.to_str().unwrap();
    for (what, text, parts) in [
        ("master", "[raft]\nheartbeat-s = 1\n", ["heartbeat-s", "heartbeat-ms"]),
        ("master", "data_dir = 'x'\n", ["data_dir", "data-dir"]),
        ("master", "[raft]\nheartbeat-ms = '50ms'\n", ["heartbeat-ms", "line 2"]),
        ("agent", "master = ['a:1']\n", ["master", "masters"]),
        ("agent", "kill-grace-ms = '5s'\n", ["kill-grace-ms", "line 1"]),
    ] {
        std::fs::write(&file, text).unwrap();
        refused(&[what, "--config", path], &[path, parts[0], parts[1]]);
        assert_eq!(contents(dir.path()).len(), 1, "something was made beside the configuration");
    }
    let work_dir = dir.path().join("work");
    let args = ["agent", "--resources", "cpus:four", "--work-dir", work_dir.to_str().unwrap()];
    refused(&args, &["cpus:four", "not a number"]);
    assert!(!work_dir.exists());
}

#[test]
fn a_configuration_with_a_wrong_value() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("muster.toml");
    let path = file.to_str().unwrap();
    // What is wrong, and words of how it becomes right.
    for (what, text, parts) in [
        (
            "master",
            "[raft]\nheartbeat-ms = 100\n",
            ["raft.election-ms-min", "at least twice raft.heartbeat-ms"],
        ),
        ("master", "[raft]\nelection-ms-max = 100\n", ["raft.election-ms-max", "greater than"]),
        ("master", "[raft]\nheartbeat-ms = -1\n", ["heartbeat-ms = -1", "expected"]),
        ("master", "[raft]\nsnapshot-mib = 0\n", ["raft.snapshot-mib", "1 to 65536"]),
        (
            "master",
            "[allocator]\naffinity-weight = 2.0\n",
            ["allocator.affinity-weight", "between 0.0 and 1.0"],
        ),
        ("master", "[allocator.weights]\nweb = 0.0\n", ["allocator.weights.web", "between 0.001"]),
        ("master", "[session]\nping-ms = 0\n", ["session.ping-ms", "must not be 0"]),
        ("master", "creator = 'm9'\n", ["creator \"m9\"", "name one of them"]),
        ("master", "[members]\nm1 = 'localhost'\n", ["members.m1 \"localhost\"", "HOST:PORT"]),
        ("agent", "masters = []\n", ["masters is empty", "host:port"]),
        ("agent", "masters = ['localhost']\n", ["\"localhost\" is not host:port", "for example"]),
        ("agent", "dial-ms = 5000\n", ["dial-ms is 5000", "dial-ms-max, which is 2000"]),
        ("agent", "tasks-max = 0\n", ["tasks-max is 0", "must be 1 to"]),
        ("agent", "resources = 'cpus:four'\n", ["resources: ", "cpus:four"]),
        ("agent", "attributes = 'rack'\n", ["attributes: ", "NAME:VALUE"]),
        ("agent", "work-dir = ''\n", ["work-dir is empty", "name a directory"]),
    ] {
        std::fs::write(&file, text).unwrap();
        refused(&[what, "--config", path], &[path, parts[0], parts[1]]);
        assert_eq!(contents(dir.path()).len(), 1, "something was made beside the configuration");
    }
    // What a flag got wrong is not the file's fault.
    std::fs::write(&file, "[raft]\nheartbeat-ms = 40\n").unwrap();
    let output = output(&["master", "--config", path, "--members", "m1=localhost"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("HOST:PORT") && !said.contains(path), "{said}");
}

#[test]
fn a_list_of_masters_that_contradicts_itself() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let master = |members: &str, parts: &[&str]| {
        refused(
            &["master", "--name", "m1", "--members", members, "--data-dir", data_dir.to_str().unwrap()],
            parts,
        );
        assert!(!data_dir.exists());
    };
    master("m2=127.0.0.1:2,m3=127.0.0.1:3,m4=127.0.0.1:4", &["\"m1\" is not among", "m2, m3, m4", "--name"]);
    master("m1=127.0.0.1:1,m2=127.0.0.1:1,m3=127.0.0.1:3", &["m1", "m2", "one address 127.0.0.1:1"]);
    master("m1=127.0.0.1:1,m1=127.0.0.1:2,m3=127.0.0.1:3", &["\"m1\" is listed twice"]);
    master("m1=127.0.0.1:1,m2=127.0.0.1:2", &["2 members", "1, 3 or 5"]);
    master("m1=localhost", &["localhost", "HOST:PORT"]);
    master("127.0.0.1:5050", &["127.0.0.1:5050", "NAME=HOST:PORT"]);
}

#[test]
fn a_port_in_use() {
    let master = Master::with_data();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listen = |args: &mut Vec<String>| args.extend(["--listen".into(), address.clone()]);
    master.is_refused(listen, &[&address, "--listen", "in use"]);
    drop(master.run());
}

#[test]
fn a_data_directory_in_use_by_another_process() {
    let master = Master::new();
    let mut running = master.run();
    let data_dir = master.data_dir();
    let mut args = master.args();
    args.extend(["--listen".into(), "127.0.0.1:0".into()]);
    let parts = [data_dir.to_str().unwrap(), "in use by another process", "--data-dir"];
    refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), &parts);
    // Whoever has it goes on, and finds all as it left it.
    assert!(running.0.try_wait().unwrap().is_none(), "the first master ended");
    drop(running);
    drop(master.run());
}

#[test]
fn a_data_directory_of_another_master() {
    let master = Master::with_data();
    let data_dir = master.data_dir();
    let rename = |args: &mut Vec<String>| {
        args[2] = "m2".into();
        args[4] = args[4].replace("m1=", "m2=");
    };
    master.is_refused(rename, &[data_dir.to_str().unwrap(), "belongs to the master m1", "m2"]);
    drop(master.run());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_another_cluster() {
    let three = || TestCluster::start(Plan { agents: 0, ..Plan::steady() });
    let (cluster, other) = (three().await.unwrap(), three().await.unwrap());
    let id = async |cluster: &TestCluster| cluster.status("m1").await.unwrap().cluster_id;
    let (ours, theirs) = (id(&cluster).await, id(&other).await);
    let (leader, term) = cluster.serving().await.unwrap();
    let stranger = cluster.master_names().into_iter().find(|name| *name != leader).unwrap();
    cluster.kill(&stranger).unwrap();
    for name in other.master_names() {
        other.kill(&name).unwrap();
    }
    let members: Vec<_> = cluster.master_names().into_iter().zip(cluster.masters()).collect();
    let list =
        members.iter().map(|(name, address)| format!("{name}={address}")).collect::<Vec<_>>().join(",");
    let data_dir = other.dir().join(&stranger);
    let mark = std::fs::read(data_dir.join("mark")).unwrap();
    let (_, peer) = members.iter().find(|(name, _)| *name == leader).unwrap();
    let path = data_dir.to_str().unwrap();
    refused(
        &["master", "--name", &stranger, "--members", &list, "--data-dir", path],
        &[path, &ours, &theirs, &format!("{leader} at {peer}"), "with an empty one"],
    );
    // It neither voted nor wrote, and the others went on as they were.
    assert_eq!(std::fs::read(data_dir.join("mark")).unwrap(), mark);
    assert_eq!(cluster.serving().await.unwrap(), (leader, term));
    // With its own directory it is one of them.
    cluster.restart(&stranger).unwrap();
    cluster.caught_up(&stranger).await.unwrap();
    assert!(cluster.error_lines().is_empty(), "{:?}", cluster.error_lines());
}

#[test]
fn a_data_directory_of_a_newer_version() {
    const SLOT_BYTES: usize = 64 << 10;
    let master = Master::with_data();
    let mark = master.data_dir().join("mark");
    let mut bytes = std::fs::read(&mark).unwrap();
    for at in [0, SLOT_BYTES] {
        if bytes.len() > at && bytes[at..].starts_with(b"MUSTERMK") {
            let slot = &mut bytes[at..];
            slot[8] = 200; // the layout
            let length = u32::from_le_bytes(slot[20..24].try_into().unwrap()) as usize;
            let sum = crc32c(slot[..24].iter().chain(&slot[28..28 + length]));
            slot[24..28].copy_from_slice(&sum.to_le_bytes());
        }
    }
    std::fs::write(&mark, bytes).unwrap();
    master.is_refused(|_| {}, &[master.data_dir().to_str().unwrap(), "newer version", "layout 200"]);
}

fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn a_damaged_data_directory() {
    // The mark, the log, and a log that is gone: each with nobody to catch up from.
    let spoil = |name: &str, spoil: &dyn Fn(&Path)| {
        let master = Master::with_data();
        let data_dir = master.data_dir();
        spoil(&data_dir.join(name));
        for _ in 0..2 {
            master.is_refused(|_| {}, &[data_dir.to_str().unwrap(), "is damaged", "backup"]);
        }
    };
    let garbage = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
        std::fs::write(path, bytes).unwrap();
    };
    spoil("mark", &garbage);
    spoil("mark", &|path| std::fs::remove_file(path).unwrap());
    spoil("log", &|path| std::fs::remove_dir_all(path).unwrap());
    spoil("log/db", &garbage);
    spoil("log/db", &|path| std::fs::write(path, b"").unwrap());
}

#[test]
fn a_data_directory_that_cannot_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let path = file.to_str().unwrap();
    refused(
        &[
            "master",
            "--name",
            "m1",
            "--members",
            "m1=127.0.0.1:1",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            path,
        ],
        &[path],
    );
    refused(&["agent", "--masters", "127.0.0.1:1", "--work-dir", path, "--runtime-dir", path], &[path]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn a_work_directory_in_use_by_another_agent() {
    let dir = tempfile::tempdir().unwrap();
    let (work, runtime) = (dir.path().join("work"), dir.path().join("run"));
    let (work, runtime) = (work.to_str().unwrap(), runtime.to_str().unwrap());
    let args = ["agent", "--masters", "127.0.0.1:1", "--work-dir", work, "--runtime-dir", runtime];
    let mut first = Running::start(&args, "agent starts");
    refused(&args, &[work, "in use by another agent", "work-dir of its own"]);
    assert!(first.0.try_wait().unwrap().is_none(), "the first agent ended");
}
