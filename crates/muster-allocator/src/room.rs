//! What is free of an agent in a pass, and what is given of it.

use crate::{
    kinds::{Kinds, Row},
    sites::Site,
};
use muster_model::Resources;
use std::sync::Arc;

/// What is free of an agent.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) place: u32,
    /// That is all that is not held.
    pub(crate) is_rest: bool,
    pub(crate) is_plain: bool,
    pub(crate) free: Arc<Resources>,
    /// In numbers.
    pub(crate) amounts: Row,
}

impl Room {
    /// All that is not held, or what of it is not granted.
    pub(crate) fn new(place: u32, site: &Site, free: Option<Resources>, kinds: &Kinds) -> Self {
        match free {
            None => Self {
                place,
                is_rest: true,
                is_plain: site.is_plain,
                free: site.rest.clone(),
                amounts: site.amounts.clone(),
            },
            Some(free) => Self {
                place,
                is_rest: false,
                is_plain: free.is_plain(),
                amounts: kinds.known(&free).into(),
                free: Arc::new(free),
            },
        }
    }
}

/// What a pass gave.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) ask: u32,
    pub(crate) room: u32,
    /// The place of the agent.
    pub(crate) place: u32,
    pub(crate) part: Arc<Resources>,
    pub(crate) amounts: Row,
    /// Whether nothing of it is under a label.
    pub(crate) is_plain: bool,
    /// That is all of it that is not held.
    pub(crate) is_all: bool,
}

/// Of a room, for all who ask the same.
pub(crate) enum Part {
    /// All that is free, which is plain.
    Whole,
    /// Some of it.
    Some(Resources),
}
