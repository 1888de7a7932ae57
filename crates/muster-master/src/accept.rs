//! Connections that come in: as many as leave this master files enough to do its own work, other masters' apart from
//! clients', so that neither has to wait behind the other's.

use futures::{Stream, StreamExt};
use rustix::{
    net::sockopt::set_tcp_user_timeout,
    process::{Resource, getrlimit},
};
use std::{
    future::Future,
    io,
    os::fd::AsRawFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::mpsc,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Files that are never a client's: the log's and the snapshots', connections to the other masters, look-ups of names.
/// A master that cannot open those ends. (etcd keeps 150 for itself, and ends its clients' at the rest.)
const KEPT: u64 = 64;

/// What every client of gRPC sends before anything else: HTTP/2's preface (RFC 9113, section 3.4). Until it is there
/// nobody asks whether the client lives. Hardly a request of HTTP/1.1 is shorter, with the name of its host.
const PREFACE_BYTES: usize = 24;
/// How long that may take, from its first byte on, and so long that one may be awaited.
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

/// Connections that are known for what they are and were not taken by their server yet.
const SORTED_MAX: usize = 64;

/// Those of one kind. They are taken off the runtime that accepted them, for that of their server.
#[derive(Debug)]
pub(crate) struct Sorted(mpsc::Receiver<std::net::TcpStream>);

impl Sorted {
    /// To be polled on the runtime that is to serve them.
    pub(crate) fn connections(self) -> impl Stream<Item = io::Result<Connection>> {
        ReceiverStream::new(self.0).filter_map(|stream| async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => Some(Ok(Connection::new(stream))),
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be served");
                    None
                }
            }
        })
    }
}

/// Accepts connections for as long as the future is polled: those of other masters come out first, those of clients second.
/// One that would take a file of those that are kept is ended at once, so that its client dials another master.
pub(crate) fn sort(listener: TcpListener) -> (impl Future<Output = ()>, Sorted, Sorted) {
    let (peers, peers_out) = mpsc::channel(SORTED_MAX);
    let (clients, clients_out) = mpsc::channel(SORTED_MAX);
    let accept = async move {
        let mut turned_away = TurnedAway::default();
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
            let (peers, clients) = (peers.clone(), clients.clone());
            tokio::spawn(async move {
                if let Err(error) = pass(stream, &peers, &clients).await {
                    tracing::debug!(%error, "a connection ended before it began");
                }
            });
        }
    };
    (accept, Sorted(peers_out), Sorted(clients_out))
}

/// Hands a connection to the server that it is for.
async fn pass(
    mut stream: TcpStream,
    peers: &mpsc::Sender<std::net::TcpStream>,
    clients: &mpsc::Sender<std::net::TcpStream>,
) -> io::Result<()> {
    let untaken = u32::try_from(UNTAKEN.as_millis()).unwrap_or(u32::MAX);
    stream.set_nodelay(true)?;
    set_tcp_user_timeout(&stream, untaken)?;
    let is_peer = timeout(PREFACE_TIME, muster_raft::is_peer(&mut stream)).await??;
    let server = if is_peer { peers } else { clients };
    // One that is behind with others does not make this one wait for ever, nor its file.
    let _ = timeout(PREFACE_TIME, server.send(stream.into_std()?)).await?; // a server that is gone serves nobody
    Ok(())
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

    /// A connection that a client began with some bytes.
    async fn pair(first: &[u8]) -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(first).await.unwrap();
        let (accept, _peers, clients) = sort(listener);
        let mut clients = Box::pin(clients.connections());
        let connection = tokio::select! {
            () = accept => unreachable!(),
            connection = clients.next() => connection.unwrap().unwrap(),
        };
        (client, connection)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_preface_is_ended_however_slowly_it_talks() {
        let (_client, mut connection) = pair(&[0; PREFACE_BYTES - 1]).await;
        let mut all = Vec::new();
        let error = connection.read_to_end(&mut all).await.unwrap_err();
        assert_eq!((error.kind(), all.len()), (io::ErrorKind::TimedOut, PREFACE_BYTES - 1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_at_all_is_let_go_and_keeps_nobody_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accept, _peers, clients) = sort(listener);
        let accept = tokio::spawn(accept);
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(b"GET").await.unwrap();
        let mut taken = Box::pin(clients.connections()).next().await.unwrap().unwrap();
        let mut first = [0; 3];
        taken.read_exact(&mut first).await.unwrap();
        assert_eq!(first, *b"GET");
        assert_eq!(silent.read(&mut first).await.unwrap(), 0, "its connection is ended");
        accept.abort();
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
        let (_client, connection) = pair(b"P").await;
        let set = rustix::net::sockopt::tcp_user_timeout(&connection.stream).unwrap();
        assert_eq!(Duration::from_millis(set.into()), UNTAKEN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_a_preface_may_be_silent() {
        let (_client, mut connection) = pair(&[0; PREFACE_BYTES]).await;
        connection.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        let silence = tokio::time::timeout(10 * PREFACE_TIME, connection.read_u8()).await;
        assert!(silence.is_err(), "{silence:?}");
    }
}
