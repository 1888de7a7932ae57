//! The clients' streams with their frames as bytes, as a master takes them in: one that follows carries frames to
//! the leader and back without reading them.

use bytes::{Buf, BufMut, Bytes};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/muster.v1.AgentService.rs"));
    include!(concat!(env!("OUT_DIR"), "/muster.v1.SchedulerService.rs"));
}

pub use generated::{agent_service_server, scheduler_service_server};

/// What a stream keeps to read into and to write into, in bytes: most of what clients and masters say to each other is
/// shorter, and a master may have twenty thousand of these streams. A longer message gets the room that it needs.
const BUFFER: usize = 512;
/// How much is gathered before it is written, in bytes.
const WRITTEN_AT: usize = 32 << 10;

/// Leaves messages as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }
    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, WRITTEN_AT)
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, WRITTEN_AT)
    }
}
