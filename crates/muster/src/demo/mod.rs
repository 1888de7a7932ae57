//! `muster demo`: a real cluster, real files, and a leader that is killed in the middle.

mod input;
mod job;
mod report;

use crate::cli::Output;
use crate::cluster::{Cluster, Plan, free_ports};
use crate::signals::Stop;
use anyhow::{Context, bail};
use clap::Args;
use job::{Heard, Job, Teller};
use muster_sdk::{Framework, OperatorClient, SchedulerDriver};
use report::{Failover, Report};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Flags of the demonstration.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The files to sum, with all below; muster's own sources when not given.
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// How many tasks; one for each file when not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tasks: Option<u32>,
    /// Keep the directory with all logs and sandboxes.
    #[arg(long)]
    keep: bool,
}

/// What each agent says it has: enough tasks at once on a small machine, and too few for all.
const AGENT_RESOURCES: &str = "cpus:4;mem:1024;disk:1024;ports:[31000-31100]";
/// Without any progress for this long, something is wrong.
const STUCK: Duration = Duration::from_secs(60);
/// The killed master comes back this long after the new leader is known.
const RESTART_AFTER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn run(args: DemoArgs, output: Output) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let files = input::files(args.input.as_deref(), args.tasks)?;
    let temporary = tempfile::Builder::new().prefix("muster-demo-").tempdir();
    let temporary = temporary.context("cannot make a temporary directory; set TMPDIR")?;
    let dir = temporary.path().to_owned();
    if args.keep {
        eprintln!("everything is kept in {}", temporary.keep().display());
    }
    let plan = Plan {
        dir: dir.clone(),
        master_ports: free_ports(3)?,
        agent_ports: free_ports(3)?,
        agent_resources: AGENT_RESOURCES.into(),
        agent_arguments: Vec::new(),
        temporary: true,
    };
    let begin = Instant::now();
    let mut cluster = Cluster::start(&plan)?;
    tokio::select! {
        ready = cluster.ready() => ready?,
        () = stop.asked() => bail!("stopped"),
    }
    let ready = begin.elapsed();
    eprintln!("3 masters and 3 agents are up after {} ms; {} tasks to run", ready.as_millis(), files.len());
    let outcome = tokio::select! {
        outcome = play(&mut cluster, &dir, files) => outcome,
        () = stop.asked() => Err(anyhow::anyhow!("stopped")),
    };
    cluster.end().await;
    let report = outcome?;
    report.print(output);
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all tasks, with the leader killed when half of them are done.
async fn play(cluster: &mut Cluster, dir: &Path, files: Vec<PathBuf>) -> anyhow::Result<Report> {
    let (tell, mut heard) = mpsc::channel(1024);
    let framework = Framework::new("demo").failover_timeout(Duration::from_secs(60));
    let driver = SchedulerDriver::builder(cluster.master_addresses()).start(framework, Teller(tell))?;
    let mut job = Job::new(driver, files, dir.join("runs"));
    let begin = Instant::now();
    let mut killing: Option<Killing> = None;
    let mut screen = Screen::new();
    let mut look = tokio::time::interval(LOOK);
    let mut progress = (0, Instant::now());
    while !job.is_over() || killing.as_ref().is_some_and(|killing| !killing.is_over()) {
        tokio::select! {
            Some(told) = heard.recv() => {
                if let Some(killing) = &mut killing {
                    killing.hear(&told, &mut screen);
                }
                job.take(told)?;
            }
            _ = look.tick() => {
                if killing.is_none() && job.done() * 2 >= job.len() {
                    killing = Some(Killing::of_leader(cluster, &mut screen).await?);
                }
                if let Some(killing) = &mut killing {
                    killing.look(cluster, &mut screen)?;
                }
                cluster.check()?;
                screen.line(&job.line());
            }
        }
        if job.steps() != progress.0 {
            progress = (job.steps(), Instant::now());
        } else if progress.1.elapsed() > STUCK {
            screen.note("nothing has moved for 60 s; giving up");
            break;
        }
    }
    screen.line(&job.line());
    screen.end();
    let took = begin.elapsed();
    let failover = killing.map(|killing| killing.failover).unwrap_or_default();
    // While the agents still keep the sandboxes and before the framework's end.
    let result = job.compare()?;
    let rejoined = rejoined(cluster, &failover).await;
    job.stop().await;
    Ok(Report { result, failover, rejoined, took })
}

/// The leader's death and what followed.
struct Killing {
    failover: Failover,
    at: Instant,
    elected: oneshot::Receiver<(Instant, String)>,
    restarted: bool,
    subscribed_again: bool,
}

impl Killing {
    async fn of_leader(cluster: &mut Cluster, screen: &mut Screen) -> anyhow::Result<Self> {
        let (name, term) = loop {
            if let Some(leader) = leader(&mut OperatorClient::new(cluster.master_addresses())).await {
                break leader;
            }
            tokio::time::sleep(LOOK).await;
        };
        let at = Instant::now();
        let Some(master) = cluster.masters.iter_mut().find(|master| master.name == name) else {
            bail!("the leader {name} is none of ours");
        };
        master.kill()?;
        screen.note(&format!("killed the leader {name} (term {term}) with SIGKILL"));
        let others: Vec<_> =
            cluster.masters.iter().filter(|m| m.name != name).map(|m| m.address.clone()).collect();
        let (tell, elected) = oneshot::channel();
        tokio::spawn(async move {
            let mut client = OperatorClient::new(others);
            loop {
                if let Some((name, now)) = leader(&mut client).await
                    && now > term
                {
                    // Fails only when the demonstration is over.
                    let _ = tell.send((Instant::now(), name));
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let failover = Failover { killed: name, ..Default::default() };
        Ok(Self { failover, at, elected, restarted: false, subscribed_again: false })
    }

    fn hear(&mut self, told: &Heard, screen: &mut Screen) {
        match told {
            Heard::Reregistered { at } if self.failover.subscribed.is_none() && *at > self.at => {
                self.subscribed_again = true;
                self.failover.subscribed = Some(*at - self.at);
                screen.note("the framework is subscribed again, under the same id");
            }
            Heard::Offers { at, .. } if self.failover.offered.is_none() && self.subscribed_again => {
                self.failover.offered = Some(*at - self.at);
                screen.note("first new offer");
            }
            _ => {}
        }
    }

    fn look(&mut self, cluster: &mut Cluster, screen: &mut Screen) -> anyhow::Result<()> {
        if self.failover.elected.is_none()
            && let Ok((at, name)) = self.elected.try_recv()
        {
            self.failover.elected = Some(at - self.at);
            screen.note(&format!("{name} leads"));
            self.failover.leader = name;
        }
        let due = self.failover.elected.is_some_and(|elected| self.at.elapsed() > elected + RESTART_AFTER);
        if due && !self.restarted {
            cluster.restart_master(&self.failover.killed)?;
            self.restarted = true;
            screen.note(&format!("{} is started again", self.failover.killed));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.restarted && self.failover.offered.is_some()
    }
}

/// Who leads, and in which term, by the masters' own word.
async fn leader(client: &mut OperatorClient) -> Option<(String, u64)> {
    let all = client.raft_status().await;
    let leading =
        all.into_iter().filter_map(|master| master.status.ok()).filter(|said| said.state == "leader");
    leading.map(|said| (said.name, said.fence.unwrap_or_default().term)).max_by_key(|(_, term)| *term)
}

/// Waits until the master that was killed has what the leader had at this moment.
async fn rejoined(cluster: &Cluster, failover: &Failover) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    let mut client = OperatorClient::new(cluster.master_addresses());
    let mut goal = None;
    while Instant::now() < until {
        let said: Vec<_> = client.raft_status().await.into_iter().filter_map(|m| m.status.ok()).collect();
        if goal.is_none() {
            goal = said.iter().find(|said| said.state == "leader").map(|said| said.committed_index);
        }
        let back = said.iter().find(|said| said.name == failover.killed);
        if let (Some(goal), Some(back)) = (goal, back)
            && back.applied_index >= goal
        {
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
    false
}

/// Progress: one line that is written over on a terminal, now and then a line elsewhere.
struct Screen {
    terminal: bool,
    shown: String,
    at: Instant,
    begin: Instant,
}

impl Screen {
    fn new() -> Self {
        let now = Instant::now();
        Self { terminal: std::io::stderr().is_terminal(), shown: String::new(), at: now, begin: now }
    }

    fn line(&mut self, text: &str) {
        if text == self.shown {
            return;
        }
        if self.terminal {
            eprint!("\r\x1b[2K{text}");
            let _ = std::io::stderr().flush();
        } else if self.at.elapsed() > Duration::from_secs(1) || self.shown.is_empty() {
            eprintln!("{text}");
        } else {
            return;
        }
        self.at = Instant::now();
        self.shown = text.into();
    }

    fn note(&mut self, text: &str) {
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        eprintln!("{clear}[{:6.2} s] {text}", self.begin.elapsed().as_secs_f64());
        self.shown.clear();
    }

    fn end(&mut self) {
        if self.terminal {
            eprintln!();
        }
    }
}
