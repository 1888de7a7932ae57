//! Bidirectional gRPC streams straight over HTTP/2: clients that cost little, so that a measurement is the masters'
//! and not of what makes their load. The bytes on the socket are those of any gRPC client.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use prost::Message;
use std::{io, marker::PhantomData, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
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
        let socket = timeout(CONNECT, TcpStream::connect(address)).await??;
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

/// How simulated agents come to the masters.
pub(crate) enum Dialer {
    /// Each by itself.
    Alone(Vec<String>),
    /// Over one connection to each master, made when it is needed and again when it broke.
    Together(Vec<(String, Mutex<Option<Arc<Connection>>>)>),
}

impl Dialer {
    /// For so many agents.
    pub(crate) fn new(masters: &[String], agents: u16) -> Self {
        match agents {
            1 => Self::Alone(masters.to_vec()),
            _ => Self::Together(masters.iter().map(|master| (master.clone(), Mutex::default())).collect()),
        }
    }

    /// A way to the `n`th master, counted round and round.
    pub(crate) async fn dial(&self, n: usize) -> Result<Arc<Connection>, StreamError> {
        match self {
            Self::Alone(masters) => Ok(Arc::new(Connection::dial(&masters[n % masters.len()]).await?)),
            Self::Together(slots) => {
                let (master, slot) = &slots[n % slots.len()];
                let mut slot = slot.lock().await; // held while one dials, so that all others share what it gets
                if let Some(open) = slot.as_ref().filter(|connection| connection.is_open()) {
                    return Ok(open.clone());
                }
                Ok(slot.insert(Arc::new(Connection::dial(master).await?)).clone())
            }
        }
    }
}
