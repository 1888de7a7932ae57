//! The stream to a leader: fences, sessions, the hello and what is said again after it.

use crate::{
    effect::Effect,
    hello::update_bytes,
    input::Down,
    node::Node,
    record::{LowMark, Record},
    task::Phase,
};
use muster_model::{
    AgentCall, AgentEvent, AgentId, ExecutorName, Fence, Hello, Index, KnownTask, LaunchNumber, LaunchSum,
    Resources, Session, TaskState,
};

/// A leader that pings is taken for gone after this many silent ping intervals.
const MISSED_PINGS: u64 = 5;

/// After a welcome, and where many are to be repeated at once, so many updates are said at a time, so many ms apart: 12,500
/// in a second. A stream's queue is bounded, and one that is full is given up: an agent with more to say than it holds
/// would begin again for ever.
const PART: usize = 250;
const PAUSE_MS: u64 = 20;

/// When a part is due of which so much is said before.
pub(crate) fn part_at(now_ms: u64, before: usize) -> u64 {
    now_ms.saturating_add((before / PART) as u64 * PAUSE_MS)
}

/// Where the agent stands with its leader.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// The open stream.
    pub(crate) stream: Option<u64>,
    /// Whether the present hello was answered: only then more than a hello is said.
    pub(crate) welcomed: bool,
    /// The newest session.
    pub(crate) session: Session,
    /// After this long without a frame another master is dialled.
    silence_ms: u64,
    /// When that is.
    pub(crate) deadline: Option<u64>,
    /// The answered orders that the last welcome left.
    left_answered: usize,
}

impl Node {
    pub(crate) fn stream_opened(&mut self, now_ms: u64, stream: u64) {
        self.connection.stream = Some(stream);
        self.connection.welcomed = false;
        self.connection.silence_ms = self.config.welcome_ms;
        self.connection.deadline = Some(now_ms + self.config.welcome_ms);
    }

    pub(crate) fn stream_closed(&mut self, stream: u64, effects: &mut Vec<Effect>) {
        if self.connection.stream == Some(stream) {
            self.disconnect();
            effects.push(Effect::Dial);
        }
    }

    fn disconnect(&mut self) {
        self.connection.stream = None;
        self.connection.welcomed = false;
        self.connection.deadline = None;
    }

    fn redial(&mut self, reason: String, effects: &mut Vec<Effect>) {
        if let Some(stream) = self.connection.stream {
            self.disconnect();
            effects.push(Effect::Redial { stream, reason });
        }
    }

    pub(crate) fn connection_wake(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.connection.deadline.is_some_and(|at| at <= now_ms) {
            let silence_ms = self.connection.silence_ms;
            self.redial(format!("no leader answered for {silence_ms} ms"), effects);
        }
    }

    /// Says something to the leader that welcomed this agent; without one it goes unsaid, for the next
    /// hello says all that matters.
    pub(crate) fn say(&mut self, call: AgentCall, effects: &mut Vec<Effect>) {
        if let Some(stream) = self.connection.stream.filter(|_| self.connection.welcomed) {
            effects.push(Effect::Send { stream, session: self.connection.session, call });
        }
    }

    pub(crate) fn frame(
        &mut self,
        now_ms: u64,
        stream: u64,
        fence: Fence,
        session: Session,
        down: Down,
        effects: &mut Vec<Effect>,
    ) {
        if self.connection.stream != Some(stream) {
            return;
        }
        if let Down::Redial(reason) = down {
            // The word of the master itself, not of a leader: no fence to check.
            return self.redial(reason, effects);
        }
        if fence < self.saved.fence {
            return;
        }
        if self.connection.welcomed {
            // A hello has its own time: other frames do not answer it.
            self.connection.deadline = Some(now_ms.saturating_add(self.connection.silence_ms));
        }
        match down {
            Down::Redial(_) => {}
            Down::Leader { .. } => self.leader(now_ms, stream, fence, effects),
            // A leader introduces itself before it says anything else.
            Down::Event(_) if fence != self.saved.fence => {}
            // Of the hello that was said, which has no session yet, or of this session: another one was that of a former
            // agent here.
            Down::Event(AgentEvent::Rejected(reason))
                if session == self.connection.session
                    || session == Session(0) && !self.connection.welcomed =>
            {
                self.stop(format!("the leader refuses this agent: {reason}"), effects);
            }
            Down::Event(AgentEvent::Welcome { agent_id, forget, low_mark, ping_ms }) => {
                self.welcome(now_ms, session, agent_id, forget, low_mark, ping_ms, effects);
            }
            Down::Event(AgentEvent::ListAll) if !self.connection.welcomed => {
                self.say_hello_with(now_ms, stream, true, effects);
            }
            Down::Event(event) if self.connection.welcomed && session == self.connection.session => {
                self.event(now_ms, event, effects);
            }
            Down::Event(_) => {}
        }
    }

    fn leader(&mut self, now_ms: u64, stream: u64, fence: Fence, effects: &mut Vec<Effect>) {
        self.connection.welcomed = false;
        if fence.incarnation > self.saved.fence.incarnation {
            self.connection.session = Session(0);
        }
        let is_new = fence > self.saved.fence;
        if is_new {
            self.keep(Record::Fence(fence));
        }
        // The leader and all that was ordered before are on the disk first. A hello that leaves an order out may be the one
        // that is answered, whatever a later one says: the task would be dropped by the registry, and run here.
        if is_new || self.orders_wait() {
            self.hello_after_all(stream);
        } else {
            self.say_hello(now_ms, stream, effects);
        }
    }

    /// Says all that is durable here; what is not is said after the welcome. Tasks that go on, whose updates were all confirmed,
    /// are as the leader knows them, unless it says otherwise.
    pub(crate) fn say_hello(&mut self, now_ms: u64, stream: u64, effects: &mut Vec<Effect>) {
        self.say_hello_with(now_ms, stream, false, effects);
    }

    fn say_hello_with(&mut self, now_ms: u64, stream: u64, list_all: bool, effects: &mut Vec<Effect>) {
        if self.connection.stream != Some(stream) || self.connection.welcomed {
            return;
        }
        self.connection.silence_ms = self.config.welcome_ms;
        self.connection.deadline = Some(now_ms.saturating_add(self.config.welcome_ms));
        let mut tasks = Vec::new();
        let mut room = self.room_for_updates();
        let mut excess = self.listed_too_much();
        for (launch, run) in &mut self.runs {
            run.unlisted = !run.durable;
            let Some(task) = self.saved.tasks.get(launch).filter(|_| run.durable) else { continue };
            if excess > 0 && task.intent.is_none() {
                // It was refused: whoever misses it orders it again, and its end follows the welcome.
                excess = excess.saturating_sub(run.bytes);
                run.said_seq = 0;
                continue;
            }
            if run.phase == Phase::Unlisted {
                run.phase = Phase::Pending;
            }
            let updates = task.updates.iter().filter(|update| update.seq <= run.durable_seq);
            let bytes: usize = updates.clone().map(update_bytes).sum();
            // What does not fit is listed as it was before its updates, which follow the welcome.
            let fits = bytes <= room;
            room -= if fits { bytes } else { 0 };
            run.accept_due = false;
            run.said_seq = if fits { run.durable_seq } else { 0 };
            tasks.push(KnownTask {
                launch: *launch,
                task: task.task.clone(),
                state: match fits {
                    true => run.durable_state,
                    false if task.process.is_some() => TaskState::Running,
                    false => TaskState::Staging,
                },
                alive: !(fits && run.durable_state.is_terminal()),
                resources: task
                    .intent
                    .as_ref()
                    .map_or_else(Resources::none, |intent| intent.resources.clone()),
                updates: if fits { updates.cloned().collect() } else { Vec::new() },
            });
        }
        let mut hello = Hello {
            agent_id: self.saved.agent_id.clone(),
            info: self.config.info.clone(),
            tasks,
            sealed: self.config.sealed.clone(),
        };
        let may_be_known = !list_all && hello.agent_id.is_some() && !hello.tasks.is_empty();
        let call = match LaunchSum::of_living(&hello.tasks).filter(|_| may_be_known) {
            Some(tasks) => {
                hello.tasks = Vec::new();
                AgentCall::HelloAsKnown(hello, tasks, None)
            }
            None => {
                let token = hello.agent_id.is_none().then_some(self.config.token);
                AgentCall::Hello(hello, token, None)
            }
        };
        effects.push(Effect::Send { stream, session: Session(0), call });
    }

    /// On a long connection nothing else would prune the list of answered orders. What the hello leaves out is
    /// ordered again.
    pub(crate) fn ask_for_a_low_mark(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let most = self.config.answered_max.max(self.connection.left_answered.saturating_mul(2));
        if self.connection.welcomed
            && self.saved.answered.len() > most
            && let Some(stream) = self.connection.stream
        {
            self.connection.welcomed = false;
            self.say_hello(now_ms, stream, effects);
        }
    }

    #[allow(clippy::too_many_arguments)] // the fields of one frame
    fn welcome(
        &mut self,
        now_ms: u64,
        session: Session,
        agent_id: AgentId,
        forget: Vec<LaunchNumber>,
        low_mark: Index,
        ping_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        if session < self.connection.session {
            return;
        }
        self.connection.session = session;
        self.connection.welcomed = true;
        self.connection.silence_ms = ping_ms.max(100).saturating_mul(MISSED_PINGS);
        self.connection.deadline = Some(now_ms.saturating_add(self.connection.silence_ms));
        if self.saved.agent_id.as_ref() != Some(&agent_id) {
            self.keep(Record::Identity(agent_id));
        }
        let mark = LowMark { incarnation: self.saved.fence.incarnation, index: low_mark };
        if mark.replaces(&self.saved.low_mark) {
            self.keep(Record::LowMark(mark));
        }
        self.connection.left_answered = self.saved.answered.len();
        for launch in forget {
            self.forget(now_ms, launch, effects);
        }
        self.say_executors(now_ms, effects);
        self.wait_for_groups(now_ms);
        self.say_what_the_hello_left_out(now_ms, effects);
        let pending = self.runs.iter().filter(|(_, run)| run.phase == Phase::Pending);
        for launch in pending.map(|(launch, _)| *launch).collect::<Vec<_>>() {
            self.start(now_ms, launch, Phase::Pending, effects);
        }
    }

    fn say_what_the_hello_left_out(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let mut accepted = Vec::new();
        for (launch, run) in &mut self.runs {
            if std::mem::take(&mut run.accept_due) {
                accepted.push(*launch);
            }
        }
        if !accepted.is_empty() {
            self.say(AgentCall::Accepted(accepted), effects);
        }
        let mut before = 0;
        for launch in self.runs.keys().copied().collect::<Vec<_>>() {
            let Some(run) = self.runs.get(&launch) else { continue };
            let is_said = run.said_seq == run.durable_seq;
            let from_ms = part_at(now_ms, before);
            before += self.saved.tasks.get(&launch).map_or(0, |task| task.updates.len());
            if is_said || from_ms == now_ms {
                self.say_updates(launch, effects);
                self.repeat_from(from_ms, launch, self.config.repeat_ms);
            } else {
                self.repeat_at(from_ms, launch, self.config.repeat_ms);
            }
        }
    }

    fn event(&mut self, now_ms: u64, event: AgentEvent, effects: &mut Vec<Effect>) {
        match event {
            AgentEvent::Run(order) => self.run(now_ms, *order, effects),
            AgentEvent::Kill { launch, task, grace_ms } => self.kill(now_ms, launch, task, grace_ms, effects),
            AgentEvent::Confirm { launch, seq } => self.confirm(launch, seq),
            AgentEvent::Ping(n) => self.say(AgentCall::Pong(n), effects),
            AgentEvent::Message { framework_id, executor_id, data } => {
                self.tell_message(&ExecutorName { framework_id, executor_id }, data, effects);
            }
            AgentEvent::ShutdownExecutor { framework_id, executor_id } => {
                self.shut_down(now_ms, &ExecutorName { framework_id, executor_id }, effects);
            }
            AgentEvent::ConfirmExecutor(number) => self.confirm_executor(number),
            AgentEvent::Volumes { keep } => self.keep_volumes(keep, effects),
            AgentEvent::Welcome { .. } | AgentEvent::ListAll | AgentEvent::Rejected(_) => {}
        }
    }
}
