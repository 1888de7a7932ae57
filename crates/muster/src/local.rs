//! `muster local`.

use crate::cli::Output;
use crate::cluster::{Cluster, Plan};
use crate::signals::Stop;
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Flags of a cluster on this machine.
#[derive(Debug, Args)]
pub(crate) struct LocalArgs {
    /// How many masters: 1, 3 or 5.
    #[arg(long, default_value_t = 3)]
    masters: u16,
    /// How many agents.
    #[arg(long, default_value_t = 3)]
    agents: u16,
    /// The first master's port; the others follow, and the agents from 100 above.
    #[arg(long, default_value_t = 5050)]
    base_port: u16,
    /// Where everything is kept; a directory that goes away with the cluster when not given.
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// What each agent has to give, `cpus:4;mem:4096`; what is not named is found.
    #[arg(long, default_value = "")]
    resources: String,
}

const AGENT_PORTS_ABOVE: u16 = 100;

pub(crate) async fn run(args: LocalArgs, output: Output) -> anyhow::Result<ExitCode> {
    if !matches!(args.masters, 1 | 3 | 5) {
        bail!("--masters is {}; run 1, 3 or 5 masters", args.masters);
    }
    let ports = |first: Option<u16>, count: u16| -> Option<Vec<u16>> {
        let first = first.filter(|first| *first > 0)?;
        (0..count).map(|i| first.checked_add(i)).collect()
    };
    let master_ports = ports(Some(args.base_port), args.masters);
    let agent_ports = ports(args.base_port.checked_add(AGENT_PORTS_ABOVE), args.agents);
    let (Some(master_ports), Some(agent_ports)) = (master_ports, agent_ports) else {
        bail!(
            "--base-port is {}; choose one from 1 that leaves room for all ports below 65536",
            args.base_port
        );
    };
    if args.agents > AGENT_PORTS_ABOVE * 10 {
        bail!("--agents is {}; at most {} run on one machine", args.agents, AGENT_PORTS_ABOVE * 10);
    }
    let mut stop = Stop::listen()?;
    let temporary = match args.work_dir {
        Some(_) => None,
        None => Some(tempfile::tempdir().context("cannot make a temporary directory; give --work-dir")?),
    };
    let dir = match (&args.work_dir, &temporary) {
        (Some(dir), _) => std::path::absolute(dir)?,
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => bail!("no directory"),
    };
    let plan = Plan {
        dir: dir.clone(),
        master_ports,
        agent_ports,
        agent_resources: args.resources,
        agent_arguments: Vec::new(),
        temporary: temporary.is_some(),
    };
    eprintln!("starting the cluster: masters {}, agents {}", args.masters, args.agents);
    let mut cluster = Cluster::start(&plan)?;
    tokio::select! {
        ready = cluster.ready() => ready?,
        () = stop.asked() => {
            cluster.end().await;
            return Ok(ExitCode::SUCCESS);
        }
    }
    say_ready(&cluster, &dir, output);
    let ended = loop {
        tokio::select! {
            () = stop.asked() => break Ok(()),
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                if let Err(error) = cluster.check() {
                    break Err(error);
                }
            }
        }
    };
    cluster.end().await;
    ended.map(|()| ExitCode::SUCCESS)
}

fn say_ready(cluster: &Cluster, dir: &std::path::Path, output: Output) {
    let names = |processes: &[crate::cluster::Process]| -> Vec<(String, String)> {
        processes.iter().map(|process| (process.name.clone(), process.address.clone())).collect()
    };
    let (masters, agents) = (names(&cluster.masters), names(&cluster.agents));
    match output {
        Output::Json => {
            let list = |all: &[(String, String)]| -> Vec<_> {
                all.iter().map(|(name, address)| json!({"name": name, "address": address})).collect()
            };
            println!(
                "{}",
                json!({"ready": true, "masters": list(&masters), "agents": list(&agents), "dir": dir})
            );
        }
        Output::Table => {
            let list = |all: &[(String, String)]| {
                all.iter().map(|(name, address)| format!("{name}={address}")).collect::<Vec<_>>().join(",")
            };
            println!("ready masters={} agents={} dir={}", list(&masters), list(&agents), dir.display());
        }
    }
}
