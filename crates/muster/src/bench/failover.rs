//! `muster bench failover`.

use super::{
    Api, Shape,
    frameworks::{Moment, Pace, Shared},
    masters::Masters,
    report::{Report, median_max},
};
use anyhow::bail;
use clap::Args;
use muster_model::{Fence, Resources};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::timeout};

#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    #[command(flatten)]
    shape: Shape,
    /// How often the leader is killed (SIGKILL).
    #[arg(long, default_value_t = 10)]
    trials: usize,
    /// Tasks per second of all frameworks together, meanwhile.
    #[arg(long, default_value_t = 100)]
    rate: u64,
}

/// What one kill took, from the kill on.
struct Times {
    /// A leader has committed its first entry, and the first framework has heard of it.
    leader: Duration,
    /// Every framework is subscribed again.
    subscribed: Duration,
    /// The first framework has its first new offer.
    first_offer: Duration,
    /// Every framework has one.
    all_offered: Duration,
}

pub(crate) async fn run(args: FailoverArgs) -> anyhow::Result<Report> {
    let mut masters = Masters::start(&args.shape).await?;
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
    let mut clients = args.shape.start_clients(Api::Grpc, &masters.addresses, &pace, &shared);
    let mut newest = Fence::default();
    trial(&mut heard, Instant::now(), &mut newest, args.shape.frameworks, true).await?;
    let mut all = Vec::new();
    for n in 0..args.trials {
        let leader = masters.leader(None).await?;
        while heard.try_recv().is_ok() {}
        let killed = Instant::now();
        masters.kill(leader)?;
        all.push(trial(&mut heard, killed, &mut newest, args.shape.frameworks, false).await?);
        eprintln!("kill {}: first offer after {:.0} ms", n + 1, all[n].first_offer.as_secs_f64() * 1e3);
        masters.restart(leader)?;
        masters.caught_up().await?;
    }
    shared.settle().await;
    let mut report = Report::default();
    let mut figure = |name: &str, of: fn(&Times) -> Duration| {
        if let Some((median, max)) = median_max(all.iter().map(of).collect()) {
            report.figure(&format!("{name}_median"), median, "ms");
            report.figure(&format!("{name}_max"), max, "ms");
        }
    };
    figure("new_leader", |it| it.leader);
    figure("first_offer", |it| it.first_offer);
    figure("all_subscribed", |it| it.subscribed);
    figure("all_offered", |it| it.all_offered);
    report.figure("launched", ledger.started_count() as f64, "tasks");
    report.figure("master_rss_max", masters.rss_mib(), "MiB");
    let (lost, doubled) = ledger.judge();
    report.judge(lost, doubled);
    clients.shutdown().await;
    Ok(report)
}

/// Waits until every framework has an offer under a newer leader than before.
async fn trial(
    heard: &mut mpsc::Receiver<Moment>,
    killed: Instant,
    newest: &mut Fence,
    frameworks: usize,
    is_first: bool,
) -> anyhow::Result<Times> {
    let before = *newest;
    let (mut leader, mut first_offer) = (None, None);
    let (mut subscribed, mut offered) = (HashSet::new(), HashSet::new());
    let (mut subscribed_at, mut offered_at) = (killed, killed);
    while offered.len() < frameworks {
        let patience = Duration::from_secs(if is_first { 120 } else { 60 });
        let Ok(Some(moment)) = timeout(patience, heard.recv()).await else {
            bail!(
                "only {} of {frameworks} frameworks are subscribed and {} have an offer after {} s",
                subscribed.len(),
                offered.len(),
                patience.as_secs()
            );
        };
        let (fence, at) = match moment {
            Moment::Leader(_, fence, at)
            | Moment::Subscribed(_, fence, at)
            | Moment::Offered(_, fence, at) => (fence, at),
        };
        if fence <= before {
            continue;
        }
        *newest = (*newest).max(fence);
        let took = at.saturating_duration_since(killed);
        match moment {
            Moment::Leader(..) => drop(leader.get_or_insert(took)),
            Moment::Subscribed(n, ..) => {
                if subscribed.insert(n) {
                    subscribed_at = at;
                }
            }
            Moment::Offered(n, ..) => {
                first_offer.get_or_insert(took);
                if offered.insert(n) {
                    offered_at = at;
                }
            }
        }
    }
    Ok(Times {
        leader: leader.unwrap_or_default(),
        subscribed: subscribed_at.saturating_duration_since(killed),
        first_offer: first_offer.unwrap_or_default(),
        all_offered: offered_at.saturating_duration_since(killed),
    })
}
