//! `muster exec`: a command beside a running task, with its streams here.

use super::{
    Failed, Finder, Found,
    attach::Leaves,
    terminal::{Terminal, size},
};
use crate::{
    cli::Masters,
    signals::{self, Stop},
};
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mesos::agent::{
    Call, ProcessIo,
    call::{self, AttachContainerInput, LaunchNestedContainerSession, attach_container_input},
    process_io::{self, Control, Data, control::Heartbeat},
};
use muster_proto::{
    executor_api::{container_id, nested_container},
    json::Codec,
    media::{Records, record},
    mesos::{self, ContainerId},
};
use std::{
    io::{self, Read, Write},
    process::ExitCode,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{interval, timeout},
};

/// What is read of standard input at a time.
const PIECE_BYTES: usize = 16 << 10;
/// Pieces that wait for the agent.
const WAITING_MAX: usize = 8;
/// How often an agent is told that this one lives.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long an agent may take to say that what broke off has ended.
const BROKEN_TIME: Duration = Duration::from_secs(2);
/// What a signal that ended the command is told as, beside its number, as by a shell.
const SIGNALED: i32 = 128;

/// Run a command in the container of a task that runs.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Hand standard input on; without it the command's is empty.
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal, of the size of this one.
    #[arg(short, long)]
    tty: bool,
    /// What the session is called, for `muster attach`; without it, anything.
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// The task's framework, if several have one of this name.
    #[arg(long, value_name = "ID")]
    framework: Option<String>,
    #[command(flatten)]
    masters: Masters,
    /// The task's id.
    task: String,
    /// The command, and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `muster exec`: its exit code is the command's.
pub(crate) async fn exec(args: ExecArgs) -> anyhow::Result<ExitCode> {
    let terminal = args.tty.then(Terminal::of_this).transpose()?;
    let name = args.session.unwrap_or_else(|| format!("exec-{:016x}", rand::random::<u64>()));
    let seat = Seat::find(&args.masters, args.framework.as_deref(), &args.task, Some(name)).await?;
    let variable = |(name, value): (&str, String)| mesos::environment::Variable {
        name: name.into(),
        value: Some(value),
        ..Default::default()
    };
    let term = std::env::var("TERM").ok().filter(|_| args.tty).map(|term| variable(("TERM", term)));
    let command = mesos::CommandInfo {
        value: args.command.first().cloned(),
        arguments: args.command,
        shell: Some(false),
        environment: term.map(|term| mesos::Environment { variables: vec![term] }),
        ..Default::default()
    };
    let container = terminal.as_ref().map(|terminal| mesos::ContainerInfo {
        r#type: mesos::container_info::Type::Mesos.into(),
        tty_info: Some(terminal.size()),
        ..Default::default()
    });
    let launch =
        LaunchNestedContainerSession { container_id: seat.id.clone(), command: Some(command), container };
    let call = Call {
        r#type: Some(call::Type::LaunchNestedContainerSession.into()),
        launch_nested_container_session: Some(launch),
        ..Default::default()
    };
    let output = seat.finder.agents.stream(&seat.address, &call).await.map_err(words)?;
    let given = if args.interactive { Given::Standard } else { Given::Nothing };
    seat.follow(output, Some(given), terminal).await
}

pub(super) fn words(failed: Failed) -> anyhow::Error {
    anyhow::Error::new(failed).context("the task's agent refuses the session")
}

/// What a command is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Nothing,
    Standard,
    /// The same, which ends for who joined and for nobody else.
    Beside,
}

/// A session, or a task with a terminal, and where it is.
pub(super) struct Seat {
    pub(super) finder: Finder,
    pub(super) address: String,
    pub(super) id: ContainerId,
    /// It is the task itself.
    pub(super) is_task: bool,
}

impl Seat {
    pub(super) async fn find(
        masters: &Masters,
        framework: Option<&str>,
        task: &str,
        name: Option<String>,
    ) -> anyhow::Result<Self> {
        let mut finder = Finder::new(masters);
        let found = finder.find(masters, framework, &[task.to_owned()]).await?;
        let [task] = &found[..] else { bail!("{} tasks are meant by {task:?}: name one", found.len()) };
        if task.is_over {
            bail!("task {} is over", task.name());
        }
        let address = finder.address(task).map_err(|failed| anyhow::anyhow!("{failed}"))?.to_owned();
        let containers = finder.agents.containers(&address).await;
        let containers = containers.with_context(|| format!("the agent at {address} does not answer"))?;
        let parent =
            container(task, containers).with_context(|| format!("task {} has no container", task.name()))?;
        let (id, is_task) = match name {
            Some(value) => (ContainerId { value, parent: Some(Box::new(parent)) }, false),
            None => (parent, true),
        };
        Ok(Self { finder, address, id, is_task })
    }

    /// Shows what the command writes until it is over, and leaves its exit code.
    pub(super) async fn follow(
        self,
        mut output: Incoming,
        given: Option<Given>,
        terminal: Option<Terminal>,
    ) -> anyhow::Result<ExitCode> {
        let raw = match (&terminal, given) {
            (Some(terminal), Some(Given::Standard | Given::Beside)) => Some(terminal.raw()?),
            _ => None,
        };
        let mut stop = Stop::listen()?;
        let (left, mut has_left) = mpsc::channel(1);
        let mut input = given.map(|given| {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            tokio::spawn(say(self.id.clone(), given, terminal.is_some(), sender, left));
            let (agents, address) = (self.finder.agents.clone(), self.address.clone());
            tokio::spawn(async move { agents.give(&address, receiver).await })
        });
        let mut records = Records::default();
        loop {
            let refused = async {
                match &mut input {
                    Some(input) => input.await,
                    None => std::future::pending().await,
                }
            };
            let frame = tokio::select! {
                frame = output.frame() => frame,
                // It takes input to the end of the session, and answers then.
                answered = refused => {
                    input = None;
                    answered?.context("what is typed does not reach the session")?;
                    continue;
                }
                Some(()) = has_left.recv() => {
                    drop(raw);
                    eprintln!("muster: left, and it goes on");
                    return Ok(ExitCode::SUCCESS);
                }
                () = stop.asked() => {
                    // With the connection the command ends.
                    signals::set_exit_code(130);
                    return Ok(ExitCode::from(130));
                }
            };
            let Some(frame) = frame else { break };
            let frame = match frame {
                Ok(frame) => frame,
                Err(_) => {
                    drop(raw);
                    return Err(self.broken().await);
                }
            };
            records.push(frame.data_ref().unwrap_or(&Bytes::new()));
            while let Some(record) = records.next_whole()? {
                show(&Codec::Protobuf.read(&record)?)?;
            }
        }
        drop(raw);
        if let Some(input) = input {
            input.abort();
        }
        let status = match self.finder.agents.wait(&self.address, &self.id).await {
            Err(Failed::NotThere) if self.is_task => {
                bail!("the task has ended, and its agent has told how: see `muster ps --all`")
            }
            status => status.context("the session ended, and its agent does not say how")?,
        };
        let code = match (status & 0x7f, status >> 8 & 0xff) {
            (0, code) => code,
            (signal, _) => SIGNALED + signal,
        };
        signals::set_exit_code(u8::try_from(code).unwrap_or(u8::MAX));
        Ok(ExitCode::SUCCESS)
    }
}

impl Seat {
    /// Why what came did not come to its end.
    async fn broken(&self) -> anyhow::Error {
        let what = if self.is_task { "task" } else { "session" };
        match timeout(BROKEN_TIME, self.finder.agents.wait(&self.address, &self.id)).await {
            // It waits for the end.
            Err(_) => {
                anyhow!("cut off, since this did not read fast enough what the {what} writes; it goes on")
            }
            Ok(Ok(_)) => {
                anyhow!("cut off before the {what} ended: this did not read fast enough what it wrote")
            }
            Ok(Err(Failed::Away(_))) if self.is_task => anyhow!("the agent is gone; its tasks go on"),
            Ok(Err(Failed::Away(_))) => anyhow!("the agent is gone, and the session with it"),
            Ok(Err(_)) => anyhow!("the {what} has ended"),
        }
    }
}

/// The container that a task runs in.
fn container(
    task: &Found,
    all: Vec<mesos::agent::response::get_containers::Container>,
) -> Option<ContainerId> {
    let own = container_id(task.launch);
    let nested = nested_container(task.launch, task.launch).value;
    let is_its = |id: &ContainerId| match id.parent {
        None => id.value == own,
        Some(_) => id.value == nested,
    };
    let of_executor = |it: &mesos::agent::response::get_containers::Container| {
        it.container_id.parent.is_none()
            && it.framework_id.as_ref().is_some_and(|id| id.value == task.framework_id)
            && it.executor_id.as_ref().is_some_and(|id| id.value == task.executor_id)
    };
    let found =
        all.iter().find(|it| is_its(&it.container_id)).or_else(|| all.iter().find(|it| of_executor(it)));
    found.map(|it| it.container_id.clone())
}

fn show(message: &ProcessIo) -> io::Result<()> {
    let Some(data) = &message.data else { return Ok(()) }; // the agent lives
    match data.r#type() {
        process_io::data::Type::Stderr => io::stderr().lock().write_all(data.data()),
        _ => {
            let mut out = io::stdout().lock();
            out.write_all(data.data())?;
            out.flush()
        }
    }
}

/// All that a session is told, as records; it ends when nobody takes them any more.
async fn say(
    id: ContainerId,
    given: Given,
    has_terminal: bool,
    to: mpsc::Sender<Bytes>,
    left: mpsc::Sender<()>,
) {
    let (bytes, mut read) = mpsc::channel(1);
    match given {
        // A thread of its own: nothing can end a read, and nobody waits for this one.
        Given::Standard | Given::Beside => drop(std::thread::spawn(move || read_standard(&bytes))),
        Given::Nothing => drop(bytes),
    }
    let first = AttachContainerInput {
        r#type: Some(attach_container_input::Type::ContainerId.into()),
        container_id: Some(id),
        process_io: None,
    };
    let Ok(mut resized) = signal(SignalKind::window_change()) else { return };
    let mut beats = interval(HEARTBEAT);
    let (mut next, mut is_over) = (Some(first), false);
    // Who joins was not there when the terminal got its size.
    let mut is_sized = given != Given::Beside || !has_terminal;
    let mut leaves = Leaves::default();
    loop {
        if let Some(attach) = next.take() {
            let call = Call {
                r#type: Some(call::Type::AttachContainerInput.into()),
                attach_container_input: Some(attach),
                ..Default::default()
            };
            if to.send(record(&Codec::Protobuf.write(&call))).await.is_err() {
                return;
            }
        }
        if !std::mem::replace(&mut is_sized, true)
            && let Some(size) = size()
        {
            next = Some(told(sized(size)));
            continue;
        }
        let io = tokio::select! {
            bytes = read.recv(), if !is_over => {
                if given == Given::Beside && has_terminal && leaves.hear(bytes.as_deref().unwrap_or_default()) {
                    let _ = left.send(()).await; // it is over by then
                    return;
                }
                is_over = bytes.is_none();
                if is_over && given == Given::Beside {
                    continue;
                }
                let data = Data {
                    r#type: Some(process_io::data::Type::Stdin.into()),
                    data: Some(bytes.unwrap_or_default().into()),
                };
                ProcessIo { r#type: Some(process_io::Type::Data.into()), data: Some(data), control: None }
            }
            Some(()) = resized.recv(), if has_terminal => match size() {
                Some(size) => sized(size),
                None => continue,
            },
            _ = beats.tick() => {
                let nanoseconds = i64::try_from(HEARTBEAT.as_nanos()).unwrap_or(i64::MAX);
                control(Control {
                    r#type: Some(process_io::control::Type::Heartbeat.into()),
                    tty_info: None,
                    heartbeat: Some(Heartbeat { interval: Some(mesos::DurationInfo { nanoseconds }) }),
                })
            }
            () = to.closed() => return,
        };
        next = Some(told(io));
    }
}

fn told(io: ProcessIo) -> AttachContainerInput {
    AttachContainerInput {
        r#type: Some(attach_container_input::Type::ProcessIo.into()),
        container_id: None,
        process_io: Some(io),
    }
}

fn sized(size: mesos::TtyInfo) -> ProcessIo {
    control(Control {
        r#type: Some(process_io::control::Type::TtyInfo.into()),
        tty_info: Some(size),
        heartbeat: None,
    })
}

fn control(control: Control) -> ProcessIo {
    ProcessIo { r#type: Some(process_io::Type::Control.into()), control: Some(control), data: None }
}

fn read_standard(to: &mpsc::Sender<Vec<u8>>) {
    let mut bytes = vec![0; PIECE_BYTES];
    loop {
        match io::stdin().lock().read(&mut bytes) {
            Ok(n) if n > 0 => {
                if to.blocking_send(bytes[..n].to_vec()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesos::agent::response::get_containers::Container;

    #[test]
    fn a_tasks_container_is_its_own_or_its_executors() {
        let launch = "1.9.2".parse().unwrap();
        let task = Found {
            task_id: "t".into(),
            framework_id: "f".into(),
            executor_id: "e".into(),
            launch,
            agent_id: "a".into(),
            address: None,
            is_over: false,
        };
        let of = |container_id: ContainerId, executor: &str| Container {
            framework_id: Some(mesos::FrameworkId { value: "f".into() }),
            executor_id: Some(mesos::ExecutorId { value: executor.into() }),
            container_id,
            ..Default::default()
        };
        let alone = |value: &str| ContainerId { value: value.into(), parent: None };
        let executor = "1.9.0".parse().unwrap();
        let (own, nested) = (alone(&container_id(launch)), nested_container(executor, launch));
        let others = || vec![of(alone("x"), "other"), of(alone("run"), "e")];
        let with = |id: &ContainerId| {
            let mut all = others();
            all.push(of(id.clone(), "e"));
            container(&task, all)
        };
        assert_eq!(with(&own), Some(own));
        assert_eq!(with(&nested), Some(nested));
        assert_eq!(container(&task, others()), Some(alone("run")));
        assert_eq!(container(&task, vec![of(alone("x"), "other")]), None);
    }
}
