//! The leader's loop: drives the machine of one term on a thread of its own, and the shards on theirs.

use crate::{
    mesos::{Applied, Tap},
    route::{Looked, Sink, ToLeader, UP_QUEUE},
    tally::{Tallies, Tally, of_scheduler},
};
use muster_allocator::{Policy, Shard, ShardId, ShardInput, ShardOutput, View};
use muster_leader::{Committed, Config, ConnId, Effect, Input, Leader};
use muster_model::{AgentCall, Call, CallOutcome, Event, Fence, SchedulerEvent, Timestamp};
use muster_raft::{AppliedBatch, Leadership, Raft, Reign};
use muster_registry::Change;
use std::{
    collections::{HashMap, VecDeque},
    future::ready,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Inputs taken in one go before effects are looked at again.
const INPUTS_AT_ONCE: usize = 256;

/// What a shard's thread is given.
struct Pass {
    now: Timestamp,
    inputs: Vec<ShardInput>,
    asked: Instant,
}

/// What came of a pass; none if it panicked.
type Passed = Option<ShardOutput>;

/// A client, and what is counted of it once its framework is known.
#[derive(Debug)]
struct Client {
    sink: Sink,
    tally: Option<Arc<Tally>>,
}

struct Loop {
    raft: Raft,
    leadership: watch::Receiver<Leadership>,
    fence: Fence,
    machine: Leader,
    proposer: muster_raft::Proposer,
    clients: HashMap<ConnId, Client>,
    /// When each command that is not applied yet was proposed, in order.
    proposed: VecDeque<Instant>,
    /// Calls that came while no quorum was heard.
    held: VecDeque<(ConnId, Call)>,
    shards: Vec<std::sync::mpsc::SyncSender<Pass>>,
    operators: HashMap<u64, oneshot::Sender<CallOutcome>>,
    operators_counted: u64,
    /// Where operators' event streams hear of what is applied.
    tap: Tap,
    serve: Option<Box<dyn FnOnce() + Send>>,
    effects: Vec<Effect>,
    ended: bool,
}

/// Leads until the reign ends; calls `serve` once `BeginTerm` is applied. Runs on the calling thread.
pub(crate) async fn lead(
    raft: Raft,
    reign: Reign,
    config: Config,
    mut inputs: mpsc::Receiver<ToLeader>,
    serve: Box<dyn FnOnce() + Send>,
    tap: Tap,
    over: CancellationToken,
) {
    let Reign { fence, mut applied, proposer } = reign;
    let (outputs, mut outputs_in) = mpsc::channel(config.shards.max(1) as usize);
    let shards = start_shards(&config, &outputs, &tap.tallies);
    let mut effects = Vec::new();
    let machine = Leader::new(config, fence.term, &mut effects);
    let mut it = Loop {
        leadership: raft.leadership(),
        raft,
        fence,
        machine,
        proposer,
        clients: HashMap::new(),
        proposed: VecDeque::new(),
        held: VecDeque::new(),
        shards,
        operators: HashMap::new(),
        operators_counted: 0,
        tap,
        serve: Some(serve),
        effects,
        ended: false,
    };
    it.perform();
    let mut some = Vec::with_capacity(INPUTS_AT_ONCE);
    while !it.ended {
        // Without a quorum nothing is due: it may be an offer, or a question.
        let due = it.machine.wake_at().filter(|_| it.has_quorum());
        let wait = due.map(|at| at.since_ms(it.raft.now()));
        tokio::select! {
            biased;
            () = over.cancelled() => break,
            batch = applied.recv() => match batch {
                Some(batch) => it.applied(batch),
                None => break, // the reign is over
            },
            Ok(()) = it.leadership.changed() => {}
            () = ready(()), if it.may_take_held() => it.take_held(),
            // No offers without a quorum; a shard waits with its next pass until this one is taken.
            Some((shard, passed)) = outputs_in.recv(), if it.has_quorum() => match passed {
                Some(output) => it.step(Input::Allocated(shard, output)),
                None => it.offers_end(shard),
            },
            n = inputs.recv_many(&mut some, INPUTS_AT_ONCE) => {
                if n == 0 {
                    break;
                }
                some.drain(..).for_each(|input| it.input(input));
            }
            () = tokio::time::sleep(Duration::from_millis(wait.unwrap_or(1000).max(1))) => {}
        }
        // Also when inputs never pause.
        if it.has_quorum() && it.machine.wake_at().is_some_and(|at| at <= it.raft.now()) {
            // Whoever has answered a ping is heard before anybody is called silent (`protocol` B6).
            for _ in 0..inputs.len() {
                let Ok(input) = inputs.try_recv() else { break };
                it.input(input);
            }
            it.step(Input::Wake);
        }
    }
    it.resign();
}

/// Whether it says no more than that its agent is there.
fn is_pong(call: &Call) -> bool {
    matches!(call, Call::Agent { call: AgentCall::Pong(_), .. })
}

fn start_shards(
    config: &Config,
    outputs: &mpsc::Sender<(u32, Passed)>,
    tallies: &Tallies,
) -> Vec<std::sync::mpsc::SyncSender<Pass>> {
    let count = config.shards.max(1);
    let start = |index| {
        let (passes, passes_in) = std::sync::mpsc::sync_channel(1);
        let (outputs, policy, tallies) = (outputs.clone(), config.policy.clone(), tallies.clone());
        let name = format!("shard-{index}");
        let run = move || shard(ShardId { index, count }, policy, &passes_in, &outputs, &tallies);
        if let Err(error) = std::thread::Builder::new().name(name).spawn(run) {
            tracing::error!(shard = index, %error, "cannot start a shard's thread");
        }
        passes
    };
    (0..count).map(start).collect()
}

/// A shard's thread: one pass for each batch, until the leader is gone.
fn shard(
    id: ShardId,
    policy: Policy,
    passes: &std::sync::mpsc::Receiver<Pass>,
    outputs: &mpsc::Sender<(u32, Passed)>,
    tallies: &Tallies,
) {
    let (mut shard, timers) = (Shard::new(View::empty(id), policy), tallies.timers());
    while let Ok(pass) = passes.recv() {
        let began = Instant::now();
        timers.allocation_latency.took(began.duration_since(pass.asked));
        // What is left of the shard after a panic is not used again.
        let passed = catch_unwind(AssertUnwindSafe(|| shard.step(pass.now, pass.inputs))).ok();
        timers.allocation_run.took(began.elapsed());
        let goes_on = passed.is_some();
        if outputs.blocking_send((id.index, passed)).is_err() || !goes_on {
            return;
        }
    }
}

impl Loop {
    fn step(&mut self, input: Input) {
        self.decide(input);
        self.perform();
    }

    /// Without one of its offer loops it does not lead.
    fn offers_end(&mut self, shard: u32) {
        tracing::error!(shard, "an offer loop ended: this master steps down");
        self.ended = true;
    }

    /// One step of the machine, on the registry as it stands.
    fn decide(&mut self, input: Input) {
        let (now, machine, effects) = (self.raft.now(), &mut self.machine, &mut self.effects);
        self.raft.with_registry(|registry| machine.step(now, registry, input, effects));
    }

    fn applied(&mut self, batch: AppliedBatch) {
        let term = self.fence.term;
        for entry in batch.entries.iter().filter(|entry| entry.term == term) {
            self.stored(entry.outcomes.len());
        }
        let entries = batch.entries.into_iter().map(|entry| Committed {
            index: entry.index,
            first_ticket: (entry.term == term).then_some(entry.first_ticket),
            outcomes: entry.outcomes,
            changes: Arc::new(entry.changes),
        });
        let entries: Vec<_> = entries.collect();
        entries.iter().for_each(|entry| self.show(entry));
        self.step(Input::Applied(entries));
    }

    /// An entry of this term with so many commands is applied: how long it took is how long the first of them waited.
    fn stored(&mut self, commands: usize) {
        let commands = commands.min(self.proposed.len());
        if let Some(first) = self.proposed.drain(..commands).next() {
            self.tap.tallies.timers().store.took(first.elapsed());
        }
    }

    /// Shows operators what an entry changed.
    fn show(&self, entry: &Committed) {
        if entry.changes.iter().any(|change| matches!(change, Change::TermBegan)) {
            let registry = self.raft.registry();
            self.tap.tallies.begin(&registry);
            self.tap.send(Applied::Began(Box::new(registry)));
        }
        if !entry.changes.is_empty() {
            self.tap.send(Applied::Changed(entry.index, entry.changes.clone()));
        }
    }

    fn input(&mut self, input: ToLeader) {
        match input {
            ToLeader::Opened(conn, sink) => {
                self.clients.insert(conn, Client { sink, tally: None });
            }
            // Clients leave when there is no quorum for a while (`reign`), not all at once: who is still here is not answered
            // by what the others have taken with them. It may come back before that: so calls wait, in their order. Who said
            // what finds no room begins anew, lest it waits for ever. A pong, which all may say at once, changes nothing else.
            ToLeader::Call(conn, call) if self.waits() && !is_pong(&call) => match self.held.len() < UP_QUEUE
            {
                true => self.held.push_back((conn, call)),
                false => {
                    self.effects.push(Effect::Close(conn));
                    self.perform();
                }
            },
            ToLeader::Call(conn, call) => self.call(conn, call),
            ToLeader::Closed(conn) => {
                if self.clients.remove(&conn).is_some() {
                    self.step(Input::Closed(conn));
                }
            }
            ToLeader::Operator(call, answer) => {
                self.operators_counted += 1;
                let id = self.operators_counted;
                self.operators.insert(id, answer);
                self.step(Input::Operator { id, call });
            }
            // Offers are gone from here before what was launched on them is in the registry: nothing is seen twice.
            ToLeader::Look(answer) => {
                let _ = answer.send(Looked {
                    registry: self.raft.registry(),
                    offers: self.machine.offers().cloned().collect(),
                    inverse_offers: self.machine.inverse_offers().cloned().collect(),
                    answers: self.machine.inverse_answers().cloned().collect(),
                    counts: self.machine.counts().clone(),
                    proposed: self.proposed.len(),
                    suppressed: self.machine.suppressed().collect(),
                }); // who asked may be gone
            }
        }
    }

    /// Counts a call that is carried out next.
    fn count(&mut self, conn: ConnId, call: &Call) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        match call {
            Call::Scheduler { call, .. } => {
                self.tap.tallies.called(call);
                if let Some(tally) = &client.tally {
                    tally.called(call, |id| self.machine.stands(id));
                }
            }
            Call::Resume { framework_id, .. } => client.tally = self.tap.tallies.of(framework_id),
            Call::Agent { call, .. } => self.tap.tallies.agent_said(call),
        }
    }

    fn call(&mut self, conn: ConnId, call: Call) {
        match self.clients.contains_key(&conn) {
            true => {
                self.count(conn, &call);
                self.step(Input::Call { conn, call });
            }
            false => self.tap.tallies.dropped(), // it was cut off
        }
    }

    /// Takes in some of what waited for a quorum.
    fn take_held(&mut self) {
        for _ in 0..INPUTS_AT_ONCE {
            let Some((conn, call)) = self.held.pop_front() else { break };
            self.call(conn, call);
        }
    }

    fn may_take_held(&self) -> bool {
        !self.held.is_empty() && self.has_quorum()
    }

    /// Whether a call has to wait: for a quorum, or for those before it.
    fn waits(&self) -> bool {
        !self.held.is_empty() || !self.has_quorum()
    }

    /// Whether it leads still, and has heard of a majority lately (`protocol` A5).
    fn has_quorum(&self) -> bool {
        matches!(*self.leadership.borrow(), Leadership::Leading { fence, quorum: true } if fence == self.fence)
    }

    /// Performs the effects, and those that cutting off slow clients leads to.
    fn perform(&mut self) {
        while !self.effects.is_empty() {
            let mut slow = Vec::new();
            for effect in std::mem::take(&mut self.effects) {
                self.perform_one(effect, &mut slow);
            }
            for conn in slow {
                self.decide(Input::Closed(conn));
            }
        }
    }

    fn perform_one(&mut self, effect: Effect, slow: &mut Vec<ConnId>) {
        match effect {
            Effect::Propose(command) => {
                // The machine's own limit on what is in flight keeps the queue from filling up.
                self.proposed.push_back(Instant::now());
                if self.proposer.propose(command).is_err() {
                    self.ended = true;
                }
            }
            Effect::Send(conn, event) => {
                match of_scheduler(&event) {
                    Some(SchedulerEvent::Subscribed { framework_id, .. }) => {
                        if let Some(client) = self.clients.get_mut(&conn) {
                            client.tally = Some(self.tap.tallies.begun(framework_id));
                        }
                    }
                    Some(SchedulerEvent::Outcome { outcome, .. }) => self.tap.tallies.answered(outcome),
                    _ => {}
                }
                if !send(&mut self.clients, conn, self.fence, event) {
                    tracing::warn!(client = conn, "client does not read fast enough and is cut off");
                    slow.push(conn);
                }
            }
            Effect::Close(conn) => {
                if let Some(client) = self.clients.remove(&conn) {
                    client.sink.close();
                    self.decide(Input::Closed(conn));
                }
            }
            Effect::Allocate { shard, now, inputs } => {
                let sent = self
                    .shards
                    .get(shard as usize)
                    .map(|shard| shard.try_send(Pass { now, inputs, asked: Instant::now() }));
                if !matches!(sent, Some(Ok(()))) {
                    self.offers_end(shard);
                }
            }
            Effect::Answer { id, outcome } => {
                if let Some(waiting) = self.operators.remove(&id) {
                    let _ = waiting.send(outcome); // the operator may have gone
                }
            }
            Effect::Serve => {
                tracing::info!(term = self.fence.term.0, "leading");
                if let Some(serve) = self.serve.take() {
                    serve();
                }
            }
        }
    }

    /// The reign is over: whoever waits learns that the outcome is unknown. Streams stay open: their doors
    /// look for the next leader.
    fn resign(mut self) {
        let mut effects = Vec::new();
        self.tap.tallies.keep(self.machine.counts());
        self.machine.resign(&mut effects);
        for effect in effects {
            match effect {
                Effect::Send(conn, event) => {
                    if let Some(client) = self.clients.get(&conn) {
                        client.sink.send(self.fence, event);
                    }
                }
                Effect::Answer { id, outcome } => {
                    if let Some(waiting) = self.operators.remove(&id) {
                        let _ = waiting.send(outcome);
                    }
                }
                _ => {}
            }
        }
        tracing::info!(term = self.fence.term.0, "no longer leading");
    }
}

/// Sends an event to a client that is there. False: there was no room for it, and the client is cut off, at once, since
/// nothing may follow what it was not told.
fn send(clients: &mut HashMap<ConnId, Client>, conn: ConnId, fence: Fence, event: Event) -> bool {
    let Some(client) = clients.get(&conn) else { return true };
    if let (Some(tally), Some(event)) = (&client.tally, of_scheduler(&event)) {
        tally.told(event);
    }
    if client.sink.send(fence, event) {
        return true;
    }
    clients.remove(&conn).into_iter().for_each(|client| client.sink.cut_off());
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Down;

    #[test]
    fn nothing_follows_what_found_no_room() {
        let (down, mut queue) = mpsc::channel(2);
        let client = Client { sink: Sink::local(down, CancellationToken::new()), tally: None };
        let mut clients: HashMap<ConnId, Client> = [(7, client)].into();
        let mut told = |text: &str| {
            send(&mut clients, 7, Fence::default(), Event::Scheduler(SchedulerEvent::Error(text.into())))
        };
        assert!(told("1") && told("2"));
        assert!(!told("3"));
        // The client reads, as it happens.
        assert!(queue.try_recv().is_ok());
        assert!(told("4"), "it is cut off already");
        drop(clients);
        let left: Vec<Down> = std::iter::from_fn(|| queue.try_recv().ok()).collect();
        assert!(
            matches!(&left[..], [Down::Event(_, event, _)] if format!("{event:?}").contains('2')),
            "{left:?}"
        );
    }
}
