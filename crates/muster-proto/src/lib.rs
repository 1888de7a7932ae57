//! The wire: generated messages and their conversion to and from [`muster_model`].
//!
//! # Laws
//! - One conversion each way for each noun; what comes in is checked against the model's rules and the
//!   limits in [`limits`], and an error names the field.
//! - A client's `TaskInfo`, `FrameworkInfo`, `AgentInfo` and `TaskStatus` travel as the bytes they came as.
//!
//! # Nevers
//! - Nothing beyond the door sees a type of this crate.

mod generated {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    pub mod mesos {
        pub mod v1 {
            tonic::include_proto!("mesos.v1");
        }
    }
    pub mod muster {
        pub mod v1 {
            tonic::include_proto!("muster.v1");
        }
        pub mod raft {
            pub mod v1 {
                tonic::include_proto!("muster.raft.v1");
            }
        }
    }
}

pub use generated::mesos::v1 as mesos;
pub use generated::muster::raft::v1 as raft;
pub use generated::muster::v1;

/// The descriptors of every service, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
