//! `muster raft log`: what a master has in its log, and what each entry did.

use crate::cli::Output;
use anyhow::Context;
use muster_raft::{Content, Replayed};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

/// Prints the log of a master that does not run, from an index on: a line for each entry, or with JSON an object.
pub(crate) fn print(data_dir: &Path, from: u64, output: Output) -> anyhow::Result<ExitCode> {
    let replay = muster_raft::replay(data_dir)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for entry in replay {
        let entry = entry.with_context(|| format!("cannot read the log in {}", data_dir.display()))?;
        if entry.index.0 < from {
            continue;
        }
        let written = match output {
            Output::Json => writeln!(out, "{}", object(&entry)),
            Output::Table => writeln!(out, "{}", line(&entry)),
        };
        match written {
            // Whoever reads it has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            other => other?,
        }
    }
    match out.flush() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn object(entry: &Replayed) -> Value {
    let mut object = json!({"index": entry.index.0, "term": entry.term.0, "committed": entry.is_committed});
    let mut put = |key: &str, value: Value| object[key] = value;
    match &entry.content {
        Content::Blank => {}
        Content::Members(members) => {
            let member = |(member, votes): &(muster_raft::Member, bool)| json!({"name": member.name, "address": member.address, "votes": votes});
            put("members", members.iter().map(member).collect());
        }
        Content::Commands(said) => {
            put("decided_in_term", said.term.0.into());
            put("at_ms", said.at.0.into());
            put("wall_ms", said.wall.0.into());
            put("commands", measured(json!(said.commands)));
        }
    }
    if let Some((outcomes, state_hash)) = &entry.applied {
        put("outcomes", json!(outcomes));
        put("state_hash", format!("{state_hash:016x}").into());
    }
    object
}

/// Clients' own messages are given by their length: they may be large, and nothing here decides on them.
fn measured(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(key, value): (String, Value)| match value {
                Value::Array(bytes) if key == "sealed" => ("sealed_bytes".to_owned(), bytes.len().into()),
                value => (key, measured(value)),
            };
            Value::Object(fields.into_iter().map(field).collect::<Map<_, _>>())
        }
        Value::Array(values) => values.into_iter().map(measured).collect(),
        other => other,
    }
}

fn line(entry: &Replayed) -> String {
    let state = if entry.is_committed { "committed" } else { "stored" };
    let what = match &entry.content {
        Content::Blank => "blank".into(),
        Content::Members(members) => {
            let name = |(member, votes): &(muster_raft::Member, bool)| match votes {
                true => member.name.clone(),
                false => format!("{} (learner)", member.name),
            };
            format!("members {}", members.iter().map(name).collect::<Vec<_>>().join(", "))
        }
        Content::Commands(said) => {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for command in &said.commands {
                *counts.entry(name(&json!(command))).or_default() += 1;
            }
            let count =
                |(name, count): (String, usize)| if count == 1 { name } else { format!("{name} x{count}") };
            counts.into_iter().map(count).collect::<Vec<_>>().join(", ")
        }
    };
    let hash = entry.applied.as_ref().map_or_else(|| "-".into(), |(_, hash)| format!("{hash:016x}"));
    format!("{:>10} {:>6} {state:<9} {hash:>16} {what}", entry.index.0, entry.term.0)
}

/// The name of a command.
fn name(command: &Value) -> String {
    match command {
        Value::Object(fields) => fields.keys().next().cloned().unwrap_or_default(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}
