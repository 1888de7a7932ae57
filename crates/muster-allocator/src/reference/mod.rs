//! The plain shard: the same decisions, made by names and resources, each anew. The shard that is used must decide alike.

mod allocate;
mod quota;
mod shard;
mod tree;

pub(crate) use shard::Shard;
