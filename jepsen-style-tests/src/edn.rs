//! A history in Jepsen's own form, for its tools: one map for each line,
//! `{:index 0, :time 12000, :process 0, :type :invoke, :f :launch, :value {..}}`.
//!
//! Jepsen's processes are numbers, and do one thing at a time; our frameworks do many. So each launch that is open has a
//! process for itself, and one whose launch was decided takes the next. Whoever writes, reads or orders has a number of
//! its own. A process whose operation stayed unknown is never used again. What was merely seen has a name for a process.

use crate::history::{Entry, Event, Phase};
use muster_testkit::history::{Kind, edn};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The whole history. What the sampler saw of resources and of logs is left out.
pub fn write(history: &[Entry]) -> String {
    let mut text = String::new();
    let (mut processes, mut index) = (Processes::default(), 0);
    for entry in history {
        let Some(Operation { process, kind, f, value }) = operation(entry, &mut processes) else { continue };
        let (time, process, value) = (entry.at_us.saturating_mul(1000), &*process, &value);
        // A string takes whatever is written to it.
        let _ = writeln!(text, "{}", edn::Line { index, time, process, kind, f, value, error: None });
        index += 1;
    }
    text
}

struct Operation {
    process: String,
    kind: Kind,
    f: &'static str,
    value: Value,
}

/// Who does what.
#[derive(Default)]
struct Processes {
    /// By what is done: a launch's task, or whoever does one thing at a time.
    open: BTreeMap<String, u64>,
    /// Of launches that were decided.
    free: BTreeSet<u64>,
    /// Of those who do one thing at a time, between two operations.
    own: BTreeMap<String, u64>,
    next: u64,
}

impl Processes {
    fn another(next: &mut u64) -> u64 {
        *next += 1;
        *next - 1
    }

    /// The process of a launch; none when it is decided that was not asked for, or was given up.
    fn launch(&mut self, task: &str, phase: Phase) -> Option<u64> {
        if phase == Phase::Invoked {
            let process = self.free.pop_first().unwrap_or_else(|| Self::another(&mut self.next));
            self.open.insert(task.into(), process);
            return Some(process);
        }
        let process = self.open.remove(task)?;
        if phase != Phase::Unknown {
            self.free.insert(process);
        }
        Some(process)
    }

    /// The process of somebody who does one thing at a time; none as above.
    fn own(&mut self, name: &str, phase: Phase) -> Option<u64> {
        if phase == Phase::Invoked {
            let process = self.own.remove(name).unwrap_or_else(|| Self::another(&mut self.next));
            // One that it had not done with stays open, and its process with it.
            self.open.insert(name.into(), process);
            return Some(process);
        }
        let process = self.open.remove(name)?;
        if phase != Phase::Unknown {
            self.own.insert(name.into(), process);
        }
        Some(process)
    }
}

fn operation(entry: &Entry, processes: &mut Processes) -> Option<Operation> {
    let who = &*entry.process;
    let of = |process: Option<u64>, phase: Phase, f, value| {
        // What nobody asked for was seen.
        let kind = if process.is_some() { phase.jepsen() } else { Kind::Info };
        let process = process.map_or_else(|| edn::keyword(who), |process| process.to_string());
        Operation { process, kind, f, value }
    };
    let info = |f, value| of(None, Phase::Unknown, f, value);
    Some(match &entry.event {
        Event::Launch { phase, task, agent, needs } => {
            let mut value = json!({"task": task, "framework": who});
            if *phase == Phase::Invoked {
                value["agent"] = json!(agent);
                value["needs-milli"] = json!(needs);
            }
            of(processes.launch(task, *phase), *phase, "launch", value)
        }
        Event::Write { phase, value } => of(processes.own(who, *phase), *phase, "write", json!(value)),
        Event::Read { phase, value } => of(processes.own(who, *phase), *phase, "read", json!(value)),
        Event::Operate { phase, target, .. } => {
            of(processes.own(who, *phase), *phase, "teardown", json!(target))
        }
        Event::Look { phase, target, there } => {
            of(processes.own(who, *phase), *phase, "look", json!([target, there]))
        }
        Event::Asks { tasks } => info("reconcile", json!(tasks)),
        Event::Keeps { slots } => info("keeps", json!(slots)),
        Event::Census { alive, listed } => {
            let listed: Vec<_> = listed.iter().map(|one| &one.task).collect();
            info("census", json!({"alive": alive, "listed": listed}))
        }
        Event::Kill { task } => info("kill-task", json!({"task": task})),
        Event::Update { task, state, terminal, durable, reason } => {
            let mut value = json!({"task": task, "state": state, "terminal": terminal, "durable": durable});
            value["reason"] = json!(reason);
            info("update", value)
        }
        Event::Registered { framework_id } => info("registered", json!({"framework-id": framework_id})),
        Event::Reregistered => info("reregistered", Value::Null),
        Event::Disconnected => info("disconnected", Value::Null),
        Event::Error { message } => info("error", json!(message)),
        Event::Nemesis { fault, target, begins, bit } => {
            let f = if *begins { "fault-begins" } else { "fault-ends" };
            info(f, json!({"fault": fault, "target": target, "bit": bit}))
        }
        Event::Said { fault, member, line } => {
            info("said", json!({"fault": fault, "member": member, "line": line}))
        }
        Event::Leads { leader, term } => info("leads", json!({"leader": leader, "term": term})),
        Event::AgentId { agent, agent_id } => info("agent-id", json!({"agent": agent, "agent-id": agent_id})),
        Event::Agents { .. } | Event::Logs { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::samples::{entry, good, launch};

    #[test]
    fn a_process_does_one_thing_at_a_time() {
        let text = write(&good().0);
        let lines: Vec<_> = text.lines().filter(|line| line.contains(":f :launch,")).collect();
        let short: Vec<_> = lines
            .iter()
            .map(|line| {
                let (_, rest) = line.split_once(":process ").unwrap();
                let (head, _) = rest.split_once(", :f").unwrap();
                let (_, task) = line.split_once(":task ").unwrap();
                format!("{head} {}", &task[..4])
            })
            .collect();
        let expected = [
            "0, :type :invoke \"t1\"",
            "0, :type :ok \"t1\"",
            "0, :type :invoke \"t2\"",
            "1, :type :invoke \"t3\"",
            "1, :type :fail \"t3\"",
            "0, :type :ok \"t2\"",
        ];
        assert_eq!(short, expected);
        assert!(text.starts_with(
            "{:index 0, :time 0, :process :f1, :type :info, :f :registered, :value {:framework-id \"x-0001\"}}\n"
        ));
        assert!(text.contains(":process :nemesis, :type :info, :f :fault-begins"));
    }

    #[test]
    fn a_process_whose_launch_is_unknown_is_not_used_again() {
        let history = [
            launch("t1", Phase::Invoked),
            launch("t1", Phase::Unknown),
            launch("t2", Phase::Invoked),
            launch("t2", Phase::Ok),
            // Too late: it was given up.
            launch("t1", Phase::Ok),
        ];
        let text = write(&history);
        assert!(text.contains(":process 0, :type :info, :f :launch"));
        assert!(text.contains(":process 1, :type :invoke, :f :launch"));
        assert!(text.contains(":process :f1, :type :info, :f :launch"));
    }

    #[test]
    fn whoever_reads_or_writes_has_a_number_until_an_outcome_is_unknown() {
        let writes = |who: &str, phase| entry(who, Event::Write { phase, value: 7 });
        let history = [
            writes("register-w0", Phase::Invoked),
            writes("register-w1", Phase::Invoked),
            writes("register-w0", Phase::Unknown),
            writes("register-w1", Phase::Ok),
            launch("t1", Phase::Invoked),
            writes("register-w0", Phase::Invoked),
            writes("register-w1", Phase::Invoked),
            writes("register-w1", Phase::Refused),
            writes("register-w0", Phase::Ok),
        ];
        let text = write(&history);
        let short: Vec<_> = text
            .lines()
            .map(|line| {
                let (_, rest) = line.split_once(":process ").unwrap();
                rest.split_once(", :f").unwrap().0.replace(", :type :", " ")
            })
            .collect();
        let expected =
            ["0 invoke", "1 invoke", "0 info", "1 ok", "2 invoke", "3 invoke", "1 invoke", "1 fail", "3 ok"];
        assert_eq!(short, expected);
    }

    #[test]
    fn text_is_quoted() {
        let message = "a \"b\" \\ c\nd\u{1}".to_owned();
        let text = write(&[entry("f 1", Event::Error { message })]);
        assert!(
            text.contains(r#":process :f_1"#) && text.contains(r#":value "a \"b\" \\ c\nd\u0001""#),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }
}
