//! Answers that are no stream.

use axum::body::Body;
use http::{HeaderValue, Method, Response, StatusCode, header};
use std::time::Duration;

/// A sentence, or nothing.
pub fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let text = text.into();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if !text.is_empty() {
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        *response.body_mut() = Body::from(text);
    }
    response
}

/// A call was taken: it is committed and applied where it is durable.
pub fn accepted() -> Response<Body> {
    plain(StatusCode::ACCEPTED, "")
}

/// What is wrong with a request.
pub fn bad(why: impl Into<String>) -> Response<Body> {
    plain(StatusCode::BAD_REQUEST, why)
}

/// The master that leads has the answer. Relative to the scheme, as Mesos sends it.
pub fn moved(address: &str, path: &str) -> Response<Body> {
    let mut response = plain(StatusCode::TEMPORARY_REDIRECT, "");
    match HeaderValue::try_from(format!("//{address}{path}")) {
        Ok(location) => {
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Err(_) => nobody_leads(),
    }
}

/// Nobody leads; clients look for these words.
pub fn nobody_leads() -> Response<Body> {
    plain(StatusCode::SERVICE_UNAVAILABLE, "No leader elected")
}

/// Not now: the client tries again.
pub fn unavailable(why: &str) -> Response<Body> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A principal made more calls than it may: it may make the next one after so long.
pub fn too_many(principal: Option<&str>, wait: Duration) -> Response<Body> {
    let who =
        principal.map_or_else(|| "frameworks without a principal".into(), |it| format!("principal {it:?}"));
    let why = format!("{who} made more calls than api.calls-per-second allows at this master");
    let mut response = plain(StatusCode::TOO_MANY_REQUESTS, why);
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    if let Ok(seconds) = HeaderValue::try_from(seconds.to_string()) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// Mesos' own words.
pub fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "404 Not Found.")
}

/// Only these methods are taken.
pub fn only(methods: &[Method], but: &Method) -> Response<Body> {
    let names: Vec<_> = methods.iter().map(|method| format!("'{method}'")).collect();
    let text =
        format!("405 Method Not Allowed. Expecting one of {{ {} }}, but received '{but}'.", names.join(", "));
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    if let Ok(names) = HeaderValue::try_from(names.join(", ")) {
        response.headers_mut().insert(header::ALLOW, names);
    }
    response
}

/// What is not built is said so.
pub fn not_yet(what: &str) -> Response<Body> {
    plain(StatusCode::NOT_IMPLEMENTED, format!("{what}: muster does not support this yet"))
}

/// No such file: of a kind, but without a word, as Mesos answers.
pub fn no_file() -> Response<Body> {
    let mut response = plain(StatusCode::NOT_FOUND, "");
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
