//! An agent that is killed again and again while tasks come and go.

use crate::{
    master::AgentStream,
    runner::cases,
    world::{World, key, launch, order, shell},
};
use muster_model::{
    AgentCall, AgentEvent, AgentId, Hello, Index, LaunchNumber, Session, StatusUpdate, TaskState,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};
use tokio::sync::watch;

cases!(within TIME; an_agent_killed_a_hundred_times_ends_each_task_once_and_leaves_nothing);

/// So many starts of an agent take theirs.
const TIME: Duration = Duration::from_secs(150);
const KILLS: u32 = 100;
/// Tasks that are open at a time.
const OPEN: usize = 16;
const SEED: u64 = 20_240_229;

/// What a task does, and how it ends if it is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Short,
    Fails,
    Long,
    /// Leaves processes in its group and in a session of their own.
    Litters,
    /// Has to be killed, and ignores what it can.
    Stubborn,
    KillsItself,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Short, Self::Fails, Self::Long, Self::Litters, Self::Stubborn, Self::KillsItself];

    fn command(self) -> &'static str {
        match self {
            Self::Short => "exit 0",
            Self::Fails => "exit 3",
            Self::Long => "sleep 0.3",
            Self::Litters => "sleep 1000 & setsid sleep 1000 & sleep 0.02",
            Self::Stubborn => "trap '' TERM; sleep 1000 & sleep 1000; sleep 1000",
            Self::KillsItself => "kill -KILL $$",
        }
    }

    fn ends(self) -> TaskState {
        match self {
            Self::Short | Self::Long | Self::Litters => TaskState::Finished,
            Self::Fails | Self::KillsItself => TaskState::Failed,
            Self::Stubborn => TaskState::Killed,
        }
    }
}

/// What a registry would know of a launch.
struct Known {
    kind: Kind,
    accepted: bool,
    /// Every update, by its number.
    updates: BTreeMap<u32, StatusUpdate>,
    end: Option<(TaskState, String)>,
}

/// The cluster's side.
struct Churn {
    tasks: BTreeMap<u64, Known>,
    runs: PathBuf,
    sessions: u64,
    /// The last of them that was welcomed.
    welcomed: watch::Sender<u64>,
    /// Tasks that finished.
    finished: watch::Sender<usize>,
    /// No new tasks.
    is_ending: bool,
}

fn number(launch: LaunchNumber) -> u64 {
    launch.index.0
}

impl Churn {
    fn open(&self) -> impl Iterator<Item = (u64, &Known)> {
        self.tasks.iter().filter(|(_, task)| task.end.is_none()).map(|(n, task)| (*n, task))
    }

    fn run(&self, n: u64) -> AgentEvent {
        let text = format!("echo ran >> {}/{n}; {}", self.runs.display(), self.tasks[&n].kind.command());
        AgentEvent::Run(Box::new(order(n, &shell(&text))))
    }

    /// As many orders as there is room for.
    fn new_orders(&mut self) -> Vec<AgentEvent> {
        let mut orders = Vec::new();
        while !self.is_ending && self.open().count() < OPEN {
            let n = self.tasks.len() as u64 + 1;
            let kind = Kind::ALL[n as usize % Kind::ALL.len()];
            self.tasks.insert(n, Known { kind, accepted: false, updates: BTreeMap::new(), end: None });
            orders.push(self.run(n));
        }
        orders
    }

    /// Takes an update as a registry does, and answers it.
    fn update(&mut self, update: StatusUpdate) -> AgentEvent {
        let n = number(update.launch);
        let task = self.tasks.get_mut(&n).unwrap_or_else(|| panic!("an update of no task: {update:?}"));
        let confirm = AgentEvent::Confirm { launch: update.launch, seq: update.seq };
        task.accepted = true;
        if let Some(before) = task.updates.get(&update.seq) {
            assert_eq!(before.status.state, update.status.state, "task {n}: one number, two updates");
            return confirm;
        }
        assert_eq!(task.end, None, "task {n} goes on after its end: {update:?}");
        if update.status.state.is_terminal() {
            task.end = Some((update.status.state, update.status.message.to_string()));
        }
        if update.status.state == TaskState::Finished {
            self.finished.send_modify(|n| *n += 1);
        }
        task.updates.insert(update.seq, update);
        confirm
    }

    /// What a leader answers to a hello: rule 15's table.
    fn settle(&mut self, hello: Hello) -> Vec<AgentEvent> {
        let listed: Vec<u64> = hello.tasks.iter().map(|task| number(task.launch)).collect();
        let mut events = Vec::new();
        for update in hello.tasks.into_iter().flat_map(|task| task.updates) {
            events.push(self.update(update));
        }
        for n in &listed {
            self.tasks.get_mut(n).expect("a task that was ordered").accepted = true;
        }
        let missing: Vec<u64> = self.open().map(|(n, _)| n).filter(|n| !listed.contains(n)).collect();
        for n in missing {
            assert!(!self.tasks[&n].accepted, "task {n} was accepted, and is forgotten");
            events.push(self.run(n));
        }
        // Asked for again at each hello until it is over.
        let stubborn = self.open().filter(|(_, task)| task.kind == Kind::Stubborn && task.accepted);
        events.extend(stubborn.map(|(n, _)| kill(n)));
        events
    }

    /// Serves whatever agent comes until no task is open, if none is begun any more.
    async fn serve(&mut self, world: &mut World) {
        while !(self.is_ending && self.open().next().is_none()) {
            let mut stream = world.master.stream().await;
            let _ = self.converse(&mut stream).await; // it was killed; the next one comes
        }
    }

    /// None: the stream is closed.
    async fn converse(&mut self, stream: &mut AgentStream) -> Option<()> {
        stream.try_leader(1).await?;
        let hello = loop {
            if let (Session(0), AgentCall::Hello(hello, ..)) = stream.hear().await? {
                break hello;
            }
        };
        let events = self.settle(hello);
        self.sessions += 1;
        stream.session = Session(self.sessions);
        let agent_id = AgentId::new("c1-S1");
        let welcome =
            AgentEvent::Welcome { agent_id, forget: Vec::new(), low_mark: Index(0), ping_ms: 30_000 };
        for event in std::iter::once(welcome).chain(events) {
            stream.try_say(&event).await?;
        }
        self.welcomed.send_replace(self.sessions);
        loop {
            for order in self.new_orders() {
                stream.try_say(&order).await?;
            }
            if self.is_ending && self.open().next().is_none() {
                stream.try_say(&AgentEvent::Ping(1)).await?; // answered when the confirmations before it are taken in
            }
            let (_, call) = stream.hear().await?;
            match call {
                AgentCall::Pong(1) => return Some(()),
                AgentCall::Accepted(launches) => {
                    for launch in launches {
                        self.tasks.get_mut(&number(launch)).expect("a task that was ordered").accepted = true;
                    }
                }
                AgentCall::Status(update) => {
                    let n = number(update.launch);
                    let runs = update.status.state == TaskState::Running;
                    let confirm = self.update(update);
                    stream.try_say(&confirm).await?;
                    if runs && self.tasks[&n].kind == Kind::Stubborn {
                        stream.try_say(&kill(n)).await?;
                    }
                }
                _ => {}
            }
        }
    }
}

fn kill(n: u64) -> AgentEvent {
    AgentEvent::Kill { launch: launch(n), task: key(n), grace_ms: Some(20) }
}

async fn an_agent_killed_a_hundred_times_ends_each_task_once_and_leaves_nothing(mut world: World) {
    let runs = world.dir.path().join("runs");
    fs::create_dir(&runs).unwrap();
    let mut churn = Churn {
        tasks: BTreeMap::new(),
        runs: runs.clone(),
        sessions: 0,
        welcomed: watch::Sender::new(0),
        finished: watch::Sender::new(0),
        is_ending: false,
    };
    let mut dice = SmallRng::seed_from_u64(SEED);
    for n in 0..KILLS {
        world.start();
        // From before it has said anything, or since it was welcomed, until tasks have come and gone; each second time
        // since one more has finished, so that something goes on where all is slow.
        let (is_early, moment) =
            (dice.random_bool(0.25), Duration::from_micros(dice.random_range(0..100_000)));
        let (mut welcomed, mut finished) = (churn.welcomed.subscribe(), churn.finished.subscribe());
        let death = async {
            if n % 2 == 1 {
                let _ = finished.changed().await;
            } else if !is_early {
                let _ = welcomed.changed().await;
            }
            tokio::time::sleep(moment).await;
        };
        tokio::select! {
            () = churn.serve(&mut world) => unreachable!("new tasks are begun"),
            () = death => {}
        }
        world.kill_agent();
    }
    churn.is_ending = true;
    world.start();
    churn.serve(&mut world).await;

    let mut ends: BTreeMap<(TaskState, bool), usize> = BTreeMap::new();
    for (n, task) in &churn.tasks {
        let ran = fs::read_to_string(runs.join(n.to_string())).unwrap_or_default().lines().count();
        let (end, message) = task.end.as_ref().unwrap();
        let terminal = task.updates.values().filter(|update| update.status.state.is_terminal()).count();
        assert_eq!(terminal, 1, "task {n}");
        match end {
            TaskState::Dropped => assert_eq!(ran, 0, "task {n} ran, and was dropped: {message}"),
            end if *end == task.kind.ends() => assert!(
                ran == 1 || (ran == 0 && *end == TaskState::Killed),
                "task {n} ran {ran} times, {end:?}: {message}"
            ),
            end => panic!("task {n}, {:?}, ended as {end:?}: {message}", task.kind),
        }
        *ends.entry((*end, ran > 0)).or_default() += 1;
    }
    println!(
        "{} tasks, {} sessions in {KILLS} kills; (end, ran): {ends:?}",
        churn.tasks.len(),
        churn.sessions
    );
    assert!(churn.sessions > u64::from(KILLS) / 2, "most agents were killed before they said anything");
    assert!(ends.get(&(TaskState::Finished, true)).is_some_and(|n| *n > 30), "nothing went on: {ends:?}");

    // Nothing is left over: the last words of supervisors and of the agent may still be on their way.
    world.no_processes().await;
    world.none_in(&world.work_dir().join("meta/exits")).await;
    for groups in world.group_dirs() {
        for agents in fs::read_dir(&groups).unwrap().flatten().filter(|it| it.path().is_dir()) {
            world.no_directory_in(&agents.path()).await;
        }
    }
    let helper = world.helper().await;
    assert!(world.stop_agent().await.success());
    world.gone(&helper).await;
    assert_eq!(fs::read_dir(world.runtime_dir()).unwrap().count(), 0, "the runtime directory is empty");
    assert_eq!(world.group_dirs(), Vec::<PathBuf>::new(), "no control group is left");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let work_dir = fs::canonicalize(world.work_dir()).unwrap().display().to_string();
    assert!(!mounts.contains(&work_dir), "{mounts}");
}
