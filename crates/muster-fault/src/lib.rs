//! Faults on purpose, inside the processes under test: fail points, and bugs that are planted to see whether the
//! fault suite finds them.
//!
//! Without the feature `enabled` this is two macros that expand to nothing, [`point!`] to `Ok(())` and [`planted!`] to
//! `false`: the shipped binary holds none of it. With it (`cargo build --bin muster --features faults`):
//!
//! - A [`Point`] is a dangerous place: around every sync, append, vote, apply, snapshot step and send. It does nothing
//!   until a [`Setting`] says otherwise, at the start or at run time: fail, be late, panic or crash there, by chance, so
//!   many times, after so many times. The same seed decides alike.
//! - A [`Bug`] is a mistake that its source makes when it is chosen at the start, and only then.
//!
//! # Laws
//! - Nothing here decides anything unless it was set: a build with the feature behaves like one without.
//! - The names of points and bugs are part of what other suites use: they do not change.
//!
//! # Nevers
//! - No crate turns the feature on by itself: only the binary's own feature `faults` does.

mod bug;
mod point;
#[cfg(feature = "enabled")]
mod set;
mod setting;

pub use bug::Bug;
pub use point::Point;
#[cfg(feature = "enabled")]
pub use set::{Standing, advance, is_planted, pass, plant, reach, set, standing, take_advance};
pub use setting::{Action, Setting, SettingError, settings};

/// Whether a [`Bug`] was planted; `false` without the feature.
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        $crate::is_planted($crate::Bug::$bug)
    };
}

/// Whether a [`Bug`] was planted; `false` without the feature.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

/// The ms of registry time that a test lets pass now; 0 without the feature.
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! advanced_ms {
    () => {
        $crate::take_advance()
    };
}

/// The ms of registry time that a test lets pass now; 0 without the feature.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! advanced_ms {
    () => {
        0
    };
}

/// Passes a [`Point`] in a thread that may block. The error is the one that was asked for.
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! point {
    ($point:expr) => {
        $crate::reach($point)
    };
}

/// Passes a [`Point`] in a thread that may block. The error is the one that was asked for.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! point {
    ($point:expr) => {{
        let _: $crate::Point = $point;
        std::io::Result::Ok(())
    }};
}

/// Passes a [`Point`] in a task: as [`point!`], to be awaited.
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! point_async {
    ($point:expr) => {
        $crate::pass($point)
    };
}

/// Passes a [`Point`] in a task: as [`point!`], to be awaited.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! point_async {
    ($point:expr) => {{
        let _: $crate::Point = $point;
        std::future::ready(std::io::Result::Ok(()))
    }};
}
