//! What is true of every registry, checked by tests and by the simulation.

use crate::{Registry, registry::Indexes};
use muster_model::{AgentId, Resources, TaskKey};
use std::collections::BTreeMap;

impl Registry {
    /// Checks the laws and names the first that does not hold.
    pub fn check_laws(&self) -> Result<(), String> {
        let derived = Indexes::of(self);
        if derived != self.index {
            return Err(format!("indexes differ from the tables: {:?} against {:?}", self.index, derived));
        }
        let mut living: BTreeMap<&AgentId, Vec<&Resources>> = BTreeMap::new();
        for executor in self.executors.values().filter(|it| self.living.contains(&it.key)) {
            living.entry(&executor.key.agent_id).or_default().push(&executor.spec.resources);
        }
        for agent in self.agents() {
            // What runs there though nobody gave it is held as its agent lists it.
            let mut given = self.held_on(&agent.id);
            agent.strays.values().for_each(|stray| given.subtract(&stray.resources));
            living.get(&agent.id).into_iter().flatten().for_each(|it| given.subtract(it));
            let total = self.total_of(agent);
            if !total.contains(&given) {
                return Err(format!("agent {} gave {given} of {total}", agent.id));
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
            if !task.updates().is_empty() && self.framework(&task.key.framework_id).is_none() {
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
        self.check_carved()?;
        self.check_groups()?;
        for (framework_id, task_id, _) in self.told.iter() {
            let key = TaskKey { framework_id: framework_id.clone(), task_id: task_id.clone() };
            if !self.tasks.contains(&key) {
                return Err(format!("the last word of {key} is kept, and it is over"));
            }
        }
        let held: Resources =
            self.holdings().iter().fold(Resources::none(), |sum, it| sum.plus(&it.resources));
        let by_agent = self.index.held_on_agent.values().fold(Resources::none(), |sum, it| sum.plus(it));
        if held.quantities() != by_agent.quantities() {
            return Err(format!("{held} is held, but agents count {by_agent}"));
        }
        Ok(())
    }

    fn check_carved(&self) -> Result<(), String> {
        for (id, carved) in self.carved.iter() {
            let Some(agent) = self.agent(id).filter(|agent| !agent.is_gone()) else {
                return Err(format!("{} is made of agent {id}, which is gone", carved.made));
            };
            let given = &agent.info.resources;
            let Some(total) = carved.of(given) else {
                return Err(format!("{} cannot be made of {given}", carved.made));
            };
            if total.quantities() != given.quantities() {
                return Err(format!("agent {id} has {total}, but came with {given}"));
            }
            let labels: Vec<_> = carved.made.iter_labelled().filter_map(|(_, label, _)| label).collect();
            if carved.made.is_empty() || !labels.iter().all(|label| label.is_made()) {
                return Err(format!("agent {id} came with what counts as made: {}", carved.made));
            }
            let volumes = labels.iter().filter(|label| label.volume.is_some()).count();
            if volumes != carved.volumes.len() {
                return Err(format!("agent {id} has {volumes} volumes, and numbers {:?}", carved.volumes));
            }
        }
        for (seq, _) in self.spent_operations.iter() {
            if !self.spent.contains(seq) {
                return Err(format!("operations of a forgotten ACCEPT {seq} are remembered"));
            }
        }
        for operation in self.operations() {
            if self.framework(&operation.framework_id).is_none() {
                return Err(format!("operation {} waits for nobody", operation.operation_id));
            }
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), String> {
        let mut left = std::collections::BTreeMap::new();
        for group in self.tasks().filter_map(|task| self.group_of(task.launch)) {
            *left.entry(group.first).or_insert(0u32) += 1;
        }
        for (first, group) in self.groups.iter() {
            if left.get(first) != Some(&group.left) || group.left > group.size {
                return Err(format!("group {first} counts {} tasks that are not over", group.left));
            }
        }
        Ok(())
    }
}
