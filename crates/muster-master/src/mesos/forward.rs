//! Calls that another master answers: handed on as they came.

use super::answer::plain;
use crate::{link::Links, route::RemoteRoute};
use axum::body::Body;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::time::Duration;

/// Says that a master hands the call on, and beside which link: one that does not lead does not hand it on again.
const FORWARDED: HeaderName = HeaderName::from_static("muster-forwarded");
/// How long it may take to connect to a leader.
const CONNECT: Duration = Duration::from_millis(500);
/// What is handed on of a request besides its body.
const KEPT: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    HeaderName::from_static(super::scheduler::STREAM_ID),
];

/// Why a call was not answered.
#[derive(Debug)]
pub(super) enum Failed {
    /// It reached no leader.
    Unsent,
    /// It may have.
    Unanswered,
}

/// Hands calls on.
#[derive(Debug, Clone)]
pub(crate) struct Forwarder(Client<HttpConnector, Body>);

impl Forwarder {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// The leader's answer to a call.
    pub(super) async fn call(
        &self,
        leader: &RemoteRoute,
        head: &Parts,
        body: Bytes,
    ) -> Result<Response<Body>, Failed> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        let address = &leader.leader.address;
        *request.uri_mut() = format!("http://{address}{path}").parse().map_err(|_| Failed::Unsent)?;
        for name in KEPT {
            if let Some(value) = head.headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let beside = HeaderValue::from_str(&leader.beside.to_string()).map_err(|_| Failed::Unsent)?;
        request.headers_mut().insert(FORWARDED, beside);
        match self.0.request(request).await {
            Ok(response) if response.status() == StatusCode::MISDIRECTED_REQUEST => Err(Failed::Unsent),
            Ok(response) => Ok(response.map(Body::new)),
            Err(error) if error.is_connect() => Err(Failed::Unsent),
            Err(_) => Err(Failed::Unanswered),
        }
    }
}

/// Whether another master handed the call on.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
}

/// Whether it came straight from who asks, or from a master not long after that one sent it.
pub(super) fn is_timely(headers: &HeaderMap, links: &Links) -> bool {
    headers.get(&FORWARDED).is_none_or(|beside| beside.to_str().is_ok_and(|beside| links.is_timely(beside)))
}

/// What a master says to another one that takes it for the leader.
pub(super) fn misdirected() -> Response<Body> {
    plain(StatusCode::MISDIRECTED_REQUEST, "this master does not lead")
}
