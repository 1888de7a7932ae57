//! Conversions of resources: what may be asked for, and how an agent's total changes.

use crate::{Agent, Carved, Change, Framework, Outcome, Refusal, Registry, registry::Context};
use muster_model::{AgentId, Conversion, Label, Resources, Role, Value, VolumeNumber};
use std::{collections::BTreeSet, sync::Arc};

/// The most kinds of resources that an agent may have: each list of them is sent whole.
const KINDS_MAX: usize = 200;

/// Who asks for a conversion.
pub(super) enum Asking<'a> {
    /// A framework, out of resources that it was offered in a role.
    Framework(&'a Framework, &'a Role),
    /// An operator.
    Operator,
}

impl Registry {
    /// Converts resources of an agent that nobody holds, for an operator.
    pub(crate) fn convert_free(
        &mut self,
        agent_id: &AgentId,
        conversion: &Conversion,
        to: &mut Context<'_>,
    ) -> Outcome {
        let Some(agent) = self.agents.get(agent_id).cloned() else {
            return Outcome::Refused(Refusal::UnknownAgent(agent_id.clone()));
        };
        if !agent.is_connected() {
            let why = format!("agent {agent_id} is {}", agent.state_name());
            return Outcome::Refused(Refusal::NotFree(why.into()));
        }
        if let Err(why) = self.check_conversion(&agent, conversion) {
            return Outcome::Refused(Refusal::BadConversion(why.into()));
        }
        let (consumed, room) = (conversion.consumed(), self.room_on(&agent));
        if !room.contains(&consumed) {
            let why = format!("'{room}' does not contain '{consumed}'");
            return Outcome::Refused(Refusal::NotFree(why.into()));
        }
        self.convert(&agent, conversion, to);
        Outcome::Done
    }

    /// Why an operator may not ask for a conversion, whatever is free. The API uses the same function to answer early.
    pub fn check_conversion(&self, agent: &Agent, conversion: &Conversion) -> Result<(), String> {
        self.check(agent, conversion, &Asking::Operator)
    }

    /// Why a conversion may not be asked for, whatever is free.
    pub(super) fn check(
        &self,
        agent: &Agent,
        conversion: &Conversion,
        asking: &Asking<'_>,
    ) -> Result<(), String> {
        if conversion.named().is_empty() {
            return Err("no resources are named".into());
        }
        for (name, label, value) in conversion.named().iter_labelled() {
            let label = label.cloned().unwrap_or_default();
            let what = shown(name, &label, value);
            match conversion {
                Conversion::Reserve(_) | Conversion::Rereserve { .. } => {
                    check_reserve(&label, &what, asking)?
                }
                Conversion::Unreserve(_) => check_unreserve(&label, &what)?,
                Conversion::Create(_) => check_create(&label, &what, asking)?,
                Conversion::Destroy(_) if label.volume.is_none() => {
                    return Err(format!("{what} is not a persistent volume"));
                }
                Conversion::Destroy(_) => {}
            }
        }
        match conversion {
            Conversion::Create(volumes) => self.check_unique(agent, volumes)?,
            Conversion::Destroy(volumes) => self.check_destroy(agent, volumes)?,
            Conversion::Rereserve { from, to } => check_source(from, to)?,
            Conversion::Reserve(_) | Conversion::Unreserve(_) => {}
        }
        let mut total = self.total_of(agent).into_owned();
        total.convert(&conversion.consumed(), &conversion.converted());
        if total.iter().count() > KINDS_MAX {
            return Err(format!(
                "agent {} would have more than {KINDS_MAX} different reservations and volumes",
                agent.id
            ));
        }
        Ok(())
    }

    fn check_unique(&self, agent: &Agent, volumes: &Resources) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for (_, label, _) in volumes.iter_labelled() {
            let Some(key) = label.and_then(volume_key) else { continue };
            let is_there = self.carved.get(&agent.id).is_some_and(|it| it.volumes.contains_key(&key));
            if is_there || !seen.insert(key.clone()) {
                return Err(format!("Persistence ID '{}' is not unique", key.1));
            }
        }
        Ok(())
    }

    fn check_destroy(&self, agent: &Agent, volumes: &Resources) -> Result<(), String> {
        if self.carved.get(&agent.id).is_none_or(|carved| !carved.made.contains(volumes)) {
            return Err("Persistent volumes not found".into());
        }
        let held = self.held_on(&agent.id);
        let is_held = |label: Option<&Label>| held.get_labelled("disk", label).is_some();
        match volumes.iter_labelled().any(|(_, label, _)| is_held(label)) {
            true => Err("Persistent volumes in use".into()),
            false => Ok(()),
        }
    }

    /// Carries a conversion out whose resources are free.
    pub(super) fn convert(&mut self, agent: &Agent, conversion: &Conversion, to: &mut Context<'_>) {
        let mut carved = self.carved.get(&agent.id).map(|it| (**it).clone()).unwrap_or_default();
        let made = |all: Resources| all.filtered(|label| label.is_some_and(Label::is_made));
        carved.made.subtract(&made(conversion.consumed()));
        carved.made.add(&made(conversion.converted()));
        let keys = conversion.named().iter_labelled().filter_map(|(_, label, _)| volume_key(label?));
        let keys: Vec<_> = keys.collect();
        match conversion {
            Conversion::Create(_) => {
                for key in keys {
                    let number = self.next_volume();
                    carved.volumes.insert(key, number);
                }
            }
            Conversion::Destroy(_) => carved.volumes.retain(|key, _| !keys.contains(key)),
            Conversion::Reserve(_) | Conversion::Unreserve(_) | Conversion::Rereserve { .. } => {}
        }
        if carved == Carved::default() {
            self.carved.remove(&agent.id);
        } else {
            self.carved.put(agent.id.clone(), carved);
        }
        let (agent_id, total) = (agent.id.clone(), self.total_of(agent).into_owned());
        to.changes.push(Change::TotalChanged { agent_id, total });
        if let Conversion::Destroy(_) = conversion {
            to.changes.push(Change::VolumesDestroyed(agent.id.clone()));
        }
    }

    /// The incarnation is part of it: one that was recovered counts from where its backup was.
    fn next_volume(&mut self) -> VolumeNumber {
        let incarnation = u64::from(self.header.incarnation);
        VolumeNumber(incarnation << 40 | self.next_seq())
    }
}

fn volume_key(label: &Label) -> Option<(Role, muster_model::VolumeId)> {
    Some((label.reserved_role()?.clone(), label.volume.as_ref()?.id.clone()))
}

/// One kind, for people.
fn shown(name: &str, label: &Label, value: &Value) -> String {
    let mut one = Resources::none();
    one.insert_labelled(
        name,
        Some(Arc::new(label.clone())).filter(|it| **it != Label::default()),
        value.clone(),
    );
    one.to_string()
}

fn check_reserve(label: &Label, what: &str, asking: &Asking<'_>) -> Result<(), String> {
    let Some(last) = label.reservations.last().filter(|last| last.dynamic) else {
        return Err(format!("Resource {what} is not dynamically reserved"));
    };
    if label.volume.is_some() {
        return Err(format!("Persistent volume {what} cannot be reserved"));
    }
    let Asking::Framework(framework, role) = asking else { return Ok(()) };
    if let Some(principal) = &framework.info.principal {
        let asked = format!("A reserve operation was attempted by principal '{principal}', but");
        match &last.principal {
            None => {
                return Err(format!(
                    "{asked} there is a reserved resource in the request with no principal set"
                ));
            }
            Some(other) if other != principal => {
                return Err(format!(
                    "{asked} the reserved resource in the request has principal '{other}' set"
                ));
            }
            Some(_) => {}
        }
    }
    if last.role != **role {
        return Err(format!(
            "A reserve operation was attempted for a resource with role '{}', but the resource was allocated to \
             role '{role}'",
            last.role
        ));
    }
    if !framework.info.roles.contains(role) {
        return Err(format!(
            "A reserve operation was attempted for a resource allocated to role '{role}', which is not one of the \
             framework's roles"
        ));
    }
    if label.is_refined() && !framework.info.capabilities.reservation_refinement {
        return Err("refined reservations need the capability RESERVATION_REFINEMENT".into());
    }
    Ok(())
}

/// What is reserved anew is as much as it is taken from, and what the agent came reserved with stays so: no reservation
/// that was made is asked of, any may be undone.
fn check_source(from: &Resources, to: &Resources) -> Result<(), String> {
    if let Some((name, label, value)) =
        from.iter_labelled().find(|(_, label, _)| label.is_some_and(|label| label.volume.is_some()))
    {
        let what = shown(name, &label.cloned().unwrap_or_default(), value);
        return Err(format!("Persistent volume {what} cannot be reserved: please destroy it first"));
    }
    let origin = |all: &Resources| all.relabelled(|label| label.and_then(Label::origin));
    match origin(from) == origin(to) {
        true => Ok(()),
        false => Err(format!("The source '{from}' is not as much as what is to be reserved of it, '{to}'")),
    }
}

fn check_unreserve(label: &Label, what: &str) -> Result<(), String> {
    if !label.is_dynamic() {
        return Err(format!("Resource {what} is not dynamically reserved"));
    }
    if label.volume.is_some() {
        return Err(format!(
            "A dynamically reserved persistent volume {what} cannot be unreserved directly. Please destroy the \
             persistent volume first then unreserve the resource"
        ));
    }
    Ok(())
}

fn check_create(label: &Label, what: &str, asking: &Asking<'_>) -> Result<(), String> {
    let Some(volume) = &label.volume else {
        return Err(format!("Resource {what} does not have DiskInfo"));
    };
    if volume.read_only {
        return Err("Read-only persistent volume not supported".into());
    }
    if let Asking::Framework(framework, _) = asking
        && let Some(principal) = &framework.info.principal
    {
        let asked = format!("A create operation was attempted by principal '{principal}', but");
        match &volume.principal {
            None => {
                return Err(format!(
                    "{asked} there is a volume in the operation with no principal set in DiskInfo"
                ));
            }
            Some(other) if other != principal => {
                return Err(format!(
                    "{asked} there is a volume in the operation with principal '{other}' set in DiskInfo"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
