//! Compiles `proto/` in pure Rust: no system `protoc` is needed.

mod shapes;

use prost::Message;
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
    let descriptors = protox::compile(files, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    std::fs::write(out.join("shapes.rs"), shapes::tables(&descriptors))?;
    raw();
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    Ok(())
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
