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
mod state;
mod statistics;

pub(crate) use about::{About, Fetched, Gone, flags};

use crate::{executors::Api, history::Shown};
use axum::{Router, body::Body, extract::State};
use http::{Method, Request, Response, StatusCode};
use muster_http::{
    answer::{not_found, not_yet, only, plain},
    body::{Wrapped, Writers},
    endpoint,
    files::{self, Files},
    query::{Query, asked},
    show,
};
use seen::Seen;
use serde::Serialize;
use std::{io::Write, sync::Arc};

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
    pub(crate) fn new(about: Arc<About>, shown: Shown, api: Api) -> Self {
        let files = Files::new(sandboxes::Exposed::of(&about, shown.clone()));
        Self { about, shown, files, writers: Writers::default(), api }
    }

    pub(crate) fn routes(self) -> Router {
        Router::new().fallback(answer).with_state(self)
    }

    fn seen(&self) -> Seen {
        Seen { about: self.about.clone(), history: self.shown.now() }
    }

    async fn json<T: Serialize>(
        &self,
        wrapped: Wrapped,
        value: impl FnOnce() -> T + Send + 'static,
    ) -> Response<Body> {
        let write = move |out: &mut dyn Write| Ok(serde_json::to_writer(out, &value())?);
        self.writers.answer("application/json", wrapped, write).await
    }

    async fn read(&self, what: What, query: &Query, wrapped: Wrapped) -> Response<Body> {
        let about = self.about.clone();
        match what {
            What::Version => self.json(wrapped, || show::Version).await,
            What::Flags => {
                let write =
                    move |out: &mut dyn Write| Ok(serde_json::to_writer(out, &show::Flags(&about.flags))?);
                self.writers.answer("application/json", wrapped, write).await
            }
            What::Metrics => {
                let seen = self.seen();
                self.json(wrapped, move || metrics::all(&seen)).await
            }
            What::State => {
                let seen = self.seen();
                let write = move |out: &mut dyn Write| Ok(serde_json::to_writer(out, &state::State(&seen))?);
                self.writers.answer("application/json", wrapped, write).await
            }
            What::Statistics => {
                let seen = self.seen();
                self.json(wrapped, move || statistics::monitored(&seen)).await
            }
            What::Containers => {
                if let Some(other) = query.names().find(|it| !["container_id", "jsonp"].contains(it)) {
                    return muster_http::answer::bad(format!("Unknown query parameter '{other}'"));
                }
                let (seen, only) = (self.seen(), query.get("container_id").map(str::to_owned));
                self.json(wrapped, move || statistics::containers(&seen, only.as_deref())).await
            }
        }
    }
}

/// Answers a request; a refusal is an answer like any other.
async fn answer(State(on): State<Reads>, request: Request<Body>) -> Response<Body> {
    let path = endpoint::path(request.uri());
    match endpoint_of(&path) {
        Some(Endpoint::Executor) => on.api.answer(request).await,
        Some(Endpoint::Operator) if request.method() != Method::POST => {
            only(&[Method::POST], request.method())
        }
        Some(Endpoint::Operator) => api::answer(&on, request).await,
        Some(Endpoint::Health) => plain(StatusCode::OK, ""),
        Some(Endpoint::NotYet(what)) => not_yet(what),
        Some(Endpoint::Read(what)) => match asked(&request.into_parts().0) {
            Ok((query, wrapped)) => on.read(what, &query, wrapped).await,
            Err(refusal) => *refusal,
        },
        None => match endpoint::find(&files::PATHS, "", &path) {
            Some(found) => {
                files::answer(&on.files, &on.writers, found.endpoint, &request.into_parts().0).await
            }
            None => not_found(),
        },
    }
}
