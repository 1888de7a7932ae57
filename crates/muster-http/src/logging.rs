//! How much is logged, for a while.
//!
//! What writes the log belongs to the process, not to the master or the agent in it: it says here how its level is set.
//! Without that, a level is not set at all.

use crate::answer::plain;
use axum::body::Body;
use http::{Response, StatusCode};
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tracing::level_filters::LevelFilter;

/// Sets the level as Mesos counts it, or with none as it was when the process started.
type Set = Box<dyn Fn(Option<u32>) + Send + Sync>;

static SET: OnceLock<Set> = OnceLock::new();
/// Counts how often it was set: only the newest time is taken back.
static TIMES: AtomicU64 = AtomicU64::new(0);

/// Says how this process' level of logging is set: to 0, which is what everybody sees, to 1, which is debugging, to more,
/// which is all, and with none to what it was at first. The first one to say it is heard.
pub fn on_level(set: impl Fn(Option<u32>) + Send + Sync + 'static) {
    let _ = SET.set(Box::new(set));
}

/// How much is logged, as Mesos counts it: 0 is what everybody sees.
pub fn level() -> u32 {
    match LevelFilter::current() {
        LevelFilter::TRACE => 2,
        LevelFilter::DEBUG => 1,
        _ => 0,
    }
}

/// Sets it for so long.
pub fn set(level: u32, nanoseconds: i64) -> Response<Body> {
    let Some(set) = SET.get() else {
        let why = "The logging level of this process cannot be set: it was said to nobody how";
        return plain(StatusCode::NOT_IMPLEMENTED, why);
    };
    set(Some(level));
    let time = TIMES.fetch_add(1, Ordering::AcqRel) + 1;
    let length = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    tokio::spawn(async move {
        tokio::time::sleep(length).await;
        if TIMES.load(Ordering::Acquire) == time {
            set(None);
        }
    });
    plain(StatusCode::OK, "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_level_holds_for_as_long_as_it_was_set_last() {
        let (told, mut levels) = tokio::sync::mpsc::channel(8);
        on_level(move |level| told.try_send(level).unwrap());
        let second = 1_000_000_000;
        assert_eq!(set(1, second).status(), StatusCode::OK);
        assert_eq!(set(2, 60 * second).status(), StatusCode::OK);
        assert_eq!((levels.recv().await, levels.recv().await), (Some(Some(1)), Some(Some(2))));
        let since = tokio::time::Instant::now();
        assert_eq!(levels.recv().await, Some(None), "as it was at first");
        assert!(since.elapsed() >= Duration::from_secs(60), "the first time is over, and is not taken back");
    }
}
