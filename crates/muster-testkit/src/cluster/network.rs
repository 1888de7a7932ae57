//! What the test does to the network between the members.

use super::TestCluster;
use crate::network::{Network, shape, way::Way};
use crate::{Cut, Delayed, Traffic};
use anyhow::{Context, bail};
use std::sync::Arc;
use std::time::Duration;

/// Faults of the network, for a cluster that was started with [`Plan::proxied`](crate::Plan::proxied). They
/// may overlap; a direction is whole when the last fault on it is over. The kit itself, and frameworks
/// that use [`TestCluster::masters`], reach the masters directly, past all of this.
impl TestCluster {
    fn network(&self) -> anyhow::Result<&Network> {
        self.network.as_ref().context("the members reach each other directly: start it with Plan::proxied")
    }

    fn way(&self, from: &str, to: &str) -> anyhow::Result<Arc<Way>> {
        self.member(from).and_then(|()| self.member(to))?;
        self.network()?.way(from, to).cloned()
    }

    fn around(&self, name: &str) -> anyhow::Result<Vec<Arc<Way>>> {
        self.member(name)?;
        Ok(self.network()?.around(name))
    }

    /// Whatever one sends the other is held back, in answers too; the other is heard as before.
    ///
    /// No new connection comes about between them, whoever dials: a handshake takes both directions.
    pub fn cut(&self, from: &str, to: &str) -> anyhow::Result<Cut> {
        Ok(Cut::new(self.network()?, vec![self.way(from, to)?]))
    }

    /// Neither of two hears the other.
    pub fn cut_both(&self, a: &str, b: &str) -> anyhow::Result<Cut> {
        Ok(Cut::new(self.network()?, vec![self.way(a, b)?, self.way(b, a)?]))
    }

    /// Nobody hears this member, and it hears nobody.
    pub fn isolate(&self, name: &str) -> anyhow::Result<Cut> {
        Ok(Cut::new(self.network()?, self.around(name)?))
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
        let masters = self.master_names();
        let mut ways = Vec::new();
        for (a, b) in shape::pairs(&groups) {
            if masters.contains(&a) || masters.contains(&b) {
                ways.extend([self.way(&a, &b)?, self.way(&b, &a)?]);
            }
        }
        Ok(Cut::new(self.network()?, ways))
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
        Ok(Delayed::new(vec![self.way(from, to)?], latency, jitter))
    }

    /// What a member sends and what it is sent arrives late.
    pub fn delay_around(&self, name: &str, latency: Duration, jitter: Duration) -> anyhow::Result<Delayed> {
        Ok(Delayed::new(self.around(name)?, latency, jitter))
    }

    /// Breaks all connections between two; both hear of it at once and may dial again. Says how many there
    /// were.
    pub fn reset(&self, a: &str, b: &str) -> anyhow::Result<usize> {
        let ways = [self.way(a, b)?];
        Ok(self.network()?.cables_of(&ways).iter().map(|cable| cable.reset()).sum())
    }

    /// What passed from one to the other, and what the first one dials.
    pub fn traffic(&self, from: &str, to: &str) -> anyhow::Result<Traffic> {
        let traffic = self.way(from, to)?.traffic();
        let cable = self.network()?.cable(from, to);
        let (live, hanging) = cable.map_or((0, 0), |cable| (cable.live(), cable.hanging()));
        Ok(Traffic { live, hanging, ..traffic })
    }
}
