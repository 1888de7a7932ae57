//! Where clients' frames go at present, and the streams that are told when that changes.

use crate::link::{Heard, SILENCE};
use bytes::Bytes;
use muster_leader::{ConnId, Counts, InverseAnswer};
use muster_model::{
    AgentEvent, Call, CallOutcome, Event, Fence, FrameworkId, InverseOffer, Offer, Role, SchedulerEvent,
};
use muster_proto::v1;
use muster_registry::Registry;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
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
    /// Names the link in what goes to the leader beside it.
    pub(crate) beside: Arc<crate::link::Beside>,
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
    Event(Fence, Box<Event>, Held),
    /// From the leader over a link: an encoded frame.
    Frame(Bytes, Held),
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
    /// A stream of this process, how to cut it off, and how much may wait for it.
    Local(mpsc::Sender<Down>, CancellationToken, Room),
    /// A client of a link.
    Link(crate::link::LinkSink),
}

/// How much may wait for one client to read.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Semaphore>);

/// A part of a client's room, until it is dropped; none for what is small.
pub(crate) type Held = Option<OwnedSemaphorePermit>;

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(DOWN_KIB)))
    }
}

impl Room {
    /// Room for this many bytes; none if there is not as much.
    pub(crate) fn take(&self, bytes: usize) -> Option<Held> {
        match u32::try_from(bytes >> 10).unwrap_or(u32::MAX) {
            0 => Some(None),
            kib => self.0.clone().try_acquire_many_owned(kib).ok().map(Some),
        }
    }
}

/// The bytes of an event that nothing else holds.
pub(crate) fn weight(event: &Event) -> usize {
    match event {
        Event::Scheduler(SchedulerEvent::Message { data, .. })
        | Event::Agent { event: AgentEvent::Message { data, .. }, .. } => data.len(),
        _ => 0,
    }
}

impl Sink {
    /// The way down to a stream of this process.
    pub(crate) fn local(down: mpsc::Sender<Down>, cut: CancellationToken) -> Self {
        Self::Local(down, cut, Room::default())
    }

    /// Queues an event; false when the client does not keep up, and must be cut off.
    pub(crate) fn send(&self, fence: Fence, event: Event) -> bool {
        match self {
            Self::Local(down, _, room) => room
                .take(weight(&event))
                .is_some_and(|held| down.try_send(Down::Event(fence, Box::new(event), held)).is_ok()),
            Self::Link(link) => link.send(event),
        }
    }

    /// Ends the stream of a client that does not keep up: at once, and it is told so where that can be.
    pub(crate) fn cut_off(self) {
        match self {
            Self::Local(_, cut, _) => cut.cancel(),
            Self::Link(link) => link.close(),
        }
    }

    /// Ends the stream after what is queued, or at once when the queue is full.
    pub(crate) fn close(self) {
        match self {
            Self::Local(down, cut, _) => {
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
    pub(crate) heard: Arc<Heard>,
}

impl Routes {
    /// Whether there is no way to a leader, for so long that clients are told to dial another master.
    pub(crate) fn are_lost(&self) -> bool {
        matches!(*self.route.borrow(), Route::None) && self.heard.silence() >= SILENCE
    }

    /// Waits until this is no way to the leader any more. One that lost its quorum for long answers nobody, but for who asked
    /// before.
    pub(crate) async fn gone(&self, local: &LocalRoute) {
        let mut routes = self.route.clone();
        let is_elsewhere = |route: &Route| !matches!(route, Route::Local(it) if it.fence == local.fence);
        let _ = routes.wait_for(is_elsewhere).await; // a master that stops leads nobody
    }
}

/// Frames that wait for one client, at most.
pub(crate) const DOWN_QUEUE: usize = 8_192;
/// The same in KiB, at most: of long ones fewer wait.
const DOWN_KIB: usize = 16 << 10;
/// Frames that wait for the leader's loop, at most.
pub(crate) const UP_QUEUE: usize = 16_384;
