//! Reading from servers by HTTP/1.1, with or without TLS.

use super::uri::elsewhere;
use crate::AgentError;
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{Request, Response, Uri, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{error::Error, fmt::Write, path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OnceCell,
    task::spawn_blocking,
};
use tokio_rustls::TlsConnector;

/// How often a server may send us elsewhere.
const REDIRECTS_MAX: usize = 5;

/// Asks servers.
pub(super) struct Client {
    /// Certificates that are trusted beside the system's.
    own: Vec<CertificateDer<'static>>,
    /// Made with the first use: few agents need the system's certificates.
    tls: OnceCell<TlsConnector>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("own", &self.own.len()).finish_non_exhaustive()
    }
}

impl Client {
    /// Trusts the certificates of this file too; of none if its name is empty.
    pub(super) fn new(ca_file: &Path) -> Result<Self, AgentError> {
        let mut own = Vec::new();
        if !ca_file.as_os_str().is_empty() {
            let wrong = |why: String| {
                let path = ca_file.display();
                AgentError::Config(format!(
                    "fetch-ca-file: {path}: {why}; name a file of certificates in PEM"
                ))
            };
            let found = CertificateDer::pem_file_iter(ca_file).map_err(|error| wrong(error.to_string()))?;
            for one in found {
                own.push(one.map_err(|error| wrong(error.to_string()))?);
            }
            if own.is_empty() {
                return Err(wrong("there is no certificate in it".into()));
            }
            roots(&own).map_err(wrong)?;
        }
        Ok(Self { own, tls: OnceCell::new() })
    }

    async fn tls(&self) -> Result<&TlsConnector, String> {
        let make = || async {
            let own = self.own.clone();
            let made = spawn_blocking(move || connector(&own)).await;
            made.map_err(|error| error.to_string())?
        };
        self.tls.get_or_try_init(make).await
    }

    /// Asks for this, wherever it is. From TLS to plain text only where the digest is known.
    pub(super) async fn get(&self, mut from: Uri, digest_known: bool) -> Result<Response<Incoming>, String> {
        for _ in 0..=REDIRECTS_MAX {
            let response = self.ask(&from).await?;
            let status = response.status();
            if !status.is_redirection() {
                return match status.is_success() {
                    true => Ok(response),
                    false => Err(format!("the server answered {status}")),
                };
            }
            let location = response.headers().get(header::LOCATION).and_then(|it| it.to_str().ok());
            let next = elsewhere(&from, location.ok_or("sent elsewhere without a Location")?)?;
            if is_tls(&from) && !is_tls(&next) && !digest_known {
                return Err("sent from https to plain http; name that URI itself, or add #sha256=HEX".into());
            }
            from = next;
        }
        Err(format!("sent elsewhere more than {REDIRECTS_MAX} times"))
    }

    async fn ask(&self, from: &Uri) -> Result<Response<Incoming>, String> {
        let host = from.host().ok_or("names no host")?.trim_matches(['[', ']']);
        let port = from.port_u16().unwrap_or(if is_tls(from) { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await;
        let stream = stream.map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
        let stream: Box<dyn Stream> = if is_tls(from) {
            let name =
                ServerName::try_from(host.to_owned()).map_err(|error| format!("host {host}: {error}"))?;
            let secured = self.tls().await?.connect(name, stream).await;
            Box::new(secured.map_err(|error| format!("no TLS with {host}:{port}: {error}"))?)
        } else {
            Box::new(stream)
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
        tokio::spawn(connection); // ends with the response, or with whoever reads it
        let path = from.path_and_query().map_or("/", |path| path.as_str());
        let authority = from.authority().map(|it| it.as_str()).unwrap_or(host);
        let (who, authority) =
            authority.rsplit_once('@').map_or((None, authority), |(who, at)| (Some(who), at));
        let mut request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, "muster")
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close");
        if let Some(who) = who {
            let plain: Vec<u8> = percent_decode_str(who).collect();
            request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(plain)));
        }
        let request = request.body(String::new()).map_err(|error| error.to_string())?;
        sender.send_request(request).await.map_err(|error| told(&error))
    }
}

fn is_tls(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

fn roots(own: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for one in own {
        roots.add(one.clone()).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

fn connector(own: &[CertificateDer<'static>]) -> Result<TlsConnector, String> {
    let mut roots = roots(own)?;
    // What of them cannot be read is not trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("no certificate is trusted here; install ca-certificates, or set fetch-ca-file".into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection, secured or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An error with what it came of.
pub(super) fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let _ = write!(text, ": {error}");
        next = error.source();
    }
    text
}
