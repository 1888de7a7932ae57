//! A Docker engine of a test's own, which ends with it.

use crate::world::{alive, children};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long an engine may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Engine {
    dir: TempDir,
    daemon: Child,
    /// The control group of containers that nobody names one for.
    group: String,
}

/// Whether there is one to start.
pub(crate) fn is_here() -> bool {
    let has = |program| Command::new(program).arg("--version").output().is_ok_and(|it| it.status.success());
    has("dockerd") && has("docker") && has("setpriv")
}

impl Engine {
    /// Starts one, with the image `busybox:1` of this root file system. To be called by a thread that lives as long as
    /// the engine shall. Containers that name no control group are below this one.
    pub(crate) fn start(root: &Path, groups: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let group = format!("/{groups}/engine");
        let engine = Self { daemon: daemon(dir.path(), &group), dir, group };
        engine.ready();
        let mut tar =
            Command::new("tar").arg("-C").arg(root).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
        let import =
            engine.command(&["import", "-", "busybox:1"]).stdin(tar.stdout.take().unwrap()).output().unwrap();
        assert!(tar.wait().unwrap().success() && import.status.success(), "{import:?}");
        engine
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg(format!("--host=unix://{}", self.socket().display())).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What its command line says.
    pub(crate) fn said(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Waits until it has heard that the kernel killed something for want of memory.
    pub(crate) async fn hears_of_memory(&self) {
        while self.said(&["events", "--filter=event=oom", "--since=0", "--until=0s"]).is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The names of all containers.
    pub(crate) fn containers(&self) -> Vec<String> {
        self.said(&["ps", "--all", "--format={{.Names}}"]).lines().map(str::to_owned).collect()
    }

    fn ready(&self) {
        let begun = Instant::now();
        while !self.run(&["info"]).status.success() {
            if begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                panic!("no engine within {PATIENCE:?}: {log}");
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Kills it, but for its containers.
    pub(crate) fn kill(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.end_containerd();
    }

    /// Starts it again.
    pub(crate) fn start_again(&mut self) {
        // Of the former, which nobody may have reaped yet.
        for name in ["pid", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(self.dir.path().join(name));
        }
        self.daemon = daemon(self.dir.path(), &self.group);
        self.ready();
    }

    fn end_containerd(&self) {
        let config = self.dir.path().join("exec/containerd/containerd.toml");
        end(|| with_argument(&config));
    }

    /// What it started for its containers, and these: they outlive it.
    fn end_shims(&self) {
        let socket = self.dir.path().join("exec/containerd/containerd.sock");
        end(|| {
            let shims = with_argument(&socket);
            let of_shims = shims.iter().flat_map(|shim| children(shim)).filter(|pid| alive(pid));
            of_shims.collect::<Vec<_>>().into_iter().chain(shims).collect()
        });
    }
}

/// Kills processes until there are none.
fn end(left: impl Fn() -> Vec<String>) {
    let begun = Instant::now();
    loop {
        let left = left();
        if left.is_empty() || begun.elapsed() > PATIENCE {
            return;
        }
        for pid in left.iter().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL); // it may have ended
        }
        std::thread::sleep(PAUSE);
    }
}

/// The processes that have this argument, which is a path of one engine's own.
fn with_argument(path: &Path) -> Vec<String> {
    let wanted = path.display().to_string();
    let has = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == wanted.as_bytes())
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(has).collect()
}

fn daemon(dir: &Path, group: &str) -> Child {
    let path = |name: &str| dir.join(name).display().to_string();
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    // It ends with this thread, whatever becomes of that.
    Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "dockerd", "--live-restore", "--bridge=none", "--iptables=false"])
        .args(["--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false"])
        .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
        .arg(format!("--host=unix://{}", path("socket")))
        .args(["--cgroup-parent", group])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Engine {
    /// Leaves nothing running: neither containers, nor the engine, nor what it started.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the engine's log, the last first:\n{}", last.join("\n"));
        }
        let all = self.run(&["ps", "--all", "--quiet"]);
        for id in String::from_utf8_lossy(&all.stdout).lines() {
            self.run(&["rm", "--force", "--volumes", id]);
        }
        self.run(&["network", "prune", "--force"]);
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM); // it may have ended
        let begun = Instant::now();
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if begun.elapsed() > PATIENCE {
                let _ = self.daemon.kill(); // it hangs
            }
            std::thread::sleep(PAUSE);
        }
        self.end_containerd();
        self.end_shims();
        // What it had mounted where it was killed would keep its directory.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let here = self.dir.path().display().to_string();
        for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if mount.starts_with(&here) {
                let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}
