//! Writes a table for each Mesos message: names, numbers, labels, kinds and defaults of its fields. The JSON codec
//! and the check for required fields read nothing else.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::fmt::Write;

/// The tables of all messages and enums that the Mesos API is made of, as Rust.
pub(crate) fn tables(set: &FileDescriptorSet) -> String {
    let mut tables = Tables::default();
    for file in &set.file {
        let package = file.package();
        if package.starts_with("mesos.v1") || package == "google.protobuf" {
            file.message_type.iter().for_each(|message| tables.message(package, message));
            file.enum_type.iter().for_each(|it| tables.enumeration(package, it));
        }
    }
    tables.0
}

/// What is written so far. Writing to a `String` cannot fail.
#[derive(Default)]
struct Tables(String);

impl Tables {
    fn message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.message(&name, nested));
        message.enum_type.iter().for_each(|nested| self.enumeration(&name, nested));
        let fields: String = message.field.iter().map(|field| self::field(message, field)).collect();
        let (table, doc) = (table(&name), format!("`{name}`."));
        let _ = write!(
            self.0,
            "#[doc = {doc:?}]\npub static {table}: Shape = Shape {{ name: {name:?}, fields: &[{fields}] }};\n"
        );
    }

    fn enumeration(&mut self, scope: &str, it: &EnumDescriptorProto) {
        let name = format!("{scope}.{}", it.name());
        let names = it.value.iter().fold(String::new(), |mut names, value| {
            let _ = write!(names, "({}, {:?}), ", value.number(), value.name());
            names
        });
        let table = table(&name);
        let _ = writeln!(
            self.0,
            "#[allow(dead_code)] // not every enum is a field's\nstatic {table}: Names = Names(&[{names}]);"
        );
    }
}

fn field(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let (name, number) = (field.name(), field.number());
    let of = |kind: &str| format!("Kind::{kind}(&{})", table(field.type_name().trim_start_matches('.')));
    let kind = match field.r#type() {
        Type::Double => "Kind::Double".into(),
        Type::Int64 => "Kind::Int64".into(),
        Type::Uint64 => "Kind::Uint64".into(),
        Type::Int32 => "Kind::Int32".into(),
        Type::Uint32 => "Kind::Uint32".into(),
        Type::Bool => "Kind::Bool".into(),
        Type::String => "Kind::String".into(),
        Type::Bytes => "Kind::Bytes".into(),
        Type::Enum => of("Enum"),
        Type::Message if is_map(message, field) => of("Map"),
        Type::Message => of("Message"),
        other => panic!("{name}: no Mesos message has a field of type {other:?}"),
    };
    let label = match field.label() {
        Label::Optional => "Label::Optional",
        Label::Required => "Label::Required",
        Label::Repeated => "Label::Repeated",
    };
    let deprecated = field.options.as_ref().is_some_and(|options| options.deprecated());
    let default = field.default_value.as_deref().filter(|_| !deprecated && field.label() == Label::Optional);
    let default = default.map(|value| json(field.r#type(), value));
    format!(
        "Field {{ name: {name:?}, number: {number}, label: {label}, kind: {kind}, default: {default:?} }}, "
    )
}

/// A default as Mesos writes it.
fn json(kind: Type, value: &str) -> String {
    match kind {
        Type::Double => format!("{:?}", value.parse::<f64>().expect("a default is a number")),
        Type::String | Type::Enum => format!("\"{value}\""),
        _ => value.into(),
    }
}

/// Whether the field is a map: its type is an entry, nested in the message, that the compiler made.
fn is_map(message: &DescriptorProto, field: &FieldDescriptorProto) -> bool {
    let local = field.type_name().rsplit('.').next();
    message.nested_type.iter().any(|nested| {
        Some(nested.name()) == local && nested.options.as_ref().is_some_and(|options| options.map_entry())
    })
}

/// The name of a table.
fn table(name: &str) -> String {
    name.replace('.', "_").to_uppercase()
}
