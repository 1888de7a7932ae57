//! What the standard library has no safe call for: another process of this program, and how signals are taken. All
//! unsafe code of the crate is here.
#![allow(unsafe_code)]

use nix::{
    sys::signal::{SigHandler, Signal, signal},
    unistd::{ForkResult, fork as fork_unsafe},
};
use rustix::process::Pid;
use std::{fs, io};

/// Which of the two processes this is.
#[derive(Debug)]
pub(super) enum Forked {
    /// The one that was there, which has this child now.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Makes another process of this one, which goes on from here with copies of all there is. Refused in a process with
/// more than one thread.
pub(super) fn fork() -> io::Result<Forked> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("a process with {threads} threads cannot be forked")));
    }
    // SAFETY: What makes a fork unsafe is what other threads hold at that moment (locks of the allocator, data between
    // two states): in the child they are gone and it stays held. There is no other thread, and only this one could have
    // started one since it looked.
    match unsafe { fork_unsafe() }? {
        ForkResult::Parent { child } => {
            Pid::from_raw(child.as_raw()).map(Forked::Parent).ok_or_else(|| io::Error::other("no pid"))
        }
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// Ends this process at once: nothing is dropped or flushed, as all of it is a copy of what its parent has.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { nix::libc::_exit(code) }
}

/// Takes every signal as a process does that was told nothing, whatever the one that started this one ignores. But for
/// SIGPIPE, in the place of which a write says what is wrong.
pub(super) fn default_signals() -> io::Result<()> {
    use Signal::{SIGKILL, SIGPIPE, SIGSTOP};
    let all = Signal::iterator().filter(|it| ![SIGKILL, SIGSTOP, SIGPIPE].contains(it));
    for one in all {
        set(one, SigHandler::SigDfl)?;
    }
    Ok(())
}

/// Leaves no zombies: the kernel forgets children as they end, and how they ended.
pub(super) fn forget_children() -> io::Result<()> {
    set(Signal::SIGCHLD, SigHandler::SigIgn)
}

/// Children that end wait to be asked for again.
pub(super) fn keep_children() -> io::Result<()> {
    set(Signal::SIGCHLD, SigHandler::SigDfl)
}

fn set(which: Signal, handler: SigHandler) -> io::Result<()> {
    debug_assert!(matches!(handler, SigHandler::SigDfl | SigHandler::SigIgn));
    // SAFETY: unsafe is a handler that is a function, which runs between any two instructions; none is set here, and
    // the standard library sets none in the place of which the default would be wrong (its guard pages' SIGSEGV says in
    // words what the default does without).
    unsafe { signal(which, handler) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_with_threads_is_not_forked() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        let refused = super::fork().unwrap_err().to_string();
        assert!(refused.contains("cannot be forked"), "{refused}");
        drop(sender);
        assert!(thread.join().unwrap().is_err());
    }
}
