//! Commands in, entries out: one task drains the queue into one entry after another, in order, without a timer.
//!
//! With nothing in flight an entry goes out with whatever waits. While entries are in flight another follows only when
//! it is worth its round: a round of few commands costs as much of every replica as one of many. So what arrives at
//! low load waits for at most one round, and at high load several full entries are on their way. In between, rounds of
//! few commands get a break (`pace.rs`).
//!
//! What was decided under one leadership is written under no other: each write names the leader it is for.

use crate::{
    codec::EntryBuilder,
    error::Full,
    machine::Shared,
    pace::Pace,
    raft::{Core, Node},
    store::lock,
    types::{Proposal, TypeConfig},
};
use muster_model::{Term, WallTime};
use muster_registry::Command;
use openraft::{
    errors::{ClientWriteError, ForwardReason},
    impls::ProgressResponder,
    raft::ClientWriteResult,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// How long to wait before entries that a leader without a lease refused are written again.
const RETRY: Duration = Duration::from_millis(10);

/// Half of what a message between masters may hold.
const COMMAND_BYTES_MAX: usize = crate::peer::MESSAGE_BYTES_MAX / 2;

/// Takes commands in for one reign. What becomes of them comes with the reign's applied batches.
#[derive(Debug)]
pub struct Proposer {
    queue: mpsc::Sender<Command>,
    tickets: Mutex<u64>,
}

impl Proposer {
    /// Queues a command; never waits. Tickets count 1, 2, 3 in the order of the calls.
    pub fn propose(&self, command: Command) -> Result<u64, Full> {
        let mut tickets = lock(&self.tickets);
        self.queue.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Full::Queue,
            mpsc::error::TrySendError::Closed(_) => Full::Over,
        })?;
        *tickets += 1;
        Ok(*tickets)
    }
}

/// Starts the task of a reign. It ends with the reign, and ends the reign when order could not be kept.
pub(crate) fn start(core: Core, node: &Node, term: u64, mut open: watch::Receiver<()>) -> Proposer {
    let config = &node.config;
    let (queue, commands) = mpsc::channel(config.propose_queue);
    let task = Task {
        core,
        shared: node.shared.clone(),
        term,
        commands,
        next: EntryBuilder::default(),
        begins: false,
        held: None,
        closed: false,
        in_flight: VecDeque::new(),
        pace: Pace::new(Instant::now()),
        next_ticket: 1,
        entry_commands: config.max_entry_commands.max(1),
        entry_bytes: config.max_entry_bytes,
        entries: config.entries_in_flight.max(2),
        pipelined_commands: config.pipelined_commands,
    };
    node.runtime.spawn(async move {
        tokio::select! {
            () = task.run() => {}
            // Nothing is ever sent: it closes with the reign.
            _ = open.changed() => {}
        }
    });
    Proposer { queue, tickets: Mutex::new(0) }
}

type Answer = tokio::sync::oneshot::Receiver<ClientWriteResult<TypeConfig>>;

struct Task {
    core: Core,
    shared: Arc<Shared>,
    term: u64,
    commands: mpsc::Receiver<Command>,
    /// The next entry, as far as it is filled.
    next: EntryBuilder,
    /// Whether its first command begins the term.
    begins: bool,
    /// Did not fit into it.
    held: Option<Command>,
    closed: bool,
    in_flight: VecDeque<(Proposal, Answer)>,
    pace: Pace,
    next_ticket: u64,
    entry_commands: usize,
    entry_bytes: usize,
    entries: usize,
    pipelined_commands: usize,
}

/// The reign is over for this task.
struct Over(&'static str);

impl Task {
    async fn run(mut self) {
        let Over(why) = self.drive().await;
        tracing::info!(term = self.term, why, "the reign is over");
        self.shared.end(self.term);
    }

    async fn drive(&mut self) -> Over {
        loop {
            let step = match self.gather().await {
                Ok(()) if self.next.len() == 0 => return Over("nobody proposes any more"),
                Ok(()) => self.write().await,
                Err(over) => Err(over),
            };
            if let Err(over) = step {
                return over;
            }
        }
    }

    /// Fills the next entry until it may go out; it stays empty when nobody proposes any more.
    async fn gather(&mut self) -> Result<(), Over> {
        loop {
            while !self.is_full()
                && let Ok(command) = self.commands.try_recv()
            {
                self.add(command)?;
            }
            let in_flight = self.in_flight.len();
            let is_worth_a_round = self.next.len() >= (self.pipelined_commands * in_flight).max(1);
            let may_go = in_flight < self.entries && (is_worth_a_round || self.is_full() || self.closed);
            let rest = self.pace.rest(Instant::now()).filter(|_| may_go && self.is_small());
            if may_go && rest.is_none() {
                return Ok(());
            }
            let has_room = !self.is_full() && !self.closed;
            tokio::select! {
                biased;
                command = self.commands.recv(), if has_room => match command {
                    Some(command) => self.add(command)?,
                    None => self.closed = true,
                },
                answer = answered(&mut self.in_flight), if in_flight > 0 => self.settled(answer).await?,
                () = sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => {}
            }
        }
    }

    /// Whether it is better to wait for more. The first of a term goes at once: until then nobody leads.
    fn is_small(&self) -> bool {
        self.next.len() < self.pipelined_commands && !self.begins && !self.closed && !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.held.is_some() || self.next.len() >= self.entry_commands || self.next.bytes() >= self.entry_bytes
    }

    /// Adds a command to the next entry, or holds it back when only fewer fit.
    fn add(&mut self, command: Command) -> Result<(), Over> {
        if self.next.len() == 0 {
            self.begins = matches!(command, Command::BeginTerm(_));
        }
        self.next.push(command).map_err(|error| {
            tracing::error!(%error, "a command cannot be stored");
            Over("a command cannot be stored")
        })?;
        let (commands, bytes) = (self.next.len(), self.next.bytes());
        if commands == 1 && bytes > COMMAND_BYTES_MAX {
            // The doors refuse what is much smaller; one that came through could never be replicated.
            tracing::error!(bytes, "a command is too large to be replicated");
            return Err(Over("a command is too large"));
        }
        if commands > 1 && bytes > self.entry_bytes {
            self.held = self.next.pop();
        }
        Ok(())
    }

    /// Writes the next entry, and begins the one after it with what was held back.
    async fn write(&mut self) -> Result<(), Over> {
        let builder = std::mem::take(&mut self.next);
        let count = builder.len() as u64;
        let at = self.shared.clock.stamp(self.term, self.next_ticket, self.begins);
        let proposal = builder
            .finish(Term(self.term), at, wall(), self.next_ticket)
            .map_err(|_| Over("an entry cannot be stored"))?;
        self.next_ticket += count;
        if let Some(held) = self.held.take() {
            self.add(held)?;
        }
        self.send(proposal).await
    }

    async fn send(&mut self, proposal: Proposal) -> Result<(), Over> {
        let (responder, answer) = ProgressResponder::complete_only();
        let leader = openraft::vote::leader_id_std::CommittedLeaderId::new(self.term);
        let write = self.core.write(proposal.clone()).responder(responder).with_leader(leader);
        write.await.map_err(|_| Over("consensus stopped"))?;
        self.in_flight.push_back((proposal, answer));
        self.pace.begins(Instant::now());
        Ok(())
    }

    async fn settled(&mut self, answer: Answered) -> Result<(), Over> {
        match answer {
            Answered::Applied => {
                self.in_flight.pop_front();
                self.pace.ends(Instant::now());
                Ok(())
            }
            Answered::Gone => Err(Over("leadership was lost")),
            Answered::NoLease => self.again().await,
        }
    }

    /// The oldest entry was refused because the quorum was out of reach for a moment. If all that follow it
    /// were refused as well, they are written again in their order; else the order is lost, and the reign
    /// with it.
    async fn again(&mut self) -> Result<(), Over> {
        let mut refused = VecDeque::new();
        while let Some((proposal, _)) = self.in_flight.front() {
            refused.push_back(proposal.clone());
            if refused.len() > 1 && !matches!(answered(&mut self.in_flight).await, Answered::NoLease) {
                return Err(Over("the quorum was out of reach while entries were in flight"));
            }
            self.in_flight.pop_front();
        }
        if self.shared.reigning() != Some(self.term) {
            return Err(Over("leadership was lost"));
        }
        self.pace.forget();
        tokio::time::sleep(RETRY).await;
        for proposal in refused {
            self.send(proposal).await?;
        }
        Ok(())
    }
}

enum Answered {
    Applied,
    /// Refused before it entered the log; this one still leads.
    NoLease,
    /// Refused because it does not lead, or the outcome is unknown.
    Gone,
}

/// What became of the oldest entry. Cancel safe: the entry stays where it is.
async fn answered(in_flight: &mut VecDeque<(Proposal, Answer)>) -> Answered {
    let Some((_, answer)) = in_flight.front_mut() else { return Answered::Gone };
    match answer.await {
        Ok(Ok(_)) => Answered::Applied,
        Ok(Err(ClientWriteError::ForwardToLeader(forward)))
            if forward.reason == ForwardReason::LeaseExpired =>
        {
            Answered::NoLease
        }
        Ok(Err(_)) | Err(_) => Answered::Gone,
    }
}

fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime(since.as_millis() as u64)
}
