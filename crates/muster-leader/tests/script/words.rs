//! Lines taken apart, and what is shown of commands and events.

use super::resources::parse;
use muster_model::*;
use muster_registry::Command;

/// The words of a line.
pub(crate) struct Words<'a>(pub(crate) Vec<&'a str>);

impl<'a> Words<'a> {
    pub(crate) fn of(line: &'a str) -> Self {
        Self(line.split_whitespace().collect())
    }
    pub(crate) fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }
    pub(crate) fn value(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.value(name).map(|text| text.parse().unwrap())
    }
    pub(crate) fn list(&self, name: &str) -> Vec<&'a str> {
        self.value(name).map(|text| text.split(',').collect()).unwrap_or_default()
    }
}

/// `reserve=cpus(web!):1`
pub(crate) fn conversion(text: &str) -> Option<Conversion> {
    let (name, text) = text.split_once('=')?;
    Some(match name {
        "reserve" => Conversion::Reserve(parse(text)),
        "unreserve" => Conversion::Unreserve(parse(text)),
        "create" => Conversion::Create(parse(text)),
        "destroy" => Conversion::Destroy(parse(text)),
        _ => return None,
    })
}

fn joined<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|it| it.to_string()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn shown_command(command: &Command) -> String {
    match command {
        Command::BeginTerm(_) => "begin the term".into(),
        Command::Tick => "tick".into(),
        Command::Subscribe(it) => match &it.framework_id {
            Some(id) => format!("subscribe {id}"),
            None => format!("subscribe a new framework {}", it.info.name),
        },
        Command::DisconnectFramework { framework_id, session } => {
            format!("disconnect {framework_id} session {session}")
        }
        Command::ExpireFramework { framework_id, disconnected } => {
            format!("expire {framework_id}, disconnected at #{disconnected}")
        }
        Command::Teardown { framework_id } => format!("tear down {framework_id}"),
        Command::AdmitAgent(hello) => match &hello.agent_id {
            Some(id) => format!("admit {id}"),
            None => format!("admit a new agent on {}", hello.info.hostname),
        },
        Command::FirstSubscribe(_, it) => {
            format!("subscribe a new framework {}, which drew a token", it.info.name)
        }
        Command::StreamSubscribe(_, it) => match &it.framework_id {
            Some(id) => format!("subscribe {id} over an event stream"),
            None => format!("subscribe a new framework {} over an event stream", it.info.name),
        },
        Command::UpdateFramework { framework_id, .. } => format!("describe {framework_id} anew"),
        Command::FirstHello(_, hello) => {
            format!("admit a new agent on {}, which drew a token", hello.info.hostname)
        }
        Command::DisconnectAgent { agent_id, session } => format!("disconnect {agent_id} session {session}"),
        Command::MarkUnreachable { agent_id, disconnected } => {
            format!("mark {agent_id} unreachable, disconnected at #{disconnected}")
        }
        Command::MarkGone { agent_id } => format!("mark {agent_id} gone"),
        Command::Launch(it) => {
            format!("launch {} on {} by {}", joined(it.task_ids()), it.agent_id, joined(&it.offer_ids))
        }
        Command::LaunchSome(it, bad) => {
            let bad = joined(bad.iter().map(|bad| format!("!{}", bad.task_id)));
            format!("launch {} {bad} on {} by {}", joined(it.task_ids()), it.agent_id, joined(&it.offer_ids))
        }
        Command::Accepted { agent_id, launches } => format!("accepted by {agent_id}: {}", joined(launches)),
        Command::Status { update, .. } => format!("{} {}", update.task, update.status.state),
        Command::Ended { agent_id, launch } => format!("ended on {agent_id}: {launch}"),
        Command::Acknowledge { task, .. } => format!("acknowledge {task}"),
        Command::Kill { task, .. } => format!("kill {task}"),
        Command::Executors { agent_id, executors, all } => {
            let shown = executors.iter().map(|it| match it.ended {
                None => format!("{} lives as {}", it.executor_id, it.number),
                Some(status) => format!("{} ended as {} with {status}", it.executor_id, it.number),
            });
            let all = if *all { "all " } else { "" };
            format!("{all}executors on {agent_id}: {}", shown.collect::<Vec<_>>().join(", "))
        }
        Command::SetWeights(weights) => format!("weigh {weights:?}"),
        Command::SetQuotas { quotas, .. } => {
            format!("set quotas of {}", joined(quotas.iter().map(|(role, _)| role)))
        }
        Command::RemoveQuota(role) => format!("remove the quota of {role}"),
        Command::DeactivateAgent { agent_id } => format!("deactivate {agent_id}"),
        Command::ReactivateAgent { agent_id } => format!("reactivate {agent_id}"),
        Command::DrainAgent { agent_id, .. } => format!("drain {agent_id}"),
        Command::SetSchedule(windows) => format!("schedule {} windows", windows.len()),
        Command::StartMaintenance(machines) => format!("down are {}", joined(machines)),
        Command::StopMaintenance(machines) => format!("up are {}", joined(machines)),
        Command::HelloFrom { ip, hello, .. } => match &hello.agent_id {
            Some(id) => format!("admit {id} from {ip}"),
            None => format!("admit a new agent on {} from {ip}", hello.info.hostname),
        },
        Command::HelloAsKnown { hello, .. } => {
            let id = hello.agent_id.as_ref().expect("only known agents say nothing new");
            format!("admit {id} with its tasks as known")
        }
        Command::Operate(it) => {
            let shown = it.operations.iter().map(|operation| match operation {
                Operation::Launch { tasks, .. } => {
                    format!("launch {}", joined(tasks.iter().map(|it| &it.task_id)))
                }
                Operation::LaunchGroup { tasks, .. } => {
                    format!("launch {} together", joined(tasks.iter().map(|it| &it.task_id)))
                }
                Operation::Convert { conversion, .. } => {
                    format!("{} {}", conversion.name(), conversion.named())
                }
                Operation::Bad { why, .. } => format!("!{why}"),
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            format!("{shown} on {} by {}", it.agent_id, joined(&it.offer_ids))
        }
        Command::Convert { agent_id, conversion } => {
            format!("{} {} on {agent_id}", conversion.name(), conversion.named())
        }
        Command::AcknowledgeOperation { framework_id, operation_id, .. } => {
            format!("acknowledge operation {framework_id}/{operation_id}")
        }
        Command::Configure(limits) => format!("let agents be away for {} ms", limits.agent_timeout_ms),
    }
}

pub(crate) fn shown_event(event: &Event) -> Vec<String> {
    match event {
        Event::Scheduler(SchedulerEvent::Offers(offers)) => {
            let shown = offers.iter().map(|it| {
                let offer = &it.offer;
                let away =
                    it.unavailability.map_or(String::new(), |it| format!(", away from {}", it.start_ns));
                format!("offer {} of {}: {}{away}", offer.offer_id, offer.agent_id, offer.resources)
            });
            shown.collect()
        }
        Event::Scheduler(event) => vec![shown_scheduler_event(event)],
        Event::Agent { session, event } => vec![format!("(session {session}) {}", shown_agent_event(event))],
    }
}

fn shown_scheduler_event(event: &SchedulerEvent) -> String {
    match event {
        SchedulerEvent::Subscribed { framework_id, session, .. } => {
            format!("subscribed {framework_id} session {session}")
        }
        SchedulerEvent::Offers(offers) => format!("{} offers", offers.len()),
        SchedulerEvent::Rescind(id) => format!("rescind {id}"),
        SchedulerEvent::InverseOffers(offers) => {
            let shown = offers.iter().map(|it| {
                format!("{} of {} away from {}", it.offer_id, it.agent_id, it.unavailability.start_ns)
            });
            format!("inverse offers {}", shown.collect::<Vec<_>>().join(", "))
        }
        SchedulerEvent::RescindInverse(id) => format!("rescind inverse {id}"),
        SchedulerEvent::Update { task_id, agent_id, status, uuid } => {
            let agent = agent_id.as_ref().map_or("no agent".into(), ToString::to_string);
            let reason = status.reason.map_or("", |reason| reason.name());
            let waits = if uuid.is_some() { "waits for its acknowledgement" } else { "needs none" };
            let shown =
                format!("update {task_id} on {agent}: {} {reason} {}; {waits}", status.state, status.message);
            joined(shown.replace(" ;", ";").split_whitespace())
        }
        SchedulerEvent::Operation(it) => {
            let agent = it.agent_id.as_ref().map_or("no agent".into(), ToString::to_string);
            let waits = if it.uuid.is_some() { "waits for its acknowledgement" } else { "needs none" };
            let shown = format!("operation {} on {agent}: {} {}", it.id, it.state, it.message);
            format!("{}; [{}]; {waits}", shown.trim_end(), it.converted)
        }
        SchedulerEvent::Message { agent_id, executor_id, .. } => {
            format!("message from {executor_id} on {agent_id}")
        }
        SchedulerEvent::AgentLost(id) => format!("agent {id} is lost"),
        SchedulerEvent::ExecutorLost { agent_id, executor_id, .. } => {
            format!("executor {executor_id} on {agent_id} is lost")
        }
        SchedulerEvent::Error(why) => format!("error: {why}"),
        SchedulerEvent::Heartbeat => "heartbeat".into(),
        SchedulerEvent::Outcome { id, outcome } => format!("call {id}: {}", shown_outcome(outcome)),
    }
}

fn shown_outcome(outcome: &CallOutcome) -> String {
    match outcome {
        CallOutcome::Done => "done".into(),
        CallOutcome::Accepted(outcome) if outcome.tasks.is_empty() => "accepted, nothing to launch".into(),
        CallOutcome::Accepted(outcome) => {
            let tasks = outcome.tasks.iter().map(|(id, became)| match became {
                TaskOutcome::Launched(launch) => format!("{id} launched as {launch}"),
                TaskOutcome::Refused { state, reason, message } => {
                    format!("{id} {state} {} ({message})", reason.name())
                }
            });
            tasks.collect::<Vec<_>>().join("; ")
        }
        CallOutcome::Refused(why) => format!("refused: {why}"),
        CallOutcome::Busy => "busy".into(),
        CallOutcome::Unknown => "outcome unknown".into(),
    }
}

fn shown_agent_event(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Welcome { agent_id, forget, low_mark, .. } => {
            let forget = joined(forget);
            let forget = if forget.is_empty() { forget } else { format!(", forget {forget}") };
            format!("welcome {agent_id}, low mark {low_mark}{forget}")
        }
        AgentEvent::ListAll => "list all your tasks".into(),
        AgentEvent::Run(order) => {
            let killed = if order.killed { ", killed already" } else { "" };
            let executor =
                order.executor.as_ref().map(|it| format!(" in {}", it.executor_id)).unwrap_or_default();
            let group = order.group.map(|it| format!(" with {} from {} on", it.size, it.first));
            let volumes = order.volumes.iter().map(|it| {
                let whose = if it.executor { " of the executor" } else { "" };
                format!(", volume {} at {}{whose}", it.number, it.container_path)
            });
            let volumes = volumes.collect::<String>();
            let group = group.unwrap_or_default();
            let starting = if order.starting { ", told to be starting" } else { "" };
            format!("run {} as {}{executor}{group}{killed}{volumes}{starting}", order.task, order.launch)
        }
        AgentEvent::Kill { launch, task, .. } => format!("kill {task}, {launch}"),
        AgentEvent::Confirm { launch, seq } => format!("confirmed update {seq} of {launch}"),
        AgentEvent::Ping(n) => format!("ping {n}"),
        AgentEvent::Message { framework_id, executor_id, .. } => {
            format!("message from {framework_id} to {executor_id}")
        }
        AgentEvent::Rejected(why) => format!("rejected: {why}"),
        AgentEvent::ShutdownExecutor { framework_id, executor_id } => {
            format!("shut {executor_id} of {framework_id} down")
        }
        AgentEvent::ConfirmExecutor(number) => format!("confirmed the end of executor {number}"),
        AgentEvent::Volumes { keep } => format!("volumes {}", joined(keep)),
    }
}
