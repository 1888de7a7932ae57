//! The Mesos v1 HTTP API of a master, on the same port as gRPC.
//!
//! A scheduler that subscribes holds a [`session`]: a client of the leader like one that came by gRPC. Its calls come as
//! requests of their own and name the stream; see [`scheduler`] for how they find their way.
//!
//! # Laws
//! - Nothing durable is answered before it is committed and applied.
//! - A master that does not lead sends clients to the one that does, and to nobody else.
//! - Each event is one record and one chunk; a client that does not read is cut off, and nobody waits for it.

mod answer;
mod forward;
mod request;
mod scheduler;
mod session;

use crate::route::{LocalRoute, Route, Routes};
use answer::{moved, nobody_leads, not_found, plain};
use axum::body::Body;
pub(crate) use forward::Forwarder;
use http::{Method, Request, Response, StatusCode, Uri};
use muster_raft::Raft;
pub(crate) use session::Sessions;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The version of the Mesos API that is spoken here, which clients ask for.
pub(crate) const MESOS_VERSION: &str = "1.11.0";

/// Answers requests of the Mesos API.
#[derive(Clone)]
pub(crate) struct Mesos {
    pub(crate) raft: Raft,
    pub(crate) routes: Routes,
    pub(crate) sessions: Sessions,
    pub(crate) forwarder: Forwarder,
    /// Whether this master carries the streams of schedulers when it does not lead.
    pub(crate) carries_streams: bool,
    /// Ends all streams when the master stops.
    pub(crate) stop: CancellationToken,
}

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Scheduler,
    Health,
    Version,
    Redirect,
    None,
}

/// With or without the name of the process that serves it.
fn endpoint(path: &str) -> Endpoint {
    let path = path.strip_prefix("/master").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    match path {
        "/api/v1/scheduler" => Endpoint::Scheduler,
        "/health" => Endpoint::Health,
        "/version" => Endpoint::Version,
        "/redirect" => Endpoint::Redirect,
        _ => Endpoint::None,
    }
}

/// Who leads, as far as this master knows.
enum Leads {
    /// It does.
    Here(Arc<LocalRoute>),
    /// Another one, at this address.
    There(String),
    /// Nobody whom it could reach.
    Nobody,
}

impl Mesos {
    pub(crate) async fn answer(self, request: Request<Body>) -> Response<Body> {
        let path =
            percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
        match endpoint(&path) {
            Endpoint::Health => plain(StatusCode::OK, ""),
            Endpoint::Version => self.version(),
            Endpoint::Redirect => match self.leads() {
                Leads::Here(local) => moved(&local.leader.address, ""),
                Leads::There(address) => moved(&address, ""),
                Leads::Nobody => nobody_leads(),
            },
            Endpoint::Scheduler if request.method() == Method::POST => {
                let (head, body) = request.into_parts();
                scheduler::answer(&self, head, body).await
            }
            // Who leads comes before the method: clients probe with a GET.
            Endpoint::Scheduler => match self.leads() {
                Leads::Here(_) => answer::only(&Method::POST),
                Leads::There(address) => moved(&address, &prefixed(request.uri())),
                Leads::Nobody => nobody_leads(),
            },
            Endpoint::None if is_grpc(&request) => {
                tonic::Status::unimplemented("no such service here").into_http()
            }
            Endpoint::None => not_found(),
        }
    }

    fn leads(&self) -> Leads {
        match &*self.routes.route.borrow() {
            Route::Local(local) => Leads::Here(local.clone()),
            Route::Remote(remote) => Leads::There(remote.leader.address.clone()),
            Route::None => Leads::Nobody,
        }
    }

    /// Names the cluster: what Mesos' clients know as the id of a master.
    fn cluster_id(&self) -> String {
        self.raft.with_registry(|registry| registry.cluster_id().to_string())
    }

    fn version(&self) -> Response<Body> {
        let version = serde_json::json!({ "version": MESOS_VERSION, "muster": env!("CARGO_PKG_VERSION") });
        answer::json(&version)
    }
}

fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The path and query to ask another master for: always with the process' name, as Mesos sends it.
fn prefixed(uri: &Uri) -> String {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    if path.starts_with("/master/") { path.to_owned() } else { format!("/master{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_the_name_of_the_process_or_not() {
        assert_eq!(endpoint("/api/v1/scheduler"), Endpoint::Scheduler);
        assert_eq!(endpoint("/master/api/v1/scheduler"), Endpoint::Scheduler);
        assert_eq!(endpoint("/master/redirect"), Endpoint::Redirect);
        for none in ["/", "/master", "/masterredirect", "/redirect/x", "/api/v2/scheduler"] {
            assert_eq!(endpoint(none), Endpoint::None, "{none}");
        }
    }
}
