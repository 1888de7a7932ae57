//! What can be said on the command line.

use crate::operate::args::{DrainArgs, MaintenanceVerb, QuotaVerb, RoleVerb};
use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_sdk::Credential;
use std::path::PathBuf;

/// A cluster manager with a replicated master.
#[derive(Debug, Parser)]
#[command(name = "muster", version, about, propagate_version = true)]
pub(crate) struct Cli {
    /// How the answer is written.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// What is logged to standard error: a level, or directives like `info,muster_raft=debug`.
    #[arg(long, global = true, env = "MUSTER_LOG")]
    pub(crate) log: Option<String>,
    /// Die with this process, the one that started this one.
    #[arg(long = crate::parent::FLAG, global = true, hide = true, value_name = "PID")]
    pub(crate) die_with: Option<u32>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a master replica.
    Master(crate::master::MasterArgs),
    /// Run an agent on this node, or ask about agents.
    Agent(AgentArgs),
    /// Run a whole cluster on this machine until Ctrl-C.
    Local(crate::local::LocalArgs),
    /// Launch a command N times and follow it.
    Run(crate::run::RunArgs),
    /// List tasks.
    Ps(TaskListArgs),
    /// Show what tasks write.
    Logs(crate::sandboxes::logs::LogsArgs),
    /// Run a command beside a task that runs, in its container; the exit code is the command's.
    Exec(crate::sandboxes::exec::ExecArgs),
    /// Join the terminal of a task, or a session of `muster exec`: see what it writes from now on.
    Attach(crate::sandboxes::attach::AttachArgs),
    /// Look into the sandboxes of tasks.
    #[command(subcommand)]
    Files(crate::sandboxes::files::FilesVerb),
    /// Ask about frameworks.
    #[command(subcommand)]
    Framework(FrameworkVerb),
    /// Ask about tasks.
    #[command(subcommand)]
    Task(TaskVerb),
    /// Roles and their weights.
    #[command(subcommand)]
    Role(RoleVerb),
    /// What roles are guaranteed and limited to.
    #[command(subcommand)]
    Quota(QuotaVerb),
    /// Machines that will be away, or are.
    #[command(subcommand)]
    Maintenance(MaintenanceVerb),
    /// The masters' consensus.
    #[command(subcommand)]
    Raft(RaftVerb),
    /// Look at this machine: what works, what does not, and how to mend it.
    #[command(subcommand)]
    Doctor(crate::doctor::DoctorVerb),
    /// See a leader die: three masters, three agents, real files, SIGKILL in the middle.
    Demo(crate::demo::DemoArgs),
    /// Measure masters on this machine with simulated agents and frameworks.
    Bench(crate::bench::BenchArgs),
}

/// Where the masters are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Masters {
    /// Masters to ask, any of the cluster's.
    #[arg(
        long = "master",
        value_name = "HOST:PORT,..",
        env = "MUSTER_MASTER",
        value_delimiter = ',',
        value_parser = host_port,
        default_value = "127.0.0.1:5050,127.0.0.1:5051,127.0.0.1:5052"
    )]
    pub(crate) masters: Vec<String>,
    /// As whom to ask, and the file with its secret, where the masters want to know that.
    #[arg(long, value_name = "PRINCIPAL:FILE", env = "MUSTER_CREDENTIAL", value_parser = credential)]
    pub(crate) credential: Option<Credential>,
}

/// Reads `PRINCIPAL:FILE`, and the file.
fn credential(text: &str) -> Result<Credential, String> {
    Credential::read(text).map_err(|error| error.to_string())
}

/// Reads `HOST:PORT`.
pub(crate) fn host_port(text: &str) -> Result<String, String> {
    let text = text.trim();
    let good = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if good { Ok(text.to_owned()) } else { Err("write HOST:PORT, for example 10.0.0.1:5050".into()) }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<AgentVerb>,
    #[command(flatten)]
    pub(crate) run: crate::agent::AgentRunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentVerb {
    /// List agents.
    List(Masters),
    /// Say that an agent will never come back: its tasks are over.
    Gone {
        /// Its id.
        agent_id: String,
        #[command(flatten)]
        masters: Masters,
    },
    /// Empty an agent: it is offered no more, and its tasks are killed.
    Drain(DrainArgs),
    /// Offer an agent no more; its tasks run on.
    Deactivate {
        /// Its id.
        agent_id: String,
        #[command(flatten)]
        masters: Masters,
    },
    /// Offer an agent again that was drained or deactivated.
    Reactivate {
        /// Its id.
        agent_id: String,
        #[command(flatten)]
        masters: Masters,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FrameworkVerb {
    /// List frameworks.
    List {
        /// The completed ones instead.
        #[arg(long)]
        completed: bool,
        #[command(flatten)]
        masters: Masters,
    },
    /// End a framework and all its tasks.
    Teardown {
        /// Its id.
        framework_id: String,
        #[command(flatten)]
        masters: Masters,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskVerb {
    /// List tasks.
    List(TaskListArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TaskListArgs {
    /// Of this framework only.
    #[arg(long, value_name = "ID")]
    pub(crate) framework: Option<String>,
    /// Completed tasks as well, the newest 1000.
    #[arg(short, long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) masters: Masters,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RaftVerb {
    /// Who leads, terms, indexes, lag: what each master says of itself.
    Status(Masters),
    /// Let a member that came with an empty or damaged disk back in.
    Replace {
        /// The member's name.
        name: String,
        /// Its old disk will never come back: do not wait for it to be silent.
        #[arg(long)]
        confirm: bool,
        #[command(flatten)]
        masters: Masters,
    },
    /// What a master that does not run has in its log: each entry, whether it is committed, and the hash of the
    /// registry after it; with `-o json` its commands and their outcomes. Nothing is changed.
    Log {
        /// The master's data directory, or a copy of it.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Show only entries from this index on.
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
    },
    /// Hand leadership over.
    Transfer {
        /// To whom; the best caught-up member when not given.
        name: Option<String>,
        #[command(flatten)]
        masters: Masters,
    },
}

/// Where a file of settings is.
#[derive(Debug, Args)]
pub(crate) struct ConfigArg {
    /// A file of settings; flags override it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_agent_is_a_daemon_and_a_noun() {
        let parse = |text: &str| Cli::try_parse_from(text.split(' ')).map(|cli| cli.command);
        assert!(matches!(
            parse("muster agent --masters a:1,b:2 --work-dir d"),
            Ok(Command::Agent(AgentArgs { verb: None, .. }))
        ));
        assert!(matches!(
            parse("muster agent list --master a:1 -o json"),
            Ok(Command::Agent(AgentArgs { verb: Some(AgentVerb::List(_)), .. }))
        ));
        assert!(parse("muster ps --master nowhere").is_err());
    }
}
