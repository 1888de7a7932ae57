//! Service returns, and soon.

use crate::history::{Entry, Event};
use crate::model::Truth;
use crate::nemesis::{
    BLOCK, DAMAGE, DISK_DIES, DISK_FULL, DISK_LOST, DUPLICATE, EXPIRE, FAILOVER, KILL, PAUSE, POWER_CUT,
    READ_ONLY, RESTART, SYNC_FAILS, SYNC_KILLS, SYNC_LIES, TRANSFER,
};

/// For how long the sampler may look for a leader in vain while more than half of the masters are there, in seconds: a
/// few times what an election takes, which begins after 300 ms of silence and is over within 300 ms, on a machine that
/// does much else.
const LEADER_S: f64 = 5.0;
/// What a look counts for at most, in seconds: while it stood still, the sampler saw nothing.
const LOOK_S: f64 = 1.0;
/// How long it may take after a round of faults until everybody is back, in seconds.
const BACK_S: f64 = 15.0;

/// Faults that take away those they name, if anybody.
const TAKE_AWAY: [&str; 17] = [
    KILL, PAUSE, RESTART, TRANSFER, POWER_CUT, SYNC_FAILS, SYNC_KILLS, SYNC_LIES, DISK_FULL, READ_ONLY,
    DISK_DIES, DAMAGE, DISK_LOST, FAILOVER, DUPLICATE, BLOCK, EXPIRE,
];

/// A run comes to its end.
pub fn comes_to_its_end(_: &[Entry], truth: &Truth) -> Vec<String> {
    let lines = truth.broken_off.iter().flat_map(|why| std::iter::once(why).chain(&truth.error_lines));
    lines.cloned().collect()
}

/// A leader serves within seconds, as long as more than half of the masters are there; and after each round of faults
/// every agent is registered and every framework subscribed within seconds.
pub fn service_returns(history: &[Entry], truth: &Truth) -> Vec<String> {
    let masters = truth.logs.keys().filter(|name| is_master(name)).count();
    let mut wrong = Vec::new();
    let mut open: Vec<(&str, &str)> = Vec::new();
    // Since when the newest look in vain lasts, and for how long those before it did.
    let mut vain: Option<(u64, f64)> = None;
    for entry in history {
        let judged = open.iter().all(|(fault, target)| is_of_few(fault, target, masters));
        let silence = vain
            .map_or(0.0, |(since, before)| before + seconds(entry.at_us.saturating_sub(since)).min(LOOK_S));
        let mut until = |what: &str| {
            if judged && silence > LEADER_S {
                wrong.push(format!("nobody served for {silence:.1} s until {what} at {} us", entry.at_us));
            }
        };
        match &entry.event {
            Event::Serves { leader: None } => vain = Some((entry.at_us, silence)),
            Event::Serves { leader: Some(leader) } => {
                until(leader);
                vain = None;
            }
            Event::Nemesis { fault, target, begins, .. } => {
                until(fault);
                // From here on other masters are there.
                vain = vain.map(|_| (entry.at_us, 0.0));
                match begins {
                    true => open.push((fault, target)),
                    false => {
                        if let Some(at) = open.iter().position(|one| *one == (&**fault, &**target)) {
                            open.swap_remove(at);
                        }
                    }
                }
            }
            Event::Back { after_ms } if seconds(after_ms.saturating_mul(1000)) > BACK_S => {
                wrong.push(format!("everybody was back {after_ms} ms after a round of faults"));
            }
            _ => {}
        }
    }
    wrong
}

/// Whether a fault leaves more than half of the masters as they are.
fn is_of_few(fault: &str, target: &str, masters: usize) -> bool {
    let hit = target.split(',').filter(|name| is_master(name)).count();
    TAKE_AWAY.contains(&fault) && 2 * hit < masters
}

fn is_master(name: &str) -> bool {
    name.strip_prefix('m').is_some_and(|number| number.parse::<u32>().is_ok())
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, refuses};

    fn at(seconds: u64, event: Event) -> Entry {
        Entry { at_us: seconds * 1_000_000, ..entry("sampler", event) }
    }

    fn serves(seconds: u64, leader: Option<&str>) -> Entry {
        at(seconds, Event::Serves { leader: leader.map(Into::into) })
    }

    /// Nobody serves: the sampler looks every second.
    fn silent(seconds: std::ops::Range<u64>) -> impl Iterator<Item = Entry> {
        seconds.map(|second| serves(second, None))
    }

    fn kill(seconds: u64, target: &str, begins: bool) -> Entry {
        let bit = (!begins).then(String::new);
        at(seconds, Event::Nemesis { fault: KILL.into(), target: target.into(), begins, bit })
    }

    #[test]
    fn a_run_that_broke_off_is_seen() {
        refuses(comes_to_its_end, "after killed masters", |_, truth| {
            truth.broken_off = Some("after killed masters: nothing was launched".into());
        });
    }

    #[test]
    fn a_leader_that_does_not_come_is_seen() {
        refuses(service_returns, "nobody served for 20.0 s until m2", |history, truth| {
            truth.logs.insert("m3".into(), Vec::new());
            history.push(kill(1, "m1", true));
            history.extend(silent(2..22));
            history.push(serves(22, Some("m2")));
        });
        refuses(service_returns, "nobody served for 7.0 s until m2", |history, _| {
            history.extend([kill(3, "m1,m2", true), kill(30, "m1,m2", false)]);
            history.extend(silent(30..37));
            history.push(serves(37, Some("m2")));
        });
        refuses(service_returns, "nobody served for 6.0 s until kill", |history, _| {
            history.extend(silent(2..8));
            history.push(kill(8, "m1", true));
        });
    }

    #[test]
    fn a_sampler_that_stood_still_saw_nothing() {
        let (mut history, truth) = good();
        history.extend(silent(2..5));
        history.push(serves(30, Some("m2")));
        assert_eq!(service_returns(&history, &truth), Vec::<String>::new());
    }

    #[test]
    fn without_a_quorum_nobody_has_to_serve() {
        let (mut history, truth) = good();
        history.push(kill(1, "m1,m2", true));
        history.extend(silent(2..22));
        history.extend([kill(22, "m1,m2", false), serves(23, Some("m2"))]);
        assert_eq!(service_returns(&history, &truth), Vec::<String>::new());
    }

    #[test]
    fn one_who_stays_away_is_seen() {
        refuses(service_returns, "16000 ms", |history, _| {
            history.push(at(1, Event::Back { after_ms: 900 }));
            history.push(at(1, Event::Back { after_ms: 16_000 }));
        });
    }
}
