//! The language of the scenario files: a shell of one thread around the real leader, registry and shards.
//!
//! `lead` · `lead keeps` (the former leader's last proposals commit) · `lead held` (its `BeginTerm` does not yet) ·
//! `lead in-flight=N` (calls that may wait for the log) · `lead agent-timeout=MS` · `resign` · `hold` (nothing commits) · `commit` · `at MS` · `show` · `operator gone A1` · `operator teardown F1` ·
//! `operator drain|drain-gone|deactivate|reactivate|down|up A1` · `operator weigh|limit ROLE` · `operator schedule A1@100,A2@200|none` ·
//! `operator convert A1 reserve=cpus(web!):1` ·
//! `F1 subscribe|accept|decline|suppress|revive|kill|ack|reconcile|request|message|teardown|closes` ·
//! `A1 hello|accepted|running|finished|killed|closes|mute|says`. Agents answer pings unless they are mute.
//! `brief` means that its tasks are not listed, `new` without the id that it has by now, `anew` on a stream of its own, `stream=N` on an older one.
//! Ticks, pings and heartbeats are not shown, confirmations to agents only by `confirmed A1`.

mod calls;
#[path = "../../../muster-registry/tests/script/resources.rs"]
mod resources;
mod words;

use muster_allocator::{Policy, Shard, ShardId, View};
use muster_leader::{Committed, Config, ConnId, Effect, Input, Leader, OperatorCall};
use muster_model::*;
use muster_registry::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};
use words::{Words, conversion, shown_command, shown_event};

pub(crate) struct Script {
    registry: Registry,
    leader: Option<Leader>,
    shards: Vec<Shard>,
    term: u64,
    index: u64,
    tickets: u64,
    now: u64,
    holding: bool,
    proposed: Vec<Command>,
    calls: u64,
    streams: u64,
    /// The newest stream of each client.
    stream_of: BTreeMap<String, ConnId>,
    /// Whose each stream is.
    clients: BTreeMap<ConnId, String>,
    frameworks: BTreeMap<String, FrameworkId>,
    agents: BTreeMap<String, (AgentId, Session)>,
    launches: BTreeMap<String, LaunchNumber>,
    mute: BTreeSet<String>,
    /// Up to which update each agent was confirmed its launches since somebody asked.
    confirmed: BTreeMap<String, BTreeMap<LaunchNumber, u32>>,
    out: String,
}

/// Runs a scenario: keeps its comments and inputs, writes what follows below each input.
pub(crate) fn run(text: &str) -> String {
    let mut script = Script {
        registry: Registry::new(ClusterId::new("c"), 1),
        leader: None,
        shards: Vec::new(),
        term: 0,
        index: 0,
        tickets: 0,
        now: 0,
        holding: false,
        proposed: Vec::new(),
        calls: 0,
        streams: 0,
        stream_of: BTreeMap::new(),
        clients: BTreeMap::new(),
        frameworks: BTreeMap::new(),
        agents: BTreeMap::new(),
        launches: BTreeMap::new(),
        mute: BTreeSet::new(),
        confirmed: BTreeMap::new(),
        out: String::new(),
    };
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        script.say(line);
        if !line.is_empty() && !line.starts_with('#') {
            script.line(line);
            script.registry.check_laws().unwrap_or_else(|law| panic!("{line}: {law}"));
            script.check_offers(line);
        }
    }
    script.out
}

impl Script {
    fn say(&mut self, line: &str) {
        writeln!(self.out, "{line}").unwrap();
    }

    fn line(&mut self, line: &str) {
        let words = Words::of(line);
        match words.0.as_slice() {
            ["lead", ..] => self.lead(&words),
            ["resign"] => self.resign(),
            ["hold"] => self.holding = true,
            ["commit"] => {
                self.holding = false;
                self.settle();
            }
            ["at", ms] => self.pass_time(ms.parse().unwrap()),
            ["show"] => self.show(),
            ["confirmed", agent] => {
                for (launch, seq) in self.confirmed.remove(*agent).unwrap_or_default() {
                    self.say(&format!("  {agent} <- confirmed up to update {seq} of {launch}"));
                }
            }
            ["operator", "convert", whom, how] => {
                let conversion = conversion(how).unwrap();
                let call = OperatorCall::Convert(self.agents[*whom].0.clone(), conversion);
                self.step(Input::Operator { id: 1, call });
            }
            ["operator", what, whom] => {
                let call = match *what {
                    "gone" => OperatorCall::MarkGone(self.agents[*whom].0.clone()),
                    "teardown" => OperatorCall::Teardown(self.frameworks[*whom].clone()),
                    "deactivate" => OperatorCall::Deactivate(self.agents[*whom].0.clone()),
                    "reactivate" => OperatorCall::Reactivate(self.agents[*whom].0.clone()),
                    "drain" | "drain-gone" => OperatorCall::Drain {
                        agent_id: self.agents[*whom].0.clone(),
                        max_grace_ms: Some(1_000),
                        mark_gone: *what == "drain-gone",
                    },
                    "weigh" => OperatorCall::SetWeights(vec![(Role::parse(whom).unwrap(), 2_000)]),
                    "limit" => OperatorCall::SetQuotas {
                        quotas: vec![(Role::parse(whom).unwrap(), one_cpu())],
                        force: true,
                        new: false,
                    },
                    "schedule" => OperatorCall::SetSchedule(windows(whom)),
                    "down" => OperatorCall::StartMaintenance(vec![machine(whom)]),
                    "up" => OperatorCall::StopMaintenance(vec![machine(whom)]),
                    other => panic!("{line}: no operator's call {other}"),
                };
                self.step(Input::Operator { id: 1, call });
            }
            [client, "closes"] => {
                if let Some(conn) = self.stream_of.remove(*client) {
                    self.step(Input::Closed(conn));
                }
            }
            [agent, "mute"] => drop(self.mute.insert((*agent).into())),
            [client, ..] if client.starts_with('F') => self.scheduler(client, &words),
            [client, ..] if client.starts_with('A') => self.agent(client, &words),
            _ => panic!("{line}: no such input"),
        }
    }

    fn lead(&mut self, how: &Words<'_>) {
        if self.leader.is_some() {
            self.resign();
        }
        let left = std::mem::take(&mut self.proposed);
        if how.has("keeps") {
            let entry = self.entry(left);
            self.index += 1;
            self.registry.apply(Index(self.index), Term(self.term), &entry);
        }
        (self.holding, self.tickets) = (how.has("held"), 0);
        self.term += 1;
        let mut effects = Vec::new();
        let in_flight_max = how.number("in-flight").unwrap_or(1_000) as usize;
        let agent_timeout_ms =
            how.number("agent-timeout").unwrap_or_else(|| Config::default().agent_timeout_ms);
        let config = Config { shards: 1, in_flight_max, agent_timeout_ms, ..Config::default() };
        self.shards = vec![Shard::new(View::empty(ShardId { index: 0, count: 1 }), Policy::default())];
        self.leader = Some(Leader::new(config, Term(self.term), &mut effects));
        self.perform(effects);
        self.settle();
    }

    fn resign(&mut self) {
        let mut effects = Vec::new();
        self.leader.take().unwrap().resign(&mut effects);
        self.perform(effects);
        self.stream_of.clear();
        self.clients.clear();
    }

    fn stream(&mut self, client: &str, words: &Words<'_>) -> ConnId {
        if let Some(conn) = words.number("stream") {
            self.clients.insert(conn, client.into());
            return conn;
        }
        match self.stream_of.get(client) {
            Some(conn) if !words.has("anew") => *conn,
            _ => {
                self.streams += 1;
                self.stream_of.insert(client.into(), self.streams);
                self.clients.insert(self.streams, client.into());
                self.streams
            }
        }
    }

    fn step(&mut self, input: Input) {
        self.decide(input);
        self.settle();
    }

    fn decide(&mut self, input: Input) {
        let Some(leader) = &mut self.leader else { return };
        let mut effects = Vec::new();
        leader.step(Timestamp(self.now), &self.registry, input, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Propose(command) => {
                    if command != Command::Tick {
                        let shown = shown_command(&command);
                        self.say(&format!("  log <- {shown}"));
                    }
                    self.proposed.push(command);
                }
                Effect::Send(conn, event) => self.send(conn, &event),
                Effect::Close(conn) => {
                    let name = self.name(conn);
                    self.say(&format!("  {name} is closed"));
                    if self.stream_of.get(&name) == Some(&conn) {
                        self.stream_of.remove(&name);
                    }
                    self.clients.remove(&conn);
                    self.decide(Input::Closed(conn));
                }
                Effect::Allocate { shard, now, inputs } => {
                    let output = self.shards[shard as usize].step(now, inputs);
                    self.decide(Input::Allocated(shard, output));
                }
                Effect::Answer { outcome, .. } => match outcome {
                    CallOutcome::Done => self.say("  operator <- done"),
                    CallOutcome::Refused(why) => self.say(&format!("  operator <- {why}")),
                    other => self.say(&format!("  operator <- {other:?}")),
                },
                Effect::Serve => self.say(&format!("  serves in term {}", self.term)),
            }
        }
    }

    /// A client by name; an older stream of it by its number, too.
    fn name(&self, conn: ConnId) -> String {
        let name = self.clients.get(&conn).map_or("nobody", String::as_str);
        match self.stream_of.get(name) {
            Some(newest) if *newest != conn => format!("{name} (stream {conn})"),
            _ => name.into(),
        }
    }

    fn send(&mut self, conn: ConnId, event: &Event) {
        let name = self.name(conn);
        match event {
            Event::Scheduler(SchedulerEvent::Heartbeat) => return,
            Event::Scheduler(SchedulerEvent::Subscribed { framework_id, .. }) => {
                self.frameworks.insert(name.clone(), framework_id.clone());
            }
            Event::Scheduler(SchedulerEvent::Outcome { outcome: CallOutcome::Accepted(outcome), .. }) => {
                for (task_id, became) in &outcome.tasks {
                    if let TaskOutcome::Launched(launch) = became {
                        self.launches.insert(task_id.to_string(), *launch);
                    }
                }
            }
            Event::Agent { session, event: AgentEvent::Welcome { agent_id, .. } } => {
                self.agents.insert(name.clone(), (agent_id.clone(), *session));
            }
            Event::Agent { session, event: AgentEvent::Ping(n) } => {
                if !self.mute.contains(&name) {
                    let call = Call::Agent { session: *session, call: AgentCall::Pong(*n) };
                    self.decide(Input::Call { conn, call });
                }
                return;
            }
            // Sent when it suits the leader, within a second: shown when asked for.
            Event::Agent { event: AgentEvent::Confirm { launch, seq }, .. } => {
                let up_to = self.confirmed.entry(name).or_default().entry(*launch).or_default();
                *up_to = (*up_to).max(*seq);
                return;
            }
            Event::Agent { event: AgentEvent::Run(order), .. } => {
                self.launches.insert(order.task.task_id.to_string(), order.launch);
            }
            _ => {}
        }
        if matches!(event, Event::Agent { event: AgentEvent::Volumes { keep }, .. } if keep.is_empty()) {
            return; // every agent is told with its welcome, most of none
        }
        for line in shown_event(event) {
            self.say(&format!("  {name} <- {line}"));
        }
    }

    fn entry(&self, commands: Vec<Command>) -> Entry {
        let (term, at, first_ticket) = (Term(self.term), Timestamp(self.now), self.tickets + 1);
        Entry { term, at, wall: WallTime(0), first_ticket, commands }
    }

    /// Commits what is proposed until nothing is, unless the log is held.
    fn settle(&mut self) {
        while !self.holding && !self.proposed.is_empty() {
            let commands = std::mem::take(&mut self.proposed);
            let entry = self.entry(commands);
            self.tickets += entry.commands.len() as u64;
            self.index += 1;
            let index = Index(self.index);
            let applied = self.registry.apply(index, Term(self.term), &entry);
            self.decide(Input::Applied(vec![Committed {
                index,
                first_ticket: Some(entry.first_ticket),
                outcomes: applied.outcomes,
                changes: Arc::new(applied.changes),
            }]));
        }
    }

    /// Lets time pass, with a wake-up wherever the leader asked for one.
    fn pass_time(&mut self, until: u64) {
        loop {
            let wake = self.leader.as_ref().and_then(Leader::wake_at).map_or(u64::MAX, |at| at.0);
            if wake > until {
                break;
            }
            self.now = self.now.max(wake);
            self.step(Input::Wake);
            if self.holding {
                break; // a tick that does not commit does not come again
            }
        }
        self.now = until;
    }

    fn show(&mut self) {
        let leader = self.leader.as_ref().unwrap();
        let mut lines: Vec<_> = leader
            .offers()
            .map(|it| {
                format!("  offer {} to {} of {}: {}", it.offer_id, it.framework_id, it.agent_id, it.resources)
            })
            .collect();
        for agent in self.registry.agents() {
            let held = self.registry.held_on(&agent.id);
            lines.push(format!("  agent {} {}, holds [{held}]", agent.id, agent.state_name()));
        }
        for operation in self.registry.operations() {
            let (whose, id) = (&operation.framework_id, &operation.operation_id);
            lines.push(format!("  operation {whose}/{id} waits for its acknowledgement"));
        }
        for task in self.registry.tasks() {
            lines.push(format!("  task {} {}", task.key, task.state));
        }
        lines.iter().for_each(|line| self.say(line));
    }

    /// Nothing is offered twice, and nothing that is in use.
    fn check_offers(&self, line: &str) {
        let mut offered: BTreeMap<&AgentId, Resources> = BTreeMap::new();
        for offer in self.leader.iter().flat_map(Leader::offers) {
            offered.entry(&offer.agent_id).or_default().add(&offer.resources);
        }
        for (agent_id, offered) in offered {
            let agent = self.registry.agent(agent_id).unwrap();
            let free = self.registry.total_of(agent).minus(&self.registry.held_on(agent_id));
            assert!(free.contains(&offered), "{line}: {agent_id} has {free} free, but {offered} is offered");
        }
    }
}

/// `A1@100,A2@200`: agents' machines and from when on they will be away; `none`.
fn windows(text: &str) -> Vec<Window> {
    let parts = text.split(',').filter_map(|part| part.split_once('@'));
    let window = |(host, start): (&str, &str)| {
        let unavailability = Unavailability { start_ns: start.parse().unwrap(), duration_ns: None };
        Window { machines: vec![machine(host)], unavailability }
    };
    parts.map(window).collect()
}

fn machine(host: &str) -> MachineName {
    MachineName { hostname: Some(host.into()), ip: None }
}

fn one_cpu() -> Quota {
    Quota { guarantees: Resources::none(), limits: [("cpus".into(), 1_000)].into_iter().collect() }
}
