//! What was counted and timed: words of clients, calls and events of each framework, rounds of the allocator.

use super::{ACTIVE, Active, Gathered, Numbers, short};
use crate::tally::{Tally, Times};
use muster_leader::{Counts, Pair};
use muster_registry::{Framework, Registry};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Kinds of operations that are carried out.
const OPERATIONS: [&str; 4] = ["create", "destroy", "reserve", "unreserve"];
/// Parts of a thousand of the times that are shorter, by name.
const PERCENTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999), ("p9999", 0.9999)];

impl Gathered {
    /// Words of all clients, and what became of them.
    pub(super) fn words(&self, all: &mut Numbers) {
        let counts = &self.reigns;
        for (name, n) in self.tallies.messages() {
            all.count(format!("master/messages_{name}"), n);
        }
        all.count("master/dropped_messages", counts.dropped + self.tallies.dropped_so_far());
        let pairs = [
            ("status_updates", counts.updates),
            ("status_update_acknowledgements", counts.acknowledgements),
            ("operation_status_update_acknowledgements", counts.operation_acknowledgements),
            ("framework_to_executor_messages", counts.messages_down),
            ("executor_to_framework_messages", counts.messages_up),
        ];
        for (name, Pair { valid, invalid }) in pairs {
            all.count(format!("master/valid_{name}"), valid);
            all.count(format!("master/invalid_{name}"), invalid);
        }
        all.count("master/event_queue_messages", self.waiting as u64);
        all.count("registrar/queued_operations", self.proposed as u64);
    }

    /// Operations: none is ever on its way, it is done or refused when it is decided.
    pub(super) fn operations(&self, counts: &Counts, registry: &Registry, all: &mut Numbers) {
        let refused: u64 = counts.operations.values().map(|pair| pair.invalid).sum();
        let finished: u64 = counts.operations.values().map(|pair| pair.valid).sum();
        let mut put = |of: String, total, Pair { valid, invalid }| {
            all.count(format!("{of}/pending"), 0);
            all.count(format!("{of}/total"), total);
            all.count(format!("{of}/finished"), valid);
            all.count(format!("{of}/error"), invalid);
        };
        let held = |kind: &str| {
            registry.operations().filter(|it| it.conversion.name().eq_ignore_ascii_case(kind)).count() as u64
        };
        let total = registry.operations().count() as u64;
        put("master/operations".into(), total, Pair { valid: finished, invalid: refused });
        for kind in OPERATIONS {
            let counted = counts.operations.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind));
            let pair = counted.map(|(_, pair)| *pair).unwrap_or_default();
            put(format!("master/operations/{kind}"), held(kind), pair);
        }
    }

    /// How long decisions took.
    pub(super) fn timers(&self, all: &mut Numbers) {
        let timers = self.tallies.timers();
        let runs = timers.allocation_run.times();
        all.count("allocator/mesos/allocation_runs", runs.count);
        timer("allocator/mesos/allocation_run_ms", &runs, all);
        timer("allocator/mesos/allocation_run_latency_ms", &timers.allocation_latency.times(), all);
        timer("registrar/state_store_ms", &timers.store.times(), all);
    }

    /// Each framework that is known, those that are over included.
    pub(super) fn frameworks(&self, registry: &Registry, active: &Active<'_>, all: &mut Numbers) {
        for framework in registry.frameworks() {
            self.framework(framework, framework.is_connected(), active, all);
        }
        // What is left of the tasks of one that is over is not its any more.
        let none = Active::new();
        for over in registry.completed_frameworks() {
            self.framework(&over.framework, false, &none, all);
        }
    }

    fn framework(&self, it: &Framework, is_connected: bool, active: &Active<'_>, all: &mut Numbers) {
        let name = utf8_percent_encode(&it.info.name, NAME);
        let of = format!("master/frameworks/{name}/{}", it.id);
        all.put(format!("{of}/subscribed"), if is_connected { 1.0 } else { 0.0 });
        for role in &it.info.roles {
            let suppressed = self.suppressed.get(&it.id).is_some_and(|roles| roles.contains(role));
            all.count(format!("{of}/roles/{role}/suppressed"), suppressed.into());
        }
        let counts = active.get(&it.id).copied().unwrap_or_default();
        for (state, n) in ACTIVE.iter().zip(counts) {
            all.count(format!("{of}/tasks/active/task_{}", short(*state)), n);
        }
        let Some(tally) = self.tallies.of(&it.id) else { return };
        for (state, n) in tally.ended() {
            all.count(format!("{of}/tasks/terminal/task_{}", short(state)), n);
        }
        for (kind, numbers) in by_kind(&tally) {
            if kind != "offers" {
                all.count(format!("{of}/{kind}"), numbers.iter().map(|(_, n)| n).sum());
            }
            numbers.into_iter().for_each(|(name, n)| all.count(format!("{of}/{kind}/{name}"), n));
        }
    }
}

/// What is escaped in a framework's name: as in a URL.
const NAME: &percent_encoding::AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Names and numbers, by what they are of.
type ByKind = [(&'static str, Vec<(&'static str, u64)>); 4];

fn by_kind(tally: &Tally) -> ByKind {
    [
        ("calls", tally.calls().collect()),
        ("events", tally.events().collect()),
        ("operations", tally.operations().collect()),
        ("offers", tally.offers().collect()),
    ]
}

/// The newest time and how the newest are spread, as far as there are any.
fn timer(name: &str, times: &Times, all: &mut Numbers) {
    all.count(format!("{name}/count"), times.count);
    let sorted = times.sorted();
    let (Some(last), Some(least), Some(most)) = (times.last(), sorted.first(), sorted.last()) else { return };
    all.put(name, last);
    all.put(format!("{name}/min"), *least);
    all.put(format!("{name}/max"), *most);
    for (percentile, part) in PERCENTILES {
        all.put(format!("{name}/{percentile}"), at(&sorted, part));
    }
}

/// The time that so large a part of them is no longer than, between two of them in proportion.
fn at(sorted: &[f64], part: f64) -> f64 {
    let place = part * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low_time), Some(high_time)) => low_time + (high_time - low_time) * (place - low as f64),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_lies_between_the_times_around_it() {
        let times: Vec<f64> = (0..=10).map(f64::from).collect();
        assert_eq!((at(&times, 0.5), at(&times, 0.95)), (5.0, 9.5));
        assert_eq!((at(&[7.0], 0.99), at(&[], 0.5)), (7.0, 0.0));
    }
}
