//! What of Mesos' flags, metrics and builds is not there with muster, or is another value, and why.

/// What tells of a build of Mesos; ours tells when it was built by a word that is no time.
pub const BUILD: &[&str] = &["build_date", "build_time", "build_user", "git_sha", "git_tag"];
/// And of ours.
pub const OUR_BUILD: &[&str] = &["muster"];

/// Flags of Mesos that mean nothing here: parts that can be exchanged there, limits of its own, how it logs and starts.
pub const FLAGS: &[&str] = &[
    "allocation_interval",
    "allocator",
    "allocator_agent_recovery_factor",
    "allocator_recovery_timeout",
    "authentication_v0_timeout",
    "authenticators",
    "authorizers",
    "filter_gpu_resources",
    "framework_sorter",
    "help",
    "hostname_lookup",
    "http_authenticators",
    "initialize_driver_logging",
    "log_auto_initialize",
    "logbufsecs",
    "logging_level",
    "max_unreachable_tasks_per_framework",
    "memory_profiling",
    "min_allocatable_resources",
    "offer_constraints_re2_max_mem",
    "offer_constraints_re2_max_program_size",
    "publish_per_framework_metrics",
    "quiet",
    "recovery_agent_removal_limit",
    "registry_fetch_timeout",
    "registry_gc_interval",
    "registry_store_timeout",
    "registry_strict",
    "require_agent_domain",
    "role_sorter",
    "root_submissions",
    "version",
    "webui_dir",
    "zk_session_timeout",
];
/// Flags with values of our own.
pub const SETTINGS: &[&str] = &[
    "agent_ping_timeout",
    "agent_reregister_timeout",
    "max_agent_ping_timeouts",
    "offer_timeout",
    "port",
    "work_dir",
];
/// The recorded leader had a name, and kept its registry in memory.
pub const ALONE: &[&str] = &["cluster", "quorum", "registry"];
/// The recorded followers found each other by ZooKeeper.
pub const ZOOKEEPER: &[&str] = &["zk"];

/// Metrics of Mesos that are not here, on any master.
pub const METRICS: &[&str] = &[
    // Of its actors, and of how it answers.
    "allocator/event_queue_dispatches",
    "allocator/mesos/event_queue_dispatches",
    "master/event_queue_dispatches",
    "master/event_queue_http_requests",
    "master/http_cache_hits",
    // Words that nobody says here.
    "master/messages_authenticate",
    "master/messages_deactivate_framework",
    "master/messages_operation_status_update",
    "master/messages_unregister_slave",
    "master/messages_update_slave",
    "master/*valid_operation_status_updates",
    // An operation is done or refused when it is decided.
    "master/operations*dropped",
    "master/operations*failed",
    "master/operations*gone_by_operator",
    "master/operations*recovering",
    "master/operations*unreachable",
    // Operations that are not supported.
    "master/operations/create_disk/*",
    "master/operations/destroy_disk/*",
    "master/operations/grow_volume/*",
    "master/operations/shrink_volume/*",
    // Agents are called unreachable by the log, without a queue or a second thought.
    "master/recovery_slave_removals",
    "master/slave_removals/reason_registered",
    "master/slave_removals/reason_unregistered",
    "master/slave_shutdowns_*",
    "master/slave_unreachable_canceled",
    "master/slave_unreachable_scheduled",
];
/// And of a leader's.
pub const LEADERS_METRICS: &[&str] = &[
    // Filters are where offers are made, which nobody looks into.
    "allocator/mesos/offer_filters/*",
    // By principal, of the protocol before v1.
    "frameworks/golden/messages_*",
    "master/frameworks/*/operations/create_disk",
    "master/frameworks/*/operations/destroy_disk",
    "master/frameworks/*/operations/grow_volume",
    "master/frameworks/*/operations/shrink_volume",
    // Nothing is fetched, and how large it is would have to be found out.
    "registrar/registry_size_bytes",
    "registrar/state_fetch_ms",
    // The recorded one kept its registry in memory.
    "registrar/log/*",
    // Offers of a framework that left go back without a word to it.
    "master/frameworks/golden-pb/*/events/rescind",
    "master/frameworks/golden-pb/*/offers/rescinded",
    // Mesos does not count a task as failed or finished whose end overtook its RUNNING.
    "master/tasks_failed",
    "master/tasks_finished",
    // The scene has two calls more.
    "master/frameworks/golden/*/calls",
    "master/frameworks/golden/*/calls/revive",
    "master/frameworks/golden/*/calls/suppress",
    "master/messages_revive_offers",
    "master/messages_suppress_offers",
];
/// And of a master's that does not lead: it makes no offers, and its log is timed.
pub const FOLLOWERS_METRICS: &[&str] =
    &["allocator/mesos/allocation_run_*", "registrar/state_store_ms/count"];
/// The recorded one without a leader was the only one of its log, which it had read.
pub const LOG: &[&str] = &["registrar/log/*"];
