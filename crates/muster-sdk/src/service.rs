//! The loop that performs what the driver decides.

use crate::credential::Shows;
use crate::handle::StopWord;
use crate::stream::{Stream, inbound};
use muster_driver::{Callback, Driver, Effect, Input};
use muster_model::{Fence, SchedulerCall, TaskId, Uuid};
use muster_proto::{agent::wire_fence, scheduler_frame, v1};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Frames that wait for room on the stream before no more calls and events are taken.
const OUT_WAITING_MAX: usize = 10_000;

pub(crate) struct Service {
    pub(crate) driver: Driver,
    pub(crate) calls: mpsc::Receiver<SchedulerCall>,
    pub(crate) handled: mpsc::Receiver<(TaskId, Uuid)>,
    pub(crate) stop: watch::Receiver<StopWord>,
    pub(crate) callbacks: mpsc::Sender<Callback>,
    pub(crate) shows: Shows,
}

/// What was decided and waits for room.
#[derive(Default)]
struct Waiting {
    stream: Option<Stream>,
    out: VecDeque<v1::SchedulerFrame>,
    callbacks: VecDeque<Callback>,
    ended: Option<Result<(), String>>,
}

impl Service {
    /// Runs until the driver ends; why.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        let start = Instant::now();
        let now_ms = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (to_us, mut from_streams) = inbound();
        let mut waiting = Waiting::default();
        let mut effects = Vec::new();
        let mut input = Input::Start;
        loop {
            self.driver.step(now_ms(), input, &mut effects);
            for effect in effects.drain(..) {
                waiting.take(effect, self.driver.fence(), &self.shows, &to_us);
            }
            if let Some(ended) = waiting.ended.take() {
                // Nobody is to wait for us who we wait for.
                drop(self.handled);
                for callback in waiting.callbacks {
                    if self.callbacks.send(callback).await.is_err() {
                        break;
                    }
                }
                return ended;
            }
            input = self.next(&mut waiting, &mut from_streams, &now_ms).await;
        }
    }

    /// Moves what waits until something is to be decided.
    async fn next(
        &mut self,
        waiting: &mut Waiting,
        from_streams: &mut mpsc::Receiver<Input>,
        now_ms: &impl Fn() -> u64,
    ) -> Input {
        loop {
            let sleep = self.driver.wake_at().map(|at| at.saturating_sub(now_ms()));
            let out = waiting.stream.as_ref().map(|stream| stream.out.clone());
            let out_waits = out.is_some() && !waiting.out.is_empty();
            let out_has_room = waiting.out.len() < OUT_WAITING_MAX;
            tokio::select! {
                biased;
                // A closed stream reports itself.
                Ok(permit) = reserve(out.as_ref()), if out_waits => {
                    if let Some(frame) = waiting.out.pop_front() { permit.send(frame); }
                }
                Ok(permit) = self.callbacks.reserve(), if !waiting.callbacks.is_empty() => {
                    if let Some(callback) = waiting.callbacks.pop_front() { permit.send(callback); }
                }
                Some((task_id, uuid)) = self.handled.recv() => return Input::Handled { task_id, uuid },
                Some(input) = from_streams.recv(), if waiting.callbacks.is_empty() && out_has_room => return input,
                Some(call) = self.calls.recv(), if self.driver.has_room() && out_has_room => {
                    return Input::Call(call);
                }
                Ok(()) = self.stop.changed(), if !self.calls_wait() => {
                    match *self.stop.borrow_and_update() {
                        StopWord::None => {}
                        StopWord::Stop { failover } => return Input::Stop { failover },
                        StopWord::Abort => return Input::Abort,
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(sleep.unwrap_or(60_000))) => return Input::Tick,
            }
        }
    }

    /// Whether calls that were made before a stop are still to be taken.
    fn calls_wait(&self) -> bool {
        let aborted = matches!(*self.stop.borrow(), StopWord::Abort);
        !aborted && !self.calls.is_empty() && self.driver.has_room()
    }
}

async fn reserve(
    out: Option<&mpsc::Sender<v1::SchedulerFrame>>,
) -> Result<mpsc::Permit<'_, v1::SchedulerFrame>, mpsc::error::SendError<()>> {
    match out {
        Some(out) => out.reserve().await,
        None => Err(mpsc::error::SendError(())),
    }
}

impl Waiting {
    fn take(&mut self, effect: Effect, leader: Fence, shows: &Shows, to_us: &mpsc::Sender<Input>) {
        match effect {
            Effect::Dial { dial, address } => {
                tracing::debug!(address, "dialling");
                self.out.clear();
                self.stream = Some(Stream::open(dial, address, shows.clone(), to_us.clone()));
            }
            Effect::Hangup { dial } => {
                if self.stream.as_ref().is_some_and(|stream| stream.dial == dial) {
                    self.stream = None;
                    self.out.clear();
                }
            }
            Effect::Send { id, call } => {
                let fence = Some(wire_fence(leader));
                self.out.push_back(v1::SchedulerFrame { fence, ..scheduler_frame(id, &call) });
            }
            Effect::Callback(callback) => self.callbacks.push_back(callback),
            Effect::Refused { call, why } => tracing::warn!(call, why, "call not carried out"),
            Effect::Ended { error } => self.ended = Some(error.map_or(Ok(()), Err)),
        }
    }
}
