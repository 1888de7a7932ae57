//! The Mesos v1 HTTP API of a master, on the same port as gRPC.
//!
//! A scheduler that subscribes holds a [`session`]: a client of the leader like one that came by gRPC. Its calls come as
//! requests of their own and name the stream; see [`scheduler`] for how they find their way.
//!
//! # Laws
//! - Nothing durable is answered before it is committed and applied.
//! - A master that does not lead sends clients to the one that does, and to nobody else.
//! - Each event is one record and one chunk; a client that does not read is cut off, and nobody waits for it.

mod about;
mod events;
mod forward;
mod operate;
mod operator_api;
mod parts;
mod rate;
mod read;
mod records;
mod scheduler;
mod session;
#[cfg(test)]
mod world;

use crate::{
    link::Links,
    route::{LocalRoute, RemoteRoute, Route, Routes},
};
pub(crate) use about::About;
use answer::{moved, nobody_leads, not_found, plain};
use axum::body::Body;
pub(crate) use events::{Applied, Feed, Tap};
pub(crate) use forward::Forwarder;
use http::{Method, Request, Response, StatusCode, Uri};
pub(crate) use muster_http::MESOS_VERSION;
use muster_http::auth::{Action, Auth, Realm, Subject, forbidden};
use muster_http::{answer, endpoint, files, request};
use muster_proto::mesos::master::call::Type;
use muster_raft::Raft;
use operate::Set;
pub(crate) use rate::Rates;
pub(crate) use read::body::Writers;
#[doc(hidden)]
pub use read::write_state;
use read::{Here, OfLeader};
pub(crate) use session::Sessions;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Answers requests of the Mesos API.
#[derive(Clone)]
pub(crate) struct Mesos {
    pub(crate) raft: Raft,
    pub(crate) routes: Routes,
    /// Who asks, and what it may.
    pub(crate) auth: Arc<Auth>,
    pub(crate) sessions: Sessions,
    pub(crate) forwarder: Forwarder,
    /// Of the masters that hand calls on to this one.
    pub(crate) links: Links,
    /// Whether this master carries the streams of schedulers when it does not lead.
    pub(crate) carries_streams: bool,
    /// How many calls of schedulers are taken.
    pub(crate) rates: Arc<Rates>,
    pub(crate) about: Arc<About>,
    /// Operators' event streams.
    pub(crate) feed: Feed,
    /// Bounds how many long answers are written at a time.
    pub(crate) writers: Writers,
    /// What this master shows of its disk: its log, if that is a file.
    pub(crate) files: files::Files,
    /// Ends all streams when the master stops.
    pub(crate) stop: CancellationToken,
}

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Scheduler,
    Operator,
    Health,
    Redirect,
    /// What every master answers.
    Here(Here),
    /// Files, which every master has of its own.
    Files(files::What),
    /// What the leader answers.
    OfLeader(OfLeader),
    Teardown,
    /// What the leader takes and does not show.
    Set(Set),
    None,
}

/// All paths, without the name of the process that serves them.
const ENDPOINTS: [(&str, Endpoint); 25] = [
    ("/api/v1", Endpoint::Operator),
    ("/api/v1/scheduler", Endpoint::Scheduler),
    ("/create-volumes", Endpoint::Set(Set::Convert(Type::CreateVolumes))),
    ("/destroy-volumes", Endpoint::Set(Set::Convert(Type::DestroyVolumes))),
    ("/flags", Endpoint::Here(Here::Flags)),
    ("/frameworks", Endpoint::OfLeader(OfLeader::Frameworks)),
    ("/health", Endpoint::Health),
    ("/machine/down", Endpoint::Set(Set::MachinesDown)),
    ("/machine/up", Endpoint::Set(Set::MachinesUp)),
    ("/maintenance/schedule", Endpoint::OfLeader(OfLeader::MaintenanceSchedule)),
    ("/maintenance/status", Endpoint::OfLeader(OfLeader::MaintenanceStatus)),
    ("/metrics/snapshot", Endpoint::Here(Here::Metrics)),
    ("/quota", Endpoint::OfLeader(OfLeader::Quota)),
    ("/redirect", Endpoint::Redirect),
    ("/reserve", Endpoint::Set(Set::Convert(Type::ReserveResources))),
    ("/roles", Endpoint::OfLeader(OfLeader::Roles)),
    ("/slaves", Endpoint::OfLeader(OfLeader::Agents)),
    ("/state", Endpoint::OfLeader(OfLeader::State)),
    ("/state-summary", Endpoint::OfLeader(OfLeader::StateSummary)),
    ("/system/stats.json", Endpoint::Here(Here::Stats)),
    ("/tasks", Endpoint::OfLeader(OfLeader::Tasks)),
    ("/teardown", Endpoint::Teardown),
    ("/unreserve", Endpoint::Set(Set::Convert(Type::UnreserveResources))),
    ("/version", Endpoint::Here(Here::Version)),
    ("/weights", Endpoint::OfLeader(OfLeader::Weights)),
];

impl Endpoint {
    /// Where who asks may have to show who it is; none for what everybody may see.
    fn realm(self) -> Option<Realm> {
        match self {
            Self::Health | Self::Redirect | Self::None | Self::Here(Here::Version) => None,
            Self::Scheduler => Some(Realm::Scheduler),
            Self::Operator
            | Self::Teardown
            | Self::Set(_)
            | Self::OfLeader(OfLeader::Quota | OfLeader::Weights | OfLeader::MaintenanceSchedule) => {
                Some(Realm::Readwrite)
            }
            Self::Here(_) | Self::Files(_) | Self::OfLeader(_) => Some(Realm::Readonly),
        }
    }
}

/// What a path stands for.
fn endpoint(path: &str) -> Endpoint {
    match endpoint::find(&ENDPOINTS, "/master", path) {
        // Another process serves it, by its own name alone.
        Some(found)
            if found.is_prefixed && matches!(found.endpoint, Endpoint::Here(Here::Metrics | Here::Stats)) =>
        {
            Endpoint::None
        }
        // It sends nobody to a place below.
        Some(found) if found.endpoint == Endpoint::Redirect && found.is_below => Endpoint::None,
        Some(found) => found.endpoint,
        None => match endpoint::find(&files::PATHS, "", path) {
            Some(found) => Endpoint::Files(found.endpoint),
            None => Endpoint::None,
        },
    }
}

/// Who leads, as far as this master knows.
enum Leads {
    /// It does.
    Here(Arc<LocalRoute>),
    /// Another one.
    There(Arc<RemoteRoute>),
    /// Nobody whom it could reach.
    Nobody,
}

impl Mesos {
    pub(crate) async fn answer(self, request: Request<Body>) -> Response<Body> {
        let endpoint = endpoint(&endpoint::path(request.uri()));
        // Before anything else: also a master that does not lead, or knows of no leader, says it.
        let who = match endpoint.realm().map(|realm| self.auth.who(realm, request.headers())) {
            None => Subject::default(),
            Some(Ok(who)) => who,
            Some(Err(refusal)) => return *refusal,
        };
        match endpoint {
            Endpoint::Health => plain(StatusCode::OK, ""),
            Endpoint::Redirect => match self.leads() {
                Leads::Here(local) => moved(&local.leader.address, ""),
                Leads::There(remote) => moved(&remote.leader.address, ""),
                Leads::Nobody => nobody_leads(),
            },
            Endpoint::Here(what) => read::here(&self, &who, what, request.into_parts().0).await,
            Endpoint::Files(what) => {
                let head = request.into_parts().0;
                match self.may_see_files(&who, what) {
                    true => files::answer(&self.files, &self.writers, what, &head).await,
                    false => forbidden(),
                }
            }
            Endpoint::Scheduler if request.method() == Method::POST => {
                let (head, body) = request.into_parts();
                scheduler::answer(&self, who, head, body).await
            }
            Endpoint::None if is_grpc(&request) => {
                tonic::Status::unimplemented("no such service here").into_http()
            }
            Endpoint::None => not_found(),
            // Who leads comes before the method: clients probe with a GET.
            endpoint => match self.leads() {
                Leads::Here(local) => self.answer_as_leader(local, &who, endpoint, request).await,
                Leads::There(remote) => moved(&remote.leader.address, &prefixed(request.uri())),
                Leads::Nobody => nobody_leads(),
            },
        }
    }

    async fn answer_as_leader(
        &self,
        local: Arc<LocalRoute>,
        who: &Subject,
        endpoint: Endpoint,
        request: Request<Body>,
    ) -> Response<Body> {
        match endpoint {
            Endpoint::OfLeader(what) if operate::is_set_by(what, request.method()) => {
                let path = decoded(request.uri());
                operate::legacy(self, &local, who, what, &path, request).await
            }
            Endpoint::OfLeader(what) => read::of_leader(self, local, who, what, request.into_parts().0).await,
            Endpoint::Set(what) => operate::set(self, &local, who, what, request).await,
            Endpoint::Teardown => read::teardown(self, local, who, request).await,
            Endpoint::Operator if request.method() == Method::POST => {
                operator_api::answer(self, local, who, request).await
            }
            _ => answer::only(&[Method::POST], request.method()),
        }
    }

    /// Whether somebody may see what this master shows of its disk, which is its log.
    fn may_see_files(&self, who: &Subject, what: files::What) -> bool {
        match what {
            files::What::Debug => self.auth.may(who, Action::GetEndpoint, Some("/files/debug")),
            files::What::Browse | files::What::Read | files::What::Download => {
                self.auth.may(who, Action::AccessMesosLog, None)
            }
        }
    }

    fn leads(&self) -> Leads {
        match &*self.routes.route.borrow() {
            Route::Local(local) => Leads::Here(local.clone()),
            Route::Remote(remote) => Leads::There(remote.clone()),
            Route::None => Leads::Nobody,
        }
    }

    /// Names the cluster: what Mesos' clients know as the id of a master.
    fn cluster_id(&self) -> String {
        self.raft.with_registry(|registry| registry.cluster_id().to_string())
    }
}

fn decoded(uri: &Uri) -> String {
    percent_encoding::percent_decode_str(uri.path()).decode_utf8_lossy().into_owned()
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
    fn every_path_belongs_to_a_realm() {
        for (paths, realm) in [
            (&["/api/v1/scheduler", "/master/api/v1/scheduler"] as &[_], Some(Realm::Scheduler)),
            (
                &[
                    "/api/v1",
                    "/master/api/v1",
                    "/reserve",
                    "/unreserve",
                    "/create-volumes",
                    "/destroy-volumes",
                    "/teardown",
                    "/quota",
                    "/quota/web",
                    "/weights",
                    "/maintenance/schedule",
                    "/machine/down",
                    "/machine/up",
                ],
                Some(Realm::Readwrite),
            ),
            (
                &[
                    "/maintenance/status",
                    "/state",
                    "/master/state",
                    "/state-summary",
                    "/tasks",
                    "/slaves",
                    "/frameworks",
                    "/roles",
                    "/flags",
                    "/files/browse",
                    "/files/read",
                    "/files/download",
                    "/files/debug",
                    "/metrics/snapshot",
                ],
                Some(Realm::Readonly),
            ),
            (&["/health", "/version", "/redirect", "/master/redirect", "/nothing"], None),
        ] {
            for path in paths {
                assert_eq!(endpoint(path).realm(), realm, "{path}");
            }
        }
    }

    #[test]
    fn paths_have_the_name_of_the_process_or_not() {
        assert_eq!(endpoint("/api/v1/scheduler"), Endpoint::Scheduler);
        assert_eq!(endpoint("/master/api/v1/scheduler"), Endpoint::Scheduler);
        assert_eq!(endpoint("/master/redirect"), Endpoint::Redirect);
        assert_eq!(endpoint("/metrics/snapshot"), Endpoint::Here(Here::Metrics));
        assert_eq!(endpoint("/master/state"), Endpoint::OfLeader(OfLeader::State));
        assert_eq!(endpoint("/files/browse"), Endpoint::Files(files::What::Browse));
        // The nearest one above.
        assert_eq!(endpoint("/api/v1/operator"), Endpoint::Operator);
        assert_eq!(endpoint("/master/api/v1/scheduler/x/y"), Endpoint::Scheduler);
        assert_eq!(endpoint("/master/frameworks/"), Endpoint::OfLeader(OfLeader::Frameworks));
        let nobodys =
            ["/", "/master", "/masterredirect", "/redirect/x", "/api/v2/scheduler", "/agents", "//"];
        for none in nobodys.into_iter().chain([
            "/master/metrics/snapshot",
            "/master/system/stats.json",
            "/master/files/browse",
            "/files",
            "/statex",
        ]) {
            assert_eq!(endpoint(none), Endpoint::None, "{none}");
        }
    }
}
