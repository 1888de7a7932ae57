//! A registry, by the distribution protocol: manifests, blobs, and tokens that anybody gets. Nothing secret is ever sent.

use crate::{
    Digest, Image, ImageError, Remote, Store, Which,
    limits::Metered,
    manifest::{Configuration, Descriptor, Manifest, choose, document_fits},
    store::Record,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::{
    error::Error,
    io::{self, Read},
    net::IpAddr,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};
use ureq::{
    Agent, Body,
    config::RedirectAuthHeaders,
    http::{Response, StatusCode, header},
    tls::{Certificate, RootCerts, TlsConfig},
};

/// How many lists may stand in lists.
const NESTED_MAX: usize = 3;
/// How often a server may send us elsewhere.
const REDIRECTS_MAX: u32 = 5;
const CONNECT: Duration = Duration::from_secs(30);
/// How long a server may take to answer, or say nothing in the middle.
const SILENCE: Duration = Duration::from_secs(60);
/// How long one request may take; a layer may be large.
const WHOLE: Duration = Duration::from_secs(3_600);
/// Bytes of an answer of whoever gives tokens, and of one that says what is wrong.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// Of that as much is told.
const TOLD_CHARS_MAX: usize = 300;
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json";
/// What is written as it is in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The image of a name, read for as long as somebody waits for it.
pub(crate) fn image(store: &Store, remote: &Remote, wanted: Weak<()>) -> Result<Image, ImageError> {
    let inner = store.inner();
    let limits = &inner.settings.limits;
    let is_plain = is_plain(&remote.host, &inner.settings.insecure_registries);
    let mut registry = Registry::new(remote, is_plain, wanted);
    let mut named = remote.which.to_string();
    let mut expected = match &remote.which {
        Which::Digest(digest) => Some(digest.clone()),
        Which::Tag(_) => None,
    };
    for _ in 0..=NESTED_MAX {
        let path = format!("manifests/{named}");
        let bytes = registry.document(&path, Some(ACCEPT), limits.document_bytes_max)?;
        if let Some(expected) = &expected {
            Digest::of(&bytes).must_be(expected, || registry.url(&path))?;
        }
        match Manifest::read(&bytes, &registry.url(&path), limits)? {
            Manifest::Index(all) => {
                let chosen = choose(&all, &remote.to_string())?;
                document_fits(chosen.size, "a manifest of the image", limits)?;
                named = chosen.digest.to_string();
                expected = Some(chosen.digest.clone());
            }
            Manifest::Image { config, layers } => return assemble(store, &mut registry, &config, &layers),
        }
    }
    let why = format!("its lists are more than {NESTED_MAX} deep");
    Err(ImageError::malformed(&remote.to_string(), why))
}

fn assemble(
    store: &Store,
    registry: &mut Registry,
    config: &Descriptor,
    layers: &[Descriptor],
) -> Result<Image, ImageError> {
    let inner = store.inner();
    let limits = &inner.settings.limits;
    document_fits(config.size, "the configuration of the image", limits)?;
    let path = format!("blobs/{}", config.digest);
    let bytes = registry.document(&path, None, limits.document_bytes_max)?;
    let id = Digest::of(&bytes);
    id.must_be(&config.digest, || registry.url(&path))?;
    let read = Configuration::read(&bytes, layers.len(), limits)?;
    let mut held = Vec::new();
    for (diff_id, layer) in read.rootfs.diff_ids.iter().zip(layers) {
        let open = || {
            let answer = registry.get(&format!("blobs/{}", layer.digest), None)?;
            let body = answer.into_body().into_with_config().limit(u64::MAX).reader();
            Ok(Watched { body, wanted: registry.wanted.clone() })
        };
        held.push(inner.add_layer(diff_id, Some(&layer.digest), open)?);
    }
    inner.keep(Record { id, layers: read.rootfs.diff_ids, config: read.config.unwrap_or_default() }, held)
}

/// Whether a registry is spoken to without TLS: this machine's own, and those that the configuration names.
fn is_plain(host: &str, insecure: &[String]) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |it| it.0);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    name == "localhost" || is_loopback || insecure.iter().any(|it| it == host)
}

/// One repository of a registry.
struct Registry {
    agent: Agent,
    base: String,
    repository: String,
    token: Option<String>,
    /// Somebody waits for the image.
    wanted: Weak<()>,
}

/// Bytes that end when nobody waits for them any more.
struct Watched<R> {
    body: R,
    wanted: Weak<()>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.wanted.strong_count() {
            0 => Err(io::Error::other("it was given up")),
            _ => self.body.read(buffer),
        }
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Registry {
    fn new(remote: &Remote, is_plain: bool, wanted: Weak<()>) -> Self {
        let scheme = if is_plain { "http" } else { "https" };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!is_plain)
            .tls_config(tls())
            .max_redirects(REDIRECTS_MAX)
            .max_redirects_will_error(true)
            .redirect_auth_headers(RedirectAuthHeaders::Never)
            .user_agent("muster")
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .timeout_global(Some(WHOLE));
        // What is of this machine or of its network is no proxy's.
        let config = if is_plain { config.proxy(None) } else { config };
        Self {
            agent: config.build().new_agent(),
            base: format!("{scheme}://{}/v2/{}", remote.host, remote.repository),
            repository: remote.repository.clone(),
            token: None,
            wanted,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// A whole answer, if it is not too long.
    fn document(&mut self, path: &str, accept: Option<&str>, most: u64) -> Result<Vec<u8>, ImageError> {
        let url = self.url(path);
        let body = self.get(path, accept)?.into_body().into_with_config().limit(u64::MAX).reader();
        let body = Watched { body, wanted: self.wanted.clone() };
        let (mut body, _) = Metered::new(body, "the document has", most, "document_bytes_max");
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).map_err(|error| ImageError::read(&url, error))?;
        Ok(bytes)
    }

    /// Asks once, and once more with a token where one is wanted.
    fn get(&mut self, path: &str, accept: Option<&str>) -> Result<Response<Body>, ImageError> {
        let url = self.url(path);
        let server = |why: String| ImageError::Server { url: url.clone(), why };
        for is_last in [false, true] {
            let mut request = self.agent.get(&url);
            if let Some(accept) = accept {
                request = request.header(header::ACCEPT, accept);
            }
            if let Some(token) = &self.token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let answer = request.call().map_err(|error| server(all(&error)))?;
            match answer.status() {
                status if status.is_success() => return Ok(answer),
                StatusCode::UNAUTHORIZED if !is_last => {
                    let said = answer.headers().get(header::WWW_AUTHENTICATE);
                    let said = said.and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
                    self.token = Some(self.ask_for_token(&said).map_err(server)?);
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(server(
                        "it is not for everybody, and agents show no credentials; use a registry that is open to them"
                            .into(),
                    ));
                }
                StatusCode::NOT_FOUND => {
                    return Err(ImageError::Missing {
                        what: url,
                        why: "the registry has no such image".into(),
                    });
                }
                status => return Err(server(format!("the registry answers {status}: {}", told(answer)))),
            }
        }
        Err(server("it was asked twice".into()))
    }

    /// A token that anybody gets, from where the registry says.
    fn ask_for_token(&self, challenge: &str) -> Result<String, String> {
        let Some(parameters) = challenge.strip_prefix("Bearer ") else {
            return Err(
                "it wants credentials, and agents show none; use a registry that is open to them".into()
            );
        };
        let mut realm = None;
        let mut query = Vec::new();
        let mut has_scope = false;
        for (name, value) in parse(parameters) {
            match name {
                "realm" => realm = Some(value),
                "service" | "scope" => {
                    has_scope |= name == "scope";
                    query.push(format!("{name}={}", utf8_percent_encode(value, QUERY)));
                }
                _ => {}
            }
        }
        let realm = realm.ok_or("it wants a token, and does not say where it is to be had")?;
        if !has_scope {
            let scope = format!("repository:{}:pull", self.repository);
            query.push(format!("scope={}", utf8_percent_encode(&scope, QUERY)));
        }
        let between = if realm.contains('?') { '&' } else { '?' };
        let url = format!("{realm}{between}{}", query.join("&"));
        let failed = |why: String| format!("it wants a token, and {realm} gives none: {why}");
        let answer = self.agent.get(&url).call().map_err(|error| failed(all(&error)))?;
        if !answer.status().is_success() {
            return Err(failed(format!("it answers {}", answer.status())));
        }
        let mut bytes = Vec::new();
        let body = answer.into_body().into_with_config().limit(u64::MAX).reader();
        body.take(TOKEN_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        match token.is_empty() || token.bytes().any(|byte| !byte.is_ascii_graphic()) {
            true => Err(failed("what it answers is none".into())),
            false => Ok(token),
        }
    }
}

/// `NAME="VALUE",NAME=VALUE` of a challenge.
fn parse(text: &str) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_start_matches([',', ' ']).trim();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        all.push((name, value));
        rest = after;
    }
    all
}

/// The beginning of what a server says is wrong.
fn told(answer: Response<Body>) -> String {
    let mut bytes = Vec::new();
    let body = answer.into_body().into_with_config().limit(u64::MAX).reader();
    let _ = body.take(TOKEN_BYTES_MAX).read_to_end(&mut bytes); // what came is told
    let text = String::from_utf8_lossy(&bytes);
    text.chars().filter(|c| !c.is_control()).take(TOLD_CHARS_MAX).collect()
}

/// An error with all that it came of.
fn all(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// Trusts whom this machine trusts.
fn tls() -> TlsConfig {
    static ROOTS: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        // Those that cannot be read are as if they were not there: what they vouch for is refused.
        let found = rustls_native_certs::load_native_certs().certs;
        found.iter().map(|it| Certificate::from_der(it).to_owned()).collect()
    });
    TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots.clone())))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text =
            r#"realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push",x=y"#;
        let expected = [
            ("realm", "https://auth.example/token"),
            ("service", "r.example"),
            ("scope", "repository:a/b:pull,push"),
            ("x", "y"),
        ];
        assert_eq!(parse(text), expected);
        assert_eq!(parse("nothing"), []);
        assert_eq!(parse("a=\"open"), [("a", "open")]);
    }

    #[test]
    fn only_loopback_and_what_is_named_is_without_tls() {
        let named = ["plain.example:5000".to_owned()];
        for (host, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("plain.example:5000", true),
            ("plain.example", false),
            ("localhost.example", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_plain(host, &named), expected, "{host}");
        }
    }
}
