//! Which transcripts are replayed and how, where muster differs by intent, and what is missing yet: all of them.

use crate::stage::Scene::{self, *};
use But::{AgentIp, Container, Like, Location, OnlyFields, Times, Words};

/// A transcript and how it stands.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// What was there when it was recorded; none if it cannot be replayed yet.
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
    /// It is not what it saw of Mesos, since this is missing. Once it is, it fails here and becomes another state.
    NotYet(&'static str),
}

/// In what an answer differs.
#[derive(Debug, Clone, Copy)]
pub enum But {
    /// Sentences for people are our own.
    Words,
    /// The answer is as Mesos' was in this other transcript.
    Like(&'static str),
    /// Of a JSON body these fields are as Mesos' were.
    OnlyFields(&'static [&'static str]),
    /// Offers name no address of an agent that has a host name.
    AgentIp,
    /// An update of a command task names its container and its executor, as real agents of Mesos do.
    Container,
    /// A redirect has the parameters in another order.
    Location,
    /// It tells when this master started and was elected.
    Times,
}

const fn same(name: &'static str, scene: Scene) -> Case {
    Case { name, scene: Some(scene), state: State::Same }
}

const fn differs(name: &'static str, scene: Scene, but: &'static [But], why: &'static str) -> Case {
    Case { name, scene: Some(scene), state: State::Differs(but, why) }
}

const fn not_yet(name: &'static str, scene: Scene, missing: &'static str) -> Case {
    Case { name, scene: Some(scene), state: State::NotYet(missing) }
}

const fn elsewhere(name: &'static str, tests: &'static str) -> Case {
    Case { name, scene: None, state: State::Elsewhere(tests) }
}

const fn no_replay(name: &'static str, missing: &'static str) -> Case {
    Case { name, scene: None, state: State::NotYet(missing) }
}

const SENTENCES: &str = "our own sentences say what to do";
const CONTAINER: &str = "the agents of the record were fake: real ones of Mesos say so, too";
const SCENE: &str =
    "a scene with the frameworks, tasks and agents that were there; unit tests compare the shapes";
const REAL: &str = "a real agent and executors: the replay has fake ones";
const AN_AGENT: &str = "crates/muster-agent/tests/agent/replay.rs";
const FLAGS: &str = "flags of Mesos that mean nothing here";
const METRICS: &str = "counts of messages, and times of the allocator and the registrar";
const ADDRESS: &str = "the agents of the replay say no address; ours do";
const TIMES: &str = "it started at another time";
const BUILD: &str = "we have no build of Mesos to tell of";

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
    not_yet("follower-http-flags", Follower, FLAGS),
    same("follower-http-frameworks", Follower),
    same("follower-http-maintenance_schedule", Follower),
    not_yet("follower-http-metrics_snapshot", Follower, METRICS),
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
    not_yet("http-flags", Leader, FLAGS),
    not_yet("http-frameworks", Leader, SCENE),
    same("http-health", Leader),
    same("http-health-post", Leader),
    same("http-machine-down-empty", Operated),
    same("http-maintenance_schedule", Leader),
    same("http-master_health", Leader),
    same("http-master_metrics_snapshot", Leader),
    same("http-master_nope", Leader),
    same("http-master_slaves", Leader),
    same("http-master_state", Leader),
    not_yet("http-metrics-timeout", Leader, METRICS),
    not_yet("http-metrics_snapshot", Leader, METRICS),
    same("http-nope", Leader),
    same("http-quota", Leader),
    same("http-redirect", Leader),
    same("http-reserve-post", Leader),
    not_yet("http-roles", Leader, SCENE),
    not_yet("http-slaves", Leader, SCENE),
    same("http-slaves-one", Leader),
    not_yet("http-state", Leader, SCENE),
    not_yet("http-state-gzip", Leader, SCENE),
    not_yet("http-state-jsonp", Leader, BUILD),
    not_yet("http-state-summary", Leader, SCENE),
    not_yet("http-system_stats.json", Leader, "the endpoint"),
    not_yet("http-tasks", Leader, SCENE),
    not_yet("http-tasks-bad-limit", Leader, SCENE),
    not_yet("http-tasks-limit", Leader, SCENE),
    differs("http-version", Leader, &[OnlyFields(&["version"])], BUILD),
    differs("leader-op-GET_MASTER", Leader, &[Times], TIMES),
    same("noleader-http-health", Leaderless),
    not_yet("noleader-http-metrics_snapshot", Leaderless, METRICS),
    same("noleader-http-state", Leaderless),
    differs("noleader-http-version", Leaderless, &[OnlyFields(&["version"])], BUILD),
    same("noleader-op-GET_HEALTH", Leaderless),
    same("noleader-sched-subscribe", Leaderless),
    same("op-DRAIN_AGENT-unknown", Operated),
    not_yet("op-GET_AGENTS", Leader, SCENE),
    same("op-GET_EXECUTORS", Leader),
    not_yet("op-GET_FLAGS", Leader, FLAGS),
    not_yet("op-GET_FRAMEWORKS", Leader, SCENE),
    same("op-GET_HEALTH", Leader),
    same("op-GET_LOGGING_LEVEL", Leader),
    same("op-GET_MAINTENANCE_SCHEDULE", Leader),
    same("op-GET_MAINTENANCE_SCHEDULE-after", Scheduled),
    same("op-GET_MAINTENANCE_STATUS-after", Scheduled),
    differs("op-GET_MASTER", Leader, &[Times], TIMES),
    not_yet("op-GET_METRICS", Leader, METRICS),
    same("op-GET_QUOTA", Leader),
    same("op-GET_QUOTA-after", WithQuota),
    not_yet("op-GET_ROLES", Leader, SCENE),
    not_yet("op-GET_STATE", Leader, SCENE),
    not_yet("op-GET_TASKS", Leader, SCENE),
    not_yet("op-GET_VERSION", Leader, BUILD),
    same("op-GET_WEIGHTS", Leader),
    same("op-LIST_FILES", Leader),
    same("op-MARK_AGENT_GONE-unknown", Leader),
    same("op-READ_FILE-missing", Leader),
    same("op-SET_LOGGING_LEVEL", Operated),
    same("op-START_MAINTENANCE", Scheduled),
    same("op-START_MAINTENANCE-again", Down),
    same("op-STOP_MAINTENANCE", Down),
    not_yet("op-SUBSCRIBE-initial", Leader, SCENE),
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
    no_replay("op-events-real-tasks", REAL),
    no_replay("op-events-rest", SCENE),
    same("op-no-accept", Leader),
    same("op-proto-GET_HEALTH", Leader),
    not_yet("op-proto-GET_VERSION", Leader, BUILD),
    no_replay("real-accept-task-group", REAL),
    no_replay("real-accept-unreserve", REAL),
    no_replay("real-kill", REAL),
    no_replay("real-kill-updates", REAL),
    no_replay("real-revive", REAL),
    no_replay("real-task-group-updates", REAL),
    no_replay("real-updates", REAL),
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
