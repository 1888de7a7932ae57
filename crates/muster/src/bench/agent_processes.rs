//! Simulated agents in processes of their own, where one has not enough descriptors for all of them.
//!
//! A process tells the launches that its agents started on its standard output, a line each, and ends with its standard
//! input; so it dies with whoever started it in either of two ways.

use super::{
    Shape, agents,
    ledger::{Ledger, Told},
    wire::Dialer,
};
use crate::parent;
use anyhow::{Context, bail};
use clap::Args;
use muster_model::{Fence, Index, LaunchNumber, Resources, Term};
use rustix::process::{Resource, getrlimit};
use std::{
    ops::Range,
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Child,
    task::JoinSet,
};

/// Descriptors of a process that are for none of its agents.
const SPARE: usize = 1_000;
/// How often started launches, and leaders that took agents in, are told.
const TELL: Duration = Duration::from_millis(5);
/// The last line of a process that was asked to end.
const END: &str = "end";

#[derive(Debug, Args)]
pub(crate) struct AgentsProcessArgs {
    /// The first agent's number.
    #[arg(long)]
    first: usize,
    /// How many agents.
    #[arg(long)]
    count: usize,
    /// Agents that share a connection.
    #[arg(long)]
    agents_per_connection: u16,
    /// The masters, host:port each.
    #[arg(long, value_delimiter = ',')]
    masters: Vec<String>,
}

/// Descriptors that a process may have.
pub(crate) fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// In how many processes of their own so many connections of agents are, beside `others` of this process; 0 = all in this one.
pub(crate) fn needed(connections: usize, others: usize, descriptors: usize) -> usize {
    let for_agents = descriptors.saturating_sub(SPARE).max(1);
    if connections.saturating_add(others) <= for_agents { 0 } else { connections.div_ceil(for_agents) }
}

/// Connections that each process may have for agents.
pub(crate) fn connections_max() -> usize {
    descriptors().saturating_sub(SPARE)
}

/// The agents of each process: as many in each, those that share a connection together.
pub(crate) fn split(agents: usize, together: usize, processes: usize) -> Vec<Range<usize>> {
    let each = agents.div_ceil(together).div_ceil(processes.max(1)) * together;
    (0..agents).step_by(each.max(1)).map(|first| first..(first + each).min(agents)).collect()
}

/// Runs these agents in this process, each until the set is shut down.
pub(crate) fn here(
    range: Range<usize>,
    masters: &[String],
    agents_per_connection: u16,
    ledger: &Arc<Ledger>,
) -> JoinSet<()> {
    let mut all = JoinSet::new();
    let roomy = Resources::of(100_000_000, 10_000_000);
    let together = usize::from(agents_per_connection);
    for first in range.clone().step_by(together) {
        let dialer = Arc::new(Dialer::new(masters, first / together));
        for n in (first..range.end).take(together) {
            all.spawn(agents::run(n, dialer.clone(), roomy.clone(), ledger.clone()));
        }
    }
    all
}

/// Runs these agents in a process of their own, until the future is dropped: it is to be called on the main thread, for
/// the process dies with the thread that started it. A process that ends by itself is a failure of the whole run.
pub(crate) fn apart(
    range: Range<usize>,
    masters: &[String],
    shape: &Shape,
    ledger: &Arc<Ledger>,
) -> impl Future<Output = ()> + Send + 'static {
    let child = start(&range, masters, shape);
    let ledger = ledger.clone();
    async move {
        let name = format!("the process of agents {} to {}", range.start, range.end - 1);
        let why = match child {
            Ok(child) => match follow(child, &ledger).await {
                Ok(()) => "ended".to_owned(),
                Err(error) => format!("{error:#}"),
            },
            Err(error) => format!("{error:#}"),
        };
        ledger.fail(format!("{name}: {why}"));
    }
}

fn start(range: &Range<usize>, masters: &[String], shape: &Shape) -> anyhow::Result<Child> {
    let exe = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(exe);
    command.args(["bench", "agents-process", "--masters", &masters.join(",")]);
    command.args(["--first", &range.start.to_string(), "--count", &range.len().to_string()]);
    command.args(["--agents-per-connection", &shape.agents_per_connection.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    // A group of its own: Ctrl-C is for us, who end it.
    command.process_group(0);
    parent::tie(&mut command);
    tokio::process::Command::from(command).kill_on_drop(true).spawn().context("cannot start it")
}

/// Takes what it tells into the ledger, until it ends.
async fn follow(mut child: Child, ledger: &Ledger) -> anyhow::Result<()> {
    let _input = child.stdin.take(); // held open
    let said = child.stdout.take().context("it has no standard output")?;
    let mut lines = BufReader::with_capacity(64 << 10, said).lines();
    while let Some(line) = lines.next_line().await? {
        if line == END {
            break;
        }
        match read(&line).with_context(|| format!("it says {line:?}, which tells nothing"))? {
            Told::Started(launch, agent) => ledger.started(launch, agent),
            Told::TakenIn(fence, agent) => ledger.taken_in(fence, agent),
        }
    }
    let status = child.wait().await?;
    bail!("it ended ({status})")
}

fn read(line: &str) -> Option<Told> {
    let (what, numbers) = line.split_once(' ')?;
    let numbers: Vec<u64> = numbers.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    match (what, &*numbers) {
        ("started", [incarnation, index, n, agent]) => {
            let (incarnation, n) = (u32::try_from(*incarnation).ok()?, u32::try_from(*n).ok()?);
            let launch = LaunchNumber { incarnation, index: Index(*index), n };
            Some(Told::Started(launch, usize::try_from(*agent).ok()?))
        }
        ("taken-in", [incarnation, term, agent]) => {
            let fence = Fence { incarnation: u32::try_from(*incarnation).ok()?, term: Term(*term) };
            Some(Told::TakenIn(fence, usize::try_from(*agent).ok()?))
        }
        _ => None,
    }
}

fn write(told: Told, to: &mut String) {
    use std::fmt::Write;
    // A text takes all.
    let _ = match told {
        Told::Started(LaunchNumber { incarnation, index, n }, agent) => {
            writeln!(to, "started {incarnation} {} {n} {agent}", index.0)
        }
        Told::TakenIn(Fence { incarnation, term }, agent) => {
            writeln!(to, "taken-in {incarnation} {} {agent}", term.0)
        }
    };
}

/// `muster bench agents-process`, which only `muster bench` starts.
pub(crate) async fn run(args: AgentsProcessArgs) -> anyhow::Result<ExitCode> {
    let ledger = Arc::new(Ledger::telling());
    let range = args.first..args.first + args.count;
    let mut agents = here(range, &args.masters, args.agents_per_connection.max(1), &ledger);
    let (mut input, mut output) = (tokio::io::stdin(), tokio::io::stdout());
    let mut ticks = tokio::time::interval(TELL);
    let (mut unread, mut is_over) = ([0; 64], false);
    while !is_over {
        tokio::select! {
            read = input.read(&mut unread) => is_over = !matches!(read, Ok(n) if n > 0),
            _ = ticks.tick() => {}
        }
        let mut text = String::new();
        for told in ledger.take_untold() {
            write(told, &mut text);
        }
        if is_over {
            text.push_str(END);
            text.push('\n');
        }
        if !text.is_empty() {
            output.write_all(text.as_bytes()).await?;
            output.flush().await?;
        }
    }
    agents.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_decide_how_many_processes() {
        assert_eq!(needed(10_000, 64, 20_000), 0);
        assert_eq!(needed(18_990, 64, 20_000), 1, "one of their own is enough");
        assert_eq!(needed(50_000, 64, 20_000), 3);
        assert_eq!(needed(10, 0, 0), 10, "never none");
    }

    #[test]
    fn every_agent_is_in_one_process_beside_those_of_its_connection() {
        for (agents, together, processes) in [(50_000, 1, 3), (10, 3, 2), (1, 1, 4), (7, 100, 2), (9, 2, 9)] {
            let ranges = split(agents, together, processes);
            assert!(ranges.len() <= processes && ranges.iter().all(|range| !range.is_empty()), "{ranges:?}");
            assert_eq!(ranges.iter().cloned().flatten().collect::<Vec<_>>(), (0..agents).collect::<Vec<_>>());
            assert!(ranges.iter().all(|range| range.start % together == 0), "{ranges:?}");
        }
    }

    #[test]
    fn what_is_told_comes_out_of_a_pipe_as_it_went_in() {
        let launch = LaunchNumber { incarnation: 2, index: Index(u64::MAX), n: 7 };
        let fence = Fence { incarnation: 1, term: Term(u64::MAX) };
        for told in [Told::Started(launch, 41), Told::TakenIn(fence, 0)] {
            let mut line = String::new();
            write(told, &mut line);
            assert_eq!(read(line.trim_end()), Some(told));
        }
        for wrong in ["", "started", "started 1 2 3", "taken-in 1 2 3 4", "taken-in 1 x 2", "other 1 2 3"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
