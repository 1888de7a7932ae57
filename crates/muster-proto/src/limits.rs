//! Every bound on what comes in. Whoever sends more is refused with the field and the bound.

/// The longest frame that masters take from a client, in bytes: their gRPC message limit.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// The longest frame that agents and schedulers take, in bytes: what a master sends is the sum of what many
/// clients sent.
pub const DOWN_FRAME_BYTES_MAX: usize = 64 << 20;
/// Tasks of one ACCEPT.
pub const TASKS_PER_ACCEPT_MAX: usize = 10_000;
/// Operations of one ACCEPT.
pub const OPERATIONS_PER_ACCEPT_MAX: usize = 1_000;
/// Operations of one RECONCILE_OPERATIONS.
pub const RECONCILE_OPERATIONS_MAX: usize = 100_000;
/// Offers of one ACCEPT or DECLINE.
pub const OFFERS_PER_CALL_MAX: usize = 1_000;
/// Offers of one event.
pub const OFFERS_PER_EVENT_MAX: usize = 100_000;
/// Roles of one framework, or of one REVIVE or SUPPRESS.
pub const ROLES_MAX: usize = 64;
/// Groups of offer constraints of one role, and constraints of one group.
pub const CONSTRAINTS_MAX: usize = 256;
/// Needs of one REQUEST.
pub const NEEDS_MAX: usize = 1_000;
/// Tasks of one RECONCILE.
pub const RECONCILE_TASKS_MAX: usize = 100_000;
/// Tasks of one hello.
pub const HELLO_TASKS_MAX: usize = 100_000;
/// Unconfirmed updates of one task in a hello.
pub const UPDATES_PER_TASK_MAX: usize = 1_000;
/// Launch numbers in one list.
pub const LAUNCH_NUMBERS_MAX: usize = 100_000;
/// Entries of one list of resources.
pub const RESOURCES_MAX: usize = 256;
/// Reservations of one resource, each refining the one before.
pub const RESERVATIONS_MAX: usize = 16;
/// Labels of one reservation.
pub const RESERVATION_LABELS_MAX: usize = 64;
/// Persistent volumes of one agent.
pub const VOLUMES_MAX: usize = 10_000;
/// Ranges of one resource.
pub const RANGES_MAX: usize = 10_000;
/// Items of one set.
pub const SET_ITEMS_MAX: usize = 10_000;
/// Attributes of one agent.
pub const ATTRIBUTES_MAX: usize = 256;
/// Labels of one task or framework.
pub const LABELS_MAX: usize = 256;
/// The longest name (of a task, framework, user, host, resource, attribute), in bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// The longest item of a set and the longest text of an attribute, in bytes.
pub const TEXT_BYTES_MAX: usize = 4 << 10;
/// The longest `TaskInfo`, `FrameworkInfo` or `AgentInfo`, in bytes.
pub const SEALED_BYTES_MAX: usize = 1 << 20;
/// The longest framework message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The longest text of an error or refusal that is sent to a client, in bytes.
pub const PROBLEM_BYTES_MAX: usize = 64 << 10;
/// The largest scalar, in whole units: all thousandths up to it are exact in a float.
pub const SCALAR_MAX: f64 = 1e12;
