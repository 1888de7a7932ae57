//! Messages that are written part by part, since they may hold a hundred thousand of something.
//!
//! In JSON a list is written while it is made. In protobuf a message that is longer than a piece comes as several of one
//! field, which every reader merges into one: so no length has to be known before.

use bytes::Bytes;
use muster_proto::json::{Codec, Mesos, Shape, to_json};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use std::io::{self, Write};

/// How much of a protobuf message is gathered before it is written, in bytes.
const PIECE: usize = 64 << 10;

/// A field of a message: its name in JSON, its number in protobuf, and what it holds.
pub(super) enum Part<'a> {
    /// An enum's value.
    Enum { name: &'static str, number: u32, text: &'static str, value: i32 },
    /// A number.
    Double { name: &'static str, number: u32, value: f64 },
    /// A message that is there as a whole.
    One { name: &'static str, number: u32, item: Item },
    /// A message of parts.
    Message { name: &'static str, number: u32, parts: Vec<Part<'a>> },
    /// A list, which is there even if it is empty.
    List { name: &'static str, number: u32, items: Items<'a> },
}

/// The items of a list, made each time that they are written.
pub(super) type Items<'a> = Box<dyn Fn() -> Box<dyn Iterator<Item = Item> + 'a> + 'a>;

/// An encoded message, and what it looks like.
pub(super) struct Item {
    shape: &'static Shape,
    bytes: Vec<u8>,
}

impl Item {
    pub(super) fn of<M: Mesos>(message: &M) -> Self {
        Self { shape: M::shape(), bytes: message.encode_to_vec() }
    }

    fn json(&self) -> io::Result<String> {
        to_json(self.shape, &self.bytes).map_err(io::Error::other)
    }
}

impl Part<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Enum { name, .. }
            | Self::Double { name, .. }
            | Self::One { name, .. }
            | Self::Message { name, .. }
            | Self::List { name, .. } => name,
        }
    }
}

/// Writes a message of these parts.
pub(super) fn write(parts: &[Part<'_>], codec: Codec, out: &mut dyn Write) -> io::Result<()> {
    match codec {
        Codec::Json => json(parts, out),
        Codec::Protobuf => {
            let mut nested = Nested { levels: vec![(0, Vec::new())], out };
            nested.parts(parts)?;
            nested.flush()
        }
    }
}

fn json(parts: &[Part<'_>], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"{")?;
    for (at, part) in parts.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(out, "{comma}\"{}\":", part.name())?;
        match part {
            Part::Enum { text, .. } => write!(out, "\"{text}\"")?,
            Part::Double { value, .. } => write!(out, "{value:?}")?,
            Part::One { item, .. } => out.write_all(item.json()?.as_bytes())?,
            Part::Message { parts, .. } => json(parts, out)?,
            Part::List { items, .. } => {
                out.write_all(b"[")?;
                for (at, item) in items().enumerate() {
                    if at > 0 {
                        out.write_all(b",")?;
                    }
                    out.write_all(item.json()?.as_bytes())?;
                }
                out.write_all(b"]")?;
            }
        }
    }
    out.write_all(b"}")
}

/// Protobuf's bytes of messages that are open: the outermost first, each with its number in the one around it.
struct Nested<'a> {
    levels: Vec<(u32, Vec<u8>)>,
    out: &'a mut dyn Write,
}

impl Nested<'_> {
    fn parts(&mut self, parts: &[Part<'_>]) -> io::Result<()> {
        for part in parts {
            match part {
                Part::Enum { number, value, .. } => {
                    encode_key(*number, WireType::Varint, self.top());
                    encode_varint(u64::from(value.unsigned_abs()), self.top());
                }
                Part::Double { number, value, .. } => {
                    encode_key(*number, WireType::SixtyFourBit, self.top());
                    self.top().extend_from_slice(&value.to_le_bytes());
                }
                Part::One { number, item, .. } => self.field(*number, &item.bytes)?,
                Part::Message { number, parts, .. } => {
                    self.levels.push((*number, Vec::new()));
                    self.parts(parts)?;
                    if let Some((number, bytes)) = self.levels.pop() {
                        self.field(number, &bytes)?;
                    }
                }
                Part::List { number, items, .. } => {
                    for item in items() {
                        self.field(*number, &item.bytes)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn top(&mut self) -> &mut Vec<u8> {
        if self.levels.is_empty() {
            self.levels.push((0, Vec::new()));
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last].1
    }

    fn field(&mut self, number: u32, bytes: &[u8]) -> io::Result<()> {
        field(number, bytes, self.top());
        let gathered: usize = self.levels.iter().map(|(_, bytes)| bytes.len()).sum();
        if gathered >= PIECE { self.flush() } else { Ok(()) }
    }

    /// Writes what is gathered. What is still open goes on in another message of the same field.
    fn flush(&mut self) -> io::Result<()> {
        let mut inner = Vec::new();
        let mut number_within = 0;
        for (number, bytes) in self.levels.iter_mut().rev() {
            let mut whole = std::mem::take(bytes);
            if !inner.is_empty() {
                field(number_within, &inner, &mut whole);
            }
            (inner, number_within) = (whole, *number);
        }
        self.out.write_all(&inner)
    }
}

fn field(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 2 * encoded_len_varint(bytes.len() as u64));
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Counts what is written.
#[derive(Default)]
struct Counting(u64);

impl Write for Counting {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0 += data.len() as u64;
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a record of these parts: as one chunk, or in chunks of `most` bytes if it is longer than that. Its length comes
/// first, so that it is written twice.
pub(super) fn write_record(
    parts: &[Part<'_>],
    codec: Codec,
    most: usize,
    send: impl FnMut(Bytes) -> io::Result<()>,
) -> io::Result<()> {
    let mut length = Counting::default();
    write(parts, codec, &mut length)?;
    let mut out = Chunks { most, gathered: format!("{}\n", length.0).into_bytes(), send };
    write(parts, codec, &mut out)?;
    out.send_gathered()
}

struct Chunks<F> {
    most: usize,
    gathered: Vec<u8>,
    send: F,
}

impl<F: FnMut(Bytes) -> io::Result<()>> Chunks<F> {
    fn send_gathered(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.gathered) {
            nothing if nothing.is_empty() => Ok(()),
            gathered => (self.send)(gathered.into()),
        }
    }
}

impl<F: FnMut(Bytes) -> io::Result<()>> Write for Chunks<F> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(data);
        if self.gathered.len() >= self.most {
            self.send_gathered()?;
        }
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use muster_proto::mesos::{self, master::Response};

    fn task(n: usize) -> mesos::Task {
        mesos::Task {
            name: format!("task {n}"),
            task_id: mesos::TaskId { value: format!("t{n}") },
            state: mesos::TaskState::TaskRunning.into(),
            ..Default::default()
        }
    }

    /// An answer with this many tasks that run, and none that are over.
    fn parts(count: usize) -> Vec<Part<'static>> {
        let list = |name, number, range: std::ops::Range<usize>| Part::List {
            name,
            number,
            items: Box::new(move || Box::new(range.clone().map(|n| Item::of(&task(n))))),
        };
        let tasks = vec![list("tasks", 2, 0..count), list("completed_tasks", 3, 0..0)];
        let kind = mesos::master::response::Type::GetState;
        let state = vec![Part::Message { name: "get_tasks", number: 1, parts: tasks }];
        vec![
            Part::Enum { name: "type", number: 1, text: kind.as_str_name(), value: kind.into() },
            Part::Message { name: "get_state", number: 9, parts: state },
        ]
    }

    fn written(count: usize, codec: Codec) -> Vec<u8> {
        let mut out = Vec::new();
        write(&parts(count), codec, &mut out).unwrap();
        out
    }

    #[test]
    fn an_answer_is_the_same_message_however_long_it_is() {
        for count in [0, 1, 7, 20_000] {
            let protobuf: Response = Codec::Protobuf.read(&written(count, Codec::Protobuf)).unwrap();
            let json: Response = Codec::Json.read(&written(count, Codec::Json)).unwrap();
            assert_eq!(protobuf, json);
            let tasks = protobuf.get_state.unwrap().get_tasks.unwrap().tasks;
            assert_eq!(tasks, (0..count).map(task).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_empty_is_there() {
        let text = String::from_utf8(written(0, Codec::Json)).unwrap();
        assert_eq!(
            text,
            r#"{"type":"GET_STATE","get_state":{"get_tasks":{"tasks":[],"completed_tasks":[]}}}"#
        );
    }

    #[test]
    fn a_record_says_how_long_it_is() {
        for (count, codec) in [(0, Codec::Json), (5_000, Codec::Json), (5_000, Codec::Protobuf)] {
            let mut chunks = Vec::new();
            let send = |bytes: Bytes| {
                chunks.push(bytes);
                Ok(())
            };
            write_record(&parts(count), codec, 100_000, send).unwrap();
            assert_eq!(chunks.len() == 1, count == 0, "{}", chunks.len());
            let all = chunks.concat();
            let end = all.iter().position(|byte| *byte == b'\n').unwrap();
            let length: usize = std::str::from_utf8(&all[..end]).unwrap().parse().unwrap();
            assert_eq!(&all[end + 1..], written(count, codec));
            assert_eq!(length, all.len() - end - 1);
        }
    }
}
