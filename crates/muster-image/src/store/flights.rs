//! One at a time for each key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::sync::OwnedMutexGuard;

type Turns = HashMap<String, Weak<tokio::sync::Mutex<()>>>;

/// Who works on what. Keys that nobody works on take no room.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<Turns>);

impl Flights {
    /// Waits until nobody else works on this; on a thread that may block.
    pub(crate) fn turn_blocking(&self, key: &str) -> OwnedMutexGuard<()> {
        self.mutex(key).blocking_lock_owned()
    }

    /// The turn, if nobody works on this.
    pub(crate) fn try_turn(&self, key: &str) -> Option<OwnedMutexGuard<()>> {
        self.mutex(key).try_lock_owned().ok()
    }

    fn mutex(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let found = turns.get(key).and_then(Weak::upgrade);
        found.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(key.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }
}
