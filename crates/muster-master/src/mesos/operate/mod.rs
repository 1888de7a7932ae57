//! What operators set: weights and quotas of roles, agents out of use, maintenance, reservations and volumes. By calls of the operator API, and by
//! the legacy endpoints, which ask the same in forms of their own.
//!
//! What is wrong by itself is refused here, in Mesos' order and words; the rest is decided in the log.

mod agents;
mod conversions;
mod maintenance;
mod roles;

pub(super) use maintenance::{cluster_status, schedule};
pub(super) use roles::quota_status;

use super::answer::{bad, only, plain};
use super::read::{self, OfLeader};
use super::{Mesos, request};
use crate::route::LocalRoute;
use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use mesos::master::{Call, call::Type};
use muster_http::auth::Subject;
use muster_leader::OperatorCall;
use muster_proto::json::{Codec, Mesos as Message};
use muster_proto::mesos;
use serde_json::value::RawValue;

/// A legacy endpoint that only sets something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    MachinesDown,
    MachinesUp,
    /// The same as this call of the operator API.
    Convert(Type),
}

/// What is asked, and the answer if the log refuses it.
struct Asked {
    call: OperatorCall,
    refused: Box<dyn FnOnce(String) -> Response<Body> + Send>,
}

impl Asked {
    /// Refused with 400 and the registry's sentence.
    fn of(call: OperatorCall) -> Self {
        Self { call, refused: Box::new(bad) }
    }
}

/// A refusal here is the answer.
type Checked = Result<Asked, Box<Response<Body>>>;

fn wrong(why: impl Into<String>) -> Box<Response<Body>> {
    Box::new(bad(why))
}

/// Carries a call of the operator API out; none if it is none of these.
pub(super) async fn call(
    on: &Mesos,
    local: &LocalRoute,
    who: &Subject,
    kind: Type,
    call: &Call,
) -> Option<Response<Body>> {
    let checked = match kind {
        Type::UpdateWeights => roles::update_weights(call),
        Type::UpdateQuota => roles::update_quota(call),
        Type::SetQuota => roles::set_quota(call),
        Type::RemoveQuota => roles::remove_quota(call),
        Type::DrainAgent => agents::drain(call),
        Type::DeactivateAgent => agents::deactivate(call),
        Type::ReactivateAgent => agents::reactivate(call),
        Type::UpdateMaintenanceSchedule => maintenance::update(call),
        Type::StartMaintenance => maintenance::start(call),
        Type::StopMaintenance => maintenance::stop(call),
        Type::ReserveResources | Type::UnreserveResources | Type::CreateVolumes | Type::DestroyVolumes => {
            let checked = conversions::asked(on, who, kind, call);
            return Some(conversions::convert(on, local, who, checked).await);
        }
        _ => return None,
    };
    Some(carry_out(on, local, who, checked).await)
}

async fn carry_out(on: &Mesos, local: &LocalRoute, who: &Subject, checked: Checked) -> Response<Body> {
    match checked {
        Ok(Asked { call, refused }) => read::ask(on, local, who, call, refused).await,
        Err(refusal) => *refusal,
    }
}

/// Whether a legacy endpoint that is read is set by this method.
pub(super) fn is_set_by(what: OfLeader, method: &Method) -> bool {
    match what {
        OfLeader::Weights => method == Method::PUT,
        OfLeader::Quota => method == Method::POST || method == Method::DELETE,
        OfLeader::MaintenanceSchedule => method == Method::POST,
        _ => false,
    }
}

/// Carries out what is asked of a legacy endpoint that is read, too.
pub(super) async fn legacy(
    on: &Mesos,
    local: &LocalRoute,
    who: &Subject,
    what: OfLeader,
    path: &str,
    request: Request<Body>,
) -> Response<Body> {
    let method = request.method().clone();
    let body = match body(request).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let checked = match what {
        OfLeader::Weights => roles::put_weights(&body),
        OfLeader::Quota if method == Method::DELETE => roles::delete_quota(path),
        OfLeader::Quota => roles::post_quota(&body),
        _ => maintenance::post_schedule(&body),
    };
    carry_out(on, local, who, checked).await
}

/// Carries out what is asked of a legacy endpoint that cannot be read.
pub(super) async fn set(
    on: &Mesos,
    local: &LocalRoute,
    who: &Subject,
    what: Set,
    request: Request<Body>,
) -> Response<Body> {
    if request.method() != Method::POST {
        return only(&[Method::POST], request.method());
    }
    let body = match body(request).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    match what {
        Set::MachinesDown => carry_out(on, local, who, maintenance::post_machines(true, &body)).await,
        Set::MachinesUp => carry_out(on, local, who, maintenance::post_machines(false, &body)).await,
        Set::Convert(kind) => {
            let checked = conversions::posted(on, who, kind, &body);
            conversions::convert(on, local, who, checked).await
        }
    }
}

async fn body(request: Request<Body>) -> Result<Bytes, Box<Response<Body>>> {
    let (head, body) = request.into_parts();
    request::body(&head.headers, body).await
}

/// Reads a list that stands by itself, as the field of this name of a message.
fn list<M: Message>(name: &str, body: &[u8]) -> Result<M, Box<Response<Body>>> {
    if let Err(error) = serde_json::from_slice::<Vec<&RawValue>>(body) {
        return Err(wrong(format!("Failed to parse body into a JSON array: {error}")));
    }
    let whole = [format!("{{\"{name}\":").as_bytes(), body, b"}"].concat();
    read_json(&whole)
}

fn read_json<M: Message>(body: &[u8]) -> Result<M, Box<Response<Body>>> {
    Codec::Json.read(body).map_err(|error| wrong(error.to_string()))
}

/// The answer to what cannot be carried out as things are.
fn conflict(why: String) -> Response<Body> {
    plain(StatusCode::CONFLICT, why)
}
