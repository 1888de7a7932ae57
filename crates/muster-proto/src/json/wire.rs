//! Protobuf's own bytes: a message as a list of its fields, unread.

use prost::encoding::{WireType, decode_key, decode_varint};
use std::borrow::Cow;

/// How deep messages may stand in each other, in both codecs: protobuf's own limit.
pub(super) const DEPTH_MAX: usize = 100;

/// A field's bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// A field's number and bytes.
pub(super) type Entry<'a> = (u32, Raw<'a>);

/// All fields of a message in their order.
pub(super) fn entries(mut bytes: &[u8]) -> Result<Vec<Entry<'_>>, String> {
    let mut entries = Vec::new();
    let wrong = |error: prost::DecodeError| error.to_string();
    while !bytes.is_empty() {
        let (number, kind) = decode_key(&mut bytes).map_err(wrong)?;
        let raw = match kind {
            WireType::Varint => Raw::Varint(decode_varint(&mut bytes).map_err(wrong)?),
            WireType::SixtyFourBit => Raw::Fixed64(u64::from_le_bytes(fixed(&mut bytes)?)),
            WireType::ThirtyTwoBit => Raw::Fixed32(u32::from_le_bytes(fixed(&mut bytes)?)),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).map_err(wrong)?;
                let length = usize::try_from(length).map_err(|_| TRUNCATED)?;
                let (field, rest) = bytes.split_at_checked(length).ok_or(TRUNCATED)?;
                bytes = rest;
                Raw::Bytes(field)
            }
            WireType::StartGroup | WireType::EndGroup => return Err("groups are not supported".into()),
        };
        entries.push((number, raw));
    }
    Ok(entries)
}

const TRUNCATED: &str = "a field ends after its message";

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (field, rest) = bytes.split_first_chunk::<N>().ok_or(TRUNCATED)?;
    *bytes = rest;
    Ok(*field)
}

/// A message that may have come in parts: protobuf merges them by putting one after the other.
pub(super) fn merged<'a>(parts: impl Iterator<Item = Raw<'a>>) -> Option<Cow<'a, [u8]>> {
    let mut whole: Option<Cow<'a, [u8]>> = None;
    for part in parts {
        let Raw::Bytes(part) = part else { continue };
        match &mut whole {
            None => whole = Some(Cow::Borrowed(part)),
            Some(whole) => whole.to_mut().extend_from_slice(part),
        }
    }
    whole
}

/// The numbers of a repeated field's entry: one, or several that are packed.
pub(super) fn unpacked<'a>(raw: Raw<'a>, fixed64: bool) -> Result<Vec<Raw<'a>>, String> {
    let Raw::Bytes(mut bytes) = raw else { return Ok(vec![raw]) };
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(match fixed64 {
            true => Raw::Fixed64(u64::from_le_bytes(fixed(&mut bytes)?)),
            false => Raw::Varint(decode_varint(&mut bytes).map_err(|error| error.to_string())?),
        });
    }
    Ok(numbers)
}
