//! Bidirectional gRPC streams straight over HTTP/2: clients that cost little, so that a measurement is the masters'
//! and not of what makes their load. The bytes on the socket are those of any gRPC client.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use prost::Message;
use std::{
    io,
    marker::PhantomData,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Mutex,
    time::{error::Elapsed, timeout},
};

/// How much may be on its way unread.
const WINDOW_BYTES: u32 = 8 << 20;
/// The length of gRPC's prefix of each message: a flag and four bytes of length.
const PREFIX_BYTES: usize = 5;
/// No message is longer.
const MESSAGE_BYTES_MAX: usize = 2 * muster_proto::limits::FRAME_BYTES_MAX;
const CONNECT: Duration = Duration::from_secs(2);

/// Why a stream ended or could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("connect: {0}")]
    Connect(#[from] io::Error),
    #[error("no connection within 2 s")]
    Late(#[from] Elapsed),
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    #[error("the master answers with HTTP status {0}")]
    Status(http::StatusCode),
    #[error("the stream's request: {0}")]
    Request(#[from] http::Error),
    #[error("a message is damaged: {0}")]
    Damaged(String),
    /// The master said that this client did something wrong.
    #[error("refused: {0}")]
    Refused(String),
}

/// A connection to a master; streams share it.
pub(crate) struct Connection {
    address: String,
    requests: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Connection {
    /// Dials host:port. A task of its own drives the connection until its streams are gone.
    pub(crate) async fn dial(address: &str) -> Result<Self, StreamError> {
        Self::over(TcpStream::connect(address), address).await
    }

    /// The same as the host with this address, which is this one, too.
    async fn dial_from(host: Ipv4Addr, address: &str) -> Result<Self, StreamError> {
        let connect = async {
            let Ok(to) = address.parse::<SocketAddr>() else { return TcpStream::connect(address).await };
            let socket = TcpSocket::new_v4()?;
            socket.bind((host, 0).into())?;
            socket.connect(to).await
        };
        Self::over(connect, address).await
    }

    async fn over(
        connect: impl Future<Output = io::Result<TcpStream>>,
        address: &str,
    ) -> Result<Self, StreamError> {
        let socket = timeout(CONNECT, connect).await??;
        socket.set_nodelay(true)?;
        let mut http2 = h2::client::Builder::new();
        http2.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        let (requests, connection) = timeout(CONNECT, http2.handshake(socket)).await??;
        let driver = tokio::spawn(connection);
        Ok(Self { address: address.to_owned(), requests, driver })
    }

    fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Opens a stream of `/service/method`.
    pub(crate) async fn open<Up: Message, Down: Message + Default>(
        &self,
        path: &str,
    ) -> Result<Duplex<Up, Down>, StreamError> {
        let request = http::Request::post(format!("http://{}{path}", self.address))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (answer, up) = requests.send_request(request, false)?;
        let answer = answer.await?;
        if answer.status() != http::StatusCode::OK {
            return Err(StreamError::Status(answer.status()));
        }
        Ok(Duplex { up, down: answer.into_body(), unread: Bytes::new(), messages: PhantomData })
    }
}

/// A stream of messages in both directions.
pub(crate) struct Duplex<Up, Down> {
    up: SendStream<Bytes>,
    down: RecvStream,
    unread: Bytes,
    messages: PhantomData<fn(Up) -> Down>,
}

impl<Up: Message, Down: Message + Default> Duplex<Up, Down> {
    /// Queues a message. What a client has on its way is bounded by what it does at a time.
    pub(crate) fn send(&mut self, message: &Up) -> Result<(), StreamError> {
        let bytes = message.encoded_len();
        let mut frame = BytesMut::with_capacity(PREFIX_BYTES + bytes);
        frame.put_u8(0);
        frame.put_u32(bytes as u32);
        message.encode_raw(&mut frame);
        Ok(self.up.send_data(frame.freeze(), false)?)
    }

    /// The next message; none when the master ended the stream. Nothing is lost when this is not awaited to its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Down>, StreamError> {
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(message));
            }
            let Some(chunk) = self.down.data().await else { return Ok(None) };
            let chunk = chunk?;
            self.down.flow_control().release_capacity(chunk.len())?;
            self.unread = match self.unread.is_empty() {
                true => chunk,
                false => [&self.unread[..], &chunk[..]].concat().into(),
            };
        }
    }

    /// Takes a message that is there as a whole.
    pub(crate) fn whole(&mut self) -> Result<Option<Down>, StreamError> {
        let Some((prefix, rest)) = self.unread.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [0, a, b, c, d] = *prefix else {
            return Err(StreamError::Damaged("it is compressed, which was not asked for".into()));
        };
        let bytes = u32::from_be_bytes([a, b, c, d]) as usize;
        if bytes > MESSAGE_BYTES_MAX {
            return Err(StreamError::Damaged(format!("it claims to have {bytes} bytes")));
        }
        if rest.len() < bytes {
            return Ok(None);
        }
        self.unread.advance(PREFIX_BYTES);
        let message = Down::decode(self.unread.split_to(bytes));
        message.map(Some).map_err(|error| StreamError::Damaged(error.to_string()))
    }
}

/// How long a client waits before it dials again: twice as long each time that it was in vain, by chance somewhat less, as
/// the real ones do. Ten thousand that all dial as fast as they can leave masters no time to find a leader.
#[derive(Debug)]
pub(crate) struct Pause {
    next: Duration,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(2);

    /// Nothing was in vain yet.
    pub(crate) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// Waits; `served`: since the last time a leader took what this client said.
    pub(crate) async fn wait(&mut self, served: bool) {
        if served {
            self.next = Self::FIRST;
        }
        let pause = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(Self::LONGEST);
        tokio::time::sleep(pause).await;
    }
}

/// How the simulated agents of a host come to the masters: over one connection, made when one needs it and for as long as
/// one does. Each host has an address of its own, as in a real cluster: from one address alone, 28,000 connections can be made
/// to a master, and the kernel looks the longer for a free port the more there are.
pub(crate) struct Dialer {
    host: Ipv4Addr,
    masters: Vec<String>,
    /// Held while one dials, so that all others share what it gets.
    slot: Mutex<Slot>,
}

/// To which master, and the connection.
struct Slot {
    master: usize,
    connection: Weak<Connection>,
}

/// The address of the first host; all of 127.0.0.0/8 is this one.
const FIRST_HOST: u32 = u32::from_be_bytes([127, 1, 0, 0]);
const HOSTS: u32 = u32::from_be_bytes([127, 255, 0, 0]) - FIRST_HOST;

impl Dialer {
    /// For the host with this number. The master it goes to first is the one with this number, counted round and round.
    pub(crate) fn new(masters: &[String], host: usize) -> Self {
        let slot = Slot { master: host % masters.len(), connection: Weak::new() };
        let host = Ipv4Addr::from(FIRST_HOST + host as u32 % HOSTS);
        Self { host, masters: masters.to_vec(), slot: Mutex::new(slot) }
    }

    /// To which master, and a way to it, which ends when nobody holds it any more. Who comes from a master is led to another
    /// one, by chance as real agents are.
    pub(crate) async fn dial(&self, from: Option<usize>) -> (usize, Result<Arc<Connection>, StreamError>) {
        let mut slot = self.slot.lock().await;
        if from == Some(slot.master) && self.masters.len() > 1 {
            slot.master = (slot.master + rand::random_range(1..self.masters.len())) % self.masters.len();
        }
        if let Some(open) =
            slot.connection.upgrade().filter(|it| it.is_open() && it.address == self.masters[slot.master])
        {
            return (slot.master, Ok(open));
        }
        let dialled = Connection::dial_from(self.host, &self.masters[slot.master]).await.map(Arc::new);
        slot.connection = dialled.as_ref().map(Arc::downgrade).unwrap_or_default();
        (slot.master, dialled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn agents_of_a_host_share_a_connection_that_ends_with_the_last_of_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer = Dialer::new(&[listener.local_addr().unwrap().to_string()], 258);
        let master = tokio::spawn(async move {
            let (socket, from) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok(_)) = connection.accept().await {}
            (from.ip(), listener)
        });
        let dial = async |from| dialer.dial(from).await.1.unwrap();
        let (one, other) = (dial(None).await, dial(None).await);
        assert!(Arc::ptr_eq(&one, &other));
        drop(one);
        assert!(other.is_open() && !master.is_finished());
        drop(other);
        let (from, listener) = master.await.unwrap();
        assert_eq!(from, Ipv4Addr::new(127, 1, 1, 2));
        let again = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            drop(h2::server::handshake(socket).await.unwrap());
        });
        dial(Some(0)).await;
        again.await.unwrap();
    }
}
