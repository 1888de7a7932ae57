//! Protobuf's bytes as Mesos' JSON.

use super::shape::{Field, Kind, Label, Shape};
use super::wire::{DEPTH_MAX, Entry, Raw, entries, merged, unpacked};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::fmt::Write;

/// Appends the message to `out`.
pub(super) fn message(
    shape: &'static Shape,
    bytes: &[u8],
    depth: usize,
    out: &mut String,
) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("messages stand more than {DEPTH_MAX} deep in each other"));
    }
    let entries = entries(bytes)?;
    out.push('{');
    let mut first = true;
    for field in shape.fields {
        // A name without a value is taken back.
        let from = out.len();
        if !first {
            out.push(',');
        }
        out.push('"');
        out.push_str(field.name);
        out.push_str("\":");
        if value(field, &entries, depth, out)? {
            first = false;
        } else {
            out.truncate(from);
        }
    }
    out.push('}');
    Ok(())
}

/// Writes a field's value, if it has one.
fn value(field: &Field, entries: &[Entry<'_>], depth: usize, out: &mut String) -> Result<bool, String> {
    let of = || entries.iter().filter(|(number, _)| *number == field.number).map(|(_, raw)| *raw);
    match (field.label, field.kind) {
        (_, Kind::Map(entry)) => map(entry, of(), depth, out),
        (Label::Repeated, kind) => list(kind, of(), depth, out),
        (_, Kind::Message(shape)) => match merged(of()) {
            Some(bytes) => message(shape, &bytes, depth + 1, out).map(|()| true),
            None => Ok(false),
        },
        (_, kind) => {
            // Of a field that comes twice, the last one counts.
            let last = of().next_back();
            if let Some(raw) = last
                && one(kind, raw, depth, out)?
            {
                return Ok(true);
            }
            let default = field.default.filter(|_| last.is_none());
            out.push_str(default.unwrap_or_default());
            Ok(default.is_some())
        }
    }
}

fn list<'a>(
    kind: Kind,
    of: impl Iterator<Item = Raw<'a>>,
    depth: usize,
    out: &mut String,
) -> Result<bool, String> {
    let from = out.len();
    out.push('[');
    let mut first = true;
    for raw in of {
        let parts = match kind {
            Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Map(_) => vec![raw],
            _ => unpacked(raw, matches!(kind, Kind::Double))?,
        };
        for part in parts {
            let from = out.len();
            if !first {
                out.push(',');
            }
            if one(kind, part, depth, out)? {
                first = false;
            } else {
                out.truncate(from);
            }
        }
    }
    if first {
        out.truncate(from);
        return Ok(false);
    }
    out.push(']');
    Ok(true)
}

fn map<'a>(
    shape: &'static Shape,
    of: impl Iterator<Item = Raw<'a>>,
    depth: usize,
    out: &mut String,
) -> Result<bool, String> {
    let [key, value] = shape.fields else { return Err(format!("{} is no map", shape.name)) };
    let mut first = true;
    out.push('{');
    for raw in of {
        let Raw::Bytes(bytes) = raw else { continue };
        let entries = entries(bytes)?;
        if !first {
            out.push(',');
        }
        first = false;
        if !self::value(key, &entries, depth, out)? {
            out.push_str("\"\"");
        }
        out.push(':');
        if !self::value(value, &entries, depth + 1, out)? {
            match value.kind {
                Kind::Message(shape) => empty(shape, out),
                _ => out.push_str("\"\""),
            }
        }
    }
    out.push('}');
    Ok(!first)
}

/// Writes a message that a map's entry leaves out, which stands for one with nothing in it but what is required.
fn empty(shape: &'static Shape, out: &mut String) {
    out.push('{');
    let mut between = "";
    for field in shape.fields.iter().filter(|field| matches!(field.label, Label::Required)) {
        let _ = write!(out, "{between}\"{}\":", field.name);
        between = ",";
        match field.kind {
            Kind::Message(shape) => empty(shape, out),
            Kind::Bool => out.push_str("false"),
            Kind::Double => out.push_str("0.0"),
            Kind::String | Kind::Bytes | Kind::Map(_) => out.push_str("\"\""),
            _ => out.push('0'),
        }
    }
    out.push('}');
}

/// Writes one value. False: an enum's number that has no name, or bytes of another kind, which protobuf skips too.
fn one(kind: Kind, raw: Raw<'_>, depth: usize, out: &mut String) -> Result<bool, String> {
    match (kind, raw) {
        (Kind::Bool, Raw::Varint(n)) => out.push_str(if n == 0 { "false" } else { "true" }),
        (Kind::Int32, Raw::Varint(n)) => drop(write!(out, "{}", n as i32)),
        (Kind::Int64, Raw::Varint(n)) => drop(write!(out, "{}", n as i64)),
        (Kind::Uint32, Raw::Varint(n)) => drop(write!(out, "{}", n as u32)),
        (Kind::Uint64, Raw::Varint(n)) => drop(write!(out, "{n}")),
        (Kind::Double, Raw::Fixed64(bits)) => number(f64::from_bits(bits), out),
        (Kind::Enum(names), Raw::Varint(n)) => match names.name(n as i32) {
            Some(name) => {
                out.push('"');
                out.push_str(name);
                out.push('"');
            }
            None => return Ok(false),
        },
        (Kind::String, Raw::Bytes(bytes)) => {
            text(std::str::from_utf8(bytes).map_err(|error| error.to_string())?, out);
        }
        (Kind::Bytes, Raw::Bytes(bytes)) => {
            out.push('"');
            STANDARD.encode_string(bytes, out);
            out.push('"');
        }
        (Kind::Message(shape), Raw::Bytes(bytes)) => message(shape, bytes, depth + 1, out)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// A number always has a fraction or an exponent; what is none is a text.
fn number(value: f64, out: &mut String) {
    let _ = match value.is_finite() {
        true => write!(out, "{value:?}"),
        false if value.is_nan() => write!(out, "\"NaN\""),
        false => write!(out, "\"{}Infinity\"", if value < 0.0 { "-" } else { "" }),
    };
}

/// A text in ASCII, since some clients count a record's characters where they should count its bytes.
fn text(value: &str, out: &mut String) {
    out.push('"');
    let mut rest = value;
    // Most of it stands for itself.
    while let Some(at) =
        rest.bytes().position(|byte| !matches!(byte, b' '..=b'~') || byte == b'"' || byte == b'\\')
    {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut chars = rest.chars();
        match chars.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some('\u{8}') => out.push_str("\\b"),
            Some('\u{c}') => out.push_str("\\f"),
            Some(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}
