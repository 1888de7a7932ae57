//! Runs fault scenarios against real clusters, and judges what was recorded.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use jepsen_style_tests::recording::Recording;
use jepsen_style_tests::run::{Length, Options, run};
use jepsen_style_tests::{planted, report, scenarios, soak};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// The variable that names the binary under test.
const BINARY: &str = "MUSTER_BIN";
/// A longer run's history would not fit into a small machine's memory.
const TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// The exit code of a broken promise; 2 is that of anything that kept us from finding out.
const BROKEN: u8 = 1;
const FAILED: u8 = 2;
/// The exit code of a scenario that this machine cannot run.
const SKIPPED: u8 = 3;

/// Break a muster cluster on purpose, record what happens, and check what was promised.
///
/// Exit codes: 0 every promise was kept, 1 one is broken, 2 it could not be found out, 3 this machine lacks
/// what the scenario needs, which is printed.
#[derive(Debug, Parser)]
#[command(version, name = "jepsen-style-tests")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the scenarios there are.
    List,
    /// Start a cluster of real processes, load it, break it as the scenario says, and give the verdict.
    ///
    /// The binary under test is the one that MUSTER_BIN names, else the `muster` beside this program.
    Run(RunArgs),
    /// Run every scenario over three and five masters until the time is over, and show what all of it found.
    ///
    /// Takes a release build and nothing else on the machine: `scripts/soak`.
    Soak {
        /// For how long; parts of an hour, too. The last run is finished.
        #[arg(long, value_name = "H")]
        hours: f64,
        /// Throw the same dice as another soak; by chance when not given.
        #[arg(long, value_name = "S")]
        seed: Option<u64>,
        /// Where what it finds is added.
        #[arg(long, value_name = "DIR", default_value = "target/soak")]
        out: PathBuf,
    },
    /// Show what all soaks in a directory found.
    Table {
        /// The directory.
        #[arg(value_name = "DIR", default_value = "target/soak")]
        out: PathBuf,
    },
    /// Plant bugs in a binary made for it, and say whether they are found: `scripts/planted`.
    Planted {
        /// Only this one; may be given again.
        #[arg(long = "bug", value_name = "NAME")]
        bugs: Vec<String>,
        /// The dice of the runs.
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
        /// Where the runs are kept.
        #[arg(long, value_name = "DIR", default_value = "target/planted")]
        out: PathBuf,
    },
    /// Give the verdict on a recorded run again.
    Check {
        /// A run's directory, or its history.jsonl with truth.json beside it.
        #[arg(value_name = "DIR_OR_HISTORY")]
        recording: PathBuf,
    },
    /// Find the smallest beginning of a recorded history in which a promise is broken, and name the checker.
    Shrink {
        /// A run's directory, or its history.jsonl with truth.json beside it.
        #[arg(value_name = "HISTORY")]
        recording: PathBuf,
        /// Write that beginning to this file.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Which; `list` shows them.
    #[arg(long, value_name = "NAME")]
    scenario: String,
    /// Throw the same dice as another run; by chance when not given.
    #[arg(long, env = "MUSTER_SEED", value_name = "S")]
    seed: Option<u64>,
    /// Begin rounds of faults until so much time is over, 45s or 10m, at most 1h; without it the scenario has
    /// a number of rounds.
    #[arg(long, value_parser = duration)]
    time: Option<Duration>,
    /// Do so many rounds of faults.
    #[arg(long, value_name = "N", conflicts_with = "time", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// How many masters.
    #[arg(long, default_value = "3", value_parser = ["3", "5"])]
    nodes: String,
    /// Where to make a directory NAME-SEED for all that is written.
    #[arg(long, value_name = "DIR", default_value = "target/jepsen-runs")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match obey(Cli::parse()) {
        Ok(Ending::Kept) => ExitCode::SUCCESS,
        Ok(Ending::Broken) => ExitCode::from(BROKEN),
        Ok(Ending::Skipped) => ExitCode::from(SKIPPED),
        Err(error) => {
            eprintln!("jepsen-style-tests: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// How a command ended that could be carried out.
#[derive(Debug)]
enum Ending {
    /// Every promise was kept.
    Kept,
    /// One is broken.
    Broken,
    /// This machine cannot run the scenario.
    Skipped,
}

impl Ending {
    fn of(is_good: bool) -> Self {
        if is_good { Self::Kept } else { Self::Broken }
    }
}

fn obey(cli: Cli) -> anyhow::Result<Ending> {
    match cli.command {
        Verb::List => {
            let width = scenarios::ALL.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
            for scenario in scenarios::ALL {
                say(&format!("{:width$}  {}\n", scenario.name, scenario.about))?;
            }
            Ok(Ending::Kept)
        }
        Verb::Run(args) => run_scenario(&args),
        Verb::Soak { hours, seed, out } => {
            find_binary()?;
            let time = Duration::try_from_secs_f64(hours * 3600.0).context("--hours is no time")?;
            Ok(Ending::of(soak::soak(time, seed.unwrap_or_else(rand::random), &out, say)?))
        }
        Verb::Table { out } => {
            say(&soak::table(&soak::read(&out.join(soak::FOUND))?))?;
            Ok(Ending::Kept)
        }
        Verb::Planted { bugs, seed, out } => {
            let bugs: Vec<_> = match bugs.as_slice() {
                [] => planted::ALL.iter().collect(),
                some => some.iter().map(|bug| planted::named(bug)).collect::<anyhow::Result<_>>()?,
            };
            Ok(Ending::of(planted::try_all(&bugs, seed, &out, say)?))
        }
        Verb::Check { recording } => {
            let recording = Recording::read(&recording)?;
            say(&report::text(&recording))?;
            Ok(Ending::of(recording.is_good()))
        }
        Verb::Shrink { recording, out } => shrink(&recording, out.as_deref()),
    }
}

fn run_scenario(args: &RunArgs) -> anyhow::Result<Ending> {
    let scenario = scenarios::named(&args.scenario)?;
    if let Some(missing) = scenario.missing() {
        say(&format!("{} is skipped: {missing}\n", scenario.name))?;
        return Ok(Ending::Skipped);
    }
    for need in scenario.needs {
        need.prepare()?;
    }
    let options = Options {
        seed: args.seed.unwrap_or_else(rand::random),
        length: args.time.map(Length::Time).or(args.rounds.map(Length::Rounds)),
        masters: args.nodes.parse()?,
        out: args.out.clone(),
    };
    find_binary()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = run(scenario, &options) => report,
            // What was started is ended with the run.
            asked = tokio::signal::ctrl_c() => {
                asked?;
                bail!("interrupted")
            }
        }
    })?;
    say(&report.text)?;
    say(&format!("all of it is in {}, best read in report.html\n", report.dir().display()))?;
    Ok(Ending::of(report.is_good()))
}

/// The kit looks for the binary where a test finds it. This program is elsewhere, so it begins again with the
/// variable set, if the binary is beside it.
fn find_binary() -> anyhow::Result<()> {
    if std::env::var_os(BINARY).is_some() {
        return Ok(());
    }
    let exe = std::env::current_exe().context("cannot find this program's own file")?;
    let beside = exe.with_file_name("muster");
    if !beside.is_file() {
        bail!("there is no {}: build it with `cargo build --bin muster`, or set {BINARY}", beside.display());
    }
    let error = Command::new(exe).args(std::env::args_os().skip(1)).env(BINARY, beside).exec();
    Err(error).context("cannot begin again")
}

fn shrink(path: &Path, out: Option<&Path>) -> anyhow::Result<Ending> {
    let recording = Recording::read(path)?;
    let Some(found) = &recording.smallest else {
        say("every promise was kept: there is no bad prefix\n")?;
        return Ok(Ending::Kept);
    };
    say(&report::smallest_text(&recording.history, found))?;
    if let Some(out) = out {
        let mut text = String::new();
        for entry in recording.history.iter().take(found.entries) {
            text.push_str(&serde_json::to_string(entry)?);
            text.push('\n');
        }
        std::fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(Ending::Broken)
}

/// The answer. Whoever reads it may have seen enough.
fn say(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// `90s`, `10m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let help = || format!("{text:?} is no time; write it as 90s, 10m or 1h");
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        _ => return Err(help()),
    };
    let number: u64 = number.parse().map_err(|_| help())?;
    let time = Duration::from_secs(number.saturating_mul(seconds));
    match time {
        Duration::ZERO => Err("in no time nothing can be tried".into()),
        time if time > TIME_MAX => Err(format!("a run lasts at most {} s", TIME_MAX.as_secs())),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "s", "60", "-1s", "1.5m", "1é", "0s", "2h", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let words = ["jepsen-style-tests", "run", "--scenario", "mixed", "--nodes", "4"];
        assert!(Cli::try_parse_from(words).is_err());
    }
}
