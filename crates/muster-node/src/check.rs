//! Tasks that the agent runs itself are looked after: their checks and health checks, and how long they may run.
//!
//! The machine says when a probe runs and what its result means; the shell runs it and reports. A result that changes
//! what is known of the task is a record, and an update to its framework.
//!
//! # Laws
//! - A probe runs at most once at a time for each check, and not more than `probes_max` of all.
//! - Every failure that counts is told; a success when it is the first, or follows a failure. What a check found is told
//!   when it differs from what it found before.
//! - A task is killed for its health only after `failures_max` failures in a row; those in its grace do not count while it
//!   was never healthy.
//! - What was last told, and since when the task runs, outlives the agent; how many failures came in a row does not.

use crate::{
    effect::{Effect, Probe},
    node::Node,
    record::{Cause, Record},
    task::Phase,
};
use muster_model::{CheckResult, CheckTerms, LaunchNumber, Reason, Source, TaskState, WallTime};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// A probe that is given no time is given up after this long, in ms.
const PROBE_MS_MAX: u64 = 600_000;
/// How much later a shorter one is given up than its time says, so that who runs it does so first, in ms.
const PROBE_MS_MIN: u64 = 1;

/// Which check of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Which {
    /// Its health check.
    Health,
    /// Its check.
    Check,
}

/// A result, or why there is none.
pub type Probed = Result<CheckResult, Arc<str>>;

/// Where a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Runs at this time.
    At(u64),
    /// Waits for one of the others to end.
    Queued,
    /// Runs, under this number.
    Runs(u64),
}

#[derive(Debug)]
struct Watch {
    terms: CheckTerms,
    turn: Turn,
    /// Failures do not count until then, while it was never healthy.
    grace_until: u64,
    was_healthy: bool,
    failures: u32,
}

/// All checks of tasks that run.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    watches: BTreeMap<(LaunchNumber, Which), Watch>,
    timers: BTreeSet<(u64, LaunchNumber, Which)>,
    queue: VecDeque<(LaunchNumber, Which)>,
    /// Probes that run, also of tasks that are over.
    running: BTreeSet<u64>,
    /// Probes so far.
    probes: u64,
}

impl Checks {
    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.timers.first().map(|(at, ..)| *at)
    }

    fn turn(&mut self, launch: LaunchNumber, which: Which, turn: Turn) {
        let Some(watch) = self.watches.get_mut(&(launch, which)) else { return };
        if let Turn::At(at) = std::mem::replace(&mut watch.turn, turn) {
            self.timers.remove(&(at, launch, which));
        }
        match turn {
            Turn::At(at) => drop(self.timers.insert((at, launch, which))),
            Turn::Queued => self.queue.push_back((launch, which)),
            Turn::Runs(_) => {}
        }
    }

    /// A task is not looked after any more.
    pub(crate) fn end(&mut self, launch: LaunchNumber) {
        for which in [Which::Health, Which::Check] {
            if let Some(Watch { turn: Turn::At(at), .. }) = self.watches.remove(&(launch, which)) {
                self.timers.remove(&(at, launch, which));
            }
        }
    }
}

impl Node {
    /// A task runs: from now on it is looked after.
    pub(crate) fn watch(&mut self, now_ms: u64, launch: LaunchNumber) {
        let Some(watched) = self.saved.watched.get(&launch) else { return };
        let is_killed = self.saved.tasks.get(&launch).is_none_or(|task| task.kill_grace_ms.is_some());
        if is_killed {
            return;
        }
        let wall = WallTime(self.config.wall_at_zero_ms.saturating_add(now_ms));
        let (terms, healthy) = (watched.terms.clone(), watched.healthy);
        let since = watched.since.unwrap_or(wall);
        if watched.since.is_none() && (terms.completion_ms, terms.health, terms.check) != (None, None, None) {
            self.keep(Record::Ran { launch, wall });
        }
        // By the wall clock, which is all that is left of the time before this agent. One that was set back gives it
        // more time rather than less.
        let age_ms = wall.0.saturating_sub(since.0);
        let after = |ms: u64| now_ms.saturating_add(ms.saturating_sub(age_ms));
        if let Some(ms) = terms.completion_ms {
            self.complete_by(launch, after(ms));
        }
        let health = terms.health.map(|it| (Which::Health, it.check, it.grace_ms));
        let check = terms.check.map(|it| (Which::Check, it, 0));
        for (which, terms, grace_ms) in health.into_iter().chain(check) {
            let at = after(terms.delay_ms);
            let watch = Watch {
                terms,
                turn: Turn::At(at),
                grace_until: after(grace_ms),
                was_healthy: healthy == Some(true),
                failures: 0,
            };
            self.checks.watches.insert((launch, which), watch);
            self.checks.timers.insert((at, launch, which));
        }
    }

    pub(crate) fn wake_checks(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        while let Some((at, launch, which)) = self.checks.timers.first().copied()
            && at <= now_ms
        {
            self.checks.turn(launch, which, Turn::Queued);
        }
        self.start_probes(effects);
    }

    fn start_probes(&mut self, effects: &mut Vec<Effect>) {
        while self.checks.running.len() < self.config.probes_max
            && let Some((launch, which)) = self.checks.queue.pop_front()
        {
            // One that is over, or was begun anew, waits in the queue for nothing.
            let Some(watch) = self.checks.watches.get(&(launch, which)).filter(|it| it.turn == Turn::Queued)
            else {
                continue;
            };
            let Some(intent) = self.saved.tasks.get(&launch).and_then(|task| task.intent.as_ref()) else {
                continue;
            };
            self.checks.probes += 1;
            let number = self.checks.probes;
            let timeout_ms = match watch.terms.timeout_ms {
                0 => PROBE_MS_MAX,
                ms => ms.clamp(PROBE_MS_MIN, PROBE_MS_MAX),
            };
            let sealed = intent.sealed.clone();
            effects.push(Effect::Probe(Box::new(Probe { launch, which, number, timeout_ms, sealed })));
            self.checks.running.insert(number);
            self.checks.turn(launch, which, Turn::Runs(number));
        }
    }

    /// A probe came to its end.
    pub(crate) fn probed(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        which: Which,
        number: u64,
        result: Probed,
        effects: &mut Vec<Effect>,
    ) {
        self.checks.running.remove(&number);
        let watch = self.checks.watches.get(&(launch, which));
        if let Some(watch) = watch.filter(|watch| watch.turn == Turn::Runs(number)) {
            let at = now_ms.saturating_add(watch.terms.interval_ms.max(1));
            self.checks.turn(launch, which, Turn::At(at));
            match which {
                Which::Health => self.health_probed(now_ms, launch, &result, effects),
                Which::Check => self.check_probed(now_ms, launch, &result),
            }
        }
        self.start_probes(effects);
    }

    fn health_probed(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        result: &Probed,
        effects: &mut Vec<Effect>,
    ) {
        let Some(health) = self.saved.watched.get(&launch).and_then(|it| it.terms.health) else { return };
        let Some(watch) = self.checks.watches.get_mut(&(launch, Which::Health)) else { return };
        if result.as_ref().is_ok_and(|found| found.is_healthy()) {
            let is_news = !watch.was_healthy || watch.failures > 0;
            (watch.was_healthy, watch.failures) = (true, 0);
            let is_told = self.saved.watched.get(&launch).is_some_and(|it| it.healthy == Some(true));
            if is_news || !is_told {
                self.health_is(now_ms, launch, true, "");
            }
            return;
        }
        if !watch.was_healthy && now_ms < watch.grace_until {
            return;
        }
        watch.failures = watch.failures.saturating_add(1);
        let is_last = watch.failures >= health.failures_max;
        let why = match result {
            Ok(CheckResult::Exit(status)) => format!("Command health check exited with status {status}"),
            Ok(CheckResult::Status(status)) => format!("HTTP health check was answered with status {status}"),
            Ok(CheckResult::Connected(_)) => "TCP health check could not connect".into(),
            Ok(CheckResult::Nothing(_)) => "Health check found nothing".into(),
            Err(why) => format!("Health check failed: {why}"),
        };
        self.health_is(now_ms, launch, false, &why);
        if is_last {
            self.keep_health(launch, false); // its end tells
            self.keep(Record::EndedFor { launch, cause: Cause::Unhealthy });
            let grace_ms = self.own_grace_ms(launch);
            self.kill_live(now_ms, launch, grace_ms, effects);
        }
    }

    fn health_is(&mut self, now_ms: u64, launch: LaunchNumber, healthy: bool, why: &str) {
        if self.can_tell(launch) {
            self.keep_health(launch, healthy);
            self.tell_watched(now_ms, launch, Reason::TaskHealthCheckStatusUpdated, why);
        }
    }

    fn keep_health(&mut self, launch: LaunchNumber, healthy: bool) {
        if self.saved.watched.get(&launch).is_some_and(|it| it.healthy != Some(healthy)) {
            self.keep(Record::Health { launch, healthy });
        }
    }

    fn check_probed(&mut self, now_ms: u64, launch: LaunchNumber, result: &Probed) {
        let Some(watched) = self.saved.watched.get(&launch) else { return };
        let Some(terms) = watched.terms.check else { return };
        let (found, why) = match result {
            Ok(found) => (*found, ""),
            Err(why) => (CheckResult::Nothing(terms.kind), &**why),
        };
        let is_told = watched.found.unwrap_or(CheckResult::Nothing(terms.kind)) == found;
        if is_told || !self.can_tell(launch) {
            return;
        }
        self.keep(Record::Found { launch, found });
        self.tell_watched(now_ms, launch, Reason::TaskCheckStatusUpdated, why);
    }

    /// Whether what changed of a task that runs on is told. Where too much of it waits to be told it is not kept as told
    /// either: the next probe that finds the same tells it.
    fn can_tell(&self, launch: LaunchNumber) -> bool {
        self.saved.tasks.get(&launch).is_some_and(|it| it.updates.len() < UPDATES_WAITING_MAX)
    }

    fn tell_watched(&mut self, now_ms: u64, launch: LaunchNumber, reason: Reason, why: &str) {
        self.report(now_ms, launch, TaskState::Running, Source::Executor, Some(reason), why);
    }

    /// A task has run for as long as it may.
    pub(crate) fn completion_over(&mut self, now_ms: u64, launch: LaunchNumber, effects: &mut Vec<Effect>) {
        let is_live = self.runs.get(&launch).is_some_and(|run| matches!(run.phase, Phase::Live { .. }));
        let is_killed = self.saved.tasks.get(&launch).is_none_or(|task| task.kill_grace_ms.is_some());
        if is_live && !is_killed {
            self.keep(Record::EndedFor { launch, cause: Cause::Completion });
            // As Mesos: it had its time.
            self.kill_live(now_ms, launch, 0, effects);
        }
    }
}

/// Updates of one task that wait to be confirmed, beyond which its checks are not told.
const UPDATES_WAITING_MAX: usize = 64;
