//! What lies between the members: a proxy on loopback for everything that one dials of another.
//!
//! A [`cable::Cable`] is what one member dials to reach another. A [`way::Way`] is one direction between two
//! members: between masters, who dial each other, two cables share both ways. So a cut is a cut, whoever
//! dialled.

pub(crate) mod cable;
mod pump;
pub(crate) mod shape;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
pub(crate) mod way;

use anyhow::{Context, bail};
use cable::Cable;
use shape::Pair;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::runtime::Runtime;
use way::Way;

/// All cables and ways of a cluster. They have a thread of their own, so that a test may block.
#[derive(Debug)]
pub(crate) struct Network {
    cables: BTreeMap<Pair, Arc<Cable>>,
    ways: BTreeMap<Pair, Arc<Way>>,
    runtime: Option<Runtime>,
}

impl Network {
    /// A cable to each master for every other one and for every client.
    pub(crate) fn new(masters: &[(String, SocketAddr)], clients: &[String]) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("network")
            .enable_all()
            .build()
            .context("cannot start the network's thread")?;
        let handle = runtime.handle().clone();
        let mut network = Self { cables: BTreeMap::new(), ways: BTreeMap::new(), runtime: Some(runtime) };
        let _entered = handle.enter();
        for from in masters.iter().map(|(name, _)| name).chain(clients) {
            for (to, target) in masters.iter().filter(|(name, _)| name != from) {
                let (there, back) = (network.lay_way(from, to), network.lay_way(to, from));
                let cable = Cable::lay(*target, there, back);
                let cable = cable.with_context(|| format!("cannot make a way from {from} to {to}"))?;
                network.cables.insert((from.clone(), to.clone()), cable);
            }
        }
        Ok(network)
    }

    fn lay_way(&mut self, from: &str, to: &str) -> Arc<Way> {
        self.ways.entry((from.into(), to.into())).or_insert_with(|| Way::new(from, to)).clone()
    }

    /// Where one dials another.
    pub(crate) fn address(&self, from: &str, to: &str) -> Option<SocketAddr> {
        self.cable(from, to).map(|cable| cable.address)
    }

    /// What one dials of another; an agent is never dialled.
    pub(crate) fn cable(&self, from: &str, to: &str) -> Option<&Cable> {
        self.cables.get(&(from.to_owned(), to.to_owned())).map(Arc::as_ref)
    }

    /// The direction from one to another.
    pub(crate) fn way(&self, from: &str, to: &str) -> anyhow::Result<&Arc<Way>> {
        match self.ways.get(&(from.to_owned(), to.to_owned())) {
            Some(way) => Ok(way),
            None => bail!("nothing goes from {from} to {to} in this cluster"),
        }
    }

    /// The cables on which the bytes of these directions travel.
    pub(crate) fn cables_of(&self, ways: &[Arc<Way>]) -> Vec<Arc<Cable>> {
        let ends = ways.iter().flat_map(|way| [(&way.from, &way.to), (&way.to, &way.from)]);
        let mut pairs: Vec<Pair> = ends.map(|(from, to)| (from.clone(), to.clone())).collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs.iter().filter_map(|pair| self.cables.get(pair).cloned()).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Not waited for: this may be a thread that must not block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
