//! How a task is described.

use muster_model::{AgentId, Resources, TaskSpec, Value};
use muster_proto::{WireError, mesos, task_spec, wire_resources};
use prost::Message;
use std::time::Duration;

/// A task to launch. Its agent is that of the offers it is launched with.
#[derive(Debug, Clone)]
pub struct Task {
    info: mesos::TaskInfo,
    needs: Resources,
}

impl Task {
    /// A shell command line.
    pub fn command(id: impl Into<String>, line: impl Into<String>) -> Self {
        Self::of(id, mesos::CommandInfo { value: Some(line.into()), ..Default::default() })
    }

    /// A program with its arguments, without a shell. The first argument is the program's own name.
    pub fn program(
        id: impl Into<String>,
        path: impl Into<String>,
        arguments: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let command = mesos::CommandInfo {
            value: Some(path.into()),
            shell: Some(false),
            arguments: arguments.into_iter().map(Into::into).collect(),
            ..Default::default()
        };
        Self::of(id, command)
    }

    /// A task as Mesos describes it. What it needs is in the description.
    pub fn from_info(info: mesos::TaskInfo) -> Self {
        Self { info, needs: Resources::none() }
    }

    fn of(id: impl Into<String>, command: mesos::CommandInfo) -> Self {
        let id = id.into();
        let info = mesos::TaskInfo {
            name: id.clone(),
            task_id: mesos::TaskId { value: id },
            command: Some(command),
            ..Default::default()
        };
        Self { info, needs: Resources::none() }
    }

    /// Its display name; its id when not given.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.info.name = name.into();
        self
    }

    /// Needs so many cpus.
    pub fn cpus(self, cpus: f64) -> Self {
        self.scalar("cpus", cpus)
    }

    /// Needs so much memory.
    pub fn mem_mb(self, mem_mb: u64) -> Self {
        self.scalar("mem", mem_mb as f64)
    }

    /// Needs so much disk.
    pub fn disk_mb(self, disk_mb: u64) -> Self {
        self.scalar("disk", disk_mb as f64)
    }

    fn scalar(mut self, name: &str, amount: f64) -> Self {
        // What is no amount is left in the description, where the check of the whole refuses it.
        let milli = amount * 1000.0;
        if (0.0..=1e15).contains(&milli) {
            self.needs.insert(name, Value::Scalar(milli.round() as u64));
        } else {
            self.info.resources.push(mesos::Resource {
                name: name.into(),
                r#type: mesos::value::Type::Scalar.into(),
                scalar: Some(mesos::value::Scalar { value: amount }),
                ..Default::default()
            });
        }
        self
    }

    /// Needs these as well.
    pub fn resources(mut self, resources: &Resources) -> Self {
        self.needs.add(resources);
        self
    }

    /// Runs as this user.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.info.command.get_or_insert_default().user = Some(user.into());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let environment = self.info.command.get_or_insert_default().environment.get_or_insert_default();
        environment.variables.push(mesos::environment::Variable {
            name: name.into(),
            value: Some(value.into()),
            ..Default::default()
        });
        self
    }

    /// How long it may take to end by itself when it is killed.
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        let nanoseconds = i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX);
        self.info.kill_policy =
            Some(mesos::KillPolicy { grace_period: Some(mesos::DurationInfo { nanoseconds }) });
        self
    }

    /// Adds a label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let labels = &mut self.info.labels.get_or_insert_default().labels;
        labels.push(mesos::Label { key: key.into(), value: Some(value.into()) });
        self
    }

    pub(crate) fn build(mut self, agent_id: &AgentId) -> Result<TaskSpec, WireError> {
        self.info.agent_id = mesos::AgentId { value: agent_id.to_string() };
        self.info.resources.extend(wire_resources(&self.needs));
        task_spec(&self.info.encode_to_vec())
    }
}
