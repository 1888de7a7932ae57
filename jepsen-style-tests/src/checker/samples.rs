//! Hand-made histories for the checkers' own tests: a good one, to be made bad in one way.

use crate::history::{Amounts, Entry, Event, Phase};
use crate::model::{KnownTask, Mark, Truth};
use muster_testkit::LogEntry;
use serde_json::{Value, json};

pub(crate) fn entry(process: &str, event: Event) -> Entry {
    Entry { at_us: 0, process: process.into(), event }
}

/// Registered, when is not known.
pub(crate) fn registered(framework: &str) -> Entry {
    entry(framework, Event::Registered { framework_id: "x-0001".into(), begun_us: None })
}

pub(crate) fn launch(task: &str, phase: Phase) -> Entry {
    let invoked = phase == Phase::Invoked;
    let agent = if invoked { "a1".into() } else { String::new() };
    let needs: Amounts = if invoked { [("cpus".into(), 600)].into() } else { Amounts::new() };
    entry("f1", Event::Launch { phase, task: task.into(), agent, needs })
}

pub(crate) fn update(task: &str, state: &str, durable: bool) -> Entry {
    let terminal = !matches!(state, "TASK_STARTING" | "TASK_RUNNING" | "TASK_KILLING");
    let (task, state) = (task.into(), state.into());
    entry("f1", Event::Update { task, state, terminal, durable, reason: String::new(), uuid: None })
}

pub(crate) fn mark(task: &str, starts: bool) -> Mark {
    Mark { task: task.into(), starts }
}

pub(crate) fn known(task: &str, ended: bool) -> KnownTask {
    KnownTask { task: task.into(), framework_id: "x-0001".into(), ended }
}

/// The log of the good history.
pub(crate) fn logged() -> Vec<LogEntry> {
    let entry = |index, commands: Vec<Value>, outcomes: Vec<Value>| LogEntry {
        index,
        term: u64::from(index > 0),
        committed: true,
        decided_in_term: Some(1),
        commands,
        outcomes,
        state_hash: Some(format!("{index:02}")),
    };
    let launched = |index: u64, task: &str| {
        let number = json!({"incarnation": 1, "index": index, "n": 0});
        let offer = format!("x-O1-0-{}", index - 2);
        entry(
            index,
            vec![json!({"Launch": {"framework_id": "x-0001", "offer_ids": [offer], "tasks": []}})],
            vec![json!({"Launched": {"tasks": [[task, {"Launched": number}]]}})],
        )
    };
    let begin = json!({"BeginTerm": {"reconnect_grace_ms": 1}});
    let subscribe = json!({"Subscribe": {"framework_id": null}});
    let subscribed = json!({"Subscribed": {"framework_id": "x-0001", "session": 1}});
    vec![
        entry(0, vec![], vec![]),
        entry(1, vec![begin], vec![json!("Done")]),
        entry(2, vec![subscribe], vec![subscribed]),
        launched(3, "t1"),
        launched(4, "t2"),
        entry(5, vec![json!("Tick")], vec![json!("Done")]),
    ]
}

/// One framework, two tasks one after the other, one refused task, one fault: as it should be.
pub(crate) fn good() -> (Vec<Entry>, Truth) {
    let nemesis = |begins, bit: Option<&str>| Event::Nemesis {
        fault: "kill".into(),
        target: "m1".into(),
        begins,
        bit: bit.map(str::to_owned),
    };
    let history = vec![
        registered("f1"),
        entry("sampler", Event::Leads { leader: "m1".into(), term: 1 }),
        entry("sampler", Event::AgentId { agent: "a1".into(), agent_id: "x-S1".into() }),
        launch("t1", Phase::Invoked),
        update("t1", "TASK_RUNNING", true),
        launch("t1", Phase::Ok),
        entry("nemesis", nemesis(true, None)),
        update("t1", "TASK_RUNNING", true),
        update("t1", "TASK_FINISHED", true),
        entry("nemesis", nemesis(false, Some("term 1 to 2"))),
        launch("t2", Phase::Invoked),
        launch("t3", Phase::Invoked),
        update("t3", "TASK_DROPPED", false),
        launch("t3", Phase::Refused),
        launch("t2", Phase::Ok),
        entry("f1", Event::Kill { task: "t2".into() }),
        update("t2", "TASK_KILLED", true),
    ];
    let truth = Truth {
        marks: [(
            "a1".into(),
            vec![mark("t1", true), mark("t1", false), mark("t2", true), mark("t2", false)],
        )]
        .into(),
        totals: [("a1".into(), [("cpus".into(), 1000)].into())].into(),
        tasks: vec![known("t1", true), known("t2", true)],
        frameworks: [("x-0001".into(), "f1".into())].into(),
        replicas: vec![("m1".into(), 9, 7), ("m2".into(), 9, 7)],
        logs: [("m1".into(), logged()), ("m2".into(), logged())].into(),
        ..Default::default()
    };
    (history, truth)
}

#[test]
fn the_good_history_is_good() {
    let (history, truth) = good();
    for (name, wrong) in crate::checker::check(&history, &truth) {
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
    }
}

/// Spoils the good history; the checker must object to exactly that and name the thing.
#[track_caller]
pub(crate) fn refuses(
    checker: crate::checker::Checker,
    names: &str,
    spoil: impl FnOnce(&mut Vec<Entry>, &mut Truth),
) {
    let (mut history, mut truth) = good();
    assert!(checker(&history, &truth).is_empty());
    spoil(&mut history, &mut truth);
    let wrong = checker(&history, &truth);
    assert!(wrong.iter().any(|one| one.contains(names)), "{wrong:?}");
}
