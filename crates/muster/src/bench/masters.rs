//! The measured masters: processes of this program, on loopback.

use super::Shape;
use crate::{cluster::free_ports, parent, sandboxes::agent::Agent};
use anyhow::{Context, bail};
use muster_sdk::OperatorClient;
use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long masters may take until one leads.
const READY: Duration = Duration::from_secs(60);

/// How long all agents may take to connect.
const CONNECTED: Duration = Duration::from_secs(300);

pub(crate) struct Masters {
    children: Vec<Option<Child>>,
    pub(crate) addresses: Vec<String>,
    members: String,
    shards: u32,
    /// Entries after which a snapshot is taken; the default when not set.
    snapshot_every: Option<u64>,
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Masters {
    /// Starts them and waits until one leads.
    pub(crate) async fn start(shape: &Shape) -> anyhow::Result<Self> {
        Self::start_with(shape, None).await
    }

    /// The same, with snapshots after so many entries.
    pub(crate) async fn start_with(shape: &Shape, snapshot_every: Option<u64>) -> anyhow::Result<Self> {
        shape.check()?;
        let (dir, temporary) = match &shape.work_dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let temporary = tempfile::tempdir().context("cannot make a temporary directory")?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        fs::create_dir_all(&dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
        let ports = free_ports(shape.masters)?;
        let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let members: Vec<_> =
            addresses.iter().enumerate().map(|(n, address)| format!("m{}={address}", n + 1)).collect();
        let mut masters = Self {
            children: Vec::new(),
            addresses,
            members: members.join(","),
            shards: shape.shards,
            snapshot_every,
            dir,
            _temporary: temporary,
        };
        for n in 0..shape.masters {
            let child = masters.spawn(n)?;
            masters.children.push(Some(child));
        }
        masters.leader(None).await?;
        Ok(masters)
    }

    fn spawn(&self, n: usize) -> anyhow::Result<Child> {
        let name = format!("m{}", n + 1);
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{name}.log")))?;
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(exe);
        // A group of its own: Ctrl-C is for us, who end it.
        command.process_group(0);
        command.args(["--log", "warn", "master", "--name", &name, "--members", &self.members, "--data-dir"]);
        command.arg(self.dir.join(&name)).args(["--shards", &self.shards.to_string()]);
        if let Some(entries) = self.snapshot_every {
            let path = self.dir.join(format!("{name}.toml"));
            fs::write(&path, format!("[raft]\nsnapshot-entries = {entries}\nsnapshot-mib = 65536\n"))
                .with_context(|| format!("cannot write {}", path.display()))?;
            command.arg("--config").arg(path);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        parent::tie(&mut command).spawn().context("cannot start a master")
    }

    /// Waits until a master leads, other than `not`; returns its number.
    pub(crate) async fn leader(&mut self, not: Option<usize>) -> anyhow::Result<usize> {
        let until = Instant::now() + READY;
        while Instant::now() < until {
            self.check()?;
            for (n, address) in self.addresses.iter().enumerate() {
                if Some(n) == not || self.children[n].is_none() {
                    continue;
                }
                let all = OperatorClient::new(vec![address.clone()]).raft_status().await;
                if all.iter().any(|it| it.status.as_ref().is_ok_and(|said| said.state == "leader")) {
                    return Ok(n);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("no master leads after 60 s; see the logs in {}", self.dir.display())
    }

    /// Fails when a master has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for (n, child) in self.children.iter_mut().enumerate() {
            let Some(status) = child.as_mut().and_then(|child| child.try_wait().transpose()) else {
                continue;
            };
            let log = fs::read_to_string(self.dir.join(format!("m{}.log", n + 1))).unwrap_or_default();
            let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            bail!("master m{} ended ({}): {last}", n + 1, status?);
        }
        Ok(())
    }

    /// Waits until every master has applied what the leader has committed.
    pub(crate) async fn caught_up(&self) -> anyhow::Result<()> {
        let until = Instant::now() + READY;
        while Instant::now() < until {
            let all = OperatorClient::new(self.addresses.clone()).raft_status().await;
            let said: Vec<_> = all.iter().filter_map(|it| it.status.as_ref().ok()).collect();
            let committed = said.iter().map(|it| it.committed_index).max().unwrap_or(0);
            let behind = said.iter().any(|it| it.applied_index + 64 < committed || it.leader.is_none());
            if said.len() == self.addresses.len() && !behind {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("a restarted master did not catch up within 60 s; see the logs in {}", self.dir.display())
    }

    /// Waits until so many agents are connected to the leader.
    pub(crate) async fn agents_connected(&mut self, agents: usize) -> anyhow::Result<()> {
        let until = Instant::now() + CONNECTED;
        let mut connected = 0.0;
        while Instant::now() < until {
            let leader = self.leader(None).await?;
            connected = self.metric(leader, "master/slaves_connected").await.unwrap_or(0.0);
            if connected >= agents as f64 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("only {connected} of {agents} agents are connected after {} s", CONNECTED.as_secs())
    }

    /// What the nth master says in `/metrics/snapshot` under this name.
    pub(crate) async fn metric(&self, n: usize, name: &str) -> anyhow::Result<f64> {
        let all = Agent::new(None).metrics(&self.addresses[n]).await?;
        all.get(name).copied().with_context(|| format!("master m{} has no metric {name}", n + 1))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, n: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.children[n].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn restart(&mut self, n: usize) -> anyhow::Result<()> {
        self.children[n] = Some(self.spawn(n)?);
        Ok(())
    }

    /// SIGKILL for all of them.
    pub(crate) fn kill_all(&mut self) -> anyhow::Result<()> {
        (0..self.children.len()).try_for_each(|n| self.kill(n))
    }

    /// Starts all of them that do not run.
    pub(crate) fn restart_all(&mut self) -> anyhow::Result<()> {
        for n in 0..self.children.len() {
            if self.children[n].is_none() {
                self.restart(n)?;
            }
        }
        Ok(())
    }

    /// Entries after which a snapshot is taken by masters that start from now on.
    pub(crate) fn set_snapshots(&mut self, every: u64) {
        self.snapshot_every = Some(every);
    }

    /// Where the nth master's log and snapshots are.
    pub(crate) fn data_dir(&self, n: usize) -> PathBuf {
        self.dir.join(format!("m{}", n + 1))
    }

    /// The resident memory of each master, in bytes.
    pub(crate) fn rss(&self) -> Vec<f64> {
        self.children.iter().flatten().map(|child| rss_kib(child).unwrap_or(0.0) * 1024.0).collect()
    }

    /// The resident memory of the largest master, in MiB.
    pub(crate) fn rss_mib(&self) -> f64 {
        self.children.iter().flatten().filter_map(rss_kib).fold(0.0, f64::max) / 1024.0
    }

    /// The processor time that each master has used, in seconds.
    pub(crate) fn cpu_secs(&self) -> Vec<f64> {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let of = |child: &Child| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
            let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / ticks)
        };
        self.children.iter().flatten().filter_map(of).collect()
    }
}

/// A process's resident memory, in KiB.
fn rss_kib(child: &Child) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Drop for Masters {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
