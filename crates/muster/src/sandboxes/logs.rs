//! `muster logs`: what tasks wrote to their standard output and error, and what they write.
//!
//! Each stream is read by a reader of its own, which remembers how far it is: an agent that is away, comes back with
//! another address, or rotates the files, costs time and nothing else. Lines of several tasks are merged as they come, each
//! with its task's name before it.

use super::{
    Failed, Finder, Found,
    agent::FilePart,
    cursor::{Cursor, Told},
};
use crate::cli::Masters;
use clap::Args;
use std::{io::Write, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};

/// The wait before a file that has nothing new is looked at again; doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the agent of a task that is over may be away before that is said and left.
const AWAY_MAX: Duration = Duration::from_secs(10);
/// How often the masters are asked whether a quiet task is over, at most.
const ASK: Duration = Duration::from_secs(1);
/// A line longer than this is shown in pieces, in bytes.
const LINE_MAX: usize = 64 << 10;
/// Lines that wait to be shown.
const LINES_WAITING_MAX: usize = 256;
/// How much is read at once to find where the last lines begin, in bytes.
const BLOCK: u64 = 32 << 10;
/// How often that is begun again, where files are rotated meanwhile.
const TRIES_MAX: u32 = 5;
/// Files of one stream in which they are looked for.
const FILES_MAX: u32 = 1_000;

/// Shows what tasks write.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The tasks' ids; one that ends in * stands for all that begin so.
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
    /// Go on until all of them are over.
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last lines of each stream.
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<u64>,
    /// Standard output alone.
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Standard error alone.
    #[arg(long)]
    stderr: bool,
    /// Tasks of this framework alone.
    #[arg(long, value_name = "ID")]
    framework: Option<String>,
    #[command(flatten)]
    masters: Masters,
}

/// What goes to the terminal: a task's line, or a word about it.
struct Line {
    is_error: bool,
    bytes: Vec<u8>,
}

/// Reads one stream of a task, from one end to the other.
struct Reader {
    finder: Arc<Mutex<Finder>>,
    task: Found,
    file: &'static str,
    prefix: String,
    follow: bool,
    tail: Option<u64>,
    lines: mpsc::Sender<Line>,
}

/// Whoever reads the lines is gone.
struct Unheard;

/// Where the last lines begin.
enum Last {
    At(Cursor),
    NotThere,
    /// The files were rotated meanwhile.
    Moved,
}

pub(crate) async fn run(args: LogsArgs) -> anyhow::Result<ExitCode> {
    let mut finder = Finder::new(&args.masters);
    let tasks = finder.find(&args.masters, args.framework.as_deref(), &args.tasks).await?;
    let finder = Arc::new(Mutex::new(finder));
    let (lines, mut shown) = mpsc::channel(LINES_WAITING_MAX);
    let mut readers = JoinSet::new();
    let many = tasks.len() > 1;
    for task in tasks {
        let prefix = if many { format!("{}: ", task.name()) } else { String::new() };
        for (file, is_left_out) in [("stdout", args.stderr), ("stderr", args.stdout)] {
            if !is_left_out {
                let reader = Reader {
                    finder: finder.clone(),
                    task: task.clone(),
                    file,
                    prefix: prefix.clone(),
                    follow: args.follow,
                    tail: args.tail,
                    lines: lines.clone(),
                };
                readers.spawn(reader.run());
            }
        }
    }
    drop(lines);
    while let Some(Line { is_error, bytes }) = shown.recv().await {
        let written = match is_error {
            true => std::io::stderr().lock().write_all(&bytes),
            false => {
                let mut to = std::io::stdout().lock();
                to.write_all(&bytes).and_then(|()| to.flush())
            }
        };
        if written.is_err() {
            break; // whoever reads it has seen enough
        }
    }
    drop(shown);
    let mut code = ExitCode::SUCCESS;
    while let Some(done) = readers.join_next().await {
        if !matches!(done, Ok(true)) {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

impl Reader {
    /// Reads it; whether all was read that was to be.
    async fn run(mut self) -> bool {
        self.read().await.unwrap_or(true) // nobody wants to hear more
    }

    async fn read(&mut self) -> Result<bool, Unheard> {
        let mut cursor: Option<Cursor> = None;
        let mut rest: Vec<u8> = Vec::new();
        let mut pause = PAUSE;
        let mut away_since: Option<Instant> = None;
        let mut is_told = false;
        let mut asked = Instant::now();
        loop {
            // What it writes before it is over is there once it is.
            let was_over = self.task.is_over;
            match self.step(&mut cursor).await {
                Ok(Told::Bytes(bytes)) => {
                    (pause, away_since, is_told) = (PAUSE, None, false);
                    self.show(&mut rest, &bytes, false).await?;
                    continue;
                }
                Ok(Told::More) => continue,
                Ok(Told::Soon) => pause = PAUSE,
                Ok(Told::Lost) => {
                    self.show(&mut rest, &[], true).await?;
                    self.say("lines may be missing here: older files were removed meanwhile").await?;
                    continue;
                }
                Ok(Told::End) => {
                    if was_over || !self.follow {
                        self.show(&mut rest, &[], true).await?;
                        return Ok(true);
                    }
                    (away_since, is_told) = (None, false);
                    if asked.elapsed() >= ASK {
                        self.look().await;
                        asked = Instant::now();
                        if self.task.is_over {
                            continue;
                        }
                    }
                }
                Ok(Told::NotThere) if self.follow && !was_over => self.look().await, // not begun
                Ok(Told::NotThere) => return self.give_up(&Failed::NotThere.to_string()).await,
                Err(Failed::Away(why)) if self.follow => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > AWAY_MAX && self.task.is_over {
                        return self.give_up(&why).await;
                    }
                    if pause == PAUSE_MAX && !std::mem::replace(&mut is_told, true) {
                        self.say(&format!("waiting for its agent: {why}")).await?;
                    }
                    self.look().await;
                }
                Err(why) => return self.give_up(&why.to_string()).await,
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Reads what the cursor asks for.
    async fn step(&self, cursor: &mut Option<Cursor>) -> Result<Told, Failed> {
        let cursor = match cursor {
            Some(cursor) => cursor,
            None => {
                let begin = match self.tail {
                    None => Some(Cursor::oldest()),
                    Some(lines) => self.last(lines).await?,
                };
                let Some(begin) = begin else { return Ok(Told::NotThere) };
                cursor.insert(begin)
            }
        };
        let (number, offset) = cursor.ask();
        let part = self.part(number, offset).await?;
        Ok(cursor.hear(part))
    }

    /// What is there beyond an offset of the file of a number; none: there is no such file.
    async fn part(&self, number: u32, offset: u64) -> Result<Option<FilePart>, Failed> {
        let finder = self.finder.lock().await;
        let (agents, address) = (finder.agents.clone(), finder.address(&self.task)?.to_owned());
        drop(finder);
        let file = match number {
            0 => self.file.to_owned(),
            older => format!("{}.{older}", self.file),
        };
        for place in self.task.places() {
            match agents.read(&address, &format!("{place}/{file}"), offset).await {
                Err(Failed::NotThere) => {}
                other => return other.map(Some),
            }
        }
        Ok(None)
    }

    /// Where the last lines begin, or all that is kept; none: there is nothing.
    async fn last(&self, lines: u64) -> Result<Option<Cursor>, Failed> {
        for _ in 0..TRIES_MAX {
            match self.last_at_once(lines).await? {
                Last::At(cursor) => return Ok(Some(cursor)),
                Last::NotThere => return Ok(None),
                Last::Moved => {}
            }
        }
        Ok(Some(Cursor::oldest()))
    }

    async fn last_at_once(&self, lines: u64) -> Result<Last, Failed> {
        let (mut left, mut is_last) = (lines, true);
        let mut begin = Last::NotThere;
        for number in 0..FILES_MAX {
            let Some(first) = self.part(number, 0).await? else { break };
            let mut from = first.size;
            while from > 0 && left > 0 {
                let block = from.saturating_sub(BLOCK);
                let Some(mut part) = self.part(number, block).await? else { return Ok(Last::Moved) };
                if part.file != first.file {
                    return Ok(Last::Moved);
                }
                part.bytes.truncate(usize::try_from(from - block).unwrap_or(usize::MAX));
                if let Some(at) = lines_from(&part.bytes, &mut left, &mut is_last) {
                    return Ok(Last::At(Cursor::within(number, first.file, block + at)));
                }
                from = block;
            }
            begin = Last::At(Cursor::within(number, first.file.clone(), from));
            if left == 0 || first.file.is_none() {
                break;
            }
        }
        Ok(begin)
    }

    /// Asks how the task stands, and where its agent is. As before, if nobody answers.
    async fn look(&mut self) {
        if let Ok(found) = self.finder.lock().await.again(&self.task).await {
            self.task = found;
        }
    }

    /// Shows whole lines; at the end the rest, too.
    async fn show(&self, rest: &mut Vec<u8>, new: &[u8], is_end: bool) -> Result<(), Unheard> {
        rest.extend_from_slice(new);
        let mut bytes = Vec::new();
        for line in cut(rest, is_end) {
            bytes.extend_from_slice(self.prefix.as_bytes());
            bytes.extend_from_slice(&line);
        }
        match bytes.is_empty() {
            true => Ok(()),
            false => self.send(self.file == "stderr", bytes).await,
        }
    }

    async fn say(&self, what: &str) -> Result<(), Unheard> {
        let (task, file) = (self.task.name(), self.file);
        self.send(true, format!("muster: {file} of {task}: {what}\n").into_bytes()).await
    }

    async fn give_up(&self, why: &str) -> Result<bool, Unheard> {
        self.say(why).await?;
        Ok(false)
    }

    async fn send(&self, is_error: bool, bytes: Vec<u8>) -> Result<(), Unheard> {
        self.lines.send(Line { is_error, bytes }).await.map_err(|_| Unheard)
    }
}

/// Takes whole lines off the front; at the end what is left as well, as a line. A line that is too long is cut.
fn cut(rest: &mut Vec<u8>, is_end: bool) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut from = 0;
    while let Some(left) = rest.get(from..).filter(|left| !left.is_empty()) {
        match left.iter().take(LINE_MAX).position(|byte| *byte == b'\n') {
            Some(at) => {
                lines.push(left[..=at].to_vec());
                from += at + 1;
            }
            None if is_end || left.len() >= LINE_MAX => {
                let end = left.len().min(LINE_MAX);
                lines.push([&left[..end], b"\n"].concat());
                from += end;
            }
            None => break,
        }
    }
    rest.drain(..from);
    lines
}

/// Where in these bytes the last lines begin, if they begin there: `left` of them, less those that do. What ends the very
/// last line of all begins no other.
fn lines_from(bytes: &[u8], left: &mut u64, is_last: &mut bool) -> Option<u64> {
    for (at, byte) in bytes.iter().enumerate().rev() {
        let ends_all = std::mem::replace(is_last, false);
        if *byte == b'\n' && !ends_all {
            *left -= 1;
            if *left == 0 {
                return Some(at as u64 + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_they_end_or_are_too_long() {
        let mut rest = b"one\ntwo\nthr".to_vec();
        assert_eq!(cut(&mut rest, false), [b"one\n".to_vec(), b"two\n".to_vec()]);
        assert_eq!(rest, b"thr");
        assert_eq!(cut(&mut rest, true), [b"thr\n".to_vec()]);
        assert_eq!(cut(&mut rest, true), Vec::<Vec<u8>>::new());
        let mut long = vec![b'x'; LINE_MAX + 2];
        assert_eq!(cut(&mut long, false).concat().len(), LINE_MAX + 1);
        assert_eq!(long, b"xx");
    }

    #[test]
    fn the_last_lines_are_found_across_pieces() {
        let found = |pieces: &[&str], lines| {
            let (mut left, mut is_last) = (lines, true);
            let mut found = None;
            for (number, piece) in pieces.iter().enumerate() {
                found =
                    found.or_else(|| Some((number, lines_from(piece.as_bytes(), &mut left, &mut is_last)?)));
            }
            found
        };
        // The newest comes first.
        assert_eq!(found(&["three\nfour\n", "one\ntwo\n"], 1), Some((0, 6)));
        assert_eq!(found(&["three\nfour\n", "one\ntwo\n"], 2), Some((1, 8)));
        assert_eq!(found(&["three\nfour\n", "one\ntwo\n"], 3), Some((1, 4)));
        assert_eq!(found(&["three\nfour\n", "one\ntwo\n"], 4), None);
        assert_eq!(found(&["ur", "three\nfo"], 1), Some((1, 6)));
        assert_eq!(found(&["", "one\ntwo\n"], 1), Some((1, 4)));
    }
}
