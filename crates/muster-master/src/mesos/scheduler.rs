//! `POST /api/v1/scheduler`: the checks in Mesos' order, then a stream or a call.
//!
//! A call finds its way by its stream's name: to the session that holds the stream here, else by the leader, which knows
//! the name from the registry. What a change of leader interrupts is tried again with the next one, but for a message,
//! which is delivered at most once.

use super::{
    Leads, Mesos,
    answer::{accepted, bad, moved, nobody_leads, plain, too_many, unavailable},
    forward, prefixed, request,
    session::{self, Answer, NotTaken, stream_of},
};
use crate::{
    admit::{Judged, accept, identify, mismatch, registers},
    door::next_client,
    route::{Down, LocalRoute, Route, Sink, ToLeader},
};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, request::Parts};
use muster_http::auth::Subject;
use muster_model::{Call, CallOutcome, Event, FrameworkId, SchedulerEvent, Token};
use muster_proto::{
    json::{Codec, Mesos as _, from_json},
    mesos,
    scheduler_api::{self, Asked, Shown, Up, asked, validate},
    scheduler_call, v1,
};
use muster_raft::Leadership;
use muster_registry::Registry;
use prost::Message as _;
use std::time::Duration;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Names the stream that a call belongs to.
pub(super) const STREAM_ID: &str = "mesos-stream-id";
/// How long a call is tried again while leaders change, unless there is no way to one for long.
const TRIED: Duration = Duration::from_secs(10);
/// Between two tries with a leader that is busy.
const PAUSE: Duration = Duration::from_millis(50);

type Refused = Box<Response<Body>>;

/// Answers a POST; a refusal is an answer like any other.
pub(super) async fn answer(on: &Mesos, who: Subject, head: Parts, body: Body) -> Response<Body> {
    match try_answer(on, who, head, body).await {
        Ok(response) => response,
        Err(refusal) => *refusal,
    }
}

async fn try_answer(on: &Mesos, who: Subject, head: Parts, body: Body) -> Result<Response<Body>, Refused> {
    let is_call = head.headers.contains_key(STREAM_ID);
    // Before the body is looked at, as Mesos does.
    match on.leads() {
        Leads::Here(_) => {}
        Leads::There(remote) if !is_call && !on.carries_streams => {
            return Err(Box::new(moved(&remote.leader.address, &prefixed(&head.uri))));
        }
        Leads::Nobody if !is_call => return Err(Box::new(nobody_leads())),
        Leads::There(_) | Leads::Nobody => {}
    }
    let spoken = request::spoken(&head.headers)?;
    let body = request::body(&head.headers, body).await?;
    // Protobuf's bytes, so that what a framework described stays as it was sent.
    let bytes = match spoken {
        Codec::Protobuf => body.clone(),
        Codec::Json => {
            from_json(mesos::scheduler::Call::shape(), &body).map_err(|error| wrong(&error))?.into()
        }
    };
    let call: mesos::scheduler::Call = Codec::Protobuf.read(&bytes).map_err(|error| wrong(&error))?;
    let kind = validate(&call).map_err(|why| Box::new(not_a_call(&why)))?;
    within_rate(on, &who, &head.headers, &call)?;
    if kind == mesos::scheduler::call::Type::Subscribe {
        let codec = request::wanted(&head.headers)?;
        if is_call {
            let why = "Subscribe calls should not include the 'Mesos-Stream-Id' header";
            return Err(Box::new(bad(why)));
        }
        let Asked::Subscribe(mut subscribe) = asked(&call, &bytes, Shown::default()) else {
            return Err(Box::new(bad("Expecting 'subscribe' to be present")));
        };
        let mut info = call.subscribe.map(|subscribe| subscribe.framework_info).unwrap_or_default();
        identify(&who, &mut info, &mut subscribe.framework_info).map_err(|why| Box::new(not_a_call(&why)))?;
        let registered = registers(&on.auth, &info);
        return Ok(session::open(on, subscribe, &info, codec, registered));
    }
    let id = call.framework_id.as_ref().map(|id| id.value.as_str()).unwrap_or_default();
    let asking = Asking { on, who, id: FrameworkId::new(id), kind, call: &call, bytes: &bytes };
    asking.until_known(head, body).await
}

/// Whether the call's principal may make it now. What another master handed on was counted there.
fn within_rate(
    on: &Mesos,
    who: &Subject,
    headers: &HeaderMap,
    call: &mesos::scheduler::Call,
) -> Result<(), Refused> {
    if !on.rates.are_there() || forward::is_forwarded(headers) {
        return Ok(());
    }
    let named = call.subscribe.as_ref().and_then(|subscribe| subscribe.framework_info.principal.clone());
    let known = || {
        let id = FrameworkId::new(&*call.framework_id.as_ref()?.value);
        let principal = |registry: &Registry| registry.framework(&id)?.info.principal.clone();
        on.raft.with_registry(principal).map(|principal| principal.to_string())
    };
    // Who has shown who it is cannot be another one by what it says.
    let principal = who.principal().map(Into::into).or(named).or_else(known);
    on.rates.count(principal.as_deref()).map_err(|wait| Box::new(too_many(principal.as_deref(), wait)))
}

fn not_a_call(why: &str) -> Response<Body> {
    bad(format!("Failed to validate scheduler::Call: {why}"))
}

fn wrong(why: &impl ToString) -> Refused {
    Box::new(bad(why.to_string()))
}

/// A call on its way.
struct Asking<'a> {
    on: &'a Mesos,
    who: Subject,
    id: FrameworkId,
    kind: mesos::scheduler::call::Type,
    call: &'a mesos::scheduler::Call,
    bytes: &'a Bytes,
}

/// What one try came to.
enum Tried {
    Answered(Response<Body>),
    /// There is no leader, or there was one no more before the outcome was known.
    Lost(&'static str),
    /// The leader took nothing.
    Busy,
}

const NOBODY: &str = "No leader elected";
const REFUSED: &str = "the framework is over, or has subscribed again";
const UNKNOWN: &str =
    "leadership ended before the outcome was known: the call may or may not have been carried out";

impl Asking<'_> {
    /// Tries until there is an outcome, or nobody would wait for it any longer.
    async fn until_known(&self, head: Parts, body: Bytes) -> Result<Response<Body>, Refused> {
        let until = Instant::now() + TRIED;
        let mut routes = self.on.routes.route.clone();
        let mut is_unknown = false;
        loop {
            // One that took so long that its sender may have given it up: it sends what is still wanted again.
            if !forward::is_timely(&head.headers, &self.on.links) {
                return Ok(forward::misdirected());
            }
            routes.mark_unchanged();
            let tried = self.try_once(&head, &body, &mut routes).await;
            let is_refused = match &tried {
                Err(_) => true,
                Ok(Tried::Answered(response)) => response.status().is_client_error(),
                Ok(Tried::Lost(_) | Tried::Busy) => false,
            };
            if is_refused && is_unknown && self.kind == mesos::scheduler::call::Type::Teardown {
                // Whoever was asked before may have carried it out.
                return match self.on.raft.with_registry(|registry| registry.is_removed(&self.id)) {
                    true => Ok(accepted()),
                    false => Err(Box::new(unavailable(UNKNOWN))),
                };
            }
            let tried = tried?;
            is_unknown |= matches!(tried, Tried::Lost(UNKNOWN));
            let why = match tried {
                Tried::Answered(response) => return Ok(response),
                Tried::Busy => "the leader is busy: try again",
                // At most once.
                Tried::Lost(UNKNOWN) if self.kind == mesos::scheduler::call::Type::Message => {
                    return Err(Box::new(unavailable(UNKNOWN)));
                }
                Tried::Lost(why) => {
                    let _ = tokio::time::timeout_at(until.min(Instant::now() + 4 * PAUSE), routes.changed())
                        .await;
                    why
                }
            };
            let is_over = self.on.routes.are_lost() || self.on.stop.is_cancelled();
            if is_over || Instant::now() + PAUSE >= until {
                return Err(Box::new(unavailable(why)));
            }
            if why != UNKNOWN {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// By whoever can hand it on now.
    async fn try_once(
        &self,
        head: &Parts,
        body: &Bytes,
        routes: &mut watch::Receiver<Route>,
    ) -> Result<Tried, Refused> {
        if let Some(session) = self.on.held(&self.id, &head.headers) {
            return self.by_session(&session).await;
        }
        let remote = match self.on.leads() {
            Leads::Here(local) => return self.by_leader(&local, &head.headers).await,
            _ if forward::is_forwarded(&head.headers) => return Ok(Tried::Answered(forward::misdirected())),
            Leads::There(remote) => remote,
            Leads::Nobody => return Ok(Tried::Lost(NOBODY)),
        };
        let answered = self.on.forwarder.call(&remote, head, body.clone());
        let answered = tokio::select! {
            answered = answered => answered,
            _ = routes.changed() => Err(forward::Failed::Unanswered),
        };
        Ok(match answered {
            Ok(response) => Tried::Answered(response),
            Err(forward::Failed::Unsent) => Tried::Lost(NOBODY),
            Err(forward::Failed::Unanswered) => Tried::Lost(UNKNOWN),
        })
    }

    /// By the session that holds the stream.
    async fn by_session(&self, session: &session::Handle) -> Result<Tried, Refused> {
        let judged = match self.is_judged() {
            true => match Judged::subscribed(&self.on.raft, &self.id).await {
                Some(judged) => Some(judged),
                None => return Ok(Tried::Busy),
            },
            false => None,
        };
        self.check_principal(judged.as_ref())?;
        match self.asked(session.shown)? {
            Some(mut call) => {
                let refused = self.admitted(judged.as_ref(), &mut call);
                self.told(session.call(call, refused).await)
            }
            None => Ok(Tried::Answered(accepted())),
        }
    }

    /// Whether it matters which framework it is.
    fn is_judged(&self) -> bool {
        let is_accept = self.kind == mesos::scheduler::call::Type::Accept;
        self.who.principal().is_some() || (is_accept && !self.on.auth.acls().are_open())
    }

    /// A framework is its principal's.
    fn check_principal(&self, judged: Option<&Judged>) -> Result<(), Refused> {
        let (Some(shown), Some(judged)) = (self.who.principal(), judged) else { return Ok(()) };
        let named = judged.principal.as_deref().unwrap_or_default();
        if shown == named { Ok(()) } else { Err(Box::new(bad(mismatch(shown, named)))) }
    }

    /// Takes out of an ACCEPT what is not authorised.
    fn admitted(&self, judged: Option<&Judged>, call: &mut scheduler_api::Call) -> Option<v1::Refused> {
        match (&mut call.frame, judged) {
            (Some(Up::Accept(asked)), Some(judged)) => accept(&self.on.auth, judged, asked),
            _ => None,
        }
    }

    /// By the leader, which is this master: the stream is elsewhere, or ended with the leader before.
    async fn by_leader(&self, local: &LocalRoute, headers: &HeaderMap) -> Result<Tried, Refused> {
        // Without a quorum another one may lead by now, with which the framework has a newer stream.
        if !matches!(*self.on.raft.leadership().borrow(), Leadership::Leading { quorum: true, .. }) {
            return Ok(Tried::Lost(NOBODY));
        }
        let judged = Judged::of(&self.on.raft, &self.id).filter(|_| self.is_judged());
        self.check_principal(judged.as_ref())?;
        let stream = self.on.check_stream(&self.id, headers)?;
        if self.is_judged() && judged.is_none() {
            return Err(Box::new(not_subscribed())); // it came or went meanwhile
        }
        let Some(mut call) = self.asked(Shown::default())? else {
            return Ok(Tried::Answered(accepted()));
        };
        let refused = self.admitted(judged.as_ref(), &mut call);
        // What is told besides has no stream to go down.
        let Some(frame) = call.frame else { return Ok(Tried::Answered(accepted())) };
        let read = |id, frame| {
            let (id, call) = scheduler_call(v1::SchedulerFrame { id, call: Some(frame), fence: None })?;
            Ok(Call::Scheduler { id, call })
        };
        let refused = refused.map(|refused| read(0, Up::Refused(refused))).transpose();
        let (call, refused) = match (read(CALL, frame), refused) {
            (Ok(call), Ok(refused)) => (call, refused),
            (Err(why), _) | (_, Err(why)) => return self.told(Ok(Err(why))),
        };
        let resume = Call::Resume { id: RESUME, framework_id: self.id.clone(), stream };
        // A leader that is without a quorum for long answers nobody, and is no way any more.
        match once(local, resume, call, refused, self.on.routes.gone(local)).await {
            Some(Once::NotSubscribed) => Err(Box::new(not_subscribed())),
            Some(Once::Outcome(outcome)) => self.told(Ok(Ok(outcome))),
            None => Ok(Tried::Lost(UNKNOWN)),
        }
    }

    /// How it is answered. What a framework asked wrongly is told by events, or not at all, as in Mesos: a client that is
    /// answered with an error may end by it.
    fn told(&self, answer: Result<Answer, NotTaken>) -> Result<Tried, Refused> {
        use mesos::scheduler::call::Type;
        Ok(match answer {
            Err(NotTaken::Busy) | Ok(Ok(CallOutcome::Busy)) => Tried::Busy,
            Err(NotTaken::Over) | Ok(Ok(CallOutcome::Unknown)) => Tried::Lost(UNKNOWN),
            Ok(Err(why)) if matches!(self.kind, Type::Accept | Type::Message) => {
                Tried::Answered(bad(why.to_string()))
            }
            Ok(Err(why)) if self.kind == Type::UpdateFramework => {
                Tried::Answered(not_valid(&why.to_string()))
            }
            Ok(Ok(CallOutcome::Refused(why))) if self.kind == Type::UpdateFramework => {
                Tried::Answered(not_valid(&why))
            }
            Ok(Ok(CallOutcome::Done)) if self.kind == Type::UpdateFramework => {
                Tried::Answered(plain(StatusCode::OK, ""))
            }
            // Only a framework that is over, or whose stream another one has replaced, is refused these: the next try
            // finds out which.
            Ok(Ok(CallOutcome::Refused(_)))
                if matches!(
                    self.kind,
                    Type::Accept | Type::Kill | Type::Teardown | Type::Reconcile | Type::ReconcileOperations
                ) =>
            {
                Tried::Lost(REFUSED)
            }
            Ok(Ok(CallOutcome::Done | CallOutcome::Accepted(_) | CallOutcome::Refused(_)) | Err(_)) => {
                Tried::Answered(accepted())
            }
        })
    }

    /// The call as ours; none for one that is carried out by now.
    fn asked(&self, shown: Shown) -> Result<Option<scheduler_api::Call>, Refused> {
        let not_implemented = |why: String| Err(Box::new(plain(StatusCode::NOT_IMPLEMENTED, why)));
        match asked(self.call, self.bytes, shown) {
            Asked::Call(mut call) => {
                if let Some(Up::Update(update)) = &mut call.frame {
                    self.describe(update)?;
                }
                Ok(Some(call))
            }
            Asked::Told(told) if told.is_empty() => Ok(None),
            Asked::Told(told) => Ok(Some(scheduler_api::Call { frame: None, told })),
            Asked::Unsupported(what) => not_implemented(format!("{what} is not supported yet")),
            Asked::Unknown | Asked::Subscribe(_) => not_implemented("Received 'UNKNOWN' call".into()),
        }
    }
}

impl Asking<'_> {
    /// Checks a framework's new description.
    fn describe(&self, update: &mut v1::UpdateFramework) -> Result<(), Refused> {
        // What cannot be read is refused as such.
        let Ok(mut info) = mesos::FrameworkInfo::decode(update.framework_info.clone()) else { return Ok(()) };
        identify(&self.who, &mut info, &mut update.framework_info)
            .map_err(|why| Box::new(not_a_call(&why)))?;
        registers(&self.on.auth, &info).map_err(|why| Box::new(plain(StatusCode::FORBIDDEN, why)))
    }
}

/// The numbers of a caller's two calls.
const RESUME: u64 = 1;
const CALL: u64 = 2;

/// What came of a call that was made on no stream of its own.
enum Once {
    NotSubscribed,
    Outcome(CallOutcome),
}

/// Calls the leader once, for a session whose stream is not here; none if the leader is gone first.
async fn once<T>(
    local: &LocalRoute,
    resume: Call,
    call: Call,
    refused: Option<Call>,
    gone: impl Future<Output = T>,
) -> Option<Once> {
    // Two outcomes, and the end.
    let (down, mut queue) = mpsc::channel(4);
    let conn = next_client();
    local.inputs.send(ToLeader::Opened(conn, Sink::local(down, CancellationToken::new()))).await.ok()?;
    local.inputs.send(ToLeader::Call(conn, resume)).await.ok()?;
    local.inputs.send(ToLeader::Call(conn, call)).await.ok()?;
    if let Some(refused) = refused {
        local.inputs.send(ToLeader::Call(conn, refused)).await.ok()?;
    }
    let outcome = async {
        while let Some(Down::Event(_, event, _)) = queue.recv().await {
            match *event {
                Event::Scheduler(SchedulerEvent::Outcome {
                    id: RESUME,
                    outcome: CallOutcome::Refused(_),
                }) => {
                    return Some(Once::NotSubscribed);
                }
                Event::Scheduler(SchedulerEvent::Outcome { id: CALL, outcome }) => {
                    return Some(Once::Outcome(outcome));
                }
                _ => {}
            }
        }
        None
    };
    let came = tokio::select! {
        came = outcome => came,
        _ = gone => None,
    };
    let _ = local.inputs.send(ToLeader::Closed(conn)).await; // a loop that ended has forgotten it
    came
}

fn not_valid(why: &str) -> Response<Body> {
    bad(format!("FrameworkInfo update is not valid: {why}"))
}

fn not_subscribed() -> Response<Body> {
    plain(StatusCode::FORBIDDEN, "Framework is not subscribed")
}

impl Mesos {
    /// The session that holds the call's stream here, if one does.
    fn held(&self, id: &FrameworkId, headers: &HeaderMap) -> Option<session::Handle> {
        let stream = headers.get(STREAM_ID).and_then(|text| stream_of(text.as_bytes()))?;
        self.sessions.of(id, stream)
    }

    /// Whether the call names the newest stream of its framework.
    fn check_stream(&self, id: &FrameworkId, headers: &HeaderMap) -> Result<Token, Refused> {
        let named = headers.get(STREAM_ID);
        let stream = named.and_then(|text| stream_of(text.as_bytes()));
        let (is_connected, is_newest) = self
            .raft
            .with_registry(|registry| {
                let is_connected = registry.framework(id)?.is_connected();
                let newest = stream.filter(|stream| registry.stream_session(id, *stream).is_some());
                Some((is_connected, newest))
            })
            .ok_or_else(|| Box::new(bad("Framework cannot be found")))?;
        match (is_newest, named) {
            (Some(stream), _) => Ok(stream),
            (None, _) if !is_connected => Err(Box::new(not_subscribed())),
            (None, None) => {
                let why = "All non-subscribe calls should include the 'Mesos-Stream-Id' header";
                Err(Box::new(bad(why)))
            }
            (None, Some(named)) => Err(Box::new(bad(format!(
                "The stream ID '{}' included in this request didn't match the stream ID currently associated with \
                 framework ID {id}",
                String::from_utf8_lossy(named.as_bytes())
            )))),
        }
    }
}
