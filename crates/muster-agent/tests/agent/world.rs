//! A work directory, a master and an agent in a process of its own.

use crate::master::{AgentStream, Master};
use muster_model::{
    AgentCall, AgentEvent, AgentId, FrameworkId, Hello, Index, LaunchNumber, Resources, Sealed, Session,
    StatusUpdate, TaskId, TaskKey, TaskState, event::RunOrder,
};
use muster_proto::mesos::{self, CommandInfo, TaskInfo};
use prost::Message;
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::sleep,
};

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) master: Master,
    /// Where the executor API listens: the same for each agent of this world.
    pub(crate) port: u16,
    /// Bound to that and never listening: agents can, and the kernel gives it to nobody who asks for any.
    _port: TcpSocket,
    pub(crate) agent: Option<Child>,
    /// The control group of this world's agents, in each hierarchy.
    pub(crate) groups: String,
    /// Updates that came while another was waited for.
    early: VecDeque<StatusUpdate>,
    /// The last confirmed update of each launch. It comes again as long as that is not durable, also from the next agent.
    confirmed: BTreeMap<u64, u32>,
    sessions: u64,
}

/// A launch's number: index `n` of the log.
pub(crate) fn launch(n: u64) -> LaunchNumber {
    LaunchNumber { incarnation: 1, index: Index(n), n: 0 }
}

pub(crate) fn key(n: u64) -> TaskKey {
    TaskKey { framework_id: FrameworkId::new("f1"), task_id: TaskId::new(format!("t{n}")) }
}

pub(crate) fn shell(text: &str) -> TaskInfo {
    TaskInfo {
        command: Some(CommandInfo { value: Some(text.into()), ..Default::default() }),
        ..Default::default()
    }
}

pub(crate) fn order(n: u64, info: &TaskInfo) -> RunOrder {
    RunOrder {
        launch: launch(n),
        task: key(n),
        resources: Resources::of(100, 32),
        grace_ms: None,
        user: "".into(),
        killed: false,
        sealed: Sealed::new(info.encode_to_vec()),
        framework: Sealed::default(),
        executor: None,
        group: None,
        volumes: Vec::new(),
        starting: false,
        terms: Default::default(),
    }
}

pub(crate) fn variable(name: &str, value: &str) -> mesos::environment::Variable {
    mesos::environment::Variable { name: name.into(), value: Some(value.into()), ..Default::default() }
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let master = Master::start().await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap(); // as listeners do, or none could have the same
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        static WORLDS: AtomicUsize = AtomicUsize::new(0);
        let groups = format!("muster-test-{}-{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        let world = Self {
            dir,
            master,
            port: socket.local_addr().unwrap().port(),
            _port: socket,
            agent: None,
            groups,
            early: VecDeque::new(),
            confirmed: BTreeMap::new(),
            sessions: 0,
        };
        world.configure(&world.work_dir(), &[world.master.address.to_string()]);
        world
    }

    /// Sandboxes stay however full the disk of these tests is: many read what a task wrote after its end.
    pub(crate) fn configure(&self, work_dir: &Path, masters: &[String]) {
        let text = format!(
            "masters = {masters:?}\nwork-dir = {work_dir:?}\nruntime-dir = {:?}\nhostname = 'here'\nport = {}\n\
             resources = 'cpus:4;mem:1024'\nrepeat-ms = 300\nkill-grace-ms = 400\ndial-ms = 20\ndial-ms-max = 200\n\
             disk-headroom-percent = 0\ncgroup-root = {:?}\nallow-unenforced-limits = {}\n",
            self.runtime_dir(),
            self.port,
            self.groups,
            !rustix::process::geteuid().is_root(),
        );
        fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("agent.toml")
    }

    pub(crate) fn work_dir(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Longer than a socket's address may be.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.dir.path().join("run".repeat(50))
    }

    pub(crate) fn sandbox(&self, n: u64) -> PathBuf {
        self.work_dir().join(format!("sandboxes/f1/t{n}/1.{n}.0"))
    }

    pub(crate) fn stdout(&self, n: u64) -> String {
        fs::read_to_string(self.sandbox(n).join("stdout")).unwrap_or_default()
    }

    pub(crate) fn command(&self) -> Command {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new("/proc/self/exe");
        command.arg("agent").arg(self.config()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    pub(crate) fn start(&mut self) {
        self.agent = Some(self.command().spawn().unwrap());
    }

    /// Kills the agent as a power cut would, but for the tasks.
    pub(crate) fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("an agent");
        agent.kill().unwrap();
        assert_eq!(agent.wait().unwrap().signal(), Some(9));
    }

    /// Stops the agent as an operator does.
    pub(crate) async fn stop_agent(&mut self) -> std::process::ExitStatus {
        let mut agent = self.agent.take().expect("an agent");
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        tokio::task::spawn_blocking(move || agent.wait().unwrap()).await.unwrap()
    }

    /// Starts the agent and welcomes it. Returns its hello.
    pub(crate) async fn join(&mut self) -> (AgentStream, Hello) {
        self.start();
        self.welcome(1).await
    }

    /// Takes the next stream, says who leads, and welcomes the agent.
    pub(crate) async fn welcome(&mut self, term: u64) -> (AgentStream, Hello) {
        let (mut stream, hello) = self.hello(term).await;
        self.admit(&mut stream, Vec::new(), Index(0)).await;
        (stream, hello)
    }

    pub(crate) async fn hello(&mut self, term: u64) -> (AgentStream, Hello) {
        let mut stream = self.master.stream().await;
        stream.leader(term).await;
        match stream.hear().await {
            Some((Session(0), AgentCall::Hello(hello, ..))) => (stream, hello),
            other => panic!("{other:?} instead of a hello"),
        }
    }

    pub(crate) async fn admit(
        &mut self,
        stream: &mut AgentStream,
        forget: Vec<LaunchNumber>,
        low_mark: Index,
    ) {
        self.sessions += 1;
        self.early.clear();
        stream.session = Session(self.sessions);
        let agent_id = AgentId::new("c1-S1");
        stream.say(&AgentEvent::Welcome { agent_id, forget, low_mark, ping_ms: 30_000 }).await;
    }

    pub(crate) async fn run(&mut self, stream: &mut AgentStream, n: u64, text: &str) {
        stream.say(&AgentEvent::Run(Box::new(order(n, &shell(text))))).await;
    }

    /// The next update of a launch that was not confirmed before; each is confirmed.
    pub(crate) async fn update(&mut self, stream: &mut AgentStream, n: u64) -> StatusUpdate {
        loop {
            let update = self.heard(stream, n).await;
            stream.say(&AgentEvent::Confirm { launch: launch(n), seq: update.seq }).await;
            if self.is_new(n, update.seq) {
                self.confirmed.insert(n, update.seq);
                return update;
            }
        }
    }

    /// The same, not confirmed: it comes again.
    pub(crate) async fn unconfirmed(&mut self, stream: &mut AgentStream, n: u64) -> StatusUpdate {
        loop {
            let update = self.heard(stream, n).await;
            if self.is_new(n, update.seq) {
                return update;
            }
        }
    }

    fn is_new(&self, n: u64, seq: u32) -> bool {
        self.confirmed.get(&n).is_none_or(|last| *last < seq)
    }

    async fn heard(&mut self, stream: &mut AgentStream, n: u64) -> StatusUpdate {
        if let Some(i) = self.early.iter().position(|update| update.launch == launch(n)) {
            return self.early.remove(i).unwrap();
        }
        loop {
            match stream.hear().await.expect("an open stream") {
                (_, AgentCall::Status(update)) if update.launch == launch(n) => return update,
                (_, AgentCall::Status(update)) => self.early.push_back(update),
                _ => {}
            }
        }
    }

    /// The next updates of a launch to the terminal one, each once: their states and the last message.
    pub(crate) async fn outcome(&mut self, stream: &mut AgentStream, n: u64) -> (Vec<TaskState>, String) {
        let mut states = Vec::new();
        loop {
            let update = self.update(stream, n).await;
            states.push(update.status.state);
            if update.status.state.is_terminal() {
                return (states, update.status.message.to_string());
            }
        }
    }

    /// Kills a task and waits for its end.
    pub(crate) async fn kill_task(&mut self, stream: &mut AgentStream, n: u64) {
        let grace_ms = Some(1);
        stream.say(&AgentEvent::Kill { launch: launch(n), task: key(n), grace_ms }).await;
        while !self.update(stream, n).await.status.state.is_terminal() {}
    }

    /// Waits until a file holds a whole line, and returns it.
    pub(crate) async fn line(&self, path: &Path) -> String {
        loop {
            match fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text.trim_end().to_owned(),
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Waits until a process is gone, or a zombie that nobody of ours has to reap.
    pub(crate) async fn gone(&self, pid: &str) {
        while alive(pid) {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Has a process stand still. Until it does it may still take what it waits for.
    pub(crate) async fn halt(&self, pid: &str) {
        signal(pid, rustix::process::Signal::STOP);
        while state(pid) != Some('T') {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until something came over a socket of a process that it has not read.
    pub(crate) async fn has_unread(&self, pid: &str) {
        while !unread(pid) {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until no process of this world's tasks and supervisors is left.
    pub(crate) async fn no_processes(&self) {
        while !self.processes().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the helper of an agent that is gone has ended, and each process that it forked is found, or gone.
    pub(crate) async fn all_are_found(&self) {
        let lock = fs::File::options().write(true).open(self.work_dir().join("meta/launching")).unwrap();
        while lock.try_lock().is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until nothing is in a directory.
    pub(crate) async fn none_in(&self, dir: &Path) {
        while fs::read_dir(dir).unwrap().next().is_some() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until no directory is in a directory.
    pub(crate) async fn no_directory_in(&self, dir: &Path) {
        let has_any = || fs::read_dir(dir).unwrap().flatten().any(|it| it.path().is_dir());
        while has_any() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The agent's launch helper, once there is one.
    pub(crate) async fn helper(&self) -> String {
        let agent = self.agent.as_ref().expect("an agent").id().to_string();
        loop {
            let found = children(&agent).into_iter().find(|pid| {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                command.split(|byte| *byte == 0).nth(1) == Some(muster_agent::LAUNCH_HELPER.as_bytes())
            });
            match found {
                Some(helper) => return helper,
                None => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Asks the agent over HTTP: this head, without its end, and this body. Returns the whole answer as bytes.
    pub(crate) async fn ask(&self, head: &str, body: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let head =
            format!("{head}\r\nHost: here\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    }

    /// The same with texts: the code and the body, which is not compressed.
    pub(crate) async fn post(&self, head: &str, body: &str) -> (u16, String) {
        let answer = self.ask(head, body.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Where this world's control groups are, in each hierarchy that has any.
    pub(crate) fn group_dirs(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let is_groups = |line: &&str| line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
        let dirs = mounts.lines().filter(is_groups).filter_map(|line| line.split(' ').nth(4));
        dirs.map(|mount| Path::new(mount).join(&self.groups)).filter(|dir| dir.is_dir()).collect()
    }

    /// Every process of this world's tasks and supervisors.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let run = self.runtime_dir().display().to_string();
        let mark = format!("MUSTER_TASK_MARK={run}");
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                let marked = environment.split(|byte| *byte == 0).any(|one| one.starts_with(mark.as_bytes()));
                marked || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&run))
            })
            .collect()
    }
}

/// The children of a process, started by whichever of its threads; also those that nobody reaped yet.
pub(crate) fn children(pid: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The parent of a process.
pub(crate) fn parent(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned()
}

pub(crate) fn signal(pid: &str, signal: rustix::process::Signal) {
    assert!(try_signal(pid, signal), "no process {pid}");
}

/// The same to one that may be gone by now: false then.
pub(crate) fn try_signal(pid: &str, signal: rustix::process::Signal) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    match rustix::process::kill_process(pid, signal) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error, rustix::io::Errno::SRCH);
            false
        }
    }
}

pub(crate) fn alive(pid: &str) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// The letter of a process's state, if it is there.
fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Whether something is queued at a TCP socket of a process, by proc_net_tcp(5).
fn unread(pid: &str) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").filter_map(Result::ok);
    let open: Vec<_> = files.filter_map(|file| fs::read_link(file.path()).ok()).collect();
    let sockets = fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("its sockets");
    sockets.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (queues, inode) = (fields[4], fields[9]);
        !queues.ends_with(":00000000") && open.contains(&PathBuf::from(format!("socket:[{inode}]")))
    })
}

impl Drop for World {
    /// Leaves nothing running.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "agent's log:\n{}",
                fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
            );
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        // Else what its helper forked a moment ago is not found, and begins when all is removed.
        if let Ok(lock) = fs::File::options().write(true).open(self.work_dir().join("meta/launching")) {
            for _ in 0..500 {
                if lock.try_lock().is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for _ in 0..500 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left {
                if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for dir in self.group_dirs() {
            remove_groups(&dir);
        }
    }
}

/// Removes a group and those below; the kernel may be busy with their last process for a moment.
fn remove_groups(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    for _ in 0..500 {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            _ => return,
        }
    }
}
