//! `muster bench failover`.

use super::{
    Api, Shape,
    frameworks::{Moment, Pace, Shared},
    ledger::Ledger,
    masters::Masters,
    play::Play,
    preload,
    report::{Report, median_max},
};
use anyhow::bail;
use clap::{Args, ValueEnum};
use muster_model::{Fence, Resources};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    #[command(flatten)]
    shape: Shape,
    /// What becomes of the leader.
    #[arg(long, value_enum, default_value_t = Mode::Kill9)]
    mode: Mode,
    /// What is waited for before the leader is given back; `all` when it is killed, `first-offer` else: clients that
    /// are connected to one that stands still notice by themselves only.
    #[arg(long, value_enum)]
    until: Option<Until>,
    /// How often.
    #[arg(long, default_value_t = 10)]
    trials: usize,
    /// Tasks per second of all frameworks together, meanwhile.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Tasks that run already, of as many other frameworks, which are gone.
    #[arg(long, value_name = "TASKS", default_value_t = 0)]
    running: usize,
}

/// What becomes of the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// It is killed with SIGKILL.
    #[value(name = "kill9")]
    Kill9,
    /// It is stopped with SIGSTOP.
    Stop,
    /// The other masters do not hear it any more, nor it them.
    Partition,
    /// It is asked to hand over.
    Transfer,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    /// A new leader.
    Leader,
    /// The first new offer.
    FirstOffer,
    /// All frameworks are subscribed and have an offer.
    All,
    /// That, and the new leader has taken all agents in.
    Agents,
}

impl Mode {
    fn until(self) -> Until {
        match self {
            Self::Kill9 | Self::Transfer => Until::All,
            Self::Stop | Self::Partition => Until::FirstOffer,
        }
    }

    async fn begin(self, masters: &mut Masters, leader: usize) -> anyhow::Result<()> {
        match self {
            Self::Kill9 => masters.kill(leader),
            Self::Stop => masters.pause(leader, true),
            Self::Partition => {
                masters.isolate(leader, true);
                Ok(())
            }
            Self::Transfer => masters.transfer().await,
        }
    }

    fn end(self, masters: &mut Masters, leader: usize) -> anyhow::Result<()> {
        match self {
            Self::Kill9 => masters.restart(leader),
            Self::Stop => masters.pause(leader, false),
            Self::Partition => {
                masters.isolate(leader, false);
                Ok(())
            }
            Self::Transfer => Ok(()),
        }
    }
}

/// What one trial took, from what became of the leader on; nothing for what was not waited for.
#[derive(Default)]
struct Times {
    /// A leader has committed its first entry, and the first framework has heard of it.
    leader: Option<Duration>,
    /// Every framework is subscribed again.
    subscribed: Option<Duration>,
    /// The first framework has its first new offer.
    first_offer: Option<Duration>,
    /// Every framework has one.
    all_offered: Option<Duration>,
    /// All agents are taken in.
    agents: Option<Duration>,
}

pub(crate) async fn run(args: FailoverArgs) -> anyhow::Result<Report> {
    let mut masters = match args.mode {
        Mode::Partition => Masters::start_with_cables(&args.shape).await?,
        _ => Masters::start(&args.shape).await?,
    };
    let until = args.until.unwrap_or(args.mode.until());
    let (moments, mut heard) = mpsc::channel(65_536);
    let shared = Shared::new(moments);
    let ledger = &shared.ledger;
    let per_framework = args.rate as f64 / args.shape.frameworks as f64;
    let pace = Pace {
        tasks_per_accept: 1,
        in_flight: 1,
        every: Duration::from_secs_f64(1.0 / per_framework.max(0.001)),
        task: Resources::of(10, 1),
    };
    let mut clients = args.shape.start_agents(&masters.addresses, &shared);
    if args.running > 0 {
        let loading = shared.beside(Play::default());
        preload::running(&args.shape, &masters.addresses, &loading, args.running).await?;
        while heard.try_recv().is_ok() {} // of those that are gone
    }
    let before = ledger.started_count();
    args.shape.add_frameworks(&mut clients, 0, Api::Grpc, &masters.addresses, &pace, &shared);
    let mut newest = Fence::default();
    let (frameworks, agents) = (args.shape.frameworks, args.shape.agents);
    let all = Awaited { until: Until::Agents, frameworks, agents, patience: FIRST };
    trial(&mut heard, ledger, Instant::now(), &mut newest, all).await?;
    let awaited = Awaited { until, frameworks, agents, patience: PATIENCE };
    let mut all = Vec::new();
    for n in 0..args.trials {
        let leader = masters.leader().await?;
        while let Ok(moment) = heard.try_recv() {
            newest = newest.max(moment.fence());
        }
        let begun = Instant::now();
        args.mode.begin(&mut masters, leader).await?;
        let took = trial(&mut heard, ledger, begun, &mut newest, awaited).await;
        args.mode.end(&mut masters, leader)?;
        let took = took?;
        let ms = took.leader.unwrap_or_default().as_secs_f64() * 1e3;
        eprintln!("trial {}: a new leader after {ms:.0} ms", n + 1);
        all.push(took);
        masters.caught_up().await?;
    }
    shared.settle().await;
    let mut report = Report::default();
    let mut figure = |name: &str, of: fn(&Times) -> Option<Duration>| {
        if let Some((median, max)) = median_max(all.iter().filter_map(of).collect()) {
            report.figure(&format!("{name}_median"), median, "ms");
            report.figure(&format!("{name}_max"), max, "ms");
        }
    };
    figure("new_leader", |it| it.leader);
    figure("first_offer", |it| it.first_offer);
    figure("all_subscribed", |it| it.subscribed);
    figure("all_offered", |it| it.all_offered);
    figure("all_agents", |it| it.agents);
    report.figure("launched", (ledger.started_count() - before) as f64, "tasks");
    report.figure("master_rss_max", masters.rss_mib(), "MiB");
    let (lost, doubled) = ledger.judge();
    report.judge(lost, doubled);
    clients.shutdown().await;
    Ok(report)
}

/// How long a trial may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same of the first one, in which all clients connect.
const FIRST: Duration = Duration::from_secs(300);
/// How often agents are counted.
const LOOK: Duration = Duration::from_millis(2);

/// What a trial waits for.
#[derive(Clone, Copy)]
struct Awaited {
    until: Until,
    frameworks: usize,
    agents: usize,
    patience: Duration,
}

impl Awaited {
    fn is_there(&self, times: &Times) -> bool {
        let offered = times.subscribed.is_some() && times.all_offered.is_some();
        match self.until {
            Until::Leader => times.leader.is_some(),
            Until::FirstOffer => times.first_offer.is_some(),
            Until::All => offered,
            Until::Agents => offered && times.agents.is_some(),
        }
    }
}

/// Waits until what is wanted has come under a newer leader than before.
async fn trial(
    heard: &mut mpsc::Receiver<Moment>,
    ledger: &Ledger,
    begun: Instant,
    newest: &mut Fence,
    awaited: Awaited,
) -> anyhow::Result<Times> {
    let before = *newest;
    let mut times = Times::default();
    let (mut subscribed, mut offered) = (HashSet::new(), HashSet::new());
    let mut look = tokio::time::interval(LOOK);
    let until = Instant::now() + awaited.patience;
    while !awaited.is_there(&times) {
        let moment = tokio::select! {
            moment = heard.recv() => moment,
            _ = look.tick() => {
                if Instant::now() > until {
                    bail!(
                        "{} of {} frameworks are subscribed, {} have an offer and {} of {} agents are taken in after {} s",
                        subscribed.len(), awaited.frameworks, offered.len(), ledger.taken_in_after(before), awaited.agents,
                        awaited.patience.as_secs()
                    );
                }
                if times.agents.is_none() && ledger.taken_in_after(before) >= awaited.agents {
                    times.agents = Some(begun.elapsed());
                }
                continue;
            }
        };
        let Some(moment) = moment else { bail!("the frameworks are gone") };
        let (fence, at) = (moment.fence(), moment.at());
        if fence <= before {
            continue;
        }
        *newest = (*newest).max(fence);
        let took = at.saturating_duration_since(begun);
        match moment {
            Moment::Leader(..) => drop(times.leader.get_or_insert(took)),
            Moment::Subscribed(n, ..) => {
                if subscribed.insert(n) && subscribed.len() == awaited.frameworks {
                    times.subscribed = Some(took);
                }
            }
            Moment::Offered(n, ..) => {
                times.first_offer.get_or_insert(took);
                if offered.insert(n) && offered.len() == awaited.frameworks {
                    times.all_offered = Some(took);
                }
            }
        }
    }
    Ok(times)
}
