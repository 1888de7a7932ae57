//! The faults of a cluster, as they are written into a history.

use super::TestCluster;
use crate::history::{Fault, Recorder};
use crate::hosts::Storm;
use crate::{
    BadSyncs, Cut, Delayed, FewFiles, FullDisk, LittleMemory, Lossy, Paused, ReadOnlyDisk, Skewed, Starved,
    ThinDisk, Throttled, Unplugged,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Where faults are recorded, and those that are on and have no handle.
#[derive(Debug, Default)]
pub(super) struct Recorded(Mutex<Recording>);

#[derive(Debug, Default)]
struct Recording {
    recorder: Option<Recorder>,
    /// By member, and by member and what is set there.
    on: BTreeMap<(String, Option<String>), Fault>,
}

/// The handle of a fault, which tells when that is over.
pub(super) trait Lasting {
    fn keep(&mut self, recorded: Fault);
}

macro_rules! lasting {
    ($($handle:ty : $field:tt),* $(,)?) => {
        $(impl Lasting for $handle {
            fn keep(&mut self, recorded: Fault) {
                self.$field.becomes(recorded);
            }
        })*
    };
}

lasting! {
    Paused: 1, Cut: 1, Starved: 1, LittleMemory: 1,
    Delayed: recorded, Lossy: recorded, Unplugged: recorded, Throttled: recorded, Storm: recorded,
    Skewed: recorded, FewFiles: recorded,
    FullDisk: recorded, ReadOnlyDisk: recorded, ThinDisk: recorded, BadSyncs: recorded,
}

impl TestCluster {
    /// Writes into a history when a fault of this cluster begins and ends, from now on: those with a handle end when it
    /// is dropped, a kill or a stop when the member is started again.
    pub fn record_faults(&self, recorder: &Recorder) {
        self.recording(|it| it.recorder = Some(recorder.clone()));
    }

    fn recording<T>(&self, what: impl FnOnce(&mut Recording) -> T) -> T {
        what(&mut self.recorded.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A fault begins; it is over when this is dropped.
    pub(super) fn fault(&self, fault: &str, on: impl Serialize) -> Fault {
        let recorder = self.recording(|it| it.recorder.clone());
        recorder.map_or_else(Fault::default, |recorder| recorder.fault(fault, on))
    }

    /// A fault that lasts as long as its handle.
    pub(super) fn lasting<T: Lasting>(
        &self,
        fault: &str,
        on: impl Serialize,
        begin: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let recorded = self.fault(fault, on);
        let mut handle = begin()?;
        handle.keep(recorded);
        Ok(handle)
    }

    /// A member goes down. One that is down already stays so.
    pub(super) fn goes_down(&self, fault: &str, name: &str) {
        self.recording(|it| {
            let Some(recorder) = &it.recorder else { return };
            it.on.entry((name.into(), None)).or_insert_with(|| recorder.fault(fault, [name]));
        });
    }

    /// It was started again: nothing that was set in it is left.
    pub(super) fn comes_up(&self, name: &str) {
        let over: Vec<_> =
            self.recording(|it| it.on.extract_if(.., |(member, _), _| member == name).collect());
        drop(over);
    }

    /// Something is set in a member, until it is cleared or the member ends.
    pub(super) fn is_set(&self, fault: &str, name: &str, what: &str, how: &str) {
        self.is_cleared(name, what);
        let recorded = self.fault(fault, [name, what, how]);
        self.recording(|it| it.on.insert((name.into(), Some(what.into())), recorded));
    }

    /// It is set no more.
    pub(super) fn is_cleared(&self, name: &str, what: &str) {
        let over = self.recording(|it| it.on.remove(&(name.into(), Some(what.into()))));
        drop(over);
    }

    /// The cluster ends: whoever is down stays so.
    pub(super) fn nobody_comes_up(&self) {
        let on = self.recording(|it| std::mem::take(&mut it.on));
        on.into_values().for_each(Fault::goes_on);
    }
}
