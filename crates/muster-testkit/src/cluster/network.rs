//! What the test does to the network between the members.

use super::{Between, TestCluster};
use crate::hosts::{Hosts, Storm, Weather};
use crate::network::{Network, shape, shape::Pair, way::Way};
use crate::{Cut, Delayed, Lossy, Throttled, Traffic, Unplugged};
use anyhow::{Context, bail};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Faults of the network, for a cluster that was started with [`Plan::proxied`](crate::Plan::proxied) or
/// [`Plan::hosts`](crate::Plan::hosts). They may overlap; a direction is whole when the last fault on it is over. The kit itself, and frameworks
/// that use [`TestCluster::masters`], reach the masters directly, past all of this.
impl TestCluster {
    fn network(&self) -> anyhow::Result<&Between> {
        self.network.as_ref().context(
            "the members reach each other directly: start it with Plan::proxied, or as root with Plan::hosts",
        )
    }

    fn proxies(&self) -> anyhow::Result<&Network> {
        match self.network()? {
            Between::Proxies(network) => Ok(network),
            Between::Hosts(_) => {
                bail!("bytes between hosts are never late, packets are: use TestCluster::storm")
            }
        }
    }

    fn hosts(&self) -> anyhow::Result<&Arc<Hosts>> {
        match &self.network {
            Some(Between::Hosts(hosts)) => Ok(hosts),
            _ => bail!("the members have no hosts of their own: start it with Plan::hosts"),
        }
    }

    fn pair(&self, from: &str, to: &str) -> anyhow::Result<Pair> {
        self.member(from).and_then(|()| self.member(to))?;
        if from == to || !self.masters.iter().any(|master| master.name == from || master.name == to) {
            bail!("nothing goes from {from} to {to} in this cluster");
        }
        Ok((from.into(), to.into()))
    }

    /// All directions from and to a member.
    fn around(&self, name: &str) -> anyhow::Result<Vec<Pair>> {
        self.member(name)?;
        let processes = self.processes().map(|process| &process.name);
        let others: Vec<_> = processes.chain(&self.frameworks).filter(|other| *other != name).collect();
        let pairs = others.into_iter().filter_map(|other| self.pair(name, other).ok());
        Ok(pairs.flat_map(|(one, other)| [(one.clone(), other.clone()), (other, one)]).collect())
    }

    /// Nothing passes from the first of each pair to the second.
    fn sever(&self, fault: &str, on: impl Serialize, pairs: Vec<Pair>) -> anyhow::Result<Cut> {
        let network = self.network()?;
        self.lasting(fault, on, || match network {
            Between::Proxies(network) => Ok(Cut::of_proxies(network, ways(network, &pairs)?)),
            Between::Hosts(hosts) => Cut::of_hosts(hosts, pairs),
        })
    }

    /// Whatever one sends the other is held back, in answers too; the other is heard as before.
    ///
    /// No new connection comes about between them, whoever dials: a handshake takes both directions.
    pub fn cut(&self, from: &str, to: &str) -> anyhow::Result<Cut> {
        self.sever("cut", [from, to], vec![self.pair(from, to)?])
    }

    /// Neither of two hears the other.
    pub fn cut_both(&self, a: &str, b: &str) -> anyhow::Result<Cut> {
        self.sever("cut-both", [a, b], vec![self.pair(a, b)?, self.pair(b, a)?])
    }

    /// Nobody hears this member, and it hears nobody.
    pub fn isolate(&self, name: &str) -> anyhow::Result<Cut> {
        self.sever("isolate", [name], self.around(name)?)
    }

    /// Members that are named hear only those with whom they share a group. One may be in several groups; one
    /// in none hears everybody, so agents and frameworks need not be named; these never hear each other.
    pub fn partition(&self, groups: &[&[&str]]) -> anyhow::Result<Cut> {
        self.split(groups.iter().map(|group| group.iter().map(|&name| name.into()).collect()).collect())
    }

    /// Two halves of the masters, and one master that hears both.
    pub fn bridge(&self, name: &str) -> anyhow::Result<Cut> {
        let masters = self.master_names();
        if !masters.iter().any(|master| master == name) {
            bail!("there is no master {name} in this cluster");
        }
        self.split(shape::bridge(&masters, name))
    }

    /// Each of five masters hears its two neighbours: all have a majority, and no two the same.
    pub fn ring(&self) -> anyhow::Result<Cut> {
        self.split(shape::ring(&self.master_names())?)
    }

    fn split(&self, groups: Vec<Vec<String>>) -> anyhow::Result<Cut> {
        for name in groups.iter().flatten() {
            self.member(name)?;
        }
        let apart = shape::pairs(&groups).into_iter().filter(|(a, b)| self.pair(a, b).is_ok());
        let apart = apart.flat_map(|(a, b)| [(a.clone(), b.clone()), (b, a)]).collect();
        self.sever("partition", &groups, apart)
    }

    /// What one sends the other arrives late, by the latency and by chance up to the jitter more, and in
    /// order.
    pub fn delay(
        &self,
        from: &str,
        to: &str,
        latency: Duration,
        jitter: Duration,
    ) -> anyhow::Result<Delayed> {
        let ways = ways(self.proxies()?, &[self.pair(from, to)?])?;
        self.lasting("delay", [from, to], || Ok(Delayed::new(ways, latency, jitter)))
    }

    /// What a member sends and what it is sent arrives late.
    pub fn delay_around(&self, name: &str, latency: Duration, jitter: Duration) -> anyhow::Result<Delayed> {
        let ways = ways(self.proxies()?, &self.around(name)?)?;
        self.lasting("delay", [name], || Ok(Delayed::new(ways, latency, jitter)))
    }

    /// Breaks all connections between two; both hear of it at once and may dial again. Says how many there
    /// were.
    pub fn reset(&self, a: &str, b: &str) -> anyhow::Result<usize> {
        let (pair, network) = (self.pair(a, b)?, self.network()?);
        let _recorded = self.fault("reset", [a, b]);
        match network {
            Between::Proxies(network) => {
                let cables = network.cables_of(&ways(network, &[pair])?);
                Ok(cables.iter().map(|cable| cable.reset()).sum())
            }
            Between::Hosts(hosts) => hosts.reset(a, b),
        }
    }

    /// Loses so many in a hundred packets of a host, whichever way they go. Takes [`Plan::hosts`](crate::Plan::hosts).
    pub fn lose(&self, name: &str, percent: u8) -> anyhow::Result<Lossy> {
        self.member(name)?;
        let hosts = self.hosts()?;
        self.lasting("lose", [name], || Lossy::new(hosts, name, percent))
    }

    /// Has the packets that come into a host be late, overtake each other and get lost, as the dice of that weather
    /// decide; one storm at a host at a time, and since it takes this machine's own time, at two hosts at most. Takes
    /// [`Plan::hosts`](crate::Plan::hosts) and iptables ([`crate::hosts::weather_missing`]).
    pub fn storm(&self, name: &str, weather: Weather) -> anyhow::Result<Storm> {
        self.member(name)?;
        let hosts = self.hosts()?;
        self.lasting("storm", [name], || Storm::new(hosts, name, weather))
    }

    /// Pulls a host's cable. Not even the kit reaches it any more. Takes [`Plan::hosts`](crate::Plan::hosts).
    pub fn unplug(&self, name: &str) -> anyhow::Result<Unplugged> {
        self.member(name)?;
        let hosts = self.hosts()?;
        self.lasting("unplug", [name], || Unplugged::new(hosts, name))
    }

    /// Sends a host no more than so many thousand bits a second. Takes [`Plan::hosts`](crate::Plan::hosts).
    pub fn throttle(&self, name: &str, kbit: u32) -> anyhow::Result<Throttled> {
        self.member(name)?;
        let hosts = self.hosts()?;
        self.lasting("throttle", [name], || Throttled::new(hosts, name, kbit))
    }

    /// Does something at the place in the network that a framework has: with hosts, on a thread of that host, as are
    /// all threads that it starts; else here.
    pub fn within<T: Send>(&self, framework: &str, what: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        self.member(framework)?;
        match &self.network {
            Some(Between::Hosts(hosts)) => hosts.within(framework, what),
            _ => Ok(what()),
        }
    }

    /// What passed from one to the other, and what the first one dials.
    pub fn traffic(&self, from: &str, to: &str) -> anyhow::Result<Traffic> {
        let pair = self.pair(from, to)?;
        match self.network()? {
            Between::Proxies(network) => {
                let cable = network.cable(from, to);
                let (live, hanging) = cable.map_or((0, 0), |cable| (cable.live(), cable.hanging()));
                Ok(Traffic { live, hanging, ..network.way(&pair.0, &pair.1)?.traffic() })
            }
            Between::Hosts(hosts) => {
                let link = hosts.link(from, to)?;
                Ok(Traffic {
                    carried: hosts.board.passed(link)?,
                    held: hosts.board.dropped(&[link])?,
                    delayed: 0,
                    reset: hosts.resets(from, to),
                    live: hosts.sockets(from, to, "established")?,
                    hanging: hosts.sockets(from, to, "syn-sent")?,
                })
            }
        }
    }
}

fn ways(network: &Network, pairs: &[Pair]) -> anyhow::Result<Vec<Arc<Way>>> {
    pairs.iter().map(|(from, to)| network.way(from, to).cloned()).collect()
}
