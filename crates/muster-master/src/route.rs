//! Where clients' frames go at present, and the streams that are told when that changes.

use bytes::Bytes;
use muster_leader::{ConnId, Counts, InverseAnswer};
use muster_model::{Call, CallOutcome, Event, Fence, FrameworkId, InverseOffer, Offer, Role};
use muster_proto::v1;
use muster_registry::Registry;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// What kind of client a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Agent,
    Scheduler,
}

/// The way to the leader.
#[derive(Debug, Clone, Default)]
pub(crate) enum Route {
    /// No leader is known, or the way to it is not open yet.
    #[default]
    None,
    /// This process leads.
    Local(Arc<LocalRoute>),
    /// Over a link.
    Remote(Arc<RemoteRoute>),
}

#[derive(Debug)]
pub(crate) struct LocalRoute {
    pub(crate) fence: Fence,
    pub(crate) leader: v1::Leader,
    /// Since when it leads, by its wall clock.
    pub(crate) since: SystemTime,
    pub(crate) inputs: mpsc::Sender<ToLeader>,
}

#[derive(Debug)]
pub(crate) struct RemoteRoute {
    pub(crate) fence: Fence,
    pub(crate) leader: v1::Leader,
    pub(crate) up: mpsc::Sender<LinkItem>,
}

impl Route {
    pub(crate) fn leader(&self) -> Option<(Fence, &v1::Leader)> {
        match self {
            Self::None => None,
            Self::Local(local) => Some((local.fence, &local.leader)),
            Self::Remote(remote) => Some((remote.fence, &remote.leader)),
        }
    }
}

/// What the leader's loop takes in from its process.
#[derive(Debug)]
pub(crate) enum ToLeader {
    /// A client is there; what is sent to it goes down this way.
    Opened(ConnId, Sink),
    /// It asks something.
    Call(ConnId, Call),
    /// It is gone.
    Closed(ConnId),
    /// An operator asks something.
    Operator(muster_leader::OperatorCall, oneshot::Sender<CallOutcome>),
    /// Somebody looks at the registry and at what the leader holds, of one moment.
    Look(oneshot::Sender<Looked>),
}

/// One moment of the leader.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) registry: Registry,
    /// The offers that stand.
    pub(crate) offers: Vec<Offer>,
    /// The inverse offers that stand.
    pub(crate) inverse_offers: Vec<InverseOffer>,
    /// What frameworks answered to others.
    pub(crate) answers: Vec<InverseAnswer>,
    /// What was counted since the term began.
    pub(crate) counts: Counts,
    /// How many commands are on their way through the log.
    pub(crate) proposed: usize,
    /// The roles that frameworks want no offers for.
    pub(crate) suppressed: BTreeMap<FrameworkId, BTreeSet<Role>>,
}

/// What a follower's link carries up.
#[derive(Debug)]
pub(crate) enum LinkItem {
    /// A client of this follower; frames for it go down this way.
    Open(u64, Kind, Sink),
    /// Its encoded frame.
    Frame(u64, Bytes),
    /// It is gone.
    Close(u64),
}

/// What goes down a client's stream.
#[derive(Debug)]
pub(crate) enum Down {
    /// From the leader in this process.
    Event(Fence, Box<Event>),
    /// From the leader over a link: an encoded frame.
    Frame(Bytes),
    /// Who leads: the client answers with its hello.
    Leader(Fence, v1::Leader),
    /// Dial another master.
    Redial(String),
    /// The end.
    Close,
}

/// The way down to a client of the leader's loop.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    /// A stream of this process, and how to cut it off.
    Local(mpsc::Sender<Down>, CancellationToken),
    /// A client of a link.
    Link(crate::link::LinkSink),
}

impl Sink {
    /// Queues an event; false when the client does not keep up, and must be cut off.
    pub(crate) fn send(&self, fence: Fence, event: Event) -> bool {
        match self {
            Self::Local(down, _) => down.try_send(Down::Event(fence, Box::new(event))).is_ok(),
            Self::Link(link) => link.send(event),
        }
    }

    /// Ends the stream after what is queued, or at once when the queue is full.
    pub(crate) fn close(self) {
        match self {
            Self::Local(down, cut) => {
                if down.try_send(Down::Close).is_err() {
                    cut.cancel();
                }
            }
            Self::Link(link) => link.close(),
        }
    }
}

/// The current route and the newest call to redial, for all who follow them.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    pub(crate) route: watch::Receiver<Route>,
    /// Counts how often clients were told to dial another master.
    pub(crate) redial: watch::Receiver<u64>,
}

/// Frames that wait for one client, at most.
pub(crate) const DOWN_QUEUE: usize = 8_192;
/// Frames that wait for the leader's loop, at most.
pub(crate) const UP_QUEUE: usize = 16_384;
