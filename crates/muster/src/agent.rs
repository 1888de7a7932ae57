//! `muster agent`.

use crate::cli::{ConfigArg, host_port};
use crate::signals::Stop;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use muster_agent::{AgentConfig, Launcher};
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of an agent; each overrides the file.
#[derive(Debug, Args)]
pub(crate) struct AgentRunArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Masters to dial.
    #[arg(long, value_name = "HOST:PORT,..", value_delimiter = ',', value_parser = host_port)]
    masters: Vec<String>,
    /// Checkpoints and sandboxes: a directory for this agent alone.
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// The sockets of the tasks' supervisors.
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    /// The name this agent is shown with.
    #[arg(long)]
    hostname: Option<String>,
    /// The port this agent is shown with.
    #[arg(long)]
    port: Option<u16>,
    /// What it has to give, `cpus:4;mem:8192;ports:[31000-32000]`; what is not named is found.
    #[arg(long)]
    resources: Option<String>,
    /// The control group that this agent's are made below; empty = none.
    #[arg(long, value_name = "GROUP", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    cgroup_root: Option<PathBuf>,
    /// Run tasks also where their limits cannot be enforced.
    #[arg(long)]
    allow_unenforced_limits: bool,
    /// What frameworks choose by, `rack:r1;zone:a`.
    #[arg(long)]
    attributes: Option<String>,
}

/// The attribute that says where an agent keeps its sandboxes, so that `muster run` finds output.
pub(crate) const WORK_DIR_ATTRIBUTE: &str = "work-dir";

pub(crate) async fn run(args: AgentRunArgs) -> anyhow::Result<ExitCode> {
    let mut config = match &args.config.config {
        Some(path) => AgentConfig::read(path)?,
        None => AgentConfig::default(),
    };
    if !args.masters.is_empty() {
        config.masters = args.masters;
    }
    if let Some(work_dir) = args.work_dir {
        config.work_dir = work_dir;
    }
    if let Some(runtime_dir) = args.runtime_dir {
        config.runtime_dir = runtime_dir;
    }
    if let Some(hostname) = args.hostname {
        config.hostname = hostname;
    }
    if let Some(port) = args.port {
        config.port = port;
    }
    if let Some(resources) = args.resources {
        config.resources = resources;
    }
    if let Some(attributes) = args.attributes {
        config.attributes = attributes;
    }
    if let Some(cgroup_root) = args.cgroup_root {
        config.cgroup_root = cgroup_root;
    }
    config.allow_unenforced_limits |= args.allow_unenforced_limits;
    name_work_dir(&mut config);
    config.log_file = muster_http::files::own_log();
    let mut stop = Stop::listen()?;
    muster_agent::run(config, Launcher::this_executable(), async move { stop.asked().await }).await?;
    Ok(ExitCode::SUCCESS)
}

/// Adds the work directory to the attributes, unless its path cannot be written there.
fn name_work_dir(config: &mut AgentConfig) {
    let Ok(path) = std::path::absolute(&config.work_dir) else { return };
    let Some(text) = path.to_str() else { return };
    let taken = config.attributes.split(';').any(|item| item.trim().starts_with(WORK_DIR_ATTRIBUTE));
    if !taken && !text.contains(';') && text == text.trim() {
        let separator = if config.attributes.trim().is_empty() { "" } else { ";" };
        config.attributes = format!("{}{separator}{WORK_DIR_ATTRIBUTE}:{text}", config.attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_directory_is_an_attribute() {
        let mut config = AgentConfig { work_dir: "/w".into(), ..Default::default() };
        name_work_dir(&mut config);
        assert_eq!(config.attributes, "work-dir:/w");
        config.attributes = "rack:r1".into();
        name_work_dir(&mut config);
        name_work_dir(&mut config);
        assert_eq!(config.attributes, "rack:r1;work-dir:/w");
        let mut odd = AgentConfig { work_dir: "/a;b".into(), ..Default::default() };
        name_work_dir(&mut odd);
        assert_eq!(odd.attributes, "");
    }
}
