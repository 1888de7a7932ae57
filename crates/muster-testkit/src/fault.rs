//! Faults of the network. Each lasts as long as its handle.

use crate::history::Fault;
use crate::hosts::{Hosts, Link, run};
use crate::network::{Network, cable::Cable, way::Way};
use anyhow::{Context, bail};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a fault may take to bite.
const BITE_TIME: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// What passed from one member to another, and what did not, since the cluster was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that arrived.
    pub carried: u64,
    /// Bytes that a cut held back, at each end no more than its kernel keeps and about a MiB here. They
    /// arrive when it heals, unless their connection has ended.
    pub held: u64,
    /// Bytes that were made late.
    pub delayed: u64,
    /// Connections that were reset, whoever had dialled.
    pub reset: u64,
    /// Connections that the first one dialled and that are there now.
    pub live: usize,
    /// What the first one dials now and gets no answer to.
    pub hanging: usize,
}

/// Directions in which nothing passes. They heal when this is dropped.
///
/// It is like a network that drops: what was connected stays so and hears nothing, what is dialled hangs.
/// Bytes that were held back go on when it heals; between hosts the kernel sends again what was dropped.
#[derive(Debug)]
#[must_use = "it heals at once"]
pub struct Cut(Kind, pub(crate) Fault);

#[derive(Debug)]
enum Kind {
    Held { ways: Vec<Arc<Way>>, cables: Vec<Arc<Cable>>, before: u64 },
    Dropped { hosts: Arc<Hosts>, pairs: Vec<(String, String)>, links: Vec<Link>, before: u64 },
}

impl Cut {
    pub(crate) fn of_proxies(network: &Network, ways: Vec<Arc<Way>>) -> Self {
        let before = held(&ways);
        ways.iter().for_each(|way| way.cut());
        Self(Kind::Held { cables: network.cables_of(&ways), before, ways }, Fault::default())
    }

    pub(crate) fn of_hosts(hosts: &Arc<Hosts>, pairs: Vec<(String, String)>) -> anyhow::Result<Self> {
        let links: Vec<_> = pairs.iter().map(|(from, to)| hosts.link(from, to)).collect::<Result<_, _>>()?;
        let before = hosts.board.dropped(&links)?;
        hosts.board.cut(&links)?;
        Ok(Self(Kind::Dropped { hosts: hosts.clone(), pairs, links, before }, Fault::default()))
    }

    /// Bytes that it held back; between hosts, that it dropped, whatever was tried again.
    pub fn held(&self) -> u64 {
        match &self.0 {
            Kind::Held { ways, before, .. } => held(ways) - before,
            // Who cannot count has seen nothing.
            Kind::Dropped { hosts, links, before, .. } => {
                hosts.board.dropped(links).map_or(0, |dropped| dropped.saturating_sub(*before))
            }
        }
    }

    /// Dials that get no answer now.
    pub fn hanging(&self) -> usize {
        match &self.0 {
            Kind::Held { cables, .. } => cables.iter().map(|cable| cable.hanging()).sum(),
            Kind::Dropped { hosts, pairs, .. } => {
                let dials = |(from, to): &(String, String)| hosts.sockets(from, to, "syn-sent").unwrap_or(0);
                pairs.iter().map(dials).sum()
            }
        }
    }

    /// Waits until somebody has felt it. A fault that nobody felt proves nothing.
    pub async fn bites(&self) -> anyhow::Result<()> {
        let until = Instant::now() + BITE_TIME;
        while self.held() == 0 && !self.hangs() {
            if Instant::now() >= until {
                bail!("nobody sent or dialled for {} s: {}", BITE_TIME.as_secs(), self.ways().join(", "));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether a dial gets no answer. Between hosts its packets are counted among the bytes that were dropped.
    fn hangs(&self) -> bool {
        matches!(self.0, Kind::Held { .. }) && self.hanging() > 0
    }

    fn ways(&self) -> Vec<String> {
        match &self.0 {
            Kind::Held { ways, .. } => ways.iter().map(|way| format!("{} to {}", way.from, way.to)).collect(),
            Kind::Dropped { pairs, .. } => pairs.iter().map(|(from, to)| format!("{from} to {to}")).collect(),
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        match &self.0 {
            Kind::Held { ways, .. } => ways.iter().for_each(|way| way.heal()),
            Kind::Dropped { hosts, links, .. } => {
                if let Err(error) = hosts.board.heal(links) {
                    eprintln!("a cut does not heal: {error:#}");
                }
            }
        }
    }
}

fn held(ways: &[Arc<Way>]) -> u64 {
    ways.iter().map(|way| way.traffic().held).sum()
}

/// Directions in which everything is late. They are as fast as before when this is dropped; what is on its
/// way by then still takes its time.
#[derive(Debug)]
#[must_use = "it is over at once"]
pub struct Delayed {
    ways: Vec<Arc<Way>>,
    latency: Duration,
    jitter: Duration,
    pub(crate) recorded: Fault,
}

impl Delayed {
    pub(crate) fn new(ways: Vec<Arc<Way>>, latency: Duration, jitter: Duration) -> Self {
        ways.iter().for_each(|way| way.delay(latency, jitter));
        Self { ways, latency, jitter, recorded: Fault::default() }
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        self.ways.iter().for_each(|way| way.hurry(self.latency, self.jitter));
    }
}

/// A host that loses packets, whichever way they go. It loses no more when this is dropped.
#[derive(Debug)]
#[must_use = "it is over at once"]
pub struct Lossy {
    hosts: Arc<Hosts>,
    host: Ipv4Addr,
    pub(crate) recorded: Fault,
}

impl Lossy {
    pub(crate) fn new(hosts: &Arc<Hosts>, name: &str, percent: u8) -> anyhow::Result<Self> {
        let host = hosts.address(name)?;
        hosts.board.lose(host, percent)?;
        Ok(Self { hosts: hosts.clone(), host, recorded: Fault::default() })
    }

    /// Packets that were lost.
    pub fn lost(&self) -> anyhow::Result<u64> {
        self.hosts.board.lost(self.host)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        if let Err(error) = self.hosts.board.lose_no_more(self.host) {
            eprintln!("a host goes on losing packets: {error:#}");
        }
    }
}

/// A host whose cable is pulled. It is plugged in again when this is dropped.
#[derive(Debug)]
#[must_use = "it is plugged in at once"]
pub struct Unplugged {
    plug: String,
    pub(crate) recorded: Fault,
}

impl Unplugged {
    pub(crate) fn new(hosts: &Hosts, name: &str) -> anyhow::Result<Self> {
        hosts.address(name)?;
        let plug = hosts.plug(name);
        run("ip", &["link", "set", &plug, "down"], "")?;
        Ok(Self { plug, recorded: Fault::default() })
    }
}

impl Drop for Unplugged {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["link", "set", &self.plug, "up"], "") {
            eprintln!("a cable stays pulled: {error:#}");
        }
    }
}

/// A host that is sent no more than so much in a second. It is as fast as before when this is dropped.
#[derive(Debug)]
#[must_use = "it is over at once"]
pub struct Throttled {
    plug: String,
    pub(crate) recorded: Fault,
}

impl Throttled {
    /// The most that waits for its turn, as time.
    const WAIT: &str = "500ms";

    pub(crate) fn new(hosts: &Hosts, name: &str, kbit: u32) -> anyhow::Result<Self> {
        hosts.address(name)?;
        let (plug, rate) = (hosts.plug(name), format!("{kbit}kbit"));
        let how = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", Self::WAIT];
        run("tc", &[&["qdisc", "add", "dev", &plug], how.as_slice()].concat(), "")?;
        Ok(Self { plug, recorded: Fault::default() })
    }

    /// Packets that had to wait or were dropped.
    pub fn held_up(&self) -> anyhow::Result<u64> {
        let shown = run("tc", &["-s", "qdisc", "show", "dev", &self.plug], "")?;
        let count = shown.split_once("overlimits ").and_then(|(_, rest)| rest.split_whitespace().next());
        count.and_then(|count| count.parse().ok()).with_context(|| format!("no counter in {shown}"))
    }
}

impl Drop for Throttled {
    fn drop(&mut self) {
        if let Err(error) = run("tc", &["qdisc", "del", "dev", &self.plug, "root"], "") {
            eprintln!("a host stays slow: {error:#}");
        }
    }
}
