//! What a benchmark found.

use crate::cli::Output;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Figures by name, in the order they were found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<(String, f64, &'static str)>,
    lost: u64,
    doubled: u64,
}

impl Report {
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &'static str) {
        self.figures.push((name.into(), value, unit));
    }

    /// Figures of times by the names of their quantiles, in ms.
    pub(crate) fn quantiles(&mut self, name: &str, times: &Histogram<u64>, which: &[(&str, f64)]) {
        for (quantile, q) in which {
            self.figure(&format!("{name}_{quantile}"), times.value_at_quantile(*q) as f64 / 1e3, "ms");
        }
    }

    /// Tasks that were acknowledged and never started, and tasks that were started twice.
    pub(crate) fn judge(&mut self, lost: u64, doubled: u64) {
        (self.lost, self.doubled) = (lost, doubled);
        self.figure("tasks_lost", lost as f64, "tasks");
        self.figure("tasks_doubled", doubled as f64, "tasks");
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0
    }

    pub(crate) fn print(&self, output: Output) {
        if output == Output::Json {
            let figures: Vec<_> = self
                .figures
                .iter()
                .map(|(name, value, unit)| serde_json::json!({ "name": name, "value": value, "unit": unit }))
                .collect();
            println!("{}", serde_json::Value::Array(figures));
            return;
        }
        for (name, value, unit) in &self.figures {
            println!("{name} {value:.2} {unit}");
        }
    }
}

/// Times in microseconds, up to a minute.
pub(crate) fn times() -> Histogram<u64> {
    // One digit beyond the noise; the bounds are constants and valid.
    Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|_| unreachable!("valid bounds"))
}

pub(crate) fn record(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

/// The median and the largest, in ms.
pub(crate) fn median_max(mut times: Vec<Duration>) -> Option<(f64, f64)> {
    times.sort();
    let ms = |time: &Duration| time.as_secs_f64() * 1e3;
    Some((ms(times.get(times.len() / 2)?), ms(times.last()?)))
}
