//! The cluster: processes, what they say of themselves, and their end.

mod disks;
mod fail_points;
mod history;
mod members;
mod network;

use crate::disk::Disks;
use crate::hosts::Hosts;
use crate::network::Network;
use crate::ports::Ports;
use crate::process::Process;
use crate::{LogEntry, Plan, ask, binary, clocks, leftovers, log};
use anyhow::{Context, bail};
use muster_proto::v1;
use muster_sdk::OperatorClient;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a cluster may take to be ready, or a member to catch up. Machines under test are busy.
const READY_TIME: Duration = Duration::from_secs(60);
/// How long processes may take to end when asked, and tasks when their frameworks are torn down.
const END_TIME: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// A running cluster. Dropping it ends all that it started.
#[derive(Debug)]
pub struct TestCluster {
    exe: PathBuf,
    dir: TempDir,
    masters: Vec<Process>,
    agents: Vec<Process>,
    frameworks: Vec<String>,
    network: Option<Between>,
    disks: Option<Disks>,
    /// The members' debug endpoints.
    debug: BTreeMap<String, SocketAddr>,
    /// Theirs until the cluster is dropped.
    _ports: Ports,
    recorded: history::Recorded,
}

/// What lies between the members.
#[derive(Debug)]
enum Between {
    /// Proxies in this process.
    Proxies(Network),
    /// A bridge between hosts of their own.
    Hosts(Arc<Hosts>),
}

/// Addresses of this machine that nobody has.
fn loopback(ports: &mut Ports, count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    Ok(ports.take(count)?.into_iter().map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect())
}

/// A replica's state at one index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The master.
    pub name: String,
    /// The last log index it applied.
    pub applied: u64,
    /// The hash of its registry there.
    pub state_hash: u64,
}

/// What was found when a cluster was ended in order.
#[derive(Debug, Default)]
pub struct ClusterEnd {
    /// Members that did not end by themselves when asked.
    pub killed: Vec<String>,
    /// Command lines of processes that agents left behind although all frameworks were torn down.
    pub left: Vec<String>,
}

impl Between {
    /// Where one dials another, if it is not where the other listens.
    fn address(&self, from: &str, to: &str) -> Option<SocketAddr> {
        match self {
            Self::Proxies(network) => network.address(from, to),
            Self::Hosts(_) => None,
        }
    }
}

impl TestCluster {
    /// Starts it and waits until a leader serves and all agents are registered.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let exe = plan.exe.clone().map_or_else(binary::find, Ok)?;
        let dir = tempfile::Builder::new().prefix("muster-test-").tempdir();
        let dir = dir.context("cannot make a temporary directory; set TMPDIR to one with room")?;
        let names = |letter: char, count: u16| (1..=count).map(move |i| format!("{letter}{i}"));
        let [masters, agents, frameworks] = [('m', plan.masters), ('a', plan.agents), ('f', plan.frameworks)]
            .map(|(letter, count)| names(letter, count).collect::<Vec<_>>());
        let all = [masters.as_slice(), &agents, &frameworks].concat();
        let hosts = plan.hosts.then(|| Hosts::new(&all)).transpose()?.map(Arc::new);
        let listeners = [masters.as_slice(), &agents].concat();
        let mut ports = Ports::default();
        let addresses = match &hosts {
            Some(hosts) => hosts.listeners(&listeners, &mut ports)?,
            None => loopback(&mut ports, listeners.len())?,
        };
        let debug = match plan.faults {
            true if plan.hosts => {
                bail!("a debug endpoint cannot be reached on a host of its own: ask for one of both")
            }
            true => listeners.iter().cloned().zip(loopback(&mut ports, listeners.len())?).collect(),
            false => BTreeMap::new(),
        };
        let mut masters: Vec<(String, SocketAddr)> = listeners.into_iter().zip(addresses).collect();
        let agents = masters.split_off(plan.masters.into());
        let clients: Vec<_> = agents.iter().map(|(name, _)| name).chain(&frameworks).cloned().collect();
        let names = masters.iter().map(|(name, _)| name.clone());
        let disks = plan.disks.then(|| Disks::make(dir.path(), names)).transpose()?;
        let network = match &hosts {
            Some(_) if plan.proxied => {
                bail!("members on hosts of their own have no proxies: ask for one of both")
            }
            Some(hosts) => Some(Between::Hosts(hosts.clone())),
            None if plan.proxied => Some(Between::Proxies(Network::new(&masters, &clients)?)),
            None => None,
        };
        // Where one reaches another: there, or at a proxy that leads there.
        let reached = |from: &str, (to, address): &(String, SocketAddr)| {
            let proxy = network.as_ref().and_then(|network| network.address(from, to));
            proxy.unwrap_or(*address).to_string()
        };
        let process = |name: &str, address: &SocketAddr, arguments| -> anyhow::Result<Process> {
            let log = dir.path().join(format!("{name}.log"));
            let arguments = [arguments, vec!["--log".into(), plan.log.clone()]].concat();
            let before = hosts.as_ref().map(|hosts| hosts.before(name)).unwrap_or_default();
            let faults = plan.faults(debug.get(name));
            let clock = if plan.clocks { clocks::make(dir.path(), name)? } else { Vec::new() };
            let process = Process::new(name.into(), address.to_string(), log, arguments)
                .started_by(before)
                .started_by(faults)
                .with(clock);
            Ok(process)
        };
        let master = |(name, address): &(String, SocketAddr)| -> anyhow::Result<Process> {
            std::fs::write(dir.path().join(format!("{name}.toml")), &plan.master_config)?;
            let member = |other: &(String, SocketAddr)| format!("{}={}", other.0, reached(name, other));
            let members = masters.iter().map(member).collect::<Vec<_>>().join(",");
            let master = process(name, address, plan.master(dir.path(), name, &members))?;
            Ok(master.started_by(disks.as_ref().map(Disks::enter).unwrap_or_default()))
        };
        let agent = |(name, address): &(String, SocketAddr)| {
            let addresses = masters.iter().map(|master| reached(name, master)).collect::<Vec<_>>().join(",");
            process(name, address, plan.agent(dir.path(), name, address.port(), &addresses))
        };
        let (masters, agents) = (
            masters.iter().map(master).collect::<anyhow::Result<_>>()?,
            agents.iter().map(agent).collect::<anyhow::Result<_>>()?,
        );
        let recorded = history::Recorded::default();
        let cluster =
            Self { exe, dir, masters, agents, frameworks, network, disks, debug, _ports: ports, recorded };
        for process in cluster.processes() {
            process.start(&cluster.exe)?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// All that it writes is below this directory: data directories, work directories, `NAME.log`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The masters' addresses, `host:port`.
    pub fn masters(&self) -> Vec<String> {
        self.masters.iter().map(|master| master.address.clone()).collect()
    }

    /// The masters' own addresses by all that anybody dials them by: a master names another one by the cable between
    /// them, which is nobody else's way.
    pub fn named_masters(&self) -> BTreeMap<String, String> {
        let mut named = BTreeMap::new();
        for master in &self.masters {
            let others = self.masters.iter().filter_map(|other| {
                self.network.as_ref().and_then(|network| network.address(&other.name, &master.name))
            });
            named.extend(others.map(|cable| (cable.to_string(), master.address.clone())));
            named.insert(master.address.clone(), master.address.clone());
        }
        named
    }

    /// The masters' addresses as a framework with a place in the network reaches them, so that faults of the
    /// network are felt there.
    pub fn masters_of(&self, framework: &str) -> anyhow::Result<Vec<String>> {
        self.member(framework)?;
        let reached = |master: &Process| {
            let proxy = self.network.as_ref().and_then(|network| network.address(framework, &master.name));
            proxy.map_or_else(|| master.address.clone(), |address| address.to_string())
        };
        Ok(self.masters.iter().map(reached).collect())
    }

    /// The masters' names.
    pub fn master_names(&self) -> Vec<String> {
        self.masters.iter().map(|master| master.name.clone()).collect()
    }

    /// The agents' names, which are their host names too.
    pub fn agent_names(&self) -> Vec<String> {
        self.agents.iter().map(|agent| agent.name.clone()).collect()
    }

    /// The names of the frameworks that have a place in the network.
    pub fn framework_names(&self) -> Vec<String> {
        self.frameworks.clone()
    }

    /// A client that asks whoever leads, and gives up after two seconds.
    pub fn operator(&self) -> OperatorClient {
        OperatorClient::new(self.masters()).search_time(Duration::from_secs(2))
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.masters.iter().chain(&self.agents)
    }

    fn process(&self, name: &str) -> anyhow::Result<&Process> {
        let named = self.processes().find(|process| process.name == name);
        named.with_context(|| format!("there is no {name} in this cluster"))
    }

    /// Fails unless a process or a framework has this name.
    fn member(&self, name: &str) -> anyhow::Result<()> {
        if self.frameworks.iter().any(|framework| framework == name) {
            return Ok(());
        }
        self.process(name).map(drop)
    }

    /// What the masters that answer at once say of themselves, by name. All are asked at once.
    pub async fn statuses(&self) -> Vec<(String, v1::GetRaftStatusResponse)> {
        let ask = |master: &Process| (master.name.clone(), tokio::spawn(ask::status(master.address.clone())));
        let asked: Vec<_> = self.masters.iter().map(ask).collect();
        let mut said = Vec::new();
        for (name, answer) in asked {
            if let Ok(Ok(status)) = answer.await {
                said.push((name, status));
            }
        }
        said
    }

    /// Waits until this master answers; what it says of itself, leader or not.
    pub async fn status(&self, name: &str) -> anyhow::Result<v1::GetRaftStatusResponse> {
        let address = &self.process(name)?.address;
        self.wait(&format!("{name} does not answer"), async || ask::status(address.clone()).await).await
    }

    /// The agents by the word of the leader that serves now; of nobody, if nobody does.
    pub async fn agents(&self) -> Result<Vec<v1::Agent>, String> {
        let (leader, _) = self.says_it_leads().await?;
        self.agents_by(&leader).await
    }

    /// The agents by the word of this master alone, which answers only while it leads.
    pub async fn agents_by(&self, name: &str) -> Result<Vec<v1::Agent>, String> {
        let master = self.process(name).map_err(|error| error.to_string())?;
        ask::agents(&master.address).await
    }

    /// The frameworks by the word of this master alone, which answers only while it leads.
    pub async fn frameworks_by(&self, name: &str) -> Result<Vec<v1::Framework>, String> {
        let master = self.process(name).map_err(|error| error.to_string())?;
        ask::frameworks(&master.address).await
    }

    /// Who says that it leads in the newest term, and that term.
    async fn says_it_leads(&self) -> Result<(String, u64), String> {
        let said = self.statuses().await;
        let leads = said.into_iter().filter(|(_, status)| status.state == "leader");
        let with_term = leads.map(|(name, status)| (name, status.fence.map_or(0, |fence| fence.term)));
        with_term.max_by_key(|(_, term)| *term).ok_or_else(|| "none says it leads".into())
    }

    /// The name of the leader that serves now: it has answered a linearizable read.
    pub async fn leader(&self) -> anyhow::Result<String> {
        self.serving().await.map(|(name, _)| name)
    }

    /// Waits until a leader serves; its name and term.
    pub async fn serving(&self) -> anyhow::Result<(String, u64)> {
        self.wait("no leader serves", async || {
            let (name, term) = self.says_it_leads().await?;
            self.agents_by(&name).await?;
            Ok((name, term))
        })
        .await
    }

    /// Waits until a leader serves in a later term than this; its name and term.
    pub async fn serving_after(&self, term: u64) -> anyhow::Result<(String, u64)> {
        self.wait(&format!("no leader serves in a later term than {term}"), async || {
            let (name, newest) = self.says_it_leads().await?;
            if newest <= term {
                return Err(format!("{name} says it leads in term {newest}"));
            }
            self.agents_by(&name).await?;
            Ok((name, newest))
        })
        .await
    }

    /// Waits until this master answers nothing that only a leader may, for whatever reason.
    pub async fn serves_no_more(&self, name: &str) -> anyhow::Result<()> {
        self.process(name)?;
        self.wait(&format!("{name} still serves"), async || match self.agents_by(name).await {
            Ok(agents) => Err(format!("it names {} agents", agents.len())),
            Err(_) => Ok(()),
        })
        .await
    }

    /// Waits until a leader serves and all agents are registered.
    pub async fn ready(&self) -> anyhow::Result<()> {
        self.wait("the cluster is not ready", async || {
            let agents = self.agents().await?;
            let registered = agents.iter().filter(|agent| agent.state == "registered").count();
            let all = self.agents.len();
            if registered >= all {
                Ok(())
            } else {
                Err(format!("{registered} of {all} agents are registered"))
            }
        })
        .await
    }

    /// Waits until this master has applied all that was committed when it was asked.
    pub async fn caught_up(&self, name: &str) -> anyhow::Result<()> {
        self.process(name)?;
        let mut aim = None;
        self.wait(&format!("{name} does not catch up"), async || {
            let said = self.statuses().await;
            if aim.is_none() {
                let leader = said.iter().find(|(_, status)| status.state == "leader");
                aim = leader.map(|(_, status)| status.committed_index);
            }
            let applied = said.iter().find(|(other, _)| other == name).map(|(_, it)| it.applied_index);
            match (applied, aim) {
                (Some(applied), Some(aim)) if applied >= aim => Ok(()),
                (applied, aim) => Err(format!("applied {applied:?} of {aim:?}")),
            }
        })
        .await
    }

    /// Waits until all masters have applied the same index, and gives what each holds there: equal hashes, if
    /// the masters keep their promise. Nothing may be written meanwhile.
    pub async fn replicas(&self) -> anyhow::Result<Vec<Replica>> {
        self.wait("the masters do not come to the same index", async || {
            let replica = |(name, said): (String, v1::GetRaftStatusResponse)| Replica {
                name,
                applied: said.applied_index,
                state_hash: said.state_hash,
            };
            let all: Vec<_> = self.statuses().await.into_iter().map(replica).collect();
            let same = all.windows(2).all(|pair| pair[0].applied == pair[1].applied);
            if same && all.len() == self.masters.len() { Ok(all) } else { Err(format!("{all:?}")) }
        })
        .await
    }

    /// Lines of all logs that tell of an error or a panic.
    pub fn error_lines(&self) -> Vec<String> {
        let named = |process: &Process| {
            let lines = process.error_lines().into_iter();
            lines.map(|line| format!("{}: {line}", process.name)).collect::<Vec<_>>()
        };
        self.processes().flat_map(named).collect()
    }

    /// Lines of one member's log that tell of an error or a panic, in order.
    pub fn error_lines_of(&self, name: &str) -> anyhow::Result<Vec<String>> {
        self.process(name).map(Process::error_lines)
    }

    /// The logs, by name.
    pub fn logs(&self) -> Vec<(String, PathBuf)> {
        self.processes().map(|process| (process.name.clone(), process.log.clone())).collect()
    }

    /// Looks until there is an answer, the time is up, or a member ends.
    async fn wait<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + READY_TIME;
        loop {
            self.check()?;
            let why = match look().await {
                Ok(found) => return Ok(found),
                Err(why) => why,
            };
            if Instant::now() >= until {
                bail!("{what} after {} s: {why}", READY_TIME.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What this master has in its log, entry by entry: what each says, what it did, and the hash of the registry
    /// after it. Nothing is changed. The master must not run.
    pub fn applied_log(&self, name: &str) -> anyhow::Result<Vec<LogEntry>> {
        let master = self.process(name)?;
        if master.pid().is_some() {
            bail!("{name} runs: its log can be read once it was killed or stopped");
        }
        log::read(master.command(&self.exe), &self.dir().join(name))
    }

    /// The command lines of all processes that run in this cluster's directory: members, supervisors, tasks.
    pub fn command_lines(&self) -> Vec<String> {
        leftovers::of(self.dir()).into_iter().map(|process| process.command).collect()
    }

    /// Ends it in order: frameworks are torn down, tasks end, then agents and masters. Says what did not.
    pub async fn end(self) -> anyhow::Result<ClusterEnd> {
        self.rest().await
    }

    /// Ends it in order, as [`Self::end`] does, and leaves what it wrote until it is dropped.
    pub async fn rest(&self) -> anyhow::Result<ClusterEnd> {
        self.teardown().await?;
        let mut end = ClusterEnd::default();
        for processes in [&self.agents, &self.masters] {
            processes.iter().for_each(Process::ask_to_end);
            let until = Instant::now() + END_TIME;
            for process in processes {
                while process.is_alive() && Instant::now() < until {
                    tokio::time::sleep(LOOK).await;
                }
                if process.is_alive() {
                    end.killed.push(process.name.clone());
                }
                process.kill()?;
            }
        }
        // Supervisors of tasks that have ended end by themselves.
        let until = Instant::now() + END_TIME;
        loop {
            end.left = self.command_lines();
            if end.left.is_empty() || Instant::now() >= until {
                return Ok(end);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn teardown(&self) -> anyhow::Result<()> {
        // One that was torn down while leadership moved may be answered with an error: whether it is there still decides.
        self.wait("frameworks are not torn down", async || {
            let mut operator = self.operator();
            let frameworks = operator.frameworks(false).await.map_err(|error| error.to_string())?;
            for framework in &frameworks {
                operator.teardown(&framework.framework_id).await.map_err(|error| error.to_string())?;
            }
            if frameworks.is_empty() { Ok(()) } else { Err(format!("there were {}", frameworks.len())) }
        })
        .await?;
        self.wait("tasks of frameworks that are torn down do not end", async || {
            let agents = self.agents().await?;
            let used: Vec<_> = agents.iter().filter(|agent| !agent.used.is_empty()).collect();
            if used.is_empty() { Ok(()) } else { Err(format!("{} agents are in use", used.len())) }
        })
        .await
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.nobody_comes_up();
        for process in self.processes() {
            let _ = process.kill();
        }
        leftovers::end(self.dir.path());
        // Before the directory that their images are in.
        drop(self.disks.take());
        if std::thread::panicking() || std::env::var_os("MUSTER_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("the cluster's logs and directories are kept in {}", self.dir.path().display());
        }
    }
}
