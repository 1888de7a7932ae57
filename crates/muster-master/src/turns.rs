//! Agents take turns to say hello.
//!
//! When a leader changes, or a master dies, thousands of agents would say their hello at the same moment. Each is admitted by a
//! command of the log; what they have to say waits in every queue on its way there, and behind it wait the pings of links, and
//! frameworks. So a master tells only some of its agents at once who leads; the next one's turn comes when one was answered.

use crate::route::Down;
use muster_model::{AgentEvent, Event};
use muster_proto::v1::{self, agent_down_frame::Frame};
use prost::Message;
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hellos of one master's agents that may be on their way: as many as keep the log busy for a few rounds.
pub(crate) const AT_ONCE: usize = 512;

/// An agent that was not answered by then lets the next one begin, and is waited for no longer.
pub(crate) const TURN: Duration = Duration::from_secs(1);

/// Those of one master.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Turns {
    /// Waits for a turn, behind all who asked before.
    pub(crate) fn next(&self) -> impl Future<Output = Option<OwnedSemaphorePermit>> + Send + use<> {
        let turns = self.0.clone();
        async move { turns.acquire_owned().await.ok() } // it is never closed
    }
}

/// A client's turn, from when it is told who leads until it is answered. Clones are the same turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    turn: Option<OwnedSemaphorePermit>,
    /// Whether the client was told who leads: what it read before is no answer.
    told: bool,
}

impl Turn {
    pub(crate) fn begin(&self, turn: Option<OwnedSemaphorePermit>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Held { turn, told: false };
    }

    /// It is over, if it has begun.
    pub(crate) fn end(&self) {
        self.begin(None);
    }

    /// This goes down to the client. An answer ends its turn.
    pub(crate) fn note(&self, down: &Down) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match down {
            Down::Leader(..) => held.told = true,
            Down::Event(..) | Down::Frame(..) if held.told && held.turn.is_some() && !asks_again(down) => {
                held.turn = None;
            }
            Down::Event(..) | Down::Frame(..) | Down::Redial(_) | Down::Close => {}
        }
    }
}

/// Whether the client is to say its hello once more, and longer: its turn goes on.
fn asks_again(down: &Down) -> bool {
    match down {
        Down::Event(_, event, _) => matches!(&**event, Event::Agent { event: AgentEvent::ListAll, .. }),
        Down::Frame(frame, _) => v1::AgentDownFrame::decode(frame.clone())
            .is_ok_and(|frame| matches!(frame.frame, Some(Frame::ListAll(_)))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use futures::FutureExt;
    use muster_model::Fence;

    #[test]
    fn a_turn_comes_when_one_before_it_ends() {
        let turns = Turns::default();
        let first: Vec<Turn> = (0..AT_ONCE).map(|_| Turn::default()).collect();
        first.iter().for_each(|turn| turn.begin(turns.next().now_or_never().unwrap()));
        let (mut second, mut third) = (Box::pin(turns.next()), Box::pin(turns.next()));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        let leader = Down::Leader(Fence::default(), Default::default());
        first[0].note(&Down::Frame(Default::default(), None));
        assert!((&mut second).now_or_never().is_none(), "that was said before");
        first[0].note(&leader);
        assert!((&mut second).now_or_never().is_none(), "that is the question, not the answer");
        let again = Event::Agent { session: Default::default(), event: AgentEvent::ListAll };
        let frame =
            muster_proto::agent_down_frame(Fence::default(), Default::default(), &AgentEvent::ListAll);
        first[0].note(&Down::Event(Fence::default(), Box::new(again), None));
        first[0].note(&Down::Frame(frame.encode_to_vec().into(), None));
        assert!((&mut second).now_or_never().is_none(), "its longer answer is still to come");
        first[0].note(&Down::Frame(Default::default(), None));
        assert!((&mut third).now_or_never().is_none(), "in their order");
        let held = (&mut second).now_or_never().unwrap();
        drop(held);
        let held = (&mut third).now_or_never().unwrap();
        first[0].begin(held);
        assert!(turns.next().now_or_never().is_none());
        drop(first);
        assert_eq!(turns.0.available_permits(), AT_ONCE, "a client that is gone has no turn");
    }
}
