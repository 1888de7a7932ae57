//! Shards on threads of their own, as a leader has them.

use super::fleet::Fleet;
use anyhow::Context;
use muster_allocator::{Grant, Refused, Shard, ShardId, ShardInput, ShardOutput};
use muster_model::{AgentId, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc::{Receiver, Sender, channel},
    time::Instant,
};

/// How long frameworks decline for: what Mesos' clients say when they say nothing.
const REFUSE_MS: u64 = 5_000;
/// Between two cycles, as shards are told: some filters have ended by each.
const CYCLE_MS: u64 = 1_000;

/// What one cycle took, in seconds, and gave.
#[derive(Debug, Default)]
pub(super) struct Cycle {
    /// Until all shards have taken in what was declined.
    pub(super) declines: f64,
    pub(super) declines_cpu: f64,
    /// Until all passes are over.
    pub(super) pass: f64,
    pub(super) pass_cpu: f64,
    pub(super) offers: usize,
}

enum Do {
    TakeIn(Timestamp, Vec<ShardInput>),
    Pass,
}

/// What a thread did, and the seconds of a core that it took.
struct Did {
    output: ShardOutput,
    cpu: f64,
}

struct Thread {
    order: Sender<Do>,
    done: Receiver<Did>,
    /// What stands of its offers.
    granted: Vec<Grant>,
}

/// The offer loops of one leader.
pub(super) struct Loops {
    threads: Vec<Thread>,
    now: Timestamp,
    doubled: u64,
}

impl Loops {
    /// Starts them; all that is free is offered.
    pub(super) fn start(fleet: &Fleet, count: u32) -> anyhow::Result<Self> {
        let threads = (0..count).map(|index| {
            let (view, policy) = (fleet.view(ShardId { index, count }), fleet.policy.clone());
            let (order, orders) = channel();
            let (did, done) = channel();
            std::thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || serve(Shard::new(view, policy), &orders, &did))?;
            Ok(Thread { order, done, granted: Vec::new() })
        });
        let threads = threads.collect::<std::io::Result<_>>().context("cannot start a shard's thread")?;
        let mut loops = Self { threads, now: Timestamp(0), doubled: 0 };
        loops.all(|_| Do::TakeIn(Timestamp(0), fleet.wish_all()))?;
        loops.all(|_| Do::Pass)?;
        Ok(loops)
    }

    /// One cycle: some of what stands is declined, and what is free then is offered.
    pub(super) fn cycle(&mut self, declined: usize) -> anyhow::Result<Cycle> {
        self.now = self.now.plus_ms(CYCLE_MS);
        let (now, until) = (self.now, self.now.plus_ms(REFUSE_MS));
        let stands: usize = self.threads.iter().map(|thread| thread.granted.len()).sum();
        let mut inputs: Vec<Vec<ShardInput>> = Vec::new();
        for thread in &mut self.threads {
            let share = (declined * thread.granted.len()).div_ceil(stands.max(1));
            let mut inputs_of = Vec::with_capacity(share);
            for _ in 0..share.min(thread.granted.len()) {
                let grant = thread.granted.swap_remove(rand::random_range(0..thread.granted.len()));
                let refused = Refused { resources: grant.resources, until };
                inputs_of.push(ShardInput::Returned(grant.n, Some(refused)));
            }
            inputs.push(inputs_of);
        }
        let (declines, declines_cpu, _) =
            self.all(|index| Do::TakeIn(now, std::mem::take(&mut inputs[index])))?;
        let (pass, pass_cpu, offers) = self.all(|_| Do::Pass)?;
        Ok(Cycle { declines, declines_cpu, pass, pass_cpu, offers })
    }

    /// Has all threads do something at once. The time until the last has done it, the time of all cores, and how many
    /// offers came.
    fn all(&mut self, mut what: impl FnMut(usize) -> Do) -> anyhow::Result<(f64, f64, usize)> {
        let orders: Vec<Do> = (0..self.threads.len()).map(&mut what).collect();
        let began = Instant::now();
        for (thread, order) in self.threads.iter().zip(orders) {
            thread.order.send(order).ok().context("a shard's thread ended")?;
        }
        let did = self.threads.iter().map(|thread| thread.done.recv().context("a shard's thread ended"));
        let did: Vec<Did> = did.collect::<anyhow::Result<_>>()?;
        let took = began.elapsed().as_secs_f64();
        let cpu = did.iter().map(|did| did.cpu).sum();
        let offers = did.iter().map(|did| did.output.grants.len()).sum();
        for (thread, did) in self.threads.iter_mut().zip(did) {
            thread.granted.extend(did.output.grants);
        }
        self.count_doubled();
        Ok((took, cpu, offers))
    }

    /// Offers that stand for the same resources: whole cpus of an agent are in one offer each.
    fn count_doubled(&mut self) {
        let mut cpus: BTreeMap<&AgentId, u64> = BTreeMap::new();
        for grant in self.threads.iter().flat_map(|thread| &thread.granted) {
            *cpus.entry(&grant.agent_id).or_default() += grant.resources.scalar("cpus");
        }
        let doubled: BTreeSet<_> = cpus.iter().filter(|(_, cpus)| **cpus > 22_000).collect();
        self.doubled += doubled.len() as u64;
    }

    /// Agents of which more stood than there is.
    pub(super) fn doubled(&self) -> u64 {
        self.doubled
    }

    /// What stands for each framework, in thousandths of a cpu.
    pub(super) fn offered(&self) -> BTreeMap<String, u64> {
        let mut offered: BTreeMap<String, u64> = BTreeMap::new();
        for grant in self.threads.iter().flat_map(|thread| &thread.granted) {
            *offered.entry(grant.framework_id.to_string()).or_default() += grant.resources.scalar("cpus");
        }
        offered
    }
}

/// A shard's thread, until its leader is gone.
fn serve(mut shard: Shard, orders: &Receiver<Do>, did: &Sender<Did>) {
    let core = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    };
    while let Ok(order) = orders.recv() {
        let began = core();
        let output = match order {
            Do::TakeIn(now, inputs) => {
                shard.take_in(now, inputs);
                ShardOutput::default()
            }
            Do::Pass => shard.pass(),
        };
        if did.send(Did { output, cpu: core() - began }).is_err() {
            return;
        }
    }
}
