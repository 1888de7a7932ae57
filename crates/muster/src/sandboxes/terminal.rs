//! The terminal that this process was started at.

use anyhow::{Context, bail};
use muster_proto::mesos;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;

/// The size of this terminal, if it is one.
pub(super) fn size() -> Option<mesos::TtyInfo> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    let window_size = mesos::tty_info::WindowSize { rows: size.ws_row.into(), columns: size.ws_col.into() };
    Some(mesos::TtyInfo { window_size: Some(window_size) })
}

/// The terminal that this process was started at.
pub(super) struct Terminal(Termios);

impl Terminal {
    pub(super) fn of_this() -> anyhow::Result<Self> {
        if !isatty(io::stdin()) {
            bail!("standard input is no terminal: leave --tty out");
        }
        Ok(Self(tcgetattr(io::stdin()).context("cannot look at the terminal")?))
    }

    pub(super) fn size(&self) -> mesos::TtyInfo {
        size().unwrap_or_default()
    }

    /// All that is typed is for the command, until this is dropped.
    pub(super) fn raw(&self) -> anyhow::Result<Raw> {
        let mut raw = self.0.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw).context("cannot set the terminal")?;
        Ok(Raw(self.0.clone()))
    }
}

/// A terminal that is to be what it was.
pub(super) struct Raw(Termios);

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0); // it may be gone
    }
}
