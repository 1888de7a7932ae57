//! What tasks write, where no more than so much of it is kept.

use crate::{
    containers::{busybox, in_container, makers, nothing_is_left},
    executor::{self, executor_info, in_executor},
    pods::{self, in_pod},
    runner::cases,
    world::{World, alive, order, shell, variable},
};
use muster_model::{AgentEvent, TaskState, event::RunOrder};
use muster_proto::mesos::{CommandInfo, Environment, TaskInfo};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::sleep;

cases!(
    a_task_says_what_is_kept_of_it,
    what_a_task_asks_for_and_cannot_have_is_told,
    an_agent_says_what_is_kept_of_all,
    a_tasks_files_are_its_users,
    output_goes_on_while_there_is_no_agent,
    what_is_left_running_delays_no_ending,
    a_full_disk_neither_stops_nor_ends_a_task,
    a_container_is_rotated_likewise,
    a_part_of_a_file_says_of_which_it_is,
);

fn command(text: &str, variables: &[(&str, &str)]) -> CommandInfo {
    let variables = variables.iter().map(|(name, value)| variable(name, value)).collect();
    let environment = Some(Environment { variables });
    CommandInfo { environment, ..shell(text).command.unwrap() }
}

fn run(n: u64, text: &str, variables: &[(&str, &str)]) -> AgentEvent {
    let info = TaskInfo { command: Some(command(text, variables)), ..Default::default() };
    AgentEvent::Run(Box::new(order(n, &info)))
}

fn configure(world: &World, logs: &str) {
    let text = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), format!("{text}[logs]\n{logs}\n")).unwrap();
}

/// The files of a stream, the newest first.
fn files(sandbox: &Path, stream: &str) -> Vec<PathBuf> {
    let older = (1..).map(|n| sandbox.join(format!("{stream}.{n}"))).take_while(|path| path.exists());
    std::iter::once(sandbox.join(stream)).chain(older).collect()
}

/// All that is kept of a stream.
fn kept(sandbox: &Path, stream: &str) -> String {
    files(sandbox, stream).iter().rev().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// All lines of a stream are numbers, each one more than that before; the first and the last. Where there are older files
/// there may have been more, and only a part of the first line is kept.
fn range(sandbox: &Path, stream: &str) -> (u64, u64) {
    let text = kept(sandbox, stream);
    let parts = usize::from(files(sandbox, stream).len() > 1);
    let numbers: Vec<u64> = text.lines().skip(parts).map(|line| line.parse().unwrap()).collect();
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    assert!(text.ends_with('\n') && numbers.iter().copied().eq(first..=last), "{text}");
    (first, last)
}

async fn a_task_says_what_is_kept_of_it(mut world: World) {
    let (mut stream, _) = world.join().await;
    let variables = [
        ("CONTAINER_LOGGER_MAX_STDOUT_SIZE", "4KB"),
        ("CONTAINER_LOGGER_LOGROTATE_STDOUT_OPTIONS", "rotate 2"),
    ];
    stream.say(&run(1, "seq 1 5000; seq 1 5000 >&2", &variables)).await;
    let (states, message) = world.outcome(&mut stream, 1).await;
    assert_eq!(states.last(), Some(&TaskState::Finished), "{message}");
    let sandbox = world.sandbox(1);
    let sizes: Vec<u64> = files(&sandbox, "stdout").iter().map(|it| it.metadata().unwrap().len()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size <= 4_096), "{sizes:?}");
    let (first, last) = range(&sandbox, "stdout");
    // As many as fit.
    assert!(last == 5_000 && (2_500..2_700).contains(&first), "{first}");
    // Of the other stream nothing was said, so it is all there, in one file.
    assert_eq!((files(&sandbox, "stderr").len(), range(&sandbox, "stderr")), (1, (1, 5_000)));
}

async fn what_a_task_asks_for_and_cannot_have_is_told(mut world: World) {
    configure(&world, "asked-bytes-max = 1048576");
    let (mut stream, _) = world.join().await;
    let size = "CONTAINER_LOGGER_MAX_STDERR_SIZE";
    for (n, value, state, part) in [
        (1, "1", TaskState::Error, "The variable CONTAINER_LOGGER_MAX_STDERR_SIZE is \"1\""),
        (2, "1MB", TaskState::Failed, "at most 1048576 (logs.asked-bytes-max)"),
    ] {
        stream.say(&run(n, "true", &[(size, value)])).await;
        let (states, message) = world.outcome(&mut stream, n).await;
        assert_eq!(states.last(), Some(&state), "{message}");
        assert!(message.contains(part), "{message}");
    }
}

/// Tasks, those of pods, and executors.
async fn an_agent_says_what_is_kept_of_all(mut world: World) {
    configure(&world, "rotate-bytes = 4096\nkeep = 1");
    let (mut stream, _) = world.join().await;
    let text = "seq 1 5000; echo last >&2";
    stream.say(&run(1, text, &[])).await;
    assert_eq!(world.outcome(&mut stream, 1).await.0.last(), Some(&TaskState::Finished));
    let check = |sandbox: &Path| {
        let sizes: Vec<u64> =
            files(sandbox, "stdout").iter().map(|it| it.metadata().unwrap().len()).collect();
        assert!(sizes.len() == 2 && sizes.iter().all(|size| *size <= 4_096), "{sizes:?}");
        assert_eq!(range(sandbox, "stdout").1, 5_000);
        assert_eq!(kept(sandbox, "stderr"), "last\n");
    };
    check(&world.sandbox(1));
    let mut ear = pods::Ear::new(stream);
    ear.run(in_pod(2, 0, 1, text)).await;
    ear.states(2, 0, TaskState::Finished).await;
    check(&world.work_dir().join("sandboxes/f1/pod/1.2.0/tasks/t20"));
    let mut ear = executor::Ear::new(ear.into_stream());
    let info = executor_info(command(&format!("{text}; exec sleep 1000"), &[]));
    ear.run(in_executor(3, &info, "")).await;
    let sandbox = world.work_dir().join("sandboxes/f1/e1/1.3.0");
    world.line(&sandbox.join("stderr")).await;
    while !kept(&sandbox, "stdout").ends_with("5000\n") {
        sleep(Duration::from_millis(5)).await;
    }
    check(&sandbox);
}

async fn a_tasks_files_are_its_users(mut world: World) {
    if !crate::limits::may_run() {
        return;
    }
    fs::set_permissions(world.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    configure(&world, "rotate-bytes = 4096\nkeep = 1");
    let (mut stream, _) = world.join().await;
    let info = shell("seq 1 2000; echo opened > /dev/stdout; echo likewise > /dev/stderr");
    let run = RunOrder { user: "nobody".into(), ..order(1, &info) };
    stream.say(&AgentEvent::Run(Box::new(run))).await;
    let (states, message) = world.outcome(&mut stream, 1).await;
    assert_eq!(states.last(), Some(&TaskState::Finished), "{message}");
    let sandbox = world.sandbox(1);
    assert!(kept(&sandbox, "stdout").ends_with("2000\nopened\n"));
    assert_eq!(kept(&sandbox, "stderr"), "likewise\n");
    for path in files(&sandbox, "stdout") {
        assert_eq!(path.metadata().unwrap().uid(), 65_534, "{}", path.display());
    }
}

async fn output_goes_on_while_there_is_no_agent(mut world: World) {
    configure(&world, "rotate-bytes = 4096\nkeep = 100");
    let (mut stream, _) = world.join().await;
    let text = "n=0; until [ -e end ]; do n=$((n + 1)); echo $n; done; echo $n > last";
    stream.say(&run(1, text, &[])).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    world.kill_agent();
    let sandbox = world.sandbox(1);
    // It may have gone through as many files as are kept already.
    let newest = || sandbox.join("stdout").metadata().ok().map(|it| it.ino());
    for _ in 0..3 {
        let before = newest();
        while newest() == before || newest().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let (mut stream, _) = world.join().await;
    fs::write(sandbox.join("end"), "").unwrap();
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Finished);
    let last = fs::read_to_string(sandbox.join("last")).unwrap();
    assert_eq!(range(&sandbox, "stdout").1.to_string(), last.trim_end());
}

async fn what_is_left_running_delays_no_ending(mut world: World) {
    configure(&world, "rotate-bytes = 4096");
    let (mut stream, _) = world.join().await;
    stream.say(&run(1, "setsid sleep 1000 & echo $! > child; echo written", &[])).await;
    let (states, message) = world.outcome(&mut stream, 1).await;
    assert_eq!(states.last(), Some(&TaskState::Finished), "{message}");
    assert_eq!(world.stdout(1), "written\n");
    assert!(!alive(&world.line(&world.sandbox(1).join("child")).await));
}

/// A file system of its own for sandboxes, which goes with this.
struct Small(PathBuf);

impl Small {
    /// None where none can be mounted.
    fn mount(path: PathBuf, bytes: u64) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("small", &path, "tmpfs", flags, &*size) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                println!("skipped: a small file system takes root: {error}");
                assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must run this as root");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH); // it may be gone
    }
}

async fn a_full_disk_neither_stops_nor_ends_a_task(mut world: World) {
    let sandboxes = world.work_dir().join("sandboxes");
    let Some(_small) = Small::mount(sandboxes.clone(), 1 << 20) else { return };
    let (mut stream, _) = world.join().await;
    let ballast = sandboxes.join("ballast");
    fs::write(&ballast, vec![0; 512 << 10]).unwrap();
    let here = world.dir.path().display();
    let text = format!(
        "head -c 3000000 /dev/zero | tr '\\0' x; echo > {here}/written; \
         until [ -e {here}/go ]; do sleep 0.01; done; echo; echo after; exit 3"
    );
    stream.say(&run(1, &text, &[("CONTAINER_LOGGER_MAX_STDOUT_SIZE", "10MB")])).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    world.line(&world.dir.path().join("written")).await;
    fs::remove_file(&ballast).unwrap();
    fs::write(world.dir.path().join("go"), "").unwrap();
    let (states, message) = world.outcome(&mut stream, 1).await;
    assert_eq!(states.last(), Some(&TaskState::Failed));
    assert!(message.contains("status 3"), "{message}");
    let output = world.stdout(1);
    let (_, rest) = output.split_once("muster: ").expect("a word about what is lost");
    let (lost, rest) = rest.split_once(" bytes of stdout are lost here: No space left on device").unwrap();
    assert!(rest.ends_with("\nafter\n"), "{rest}");
    let written = output.matches('x').count() as u64;
    // Nothing is lost but what was said; its line end may be.
    let lost: u64 = lost.parse().unwrap();
    assert!([3_000_000, 3_000_001].contains(&(written + lost)), "{written} and {lost}");
}

async fn a_container_is_rotated_likewise(_of_its_own: World) {
    for runtime in makers() {
        let (mut world, images) = crate::containers::world(runtime).await;
        configure(&world, "rotate-bytes = 4096\nkeep = 1");
        let (mut stream, _) = world.join().await;
        stream.say(&in_container(5, "seq 1 5000; echo error >&2", busybox(&images))).await;
        let (states, message) = world.outcome(&mut stream, 5).await;
        assert_eq!(states.last(), Some(&TaskState::Finished), "{message}");
        let sandbox = world.sandbox(5);
        assert_eq!((files(&sandbox, "stdout").len(), range(&sandbox, "stdout").1), (2, 5_000));
        assert_eq!(kept(&sandbox, "stderr"), "error\n");
        nothing_is_left(&world, &images).await;
    }
}

async fn a_part_of_a_file_says_of_which_it_is(mut world: World) {
    configure(&world, "rotate-bytes = 4096\nkeep = 1");
    let (mut stream, _) = world.join().await;
    let text = "echo begun; until [ -e go ]; do sleep 0.01; done; seq 1 1200; echo done >&2; sleep 1000";
    stream.say(&run(1, text, &[])).await;
    let sandbox = world.sandbox(1);
    world.line(&sandbox.join("stdout")).await;
    let first = file(&world, &sandbox.join("stdout")).await;
    fs::write(sandbox.join("go"), "").unwrap();
    world.line(&sandbox.join("stderr")).await;
    while !kept(&sandbox, "stdout").ends_with("1200\n") {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(file(&world, &sandbox.join("stdout.1")).await, first);
    assert_ne!(file(&world, &sandbox.join("stdout")).await, first);
}

/// Which file it is, by both ways to read it.
async fn file(world: &World, path: &Path) -> String {
    let name = "muster-file: ";
    let of = |answer: Vec<u8>| {
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let found = answer.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        found.unwrap_or_else(|| panic!("{answer}"))
    };
    let read = of(world.ask(&format!("GET /files/read?path={} HTTP/1.1", path.display()), b"").await);
    let call = serde_json::json!({"type": "READ_FILE", "read_file": {"path": path, "offset": 0}}).to_string();
    let head = "POST /api/v1 HTTP/1.1\r\nContent-Type: application/json\r\nAccept: application/json";
    assert_eq!(of(world.ask(head, call.as_bytes()).await), read);
    read
}
