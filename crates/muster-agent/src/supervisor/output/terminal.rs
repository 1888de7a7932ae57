//! The terminal of a task itself, and who joined it.

use super::{
    super::{
        FromSupervisor, ToSupervisor,
        client::{Client, pour},
        encode,
        session::Sessions,
        terminal::{self, END_OF_INPUT, Size},
    },
    Log, PIECE_BYTES, read,
};
use rustix::{
    event::{PollFd, PollFlags},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
};
use std::{collections::VecDeque, fs::File, io, os::fd::OwnedFd};

/// Who may have joined one terminal at once.
const ATTACHED_MAX: usize = 16;
/// Bytes that may wait for the task to read them.
const GIVEN_BYTES_MAX: usize = 64 << 10;
/// Bytes that may wait for one who joined to read them; then it is cut off.
const SAID_BYTES_MAX: usize = 256 << 10;
/// What a terminal holds at most, and more.
const HELD_BYTES_MAX: usize = 1 << 20;

/// Our end of a task's terminal.
pub(super) struct Terminal {
    ours: File,
    /// The task's, so that it stays a terminal while no process of the task has it open.
    _theirs: Option<OwnedFd>,
    /// Nothing comes of it any more.
    is_over: bool,
    log: Log,
    /// For the task to read.
    given: VecDeque<u8>,
    attached: Vec<Attached>,
}

/// Who joined.
struct Attached {
    client: Client,
    hears: bool,
    /// Frames for it.
    said: VecDeque<u8>,
    is_open: bool,
}

impl Terminal {
    /// Also the task's end.
    pub(super) fn open(size: Size, user: Option<(u32, u32)>, log: Log) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = terminal::open(size, user)?;
        fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
        let kept = Some(theirs.try_clone()?);
        let (given, attached) = (VecDeque::new(), Vec::new());
        Ok((Self { ours: ours.into(), _theirs: kept, is_over: false, log, given, attached }, theirs))
    }

    /// This is our end of it, and not what it was made with.
    pub(super) fn own(&mut self, ours: OwnedFd, size: Size) -> io::Result<()> {
        fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
        terminal::resize(&ours, size)?;
        self._theirs = terminal::peer(&ours).ok(); // or nothing comes of it once all have closed it
        self.ours = ours.into();
        Ok(())
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !self.given.is_empty());
        let takes_input = self.given.len() < GIVEN_BYTES_MAX;
        let attached = self.attached.iter().map(move |it| {
            // Where nothing is read or written, that the other side is gone is seen all the same.
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, takes_input);
            wanted.set(PollFlags::OUT, !it.said.is_empty());
            PollFd::new(&it.client.stream, wanted)
        });
        let own = (!self.is_over).then(|| PollFd::new(&self.ours, wanted));
        own.into_iter().chain(attached)
    }

    pub(super) fn attach(&mut self, client: Client, hears: bool) {
        if self.attached.len() >= ATTACHED_MAX && !self.make_room() {
            return Sessions::refuse(client, "too many have joined the task's terminal");
        }
        let mut attached = Attached { client, hears, said: VecDeque::new(), is_open: true };
        attached.say(&FromSupervisor::SessionRuns);
        self.attached.push(attached);
    }

    /// Lets the first one go that joined of those that only give input, where the task does not read it: whether such a
    /// one still is there is not seen, by its agent, as long as nothing more is taken of it. False: there is none.
    fn make_room(&mut self) -> bool {
        if self.given.len() < GIVEN_BYTES_MAX {
            return false;
        }
        let first = self.attached.iter().position(|it| !it.hears);
        first.map(|at| self.attached.remove(at)).is_some()
    }

    pub(super) fn settle(&mut self) {
        self.hear();
        let _ = pour(&mut self.given, &mut self.ours); // it is taken when somebody reads
        self.show(PIECE_BYTES);
        self.attached.retain_mut(|it| it.is_open && it.client.flush(&mut it.said));
    }

    /// Takes in what is for the task to read, or for the terminal.
    fn hear(&mut self) {
        for attached in &mut self.attached {
            if self.given.len() >= GIVEN_BYTES_MAX {
                attached.is_open &= !attached.client.is_gone();
                continue;
            }
            attached.is_open &= attached.client.fill();
            loop {
                match attached.client.frames.next() {
                    Ok(Some(ToSupervisor::Input(bytes))) if bytes.is_empty() => {
                        self.given.push_back(END_OF_INPUT)
                    }
                    Ok(Some(ToSupervisor::Input(bytes))) => self.given.extend(bytes),
                    Ok(Some(ToSupervisor::Resize { rows, columns })) => {
                        let _ = terminal::resize(&self.ours, (rows, columns)); // of no size that there is
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        attached.is_open = false;
                        break;
                    }
                }
            }
        }
    }

    /// Writes down what it shows, at most so much, and tells who listens.
    fn show(&mut self, most: usize) {
        let Self { ours, log, attached, .. } = self;
        let is_open = read(ours, most, |bytes| {
            log.write(bytes);
            let listeners = attached.iter_mut().filter(|it| it.hears);
            let message = || FromSupervisor::Output { is_error: false, bytes: bytes.to_vec() };
            listeners.for_each(|it| it.say(&message()));
        });
        self.is_over |= !is_open;
    }

    /// No process of the task is left.
    pub(super) fn finish(&mut self) {
        self.show(HELD_BYTES_MAX);
        self.log.tell_lost();
    }

    /// The task has ended: tells who joined.
    pub(super) fn leave(self, ended: &FromSupervisor) {
        for mut it in self.attached {
            it.say(ended);
            it.client.flush(&mut it.said); // what is not taken now is lost
        }
    }
}

impl Attached {
    /// Says it, unless what was said before is not read.
    fn say(&mut self, message: &FromSupervisor) {
        self.is_open &= self.said.len() < SAID_BYTES_MAX;
        if self.is_open {
            self.said.extend(encode(message).unwrap_or_default()); // far below what a frame may have
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::Frames, tests::log},
        *,
    };
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        path::Path,
    };

    /// A terminal of a program that takes every byte as it comes.
    fn raw(dir: &Path) -> (Terminal, OwnedFd) {
        let (terminal, theirs) = Terminal::open((40, 100), None, log(dir)).unwrap();
        let mut attributes = tcgetattr(&theirs).unwrap();
        attributes.make_raw();
        tcsetattr(&theirs, OptionalActions::Now, &attributes).unwrap();
        (terminal, theirs)
    }

    fn join(terminal: &mut Terminal, hears: bool) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        [&ours, &theirs].iter().for_each(|it| it.set_nonblocking(true).unwrap());
        terminal.attach(Client::new(theirs, 1), hears);
        terminal.settle();
        ours
    }

    /// What one was told, and whether it is still joined.
    fn told(mut stream: &UnixStream) -> (Vec<FromSupervisor>, bool) {
        let mut bytes = Vec::new();
        let is_joined =
            stream.read_to_end(&mut bytes).is_err_and(|it| it.kind() == io::ErrorKind::WouldBlock);
        let mut frames = Frames::default();
        frames.push(&bytes);
        (std::iter::from_fn(|| frames.next().unwrap()).collect(), is_joined)
    }

    #[test]
    fn who_gives_input_that_is_not_read_keeps_nobody_else_out() {
        let dir = tempfile::tempdir().unwrap();
        let (mut terminal, _theirs) = raw(dir.path());
        let listener = join(&mut terminal, true);
        let givers: Vec<UnixStream> = (1..ATTACHED_MAX).map(|_| join(&mut terminal, false)).collect();
        let refused = join(&mut terminal, true);
        assert!(
            matches!(told(&refused), (said, false) if matches!(&said[..], [FromSupervisor::SessionEnded(_)]))
        );
        let input = encode(&ToSupervisor::Input(vec![b'x'; 16 << 10])).unwrap();
        while terminal.given.len() < GIVEN_BYTES_MAX {
            (&givers[3]).write_all(&input).unwrap(); // as much is taken in
            terminal.settle();
        }
        let next = join(&mut terminal, true);
        assert_eq!(told(&next), (vec![FromSupervisor::SessionRuns], true));
        assert_eq!(told(&listener), (vec![FromSupervisor::SessionRuns], true), "it hears");
        let joined: Vec<bool> = givers.iter().map(|it| told(it).1).collect();
        assert_eq!(joined, [&[false][..], &[true; ATTACHED_MAX - 2]].concat());
    }
}
