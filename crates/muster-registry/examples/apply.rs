//! What applying costs: `cargo run --release -p muster-registry --example apply -- [TASKS] [AGENTS] [FRAMEWORKS]`.
//!
//! Each task is launched, reported running and acknowledged: one entry of 64 commands after another. Prints the
//! time for each kind of command and the resident memory for each running task.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use muster_model::{
    AgentId, AgentInfo, FrameworkId, FrameworkInfo, Hello, Index, LaunchNumber, MachineId, OfferId,
    Resources, Role, Sealed, Source, Status, StatusUpdate, TaskId, TaskKey, TaskSpec, TaskState, Term,
    Timestamp, Uuid, WallTime,
};
use muster_registry::{Applied, Command, Entry, Launch, Outcome, Registry, Subscribe};
use std::time::{Duration, Instant};

/// Commands in one entry.
const AT_ONCE: usize = 64;

struct Bench {
    registry: Registry,
    index: u64,
}

impl Bench {
    fn apply(&mut self, commands: Vec<Command>) -> (Applied, Duration) {
        self.index += 1;
        let entry = Entry {
            term: Term(1),
            at: Timestamp(self.index),
            wall: WallTime(self.index),
            first_ticket: 0,
            commands,
        };
        let began = Instant::now();
        let applied = self.registry.apply(Index(self.index), Term(1), &entry);
        (applied, began.elapsed())
    }

    /// Applies commands in entries of [`AT_ONCE`]; what they became, and how long each took on average.
    fn all(&mut self, what: &str, commands: Vec<Command>) -> Vec<Outcome> {
        let count = commands.len();
        let (mut outcomes, mut took) = (Vec::with_capacity(count), Duration::ZERO);
        let mut commands = commands.into_iter();
        loop {
            let batch: Vec<_> = commands.by_ref().take(AT_ONCE).collect();
            if batch.is_empty() {
                break;
            }
            let (applied, time) = self.apply(batch);
            took += time;
            outcomes.extend(applied.outcomes);
        }
        println!("{what:12} {:8.0} ns", took.as_nanos() as f64 / count as f64);
        outcomes
    }
}

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// As it comes out of a log record: nothing is shared with anything.
fn fresh(text: &str) -> String {
    text.to_owned()
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().unwrap());
    let tasks = args.next().unwrap_or(100_000);
    let agents = args.next().unwrap_or(1_000);
    let frameworks = args.next().unwrap_or(64);
    let cluster = "3f0c1d2e-5b6a-4978-8c9d-0e1f2a3b4c5d";
    let mut bench = Bench { registry: Registry::new(muster_model::ClusterId::new(cluster), 1), index: 0 };

    let subscribe = |n: usize| {
        Command::Subscribe(Subscribe {
            framework_id: None,
            info: FrameworkInfo {
                name: format!("bench-{n}").as_str().into(),
                user: "bench".into(),
                roles: vec![Role::any()],
                failover_timeout_ms: 3_600_000,
                principal: None,
                capabilities: muster_model::Capabilities::default(),
                sealed: Sealed::default(),
            },
            suppressed_roles: vec![],
        })
    };
    bench.all("subscribe", (0..frameworks).map(subscribe).collect());
    let hello = |n: usize| {
        Command::AdmitAgent(Box::new(Hello {
            agent_id: None,
            info: AgentInfo {
                machine_id: MachineId::new(format!("sim-{n}")),
                hostname: format!("sim-{n}").as_str().into(),
                port: 5051,
                resources: Resources::of(64_000_000, 1 << 30),
                attributes: vec![],
            },
            tasks: vec![],
            sealed: Sealed::new(vec![7; 100]),
        }))
    };
    bench.all("admit", (0..agents).map(hello).collect());
    let framework_ids: Vec<FrameworkId> = bench.registry.frameworks().map(|it| it.id.clone()).collect();
    let agent_ids: Vec<AgentId> = bench.registry.agents().map(|it| it.id.clone()).collect();
    let framework = |n: usize| FrameworkId::new(fresh(framework_ids[n % frameworks].as_str()));
    let agent = |n: usize| AgentId::new(fresh(agent_ids[(n * 7_919) % agents].as_str()));
    let task_id = |n: usize| TaskId::new(format!("t{}", n / frameworks));

    let launch = |n: usize| {
        Command::Launch(Launch {
            framework_id: framework(n),
            agent_id: agent(n),
            role: Role::parse("*").unwrap(),
            offer_ids: vec![OfferId::new(format!("{cluster}-O1-0-{n}"))],
            offered: Resources::of(64_000_000, 1 << 30),
            tasks: vec![TaskSpec {
                task_id: task_id(n),
                name: format!("bench t{n}").as_str().into(),
                resources: Resources::of(10, 1),
                executor: None,
                grace_ms: None,
                sealed: Sealed::new(vec![7; 300]),
            }],
        })
    };
    let before = rss();
    let outcomes = bench.all("launch", (0..tasks).map(launch).collect());
    let launches: Vec<LaunchNumber> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Launched(outcome) => match &outcome.tasks[0].1 {
                muster_model::TaskOutcome::Launched(launch) => *launch,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    drop(outcomes);
    let running = |n: usize| Command::Status {
        agent_id: agent(n),
        update: Box::new(StatusUpdate {
            launch: launches[n],
            task: TaskKey { framework_id: framework(n), task_id: task_id(n) },
            seq: 1,
            uuid: Uuid::of(launches[n], 1),
            status: Status {
                state: TaskState::Running,
                source: Source::Executor,
                reason: None,
                message: "".into(),
                wall: WallTime(1),
                sealed: Sealed::default(),
            },
        }),
    };
    bench.all("running", (0..tasks).map(running).collect());
    let acknowledge = |n: usize| Command::Acknowledge {
        task: TaskKey { framework_id: framework(n), task_id: task_id(n) },
        uuid: Uuid::of(launches[n], 1),
    };
    bench.all("acknowledge", (0..tasks).map(acknowledge).collect());
    println!("{:12} {:8} B a running task", "memory", (rss() - before) / tasks as u64);
}
