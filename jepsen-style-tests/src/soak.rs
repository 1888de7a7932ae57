//! The whole matrix, for hours: every scenario over three and five masters, in an order by chance, again and again.

use crate::child::{Done, Ended, Job};
use crate::nemesis::Dice;
use crate::scenarios::ALL;
use anyhow::Context;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// What all soaks in one directory found: a line for each run.
pub const FOUND: &str = "soak.jsonl";

/// Runs scenarios until the time is over; the last one is finished. Each comes once with three and once with five masters
/// before any comes again. What went wrong is kept. Whether every promise was kept.
pub fn soak(
    time: Duration,
    seed: u64,
    out: &Path,
    say: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let path = out.join(FOUND);
    let mut found = std::fs::File::options().create(true).append(true).open(&path)?;
    let begun = Instant::now();
    let (mut dice, mut good) = (Dice::new(seed), true);
    say(&format!("seed {seed}; each run adds a line to {}\n", path.display()))?;
    while begun.elapsed() < time {
        let card = dice.deal("scenario", 2 * ALL.len());
        let (scenario, masters) = (&ALL[card / 2], if card % 2 == 0 { 3 } else { 5 });
        let job = Job {
            scenario: scenario.name.into(),
            seed: dice.seed() >> 32,
            masters,
            // Said, so that the load is one that lasts: as fast as it can be, it may be over before the faults are.
            rounds: Some(scenario.rounds),
            environment: Vec::new(),
            out: out.into(),
        };
        if let Some(missing) = scenario.missing() {
            say(&format!("{} is skipped: {missing}\n", scenario.name))?;
            continue;
        }
        let done = job.run()?;
        writeln!(found, "{}", serde_json::to_string(&done)?)?;
        let took = done.took_s;
        match done.ended {
            Ended::Kept | Ended::Skipped => job.forget(),
            Ended::Broken => {
                good = false;
                let broken = done.broken.join("; ");
                say(&format!(
                    "{} {}: BROKEN {broken}, see {}\n",
                    done.scenario,
                    done.seed,
                    job.dir().display()
                ))?;
            }
        }
        say(&format!(
            "{:>7.0} s  {} over {masters}, seed {}, {took:.0} s\n",
            begun.elapsed().as_secs_f64(),
            done.scenario,
            done.seed
        ))?;
    }
    say(&table(&read(&path)?))?;
    Ok(good)
}

/// All runs of a directory.
pub fn read(path: &Path) -> anyhow::Result<Vec<Done>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = |(n, line)| {
        serde_json::from_str(line).with_context(|| format!("{}:{}: no run", path.display(), n + 1))
    };
    text.lines().enumerate().map(line).collect()
}

/// What they found, a line for each scenario, in Markdown.
pub fn table(runs: &[Done]) -> String {
    let mut by_scenario: BTreeMap<(&str, u16), Vec<&Done>> = BTreeMap::new();
    for run in runs {
        by_scenario.entry((&run.scenario, run.masters)).or_default().push(run);
    }
    let mut text =
        String::from("| scenario | masters | runs | minutes | operations | faults that bit | violations |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    let mut row = |name: &str, masters: &str, runs: &[&Done]| {
        let mut bites: BTreeMap<&str, u64> = BTreeMap::new();
        runs.iter().flat_map(|run| &run.bites).for_each(|(fault, n)| *bites.entry(fault).or_default() += n);
        let bites: Vec<_> = bites.into_iter().map(|(fault, n)| format!("{fault} {n}")).collect();
        let operations: u64 = runs.iter().map(|run| run.operations).sum();
        let minutes = runs.iter().map(|run| run.took_s).sum::<f64>() / 60.0;
        let bad = runs.iter().filter(|run| run.ended == Ended::Broken).count();
        // A string takes whatever is written to it.
        let _ = writeln!(
            text,
            "| {name} | {masters} | {} | {minutes:.1} | {operations} | {} | {bad} |",
            runs.len(),
            bites.join(", ")
        );
    };
    for ((name, masters), runs) in &by_scenario {
        row(name, &masters.to_string(), runs);
    }
    row("all", "3, 5", &runs.iter().collect::<Vec<_>>());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_added_up() {
        let run = |scenario: &str, masters, ended| Done {
            scenario: scenario.into(),
            seed: 7,
            masters,
            ended,
            took_s: 30.0,
            operations: 100,
            bites: [("kill".to_owned(), 3)].into(),
            broken: Vec::new(),
        };
        let runs =
            [run("mixed", 3, Ended::Kept), run("mixed", 3, Ended::Broken), run("mixed", 5, Ended::Kept)];
        let table = table(&runs);
        assert!(table.contains("| mixed | 3 | 2 | 1.0 | 200 | kill 6 | 1 |"), "{table}");
        assert!(table.contains("| mixed | 5 | 1 | 0.5 | 100 | kill 3 | 0 |"), "{table}");
        assert!(table.ends_with("| all | 3, 5 | 3 | 1.5 | 300 | kill 9 | 1 |\n"), "{table}");
    }
}
