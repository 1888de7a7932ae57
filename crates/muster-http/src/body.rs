//! Bodies that are written piece by piece, on a thread that may block, while the client reads.
//!
//! A short answer becomes one piece, with its length; a long one is never whole in memory. A body that cannot be ended
//! is broken off, so that no client takes a part for the whole.

use crate::answer::{plain, unavailable};
use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Response, StatusCode, header};
use std::{
    io::{self, BufWriter, Write},
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

/// The size of a piece, in bytes.
const PIECE: usize = 64 << 10;
/// Pieces that wait for the client to read.
const PIECES: usize = 4;
/// What is shorter is not compressed, in bytes (Mesos).
const GZIP_BYTES_MIN: usize = 1_024;
/// Bodies that are written at a time. Each has a thread, and a registry as it was.
const WRITERS: usize = 64;
/// How long a client may take to read a piece.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// Bounds how many bodies are written at a time.
#[derive(Debug, Clone)]
pub struct Writers {
    turns: Arc<Semaphore>,
    /// Of the threads that write them, so many run at a time, piece by piece in turn: what does the real work is left half
    /// of the processors, however many read.
    running: Arc<Semaphore>,
}

impl Default for Writers {
    fn default() -> Self {
        let half = std::thread::available_parallelism().map_or(1, |count| count.get().div_ceil(2));
        Self { turns: Arc::new(Semaphore::new(WRITERS)), running: Arc::new(Semaphore::new(half)) }
    }
}

/// How a body is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrapped {
    /// The client can unpack it.
    pub gzip: bool,
    /// The function that the client wants it handed to, as a script.
    pub jsonp: Option<String>,
}

struct Piece {
    bytes: Bytes,
    is_last: bool,
    is_packed: bool,
}

/// All turns are taken.
pub fn too_many() -> Response<Body> {
    unavailable("Too many read at once: try again")
}

impl Writers {
    /// Waits for a turn, but not for long.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turn = tokio::time::timeout(TURN, self.turns.clone().acquire_owned()).await;
        turn.ok().and_then(Result::ok)
    }

    /// What `work` comes to, which may take long, on a thread that may block. None when all turns are taken.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = self.turn().await?;
        let (runtime, all) = (Handle::current(), self.running.clone());
        let done = tokio::task::spawn_blocking(move || {
            let (_turn, _running) = (turn, Running::begin(&runtime, all));
            work()
        });
        match done.await {
            Ok(done) => Some(done),
            Err(error) => error.try_into_panic().map(|panic| std::panic::resume_unwind(panic)).ok(),
        }
    }

    /// Answers with what `write` writes. Its first error ends the body.
    pub async fn answer<W>(&self, kind: &'static str, wrapped: Wrapped, write: W) -> Response<Body>
    where
        W: FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    {
        let Some(turn) = self.turn().await else { return too_many() };
        let kind = if wrapped.jsonp.is_some() { "text/javascript" } else { kind };
        let (to, mut pieces) = mpsc::channel(PIECES);
        let (runtime, all) = (Handle::current(), self.running.clone());
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let running = Running::begin(&runtime, all);
            let pieces_out = Pieces { to, runtime, running, is_packed: false, gathered: Vec::new() };
            // A client that went, or does not read, is nobody to tell of it.
            let _ = written(pieces_out, wrapped, write);
        });
        let (Some(first), second) = (pieces.recv().await, pieces.recv().await) else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "The answer could not be written");
        };
        let is_packed = first.is_packed;
        let body = match second {
            None if first.is_last => Body::from(first.bytes),
            second => Body::from_stream(stream(first, second, pieces)),
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if is_packed {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// The pieces as they come. One that ends before its last piece is an error to whoever reads.
fn stream(
    first: Piece,
    second: Option<Piece>,
    pieces: mpsc::Receiver<Piece>,
) -> impl futures::Stream<Item = io::Result<Bytes>> {
    let ready = [Some(first), second].into_iter().flatten().collect::<std::collections::VecDeque<_>>();
    futures::stream::unfold(Some((ready, pieces)), |state| async move {
        let (mut ready, mut pieces) = state?;
        let next = match ready.pop_front() {
            Some(piece) => Some(piece),
            None => pieces.recv().await,
        };
        match next {
            Some(piece) if piece.is_last => Some((Ok(piece.bytes), None)),
            Some(piece) => Some((Ok(piece.bytes), Some((ready, pieces)))),
            None => Some((Err(io::Error::other("the answer broke off")), None)),
        }
    })
}

fn written<W>(pieces: Pieces, wrapped: Wrapped, write: W) -> io::Result<()>
where
    W: FnOnce(&mut dyn Write) -> io::Result<()>,
{
    let mut out = Out::Gathering { bytes: Vec::new(), pieces, gzip: wrapped.gzip };
    if let Some(function) = &wrapped.jsonp {
        write!(out, "{function}(")?;
    }
    write(&mut out)?;
    if wrapped.jsonp.is_some() {
        out.write_all(b")")?;
    }
    out.end()
}

/// The way out: packed or not is decided when there is enough to be worth it.
enum Out {
    Gathering { bytes: Vec<u8>, pieces: Pieces, gzip: bool },
    Plain(Pieces),
    Packed(Box<BufWriter<GzEncoder<Pieces>>>),
    Broken,
}

impl Out {
    /// Opens the way, if it is not open yet.
    fn open(&mut self) -> io::Result<()> {
        let (bytes, mut pieces, gzip) = match std::mem::replace(self, Self::Broken) {
            Self::Gathering { bytes, pieces, gzip } => (bytes, pieces, gzip),
            open => {
                *self = open;
                return Ok(());
            }
        };
        pieces.is_packed = gzip && bytes.len() >= GZIP_BYTES_MIN;
        *self = match pieces.is_packed {
            true => Self::Packed(Box::new(BufWriter::new(GzEncoder::new(pieces, Compression::fast())))),
            false => Self::Plain(pieces),
        };
        self.write_all(&bytes)
    }

    fn end(mut self) -> io::Result<()> {
        self.open()?;
        match self {
            Self::Plain(pieces) => pieces.end(),
            Self::Packed(packed) => {
                packed.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?.end()
            }
            Self::Gathering { .. } | Self::Broken => Err(io::Error::other("it broke before")),
        }
    }
}

impl Write for Out {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gathering { bytes, .. } if bytes.len() + data.len() < GZIP_BYTES_MIN => {
                bytes.extend_from_slice(data);
                Ok(data.len())
            }
            Self::Gathering { bytes, .. } => {
                bytes.extend_from_slice(data);
                self.open()?;
                Ok(data.len())
            }
            Self::Plain(pieces) => pieces.write(data),
            Self::Packed(packed) => packed.write(data),
            Self::Broken => Err(io::Error::other("it broke before")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Leave to run, given back while the client is waited for.
struct Running {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Running {
    fn begin(runtime: &Handle, all: Arc<Semaphore>) -> Self {
        let mut it = Self { all, held: None };
        it.go_on(runtime);
        it
    }

    /// Waits behind all who asked before; not for one that a disk keeps.
    fn go_on(&mut self, runtime: &Handle) {
        let leave = self.all.clone().acquire_owned();
        let leave = runtime.block_on(async { tokio::time::timeout(TURN, leave).await });
        self.held = leave.ok().and_then(Result::ok); // it is never closed
    }

    fn pause(&mut self) {
        self.held = None;
    }
}

/// Gathers bytes into pieces, and waits for the client to take them.
struct Pieces {
    to: mpsc::Sender<Piece>,
    runtime: Handle,
    running: Running,
    is_packed: bool,
    gathered: Vec<u8>,
}

/// Waits for a client to take something, on a thread that may block.
pub fn send<T>(runtime: &Handle, to: &mpsc::Sender<T>, it: T) -> io::Result<()> {
    let sent = runtime.block_on(to.send_timeout(it, PATIENCE));
    sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client does not read"))
}

impl Pieces {
    fn send(&mut self, is_last: bool) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.gathered).into();
        self.running.pause();
        send(&self.runtime, &self.to, Piece { bytes, is_last, is_packed: self.is_packed })?;
        if !is_last {
            self.running.go_on(&self.runtime);
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        self.send(true)
    }
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(data.len().max(1_024));
        }
        self.gathered.extend_from_slice(data);
        if self.gathered.len() >= PIECE {
            self.send(false)?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use http_body_util::BodyExt;
    use std::io::Read;

    async fn answer(length: usize, wrapped: Wrapped) -> (Response<()>, Bytes) {
        let write = move |out: &mut dyn Write| (0..length).try_for_each(|_| out.write_all(b"x"));
        let (head, body) = Writers::default().answer("application/json", wrapped, write).await.into_parts();
        (Response::from_parts(head, ()), body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_body_is_whole_however_long() {
        for length in [0, 1, PIECE - 1, PIECE, 10 * PIECE + 7] {
            let (head, body) = answer(length, Wrapped::default()).await;
            assert_eq!(body.len(), length);
            assert_eq!(head.headers()[header::CONTENT_TYPE], "application/json");
            assert!(!head.headers().contains_key(header::CONTENT_ENCODING));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_does_not_read_keeps_nobody_from_being_answered() {
        let writers = Writers::default();
        let long = |out: &mut dyn Write| (0..20).try_for_each(|_| out.write_all(&[b'x'; PIECE]));
        let mut unread = Vec::new();
        for _ in 0..2 * writers.running.available_permits() {
            unread.push(writers.answer("text/plain", Wrapped::default(), long).await);
        }
        for _ in 0..3 {
            let whole = writers.answer("text/plain", Wrapped::default(), long).await;
            assert_eq!(whole.into_body().collect().await.unwrap().to_bytes().len(), 20 * PIECE);
        }
        for response in unread {
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 20 * PIECE);
        }
        let all = u32::try_from(std::thread::available_parallelism().unwrap().get().div_ceil(2)).unwrap();
        drop(writers.running.acquire_many(all).await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_is_done_in_turn_and_its_panics_are_its_callers() {
        let writers = Writers::default();
        assert_eq!(writers.run(|| 1 + 1).await, Some(2));
        let its_writers = writers.clone();
        let broken = tokio::spawn(async move {
            its_writers.run(|| -> u8 { std::panic::resume_unwind(Box::new("broken")) }).await
        });
        assert!(broken.await.unwrap_err().is_panic());
        assert_eq!(writers.turns.available_permits(), WRITERS);
        let half = std::thread::available_parallelism().unwrap().get().div_ceil(2);
        assert_eq!(writers.running.available_permits(), half);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_body_worth_it_is_packed() {
        let gzip = Wrapped { gzip: true, jsonp: None };
        for length in [10, GZIP_BYTES_MIN - 1, GZIP_BYTES_MIN, 40 * PIECE] {
            let (head, body) = answer(length, gzip.clone()).await;
            let is_packed = head.headers().contains_key(header::CONTENT_ENCODING);
            assert_eq!(is_packed, length >= GZIP_BYTES_MIN, "{length}");
            let mut unpacked = Vec::new();
            match is_packed {
                true => drop(flate2::read::GzDecoder::new(&*body).read_to_end(&mut unpacked).unwrap()),
                false => unpacked.extend_from_slice(&body),
            }
            assert_eq!(unpacked, vec![b'x'; length]);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_script_calls_the_function() {
        let (head, body) = answer(3, Wrapped { gzip: false, jsonp: Some("cb".into()) }).await;
        assert_eq!(&*body, b"cb(xxx)");
        assert_eq!(head.headers()[header::CONTENT_TYPE], "text/javascript");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_cannot_be_ended_is_broken_off() {
        let write = |out: &mut dyn Write| {
            out.write_all(&vec![b'x'; 2 * PIECE])?;
            out.write_all(&vec![b'x'; PIECE])?;
            Err(io::Error::other("no more"))
        };
        let answer = Writers::default().answer("application/json", Wrapped::default(), write).await;
        assert!(answer.into_body().collect().await.is_err());
    }
}
