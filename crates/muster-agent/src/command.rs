//! From the description of a task or an executor to what its supervisor runs.

use crate::{
    checks,
    containers::{Asked, value},
    limits::Enforcer,
    logs::LogSection,
    supervisor::{MARK, Place, Spec},
};
use muster_http::auth::{Auth, Claims};
use muster_model::{ExecutorName, LaunchNumber, Resources, VolumeMount};
use muster_node::{Start, StartExecutor};
use muster_proto::executor_api::container_id;
use muster_proto::mesos::{CommandInfo, ContainerInfo, ExecutorInfo, Secret, TaskInfo, environment};
use nix::unistd::{User, getgrouplist};
use prost::Message;
use std::{
    collections::BTreeMap,
    ffi::CString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The PATH of a task that names none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where an executor finds the token that it shows its agent.
const TOKEN: &str = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN";

/// Why a task cannot be run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Its description asks for what this agent does not do.
    Invalid(String),
    /// It could run elsewhere.
    Here(String),
}

/// What is to be held by a supervisor.
#[derive(Debug)]
pub(crate) enum Work {
    /// A task with a process of its own.
    Task(Box<Start>),
    /// An executor.
    Executor(Box<StartExecutor>),
}

impl Work {
    /// The number that its supervisor, its process and its sandbox go by.
    pub(crate) fn number(&self) -> LaunchNumber {
        match self {
            Self::Task(start) => start.launch,
            Self::Executor(start) => start.intent.number,
        }
    }

    /// The sandbox of the executor that it is within, which has its own.
    pub(crate) fn executor_sandbox(&self, sandbox: &Path) -> Option<PathBuf> {
        match self {
            Self::Task(start) if start.within.is_some() => {
                sandbox.parent().and_then(Path::parent).map(Path::to_owned)
            }
            Self::Task(_) | Self::Executor(_) => None,
        }
    }

    /// What it holds.
    pub(crate) fn resources(&self) -> &Resources {
        match self {
            Self::Task(start) => &start.resources,
            Self::Executor(start) => &start.resources,
        }
    }

    /// The persistent volumes that are seen in its sandbox.
    pub(crate) fn volumes(&self) -> &[VolumeMount] {
        match self {
            Self::Task(start) => &start.volumes,
            Self::Executor(start) => &start.volumes,
        }
    }
}

/// What commands are told of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Where sockets and exit files go.
    pub(crate) place: Place,
    /// What they may use.
    pub(crate) enforcer: Arc<Enforcer>,
    /// Whether commands run as the user that they name.
    pub(crate) switch_user: bool,
    /// Where the executor API listens.
    pub(crate) endpoint: SocketAddr,
    /// How long an executor may take to end once it is asked to, in ms.
    pub(crate) executor_grace_ms: u64,
    /// What makes the tokens of executors.
    pub(crate) auth: Arc<Auth>,
    /// How much is kept of what they write.
    pub(crate) logs: LogSection,
}

/// What is to be done before a supervisor holds a command.
#[derive(Debug)]
pub(crate) struct Described {
    /// What the supervisor is told; what makes it a container is not in there yet.
    pub(crate) spec: Spec,
    pub(crate) command: CommandInfo,
    /// The container that it asks for.
    pub(crate) asked: Option<Asked>,
}

/// What a supervisor needs to run a command.
pub(crate) fn spec(work: &Work, sandbox: PathBuf, around: &Surroundings) -> Result<Described, Unfit> {
    let (command, asked, default_user, env, (parts, limits)) = match work {
        Work::Task(start) => {
            let info = TaskInfo::decode(&*start.sealed)
                .map_err(|error| Unfit::Invalid(format!("The TaskInfo cannot be read: {error}")))?;
            let limited = around.enforcer.of(start.launch, &start.resources, &info.limits)?;
            let asked = asked(info.container.as_ref())?;
            let command = task_command(info, start.within.is_some())?;
            let env = task_environment(start, &command, &sandbox, around)?;
            (command, asked, &start.user, env, limited)
        }
        Work::Executor(start) => {
            let info = ExecutorInfo::decode(&*start.intent.sealed)
                .map_err(|error| Unfit::Invalid(format!("The ExecutorInfo cannot be read: {error}")))?;
            check_framework(start, &info)?;
            let env = executor_environment(start, &info, &sandbox, around)?;
            // A task of it has no limits of its own: it shares this group.
            let limited = around.enforcer.of(start.intent.number, &start.resources, &[])?;
            let asked = asked(info.container.as_ref())?;
            let command = info.command;
            let command = command.ok_or_else(|| Unfit::Invalid("The executor has no command".into()))?;
            (command, asked, &start.intent.user, env, limited)
        }
    };
    let terminal = asked.as_ref().and_then(|asked| asked.terminal);
    let asked = asked.filter(Asked::is_more_than_a_process);
    let has_image = asked.as_ref().is_some_and(|asked| asked.image.is_some());
    let (program, arg0, args) = match has_image {
        // The image has a say in it.
        true => Default::default(),
        false => program(&command)?,
    };
    let mut env: BTreeMap<String, String> = env;
    env.insert(MARK.into(), around.place.mark(Some(work.number())));
    // A user that a task with an image names is one of the image.
    let own = command.user.as_deref().filter(|user| !user.is_empty() && !has_image);
    let named = own.unwrap_or(default_user);
    let account = if around.switch_user { account(named)? } else { None };
    let output = around.logs.of(&command, terminal)?;
    let spec = Spec {
        launch: work.number(),
        program,
        arg0,
        args,
        env: env.into_iter().collect(),
        sandbox,
        user: account.as_ref().map(|account| account.ids),
        groups: account.map(|account| account.groups).unwrap_or_default(),
        open_files: None,
        parts,
        limits,
        output,
        place: around.place.clone(),
        container: None,
        engine: None,
    };
    Ok(Described { spec, command, asked })
}

/// The container that a description asks for.
fn asked(info: Option<&ContainerInfo>) -> Result<Option<Asked>, Unfit> {
    info.map(Asked::read).transpose().map_err(Unfit::Invalid)
}

fn task_command(info: TaskInfo, is_within: bool) -> Result<CommandInfo, Unfit> {
    if info.executor.is_some() && !is_within {
        return Err(Unfit::Invalid("The task names an executor, and its order none".into()));
    }
    if let Some(why) = checks::refused(&info) {
        return Err(Unfit::Invalid(why));
    }
    // An image may say all that there is to say.
    let has_container = info.container.is_some();
    let command = info.command.or_else(|| has_container.then(CommandInfo::default));
    command.ok_or_else(|| Unfit::Invalid("The task has no command".into()))
}

/// An executor is of the framework that launched its tasks.
fn check_framework(start: &StartExecutor, info: &ExecutorInfo) -> Result<(), Unfit> {
    let framework_id = start.intent.name.framework_id.as_str();
    match info.framework_id.as_ref().map(|id| id.value.as_str()) {
        Some(named) if named != framework_id => Err(Unfit::Invalid(format!(
            "ExecutorInfo has an invalid FrameworkID (Actual: {named} vs Expected: {framework_id})"
        ))),
        _ => Ok(()),
    }
}

/// What is run for a command: the program, its name for itself and the arguments after that.
pub(crate) fn program(command: &CommandInfo) -> Result<(String, String, Vec<String>), Unfit> {
    let value = command.value.as_deref().unwrap_or_default();
    let no_nul = |text: &str| match text.contains('\0') {
        true => Err(Unfit::Invalid("The command contains a NUL character".into())),
        false => Ok(text.to_owned()),
    };
    if value.is_empty() {
        return Err(Unfit::Invalid("The command has no value".into()));
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

fn task_environment(
    start: &Start,
    command: &CommandInfo,
    sandbox: &Path,
    around: &Surroundings,
) -> Result<BTreeMap<String, String>, Unfit> {
    let mut all = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    if let Some(within) = &start.within {
        let address = reachable(around.endpoint).ip().to_string();
        all.insert("MESOS_EXECUTOR_ID".into(), within.executor.name.executor_id.to_string());
        all.insert("MESOS_CONTAINER_IP".into(), address);
    }
    all.extend(variables(command)?);
    for (name, value) in [
        ("MESOS_SANDBOX", sandbox.display().to_string()),
        ("MESOS_TASK_ID", start.task.task_id.to_string()),
        ("MESOS_FRAMEWORK_ID", start.task.framework_id.to_string()),
        ("MESOS_AGENT_ID", start.agent_id.to_string()),
    ] {
        all.insert(name.into(), value);
    }
    Ok(all)
}

/// What an executor needs to find its agent and to say who it is. Its own variables win, as in Mesos.
fn executor_environment(
    start: &StartExecutor,
    info: &ExecutorInfo,
    sandbox: &Path,
    around: &Surroundings,
) -> Result<BTreeMap<String, String>, Unfit> {
    let ExecutorName { framework_id, executor_id } = &start.intent.name;
    let (endpoint, sandbox) = (reachable(around.endpoint), sandbox.display().to_string());
    let grace_ms = start.intent.grace_ms.unwrap_or(around.executor_grace_ms);
    let mut all: BTreeMap<String, String> = [
        ("PATH", PATH.to_owned()),
        ("MESOS_FRAMEWORK_ID", framework_id.to_string()),
        ("MESOS_EXECUTOR_ID", executor_id.to_string()),
        ("MESOS_AGENT_ID", start.agent_id.to_string()),
        ("MESOS_SLAVE_ID", start.agent_id.to_string()),
        ("MESOS_SLAVE_PID", format!("slave(1)@{endpoint}")),
        ("MESOS_AGENT_ENDPOINT", endpoint.to_string()),
        ("MESOS_DIRECTORY", sandbox.clone()),
        ("MESOS_SANDBOX", sandbox),
        // There is no `0`: some clients take any value for true.
        ("MESOS_CHECKPOINT", "1".into()),
        ("MESOS_RECOVERY_TIMEOUT", "15mins".into()),
        ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs".into()),
        ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", duration(grace_ms)),
        ("MESOS_HTTP_COMMAND_EXECUTOR", "0".into()),
        ("LIBPROCESS_PORT", "0".into()),
        ("LIBPROCESS_IP", endpoint.ip().to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let claims = Claims {
        cid: container_id(start.intent.number),
        eid: executor_id.to_string(),
        fid: framework_id.to_string(),
    };
    all.extend(around.auth.token(&claims).map(|token| (TOKEN.to_owned(), token)));
    if let Some(command) = &info.command {
        all.extend(variables(command)?);
    }
    Ok(all)
}

/// An address that listens everywhere is reached here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A time as Mesos writes it.
fn duration(ms: u64) -> String {
    match ms % 1_000 {
        0 => format!("{}secs", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

/// The variables that a command names itself.
pub(crate) fn variables(command: &CommandInfo) -> Result<Vec<(String, String)>, Unfit> {
    let variables = command.environment.iter().flat_map(|environment| &environment.variables);
    let each = variables.map(|variable| {
        let value = match (variable.r#type(), &variable.secret) {
            (environment::variable::Type::Secret, Some(secret)) => secret_text(&variable.name, secret)?,
            _ => variable.value.clone().unwrap_or_default(),
        };
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Unfit::Invalid(format!("The variable {:?} cannot be set", variable.name)));
        }
        Ok((variable.name.clone(), value))
    });
    each.collect()
}

/// The value of a secret, which is in the environment of the command and nowhere else.
fn secret_text(name: &str, secret: &Secret) -> Result<String, Unfit> {
    let wrong = |why: &str| Unfit::Invalid(format!("The variable {name:?} cannot be set: its secret {why}"));
    let bytes = value(secret).map_err(|why| wrong(&why))?;
    String::from_utf8(bytes).map_err(|_| wrong("is no text"))
}

/// Who a user of this machine is.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    /// The user, and its first group.
    ids: (u32, u32),
    /// All groups that it is in.
    groups: Vec<u32>,
}

/// The account of a name, wherever this machine has its accounts from, if it is not the agent's own. Only root can be
/// another.
fn account(name: &str) -> Result<Option<Account>, Unfit> {
    if name.is_empty() || !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let failed = |why: &dyn std::fmt::Display| Unfit::Here(format!("Failed to run as user {name:?}: {why}"));
    let text = CString::new(name).map_err(|_| failed(&"the name has a NUL character"))?;
    let found = User::from_name(name).map_err(|error| failed(&error))?;
    let found = found.ok_or_else(|| failed(&"this machine has no such user"))?;
    if found.uid.is_root() {
        return Ok(None);
    }
    let groups = getgrouplist(&text, found.gid).map_err(|error| failed(&error))?;
    let groups = groups.into_iter().map(|gid| gid.as_raw()).collect();
    Ok(Some(Account { ids: (found.uid.as_raw(), found.gid.as_raw()), groups }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AgentConfig,
        cgroups::{Cgroups, Layout, Mounts},
    };
    use muster_model::{AgentId, FrameworkId, Sealed, TaskId, TaskKey};
    use muster_node::ExecutorIntent;
    use muster_proto::mesos;

    fn no_groups() -> Cgroups {
        let none = Mounts { layout: Layout::None, parts: Vec::new(), here: None };
        Cgroups::open(Path::new("muster"), "key", &none).unwrap()
    }

    fn around() -> Surroundings {
        Surroundings {
            place: Place { runtime: "/r".into(), exits: "/e".into() },
            enforcer: Arc::new(Enforcer::new(no_groups(), &AgentConfig::default())),
            switch_user: true,
            endpoint: "0.0.0.0:5051".parse().unwrap(),
            executor_grace_ms: 5_000,
            auth: Arc::new(Auth::open("mesos-agent")),
            logs: LogSection::default(),
        }
    }

    fn check(info: &TaskInfo) -> Result<Spec, Unfit> {
        let start = Start {
            launch: LaunchNumber::default(),
            task: TaskKey { framework_id: FrameworkId::new("f"), task_id: TaskId::new("t") },
            agent_id: AgentId::new("a"),
            user: "".into(),
            resources: Default::default(),
            sealed: Sealed::new(info.encode_to_vec()),
            volumes: Vec::new(),
            within: None,
        };
        spec(&Work::Task(Box::new(start)), "/s".into(), &around()).map(|described| described.spec)
    }

    fn check_executor(info: &ExecutorInfo, grace_ms: Option<u64>) -> Result<Spec, Unfit> {
        let intent = ExecutorIntent {
            number: LaunchNumber::default(),
            name: ExecutorName {
                framework_id: FrameworkId::new("f"),
                executor_id: muster_model::ExecutorId::new("e"),
            },
            resources: Default::default(),
            grace_ms,
            user: "".into(),
            framework: Sealed::default(),
            sealed: Sealed::new(info.encode_to_vec()),
        };
        let start = StartExecutor {
            intent: Arc::new(intent),
            agent_id: AgentId::new("a"),
            resources: Default::default(),
            volumes: Vec::new(),
        };
        spec(&Work::Executor(Box::new(start)), "/s".into(), &around()).map(|described| described.spec)
    }

    fn task(command: mesos::CommandInfo) -> TaskInfo {
        TaskInfo { command: Some(command), ..Default::default() }
    }

    #[test]
    fn an_executor_is_told_who_it_is_and_where_its_agent() {
        let command = mesos::CommandInfo {
            value: Some("./run".into()),
            shell: Some(false),
            environment: Some(mesos::Environment {
                variables: vec![environment_variable("MESOS_SANDBOX", "own")],
            }),
            ..Default::default()
        };
        let info = ExecutorInfo { command: Some(command), ..Default::default() };
        let spec = check_executor(&info, Some(1_500)).unwrap();
        assert_eq!(spec.program, "./run");
        let env: BTreeMap<_, _> = spec.env.into_iter().collect();
        for (name, value) in [
            ("MESOS_AGENT_ENDPOINT", "127.0.0.1:5051"),
            ("MESOS_SLAVE_PID", "slave(1)@127.0.0.1:5051"),
            ("MESOS_FRAMEWORK_ID", "f"),
            ("MESOS_EXECUTOR_ID", "e"),
            ("MESOS_DIRECTORY", "/s"),
            ("MESOS_SANDBOX", "own"),
            ("MESOS_CHECKPOINT", "1"),
            ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "1500ms"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(duration(5_000), "5secs");
        let framework_id = Some(mesos::FrameworkId { value: "other".into() });
        match check_executor(&ExecutorInfo { framework_id, ..info }, None) {
            Err(Unfit::Invalid(why)) => assert!(why.contains("invalid FrameworkID"), "{why}"),
            other => panic!("{other:?}"),
        }
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
        for (info, part) in [
            (TaskInfo::default(), "no command"),
            (task(mesos::CommandInfo::default()), "no value"),
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
    fn users_are_found_by_name_with_their_groups() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can be somebody else");
            return;
        }
        let nobody = account("nobody").unwrap().unwrap();
        assert!(nobody.ids.0 != 0 && nobody.groups.contains(&nobody.ids.1), "{nobody:?}");
        assert_eq!(account("root").unwrap(), None);
        assert_eq!(account("").unwrap(), None);
        let missing = account("no-such-user").unwrap_err();
        assert!(matches!(&missing, Unfit::Here(why) if why.contains("no-such-user")), "{missing:?}");
    }
}
