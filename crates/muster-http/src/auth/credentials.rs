//! Principals and their secrets, and how a request shows both (RFC 7617).
//!
//! # Laws
//! - Secrets are kept as digests and compared in constant time; they are neither logged nor shown.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderMap;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, fmt, sync::Arc};
use subtle::ConstantTimeEq;

/// The longest value of an `Authorization` header that is looked at, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
const FORM: &str = "write {\"credentials\": [{\"principal\": \"..\", \"secret\": \"..\"}]}";

/// Who is known, and a digest of what each must know.
#[derive(Default)]
pub(super) struct Credentials(HashMap<Arc<str>, [u8; 32]>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials of {} principals", self.0.len())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    credentials: Vec<One>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    principal: String,
    secret: String,
}

impl Credentials {
    /// Reads Mesos' JSON. What is wrong is told without what stands there.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let written: Written = serde_json::from_str(text).map_err(|error| {
            // The reader's own words may repeat a secret that has the wrong type.
            format!("line {}, column {}: {FORM}", error.line(), error.column())
        })?;
        let mut all = HashMap::new();
        for (at, One { principal, secret }) in written.credentials.into_iter().enumerate() {
            if principal.is_empty() || principal.contains(':') || principal.chars().any(char::is_control) {
                return Err(format!(
                    "credentials[{at}].principal: it is empty, or contains a colon or a control character; \
                     choose another name"
                ));
            }
            if secret.is_empty() {
                return Err(format!("credentials[{at}].secret: it is empty; choose one"));
            }
            if all.insert(Arc::from(principal), digest(secret.as_bytes())).is_some() {
                return Err(format!("credentials[{at}].principal: it occurs twice; remove one of the two"));
            }
        }
        if all.is_empty() {
            return Err(format!("credentials: there are none; {FORM}"));
        }
        Ok(Self(all))
    }

    /// The principal, if this is its secret.
    fn check(&self, principal: &str, secret: &str) -> Option<Arc<str>> {
        let (known, wanted) = match self.0.get_key_value(principal) {
            Some((known, wanted)) => (Some(known), *wanted),
            None => (None, [0; 32]), // it takes as long
        };
        let is_right: bool = digest(secret.as_bytes()).ct_eq(&wanted).into();
        known.filter(|_| is_right).cloned()
    }

    /// The principal of a request, if it says who it is and shows that by its secret.
    pub(super) fn basic(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        let decoded = STANDARD.decode(authorization(headers, "basic")?).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (principal, secret) = decoded.split_once(':')?;
        self.check(principal, secret)
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// What a request shows by a scheme of authentication; none if it shows nothing so, or more than one thing.
pub(super) fn authorization<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let (value, more) = (values.next()?, values.next());
    let value = value.to_str().ok().filter(|value| value.len() <= HEADER_BYTES_MAX && more.is_none())?;
    let (name, shown) = value.trim().split_once(' ')?;
    name.eq_ignore_ascii_case(scheme).then(|| shown.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use http::header::AUTHORIZATION;

    fn two() -> Credentials {
        let text =
            r#"{"credentials": [{"principal": "a", "secret": "s:1"}, {"principal": "b", "secret": "é"}]}"#;
        Credentials::parse(text).unwrap()
    }

    #[test]
    fn who_knows_the_secret_is_known() {
        let who = |shown: &str| {
            let value = format!("Basic {}", STANDARD.encode(shown));
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            two().basic(&headers).map(|it| it.to_string())
        };
        assert_eq!(who("a:s:1").as_deref(), Some("a"));
        assert_eq!(who("b:é").as_deref(), Some("b"));
        for none in ["a:s:2", "a:", "a", ":s:1", "c:s:1", "b:s:1", "a:s:1 ", ""] {
            assert_eq!(who(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_header_is_one_and_says_how() {
        let right = STANDARD.encode("a:s:1");
        let of = |values: &[String]| {
            let all = values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap()));
            two().basic(&all.collect())
        };
        assert!(of(&[format!("basic  {right}")]).is_some(), "the scheme's name is of any case");
        assert_eq!(of(&[]), None);
        assert_eq!(of(std::slice::from_ref(&right)), None);
        assert_eq!(of(&[format!("Bearer {right}")]), None);
        assert_eq!(of(&["Basic ***".into()]), None);
        assert_eq!(of(&[format!("Basic {right}"), format!("Basic {right}")]), None);
        assert_eq!(of(&[format!("Basic {}{right}", " ".repeat(HEADER_BYTES_MAX))]), None);
    }

    #[test]
    fn a_wrong_file_is_refused_without_its_secrets() {
        for (text, part) in [
            ("", "line 1"),
            (r#"{"credentials": []}"#, "there are none"),
            (r#"{"credentials": [{"principal": "a"}]}"#, "\"secret\""),
            (r#"{"credentials": [{"principal": "a", "secret": 4711}]}"#, "line 1"),
            (r#"{"credentials": [{"principal": "a:b", "secret": "4711"}]}"#, "credentials[0].principal"),
            (r#"{"credentials": [{"principal": "a", "secret": ""}]}"#, "credentials[0].secret"),
            (
                r#"{"credentials": [{"principal": "a", "secret": "4711"}, {"principal": "a", "secret": "x"}]}"#,
                "credentials[1].principal: it occurs twice",
            ),
        ] {
            let why = Credentials::parse(text).unwrap_err();
            assert!(why.contains(part) && !why.contains("4711"), "{text}: {why}");
        }
        assert_eq!(format!("{:?}", two()), "Credentials of 2 principals");
    }
}
