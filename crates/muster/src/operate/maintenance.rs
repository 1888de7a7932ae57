//! Machines that will be away, and such as are down.

use super::args::{Machine, MachineArgs, MaintenanceVerb, PlanArgs};
use super::{act, ask, of};
use crate::cli::{Masters, Output};
use crate::output::{Rows, done};
use anyhow::bail;
use muster_proto::mesos::{
    DurationInfo, MachineId, TimeInfo, Unavailability,
    allocator::inverse_offer_status::Status,
    maintenance::{Schedule, Window, cluster_status::DrainingMachine},
    master::{
        Call,
        call::{self, Type},
    },
};
use serde_json::{Value, json};
use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const NANOSECONDS: i64 = 1_000_000_000;

pub(crate) async fn run(verb: MaintenanceVerb, output: Output) -> anyhow::Result<ExitCode> {
    match verb {
        MaintenanceVerb::List(masters) => list(&masters, output).await,
        MaintenanceVerb::Plan(args) => plan(&args, output).await,
        MaintenanceVerb::Cancel(MachineArgs { machines, masters }) => {
            cancel(&masters, &machines, output).await
        }
        MaintenanceVerb::Start(MachineArgs { machines, masters }) => start(&masters, &machines, output).await,
        MaintenanceVerb::Stop(MachineArgs { machines, masters }) => stop(&masters, &machines, output).await,
    }
}

async fn list(masters: &Masters, output: Output) -> anyhow::Result<ExitCode> {
    let schedule = schedule(masters).await?;
    let status =
        ask(masters, Type::GetMaintenanceStatus).await?.get_maintenance_status.unwrap_or_default().status;
    let mut rows = Rows::new(["MACHINE", "STATE", "AWAY", "FOR", "FRAMEWORKS"]);
    for window in &schedule.windows {
        for machine in &window.machine_ids {
            let is_down = status.down_machines.contains(machine);
            let answers = status.draining_machines.iter().find(|it| it.id == *machine);
            let (row, json) = row(machine, &window.unavailability, is_down, answers);
            rows.push(row, json);
        }
    }
    rows.print(output);
    Ok(ExitCode::SUCCESS)
}

fn row(
    machine: &MachineId,
    away: &Unavailability,
    is_down: bool,
    answers: Option<&DrainingMachine>,
) -> ([String; 5], Value) {
    let said = |status: Status| {
        let all = answers.into_iter().flat_map(|it| &it.statuses);
        all.filter(|it| it.status == i32::from(status)).count()
    };
    let (accepted, declined) = (said(Status::Accept), said(Status::Decline));
    let state = if is_down { "down" } else { "scheduled" };
    let duration = away.duration.as_ref().map(|it| it.nanoseconds / NANOSECONDS);
    let json = json!({
        "hostname": machine.hostname, "ip": machine.ip, "state": state,
        "start_ms": away.start.nanoseconds / 1_000_000, "duration_secs": duration,
        "accepted": accepted, "declined": declined,
    });
    let row = [
        name(machine),
        state.into(),
        from_now(away.start.nanoseconds),
        duration.map_or_else(|| "ever".into(), length),
        match (accepted, declined) {
            (0, 0) => "-".into(),
            _ => format!("{accepted} accept, {declined} decline"),
        },
    ];
    (row, json)
}

/// Adds a window to the schedule. It is read and set as a whole: of two operators who do so at once one may undo what the
/// other did.
async fn plan(args: &PlanArgs, output: Output) -> anyhow::Result<ExitCode> {
    let PlanArgs { machines, start_in, duration, masters } = args;
    let mut schedule = schedule(masters).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let away = Unavailability {
        start: TimeInfo { nanoseconds: nanoseconds(now.saturating_add(*start_in)) },
        duration: duration.map(|it| DurationInfo { nanoseconds: nanoseconds(it) }),
    };
    schedule.windows.push(Window { machine_ids: ids(machines), unavailability: away });
    set(masters, schedule).await?;
    said(machines, "in the schedule", output);
    Ok(ExitCode::SUCCESS)
}

/// Takes machines out of the schedule.
async fn cancel(masters: &Masters, machines: &[Machine], output: Output) -> anyhow::Result<ExitCode> {
    let mut schedule = schedule(masters).await?;
    for machine in ids(machines) {
        let mut is_there = false;
        for window in &mut schedule.windows {
            let before = window.machine_ids.len();
            window.machine_ids.retain(|it| !is_same(it, &machine));
            is_there |= window.machine_ids.len() < before;
        }
        if !is_there {
            bail!("machine {} is not in the schedule", name(&machine));
        }
    }
    schedule.windows.retain(|window| !window.machine_ids.is_empty());
    set(masters, schedule).await?;
    said(machines, "out of the schedule", output);
    Ok(ExitCode::SUCCESS)
}

async fn start(masters: &Masters, machines: &[Machine], output: Output) -> anyhow::Result<ExitCode> {
    let start = call::StartMaintenance { machines: ids(machines) };
    act(masters, Call { start_maintenance: Some(start), ..of(Type::StartMaintenance) }).await?;
    said(machines, "down: its agents stop, and their tasks are lost", output);
    Ok(ExitCode::SUCCESS)
}

async fn stop(masters: &Masters, machines: &[Machine], output: Output) -> anyhow::Result<ExitCode> {
    let stop = call::StopMaintenance { machines: ids(machines) };
    act(masters, Call { stop_maintenance: Some(stop), ..of(Type::StopMaintenance) }).await?;
    said(machines, "up: its agents may come back", output);
    Ok(ExitCode::SUCCESS)
}

async fn schedule(masters: &Masters) -> anyhow::Result<Schedule> {
    let answer = ask(masters, Type::GetMaintenanceSchedule).await?;
    Ok(answer.get_maintenance_schedule.unwrap_or_default().schedule)
}

async fn set(masters: &Masters, schedule: Schedule) -> anyhow::Result<()> {
    let update = call::UpdateMaintenanceSchedule { schedule };
    act(masters, Call { update_maintenance_schedule: Some(update), ..of(Type::UpdateMaintenanceSchedule) })
        .await
}

fn said(machines: &[Machine], what: &str, output: Output) {
    let names: Vec<String> = ids(machines).iter().map(name).collect();
    let json: Vec<Value> =
        ids(machines).iter().map(|it| json!({"hostname": it.hostname, "ip": it.ip})).collect();
    done(output, &format!("machine {} is {what}", names.join(", ")), &json!(json));
}

fn ids(machines: &[Machine]) -> Vec<MachineId> {
    machines.iter().map(|it| MachineId { hostname: it.hostname.clone(), ip: it.ip.clone() }).collect()
}

/// Masters fold the case of host names.
fn is_same(one: &MachineId, other: &MachineId) -> bool {
    one.hostname().eq_ignore_ascii_case(other.hostname()) && one.ip() == other.ip()
}

fn name(machine: &MachineId) -> String {
    match (machine.hostname(), machine.ip()) {
        (hostname, "") => hostname.to_owned(),
        ("", ip) => ip.to_owned(),
        (hostname, ip) => format!("{hostname}@{ip}"),
    }
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// `in 10m`, `since 2h`.
fn from_now(nanoseconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let left = (nanoseconds / NANOSECONDS).saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    if left > 0 { format!("in {}", length(left)) } else { format!("since {}", length(left.saturating_neg())) }
}

/// Seconds in the largest unit that is not much too large.
fn length(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
