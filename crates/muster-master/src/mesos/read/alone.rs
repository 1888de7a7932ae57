//! Answers of a registry alone, without a master around it: what benches and tests measure and look at.

use super::super::About;
use super::seen::Seen;
use super::{OfLeader, Query, answer};
use crate::{MasterConfig, route::LocalRoute};
use muster_model::Fence;
use muster_registry::Registry;
use std::{
    io,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

impl Seen {
    /// What a master `m1` that led since 1.5 s after the epoch sees, with nothing offered.
    pub(super) fn alone(registry: Registry, config: &MasterConfig) -> Self {
        let (inputs, _) = tokio::sync::mpsc::channel(1);
        let leader = muster_proto::v1::Leader { name: "m1".into(), address: "127.0.0.1:5050".into() };
        Self {
            registry,
            offers: Vec::new(),
            inverse_offers: Vec::new(),
            answers: Vec::new(),
            about: Arc::new(About { started: UNIX_EPOCH + Duration::from_secs(1), ..About::of(config) }),
            local: Arc::new(LocalRoute {
                fence: Fence::default(),
                leader,
                since: UNIX_EPOCH + Duration::from_millis(1_500),
                inputs,
            }),
            view: Default::default(),
        }
    }
}

/// Writes what `GET /state` answers of this registry: for benches.
///
/// # Errors
/// Those of `out`.
#[doc(hidden)]
pub fn write_state(registry: Registry, out: &mut dyn io::Write) -> io::Result<()> {
    let seen = Seen::alone(registry, &MasterConfig::default());
    answer(out, OfLeader::State, &Query::default(), &seen)
}
