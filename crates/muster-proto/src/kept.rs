//! Some fields of an encoded message, without the others: nothing is decoded.

use prost::DecodeError;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

/// What is kept of a field.
pub(crate) enum Keep {
    Nothing,
    All,
    /// What stands at this path within.
    At(&'static [u32]),
}

/// Appends what is kept of a message.
pub(crate) fn kept(
    mut bytes: &[u8],
    out: &mut Vec<u8>,
    keep: &dyn Fn(u32) -> Keep,
) -> Result<(), DecodeError> {
    while !bytes.is_empty() {
        let field = bytes;
        let (number, kind) = decode_key(&mut bytes)?;
        let value = bytes;
        skip_field(kind, number, &mut bytes, DecodeContext::default())?;
        match keep(number) {
            Keep::At([first, rest @ ..]) if kind == WireType::LengthDelimited => {
                let mut value = &value[..value.len() - bytes.len()];
                decode_varint(&mut value)?;
                let mut within = Vec::new();
                kept(value, &mut within, &|number| match rest {
                    _ if number != *first => Keep::Nothing,
                    [] => Keep::All,
                    rest => Keep::At(rest),
                })?;
                if !within.is_empty() {
                    encode_key(number, kind, out);
                    encode_varint(within.len() as u64, out);
                    out.extend_from_slice(&within);
                }
            }
            Keep::Nothing => {}
            Keep::All | Keep::At(_) => out.extend_from_slice(&field[..field.len() - bytes.len()]),
        }
    }
    Ok(())
}
