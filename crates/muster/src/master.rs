//! `muster master`.

use crate::cli::ConfigArg;
use crate::signals::Stop;
use anyhow::bail;
use clap::Args;
use muster_master::MasterConfig;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::disable_transparent_huge_pages,
};
use std::path::{Path, PathBuf};
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
        Some(path) => from_file(&args, path)?,
        None => merge(&args, MasterConfig::default())?,
    };
    config.log_file = muster_http::files::own_log();
    raise_open_files();
    use_small_pages();
    let mut stop = Stop::listen()?;
    muster_master::run(config, async move { stop.asked().await }).await?;
    Ok(ExitCode::SUCCESS)
}

/// Raises this process's limit of open files to what it may have: each client is one, and a master without any left ends.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files");
    }
}

/// Has the kernel give this process, and those that it starts, memory in small pages only: what a registry grows by is small
/// records, and a huge page is cleared as a whole for the first of them. (Launches in batches: 1.4 times as many.)
pub(crate) fn use_small_pages() {
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "cannot do without huge pages");
    }
}

/// The file with the flags over it. An error names the file, unless the flags alone are to blame.
fn from_file(args: &MasterArgs, path: &Path) -> anyhow::Result<MasterConfig> {
    let config = merge(args, MasterConfig::read(path)?)?;
    if let Err(wrong) = config.check() {
        let without = merge(args, MasterConfig::default())?.check();
        if without.is_err_and(|other| other.to_string() == wrong.to_string()) {
            return Err(wrong.into());
        }
        bail!("configuration {}: {wrong}", path.display());
    }
    Ok(config)
}

fn merge(args: &MasterArgs, mut config: MasterConfig) -> anyhow::Result<MasterConfig> {
    if let Some(name) = &args.name {
        config.name.clone_from(name);
    }
    if let Some(members) = &args.members {
        config.members = MasterConfig::parse_members(members).map_err(anyhow::Error::msg)?;
    }
    if let Some(data_dir) = &args.data_dir {
        config.data_dir.clone_from(data_dir);
    }
    if let Some(listen) = &args.listen {
        config.listen.clone_from(listen);
    }
    if let Some(shards) = args.shards {
        config.allocator.shards = shards;
    }
    Ok(config)
}
