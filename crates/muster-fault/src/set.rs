//! What is set in this process.

use crate::{Action, Bug, Point, Setting};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const NOTHING: usize = usize::MAX;
static PLANTED: AtomicUsize = AtomicUsize::new(NOTHING);

static ANY: AtomicBool = AtomicBool::new(false);
static ARMED: Mutex<BTreeMap<Point, Armed>> = Mutex::new(BTreeMap::new());
static REACHED: [AtomicU64; Point::ALL.len()] = [const { AtomicU64::new(0) }; Point::ALL.len()];

/// A point that was set.
struct Armed {
    setting: Setting,
    rng: SmallRng,
    /// How often it was reached since, and did something.
    reached: u64,
    fired: u64,
}

/// How a point stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Which.
    pub point: Point,
    /// What it is set to.
    pub setting: Option<Setting>,
    /// How often it was reached since the process began.
    pub reached: u64,
    /// How often it did something since it was set.
    pub fired: u64,
}

fn armed() -> MutexGuard<'static, BTreeMap<Point, Armed>> {
    ARMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registry time that is to pass at once with the next entry.
static ADVANCED_MS: AtomicU64 = AtomicU64::new(0);

/// Lets so many ms of registry time pass at once, with the next entry that this process writes as a leader.
pub fn advance(ms: u64) {
    ADVANCED_MS.fetch_add(ms, Ordering::Relaxed);
}

/// The ms that are to pass now; they pass once.
pub fn take_advance() -> u64 {
    ADVANCED_MS.swap(0, Ordering::Relaxed)
}

/// Makes this process have a bug, one at a time: what was planted before is well again.
pub fn plant(bug: Bug) {
    PLANTED.store(bug as usize, Ordering::Relaxed);
}

/// Whether this process has this bug.
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as usize
}

/// Sets a point, or with nothing lets it pass again. Its counts begin anew.
pub fn set(point: Point, setting: Option<Setting>) {
    let mut armed = armed();
    match setting {
        None => drop(armed.remove(&point)),
        Some(setting) => {
            let rng = SmallRng::seed_from_u64(setting.seed);
            armed.insert(point, Armed { setting, rng, reached: 0, fired: 0 });
        }
    }
    ANY.store(!armed.is_empty(), Ordering::Release);
}

/// How all points stand.
pub fn standing() -> Vec<Standing> {
    let armed = armed();
    let one = |point: &Point| {
        let set = armed.get(point);
        Standing {
            point: *point,
            setting: set.map(|it| it.setting),
            reached: REACHED[*point as usize].load(Ordering::Relaxed),
            fired: set.map_or(0, |it| it.fired),
        }
    };
    Point::ALL.iter().map(one).collect()
}

/// Passes a point; may block, panic or end the process.
pub fn reach(point: Point) -> io::Result<()> {
    match due(point) {
        Some(Action::Delay(delay)) => {
            std::thread::sleep(delay);
            Ok(())
        }
        other => act(point, other),
    }
}

/// Passes a point in a task; may panic or end the process.
pub async fn pass(point: Point) -> io::Result<()> {
    match due(point) {
        Some(Action::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(())
        }
        other => act(point, other),
    }
}

fn act(point: Point, action: Option<Action>) -> io::Result<()> {
    match action {
        None | Some(Action::Delay(_)) => Ok(()),
        Some(Action::Error) => Err(io::Error::other(format!("fail point {point}"))),
        Some(Action::Panic) => panic!("fail point {point}"),
        Some(Action::Crash) => std::process::abort(),
    }
}

/// What is to happen this time.
fn due(point: Point) -> Option<Action> {
    REACHED[point as usize].fetch_add(1, Ordering::Relaxed);
    if !ANY.load(Ordering::Acquire) {
        return None;
    }
    let mut armed = armed();
    let it = armed.get_mut(&point)?;
    it.reached += 1;
    let setting = &it.setting;
    let over = setting.count.is_some_and(|count| it.fired >= count);
    if it.reached <= setting.after || over || !it.rng.random_bool(setting.chance) {
        return None;
    }
    it.fired += 1;
    Some(setting.action)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    // One test, because what is set is set for the whole process.
    #[tokio::test]
    async fn points_do_what_they_are_set_to_and_nothing_else() {
        assert!((0..10).all(|_| reach(Point::Apply).is_ok()));

        set(Point::Apply, "error,after=2,count=3".parse().ok());
        let failed: Vec<_> = (0..8).map(|_| reach(Point::Apply).is_err()).collect();
        assert_eq!(failed, [false, false, true, true, true, false, false, false]);
        assert!(reach(Point::Applied).is_ok());
        let standing = standing().into_iter().find(|it| it.point == Point::Apply).unwrap();
        assert_eq!((standing.reached, standing.fired), (18, 3));

        let chances = |seed| {
            set(Point::Apply, format!("error,chance=0.5,seed={seed}").parse().ok());
            (0..64).map(|_| reach(Point::Apply).is_err()).collect::<Vec<_>>()
        };
        let first = chances(7);
        assert_eq!(chances(7), first);
        assert_ne!(chances(8), first);
        assert!((8..56).contains(&first.iter().filter(|failed| **failed).count()));

        set(Point::Apply, "panic".parse().ok());
        assert!(std::panic::catch_unwind(|| reach(Point::Apply)).is_err());
        set(Point::Apply, None);
        assert!(reach(Point::Apply).is_ok());

        set(Point::AppendSend, "delay=40".parse().ok());
        let before = std::time::Instant::now();
        assert!(pass(Point::AppendSend).await.is_ok());
        assert!(before.elapsed() >= Duration::from_millis(40));
        set(Point::AppendSend, None);

        plant(Bug::LoseKill);
        assert!(is_planted(Bug::LoseKill) && !is_planted(Bug::SkipSync));
    }
}
