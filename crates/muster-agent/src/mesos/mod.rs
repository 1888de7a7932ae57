//! What operators and tools read of an agent over HTTP: the Mesos v1 operator API, the legacy answers, and files. On the
//! port of the executor API.
//!
//! # Laws
//! - Every answer is a function of one moment of what the loop showed ([`crate::history`]); the loop waits for nobody who
//!   reads.
//! - What is not known is left out, and what this agent does not do is said so.

mod about;
mod api;
mod containers;
mod messages;
mod metrics;
mod sandboxes;
mod seen;
mod sessions;
mod state;
mod statistics;
mod view;

pub(crate) use about::{About, Fetched, Gone, flags};

use crate::{executors::Api, history::Shown, sessions::Sessions};
use axum::{Router, body::Body, extract::State};
use http::{Method, Request, Response, StatusCode, request::Parts};
use muster_http::{
    answer::{not_found, not_yet, only, plain},
    auth::{Action, Auth, Realm, Subject, forbidden},
    body::{Wrapped, Writers},
    endpoint,
    files::{self, Files},
    query::{Query, asked},
    show,
};
use seen::{Executor, Seen};
use serde::Serialize;
use std::{io::Write, sync::Arc};
use view::{View, user_among};

/// The name of the process that serves it in Mesos: a path may begin with it.
const PROCESS: &str = "/slave(1)";

/// What requests are answered from.
#[derive(Clone)]
pub(crate) struct Reads {
    about: Arc<About>,
    shown: Shown,
    files: Files,
    writers: Writers,
    api: Api,
    /// Who asks, and what it may.
    auth: Arc<Auth>,
    sessions: Sessions,
}

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Executor,
    Operator,
    Health,
    Read(What),
    NotYet(&'static str),
}

impl Endpoint {
    /// Where who asks may have to show who it is; none for what everybody may see.
    fn realm(self) -> Option<Realm> {
        match self {
            Self::Health | Self::Read(What::Version) => None,
            Self::Executor => Some(Realm::Executor),
            Self::NotYet(_) => Some(Realm::ResourceProvider),
            Self::Operator => Some(Realm::Readwrite),
            Self::Read(_) => Some(Realm::Readonly),
        }
    }
}

/// A legacy answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Containers,
    Flags,
    Metrics,
    State,
    Statistics,
    Version,
}

/// All paths, without the name of the process that serves them.
const ENDPOINTS: [(&str, Endpoint); 12] = [
    ("/api/v1", Endpoint::Operator),
    ("/api/v1/executor", Endpoint::Executor),
    ("/api/v1/resource_provider", Endpoint::NotYet("Resource providers")),
    ("/containers", Endpoint::Read(What::Containers)),
    ("/flags", Endpoint::Read(What::Flags)),
    ("/health", Endpoint::Health),
    ("/metrics/snapshot", Endpoint::Read(What::Metrics)),
    ("/monitor/statistics", Endpoint::Read(What::Statistics)),
    ("/monitor/statistics.json", Endpoint::Read(What::Statistics)),
    ("/state", Endpoint::Read(What::State)),
    ("/state.json", Endpoint::Read(What::State)),
    ("/version", Endpoint::Read(What::Version)),
];

/// Metrics are another process', by its own name alone, as in Mesos.
fn endpoint_of(path: &str) -> Option<Endpoint> {
    let found = endpoint::find(&ENDPOINTS, PROCESS, path)?;
    let is_metrics = found.endpoint == Endpoint::Read(What::Metrics);
    (!(is_metrics && found.is_prefixed)).then_some(found.endpoint)
}

impl Reads {
    pub(crate) fn new(
        about: Arc<About>,
        shown: Shown,
        api: Api,
        auth: Arc<Auth>,
        sessions: Sessions,
    ) -> Self {
        let files = Files::new(sandboxes::Exposed::of(&about, shown.clone()));
        Self { about, shown, files, writers: Writers::default(), api, auth, sessions }
    }

    pub(crate) fn routes(self) -> Router {
        Router::new().fallback(answer).with_state(self)
    }

    fn seen(&self, view: View) -> Seen {
        Seen { about: self.about.clone(), history: self.shown.now(), view }
    }

    /// Whether somebody may look at this file or directory.
    fn may_see_file(&self, who: &Subject, path: &str) -> bool {
        if path.trim_end_matches('/') == sandboxes::LOG {
            return self.auth.may(who, Action::AccessMesosLog, None);
        }
        let approver = self.auth.approver(who, Action::AccessSandbox);
        approver.always().unwrap_or_else(|| {
            let Some((framework, name, run)) =
                sandboxes::Exposed::of(&self.about, self.shown.clone()).whose(path)
            else {
                return true;
            };
            let seen = self.seen(View::all());
            let is_it = |it: &Executor<'_>| it.id() == name && it.number == run;
            let user = user_among(&seen, |id, executor| id == framework && is_it(executor));
            // Of what nobody knows any more it cannot be told whose it was.
            user.is_some_and(|user| approver.allows(Some(&user)))
        })
    }

    /// Whether somebody may ask for this of the files.
    fn may_see_files(&self, who: &Subject, what: files::What, head: &Parts) -> bool {
        match what {
            files::What::Debug => self.auth.may(who, Action::GetEndpoint, Some("/files/debug")),
            files::What::Browse | files::What::Read | files::What::Download => {
                let query = Query::parse(head.uri.query().unwrap_or_default());
                query.get("path").is_none_or(|path| self.may_see_file(who, path))
            }
        }
    }

    async fn json<T: Serialize>(
        &self,
        wrapped: Wrapped,
        value: impl FnOnce() -> T + Send + 'static,
    ) -> Response<Body> {
        let write = move |out: &mut dyn Write| Ok(serde_json::to_writer(out, &value())?);
        self.writers.answer("application/json", wrapped, write).await
    }

    async fn read(&self, who: &Subject, what: What, query: &Query, wrapped: Wrapped) -> Response<Body> {
        let about = self.about.clone();
        let path = match what {
            What::Containers => Some("/containers"),
            What::Metrics => Some("/metrics/snapshot"),
            What::Statistics => Some("/monitor/statistics"),
            What::Flags | What::State | What::Version => None,
        };
        if path.is_some_and(|path| !self.auth.may(who, Action::GetEndpoint, Some(path))) {
            return forbidden();
        }
        match what {
            What::Flags if !self.auth.may(who, Action::ViewFlags, None) => forbidden(),
            What::Version => self.json(wrapped, || show::Version).await,
            What::Flags => {
                let write =
                    move |out: &mut dyn Write| Ok(serde_json::to_writer(out, &show::Flags(&about.flags))?);
                self.writers.answer("application/json", wrapped, write).await
            }
            What::Metrics => {
                let seen = self.seen(View::all());
                self.json(wrapped, move || metrics::all(&seen)).await
            }
            What::State => {
                let seen = self.seen(View::of(&self.auth, who));
                let write = move |out: &mut dyn Write| Ok(serde_json::to_writer(out, &state::State(&seen))?);
                self.writers.answer("application/json", wrapped, write).await
            }
            What::Statistics => {
                let seen = self.seen(View::of_containers(&self.auth, who));
                self.json(wrapped, move || statistics::monitored(&seen)).await
            }
            What::Containers => {
                if let Some(other) = query.names().find(|it| !["container_id", "jsonp"].contains(it)) {
                    return muster_http::answer::bad(format!("Unknown query parameter '{other}'"));
                }
                let seen = self.seen(View::of_containers(&self.auth, who));
                let (seen, only) = (seen, query.get("container_id").map(str::to_owned));
                self.json(wrapped, move || statistics::containers(&seen, only.as_deref())).await
            }
        }
    }
}

/// Answers a request; a refusal is an answer like any other.
async fn answer(State(on): State<Reads>, request: Request<Body>) -> Response<Body> {
    let path = endpoint::path(request.uri());
    let endpoint = endpoint_of(&path);
    let file = endpoint::find(&files::PATHS, "", &path).filter(|_| endpoint.is_none());
    let realm = endpoint.map_or(file.map(|_| Realm::Readonly), Endpoint::realm);
    let who = match realm.map(|realm| on.auth.who(realm, request.headers())) {
        None => Subject::default(),
        Some(Ok(who)) => who,
        Some(Err(refusal)) => return *refusal,
    };
    match endpoint {
        Some(Endpoint::Executor) => on.api.answer(who.claims, request).await,
        Some(Endpoint::Operator) if request.method() != Method::POST => {
            only(&[Method::POST], request.method())
        }
        Some(Endpoint::Operator) => api::answer(&on, &who, request).await,
        Some(Endpoint::Health) => plain(StatusCode::OK, ""),
        Some(Endpoint::NotYet(what)) => not_yet(what),
        Some(Endpoint::Read(what)) => match asked(&request.into_parts().0) {
            Ok((query, wrapped)) => on.read(&who, what, &query, wrapped).await,
            Err(refusal) => *refusal,
        },
        None => match file {
            Some(found) => {
                let head = request.into_parts().0;
                match on.may_see_files(&who, found.endpoint, &head) {
                    true => files::answer(&on.files, &on.writers, found.endpoint, &head).await,
                    false => forbidden(),
                }
            }
            None => not_found(),
        },
    }
}
