//! Containers: an OCI runtime makes one with its command held, and the supervisor is the parent of it.
//!
//! All that is mounted for it is mounted in a mount namespace of the supervisor's own, and ends with it.

use super::{
    LAUNCH_HELPER, Spec,
    held::{Beside, Held, Inside, News, Ran},
    helper::PAUSE,
    output::{self, Output, Streams},
    sandbox,
};
use crate::cgroups::{Group, Oom, PATIENCE};
use muster_container::{
    Base, Bundle, Container, ContainerError, Io, Kind, Made, Process, Rlimit, bind_root, own_mounts,
    remove_groups,
};
use rustix::{
    fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, mkdirat, openat, openat2},
    io::Errno,
    mount::{MountFlags, mount, mount_bind_recursive},
    process::{Pid, Resource, Signal, getrlimit, kill_process_group},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt, fchown},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
};

/// What makes a command a container's. It is said only to supervisors of the agent's own executable, and so may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contained {
    /// What makes it.
    pub(crate) kind: Kind,
    /// A directory of its own, which is there.
    pub(crate) dir: PathBuf,
    /// What it is like; who it runs as and its open files are not said there.
    pub(crate) bundle: Bundle,
    /// What is mounted for it first.
    pub(crate) mounts: Vec<muster_image::Mount>,
    /// Parts of sandboxes, and of the machine, that it sees.
    pub(crate) staged: Vec<Staged>,
    /// Files that are nowhere but in memory.
    pub(crate) secrets: Vec<SecretFile>,
    /// The user to be found in its root file system.
    pub(crate) user: Option<String>,
}

/// Something below a sandbox or a directory of the machine, made visible where nobody else can change what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Staged {
    pub(crate) root: PathBuf,
    /// Below the root.
    pub(crate) path: PathBuf,
    /// Whether a directory is made if there is nothing.
    pub(crate) make: bool,
    /// Where it is seen.
    pub(crate) target: PathBuf,
}

/// A secret that is a file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretFile {
    pub(crate) number: usize,
    pub(crate) bytes: Vec<u8>,
}

impl std::fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "secret {} of {} bytes", self.number, self.bytes.len())
    }
}

/// A container.
pub(super) struct InContainer {
    pid: Pid,
    container: Option<Container>,
    process: Process,
    group: Option<Group>,
    cgroup: Option<PathBuf>,
    /// Of a pair: one can be read once there is news.
    news: (UnixStream, UnixStream),
    failure: Option<String>,
    is_told: bool,
    output: Output,
}

impl InContainer {
    pub(super) fn create(spec: &Spec, contained: &Contained) -> io::Result<Self> {
        let group =
            (!spec.parts.is_empty()).then(|| Group::make(spec.parts.clone(), &spec.limits)).transpose()?;
        let made = make(spec, contained, group.clone());
        if made.is_err() {
            if let Some(group) = &group {
                group.end(PATIENCE);
                let _ = group.remove(); // what stays is removed at the agent's next start
            }
            contained.bundle.cgroup.as_deref().map(remove_groups);
        }
        made
    }
}

impl Inside for InContainer {
    fn run(&self, what: &Beside<'_>, io: Io) -> io::Result<Ran> {
        let gone = || io::Error::other("the container is gone");
        let mut process = self.process.clone();
        process.program = what.program.into();
        process.args = std::iter::once(what.arg0.to_owned()).chain(what.args.iter().cloned()).collect();
        process.env.extend(what.env.iter().cloned());
        let made = self.container.as_ref().ok_or_else(gone)?.exec(&process, io);
        let made = made.map_err(io::Error::other)?;
        Ok(Ran { pid: pid(made.pid)?, mark: None, terminal: made.terminal })
    }
}

fn make(spec: &Spec, contained: &Contained, group: Option<Group>) -> io::Result<InContainer> {
    own_mounts().map_err(said)?;
    let mut bundle = contained.bundle.clone();
    for mount in &contained.mounts {
        mount.perform().map_err(|error| io::Error::other(error.told()))?;
    }
    if bundle.base == Base::Host {
        bind_root(&bundle.root).map_err(said)?;
    }
    if let Some(named) = &contained.user {
        let user = muster_image::user(&bundle.root, named)
            .map_err(|why| io::Error::other(format!("Failed to run as user {named:?}: {why}")))?;
        let ids = &mut bundle.process.ids;
        (ids.uid, ids.gid, ids.groups) = (user.uid, user.gid, user.groups);
        bundle.process.env.entry("HOME".into()).or_insert(user.home);
    }
    let ids = (bundle.process.ids.uid, bundle.process.ids.gid);
    let spec = Spec { user: Some(ids).filter(|(uid, _)| *uid != 0), ..spec.clone() };
    let (streams, mut output) = output::open(&spec)?;
    if contained.user.is_some()
        && let Some((uid, gid)) = spec.user
    {
        give_away(&spec.sandbox, Uid::from_raw(uid), Gid::from_raw(gid))
            .map_err(sandbox::doing(&spec, "give away the sandbox"))?;
    }
    secrets(contained, ids).map_err(sandbox::doing(&spec, "write the secrets of"))?;
    for staged in &contained.staged {
        stage(staged, spec.user)
            .map_err(|error| io::Error::other(format!("Failed to mount {:?}: {error}", staged.path)))?;
    }
    open_files(&spec, &mut bundle.process);
    let Streams { terminal, stdout, stderr } = streams;
    let stdin = match terminal {
        Some(terminal) => terminal,
        None => OpenOptions::new().read(true).open("/dev/null")?.into(),
    };
    let io = Io { stdin, stdout, stderr, terminal: spec.output.terminal };
    let pause = [LAUNCH_HELPER.to_owned(), PAUSE.to_owned()];
    let id = format!("muster-{}", spec.launch);
    let made = Made {
        kind: &contained.kind,
        dir: &contained.dir,
        id: &id,
        bundle: &bundle,
        pause: &pause,
        init: true,
    };
    let news = UnixStream::pair()?;
    news.0.set_nonblocking(true)?;
    let mut container = Container::create(&made, io).map_err(said)?;
    let owned = container.take_terminal().map_or(Ok(()), |terminal| output.own(terminal, &spec.output));
    // Where the runtime has it there already, nothing changes.
    let joined = group.as_ref().map_or(Ok(()), |group| group.join(container.pid()));
    let pid = match owned.and(joined).and_then(|()| pid(container.pid())) {
        Ok(pid) => pid,
        Err(error) => {
            container.kill();
            let _ = container.delete(); // what it leaves is removed by the agent
            return Err(error);
        }
    };
    Ok(InContainer {
        pid,
        container: Some(container),
        process: bundle.process,
        group,
        cgroup: bundle.cgroup,
        news,
        failure: None,
        is_told: false,
        output,
    })
}

fn pid(number: u32) -> io::Result<Pid> {
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("no pid"))
}

fn said(error: ContainerError) -> io::Error {
    io::Error::other(format!("Failed to make the container: {error}"))
}

/// What tasks may open, unless they say so themselves.
fn open_files(spec: &Spec, process: &mut Process) {
    const NAME: &str = "RLIMIT_NOFILE";
    if let Some(soft) = spec.open_files
        && process.rlimits.iter().all(|limit| limit.name != NAME)
    {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        process.rlimits.push(Rlimit { name: NAME.into(), soft, hard });
    }
}

/// Secrets are in memory, in a file system that nobody else sees.
fn secrets(contained: &Contained, (uid, gid): (u32, u32)) -> io::Result<()> {
    if contained.secrets.is_empty() {
        return Ok(());
    }
    let dir = contained.dir.join("secrets");
    new_dir(&dir)?;
    mount("tmpfs", &dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755")?;
    for secret in &contained.secrets {
        let path = dir.join(secret.number.to_string());
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o400).open(path)?;
        file.write_all(&secret.bytes)?;
        fchown(&file, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn new_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes what is at a path visible at another: opened first, so that whoever can write there cannot have something else
/// seen.
fn stage(staged: &Staged, user: Option<(u32, u32)>) -> io::Result<()> {
    let at = open_below(&staged.root, &staged.path, staged.make, user)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&at)?.st_mode) {
        FileType::Directory => new_dir(&staged.target)?,
        _ => {
            staged.target.parent().map_or(Ok(()), new_dir)?;
            fs::write(&staged.target, b"")?;
        }
    }
    Ok(mount_bind_recursive(format!("/proc/self/fd/{}", at.as_raw_fd()), &staged.target)?)
}

/// Opens what is at a path below a directory, without following a link. Directories that are missing are made, for this
/// user, if they are to be.
pub(super) fn open_below(
    root: &Path,
    path: &Path,
    make: bool,
    user: Option<(u32, u32)>,
) -> io::Result<OwnedFd> {
    let none = Mode::empty();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut at: OwnedFd = rustix::fs::open(root, flags | OFlags::DIRECTORY, none)?;
    for part in path {
        if make
            && mkdirat(&at, part, Mode::from_raw_mode(0o755)).is_ok()
            && let Some((uid, gid)) = user
        {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(&at, part, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        at = openat2(&at, part, flags, none, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
    }
    Ok(at)
}

/// Gives all of a directory to somebody, without following a link.
pub(super) fn give_away(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut todo: Vec<OwnedFd> = vec![rustix::fs::open(path, flags, Mode::empty())?];
    while let Some(dir) = todo.pop() {
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            match openat(&dir, name, flags, Mode::empty()) {
                Ok(below) => todo.push(below),
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

impl Held for InContainer {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    fn release(&mut self) {
        if let Some(container) = &self.container
            && let Err(error) = container.start()
        {
            self.failure = Some(format!("Failed to start the container: {error}"));
        }
        let _ = self.news.1.write_all(b"n"); // its other end is here
    }

    fn abandon(&mut self) {
        self.kill();
    }

    fn news_fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_told).then(|| self.news.0.as_fd())
    }

    fn news(&mut self) -> News {
        if self.is_told {
            return News::None;
        }
        self.is_told = true;
        match self.failure.take() {
            Some(why) => {
                self.kill();
                News::Failed(why)
            }
            None => News::Runs,
        }
    }

    /// It leads a session, as any command does; it is not reaped yet, so the group is the task's.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal); // it may have ended meanwhile
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(container) = &self.container {
            container.kill();
        }
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    fn oom(&self) -> Option<Oom> {
        self.group.as_ref()?.oom()
    }

    fn inside(&self) -> Option<&dyn Inside> {
        Some(self)
    }

    fn destroy(&mut self) -> Option<Oom> {
        if let Some(group) = &self.group {
            while !group.end(PATIENCE) {} // it has not ended as long as something is in there
        }
        let oom = self.oom(); // with the group it would be gone
        if let Some(container) = self.container.take() {
            let _ = container.delete(); // what it leaves is removed by the agent
        }
        if let Some(group) = &self.group {
            let _ = group.remove(); // what stays is removed at the agent's next start
        }
        self.cgroup.as_deref().map(remove_groups);
        oom
    }
}
