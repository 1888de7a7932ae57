//! Connections that come in: of clients as many as leave this master files enough to do its own work and to hear the other
//! masters, whose connections are kept apart, so that nobody has to wait behind the others'.

use futures::{Stream, StreamExt};
use muster_raft::{Caller, caller};
use rustix::{
    net::{RecvFlags, recv, sockopt::set_tcp_user_timeout},
    process::{Resource, getrlimit},
};
use std::{
    future::Future,
    io,
    os::fd::AsRawFd,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::{Semaphore, mpsc},
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Files that are never a client's: the log's and the snapshots', connections to the other masters, look-ups of names.
/// A master that cannot open those ends. (etcd keeps 150 for itself, and ends its clients' at the rest.)
const KEPT: u64 = 64;

/// Of these so many are nobody's who dials this master, other masters included.
const KEPT_ALWAYS: u64 = KEPT / 2;

/// So many connections that take one of those, and have said nothing yet, may be asked at once who they are. Who calls as a
/// master does so at once.
const ASKED: usize = 16;
/// How long one may take to say so.
const ASKED_TIME: Duration = Duration::from_millis(500);

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

/// Connections by who opened them.
#[derive(Debug)]
pub(crate) struct ByCaller<T> {
    pub(crate) peers: T,
    pub(crate) links: T,
    pub(crate) clients: T,
}

/// Where connections go.
type Servers = ByCaller<mpsc::Sender<std::net::TcpStream>>;

/// Accepts connections for as long as the future is polled and sorts them by who opened them. One of a client that would
/// take a file of those that are kept is ended, so that it dials another master.
pub(crate) fn sort(listener: TcpListener) -> (impl Future<Output = ()>, ByCaller<Sorted>) {
    let ((peers, peers_out), (links, links_out), (clients, clients_out)) =
        (mpsc::channel(SORTED_MAX), mpsc::channel(SORTED_MAX), mpsc::channel(SORTED_MAX));
    let servers = Arc::new(Servers { peers, links, clients });
    let accept = async move {
        let (turned_away, asked) = (Arc::new(TurnedAway::default()), Arc::new(Semaphore::new(ASKED)));
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
            let (takes_kept, first) = (takes_of_last(&stream, KEPT), First::of(&stream));
            let asked = (takes_kept && first == First::Unsaid).then(|| asked.clone().try_acquire_owned());
            let (servers, turned_away) = (servers.clone(), turned_away.clone());
            if takes_kept && (first == First::OfClient || matches!(asked, Some(Err(_))))
                || takes_of_last(&stream, KEPT_ALWAYS)
            {
                turned_away.another();
                continue;
            }
            tokio::spawn(async move {
                let room = if takes_kept { Room::OfMasters(&turned_away) } else { Room::Any };
                let passed = pass(stream, &servers, room).await;
                drop(asked);
                if let Err(error) = passed {
                    tracing::debug!(%error, "a connection ended before it began");
                }
            });
        }
    };
    (accept, ByCaller { peers: Sorted(peers_out), links: Sorted(links_out), clients: Sorted(clients_out) })
}

/// What there is room for.
#[derive(Clone, Copy)]
enum Room<'a> {
    Any,
    /// Clients are turned away.
    OfMasters(&'a TurnedAway),
}

/// Hands a connection to the server that it is for.
async fn pass(mut stream: TcpStream, servers: &Servers, room: Room<'_>) -> io::Result<()> {
    let untaken = u32::try_from(UNTAKEN.as_millis()).unwrap_or(u32::MAX);
    stream.set_nodelay(true)?;
    set_tcp_user_timeout(&stream, untaken)?;
    let caller = match room {
        Room::Any => timeout(PREFACE_TIME, caller(&mut stream)).await??,
        Room::OfMasters(turned_away) => match timeout(ASKED_TIME, caller(&mut stream)).await {
            Ok(Ok(caller @ (Caller::Peer | Caller::Link))) => caller,
            _ => {
                turned_away.another();
                return Ok(());
            }
        },
    };
    let server = match caller {
        Caller::Peer => &servers.peers,
        Caller::Link => &servers.links,
        Caller::Client => &servers.clients,
    };
    // One that is behind with others does not make this one wait for ever, nor its file.
    let _ = timeout(PREFACE_TIME, server.send(stream.into_std()?)).await?; // a server that is gone serves nobody
    Ok(())
}

/// A new file has the lowest number that is free: with one this high, hardly any others are.
fn takes_of_last(stream: &TcpStream, count: u64) -> bool {
    let number = u64::try_from(stream.as_raw_fd()).unwrap_or(u64::MAX);
    // Asked each time: a limit may be changed from outside.
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    number >= limit.saturating_sub(count)
}

/// What is there of what a connection says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Unsaid,
    /// It may be a master's.
    Hail,
    OfClient,
}

impl First {
    /// Without waiting for it, and without taking it.
    fn of(stream: &TcpStream) -> Self {
        let mut first = [0];
        match recv(stream, &mut first, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((1.., _)) if muster_raft::may_be_hail(first[0]) => Self::Hail,
            Ok(_) => Self::OfClient,
            Err(_) => Self::Unsaid,
        }
    }
}

/// Clients that were turned away and not told of yet, and when some were.
#[derive(Default)]
struct TurnedAway(Mutex<(u64, Option<Instant>)>);

impl TurnedAway {
    fn another(&self) {
        let (count, said) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        if said.is_some_and(|said| said.elapsed() < SAID) {
            return;
        }
        tracing::warn!(
            count,
            "connections were turned away: they would take the last files that this master may open; raise its limit \
             of open files"
        );
        (*count, *said) = (0, Some(Instant::now()));
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
        let (accept, sorted) = sort(listener);
        let mut clients = Box::pin(sorted.clients.connections());
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
        let (accept, sorted) = sort(listener);
        let accept = tokio::spawn(accept);
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(b"GET").await.unwrap();
        let mut taken = Box::pin(sorted.clients.connections()).next().await.unwrap().unwrap();
        let mut first = [0; 3];
        taken.read_exact(&mut first).await.unwrap();
        assert_eq!(first, *b"GET");
        assert_eq!(silent.read(&mut first).await.unwrap(), 0, "its connection is ended");
        accept.abort();
    }

    #[tokio::test]
    async fn masters_alone_are_let_in_where_files_are_kept_for_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ((peers, mut peers_out), (links, mut links_out), (clients, mut clients_out)) =
            (mpsc::channel(1), mpsc::channel(1), mpsc::channel(1));
        let (servers, turned_away) = (Servers { peers, links, clients }, TurnedAway::default());
        for (first, expected) in [
            ("muster peer v1\r\n", [true, false, false]),
            ("muster link v1\r\n", [false, true, false]),
            ("PRI * HTTP/2.0\r\n", [false; 3]),
            ("muster peer v7\r\n", [false; 3]),
        ] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.write_all(first.as_bytes()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            pass(stream, &servers, Room::OfMasters(&turned_away)).await.unwrap();
            let taken = [&mut peers_out, &mut links_out, &mut clients_out].map(|out| out.try_recv().is_ok());
            assert_eq!(taken, expected, "{first:?}");
        }
        // The first was told of.
        assert_eq!(turned_away.0.lock().unwrap().0, 1);
    }

    #[tokio::test]
    async fn what_is_said_first_is_seen_and_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (first, expected) in [
            ("", First::Unsaid),
            ("muster link v1\r\n", First::Hail),
            ("PRI * HTTP/2.0\r\n", First::OfClient),
        ] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.write_all(first.as_bytes()).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            if !first.is_empty() {
                stream.readable().await.unwrap();
            }
            assert_eq!(First::of(&stream), expected);
            drop(client);
            let mut left = String::new();
            stream.read_to_string(&mut left).await.unwrap();
            assert_eq!(left, first);
            assert_eq!(First::of(&stream), First::OfClient, "who is gone is no master");
        }
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
