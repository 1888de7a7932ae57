//! What the HTTP APIs of Mesos have in common: media types and records.

use crate::json::Codec;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt;

/// Why a request is not looked at, in Mesos' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// 400: nobody says what the body is.
    NoContentType,
    /// 415: the body is something else.
    ContentType,
    /// 406: nothing is accepted that could be answered.
    Accept,
}

impl Unfit {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::NoContentType => 400,
            Self::ContentType => 415,
            Self::Accept => 406,
        }
    }

    /// What it says.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoContentType => "Expecting 'Content-Type' to be present",
            Self::ContentType => "Expecting 'Content-Type' of application/json or application/x-protobuf",
            Self::Accept => "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'",
        }
    }
}

/// The codec of a body of this `Content-Type`. Parameters and the case of letters mean nothing.
///
/// # Errors
/// There is none, or it is another one.
pub fn spoken(content_type: Option<&str>) -> Result<Codec, Unfit> {
    let kind = content_type.ok_or(Unfit::NoContentType)?.split(';').next().unwrap_or_default().trim();
    let of = |codec: &Codec| kind.eq_ignore_ascii_case(codec.media_type());
    [Codec::Json, Codec::Protobuf].into_iter().find(of).ok_or(Unfit::ContentType)
}

/// The codec of an answer to a request with these `Accept` headers: JSON where both would do, or where there is none.
///
/// # Errors
/// They allow neither.
pub fn wanted(accepts: &[&str]) -> Result<Codec, Unfit> {
    if accepts.is_empty() {
        return Ok(Codec::Json);
    }
    let kinds = || accepts.iter().flat_map(|text| text.split(',')).filter(|kind| !is_refused(kind));
    let takes = |codec: &Codec| {
        kinds().map(|kind| kind.split(';').next().unwrap_or_default().trim()).any(|name| {
            name == "*/*" || name == "application/*" || name.eq_ignore_ascii_case(codec.media_type())
        })
    };
    [Codec::Json, Codec::Protobuf].into_iter().find(takes).ok_or(Unfit::Accept)
}

/// `q=0`: anything but this.
fn is_refused(kind: &str) -> bool {
    let q = kind.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
    q.is_some_and(|q| q.trim().parse::<f64>() == Ok(0.0))
}

/// A message as a record of a stream: its length in bytes as a decimal number, a line feed, and itself. To be sent as
/// one chunk, for there are clients that read chunk by chunk.
pub fn record(message: &[u8]) -> Bytes {
    let mut record = BytesMut::with_capacity(message.len() + 24);
    record.put_slice(message.len().to_string().as_bytes());
    record.put_u8(b'\n');
    record.put_slice(message);
    record.freeze()
}

/// Takes the records off a stream, whatever pieces it comes in.
#[derive(Debug, Default)]
pub struct Records {
    unread: BytesMut,
}

/// What comes is no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord(String);

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a record begins with its length in bytes, at most {RECORD_MAX}, not with {:?}", self.0)
    }
}
impl std::error::Error for BadRecord {}

/// A longer record is none.
pub const RECORD_MAX: usize = 1 << 30;
/// Digits of the longest length.
const DIGITS_MAX: usize = 20;

impl Records {
    /// Takes in what came.
    pub fn push(&mut self, piece: &[u8]) {
        self.unread.extend_from_slice(piece);
    }

    /// The next record that is there as a whole.
    ///
    /// # Errors
    /// What comes next has no length, or one beyond [`RECORD_MAX`]: the stream is of no more use.
    pub fn next_whole(&mut self) -> Result<Option<Bytes>, BadRecord> {
        let head = &self.unread[..self.unread.len().min(DIGITS_MAX + 1)];
        let bad = |head: &[u8]| BadRecord(String::from_utf8_lossy(head).into_owned());
        let Some(at) = head.iter().position(|byte| *byte == b'\n') else {
            return if head.len() > DIGITS_MAX { Err(bad(head)) } else { Ok(None) };
        };
        let length = std::str::from_utf8(&head[..at]).ok().and_then(|digits| digits.parse::<usize>().ok());
        let length = length.filter(|length| *length <= RECORD_MAX).ok_or_else(|| bad(&head[..at]))?;
        if self.unread.len() - at - 1 < length {
            return Ok(None);
        }
        self.unread.advance(at + 1);
        Ok(Some(self.unread.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_in_any_pieces() {
        let stream = [record(b"one"), record(b""), record(b"3\nx")].concat();
        for size in 1..=stream.len() {
            let (mut records, mut all) = (Records::default(), Vec::new());
            for piece in stream.chunks(size) {
                records.push(piece);
                while let Some(record) = records.next_whole().unwrap() {
                    all.push(record);
                }
            }
            assert_eq!(all, ["one", "", "3\nx"], "in pieces of {size}");
        }
    }

    #[test]
    fn what_has_no_length_is_no_record() {
        for bad in ["x\n", "-1\n", "\n", "99999999999999999999\n", "123456789012345678901"] {
            let mut records = Records::default();
            records.push(bad.as_bytes());
            records.next_whole().unwrap_err();
        }
    }

    #[test]
    fn bodies_and_answers_are_told_by_their_names() {
        assert_eq!(spoken(Some("Application/JSON; charset=utf-8")), Ok(Codec::Json));
        assert_eq!(spoken(Some("application/x-protobuf")), Ok(Codec::Protobuf));
        assert_eq!(spoken(None), Err(Unfit::NoContentType));
        assert_eq!(spoken(Some("text/plain")), Err(Unfit::ContentType));
        assert_eq!(wanted(&[]), Ok(Codec::Json));
        assert_eq!(wanted(&["*/*"]), Ok(Codec::Json));
        assert_eq!(wanted(&["text/html, application/x-protobuf;q=0.5"]), Ok(Codec::Protobuf));
        assert_eq!(wanted(&["application/json;q=0, application/*"]), Ok(Codec::Json));
        assert_eq!(wanted(&["text/html"]), Err(Unfit::Accept));
    }

    #[test]
    fn a_record_says_how_long_it_is() {
        assert_eq!(&*record(b"{\"type\":\"HEARTBEAT\"}"), b"20\n{\"type\":\"HEARTBEAT\"}");
    }
}
