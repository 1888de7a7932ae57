//! What the demonstration showed.

use super::job::Outcome;
use crate::cli::Output;
use crate::output::print_json;
use serde_json::json;
use std::time::Duration;

/// How long it took after the leader was killed.
#[derive(Debug, Default)]
pub(super) struct Failover {
    pub(super) killed: String,
    pub(super) leader: String,
    pub(super) elected: Option<Duration>,
    pub(super) subscribed: Option<Duration>,
    pub(super) offered: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Report {
    pub(super) result: Outcome,
    pub(super) failover: Failover,
    /// Whether the killed master caught up after its restart.
    pub(super) rejoined: bool,
    pub(super) took: Duration,
}

impl Report {
    pub(super) fn is_good(&self) -> bool {
        let Outcome { lost, doubled, different, .. } = &self.result;
        lost.is_empty() && doubled.is_empty() && different.is_empty()
    }

    pub(super) fn print(&self, output: Output) {
        let Self { result, failover, rejoined, took } = self;
        let ms = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
        if output == Output::Json {
            print_json(&json!({
                "tasks": result.tasks, "digests_equal": result.equal, "digests_different": result.different,
                "lost": result.lost.iter().map(|(task, why)| json!({"task": task, "why": why})).collect::<Vec<_>>(),
                "doubled": result.doubled.iter().map(|(task, times)| json!({"task": task, "times": times})).collect::<Vec<_>>(),
                "launched_again": result.repeated, "took_ms": took.as_millis() as u64,
                "failover": {
                    "killed": failover.killed, "leader": failover.leader, "new_leader_ms": ms(failover.elected),
                    "subscribed_again_ms": ms(failover.subscribed), "first_offer_ms": ms(failover.offered),
                    "rejoined": rejoined,
                },
            }));
            return;
        }
        let text = |time: Option<Duration>| ms(time).map_or("never".into(), |ms| format!("{ms} ms"));
        println!(
            "leader {} killed -> {} leads            {}",
            failover.killed,
            failover.leader,
            text(failover.elected)
        );
        println!("                 -> framework subscribed  {}", text(failover.subscribed));
        println!("                 -> first new offer       {}", text(failover.offered));
        let back = if *rejoined { "caught up" } else { "did not catch up in 20 s" };
        println!("{} restarted and {back}", failover.killed);
        println!(
            "{} tasks in {:.1} s; {} digests equal our own, {} differ; {} launches were asked for again",
            result.tasks,
            took.as_secs_f64(),
            result.equal,
            result.different.len(),
            result.repeated
        );
        println!("{} tasks lost, {} tasks doubled", result.lost.len(), result.doubled.len());
        for (task, why) in result.lost.iter().take(10) {
            println!("  lost: {task}: {why}");
        }
        for (task, times) in result.doubled.iter().take(10) {
            println!("  doubled: {task} ran {times} times");
        }
        for task in result.different.iter().take(10) {
            println!("  differs: {task}");
        }
    }
}
