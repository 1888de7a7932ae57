//! Tasks in containers, by each runtime that is here. They take root and a static busybox: without these each says so and
//! passes.

use crate::{
    engine::{self, Engine},
    runner::cases,
    sessions::{id, session, with_tty},
    world::{World, launch, order, shell, variable},
};
use muster_model::{AgentEvent, Reason, Resources, StatusUpdate, TaskState, event::RunOrder};
use muster_proto::mesos::{
    self, ContainerInfo, Environment, Image, Secret, TaskInfo, Volume, container_info, image, secret, volume,
};
use prost::Message;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tokio::time::sleep;

cases!(
    a_task_of_an_image_runs_and_is_found_again,
    a_container_has_what_it_asked_for,
    a_container_without_an_image_has_the_machines_files,
    a_container_without_memory_left_is_told_so,
    a_check_runs_in_the_container,
    a_session_is_in_the_container,
    the_machines_programs_make_nobody_root,
    what_cannot_be_contained_is_told,
    what_an_agent_and_a_supervisor_leave_is_removed,
);

/// All that makes containers of images, to try; none where it cannot be done here. Where all must be done it fails then.
pub(crate) fn makers() -> Vec<&'static str> {
    let mut all = runtimes();
    if !all.is_empty() {
        if engine::is_here() {
            all.push("docker");
        } else {
            println!("docker is skipped: dockerd, docker or setpriv is not installed");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have docker.io");
        }
    }
    all
}

/// The runtimes to try, likewise.
pub(crate) fn runtimes() -> Vec<&'static str> {
    let is_root = rustix::process::geteuid().is_root();
    let has_busybox = Command::new("/bin/busybox").arg("true").status().is_ok_and(|it| it.success());
    if is_root && has_busybox {
        let has_runc = Command::new("runc").arg("--version").output().is_ok();
        if !has_runc {
            println!("runc is skipped: it is not installed");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have runc");
        }
        return ["native", "oci"].into_iter().filter(|it| *it == "native" || has_runc).collect();
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must run this as root, with busybox-static");
    println!("skipped: making containers takes root, and a root file system of it busybox-static");
    Vec::new()
}

/// Where images are: in a directory, or with an engine.
pub(crate) struct Images {
    dir: PathBuf,
    pub(crate) engine: Option<Engine>,
}

impl Images {
    fn join(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }
}

/// A world whose agent makes containers with this, and its images.
pub(crate) async fn world(runtime: &str) -> (World, Images) {
    let world = World::new().await;
    let images = world.dir.path().join("images");
    let root = images.join("busybox");
    for name in ["bin", "etc", "proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|it| *it != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:123:234::/home:/bin/sh\n").unwrap();
    let engine = (runtime == "docker").then(|| Engine::start(&root, &world.groups));
    let socket =
        engine.as_ref().map(|it| format!("[docker]\nsocket = {:?}\n", it.socket())).unwrap_or_default();
    let more = format!(
        "containerizers = ['posix', '{runtime}']\nhost-path-volumes = [{:?}]\n[images]\nroots = [{images:?}]\n{socket}",
        world.dir.path()
    );
    fs::write(world.config(), fs::read_to_string(world.config()).unwrap() + &more).unwrap();
    (world, Images { dir: images, engine })
}

fn of_image(name: &str) -> ContainerInfo {
    let docker = image::Docker { name: name.into(), ..Default::default() };
    let image = Image { r#type: image::Type::Docker.into(), docker: Some(docker), ..Default::default() };
    ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        mesos: Some(container_info::MesosInfo { image: Some(image) }),
        ..Default::default()
    }
}

pub(crate) fn busybox(images: &Images) -> ContainerInfo {
    if images.engine.is_some() {
        let docker = container_info::DockerInfo { image: "busybox:1".into(), ..Default::default() };
        return ContainerInfo {
            r#type: container_info::Type::Docker.into(),
            docker: Some(docker),
            ..Default::default()
        };
    }
    of_image(&format!("dir:{}", images.join("busybox").display()))
}

pub(crate) fn in_container(n: u64, text: &str, container: ContainerInfo) -> AgentEvent {
    run(n, TaskInfo { container: Some(container), ..shell(text) })
}

pub(crate) fn run(n: u64, info: TaskInfo) -> AgentEvent {
    let resources = Resources::of(100, 64);
    AgentEvent::Run(Box::new(RunOrder { resources, ..order(n, &info) }))
}

pub(crate) fn host_volume(source: &Path, target: &str, mode: volume::Mode) -> Volume {
    Volume {
        mode: mode.into(),
        container_path: target.into(),
        host_path: Some(source.display().to_string()),
        ..Default::default()
    }
}

/// A task that asks for this comes to nothing, in words that have all parts.
pub(crate) async fn is_refused(
    world: &mut World,
    stream: &mut crate::master::AgentStream,
    n: u64,
    container: ContainerInfo,
    state: TaskState,
    parts: &[&str],
) {
    stream.say(&in_container(n, "true", container)).await;
    let last = last(world, stream, n).await;
    assert_eq!(last.status.state, state, "{}", last.status.message);
    for part in parts {
        assert!(last.status.message.contains(part), "{part}: {}", last.status.message);
    }
    if state == TaskState::Failed {
        assert_eq!(last.status.reason, Some(Reason::ContainerLaunchFailed));
    }
}

/// Nothing of a container is left: no process, no mount, no group, nothing on the disk.
pub(crate) async fn nothing_is_left(world: &World, images: &Images) {
    world.no_processes().await;
    if let Some(engine) = &images.engine {
        assert_eq!(engine.containers(), [""; 0]);
    }
    while fs::read_dir(world.work_dir().join("containers")).unwrap().count() > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let here = world.dir.path().display().to_string();
    assert!(!mounts.contains(&here), "{mounts}");
    for group in fs::read_dir("/sys/fs/cgroup").unwrap().map(|it| it.unwrap().path()) {
        let group = group.join(&world.groups);
        for key in fs::read_dir(&group).into_iter().flatten().map(|it| it.unwrap().path()) {
            let left = fs::read_dir(&key).into_iter().flatten().flatten().find(|it| it.path().is_dir());
            assert!(left.is_none(), "{left:?}");
        }
    }
}

async fn a_task_of_an_image_runs_and_is_found_again(_of_its_own: World) {
    for runtime in makers() {
        let (mut world, images) = world(runtime).await;
        let (mut stream, _) = world.join().await;
        let text = "trap 'echo asked; exit 3' TERM; echo $MESOS_SANDBOX $(pwd) $(ls / | tr '\\n' ' ')
            touch in-the-sandbox; while :; do sleep 1000 & wait; done";
        stream.say(&in_container(5, text, busybox(&images))).await;
        let running = world.update(&mut stream, 5).await;
        assert_eq!(running.status.state, TaskState::Running, "{}", running.status.message);
        let line = world.line(&world.sandbox(5).join("stdout")).await;
        let sandbox = "/mnt/mesos/sandbox";
        assert!(line.starts_with(&format!("{sandbox} {sandbox} bin dev etc mnt proc")), "{line}");
        while !world.sandbox(5).join("in-the-sandbox").exists() {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(!images.join("busybox/mnt").exists(), "the image stays as it was");
        world.kill_agent();
        let (mut stream, _) = world.join().await;
        let grace_ms = Some(60_000);
        stream.say(&AgentEvent::Kill { launch: launch(5), task: crate::world::key(5), grace_ms }).await;
        let (states, message) = world.outcome(&mut stream, 5).await;
        assert_eq!(states.last(), Some(&TaskState::Killed), "{message}");
        assert!(world.stdout(5).ends_with("asked\n"), "{}", world.stdout(5));
        nothing_is_left(&world, &images).await;
    }
}

async fn a_container_has_what_it_asked_for(_of_its_own: World) {
    for runtime in runtimes() {
        let (mut world, images) = world(runtime).await;
        let (mut stream, _) = world.join().await;
        let (rw, ro) = (world.dir.path().join("rw"), world.dir.path().join("ro"));
        fs::create_dir(&rw).unwrap();
        fs::create_dir(&ro).unwrap();
        fs::write(ro.join("given"), "given\n").unwrap();
        let secret = |text: &str| Secret {
            r#type: Some(secret::Type::Value.into()),
            value: Some(secret::Value { data: text.as_bytes().to_vec().into() }),
            ..Default::default()
        };
        let sourced = |kind: volume::source::Type, target: &str, source: volume::Source| Volume {
            mode: volume::Mode::Rw.into(),
            container_path: target.into(),
            source: Some(volume::Source { r#type: Some(kind.into()), ..source }),
            ..Default::default()
        };
        let sandbox_path = volume::source::SandboxPath {
            r#type: Some(volume::source::sandbox_path::Type::Self_.into()),
            path: "own/part".into(),
        };
        let container = ContainerInfo {
            hostname: Some("inside".into()),
            volumes: vec![
                host_volume(&rw, "/rw", volume::Mode::Rw),
                host_volume(&ro, "data/ro", volume::Mode::Ro),
                sourced(
                    volume::source::Type::Secret,
                    "/run/token",
                    volume::Source { secret: Some(secret("file-secret")), ..Default::default() },
                ),
                sourced(
                    volume::source::Type::SandboxPath,
                    "/part",
                    volume::Source { sandbox_path: Some(sandbox_path), ..Default::default() },
                ),
                Volume {
                    mode: volume::Mode::Rw.into(),
                    container_path: "/other".into(),
                    image: busybox(&images).mesos.unwrap().image,
                    ..Default::default()
                },
            ],
            ..busybox(&images)
        };
        let mut info = shell(
            "hostname; id -u; id -g; echo $HOME; cat data/ro/given; echo $TOKEN; cat /run/token; echo; echo x > /rw/x
             echo y > /part/y; cat own/part/y; (echo z > data/ro/z) 2>/dev/null || echo read-only
             ls /other/bin/sh; (echo z > /run/token) 2>/dev/null || echo read-only; exit 4",
        );
        let command = info.command.as_mut().unwrap();
        command.user = Some("app".into());
        let token = mesos::environment::Variable {
            r#type: Some(mesos::environment::variable::Type::Secret.into()),
            value: None,
            secret: Some(secret("env-secret")),
            ..variable("TOKEN", "")
        };
        command.environment = Some(Environment { variables: vec![token] });
        // Who the task runs as must be able to write there.
        std::os::unix::fs::chown(&rw, Some(123), Some(234)).unwrap();
        stream.say(&run(5, TaskInfo { container: Some(container), ..info })).await;
        let (states, message) = world.outcome(&mut stream, 5).await;
        let errors = fs::read_to_string(world.sandbox(5).join("stderr")).unwrap_or_default();
        assert_eq!(states.last(), Some(&TaskState::Failed), "{message} {errors}");
        assert!(message.contains("status 4"), "{message} {errors}");
        let expected = "inside\n123\n234\n/home\ngiven\nenv-secret\nfile-secret\ny\nread-only\n/other/bin/sh\nread-only\n";
        assert_eq!(world.stdout(5), expected, "{errors}");
        assert_eq!(fs::read_to_string(rw.join("x")).unwrap(), "x\n");
        nothing_is_left(&world, &images).await;
        let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
        assert!(!log.contains("-secret"), "secrets are not logged");
    }
}

async fn a_container_without_an_image_has_the_machines_files(_of_its_own: World) {
    for runtime in runtimes() {
        let (mut world, images) = world(runtime).await;
        let (mut stream, _) = world.join().await;
        let volume = world.dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("given"), "given\n").unwrap();
        let mut container = ContainerInfo { mesos: None, ..of_image("") };
        container.volumes = vec![host_volume(&volume, "data", volume::Mode::Ro)];
        let text = "cat data/given; [ $PWD = $MESOS_SANDBOX ] && echo sandbox; ls -d /proc/[0-9]* | wc -l";
        stream.say(&in_container(5, text, container.clone())).await;
        let (states, message) = world.outcome(&mut stream, 5).await;
        assert_eq!(states.last(), Some(&TaskState::Finished), "{message}");
        let output = world.stdout(5);
        let count: u32 = output.strip_prefix("given\nsandbox\n").unwrap_or(&output).trim().parse().unwrap();
        assert!(count < 10, "{output}");
        container.volumes[0].container_path = "/not/there".into();
        stream.say(&in_container(6, "true", container)).await;
        let (states, message) = world.outcome(&mut stream, 6).await;
        assert_eq!(states.last(), Some(&TaskState::Failed));
        assert!(message.contains("/not/there") && message.contains("must be there"), "{message}");
        nothing_is_left(&world, &images).await;
    }
}

/// Uses all memory once it may. An engine looks for that only when it has started all, and while the container's groups are
/// there: so this stays until it is heard of.
pub(crate) const FILLS: &str = "until [ -e go ]; do sleep 0.05; done; tail /dev/zero; status=$?; \
                                until [ -e heard ]; do sleep 0.05; done; exit $status";

/// Lets the task of this number, which does that, do it.
pub(crate) async fn fill(world: &World, n: u64, images: &Images) {
    fs::write(world.sandbox(n).join("go"), "").unwrap();
    if let Some(engine) = &images.engine {
        engine.hears_of_memory().await;
    }
    // Whoever looks by the group's own word may have ended and removed it by now.
    let _ = fs::write(world.sandbox(n).join("heard"), "");
}

async fn a_container_without_memory_left_is_told_so(_of_its_own: World) {
    for runtime in makers() {
        let (mut world, images) = world(runtime).await;
        let (mut stream, _) = world.join().await;
        let resources = Resources::of(100, 32);
        let info = TaskInfo { container: Some(busybox(&images)), ..shell(FILLS) };
        stream.say(&AgentEvent::Run(Box::new(RunOrder { resources, ..order(5, &info) }))).await;
        assert_eq!(world.update(&mut stream, 5).await.status.state, TaskState::Running);
        fill(&world, 5, &images).await;
        let last = last(&mut world, &mut stream, 5).await;
        assert_eq!(last.status.reason, Some(Reason::ContainerLimitationMemory), "{}", last.status.message);
        assert!(last.status.message.contains("Requested: 32.0 MB"), "{}", last.status.message);
        nothing_is_left(&world, &images).await;
    }
}

pub(crate) async fn last(world: &mut World, stream: &mut crate::master::AgentStream, n: u64) -> StatusUpdate {
    loop {
        let update = world.update(stream, n).await;
        if update.status.state.is_terminal() {
            return update;
        }
    }
}

async fn a_check_runs_in_the_container(_of_its_own: World) {
    for runtime in makers() {
        let (mut world, images) = world(runtime).await;
        let (mut stream, _) = world.join().await;
        // Seen in the container only.
        let look = "[ -f /etc/passwd ] && grep -q ^app: /etc/passwd && [ -f /tmp/mine ]";
        let check = mesos::HealthCheck {
            command: Some(shell(look).command.unwrap()),
            delay_seconds: Some(0.0),
            interval_seconds: Some(0.05),
            grace_period_seconds: Some(60.0),
            ..Default::default()
        };
        let info = TaskInfo {
            container: Some(busybox(&images)),
            health_check: Some(check),
            ..shell("touch /tmp/mine; sleep 1000")
        };
        stream.say(&run(5, info)).await;
        loop {
            let update = world.update(&mut stream, 5).await;
            assert!(!update.status.state.is_terminal(), "{}", update.status.message);
            let told = mesos::TaskStatus::decode(&*update.status.sealed).unwrap();
            // It may be looked at before it is well.
            if told.healthy == Some(true) {
                break;
            }
        }
        world.kill_task(&mut stream, 5).await;
        nothing_is_left(&world, &images).await;
    }
}

async fn what_cannot_be_contained_is_told(_of_its_own: World) {
    for runtime in runtimes() {
        let (mut world, images) = world(runtime).await;
        let (mut stream, _) = world.join().await;
        let appc = Image { r#type: image::Type::Appc.into(), ..Default::default() };
        let mut of_appc = busybox(&images);
        of_appc.mesos = Some(container_info::MesosInfo { image: Some(appc) });
        let mut outside = busybox(&images);
        outside.volumes = vec![host_volume(Path::new("/etc"), "/machine", volume::Mode::Ro)];
        let none = images.join("none");
        for (n, container, state, parts) in [
            (5, of_appc, TaskState::Error, &["container.mesos.image.appc"] as &[_]),
            (6, of_image("dir:/etc"), TaskState::Failed, &["dir:/etc", "images.roots"]),
            (7, of_image(&format!("dir:{}", none.display())), TaskState::Failed, &["pull the image", "none"]),
            (8, outside, TaskState::Failed, &["/machine", "host-path-volumes"]),
        ] {
            is_refused(&mut world, &mut stream, n, container, state, parts).await;
        }
        let mut info = TaskInfo { container: Some(busybox(&images)), ..Default::default() };
        info.command = Some(mesos::CommandInfo {
            shell: Some(false),
            value: Some("no-such-program".into()),
            ..Default::default()
        });
        stream.say(&run(9, info)).await;
        let last = last(&mut world, &mut stream, 9).await;
        assert!(last.status.message.contains("no-such-program"), "{}", last.status.message);
        nothing_is_left(&world, &images).await;
    }
}

async fn what_an_agent_and_a_supervisor_leave_is_removed(_of_its_own: World) {
    for runtime in makers() {
        let (mut world, images) = world(runtime).await;
        let (mut stream, _) = world.join().await;
        stream.say(&in_container(5, "setsid sleep 1000 & echo on; sleep 1000", busybox(&images))).await;
        assert_eq!(world.update(&mut stream, 5).await.status.state, TaskState::Running);
        world.line(&world.sandbox(5).join("stdout")).await;
        world.kill_agent();
        let place = world.runtime_dir();
        let supervises =
            |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&place));
        let supervisors: Vec<u32> = world.processes().into_iter().filter(supervises).collect();
        assert_eq!(supervisors.len(), 1);
        crate::world::signal(&supervisors[0].to_string(), rustix::process::Signal::KILL);
        let (mut stream, _) = world.join().await;
        let last = last(&mut world, &mut stream, 5).await;
        assert!(last.status.state.is_terminal(), "{:?}", last.status.state);
        nothing_is_left(&world, &images).await;
    }
}

async fn a_session_is_in_the_container(_of_its_own: World) {
    for runtime in makers() {
        let (mut world, images) = world(runtime).await;
        let (mut stream, _) = world.join().await;
        stream.say(&in_container(1, "export OF=shell; exec sleep 1000", busybox(&images))).await;
        assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
        let script = "pwd; echo $MESOS_TASK_ID; ls /; cat; echo wrong >&2; exit 5";
        let mut out = world.look(&session(&id("s1", 1), script)).await;
        let input = world.input(&id("s1", 1)).await;
        input.give("given\n").await;
        input.give("").await;
        let (said, errors) = out.until(None).await;
        assert!(said.starts_with("/mnt/mesos/sandbox\nt1\nbin\n") && said.ends_with("given\n"), "{said}");
        assert!(!said.contains("usr"), "{said}");
        assert_eq!(errors, "wrong\n");
        assert_eq!(world.wait_status(&id("s1", 1)).await, 5 << 8);
        // An engine tells the size only once the command runs.
        let size = match runtime {
            "docker" => "until stty size 2>/dev/null | grep .; do sleep 0.01; done",
            _ => "stty size",
        };
        let script = format!("trap 'exit 7' INT; test -t 0 && {size}; while true; do sleep 0.01; done");
        let mut out = world.look(&with_tty(session(&id("s2", 1), &script), 40, 100)).await;
        assert_eq!(out.until(Some("\n")).await.0, "40 100\r\n");
        let typed = world.input(&id("s2", 1)).await;
        typed.give("\u{3}").await;
        out.until(None).await;
        assert_eq!(world.wait_status(&id("s2", 1)).await, 7 << 8);
        // What it began ends with its connection, and the task goes on.
        let script = "sleep 1000 & echo begun; sleep 1000";
        let mut out = world.look(&session(&id("s3", 1), script)).await;
        out.until(Some("begun")).await;
        drop(out);
        let is_one = || async {
            let ps = "ps -o args | grep -c '^sleep 1000'";
            world.look(&session(&id("s4", 1), ps)).await.until(None).await.0.trim() == "1"
        };
        while !is_one().await {}
        stream.say(&AgentEvent::Kill { launch: launch(1), task: crate::world::key(1), grace_ms: None }).await;
        let (states, _) = world.outcome(&mut stream, 1).await;
        assert_eq!(states.last(), Some(&TaskState::Killed));
        nothing_is_left(&world, &images).await;
    }
}

/// With files of its own choice in the place of the machine's, a task's user must not become another by the machine's
/// programs; and signals are as programs expect them.
async fn the_machines_programs_make_nobody_root(_of_its_own: World) {
    for runtime in runtimes() {
        let (mut world, _) = world(runtime).await;
        let (mut stream, _) = world.join().await;
        let container = ContainerInfo { hostname: Some("inside".into()), ..mesos_container() };
        let text = "grep -E '^(NoNewPrivs|SigIgn)' /proc/self/status; yes | head -n 1; exit 3";
        let mut info = shell(text);
        info.command.as_mut().unwrap().user = Some("nobody".into());
        stream.say(&run(5, TaskInfo { container: Some(container), ..info })).await;
        let (_, message) = world.outcome(&mut stream, 5).await;
        assert!(message.contains("status 3"), "{runtime}: {message}");
        let said = world.stdout(5);
        assert!(said.contains("NoNewPrivs:\t1\n") && said.ends_with("y\n"), "{runtime}: {said}");
        let ignored = said.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        let sigpipe = 1 << (rustix::process::Signal::PIPE.as_raw() - 1);
        assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & sigpipe, 0, "{runtime}: {said}");
    }
}

fn mesos_container() -> ContainerInfo {
    ContainerInfo { r#type: container_info::Type::Mesos.into(), ..Default::default() }
}
