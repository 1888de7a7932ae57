//! Metrics: which of the numbers the scene decides, and which are a matter of time, of the machine or of how it is built.

use crate::ids::Ids;
use serde_json::{Map, Value};

/// The metrics of an answer, if it has any.
pub fn of(body: &mut Value) -> Option<&mut Map<String, Value>> {
    let at = if body.get("master/uptime_secs").is_some() { "" } else { "/get_metrics/metrics" };
    body.pointer_mut(at)?.as_object_mut()
}

/// Puts a word for what the scene does not decide, if it is a number, and for the cluster in names.
pub fn settle(metrics: &mut Map<String, Value>, ids: &Ids) {
    for (name, value) in std::mem::take(metrics) {
        let value = match value {
            Value::Number(_) if is_by_chance(&name) => "<number>".into(),
            value => value,
        };
        // Numbers of frameworks stay: there are several of one name.
        let name = ids.swap(&name, |id, _| match id.rsplit_once('-') {
            Some((_, number)) => format!("<framework {number}>"),
            None => id.to_owned(),
        });
        metrics.insert(name, value);
    }
}

/// Whether a number is a matter of time or of the machine.
fn is_by_chance(name: &str) -> bool {
    const TIMED: [&str; 6] =
        ["_ms", "_secs", "_bytes", "event_queue_dispatches", "event_queue_messages", "queued_operations"];
    let timer = name.rsplit_once('/').map_or(name, |(timer, _)| timer);
    name.starts_with("system/")
        || TIMED.iter().any(|end| name.ends_with(end))
        || timer.ends_with("_ms")
        || name == "allocator/mesos/allocation_runs"
        // Heartbeats come every 15 s.
        || name.ends_with("/events")
        || name.ends_with("/events/heartbeat")
}
