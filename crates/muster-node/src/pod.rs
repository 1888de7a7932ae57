//! The built-in executor of task groups: no process, but this machine. Each task of a group has a supervisor of its own,
//! within the executor's sandbox and container.
//!
//! A group is started when all its orders are here: each command is held, and none is let go before all are held and on
//! the disk. An executor lives as long as a task of it does, and holds its resources until then.
//!
//! # Laws
//! - All commands of a group are held and recorded before one is released.
//! - A task of a group that ends other than TASK_FINISHED ends the others: those that run are killed with their grace,
//!   those that do not never do.
//! - An executor ends when its last task has, and only then.
//! - What an agent that died had begun of that its successor ends: it looks at each group before it begins.

use crate::{
    effect::{Effect, Within},
    input::End,
    node::Node,
    record::Record,
    task::Phase,
};
use muster_model::{LaunchNumber, Reason, Source, TaskGroup, TaskState};
use std::{collections::BTreeSet, sync::Arc};

const ONE_FAILED: &str = "Another task of the group ended before this one was started";

impl Node {
    pub(crate) fn is_built_in(&self, number: LaunchNumber) -> bool {
        self.saved.built_in.contains(&number)
    }

    /// The built-in executor that a task runs in.
    pub(crate) fn pod_of(&self, launch: LaunchNumber) -> Option<LaunchNumber> {
        let number = self.saved.executors.tasks.get(&launch)?.executor;
        self.is_built_in(number).then_some(number)
    }

    /// Where a task is started, if that is within an executor.
    pub(crate) fn within(&self, launch: LaunchNumber) -> Option<Within> {
        let executor = self.saved.executors.runs.get(&self.pod_of(launch)?)?;
        Some(Within { executor: Arc::clone(&executor.intent) })
    }

    /// A task waits for its group; once that is whole it is started.
    pub(crate) fn queue_in_pod(&mut self, now_ms: u64, launch: LaunchNumber, effects: &mut Vec<Effect>) {
        let Some(group) = self.group_of(launch) else {
            // The registry lets nobody launch one alone.
            let why = "The task's executor runs task groups, and the task is in none";
            let reason = Some(Reason::TaskInvalid);
            return self.end(now_ms, launch, TaskState::Error, Source::Agent, reason, why);
        };
        let launches: Vec<LaunchNumber> = group.launches().collect();
        let waits = |it: &LaunchNumber| self.runs.get(it).is_some_and(|run| run.phase == Phase::Queued);
        if !launches.iter().all(waits) {
            return;
        }
        self.execs.group_waits.remove(&group.first);
        if let Some(number) = self.pod_of(launch) {
            self.execs.used_by(number);
        }
        for launch in launches {
            self.hold(launch, Phase::Queued, effects);
        }
    }

    /// One more of a group is held and on the disk: the last lets all go.
    pub(crate) fn release_pod(&mut self, group: TaskGroup, effects: &mut Vec<Effect>) {
        let launches: Vec<LaunchNumber> = group.launches().collect();
        let is_held = |it: &LaunchNumber| self.runs.get(it).is_some_and(|run| run.phase == Phase::Held);
        if launches.iter().all(is_held) {
            for launch in launches {
                if let Some(run) = self.runs.get_mut(&launch) {
                    run.phase = Phase::Live { released: false };
                }
                effects.push(Effect::Release { launch });
            }
        }
    }

    /// The facts of recovery are in, or a step is over: groups of which a task failed are ended, and executors of which
    /// none is left.
    pub(crate) fn settle_pods(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        // What is done here may end more of them.
        while let Some(launch) = self.execs.over.pop() {
            let Some(number) = self.pod_of(launch) else { continue };
            if let Some(group) = self.group_of(launch)
                && self.saved.tasks.get(&launch).is_some_and(|task| task.state != TaskState::Finished)
            {
                self.end_pod_group(now_ms, group, effects);
            }
            self.end_pod_if_empty(now_ms, number, effects);
        }
    }

    /// Before anything else happens: what is found on the disk is settled as if it had just happened.
    pub(crate) fn begin_pods(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.execs.over = self
            .runs
            .iter()
            .filter(|(launch, run)| run.phase == Phase::Ended && self.pod_of(**launch).is_some())
            .map(|(launch, _)| *launch)
            .collect();
        self.settle_pods(now_ms, effects);
        let unwanted = self.saved.executors.runs.iter().filter(|(_, run)| run.ended.is_none());
        for (number, unwanted) in unwanted.map(|(number, run)| (*number, run.unwanted)).collect::<Vec<_>>() {
            if !self.is_built_in(number) {
                continue;
            }
            if unwanted {
                self.end_pod(now_ms, number, effects);
            }
            self.end_pod_if_empty(now_ms, number, effects);
        }
    }

    fn end_pod_group(&mut self, now_ms: u64, group: TaskGroup, effects: &mut Vec<Effect>) {
        for launch in group.launches() {
            let grace_ms = self.own_grace_ms(launch);
            self.end_in_pod(now_ms, launch, grace_ms, effects);
        }
    }

    /// Ends a task of a group however far it came.
    fn end_in_pod(&mut self, now_ms: u64, launch: LaunchNumber, grace_ms: u64, effects: &mut Vec<Effect>) {
        let Some(phase) = self.runs.get(&launch).map(|run| run.phase) else { return };
        let is_killed = self.saved.tasks.get(&launch).is_some_and(|task| task.kill_grace_ms.is_some());
        match phase {
            Phase::Starting | Phase::Holding | Phase::Held => self.abandon(launch, effects),
            Phase::Live { .. } if !is_killed => self.kill_live(now_ms, launch, grace_ms, effects),
            Phase::Pending | Phase::Intending | Phase::Unlisted | Phase::Queued | Phase::Mounting => {
                let reason = Some(Reason::TaskKilledDuringLaunch);
                self.end(now_ms, launch, TaskState::Killed, Source::Agent, reason, ONE_FAILED);
            }
            Phase::Live { .. } | Phase::Abandoned | Phase::Handing | Phase::Handed { .. } | Phase::Ended => {}
        }
    }

    /// An executor shall end: so shall its tasks, none later than the executor may.
    pub(crate) fn end_pod(&mut self, now_ms: u64, number: LaunchNumber, effects: &mut Vec<Effect>) {
        let own = self.saved.executors.runs.get(&number).and_then(|run| run.intent.grace_ms);
        let most = own.unwrap_or(self.config.executor_grace_ms);
        let launches: BTreeSet<LaunchNumber> = self.execs.tasks_of(number).collect();
        for launch in launches {
            let grace_ms = self.own_grace_ms(launch).min(most);
            self.end_in_pod(now_ms, launch, grace_ms, effects);
        }
    }

    fn end_pod_if_empty(&mut self, now_ms: u64, number: LaunchNumber, effects: &mut Vec<Effect>) {
        let lives =
            |launch: LaunchNumber| self.runs.get(&launch).is_some_and(|run| run.phase != Phase::Ended);
        if !self.execs.tasks_of(number).any(lives) {
            self.executor_ended(now_ms, number, &End::Exited(0), effects);
        }
    }

    /// A run that was just begun has no process.
    pub(crate) fn begin_pod(&mut self, number: LaunchNumber) {
        self.keep(Record::BuiltIn { executor: number });
    }
}
