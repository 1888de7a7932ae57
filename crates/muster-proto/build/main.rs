//! Compiles `proto/` in pure Rust: no system `protoc` is needed.

mod shapes;

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, field_descriptor_proto::Type};
use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = [
        "mesos/v1/mesos.proto",
        "mesos/v1/scheduler/scheduler.proto",
        "mesos/v1/executor/executor.proto",
        "mesos/v1/master/master.proto",
        "mesos/v1/agent/agent.proto",
        "muster/v1/common.proto",
        "muster/v1/agent.proto",
        "muster/v1/scheduler.proto",
        "muster/v1/operator.proto",
        "muster/v1/link.proto",
        "muster/raft/v1/peer.proto",
    ];
    let mut descriptors = protox::compile(files, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    std::fs::write(out.join("shapes.rs"), shapes::tables(&descriptors))?;
    raw();
    for file in descriptors.file.iter_mut().filter(|file| file.package().starts_with("mesos.v1")) {
        // Where each line stands would be wanted of entries too, which have none.
        file.source_code_info = None;
        file.message_type.iter_mut().for_each(no_maps);
    }
    descriptors.file.iter_mut().filter(|file| file.package() == "muster.v1").for_each(offers_carry_bytes);
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

/// Has maps generated as what they are on the wire, lists of entries. As maps their values would be left out where they
/// are all zeros, and what is required of such a value would be missing to every other reader.
fn no_maps(message: &mut DescriptorProto) {
    if let Some(options) = &mut message.options {
        options.map_entry = None;
    }
    message.nested_type.iter_mut().for_each(no_maps);
}

/// Has the resources of offers generated as the bytes of each: the same on the wire, and most need no message to be read.
fn offers_carry_bytes(file: &mut FileDescriptorProto) {
    let offers = file.message_type.iter_mut().filter(|message| message.name() == "Offer");
    for field in offers.flat_map(|offer| &mut offer.field).filter(|field| field.name() == "resources") {
        field.set_type(Type::Bytes);
        field.type_name = None;
    }
}

/// The streams of clients a second time, with frames left as bytes: a master that follows carries them unread.
fn raw() {
    let service = |name: &str| {
        let session = tonic_build::manual::Method::builder()
            .name("session")
            .route_name("Session")
            .input_type("::bytes::Bytes")
            .output_type("::bytes::Bytes")
            .codec_path("crate::raw::BytesCodec")
            .client_streaming()
            .server_streaming()
            .build();
        tonic_build::manual::Service::builder().name(name).package("muster.v1").method(session).build()
    };
    let services = ["AgentService", "SchedulerService"].map(service);
    tonic_build::manual::Builder::new().build_client(false).compile(&services);
}
