//! Whether the suite finds what it is for: bugs that are planted in a binary made for it.

use crate::child::{Ended, Job};
use anyhow::{Context, bail};
use std::path::Path;

/// Names a binary with the feature `faults`.
pub const BINARY: &str = "MUSTER_FAULTS_BIN";

/// A bug, and the scenario that must find it.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// Its name, as `muster-fault` has it.
    pub bug: &'static str,
    /// Where it shows.
    pub scenario: &'static str,
    /// For how long.
    pub rounds: Option<u32>,
}

const fn planted(bug: &'static str, scenario: &'static str, rounds: Option<u32>) -> Planted {
    Planted { bug, scenario, rounds }
}

/// All of them.
pub const ALL: &[Planted] = &[
    planted("skip-sync", "power-cut-all", None),
    planted("vote-for-all", "mixed", None),
    planted("ack-before-commit", "leader-half-cut", None),
    planted("ack-launch-before-commit", "partitions", None),
    planted("forget-offer-term", "leader-kills", Some(3)),
    planted("drop-updates", "leader-kills", None),
    planted("restart-launch", "agent-kills", Some(2)),
    planted("lose-kill", "leader-kills", None),
    planted("stale-reads", "leader-isolated", Some(2)),
    planted("skip-after-snapshot", "snapshots", None),
    planted("reorder-after-snapshot", "snapshots", None),
    planted("count-twice", "leader-kills", None),
    planted("forget-launches", "leader-kills", None),
    planted("unequal-replicas", "leader-kills", Some(3)),
    planted("keep-frameworks", "framework-expiry", None),
];

/// The one of this name.
pub fn named(bug: &str) -> anyhow::Result<&'static Planted> {
    let known = || ALL.iter().map(|one| one.bug).collect::<Vec<_>>().join(", ");
    ALL.iter()
        .find(|one| one.bug == bug)
        .with_context(|| format!("there is no bug {bug:?}; there are {}", known()))
}

/// Plants each, and says in a line of its own whether and by what it was found. Whether all were.
pub fn try_all(
    bugs: &[&Planted],
    seed: u64,
    out: &Path,
    say: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let exe = std::env::var(BINARY).ok().filter(|path| Path::new(path).is_file());
    let Some(exe) = exe else {
        bail!(
            "{BINARY} names no binary with bugs to plant: build one with `cargo build --bin muster --features faults` and \
             copy it to where the next build does not replace it, as scripts/planted does"
        );
    };
    let mut all = true;
    say(&format!("{:<24} {:<18} {:>6}  {}\n", "BUG", "SCENARIO", "TIME", "FOUND BY"))?;
    for one in bugs {
        let environment =
            [("MUSTER_BIN".into(), exe.clone()), ("MUSTER_PLANT".into(), one.bug.into())].into();
        let (scenario, rounds, out) = (one.scenario.into(), one.rounds, out.join(one.bug));
        let job = Job { scenario, seed, masters: 3, rounds, environment, out };
        let done = job.run()?;
        let found = match done.ended {
            Ended::Broken => done.broken.join("; "),
            Ended::Kept => "NOT FOUND".into(),
            Ended::Skipped => "skipped: this machine lacks what the scenario needs".into(),
        };
        all &= done.ended == Ended::Broken;
        say(&format!("{:<24} {:<18} {:>5.0}s  {found}\n", one.bug, one.scenario, done.took_s))?;
    }
    Ok(all)
}
