//! From what a task or an executor holds to what its control group limits. Nothing that was promised is left out in
//! silence: what cannot be enforced is refused, unless the configuration says to run it all the same.

use crate::{
    AgentConfig, AgentError,
    cgroups::{Ability, Can, Cgroups, Limits, Mounts, Part},
    command::Unfit,
};
use muster_model::{LaunchNumber, Reason, Resources, Sealed, Value};
use muster_node::Limited;
use muster_proto::{
    executor_api::container_status,
    mesos::{self, task_info::LimitsEntry},
    wire_resources,
};
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::task::spawn_blocking;
use tracing::warn;

/// What this agent limits, and with what.
#[derive(Debug)]
pub(crate) struct Enforcer {
    cgroups: Cgroups,
    /// Whether what is held of the processors is also a quota.
    cpu_quota: bool,
    pids_max: u64,
    allow_unenforced: bool,
    sizes: Mutex<Sizes>,
}

/// What executors may use from now on.
#[derive(Debug, Default)]
struct Sizes {
    /// Still to be set.
    wanted: BTreeMap<LaunchNumber, Limits>,
    /// A thread is at it.
    is_set: bool,
}

impl Enforcer {
    pub(crate) fn new(cgroups: Cgroups, config: &AgentConfig) -> Self {
        Self {
            cgroups,
            cpu_quota: config.cgroup_cpu_quota,
            pids_max: config.pids_max,
            allow_unenforced: config.allow_unenforced_limits,
            sizes: Mutex::default(),
        }
    }

    /// With the groups of the agent of this key, which it makes.
    pub(crate) fn open(config: &AgentConfig, key: &str) -> Result<Self, AgentError> {
        let mounts = Mounts::of_this_process()
            .map_err(|source| AgentError::System { doing: "find the control groups", source })?;
        Ok(Self::new(Cgroups::open(&config.cgroup_root, key, &mounts)?, config))
    }

    /// The groups that limits are set in.
    pub(crate) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// What can be enforced.
    pub(crate) fn can(&self) -> &Can {
        self.cgroups.can()
    }

    /// The group of a run, and its limits: by what it holds, and by those of its own, which are above that (`limits` of
    /// `mesos.v1.TaskInfo`; infinite means none).
    pub(crate) fn of(
        &self,
        number: LaunchNumber,
        holds: &Resources,
        own: &[LimitsEntry],
    ) -> Result<(Vec<Part>, Limits), Unfit> {
        let limits = self.enforced(self.promised(holds, own)?, self.allow_unenforced)?;
        Ok((self.cgroups.of(&number.to_string()), limits))
    }

    /// Without what cannot be enforced, if it need not be.
    fn enforced(&self, promised: Limits, allow_unenforced: bool) -> Result<Limits, Unfit> {
        let can = self.can();
        let keep = |limit: Option<u64>, ability: &Ability, what: &str| match ability {
            Err(why) if limit.is_some() && !allow_unenforced => Err(Unfit::Here(format!(
                "This agent cannot limit {what}, and is not told to allow-unenforced-limits: {why}"
            ))),
            Err(_) => Ok(None),
            Ok(()) => Ok(limit),
        };
        Ok(Limits {
            // A share, and no limit.
            cpu_milli: promised.cpu_milli.filter(|_| can.cpu.is_ok()),
            cpu_quota_milli: keep(promised.cpu_quota_milli, &can.quota, "processor time")?,
            memory_bytes: keep(promised.memory_bytes, &can.memory, "memory")?,
            pids: keep(promised.pids, &can.pids, "the number of processes")?,
        })
    }

    fn promised(&self, holds: &Resources, own: &[LimitsEntry]) -> Result<Limits, Unfit> {
        let (cpus, mem) = (holds.quantity("cpus"), holds.quantity("mem"));
        let named = |name: &str| own.iter().rev().find(|it| it.key() == name);
        let own = |name: &str| match named(name).map(|it| it.value.unwrap_or_default().value) {
            None => Ok(None),
            Some(value) if value.is_nan() || value < 0.0 => {
                Err(Unfit::Invalid(format!("The limit of {name} is {value}, must be 0 or more")))
            }
            // Saturates, also from infinity.
            Some(value) => Ok(Some((value * 1_000.0).round() as u64)),
        };
        let held = |milli: u64| Some(milli).filter(|milli| *milli > 0);
        let finite = |milli: u64| Some(milli).filter(|milli| *milli < u64::MAX);
        let memory = own("mem")?.map_or(held(mem), finite);
        Ok(Limits {
            cpu_milli: held(cpus),
            cpu_quota_milli: own("cpus")?.map_or(held(cpus).filter(|_| self.cpu_quota), finite),
            memory_bytes: memory.map(|milli| milli.saturating_mul(1 << 20) / 1_000),
            pids: held(self.pids_max),
        })
    }

    /// What a run that goes on may use from now on. The newest size of each is set, whichever thread comes first.
    pub(crate) fn resize(self: &Arc<Self>, number: LaunchNumber, holds: &Resources) {
        let promised = self.promised(holds, &[]);
        let Ok(limits) = promised.and_then(|promised| self.enforced(promised, true)) else { return };
        let mut sizes = self.sizes();
        sizes.wanted.insert(number, limits);
        if std::mem::replace(&mut sizes.is_set, true) {
            return;
        }
        let this = self.clone();
        drop(spawn_blocking(move || this.set_sizes()));
    }

    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_sizes(&self) {
        loop {
            let mut sizes = self.sizes();
            let Some((number, limits)) = sizes.wanted.pop_first() else {
                sizes.is_set = false;
                return;
            };
            drop(sizes);
            // One that was started without a group, or just ended, has none.
            let group = self.cgroups.group(&number.to_string());
            if let Err(error) = group.set(&limits) {
                warn!(%number, %error, "an executor's limits stay as they were");
            }
        }
    }
}

/// The end of a run that had no memory left: the limit in words, and in the status.
pub(crate) fn out_of_memory(launch: LaunchNumber, wait_status: i32, limit: u64, peak: u64) -> Limited {
    let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / f64::from(1 << 20));
    let peak = if peak == 0 { "unknown".into() } else { mb(peak) };
    let resources = Resources::none().with("mem", Value::Scalar((limit >> 10).saturating_mul(1_000) >> 10));
    let status = mesos::TaskStatus {
        limitation: Some(mesos::TaskResourceLimitation { resources: wire_resources(&resources) }),
        container_status: Some(container_status(launch)),
        ..Default::default()
    };
    Limited {
        wait_status,
        reason: Reason::ContainerLimitationMemory,
        message: format!("Memory limit exceeded: Requested: {} Maximum Used: {peak}", mb(limit)).into(),
        sealed: Sealed::new(status.encode_to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::Layout;
    use std::path::Path;

    fn enforcer(config: AgentConfig) -> Enforcer {
        let none = Mounts { layout: Layout::None, parts: Vec::new(), here: None };
        Enforcer::new(Cgroups::open(Path::new("muster"), "key", &none).unwrap(), &config)
    }

    fn own(limits: &[(&str, f64)]) -> Vec<LimitsEntry> {
        let one = |(name, value): &(&str, f64)| LimitsEntry {
            key: Some((*name).into()),
            value: Some(mesos::value::Scalar { value: *value }),
        };
        limits.iter().map(one).collect()
    }

    #[test]
    fn what_is_promised_is_what_is_held_or_what_is_allowed_above_it() {
        let config = AgentConfig { cgroup_cpu_quota: true, pids_max: 9, ..Default::default() };
        let quota = enforcer(config);
        let holds = Resources::of(1_500, 64);
        let usual = Limits {
            cpu_milli: Some(1_500),
            cpu_quota_milli: Some(1_500),
            memory_bytes: Some(64 << 20),
            pids: Some(9),
        };
        assert_eq!(quota.promised(&holds, &own(&[])), Ok(usual));
        let above = own(&[("cpus", 2.5), ("mem", 128.0)]);
        let expected = Limits { cpu_quota_milli: Some(2_500), memory_bytes: Some(128 << 20), ..usual };
        assert_eq!(quota.promised(&holds, &above), Ok(expected));
        let none = own(&[("cpus", f64::INFINITY), ("mem", f64::INFINITY)]);
        let expected = Limits { cpu_quota_milli: None, memory_bytes: None, ..usual };
        assert_eq!(quota.promised(&holds, &none), Ok(expected));
        assert!(matches!(quota.promised(&holds, &own(&[("mem", -1.0)])), Err(Unfit::Invalid(_))));
        let plain = enforcer(AgentConfig::default());
        let expected = Limits { cpu_quota_milli: None, pids: None, ..usual };
        assert_eq!(plain.promised(&holds, &own(&[])), Ok(expected));
        assert_eq!(plain.promised(&Resources::none(), &own(&[])), Ok(Limits::default()));
    }

    #[test]
    fn what_cannot_be_enforced_is_refused_or_left_out_by_the_configuration() {
        let number = LaunchNumber::default();
        let holds = Resources::of(100, 64);
        let strict = enforcer(AgentConfig::default());
        match strict.of(number, &holds, &own(&[])) {
            Err(Unfit::Here(why)) => {
                assert!(
                    why.contains("cannot limit memory") && why.contains("allow-unenforced-limits"),
                    "{why}"
                );
                assert!(why.contains("no control groups are mounted"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(strict.of(number, &Resources::of(100, 0), &own(&[])), Ok((Vec::new(), Limits::default())));
        let lax = enforcer(AgentConfig { allow_unenforced_limits: true, ..Default::default() });
        assert_eq!(lax.of(number, &holds, &own(&[])), Ok((Vec::new(), Limits::default())));
    }
}
