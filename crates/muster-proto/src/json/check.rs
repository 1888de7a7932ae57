//! What must be set in a message, checked on protobuf's bytes: the generated types cannot tell what is missing from
//! what is zero.

use super::read::path;
use super::shape::{Kind, Label, Shape};
use super::wire::{DEPTH_MAX, Raw, entries, merged};

/// The first fields that are required and not set. An enum's number that has no name counts as unset there.
pub(super) fn missing(shape: &'static Shape, bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut search = Search { path: Vec::new(), missing: Vec::new() };
    search.message(shape, bytes)?;
    Ok(search.missing)
}

/// How many fields are named.
const MISSING_MAX: usize = 10;

struct Search {
    path: Vec<(&'static str, Option<usize>)>,
    missing: Vec<String>,
}

impl Search {
    fn message(&mut self, shape: &'static Shape, bytes: &[u8]) -> Result<(), String> {
        if self.path.len() > DEPTH_MAX {
            return Err(format!("messages stand more than {DEPTH_MAX} deep in each other"));
        }
        let entries = entries(bytes)?;
        for field in shape.fields {
            let of = || entries.iter().filter(|(number, _)| *number == field.number).map(|(_, raw)| *raw);
            if field.label == Label::Required
                && !of().any(|raw| is_set(field.kind, raw))
                && self.missing.len() < MISSING_MAX
            {
                self.missing.push(path(&self.path, field.name));
            }
            let (Kind::Message(inner) | Kind::Map(inner)) = field.kind else { continue };
            self.path.push((field.name, None));
            if field.label == Label::Repeated {
                for (at, raw) in of().enumerate() {
                    let Raw::Bytes(bytes) = raw else { continue };
                    if let Some((_, place)) = self.path.last_mut() {
                        *place = Some(at);
                    }
                    self.message(inner, bytes)?;
                }
            } else if let Some(bytes) = merged(of()) {
                self.message(inner, &bytes)?;
            }
            self.path.pop();
        }
        Ok(())
    }
}

fn is_set(kind: Kind, raw: Raw<'_>) -> bool {
    match (kind, raw) {
        (Kind::Enum(names), Raw::Varint(number)) => names.name(number as i32).is_some(),
        (Kind::Double, Raw::Fixed64(_)) => true,
        (Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Map(_), Raw::Bytes(_)) => true,
        (Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64, Raw::Varint(_)) => true,
        _ => false,
    }
}
