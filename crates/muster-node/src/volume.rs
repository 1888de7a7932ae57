//! Persistent volumes: made visible to executors that run, and kept as long as a process may use them.

use crate::{
    effect::Effect,
    group::Failed,
    node::Node,
    task::{Phase, Run},
};
use muster_model::{LaunchNumber, Reason, Source, TaskState, VolumeNumber};
use std::{collections::BTreeSet, sync::Arc};

impl Node {
    /// Has the volumes of a queued task made visible to its executor, which runs, unless they are: it must not be told of
    /// the task before. Whether that is still to be done.
    pub(crate) fn mounts(&mut self, launch: LaunchNumber, effects: &mut Vec<Effect>) -> bool {
        let Some(volumes) = self.saved.volumes.get(&launch).filter(|volumes| !volumes.is_empty()) else {
            return false;
        };
        let Some(number) = self.saved.executors.tasks.get(&launch).map(|task| task.executor) else {
            return false;
        };
        let Some(executor) = self.saved.executors.runs.get(&number) else { return false };
        let is_queued = |run: &&mut Run| run.phase == Phase::Queued && !run.mounted;
        let Some(run) = self.runs.get_mut(&launch).filter(is_queued) else { return false };
        run.phase = Phase::Mounting;
        let (name, volumes) = (executor.intent.name.clone(), volumes.clone());
        let used = self.volumes_of_run(number, launch);
        effects.push(Effect::Mount { launch, number, name, volumes, used });
        true
    }

    /// The volumes that a run uses beside those of this task: its own, and those of its tasks that live.
    fn volumes_of_run(&self, number: LaunchNumber, launch: LaunchNumber) -> BTreeSet<VolumeNumber> {
        let others = self.saved.volumes.iter().filter(|(other, _)| {
            let of = self.saved.executors.tasks.get(other).map_or(**other, |task| task.executor);
            **other != launch && of == number
        });
        let used = others.flat_map(|(other, volumes)| {
            let lives = self.runs.get(other).is_some_and(|run| run.phase != Phase::Ended);
            volumes.iter().filter(move |volume| lives || volume.executor)
        });
        used.map(|volume| volume.number).collect()
    }

    /// The volumes of a task are visible to its executor; or they cannot be made so, and the task has failed.
    pub(crate) fn mounted(
        &mut self,
        now_ms: u64,
        launch: LaunchNumber,
        failed: Option<Arc<str>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&launch).filter(|run| run.phase == Phase::Mounting) else { return };
        run.phase = Phase::Queued;
        let Some(why) = failed else {
            run.mounted = true;
            let number = self.saved.executors.tasks.get(&launch).map(|task| task.executor);
            // Without a stream it is handed when there is one again.
            if number.is_some_and(|number| self.execs.is_subscribed(number)) {
                self.hand(launch, effects);
            }
            return;
        };
        let reason = Some(Reason::ContainerLaunchFailed);
        self.end(now_ms, launch, TaskState::Failed, Source::Agent, reason, &why);
        self.task_not_handed(now_ms, launch, effects);
        if let Some(group) = self.group_of(launch) {
            self.fail_group(now_ms, group, Failed::NO_VOLUME, effects);
        }
    }

    /// The registry's volumes are these; what a process uses stays whatever the registry knows.
    pub(crate) fn keep_volumes(&self, keep: Vec<VolumeNumber>, effects: &mut Vec<Effect>) {
        let mut keep: BTreeSet<VolumeNumber> = keep.into_iter().collect();
        for (launch, volumes) in &self.saved.volumes {
            let executor = self.saved.executors.tasks.get(launch).map_or(*launch, |task| task.executor);
            let executor = self.saved.executors.runs.get(&executor);
            let task_lives = self.runs.get(launch).is_some_and(|run| run.phase != Phase::Ended);
            if task_lives || executor.is_some_and(|run| run.ended.is_none()) {
                keep.extend(volumes.iter().map(|volume| volume.number));
            }
        }
        let incarnation = self.saved.fence.incarnation;
        effects.push(Effect::KeepVolumes { incarnation, keep });
    }
}
