//! How long a replica takes from nothing until its data directory is open and its registry stands as it last knew it
//! to be committed. Nobody else runs, so that it never leads, unless it is the only member.
//!
//! `cargo run --release -p muster-raft --example start -- <data dir> [name] [names of the others...]`

use muster_raft::{Raft, RaftConfig};
use std::time::Instant;

// As in the program that is measured by it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().expect("the data directory");
    let name = arguments.next().unwrap_or_else(|| "m1".into());
    let members = std::iter::once(name.clone()).chain(arguments).zip(1..);
    let members = members.map(|(name, n)| (name, format!("127.0.0.1:{n}"))).collect();
    let begun = Instant::now();
    let raft = Raft::open(RaftConfig::new(name, members, dir)).await.expect("a data directory that opens");
    println!("open after {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    let registry = raft.registry();
    println!("{} tasks, applied up to {}", registry.task_count(), registry.applied());
    // Nothing is freed: a start frees nothing either.
    std::process::exit(0);
}
