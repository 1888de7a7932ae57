//! A cluster of child processes on loopback, for `local` and `demo`.

use crate::parent;
use anyhow::{Context, bail};
use muster_sdk::OperatorClient;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a cluster may take to be ready.
const READY_TIME: Duration = Duration::from_secs(60);
/// How long a process may take to end by itself.
const END_TIME: Duration = Duration::from_secs(10);
/// How long tasks may take to end when the cluster does.
const TASKS_END_TIME: Duration = Duration::from_secs(10);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    /// Ports of the masters' API.
    pub(crate) master_ports: Vec<u16>,
    /// Ports the agents are shown with.
    pub(crate) agent_ports: Vec<u16>,
    /// What each agent has to give; empty: what is found.
    pub(crate) agent_resources: String,
    /// More arguments of each agent.
    pub(crate) agent_arguments: Vec<String>,
    /// Everything goes away with the cluster, so nothing is put outside of its directory.
    pub(crate) temporary: bool,
}

/// One process of the cluster.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) address: String,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// The processes; they die with this one.
#[derive(Debug)]
pub(crate) struct Cluster {
    exe: PathBuf,
    dir: PathBuf,
    pub(crate) masters: Vec<Process>,
    pub(crate) agents: Vec<Process>,
}

impl Plan {
    fn members(&self) -> String {
        let member = |(i, port): (usize, &u16)| format!("m{}=127.0.0.1:{port}", i + 1);
        self.master_ports.iter().enumerate().map(member).collect::<Vec<_>>().join(",")
    }

    fn masters(&self) -> String {
        self.master_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    fn master(&self, i: usize, port: u16) -> Process {
        let name = format!("m{}", i + 1);
        let data_dir = self.dir.join(&name);
        let arguments = [
            "master",
            "--name",
            &name,
            "--members",
            &self.members(),
            "--data-dir",
            &data_dir.to_string_lossy(),
        ];
        self.process(&name, port, &arguments)
    }

    fn agent(&self, i: usize, port: u16) -> Process {
        let name = format!("a{}", i + 1);
        let work_dir = self.dir.join(&name);
        let (masters, shown) = (self.masters(), port.to_string());
        let mut arguments = vec!["agent", "--masters", &masters, "--hostname", &name, "--port", &shown];
        let work_dir = work_dir.to_string_lossy();
        // A trial shall run without root, too.
        arguments.extend(["--work-dir", &work_dir, "--allow-unenforced-limits"]);
        let runtime_dir = self.dir.join("run");
        let runtime_dir = runtime_dir.to_string_lossy();
        if self.temporary {
            arguments.extend(["--runtime-dir", &runtime_dir]);
        }
        if !self.agent_resources.is_empty() {
            arguments.extend(["--resources", &self.agent_resources]);
        }
        arguments.extend(self.agent_arguments.iter().map(String::as_str));
        self.process(&name, port, &arguments)
    }

    fn process(&self, name: &str, port: u16, arguments: &[&str]) -> Process {
        Process {
            name: name.into(),
            address: format!("127.0.0.1:{port}"),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            log: self.dir.join(format!("{name}.log")),
            child: None,
        }
    }
}

impl Process {
    fn start(&mut self, exe: &Path) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write the log {}", self.log.display()))?;
        let mut command = Command::new(exe);
        // A group of its own: Ctrl-C is for us, who end the others in order.
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = parent::tie(&mut command).spawn();
        self.child = Some(child.with_context(|| format!("cannot start {}", exe.display()))?);
        Ok(())
    }

    /// Fails when the process has ended, with the last it said.
    fn check(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let Some(status) = child.try_wait()? else { return Ok(()) };
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        bail!("{} ended ({status}): {last}; its log is {}", self.name, self.log.display());
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn ask_to_end(&self) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?));
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    async fn wait(&mut self, until: Instant) {
        let Some(child) = &mut self.child else { return };
        while Instant::now() < until {
            if !matches!(child.try_wait(), Ok(None)) {
                self.child = None;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = self.kill();
    }
}

impl Cluster {
    /// Starts all processes.
    pub(crate) fn start(plan: &Plan) -> anyhow::Result<Self> {
        fs::create_dir_all(&plan.dir)
            .with_context(|| format!("cannot make the directory {}", plan.dir.display()))?;
        let numbered = |ports: &[u16]| ports.iter().copied().enumerate().collect::<Vec<_>>();
        let mut cluster = Self {
            exe: std::env::current_exe().context("cannot find this program's own file")?,
            dir: plan.dir.clone(),
            masters: numbered(&plan.master_ports).into_iter().map(|(i, port)| plan.master(i, port)).collect(),
            agents: numbered(&plan.agent_ports).into_iter().map(|(i, port)| plan.agent(i, port)).collect(),
        };
        // Another cluster at these addresses would answer in place of ours.
        for master in &cluster.masters {
            std::net::TcpListener::bind(&master.address).with_context(|| {
                format!("cannot listen on {}: choose ports that are free by --base-port", master.address)
            })?;
        }
        for process in cluster.masters.iter_mut().chain(&mut cluster.agents) {
            process.start(&cluster.exe)?;
        }
        Ok(cluster)
    }

    pub(crate) fn master_addresses(&self) -> Vec<String> {
        self.masters.iter().map(|master| master.address.clone()).collect()
    }

    /// Fails when a process has ended that should not.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.masters.iter_mut().chain(&mut self.agents).try_for_each(Process::check)
    }

    /// Starts a master again that was killed.
    pub(crate) fn restart_master(&mut self, name: &str) -> anyhow::Result<()> {
        match self.masters.iter_mut().find(|master| master.name == name) {
            Some(master) => master.start(&self.exe),
            None => bail!("there is no master {name}"),
        }
    }

    /// Waits until a leader serves and all agents are registered.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY_TIME;
        let mut client = OperatorClient::new(self.master_addresses()).search_time(Duration::from_millis(200));
        loop {
            self.check()?;
            let why = match client.agents().await {
                Ok(agents) => {
                    let registered = agents.iter().filter(|agent| agent.state == "registered").count();
                    if registered >= self.agents.len() {
                        return self.check();
                    }
                    format!("{registered} of {} agents are registered", self.agents.len())
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                bail!("the cluster is not ready after 60 s: {why}; see the logs in {}", self.dir.display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends all tasks, then all processes.
    pub(crate) async fn end(mut self) {
        // A master that has ended may have left its address to another cluster, which is none of ours to end.
        let ours = self.check().is_ok();
        if ours && let Err(why) = self.end_tasks().await {
            tracing::warn!(why, "could not end all tasks");
        }
        for processes in [&mut self.agents, &mut self.masters] {
            processes.iter().for_each(Process::ask_to_end);
            let until = Instant::now() + END_TIME;
            for process in processes {
                process.wait(until).await;
            }
        }
    }

    /// Tears all frameworks down: agents leave their tasks running when they end. What fails is tried again: leadership may
    /// move meanwhile, and who was torn down then is told by the list. The error says what is left when time is up.
    async fn end_tasks(&mut self) -> Result<(), String> {
        let mut client = OperatorClient::new(self.master_addresses()).search_time(Duration::from_secs(2));
        let until = Instant::now() + TASKS_END_TIME;
        loop {
            let left = match tear_down(&mut client).await {
                Ok(true) => return Ok(()),
                Ok(false) => "tasks have not ended yet".into(),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                return Err(left);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Tears down the frameworks that there are. True: there were none, and no task is left.
async fn tear_down(client: &mut OperatorClient) -> Result<bool, muster_sdk::SdkError> {
    let frameworks = client.frameworks(false).await?;
    let mut torn_down = Ok(());
    for framework in &frameworks {
        torn_down = client.teardown(&framework.framework_id).await.and(torn_down);
    }
    torn_down?;
    Ok(frameworks.is_empty() && client.agents().await?.iter().all(|agent| agent.used.is_empty()))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.masters.iter_mut().chain(&mut self.agents) {
            let _ = process.kill();
        }
    }
}

/// Below the ports that connections are given as their own end.
const FREE_PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Ports that are free now. Another process may take them before they are used; then its user is told so.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut ports: Vec<u16> = Vec::new();
    for _ in 0..10_000 {
        if ports.len() == count {
            return Ok(ports);
        }
        let port = rand::random_range(FREE_PORTS);
        if !ports.contains(&port) && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
    }
    bail!("no free port was found between {} and {}", FREE_PORTS.start, FREE_PORTS.end)
}
