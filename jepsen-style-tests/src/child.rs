//! A run as a process of its own: for those who do many, with binaries of their own.

use crate::history::{self, Event, Phase};
use crate::recording::HISTORY;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Job {
    /// The scenario.
    pub scenario: String,
    /// Its dice.
    pub seed: u64,
    /// How many masters.
    pub masters: u16,
    /// Rounds of faults; else as many as the scenario says.
    pub rounds: Option<u32>,
    /// Variables for it and its members.
    pub environment: Vec<(String, String)>,
    /// Where its directory is made.
    pub out: PathBuf,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Every promise was kept.
    Kept,
    /// One is broken.
    Broken,
    /// The machine lacks what it needs.
    Skipped,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The scenario.
    pub scenario: String,
    /// Its dice.
    pub seed: u64,
    /// How many masters.
    pub masters: u16,
    /// How it ended.
    pub ended: Ended,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// Launches, kills, writes and reads that were asked for.
    pub operations: u64,
    /// Faults that bit, by kind.
    pub bites: BTreeMap<String, u64>,
    /// The promises that were broken.
    pub broken: Vec<String>,
}

impl Job {
    /// Where its history and report are.
    pub fn dir(&self) -> PathBuf {
        self.out.join(format!("{}-{}", self.scenario, self.seed))
    }

    /// Runs it to its end. What it says goes to `said.txt` in its directory's place.
    pub fn run(&self) -> anyhow::Result<Done> {
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make {}", self.out.display()))?;
        let said = self.out.join(format!("{}-{}.txt", self.scenario, self.seed));
        let output =
            std::fs::File::create(&said).with_context(|| format!("cannot write {}", said.display()))?;
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(exe);
        let (seed, masters) = (self.seed.to_string(), self.masters.to_string());
        command.args(["run", "--scenario", &self.scenario, "--seed", &seed, "--nodes", &masters, "--out"]);
        command.arg(&self.out).args(self.rounds.map(|rounds| format!("--rounds={rounds}")));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let begun = Instant::now();
        let status = command.status().context("cannot start a run")?;
        let took_s = begun.elapsed().as_secs_f64();
        let ended = match status.code() {
            Some(0) => Ended::Kept,
            Some(1) => Ended::Broken,
            Some(3) => Ended::Skipped,
            _ => bail!("the run could not be made ({status}); it said so in {}", said.display()),
        };
        let (operations, bites) = counted(&self.dir())?;
        let broken = broken(&self.dir());
        let (scenario, seed, masters) = (self.scenario.clone(), self.seed, self.masters);
        Ok(Done { scenario, seed, masters, ended, took_s, operations, bites, broken })
    }

    /// Removes what it wrote.
    pub fn forget(&self) {
        // It is only room on a disk.
        let _ = std::fs::remove_dir_all(self.dir());
        let _ = std::fs::remove_file(self.out.join(format!("{}-{}.txt", self.scenario, self.seed)));
    }
}

fn counted(dir: &Path) -> anyhow::Result<(u64, BTreeMap<String, u64>)> {
    let path = dir.join(HISTORY);
    if !path.exists() {
        return Ok(Default::default());
    }
    let (mut operations, mut bites) = (0, BTreeMap::new());
    for entry in history::read(&path)? {
        match entry.event {
            Event::Launch { phase: Phase::Invoked, .. }
            | Event::Write { phase: Phase::Invoked, .. }
            | Event::Read { phase: Phase::Invoked, .. }
            | Event::Kill { .. } => operations += 1,
            Event::Nemesis { fault, bit: Some(_), .. } => *bites.entry(fault).or_default() += 1,
            _ => {}
        }
    }
    Ok((operations, bites))
}

fn broken(dir: &Path) -> Vec<String> {
    let report = std::fs::read_to_string(dir.join("report.txt")).unwrap_or_default();
    report.lines().filter_map(|line| line.strip_prefix("BROKEN ")).map(str::to_owned).collect()
}
