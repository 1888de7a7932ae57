//! The machine that a process runs on, as metrics and as clients of Mesos know it.

use std::collections::BTreeMap;

/// Puts the numbers of the machine under their names in Mesos.
pub fn system(all: &mut BTreeMap<String, f64>) {
    let it = rustix::system::sysinfo();
    // A load is a fraction of 65,536.
    let load = |at: usize| it.loads.get(at).map_or(0.0, |load| *load as f64 / 65_536.0);
    let unit = f64::from(it.mem_unit.max(1));
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let numbers = [
        ("system/load_1min", load(0)),
        ("system/load_5min", load(1)),
        ("system/load_15min", load(2)),
        ("system/mem_total_bytes", it.totalram as f64 * unit),
        ("system/mem_free_bytes", it.freeram as f64 * unit),
        ("system/cpus_total", cpus as f64),
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
