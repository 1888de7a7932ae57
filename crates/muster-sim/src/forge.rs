//! What was said before, to be said again: by a deposed leader, over an old stream, or simply twice.

use crate::{
    dice::Dice,
    world::{Client, DownFrame},
};
use muster_model::{AgentCall, AgentEvent, Call, Event, Fence, SchedulerCall, SchedulerEvent, Session};
use std::{collections::VecDeque, sync::Arc};

/// Frames remembered each way.
const REMEMBERED: usize = 512;

/// A frame that went down.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) client: Client,
    pub(crate) stream: u64,
    pub(crate) fence: Fence,
    pub(crate) frame: DownFrame,
}

/// A call that went up.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) client: Client,
    pub(crate) stream: u64,
    pub(crate) reign: u64,
    pub(crate) call: Arc<Call>,
}

/// The newest frames each way.
#[derive(Debug, Default)]
pub(crate) struct History {
    heard: VecDeque<Heard>,
    said: VecDeque<Said>,
}

/// What a client holds for true at present.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present {
    pub(crate) client: Client,
    pub(crate) stream: u64,
    pub(crate) fence: Fence,
    /// An agent's session, once it was welcomed.
    pub(crate) session: Session,
}

impl History {
    pub(crate) fn heard(&mut self, client: Client, stream: u64, fence: Fence, frame: &DownFrame) {
        if self.heard.len() == REMEMBERED {
            self.heard.pop_front();
        }
        self.heard.push_back(Heard { client, stream, fence, frame: frame.clone() });
    }

    pub(crate) fn said(&mut self, client: Client, stream: u64, reign: u64, call: &Arc<Call>) {
        if self.said.len() == REMEMBERED {
            self.said.pop_front();
        }
        self.said.push_back(Said { client, stream, reign, call: call.clone() });
    }

    /// A frame that a client must drop: of an older fence than it knows, of an older session, or on a stream
    /// it gave up. As malicious as the rules allow: what is not what it must be dropped for is as at present.
    pub(crate) fn stale(&self, dice: &mut Dice, now: Present) -> Option<Heard> {
        let mine = self.heard.iter().filter(|it| it.client == now.client);
        let older: Vec<&Heard> = mine.clone().filter(|it| it.fence < now.fence).collect();
        let elsewhere: Vec<&Heard> = mine.clone().filter(|it| it.stream < now.stream).collect();
        let sessions: Vec<&Heard> =
            mine.filter(|it| it.frame.session().is_some_and(|it| it < now.session)).collect();
        let (old, stream, fence, session) = match dice.between(0, 3) {
            0 => (dice.one_of(&older)?, now.stream, None, Some(now.session)),
            1 => (dice.one_of(&elsewhere)?, 0, Some(now.fence), Some(now.session)),
            _ => (dice.one_of(&sessions)?, now.stream, Some(now.fence), None),
        };
        Some(Heard {
            client: now.client,
            stream: if stream == 0 { old.stream } else { stream },
            fence: fence.unwrap_or(old.fence),
            frame: session.map_or(old.frame.clone(), |session| old.frame.with_session(session)),
        })
    }

    /// A frame that a client had in its present session and must not be hurt by when it comes again.
    pub(crate) fn again(&self, dice: &mut Dice, now: Present) -> Option<Heard> {
        let present =
            |it: &&Heard| it.client == now.client && it.stream == now.stream && it.fence == now.fence;
        let may_repeat = |it: &&Heard| match &it.frame {
            DownFrame::Leader => false,
            DownFrame::Event(event) => match &**event {
                Event::Agent { session, event } => {
                    *session == now.session
                        && matches!(
                            event,
                            AgentEvent::Run(_)
                                | AgentEvent::Kill { .. }
                                | AgentEvent::Confirm { .. }
                                | AgentEvent::Ping(_)
                        )
                }
                // Updates are repeated by the masters themselves, and only the newest of a task.
                Event::Scheduler(event) => matches!(
                    event,
                    SchedulerEvent::Offers(_)
                        | SchedulerEvent::Rescind(_)
                        | SchedulerEvent::Outcome { .. }
                        | SchedulerEvent::Subscribed { .. }
                        | SchedulerEvent::Heartbeat
                ),
            },
        };
        let all: Vec<&Heard> = self.heard.iter().filter(present).filter(may_repeat).collect();
        dice.one_of(&all).cloned()
    }

    /// A call that the leader must drop: of an older session of an agent, or on a stream that is over. What began a
    /// session there comes only if it was meant for this leader; another one is known by that.
    pub(crate) fn late(&self, dice: &mut Dice, now: Present, reign: u64) -> Option<Said> {
        if dice.percent(30) {
            let is_before =
                |it: &&Said| it.client == now.client && it.stream < now.stream && it.reign == reign;
            let begins = self.said.iter().filter(is_before).filter(|it| it.call.begins_a_session());
            return dice.one_of(&begins.collect::<Vec<_>>()).cloned();
        }
        let mine = self.said.iter().filter(|it| it.client == now.client && !it.call.begins_a_session());
        let sessions: Vec<&Said> = mine.clone().filter(|it| it.call.session() < Some(now.session)).collect();
        let elsewhere: Vec<&Said> = mine.filter(|it| it.stream < now.stream).collect();
        let of_agent = matches!(now.client, Client::Agent(_));
        if of_agent && dice.percent(50) {
            return dice.one_of(&sessions).map(|it| Said { stream: now.stream, reign, ..it.clone() });
        }
        dice.one_of(&elsewhere).map(|it| Said { reign, ..it.clone() })
    }

    /// A call of the present stream that the leader gets again. What an agent says of its executors is how they stand: on
    /// a stream, which is in order, an older word of that never comes after a newer one.
    pub(crate) fn twice(&self, dice: &mut Dice, now: Present, reign: u64) -> Option<Said> {
        let present = |it: &&Said| it.client == now.client && it.stream == now.stream && it.reign == reign;
        let may_repeat = |it: &&Said| !it.call.begins_a_session() && !it.call.tells_how_executors_stand();
        let all: Vec<&Said> = self.said.iter().filter(present).filter(may_repeat).collect();
        dice.one_of(&all).cloned()
    }
}

impl DownFrame {
    fn session(&self) -> Option<Session> {
        match self {
            Self::Leader => None,
            Self::Event(event) => match &**event {
                Event::Agent { session, .. } => Some(*session),
                Event::Scheduler(_) => None,
            },
        }
    }

    fn with_session(&self, session: Session) -> Self {
        match self {
            Self::Event(event) => match &**event {
                Event::Agent { event, .. } => {
                    Self::Event(Arc::new(Event::Agent { session, event: event.clone() }))
                }
                Event::Scheduler(_) => self.clone(),
            },
            Self::Leader => self.clone(),
        }
    }
}

/// What matters of a call here.
pub(crate) trait Spoken {
    fn begins_a_session(&self) -> bool;
    fn tells_how_executors_stand(&self) -> bool;
    fn session(&self) -> Option<Session>;
}

impl Spoken for Call {
    /// A stream is in order: what begins its session does not come again after what follows.
    fn begins_a_session(&self) -> bool {
        match self {
            Call::Agent { call, .. } => matches!(call, AgentCall::Hello(..) | AgentCall::HelloAsKnown(..)),
            Call::Scheduler { call, .. } => matches!(call, SchedulerCall::Subscribe { .. }),
            Call::Resume { .. } => false,
        }
    }

    fn tells_how_executors_stand(&self) -> bool {
        matches!(self, Call::Agent { call: AgentCall::Executors { .. }, .. })
    }

    fn session(&self) -> Option<Session> {
        match self {
            Call::Agent { session, .. } => Some(*session),
            Call::Scheduler { .. } | Call::Resume { .. } => None,
        }
    }
}
