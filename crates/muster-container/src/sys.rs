//! What the standard library has no safe call for. All unsafe code of the crate is here.
#![allow(unsafe_code)]

use nix::sys::signal::{SigHandler, Signal, signal};

/// A write that nobody reads ends the process, as programs expect; those of Rust are begun with it ignored, and what they
/// execute would be, too.
pub(crate) fn default_sigpipe() -> nix::Result<()> {
    // SAFETY: unsafe is a handler that is a function, which runs between any two instructions; this is none.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map(drop)
}
