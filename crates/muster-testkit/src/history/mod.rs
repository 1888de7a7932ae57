//! What a test asked, what it was told and what it broke, in one history for checkers: as JSON, and as Jepsen's tools
//! read it ([`edn`]).
//!
//! A client of the test is a [`Process`]: it does one thing at a time and says what became of it. Faults are recorded by
//! the cluster itself, when it was told of a recorder ([`TestCluster::record_faults`](crate::TestCluster::record_faults)).
//!
//! ```no_run
//! # async fn chaos() -> anyhow::Result<()> {
//! # use muster_testkit::{Plan, TestCluster};
//! use muster_testkit::history::Recorder;
//! let recorder = Recorder::create("target/my-run")?;
//! let cluster = TestCluster::start(Plan::default()).await?;
//! cluster.record_faults(&recorder);
//! let mut client = recorder.process();
//! cluster.kill("m1")?;
//! let asked = client.invoke("agents", ());
//! match cluster.agents().await {
//!     Ok(agents) => asked.ok(agents.len()),
//!     Err(why) => asked.fail(why),
//! }
//! recorder.end()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Laws
//! - Times are monotonic and ascend; each entry is in the files when the call that records it returns.
//! - A process whose operation came to [`Kind::Info`], which may be done at any time from then on, has another number
//!   for the next one.

pub mod edn;

use anyhow::Context;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a history's files are called, in the directory of a run.
const JSON: &str = "history.jsonl";
const EDN: &str = "history.edn";

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A process of the test.
    Client(u64),
    /// Whoever breaks things.
    Nemesis,
}

impl Serialize for Who {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Client(number) => to.serialize_u64(*number),
            Self::Nemesis => to.serialize_str("nemesis"),
        }
    }
}

/// Where an operation stands, by Jepsen's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Asked for.
    Invoke,
    /// Done.
    Ok,
    /// Not done, and never will be.
    Fail,
    /// Nobody knows; of the nemesis, something that it did.
    Info,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invoke => "invoke",
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Info => "info",
        })
    }
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its place.
    pub index: usize,
    /// Nanoseconds since the history began.
    pub time: u64,
    /// Who.
    pub process: Who,
    /// Where it stands.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What was to be done.
    pub f: String,
    /// With what, or to what effect.
    pub value: Value,
    /// Why it was not done, or is not known to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
}

impl Entry {
    /// As a line of EDN, without its end.
    pub fn edn(&self) -> String {
        let process = match self.process {
            Who::Client(number) => number.to_string(),
            Who::Nemesis => ":nemesis".into(),
        };
        let Self { index, time, kind, f, value, error, .. } = self;
        let (index, time, kind, process, error) = (*index, *time, *kind, &*process, error.as_ref());
        edn::Line { index, time, process, kind, f, value, error }.to_string()
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
    processes: u64,
    json: File,
    edn: File,
    /// Why a line is missing in the files.
    failed: Option<io::Error>,
}

impl Recorder {
    /// Begins `history.jsonl` and `history.edn` in this directory, which is made if need be.
    pub fn create(dir: impl AsRef<Path>) -> anyhow::Result<Self> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let file = |name: &str| {
            let path = dir.join(name);
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))
        };
        let (json, edn) = (file(JSON)?, file(EDN)?);
        let written = Written { entries: Vec::new(), processes: 0, json, edn, failed: None };
        Ok(Self(Arc::new(Inner { begun: Instant::now(), written: Mutex::new(written) })))
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new process.
    pub fn process(&self) -> Process {
        Process { recorder: self.clone(), number: self.number() }
    }

    /// A number that no process had.
    fn number(&self) -> u64 {
        let mut written = self.lock();
        written.processes += 1;
        written.processes - 1
    }

    /// A fault of the test's own begins; it ends when this is dropped. Those of a cluster record themselves.
    pub fn fault(&self, fault: &str, on: impl Serialize) -> Fault {
        let value = json!({"fault": fault, "on": to_value(on)});
        self.record(Who::Nemesis, Kind::Info, "fault-begins", value.clone(), None);
        Fault(Some((self.clone(), value)))
    }

    /// All that was recorded so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    /// Fails when something is not in the files. What is recorded afterwards still goes there.
    pub fn end(&self) -> anyhow::Result<()> {
        self.lock().failed.take().map_or(Ok(()), Err).context("the history is not complete")
    }

    fn record(&self, process: Who, kind: Kind, f: &str, value: Value, error: Option<Value>) {
        let mut written = self.lock();
        // Taken under the lock, so that the times ascend.
        let time = u64::try_from(self.0.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let index = written.entries.len();
        let entry = Entry { index, time, process, kind, f: f.into(), value, error };
        if let Err(error) = written.write(&entry) {
            written.failed.get_or_insert(error);
        }
        written.entries.push(entry);
    }
}

impl Written {
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_string(entry)?;
        line.push('\n');
        self.json.write_all(line.as_bytes())?;
        writeln!(self.edn, "{}", entry.edn())
    }
}

/// What cannot be written says why in its place.
fn to_value(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| Value::String(format!("cannot be written: {error}")))
}

/// A client of the test, which does one thing at a time.
#[derive(Debug)]
pub struct Process {
    recorder: Recorder,
    number: u64,
}

impl Process {
    /// Its number, which is another one after an operation that nobody knows the outcome of.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Something is asked for. Say what became of it: one that is dropped is not known to be done.
    pub fn invoke(&mut self, f: &str, value: impl Serialize) -> Operation<'_> {
        let value = to_value(value);
        self.recorder.record(Who::Client(self.number), Kind::Invoke, f, value.clone(), None);
        Operation { process: self, f: f.into(), asked: Some(value) }
    }
}

/// Something that was asked for.
#[derive(Debug)]
#[must_use = "nobody knows what became of it"]
pub struct Operation<'a> {
    process: &'a mut Process,
    f: String,
    /// With what; none once it is known what became of it.
    asked: Option<Value>,
}

impl Operation<'_> {
    /// It was done: with this, or this was read.
    pub fn ok(mut self, value: impl Serialize) {
        self.asked = None;
        self.is(Kind::Ok, to_value(value), None);
    }

    /// It was not done, and never will be.
    pub fn fail(mut self, why: impl Serialize) {
        let asked = self.asked.take().unwrap_or_default();
        self.is(Kind::Fail, asked, Some(to_value(why)));
    }

    /// It may have been done, or be done at any time from now on.
    pub fn info(mut self, why: impl Serialize) {
        self.is_unknown(to_value(why));
    }

    fn is(&self, kind: Kind, value: Value, error: Option<Value>) {
        self.process.recorder.record(Who::Client(self.process.number), kind, &self.f, value, error);
    }

    fn is_unknown(&mut self, why: Value) {
        if let Some(asked) = self.asked.take() {
            self.is(Kind::Info, asked, Some(why));
            self.process.number = self.process.recorder.number();
        }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.is_unknown("nobody waited for the outcome".into());
    }
}

/// A fault that is on, for the history. It is over when this is dropped.
#[derive(Debug, Default)]
#[must_use = "it is over at once"]
pub struct Fault(Option<(Recorder, Value)>);

impl Fault {
    /// It does not end.
    pub(crate) fn goes_on(mut self) {
        self.0 = None;
    }

    /// From now on it is this one.
    pub(crate) fn becomes(&mut self, other: Self) {
        *self = other;
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if let Some((recorder, value)) = self.0.take() {
            recorder.record(Who::Nemesis, Kind::Info, "fault-ends", value, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a recorder wrote, as EDN without the times.
    fn edn(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join(EDN)).unwrap();
        let without_time = |line: &str| {
            let (_, rest) = line.split_once(", :process ").unwrap();
            rest.trim_end_matches('}').to_owned()
        };
        text.lines().map(without_time).collect()
    }

    #[test]
    fn operations_are_written_as_jepsen_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(dir.path().join("run")).unwrap();
        let (mut one, mut other) = (recorder.process(), recorder.process());
        let write = one.invoke("write", 7);
        other.invoke("read", ()).ok(7);
        write.ok(7);
        let fault = recorder.fault("kill", ["m1"]);
        one.invoke("write", 8).fail("it is busy");
        drop(fault);
        recorder.end().unwrap();
        let expected = [
            "0, :type :invoke, :f :write, :value 7",
            "1, :type :invoke, :f :read, :value nil",
            "1, :type :ok, :f :read, :value 7",
            "0, :type :ok, :f :write, :value 7",
            r#":nemesis, :type :info, :f :fault-begins, :value {:fault "kill", :on ["m1"]"#,
            "0, :type :invoke, :f :write, :value 8",
            r#"0, :type :fail, :f :write, :value 8, :error "it is busy""#,
            r#":nemesis, :type :info, :f :fault-ends, :value {:fault "kill", :on ["m1"]"#,
        ];
        assert_eq!(edn(&dir.path().join("run")), expected);
        let text = std::fs::read_to_string(dir.path().join("run").join(JSON)).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            (lines.len(), &lines[4]["process"], &lines[0]["type"]),
            (8, &json!("nemesis"), &json!("invoke"))
        );
        let times: Vec<_> = recorder.entries().iter().map(|entry| entry.time).collect();
        assert!(times.is_sorted());
    }

    #[test]
    fn a_process_whose_operation_is_unknown_is_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(dir.path()).unwrap();
        let (mut one, mut other) = (recorder.process(), recorder.process());
        one.invoke("write", 1).info("no answer");
        other.invoke("write", 2).ok(2);
        // Whoever gives up does not know either.
        drop(one.invoke("write", 3));
        one.invoke("write", 4).ok(4);
        assert_eq!((one.number(), other.number()), (3, 1));
        let expected = [
            "0, :type :invoke, :f :write, :value 1",
            r#"0, :type :info, :f :write, :value 1, :error "no answer""#,
            "1, :type :invoke, :f :write, :value 2",
            "1, :type :ok, :f :write, :value 2",
            "2, :type :invoke, :f :write, :value 3",
            r#"2, :type :info, :f :write, :value 3, :error "nobody waited for the outcome""#,
            "3, :type :invoke, :f :write, :value 4",
            "3, :type :ok, :f :write, :value 4",
        ];
        assert_eq!(edn(dir.path()), expected);
    }
}
