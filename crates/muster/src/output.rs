//! Answers: tables for people, JSON for programs.

use crate::cli::Output;
use comfy_table::{Table, presets};
use muster_model::Resources;
use muster_proto::{mesos, resources};
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// A list of rows: what people see and what programs read.
pub(crate) struct Rows {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    json: Vec<Value>,
}

impl Rows {
    pub(crate) fn new(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self { header: header.into_iter().collect(), rows: Vec::new(), json: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = String>, json: Value) {
        self.rows.push(row.into_iter().collect());
        self.json.push(json);
    }

    pub(crate) fn print(self, output: Output) {
        match output {
            Output::Json => print_json(&Value::Array(self.json)),
            Output::Table => {
                let mut table = Table::new();
                table.load_style(presets::NOTHING).set_header(self.header).add_rows(self.rows);
                for column in table.column_iter_mut() {
                    column.set_padding((0, 2));
                }
                println!("{}", table.trim_fmt());
            }
        }
    }
}

/// Writes JSON for a program.
pub(crate) fn print_json(value: &Value) {
    println!("{value:#}");
}

/// Says that something was done: a sentence for people, facts for programs.
pub(crate) fn done(output: Output, sentence: &str, json: &Value) {
    match output {
        Output::Table => eprintln!("{sentence}"),
        Output::Json => print_json(json),
    }
}

/// Resources as people write them; the entries that cannot be read are left out.
pub(crate) fn amounts(list: &[mesos::Resource]) -> Resources {
    resources(list).unwrap_or_default()
}

/// A scalar kind, in its unit.
pub(crate) fn scalar(resources: &Resources, kind: &str) -> f64 {
    resources.scalar(kind) as f64 / 1000.0
}

/// Resources as JSON: numbers for scalars, texts for the others.
pub(crate) fn amounts_json(resources: &Resources) -> Value {
    let mut map = Map::new();
    for (name, value) in resources.iter() {
        let value = match value {
            muster_model::Value::Scalar(n) => json!(*n as f64 / 1000.0),
            muster_model::Value::Ranges(ranges) => json!(ranges),
            muster_model::Value::Set(items) => json!(items.iter().map(|item| &**item).collect::<Vec<_>>()),
        };
        map.insert(name.into(), value);
    }
    Value::Object(map)
}

/// `3/8`, in whole numbers where they are.
pub(crate) fn of_total(used: &Resources, total: &Resources, kind: &str) -> String {
    format!("{}/{}", scalar(used, kind), scalar(total, kind))
}

/// How long ago a wall time is, `3m`.
pub(crate) fn ago(wall_ms: u64) -> String {
    if wall_ms == 0 {
        return "-".into();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let seconds = now.saturating_sub(u128::from(wall_ms)) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        let (used, total) = (Resources::of(500, 64), Resources::of(4000, 1024));
        assert_eq!(of_total(&used, &total, "cpus"), "0.5/4");
        assert_eq!(of_total(&Resources::none(), &total, "mem"), "0/1024");
        assert_eq!(amounts_json(&used), json!({"cpus": 0.5, "mem": 64.0}));
    }

    #[test]
    fn times_are_short() {
        assert_eq!(ago(0), "-");
        assert!(ago(1).ends_with('d'));
    }
}
