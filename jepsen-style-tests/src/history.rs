//! What happened, in the order in which it was seen.

use anyhow::Context;
use muster_testkit::history::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Microseconds since the run began, monotonic.
    pub at_us: u64,
    /// Who saw it: a framework's name, `nemesis` or `sampler`.
    pub process: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A framework is subscribed for the first time under this id.
    Registered {
        /// The id.
        framework_id: String,
        /// When the scheduler that is registered was started; none if that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        begun_us: Option<u64>,
    },
    /// Subscribed again.
    Reregistered,
    /// The connection to the leader is lost.
    Disconnected,
    /// The masters want no more of the framework.
    Error {
        /// Why.
        message: String,
    },
    /// A launch and its outcome.
    Launch {
        /// Where it stands.
        phase: Phase,
        /// The task.
        task: String,
        /// The agent it was meant for, by host name; only where it is invoked.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        agent: String,
        /// What it needs, in thousandths; only where it is invoked.
        #[serde(default, skip_serializing_if = "Amounts::is_empty")]
        needs: Amounts,
    },
    /// An offer is used: its ACCEPT is about to be said, for the first time, with the launches asked for right before.
    Accepts {
        /// Its id.
        offer: String,
        /// Its agent, by host name.
        agent: String,
        /// What it holds, in thousandths.
        holds: Amounts,
        /// When the framework had been told of it.
        since_us: u64,
    },
    /// A master answered a call of a framework: it is done, which is to say committed and applied.
    Answered {
        /// Which, `accept`.
        call: String,
        /// The task that it was about.
        task: String,
        /// Of an ACCEPT the number of the launch, of an ACKNOWLEDGE the update.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        which: String,
        /// The leader that the framework spoke to.
        by: String,
    },
    /// A kill was asked for. Its outcome is the task's.
    Kill {
        /// The task.
        task: String,
    },
    /// A status update, as the framework was told it.
    Update {
        /// The task.
        task: String,
        /// Its state, `TASK_RUNNING`.
        state: String,
        /// Whether the state is final.
        terminal: bool,
        /// Whether it waits for an acknowledgement, which updates of launched tasks do.
        durable: bool,
        /// Why.
        reason: String,
        /// What it is acknowledged by, in hexadecimal digits; in histories that have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uuid: Option<String>,
    },
    /// A framework asks what became of these tasks, or of all when none is named (RECONCILE). The answers are updates.
    Asks {
        /// The tasks.
        tasks: Vec<String>,
    },
    /// A framework is a set of so many slots, each with one task that is to run on.
    Keeps {
        /// How many.
        slots: u32,
    },
    /// What there is of a set's tasks, when all of it is to run.
    Census {
        /// Those that have a process.
        alive: Vec<String>,
        /// Those that the leader lists.
        listed: Vec<Listed>,
    },
    /// A write of the register.
    Write {
        /// Where it stands.
        phase: Phase,
        /// What is written; each value once.
        value: u64,
    },
    /// A read of the register by one master, which claims to be current. Refused by one that does not lead.
    Read {
        /// Where it stands.
        phase: Phase,
        /// What was read; where it is done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
    },
    /// An operator's call, of one master.
    Operate {
        /// Where it stands.
        phase: Phase,
        /// Which, `teardown`.
        call: String,
        /// The framework that it is about.
        framework: String,
        /// Its id.
        target: String,
        /// Refused because it was done before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        already: bool,
    },
    /// An operator asks one master whether a framework is there, which claims to be current. Refused by one that does
    /// not lead.
    Look {
        /// Where it stands.
        phase: Phase,
        /// The framework's id.
        target: String,
        /// Whether it is; where it is done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        there: Option<bool>,
    },
    /// A master that was deposed, or stood still, is asked at once for what only a leader may do: to tear down a framework
    /// that nobody knows. Done where it answers what the log would have said.
    Probe {
        /// Where it stands.
        phase: Phase,
        /// The master.
        master: String,
        /// The framework's id, which is asked for only here.
        target: String,
    },
    /// A fault begins or ends.
    Nemesis {
        /// Which.
        fault: String,
        /// Against whom.
        target: String,
        /// Whether it begins.
        begins: bool,
        /// What shows that it bit; where it ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bit: Option<String>,
    },
    /// What a member's log called an error while a fault was on it.
    Said {
        /// The fault.
        fault: String,
        /// The member.
        member: String,
        /// The line.
        line: String,
    },
    /// A master says that it leads; once for each term.
    Leads {
        /// The master.
        leader: String,
        /// The term.
        term: u64,
    },
    /// The leader shows an agent for the first time, or under another id than before.
    AgentId {
        /// The agent, by host name.
        agent: String,
        /// Its id.
        agent_id: String,
    },
    /// A master serves, which means that it answers reads that claim to be current: whenever that changes. Or nobody does:
    /// at each look.
    Serves {
        /// The master.
        leader: Option<String>,
    },
    /// A round of faults is over: a leader serves, every agent is registered, every framework is subscribed.
    Back {
        /// How long that took after the round, in ms.
        after_ms: u64,
    },
    /// What the leader says the agents have and use.
    Agents {
        /// By host name.
        agents: BTreeMap<String, Usage>,
    },
    /// What the masters that answer say of their logs.
    Logs {
        /// By name.
        masters: BTreeMap<String, Held>,
    },
}

/// How far a master's log reaches, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The number of its disk, which a new one does not have.
    pub disk: u64,
    /// Whether it leads, follows or is a candidate.
    pub takes_part: bool,
    /// The last entry of its log.
    pub last: u64,
    /// The last one that it applied.
    pub applied: u64,
    /// The hash of its registry there, as a log shows it.
    pub state_hash: String,
}

/// A task as the leader lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The task.
    pub task: String,
    /// Its state, `TASK_RUNNING`.
    pub state: String,
    /// Its agent, by host name.
    pub agent: String,
    /// That agent's state, `registered`.
    pub agent_state: String,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Asked for.
    Invoked,
    /// Done: the framework was told so.
    Ok,
    /// Not done, and never will be: the framework was told so.
    Refused,
    /// Nobody told.
    Unknown,
}

impl Phase {
    /// The word that Jepsen has for it.
    pub fn jepsen(self) -> Kind {
        match self {
            Self::Invoked => Kind::Invoke,
            Self::Ok => Kind::Ok,
            Self::Refused => Kind::Fail,
            Self::Unknown => Kind::Info,
        }
    }
}

/// Amounts by kind, in thousandths.
pub type Amounts = BTreeMap<String, u64>;

/// What an agent has and what is used of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// What it has.
    pub total: Amounts,
    /// What is used.
    pub used: Amounts,
}

impl Usage {
    /// The kinds of which more is used than there is.
    pub fn over(&self) -> Vec<&str> {
        let have = |kind: &String| self.total.get(kind).copied().unwrap_or_default();
        self.used.iter().filter(|(kind, used)| **used > have(kind)).map(|(kind, _)| &**kind).collect()
    }
}

/// Writes a history; clones write the same one.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    begun: Instant,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    entries: Vec<Entry>,
    file: File,
}

impl Recorder {
    /// A new history, in memory and, line by line, in this file.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let written = Mutex::new(Written { entries: Vec::new(), file });
        Ok(Self(Arc::new(Inner { begun: Instant::now(), written })))
    }

    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.0.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Appends.
    pub fn record(&self, process: &str, event: Event) {
        let mut written = self.0.written.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken under the lock, so that the times ascend.
        let at_us = self.now_us();
        let entry = Entry { at_us, process: process.into(), event };
        let mut line = serde_json::to_string(&entry).unwrap_or_default();
        line.push('\n');
        // The file is for people; what is checked is in memory.
        let _ = written.file.write_all(line.as_bytes());
        written.entries.push(entry);
    }

    /// All that was recorded so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.since(0)
    }

    /// How much was recorded so far.
    pub fn len(&self) -> usize {
        self.0.written.lock().unwrap_or_else(PoisonError::into_inner).entries.len()
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was recorded when it was so long, and later.
    pub fn since(&self, from: usize) -> Vec<Entry> {
        let written = self.0.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.entries.get(from..).unwrap_or_default().to_vec()
    }
}

/// Reads a history that a run wrote.
pub fn read(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = |(i, line)| {
        serde_json::from_str(line).with_context(|| format!("{}:{}: no history entry", path.display(), i + 1))
    };
    text.lines().enumerate().map(line).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("muster-history-{}.jsonl", std::process::id()));
        let recorder = Recorder::create(&path).unwrap();
        recorder.record("f1", Event::Registered { framework_id: "x-0001".into(), begun_us: Some(7) });
        recorder.record(
            "f1",
            Event::Launch {
                phase: Phase::Invoked,
                task: "f1-1".into(),
                agent: "a1".into(),
                needs: [("cpus".into(), 100)].into(),
            },
        );
        recorder.record(
            "nemesis",
            Event::Nemesis {
                fault: "kill".into(),
                target: "m1".into(),
                begins: false,
                bit: Some("yes".into()),
            },
        );
        let read = read(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), recorder.entries());
    }

    #[test]
    fn what_former_runs_did_not_write_is_not_known() {
        let line = r#"{"at_us":1,"process":"f1","event":"update","task":"f1-1","state":"TASK_RUNNING","terminal":false,
            "durable":true,"reason":""}"#;
        let entry: Entry = serde_json::from_str(line).unwrap();
        assert!(matches!(entry.event, Event::Update { uuid: None, .. }), "{entry:?}");
        let line = r#"{"at_us":1,"process":"f1","event":"registered","framework_id":"x-0001"}"#;
        let entry: Entry = serde_json::from_str(line).unwrap();
        assert!(matches!(entry.event, Event::Registered { begun_us: None, .. }), "{entry:?}");
    }
}
