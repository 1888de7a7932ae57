//! The rows in sled: each with a format byte and a checksum of its own over key and value, none over 64 KiB.
//!
//! One log entry is one or more rows of one key prefix, written in one batch; sled is atomic for each tree,
//! so there is one tree and the first byte of a key says what the row is.

use crate::types::{LogId, log_id, term_of};
use bytes::{Bytes, BytesMut};

/// A part of a log entry: prefix, index, part.
pub(crate) const LOG: u8 = b'l';
/// The newest committed log id: written lazily with the next batch.
pub(crate) const COMMITTED: u8 = b'c';
/// A snapshot in the catalogue: prefix, index.
pub(crate) const SNAPSHOT: u8 = b's';

const FORMAT: u8 = 1;
/// format, checksum, term, count of parts.
const HEAD_BYTES: usize = 1 + 4 + 8 + 2;
/// A row's value is never longer: a larger page goes to `blobs/`, which sled never syncs.
pub(crate) const ROW_BYTES_MAX: usize = 64 * 1024;
const PIECE_BYTES_MAX: usize = ROW_BYTES_MAX - HEAD_BYTES;
/// The longest entry that fits its parts' count.
pub(crate) const ENTRY_BYTES_MAX: usize = PIECE_BYTES_MAX * u16::MAX as usize;

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error("a row is cut short")]
    Short,
    #[error("a row's checksum does not match")]
    Checksum,
    #[error("a row has the newer format {0}")]
    Newer(u8),
}

/// The key of one part of one entry.
pub(crate) fn log_key(index: u64, part: u16) -> [u8; 11] {
    let mut key = [LOG; 11];
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

/// The key of a snapshot in the catalogue.
pub(crate) fn snapshot_key(index: u64) -> [u8; 9] {
    let mut key = [SNAPSHOT; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The index and the part in a log key.
pub(crate) fn parse_log_key(key: &[u8]) -> Option<(u64, u16)> {
    let key: &[u8; 11] = key.try_into().ok()?;
    let mut index = [0; 8];
    index.copy_from_slice(&key[1..9]);
    Some((u64::from_be_bytes(index), u16::from_be_bytes([key[9], key[10]])))
}

/// Seals a value: head, checksum, piece.
pub(crate) fn seal(key: &[u8], term: u64, parts: u16, piece: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD_BYTES + piece.len());
    value.push(FORMAT);
    value.extend_from_slice(&[0; 4]);
    value.extend_from_slice(&term.to_be_bytes());
    value.extend_from_slice(&parts.to_be_bytes());
    value.extend_from_slice(piece);
    let crc = checksum(key, &value);
    value[1..5].copy_from_slice(&crc.to_be_bytes());
    value
}

/// Corrects the checksum of a value that a test changed.
#[cfg(test)]
pub(crate) fn reseal(key: &[u8], value: &mut [u8]) {
    let crc = checksum(key, value);
    value[1..5].copy_from_slice(&crc.to_be_bytes());
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &value[..1]);
    crc32c::crc32c_append(crc, &value[5..])
}

/// The term, the count of parts and the piece of a sealed value.
pub(crate) fn open<'a>(key: &[u8], value: &'a [u8]) -> Result<(u64, u16, &'a [u8]), RowError> {
    if value.len() < HEAD_BYTES {
        return Err(RowError::Short);
    }
    let stored = u32::from_be_bytes([value[1], value[2], value[3], value[4]]);
    if stored != checksum(key, value) {
        return Err(RowError::Checksum);
    }
    if value[0] != FORMAT {
        return Err(RowError::Newer(value[0]));
    }
    let mut term = [0; 8];
    term.copy_from_slice(&value[5..13]);
    Ok((u64::from_be_bytes(term), u16::from_be_bytes([value[13], value[14]]), &value[HEAD_BYTES..]))
}

/// The rows of an entry, in order.
pub(crate) fn cut(id: &LogId, payload: &[u8]) -> impl Iterator<Item = ([u8; 11], Vec<u8>)> {
    let parts = parts(payload.len());
    let (term, index) = (term_of(id), id.index);
    (0..parts).map(move |part| {
        let from = usize::from(part) * PIECE_BYTES_MAX;
        let to = payload.len().min(from + PIECE_BYTES_MAX);
        let key = log_key(index, part);
        let value = seal(&key, term, parts, &payload[from..to]);
        (key, value)
    })
}

/// How many rows a payload takes.
pub(crate) fn parts(bytes: usize) -> u16 {
    bytes.div_ceil(PIECE_BYTES_MAX).clamp(1, usize::from(u16::MAX)) as u16
}

/// Puts rows that come in order of their keys together to entries again.
#[derive(Default)]
pub(crate) struct Assembler {
    current: Option<Partial>,
}

struct Partial {
    index: u64,
    term: u64,
    parts: u16,
    next: u16,
    bytes: BytesMut,
}

/// What a log's rows can be wrong in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("the row of entry {index} part {part} is damaged: {source}")]
    Row { index: u64, part: u16, source: RowError },
    #[error("a row's key is not one of a log entry")]
    Key,
    #[error("entry {index} lacks its part {part}")]
    Part { index: u64, part: u16 },
}

impl Assembler {
    /// Takes the next row; gives an entry's id and payload when it is complete.
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<Option<(LogId, Bytes)>, LogError> {
        let (index, part) = parse_log_key(key).ok_or(LogError::Key)?;
        let (term, parts, piece) =
            open(key, value).map_err(|source| LogError::Row { index, part, source })?;
        let mut partial = match self.current.take() {
            None if part == 0 => {
                Partial { index, term, parts, next: 0, bytes: BytesMut::with_capacity(piece.len()) }
            }
            None => return Err(LogError::Part { index, part: 0 }),
            Some(partial) => partial,
        };
        if (partial.index, partial.term, partial.parts, partial.next) != (index, term, parts, part) {
            return Err(LogError::Part { index: partial.index, part: partial.next });
        }
        partial.bytes.extend_from_slice(piece);
        partial.next += 1;
        if partial.next == partial.parts {
            Ok(Some((log_id(term, index), partial.bytes.freeze())))
        } else {
            self.current = Some(partial);
            Ok(None)
        }
    }

    /// An entry that was begun and not finished.
    pub(crate) fn unfinished(&self) -> Option<LogError> {
        self.current.as_ref().map(|partial| LogError::Part { index: partial.index, part: partial.next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let key = log_key(7, 0);
        let value = seal(&key, 3, 1, b"what the entry holds");
        assert_eq!(open(&key, &value).unwrap(), (3, 1, &b"what the entry holds"[..]));
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key, &bad).is_err(), "bit {bit}");
        }
        assert!(open(&log_key(8, 0), &value).is_err(), "a row under another key");
        assert!(open(&key, &value[..10]).is_err());
    }

    #[test]
    fn entries_of_any_length_come_together_again() {
        for length in [0, 1, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 1 << 20] {
            let payload: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let id = log_id(4, 9);
            let rows: Vec<_> = cut(&id, &payload).collect();
            assert_eq!(rows.len(), usize::from(parts(length)));
            assert!(rows.iter().all(|(_, value)| value.len() <= ROW_BYTES_MAX));
            let mut assembler = Assembler::default();
            let mut whole = None;
            for (key, value) in &rows {
                assert!(whole.is_none());
                whole = assembler.take(key, value).unwrap();
            }
            assert_eq!(whole.unwrap(), (id, Bytes::from(payload)));
        }
    }

    #[test]
    fn a_missing_part_is_noticed() {
        let rows: Vec<_> = cut(&log_id(1, 5), &vec![7; 200_000]).collect();
        let mut assembler = Assembler::default();
        assembler.take(&rows[0].0, &rows[0].1).unwrap();
        assert!(assembler.unfinished().is_some());
        assert!(matches!(assembler.take(&rows[2].0, &rows[2].1), Err(LogError::Part { index: 5, part: 1 })));
    }
}
