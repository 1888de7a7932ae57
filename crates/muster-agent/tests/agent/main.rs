//! The agent against real processes: a child process runs the agent, a gRPC server in the test is its master.
//! This executable is, by its first argument, also that agent and its launch helper.

#![allow(clippy::unwrap_used)] // a test, which clippy cannot see without the harness

mod engine;
mod master;
mod runner;
mod world;

mod auth;
mod checks;
mod churn;
mod containers;
mod docker;
mod docker_faults;
mod executor;
mod helper;
mod kill;
mod launch;
mod limits;
mod logs;
mod order;
mod pods;
mod reads;
mod recovery;
mod replay;
mod sessions;
mod terminals;

use muster_agent::{AgentConfig, Launcher};
use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|first| first.to_str()) {
        Some(muster_agent::LAUNCH_HELPER) => muster_agent::helper_main(|| true),
        Some("agent") => agent(args.next().expect("a configuration").into()),
        _ => runner::main(&[
            launch::CASES,
            limits::CASES,
            kill::CASES,
            helper::CASES,
            checks::CASES,
            containers::CASES,
            docker::CASES,
            docker_faults::CASES,
            pods::CASES,
            order::CASES,
            recovery::CASES,
            churn::CASES,
            auth::CASES,
            executor::CASES,
            reads::CASES,
            replay::CASES,
            sessions::CASES,
            logs::CASES,
            terminals::CASES,
        ]),
    }
}

fn agent(config: PathBuf) -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let launcher = Launcher::this_executable();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let shutdown = async {
        let mut term =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a signal");
        term.recv().await;
    };
    let result = AgentConfig::read(&config)
        .map(|config| AgentConfig { log_file: std::fs::read_link("/proc/self/fd/2").ok(), ..config })
        .and_then(|config| runtime.block_on(muster_agent::run(config, launcher, shutdown)));
    if let Err(error) = result {
        eprintln!("agent failed: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
