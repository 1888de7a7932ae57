//! A history in Jepsen's own form, for its tools: one map for each line,
//! `{:index 0, :time 12000, :process 0, :type :invoke, :f :launch, :value {..}}`.
//!
//! Jepsen's processes do one thing at a time, our frameworks do many. So each launch that is open has a
//! process for itself; one whose launch was decided takes the next, one whose launch stayed unknown is never
//! used again.

use crate::history::{Amounts, Entry, Event, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The whole history. What the sampler saw of resources is left out.
pub fn write(history: &[Entry]) -> String {
    let mut text = String::new();
    let (mut processes, mut index) = (Processes::default(), 0);
    for entry in history {
        let Some(op) = operation(entry, &mut processes) else { continue };
        let time = entry.at_us.saturating_mul(1000);
        let Operation { process, kind, f, value } = op;
        // A string takes whatever is written to it.
        let _ = writeln!(
            text,
            "{{:index {index}, :time {time}, :process {process}, :type :{kind}, :f :{f}, :value {value}}}"
        );
        index += 1;
    }
    text
}

struct Operation {
    process: String,
    kind: &'static str,
    f: &'static str,
    value: String,
}

/// Who does which launch.
#[derive(Default)]
struct Processes {
    open: BTreeMap<String, u64>,
    free: BTreeSet<u64>,
    next: u64,
}

impl Processes {
    fn invoke(&mut self, task: &str) -> u64 {
        let process = self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.open.insert(task.into(), process);
        process
    }

    fn done(&mut self, task: &str, known: bool) -> Option<u64> {
        let process = self.open.remove(task)?;
        if known {
            self.free.insert(process);
        }
        Some(process)
    }
}

fn operation(entry: &Entry, processes: &mut Processes) -> Option<Operation> {
    let info = |f, value| Operation { process: keyword(&entry.process), kind: "info", f, value };
    let framework = string(&entry.process);
    Some(match &entry.event {
        Event::Launch { phase, task, agent, needs } => {
            let process = match phase {
                Phase::Invoked => Some(processes.invoke(task)),
                Phase::Ok | Phase::Refused => processes.done(task, true),
                Phase::Unknown => processes.done(task, false),
            };
            let kind = phase.jepsen();
            let mut value = format!("{{:task {}, :framework {framework}", string(task));
            if *phase == Phase::Invoked {
                let _ = write!(value, ", :agent {}, :needs-milli {}", string(agent), milli(needs));
            }
            value.push('}');
            let process = process.map_or_else(|| keyword(&entry.process), |process| process.to_string());
            Operation { process, kind, f: "launch", value }
        }
        Event::Write { phase, value } => Operation {
            process: keyword(&entry.process),
            kind: phase.jepsen(),
            f: "write",
            value: value.to_string(),
        },
        Event::Read { phase, value } => Operation {
            process: keyword(&entry.process),
            kind: phase.jepsen(),
            f: "read",
            value: value.map_or_else(|| "nil".into(), |value| value.to_string()),
        },
        Event::Operate { phase, target, .. } => Operation {
            process: keyword(&entry.process),
            kind: phase.jepsen(),
            f: "teardown",
            value: string(target),
        },
        Event::Look { phase, target, there } => Operation {
            process: keyword(&entry.process),
            kind: phase.jepsen(),
            f: "look",
            value: format!(
                "[{} {}]",
                string(target),
                there.map_or_else(|| "nil".into(), |there| there.to_string())
            ),
        },
        Event::Asks { tasks } => info("reconcile", format!("[{}]", strings(tasks))),
        Event::Keeps { slots } => info("keeps", slots.to_string()),
        Event::Census { alive, listed } => {
            let listed: Vec<_> = listed.iter().map(|one| one.task.clone()).collect();
            info("census", format!("{{:alive [{}], :listed [{}]}}", strings(alive), strings(&listed)))
        }
        Event::Kill { task } => info("kill-task", format!("{{:task {}}}", string(task))),
        Event::Update { task, state, terminal, durable, reason, uuid } => info(
            "update",
            format!(
                "{{:task {}, :state {}, :terminal {terminal}, :durable {durable}, :reason {}, :uuid {}}}",
                string(task),
                string(state),
                string(reason),
                uuid.as_deref().map_or_else(|| "nil".into(), string)
            ),
        ),
        Event::Accepts { offer, agent, holds, since_us } => info(
            "accept",
            format!(
                "{{:offer {}, :agent {}, :holds-milli {}, :since {}}}",
                string(offer),
                string(agent),
                milli(holds),
                since_us.saturating_mul(1000)
            ),
        ),
        Event::Answered { call, task, which, by } => {
            let value = [("call", call), ("task", task), ("which", which), ("by", by)];
            info("answered", format!("{{{}}}", strings_by_key(&value)))
        }
        Event::Probe { phase, master, target } => Operation {
            process: keyword(&entry.process),
            kind: phase.jepsen(),
            f: "probe",
            value: format!("[{} {}]", string(master), string(target)),
        },
        Event::Registered { framework_id, .. } => {
            info("registered", format!("{{:framework-id {}}}", string(framework_id)))
        }
        Event::Reregistered => info("reregistered", "nil".into()),
        Event::Disconnected => info("disconnected", "nil".into()),
        Event::Error { message } => info("error", string(message)),
        Event::Nemesis { fault, target, begins, bit } => {
            let f = if *begins { "fault-begins" } else { "fault-ends" };
            let bit = bit.as_deref().map_or_else(|| "nil".into(), string);
            info(f, format!("{{:fault {}, :target {}, :bit {bit}}}", string(fault), string(target)))
        }
        Event::Said { fault, member, line } => {
            let value = [("fault", fault), ("member", member), ("line", line)];
            info("said", format!("{{{}}}", strings_by_key(&value)))
        }
        Event::Leads { leader, term } => {
            info("leads", format!("{{:leader {}, :term {term}}}", string(leader)))
        }
        Event::AgentId { agent, agent_id } => {
            info("agent-id", format!("{{:agent {}, :agent-id {}}}", string(agent), string(agent_id)))
        }
        Event::Agents { .. } => return None,
    })
}

/// A name as a keyword; what may not stand in one is replaced.
fn keyword(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    format!(":{}", name.chars().map(allowed).collect::<String>())
}

/// Amounts as a map.
fn milli(amounts: &Amounts) -> String {
    let amounts = amounts.iter().map(|(kind, milli)| format!("{} {milli}", string(kind)));
    format!("{{{}}}", amounts.collect::<Vec<_>>().join(", "))
}

/// What stands in a map from keywords to texts.
fn strings_by_key(texts: &[(&str, &String)]) -> String {
    let texts = texts.iter().map(|(key, text)| format!(":{key} {}", string(text)));
    texts.collect::<Vec<_>>().join(", ")
}

fn strings(texts: &[String]) -> String {
    texts.iter().map(|text| string(text)).collect::<Vec<_>>().join(" ")
}

fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => _ = write!(quoted, "\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
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
        ];
        let text = write(&history);
        assert!(text.contains(":process 0, :type :info, :f :launch"));
        assert!(text.contains(":process 1, :type :invoke, :f :launch"));
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
