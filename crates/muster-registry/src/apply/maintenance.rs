//! Maintenance of machines: the schedule, and machines that are down.
//!
//! A machine that is scheduled is draining in Mesos' words, though nothing is done to it before an operator says that it
//! is down: then its agents are told to stop, and none of its agents may come before the operator says that it is up.

use crate::{AgentState, Change, Kill, Outcome, Refusal, Registry, registry::Context};
use muster_model::{AgentId, MachineName, Reason, TaskState, Unavailability, Window};
use std::{collections::BTreeSet, net::IpAddr};

/// Machines that the schedule may name.
pub const MACHINES_MAX: usize = 10_000;

impl Registry {
    /// Puts a schedule in the place of the former one.
    pub(crate) fn set_schedule(&mut self, windows: &[Window], to: &mut Context<'_>) -> Outcome {
        let named: BTreeSet<MachineName> = folded(windows.iter().flat_map(|window| &window.machines));
        if named.len() > MACHINES_MAX {
            return Outcome::Refused(Refusal::Full("machines in the schedule"));
        }
        if let Some((down, _)) = self.down_machines.iter().find(|(name, _)| !named.contains(name)) {
            return Outcome::Refused(Refusal::MachineIsDown(self.as_scheduled(down)));
        }
        self.schedule(windows.to_vec(), to);
        Outcome::Done
    }

    pub(crate) fn start_maintenance(&mut self, machines: &[MachineName], to: &mut Context<'_>) -> Outcome {
        for name in machines {
            if !self.index.scheduled.contains_key(&name.folded()) {
                return Outcome::Refused(Refusal::NotScheduled(name.clone()));
            }
            if self.down_machines.contains(&name.folded()) {
                return Outcome::Refused(Refusal::NotDraining(name.clone()));
            }
        }
        let names = folded(machines);
        for name in &names {
            self.down_machines.put(name.clone(), self.header.wall);
        }
        for id in self.agents_on(&names) {
            self.shut_down(&id, to);
        }
        Outcome::Done
    }

    pub(crate) fn stop_maintenance(&mut self, machines: &[MachineName], to: &mut Context<'_>) -> Outcome {
        for name in machines {
            if !self.index.scheduled.contains_key(&name.folded()) {
                return Outcome::Refused(Refusal::NotScheduled(name.clone()));
            }
            if !self.down_machines.contains(&name.folded()) {
                return Outcome::Refused(Refusal::NotDown(name.clone()));
            }
        }
        let names = folded(machines);
        for name in &names {
            self.down_machines.remove(name);
        }
        let mut windows: Vec<Window> = self.windows().cloned().collect();
        for window in &mut windows {
            window.machines.retain(|name| !names.contains(&name.folded()));
        }
        windows.retain(|window| !window.machines.is_empty());
        self.schedule(windows, to);
        Outcome::Done
    }

    fn schedule(&mut self, windows: Vec<Window>, to: &mut Context<'_>) {
        let here: Vec<AgentId> =
            self.agents.values().filter(|it| it.lost_since().is_none()).map(|it| it.id.clone()).collect();
        let before: Vec<_> = here.iter().map(|id| self.unavailability(id)).collect();
        for place in self.windows.iter().map(|(place, _)| *place).collect::<Vec<_>>() {
            self.windows.remove(&place);
        }
        for (place, window) in (0..).zip(windows) {
            self.windows.put(place, window);
        }
        self.index.scheduled = scheduled(self.windows.iter().map(|(place, window)| (*place, &**window)));
        for (id, before) in here.into_iter().zip(before) {
            if self.unavailability(&id) != before {
                to.changes.push(Change::UnavailabilityChanged(id));
            }
        }
    }

    /// An agent's machine goes down: what runs there is lost, and held until the agent says that it ended.
    fn shut_down(&mut self, id: &AgentId, to: &mut Context<'_>) {
        let connected = self.agents.get(id).is_some_and(|agent| agent.is_connected());
        let tasks = self.copies_of_agent(id);
        for mut task in tasks {
            if !task.state.is_terminal() {
                let message = "its machine is down for maintenance";
                self.own_update(&mut task, TaskState::Lost, Reason::AgentRemoved, message, to);
            }
            let wanted = task.held && task.kill().is_none();
            if wanted {
                let kill = Kill { index: to.index, grace_ms: None };
                task.change(|rest| rest.kill = Some(kill));
            }
            if let Some(task) = self.put_task(task, to)
                && wanted
                && connected
            {
                to.changes.push(Change::KillDue(task));
            }
        }
        self.agents.update(id, |agent| agent.state = AgentState::Unreachable { since: to.now });
        self.index.lost_agents.insert((to.now, id.clone()));
        if connected {
            to.changes.push(Change::AgentShutDown(id.clone()));
        }
        to.changes.push(Change::AgentUnreachable(id.clone()));
    }

    /// Agents on these machines that belong to the cluster.
    fn agents_on(&self, names: &BTreeSet<MachineName>) -> Vec<AgentId> {
        let here = self.agents.values().filter(|agent| agent.lost_since().is_none());
        let on = here.filter(|agent| self.names_of(&agent.id).any(|name| names.contains(&name)));
        on.map(|agent| agent.id.clone()).collect()
    }

    /// All names of an agent's machine.
    fn names_of(&self, id: &AgentId) -> impl Iterator<Item = MachineName> {
        let ip = self.addresses.get(id).map(|ip| **ip);
        let agent = self.agents.get(id);
        agent.into_iter().flat_map(move |agent| MachineName::all_of(&agent.info.hostname, ip))
    }

    /// The machine that is down, if that of an agent with this name and address is.
    pub(crate) fn down_machine(&self, hostname: &str, ip: Option<IpAddr>) -> Option<MachineName> {
        if self.down_machines.len() == 0 {
            return None;
        }
        MachineName::all_of(hostname, ip).find(|name| self.down_machines.contains(name))
    }

    /// The name by which an agent's machine is in the schedule.
    pub(crate) fn scheduled_as(&self, id: &AgentId) -> Option<MachineName> {
        if self.index.scheduled.is_empty() {
            return None;
        }
        let name = self.names_of(id).find(|name| self.index.scheduled.contains_key(name))?;
        Some(self.as_scheduled(&name))
    }

    /// A machine's name as the operator wrote it.
    fn as_scheduled(&self, name: &MachineName) -> MachineName {
        let named = self.windows().flat_map(|window| &window.machines);
        named.into_iter().find(|it| it.folded() == *name).unwrap_or(name).clone()
    }

    /// When an agent will be away, by the schedule.
    pub fn unavailability(&self, id: &AgentId) -> Option<Unavailability> {
        if self.index.scheduled.is_empty() {
            return None;
        }
        let place = self.names_of(id).find_map(|name| self.index.scheduled.get(&name).copied())?;
        self.windows.get(&place).map(|window| window.unavailability)
    }

    /// The schedule, in order.
    pub fn windows(&self) -> impl Iterator<Item = &Window> {
        self.windows.values().map(|window| &**window)
    }

    /// Whether an operator said that the machine is down.
    pub fn is_down(&self, name: &MachineName) -> bool {
        self.down_machines.contains(&name.folded())
    }

    /// Agents whose machine is in the schedule, and when they will be away.
    pub fn unavailable_agents(&self) -> impl Iterator<Item = (&AgentId, Unavailability)> {
        let any = !self.index.scheduled.is_empty();
        let here = self.agents.values().filter(move |agent| any && agent.lost_since().is_none());
        here.filter_map(|agent| Some((&agent.id, self.unavailability(&agent.id)?)))
    }

    /// Whether an agent's machine goes by this name.
    pub fn is_on(&self, id: &AgentId, machine: &MachineName) -> bool {
        let machine = machine.folded();
        self.names_of(id).any(|name| name == machine)
    }
}

fn folded<'a>(names: impl IntoIterator<Item = &'a MachineName>) -> BTreeSet<MachineName> {
    names.into_iter().map(MachineName::folded).collect()
}

/// In which window each machine is.
pub(crate) fn scheduled<'a>(
    windows: impl Iterator<Item = (u32, &'a Window)>,
) -> imbl::OrdMap<MachineName, u32> {
    windows.flat_map(|(place, window)| window.machines.iter().map(move |it| (it.folded(), place))).collect()
}
