//! `muster doctor`.

use crate::cli::{ConfigArg, Output};
use crate::output::Rows;
use clap::{Args, Subcommand};
use muster_agent::{AgentConfig, Finding};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum DoctorVerb {
    /// Say what an agent can do on this machine, and how to mend what it cannot. Fails if it cannot do what its
    /// configuration asks for. Run it as the agent's user.
    Agent(DoctorArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The same as `-o json`.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(verb: DoctorVerb, output: Output) -> anyhow::Result<ExitCode> {
    let DoctorVerb::Agent(args) = verb;
    let config = match &args.config.config {
        Some(path) => AgentConfig::read(path)?,
        None => AgentConfig::default(),
    };
    let findings = muster_agent::examine(&config)?;
    let mut rows = Rows::new(["ABILITY", "WORKS", "FOUND", "FIX"]);
    for it in &findings {
        rows.push(row(it), serde_json::to_value(it)?);
    }
    rows.print(if args.json { Output::Json } else { output });
    let is_well = findings.iter().all(|it| it.works || !it.needed);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(it: &Finding) -> Vec<String> {
    let works = match (it.works, it.needed) {
        (true, _) => "yes",
        (false, true) => "NO, and it is needed",
        (false, false) => "no",
    };
    vec![it.name.into(), works.into(), it.found.clone(), it.fix.into()]
}
