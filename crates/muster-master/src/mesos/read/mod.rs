//! The legacy endpoints that tools read: plain GETs with JSON of their own shapes.
//!
//! Every answer is a function of one moment of the leader ([`seen`]), written piece by piece while the client reads
//! ([`body`]): none is whole in memory, and none is made under the registry's lock.
//!
//! # Laws
//! - What a leader answers holds all that was acknowledged before it was asked.
//! - Keys come in the order in which Mesos sends them; doubles have a fraction.

mod agent;
mod alike;
mod alone;
mod framework;
mod metrics;
mod role;
#[cfg(test)]
mod same;
pub(crate) mod seen;
mod state;
mod task;
#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use alone::write_state;
pub(super) use metrics::{Counters, gather};
pub(super) use muster_http::answer::not_yet;
pub(crate) use muster_http::body;
pub(super) use muster_http::query::Query;
use muster_http::query::asked;
pub(super) use muster_http::query::takes_gzip;
use muster_http::show::{self, List, Raw, resources};

use super::answer::{bad, nobody_leads, plain};
use super::{Mesos, operate};
use crate::admit::{View, operator};
use crate::route::{LocalRoute, Looked, ToLeader};
use axum::body::Body;
use body::Wrapped;
use http::{Method, Request, Response, StatusCode, request::Parts};
use muster_http::auth::{Action, Subject, forbidden};
use muster_model::CallOutcome;
use muster_proto::json::{Codec, Mesos as Message};
use seen::{Seen, Sorted};
use serde::Serialize;
use std::{io, sync::Arc};
use tokio::sync::oneshot;

/// An endpoint that is read. These are answered by every master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    Version,
    Flags,
    Metrics,
    /// Of the machine.
    Stats,
}

/// These by the one that leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfLeader {
    State,
    StateSummary,
    Agents,
    Frameworks,
    Tasks,
    Roles,
    Quota,
    Weights,
    MaintenanceSchedule,
    MaintenanceStatus,
}

/// Answers what every master knows.
pub(super) async fn here(on: &Mesos, who: &Subject, what: Here, head: Parts) -> Response<Body> {
    match asked(&head) {
        Err(refusal) => *refusal,
        Ok((_, wrapped)) => match what {
            Here::Version => written(on, wrapped, |out| json(out, &show::Version)).await,
            Here::Flags if !on.auth.may(who, Action::ViewFlags, None) => forbidden(),
            Here::Metrics if !on.auth.may(who, Action::GetEndpoint, Some("/metrics/snapshot")) => forbidden(),
            Here::Flags => {
                let about = on.about.clone();
                written(on, wrapped, move |out| json(out, &show::Flags(&about.flags))).await
            }
            Here::Stats => written(on, wrapped, |out| json(out, &muster_http::machine::Stats::now())).await,
            Here::Metrics => {
                let gathered = metrics::gather(on).await;
                written(on, wrapped, move |out| json(out, &gathered.all())).await
            }
        },
    }
}

/// Answers what the leader knows.
pub(super) async fn of_leader(
    on: &Mesos,
    local: Arc<LocalRoute>,
    who: &Subject,
    what: OfLeader,
    head: Parts,
) -> Response<Body> {
    let (query, wrapped) = match asked(&head) {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    let seen = match seen(on, local, who).await {
        Ok(seen) => seen,
        Err(refusal) => return *refusal,
    };
    written(on, wrapped, move |out| answer(out, what, &query, &seen)).await
}

/// Writes what is asked, from one moment.
fn answer(out: &mut dyn io::Write, what: OfLeader, query: &Query, seen: &Seen) -> io::Result<()> {
    let of = || Sorted::of(seen);
    match what {
        OfLeader::State => state::state(&of(), out),
        OfLeader::StateSummary => json(out, &state::Summary(&of())),
        OfLeader::Agents => json(out, &agent::Agents { of: &of(), only: query.get("slave_id") }),
        OfLeader::Frameworks => framework::frameworks(&of(), query.get("framework_id"), out),
        OfLeader::Tasks => task::tasks(&of(), &task::Asked::of(query), out),
        OfLeader::Roles => json(out, &role::Roles(&of())),
        OfLeader::Weights => json(out, &role::Weights(&seen.weights())),
        OfLeader::Quota => message(out, &operate::quota_status(seen)),
        OfLeader::MaintenanceSchedule => message(out, &operate::schedule(seen)),
        OfLeader::MaintenanceStatus => message(out, &operate::cluster_status(seen)),
    }
}

fn message(out: &mut dyn io::Write, message: &impl Message) -> io::Result<()> {
    out.write_all(&Codec::Json.write(message))
}

fn json(out: &mut dyn io::Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(out, value).map_err(io::Error::from)
}

async fn written<W>(on: &Mesos, wrapped: Wrapped, write: W) -> Response<Body>
where
    W: FnOnce(&mut dyn io::Write) -> io::Result<()> + Send + 'static,
{
    on.writers.answer("application/json", wrapped, write).await
}

/// One moment of the leader, which has all that was acknowledged before.
pub(super) async fn seen(
    on: &Mesos,
    local: Arc<LocalRoute>,
    who: &Subject,
) -> Result<Seen, Box<Response<Body>>> {
    // A quorum says that this one leads; what it looks at then is no older.
    let looked = async {
        on.raft.read().await.ok()?;
        look(&local).await
    };
    let looked = tokio::select! {
        looked = looked => looked,
        () = on.routes.gone(&local) => None,
    };
    let Looked { registry, offers, inverse_offers, answers, .. } =
        looked.ok_or_else(|| Box::new(nobody_leads()))?;
    let view = View::of(&on.auth, who);
    Ok(Seen { registry, offers, inverse_offers, answers, about: on.about.clone(), local, view })
}

/// One moment of the leader; none when the leadership ended.
async fn look(local: &LocalRoute) -> Option<Looked> {
    let (answer, looked) = oneshot::channel();
    local.inputs.send(ToLeader::Look(answer)).await.ok()?;
    looked.await.ok()
}

/// `POST /teardown`, with the framework's id in a form.
pub(super) async fn teardown(
    on: &Mesos,
    local: Arc<LocalRoute>,
    who: &Subject,
    request: Request<Body>,
) -> Response<Body> {
    if request.method() != Method::POST {
        return super::answer::only(&[Method::POST], request.method());
    }
    let (head, body) = request.into_parts();
    let body = match super::request::body(&head.headers, body).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let form = Query::parse(&String::from_utf8_lossy(&body));
    match form.get("frameworkId") {
        None => bad("Missing 'frameworkId' query parameter in the request body"),
        Some(id) => super::operator_api::teardown(on, &local, who, id).await,
    }
}

/// Puts an operator's wish in the log, if it may have it, and waits for what became of it.
pub(super) async fn ask(
    on: &Mesos,
    local: &LocalRoute,
    who: &Subject,
    call: muster_leader::OperatorCall,
    refused: impl FnOnce(String) -> Response<Body>,
) -> Response<Body> {
    let lost = || {
        let text = "Leadership ended before the outcome was known: look whether it is done";
        plain(StatusCode::SERVICE_UNAVAILABLE, text)
    };
    if !on.raft.with_registry(|registry| operator(&on.auth, who, &call, registry)) {
        return forbidden();
    }
    let (answer, outcome) = oneshot::channel();
    if local.inputs.send(ToLeader::Operator(call, answer)).await.is_err() {
        return lost();
    }
    let outcome = tokio::select! {
        biased;
        outcome = outcome => outcome,
        () = on.routes.gone(local) => return lost(),
    };
    match outcome {
        Ok(CallOutcome::Done | CallOutcome::Accepted(_)) => plain(StatusCode::OK, ""),
        Ok(CallOutcome::Refused(why)) => refused(why),
        Ok(CallOutcome::Busy) => plain(StatusCode::SERVICE_UNAVAILABLE, "The leader is busy: try again"),
        Ok(CallOutcome::Unknown) | Err(_) => lost(),
    }
}
