//! A small server that says what a test wants.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;

/// What is said to a path: all of it, and then the connection is closed or kept open.
pub(super) struct Answer {
    pub(super) text: Vec<u8>,
    pub(super) stays: bool,
}

impl Answer {
    pub(super) fn whole(body: &[u8]) -> Self {
        Self::of(body.len(), body)
    }

    /// A body that is announced with another length.
    pub(super) fn of(length: usize, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        Self { text: [head.as_bytes(), body].concat(), stays: false }
    }

    /// A body whose length is not said before.
    pub(super) fn chunked(body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
        Self { text: [head.as_bytes(), body, b"\r\n0\r\n\r\n"].concat(), stays: false }
    }

    pub(super) fn elsewhere(location: &str) -> Self {
        let text = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        Self { text: text.into(), stays: false }
    }

    pub(super) fn none() -> Self {
        Self { text: b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(), stays: false }
    }
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// How many requests came.
    pub(super) asked: watch::Receiver<usize>,
    /// The last one.
    pub(super) last: Arc<Mutex<String>>,
    /// Answers that may be given.
    pub(super) gate: Arc<Semaphore>,
}

impl Server {
    pub(super) fn times(&self) -> usize {
        *self.asked.borrow()
    }
}

/// Answers each request by its path.
pub(super) async fn server(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Server {
    begin(answer, None).await
}

/// The same with TLS; also the certificate that it shows, in PEM.
pub(super) async fn secured(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (Server, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".into()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (begin(answer, Some(TlsAcceptor::from(Arc::new(config)))).await, cert.pem())
}

async fn begin(answer: impl Fn(&str) -> Answer + Send + Sync + 'static, tls: Option<TlsAcceptor>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, asked) = watch::channel(0);
    let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    let last = Arc::<Mutex<String>>::default();
    let server = Server { address, asked, last: last.clone(), gate: gate.clone() };
    let (answer, count) = (Arc::new(answer), Arc::new(count));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answer, count, gate) = (answer.clone(), count.clone(), gate.clone());
            let (last, tls) = (last.clone(), tls.clone());
            tokio::spawn(async move {
                let mut stream: Box<dyn Stream> = match tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return, // it does not trust us
                    },
                };
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await.unwrap());
                }
                let asked = String::from_utf8(asked).unwrap();
                let said = answer(asked.split(' ').nth(1).unwrap());
                *last.lock().unwrap() = asked;
                count.send_modify(|count| *count += 1);
                gate.acquire().await.unwrap().forget();
                let _ = stream.write_all(&said.text).await; // who asked may have heard enough
                let _ = stream.flush().await;
                if said.stays {
                    std::future::pending::<()>().await;
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    server
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
