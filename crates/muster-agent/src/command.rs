//! From a task's description to what its supervisor runs.

use crate::supervisor::{MARK, Place, Spec};
use muster_node::Start;
use muster_proto::mesos::{self, TaskInfo, environment};
use prost::Message;
use std::{collections::BTreeMap, fs, path::PathBuf};

/// The PATH of a task that names none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a task cannot be run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Its description asks for what this agent does not do.
    Invalid(String),
    /// It could run elsewhere.
    Here(String),
}

/// What a supervisor needs to run this task's command.
pub(crate) fn spec(
    start: &Start,
    sandbox: PathBuf,
    place: &Place,
    hold_args: &[String],
    switch_user: bool,
) -> Result<Spec, Unfit> {
    let info = TaskInfo::decode(&*start.sealed)
        .map_err(|error| Unfit::Invalid(format!("The TaskInfo cannot be read: {error}")))?;
    if info.executor.is_some() {
        return Err(Unfit::Invalid("This agent runs command tasks only; the task names an executor".into()));
    }
    if info.container.is_some() {
        return Err(Unfit::Invalid(
            "This agent runs plain processes only; the task asks for a container".into(),
        ));
    }
    let Some(command) = &info.command else {
        return Err(Unfit::Invalid("The task has no command".into()));
    };
    let (program, arg0, args) = program(command)?;
    let env = environment(start, command, &sandbox, place)?;
    let named = command.user.as_deref().filter(|user| !user.is_empty()).unwrap_or(&start.user);
    let user = if switch_user { user(named)? } else { None };
    Ok(Spec {
        launch: start.launch,
        program,
        arg0,
        args,
        env,
        sandbox,
        user,
        open_files: None,
        hold_args: hold_args.to_vec(),
        place: place.clone(),
    })
}

fn program(command: &mesos::CommandInfo) -> Result<(String, String, Vec<String>), Unfit> {
    let value = command.value.as_deref().unwrap_or_default();
    let no_nul = |text: &str| match text.contains('\0') {
        true => Err(Unfit::Invalid("The command contains a NUL character".into())),
        false => Ok(text.to_owned()),
    };
    if value.is_empty() {
        return Err(Unfit::Invalid("The task's command has no value".into()));
    }
    if !command.uris.is_empty() {
        return Err(Unfit::Invalid("This agent does not fetch; the task's command names URIs".into()));
    }
    let value = no_nul(value)?;
    if command.shell() {
        return Ok(("/bin/sh".into(), "sh".into(), vec!["-c".into(), value]));
    }
    // The first argument is the command's own name for itself, as Mesos has it.
    let mut arguments = command.arguments.iter().map(|argument| no_nul(argument));
    let arg0 = arguments.next().transpose()?.unwrap_or_else(|| value.clone());
    Ok((value, arg0, arguments.collect::<Result<_, _>>()?))
}

fn environment(
    start: &Start,
    command: &mesos::CommandInfo,
    sandbox: &std::path::Path,
    place: &Place,
) -> Result<Vec<(String, String)>, Unfit> {
    let mut all = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    for variable in command.environment.iter().flat_map(|environment| &environment.variables) {
        if variable.r#type() == environment::variable::Type::Secret {
            let message = format!("This agent has no secrets; the variable {} is one", variable.name);
            return Err(Unfit::Invalid(message));
        }
        let value = variable.value.clone().unwrap_or_default();
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Unfit::Invalid(format!("The variable {:?} cannot be set", variable.name)));
        }
        all.insert(variable.name.clone(), value);
    }
    for (name, value) in [
        ("MESOS_SANDBOX", sandbox.display().to_string()),
        ("MESOS_TASK_ID", start.task.task_id.to_string()),
        ("MESOS_FRAMEWORK_ID", start.task.framework_id.to_string()),
        ("MESOS_AGENT_ID", start.agent_id.to_string()),
        (MARK, place.mark(Some(start.launch))),
    ] {
        all.insert(name.into(), value);
    }
    Ok(all.into_iter().collect())
}

/// User and group of a name, if it is not the agent's own user. Only root can be another.
fn user(name: &str) -> Result<Option<(u32, u32)>, Unfit> {
    let own = rustix::process::geteuid();
    if name.is_empty() || !own.is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    match find_user(&users, name) {
        Some((0, _)) => Ok(None),
        Some(found) => Ok(Some(found)),
        None => Err(Unfit::Here(format!("Failed to run as user {name:?}: this machine has no such user"))),
    }
}

fn find_user(users: &str, name: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::{AgentId, FrameworkId, LaunchNumber, Sealed, TaskId, TaskKey};

    fn check(info: &TaskInfo) -> Result<Spec, Unfit> {
        let start = Start {
            launch: LaunchNumber::default(),
            task: TaskKey { framework_id: FrameworkId::new("f"), task_id: TaskId::new("t") },
            agent_id: AgentId::new("a"),
            user: "".into(),
            sealed: Sealed::new(info.encode_to_vec()),
        };
        let place = Place { runtime: "/r".into(), exits: "/e".into() };
        spec(&start, "/s".into(), &place, &["hold".into()], true)
    }

    fn task(command: mesos::CommandInfo) -> TaskInfo {
        TaskInfo { command: Some(command), ..Default::default() }
    }

    #[test]
    fn a_shell_command_is_the_default() {
        let command = mesos::CommandInfo { value: Some("echo $A".into()), ..Default::default() };
        let spec = check(&task(command)).unwrap();
        assert_eq!((spec.program.as_str(), spec.args), ("/bin/sh", vec!["-c".to_owned(), "echo $A".into()]));
    }

    #[test]
    fn a_plain_command_takes_its_arguments() {
        let command = mesos::CommandInfo {
            value: Some("env".into()),
            shell: Some(false),
            arguments: vec!["my-env".into(), "-0".into()],
            ..Default::default()
        };
        let spec = check(&task(command)).unwrap();
        assert_eq!(
            (spec.program.as_str(), spec.arg0.as_str(), spec.args),
            ("env", "my-env", vec!["-0".to_owned()])
        );
    }

    #[test]
    fn the_tasks_own_variables_do_not_replace_what_it_is_told() {
        let variable = |name: &str, value: &str| environment_variable(name, value);
        let command = mesos::CommandInfo {
            value: Some("true".into()),
            environment: Some(mesos::Environment {
                variables: vec![
                    variable("A", "1"),
                    variable("PATH", "/p"),
                    variable("MESOS_TASK_ID", "other"),
                ],
            }),
            ..Default::default()
        };
        let env: BTreeMap<_, _> = check(&task(command)).unwrap().env.into_iter().collect();
        let get = |name: &str| env.get(name).map(String::as_str);
        assert_eq!((get("A"), get("PATH"), get("MESOS_TASK_ID")), (Some("1"), Some("/p"), Some("t")));
    }

    fn environment_variable(name: &str, value: &str) -> environment::Variable {
        environment::Variable { name: name.into(), value: Some(value.into()), ..Default::default() }
    }

    #[test]
    fn what_this_agent_does_not_do_is_refused_in_words() {
        let command = || mesos::CommandInfo { value: Some("true".into()), ..Default::default() };
        let with_uri = mesos::CommandInfo { uris: vec![mesos::command_info::Uri::default()], ..command() };
        for (info, part) in [
            (TaskInfo::default(), "no command"),
            (task(mesos::CommandInfo::default()), "no value"),
            (task(with_uri), "does not fetch"),
            (TaskInfo { executor: Some(Default::default()), ..task(command()) }, "executor"),
            (TaskInfo { container: Some(Default::default()), ..task(command()) }, "container"),
        ] {
            match check(&info) {
                Err(Unfit::Invalid(message)) => assert!(message.contains(part), "{message}"),
                other => panic!("{part}: {other:?}"),
            }
        }
    }

    #[test]
    fn users_are_found_by_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/false\n";
        assert_eq!(find_user(users, "web"), Some((33, 34)));
        assert_eq!(find_user(users, "we"), None);
    }
}
