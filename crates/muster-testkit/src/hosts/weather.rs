//! Packets on their way into a host: late, out of order, lost. The kernel hands each to this process
//! (NFQUEUE), which lets it go on when it is due.

use super::Hosts;
use crate::history::Fault;
use anyhow::{Context, anyhow, bail};
use nfq::{Message, Queue, Verdict};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The queue of a host; each host has its own numbers.
const QUEUE: u16 = 0;
/// Packets that wait at most. What comes beyond that is dropped by the kernel, and counted.
const WAITING_MAX: u32 = 8192;
/// What is read of a packet: enough to tell whose it is.
const HEAD_BYTES: u16 = 64;
/// Between two looks at a queue, which nothing tells of: while packets wait, and while none does.
const LOOK: Duration = Duration::from_micros(200);
const IDLE_LOOK: Duration = Duration::from_millis(1);
/// The latest that anything may be.
const LATE_MAX: Duration = Duration::from_secs(10);
/// Programs that hand packets to a queue, in some of their builds: nft does not where the kernel lacks that.
const IPTABLES: [&str; 3] = ["iptables", "iptables-nft", "iptables-legacy"];
/// What arrives by the cable goes to the queue; past it, when nobody reads that any more.
const RULE: &str = "INPUT -i eth0 -j NFQUEUE --queue-num 0 --queue-bypass";
/// The kernel's ENOENT.
const NO_SUCH: i32 = 2;

/// The program that works here, or why none does.
static TOOL: LazyLock<Result<&'static str, String>> = LazyLock::new(find);

/// What this machine lacks for [`TestCluster::storm`](crate::TestCluster::storm), beside what hosts take; nothing if it
/// lacks nothing.
pub fn weather_missing() -> Option<String> {
    TOOL.as_ref().err().cloned()
}

fn find() -> Result<&'static str, String> {
    let mut why = "there is no iptables: install it".to_owned();
    for tool in IPTABLES {
        let tried = Command::new("unshare")
            .args(["--net", tool, "-w", "-A"])
            .args(RULE.split(' '))
            .stdin(Stdio::null())
            .output();
        match tried {
            Ok(output) if output.status.success() => return Ok(tool),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                // Whoever is not there says less than whoever is refused.
                if !said.starts_with("unshare: failed to execute") {
                    why = format!("{tool} hands no packets to this process: {}", said.trim());
                }
            }
            Err(error) => why = format!("unshare cannot be run: {error}"),
        }
    }
    Err(why)
}

/// What packets meet on their way into a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// By how much every packet is late.
    pub latency: Duration,
    /// By how much it may be late beyond that. The dice decide for each packet, so some overtake others.
    pub jitter: Duration,
    /// How many in a hundred are lost, 0 to 99.
    pub lost: u8,
    /// What the dice begin with.
    pub seed: u64,
}

/// What became of the packets that came into a host during a storm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packets {
    /// Those that were held up.
    pub held: u64,
    /// Of these, those that went on.
    pub passed: u64,
    /// Of these, those that went on before an earlier one of the same connection, or the same two ports.
    pub overtook: u64,
    /// Those that were lost, as was asked for.
    pub lost: u64,
    /// Those that the kernel dropped because too many waited.
    pub crowded_out: u64,
}

/// A host whose incoming packets are late, overtake each other and get lost. When this is dropped those that wait go
/// on, and others do not wait.
#[derive(Debug)]
#[must_use = "it is over at once"]
pub struct Storm {
    hosts: Arc<Hosts>,
    name: String,
    gate: Option<Gate>,
    packets: Arc<Mutex<Packets>>,
    pub(crate) recorded: Fault,
}

/// The thread that holds packets up.
#[derive(Debug)]
struct Gate {
    stop: SyncSender<()>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Storm {
    pub(crate) fn new(hosts: &Arc<Hosts>, name: &str, weather: Weather) -> anyhow::Result<Self> {
        if weather.lost > 99 {
            bail!("{} in a hundred packets cannot be lost: say 0 to 99, or cut it off", weather.lost);
        }
        if weather.latency.saturating_add(weather.jitter) > LATE_MAX {
            bail!("packets can be late by {LATE_MAX:?} at most");
        }
        // Sockets stay where they were made, whichever thread uses them.
        let queue = hosts.within(name, open)?.with_context(|| {
            format!("packets to {name} cannot be held up; is there a storm already, or a kernel without it")
        })?;
        let packets = Arc::new(Mutex::default());
        let (stop, stopped) = sync_channel(1);
        let counts = packets.clone();
        let run = move || hold(queue, Waiting::new(weather), &stopped, &counts);
        let thread = std::thread::Builder::new().name(format!("storm-{name}")).spawn(run)?;
        // Without it the thread ends, so nothing is left when this fails.
        rule(hosts, name, "-A")?;
        let gate = Some(Gate { stop, thread });
        Ok(Self { hosts: hosts.clone(), name: name.into(), gate, packets, recorded: Fault::default() })
    }

    /// What became of packets so far. Fails when they are not held up any more.
    pub fn packets(&self) -> anyhow::Result<Packets> {
        if self.gate.as_ref().is_none_or(|gate| gate.thread.is_finished()) {
            bail!("the storm at {} is over before its time", self.name);
        }
        let queues = self.hosts.run_at(&self.name, &["cat", "/proc/net/netfilter/nfnetlink_queue"], "")?;
        Ok(Packets { crowded_out: crowded_out(&queues)?, ..*lock(&self.packets) })
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // First no more of them are handed out, then those that were go on.
        if let Err(error) = rule(&self.hosts, &self.name, "-D") {
            eprintln!("packets to {} are still handed out: {error:#}", self.name);
        }
        let Some(Gate { stop, thread }) = self.gate.take() else { return };
        drop(stop);
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("packets to {} were not held up to the end: {error:#}", self.name),
            Err(_) => eprintln!("the thread that held up packets to {} panicked", self.name),
        }
    }
}

/// The queue of the host that this thread is on.
fn open() -> anyhow::Result<Queue> {
    let mut queue = Queue::open()?;
    queue.bind(QUEUE)?;
    queue.set_copy_range(QUEUE, HEAD_BYTES)?;
    queue.set_queue_max_len(QUEUE, WAITING_MAX)?;
    // Not before: what was ordered above was waited for.
    queue.set_nonblocking(true);
    Ok(queue)
}

fn rule(hosts: &Hosts, name: &str, what: &str) -> anyhow::Result<()> {
    let tool = TOOL.as_ref().map_err(|why| anyhow!("{why}"))?;
    let command: Vec<_> = [*tool, "-w", what].into_iter().chain(RULE.split(' ')).collect();
    hosts.run_at(name, &command, "").map(drop)
}

fn lock(packets: &Mutex<Packets>) -> MutexGuard<'_, Packets> {
    packets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Packets of a queue that were dropped for want of room, there and on the way here, from the kernel's list of queues.
fn crowded_out(queues: &str) -> anyhow::Result<u64> {
    let of = |line: &str| {
        let words: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        // Number, reader, waiting, what is copied, how much, dropped there, dropped on the way, and more.
        (words.len() > 6 && words[0] == u64::from(QUEUE)).then(|| words[5] + words[6])
    };
    queues.lines().find_map(of).with_context(|| format!("no queue in {queues:?}"))
}

/// Holds packets up until it is told to stop; then those that wait go on at once.
fn hold(
    mut queue: Queue,
    mut waiting: Waiting<Message>,
    stopped: &Receiver<()>,
    packets: &Mutex<Packets>,
) -> anyhow::Result<()> {
    loop {
        let look = if waiting.is_empty() { IDLE_LOOK } else { LOOK };
        let stops = !matches!(stopped.recv_timeout(look), Err(RecvTimeoutError::Timeout));
        while let Some(packet) = next(&mut queue)? {
            let connection = connection(packet.get_payload());
            if let Some(lost) = waiting.take(Instant::now(), connection, packet) {
                decide(&mut queue, lost, Verdict::Drop)?;
            }
        }
        while let Some(packet) = waiting.due((!stops).then(Instant::now)) {
            decide(&mut queue, packet, Verdict::Accept)?;
        }
        *lock(packets) = waiting.packets;
        if stops {
            return Ok(());
        }
    }
}

/// The next packet that is there.
fn next(queue: &mut Queue) -> anyhow::Result<Option<Message>> {
    loop {
        match queue.recv() {
            Ok(packet) => return Ok(Some(packet)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // One that was decided on had gone with its cable. Nothing else is said of it.
            Err(error) if error.raw_os_error() == Some(NO_SUCH) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read the queue"),
        }
    }
}

fn decide(queue: &mut Queue, mut packet: Message, verdict: Verdict) -> anyhow::Result<()> {
    packet.set_verdict(verdict);
    queue.verdict(packet).context("cannot decide on a packet")
}

/// Whose packet it is: addresses, protocol and ports, as far as they can be told.
type Connection = ([u8; 8], u8, [u8; 4]);

fn connection(packet: &[u8]) -> Connection {
    let at = |from: usize| packet.get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
    let ports = usize::from(packet.first().copied().unwrap_or_default() & 0xf) * 4;
    let addresses = packet.get(12..20).and_then(|bytes| bytes.try_into().ok());
    (addresses.unwrap_or_default(), packet.get(9).copied().unwrap_or_default(), at(ports).unwrap_or_default())
}

/// Packets that wait until they are due. What chance decides is the same for the same seed and the same packets.
#[derive(Debug)]
struct Waiting<T> {
    weather: Weather,
    dice: SmallRng,
    /// By when they are due, then in the order in which they came.
    packets_due: BTreeMap<(Instant, u64), (Connection, T)>,
    /// Numbers of those that wait.
    by_connection: BTreeMap<Connection, BTreeSet<u64>>,
    packets: Packets,
}

impl<T> Waiting<T> {
    fn new(weather: Weather) -> Self {
        let dice = SmallRng::seed_from_u64(weather.seed);
        let (packets_due, by_connection, packets) = Default::default();
        Self { weather, dice, packets_due, by_connection, packets }
    }

    fn is_empty(&self) -> bool {
        self.packets_due.is_empty()
    }

    /// Takes one that has come, and gives it back if it is lost.
    fn take(&mut self, now: Instant, connection: Connection, packet: T) -> Option<T> {
        // As many throws for each, whatever comes of it.
        let (lost, late) = (self.dice.random_range(0..100), self.dice.random::<f64>());
        if lost < self.weather.lost {
            self.packets.lost += 1;
            return Some(packet);
        }
        let due = now + self.weather.latency + self.weather.jitter.mul_f64(late);
        let number = self.packets.held;
        self.packets.held += 1;
        self.packets_due.insert((due, number), (connection, packet));
        self.by_connection.entry(connection).or_default().insert(number);
        None
    }

    /// One that is due by now, or the next one whenever it is due.
    fn due(&mut self, now: Option<Instant>) -> Option<T> {
        let first = self.packets_due.first_entry()?;
        if now.is_some_and(|now| now < first.key().0) {
            return None;
        }
        let ((_, number), (connection, packet)) = first.remove_entry();
        self.packets.passed += 1;
        if let Some(numbers) = self.by_connection.get_mut(&connection) {
            numbers.remove(&number);
            match numbers.first() {
                Some(earliest) if *earliest < number => self.packets.overtook += 1,
                Some(_) => {}
                None => drop(self.by_connection.remove(&connection)),
            }
        }
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUGH: Weather =
        Weather { latency: Duration::from_millis(5), jitter: Duration::from_millis(30), lost: 10, seed: 7 };
    const ONE: Connection = ([1; 8], 17, [1; 4]);
    const OTHER: Connection = ([1; 8], 17, [2; 4]);

    /// What comes of packets that arrive a millisecond apart: the order in which they go on, and the counts.
    fn storm(weather: Weather, of: impl Fn(u32) -> Connection) -> (Vec<u32>, Packets) {
        let (begun, mut waiting, mut passed) = (Instant::now(), Waiting::new(weather), Vec::new());
        for number in 0..200 {
            let now = begun + Duration::from_millis(number.into());
            waiting.take(now, of(number), number);
            passed.extend(std::iter::from_fn(|| waiting.due(Some(now))));
        }
        passed.extend(std::iter::from_fn(|| waiting.due(None)));
        assert!(waiting.is_empty() && waiting.by_connection.is_empty());
        (passed, waiting.packets)
    }

    #[test]
    fn the_same_seed_is_the_same_weather() {
        assert_eq!(storm(ROUGH, |_| ONE), storm(ROUGH, |_| ONE));
        assert_ne!(storm(ROUGH, |_| ONE), storm(Weather { seed: 8, ..ROUGH }, |_| ONE));
    }

    #[test]
    fn what_is_not_lost_goes_on_once_and_who_overtook_is_counted() {
        let (passed, packets) = storm(ROUGH, |_| ONE);
        let mut sorted = passed.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert!(passed.len() == sorted.len() && passed != sorted);
        assert_eq!((packets.held, packets.passed), (passed.len() as u64, passed.len() as u64));
        assert!(packets.lost > 0 && packets.lost + packets.held == 200);
        let overtakes = |at: usize| passed[at..].iter().any(|later| *later < passed[at]);
        assert_eq!(packets.overtook, (0..passed.len()).filter(|at| overtakes(*at)).count() as u64);
    }

    #[test]
    fn nobody_overtakes_without_jitter_or_in_another_connection() {
        let calm = Weather { jitter: Duration::ZERO, lost: 0, ..ROUGH };
        let (passed, packets) = storm(calm, |_| ONE);
        assert_eq!(passed, (0..200).collect::<Vec<_>>());
        assert_eq!(packets, Packets { held: 200, passed: 200, ..Packets::default() });
        let apart = |number: u32| ([0; 8], 17, number.to_be_bytes());
        assert_eq!(storm(ROUGH, apart).1.overtook, 0);
        assert!(storm(ROUGH, |number| if number % 2 == 0 { ONE } else { OTHER }).1.overtook > 0);
    }

    #[test]
    fn packets_tell_whose_they_are() {
        let mut packet = vec![0; 40];
        packet[0] = 0x46;
        packet[9] = 17;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[24..28].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
        assert_eq!(connection(&packet), ([10, 0, 0, 1, 10, 0, 0, 2], 17, [0x12, 0x34, 0x56, 0x78]));
        assert_eq!(connection(&packet[..10]), ([0; 8], 17, [0; 4]));
        assert_eq!(connection(&[]), ([0; 8], 0, [0; 4]));
    }

    #[test]
    fn the_kernels_list_tells_of_packets_without_room() {
        let list = "    1   4711     0 2    64     9     9        1  1\n    0   4711     3 2    64     5     2      120  1\n";
        assert_eq!(crowded_out(list).unwrap(), 7);
        assert!(crowded_out("").is_err());
    }
}
