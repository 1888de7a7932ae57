//! The measured masters: processes of this program, on loopback.

use super::{Shape, cables::Cables};
use crate::{cluster::free_ports, parent, sandboxes::agent::Agent};
use anyhow::{Context, bail, ensure};
use muster_sdk::OperatorClient;
use rustix::process::{Pid, Signal, kill_process};
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
    /// Asks all of them, over connections that are kept: a master that has all clients it may have takes no new ones.
    operator: OperatorClient,
    /// Between them, where the network is to be cut.
    cables: Option<Cables>,
    shards: u32,
    /// Settings, as in a file of them, a line each.
    settings: Vec<String>,
    /// Entries after which a snapshot is taken; the default when not set.
    snapshot_every: Option<u64>,
    dir: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Masters {
    /// Starts them and waits until one leads.
    pub(crate) async fn start(shape: &Shape) -> anyhow::Result<Self> {
        Self::start_as(shape, None, false).await
    }

    /// The same, with snapshots after so many entries.
    pub(crate) async fn start_with(shape: &Shape, snapshot_every: Option<u64>) -> anyhow::Result<Self> {
        Self::start_as(shape, snapshot_every, false).await
    }

    /// The same, with cables between them.
    pub(crate) async fn start_with_cables(shape: &Shape) -> anyhow::Result<Self> {
        Self::start_as(shape, None, true).await
    }

    async fn start_as(shape: &Shape, snapshot_every: Option<u64>, with_cables: bool) -> anyhow::Result<Self> {
        shape.check()?;
        let (dir, temporary) = match &shape.work_dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let temporary = tempfile::tempdir().context("cannot make a temporary directory")?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        fs::create_dir_all(&dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
        ensure!(
            !dir.join("m1").exists(),
            "--work-dir: {} holds the data of an earlier run; name an empty directory, or remove what is in it",
            dir.display()
        );
        let ports = free_ports(shape.masters)?;
        let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let cables = match with_cables {
            true => Some(Cables::lay(&addresses).await?),
            false => None,
        };
        let mut masters = Self {
            children: Vec::new(),
            operator: OperatorClient::new(addresses.clone()),
            addresses,
            cables,
            shards: shape.shards,
            settings: shape.set.clone(),
            snapshot_every,
            dir,
            temporary,
        };
        for n in 0..shape.masters {
            let child = masters.spawn(n)?;
            masters.children.push(Some(child));
        }
        masters.leader().await?;
        Ok(masters)
    }

    /// All masters as one of them dials them.
    fn members(&self, of: usize) -> String {
        let member = |(n, address): (usize, &String)| {
            let dialled = self.cables.as_ref().and_then(|cables| cables.address(of, n)).unwrap_or(address);
            format!("m{}={dialled}", n + 1)
        };
        self.addresses.iter().enumerate().map(member).collect::<Vec<_>>().join(",")
    }

    /// The masters' file of settings.
    fn config(&self) -> String {
        let mut lines = self.settings.clone();
        if let Some(entries) = self.snapshot_every {
            lines.push(format!("raft.snapshot-entries = {entries}"));
            lines.push("raft.snapshot-mib = 65536".into());
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn spawn(&self, n: usize) -> anyhow::Result<Child> {
        let name = format!("m{}", n + 1);
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{name}.log")))?;
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(exe);
        // A group of its own: Ctrl-C is for us, who end it.
        command.process_group(0);
        // What is logged costs time: little, unless it is asked for.
        let level = std::env::var("MUSTER_LOG").unwrap_or_else(|_| "warn".into());
        let members = self.members(n);
        command.args(["--log", &level, "master", "--name", &name, "--members", &members, "--data-dir"]);
        command.arg(self.dir.join(&name)).args(["--shards", &self.shards.to_string()]);
        let path = self.dir.join(format!("{name}.toml"));
        fs::write(&path, self.config()).with_context(|| format!("cannot write {}", path.display()))?;
        command.arg("--config").arg(path);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        parent::tie(&mut command).spawn().context("cannot start a master")
    }

    /// Waits until a master leads; returns its number. Of several who say that they do, one that stood still has not heard
    /// yet of the newest.
    pub(crate) async fn leader(&mut self) -> anyhow::Result<usize> {
        let until = Instant::now() + READY;
        while Instant::now() < until {
            self.check()?;
            let all = self.operator.raft_status().await;
            let leading = all.iter().enumerate().filter_map(|(n, it)| {
                let said = it.status.as_ref().ok().filter(|said| said.state == "leader")?;
                let fence = said.fence.as_ref().map(|fence| (fence.incarnation, fence.term));
                Some((fence, n))
            });
            if let Some((_, n)) = leading.max() {
                return Ok(n);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("no master leads after 60 s; {}", self.where_logs_are())
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
    pub(crate) async fn caught_up(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY;
        while Instant::now() < until {
            let all = self.operator.raft_status().await;
            let said: Vec<_> = all.iter().filter_map(|it| it.status.as_ref().ok()).collect();
            let committed = said.iter().map(|it| it.committed_index).max().unwrap_or(0);
            let behind = said.iter().any(|it| it.applied_index + 64 < committed || it.leader.is_none());
            if said.len() == self.addresses.len() && !behind {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("a restarted master did not catch up within 60 s; {}", self.where_logs_are())
    }

    /// Waits until so many agents are connected to the leader.
    pub(crate) async fn agents_connected(&mut self, agents: usize) -> anyhow::Result<()> {
        let until = Instant::now() + CONNECTED;
        let mut connected = 0.0;
        while Instant::now() < until {
            let leader = self.leader().await?;
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

    /// SIGSTOP, or SIGCONT.
    pub(crate) fn pause(&self, n: usize, is_paused: bool) -> anyhow::Result<()> {
        let signal = if is_paused { Signal::STOP } else { Signal::CONT };
        let child = self.children.get(n).and_then(Option::as_ref).context("the master does not run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process has a number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Asks the leader to hand over.
    pub(crate) async fn transfer(&mut self) -> anyhow::Result<()> {
        self.operator.transfer_leadership(None).await?;
        Ok(())
    }

    /// Cuts a master off from the others, where there are cables, or heals that.
    pub(crate) fn isolate(&self, n: usize, is_cut: bool) {
        if let Some(cables) = &self.cables {
            cables.isolate(n, is_cut);
        }
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

    /// What whoever wants to know more can do.
    fn where_logs_are(&self) -> String {
        match self.temporary {
            Some(_) => "with --work-dir the masters' logs are kept".into(),
            None => format!("see the masters' logs in {}", self.dir.display()),
        }
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
