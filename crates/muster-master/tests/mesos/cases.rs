//! Which transcripts are replayed and how, and where muster differs by intent: all of them.

use crate::ours::*;
use crate::stage::Scene::{self, *};
use But::{Abilities, AgentIp, At, Container, LastStatus, Like, Location, Words};

/// A transcript and how it stands.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// What was there when it was recorded; none if it is replayed elsewhere.
    pub scene: Option<Scene>,
    pub state: State,
}

/// What becomes of a replay.
#[derive(Debug, Clone, Copy)]
pub enum State {
    /// What a client sees is what it saw of Mesos.
    Same,
    /// It differs by intent in these, and in nothing else.
    Differs(&'static [But], &'static str),
    /// It is replayed by the tests in this file.
    Elsewhere(&'static str),
}

/// In what an answer differs.
#[derive(Debug, Clone, Copy)]
pub enum But {
    /// Sentences for people are our own.
    Words,
    /// The answer is as Mesos' was in this other transcript.
    Like(&'static str),
    /// In the values at this place under these names: paths as `apart.rs` reads them.
    At(&'static str, &'static [&'static str]),
    /// Of a task's statuses the last one is kept.
    LastStatus,
    /// Agents have not all abilities of Mesos'.
    Abilities,
    /// Offers name no address of an agent that has a host name.
    AgentIp,
    /// An update of a command task names its container and its executor, as real agents of Mesos do.
    Container,
    /// A redirect has the parameters in another order.
    Location,
}

const fn same(name: &'static str, scene: Scene) -> Case {
    Case { name, scene: Some(scene), state: State::Same }
}

const fn differs(name: &'static str, scene: Scene, but: &'static [But], why: &'static str) -> Case {
    Case { name, scene: Some(scene), state: State::Differs(but, why) }
}

const fn elsewhere(name: &'static str, tests: &'static str) -> Case {
    Case { name, scene: None, state: State::Elsewhere(tests) }
}

const SENTENCES: &str = "our own sentences say what to do";
const CONTAINER: &str = "the agents of the record were fake: real ones of Mesos say so, too";
const REAL: &str = "crates/muster-master/tests/mesos/real.rs";
const AN_AGENT: &str = "crates/muster-agent/tests/agent/replay.rs";
const ADDRESS: &str = "the agents of the replay say no address; ours do";

const NOT_HERE: &str = "what is not there with us, by name in ours.rs";
const STATUSES: &str = "an acknowledged status is not kept, but for what the task came to";
/// What is not kept of frameworks.
const FRAMEWORK: &[&str] = &["offer_constraints", "reregistered_time"];

/// All transcripts.
pub const CASES: &[Case] = &[
    elsewhere("agent-executor-err", AN_AGENT),
    elsewhere("agent-http-containers", AN_AGENT),
    elsewhere("agent-http-files_browse_path_", AN_AGENT),
    elsewhere("agent-http-flags", AN_AGENT),
    elsewhere("agent-http-health", AN_AGENT),
    elsewhere("agent-http-metrics_snapshot", AN_AGENT),
    elsewhere("agent-http-monitor_statistics", AN_AGENT),
    elsewhere("agent-http-state", AN_AGENT),
    elsewhere("agent-op-GET_AGENT", AN_AGENT),
    elsewhere("agent-op-GET_CONTAINERS", AN_AGENT),
    elsewhere("agent-op-GET_EXECUTORS", AN_AGENT),
    elsewhere("agent-op-GET_HEALTH", AN_AGENT),
    elsewhere("executor-calls", AN_AGENT),
    elsewhere("executor-subscribe-stream", AN_AGENT),
    differs(
        "follower-http-flags",
        Follower,
        &[At("body.flags", FLAGS), At("body.flags", SETTINGS), At("body.flags", ZOOKEEPER)],
        NOT_HERE,
    ),
    same("follower-http-frameworks", Follower),
    same("follower-http-maintenance_schedule", Follower),
    differs(
        "follower-http-metrics_snapshot",
        Follower,
        &[At("body", METRICS), At("body", FOLLOWERS_METRICS)],
        NOT_HERE,
    ),
    same("follower-http-quota", Follower),
    same("follower-http-redirect", Follower),
    same("follower-http-roles", Follower),
    same("follower-http-slaves", Follower),
    same("follower-http-state", Follower),
    same("follower-http-state-summary", Follower),
    differs("follower-http-state_x1_y2", Follower, &[Location], "the query stays in its order"),
    same("follower-http-tasks", Follower),
    same("follower-http-weights", Follower),
    same("follower-op-GET_AGENTS", Follower),
    same("follower-op-GET_FLAGS", Follower),
    same("follower-op-GET_HEALTH", Follower),
    same("follower-op-GET_MASTER", Follower),
    same("follower-op-GET_METRICS", Follower),
    same("follower-op-GET_STATE", Follower),
    same("follower-op-SUBSCRIBE", Follower),
    same("follower-sched-content-type", Follower),
    same("follower-sched-subscribe", Follower),
    same("follower-sched-subscribe-bad-json", Follower),
    same("http-agents", Leader),
    same("http-api_v1", Leader),
    differs(
        "http-flags",
        Leader,
        &[At("body.flags", FLAGS), At("body.flags", SETTINGS), At("body.flags", ALONE)],
        NOT_HERE,
    ),
    differs("http-frameworks", Real, &[LastStatus], STATUSES),
    same("http-health", Leader),
    same("http-health-post", Leader),
    same("http-machine-down-empty", Operated),
    same("http-maintenance_schedule", Leader),
    same("http-master_health", Leader),
    same("http-master_metrics_snapshot", Leader),
    same("http-master_nope", Leader),
    same("http-master_slaves", Leader),
    same("http-master_state", Leader),
    differs("http-metrics-timeout", Real, &[At("body", METRICS), At("body", LEADERS_METRICS)], NOT_HERE),
    differs("http-metrics_snapshot", Real, &[At("body", METRICS), At("body", LEADERS_METRICS)], NOT_HERE),
    same("http-nope", Leader),
    same("http-quota", Leader),
    same("http-redirect", Leader),
    same("http-reserve-post", Leader),
    same("http-roles", Real),
    differs("http-slaves", Real, &[Abilities], NOT_HERE),
    same("http-slaves-one", Leader),
    differs(
        "http-state",
        Real,
        &[
            At("body", BUILD),
            At("body", &["cluster"]),
            At("body.flags", FLAGS),
            At("body.flags", SETTINGS),
            At("body.flags", ALONE),
            LastStatus,
            Abilities,
        ],
        NOT_HERE,
    ),
    differs(
        "http-state-gzip",
        Real,
        &[
            At("body", BUILD),
            At("body", &["cluster"]),
            At("body.flags", FLAGS),
            At("body.flags", SETTINGS),
            At("body.flags", ALONE),
            LastStatus,
            Abilities,
        ],
        NOT_HERE,
    ),
    differs("http-state-jsonp", Leader, &[At("body.cb", BUILD), At("body.cb", OUR_BUILD)], NOT_HERE),
    differs("http-state-summary", Real, &[At("body", &["cluster"]), Abilities], NOT_HERE),
    same("http-system_stats.json", Leader),
    differs("http-tasks", Real, &[LastStatus], STATUSES),
    differs("http-tasks-bad-limit", Real, &[LastStatus], STATUSES),
    differs("http-tasks-limit", Real, &[LastStatus], STATUSES),
    differs("http-version", Leader, &[At("body", BUILD), At("body", OUR_BUILD)], NOT_HERE),
    same("leader-op-GET_MASTER", Leader),
    same("noleader-http-health", Leaderless),
    differs(
        "noleader-http-metrics_snapshot",
        Leaderless,
        &[At("body", METRICS), At("body", FOLLOWERS_METRICS), At("body", LOG)],
        NOT_HERE,
    ),
    same("noleader-http-state", Leaderless),
    differs("noleader-http-version", Leaderless, &[At("body", BUILD), At("body", OUR_BUILD)], NOT_HERE),
    same("noleader-op-GET_HEALTH", Leaderless),
    same("noleader-sched-subscribe", Leaderless),
    same("op-DRAIN_AGENT-unknown", Operated),
    differs(
        "op-GET_AGENTS",
        Real,
        &[At("body.get_agents.agents[].agent_info", &["checkpoint"]), Abilities],
        NOT_HERE,
    ),
    same("op-GET_EXECUTORS", Leader),
    differs(
        "op-GET_FLAGS",
        Leader,
        &[
            At("body.get_flags.flags", FLAGS),
            At("body.get_flags.flags", SETTINGS),
            At("body.get_flags.flags", ALONE),
        ],
        NOT_HERE,
    ),
    differs(
        "op-GET_FRAMEWORKS",
        Real,
        &[
            At("body.get_frameworks.frameworks[]", FRAMEWORK),
            At("body.get_frameworks.completed_frameworks[]", FRAMEWORK),
        ],
        NOT_HERE,
    ),
    same("op-GET_HEALTH", Leader),
    same("op-GET_LOGGING_LEVEL", Leader),
    same("op-GET_MAINTENANCE_SCHEDULE", Leader),
    same("op-GET_MAINTENANCE_SCHEDULE-after", Scheduled),
    same("op-GET_MAINTENANCE_STATUS-after", Scheduled),
    same("op-GET_MASTER", Leader),
    differs(
        "op-GET_METRICS",
        Real,
        &[At("body.get_metrics.metrics", METRICS), At("body.get_metrics.metrics", LEADERS_METRICS)],
        NOT_HERE,
    ),
    same("op-GET_QUOTA", Leader),
    same("op-GET_QUOTA-after", WithQuota),
    same("op-GET_ROLES", Real),
    differs(
        "op-GET_STATE",
        Real,
        &[
            At("body.get_state.get_tasks.tasks[]", &["status_update_uuid"]),
            At("body.get_state.get_tasks.completed_tasks[]", &["status_update_uuid"]),
            At("body.get_state.get_frameworks.frameworks[]", FRAMEWORK),
            At("body.get_state.get_frameworks.completed_frameworks[]", FRAMEWORK),
            At("body.get_state.get_agents.agents[].agent_info", &["checkpoint"]),
            LastStatus,
            Abilities,
        ],
        NOT_HERE,
    ),
    differs(
        "op-GET_TASKS",
        Real,
        &[
            At("body.get_tasks.tasks[]", &["status_update_uuid"]),
            At("body.get_tasks.completed_tasks[]", &["status_update_uuid"]),
            LastStatus,
        ],
        STATUSES,
    ),
    differs("op-GET_VERSION", Leader, &[At("body.get_version.version_info", BUILD)], NOT_HERE),
    same("op-GET_WEIGHTS", Leader),
    same("op-LIST_FILES", Leader),
    same("op-MARK_AGENT_GONE-unknown", Leader),
    same("op-READ_FILE-missing", Leader),
    same("op-SET_LOGGING_LEVEL", Operated),
    same("op-START_MAINTENANCE", Scheduled),
    same("op-START_MAINTENANCE-again", Down),
    same("op-STOP_MAINTENANCE", Down),
    differs(
        "op-SUBSCRIBE-initial",
        RealAgent,
        &[
            At("events.others[].subscribed.get_state.get_agents.agents[].agent_info", &["checkpoint"]),
            Abilities,
        ],
        NOT_HERE,
    ),
    same("op-TEARDOWN-unknown", Leader),
    same("op-UPDATE_MAINTENANCE_SCHEDULE", Operated),
    same("op-UPDATE_MAINTENANCE_SCHEDULE-bad", Operated),
    same("op-UPDATE_MAINTENANCE_SCHEDULE-clear", Scheduled),
    same("op-UPDATE_QUOTA", Operated),
    same("op-UPDATE_QUOTA-bad", Operated),
    same("op-UPDATE_QUOTA-clear", WithQuota),
    same("op-UPDATE_WEIGHTS", Operated),
    same("op-UPDATE_WEIGHTS-bad", Operated),
    same("op-accept-any", Leader),
    differs("op-err-bad-json", Leader, &[Words], SENTENCES),
    same("op-err-content-type", Leader),
    same("op-err-missing-type", Leader),
    same("op-err-unknown-type", Leader),
    elsewhere("op-events-real-tasks", REAL),
    elsewhere("op-events-rest", REAL),
    same("op-no-accept", Leader),
    same("op-proto-GET_HEALTH", Leader),
    differs("op-proto-GET_VERSION", Leader, &[At("body.get_version.version_info", BUILD)], NOT_HERE),
    elsewhere("real-accept-task-group", REAL),
    elsewhere("real-accept-unreserve", REAL),
    elsewhere("real-kill", REAL),
    elsewhere("real-kill-updates", REAL),
    elsewhere("real-revive", REAL),
    elsewhere("real-task-group-updates", REAL),
    elsewhere("real-updates", REAL),
    differs("sched-accept-duplicate-task", Running, &[Words, AgentIp], SENTENCES),
    differs("sched-accept-invalid-task-id", Subscribed, &[Words, AgentIp], SENTENCES),
    same("sched-accept-inverse-offers-unknown", Subscribed),
    differs("sched-accept-launch", Subscribed, &[AgentIp, Container], CONTAINER),
    differs("sched-accept-no-command", Subscribed, &[Words, AgentIp], SENTENCES),
    differs("sched-accept-reserve", Subscribed, &[AgentIp], ADDRESS),
    differs("sched-accept-stale-offer", Spent, &[Words], SENTENCES),
    differs("sched-accept-too-much", Subscribed, &[Words, AgentIp], SENTENCES),
    differs("sched-accept-wrong-agent", Subscribed, &[Words, AgentIp], SENTENCES),
    same("sched-acknowledge-1", Launched),
    same("sched-acknowledge-killed", Killed),
    same("sched-decline", Subscribed),
    same("sched-decline-unknown-offer", Subscribed),
    same("sched-err-accept-missing-body", Subscribed),
    same("sched-err-accept-text", Leader),
    same("sched-err-ack-bad-base64", Subscribed),
    same("sched-err-ack-bad-uuid", Subscribed),
    differs("sched-err-bad-protobuf", Leader, &[Words], SENTENCES),
    same("sched-err-call-after-teardown", TornDown),
    same("sched-err-call-missing-framework-id", Leader),
    same("sched-err-call-unknown-framework", Leader),
    differs(
        "sched-err-content-type-charset",
        Leader,
        &[Like("sched-subscribe-json"), AgentIp],
        "parameters of a content type are accepted, as HTTP has them",
    ),
    same("sched-err-missing-type", Leader),
    same("sched-err-no-content-type", Leader),
    same("sched-err-not-object", Leader),
    same("sched-err-old-stream-id-after-failover", TakenOver),
    same("sched-err-subscribe-framework-id-mismatch", Leader),
    same("sched-err-subscribe-missing-name", Leader),
    same("sched-err-subscribe-missing-subscribe", Leader),
    same("sched-err-unknown-type", Leader),
    differs("sched-error-event-bad-role", Leader, &[Words], SENTENCES),
    differs("sched-error-event-role-and-roles", Leader, &[Words], SENTENCES),
    differs("sched-error-event-roles-without-multirole", Leader, &[Words], SENTENCES),
    differs("sched-error-event-unknown-capability", Leader, &[Words], SENTENCES),
    differs("sched-error-event-unknown-field", Leader, &[AgentIp], ADDRESS),
    differs("sched-kill", Running, &[AgentIp, Container], CONTAINER),
    same("sched-kill-unknown", Subscribed),
    same("sched-message", Running),
    same("sched-reconcile-explicit", Running),
    same("sched-reconcile-implicit", Running),
    same("sched-reconcile-operations", Subscribed),
    same("sched-revive-protobuf-no-accept", Leader),
    same("sched-shutdown-executor", Subscribed),
    differs("sched-subscribe-json", Leader, &[AgentIp], ADDRESS),
    same("sched-subscribe-json-gzip", RealAgent),
    same("sched-subscribe-json-in-protobuf-out", RealAgent),
    differs("sched-subscribe-minimal", Leader, &[AgentIp], ADDRESS),
    differs("sched-subscribe-old-role", Leader, &[AgentIp], ADDRESS),
    differs("sched-subscribe-own-id", Leader, &[AgentIp], ADDRESS),
    same("sched-subscribe-protobuf", RealAgent),
    same("sched-subscribe-removed-id", TornDown),
    same("sched-suppress", Subscribed),
    same("sched-suppress-roles", Subscribed),
    same("sched-teardown", Subscribed),
    same("sched-update-framework", Subscribed),
    same("sched-update-framework-change-user", Subscribed),
];
