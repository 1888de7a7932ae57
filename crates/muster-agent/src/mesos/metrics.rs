//! `/metrics/snapshot` of an agent: numbers under Mesos' names, where they mean the same. What is counted is counted since
//! this agent started.

use super::seen::Seen;
use crate::doctor::enforced;
use muster_http::show::resources::units;
use muster_model::{Resources, TaskState};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

/// States in which a task is counted as it is.
const ACTIVE: [(TaskState, &str); 4] = [
    (TaskState::Staging, "staging"),
    (TaskState::Starting, "starting"),
    (TaskState::Running, "running"),
    (TaskState::Killing, "killing"),
];
/// States at whose coming it is counted; those of which Mesos' agents know nothing count as lost.
const ENDED: [(TaskState, &str); 4] = [
    (TaskState::Finished, "finished"),
    (TaskState::Failed, "failed"),
    (TaskState::Killed, "killed"),
    (TaskState::Gone, "gone"),
];
/// What is not there at all: nothing is revocable, nobody provides resources, nothing is provisioned.
const NONE: [&str; 10] = [
    "containerizer/mesos/provisioner/bind/remove_rootfs_errors",
    "containerizer/mesos/provisioner/remove_container_errors",
    "resource_provider_manager/events/disconnect",
    "resource_provider_manager/events/subscribe",
    "resource_provider_manager/subscribed",
    "slave/executors_preempted",
    "slave/recovery_errors", // an agent that cannot recover does not begin
    "slave/invalid_framework_messages",
    "slave/invalid_status_updates", // refused with the call, which is not counted
    "containerizer/mesos/container_destroy_errors", // what does not end is tried again until it does
];

/// Of the times from an order to its command that runs, as Mesos names quantiles.
const LAUNCH_TIMES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1.0, "max")];

/// All numbers, by name.
pub(super) fn all(seen: &Seen) -> BTreeMap<String, f64> {
    let (about, history) = (&*seen.about, &seen.history);
    let counts = &history.counts;
    let mut all: BTreeMap<String, f64> = NONE.iter().map(|name| ((*name).to_owned(), 0.0)).collect();
    let mut put = |name: &str, value: f64| {
        all.insert(name.to_owned(), value);
    };
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    put("containerizer/fetcher/cache_size_total_bytes", read(&about.fetched.cache_total));
    put("containerizer/fetcher/cache_size_used_bytes", read(&about.fetched.cache_used));
    put("containerizer/fetcher/task_fetches_failed", read(&about.fetched.failed));
    put("containerizer/fetcher/task_fetches_succeeded", read(&about.fetched.succeeded));
    put("gc/path_removals_failed", read(&about.gone.failed));
    put("gc/path_removals_pending", read(&about.gone.kept));
    put("gc/path_removals_succeeded", read(&about.gone.removed));
    put("slave/container_launch_errors", counts.launch_errors as f64);
    put("slave/recovery_time_secs", about.recovery_secs);
    put("slave/registered", if history.leader.is_some() && history.agent_id.is_some() { 1.0 } else { 0.0 });
    put("slave/uptime_secs", about.since.elapsed().as_secs_f64());
    put("slave/valid_framework_messages", counts.messages as f64);
    put("slave/valid_status_updates", counts.updates as f64);
    for (name, found) in &about.containers {
        put(&format!("muster/can_contain/{name}"), if found.is_ok() { 1.0 } else { 0.0 });
    }
    for (name, ability) in enforced(about.enforcer.can()) {
        put(&format!("muster/can_enforce/{name}"), if ability.is_ok() { 1.0 } else { 0.0 });
    }
    if let Some((count, times)) = about.launches.quantiles(LAUNCH_TIMES.map(|(quantile, _)| quantile)) {
        put("muster/launch_ms/count", count as f64);
        for ((_, name), time) in LAUNCH_TIMES.iter().zip(times) {
            put(&format!("muster/launch_ms/{name}"), time.as_secs_f64() * 1e3);
        }
    }
    for (state, name) in ENDED {
        put(&format!("slave/tasks_{name}"), counts.ended.get(&state).copied().unwrap_or(0) as f64);
    }
    let others = counts.ended.iter().filter(|(state, _)| {
        let is_counted = ENDED.iter().any(|(it, _)| it == *state);
        !is_counted && **state != TaskState::Error
    });
    put("slave/tasks_lost", others.map(|(_, n)| *n as f64).sum());
    let active = |state| history.tasks.values().filter(|task| task.state == state).count() as f64;
    for (state, name) in ACTIVE {
        put(&format!("slave/tasks_{name}"), active(state));
    }
    executors(seen, &mut put);
    resources(seen, &mut put);
    muster_http::machine::system(&mut all);
    all
}

fn executors(seen: &Seen, put: &mut impl FnMut(&str, f64)) {
    let history = &seen.history;
    let own = || history.tasks.values().filter(|it| it.executor.is_none() && !it.state.is_terminal());
    let runs = || history.runs.values().filter(|run| !run.is_over());
    let live = || runs().filter(|run| !run.unwanted);
    let count = |own: usize, runs: usize| (own + runs) as f64;
    let registering = own().filter(|task| task.state == TaskState::Staging).count();
    put("slave/executors_registering", count(registering, live().filter(|run| !run.subscribed).count()));
    let running = own().filter(|task| task.state != TaskState::Staging).count();
    put("slave/executors_running", count(running, live().filter(|run| run.subscribed).count()));
    put("slave/executors_terminating", runs().filter(|run| run.unwanted).count() as f64);
    put("slave/executors_terminated", history.counts.executors_ended as f64);
    let frameworks: BTreeSet<_> = own()
        .map(|task| &task.intent.task.framework_id)
        .chain(runs().map(|run| &run.intent.name.framework_id))
        .collect();
    put("slave/frameworks_active", frameworks.len() as f64);
}

fn resources(seen: &Seen, put: &mut impl FnMut(&str, f64)) {
    let (total, used): (&Resources, _) = (&seen.about.info.resources, seen.used());
    for name in ["cpus", "disk", "gpus", "mem"] {
        let (total, used) = (units(total.scalar(name)), units(used.scalar(name)));
        put(&format!("slave/{name}_total"), total);
        put(&format!("slave/{name}_used"), used);
        put(&format!("slave/{name}_percent"), if total > 0.0 { used / total } else { 0.0 });
        for what in ["total", "used", "percent"] {
            put(&format!("slave/{name}_revocable_{what}"), 0.0);
        }
    }
}
