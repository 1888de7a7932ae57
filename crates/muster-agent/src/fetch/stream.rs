//! Bytes on their way: from a file or a server to whoever writes them, on a thread that may block.

use super::{MODE, http::told, mode_of, place::User};
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming, header};
use muster_image::{Digest, Hasher};
use rustix::{
    fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid, openat2},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, Weak},
    thread,
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

/// Pieces of a body that may wait to be written.
const WAITING_MAX: usize = 8;

/// Something whose bytes can be read.
pub(super) struct Opened {
    /// How many there will be, as far as that is known.
    pub(super) bytes: Option<u64>,
    /// The mode of a copy of it.
    pub(super) mode: u32,
    pub(super) read: Box<dyn Read + Send>,
}

/// What goes wrong with reading, in words that need no others.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Told(pub(super) String);

impl From<Told> for io::Error {
    fn from(told: Told) -> Self {
        Self::other(told)
    }
}

/// Kept by who waits for something; who does it on another thread has the mark.
pub(super) struct Alive(Arc<()>);

/// Tells whether anybody waits.
#[derive(Debug, Clone)]
pub(super) struct Mark(Weak<()>);

impl Alive {
    pub(super) fn new() -> Self {
        Self(Arc::new(()))
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(Arc::downgrade(&self.0))
    }
}

/// A file that is read for as long as anybody waits for it.
#[derive(Debug)]
pub(super) struct Watched {
    file: File,
    mark: Mark,
}

impl Watched {
    pub(super) fn new(file: File, mark: Mark) -> Self {
        Self { file, mark }
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.mark.0.strong_count() {
            0 => Err(Told(GIVEN_UP.into()).into()),
            _ => self.file.read(buffer),
        }
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

const GIVEN_UP: &str = "it was given up";

/// Opens a regular file of this machine as a user would, if not as the agent's.
pub(super) fn open_as(path: &Path, user: User) -> Result<File, String> {
    // A pipe would keep us waiting.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // What this process has open is not that user's, though the kernel lets each thread through to it.
    let none = ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(CWD, path, flags, Mode::empty(), none).map_err(io::Error::from);
    let opened = match user {
        None => open(),
        Some((uid, gid)) => thread::scope(|scope| {
            let as_user = move || {
                // Of a thread of its own, which ends with it. Only the effective ids: by the real ones that user could
                // signal this process.
                set_thread_groups(&[])?;
                set_thread_res_gid(None, Gid::from_raw(gid), None)?;
                set_thread_res_uid(None, Uid::from_raw(uid), None)?;
                open()
            };
            let opened = thread::Builder::new().name("open-as".into()).spawn_scoped(scope, as_user)?;
            opened.join().unwrap_or_else(|_| Err(io::Error::other("the thread that opens it died")))
        }),
    };
    let file = File::from(opened.map_err(|error| error.to_string())?);
    match file.metadata().map_err(|error| error.to_string())?.is_file() {
        true => Ok(file),
        false => Err("is no regular file".into()),
    }
}

pub(super) fn from_file(file: File, mark: Mark) -> Result<Opened, String> {
    let about = file.metadata().map_err(|error| error.to_string())?;
    let mode = mode_of(&file).map_err(|error| error.to_string())?;
    Ok(Opened { bytes: Some(about.len()), mode, read: Box::new(Watched::new(file, mark)) })
}

/// What is read comes from the pump, for as long as that runs.
pub(super) fn from_server(response: Response<Incoming>) -> (Opened, Pump) {
    let length = response.headers().get(header::CONTENT_LENGTH);
    let bytes = length.and_then(|it| it.to_str().ok()?.parse().ok());
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let read = Box::new(Pumped { receiver, piece: Bytes::new(), ended: false });
    (Opened { bytes, mode: MODE, read }, Pump { body: response.into_body(), sender })
}

enum Piece {
    Bytes(Bytes),
    End,
    Failed(String),
}

/// Carries a body from the runtime to a thread that may block.
pub(super) struct Pump {
    body: Incoming,
    sender: mpsc::Sender<Piece>,
}

impl Pump {
    /// Until the body ends, or nobody reads it any more.
    async fn run(self) {
        let Self { mut body, sender } = self;
        loop {
            let piece = match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Piece::Bytes(bytes),
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => {
                    Piece::Failed(format!("the server ended before all was there: {}", told(&error)))
                }
                None => Piece::End,
            };
            let is_last = !matches!(piece, Piece::Bytes(_));
            if sender.send(piece).await.is_err() || is_last {
                return;
            }
        }
    }
}

/// Waits for what another thread does with a body, and carries that there.
pub(super) async fn carried<T>(pump: Option<Pump>, mut work: JoinHandle<T>) -> Result<T, JoinError> {
    if let Some(pump) = pump {
        tokio::select! {
            done = &mut work => return done,
            () = pump.run() => {}
        }
    }
    work.await
}

struct Pumped {
    receiver: mpsc::Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

impl Read for Pumped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.piece = bytes,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(why)) => return Err(Told(why).into()),
                None => return Err(Told(GIVEN_UP.into()).into()),
            }
        }
        let read = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}

/// Reads no more than is allowed, and ends only when it was what it had to be.
pub(super) struct Checked {
    inner: Box<dyn Read + Send>,
    bytes: u64,
    bytes_max: u64,
    sha256: Option<(Hasher, Digest)>,
}

impl Checked {
    pub(super) fn of(opened: Opened, bytes_max: u64, sha256: Option<Digest>) -> Result<Opened, String> {
        if opened.bytes.is_some_and(|bytes| bytes > bytes_max) {
            return Err(too_long(bytes_max));
        }
        let sha256 = sha256.map(|digest| (Hasher::default(), digest));
        let read = Self { inner: opened.read, bytes: 0, bytes_max, sha256 };
        Ok(Opened { read: Box::new(read), ..opened })
    }
}

fn too_long(bytes_max: u64) -> String {
    format!("it has more than {} MB, the limit of this agent (fetch-mb-max)", bytes_max >> 20)
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        if self.bytes > self.bytes_max {
            return Err(Told(too_long(self.bytes_max)).into());
        }
        if let Some((hasher, _)) = &mut self.sha256 {
            hasher.update(&buffer[..read]);
        }
        if read == 0
            && !buffer.is_empty()
            && let Some((hasher, expected)) = self.sha256.take()
        {
            let found = hasher.finish();
            if found != expected {
                let why =
                    format!("its digest is {found}, and {expected} is named: it was changed or is damaged");
                return Err(Told(why).into());
            }
        }
        Ok(read)
    }
}
