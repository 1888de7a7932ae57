//! The requests: the checks in Mesos' order, then a stream or an answer.

use super::{Api, HEARTBEAT, NotItsOwn, RECORDS_WAITING_MAX, Stream, Waiting};
use axum::body::Body;
use bytes::Bytes;
use futures::Stream as FutureStream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use muster_http::{
    answer::{only, plain},
    auth::{Claims, forbidden},
    request,
};
use muster_model::ExecutorCall;
use muster_node::{ExecutorAnswer, Input};
use muster_proto::{
    executor_api::{self, Said},
    json::{Codec, Mesos, from_json},
    mesos::executor::{Call, call::Type},
};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};
use tokio_stream::wrappers::ReceiverStream;

impl Api {
    /// Answers a request; a refusal is an answer like any other.
    pub(crate) async fn answer(&self, claims: Option<Claims>, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::POST {
            return only(&[Method::POST], request.method());
        }
        call(self, claims, request).await.unwrap_or_else(|refusal| *refusal)
    }
}

async fn call(
    shared: &Api,
    claims: Option<Claims>,
    request: Request<Body>,
) -> Result<Response<Body>, Box<Response<Body>>> {
    let (head, body) = request.into_parts();
    let spoken = request::spoken(&head.headers)?;
    let body = request::body(&head.headers, body).await?;
    // Protobuf's bytes, so that what an executor says stays as it was sent.
    let bytes = match spoken {
        Codec::Protobuf => body,
        Codec::Json => from_json(Call::shape(), &body).map_err(|error| bad(error.to_string()))?.into(),
    };
    let call: Call = Codec::Protobuf.read(&bytes).map_err(|error| bad(error.to_string()))?;
    let kind = executor_api::validate(&call)
        .map_err(|why| bad(format!("Failed to validate Executor::Call: {why}")))?;
    let wanted = match kind {
        Type::Subscribe => Some(request::wanted(&head.headers)?),
        _ => None,
    };
    // An id that cannot be one is no executor's.
    let from = executor_api::name(&call).map_err(|_| refused(ExecutorAnswer::NoExecutor))?;
    let said = match executor_api::said(&call, &bytes) {
        Ok(Said::Heartbeat) => return Ok(plain(StatusCode::ACCEPTED, "")),
        Ok(Said::Unknown) => {
            return Err(Box::new(plain(StatusCode::NOT_IMPLEMENTED, "Received 'UNKNOWN' call")));
        }
        Ok(Said::Call(said)) => said,
        Err(error) => return Err(bad(error.to_string())),
    };
    match (&said, wanted) {
        (ExecutorCall::Subscribe { .. }, Some(codec)) => subscribe(shared, claims, from, said, codec).await,
        _ => match ask(shared, shared.next_call(), claims, from, said, None).await? {
            ExecutorAnswer::Accepted => Ok(plain(StatusCode::ACCEPTED, "")),
            answer => Err(refused(answer)),
        },
    }
}

async fn subscribe(
    shared: &Api,
    claims: Option<Claims>,
    from: muster_model::ExecutorName,
    said: ExecutorCall,
    codec: Codec,
) -> Result<Response<Body>, Box<Response<Body>>> {
    let call = shared.next_call();
    let (records, waiting) = mpsc::channel(RECORDS_WAITING_MAX);
    let (held, dropped) = oneshot::channel();
    let heartbeats = Stream { codec, records: records.clone() };
    match ask(shared, call, claims, from, said, Some(Stream { codec, records })).await? {
        ExecutorAnswer::Subscribed => {}
        answer => return Err(refused(answer)),
    }
    tokio::spawn(watch(shared.clone(), call, heartbeats, dropped));
    let body = Records { records: ReceiverStream::new(waiting), _held: held };
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(codec.media_type()));
    Ok(response)
}

/// Hands a call to the loop and waits for its answer.
///
/// # Errors
/// The agent ends, or the call is another executor's.
async fn ask(
    shared: &Api,
    call: u64,
    claims: Option<Claims>,
    from: muster_model::ExecutorName,
    said: ExecutorCall,
    stream: Option<Stream>,
) -> Result<ExecutorAnswer, Box<Response<Body>>> {
    let (answer, answered) = oneshot::channel();
    let is_stream = stream.is_some();
    // A client that goes away while there is no room leaves nothing behind; one that does later, a stream that nobody
    // reads: the first event finds that out.
    let Ok(room) = shared.inputs.reserve().await else { return Err(ending()) };
    shared.waiting().insert(call, Waiting { answer, claims, stream });
    room.send(Input::Executor { call, from, said });
    let answer = answered.await.map_err(|_| ending())?;
    debug_assert!(is_stream || !matches!(answer, Ok(ExecutorAnswer::Subscribed)));
    answer.map_err(|NotItsOwn| Box::new(forbidden()))
}

/// Says rarely that the agent lives, and once that nobody reads the stream any more.
async fn watch(shared: Api, stream: u64, open: Stream, mut dropped: oneshot::Receiver<()>) {
    let mut beats = interval(HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats.tick().await; // the first is due at once
    // Only a weak hold: a stream that is hung up ends though it is watched.
    let (codec, records) = (open.codec, open.records.downgrade());
    drop(open);
    loop {
        tokio::select! {
            _ = &mut dropped => break,
            _ = beats.tick() => match records.upgrade() {
                Some(records) => drop(Stream { codec, records }.send(executor_api::heartbeat())),
                None => break,
            },
        }
    }
    // The loop is gone when this fails. One that was hung up is not known there any more.
    let _ = shared.inputs.send(Input::ExecutorGone { stream }).await;
}

/// The records of a stream, and what is dropped with them when nobody reads them any more.
struct Records {
    records: ReceiverStream<Bytes>,
    _held: oneshot::Sender<()>,
}

impl FutureStream for Records {
    type Item = Result<Bytes, Infallible>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.records).poll_next(context).map(|next| next.map(Ok))
    }
}

fn bad(why: impl Into<String>) -> Box<Response<Body>> {
    Box::new(muster_http::answer::bad(why))
}

fn refused(answer: ExecutorAnswer) -> Box<Response<Body>> {
    let (status, text) = match answer {
        ExecutorAnswer::NoFramework => (StatusCode::BAD_REQUEST, "Framework cannot be found"),
        ExecutorAnswer::NoExecutor => (StatusCode::BAD_REQUEST, "Executor cannot be found"),
        ExecutorAnswer::NotSubscribed => (StatusCode::FORBIDDEN, "Executor is not subscribed"),
        ExecutorAnswer::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many updates of the task wait for its framework: try again",
        ),
        ExecutorAnswer::Accepted | ExecutorAnswer::Subscribed => (StatusCode::ACCEPTED, ""),
    };
    Box::new(plain(status, text))
}

fn ending() -> Box<Response<Body>> {
    Box::new(plain(StatusCode::SERVICE_UNAVAILABLE, "The agent ends"))
}
