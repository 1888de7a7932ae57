//! Maintenance schedules and machines of the Mesos API, checked in its order and told in its words.

use crate::mesos;
use muster_model::{MachineName, Unavailability, Window};
use std::{collections::BTreeSet, net::Ipv4Addr};

/// The longest name of a machine, in bytes.
const HOSTNAME_BYTES_MAX: usize = 255;

/// Reads a schedule.
///
/// # Errors
/// The first thing that is wrong with it, in words.
pub fn windows(schedule: &mesos::maintenance::Schedule) -> Result<Vec<Window>, String> {
    let mut seen = BTreeSet::new();
    let mut windows = Vec::with_capacity(schedule.windows.len());
    for window in &schedule.windows {
        if window.machine_ids.is_empty() {
            return Err("List of machines in the maintenance window is empty".into());
        }
        let unavailability = unavailability(&window.unavailability)?;
        windows.push(Window { machines: distinct(&window.machine_ids, &mut seen)?, unavailability });
    }
    Ok(windows)
}

/// Reads a list of machines, of which there is at least one.
///
/// # Errors
/// The first thing that is wrong with it, in words.
pub fn machines(ids: &[mesos::MachineId]) -> Result<Vec<MachineName>, String> {
    if ids.is_empty() {
        return Err("List of machines is empty".into());
    }
    distinct(ids, &mut BTreeSet::new())
}

fn distinct(ids: &[mesos::MachineId], seen: &mut BTreeSet<MachineName>) -> Result<Vec<MachineName>, String> {
    let mut machines = Vec::with_capacity(ids.len());
    for id in ids {
        let name = machine(id)?;
        if !seen.insert(name.folded()) {
            return Err(format!("Machine '{name}' appears more than once in the schedule"));
        }
        machines.push(name);
    }
    Ok(machines)
}

fn machine(id: &mesos::MachineId) -> Result<MachineName, String> {
    let (hostname, ip) = (id.hostname(), id.ip());
    if hostname.is_empty() && ip.is_empty() {
        return Err("Both 'hostname' and 'ip' for a machine are empty".into());
    }
    if hostname.len() > HOSTNAME_BYTES_MAX {
        return Err(format!("The 'hostname' of a machine has more than {HOSTNAME_BYTES_MAX} bytes"));
    }
    let ip = match ip {
        "" => None,
        ip => Some(ip.parse::<Ipv4Addr>().map_err(|_| format!("Failed to parse IPv4: {ip}"))?.into()),
    };
    Ok(MachineName { hostname: (!hostname.is_empty()).then(|| hostname.into()), ip })
}

fn unavailability(it: &mesos::Unavailability) -> Result<Unavailability, String> {
    let duration_ns = it.duration.as_ref().map(|duration| duration.nanoseconds);
    if duration_ns.is_some_and(|duration| duration < 0) {
        return Err("Unavailability 'duration' is negative".into());
    }
    Ok(Unavailability { start_ns: it.start.nanoseconds, duration_ns })
}

/// Writes when something will be away.
pub fn wire_unavailability(it: Unavailability) -> mesos::Unavailability {
    mesos::Unavailability {
        start: mesos::TimeInfo { nanoseconds: it.start_ns },
        duration: it.duration_ns.map(|nanoseconds| mesos::DurationInfo { nanoseconds }),
    }
}

/// Writes a machine's name.
pub fn wire_machine(name: &MachineName) -> mesos::MachineId {
    mesos::MachineId {
        hostname: name.hostname.as_ref().map(ToString::to_string),
        ip: name.ip.map(|ip| ip.to_string()),
    }
}

/// Writes a schedule.
pub fn wire_schedule<'a>(windows: impl Iterator<Item = &'a Window>) -> mesos::maintenance::Schedule {
    let write = |window: &Window| mesos::maintenance::Window {
        machine_ids: window.machines.iter().map(wire_machine).collect(),
        unavailability: wire_unavailability(window.unavailability),
    };
    mesos::maintenance::Schedule { windows: windows.map(write).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn id(hostname: &str, ip: &str) -> mesos::MachineId {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        mesos::MachineId { hostname: some(hostname), ip: some(ip) }
    }

    fn schedule(ids: Vec<mesos::MachineId>, duration: Option<i64>) -> mesos::maintenance::Schedule {
        let unavailability = mesos::Unavailability {
            start: mesos::TimeInfo { nanoseconds: 7 },
            duration: duration.map(|nanoseconds| mesos::DurationInfo { nanoseconds }),
        };
        let window = mesos::maintenance::Window { machine_ids: ids, unavailability };
        mesos::maintenance::Schedule { windows: vec![window] }
    }

    #[test]
    fn schedules_come_back_as_they_were() {
        for (ids, duration) in
            [(vec![id("m1", "127.0.0.9"), id("m2", "")], Some(9)), (vec![id("", "10.0.0.1")], None)]
        {
            let schedule = schedule(ids, duration);
            let windows = windows(&schedule).unwrap();
            assert_eq!(wire_schedule(windows.iter()), schedule);
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let wrong = |ids, duration| windows(&schedule(ids, duration)).unwrap_err();
        assert_eq!(wrong(vec![], None), "List of machines in the maintenance window is empty");
        assert_eq!(wrong(vec![id("m", "")], Some(-1)), "Unavailability 'duration' is negative");
        assert_eq!(wrong(vec![id("", "")], None), "Both 'hostname' and 'ip' for a machine are empty");
        assert_eq!(wrong(vec![id("m", "nowhere")], None), "Failed to parse IPv4: nowhere");
        let twice = wrong(vec![id("m1", ""), id("M1", "")], None);
        assert_eq!(twice, r#"Machine '{"hostname":"M1"}' appears more than once in the schedule"#);
        assert_eq!(machines(&[]).unwrap_err(), "List of machines is empty");
    }
}
