//! Whatever comes in whatever order, the driver keeps its laws.

#![allow(clippy::unwrap_used)]

use muster_driver::{Callback, Config, Down, Driver, Effect, Input};
use muster_model::event::CallOutcome;
use muster_model::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn config() -> Config {
    let info = FrameworkInfo {
        name: "f".into(),
        user: "u".into(),
        principal: None,
        roles: vec![Role::any()],
        failover_timeout_ms: 0,
        capabilities: Capabilities::default(),
        sealed: Sealed::default(),
    };
    let mut config = Config::new(vec!["m1".into(), "m2".into()], info);
    config.calls_max = 4;
    config
}

fn spec(n: u8) -> TaskSpec {
    TaskSpec {
        task_id: task_id(n),
        name: "n".into(),
        resources: Resources::of(1, 1),
        executor: None,
        grace_ms: None,
        sealed: Sealed::default(),
    }
}

fn task_id(n: u8) -> TaskId {
    TaskId::new(format!("t{n}"))
}

/// What may happen, without the number of the stream.
#[derive(Debug, Clone)]
enum Happens {
    Connected,
    Broken,
    Frame(u64, Down),
    Call(SchedulerCall),
    Handled(u8),
    Stop(bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    let outcome = prop_oneof![
        3 => Just(CallOutcome::Done),
        1 => Just(CallOutcome::Busy),
        1 => Just(CallOutcome::Unknown),
        1 => Just(CallOutcome::Refused("no".into())),
        2 => Just(CallOutcome::Accepted(AcceptOutcome::default())),
    ];
    let subscribed = SchedulerEvent::Subscribed {
        framework_id: FrameworkId::new("F"),
        session: Session(1),
        heartbeat_ms: 1000,
    };
    let status = Status {
        state: TaskState::Running,
        source: Source::Agent,
        reason: None,
        message: "".into(),
        wall: WallTime(0),
        sealed: Sealed::default(),
    };
    let update = (0u8..3).prop_map(move |n| SchedulerEvent::Update {
        task_id: task_id(n),
        agent_id: None,
        status: status.clone(),
        uuid: Some(Uuid([n; 16])),
    });
    let event = prop_oneof![
        4 => Just(subscribed),
        1 => Just(SchedulerEvent::Heartbeat),
        2 => Just(SchedulerEvent::Offers(Vec::new())),
        2 => update,
        // The first ids are those of the subscription and the calls after it.
        6 => (2u64..14, outcome).prop_map(|(id, outcome)| SchedulerEvent::Outcome { id, outcome }),
    ];
    let leader = Down::Leader { name: "m".into(), address: "m2".into() };
    let down = prop_oneof![
        3 => Just(leader),
        1 => Just(Down::Redial("r".into())),
        9 => event.prop_map(Down::Event),
    ];
    let call = prop_oneof![
        (0u8..3).prop_map(|n| SchedulerCall::Accept {
            offer_ids: vec![OfferId::new("o")],
            tasks: vec![spec(n)],
            named: Vec::new(),
            bad: Vec::new(),
            refuse_ms: 0,
        }),
        (0u8..3).prop_map(|n| SchedulerCall::Kill { task_id: task_id(n), agent_id: None, grace_ms: None }),
        (0u8..3).prop_map(|n| SchedulerCall::Reconcile { tasks: vec![(task_id(n), None)] }),
        Just(SchedulerCall::Suppress { roles: Vec::new() }),
        Just(SchedulerCall::Revive { roles: Vec::new() }),
    ];
    prop_oneof![
        3 => Just(Happens::Connected),
        1 => Just(Happens::Broken),
        12 => (1u64..4, down).prop_map(|(term, down)| Happens::Frame(term, down)),
        6 => call.prop_map(Happens::Call),
        2 => (0u8..3).prop_map(Happens::Handled),
        1 => any::<bool>().prop_map(Happens::Stop),
    ]
}

/// What an observer of inputs and effects knows.
#[derive(Default)]
struct Observer {
    dial: u64,
    subscribed: bool,
    ended: bool,
    /// From then on there are no callbacks to see a subscription by.
    stopping: bool,
    /// ACCEPTs, KILLs and RECONCILEs that were sent and, as far as is known, not answered.
    unanswered: BTreeMap<u64, SchedulerCall>,
}

impl Observer {
    fn saw(&mut self, effect: &Effect) {
        assert!(!self.ended, "after the end: {effect:?}");
        match effect {
            Effect::Dial { dial, .. } => {
                assert!(*dial > self.dial);
                (self.dial, self.subscribed) = (*dial, false);
            }
            Effect::Hangup { dial } => assert_eq!(*dial, self.dial),
            Effect::Callback(Callback::Registered { .. } | Callback::Reregistered { .. }) => {
                self.subscribed = true;
            }
            Effect::Callback(Callback::Disconnected) => self.subscribed = false,
            Effect::Send { call: SchedulerCall::Subscribe { .. }, .. } => self.subscribed = false,
            Effect::Send { id, call } => self.sent(*id, call),
            Effect::Ended { .. } => self.ended = true,
            Effect::Callback(_) | Effect::Refused { .. } => {}
        }
    }

    fn sent(&mut self, id: u64, call: &SchedulerCall) {
        assert!(self.subscribed || self.stopping, "sent without a subscription: {call:?}");
        if let SchedulerCall::Kill { task_id, .. } = call {
            let earlier = self.unanswered.range(..id).any(|(_, call)| {
                matches!(call, SchedulerCall::Accept { tasks, .. } if tasks[0].task_id == *task_id)
            });
            assert!(!earlier, "a KILL overtakes the ACCEPT of {task_id}");
        }
        if matches!(
            call,
            SchedulerCall::Accept { .. } | SchedulerCall::Kill { .. } | SchedulerCall::Reconcile { .. }
        ) {
            let before = self.unanswered.insert(id, call.clone());
            assert!(before.is_none_or(|before| before == *call), "a number is used for one call");
        }
        let asks = |call: &&SchedulerCall| matches!(call, SchedulerCall::Reconcile { .. });
        assert!(self.unanswered.values().filter(asks).count() <= 2, "more are asked than can be told");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn laws_hold_in_any_order(script in proptest::collection::vec((0u64..400, happens()), 0..120)) {
        let mut driver = Driver::new(config());
        let mut observer = Observer::default();
        let mut effects = Vec::new();
        let mut now_ms = 0;
        driver.step(0, Input::Start, &mut effects);
        effects.drain(..).for_each(|effect| observer.saw(&effect));
        for (later, happens) in script {
            now_ms += later;
            let dial = observer.dial;
            let input = match happens {
                Happens::Connected => Input::Connected { dial },
                Happens::Broken => Input::Broken { dial, why: "x".into() },
                Happens::Frame(term, down) => {
                    let fence = Fence { incarnation: 1, term: Term(term) };
                    Input::Frame { dial, fence, down }
                }
                Happens::Call(call) => Input::Call(call),
                Happens::Handled(n) => Input::Handled { task_id: task_id(n), uuid: Uuid([n; 16]) },
                Happens::Stop(failover) => Input::Stop { failover },
            };
            if let Input::Frame { down: Down::Event(SchedulerEvent::Outcome { id, outcome }), .. } = &input
                && !matches!(outcome, CallOutcome::Busy | CallOutcome::Unknown)
            {
                observer.unanswered.remove(id);
            }
            observer.stopping |= matches!(input, Input::Stop { .. });
            driver.step(now_ms, input, &mut effects);
            effects.drain(..).for_each(|effect| observer.saw(&effect));
            if observer.ended {
                prop_assert_eq!(driver.wake_at(), None);
            }
        }
    }
}
