//! Compiles `proto/` in pure Rust: no system `protoc` is needed.

use prost::Message;
use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = [
        "mesos/v1/mesos.proto",
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
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
