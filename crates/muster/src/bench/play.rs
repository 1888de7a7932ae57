//! How simulated agents and frameworks behave where they do not just launch tasks that run on.

use super::{Api, floors::Load, frameworks::Pace};
use clap::Args;
use muster_model::Resources;
use std::time::{Duration, Instant};

/// How frameworks ask for tasks as fast as they can.
#[derive(Debug, Args)]
pub(crate) struct Accepts {
    /// What frameworks speak.
    #[arg(long, value_enum, default_value_t = Api::Grpc)]
    pub(crate) api: Api,
    /// Tasks in one ACCEPT.
    #[arg(long, default_value_t = 1, value_parser = super::positive)]
    pub(crate) tasks_per_accept: usize,
    /// ACCEPTs of one framework on their way at a time.
    #[arg(long, default_value_t = 1, value_parser = super::positive)]
    inflight: usize,
}

impl Accepts {
    pub(crate) fn pace(&self) -> Pace {
        Pace::unpaced(self.tasks_per_accept, self.inflight)
    }

    /// What so many frameworks ask of a quorum with nothing around it.
    pub(crate) fn load(&self, frameworks: usize) -> Load {
        Load { clients: frameworks.saturating_mul(self.inflight), records: self.tasks_per_accept }
    }
}

impl Pace {
    /// As fast as offers come, so many tasks in an ACCEPT and so many ACCEPTs at a time.
    pub(crate) fn unpaced(tasks_per_accept: usize, in_flight: usize) -> Self {
        Self { tasks_per_accept, in_flight, every: Duration::ZERO, task: Resources::of(10, 1) }
    }

    /// Where in its interval a framework launches, so that not all do so at once.
    pub(crate) fn phase(&self, framework: usize) -> Duration {
        self.every.mul_f64((framework as f64 * 0.618).fract())
    }

    /// Takes the ACCEPT that is due now, and sets when the next one is; from when its time counts.
    pub(crate) fn due(&self, next_at: &mut Instant, by_clock: bool) -> Instant {
        let now = Instant::now();
        let asked = if by_clock && !self.every.is_zero() { *next_at } else { now };
        *next_at = if by_clock { asked } else { (*next_at).max(now - self.every) } + self.every;
        asked
    }
}

/// What becomes of tasks on simulated agents. It stands in the ids of tasks, which is all that agents know of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They are reported running, and run on.
    #[default]
    Runs,
    /// They are reported running, and finished right after that.
    Ends,
    /// Agents say that they have taken the order, and nothing more.
    Taken,
}

impl Fate {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Runs => "r",
            Self::Ends => "e",
            Self::Taken => "t",
        }
    }

    /// Of the task with this id.
    pub(crate) fn of(id: &str) -> Self {
        let is = |fate: &Self| id.starts_with(fate.prefix());
        [Self::Ends, Self::Taken].into_iter().find(is).unwrap_or(Self::Runs)
    }
}

/// What simulated agents and frameworks do but launch tasks that run on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Play {
    /// What becomes of tasks.
    pub(crate) fate: Fate,
    /// Tasks that each framework launches; none = without an end.
    pub(crate) tasks_max: Option<u64>,
    /// Frameworks launch nothing and decline all offers, this long after they came.
    pub(crate) declines: Option<Duration>,
    /// ACCEPTs are due by the clock, however late those before were; times count from when they were due, so that what
    /// waits for a stall is counted with all that it waits.
    pub(crate) by_clock: bool,
}

impl Play {
    /// The id of a framework's nth task.
    pub(crate) fn task_id(&self, n: u64) -> String {
        format!("{}{n}", self.fate.prefix())
    }

    /// Whether a framework may launch another that has launched so many, of which so many are to end and are not over: who
    /// launches faster than tasks end would measure a queue.
    pub(crate) fn has_room(&self, launched: u64, open: usize, pace: &Pace) -> bool {
        self.tasks_max.is_none_or(|max| launched < max) && open <= 16 * pace.in_flight * pace.tasks_per_accept
    }
}
