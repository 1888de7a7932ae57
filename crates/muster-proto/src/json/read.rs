//! Mesos' JSON as protobuf's bytes, read as tolerantly as Mesos reads it.

use super::shape::{Field, Kind, Label, Shape};
use super::wire::{DEPTH_MAX, Raw, entries};
use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// How many missing fields an error names.
const MISSING_MAX: usize = 10;

/// A message on its way in.
#[derive(Default)]
pub(super) struct Reading {
    out: Vec<u8>,
    /// Where in the outermost message this is: field by field, with places in lists.
    path: Vec<(&'static str, Option<usize>)>,
    missing: Vec<String>,
}

/// Reads a whole text. What is wrong comes back in Mesos' words, without what kind of failure it is.
pub(super) fn message(shape: &'static Shape, text: &[u8]) -> Result<Vec<u8>, Unread> {
    let mut reading = Reading::default();
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = json.deserialize_any(Object { shape, to: &mut reading });
    read.and_then(|()| json.end()).map_err(|error| match error.classify() {
        // Mesos says what, not where.
        serde_json::error::Category::Data => {
            let (text, place) =
                (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
            Unread::Shape(text.strip_suffix(&place).unwrap_or(&text).to_owned())
        }
        _ => Unread::Syntax(error.to_string()),
    })?;
    if reading.missing.is_empty() {
        return Ok(reading.out);
    }
    Err(Unread::Shape(format!("Missing required fields: {}", reading.missing.join(", "))))
}

/// Why a text was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is no JSON.
    Syntax(String),
    /// It is JSON of another shape.
    Shape(String),
}

impl Reading {
    fn varint(&mut self, field: &Field, value: u64) {
        encode_key(field.number, WireType::Varint, &mut self.out);
        encode_varint(value, &mut self.out);
    }

    fn bytes(&mut self, field: &Field, bytes: &[u8]) {
        encode_key(field.number, WireType::LengthDelimited, &mut self.out);
        encode_varint(bytes.len() as u64, &mut self.out);
        self.out.extend_from_slice(bytes);
    }

    fn double(&mut self, field: &Field, value: f64) {
        encode_key(field.number, WireType::SixtyFourBit, &mut self.out);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Writes the length before what was written since `from`.
    fn close(&mut self, from: usize) {
        let mut length = Vec::with_capacity(5);
        encode_varint((self.out.len() - from) as u64, &mut length);
        self.out.splice(from..from, length);
    }

    fn step(&mut self, field: &Field) {
        self.path.push((field.name, None));
    }

    fn at(&mut self, at: usize) {
        if let Some((_, place)) = self.path.last_mut() {
            *place = Some(at);
        }
    }

    fn back(&mut self) {
        self.path.pop();
    }

    fn miss(&mut self, field: &Field) {
        if self.missing.len() < MISSING_MAX {
            self.missing.push(path(&self.path, field.name));
        }
    }

    /// Takes back what a field was given since `from`, where the message began: of a name that comes twice, the last
    /// one counts.
    fn take_back(&mut self, field: &Field, from: usize) {
        let whole = self.out.split_off(from);
        // These bytes were written here.
        for (number, raw) in entries(&whole).unwrap_or_default() {
            if number == field.number {
                continue;
            }
            let key = |kind, out: &mut Vec<u8>| encode_key(number, kind, out);
            match raw {
                Raw::Varint(value) => {
                    key(WireType::Varint, &mut self.out);
                    encode_varint(value, &mut self.out);
                }
                Raw::Fixed64(value) => {
                    key(WireType::SixtyFourBit, &mut self.out);
                    self.out.extend_from_slice(&value.to_le_bytes());
                }
                Raw::Fixed32(value) => {
                    key(WireType::ThirtyTwoBit, &mut self.out);
                    self.out.extend_from_slice(&value.to_le_bytes());
                }
                Raw::Bytes(bytes) => {
                    key(WireType::LengthDelimited, &mut self.out);
                    encode_varint(bytes.len() as u64, &mut self.out);
                    self.out.extend_from_slice(bytes);
                }
            }
        }
    }
}

/// `accept.operations[2].launch` and a name.
pub(super) fn path(path: &[(&'static str, Option<usize>)], name: &str) -> String {
    let mut text = String::new();
    for (field, place) in path {
        text.push_str(field);
        if let Some(place) = place {
            text.push_str(&format!("[{place}]"));
        }
        text.push('.');
    }
    text + name
}

/// A message's fields, without a length before them.
struct Object<'a> {
    shape: &'static Shape,
    to: &'a mut Reading,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { shape, to } = self;
        if to.path.len() >= DEPTH_MAX {
            return Err(Error::custom(format!("messages stand more than {DEPTH_MAX} deep in each other")));
        }
        let from = to.out.len();
        let mut seen: u128 = 0;
        while let Some(index) = map.next_key_seed(Key(shape))? {
            let Some((index, field)) = index.and_then(|index| Some((index, shape.fields.get(index)?))) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let bit = 1 << index;
            if seen & bit != 0 {
                to.take_back(field, from);
            }
            to.step(field);
            let given = map.next_value_seed(Given { field, listed: false, to })?;
            to.back();
            seen = if given { seen | bit } else { seen & !bit };
        }
        for (index, field) in shape.fields.iter().enumerate() {
            if field.label == Label::Required && seen & (1 << index) == 0 {
                to.miss(field);
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Err(E::custom("Expecting a JSON object"))
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Err(E::custom("Expecting a JSON object"))
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Err(E::custom("Expecting a JSON object"))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Err(E::custom("Expecting a JSON object"))
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom("Expecting a JSON object"))
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(E::custom("Expecting a JSON object"))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(Error::custom("Expecting a JSON object"))
    }
}

/// A name: the field's place in its message, or none of it.
struct Key(&'static Shape);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().position(|field| field.name == name))
    }
}

/// A field's value, or an element of its list. Whether the field is set then.
struct Given<'a> {
    field: &'static Field,
    /// Whether this is an element.
    listed: bool,
    to: &'a mut Reading,
}

impl Given<'_> {
    fn unexpected<E: Error>(&self, what: &str) -> E {
        E::custom(format!("Not expecting a JSON {what} for field '{}'", self.field.name))
    }

    /// What is no whole number of this kind.
    fn range<E: Error>(&self, value: impl fmt::Display) -> E {
        E::custom(format!("Number {value} is out of range for field '{}'", self.field.name))
    }

    fn integer<E: Error>(self, value: i128) -> Result<bool, E> {
        let whole = match self.field.kind {
            Kind::Int32 => i32::try_from(value).ok().map(|value| i64::from(value) as u64),
            Kind::Int64 => i64::try_from(value).ok().map(|value| value as u64),
            Kind::Uint32 => u32::try_from(value).ok().map(u64::from),
            Kind::Uint64 => u64::try_from(value).ok(),
            Kind::Double => {
                self.to.double(self.field, value as f64);
                return Ok(true);
            }
            _ => return Err(self.unexpected("number")),
        };
        let value = whole.ok_or_else(|| self.range(value))?;
        self.to.varint(self.field, value);
        Ok(true)
    }

    fn number<E: Error>(self, value: f64) -> Result<bool, E> {
        match self.field.kind {
            Kind::Double => self.to.double(self.field, value),
            // A fraction is cut off. What lies beyond is out of any range here, too.
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 if value.is_finite() => {
                return self.integer(value.trunc() as i128);
            }
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => return Err(self.range(value)),
            _ => return Err(self.unexpected("number")),
        }
        Ok(true)
    }

    fn message<'de, A: MapAccess<'de>>(self, shape: &'static Shape, map: A) -> Result<bool, A::Error> {
        encode_key(self.field.number, WireType::LengthDelimited, &mut self.to.out);
        let from = self.to.out.len();
        Object { shape, to: self.to }.visit_map(map)?;
        self.to.close(from);
        Ok(true)
    }

    fn map<'de, A: MapAccess<'de>>(self, shape: &'static Shape, mut map: A) -> Result<bool, A::Error> {
        let [key, value] = shape.fields else { return Err(self.unexpected("object")) };
        while let Some(name) = map.next_key::<String>()? {
            encode_key(self.field.number, WireType::LengthDelimited, &mut self.to.out);
            let from = self.to.out.len();
            self.to.bytes(key, name.as_bytes());
            map.next_value_seed(Given { field: value, listed: true, to: self.to })?;
            self.to.close(from);
        }
        Ok(true)
    }
}

impl<'de> DeserializeSeed<'de> for Given<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Given<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of field '{}'", self.field.name)
    }

    /// `null` is the same as nothing.
    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        match self.field.kind {
            Kind::Bool => self.to.varint(self.field, value.into()),
            _ => return Err(self.unexpected("boolean")),
        }
        Ok(true)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.integer(value.into())
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        self.integer(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        self.number(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        match self.field.kind {
            Kind::String => self.to.bytes(self.field, text.as_bytes()),
            Kind::Bytes => {
                let bytes = STANDARD.decode(text).map_err(|error| {
                    let why = match error {
                        DecodeError::InvalidByte(_, byte) => {
                            format!("Invalid character '{}'", char::from(byte))
                        }
                        other => other.to_string(),
                    };
                    E::custom(format!("Failed to base64 decode bytes field '{}': {why}", self.field.name))
                })?;
                self.to.bytes(self.field, &bytes);
            }
            Kind::Enum(names) => match names.number(text) {
                Some(number) => self.to.varint(self.field, i64::from(number) as u64),
                None if self.field.label == Label::Required => {
                    let name = self.field.name;
                    return Err(E::custom(format!("Failed to find enum for '{text}' in field '{name}'")));
                }
                None => return Ok(false), // one of a newer version
            },
            Kind::Bool => match text {
                "true" => self.to.varint(self.field, 1),
                "false" => self.to.varint(self.field, 0),
                _ => return Err(self.unexpected("string")),
            },
            Kind::Double | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => {
                let whole = text.parse::<i128>().ok();
                return match (whole, text.parse::<f64>()) {
                    (Some(whole), _) => self.integer(whole),
                    (None, Ok(number)) => self.number(number),
                    (None, Err(_)) => Err(self.unexpected("string")),
                };
            }
            Kind::Message(shape) if shape.name == "google.protobuf.Duration" => {
                let Some(nanos) = duration(text) else { return Err(self.unexpected("string")) };
                encode_key(self.field.number, WireType::LengthDelimited, &mut self.to.out);
                let from = self.to.out.len();
                for (field, part) in shape.fields.iter().zip([nanos / 1_000_000_000, nanos % 1_000_000_000]) {
                    self.to.varint(field, part as u64);
                }
                self.to.close(from);
            }
            Kind::Message(_) | Kind::Map(_) => return Err(self.unexpected("string")),
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        match self.field.kind {
            Kind::Message(shape) => self.message(shape, map),
            Kind::Map(shape) if !self.listed => self.map(shape, map),
            _ => Err(self.unexpected("object")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        if self.listed || self.field.label != Label::Repeated || matches!(self.field.kind, Kind::Map(_)) {
            return Err(self.unexpected("array"));
        }
        for at in 0.. {
            self.to.at(at);
            if list.next_element_seed(Given { field: self.field, listed: true, to: self.to })?.is_none() {
                break;
            }
        }
        Ok(true)
    }
}

/// A duration as Mesos writes it in texts, `10mins`, in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("ms", 1e6),
        ("secs", 1e9),
        ("mins", 60e9),
        ("hrs", 3600e9),
        ("days", 86_400e9),
        ("weeks", 604_800e9),
    ];
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let nanos = number.parse::<f64>().ok()? * nanos;
    (nanos.abs() < i64::MAX as f64).then_some(nanos as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("10mins"), Some(600_000_000_000));
        assert_eq!(duration("1.5secs"), Some(1_500_000_000));
        for bad in ["", "10", "mins", "10minutes", "xsecs", "1e300weeks"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
