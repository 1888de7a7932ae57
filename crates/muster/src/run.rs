//! `muster run`: launches a command N times and follows it.

use crate::cli::{Masters, Output};
use crate::output::print_json;
use crate::sandbox::{self, Tail};
use crate::signals::{Stop, set_exit_code};
use anyhow::bail;
use clap::Args;
use muster_sdk::{
    Filters, Framework, FrameworkId, Offer, Resources, Scheduler, SchedulerDriver, SdkError, Task, TaskId,
    TaskState, TaskUpdate,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc;

/// Flags of a command to run.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// How many times.
    #[arg(short = 'n', long = "count", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Cpus of each.
    #[arg(long, default_value_t = 0.1)]
    cpus: f64,
    /// Memory of each, in MB.
    #[arg(long, default_value_t = 32)]
    mem: u64,
    /// The framework's name; the command's when not given.
    #[arg(long)]
    name: Option<String>,
    /// The role to be offered resources for.
    #[arg(long, default_value = "*")]
    role: String,
    /// The command: one argument is a shell's command line, several are a program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
    #[command(flatten)]
    masters: Masters,
}

/// What the scheduler's thread tells this command.
enum Told {
    Registered(FrameworkId),
    Offers(Vec<Offer>),
    Update(TaskUpdate),
    Connection(bool),
    Error(String),
}

/// Passes all on: decisions are made in one place.
struct Teller(mpsc::Sender<Told>);

impl Teller {
    fn tell(&self, told: Told) {
        // Fails only when the command is over.
        let _ = self.0.blocking_send(told);
    }
}

impl Scheduler for Teller {
    fn registered(&mut self, _: &SchedulerDriver, framework_id: &FrameworkId, _: &str) {
        self.tell(Told::Registered(framework_id.clone()));
    }
    fn reregistered(&mut self, _: &SchedulerDriver, _: &str) {
        self.tell(Told::Connection(true));
    }
    fn disconnected(&mut self, _: &SchedulerDriver) {
        self.tell(Told::Connection(false));
    }
    fn resource_offers(&mut self, _: &SchedulerDriver, offers: Vec<Offer>) {
        self.tell(Told::Offers(offers));
    }
    fn status_update(&mut self, _: &SchedulerDriver, update: TaskUpdate) {
        self.tell(Told::Update(update));
    }
    fn error(&mut self, _: &SchedulerDriver, message: &str) {
        self.tell(Told::Error(message.into()));
    }
}

/// One of the N.
struct Followed {
    /// None: to be launched. Staging: asked for.
    state: Option<TaskState>,
    message: String,
    host: String,
    work_dir: Option<PathBuf>,
    sandbox: Option<PathBuf>,
    tails: Vec<Tail>,
    attempts: u32,
}

/// How often a task that was never started is launched again.
const ATTEMPTS_MAX: u32 = 20;
/// Tasks of one call; the rest of the offer comes back at once.
const LAUNCHES_MAX: usize = 1_000;
/// How often output is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// Without an offer for this long, people are told what is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

struct Job {
    driver: SchedulerDriver,
    framework_id: Option<FrameworkId>,
    tasks: BTreeMap<TaskId, Followed>,
    need: Resources,
    command: Vec<String>,
    quiet: bool,
    stopping: bool,
    /// Tasks that are still to be killed.
    to_kill: Vec<TaskId>,
}

pub(crate) async fn run(args: RunArgs, output: Output) -> anyhow::Result<ExitCode> {
    let need = need(args.cpus, args.mem)?;
    let name = args.name.unwrap_or_else(|| args.command[0].chars().take(60).collect());
    let mut stop = Stop::listen()?;
    let (tell, mut told) = mpsc::channel(64);
    let framework = Framework::new(name).role(args.role).failover_timeout(Duration::from_secs(10));
    let masters = args.masters.masters.clone();
    let builder = SchedulerDriver::builder(masters.clone()).credential(args.masters.credential.clone());
    let driver = builder.start(framework, Teller(tell))?;
    let width = args.count.to_string().len();
    let task = |n: u32| (TaskId::new(format!("task-{n:0width$}")), Followed::new());
    let mut job = Job {
        driver,
        framework_id: None,
        tasks: (1..=args.count).map(task).collect(),
        need,
        command: args.command,
        quiet: output == Output::Json,
        stopping: false,
        to_kill: Vec::new(),
    };
    let mut look = tokio::time::interval(LOOK);
    let mut idle = tokio::time::Instant::now();
    let mut complained = false;
    while !job.is_over() {
        tokio::select! {
            Some(told) = told.recv() => {
                if !matches!(told, Told::Offers(_)) {
                    idle = tokio::time::Instant::now();
                }
                job.take(told)?;
            }
            _ = look.tick() => {
                job.kill_some()?;
                job.show_output();
                if idle.elapsed() > PATIENCE && !complained && job.waiting() > 0 {
                    complained = true;
                    eprintln!("{}", job.waits_for(&masters));
                }
            }
            () = stop.asked() => {
                if job.stopping {
                    break;
                }
                job.kill_all();
                job.kill_some()?;
            }
        }
    }
    job.show_output();
    // What runs still is ended with the framework.
    job.driver.stop(false);
    drop(told);
    match job.driver.ended().await {
        Ok(()) => {}
        Err(SdkError::Ended(why)) if job.is_over() => {
            tracing::warn!(why, "the framework was not ended in order")
        }
        Err(error) => return Err(error.into()),
    }
    job.report(output);
    set_exit_code(job.worst());
    Ok(ExitCode::from(job.worst()))
}

fn need(cpus: f64, mem_mb: u64) -> anyhow::Result<Resources> {
    if !(0.001..=1_000_000.0).contains(&cpus) {
        bail!("--cpus is {cpus}; give a number from 0.001, for example 0.5");
    }
    Ok(Resources::of((cpus * 1000.0).round() as u64, mem_mb))
}

impl Followed {
    fn new() -> Self {
        Self {
            state: None,
            message: String::new(),
            host: String::new(),
            work_dir: None,
            sandbox: None,
            tails: Vec::new(),
            attempts: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.state.is_some_and(TaskState::is_terminal)
    }

    /// What a shell would say.
    fn exit_code(&self) -> u8 {
        match self.state {
            Some(TaskState::Finished) => 0,
            _ => exit_code(&self.message),
        }
    }
}

/// The exit code that a status's message tells of; 1 when it tells of none.
fn exit_code(message: &str) -> u8 {
    if let Some(code) = message.strip_prefix("Command exited with status ") {
        // A killed task may well exit with 0.
        return code.trim().parse().map_or(1, |code: u8| code.max(1));
    }
    let signal = message.strip_prefix("Command terminated with signal ");
    match signal.map(str::trim) {
        Some("SIGKILL") => 128 + 9,
        Some("SIGTERM") => 128 + 15,
        Some("SIGINT") => 128 + 2,
        Some("SIGSEGV") => 128 + 11,
        Some("SIGABRT") => 128 + 6,
        Some(_) => 128,
        None => 1,
    }
}

impl Job {
    fn is_over(&self) -> bool {
        self.tasks.values().all(Followed::is_over)
    }

    fn waiting(&self) -> usize {
        self.tasks.values().filter(|task| task.state.is_none()).count()
    }

    fn waits_for(&self, masters: &[String]) -> String {
        match &self.framework_id {
            None => format!("no master leads yet at {}; waiting (Ctrl-C ends this)", masters.join(", ")),
            Some(_) => format!(
                "no offer has room for {} yet; waiting (`muster agent list` shows what is free, Ctrl-C ends this)",
                self.need
            ),
        }
    }

    fn say(&self, text: std::fmt::Arguments<'_>) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    fn take(&mut self, told: Told) -> anyhow::Result<()> {
        match told {
            Told::Registered(framework_id) => {
                self.say(format_args!("framework {framework_id}"));
                self.framework_id = Some(framework_id);
            }
            Told::Offers(offers) => self.use_offers(&offers)?,
            Told::Update(update) => self.update(update)?,
            Told::Connection(true) => self.say(format_args!("connected to the new leader")),
            Told::Connection(false) => self.say(format_args!("the leader is gone; looking for the new one")),
            Told::Error(why) => bail!("the masters ended this framework: {why}"),
        }
        Ok(())
    }

    fn use_offers(&mut self, offers: &[Offer]) -> anyhow::Result<()> {
        for offer in offers {
            let mut rest = offer.resources.clone();
            let mut launches = Vec::new();
            let work_dir = sandbox::work_dir(offer);
            for (task_id, task) in self.tasks.iter_mut().filter(|(_, task)| task.state.is_none()) {
                if self.stopping || !rest.contains(&self.need) || launches.len() >= LAUNCHES_MAX {
                    break;
                }
                rest.subtract(&self.need);
                task.state = Some(TaskState::Staging);
                task.attempts += 1;
                task.host = offer.hostname.to_string();
                task.work_dir = work_dir.clone();
                (task.sandbox, task.tails) = (None, Vec::new());
                launches.push(description(&self.command, task_id).resources(&self.need));
            }
            if launches.is_empty() {
                self.driver.decline([offer], Filters::default())?;
            } else {
                self.driver.accept([offer], launches, Filters::none())?;
            }
        }
        if self.waiting() == 0 {
            self.driver.suppress(&[])?;
        }
        Ok(())
    }

    fn update(&mut self, update: TaskUpdate) -> anyhow::Result<()> {
        let Some(task) = self.tasks.get_mut(&update.task_id) else { return Ok(()) };
        let state = update.status.state;
        if task.is_over() || task.state == Some(state) {
            return Ok(());
        }
        // Never started: its offer was void, for example since the leader changed.
        let never_started = state == TaskState::Dropped;
        if never_started && task.attempts < ATTEMPTS_MAX && !self.stopping {
            task.state = None;
            return Ok(self.driver.revive(&[])?);
        }
        task.state = Some(state);
        task.message = update.status.message.to_string();
        self.show_output();
        let task = &self.tasks[&update.task_id];
        let name = state.name().trim_start_matches("TASK_").to_lowercase();
        let message = if task.message.is_empty() { String::new() } else { format!(": {}", task.message) };
        self.say(format_args!("{} {name} on {}{message}", update.task_id, task.host));
        Ok(())
    }

    fn kill_all(&mut self) {
        self.stopping = true;
        self.say(format_args!("killing the tasks; Ctrl-C again ends this at once"));
        for (task_id, task) in &mut self.tasks {
            match task.state {
                None => {
                    task.state = Some(TaskState::Killed);
                    task.message = "killed before it was launched".into();
                }
                Some(state) if state.is_terminal() => {}
                Some(_) => self.to_kill.push(task_id.clone()),
            }
        }
    }

    /// Kills as many as there is room for; the rest has its turn later.
    fn kill_some(&mut self) -> Result<(), SdkError> {
        while let Some(task_id) = self.to_kill.pop() {
            match self.driver.kill(&task_id) {
                Ok(()) => {}
                Err(SdkError::Busy) => {
                    self.to_kill.push(task_id);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Shows what tasks on this machine wrote.
    fn show_output(&mut self) {
        let Some(framework_id) = &self.framework_id else { return };
        let many = self.tasks.len() > 1;
        for (task_id, task) in &mut self.tasks {
            if task.state.is_none() || (task.is_over() && task.sandbox.is_some() && task.tails.is_empty()) {
                continue;
            }
            if task.sandbox.is_none() {
                let found = task.work_dir.as_ref().and_then(|dir| sandbox::find(dir, framework_id, task_id));
                let Some(found) = found else { continue };
                task.tails = ["stdout", "stderr"].map(|name| Tail::new(found.join(name))).into();
                task.sandbox = Some(found);
            }
            if self.quiet {
                continue;
            }
            let prefix = if many { format!("{task_id}: ") } else { String::new() };
            let over = task.is_over();
            if let [out, err] = task.tails.as_mut_slice() {
                // Whoever reads no more does not stop the tasks.
                let _ = out.show(&prefix, over, &mut std::io::stdout().lock());
                let _ = err.show(&prefix, over, &mut std::io::stderr().lock());
            }
            if over {
                task.tails.clear();
            }
        }
    }

    fn worst(&self) -> u8 {
        self.tasks.values().map(Followed::exit_code).max().unwrap_or(0)
    }

    fn report(&self, output: Output) {
        if output == Output::Json {
            let tasks = self.tasks.iter().map(|(task_id, task)| {
                json!({
                    "task_id": task_id.as_str(), "state": task.state.map(TaskState::name), "host": task.host,
                    "message": task.message, "exit_code": task.exit_code(), "sandbox": task.sandbox,
                })
            });
            let framework_id = self.framework_id.as_ref().map(FrameworkId::as_str);
            print_json(&json!({"framework_id": framework_id, "tasks": tasks.collect::<Vec<_>>()}));
            return;
        }
        let elsewhere = self.tasks.iter().filter(|(_, task)| task.sandbox.is_none() && !task.host.is_empty());
        for (task_id, task) in elsewhere.take(10) {
            let Some(framework_id) = &self.framework_id else { return };
            match &task.work_dir {
                Some(dir) => {
                    let path = sandbox::of_task(dir, framework_id, task_id);
                    eprintln!("the output of {task_id} is on {} in {}", task.host, path.display());
                }
                None => {
                    eprintln!("the output of {task_id} is on {}, in its agent's work directory", task.host)
                }
            }
        }
    }
}

fn description(command: &[String], task_id: &TaskId) -> Task {
    match command {
        [line] => Task::command(task_id.as_str(), line),
        [program, ..] => Task::program(task_id.as_str(), program, command),
        [] => Task::command(task_id.as_str(), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_tell_exit_codes() {
        assert_eq!(exit_code("Command exited with status 3"), 3);
        assert_eq!(exit_code("Command terminated with signal SIGKILL"), 137);
        assert_eq!(exit_code("its agent is gone"), 1);
    }

    #[test]
    fn needs_are_amounts() {
        assert_eq!(need(0.5, 64).unwrap(), Resources::of(500, 64));
        assert!(need(-1.0, 1).unwrap_err().to_string().contains("--cpus"));
        assert!(need(f64::NAN, 1).is_err());
    }
}
