//! Tasks that were launched together: their executor is told of all of them at once, or of none.
//!
//! Each member has an order, a record and updates of its own, like any other task. One that waits for its executor is
//! handed when all are there, by one record for all. Whatever ends one before that ends all.
//!
//! # Laws
//! - Members are sent in one event, after one record of all as handed is synced.
//! - A kill of a member that is not handed kills all, those too whose order comes later.
//! - A group does not wait for ever: what a leader does not order in time is not coming any more.

use crate::{
    effect::Effect,
    node::{After, Node},
    record::Record,
    task::Phase,
};
use muster_model::{ExecutorEvent, LaunchNumber, Reason, Source, TaskGroup, TaskState};

/// Groups of which it is remembered why they ended; of others it is told by what the disk has.
const FAILED_MAX: usize = 1_000;

/// Why no member of a group is handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) state: TaskState,
    pub(crate) reason: Reason,
    pub(crate) message: &'static str,
}

impl Failed {
    pub(crate) const KILLED: Self = Self {
        state: TaskState::Killed,
        reason: Reason::TaskKilledDuringLaunch,
        message: "A task of the group was killed before all were handed to their executor",
    };
    pub(crate) const NO_EXECUTOR: Self = Self {
        state: TaskState::Dropped,
        reason: Reason::ExecutorTerminated,
        message: "The executor of the task group is about to end, or ended",
    };
    pub(crate) const NO_ROOM: Self = Self {
        state: TaskState::Dropped,
        reason: Reason::ContainerLaunchFailed,
        message: "The agent holds as many tasks as it may: the task group does not fit",
    };
    pub(crate) const ONE_LOST: Self = Self {
        state: TaskState::Dropped,
        reason: Reason::AgentRestarted,
        message: "Another task of the group was lost before all were handed to their executor",
    };
    pub(crate) const NO_VOLUME: Self = Self {
        state: TaskState::Failed,
        reason: Reason::ContainerLaunchFailed,
        message: "A volume of another task of the group could not be mounted",
    };
    const INCOMPLETE: Self = Self {
        state: TaskState::Dropped,
        reason: Reason::AgentRestarted,
        message: "Not all tasks of the group came to the agent in time",
    };
}

/// Whether a task waits to be handed.
fn waits(phase: Phase) -> bool {
    matches!(phase, Phase::Pending | Phase::Intending | Phase::Unlisted | Phase::Queued | Phase::Mounting)
}

impl Node {
    pub(crate) fn group_of(&self, launch: LaunchNumber) -> Option<TaskGroup> {
        self.saved.groups.get(&launch).copied()
    }

    /// The group that a launch which this agent never heard of is in, if another member is here.
    pub(crate) fn group_with(&self, launch: LaunchNumber) -> Option<TaskGroup> {
        self.saved.groups.values().find(|group| group.has(launch)).copied()
    }

    /// A task that was just taken on is in a group.
    pub(crate) fn join_group(&mut self, now_ms: u64, launch: LaunchNumber, group: TaskGroup) {
        self.keep(Record::InGroup { launch, group });
        self.wait_for_group(now_ms, group);
    }

    /// Why a member whose order just came cannot be handed any more; none if it can.
    pub(crate) fn group_failed(&self, group: TaskGroup, launch: LaunchNumber) -> Option<Failed> {
        if let Some(failed) = self.execs.failed.get(&group.first) {
            return Some(*failed);
        }
        if self.saved.killed_groups.contains(&group.first) {
            return Some(Failed::KILLED);
        }
        // Without this one the group was not handed. So one that was answered, and does not wait, is over.
        let mut others = group.launches().filter(|other| *other != launch);
        let over = others.find(|other| {
            self.saved.answered.contains(other)
                && self.runs.get(other).is_none_or(|run| run.phase == Phase::Ended)
        })?;
        let is_killed = self.saved.tasks.get(&over).is_some_and(|task| task.state == TaskState::Killed);
        Some(if is_killed { Failed::KILLED } else { Failed::ONE_LOST })
    }

    /// Ends all members that wait, and those to come.
    pub(crate) fn fail_group(
        &mut self,
        now_ms: u64,
        group: TaskGroup,
        failed: Failed,
        effects: &mut Vec<Effect>,
    ) {
        let is_handed = |launch: &LaunchNumber| {
            let phase = self.runs.get(launch).map(|run| run.phase);
            use Phase::{Abandoned, Handed, Handing, Held, Holding, Live, Starting};
            matches!(
                phase,
                Some(Handing | Handed { .. } | Starting | Holding | Held | Live { .. } | Abandoned)
            )
        };
        if group.launches().any(|launch| is_handed(&launch)) {
            return; // each stands for itself from then on
        }
        self.execs.group_waits.remove(&group.first);
        let is_news =
            !self.execs.failed.contains_key(&group.first) && !self.saved.killed_groups.contains(&group.first);
        if failed == Failed::KILLED
            && is_news
            && !group.launches().all(|it| self.saved.answered.contains(&it))
        {
            self.keep(Record::KilledGroup { first: group.first });
        }
        self.execs.failed.entry(group.first).or_insert(failed);
        if self.execs.failed.len() > FAILED_MAX {
            self.execs.failed.pop_first();
        }
        for launch in group.launches() {
            if self.runs.get(&launch).is_some_and(|run| waits(run.phase)) {
                let Failed { state, reason, message } = failed;
                self.end(now_ms, launch, state, Source::Agent, Some(reason), message);
                self.task_not_handed(now_ms, launch, effects);
            }
        }
    }

    /// Hands a group whose members all wait for their executor, once their volumes are there.
    pub(crate) fn hand_group(&mut self, group: TaskGroup, effects: &mut Vec<Effect>) {
        let launches: Vec<LaunchNumber> = group.launches().collect();
        let phase = |launch: &LaunchNumber| self.runs.get(launch).map(|run| run.phase);
        if !launches.iter().all(|launch| phase(launch) == Some(Phase::Queued)) {
            return;
        }
        let mounts = launches.iter().filter(|launch| self.mounts(**launch, effects)).count();
        if mounts > 0 {
            return;
        }
        for launch in &launches {
            if let Some(run) = self.runs.get_mut(launch) {
                run.phase = Phase::Handing;
            }
        }
        self.execs.group_waits.remove(&group.first);
        self.keep(Record::HandedGroup { launches });
        self.after(After::HandedGroup(group));
    }

    /// The record of all members as handed is durable.
    pub(crate) fn group_handed(&mut self, group: TaskGroup, effects: &mut Vec<Effect>) {
        let launches: Vec<LaunchNumber> = group
            .launches()
            .filter(|launch| self.runs.get(launch).is_some_and(|run| run.phase == Phase::Handing))
            .collect();
        let number = launches.first().and_then(|launch| self.saved.executors.tasks.get(launch));
        let Some(number) = number.map(|task| task.executor) else { return };
        let stream = self.execs.used_by(number);
        let mut tasks = Vec::new();
        for launch in &launches {
            if let Some(run) = self.runs.get_mut(launch) {
                run.phase = Phase::Handed { sent: stream.is_some() };
            }
            let intent = self.saved.tasks.get(launch).and_then(|task| task.intent.as_ref());
            tasks.extend(intent.map(|intent| intent.sealed.clone()));
        }
        let Some(stream) = stream else { return };
        effects.push(Effect::Tell { stream, event: ExecutorEvent::LaunchGroup { tasks } });
        launches.iter().for_each(|launch| self.tell_kill(*launch, stream, effects));
    }

    fn wait_for_group(&mut self, now_ms: u64, group: TaskGroup) {
        let at = now_ms.saturating_add(self.config.executor_registration_ms);
        self.execs.group_waits.insert(group.first, (at, group));
    }

    /// A leader welcomed this agent, and orders what it does not know: from now on groups that are not whole wait anew.
    pub(crate) fn wait_for_groups(&mut self, now_ms: u64) {
        let waiting = self
            .saved
            .groups
            .iter()
            .filter(|(launch, _)| self.runs.get(launch).is_some_and(|run| waits(run.phase)));
        for group in waiting.map(|(_, group)| *group).collect::<Vec<_>>() {
            self.wait_for_group(now_ms, group);
        }
    }

    /// The facts of recovery are in: a group of which one is over has been over.
    pub(crate) fn begin_groups(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        for (launch, group) in self.saved.groups.clone() {
            if self.runs.get(&launch).is_some_and(|run| waits(run.phase))
                && let Some(failed) = self.group_failed(group, launch)
            {
                self.fail_group(now_ms, group, failed, effects);
            }
        }
    }

    pub(crate) fn wake_groups(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let due: Vec<TaskGroup> = self
            .execs
            .group_waits
            .values()
            .filter(|(at, _)| *at <= now_ms)
            .map(|(_, group)| *group)
            .collect();
        for group in due {
            self.execs.group_waits.remove(&group.first);
            // While no leader listens none orders: the next welcome begins the wait anew.
            let is_whole = group.launches().all(|launch| self.runs.contains_key(&launch));
            if self.connection.welcomed && !is_whole {
                self.fail_group(now_ms, group, Failed::INCOMPLETE, effects);
            }
        }
    }
}
