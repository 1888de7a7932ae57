//! The registry of the records that were taken of it.
//!
//! There may be millions of them, and until all are in their places nobody is served. So what can be done to a record
//! by itself ([`Known::ready`]) is apart from what is done to the registry ([`Registry::restore_ready`]): whoever reads
//! records does one while another thread does the other.

use crate::{
    Record, Registry, RestoreError, StoredTask, Task,
    registry::Indexes,
    table::hash_of,
    task::{AgentTasks, ByLaunch, Known, Origin, Standings},
};
use imbl::OrdSet;
use muster_model::{AgentId, LaunchNumber, Resources};
use std::{collections::BTreeMap, sync::Arc};

/// A task that is ready to be put in its place.
pub struct ReadyTask {
    task: Arc<Task>,
    hash: u64,
}

impl Known {
    /// Makes a record that was read ready.
    pub fn ready(&mut self, record: Record<Box<StoredTask<'_>>>) -> Record<ReadyTask> {
        record.with_task(|seq, stored| {
            let hash = match seq {
                Some(seq) => hash_of(&seq, &stored),
                None => hash_of(&stored.key, &stored),
            };
            ReadyTask { task: Arc::new(self.task(*stored)), hash }
        })
    }
}

impl Registry {
    /// The registry that these records were taken of.
    pub fn restore(records: impl IntoIterator<Item = Record>) -> Result<Self, RestoreError> {
        let mut known = Known::default();
        let ready = |record: Record| {
            record.with_task(|seq, task| {
                let hash = match seq {
                    Some(seq) => hash_of(&seq, &task),
                    None => hash_of(&task.key, &task),
                };
                ReadyTask { task: Arc::new(known.share(*task)), hash }
            })
        };
        let all = Self::restore_ready(records.into_iter().map(ready))?;
        Ok(all.knowing(known))
    }

    /// Lets tasks that come later have in common with those that were restored what they have alike.
    #[must_use]
    pub fn knowing(mut self, known: Known) -> Self {
        self.alike = known.into_alike();
        self
    }

    /// The registry that these records were taken of, made ready in the same order.
    pub fn restore_ready(records: impl IntoIterator<Item = Record<ReadyTask>>) -> Result<Self, RestoreError> {
        let mut records = records.into_iter();
        let Some(Record::Header(header)) = records.next() else { return Err(RestoreError::Header) };
        let mut all = Self::new(header.cluster_id.clone(), header.incarnation);
        all.header = *header;
        let mut on_agents = OnAgents::default();
        for record in records {
            match record {
                Record::Header(_) => return Err(RestoreError::Header),
                Record::Framework(it) => drop(all.frameworks.put(it.id.clone(), *it)),
                Record::Agent(it) => drop(all.agents.put(it.id.clone(), *it)),
                Record::Task(ReadyTask { task, hash }) => {
                    on_agents.add_task(&task);
                    let origin = task.origin.clone();
                    all.tasks.put_hashed(&origin.key, task, hash);
                }
                Record::Executor(it) => drop(all.executors.put(it.key.clone(), *it)),
                Record::CompletedTask(seq, ReadyTask { task, hash }) => {
                    all.completed_tasks.put_hashed(seq, task, hash);
                }
                Record::CompletedFramework(seq, it) => drop(all.completed_frameworks.put(seq, *it)),
                Record::RemovedFramework(id, at) => drop(all.removed_frameworks.put(id, at)),
                Record::Spent(seq, it) => drop(all.spent.put(seq, *it)),
                Record::Newcomer(seq, it) => drop(all.newcomers.put(seq, *it)),
                Record::EventStream(id, it) => drop(all.streams.put(id, it)),
                Record::Living(key, number) => drop(all.living.put(*key, number)),
                Record::RoleSettings(role, it) => drop(all.roles.put(role, *it)),
                Record::Duty(id, it) => drop(all.duties.put(id, it)),
                Record::Address(id, ip) => drop(all.addresses.put(id, ip)),
                Record::Window(place, it) => drop(all.windows.put(place, *it)),
                Record::DownMachine(name, since) => drop(all.down_machines.put(*name, since)),
                Record::Carved(id, it) => drop(all.carved.put(id, *it)),
                Record::Operation(it) => {
                    let key = (it.framework_id.clone(), it.operation_id.clone());
                    all.operations.put(key, *it);
                }
                Record::SpentOperations(seq, it) => drop(all.spent_operations.put(seq, it)),
                Record::Group(first, it) => drop(all.groups.put(first, it)),
                Record::Told(key, it) => drop(all.told.put(&key, it)),
            }
        }
        all.index = Indexes::with(on_agents, &all);
        Ok(all)
    }
}

/// What is on each agent.
#[derive(Default)]
pub(crate) struct OnAgents(BTreeMap<AgentId, OnAgent>);

#[derive(Default)]
struct OnAgent {
    /// With their launches, by which they are sorted: looking at the tasks for each comparison takes long.
    tasks: Vec<(LaunchNumber, Arc<Origin>)>,
    standings: Standings,
    held: Resources,
}

impl OnAgents {
    fn at(&mut self, id: &AgentId) -> &mut OnAgent {
        self.0.entry(id.clone()).or_default()
    }

    fn add_task(&mut self, task: &Task) {
        let on_agent = self.at(&task.agent_id);
        on_agent.tasks.push((task.launch, task.origin.clone()));
        on_agent.standings.add(task.launch, task.standing());
        if task.held {
            on_agent.held.add(&task.resources);
        }
    }
}

impl Indexes {
    /// Everything derived, from the tables alone.
    pub(crate) fn of(all: &Registry) -> Self {
        let mut on_agents = OnAgents::default();
        all.tasks.values().for_each(|task| on_agents.add_task(task));
        Self::with(on_agents, all)
    }

    /// Everything derived, where it is known what tasks are on the agents.
    fn with(mut on_agents: OnAgents, all: &Registry) -> Self {
        let mut index = Self::default();
        for executor in all.executors.values() {
            on_agents.at(&executor.key.agent_id).held.add(&executor.spec.resources);
        }
        for agent in all.agents.values().filter(|agent| !agent.strays.is_empty()) {
            let held = &mut on_agents.at(&agent.id).held;
            agent.strays.values().for_each(|stray| held.add(&stray.resources));
        }
        for (id, OnAgent { mut tasks, standings, held }) in on_agents.0 {
            if !tasks.is_empty() {
                tasks.sort_unstable_by_key(|(launch, _)| *launch);
                let tasks: OrdSet<_> = tasks.into_iter().map(|(_, origin)| ByLaunch(origin)).collect();
                index.tasks_of_agent.insert(id.clone(), AgentTasks::new(tasks, standings));
            }
            if !held.is_empty() {
                index.held_on_agent.insert(id, held);
            }
        }
        for agent in all.agents.values() {
            if let Some(since) = agent.lost_since() {
                index.lost_agents.insert((since, agent.id.clone()));
            }
            if !matches!(agent.state, crate::AgentState::Gone { .. }) {
                index.agent_of_machine.insert(agent.info.machine_id.clone(), agent.id.clone());
            }
        }
        for (seq, spent) in all.spent.iter() {
            for offer_id in &spent.offer_ids {
                index.spent_offers.insert(offer_id.clone(), *seq);
            }
            index.spent_of_framework.entry(spent.framework_id.clone()).or_default().insert(*seq);
        }
        for (seq, task) in all.completed_tasks.iter() {
            index.completed_of_framework.entry(task.key.framework_id.clone()).or_default().insert(*seq);
        }
        index.newcomers = all.newcomers.iter().map(|(seq, newcomer)| (newcomer.token, *seq)).collect();
        index.scheduled = crate::apply::scheduled(all.windows.iter().map(|(place, it)| (*place, &**it)));
        index
    }
}
