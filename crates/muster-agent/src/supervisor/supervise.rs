//! How a supervisor begins: from the first word of its agent to a command that is held.

use super::{Ending, FromSupervisor, Spec, ToSupervisor, client::Client, held, task::Task};
use rustix::process::{getpid, set_child_subreaper, setsid};
use std::{io, os::unix::net::UnixStream};

/// Supervises one task, told of by its agent on this socket, until it has ended. An error is seen by the agent as a
/// socket that closes without an ending.
pub(super) fn supervise(control: UnixStream) -> io::Result<()> {
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    let _ = rustix::thread::set_name(c"muster-supervis"); // only to be seen, in 15 bytes
    let mut control = Client::new(control, 0);
    match begin(&mut control)? {
        Some(task) => task.run(control),
        None => Ok(()),
    }
}

/// Reads the spec and holds its command. None: the agent has the reason already.
fn begin(control: &mut Client) -> io::Result<Option<Task>> {
    let spec: Spec = loop {
        match control.frames.next()? {
            Some(ToSupervisor::Spec(spec)) => break *spec,
            Some(_) => return Err(io::Error::other("no spec")),
            None if control.fill() => {}
            None => return Ok(None), // the agent is gone, and nothing was begun
        }
    };
    match held::create(&spec).and_then(|held| Task::new(spec, held)) {
        Ok(task) => {
            rustix::stdio::dup2_stdout(rustix::stdio::stdin())?; // now it can be found: see `helper.rs`
            control.stream.set_nonblocking(true)?;
            let _ = control.say(&task.here()); // an agent that is gone is seen by a poll, and all is taken away
            Ok(Some(task))
        }
        Err(error) => {
            control.say(&FromSupervisor::Ended(Ending::StartFailed(error.to_string())))?;
            Ok(None)
        }
    }
}
