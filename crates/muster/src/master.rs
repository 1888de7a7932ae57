//! `muster master`.

use crate::cli::ConfigArg;
use crate::signals::Stop;
use clap::Args;
use muster_master::MasterConfig;
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of a master; each overrides the file.
#[derive(Debug, Args)]
pub(crate) struct MasterArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// This master's name among the members.
    #[arg(long)]
    name: Option<String>,
    /// All masters: `m1=HOST:PORT,m2=HOST:PORT,m3=HOST:PORT`.
    #[arg(long, value_name = "NAME=HOST:PORT,..")]
    members: Option<String>,
    /// Where the log and the snapshots are.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What to listen on; its own address among the members when not given.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Offer loops that share the agents; 0 = one for each core.
    #[arg(long)]
    shards: Option<u32>,
}

pub(crate) async fn run(args: MasterArgs) -> anyhow::Result<ExitCode> {
    let mut config = match &args.config.config {
        Some(path) => MasterConfig::read(path)?,
        None => MasterConfig::default(),
    };
    if let Some(name) = args.name {
        config.name = name;
    }
    if let Some(members) = args.members {
        config.members = MasterConfig::parse_members(&members).map_err(anyhow::Error::msg)?;
    }
    if let Some(data_dir) = args.data_dir {
        config.data_dir = data_dir;
    }
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if let Some(shards) = args.shards {
        config.allocator.shards = shards;
    }
    let mut stop = Stop::listen()?;
    muster_master::run(config, async move { stop.asked().await }).await?;
    Ok(ExitCode::SUCCESS)
}
