//! What there is: agents, frameworks, tasks.

use crate::cli::{Masters, Output, TaskListArgs};
use crate::output::{Rows, ago, amounts, amounts_json, done, of_total};
use muster_model::TaskState;
use muster_proto::{task::task_state, v1};
use muster_sdk::OperatorClient;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

const COMPLETED_MAX: u32 = 1_000;
/// A leader is there again within a second or two; longer means that something is wrong.
const SEARCH_TIME: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn client(masters: &Masters) -> OperatorClient {
    let client = OperatorClient::new(masters.masters.iter().cloned()).search_time(SEARCH_TIME);
    client.credential(masters.credential.clone())
}

/// Waits for an answer; after a second people are told what is waited for.
pub(crate) async fn patiently<T>(masters: &Masters, answer: impl Future<Output = T>) -> T {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => return answer,
        () = tokio::time::sleep(PATIENCE) => {}
    }
    eprintln!("waiting for an answer from {}", masters.masters.join(", "));
    answer.await
}

pub(crate) async fn agents(masters: &Masters, output: Output) -> anyhow::Result<ExitCode> {
    let mut rows = Rows::new(["AGENT", "HOST", "STATE", "TASKS", "CPUS", "MEM MB", "DISK MB", "AGE"]);
    for agent in patiently(masters, client(masters).agents()).await? {
        let (used, total) = (amounts(&agent.used), amounts(&agent.total));
        let json = json!({
            "agent_id": agent.agent_id, "hostname": agent.hostname, "port": agent.port, "state": agent.state, "duty": agent.duty,
            "tasks": agent.tasks, "machine_id": agent.machine_id, "registered_ms": agent.registered_wall_ms,
            "used": amounts_json(&used), "total": amounts_json(&total),
        });
        let row = [
            agent.agent_id,
            format!("{}:{}", agent.hostname, agent.port),
            if agent.duty.is_empty() { agent.state } else { format!("{}, {}", agent.state, agent.duty) },
            agent.tasks.to_string(),
            of_total(&used, &total, "cpus"),
            of_total(&used, &total, "mem"),
            of_total(&used, &total, "disk"),
            ago(agent.registered_wall_ms),
        ];
        rows.push(row, json);
    }
    rows.print(output);
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn frameworks(
    masters: &Masters,
    completed: bool,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let mut rows = Rows::new(["FRAMEWORK", "NAME", "USER", "ROLES", "CONNECTED", "TASKS", "USED", "AGE"]);
    for framework in patiently(masters, client(masters).frameworks(completed)).await? {
        let used = amounts(&framework.used);
        let json = json!({
            "framework_id": framework.framework_id, "name": framework.name, "user": framework.user,
            "roles": framework.roles, "connected": framework.connected, "tasks": framework.tasks,
            "failover_timeout_ms": framework.failover_timeout_ms, "used": amounts_json(&used),
            "registered_ms": framework.registered_wall_ms,
        });
        let row = [
            framework.framework_id,
            framework.name,
            if framework.user.is_empty() { "-".into() } else { framework.user },
            framework.roles.join(","),
            if framework.connected { "yes" } else { "no" }.into(),
            framework.tasks.to_string(),
            if used.is_empty() { "-".into() } else { used.to_string() },
            ago(framework.registered_wall_ms),
        ];
        rows.push(row, json);
    }
    rows.print(output);
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn tasks(args: &TaskListArgs, output: Output) -> anyhow::Result<ExitCode> {
    let mut client = client(&args.masters);
    let framework = args.framework.as_deref();
    let mut tasks = patiently(&args.masters, client.tasks(framework)).await?;
    if args.all {
        tasks.extend(client.completed_tasks(framework, COMPLETED_MAX).await?);
    }
    let mut rows = Rows::new(["TASK", "NAME", "STATE", "FRAMEWORK", "AGENT", "RESOURCES", "AGE", "MESSAGE"]);
    for task in tasks {
        let (row, json) = task_row(task);
        rows.push(row, json);
    }
    rows.print(output);
    Ok(ExitCode::SUCCESS)
}

fn task_row(task: v1::Task) -> ([String; 8], serde_json::Value) {
    let state = task_state(task.state).unwrap_or(TaskState::Unknown).name();
    let resources = amounts(&task.resources);
    let json = json!({
        "task_id": task.task_id, "name": task.name, "state": state, "framework_id": task.framework_id,
        "agent_id": task.agent_id, "resources": amounts_json(&resources), "message": task.message,
        "unacknowledged": task.unacknowledged, "held": task.held, "launched_ms": task.launched_wall_ms,
        "updated_ms": task.updated_wall_ms,
        "launch": task.launch.map(|launch| format!("{}.{}.{}", launch.incarnation, launch.index, launch.n)),
    });
    let row = [
        task.task_id,
        task.name,
        state.trim_start_matches("TASK_").to_lowercase(),
        task.framework_id,
        task.agent_id,
        resources.to_string(),
        ago(task.launched_wall_ms),
        task.message,
    ];
    (row, json)
}

pub(crate) async fn agent_gone(
    masters: &Masters,
    agent_id: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    patiently(masters, client(masters).mark_agent_gone(agent_id)).await?;
    let sentence = format!("agent {agent_id} is gone; its tasks are over");
    done(output, &sentence, &json!({"agent_id": agent_id, "gone": true}));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn teardown(
    masters: &Masters,
    framework_id: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    patiently(masters, client(masters).teardown(framework_id)).await?;
    let sentence = format!("framework {framework_id} is torn down");
    done(output, &sentence, &json!({"framework_id": framework_id, "torn_down": true}));
    Ok(ExitCode::SUCCESS)
}
