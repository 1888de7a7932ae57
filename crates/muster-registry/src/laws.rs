//! What is true of every registry, checked by tests and by the simulation.

use crate::{Registry, registry::Indexes};
use muster_model::Resources;

impl Registry {
    /// Checks the laws and names the first that does not hold.
    pub fn check_laws(&self) -> Result<(), String> {
        let derived = Indexes::of(self);
        if derived != self.index {
            return Err(format!("indexes differ from the tables: {:?} against {:?}", self.index, derived));
        }
        for agent in self.agents() {
            let held = self.held_on(&agent.id);
            if !agent.info.resources.contains(&held) && agent.strays.is_empty() {
                return Err(format!("agent {} holds {held} of {}", agent.id, agent.info.resources));
            }
        }
        for task in self.tasks() {
            if task.is_done() {
                return Err(format!("task {} is over and still among the live", task.key));
            }
            if task.held && self.agent(&task.agent_id).is_none() {
                return Err(format!("task {} holds resources of no agent", task.key));
            }
            if !task.held && !task.state.is_terminal() {
                return Err(format!("task {} is {} and holds nothing", task.key, task.state));
            }
            if !task.updates.is_empty() && self.framework(&task.key.framework_id).is_none() {
                return Err(format!("task {} waits for a framework that is no more", task.key));
            }
        }
        for (id, stream) in self.streams.iter() {
            if self.framework(id).is_none_or(|framework| framework.session != stream.session) {
                return Err(format!("framework {id} has an event stream of another session"));
            }
        }
        for executor in self.executors.values() {
            let held = self.tasks_of_agent(&executor.key.agent_id).filter(|task| {
                task.held
                    && task.key.framework_id == executor.key.framework_id
                    && task.executor_id.as_ref() == Some(&executor.key.executor_id)
            });
            if held.count() != executor.tasks as usize {
                return Err(format!("executor {:?} counts its tasks wrongly", executor.key));
            }
            if executor.tasks == 0 && !self.living.contains(&executor.key) {
                return Err(format!("executor {:?} holds for nobody", executor.key));
            }
        }
        for (key, _) in self.living.iter() {
            if !self.executors.contains(key) {
                return Err(format!("executor {key:?} lives and holds nothing"));
            }
        }
        for (id, duty) in self.duties.iter() {
            if self.agent(id).is_none_or(|agent| agent.is_gone()) {
                return Err(format!("agent {id} has a duty and is no more"));
            }
            if duty.is_draining() && !self.has_something(id) {
                return Err(format!("agent {id} is empty and still draining"));
            }
        }
        for (id, _) in self.addresses.iter() {
            if self.agent(id).is_none_or(|agent| agent.is_gone()) {
                return Err(format!("agent {id} has an address and is no more"));
            }
        }
        for (name, _) in self.down_machines.iter() {
            if !self.index.scheduled.contains_key(name) {
                return Err(format!("machine {name} is down and not in the schedule"));
            }
        }
        for agent in self.agents().filter(|agent| agent.lost_since().is_none()) {
            if self.down_machine(&agent.info.hostname, self.addresses.get(&agent.id).map(|ip| **ip)).is_some()
            {
                return Err(format!("agent {} is here, and its machine is down", agent.id));
            }
        }
        for (role, settings) in self.role_settings() {
            if settings.is_empty() {
                return Err(format!("role {role} has settings that set nothing"));
            }
        }
        let held: Resources =
            self.holdings().iter().fold(Resources::none(), |sum, it| sum.plus(&it.resources));
        let by_agent = self.index.held_on_agent.values().fold(Resources::none(), |sum, it| sum.plus(it));
        if held.scalar("cpus") != by_agent.scalar("cpus") {
            return Err(format!("{held} is held, but agents count {by_agent}"));
        }
        Ok(())
    }
}
