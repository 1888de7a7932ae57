//! `muster attach`: a session of `muster exec`, or the terminal of a task itself, here.

use super::{
    Failed,
    exec::{Given, Seat, words},
    terminal::Terminal,
};
use crate::cli::Masters;
use anyhow::bail;
use clap::Args;
use muster_proto::mesos::agent::{Call, call};
use std::process::ExitCode;

/// What leaves a terminal that was joined, typed one after the other: Ctrl-P and Ctrl-Q.
const LEAVES: [u8; 2] = [0x10, 0x11];

/// Join the terminal of a task that has one, or a session of `muster exec`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Hand standard input on, beside what is given by others.
    #[arg(short, long)]
    interactive: bool,
    /// Hand on all that is typed as it is, and the size of this terminal; Ctrl-P Ctrl-Q leaves.
    #[arg(short, long, requires = "interactive")]
    tty: bool,
    /// The task's framework, if several have one of this name.
    #[arg(long, value_name = "ID")]
    framework: Option<String>,
    #[command(flatten)]
    masters: Masters,
    /// The task's id.
    task: String,
    /// The session's name; without it the task itself is meant.
    session: Option<String>,
}

/// `muster attach`: its exit code is that of what it joined.
pub(crate) async fn attach(args: AttachArgs) -> anyhow::Result<ExitCode> {
    let terminal = args.tty.then(Terminal::of_this).transpose()?;
    let seat = Seat::find(&args.masters, args.framework.as_deref(), &args.task, args.session).await?;
    let call = Call {
        r#type: Some(call::Type::AttachContainerOutput.into()),
        attach_container_output: Some(call::AttachContainerOutput { container_id: seat.id.clone() }),
        ..Default::default()
    };
    let output = match seat.finder.agents.stream(&seat.address, &call).await {
        Err(Failed::NotThere) if seat.is_task => bail!("the task has ended"),
        Err(Failed::NotThere) => bail!("the task has no session {:?}", seat.id.value),
        output => output.map_err(words)?,
    };
    seat.follow(output, args.interactive.then_some(Given::Beside), terminal).await
}

/// Whether what is typed leaves.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    /// So much of what leaves was typed last.
    typed: usize,
}

impl Leaves {
    /// Takes in what is typed next; it is handed on, but for what comes with the end of what leaves.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            self.typed = match LEAVES.get(self.typed) {
                Some(next) if next == byte => self.typed + 1,
                _ => usize::from(LEAVES[0] == *byte),
            };
            if self.typed == LEAVES.len() {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_leaves_in_one_piece_or_several() {
        assert!(Leaves::default().hear(b"ab\x10\x11c"));
        let mut leaves = Leaves::default();
        let heard = [&b"\x10"[..], b"\x10", b"", b"\x11"].map(|bytes| leaves.hear(bytes));
        assert_eq!(heard, [false, false, false, true]);
        assert!(!Leaves::default().hear(b"\x10a\x11"));
    }
}
