//! Questions to the masters: what became of these tasks, or of all. One at a time, so that an answer that never comes
//! is not made good by that to a later one.

use crate::client::Desk;
use crate::history::Event;
use muster_sdk::{SchedulerDriver, TaskId};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// From one question that is answered to the next.
const PAUSE: Duration = Duration::from_millis(700);

/// Who is asked about, and who is still to be answered.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    open: BTreeSet<String>,
    asked: Option<Instant>,
    was_about_all: bool,
}

impl Questions {
    /// Whether there is time for another.
    pub(crate) fn is_due(&self) -> bool {
        self.open.is_empty() && self.asked.is_none_or(|at| at.elapsed() >= PAUSE)
    }

    /// Asks about all tasks, or by name about these and others, in turn. These must be told of in any case.
    pub(crate) fn ask_in_turn(
        &mut self,
        desk: &Desk,
        driver: &SchedulerDriver,
        of: BTreeSet<String>,
        others: impl IntoIterator<Item = String>,
    ) {
        self.was_about_all = !self.was_about_all;
        if self.was_about_all {
            self.ask(desk, driver, Vec::new(), of);
        } else {
            let named: BTreeSet<String> = of.into_iter().chain(others).collect();
            self.ask_about(desk, driver, named);
        }
    }

    /// Asks about these by name.
    pub(crate) fn ask_about(&mut self, desk: &Desk, driver: &SchedulerDriver, of: BTreeSet<String>) {
        // No names would stand for all.
        if !of.is_empty() {
            self.ask(desk, driver, of.iter().cloned().collect(), of);
        }
    }

    fn ask(&mut self, desk: &Desk, driver: &SchedulerDriver, named: Vec<String>, of: BTreeSet<String>) {
        let tasks = named.iter().map(|task| (TaskId::new(task.as_str()), None));
        // A scheduler that was killed asks nothing, one with too many calls asks later.
        if driver.reconcile(tasks).is_err() {
            return;
        }
        desk.record(Event::Asks { tasks: named });
        self.asked = Some(Instant::now());
        if !of.is_empty() {
            self.open = of;
            desk.load.asks(&desk.name);
        }
    }

    /// A task was told of, or its end.
    pub(crate) fn told(&mut self, desk: &Desk, task: &str) {
        if self.open.remove(task) && self.open.is_empty() {
            desk.load.is_answered(&desk.name);
        }
    }

    /// Whoever asked is gone.
    pub(crate) fn void(&mut self, desk: &Desk) {
        self.open.clear();
        desk.load.asks_no_more(&desk.name);
    }
}
