//! Clients of Mesos that nobody here wrote, as they are on PyPI, against real clusters of the shipped binary. What they are
//! told to do and what they say is in `mesos_clients/framework.py`.
//!
//! They are installed into virtual environments below the target directory. On a machine without a fitting Python a test
//! says so and passes, but fails under `CI=true`.

#![allow(clippy::unwrap_used)]

use muster_testkit::{Plan, TestCluster};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

/// For whatever a client waits longest.
const PATIENCE: Duration = Duration::from_secs(90);

/// A client library and the Python that it takes.
struct Library {
    name: &'static str,
    /// The newest and the oldest, as minor versions of Python 3.
    pythons: std::ops::RangeInclusive<u32>,
}

/// Its HTTP parser cannot be built for a newer Python.
const PYMESOS: Library = Library { name: "pymesos", pythons: 8..=10 };
/// Its other requirements are pinned to versions that take no older Python.
const AVMESOS: Library = Library { name: "avmesos", pythons: 11..=13 };

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mesos_clients")
}

/// A Python of that minor version that can make virtual environments.
fn python(minor: u32) -> Option<PathBuf> {
    let name = format!("python3.{minor}");
    let home = std::env::var("HOME").unwrap_or_default();
    let pyenv = std::env::var("PYENV_ROOT").unwrap_or_else(|_| format!("{home}/.pyenv"));
    let versions = fs::read_dir(Path::new(&pyenv).join("versions")).into_iter().flatten().flatten();
    let in_pyenv = versions.map(|version| version.path().join("bin").join(&name));
    let places = ["/usr/bin", "/usr/local/bin"].map(|place| Path::new(place).join(&name));
    // By name last: what is found so may be a shim that starts nothing.
    let all = in_pyenv.chain(places).chain([PathBuf::from(&name)]);
    let fits = |path: &PathBuf| {
        let check =
            format!("import ensurepip, sys, venv; raise SystemExit(sys.version_info[:2] != (3, {minor}))");
        let output = Command::new(path).args(["-c", &check]).stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    };
    all.into_iter().find(fits)
}

impl Library {
    /// The Python of an environment in which it is installed, made if it is not there; or what is missing.
    fn install(&self) -> Result<PathBuf, String> {
        let (oldest, newest) = (self.pythons.start(), self.pythons.end());
        let found = self.pythons.clone().rev().find_map(|minor| Some((minor, python(minor)?)));
        let (minor, python) =
            found.ok_or_else(|| format!("{} needs Python 3.{oldest} to 3.{newest} with venv", self.name))?;
        let list = programs().join(format!("{}.txt", self.name));
        let wanted = fs::read_to_string(&list).unwrap();
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mesos-clients");
        fs::create_dir_all(&all).unwrap();
        let dir = all.join(format!("{}-3.{minor}", self.name));
        // Tests are processes of their own: one installs, the others wait.
        let lock = File::create(all.join(format!("{}.lock", self.name))).unwrap();
        lock.lock().unwrap();
        let (inside, done) = (dir.join("bin/python"), dir.join("installed.txt"));
        if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
            return Ok(inside);
        }
        let _ = fs::remove_dir_all(&dir);
        run(Command::new(&python).args(["-m", "venv"]).arg(&dir))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"];
        run(Command::new(&inside).args(pip).arg(&list))?;
        fs::write(&done, wanted).unwrap();
        Ok(inside)
    }

    /// Whether it is there. If not it is said, and the test passes, but fails under `CI=true`.
    fn python(&self) -> Option<PathBuf> {
        match self.install() {
            Ok(python) => Some(python),
            Err(missing) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped under CI: {missing}");
                eprintln!("skipped: {missing}");
                None
            }
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said())) }
}

/// A framework in a process of its own.
struct Framework {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    id: String,
    subscriptions: usize,
}

/// Something that the framework said.
#[derive(Debug)]
struct Said(Value);

impl Said {
    fn is(&self, event: &str) -> bool {
        self.0["event"] == event
    }

    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }
}

impl Framework {
    /// Starts it; what it has no use for it declines for so long.
    fn start(python: &Path, library: &Library, masters: &[String], refuse_seconds: u32) -> Self {
        Self::start_as(&[], python, library, masters, refuse_seconds)
    }

    /// The same, as the principal that these variables name.
    fn start_as(
        variables: &[(&str, &str)],
        python: &Path,
        library: &Library,
        masters: &[String],
        refuse_seconds: u32,
    ) -> Self {
        // Of pymesos the executor's driver is as good a client as the scheduler's; the other has none.
        let executor =
            format!("exec {} {}", python.display(), programs().join("executor_pymesos.py").display());
        let mut child = tokio::process::Command::new(python)
            .arg(programs().join(format!("with_{}.py", library.name)))
            .args([masters.join(","), refuse_seconds.to_string(), executor])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (orders, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let lines = BufReader::new(output).lines();
        Self { child, orders, lines, id: String::new(), subscriptions: 0 }
    }

    async fn order(&mut self, what: &str) {
        self.orders.write_all(format!("{what}\n").as_bytes()).await.unwrap();
    }

    /// What it says next. Its id never changes, and no task ends but as the test means it to.
    async fn next(&mut self) -> Said {
        let line =
            timeout(PATIENCE, self.lines.next_line()).await.expect("something is said in time").unwrap();
        let said = Said(serde_json::from_str(&line.expect("the framework goes on")).unwrap());
        match said.text("event") {
            "subscribed" => {
                self.subscriptions += 1;
                let id = said.text("framework_id");
                assert!(self.id.is_empty() || self.id == id, "{} became {id}", self.id);
                self.id = id.into();
            }
            "error" => panic!("the framework was told an error: {said:?}"),
            "ended" => {
                let means = ["TASK_FINISHED", "TASK_KILLED"];
                assert!(means.contains(&said.text("state")), "{said:?}");
            }
            _ => {}
        }
        said
    }

    async fn until(&mut self, wanted: impl Fn(&Said) -> bool) -> Said {
        loop {
            let said = self.next().await;
            if wanted(&said) {
                return said;
            }
        }
    }

    async fn done(&mut self, what: &str) {
        self.until(|said| said.is("done") && said.text("what") == what).await;
    }

    /// Waits until so many tasks have ended in this state.
    async fn ended(&mut self, count: usize, state: &str) {
        for _ in 0..count {
            let said = self.until(|said| said.is("ended")).await;
            assert_eq!(said.text("state"), state, "{said:?}");
        }
    }

    /// Waits for some heartbeats, of which the first ends what was on its way; there is no offer between the others.
    async fn is_offered_nothing(&mut self) {
        // A client may show each event when the next one has come.
        for _ in 0..2 {
            self.until(|said| said.is("heartbeat")).await;
        }
        let mut heartbeats = 0;
        while heartbeats < 3 {
            let said = self.next().await;
            assert!(!said.is("offer"), "{said:?}");
            heartbeats += usize::from(said.is("heartbeat"));
        }
    }

    async fn quit(mut self) {
        self.order("quit").await;
        self.until(|said| said.is("quit")).await;
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").unwrap();
        assert!(status.success(), "{status}");
    }
}

/// A cluster, and the file to which each task adds a line when it starts.
struct Stage {
    cluster: TestCluster,
    dir: tempfile::TempDir,
}

impl Stage {
    async fn set() -> Self {
        Self::with("").await
    }

    /// With more lines of the masters' configuration.
    async fn with(master_config: &str) -> Self {
        // Some clients see an event when the next one has come.
        let master_config = [Plan::STEADY, "[session]\nheartbeat-ms = 1000\n", master_config].concat();
        let plan = Plan { agents: 2, master_config, ..Plan::default() };
        let dir = tempfile::tempdir().unwrap();
        Self { cluster: TestCluster::start(plan).await.unwrap(), dir }
    }

    fn marker(&self) -> PathBuf {
        self.dir.path().join("started")
    }

    /// A command that takes note of its start and goes on with another one. `{}` is the task.
    fn command(&self, then: &str) -> String {
        format!("echo {{}} >> {}; {then}", self.marker().display())
    }

    /// All masters, those that follow first.
    async fn masters(&self) -> Vec<String> {
        let leader = self.cluster.leader().await.unwrap();
        let mut masters: Vec<_> =
            self.cluster.master_names().into_iter().zip(self.cluster.masters()).collect();
        masters.sort_by_key(|(name, _)| *name == leader);
        masters.into_iter().map(|(_, address)| address).collect()
    }

    /// How often each task was started, whatever id it had.
    fn starts(&self) -> BTreeMap<String, usize> {
        let mut starts = BTreeMap::new();
        for line in fs::read_to_string(self.marker()).unwrap_or_default().lines() {
            let (name, _attempt) = line.rsplit_once('.').unwrap();
            *starts.entry(name.to_owned()).or_default() += 1;
        }
        starts
    }

    /// Waits until a task has taken note of its start: it is told to run a little before it does.
    async fn has_started(&self, task: &str) {
        let started = async {
            while !self.starts().contains_key(task) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, started).await.expect("the task starts in time");
    }

    /// Each task was started once.
    fn all_started_once(&self, tasks: usize) {
        let once: BTreeMap<String, usize> = (0..tasks).map(|n| (format!("task-{n}"), 1)).collect();
        assert_eq!(self.starts(), once);
    }

    /// Kills the leader, and starts it again once another one serves.
    async fn another_leader(&self) {
        let (leader, term) = self.cluster.serving().await.unwrap();
        self.cluster.kill(&leader).unwrap();
        self.cluster.serving_after(term).await.unwrap();
        self.cluster.restart(&leader).unwrap();
        self.cluster.caught_up(&leader).await.unwrap();
    }

    async fn frameworks(&self) -> Vec<(String, String)> {
        let all = self.cluster.operator().frameworks(false).await.unwrap();
        all.into_iter().map(|framework| (framework.framework_id, framework.name)).collect()
    }

    async fn end(self) {
        let end = self.cluster.end().await.unwrap();
        assert!(end.killed.is_empty() && end.left.is_empty(), "{end:?}");
    }
}

/// Short tasks of different length.
const SHORT: &str = "sleep 0.$(($$ % 9))";
/// One that ends when it is killed.
const LONG: &str = "exec sleep 1000";

/// Launch, kill, decline with a filter, suppress, revive, reconcile, tear down; by a client that knows of one master only,
/// which does not lead.
async fn a_workload(library: &Library) {
    let Some(python) = library.python() else { return };
    let stage = Stage::set().await;
    let follower = stage.masters().await.swap_remove(0);
    let mut framework = Framework::start(&python, library, &[follower], 3600);

    // What is declined for long is not offered again.
    framework.until(|said| said.is("subscribed")).await;
    assert_eq!(stage.frameworks().await, [(framework.id.clone(), library.name.to_owned())]);
    let mut declined = std::collections::BTreeSet::new();
    while declined.len() < 2 {
        let offer = framework.until(|said| said.is("offer")).await;
        declined.insert(offer.text("host").to_owned());
    }
    framework.is_offered_nothing().await;

    // Until it wants offers again: some dozen tasks run.
    framework.order(&format!("launch 24 {}", stage.command(SHORT))).await;
    framework.ended(24, "TASK_FINISHED").await;
    stage.all_started_once(24);

    framework.order(&format!("launch 1 {}", stage.command(LONG))).await;
    let running = |said: &Said| said.is("update") && said.text("task") == "task-24.1";
    assert_eq!(framework.until(running).await.text("state"), "TASK_STARTING", "as Mesos tells it");
    framework.until(|said| running(said) && said.text("state") == "TASK_RUNNING").await;
    stage.has_started("task-24").await;

    // What becomes of a task, and of one that nobody knows.
    framework.order("reconcile task-24 nobody").await;
    let reconciled = |said: &Said| said.is("update") && said.text("reason") == "REASON_RECONCILIATION";
    let mut told = BTreeMap::new();
    while told.len() < 2 {
        let said = framework.until(reconciled).await;
        assert_eq!(said.0["acknowledged"], false, "a master's word has no uuid: {said:?}");
        told.insert(said.text("task").to_owned(), said.text("state").to_owned());
    }
    let states = ["TASK_LOST", "TASK_RUNNING"].map(str::to_owned);
    assert_eq!(told.into_values().collect::<Vec<_>>(), states, "of nobody, of task-24");

    // A framework that wants no offers gets none when a task leaves its part.
    framework.order("suppress").await;
    framework.done("suppress").await;
    framework.order("kill task-24").await;
    framework.ended(1, "TASK_KILLED").await;
    framework.is_offered_nothing().await;
    framework.order("revive").await;
    framework.until(|said| said.is("offer")).await;

    assert_eq!(framework.subscriptions, 1, "one stream did all of this");
    framework.quit().await;
    assert!(stage.frameworks().await.is_empty());
    stage.all_started_once(25);
    stage.end().await;
}

/// Tasks run in the library's own executor, which is messaged; one of them is killed.
async fn a_workload_in_an_executor(library: &Library) {
    let Some(python) = library.python() else { return };
    let stage = Stage::set().await;
    let masters = stage.masters().await;
    let mut framework = Framework::start(&python, library, &masters, 1);
    framework.order(&format!("execute 12 {}", stage.command(SHORT))).await;
    framework.ended(12, "TASK_FINISHED").await;
    framework.order(&format!("execute 1 {}", stage.command(LONG))).await;
    let running = |said: &Said| said.is("update") && said.text("task") == "task-12.1";
    framework.until(|said| running(said) && said.text("state") == "TASK_RUNNING").await;
    stage.has_started("task-12").await;
    framework.order("message how are you").await;
    let answer = framework.until(|said| said.is("message")).await;
    assert_eq!(answer.text("text"), "how are you: 1 running");
    framework.order("kill task-12").await;
    framework.ended(1, "TASK_KILLED").await;
    framework.quit().await;
    stage.all_started_once(13);
    stage.end().await;
}

/// A task in an executor runs on while leaders are killed, and others with it.
async fn leaders_are_killed_over_an_executor(library: &Library) {
    let Some(python) = library.python() else { return };
    let stage = Stage::set().await;
    let masters = stage.masters().await;
    let mut framework = Framework::start(&python, library, &masters, 1);
    framework.order(&format!("execute 1 {}", stage.command(LONG))).await;
    framework.until(|said| said.is("update") && said.text("state") == "TASK_RUNNING").await;
    stage.has_started("task-0").await;
    const WAVE: usize = 6;
    for _ in 0..3 {
        framework.order(&format!("execute {WAVE} {}", stage.command(SHORT))).await;
        framework.ended(1, "TASK_FINISHED").await;
        stage.another_leader().await;
        framework.ended(WAVE - 1, "TASK_FINISHED").await;
    }
    framework.order("kill task-0").await;
    framework.ended(1, "TASK_KILLED").await;
    framework.quit().await;
    stage.all_started_once(1 + 3 * WAVE);
    stage.end().await;
}

/// Tasks run while three leaders are killed, one after the other.
async fn leaders_are_killed(library: &Library) {
    let Some(python) = library.python() else { return };
    let stage = Stage::set().await;
    let masters = stage.masters().await;
    let mut framework = Framework::start(&python, library, &masters, 1);
    framework.order(&format!("launch 1 {}", stage.command(LONG))).await;
    framework.until(|said| said.is("update") && said.text("state") == "TASK_RUNNING").await;
    stage.has_started("task-0").await;
    const WAVE: usize = 16;
    for _ in 0..3 {
        // Some have ended, some run, some wait to be launched.
        framework.order(&format!("launch {WAVE} {}", stage.command(SHORT))).await;
        framework.ended(3, "TASK_FINISHED").await;
        stage.another_leader().await;
        framework.ended(WAVE - 3, "TASK_FINISHED").await;
    }
    // All may have ended before it was last told so.
    while framework.subscriptions < 4 {
        framework.next().await;
    }
    assert_eq!(stage.frameworks().await, [(framework.id.clone(), library.name.to_owned())]);
    // What ran before the first of them died still does.
    framework.order("kill task-0").await;
    framework.ended(1, "TASK_KILLED").await;
    framework.quit().await;
    stage.all_started_once(1 + 3 * WAVE);
    stage.end().await;
}

/// A stream that a follower carries outlives the leader: the framework does not notice.
async fn a_leader_is_killed_behind_a_follower(library: &Library) {
    let Some(python) = library.python() else { return };
    let stage = Stage::with("[api]\nfollower-streams = \"forward\"\n").await;
    let follower = stage.masters().await.swap_remove(0);
    let mut framework = Framework::start(&python, library, &[follower], 1);
    framework.until(|said| said.is("subscribed")).await;
    const WAVE: usize = 16;
    framework.order(&format!("launch {WAVE} {}", stage.command(SHORT))).await;
    framework.ended(3, "TASK_FINISHED").await;
    stage.another_leader().await;
    framework.ended(WAVE - 3, "TASK_FINISHED").await;
    assert_eq!(framework.subscriptions, 1, "one stream did all of this");
    framework.quit().await;
    stage.all_started_once(WAVE);
    stage.end().await;
}

/// A framework that shows its principal and secret at a follower, by a library that sends both itself.
async fn a_framework_shows_who_it_is(library: &Library) {
    let Some(python) = library.python() else { return };
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let credentials = r#"{"credentials": [{"principal": "web", "secret": "of web"}]}"#;
    let rules = r#"{
        "run_tasks": [{"principals": {"values": ["web"]}, "users": {"type": "ANY"}},
            {"principals": {"type": "ANY"}, "users": {"type": "NONE"}}],
        "register_frameworks": [{"principals": {"values": ["web"]}, "roles": {"type": "ANY"}},
            {"principals": {"type": "ANY"}, "roles": {"type": "NONE"}}]}"#;
    let (credentials, rules) = (file("credentials.json", credentials), file("acls.json", rules));
    let config = format!("[auth]\nframeworks = true\ncredentials = {credentials:?}\nacls = {rules:?}\n");
    let stage = Stage::with(&config).await;
    let follower = stage.masters().await.swap_remove(0);
    let variables = [("TEST_PRINCIPAL", "web"), ("TEST_SECRET", "of web")];
    let mut framework = Framework::start_as(&variables, &python, library, &[follower], 1);
    framework.order(&format!("launch 4 {}", stage.command(SHORT))).await;
    framework.ended(4, "TASK_FINISHED").await;
    assert_eq!(stage.frameworks().await, [(framework.id.clone(), library.name.to_owned())]);
    framework.quit().await;
    stage.all_started_once(4);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pymesos_shows_who_it_is() {
    a_framework_shows_who_it_is(&PYMESOS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pymesos_does_not_notice_that_a_leader_is_killed_behind_a_follower() {
    a_leader_is_killed_behind_a_follower(&PYMESOS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pymesos_runs_a_workload() {
    a_workload(&PYMESOS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pymesos_goes_on_while_leaders_are_killed() {
    leaders_are_killed(&PYMESOS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn avmesos_runs_a_workload() {
    a_workload(&AVMESOS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn avmesos_goes_on_while_leaders_are_killed() {
    leaders_are_killed(&AVMESOS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pymesos_runs_a_workload_in_its_executor() {
    a_workload_in_an_executor(&PYMESOS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pymesos_and_its_executor_go_on_while_leaders_are_killed() {
    leaders_are_killed_over_an_executor(&PYMESOS).await;
}
