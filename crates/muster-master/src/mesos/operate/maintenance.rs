//! The maintenance schedule, and machines that are down.

use super::super::read::seen::Seen;
use super::{Asked, Checked, list, read_json, wrong};
use mesos::allocator::{InverseOfferStatus, inverse_offer_status::Status};
use mesos::maintenance::{ClusterStatus, Schedule, cluster_status::DrainingMachine};
use mesos::master::{Call, call::StartMaintenance};
use muster_leader::{InverseAnswer, OperatorCall};
use muster_model::MachineName;
use muster_proto::maintenance::{machines, windows, wire_machine, wire_schedule};
use muster_proto::{master_api::time, mesos};

pub(super) fn update(call: &Call) -> Checked {
    set(&call.update_maintenance_schedule.clone().unwrap_or_default().schedule)
}

pub(super) fn post_schedule(body: &[u8]) -> Checked {
    set(&read_json(body)?)
}

fn set(schedule: &Schedule) -> Checked {
    windows(schedule).map(|windows| Asked::of(OperatorCall::SetSchedule(windows))).map_err(wrong)
}

pub(super) fn start(call: &Call) -> Checked {
    down(&call.start_maintenance.clone().unwrap_or_default().machines)
}

pub(super) fn stop(call: &Call) -> Checked {
    up(&call.stop_maintenance.clone().unwrap_or_default().machines)
}

pub(super) fn post_machines(are_down: bool, body: &[u8]) -> Checked {
    let StartMaintenance { machines } = list("machines", body)?;
    if are_down { down(&machines) } else { up(&machines) }
}

fn down(ids: &[mesos::MachineId]) -> Checked {
    machines(ids).map(|machines| Asked::of(OperatorCall::StartMaintenance(machines))).map_err(wrong)
}

fn up(ids: &[mesos::MachineId]) -> Checked {
    machines(ids).map(|machines| Asked::of(OperatorCall::StopMaintenance(machines))).map_err(wrong)
}

/// The schedule.
pub(in super::super) fn schedule(seen: &Seen) -> Schedule {
    match seen.view.schedule {
        true => wire_schedule(seen.registry.windows()),
        false => Schedule::default(),
    }
}

/// Machines of the schedule: those that are down, and what frameworks answered about the others.
pub(in super::super) fn cluster_status(seen: &Seen) -> ClusterStatus {
    let all = || {
        let windows = seen.registry.windows().filter(|_| seen.view.status);
        windows.flat_map(|window| &window.machines)
    };
    let (down, draining): (Vec<_>, Vec<_>) = all().partition(|name| seen.registry.is_down(name));
    ClusterStatus {
        draining_machines: draining.into_iter().map(|name| draining_machine(name, seen)).collect(),
        down_machines: down.into_iter().map(wire_machine).collect(),
    }
}

fn draining_machine(name: &MachineName, seen: &Seen) -> DrainingMachine {
    let status = |answer: &InverseAnswer| InverseOfferStatus {
        status: if answer.accepted { Status::Accept } else { Status::Decline }.into(),
        framework_id: mesos::FrameworkId { value: answer.framework_id.to_string() },
        timestamp: time(answer.at),
    };
    let answers = seen.answers.iter().filter(|answer| seen.registry.is_on(&answer.agent_id, name));
    DrainingMachine { id: wire_machine(name), statuses: answers.map(status).collect() }
}
