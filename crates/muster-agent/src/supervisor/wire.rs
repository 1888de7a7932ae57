//! What agent and supervisor say to each other: frames of a length and a bincode body.

use super::{Ending, Spec};
use muster_model::LaunchNumber;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;

/// The longest frame, in bytes; a spec carries a whole environment.
const FRAME_BYTES_MAX: usize = 8 << 20;

/// To a supervisor. Append-only: an agent of a later version talks to supervisors of an earlier one.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// What to run; the first frame.
    Spec(Box<Spec>),
    /// Let the command go. Ignored on any socket but the first.
    Release,
    /// Never let the command go. Ignored once it was released, and on any socket but the first.
    Abandon,
    /// SIGTERM to the task's group.
    Term,
    /// SIGKILL to the task's group.
    Kill,
    /// End the task at once, and this supervisor.
    End,
    /// Run a command beside the task once it runs, and say what came of it.
    Look(Box<Look>),
    /// Run a command beside the task, with its streams over this connection: from now on it is for that alone, and the
    /// command ends with it.
    Session(Box<SessionSpec>),
    /// To a session: for its standard input, which ends with none.
    Input(Vec<u8>),
    /// To a session with a terminal: its size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters of a line.
        columns: u16,
    },
    /// To a session: for its process group, by number.
    Signal(i32),
    /// The ending that was told is durable at the agent, so that it need not be written down.
    Kept,
    /// Join the terminal of the task itself: from now on this connection is for that alone, and takes what is said to a
    /// session with a terminal.
    Attach {
        /// Whether what the terminal shows from now on is told. Who does not read that is cut off.
        output: bool,
    },
}

/// A command to look into a task with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionSpec {
    /// The program, found on its own PATH.
    pub(crate) program: String,
    /// What the program is told its own name is.
    pub(crate) arg0: String,
    /// The arguments after that.
    pub(crate) args: Vec<String>,
    /// Variables beside the task's own, which they replace.
    pub(crate) env: Vec<(String, String)>,
    /// The lines and the characters of a line of its terminal, at first; none: it has pipes.
    pub(crate) tty: Option<(u16, u16)>,
}

/// A command to look with whether a task is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    /// The agent's number for it.
    pub(crate) number: u64,
    /// The program, found on the supervisor's own PATH.
    pub(crate) program: String,
    /// What the program is told its own name is.
    pub(crate) arg0: String,
    /// The arguments after that.
    pub(crate) args: Vec<String>,
    /// Variables beside the task's own, which they replace.
    pub(crate) env: Vec<(String, String)>,
    /// After this long it is killed, in ms.
    pub(crate) timeout_ms: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Found {
    /// It ended with this status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It took too long, and was killed.
    TimedOut,
    /// It could not be run; this says why.
    Failed(String),
}

/// From a supervisor. Append-only.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromSupervisor {
    /// The command is held. On a later socket: who this is, before anything else.
    Here {
        /// Of which launch.
        launch: LaunchNumber,
        /// The held process; its group and session.
        pid: u32,
        /// Its start time.
        start_time: u64,
        /// Whether it was released and runs.
        running: bool,
    },
    /// The command runs.
    Running,
    /// The task ended, and no process of it is left. The exit file says so, too, unless the agent says that it keeps
    /// this.
    Ended(Ending),
    /// What a look at the task found.
    Found {
        /// Which.
        number: u64,
        /// What.
        found: Found,
    },
    /// The session's command runs, or the task's terminal is joined.
    SessionRuns,
    /// What the session wrote.
    Output {
        /// To standard error; else to standard output or its terminal.
        is_error: bool,
        /// What.
        bytes: Vec<u8>,
    },
    /// The session is over, and nothing more comes of it.
    SessionEnded(Found),
}

/// One frame.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body =
        bincode::serde::encode_to_vec(message, bincode::config::standard()).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Bytes that arrived, cut into frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes bytes in.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is here.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(head) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::other(format!(
                "a frame of {length} bytes, at most {FRAME_BYTES_MAX} are allowed"
            )));
        }
        let Some(body) = self.bytes.get(4..4 + length) else { return Ok(None) };
        let decoded = bincode::serde::decode_from_slice(body, bincode::config::standard());
        let (message, _) = decoded.map_err(io::Error::other)?;
        self.bytes.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::Index;

    /// What an agent of another version must be able to say and hear. Never edited, only added to.
    #[test]
    fn golden_bytes() {
        let launch = LaunchNumber { incarnation: 1, index: Index(700), n: 2 };
        let mut bytes = Vec::new();
        for message in [ToSupervisor::Term, ToSupervisor::Kill, ToSupervisor::End] {
            bytes.extend(encode(&message).unwrap());
        }
        for message in [
            FromSupervisor::Here { launch, pid: 4, start_time: 5, running: true },
            FromSupervisor::Running,
            FromSupervisor::Ended(Ending::Exited(0)),
            FromSupervisor::Ended(Ending::Signaled(9)),
            FromSupervisor::Ended(Ending::NotReleased),
            FromSupervisor::Ended(Ending::StartFailed("why".into())),
        ] {
            bytes.extend(encode(&message).unwrap());
        }
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect_file!["golden/wire-1.hex"].assert_eq(&hex);
    }

    /// Likewise what came later.
    #[test]
    fn golden_bytes_of_limits() {
        let ending = Ending::OutOfMemory { status: 9, limit: 32 << 20, peak: 31 << 20 };
        let bytes = encode(&FromSupervisor::Ended(ending)).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect_file!["golden/wire-2.hex"].assert_eq(&hex);
    }

    #[test]
    fn golden_bytes_of_looks() {
        let look = Look {
            number: 7,
            program: "p".into(),
            arg0: "a".into(),
            args: vec!["b".into()],
            env: vec![("N".into(), "v".into())],
            timeout_ms: 1_000,
        };
        let mut bytes = encode(&ToSupervisor::Look(Box::new(look))).unwrap();
        let failed = Found::Failed("why".into());
        for found in [Found::Exited(1), Found::Signaled(9), Found::TimedOut, failed] {
            bytes.extend(encode(&FromSupervisor::Found { number: 7, found }).unwrap());
        }
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect_file!["golden/wire-3.hex"].assert_eq(&hex);
    }

    #[test]
    fn golden_bytes_of_sessions() {
        let session = SessionSpec {
            program: "p".into(),
            arg0: "a".into(),
            args: vec!["b".into()],
            env: vec![("N".into(), "v".into())],
            tty: Some((24, 80)),
        };
        let mut bytes = Vec::new();
        for message in [
            ToSupervisor::Session(Box::new(SessionSpec { tty: None, ..session.clone() })),
            ToSupervisor::Session(Box::new(session)),
            ToSupervisor::Input(b"in".into()),
            ToSupervisor::Resize { rows: 25, columns: 300 },
            ToSupervisor::Signal(2),
        ] {
            bytes.extend(encode(&message).unwrap());
        }
        for message in [
            FromSupervisor::SessionRuns,
            FromSupervisor::Output { is_error: true, bytes: b"out".into() },
            FromSupervisor::SessionEnded(Found::Exited(3)),
        ] {
            bytes.extend(encode(&message).unwrap());
        }
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect_file!["golden/wire-4.hex"].assert_eq(&hex);
    }

    #[test]
    fn golden_bytes_of_keeping() {
        let bytes = encode(&ToSupervisor::Kept).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect_file!["golden/wire-5.hex"].assert_eq(&hex);
    }

    #[test]
    fn golden_bytes_of_attaching() {
        let both = [true, false].map(|output| encode(&ToSupervisor::Attach { output }).unwrap());
        let hex: String = both.concat().iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect_file!["golden/wire-6.hex"].assert_eq(&hex);
    }

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let bytes: Vec<u8> = [FromSupervisor::Running, FromSupervisor::Ended(Ending::Exited(3))]
            .iter()
            .flat_map(|message| encode(message).unwrap())
            .collect();
        let mut frames = Frames::default();
        let mut heard = Vec::new();
        for byte in bytes {
            frames.push(&[byte]);
            heard.extend(frames.next::<FromSupervisor>().unwrap());
        }
        assert_eq!(heard, [FromSupervisor::Running, FromSupervisor::Ended(Ending::Exited(3))]);
        frames.push(&u32::MAX.to_le_bytes());
        assert!(frames.next::<FromSupervisor>().is_err(), "too long to wait for");
    }
}
