//! Connections that come in: as many as leave this master files enough to do its own work.

use futures::{Stream, stream};
use rustix::{
    net::sockopt::set_tcp_user_timeout,
    process::{Resource, getrlimit},
};
use std::{
    io,
    os::fd::AsRawFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    time::{Instant, Sleep, sleep},
};
use tonic::transport::server::Connected;

/// Files that are never a client's: the log's and the snapshots', connections to the other masters, look-ups of names.
/// A master that cannot open those ends. (etcd keeps 150 for itself, and ends its clients' at the rest.)
const KEPT: u64 = 64;

/// What every client of gRPC sends before anything else: HTTP/2's preface (RFC 9113, section 3.4). Until it is there
/// nobody asks whether the client lives. Hardly a request of HTTP/1.1 is shorter, with the name of its host.
const PREFACE_BYTES: usize = 24;
/// How long that may take.
const PREFACE_TIME: Duration = Duration::from_secs(10);

/// What was sent and is not taken for this long ends its connection: the client's host, or the way there, is gone. A
/// stream of HTTP/1.1 has no pings, and its framework would sit on its offers until the kernel gives up by itself, after
/// a quarter of an hour.
const UNTAKEN: Duration = Duration::from_secs(60);

/// How long nothing is accepted after the system refused to.
const REFUSED: Duration = Duration::from_millis(100);
/// Clients that are turned away are told of in the log this often.
const SAID: Duration = Duration::from_secs(10);

/// Connections that may wait until they are accepted; the system's own limit (`net.core.somaxconn`) holds as well. When a
/// master dies all of its clients dial the others at once: one that finds no room tries again only after a second.
const BACKLOG: u32 = 4_096;

/// Listens at host:port.
pub(crate) async fn listen(address: &str) -> io::Result<TcpListener> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let bound = socket.and_then(|socket| {
            // The connections of a process that ended a moment ago are no obstacle.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        });
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Accepts connections for ever. One that would take a file of those that are kept is ended at once, so that its
/// client dials another master.
pub(crate) fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold((listener, TurnedAway::default()), |(listener, mut turned_away)| async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // A client that is gone already, or no file left at all.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(REFUSED).await;
                    continue;
                }
            };
            if takes_what_is_kept(&stream) {
                turned_away.another();
                continue;
            }
            let untaken = u32::try_from(UNTAKEN.as_millis()).unwrap_or(u32::MAX);
            let set = stream.set_nodelay(true).and_then(|()| Ok(set_tcp_user_timeout(&stream, untaken)?));
            if let Err(error) = set {
                tracing::debug!(%error, "a connection ended before it began");
                continue;
            }
            return Some((Ok(Connection::new(stream)), (listener, turned_away)));
        }
    })
}

/// A new file has the lowest number that is free: with one this high, hardly any others are.
fn takes_what_is_kept(stream: &TcpStream) -> bool {
    let number = u64::try_from(stream.as_raw_fd()).unwrap_or(u64::MAX);
    // Asked each time: a limit may be changed from outside.
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    number >= limit.saturating_sub(KEPT)
}

/// Clients that were turned away and not told of yet.
#[derive(Default)]
struct TurnedAway {
    count: u64,
    said: Option<Instant>,
}

impl TurnedAway {
    fn another(&mut self) {
        self.count += 1;
        if self.said.is_some_and(|said| said.elapsed() < SAID) {
            return;
        }
        tracing::warn!(
            count = self.count,
            "connections were turned away: they would take the last files that this master may open; raise its limit \
             of open files"
        );
        *self = Self { count: 0, said: Some(Instant::now()) };
    }
}

/// A connection of which something must be heard soon.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Until the preface is there: what of it is missing, and when it is too late.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, preface: Some((PREFACE_BYTES, Box::pin(sleep(PREFACE_TIME)))) }
    }
}

impl Connected for Connection {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some((missing, late)) = &mut self.preface else { return read };
        if read.is_pending() {
            ready!(late.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "nothing was heard of the client",
            )));
        }
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            self.preface = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn pair() -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let connection = Box::pin(connections(listener)).next().await.unwrap().unwrap();
        (client, connection)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_preface_is_ended_however_slowly_it_talks() {
        let (mut client, mut connection) = pair().await;
        client.write_all(&[0; PREFACE_BYTES - 1]).await.unwrap();
        let mut all = Vec::new();
        let error = connection.read_to_end(&mut all).await.unwrap_err();
        assert_eq!((error.kind(), all.len()), (io::ErrorKind::TimedOut, PREFACE_BYTES - 1));
    }

    #[tokio::test]
    async fn all_clients_of_another_master_may_come_at_once() {
        const CLIENTS: usize = 500;
        let listener = listen("localhost:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        for _ in 0..CLIENTS {
            // One that found no room would be here after a second, or three, or seven.
            let connected = tokio::time::timeout(Duration::from_millis(900), TcpStream::connect(address));
            waiting.push(connected.await.unwrap().unwrap());
        }
        assert_eq!(waiting.len(), CLIENTS);
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_not_listened_at() {
        let first = listen("127.0.0.1:0").await.unwrap();
        let error = listen(&first.local_addr().unwrap().to_string()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn what_a_client_does_not_take_ends_its_connection_in_time() {
        let (_client, connection) = pair().await;
        let set = rustix::net::sockopt::tcp_user_timeout(&connection.stream).unwrap();
        assert_eq!(Duration::from_millis(set.into()), UNTAKEN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_a_preface_may_be_silent() {
        let (mut client, mut connection) = pair().await;
        client.write_all(&[0; PREFACE_BYTES]).await.unwrap();
        connection.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        let silence = tokio::time::timeout(10 * PREFACE_TIME, connection.read_u8()).await;
        assert!(silence.is_err(), "{silence:?}");
    }
}
