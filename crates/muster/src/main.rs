//! The one binary: `muster master`, `muster agent`, `muster local`, `muster run`, and nouns with their verbs.
//!
//! # Laws
//! - What stands on standard output is the answer, a table or with `-o json` JSON; logs and progress go to
//!   standard error.
//! - An error is one sentence that says what to do, and the exit code is not 0.
//!
//! # Nevers
//! - No decision of the cluster is made here: this is wiring.

mod agent;
mod bench;
mod cli;
mod cluster;
mod demo;
mod doctor;
#[cfg(feature = "faults")]
mod faults;
mod lists;
mod local;
mod master;
mod operate;
mod output;
mod parent;
mod raft;
mod raft_log;
mod run;
mod sandbox;
mod sandboxes;
mod signals;

use clap::Parser;
use cli::{AgentVerb, Cli, Command, FrameworkVerb, RaftVerb, TaskVerb};
use operate::args::{QuotaVerb, RoleVerb};
use std::{io::IsTerminal, process::ExitCode};

/// Masters allocate and free many small things on several threads at once; measured in docs/benchmarks.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: it has one thread, no runtime, and hardly any memory.
    if std::env::args_os().nth(1).is_some_and(|verb| verb == muster_agent::LAUNCH_HELPER) {
        return muster_agent::helper_main(is_set);
    }
    let cli = Cli::parse();
    start_log(&cli.log, matches!(cli.command, Command::Master(_) | Command::Agent(_)));
    let done = cli.die_with.map_or(Ok(()), parent::die_with).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            #[cfg(feature = "faults")]
            if matches!(cli.command, Command::Master(_) | Command::Agent(_)) {
                faults::start()?;
            }
            run_command(cli).await
        })
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("muster: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether a supervisor has what its agent was told of faults.
#[cfg(feature = "faults")]
fn is_set() -> bool {
    faults::set_points().is_ok() // its agent did not begin with such settings either
}

#[cfg(not(feature = "faults"))]
fn is_set() -> bool {
    true
}

async fn run_command(cli: Cli) -> anyhow::Result<ExitCode> {
    let output = cli.output;
    let code = match cli.command {
        Command::Master(args) => master::run(args).await,
        Command::Agent(args) => match args.verb {
            None => agent::run(args.run).await,
            Some(AgentVerb::List(masters)) => lists::agents(&masters, output).await,
            Some(AgentVerb::Gone { agent_id, masters }) => {
                lists::agent_gone(&masters, &agent_id, output).await
            }
            Some(AgentVerb::Drain(args)) => operate::agents::drain(&args, output).await,
            Some(AgentVerb::Deactivate { agent_id, masters }) => {
                operate::agents::deactivate(&masters, &agent_id, output).await
            }
            Some(AgentVerb::Reactivate { agent_id, masters }) => {
                operate::agents::reactivate(&masters, &agent_id, output).await
            }
        },
        Command::Role(RoleVerb::List(masters)) => operate::roles::list(&masters, output).await,
        Command::Role(RoleVerb::Weigh { weights, masters }) => {
            operate::roles::weigh(&masters, &weights, output).await
        }
        Command::Quota(QuotaVerb::List(masters)) => operate::quotas::list(&masters, output).await,
        Command::Quota(QuotaVerb::Set(args)) => operate::quotas::set(&args, output).await,
        Command::Quota(QuotaVerb::Remove { role, masters }) => {
            operate::quotas::remove(&masters, &role, output).await
        }
        Command::Maintenance(verb) => operate::maintenance::run(verb, output).await,
        Command::Framework(FrameworkVerb::List { completed, masters }) => {
            lists::frameworks(&masters, completed, output).await
        }
        Command::Framework(FrameworkVerb::Teardown { framework_id, masters }) => {
            lists::teardown(&masters, &framework_id, output).await
        }
        Command::Logs(args) => sandboxes::logs::run(args).await,
        Command::Exec(args) => sandboxes::exec::exec(args).await,
        Command::Attach(args) => sandboxes::attach::attach(args).await,
        Command::Files(verb) => sandboxes::files::run(verb, output).await,
        Command::Task(TaskVerb::List(args)) | Command::Ps(args) => lists::tasks(&args, output).await,
        Command::Raft(RaftVerb::Status(masters)) => raft::status(&masters, output).await,
        Command::Raft(RaftVerb::Replace { name, confirm, masters }) => {
            raft::replace(&masters, &name, confirm, output).await
        }
        Command::Raft(RaftVerb::Log { data_dir, from }) => raft_log::print(&data_dir, from, output),
        Command::Raft(RaftVerb::Transfer { name, masters }) => {
            raft::transfer(&masters, name.as_deref(), output).await
        }
        Command::Local(args) => local::run(args, output).await,
        Command::Run(args) => run::run(args, output).await,
        Command::Demo(args) => demo::run(args, output).await,
        Command::Doctor(verb) => return doctor::run(verb, output),
        Command::Bench(args) => bench::run(args, output).await,
    }?;
    Ok(match signals::exit_code() {
        0 => code,
        set => ExitCode::from(set),
    })
}

/// Masters and agents log what happens; commands log only what went wrong.
fn start_log(directives: &Option<String>, serving: bool) {
    // Consensus tells of its inner steps at INFO: what an operator needs of it, muster_raft says.
    let default = if serving { "info,openraft=error" } else { "error" };
    let directives = match directives {
        Some(given) if !given.contains("openraft") => format!("openraft=error,{given}"),
        Some(given) => given.clone(),
        None => default.to_owned(),
    };
    let filter = tracing_subscriber::EnvFilter::try_new(&directives).unwrap_or_else(|error| {
        eprintln!("muster: --log {directives:?} is not understood ({error}); using {default:?}");
        tracing_subscriber::EnvFilter::new(default)
    });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter_reloading();
    let filter = log.reload_handle();
    log.init();
    muster_master::on_logging_level(move |level| {
        // Of what others tell at these levels nobody could read anything.
        let now = match level {
            None => directives.clone(),
            Some(0) => default.to_owned(),
            Some(1) => format!("{default},muster=debug"),
            Some(_) => format!("{default},muster=trace"),
        };
        if let Err(error) = filter.reload(tracing_subscriber::EnvFilter::new(now)) {
            tracing::warn!(%error, "cannot set the logging level");
        }
    });
}

/// An error and its causes in one line.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.trim_end().replace('\n', " ")
}
