//! What clients say.

use super::{
    Script,
    resources::parse,
    words::{Words, conversion},
};
use muster_leader::Input;
use muster_model::{task::ExecutorSpec, *};

impl Script {
    pub(crate) fn scheduler(&mut self, name: &str, words: &Words<'_>) {
        let known = self.frameworks.get(name).filter(|_| !words.has("new")).cloned();
        let roles = |key: &str| words.list(key).into_iter().map(|it| Role::parse(it).unwrap()).collect();
        let refuse_ms = words.number("filter").unwrap_or(0);
        if words.0[1] == "resume" {
            return self.resume(name, words);
        }
        let call = match words.0[1] {
            "subscribe" => {
                let mut wanted: Vec<Role> = roles("roles");
                if wanted.is_empty() {
                    wanted.push(Role::any());
                }
                SchedulerCall::Subscribe {
                    framework_id: known,
                    token: words.number("token").or(words.number("events")).map(token),
                    stream: words.number("events").is_some(),
                    info: self.info(name, words, wanted),
                    wants: Default::default(),
                    suppressed_roles: roles("suppressed"),
                }
            }
            "accept" => SchedulerCall::Accept {
                offer_ids: words.0[2].split(',').map(OfferId::new).collect(),
                tasks: words.0[3..].iter().filter_map(|word| task(word, words.value("executor"))).collect(),
                named: self.named(words),
                bad: bad_tasks(words),
                refuse_ms,
            },
            // `F1 operate o1 reserve:ID=cpus(web!):1 launch:t1=cpus(web!):1 group:t2=cpus:1/t3=cpus:1 bad:ID`
            "operate" => SchedulerCall::Operate {
                offer_ids: words.0[2].split(',').map(OfferId::new).collect(),
                operations: words.0[3..].iter().filter_map(|word| operation(word, words)).collect(),
                refuse_ms,
            },
            // `F1 refused t1 t2 operation:ID`: what a master did not let through.
            "refused" => SchedulerCall::Refused {
                tasks: words.0[2..].iter().filter_map(|word| refused_task(word)).collect(),
                operations: words.0[2..]
                    .iter()
                    .filter_map(|word| word.strip_prefix("operation:"))
                    .map(|id| (OperationId::new(id), "not authorized".into()))
                    .collect(),
            },
            "ack-operation" => {
                let operation_id = OperationId::new(words.0[2]);
                let known = self.registry.operation(&known.unwrap(), &operation_id);
                let uuid = known.map_or(Uuid([9; 16]), |known| known.uuid);
                SchedulerCall::AcknowledgeOperation { operation_id, uuid }
            }
            "reconcile-operations" => SchedulerCall::ReconcileOperations {
                operations: words.0[2..]
                    .iter()
                    .map(|word| self.asked_for(word))
                    .map(asked_operation)
                    .collect(),
            },
            "decline" => SchedulerCall::Decline {
                offer_ids: words.0[2].split(',').map(OfferId::new).collect(),
                refuse_ms,
            },
            "suppress" => SchedulerCall::Suppress { roles: roles("roles") },
            "revive" => SchedulerCall::Revive { roles: roles("roles") },
            "kill" => {
                SchedulerCall::Kill { task_id: TaskId::new(words.0[2]), agent_id: None, grace_ms: None }
            }
            "ack" => {
                let task_id = TaskId::new(words.0[2]);
                let key = TaskKey { framework_id: known.unwrap(), task_id: task_id.clone() };
                let head = self.registry.task(&key).and_then(|task| task.updates().first());
                SchedulerCall::Acknowledge { task_id, uuid: head.map_or(Uuid([9; 16]), |head| head.uuid) }
            }
            "reconcile" => SchedulerCall::Reconcile {
                tasks: words.0[2..]
                    .iter()
                    .filter(|word| !word.contains('='))
                    .map(|word| self.asked_for(word))
                    .collect(),
            },
            "request" => SchedulerCall::Request {
                needs: words.0[2..].iter().map(|text| Resources::parse(text).unwrap()).collect(),
            },
            "message" => SchedulerCall::Message {
                agent_id: self.agents[words.0[2]].0.clone(),
                executor_id: ExecutorId::new("e1"),
                data: b"hello".to_vec(),
            },
            // `F1 shutdown A1`: the executor e1 there.
            "shutdown" => SchedulerCall::Shutdown {
                agent_id: self.agents[words.0[2]].0.clone(),
                executor_id: ExecutorId::new("e1"),
            },
            "inverse" => SchedulerCall::AnswerInverse {
                offer_ids: words.0[3].split(',').map(OfferId::new).collect(),
                accepted: words.0[2] == "accept",
                refuse_ms,
            },
            "teardown" => SchedulerCall::Teardown,
            "update" => SchedulerCall::Update {
                info: self.info(name, words, roles("roles")),
                wants: Default::default(),
                suppressed_roles: roles("suppressed"),
            },
            other => panic!("{other}: no such call"),
        };
        self.calls += 1;
        let id = words.number("id").unwrap_or(self.calls);
        let conn = self.stream(name, words);
        self.step(Input::Call { conn, call: Call::Scheduler { id, call } });
    }

    fn info(&self, name: &str, words: &Words<'_>, roles: Vec<Role>) -> FrameworkInfo {
        FrameworkInfo {
            name: name.into(),
            user: words.value("user").unwrap_or("u").into(),
            principal: words.value("principal").map(Into::into),
            roles,
            failover_timeout_ms: words.number("timeout").unwrap_or(0),
            capabilities: Capabilities {
                partition_aware: !words.has("unaware"),
                reservation_refinement: words.has("refined"),
                ..Default::default()
            },
            sealed: Sealed::default(),
        }
    }

    /// `F1 resume events=5`: on a stream of its own, to call as on the event stream of that token.
    fn resume(&mut self, name: &str, words: &Words<'_>) {
        self.calls += 1;
        let (id, stream) = (self.calls, token(words.number("events").unwrap()));
        let framework_id = self.frameworks[name].clone();
        let conn = self.stream(name, words);
        self.step(Input::Call { conn, call: Call::Resume { id, framework_id, stream } });
    }

    /// `on=A1,A2`: which agents the tasks name; `of=F2`: which framework their executor.
    fn named(&self, words: &Words<'_>) -> Vec<Named> {
        let framework_id = words.value("of").map(|name| self.frameworks[name].clone());
        let agents = words.list("on").into_iter().map(|name| self.agents[name].0.clone());
        agents.map(|agent_id| Named { agent_id, framework_id: framework_id.clone() }).collect()
    }

    /// `t1` or `t1@A1`.
    fn asked_for(&self, word: &str) -> (TaskId, Option<AgentId>) {
        match word.split_once('@') {
            Some((task, agent)) => {
                let known = self.agents.get(agent).map(|(id, _)| id.clone());
                (TaskId::new(task), Some(known.unwrap_or_else(|| AgentId::new(agent))))
            }
            None => (TaskId::new(word), None),
        }
    }

    pub(crate) fn agent(&mut self, name: &str, words: &Words<'_>) {
        let call = match words.0[1] {
            "hello" => {
                self.mute.remove(name);
                let ip = words.value("ip").map(|ip| ip.parse().unwrap());
                let mut hello = self.hello(name, words);
                if words.has("brief") {
                    let living = LaunchSum::of_living(&std::mem::take(&mut hello.tasks));
                    AgentCall::HelloAsKnown(hello, living.expect("tasks that live"), ip)
                } else {
                    AgentCall::Hello(hello, words.number("token").map(token), ip)
                }
            }
            "accepted" => AgentCall::Accepted(words.0[2..].iter().map(|task| self.launches[*task]).collect()),
            "running" => AgentCall::Status(self.update(words.0[2], TaskState::Running, 1)),
            "finished" => AgentCall::Status(self.update(words.0[2], TaskState::Finished, 2)),
            "killed" => AgentCall::Status(self.update(words.0[2], TaskState::Killed, 2)),
            "says" => AgentCall::Message {
                framework_id: self.frameworks[words.0[2]].clone(),
                executor_id: ExecutorId::new("e1"),
                data: b"hello".to_vec(),
            },
            // `A1 executor F1 t1 ended=256`: of the run that was started for t1; `A1 executors`: there is none.
            "executor" => AgentCall::Executors {
                executors: vec![KnownExecutor {
                    number: self.launches[words.0[3]],
                    framework_id: self.frameworks[words.0[2]].clone(),
                    executor_id: ExecutorId::new("e1"),
                    resources: Resources::parse("cpus:0.1").unwrap(),
                    ended: words.number("ended").map(|status| status as i32),
                }],
                all: words.has("all"),
            },
            "executors" => AgentCall::Executors { executors: Vec::new(), all: true },
            other => panic!("{other}: no such call"),
        };
        let session = self.agents.get(name).map_or(Session(0), |(_, session)| *session);
        let session = words.number("session").map_or(session, Session);
        let conn = self.stream(name, words);
        self.step(Input::Call { conn, call: Call::Agent { session, call } });
    }

    fn update(&self, task: &str, state: TaskState, seq: u32) -> StatusUpdate {
        let launch = self.launches[task];
        let framework_id = self
            .registry
            .tasks()
            .find(|it| it.launch == launch)
            .map_or_else(|| FrameworkId::new("c-0000"), |it| it.key.framework_id.clone());
        let status = Status {
            state,
            source: Source::Executor,
            reason: None,
            message: "".into(),
            wall: WallTime(0),
            sealed: Sealed::default(),
        };
        let task = TaskKey { framework_id, task_id: TaskId::new(task) };
        StatusUpdate { launch, task, seq, uuid: Uuid::of(launch, seq), status }
    }

    /// `A1 hello cpus:4;mem:100 t1 t2!` lists t1 running and t2 finished, with its report.
    fn hello(&self, name: &str, words: &Words<'_>) -> Hello {
        let tasks =
            words.0[3..].iter().filter(|word| word.starts_with('t') && !word.contains('=')).map(|word| {
                let ended = word.ends_with('!');
                let state = if ended { TaskState::Finished } else { TaskState::Running };
                let update = self.update(word.trim_end_matches('!'), state, 2);
                KnownTask {
                    launch: update.launch,
                    task: update.task.clone(),
                    state,
                    alive: !ended,
                    resources: Resources::parse("cpus:1").unwrap(),
                    updates: if ended { vec![update] } else { Vec::new() },
                }
            });
        Hello {
            agent_id: self.agents.get(name).filter(|_| !words.has("new")).map(|(id, _)| id.clone()),
            info: AgentInfo {
                machine_id: MachineId::new(name),
                hostname: name.into(),
                port: 5051,
                resources: Resources::parse(words.0[2]).unwrap(),
                attributes: Vec::new(),
            },
            tasks: tasks.collect(),
            sealed: Sealed::default(),
        }
    }
}

/// `t1!` is described wrongly.
fn bad_tasks(words: &Words<'_>) -> Vec<BadTask> {
    let tasks = words.0[3..].iter().filter(|word| word.starts_with('t'));
    let bad = |(at, word): (u32, &&str)| {
        let task_id = TaskId::new(word.strip_suffix('!')?);
        Some(BadTask { at, task_id, why: "command is missing".into() })
    };
    (0..).zip(tasks).filter_map(bad).collect()
}

/// `t1=cpus:1;mem:32`, all in the same executor with `executor=e1`.
fn refused_task(word: &str) -> Option<RefusedTask> {
    let id = Some(word).filter(|word| word.starts_with('t') && !word.contains(['=', ':']))?;
    Some(RefusedTask {
        task_id: TaskId::new(id),
        agent_id: Some(AgentId::new("c-S0")),
        reason: Reason::TaskUnauthorized,
        why: "not authorized".into(),
    })
}

fn task(word: &str, executor: Option<&str>) -> Option<TaskSpec> {
    let (id, resources) = word.split_once('=').filter(|(id, _)| id.starts_with('t'))?;
    Some(TaskSpec {
        task_id: TaskId::new(id),
        name: id.into(),
        resources: parse(resources),
        executor: executor.map(|id| ExecutorSpec {
            executor_id: ExecutorId::new(id),
            resources: Resources::parse("cpus:0.1").unwrap(),
            sealed: Sealed::new(*b"executor"),
        }),
        grace_ms: None,
        sealed: Sealed::default(),
    })
}

fn asked_operation((id, agent_id): (TaskId, Option<AgentId>)) -> AskedOperation {
    AskedOperation { id: OperationId::new(id.as_str()), agent_id, provider: None }
}

fn operation(word: &str, words: &Words<'_>) -> Option<(Operation, Vec<Named>)> {
    let executor = words.value("executor");
    let (name, rest) = word.split_once([':', '=']).filter(|_| !word.starts_with("executor"))?;
    let tasks = |text: &str| text.split('/').filter_map(|word| task(word, executor)).collect();
    let operation = match name {
        "launch" => Operation::Launch { tasks: tasks(rest), bad: Vec::new() },
        "group" => Operation::LaunchGroup { tasks: tasks(rest), bad: Vec::new() },
        "bad" => Operation::Bad { id: Some(OperationId::new(rest)), why: "it is not supported".into() },
        _ => {
            let named = word.as_bytes().get(name.len()) == Some(&b':');
            let (id, text) = if named { rest.split_once('=')? } else { ("", rest) };
            Operation::Convert {
                id: named.then(|| OperationId::new(id)),
                conversion: conversion(&format!("{name}={text}"))?,
                sealed: Sealed::default(),
            }
        }
    };
    Some((operation, Vec::new()))
}

/// What a client draws.
fn token(n: u64) -> Token {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Token(bytes)
}
