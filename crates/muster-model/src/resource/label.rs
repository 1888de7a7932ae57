//! What sets amounts of one kind apart: for whom they are reserved, and which volume they are.

use crate::{Role, VolumeId};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, fmt, sync::Arc};

/// For whom an amount is reserved, and the persistent volume that it is. An amount of a kind is plain, which is what
/// most are, or under one label; amounts under different labels are different things.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Label {
    /// Each refines the one before it: the last counts.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<Reservation>,
    /// The volume that was made of it.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reservation {
    /// Made while the agent was there, and undone so; else the agent came with it.
    #[serde(rename = "d", default, skip_serializing_if = "std::ops::Not::not")]
    pub dynamic: bool,
    /// For whom: this role and those below it.
    #[serde(rename = "r")]
    pub role: Role,
    /// Who made it.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Arc<str>>,
    /// What its maker wrote on it, sorted.
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(Arc<str>, Option<Arc<str>>)>,
}

/// A directory of an agent that outlives the tasks which use it. Its id names it; the rest says how it is used, and
/// may differ from task to task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Volume {
    /// Its name, unique among the volumes of its role on its agent.
    #[serde(rename = "i")]
    pub id: VolumeId,
    /// Who made it.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Arc<str>>,
    /// Where it is seen, from the sandbox.
    #[serde(rename = "c")]
    pub container_path: Arc<str>,
    /// It may not be written to.
    #[serde(rename = "o", default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

impl Label {
    /// Of one reservation.
    pub fn reserved(reservation: Reservation) -> Self {
        Self { reservations: vec![reservation], volume: None }
    }

    /// The role that it is reserved for: the last reservation's.
    pub fn reserved_role(&self) -> Option<&Role> {
        self.reservations.last().map(|last| &last.role)
    }

    /// Whether the last reservation was made while the agent was there.
    pub fn is_dynamic(&self) -> bool {
        self.reservations.last().is_some_and(|last| last.dynamic)
    }

    /// Whether it can be told apart from others only by more than one reservation.
    pub fn is_refined(&self) -> bool {
        self.reservations.len() > 1
    }

    /// Whether a role may use what is under it: it is reserved for that role or for one above it.
    pub fn is_usable_by(&self, role: &Role) -> bool {
        self.reserved_role().is_none_or(|reserved| reserved.covers(role))
    }

    /// What an agent has to come with for what is under this label to be made of it: the reservation that it came with,
    /// or nothing.
    pub fn origin(&self) -> Option<Self> {
        let given = self.reservations.iter().take_while(|it| !it.dynamic).cloned().collect();
        let origin = Self { reservations: given, volume: None };
        (origin != Self::default()).then_some(origin)
    }

    /// Whether it was made while the agent was there.
    pub fn is_made(&self) -> bool {
        self.is_dynamic() || self.volume.is_some()
    }

    /// Without its last reservation; nothing once none is left.
    pub fn unreserved(&self) -> Option<Self> {
        let mut rest = self.clone();
        rest.reservations.pop();
        (rest != Self::default()).then_some(rest)
    }

    /// What it was before the volume was made.
    pub fn without_volume(&self) -> Option<Self> {
        let rest = Self { reservations: self.reservations.clone(), volume: None };
        (rest != Self::default()).then_some(rest)
    }

    /// By what makes one label another: how a volume is used does not.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let ids = (self.volume.as_ref().map(|it| &it.id), other.volume.as_ref().map(|it| &it.id));
        self.reservations.cmp(&other.reservations).then_with(|| ids.0.cmp(&ids.1))
    }
}

impl fmt::Display for Label {
    /// `(web)` where the agent came with it, `(reservations: [(DYNAMIC,web,ops)])[db:data]` where not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reservations.as_slice() {
            [] => {}
            [Reservation { dynamic: false, role, principal: None, labels }] if labels.is_empty() => {
                write!(f, "({role})")?;
            }
            all => {
                let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
                write!(f, "(reservations: [{}])", texts.join(","))?;
            }
        }
        if let Some(volume) = &self.volume {
            let mode = if volume.read_only { ":ro" } else { "" };
            write!(f, "[{}:{}{mode}]", volume.id, volume.container_path)?;
        }
        Ok(())
    }
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({},{}", if self.dynamic { "DYNAMIC" } else { "STATIC" }, self.role)?;
        if let Some(principal) = &self.principal {
            write!(f, ",{principal}")?;
        }
        if !self.labels.is_empty() {
            let write = |(key, value): &(Arc<str>, Option<Arc<str>>)| match value {
                Some(value) => format!("{key}: {value}"),
                None => key.to_string(),
            };
            let texts: Vec<String> = self.labels.iter().map(write).collect();
            write!(f, ",{{{}}}", texts.join(", "))?;
        }
        f.write_str(")")
    }
}
