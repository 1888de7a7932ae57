//! Reservations and persistent volumes, in both forms that Mesos has for them.

use super::Form;
use crate::error::{Within, bounded, id, short};
use crate::{WireError, limits, mesos};
use mesos::resource::reservation_info::Type as WireType;
use mesos::resource::{DiskInfo, ReservationInfo, disk_info::Persistence};
use mesos::volume::Mode;
use muster_model::{Label, Reservation, Role, Volume};

/// Reads whom an amount is reserved for.
#[allow(deprecated)]
pub(super) fn reservations(entry: &mesos::Resource) -> Result<Vec<Reservation>, WireError> {
    let older = older(entry)?;
    bounded("reservations", &entry.reservations, limits::RESERVATIONS_MAX)?;
    let mut all: Vec<Reservation> = Vec::with_capacity(entry.reservations.len());
    for (i, wire) in entry.reservations.iter().enumerate() {
        let wrong = |field: &str, problem: String| {
            WireError::new(field, problem).within(format_args!("reservations[{i}]"))
        };
        let dynamic = match wire.r#type() {
            WireType::Dynamic => true,
            WireType::Static => false,
            WireType::Unknown => {
                return Err(wrong("type", "Invalid reservation: 'type' must be STATIC or DYNAMIC".into()));
            }
        };
        let Some(role) = &wire.role else {
            return Err(wrong("role", "Invalid reservation: 'role' must be set".into()));
        };
        let role = Role::parse(role).map_err(|problem| wrong("role", problem))?;
        if role == Role::any() {
            return Err(wrong("role", "Invalid reservation: role \"*\" cannot be reserved".into()));
        }
        if let Some(outer) = all.last() {
            if !dynamic {
                return Err(wrong(
                    "type",
                    "Invalid refined reservation: only the first may be STATIC".into(),
                ));
            }
            if outer.role == role || !outer.role.covers(&role) {
                let problem = format!(
                    "Invalid refined reservation: role '{role}' is not a refinement of '{}'",
                    outer.role
                );
                return Err(wrong("role", problem));
            }
        }
        all.push(reservation(wire, dynamic, role).within(format_args!("reservations[{i}]"))?);
    }
    match (older, all.len()) {
        (None, _) => Ok(all),
        (Some(older), 0) => Ok(vec![older]),
        // Both forms may be given where they say the same.
        (Some(older), 1) if all[0].role == older.role && all[0].dynamic == older.dynamic => Ok(all),
        (Some(_), _) => {
            let problem = "says something else than 'reservations'; leave it unset";
            Err(WireError::new("role", problem))
        }
    }
}

/// What the older form says: at most one reservation.
#[allow(deprecated)]
fn older(entry: &mesos::Resource) -> Result<Option<Reservation>, WireError> {
    let role = match &entry.role {
        Some(role) => Role::parse(role).map_err(|problem| WireError::new("role", problem))?,
        None => Role::any(),
    };
    let Some(wire) = &entry.reservation else {
        let of = |role| Reservation { dynamic: false, role, principal: None, labels: Vec::new() };
        return Ok((role != Role::any()).then(|| of(role)));
    };
    if wire.r#type.is_some() || wire.role.is_some() {
        let problem = "'type' and 'role' must be unset here; they belong to 'reservations'";
        return Err(WireError::new("reservation", problem));
    }
    if role == Role::any() {
        let problem = "Invalid reservation: role \"*\" cannot be dynamically reserved";
        // With `reservations` beside it, the role may be left to them.
        return match (&entry.role, entry.reservations.as_slice()) {
            (None, [ReservationInfo { role: Some(role), .. }]) => {
                let role = Role::parse(role).map_err(|problem| WireError::new("role", problem))?;
                reservation(wire, true, role).within("reservation").map(Some)
            }
            _ => Err(WireError::new("reservation", problem)),
        };
    }
    reservation(wire, true, role).within("reservation").map(Some)
}

fn reservation(wire: &ReservationInfo, dynamic: bool, role: Role) -> Result<Reservation, WireError> {
    if let Some(principal) = &wire.principal {
        short("principal", principal.as_bytes(), limits::NAME_BYTES_MAX)?;
    }
    let list = wire.labels.as_ref().map(|labels| labels.labels.as_slice()).unwrap_or_default();
    bounded("labels", list, limits::RESERVATION_LABELS_MAX)?;
    let mut labels = Vec::with_capacity(list.len());
    for label in list {
        short("labels", label.key.as_bytes(), limits::NAME_BYTES_MAX)?;
        short("labels", label.value().as_bytes(), limits::NAME_BYTES_MAX)?;
        labels.push((label.key.as_str().into(), label.value.as_deref().map(Into::into)));
    }
    labels.sort_unstable();
    Ok(Reservation { dynamic, role, principal: wire.principal.as_deref().map(Into::into), labels })
}

/// Reads which volume an amount is.
pub(super) fn volume(entry: &mesos::Resource) -> Result<Option<Volume>, WireError> {
    let Some(disk) = &entry.disk else { return Ok(None) };
    let wrong = |field: &str, problem: &str| Err(WireError::new(format!("disk{field}"), problem));
    if entry.name != "disk" {
        return wrong("", &format!("DiskInfo should not be set for {} resource", entry.name));
    }
    if disk.source.is_some() {
        return wrong(".source", "disks with a source of their own are not supported; leave it unset");
    }
    let Some(persistence) = &disk.persistence else {
        return match disk.volume {
            Some(_) => wrong(".volume", "Non-persistent volume not supported"),
            None => wrong("", "DiskInfo is set but empty"),
        };
    };
    let Some(volume) = &disk.volume else {
        return wrong("", "Expecting 'volume' to be set for persistent volume");
    };
    if volume.host_path.is_some() {
        return wrong(".volume", "Expecting 'host_path' to be unset for persistent volume");
    }
    if volume.image.is_some() || volume.source.is_some() {
        return wrong(".volume", "Expecting 'image' and 'source' to be unset for persistent volume");
    }
    if volume.mode() == Mode::Ro {
        return wrong(".volume", "Read-only persistent volume not supported");
    }
    if let Some(principal) = &persistence.principal {
        short("disk.persistence.principal", principal.as_bytes(), limits::NAME_BYTES_MAX)?;
    }
    Ok(Some(Volume {
        id: id!(VolumeId, "disk.persistence.id", persistence.id)?,
        principal: persistence.principal.as_deref().map(Into::into),
        container_path: container_path(&volume.container_path).within("disk.volume")?.into(),
        read_only: false,
    }))
}

/// A path below the sandbox.
pub(crate) fn container_path(path: &str) -> Result<&str, WireError> {
    short("container_path", path.as_bytes(), limits::NAME_BYTES_MAX)?;
    let bad = |problem: &str| Err(WireError::new("container_path", format!("{path:?} {problem}")));
    if path.starts_with('/') {
        return bad("is absolute: give a path from the sandbox, for example \"data\"");
    }
    if path.chars().any(char::is_control) {
        return bad("contains a control character");
    }
    match path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        true => bad("has a component that is empty, '.' or '..'"),
        false => Ok(path),
    }
}

/// Writes what sets an amount apart.
#[allow(deprecated)]
pub(super) fn wire_label(entry: &mut mesos::Resource, label: Option<&Label>, form: Form) {
    let reservations = label.map(|label| label.reservations.as_slice()).unwrap_or_default();
    match (form, reservations) {
        (Form::Refined, _) => {}
        (Form::Plain | Form::Both, []) => entry.role = Some("*".into()),
        (Form::Plain | Form::Both, [one]) => {
            entry.role = Some(one.role.to_string());
            entry.reservation =
                one.dynamic.then(|| ReservationInfo { r#type: None, role: None, ..wire_reservation(one) });
        }
        (Form::Plain | Form::Both, _) => {}
    }
    if form != Form::Plain || reservations.len() > 1 {
        entry.reservations = reservations.iter().map(wire_reservation).collect();
    }
    entry.disk = label.and_then(|label| label.volume.as_ref()).map(wire_volume);
}

fn wire_reservation(reservation: &Reservation) -> ReservationInfo {
    let kind = if reservation.dynamic { WireType::Dynamic } else { WireType::Static };
    let label = |(key, value): &(std::sync::Arc<str>, Option<std::sync::Arc<str>>)| mesos::Label {
        key: key.to_string(),
        value: value.as_ref().map(ToString::to_string),
    };
    let labels: Vec<_> = reservation.labels.iter().map(label).collect();
    ReservationInfo {
        principal: reservation.principal.as_ref().map(ToString::to_string),
        labels: (!labels.is_empty()).then_some(mesos::Labels { labels }),
        role: Some(reservation.role.to_string()),
        r#type: Some(kind.into()),
    }
}

fn wire_volume(volume: &Volume) -> DiskInfo {
    let mode = if volume.read_only { Mode::Ro } else { Mode::Rw };
    DiskInfo {
        persistence: Some(Persistence {
            id: volume.id.to_string(),
            principal: volume.principal.as_ref().map(ToString::to_string),
        }),
        volume: Some(mesos::Volume {
            mode: mode.into(),
            container_path: volume.container_path.to_string(),
            ..Default::default()
        }),
        source: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, deprecated)]

    use super::*;
    use crate::resources;

    fn units(name: &str) -> mesos::Resource {
        let scalar = Some(mesos::value::Scalar { value: 1.0 });
        mesos::Resource { name: name.into(), scalar, ..Default::default() }
    }

    fn dynamic(role: &str) -> ReservationInfo {
        let (role, r#type) = (Some(role.into()), Some(WireType::Dynamic.into()));
        ReservationInfo { role, r#type, ..Default::default() }
    }

    fn database(path: &str) -> DiskInfo {
        let volume =
            mesos::Volume { container_path: path.into(), mode: Mode::Rw.into(), ..Default::default() };
        let persistence = Some(Persistence { id: "db".into(), principal: None });
        DiskInfo { persistence, volume: Some(volume), source: None }
    }

    fn problem(change: impl FnOnce(&mut mesos::Resource)) -> String {
        let mut entry = units("disk");
        change(&mut entry);
        resources(&[entry]).unwrap_err().to_string()
    }

    #[test]
    fn what_breaks_a_rule_is_refused_with_the_rule() {
        let stack = |roles: &[&str]| roles.iter().map(|role| dynamic(role)).collect::<Vec<_>>();
        let reserved =
            |disk: DiskInfo| problem(move |it| (it.reservations, it.disk) = (vec![dynamic("a")], Some(disk)));
        for (text, part) in [
            (problem(|it| it.reservations = stack(&["*"])), "cannot be reserved"),
            (problem(|it| it.reservations = stack(&["a", "b"])), "not a refinement of 'a'"),
            (problem(|it| it.reservations = stack(&["a", "a"])), "not a refinement"),
            (problem(|it| it.reservations = vec![ReservationInfo::default()]), "must be STATIC or DYNAMIC"),
            (problem(|it| it.reservation = Some(ReservationInfo::default())), "cannot be dynamically"),
            (
                problem(|it| (it.role, it.reservation) = (Some("a".into()), Some(dynamic("a")))),
                "must be unset",
            ),
            (problem(|it| (it.role, it.reservations) = (Some("b".into()), stack(&["a"]))), "something else"),
            (problem(|it| it.disk = Some(database("data"))), "from unreserved resources"),
            (problem(|it| it.disk = Some(DiskInfo::default())), "set but empty"),
            (reserved(database("/data")), "is absolute"),
            (reserved(database("a/../../b")), "'..'"),
            (
                reserved(DiskInfo {
                    volume: database("data").volume.map(|it| mesos::Volume { mode: Mode::Ro.into(), ..it }),
                    ..database("data")
                }),
                "Read-only",
            ),
            (reserved(DiskInfo { volume: None, ..database("data") }), "Expecting 'volume'"),
            (reserved(DiskInfo { persistence: None, ..database("data") }), "Non-persistent volume"),
        ] {
            assert!(text.contains(part), "{text}: {part}");
        }
        let mut cpus = units("cpus");
        (cpus.reservations, cpus.disk) = (stack(&["a"]), Some(database("data")));
        assert!(resources(&[cpus]).unwrap_err().to_string().contains("should not be set for cpus"));
    }

    #[test]
    fn both_forms_may_say_the_same() {
        let mut entry = units("cpus");
        entry.reservations = vec![dynamic("a")];
        let refined = resources(std::slice::from_ref(&entry)).unwrap();
        entry.role = Some("a".into());
        entry.reservation = Some(ReservationInfo::default());
        assert_eq!(resources(std::slice::from_ref(&entry)).unwrap(), refined);
        entry.reservations.clear();
        assert_eq!(resources(&[entry]).unwrap(), refined);
    }
}
