//! What tasks write, wherever they run: found by way of the masters, read from the agents' own API.

pub(crate) mod agent;
pub(crate) mod attach;
mod cursor;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod logs;
mod terminal;

use crate::{
    cli::Masters,
    lists::{client, patiently},
};
use agent::{Agent, Failed};
use anyhow::bail;
use muster_model::{Index, LaunchNumber, TaskState};
use muster_proto::{executor_api::container_id, task::task_state, v1};
use muster_sdk::OperatorClient;
use std::collections::BTreeMap;

/// Tasks that are over and have the name that is looked for; the newest come first.
const COMPLETED_MAX: u32 = 1_000;

/// A task, its agent, and where its sandbox is there.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) task_id: String,
    pub(crate) framework_id: String,
    executor_id: String,
    launch: LaunchNumber,
    agent_id: String,
    /// Where its agent's API is; none while the masters do not know the agent.
    pub(crate) address: Option<String>,
    pub(crate) is_over: bool,
}

impl Found {
    fn of(task: v1::Task, addresses: &BTreeMap<String, String>) -> Self {
        let launch = task.launch.unwrap_or_default();
        let launch =
            LaunchNumber { incarnation: launch.incarnation, index: Index(launch.index), n: launch.n };
        Self {
            address: addresses.get(&task.agent_id).filter(|it| !it.is_empty()).cloned(),
            is_over: task_state(task.state).is_ok_and(TaskState::is_terminal) && !task.held,
            task_id: task.task_id,
            framework_id: task.framework_id,
            executor_id: task.executor_id,
            launch,
            agent_id: task.agent_id,
        }
    }

    /// The places where its sandbox may be, as its agent names them: the first that is there is it.
    pub(crate) fn places(&self) -> Vec<String> {
        let executor = |id: &str| format!("/frameworks/{}/executors/{id}/runs", self.framework_id);
        if self.executor_id.is_empty() {
            return vec![format!("{}/{}", executor(&self.task_id), container_id(self.launch))];
        }
        // A task of a group has one of its own, below that of its executor.
        let run = format!("{}/latest", executor(&self.executor_id));
        vec![format!("{run}/tasks/{}", self.task_id), run]
    }

    /// What it is called beside others.
    pub(crate) fn name(&self) -> &str {
        &self.task_id
    }
}

/// Asks masters and agents.
pub(crate) struct Finder {
    client: OperatorClient,
    agents: Agent,
}

impl Finder {
    pub(crate) fn new(masters: &Masters) -> Self {
        Self { client: client(masters), agents: Agent::new(masters.credential.clone()) }
    }

    /// The tasks of these names, each in its newest launch. A name may end in `*`.
    pub(crate) async fn find(
        &mut self,
        masters: &Masters,
        framework: Option<&str>,
        names: &[String],
    ) -> anyhow::Result<Vec<Found>> {
        let mut all = Vec::new();
        for name in names {
            let found = patiently(masters, self.named(framework, name)).await?;
            if found.is_empty() {
                let of = framework.map(|id| format!(" of framework {id}")).unwrap_or_default();
                bail!("no task {name:?}{of} is known; `muster ps --all` lists all");
            }
            let mut of: Vec<&str> = found.iter().map(|it| it.framework_id.as_str()).collect();
            of.dedup();
            if of.len() > 1 && !name.ends_with('*') {
                bail!("frameworks {} have a task {name:?}: name one by --framework", of.join(", "));
            }
            all.extend(found);
        }
        Ok(all)
    }

    async fn named(&mut self, framework: Option<&str>, name: &str) -> anyhow::Result<Vec<Found>> {
        let mut tasks = self.client.completed_tasks_named(framework, name, COMPLETED_MAX).await?;
        tasks.extend(self.client.tasks_named(framework, name).await?);
        let agents = self.client.agents().await?;
        let addresses = agents.into_iter().map(|agent| (agent.agent_id, agent.address)).collect();
        let mut newest: BTreeMap<(String, String), Found> = BTreeMap::new();
        for found in tasks.into_iter().map(|task| Found::of(task, &addresses)) {
            let key = (found.framework_id.clone(), found.task_id.clone());
            let other = newest.entry(key).or_insert_with(|| found.clone());
            if other.launch < found.launch {
                *other = found;
            }
        }
        Ok(newest.into_values().collect())
    }

    /// How one stands by now; as it was, where nobody knows it any more: then it is over.
    pub(crate) async fn again(&mut self, of: &Found) -> anyhow::Result<Found> {
        let found = self.named(Some(&of.framework_id), &of.task_id).await?;
        let same = found.into_iter().find(|it| it.launch == of.launch);
        Ok(same.unwrap_or_else(|| Found { is_over: true, ..of.clone() }))
    }

    /// The sandbox of a task that its agent has.
    ///
    /// # Errors
    /// The agent does not answer, or has none.
    pub(crate) async fn sandbox(&self, of: &Found) -> Result<String, Failed> {
        let address = self.address(of)?;
        let mut why = None;
        for place in of.places() {
            match self.agents.list(address, &place).await {
                Ok(_) => return Ok(place),
                Err(Failed::NotThere) => why = Some(Failed::NotThere),
                Err(other) => return Err(other),
            }
        }
        Err(why.unwrap_or(Failed::NotThere))
    }

    fn address<'a>(&self, of: &'a Found) -> Result<&'a str, Failed> {
        of.address
            .as_deref()
            .ok_or_else(|| Failed::Away(format!("agent {} is not known any more", of.agent_id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_its_launchs_and_that_of_a_group_below_its_executors() {
        let wire = v1::Task {
            framework_id: "f".into(),
            task_id: "t".into(),
            agent_id: "a".into(),
            launch: Some(v1::LaunchNumber { incarnation: 1, index: 9, n: 0 }),
            ..Default::default()
        };
        let addresses = BTreeMap::from([("a".to_owned(), "h:1".to_owned())]);
        let own = Found::of(wire.clone(), &addresses);
        let id = container_id("1.9.0".parse().unwrap());
        assert_eq!(own.places(), [format!("/frameworks/f/executors/t/runs/{id}")]);
        assert_eq!(own.address.as_deref(), Some("h:1"));
        let in_executor = Found::of(v1::Task { executor_id: "e".into(), ..wire }, &BTreeMap::new());
        let run = "/frameworks/f/executors/e/runs/latest";
        assert_eq!(in_executor.places(), [format!("{run}/tasks/t"), run.to_owned()]);
        assert_eq!(in_executor.address, None);
    }
}
