//! The launch helper: one small process for each agent, of which the supervisors are forked.
//!
//! A process can be forked in a fraction of a millisecond if it is small, and without an exec if it has one thread; the
//! agent is neither. So it starts the helper once, with one end of a socket as standard input, and sends it one end of a
//! new socket for each launch: whoever is forked for it is that launch's supervisor, and says all else there. The helper
//! reads nothing but descriptors and ends with its agent; supervisors do not end with it.
//!
//! Its standard output is a file that the agent has locked. The lock lasts as long as anybody has it: the agent, the
//! helper, and each supervisor until its socket is in the runtime directory. So an agent that has the lock knows of all
//! supervisors that former agents asked for, and none of them makes or ends anything behind its back.

use super::{Ending, FromSupervisor, encode, supervise::supervise, sys};
use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::setsid,
};
use std::{
    fs::OpenOptions,
    io::{self, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

/// The first argument that makes an executable which runs agents their launch helper: it then calls [`helper_main`] and
/// nothing else.
pub const LAUNCH_HELPER: &str = "launch-helper";

/// The argument after that which makes it process 1 of a container instead.
pub(super) const PAUSE: &str = "pause";

/// The main function of the hidden `launch-helper` subcommand, with a socket to the agent as standard input and the lock as
/// standard output. It must be called from a process with one thread, in which little has happened: all that it holds, each supervisor holds too.
/// `begin` is called in each supervisor, before anything else; false ends it.
pub fn helper_main(begin: impl FnOnce() -> bool) -> ExitCode {
    if std::env::args_os().nth(2).is_some_and(|argument| argument == PAUSE) {
        return muster_container::pause_main(std::env::args_os());
    }
    let control = match serve() {
        Ok(Some(control)) => control,
        Ok(None) => return ExitCode::SUCCESS,
        Err(_) => return ExitCode::FAILURE, // the agent sees the socket close, and starts another
    };
    // From here on this is a supervisor.
    if begin() && supervise(control).is_ok() {
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE // the agent sees the socket close without an ending
}

/// Forks a supervisor for each socket that comes. Returns in each of them with its socket, and with none once the agent
/// is gone.
fn serve() -> io::Result<Option<UnixStream>> {
    // The copy is the only one from now on, so that no supervisor has it.
    let socket = rustix::stdio::stdin().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(OpenOptions::new().read(true).write(true).open("/dev/null")?)?;
    std::env::set_current_dir("/")?; // nothing is named by a relative path, and no mount is kept busy
    let _ = setsid(); // what is typed at the agent's terminal is not for this one
    let _ = rustix::thread::set_name(c"muster-helper"); // only to be seen
    sys::default_signals()?;
    sys::forget_children()?;
    while let Some(control) = receive(socket.as_fd())? {
        let mut control = UnixStream::from(control);
        match sys::fork() {
            Ok(sys::Forked::Parent(_)) => {}
            Ok(sys::Forked::Child) => {
                sys::keep_children()?;
                return Ok(Some(control));
            }
            Err(error) => {
                let why = format!("Failed to start the task's supervisor: {error}");
                // An agent that is gone needs no reason.
                let _ = control.write_all(&encode(&FromSupervisor::Ended(Ending::StartFailed(why)))?);
            }
        }
    }
    Ok(None)
}

/// The next descriptor; none when the other side is gone.
fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    loop {
        let (mut byte, mut space) = ([0], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
        let mut received = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [IoSliceMut::new(&mut byte)];
        match recvmsg(socket, &mut bytes, &mut received, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) if message.bytes == 0 => return Ok(None),
            Ok(_) => {
                let sent = received.drain().find_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut sent) => sent.next(),
                    _ => None,
                });
                if sent.is_some() {
                    return Ok(sent);
                }
                // Too many are open here: the agent sees its end close, and asks again.
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
