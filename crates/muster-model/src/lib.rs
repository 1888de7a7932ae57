//! The nouns every other crate speaks: ids, time, resources, frameworks, agents, tasks, offers,
//! and the calls and events that travel between them.
//!
//! # Laws
//! - A value of an id type was validated when it was made from outside input ([`id`]).
//! - Resource arithmetic is exact: scalars count in thousandths, ranges and sets are sets; what is reserved or a volume
//!   never mixes with what is plain, nor with what is under another label.
//! - Units stand last in a name: `grace_ms`, `mem_mb`.
//!
//! # Nevers
//! - No clock, no randomness, no floating point in anything that is replicated.
//! - No wire types: `muster-proto` converts both ways.

pub mod agent;
pub mod call;
pub mod check;
pub mod event;
pub mod framework;
pub mod id;
pub mod launch;
pub mod maintenance;
pub mod offer;
pub mod operation;
pub mod resource;
pub mod score;
pub mod sealed;
pub mod task;
pub mod time;
pub mod wants;

pub use agent::{AgentInfo, Attribute, AttributeValue, Hello, KnownExecutor, KnownTask};
pub use call::{AgentCall, AskedOperation, Call, ExecutorCall, ExecutorUpdate, Named, SchedulerCall};
pub use check::{CheckKind, CheckResult, CheckTerms, HealthTerms, TaskTerms, Told};
pub use event::{
    AcceptOutcome, AgentEvent, CallOutcome, Event, ExecutorEvent, ExecutorOrder, RunOrder, SchedulerEvent,
    TaskGroup, TaskOutcome, VolumeMount,
};
pub use framework::{Capabilities, FrameworkInfo};
pub use id::{
    AgentId, ClusterId, ExecutorId, ExecutorName, FrameworkId, IdError, MachineId, OfferId, OperationId,
    Role, TaskId, TaskKey, VolumeId,
};
pub use launch::{Fence, Index, LaunchNumber, LaunchSum, Session, Term, Token, Uuid, VolumeNumber};
pub use maintenance::{MachineName, Unavailability, Window};
pub use offer::{InverseOffer, Offer};
pub use operation::{
    Conversion, Operation, OperationBecame, OperationOutcome, OperationState, OperationStatus,
};
pub use resource::{Label, Reservation, Resources, Value, Volume};
pub use sealed::Sealed;
pub use task::{BadTask, Reason, RefusedTask, Source, Status, StatusUpdate, TaskSpec, TaskState};
pub use time::{Timestamp, WallTime};
pub use wants::{Constraint, Constraints, Pattern, Predicate, RoleWants, Selector, Wants};
