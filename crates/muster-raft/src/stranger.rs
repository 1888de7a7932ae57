//! Masters of another cluster at the addresses of this one's: a data directory that was mixed up.
//!
//! What a stranger asks is refused anyway (`protocol` H27), so it does no harm; but somebody must say so. Every
//! replica asks the configured addresses whose they are, until a majority is of its own cluster, and again when it
//! hears nobody. The one against whom a majority stands can never be heard by a quorum again: it stops and says
//! which clusters these are. A single stranger among many is named once in their logs, and changes nothing for them.

use crate::{
    leadership::Leadership,
    member::{ask, others},
    raft::Node,
    store::lock,
};
use muster_proto::raft as proto;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

/// How long a master may take to say who it is.
const ANSWER: Duration = Duration::from_secs(1);
/// Who heard none of its peers for this long asks again whose they are.
const SILENCE: Duration = Duration::from_secs(1);
/// Strangers remembered, so that each is named once.
const KNOWN_MAX: usize = 1_024;

/// Strangers whose requests were refused.
#[derive(Default)]
pub(crate) struct Strangers {
    known: Mutex<Known>,
    met: Notify,
    /// What an operator should know of those that are there now.
    note: Mutex<String>,
}

#[derive(Default)]
struct Known {
    /// Node and cluster id of each.
    all: BTreeSet<(u64, String)>,
    /// Those of them that were not named in the log yet.
    unnamed: BTreeSet<(u64, String)>,
}

impl Strangers {
    /// Notes a request that was meant for another cluster.
    pub(crate) fn meet(&self, node_id: u64, cluster_id: &str) {
        let mut known = lock(&self.known);
        let stranger = (node_id, cluster_id.to_owned());
        if known.all.len() < KNOWN_MAX && known.all.insert(stranger.clone()) {
            known.unnamed.insert(stranger);
            self.met.notify_one();
        }
    }

    /// Names the strangers at configured addresses; empty when there are none.
    pub(crate) fn note(&self) -> String {
        lock(&self.note).clone()
    }

    fn take_unnamed(&self) -> BTreeSet<(u64, String)> {
        std::mem::take(&mut lock(&self.known).unnamed)
    }
}

/// A configured master and whose it is.
struct Answer {
    name: String,
    address: String,
    cluster_id: String,
}

/// Looks for strangers as long as the replica runs; ends it when it is one itself.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut settled = node.config.members.len() == 1;
    let mut named = BTreeSet::new();
    loop {
        // Strangers that are there are asked until they are gone.
        let quiet = settled && in_touch(&node) && lock(&node.strangers.note).is_empty();
        tokio::select! {
            () = node.strangers.met.notified() => {}
            () = sleep(Duration::from_millis(node.config.ask_ms)) => if quiet {
                continue;
            }
        }
        let Some(ours) = node.store.mark().cluster_id else { continue };
        let answers = ask_all(&node).await;
        let majority = node.config.members.len() / 2 + 1;
        settled |= 1 + answers.iter().filter(|it| it.cluster_id == ours).count() >= majority;
        let mut clusters: BTreeMap<&str, Vec<&Answer>> = BTreeMap::new();
        for answer in answers.iter().filter(|it| it.cluster_id != ours) {
            clusters.entry(&answer.cluster_id).or_default().push(answer);
        }
        if let Some((theirs, masters)) = clusters.iter().find(|(_, masters)| masters.len() >= majority) {
            // The mark may have changed while they were asked: a replica that joins takes their id over.
            if node.store.mark().cluster_id.as_deref() == Some(ours.as_str()) {
                return node.store.fail(sentence(&node, &ours, theirs, masters));
            }
            continue;
        }
        let notes =
            clusters.iter().map(|(theirs, masters)| format!("{} of the cluster {theirs}", list(masters)));
        let notes = notes.collect::<Vec<_>>().join("; ");
        *lock(&node.strangers.note) = if notes.is_empty() { notes } else { format!("strangers: {notes}") };
        for it in clusters.values().flatten() {
            if named.insert((it.name.clone(), it.cluster_id.clone())) {
                tracing::warn!(
                    name = %it.name, address = %it.address, cluster_id = %it.cluster_id, %ours,
                    "a configured master is of another cluster; it is refused until it has its own data directory"
                );
            }
        }
        for (node_id, theirs) in node.strangers.take_unnamed() {
            if !clusters.contains_key(theirs.as_str()) {
                tracing::warn!(node_id, cluster_id = %theirs, %ours, "refused a master of another cluster");
            }
        }
    }
}

/// Whether some peer of the same cluster is there.
fn in_touch(node: &Node) -> bool {
    let leads = matches!(*node.leadership.borrow(), Leadership::Leading { quorum: true, .. });
    leads || node.heard.newest().is_some_and(|at| at.elapsed() < SILENCE)
}

/// What the other masters say of themselves; those that take part in a cluster and are who they should be.
async fn ask_all(node: &Node) -> Vec<Answer> {
    let asked = others(node).map(|(name, address)| async move {
        let request = proto::IdentifyRequest { from_name: node.config.name.clone() };
        let answer = ask(address, |mut client| async move { client.identify(request).await });
        let said = timeout(ANSWER, answer).await.ok()?.ok()?;
        let counts = said.started && said.name == *name && !said.cluster_id.is_empty();
        counts.then(|| Answer { name: name.clone(), address: address.clone(), cluster_id: said.cluster_id })
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

fn list(masters: &[&Answer]) -> String {
    let masters: Vec<String> = masters.iter().map(|it| format!("{} at {}", it.name, it.address)).collect();
    masters.join(" and ")
}

fn sentence(node: &Node, ours: &str, theirs: &str, masters: &[&Answer]) -> String {
    format!(
        "the data directory {path} belongs to the cluster {ours}, but {masters} are of the cluster {theirs}; start \
         {name} with its data directory of the cluster {theirs} or with an empty one, or correct the master list",
        path = node.config.data_dir.display(),
        masters = list(masters),
        name = node.config.name,
    )
}
