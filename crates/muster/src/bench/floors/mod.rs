//! `muster bench floors`: what this machine does without muster. A measurement of muster says little by itself; beside a
//! floor from the same run it says how much of the machine is left.
//!
//! Each floor is bounded by time, and leaves nothing behind.

mod disk;
mod echo;
mod quorum;

use super::{
    report::Report,
    spawn::floor::{self, Way},
};
use anyhow::{Context, ensure};
use clap::Args;
use hdrhistogram::Histogram;
pub(crate) use quorum::Load;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::task::spawn_blocking;

/// How long each floor is measured beside a benchmark.
const BESIDE: Duration = Duration::from_millis(1_500);
/// Bytes of a record, about those of a small task.
const RECORD_BYTES: usize = 256;
/// Processes that are started between two looks at the clock.
const PROCESSES: usize = 40;
/// More clients of the quorum say no more: a round is full by then.
const CLIENTS_MAX: usize = 1_024;
/// More records in a request say no more.
const RECORDS_MAX: usize = 1_000;

#[derive(Debug, Args)]
pub(crate) struct FloorsArgs {
    /// Which; all when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Floor>,
    /// How long each of them is measured, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    each_ms: u64,
    /// Where files are synced; a temporary directory when not given. A disk that forgets measures nothing.
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

/// What a machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Floor {
    /// Syncs of 4 KiB that are written over, one after the other.
    Fdatasync,
    /// Commits on two of three disks' logs over plain TCP, many clients to a sync.
    Quorum,
    /// Messages there and back over tonic's streams.
    Echo,
    /// Processes started and ended.
    Spawn,
}

/// Whether a benchmark measures floors, too.
#[derive(Debug, Clone, Args)]
pub(crate) struct FloorFlags {
    /// Do not measure what this machine does without muster beside it.
    #[arg(long)]
    no_floors: bool,
}

/// How often something was done, and how long it took each time.
struct Done {
    per_second: f64,
    took: Histogram<u64>,
}

impl Done {
    fn tell(&self, name: &str, unit: &'static str, report: &mut Report) {
        report.figure(name, self.per_second, unit);
        report.quantiles(name, &self.took, &[("p50", 0.5), ("p99", 0.99)]);
    }
}

/// Measures the floors alone.
pub(crate) async fn run(args: FloorsArgs) -> anyhow::Result<Report> {
    let each = Duration::from_millis(args.each_ms);
    let is_asked = |floor| args.only.is_empty() || args.only.contains(&floor);
    let folder = Folder::new(args.work_dir.as_deref())?;
    let mut report = Report::default();
    if is_asked(Floor::Fdatasync) {
        fdatasync(folder.path(), each, &mut report).await?;
    }
    if is_asked(Floor::Quorum) {
        for (clients, records) in [(1, 1), (64, 1), (CLIENTS_MAX, 1), (64, 100)] {
            let name = match records {
                1 => format!("floor_quorum_c{clients}"),
                _ => format!("floor_quorum_c{clients}_x{records}"),
            };
            quorum(folder.path(), Load { clients, records }, each, &name, &mut report).await?;
        }
    }
    if is_asked(Floor::Echo) {
        report.figure("floor_stream_echo", echo::measure(RECORD_BYTES, each).await?, "messages/s");
    }
    if is_asked(Floor::Spawn) {
        for (way, name) in [(Way::PosixSpawn, "posix_spawn"), (Way::ForkExec, "fork_exec")] {
            for threads in [1, 4] {
                let rate = spawn_blocking(move || spawned(way, threads, each)).await??;
                report.figure(&format!("floor_{name}_x{threads}"), rate, "processes/s");
            }
        }
    }
    Ok(report)
}

impl FloorFlags {
    /// Measures what committing the same load costs without muster, next to the masters' directory `beside`; the rate in
    /// records per second, none when nobody asked.
    pub(crate) async fn commits(
        &self,
        beside: Option<&Path>,
        load: Load,
        report: &mut Report,
    ) -> anyhow::Result<Option<f64>> {
        if self.no_floors {
            return Ok(None);
        }
        let folder = Folder::new(beside)?;
        fdatasync(folder.path(), BESIDE, report).await?;
        quorum(folder.path(), load, BESIDE, "floor_quorum", report).await.map(Some)
    }

    /// Measures messages per second over tonic's streams; none when nobody asked.
    pub(crate) async fn echo(&self, report: &mut Report) -> anyhow::Result<Option<f64>> {
        if self.no_floors {
            return Ok(None);
        }
        let rate = echo::measure(RECORD_BYTES, BESIDE).await?;
        report.figure("floor_stream_echo", rate, "messages/s");
        Ok(Some(rate))
    }
}

/// Processes per second, for about so long.
fn spawned(way: Way, threads: usize, each: Duration) -> anyhow::Result<f64> {
    let (command, begun) = (["/bin/true".to_owned()], Instant::now());
    let mut rates = Vec::new();
    while rates.is_empty() || begun.elapsed() < each {
        rates.push(floor::rate(way, threads, PROCESSES, &command)?);
    }
    // As many processes each time: the mean time of one.
    Ok(rates.len() as f64 / rates.iter().map(|rate| 1.0 / rate).sum::<f64>())
}

async fn fdatasync(dir: &Path, each: Duration, report: &mut Report) -> anyhow::Result<()> {
    let dir = dir.to_owned();
    let done = spawn_blocking(move || disk::syncs(&dir, each)).await?.context("cannot measure fdatasync")?;
    done.tell("floor_fdatasync", "syncs/s", report);
    Ok(())
}

async fn quorum(
    dir: &Path,
    load: Load,
    each: Duration,
    name: &str,
    report: &mut Report,
) -> anyhow::Result<f64> {
    let load =
        Load { clients: load.clients.clamp(1, CLIENTS_MAX), records: load.records.clamp(1, RECORDS_MAX) };
    let dir = dir.to_owned();
    let done = spawn_blocking(move || quorum::measure(&dir, load, RECORD_BYTES, each))
        .await?
        .context("cannot measure a quorum's commits")?;
    ensure!(done.per_second > 0.0, "not one commit within {} ms; is the disk stuck?", each.as_millis());
    done.tell(name, "records/s", report);
    Ok(done.per_second)
}

/// A folder that is removed with all that is in it.
struct Folder(tempfile::TempDir);

impl Folder {
    /// In this one, which is made if need be, or where temporary files are.
    fn new(dir: Option<&Path>) -> anyhow::Result<Self> {
        let made = match dir {
            Some(dir) => {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("cannot make the directory {}", dir.display()))?;
                tempfile::tempdir_in(dir)
            }
            None => tempfile::tempdir(),
        };
        made.map(Self).context("cannot make a temporary directory; give --work-dir")
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}
