//! The agent's end of sessions: commands that are run beside a task for who looks into it, and the terminals of tasks
//! themselves.
//!
//! Each has a connection of its own to the task's supervisor, and ends with it. So what a session writes and is given
//! passes nothing that tasks depend on, who does not read holds up that session alone, and no session outlives its agent.
//!
//! # Laws
//! - Whoever launched a session is waited for; others that listen are cut off when they do not read.
//! - What is over is known for a while, up to a limit.
//! - Who joined the terminal of a task itself is heard and told over a connection of its own, and nobody else is concerned.

mod attach;
mod listening;

pub(crate) use listening::Listening;

use crate::supervisor::{Found, Frames, FromSupervisor, Place, SessionSpec, ToSupervisor, encode};
use listening::Mouth;
use muster_model::LaunchNumber;
use muster_node::Process;
use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::timeout,
};

/// Sessions of this agent at once.
const SESSIONS_MAX: usize = 256;
/// Those that are over and known.
const OVER_MAX: usize = 256;
/// How long a supervisor may take until the command runs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pieces that wait to be read, and to be given.
const WAITING_MAX: usize = 8;
/// Pieces that wait for one who listens beside who launched it.
const LISTENED_MAX: usize = 64;
/// Who may listen to one session beside who launched it.
const LISTENERS_MAX: usize = 16;
/// Bytes of input that are handed on at once.
const PIECE_BYTES: usize = 16 << 10;

/// What a session wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// To standard error.
    pub(crate) is_error: bool,
    pub(crate) bytes: Vec<u8>,
}

/// Why there is no session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotLaunched {
    /// There is one of this name.
    InUse,
    TooMany,
    /// In words.
    Failed(String),
}

/// All sessions of this agent.
#[derive(Debug, Clone)]
pub(crate) struct Sessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The runtime directory: a socket's whole path may be longer than an address can be.
    runtime: File,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    all: BTreeMap<String, Arc<Session>>,
    /// Those that are over, the oldest first.
    over: VecDeque<String>,
}

/// A session that is there, or was.
#[derive(Debug)]
pub(crate) struct Session {
    input: mpsc::Sender<ToSupervisor>,
    /// How it ended; none while it has not.
    ended: watch::Sender<Option<Found>>,
    listeners: Mutex<Vec<Mouth>>,
}

impl Sessions {
    pub(crate) fn new(place: &Place) -> io::Result<Self> {
        let runtime = File::open(&place.runtime)?;
        Ok(Self(Arc::new(Shared { runtime, known: Mutex::default() })))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Session>> {
        self.known().all.get(name).cloned()
    }

    /// Forgets one that is over.
    pub(crate) fn forget(&self, name: &str) {
        let mut known = self.known();
        if known.all.get(name).is_some_and(|session| session.ended().is_some()) {
            known.all.remove(name);
            known.over.retain(|over| over != name);
        }
    }

    /// Runs a command beside the process of a launch. It ends when nobody reads what it writes any more.
    pub(crate) async fn launch(
        &self,
        name: &str,
        launch: LaunchNumber,
        process: &Process,
        what: SessionSpec,
    ) -> Result<Listening, NotLaunched> {
        let (input, given) = mpsc::channel(WAITING_MAX);
        let (ended, _) = watch::channel(None);
        let session = Arc::new(Session { input, ended, listeners: Mutex::default() });
        self.reserve(name, &session)?;
        // Whatever becomes of this call, the session is over then.
        let mut place = Reserved { sessions: self.clone(), name: name.to_owned(), session, is_kept: false };
        let what = ToSupervisor::Session(Box::new(what));
        let (ear, write) = self.begin(launch, process, what).await.map_err(NotLaunched::Failed)?;
        place.is_kept = true;
        let (mouth, listening) = Mouth::new(WAITING_MAX, None);
        tokio::spawn(give(given, write, place.session.ended.subscribe()));
        tokio::spawn(carry(ear, mouth.outputs, place));
        Ok(listening)
    }

    fn reserve(&self, name: &str, session: &Arc<Session>) -> Result<(), NotLaunched> {
        let mut known = self.known();
        if known.all.get(name).is_some_and(|other| other.ended().is_none()) {
            return Err(NotLaunched::InUse);
        }
        known.over.retain(|over| over != name);
        if known.all.len() - known.over.len() >= SESSIONS_MAX {
            return Err(NotLaunched::TooMany);
        }
        known.all.insert(name.to_owned(), session.clone());
        Ok(())
    }

    /// Asks the supervisor, and waits until it says that it is done: a command runs, say.
    async fn begin(
        &self,
        launch: LaunchNumber,
        process: &Process,
        what: ToSupervisor,
    ) -> Result<(Ear, OwnedWriteHalf), String> {
        let begun = timeout(PATIENCE, self.begin_at_once(launch, process, what)).await;
        begun.unwrap_or_else(|_| Err("the task's supervisor does not answer".into()))
    }

    async fn begin_at_once(
        &self,
        launch: LaunchNumber,
        process: &Process,
        what: ToSupervisor,
    ) -> Result<(Ear, OwnedWriteHalf), String> {
        let lost = |error: io::Error| format!("the task's supervisor cannot be asked: {error}");
        let name = Place::socket_name(launch, process.pid);
        let path = format!("/proc/self/fd/{}/{name}", self.0.runtime.as_raw_fd());
        let (read, mut write) = UnixStream::connect(path).await.map_err(lost)?.into_split();
        let mut ear = Ear { read, frames: Frames::default() };
        match ear.hear().await.map_err(lost)? {
            Some(FromSupervisor::Here { launch: answered, pid, start_time, .. })
                if (answered, pid, start_time) == (launch, process.pid, process.start_time) => {}
            _ => return Err("the task's supervisor is gone".into()),
        }
        let frame = encode(&what).map_err(lost)?;
        write.write_all(&frame).await.map_err(lost)?;
        match ear.hear().await.map_err(lost)? {
            Some(FromSupervisor::SessionRuns) => Ok((ear, write)),
            Some(FromSupervisor::SessionEnded(Found::Failed(why))) => Err(why),
            _ => Err("the task has ended, or its supervisor is of a version that cannot do this".into()),
        }
    }

    /// One of this name is over.
    fn over(&self, name: &str, session: &Arc<Session>, found: Found) {
        let mut known = self.known();
        session.ended.send_replace(Some(found));
        session.listeners().clear();
        if known.all.get(name).is_some_and(|it| Arc::ptr_eq(it, session)) {
            known.over.push_back(name.to_owned());
        }
        if known.over.len() > OVER_MAX
            && let Some(oldest) = known.over.pop_front()
        {
            known.all.remove(&oldest);
        }
    }
}

impl Session {
    fn listeners(&self) -> MutexGuard<'_, Vec<Mouth>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Found> {
        self.ended.borrow().clone()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self) -> Found {
        let mut ended = self.ended.subscribe();
        let found = ended.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
        found.unwrap_or_else(killed) // its sender is this
    }

    /// What it writes from now on, for as long as that is read. None: too many listen, or it is over.
    pub(crate) fn listen(&self) -> Option<Listening> {
        let mut listeners = self.listeners();
        listeners.retain(|it| !it.outputs.is_closed());
        if listeners.len() >= LISTENERS_MAX || self.ended().is_some() {
            return None;
        }
        let (mouth, listening) = Mouth::new(LISTENED_MAX, None);
        listeners.push(mouth);
        Some(listening)
    }

    /// Hands bytes to its standard input, when there is room; none end it. False: it is over.
    pub(crate) async fn give(&self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return self.say(ToSupervisor::Input(Vec::new())).await;
        }
        for piece in bytes.chunks(PIECE_BYTES) {
            if !self.say(ToSupervisor::Input(piece.to_vec())).await {
                return false;
            }
        }
        true
    }

    pub(crate) async fn resize(&self, rows: u16, columns: u16) -> bool {
        self.say(ToSupervisor::Resize { rows, columns }).await
    }

    async fn say(&self, message: ToSupervisor) -> bool {
        let mut ended = self.ended.subscribe();
        let sent = tokio::select! {
            sent = self.input.send(message) => sent.is_ok(),
            _ = ended.wait_for(Option::is_some) => false,
        };
        sent
    }

    /// Signals its process group. False: it is over, or does not take what it was given before.
    pub(crate) fn signal(&self, signal: i32) -> bool {
        if signal != rustix::process::Signal::KILL.as_raw() {
            return self.ended().is_none() && self.input.try_send(ToSupervisor::Signal(signal)).is_ok();
        }
        // Not behind what it was given: its connection goes, and so does it.
        self.ended.send_if_modified(|ended| match ended {
            Some(_) => false,
            None => {
                *ended = Some(killed());
                true
            }
        })
    }
}

fn killed() -> Found {
    Found::Signaled(rustix::process::Signal::KILL.as_raw())
}

/// A place among the known, which knows what becomes of it.
struct Reserved {
    sessions: Sessions,
    name: String,
    session: Arc<Session>,
    /// It began, and stays known when it is over.
    is_kept: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let found = self.session.ended().unwrap_or_else(killed);
        self.sessions.over(&self.name, &self.session, found);
        if !self.is_kept {
            self.sessions.forget(&self.name);
        }
    }
}

/// Hears a supervisor.
struct Ear {
    read: OwnedReadHalf,
    frames: Frames,
}

impl Ear {
    /// The next message; none when the other side is gone. May be dropped while it waits.
    async fn hear(&mut self) -> io::Result<Option<FromSupervisor>> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(Some(message));
            }
            let mut bytes = [0; 16 << 10];
            match self.read.read(&mut bytes).await? {
                0 => return Ok(None),
                n => self.frames.push(&bytes[..n]),
            }
        }
    }
}

/// Carries what a session writes to who launched it, until either is gone.
async fn carry(mut ear: Ear, output: mpsc::Sender<Output>, place: Reserved) {
    let session = place.session.clone();
    let mut ended = session.ended.subscribe();
    let found = loop {
        let heard = tokio::select! {
            heard = ear.hear() => heard,
            () = output.closed() => break killed(),
            _ = ended.wait_for(Option::is_some) => break killed(),
        };
        match heard {
            Ok(Some(FromSupervisor::Output { is_error, bytes })) => {
                let piece = Output { is_error, bytes };
                session.listeners().retain(|it| {
                    let is_heard = it.outputs.try_send(piece.clone()).is_ok();
                    if !is_heard {
                        it.cut();
                    }
                    is_heard
                });
                tokio::select! {
                    sent = output.send(piece) => if sent.is_err() { break killed() },
                    _ = ended.wait_for(Option::is_some) => break killed(),
                }
            }
            Ok(Some(FromSupervisor::SessionEnded(found))) => break found,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break killed(), // its task has ended
        }
    };
    session.ended.send_if_modified(|ended| ended.is_none() && ended.replace(found).is_none());
}

/// Carries what a session is given, until it is over.
async fn give(
    mut given: mpsc::Receiver<ToSupervisor>,
    mut write: OwnedWriteHalf,
    mut ended: watch::Receiver<Option<Found>>,
) {
    let carried = async {
        while let Some(message) = given.recv().await {
            write.write_all(&encode(&message)?).await?;
        }
        Ok::<_, io::Error>(())
    };
    tokio::select! {
        _ = carried => {} // the other half says that it is over
        _ = ended.wait_for(Option::is_some) => {}
    }
}
