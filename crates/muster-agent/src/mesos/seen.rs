//! One moment of an agent, sorted as Mesos shows it: by frameworks, and in these by executors. A task with a process of
//! its own is shown as one in an executor of its own.

use super::{about::About, view::View};
use crate::history::{Completed, History, RunSeen, TaskSeen};
use muster_model::{ExecutorName, FrameworkId, LaunchNumber, Resources};
use muster_node::Process;
use muster_proto::{executor_api::container_id, mesos};
use prost::Message;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// How much of a command is told in the name of its executor (Mesos).
const COMMAND_CHARS: usize = 15;

/// One moment.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) about: Arc<About>,
    pub(crate) history: History,
    /// What of it is shown.
    pub(crate) view: View,
}

/// A framework and what of it is here.
pub(super) struct Framework<'a> {
    pub(super) id: &'a FrameworkId,
    pub(super) info: mesos::FrameworkInfo,
    pub(super) executors: Vec<Executor<'a>>,
    pub(super) completed: Vec<Executor<'a>>,
    /// Nothing of it is here any more, whether that is seen or not.
    pub(super) is_over: bool,
}

/// An executor, or a task with a process of its own.
pub(super) struct Executor<'a> {
    pub(super) number: LaunchNumber,
    /// Its whole description.
    pub(super) info: mesos::ExecutorInfo,
    /// What it holds itself.
    pub(super) own: Resources,
    pub(super) role: String,
    /// One that the framework named.
    pub(super) is_custom: bool,
    /// It has no process, and each of its tasks has one within its container.
    pub(super) built_in: bool,
    pub(super) process: Option<&'a Process>,
    /// Its tasks, and those that are over.
    pub(super) tasks: Vec<&'a TaskSeen>,
    pub(super) done: Vec<&'a TaskSeen>,
}

impl Executor<'_> {
    pub(super) fn id(&self) -> &str {
        &self.info.executor_id.value
    }

    pub(super) fn container_id(&self) -> String {
        container_id(self.number)
    }

    /// Its tasks that wait for it, and those that do not.
    pub(super) fn queued(&self) -> impl Iterator<Item = &TaskSeen> {
        self.tasks.iter().copied().filter(|task| task.is_queued())
    }

    pub(super) fn launched(&self) -> impl Iterator<Item = &TaskSeen> {
        self.tasks.iter().copied().filter(|task| !task.is_queued() && !task.state.is_terminal())
    }

    /// Those of which not all that was said is confirmed.
    pub(super) fn terminated(&self) -> impl Iterator<Item = &TaskSeen> {
        self.tasks.iter().copied().filter(|task| task.state.is_terminal())
    }

    /// What it and its tasks hold.
    pub(super) fn resources(&self) -> Resources {
        let live = self.tasks.iter().filter(|task| !task.state.is_terminal());
        live.fold(self.own.clone(), |sum, task| sum.plus(&task.intent.resources))
    }
}

impl Seen {
    /// All that is here, by framework; the live executors by their numbers, the others as they ended.
    pub(super) fn frameworks(&self) -> Vec<Framework<'_>> {
        let mut all: BTreeMap<&FrameworkId, Framework<'_>> = BTreeMap::new();
        let history = &self.history;
        let mut of = |id, executor, is_over| {
            let framework = all.entry(id).or_insert_with(|| self.framework(id));
            let list = if is_over { &mut framework.completed } else { &mut framework.executors };
            list.push(executor);
        };
        let mut within: BTreeMap<LaunchNumber, Vec<&TaskSeen>> = BTreeMap::new();
        for task in history.tasks.values() {
            match task.executor {
                Some(number) => within.entry(number).or_default().push(task),
                None => of(&task.intent.task.framework_id, self.command(task, false), false),
            }
        }
        for (number, run) in &history.runs {
            let tasks = within.remove(number).unwrap_or_default();
            of(&run.intent.name.framework_id, self.custom(run, tasks), false);
        }
        for it in &history.completed {
            let executor = match it {
                Completed::Task(task) => self.command(task, true),
                Completed::Run(run) => self.custom(run, Vec::new()),
            };
            of(it.framework_id(), executor, true);
        }
        let mut all: Vec<_> = all.into_values().collect();
        for it in &mut all {
            it.executors.sort_by_key(|executor| executor.number);
            it.is_over = it.executors.is_empty();
        }
        self.view.retain(&mut all);
        all
    }

    fn framework<'a>(&self, id: &'a FrameworkId) -> Framework<'a> {
        let (executors, completed) = Default::default();
        Framework { id, info: self.framework_info(id), executors, completed, is_over: false }
    }

    /// A framework's whole description.
    pub(super) fn framework_info(&self, id: &FrameworkId) -> mesos::FrameworkInfo {
        let sealed = self.history.frameworks.get(id);
        let info = sealed.map(|sealed| mesos::FrameworkInfo::decode(&**sealed).unwrap_or_default());
        mesos::FrameworkInfo {
            id: Some(mesos::FrameworkId { value: id.to_string() }),
            ..info.unwrap_or_default()
        }
    }

    /// A task with a process of its own, as an executor.
    #[allow(deprecated)] // tools look for the source
    fn command<'a>(&self, task: &'a TaskSeen, is_over: bool) -> Executor<'a> {
        let intent = &*task.intent;
        let info = muster_proto::container::shown_task(&intent.sealed);
        let id = intent.task.task_id.to_string();
        let name = format!("Command Executor (Task: {id}) {}", command_text(info.command.as_ref()));
        let role = self.role(&info, &intent.task.framework_id);
        Executor {
            number: intent.launch,
            info: mesos::ExecutorInfo {
                executor_id: mesos::ExecutorId { value: id.clone() },
                framework_id: Some(mesos::FrameworkId { value: intent.task.framework_id.to_string() }),
                command: info.command,
                name: Some(name),
                source: Some(id),
                labels: info.labels,
                ..Default::default()
            },
            own: Resources::none(),
            role,
            is_custom: false,
            built_in: false,
            process: task.process.as_ref(),
            tasks: if is_over { Vec::new() } else { vec![task] },
            done: if is_over { vec![task] } else { Vec::new() },
        }
    }

    fn custom<'a>(&self, run: &'a RunSeen, tasks: Vec<&'a TaskSeen>) -> Executor<'a> {
        let ExecutorName { framework_id, executor_id } = &run.intent.name;
        let info = muster_proto::container::shown_executor(&run.intent.sealed);
        let role = self.role_of(&info.resources, framework_id);
        Executor {
            number: run.intent.number,
            info: mesos::ExecutorInfo {
                executor_id: mesos::ExecutorId { value: executor_id.to_string() },
                framework_id: Some(mesos::FrameworkId { value: framework_id.to_string() }),
                ..info
            },
            own: run.intent.resources.clone(),
            role,
            is_custom: true,
            built_in: run.built_in && !run.is_over(),
            process: run.process.as_ref().filter(|_| !run.is_over()),
            tasks,
            done: run.done.iter().map(|task| &**task).collect(),
        }
    }

    /// On whose account a task is.
    pub(super) fn role(&self, info: &mesos::TaskInfo, framework_id: &FrameworkId) -> String {
        self.role_of(&info.resources, framework_id)
    }

    /// As the resources say; where they do not, the role of a framework that has one.
    fn role_of(&self, resources: &[mesos::Resource], framework_id: &FrameworkId) -> String {
        let said = resources.iter().find_map(|it| it.allocation_info.as_ref()?.role.clone());
        said.unwrap_or_else(|| match roles(&self.framework_info(framework_id)).as_slice() {
            [one] => one.clone(),
            _ => "*".into(),
        })
    }

    /// What is held here.
    pub(super) fn used(&self) -> Resources {
        let tasks = self.history.tasks.values().filter(|task| !task.state.is_terminal());
        let runs = self.history.runs.values().filter(|run| !run.is_over());
        let held = tasks.map(|task| &task.intent.resources).chain(runs.map(|run| &run.intent.resources));
        held.fold(Resources::none(), |sum, it| sum.plus(it))
    }

    /// Where a run or a task works.
    pub(super) fn sandbox(&self, framework_id: &str, executor: &Executor<'_>) -> PathBuf {
        let mut path = self.about.sandboxes.clone();
        path.extend([framework_id, executor.id(), &executor.number.to_string()]);
        path
    }
}

/// Whether a framework may have several roles.
pub(super) fn is_multi_role(info: &mesos::FrameworkInfo) -> bool {
    use mesos::framework_info::capability::Type;
    info.capabilities.iter().any(|it| it.r#type == Some(Type::MultiRole.into()))
}

/// The roles of a framework.
#[allow(deprecated)]
pub(super) fn roles(info: &mesos::FrameworkInfo) -> Vec<String> {
    match is_multi_role(info) {
        true => info.roles.clone(),
        false => vec![info.role().to_owned()],
    }
}

/// A command in the name of its executor, as Mesos cuts it.
fn command_text(command: Option<&mesos::CommandInfo>) -> String {
    let Some(command) = command else { return "(Command: NO COMMAND)".into() };
    let (text, before, after) = match (command.shell(), &command.value) {
        (true, None) => return "(Command: NO COMMAND)".into(),
        (true, Some(value)) => (value.clone(), "sh -c '", "'"),
        (false, value) => {
            let value = value.clone().into_iter();
            (value.chain(command.arguments.iter().cloned()).collect::<Vec<_>>().join(", "), "[", "]")
        }
    };
    let text = match text.chars().count() > COMMAND_CHARS {
        true => format!("{}...", text.chars().take(COMMAND_CHARS - 3).collect::<String>()),
        false => text,
    };
    format!("(Command: {before}{text}{after})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_in_short() {
        let shell = |value: &str| mesos::CommandInfo { value: Some(value.into()), ..Default::default() };
        assert_eq!(command_text(Some(&shell("sleep 1000"))), "(Command: sh -c 'sleep 1000')");
        assert_eq!(command_text(Some(&shell("sleep 1000; true"))), "(Command: sh -c 'sleep 1000; ...')");
        let plain = mesos::CommandInfo {
            shell: Some(false),
            arguments: vec!["x".into(), "1".into()],
            ..shell("/bin/x")
        };
        assert_eq!(command_text(Some(&plain)), "(Command: [/bin/x, x, 1])");
        assert_eq!(command_text(None), "(Command: NO COMMAND)");
    }
}
