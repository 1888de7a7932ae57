//! Power cuts on real file systems: what was acknowledged is there afterwards, and nobody takes a cut for damage.
//!
//! Needs root: every replica is a process on a loop-mounted ext4 of its own, which the shutdown ioctl cuts off
//! without flushing its journal or data. The control run, with the sync switched off, must lose data: else this
//! test would see nothing.

#![allow(clippy::unwrap_used)]

mod support;

use muster_model::{Capabilities, FrameworkId, FrameworkInfo, Role, Sealed};
use muster_raft::{Raft, RaftConfig};
use muster_registry::{Command, Outcome, Record, Registry, Subscribe};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command as Process, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// The bytes that each lane writes at a time; one lane, one framework, one counter.
const LANES: [usize; 7] = [200, 200, 200, 200, 64 << 10, 64 << 10, 1 << 20];
const CUTS: usize = 20;
/// How often it is cut while stores open.
const OPENING_CUTS: usize = 15;
const CONTROL_CUTS: usize = 8;
/// Three replicas, all of it: longer means that something hangs.
const PATIENCE: Duration = Duration::from_secs(40);

// ---- the replica process ----

fn lane_info(lane: usize, count: u64) -> FrameworkInfo {
    FrameworkInfo {
        name: format!("lane {lane} {count}").into(),
        user: "root".into(),
        principal: None,
        roles: vec![Role::any()],
        failover_timeout_ms: u64::MAX >> 8,
        capabilities: Capabilities::default(),
        sealed: Sealed::new(vec![lane as u8; LANES[lane]]),
    }
}

/// Each lane's framework and the newest count that the registry has of it.
fn lanes(registry: &Registry) -> BTreeMap<usize, (FrameworkId, u64)> {
    let lane = |record| {
        let Record::Framework(framework) = record else { return None };
        let name = framework.info.name.to_string();
        let mut words = name.split(' ').skip(1);
        let lane = words.next()?.parse().ok()?;
        Some((lane, (framework.id.clone(), words.next()?.parse().ok()?)))
    };
    registry.records().filter_map(lane).collect()
}

/// Not a test of its own: the body of a replica process.
#[test]
fn replica_process() {
    let Ok(setup) = std::env::var("POWER_CUT_REPLICA") else { return };
    // The harness left its line open.
    println!();
    let mut words = setup.split(' ');
    let (name, dir, no_sync) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let members: Vec<(String, String)> =
        words.enumerate().map(|(n, address)| (format!("m{}", n + 1), address.to_owned())).collect();
    let address = members.iter().find(|(other, _)| other == name).unwrap().1.clone();
    let mut config = RaftConfig::new(name, members, dir);
    config.snapshot_entries = 60;
    config.log_tail_bytes = 256 << 10;
    config.no_sync = no_sync == "true";
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let raft = match Raft::open(config).await {
            Ok(raft) => raft,
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                return println!("REFUSED {error}: {}", source.unwrap_or_default());
            }
        };
        let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
        let failed = raft.clone();
        let replica = support::run(raft, listener);
        tokio::select! {
            why = failed.failed() => println!("FAILED {why}"),
            () = load(&replica) => {}
        }
    });
    std::process::exit(0);
}

/// Whenever this replica leads: says what the registry holds, then adds to it and says what is acknowledged.
async fn load(replica: &support::Replica) {
    let mut led = muster_model::Term(0);
    loop {
        let proposals = replica.proposals().filter(|proposals| proposals.term > led);
        let Some(proposals) = proposals else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        led = proposals.term;
        let Some(registry) = proposals.began.lock().unwrap().clone() else { continue };
        let known = lanes(&registry);
        for lane in 0..LANES.len() {
            println!("STATE {led} {lane} {}", known.get(&lane).map_or(0, |(_, count)| *count));
        }
        println!("LEADING {led}");
        for lane in 0..LANES.len() {
            let proposals = proposals.clone();
            let (mut id, mut count) = known.get(&lane).cloned().unzip();
            tokio::spawn(async move {
                loop {
                    let next = count.unwrap_or(0) + 1;
                    let command = Command::Subscribe(Subscribe {
                        framework_id: id.clone(),
                        info: lane_info(lane, next),
                        suppressed_roles: Vec::new(),
                    });
                    match proposals.propose(command).await {
                        Some(Outcome::Subscribed { framework_id, .. }) => id = Some(framework_id),
                        Some(other) => return println!("WRONG {other:?}"),
                        None => return,
                    }
                    println!("ACK {led} {lane} {next}");
                    count = Some(next);
                }
            });
        }
    }
}

// ---- the test ----

/// What the processes said.
#[derive(Default)]
struct Said {
    /// The highest count acknowledged, by lane and term.
    acked: BTreeMap<(usize, u64), u64>,
    /// What each leader found, by term and lane.
    states: BTreeMap<(u64, usize), u64>,
    acks: usize,
    leader: usize,
    /// Replicas whose power is off: one that was just opening its store reads nothing, and says so.
    dark: BTreeSet<usize>,
    wrong: Vec<String>,
    last: Vec<String>,
}

impl Said {
    fn hear(&mut self, replica: usize, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["ACK", term, lane, count] => {
                let newest = self.acked.entry((lane.parse().unwrap(), term.parse().unwrap())).or_default();
                *newest = (*newest).max(count.parse().unwrap());
                self.acks += 1;
            }
            ["STATE", term, lane, count] => {
                self.states.insert((term.parse().unwrap(), lane.parse().unwrap()), count.parse().unwrap());
            }
            ["LEADING", _] => self.leader = replica,
            ["REFUSED", ..] if self.dark.contains(&replica) && line.contains("Input/output error") => {}
            ["WRONG" | "REFUSED", ..] => self.wrong.push(format!("m{}: {line}", replica + 1)),
            _ => {}
        }
        if !line.starts_with("ACK") {
            self.last.push(format!("m{}: {line}", replica + 1));
            let more = self.last.len().saturating_sub(60);
            self.last.drain(..more);
        }
    }

    /// Acknowledged by an earlier leader, and not there when a later one began.
    fn lost(&self) -> Vec<String> {
        let mut lost = self.wrong.clone();
        for ((term, lane), state) in &self.states {
            for ((_, earlier), acked) in self.acked.range((*lane, 0)..(*lane, *term)) {
                if acked > state {
                    lost.push(format!(
                        "lane {lane} ({} B): {acked} was acknowledged in term {earlier}, term {term} found {state}",
                        LANES[*lane]
                    ));
                }
            }
        }
        lost
    }
}

struct Bench {
    dir: PathBuf,
    addresses: Vec<String>,
    running: BTreeMap<usize, (Child, thread::JoinHandle<()>)>,
    mounted: BTreeSet<usize>,
    said: Arc<Mutex<Said>>,
    no_sync: bool,
}

fn command(program: &str, arguments: &[&str]) -> bool {
    let output = Process::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// Whether a loop device shows this file.
fn attached(image: &Path) -> bool {
    let devices = std::fs::read_dir("/sys/block").unwrap().map_while(Result::ok);
    let shown = |device: std::fs::DirEntry| std::fs::read_to_string(device.path().join("loop/backing_file"));
    devices.filter_map(|device| shown(device).ok()).any(|shown| Path::new(shown.trim_end()) == image)
}

impl Bench {
    fn new(no_sync: bool) -> Self {
        let dir = tempfile::tempdir().unwrap().keep();
        // Free ports, let go just before the replicas take them.
        let listeners: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = listeners.iter().map(|it| it.local_addr().unwrap().to_string()).collect();
        let (running, mounted, said) = (BTreeMap::new(), BTreeSet::new(), Arc::default());
        let mut bench = Self { dir, addresses, running, mounted, said, no_sync };
        for n in 0..3 {
            std::fs::create_dir(bench.mount_point(n)).unwrap();
            let image = std::fs::File::create(bench.image(n)).unwrap();
            image.set_len(1 << 30).unwrap();
            assert!(command("mkfs.ext4", &["-q", "-m", "0", bench.image(n).to_str().unwrap()]), "mkfs.ext4");
            bench.mount(n);
        }
        drop(listeners);
        (0..3).for_each(|n| bench.start(n));
        bench
    }

    fn image(&self, n: usize) -> PathBuf {
        self.dir.join(format!("{n}.img"))
    }

    fn mount_point(&self, n: usize) -> PathBuf {
        self.dir.join(format!("m{}", n + 1))
    }

    fn mount(&mut self, n: usize) {
        let (image, at) = (self.image(n), self.mount_point(n));
        assert!(
            command("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]),
            "mount -o loop"
        );
        self.mounted.insert(n);
    }

    fn start(&mut self, n: usize) {
        let data = self.mount_point(n).join("data");
        let setup = format!("m{} {} {} {}", n + 1, data.display(), self.no_sync, self.addresses.join(" "));
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "replica_process", "--nocapture", "--test-threads", "1"])
            .env("POWER_CUT_REPLICA", setup)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = self.said.clone();
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                said.lock().unwrap().hear(n, &line);
            }
        });
        self.running.insert(n, (child, reader));
    }

    /// Cuts the power of some replicas, and starts them again.
    fn cut(&mut self, victims: &[usize]) {
        self.said.lock().unwrap().dark = victims.iter().copied().collect();
        for n in victims {
            let ioctl = "import fcntl,os,struct,sys\n\
                fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587D,struct.pack('I',2))";
            let at = self.mount_point(*n);
            assert!(command("python3", &["-c", ioctl, at.to_str().unwrap()]), "the shutdown ioctl");
        }
        for n in victims {
            self.kill(*n);
            self.unmount(*n);
            self.mount(*n);
        }
        self.said.lock().unwrap().dark.clear();
        victims.iter().for_each(|n| self.start(*n));
    }

    fn kill(&mut self, n: usize) {
        if let Some((mut child, reader)) = self.running.remove(&n) {
            child.kill().ok();
            child.wait().ok();
            // All that it said counts.
            reader.join().ok();
        }
    }

    fn unmount(&mut self, n: usize) {
        let at = self.mount_point(n);
        let begun = Instant::now();
        while !command("umount", &[at.to_str().unwrap()]) {
            assert!(begun.elapsed() < PATIENCE, "umount");
            thread::sleep(Duration::from_millis(10));
        }
        self.mounted.remove(&n);
        // Whoever copies the mounts of this machine for a moment, as a container that starts does, keeps the dead file
        // system alive, and another mount of the image would be of that.
        while attached(&self.image(n)) {
            assert!(begun.elapsed() < PATIENCE, "the image stays attached");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for so many more acknowledgements; false when the cluster does not get there.
    fn progress(&self, acks: usize) -> bool {
        let wanted = self.said.lock().unwrap().acks + acks;
        let begun = Instant::now();
        while self.said.lock().unwrap().acks < wanted {
            let hopeless = !self.damaged().is_empty() || !self.said.lock().unwrap().wrong.is_empty();
            if hopeless || begun.elapsed() > PATIENCE {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn damaged(&self) -> Vec<usize> {
        (0..3).filter(|n| self.mount_point(*n).join("data").join("damaged-1").exists()).collect()
    }

    /// Who was taken for damaged, with the reason, which is in the mark of what took its place.
    fn taken(&self) -> Vec<String> {
        let why = |n: &usize| {
            let mark = std::fs::read(self.mount_point(*n).join("data").join("mark")).unwrap_or_default();
            let words = mark.split(|byte| !(b' '..=b'~').contains(byte)).filter(|words| words.len() > 8);
            let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
            format!("m{}: {}", n + 1, words.join(" / "))
        };
        self.damaged().iter().map(why).collect()
    }

    /// Runs some cuts; says what was wrong, if anything.
    fn run(&mut self, cuts: usize, mut chance: u64, all_only: bool) -> Vec<String> {
        for cut in 0..cuts {
            if !self.progress(40) {
                let said = self.said.lock().unwrap();
                let mut wrong = said.lost();
                wrong.push(format!("taken for damaged: {:?}", self.taken()));
                wrong.push(format!("no progress before cut {cut}; last words:\n{}", said.last.join("\n")));
                return wrong;
            }
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = chance >> 33;
            thread::sleep(Duration::from_millis(draw % 200));
            let leader = self.said.lock().unwrap().leader;
            let victims = match (draw >> 8) % 4 {
                _ if all_only => vec![0, 1, 2],
                0 => vec![leader],
                1 => vec![(leader + 1) % 3],
                2 => vec![leader, (leader + 1) % 3],
                _ => vec![0, 1, 2],
            };
            self.cut(&victims);
            let damaged = self.damaged();
            let mut wrong = self.said.lock().unwrap().lost();
            if !damaged.is_empty() {
                wrong.push(format!("taken for damaged after cut {cut} of {victims:?}: {:?}", self.taken()));
            }
            if !wrong.is_empty() {
                return wrong;
            }
        }
        self.progress(60);
        let mut wrong = self.said.lock().unwrap().lost();
        wrong.extend(self.taken().iter().map(|one| format!("taken for damaged: {one}")));
        wrong
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        (0..3).for_each(|n| self.kill(n));
        for n in std::mem::take(&mut self.mounted) {
            command("umount", &["-l", self.mount_point(n).to_str().unwrap_or_default()]);
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// Root, or a reason to pass without having tested anything.
fn may_run() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "the power-cut test needs root; CI must give it");
    println!("skipped: cutting the power of a file system needs root");
    false
}

fn seed() -> u64 {
    let seed = std::env::var("POWER_CUT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::process::id().into());
    println!("POWER_CUT_SEED={seed}");
    seed
}

#[test]
fn nothing_acknowledged_is_lost_and_nobody_is_taken_for_damaged() {
    if !may_run() {
        return;
    }
    let mut bench = Bench::new(false);
    // A soak asks for hundreds.
    let cuts = std::env::var("POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(CUTS);
    let wrong = bench.run(cuts, seed(), false);
    let said = bench.said.lock().unwrap();
    println!("{} acknowledgements, {} reigns", said.acks, said.states.len() / LANES.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_cut_while_a_store_opens_is_like_any_other() {
    if !may_run() {
        return;
    }
    let mut bench = Bench::new(false);
    assert!(bench.progress(40), "the cluster does not begin");
    let mut chance = seed();
    for cut in 0..OPENING_CUTS {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = chance >> 33;
        bench.cut(&[0, 1, 2]);
        // From before the process runs to after its store is open: there is nothing to wait for.
        thread::sleep(Duration::from_millis(draw % 120));
        let wrong = bench.said.lock().unwrap().lost();
        assert!(wrong.is_empty() && bench.damaged().is_empty(), "cut {cut}: {wrong:?} {:?}", bench.taken());
    }
    assert!(bench.progress(40), "no progress: {:?}", bench.taken());
    let wrong = bench.said.lock().unwrap().lost();
    assert!(wrong.is_empty() && bench.damaged().is_empty(), "{wrong:?} {:?}", bench.taken());
}

#[test]
fn without_the_sync_the_same_test_fails() {
    if !may_run() {
        return;
    }
    let mut bench = Bench::new(true);
    let wrong = bench.run(CONTROL_CUTS, seed(), true);
    assert!(!wrong.is_empty(), "{CONTROL_CUTS} cuts without a sync lost nothing: this test sees nothing");
    println!("as it must be, without the sync: {}", wrong[0]);
}
