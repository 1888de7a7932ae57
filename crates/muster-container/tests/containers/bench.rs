//! Where one container is tried: its directory, its root file system of busybox, its control group, and its driver.

use muster_container::{
    Base, Bundle, DEFAULT_CAPABILITIES, Ids, Kind, Limits, Pids, Process, find_program, remove_groups,
};
use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const DRIVER: &str = env!("CARGO_BIN_EXE_muster-container-driver");
const MARK: &str = "MUSTER_CONTAINER_TEST";
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether what cannot run is a failure.
pub(crate) fn must_run() -> bool {
    env::var("CI").is_ok_and(|it| it == "true") && rustix::process::geteuid().is_root()
}

/// A runtime to try.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    name: String,
    kind: Kind,
}

impl Tried {
    pub(crate) fn is_native(&self) -> bool {
        self.kind == Kind::Native
    }
}

/// The runtimes of this machine, and why others are not.
#[derive(Debug)]
pub(crate) struct Kinds {
    pub(crate) there: Vec<Tried>,
    pub(crate) missing: BTreeMap<String, String>,
}

impl Kinds {
    pub(crate) fn find() -> &'static Self {
        static FOUND: OnceLock<Kinds> = OnceLock::new();
        FOUND.get_or_init(|| {
            let mut all = Self { there: Vec::new(), missing: BTreeMap::new() };
            for name in ["native", "runc", "crun"] {
                match Self::try_one(name) {
                    Ok(tried) => all.there.push(tried),
                    Err(why) => drop(all.missing.insert(name.into(), why)),
                }
            }
            all
        })
    }

    fn try_one(name: &str) -> Result<Tried, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it needs root".into());
        }
        busybox().ok_or("there is no static busybox; install busybox-static")?;
        let kind = match name {
            "native" => Kind::Native,
            _ => Kind::Oci(find_program(name).ok_or_else(|| format!("{name} is not installed"))?),
        };
        let tried = Tried { name: name.into(), kind };
        let bench = Bench::new(&tried);
        let mut run = bench.try_create(&bench.command(&["true"]))?;
        match (run.ask("start").as_str(), run.ask("wait").as_str(), run.ask("delete").as_str()) {
            ("ok", "exited 0", "ok") => Ok(tried),
            other => Err(format!("it cannot run true: {other:?}")),
        }
    }
}

/// Runs a test with each.
pub(crate) fn each(test: impl Fn(&Tried)) {
    let kinds = Kinds::find();
    for (name, why) in &kinds.missing {
        println!("{name} is skipped: {why}");
        assert!(!must_run() || name == "crun", "{name} is skipped: {why}");
    }
    for kind in &kinds.there {
        println!("with {}", kind.name);
        test(kind);
    }
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The number after a key, of which each has a line of its own.
pub(crate) fn keyed(text: &str, key: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {key} in {text}"))
}

/// A busybox that needs no libraries.
fn busybox() -> Option<PathBuf> {
    let path = PathBuf::from("/bin/busybox");
    let bytes = fs::read(&path).ok()?;
    (!has_interpreter(&bytes)?).then_some(path)
}

/// Whether an ELF file of 64 bits names a loader.
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    let number = |at: usize, n: usize| {
        Some(elf.get(at..at + n)?.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut kinds = (0..count).filter_map(|i| number(offset + i * size, 4));
    Some(kinds.any(|kind| kind == 3))
}

pub(crate) struct Bench {
    dir: TempDir,
    id: String,
    kind: Kind,
    init: bool,
}

impl Bench {
    pub(crate) fn new(tried: &Tried) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let dir = tempfile::Builder::new().prefix("muster-container-").tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("muster-test-{}-{number}", std::process::id());
        let root = dir.path().join("root");
        for name in ["bin", "etc", "proc", "dev", "sys", "tmp", "srv"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let busybox = busybox().unwrap();
        fs::copy(&busybox, root.join("bin/busybox")).unwrap();
        let list = Command::new(&busybox).arg("--list").output().unwrap();
        for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|it| *it != "busybox") {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        // Others than root go through it, too.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), open).unwrap();
        Self { dir, id, kind: tried.kind.clone(), init: true }
    }

    pub(crate) fn init(mut self, init: bool) -> Self {
        self.init = init;
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir().join("root")
    }

    pub(crate) fn group(&self) -> PathBuf {
        Path::new("/").join(&self.id)
    }

    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        let path = self.dir().join("volumes").join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Bundle {
        let env =
            [("PATH", "/bin"), (MARK, &self.id)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Bundle {
            process: Process {
                program: args[0].to_owned(),
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                env: env.into(),
                cwd: "/".into(),
                ids: Ids::default(),
                rlimits: Vec::new(),
                capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
            },
            root: self.root(),
            read_only: false,
            base: Base::Image,
            binds: Vec::new(),
            hostname: None,
            limits: Limits::default(),
            cgroup: Some(self.group()),
            pids: Pids::Own,
        }
    }

    pub(crate) fn shell(&self, script: &str) -> Bundle {
        self.command(&["sh", "-c", script])
    }

    pub(crate) fn try_create(&self, bundle: &Bundle) -> Result<Run, String> {
        let plan = serde_json::json!({
            "kind": self.kind, "dir": self.dir().join("container"), "id": self.id, "bundle": bundle,
            "init": self.init, "output": self.dir().join("output"),
        });
        let path = self.dir().join("plan.json");
        fs::write(&path, plan.to_string()).unwrap();
        let mut command = Command::new(DRIVER);
        command.arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut run = Run { child, input, output, pid: 0, pause: 0 };
        let created = run.hear();
        let Some(pids) = created.strip_prefix("created ") else { return Err(created) };
        let (pid, pause) = pids.split_once(' ').unwrap();
        (run.pid, run.pause) = (pid.parse().unwrap(), pause.parse().unwrap());
        Ok(run)
    }

    pub(crate) fn create(&self, bundle: &Bundle) -> Run {
        self.try_create(bundle).unwrap()
    }

    pub(crate) fn refused(&self, bundle: &Bundle) -> String {
        self.try_create(bundle).map(|_| "made").unwrap_err()
    }

    /// All of its life.
    pub(crate) fn run(&self, bundle: &Bundle) -> String {
        let mut run = self.create(bundle);
        assert_eq!(run.ask("start"), "ok");
        let end = run.ask("wait");
        assert_eq!(run.ask("delete"), "ok");
        end
    }

    /// Waits until its command is this one: a signal before would reach the runtime.
    pub(crate) fn runs(&self, run: &Run, name: &str) {
        eventually("the command runs", || {
            fs::read_to_string(format!("/proc/{}/cmdline", run.pid)).is_ok_and(|text| text.starts_with(name))
        });
    }

    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.dir().join("output")).unwrap_or_default()
    }

    /// A file of its group, in a hierarchy of version 1 or, without a controller, in version 2 alone.
    pub(crate) fn group_file(&self, controller: &str, name: &str) -> Option<String> {
        let dir = Path::new("/sys/fs/cgroup").join(controller);
        let dir = dir.join(self.group().strip_prefix("/").unwrap());
        fs::read_to_string(dir.join(name)).ok()
    }

    /// The processes that are marked as its own.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.id);
        let is_marked = |pid: &u32| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|text| text.split(|byte| *byte == 0).any(|one| one == mark.as_bytes()))
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|it| it.file_name().to_str()?.parse().ok()).filter(is_marked).collect()
    }

    /// Processes, mounts and groups that are still there.
    pub(crate) fn left(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.dir().display().to_string();
        let mounts = mounts.lines().filter(|line| line.contains(&here)).map(str::to_owned);
        let processes = self.processes().into_iter().map(|pid| format!("process {pid}"));
        let entries = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|it| it.path());
        let places = entries.chain([PathBuf::from("/sys/fs/cgroup")]);
        let groups = places.map(|it| it.join(self.group().strip_prefix("/").unwrap()));
        let groups = groups.filter(|it| it.exists()).map(|it| it.display().to_string());
        mounts.chain(processes).chain(groups).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Of a test that failed; its driver is dead by now.
        let begun = Instant::now();
        while !remove_groups(&self.group()).is_empty() && begun.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A driver and its container.
pub(crate) struct Run {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) pid: u32,
    /// 0 if there is none.
    pub(crate) pause: u32,
}

impl Run {
    pub(crate) fn ask(&mut self, line: &str) -> String {
        let input = self.input.as_mut().unwrap();
        // One that is gone says so by its silence.
        let _ = writeln!(input, "{line}").and_then(|()| input.flush());
        self.hear()
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// As if it had been killed.
    pub(crate) fn die(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
