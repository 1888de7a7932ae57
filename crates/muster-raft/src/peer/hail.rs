//! The first bytes of a connection from one master to another, before any of HTTP/2's: by them whoever listens hands it to
//! threads that no client keeps busy, and lets it in when there are files left for masters only. No request of HTTP begins
//! with a small letter.

use hyper_util::rt::TokioIo;
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tonic::codegen::{Service, http::Uri};

/// The number is that of the way in which masters talk to each other.
const PEER: &[u8; 16] = b"muster peer v1\r\n";
const LINK: &[u8; 16] = b"muster link v1\r\n";

/// Who opens a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Another master, for what consensus has to say.
    Peer,
    /// A master that follows, with its clients' streams.
    Link,
    /// Anybody else.
    Client,
}

impl Caller {
    fn hail(self) -> &'static [u8] {
        match self {
            Self::Peer => PEER,
            Self::Link => LINK,
            Self::Client => &[],
        }
    }
}

/// Some names have several addresses, of which not all need be reachable.
const ONE_ADDRESS: Duration = Duration::from_millis(400);

/// Waits for the first byte that comes and tells who is calling; a master's hail has been taken off then. An error ends the
/// connection. However long it takes: whoever asks sets the limit.
pub async fn caller(stream: &mut TcpStream) -> io::Result<Caller> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if !may_be_hail(first[0]) {
        return Ok(Caller::Client);
    }
    let mut hail = [0; PEER.len()];
    stream.read_exact(&mut hail).await?;
    match &hail {
        PEER => Ok(Caller::Peer),
        LINK => Ok(Caller::Link),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no hail of a master of this version")),
    }
}

/// Whether what begins with this byte may be a master's hail.
pub fn may_be_hail(first: u8) -> bool {
    first == PEER[0]
}

/// Dials a master and hails it.
#[derive(Debug, Clone)]
pub struct Dialer {
    address: String,
    hail: &'static [u8],
}

impl Dialer {
    /// Of this address (host:port), as this caller.
    pub fn new(address: &str, caller: Caller) -> Self {
        Self { address: address.to_owned(), hail: caller.hail() }
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, hail } = self.clone();
        Box::pin(async move {
            let mut stream = connect(&address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(hail).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Tries one address of a name after the other, so that one that does not answer leaves time for the next.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(address).await? {
        match timeout(ONE_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(late) => failed = late.into(),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use tokio::net::TcpListener;

    async fn said(first: &[u8]) -> (io::Result<Caller>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(first).await.unwrap();
        drop(client);
        let (mut stream, _) = listener.accept().await.unwrap();
        let told = caller(&mut stream).await;
        let mut left = Vec::new();
        stream.read_to_end(&mut left).await.unwrap();
        (told, left)
    }

    #[tokio::test]
    async fn masters_are_told_from_clients_of_which_nothing_is_taken() {
        for (hail, expected) in
            [("", Caller::Client), ("muster peer v1\r\n", Caller::Peer), ("muster link v1\r\n", Caller::Link)]
        {
            let (told, left) = said(format!("{hail}PRI * HTTP/2.0").as_bytes()).await;
            assert_eq!(told.unwrap(), expected);
            assert_eq!(left, b"PRI * HTTP/2.0");
        }
    }

    #[tokio::test]
    async fn who_hails_otherwise_or_says_nothing_is_not_let_in() {
        assert_eq!(said(b"muster peer v2\r\n").await.0.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(said(b"muster").await.0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(said(b"").await.0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn who_dials_hails() {
        for expected in [Caller::Peer, Caller::Link] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut dialer = Dialer::new(&listener.local_addr().unwrap().to_string(), expected);
            let dialled = dialer.call(Uri::from_static("http://m1")).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(dialled.inner().nodelay().unwrap());
            assert_eq!(caller(&mut stream).await.unwrap(), expected);
        }
    }
}
