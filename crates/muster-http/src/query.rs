//! What stands behind a path, and how a client wants its answer told.

use crate::answer::{bad, only};
use crate::body::Wrapped;
use axum::body::Body;
use http::{HeaderMap, Method, Response, header, request::Parts};
use std::collections::BTreeMap;

/// What stands behind the path, or in a form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `name=value&name=value`. Of a name that comes twice, the last one counts (Mesos).
    pub fn parse(text: &str) -> Self {
        let plain = |text: &str| {
            let spaces = text.replace('+', " ");
            percent_encoding::percent_decode_str(&spaces).decode_utf8_lossy().into_owned()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (plain(name), plain(value))).collect())
    }

    /// What a name stands for here.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// How a client wants its answer told.
///
/// # Errors
/// 400: what it wants called is no name of a function.
pub fn wrapped(headers: &HeaderMap, query: &Query) -> Result<Wrapped, Box<Response<Body>>> {
    let jsonp = query.get("jsonp").map(str::to_owned);
    // What is called becomes a part of a script.
    let is_name = |name: &String| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_$.[]".contains(c))
    };
    if jsonp.as_ref().is_some_and(|name| !is_name(name)) {
        return Err(Box::new(bad("'jsonp' is not the name of a function")));
    }
    Ok(Wrapped { gzip: takes_gzip(headers), jsonp })
}

/// Whether the client can unpack an answer.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, q) = coding.split_once(';').unwrap_or((coding, ""));
        let q = q.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f64>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && q != Some(0.0)
    })
}

/// Checks the method of what is only read, and reads what stands behind the path.
///
/// # Errors
/// 405, 400.
pub fn asked(head: &Parts) -> Result<(Query, Wrapped), Box<Response<Body>>> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Box::new(only(&[Method::GET, Method::HEAD], &head.method)));
    }
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let wrapped = wrapped(&head.headers, &query)?;
    Ok((query, wrapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_a_name() {
        let query = |text: &str| wrapped(&HeaderMap::new(), &Query::parse(text)).map(|it| it.jsonp).ok();
        assert_eq!(query("jsonp=cb.of%5B1%5D&x=1"), Some(Some("cb.of[1]".into())));
        assert_eq!(query("x=1"), Some(None));
        assert_eq!(query("jsonp=alert(1)"), None);
        assert_eq!(query("jsonp="), None);
    }

    #[test]
    fn whoever_takes_gzip_says_so() {
        let takes = |text: &'static str| {
            let value = http::HeaderValue::from_static(text);
            takes_gzip(&[(header::ACCEPT_ENCODING, value)].into_iter().collect())
        };
        assert!(takes("gzip") && takes("deflate, GZIP;q=0.5"));
        assert!(!takes("gzip;q=0") && !takes("deflate") && !takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_form_is_read_as_browsers_send_it() {
        let form = Query::parse("frameworkId=a%2Fb+c&x&x=2&");
        assert_eq!((form.get("frameworkId"), form.get("x"), form.get("y")), (Some("a/b c"), Some("2"), None));
    }
}
