//! The first bytes of a connection from one master to another, before any of HTTP/2's: by them whoever listens hands it to
//! threads that no client keeps busy. No request of HTTP begins with a small letter.

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
const HAIL: &[u8; 16] = b"muster peer v1\r\n";

/// Some names have several addresses, of which not all need be reachable.
const ONE_ADDRESS: Duration = Duration::from_millis(400);

/// Waits for the first byte that comes and tells whether another master is calling; then its hail has been taken off. An
/// error ends the connection. However long it takes: the caller sets the limit.
pub async fn is_peer(stream: &mut TcpStream) -> io::Result<bool> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != HAIL[0] {
        return Ok(false);
    }
    let mut hail = [0; HAIL.len()];
    stream.read_exact(&mut hail).await?;
    match hail == *HAIL {
        true => Ok(true),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "no hail of a master of this version")),
    }
}

/// Dials a master and hails it.
#[derive(Debug, Clone)]
pub(super) struct Dialer(pub(super) String);

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.0.clone();
        Box::pin(async move {
            let mut stream = connect(&address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(HAIL).await?;
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

    async fn said(first: &[u8]) -> (io::Result<bool>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(first).await.unwrap();
        drop(client);
        let (mut stream, _) = listener.accept().await.unwrap();
        let told = is_peer(&mut stream).await;
        let mut left = Vec::new();
        stream.read_to_end(&mut left).await.unwrap();
        (told, left)
    }

    #[tokio::test]
    async fn masters_are_told_from_clients_of_which_nothing_is_taken() {
        let (told, left) = said(b"PRI * HTTP/2.0").await;
        assert!(!told.unwrap());
        assert_eq!(left, b"PRI * HTTP/2.0");
        let (told, left) = said(b"muster peer v1\r\nPRI * HTTP/2.0").await;
        assert!(told.unwrap());
        assert_eq!(left, b"PRI * HTTP/2.0");
    }

    #[tokio::test]
    async fn who_hails_otherwise_or_says_nothing_is_not_let_in() {
        assert_eq!(said(b"muster peer v2\r\n").await.0.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(said(b"muster").await.0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(said(b"").await.0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn who_dials_hails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut dialer = Dialer(listener.local_addr().unwrap().to_string());
        let dialled = dialer.call(Uri::from_static("http://m1")).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(is_peer(&mut stream).await.unwrap() && dialled.inner().nodelay().unwrap());
    }
}
