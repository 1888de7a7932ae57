//! The two codecs of the Mesos v1 API: JSON in Mesos' own mapping, which is not that of proto3, and protobuf.
//!
//! Everything works on protobuf's bytes and on tables that the build script makes of the descriptors ([`shape`]): JSON is
//! made of bytes and bytes of JSON, field by field, so that what a client sent comes out of here as it went in, fields
//! that nobody here knows too.
//!
//! The mapping: names as in the `.proto` files; 64-bit numbers are numbers, enums names, bytes base64; what is unset is
//! absent, but a field with a default of its own is written with it; unknown names, `null` and enum names that are not
//! known are nothing; numbers and truth values may be texts; one value may stand for a list of one.

mod check;
mod read;
pub mod shape;
mod wire;
mod write;

pub use shape::Shape;

use bytes::Bytes;
use prost::Message;
use read::Unread;

/// A message of the Mesos API.
pub trait Mesos: Message + Default {
    /// Its table.
    fn shape() -> &'static Shape;
}

macro_rules! mesos {
    ($($message:ty => $table:ident),+ $(,)?) => {
        $(impl Mesos for $message {
            fn shape() -> &'static Shape {
                &shape::$table
            }
        })+
    };
}

mesos! {
    crate::mesos::scheduler::Call => MESOS_V1_SCHEDULER_CALL,
    crate::mesos::scheduler::Event => MESOS_V1_SCHEDULER_EVENT,
    crate::mesos::scheduler::Response => MESOS_V1_SCHEDULER_RESPONSE,
    crate::mesos::executor::Call => MESOS_V1_EXECUTOR_CALL,
    crate::mesos::executor::Event => MESOS_V1_EXECUTOR_EVENT,
    crate::mesos::master::Call => MESOS_V1_MASTER_CALL,
    crate::mesos::master::Response => MESOS_V1_MASTER_RESPONSE,
    crate::mesos::master::Event => MESOS_V1_MASTER_EVENT,
    crate::mesos::agent::Call => MESOS_V1_AGENT_CALL,
    crate::mesos::agent::Response => MESOS_V1_AGENT_RESPONSE,
    crate::mesos::agent::ProcessIo => MESOS_V1_AGENT_PROCESSIO,
    crate::mesos::master::response::get_agents::Agent => MESOS_V1_MASTER_RESPONSE_GETAGENTS_AGENT,
    crate::mesos::master::response::get_executors::Executor => MESOS_V1_MASTER_RESPONSE_GETEXECUTORS_EXECUTOR,
    crate::mesos::master::response::get_frameworks::Framework => MESOS_V1_MASTER_RESPONSE_GETFRAMEWORKS_FRAMEWORK,
    crate::mesos::master::response::GetMaster => MESOS_V1_MASTER_RESPONSE_GETMASTER,
    crate::mesos::master::call::StartMaintenance => MESOS_V1_MASTER_CALL_STARTMAINTENANCE,
    crate::mesos::master::call::UpdateWeights => MESOS_V1_MASTER_CALL_UPDATEWEIGHTS,
    crate::mesos::maintenance::ClusterStatus => MESOS_V1_MAINTENANCE_CLUSTERSTATUS,
    crate::mesos::maintenance::Schedule => MESOS_V1_MAINTENANCE_SCHEDULE,
    crate::mesos::quota::QuotaRequest => MESOS_V1_QUOTA_QUOTAREQUEST,
    crate::mesos::quota::QuotaStatus => MESOS_V1_QUOTA_QUOTASTATUS,
    crate::mesos::ContainerInfo => MESOS_V1_CONTAINERINFO,
    crate::mesos::ContainerStatus => MESOS_V1_CONTAINERSTATUS,
    crate::mesos::DiscoveryInfo => MESOS_V1_DISCOVERYINFO,
    crate::mesos::DomainInfo => MESOS_V1_DOMAININFO,
    crate::mesos::DrainInfo => MESOS_V1_DRAININFO,
    crate::mesos::Environment => MESOS_V1_ENVIRONMENT,
    crate::mesos::HealthCheck => MESOS_V1_HEALTHCHECK,
    crate::mesos::Operation => MESOS_V1_OPERATION,
    crate::mesos::Resource => MESOS_V1_RESOURCE,
    crate::mesos::Role => MESOS_V1_ROLE,
    crate::mesos::Task => MESOS_V1_TASK,
    crate::mesos::WeightInfo => MESOS_V1_WEIGHTINFO,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// `application/json`.
    Json,
    /// `application/x-protobuf`.
    Protobuf,
}

/// Why a body is no message, in Mesos' words, which end with what exactly is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Codec {
    /// Its name in `Content-Type` and `Accept`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }

    /// Reads a message; all that is required is set then.
    ///
    /// # Errors
    /// The body is no JSON, or none of this shape, or not protobuf's bytes of it, or something required is missing.
    pub fn read<M: Mesos>(self, body: &[u8]) -> Result<M, Unreadable> {
        let name = M::shape().short_name();
        let no_protobuf =
            |why: String| Unreadable(format!("Failed to parse body into {name} protobuf: {why}"));
        let decode = |bytes: &[u8]| M::decode(bytes).map_err(|error| no_protobuf(error.to_string()));
        match self {
            Self::Json => decode(&from_json(M::shape(), body)?),
            Self::Protobuf => {
                let message = decode(body)?;
                let missing = check::missing(M::shape(), body).map_err(no_protobuf)?;
                if !missing.is_empty() {
                    return Err(no_protobuf(format!("Missing required fields: {}", missing.join(", "))));
                }
                Ok(message)
            }
        }
    }

    /// Writes a message.
    pub fn write<M: Mesos>(self, message: &M) -> Bytes {
        self.write_encoded(M::shape(), message.encode_to_vec().into())
    }

    /// Writes a message that is there as protobuf's bytes.
    ///
    /// Bytes that are no such message, which nobody here makes, become an empty one.
    pub fn write_encoded(self, shape: &'static Shape, bytes: Bytes) -> Bytes {
        match self {
            Self::Json => to_json(shape, &bytes).unwrap_or_else(|_| "{}".into()).into(),
            Self::Protobuf => bytes,
        }
    }
}

/// Protobuf's bytes as JSON.
///
/// # Errors
/// They are no such message.
pub fn to_json(shape: &'static Shape, bytes: &[u8]) -> Result<String, String> {
    let mut out = String::with_capacity(bytes.len() * 3);
    write::message(shape, bytes, 0, &mut out)?;
    Ok(out)
}

/// JSON as protobuf's bytes; all that is required is set then.
///
/// # Errors
/// It is no JSON, or none of this shape, or something required is missing.
pub fn from_json(shape: &'static Shape, text: &[u8]) -> Result<Vec<u8>, Unreadable> {
    read::message(shape, text).map_err(|unread| match unread {
        Unread::Syntax(why) => Unreadable(format!("Failed to parse body into JSON: {why}")),
        Unread::Shape(why) => {
            Unreadable(format!("Failed to convert JSON into {} protobuf: {why}", shape.short_name()))
        }
    })
}

/// The bytes of all parts of a message that stand at this path of field numbers, in their order: as they were sent, with
/// fields that nobody here knows.
pub fn wire_parts(bytes: &Bytes, path: &[u32]) -> Vec<Bytes> {
    let mut parts = vec![bytes.clone()];
    for number in path {
        let inner = |part: &Bytes| {
            let entries = wire::entries(part).unwrap_or_default();
            let of = entries.into_iter().filter(|(it, _)| it == number);
            of.filter_map(|(_, raw)| match raw {
                wire::Raw::Bytes(bytes) => Some(part.slice_ref(bytes)),
                _ => None,
            })
            .collect::<Vec<_>>()
        };
        parts = parts.iter().flat_map(inner).collect();
    }
    parts
}
