//! Schedulers that come by gRPC: the same checks on their frames, before these go along the route.

use super::{Judged, accept, identify, registers};
use crate::route::Down;
use bytes::Bytes;
use muster_http::auth::{Auth, Realm, Subject};
use muster_model::{CallOutcome, Event, FrameworkId, SchedulerEvent};
use muster_proto::{mesos, v1};
use muster_raft::Raft;
use prost::Message;
use std::sync::{Arc, Mutex, PoisonError};
use v1::{scheduler_down_frame::Event as Told, scheduler_frame::Call as Up};

/// Checks the frames of one scheduler.
#[derive(Clone)]
pub(crate) struct Guard {
    auth: Arc<Auth>,
    raft: Raft,
    who: Subject,
    /// The framework that it was told that it is.
    subscribed: Arc<Mutex<Option<FrameworkId>>>,
}

/// What becomes of a frame.
#[derive(Debug)]
pub(crate) enum Passed {
    /// These go on in its place.
    On(Vec<Bytes>),
    /// None does: its sender is told this, and its stream goes on, or ends.
    Told(Box<Event>, bool),
}

impl Guard {
    /// One for whoever shows this; none where nothing is to be checked.
    ///
    /// # Errors
    /// It does not show who it is, and must.
    pub(crate) fn of(
        auth: &Arc<Auth>,
        raft: &Raft,
        metadata: &tonic::metadata::MetadataMap,
    ) -> Result<Option<Self>, tonic::Status> {
        let who = known(auth, Realm::Scheduler, metadata)?;
        let is_needed = who.principal().is_some() || !auth.acls().are_open();
        Ok(is_needed.then(|| Self {
            auth: auth.clone(),
            raft: raft.clone(),
            who,
            subscribed: Arc::default(),
        }))
    }

    /// Takes note of who the scheduler is told that it is.
    pub(crate) fn note(&self, down: &Down) {
        let framework_id = match down {
            Down::Event(_, event, _) => match &**event {
                Event::Scheduler(SchedulerEvent::Subscribed { framework_id, .. }) => framework_id.clone(),
                _ => return,
            },
            Down::Frame(bytes, _) => match v1::SchedulerDownFrame::decode(bytes.clone()).map(|it| it.event) {
                Ok(Some(Told::Subscribed(it))) => FrameworkId::new(it.framework_id),
                _ => return,
            },
            Down::Leader(..) | Down::Redial(_) | Down::Close => return,
        };
        *self.subscribed.lock().unwrap_or_else(PoisonError::into_inner) = Some(framework_id);
    }

    async fn judged(&self) -> Option<Judged> {
        let id = self.subscribed.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Judged::subscribed(&self.raft, &id).await
    }

    /// Checks a frame. One that cannot be read, or is of no interest here, goes on as it is.
    pub(crate) async fn pass(&self, frame: Bytes) -> Passed {
        let Ok(mut read) = v1::SchedulerFrame::decode(frame.clone()) else {
            return Passed::On(vec![frame]);
        };
        let id = read.id;
        let refused = match &mut read.call {
            Some(Up::Subscribe(subscribe)) => match self.describe(&mut subscribe.framework_info) {
                Ok(()) => {
                    // Who it is now it is told again.
                    *self.subscribed.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    None
                }
                Err(why) => return Passed::Told(scheduler(SchedulerEvent::Error(why)), true),
            },
            Some(Up::Update(update)) => match self.describe(&mut update.framework_info) {
                Ok(()) => None,
                Err(why) => {
                    let outcome = CallOutcome::Refused(why);
                    return Passed::Told(scheduler(SchedulerEvent::Outcome { id, outcome }), false);
                }
            },
            Some(Up::Accept(_)) if self.auth.acls().are_open() => return Passed::On(vec![frame]),
            Some(Up::Accept(asked)) => match self.judged().await {
                Some(judged) => accept(&self.auth, &judged, asked),
                // It has not subscribed, or this master does not know of that yet.
                None => {
                    let busy = SchedulerEvent::Outcome { id, outcome: CallOutcome::Busy };
                    return Passed::Told(scheduler(busy), false);
                }
            },
            // Masters say that of calls that they have seen.
            Some(Up::Refused(_)) => return Passed::On(Vec::new()),
            _ => return Passed::On(vec![frame]),
        };
        let (fence, mut frames) = (read.fence, vec![read.encode_to_vec().into()]);
        frames.extend(refused.map(|refused| {
            let call = Some(Up::Refused(refused));
            v1::SchedulerFrame { id: 0, call, fence }.encode_to_vec().into()
        }));
        Passed::On(frames)
    }

    fn describe(&self, encoded: &mut Bytes) -> Result<(), String> {
        // What is no description is the leader's to refuse.
        let Ok(mut info) = mesos::FrameworkInfo::decode(encoded.clone()) else { return Ok(()) };
        identify(&self.who, &mut info, encoded)?;
        registers(&self.auth, &info)
    }
}

fn scheduler(event: SchedulerEvent) -> Box<Event> {
    Box::new(Event::Scheduler(event))
}

/// Who sent a request by gRPC.
///
/// # Errors
/// It does not show who it is, and must.
pub(crate) fn known(
    auth: &Auth,
    realm: Realm,
    metadata: &tonic::metadata::MetadataMap,
) -> Result<Subject, tonic::Status> {
    if !auth.is_closed(realm) {
        return Ok(Subject::default());
    }
    auth.known(realm, &metadata.clone().into_headers()).ok_or_else(|| {
        tonic::Status::unauthenticated(
            "this master wants to know who asks: send `authorization: Basic ..` with a principal and its secret",
        )
    })
}
