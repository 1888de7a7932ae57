//! The held child: it becomes the task's command when it is told to, and ends when nobody can tell it any more.

use rustix::process::{Signal, set_parent_process_death_signal, setsid};
use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, ExitCode, Stdio},
};

/// Said once the session exists.
pub(crate) const READY: u8 = b'r';
/// The byte that releases.
pub(crate) const RELEASE: u8 = b'g';
/// Begins the reason why the command could not be run.
pub(crate) const FAILED: u8 = b'E';

/// The main function of the hidden `hold` subcommand: `PROGRAM NAME ARGUMENTS...`, with a socket as standard input,
/// and working directory, environment, standard output and error as the command shall have them.
pub fn hold_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Its exit status is looked at only before the release, where it means nothing.
    hold(args).map_or(ExitCode::from(127), |never| match never {})
}

fn hold(args: impl IntoIterator<Item = OsString>) -> io::Result<std::convert::Infallible> {
    // The copy is closed on exec; standard input itself is replaced by then.
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    setsid()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    socket.write_all(&[READY])?;
    let mut byte = [0];
    socket.read_exact(&mut byte)?; // the supervisor is gone: never run
    if byte[0] != RELEASE {
        return Err(io::Error::other("not released"));
    }
    let mut args = args.into_iter();
    let program = args.next().ok_or_else(|| io::Error::other("no program"))?;
    let arg0 = args.next().unwrap_or_else(|| program.clone());
    let error = Command::new(&program).arg0(arg0).args(args).stdin(Stdio::null()).exec();
    let message = format!("Failed to run {}: {error}", program.display());
    socket.write_all(&[FAILED])?;
    socket.write_all(message.as_bytes())?;
    Err(error)
}
