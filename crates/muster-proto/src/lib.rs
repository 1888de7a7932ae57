//! The wire: generated messages and their conversion to and from [`muster_model`].
//!
//! # Laws
//! - One conversion each way for each noun; what comes in is checked against the model's rules and the
//!   limits in [`limits`], and an error names the field.
//! - A client's `TaskInfo`, `FrameworkInfo`, `AgentInfo` and `TaskStatus` travel as the bytes they came as.
//!
//! - Scalars are rounded to thousandths on the way in; nothing else is changed silently.
//!
//! # Nevers
//! - Nothing beyond the door sees a type of this crate.
//! - `LinkUp` and `LinkDown` have no conversion: a link carries frames as bytes and decides nothing.

pub mod agent;
pub mod agent_api;
pub mod check;
pub mod container;
mod error;
pub mod executor_api;
pub mod framework;
pub mod json;
mod kept;
pub mod limits;
pub mod maintenance;
pub mod master_api;
pub mod media;
pub mod offer;
mod offer_bytes;
pub mod operation;
pub mod raw;
pub mod resource;
pub mod scheduler;
pub mod scheduler_api;
pub mod task;
mod wants;

mod generated {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    pub mod mesos {
        pub mod v1 {
            tonic::include_proto!("mesos.v1");
            pub mod scheduler {
                tonic::include_proto!("mesos.v1.scheduler");
            }
            pub mod executor {
                tonic::include_proto!("mesos.v1.executor");
            }
            pub mod master {
                tonic::include_proto!("mesos.v1.master");
            }
            pub mod agent {
                tonic::include_proto!("mesos.v1.agent");
            }
            pub mod maintenance {
                tonic::include_proto!("mesos.v1.maintenance");
            }
            pub mod allocator {
                tonic::include_proto!("mesos.v1.allocator");
            }
            pub mod quota {
                tonic::include_proto!("mesos.v1.quota");
            }
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

pub use agent::{AgentDown, agent_call, agent_down_frame, agent_event, agent_frame, agent_info};
pub use error::WireError;
pub use framework::framework_info;
pub use generated::mesos::v1 as mesos;
pub use generated::muster::raft::v1 as raft;
pub use generated::muster::v1;
pub use resource::{Form, attributes, resources, wire_resources, wire_resources_in};
pub use scheduler::{
    SchedulerDown, scheduler_call, scheduler_down_bytes, scheduler_down_frame, scheduler_event,
    scheduler_frame,
};
pub use task::{mesos_status, task_spec};
pub use wants::role_wants;

/// The descriptors of every service, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
