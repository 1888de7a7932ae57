//! The agent's end of a supervisor's socket.

use crate::supervisor::{Frames, FromSupervisor, ToSupervisor, encode};
use std::io;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// A conversation with a supervisor.
pub(super) struct Talk {
    pub(super) stream: UnixStream,
    pub(super) frames: Frames,
}

impl Talk {
    /// The next message; none when the other side is gone. May be dropped while it waits.
    pub(super) async fn hear(&mut self) -> io::Result<Option<FromSupervisor>> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(Some(message));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).await? {
                0 => return Ok(None),
                n => self.frames.push(&bytes[..n]),
            }
        }
    }

    /// The first message, and the answer to it.
    pub(super) async fn begin(&mut self, frame: &[u8]) -> io::Result<Option<FromSupervisor>> {
        self.stream.write_all(frame).await?;
        self.hear().await
    }

    /// Has a command that is held, and that nobody knows of, ended and forgotten.
    pub(super) async fn abandon(&mut self) {
        let told = self.say(&ToSupervisor::Abandon).await;
        while told.is_ok()
            && let Ok(Some(message)) = self.hear().await
        {
            if matches!(message, FromSupervisor::Ended(_)) {
                let _ = self.say(&ToSupervisor::Kept).await; // one that is gone has written it down
                return;
            }
        }
    }

    /// Has a task ended that nobody knows of. Returns once its supervisor has written down how, and is gone.
    pub(super) async fn end(&mut self) {
        let told = self.say(&ToSupervisor::End).await;
        while told.is_ok()
            && let Ok(Some(message)) = self.hear().await
        {
            if matches!(message, FromSupervisor::Ended(_)) {
                let _ = self.stream.shutdown().await; // nobody here keeps it, and it need not wait for that
            }
        }
    }

    pub(super) async fn say(&mut self, message: &ToSupervisor) -> io::Result<()> {
        self.stream.write_all(&encode(message)?).await
    }
}
