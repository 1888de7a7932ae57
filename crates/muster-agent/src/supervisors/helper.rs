//! The agent's end of the launch helper's socket.

use crate::supervisor::LAUNCH_HELPER;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
        sendmsg, socketpair,
    },
};
use std::{
    fs::File,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, PoisonError},
};
use tokio::{
    io::Interest,
    net::UnixStream,
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};
use tracing::warn;

/// How many helpers are tried for one supervisor.
const HELPERS_MAX: usize = 5;
/// Launches that may wait to be handed to the helper; more wait for room.
const ASKS_WAITING_MAX: usize = 16;

/// How the launch helper is started: `EXE ARGS...`.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The executable. It must be of the same version as the agent.
    pub exe: PathBuf,
    /// Arguments that make it call [`crate::helper_main`].
    pub args: Vec<String>,
}

impl Launcher {
    /// This executable, also when its file was replaced meanwhile, with [`LAUNCH_HELPER`] as first argument. Its main
    /// function must look for that before it starts a thread.
    pub fn this_executable() -> Self {
        Self { exe: "/proc/self/exe".into(), args: vec![LAUNCH_HELPER.into()] }
    }
}

/// The launch helper of this agent. Another is started when it is gone, and it ends when this value is dropped.
pub(super) struct Helper {
    asks: mpsc::Sender<Ask>,
    /// Not started yet.
    asked: Mutex<Option<(mpsc::Receiver<Ask>, Launcher)>>,
}

/// For a supervisor that has this end of a socket.
struct Ask {
    socket: OwnedFd,
    sent: oneshot::Sender<io::Result<()>>,
}

struct Line {
    /// Keeps messages apart, as no stream does; nothing is read from or written to it as one.
    socket: UnixStream,
    /// Reaped by the runtime whenever it ends.
    _process: Child,
}

impl Helper {
    pub(super) fn new(launcher: Launcher) -> Self {
        let (asks, asked) = mpsc::channel(ASKS_WAITING_MAX);
        Self { asks, asked: Some((asked, launcher)).into() }
    }

    /// Starts it, with this lock, so that no launch waits for that. Before this nothing can be launched.
    pub(super) async fn start(&self, lock: File) -> io::Result<()> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((asked, launcher)) = asked {
            let mut started = Started { launcher, lock, line: None };
            started.line().await?;
            tokio::spawn(started.serve(asked));
        }
        Ok(())
    }

    /// The socket of a new supervisor, which may be gone by now, as the helper may be.
    pub(super) async fn launch(&self) -> io::Result<UnixStream> {
        let gone = || io::Error::other("the launch helper is not started");
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (sent, answer) = oneshot::channel();
        self.asks.send(Ask { socket: theirs.into(), sent }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())??;
        UnixStream::from_std(ours)
    }
}

/// Who hands over what is asked for.
struct Started {
    launcher: Launcher,
    /// The same open file for each helper, so that it stays locked between them.
    lock: File,
    line: Option<Line>,
}

impl Started {
    /// Until nobody can ask any more.
    async fn serve(mut self, mut asked: mpsc::Receiver<Ask>) {
        while let Some(Ask { socket, sent }) = asked.recv().await {
            let done = self.hand_over(socket).await;
            let _ = sent.send(done); // who asked may have given up
        }
    }

    /// Sends a descriptor, whose copy here is closed then, to the helper that lives or to another.
    async fn hand_over(&mut self, socket: OwnedFd) -> io::Result<()> {
        for _ in 0..HELPERS_MAX {
            let to = &self.line().await?.socket;
            match to.async_io(Interest::WRITABLE, || send(to.as_fd(), socket.as_fd())).await {
                Err(error) if is_gone(&error) => {
                    warn!("the launch helper is gone: starting another");
                    self.line = None;
                }
                done => return done,
            }
        }
        Err(io::Error::other("the launch helper ends whenever it is started"))
    }

    async fn line(&mut self) -> io::Result<&Line> {
        let line = match self.line.take() {
            Some(line) => line,
            None => self.start().await?,
        };
        Ok(self.line.insert(line))
    }

    async fn start(&self) -> io::Result<Line> {
        let (launcher, lock) = (self.launcher.clone(), self.lock.try_clone()?);
        let started = spawn_blocking(move || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            rustix::io::ioctl_fionbio(&theirs, false)?; // the helper has nothing to do but to wait
            let mut command = Command::new(&launcher.exe);
            if let Some(name) = std::env::args_os().next() {
                command.arg0(name); // in a list of processes it says more than a path below /proc
            }
            command.args(&launcher.args);
            command.stdin(Stdio::from(theirs)).stdout(Stdio::from(lock)).stderr(Stdio::null());
            io::Result::Ok((ours, command.spawn()?))
        });
        let (ours, process) = started.await.map_err(io::Error::other)??;
        Ok(Line { socket: UnixStream::from_std(StdUnixStream::from(ours))?, _process: process })
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// One byte with a descriptor.
fn send(socket: BorrowedFd<'_>, sent: BorrowedFd<'_>) -> io::Result<()> {
    let sent = [sent];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(&sent)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(&[0])], &mut message, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            done => return Ok(done.map(drop)?),
        }
    }
}
