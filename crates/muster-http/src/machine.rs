//! The machine that a process runs on, as metrics and as clients of Mesos know it.

use serde::Serialize;
use std::collections::BTreeMap;

/// The numbers of the machine, as `/system/stats.json` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stats {
    avg_load_15min: f64,
    avg_load_1min: f64,
    avg_load_5min: f64,
    cpus_total: usize,
    mem_free_bytes: u64,
    mem_total_bytes: u64,
}

impl Stats {
    /// As they are now.
    pub fn now() -> Self {
        let it = rustix::system::sysinfo();
        // A load is a fraction of 65,536.
        let load = |at: usize| it.loads.get(at).map_or(0.0, |load| *load as f64 / 65_536.0);
        let unit = u64::from(it.mem_unit.max(1));
        Self {
            avg_load_15min: load(2),
            avg_load_1min: load(0),
            avg_load_5min: load(1),
            cpus_total: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            mem_free_bytes: it.freeram.saturating_mul(unit),
            mem_total_bytes: it.totalram.saturating_mul(unit),
        }
    }
}

/// Puts the numbers of the machine under their names in metrics.
pub fn system(all: &mut BTreeMap<String, f64>) {
    let it = Stats::now();
    let numbers = [
        ("system/load_1min", it.avg_load_1min),
        ("system/load_5min", it.avg_load_5min),
        ("system/load_15min", it.avg_load_15min),
        ("system/mem_total_bytes", it.mem_total_bytes as f64),
        ("system/mem_free_bytes", it.mem_free_bytes as f64),
        ("system/cpus_total", it.cpus_total as f64),
    ];
    all.extend(numbers.map(|(name, value)| (name.to_owned(), value)));
}

/// A moment in seconds since the Unix epoch.
pub fn seconds(at: std::time::SystemTime) -> f64 {
    at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A length of time as Mesos writes it in flags.
pub fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str); 5] = [
        (7 * 86_400_000, "weeks"),
        (86_400_000, "days"),
        (3_600_000, "hrs"),
        (60_000, "mins"),
        (1_000, "secs"),
    ];
    match UNITS.iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_written_as_mesos_does() {
        for (ms, text) in
            [(15_000, "15secs"), (75_000, "75secs"), (600_000, "10mins"), (1_209_600_000, "2weeks")]
        {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(duration(1_500), "1500ms");
        assert_eq!(duration(0), "0ms");
    }
}
