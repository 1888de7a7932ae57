//! Tokens of executors: JSON Web Tokens with HS256, as Mesos' agents make them (RFC 7519).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// A shorter key than what it makes would be the weakest part of it.
const KEY_BYTES_MIN: usize = 32;
const HEAD: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Who an executor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Its container.
    pub cid: String,
    /// Its own id.
    pub eid: String,
    /// Its framework.
    pub fid: String,
}

/// What signs and checks tokens.
pub(super) struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[derive(Deserialize)]
struct Head {
    alg: String,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(flatten)]
    claims: Claims,
    /// Until when it holds, in seconds.
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl Key {
    /// The whole of a file, as Mesos takes it.
    pub(super) fn new(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < KEY_BYTES_MIN {
            return Err(format!(
                "it has {} bytes, and needs {KEY_BYTES_MIN} or more; make one by \
                 `head -c 48 /dev/urandom | base64`",
                bytes.len()
            ));
        }
        Hmac::new_from_slice(bytes).map(Self).map_err(|error| error.to_string())
    }

    /// A token for an executor. It holds as long as the key does.
    pub(super) fn sign(&self, claims: &Claims) -> String {
        let claims = serde_json::to_string(claims).unwrap_or_default(); // three texts can be written
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEAD), URL_SAFE_NO_PAD.encode(claims));
        let mut mac = self.0.clone();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    /// What a token says, if it was signed with this key and holds now.
    pub(super) fn read(&self, token: &str) -> Option<Claims> {
        self.read_at(token, SystemTime::now())
    }

    fn read_at(&self, token: &str, now: SystemTime) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let mut mac = self.0.clone();
        mac.update(signed.as_bytes());
        // In constant time, and before anything is looked at.
        mac.verify_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let (head, payload) = signed.split_once('.')?;
        let head: Head = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
        let payload: Payload = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let holds = payload.exp.is_none_or(|exp| now < exp) && payload.nbf.is_none_or(|nbf| nbf <= now);
        (head.alg == "HS256" && holds).then_some(payload.claims)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::time::Duration;

    fn claims() -> Claims {
        Claims { cid: "c".into(), eid: "e".into(), fid: "f".into() }
    }

    fn key() -> Key {
        Key::new(b"0123456789abcdef0123456789abcdef").unwrap()
    }

    /// Signs anything.
    fn signed(head: &str, payload: &str) -> String {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(payload));
        let mut mac = key().0;
        mac.update(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    #[test]
    fn a_token_says_who_it_was_made_for() {
        let token = key().sign(&claims());
        assert_eq!(key().read(&token), Some(claims()));
        // Made with another implementation of the same (Python's hmac): the bytes are no accident.
        let others = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjaWQiOiJjIiwiZWlkIjoiZSIsImZpZCI6ImYifQ.GSNCeWxHtDdLrzt9-oNhAkD5X2PQJKFG8FOlZioQT9s";
        assert_eq!(token, others);
    }

    #[test]
    fn what_is_not_signed_so_is_no_token() {
        let token = key().sign(&claims());
        let other = Key::new(b"another key that is as long as that").unwrap();
        assert_eq!(other.read(&token), None);
        let (signed_part, signature) = token.rsplit_once('.').unwrap();
        let (head, _) = signed_part.split_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.encode(r#"{"cid":"c","eid":"x","fid":"f"}"#);
        for bad in [
            "",
            "..",
            "a.b.c",
            signed_part,
            &format!("{signed_part}."),
            &format!("{signed_part}.{}", &signature[..10]),
            &format!("{head}.{forged}.{signature}"),
            &token[1..],
        ] {
            assert_eq!(key().read(bad), None, "{bad}");
        }
        let none = signed(r#"{"alg":"none"}"#, r#"{"cid":"c","eid":"e","fid":"f"}"#);
        assert_eq!(key().read(&none), None);
        assert_eq!(key().read(&signed(HEAD, r#"{"cid":"c","eid":"e"}"#)), None);
        assert!(Key::new(b"short").is_err());
    }

    #[test]
    fn a_token_may_have_an_end() {
        let of = |times: &str| signed(HEAD, &format!(r#"{{"cid":"c","eid":"e","fid":"f",{times}}}"#));
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let (until, from) = (of(r#""exp":100"#), of(r#""nbf":50"#));
        assert_eq!(key().read_at(&until, at(99)), Some(claims()));
        assert_eq!(key().read_at(&until, at(100)), None);
        assert_eq!(key().read_at(&from, at(49)), None);
        assert_eq!(key().read_at(&from, at(50)), Some(claims()));
    }
}
