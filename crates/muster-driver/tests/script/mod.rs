//! The language of the scenarios.
//!
//! A line is `TIME INPUT`; what the driver wants done follows, indented. Frames are on the newest stream
//! unless the line ends in `@N`.

use expect_test::Expect;
use muster_driver::{Callback, Config, Down, Driver, Effect, Input};
use muster_model::event::CallOutcome;
use muster_model::*;
use std::fmt::Write;

/// A framework of the roles a and b.
pub(crate) fn info() -> FrameworkInfo {
    FrameworkInfo {
        name: "f".into(),
        user: "u".into(),
        principal: None,
        roles: vec![Role::parse("a").unwrap(), Role::parse("b").unwrap()],
        failover_timeout_ms: 0,
        capabilities: Capabilities { partition_aware: true, ..Default::default() },
        sealed: Sealed::default(),
    }
}

fn spec(task_id: &str) -> TaskSpec {
    TaskSpec {
        task_id: TaskId::new(task_id),
        name: "n".into(),
        resources: Resources::of(100, 32),
        executor: None,
        grace_ms: None,
        sealed: Sealed::default(),
    }
}

fn uuid(n: &str) -> Uuid {
    Uuid([n.parse().unwrap(); 16])
}

fn roles(words: &[&str]) -> Vec<Role> {
    words.iter().map(|word| Role::parse(word).unwrap()).collect()
}

fn event(words: &[&str]) -> SchedulerEvent {
    match words {
        ["subscribed"] => SchedulerEvent::Subscribed {
            framework_id: FrameworkId::new("F1"),
            session: Session(1),
            heartbeat_ms: 1000,
        },
        ["heartbeat"] => SchedulerEvent::Heartbeat,
        ["offers"] => SchedulerEvent::Offers(Vec::new()),
        ["rescind", id] => SchedulerEvent::Rescind(OfferId::new(id)),
        ["error", why @ ..] => SchedulerEvent::Error(why.join(" ")),
        ["update", task, n] => SchedulerEvent::Update {
            task_id: TaskId::new(task),
            agent_id: None,
            status: Status {
                state: TaskState::Running,
                source: Source::Agent,
                reason: None,
                message: "".into(),
                wall: WallTime(0),
                sealed: Sealed::default(),
            },
            uuid: Some(uuid(n)),
        },
        ["outcome", id, rest @ ..] => SchedulerEvent::Outcome {
            id: id.parse().unwrap(),
            outcome: match rest {
                ["done"] => CallOutcome::Done,
                ["busy"] => CallOutcome::Busy,
                ["unknown"] => CallOutcome::Unknown,
                ["refused", why] => CallOutcome::Refused((*why).into()),
                ["launched", tasks @ ..] => CallOutcome::Accepted(AcceptOutcome {
                    tasks: tasks.iter().map(|task| task_outcome(task)).collect(),
                }),
                other => panic!("outcome {other:?}"),
            },
        },
        other => panic!("event {other:?}"),
    }
}

/// `t1` was launched, `!t1` was not.
fn task_outcome(word: &str) -> (TaskId, TaskOutcome) {
    match word.strip_prefix('!') {
        None => (TaskId::new(word), TaskOutcome::Launched(LaunchNumber::default())),
        Some(task) => {
            let refused = TaskOutcome::Refused {
                state: TaskState::Dropped,
                reason: Reason::InvalidOffers,
                message: "void".into(),
            };
            (TaskId::new(task), refused)
        }
    }
}

fn input(words: &[&str], dial: u64) -> Input {
    match words {
        ["start"] => Input::Start,
        ["tick"] => Input::Tick,
        ["connected"] => Input::Connected { dial },
        ["broken"] => Input::Broken { dial, why: "reset".into() },
        ["stop"] => Input::Stop { failover: false },
        ["leave"] => Input::Stop { failover: true },
        ["abort"] => Input::Abort,
        ["handled", task, n] => Input::Handled { task_id: TaskId::new(task), uuid: uuid(n) },
        ["accept", offer, tasks @ ..] => Input::Call(SchedulerCall::Accept {
            offer_ids: vec![OfferId::new(offer)],
            tasks: tasks.iter().map(|task| spec(task)).collect(),
            named: Vec::new(),
            bad: Vec::new(),
            refuse_ms: 5000,
        }),
        ["decline", offer] => {
            Input::Call(SchedulerCall::Decline { offer_ids: vec![OfferId::new(offer)], refuse_ms: 1 })
        }
        ["kill", task] => {
            Input::Call(SchedulerCall::Kill { task_id: TaskId::new(task), agent_id: None, grace_ms: None })
        }
        ["reconcile", task] => {
            Input::Call(SchedulerCall::Reconcile { tasks: vec![(TaskId::new(task), None)] })
        }
        ["revive", names @ ..] => Input::Call(SchedulerCall::Revive { roles: roles(names) }),
        ["suppress", names @ ..] => Input::Call(SchedulerCall::Suppress { roles: roles(names) }),
        ["request", text] => {
            Input::Call(SchedulerCall::Request { needs: vec![Resources::parse(text).unwrap()] })
        }
        ["message"] => Input::Call(SchedulerCall::Message {
            agent_id: AgentId::new("S1"),
            executor_id: ExecutorId::new("e"),
            data: vec![1],
        }),
        [term, "leader", address] => {
            frame(term, dial, Down::Leader { name: "m".into(), address: (*address).into() })
        }
        [term, "redial"] => frame(term, dial, Down::Redial("no leader".into())),
        [term, rest @ ..] => frame(term, dial, Down::Event(event(rest))),
        other => panic!("input {other:?}"),
    }
}

fn frame(term: &str, dial: u64, down: Down) -> Input {
    let term = term.strip_prefix('T').unwrap_or_else(|| panic!("term {term:?}")).parse().unwrap();
    Input::Frame { dial, fence: Fence { incarnation: 1, term: Term(term) }, down }
}

fn call(call: &SchedulerCall) -> String {
    match call {
        SchedulerCall::Subscribe { framework_id, suppressed_roles, .. } => {
            format!("SUBSCRIBE {framework_id:?} suppressed {suppressed_roles:?}")
        }
        SchedulerCall::Accept { offer_ids, tasks, .. } => {
            let tasks: Vec<_> = tasks.iter().map(|task| &task.task_id).collect();
            format!("ACCEPT {offer_ids:?} {tasks:?}")
        }
        SchedulerCall::Operate { offer_ids, operations, .. } => {
            format!("OPERATE {offer_ids:?} {}", operations.len())
        }
        SchedulerCall::AcknowledgeOperation { operation_id, .. } => format!("ACKNOWLEDGE {operation_id}"),
        SchedulerCall::ReconcileOperations { .. } => "RECONCILE operations".into(),
        SchedulerCall::Decline { offer_ids, refuse_ms } => format!("DECLINE {offer_ids:?} {refuse_ms}ms"),
        SchedulerCall::Kill { task_id, .. } => format!("KILL {task_id}"),
        SchedulerCall::Revive { roles } => format!("REVIVE {roles:?}"),
        SchedulerCall::Suppress { roles } => format!("SUPPRESS {roles:?}"),
        SchedulerCall::Acknowledge { task_id, uuid } => format!("ACKNOWLEDGE {task_id} {}", uuid.0[0]),
        SchedulerCall::Request { needs } => format!("REQUEST {needs:?}"),
        SchedulerCall::Reconcile { tasks } => format!("RECONCILE {}", tasks.len()),
        SchedulerCall::Message { .. } => "MESSAGE".into(),
        SchedulerCall::Shutdown { .. } => "SHUTDOWN".into(),
        SchedulerCall::Refused { .. } => "REFUSED".into(),
        SchedulerCall::AnswerInverse { .. } => "ANSWER INVERSE".into(),
        SchedulerCall::Teardown => "TEARDOWN".into(),
        SchedulerCall::Update { .. } => "UPDATE_FRAMEWORK".into(),
    }
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Dial { dial, address } => format!("dial #{dial} {address}"),
        Effect::Hangup { dial } => format!("hang up #{dial}"),
        Effect::Send { id, call: sent } => format!("send {id}: {}", call(sent)),
        Effect::Callback(Callback::Update { task_id, status, uuid, .. }) => {
            format!("update {task_id} {} {:?} uuid {}", status.state, &*status.message, uuid.is_some())
        }
        Effect::Callback(callback) => format!("{callback:?}"),
        Effect::Refused { call, why } => format!("not done: {call}: {why}"),
        Effect::Ended { error } => format!("ended {error:?}"),
    }
}

/// Runs a script through a driver and compares the transcript.
pub(crate) fn check_with(config: Config, script: &str, expect: Expect) {
    let mut driver = Driver::new(config);
    let (mut transcript, mut newest) = (String::new(), 0);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words: Vec<_> = line.split_whitespace().collect();
        let now_ms = words.remove(0).parse().unwrap();
        let dial = match words.last().and_then(|word| word.strip_prefix('@')) {
            Some(dial) => {
                words.pop();
                dial.parse().unwrap()
            }
            None => newest,
        };
        let mut effects = Vec::new();
        driver.step(now_ms, input(&words, dial), &mut effects);
        writeln!(transcript, "{line}").unwrap();
        for done in &effects {
            if let Effect::Dial { dial, .. } = done {
                newest = *dial;
            }
            writeln!(transcript, "    {}", effect(done)).unwrap();
        }
    }
    if let Some(at) = driver.wake_at() {
        writeln!(transcript, "wakes at {at}").unwrap();
    }
    expect.assert_eq(&transcript);
}

/// With three masters and the usual settings.
pub(crate) fn check(script: &str, expect: Expect) {
    check_with(Config::new(vec!["m1".into(), "m2".into(), "m3".into()], info()), script, expect);
}
