//! How a replica gets into its cluster, and how the leader replaces one that lost its disk (`protocol` H).

use crate::{
    error::{NotLeading, ReplaceError},
    leadership,
    machine::member,
    peer::client::{client, dial},
    raft::{Core, Node, Raft},
    store::{
        lock,
        mark::{Founder, Founding, Mark},
    },
    types::{Member, StoredMembership},
};
use muster_proto::raft as proto;
use openraft::async_runtime::watch::WatchReceiver;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

/// How long another master may take to answer; adding a learner waits for a commit.
const ANSWER: Duration = Duration::from_secs(5);
/// Who does not say who it is within this time is not there.
const PRESENT: Duration = Duration::from_secs(1);
/// A learner this close to the leader's log is caught up.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// Gets a replica that has taken part in nothing yet into its cluster, however long that takes.
pub(crate) async fn enter(node: Arc<Node>) {
    loop {
        let mark = node.store.mark();
        let creator = node.config.members.first().is_some_and(|(name, _)| *name == node.config.name);
        let step =
            if creator && mark.damage.is_none() { found(&node).await } else { join(&node, None).await };
        match step {
            Ok(()) => return,
            // The first request of a peer may have started it meanwhile.
            Err(_) if node.core().is_some() => return,
            Err(note) => node.note(note),
        }
        sleep(Duration::from_millis(node.config.ask_ms)).await;
    }
}

/// The others by name and address.
pub(crate) fn others(node: &Node) -> impl Iterator<Item = &(String, String)> {
    node.config.members.iter().filter(|(name, _)| *name != node.config.name)
}

/// Asks another master one thing.
pub(crate) async fn ask<T, F, C>(address: &str, call: C) -> Result<T, String>
where
    C: FnOnce(proto::peer_service_client::PeerServiceClient<tonic::transport::Channel>) -> F,
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let channel = dial(address).map_err(|error| error.to_string())?;
    match timeout(ANSWER, call(client(channel))).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("no answer in time".into()),
    }
}

/// What the creator does: everyone stores the same founding record, and only then does the cluster start.
/// Every step can be repeated after a crash of anyone.
async fn found(node: &Arc<Node>) -> Result<(), String> {
    let mark = node.store.mark();
    let mut members = Vec::new();
    for (name, address) in &node.config.members {
        let node_id = if *name == node.config.name {
            mark.node_id
        } else {
            match identify(node, name, address).await? {
                Identity::Blank(node_id) => node_id,
                // The cluster exists and this is a new disk of its creator: it joins like any other.
                Identity::Started => return join(node, None).await,
            }
        };
        members.push(Founder { name: name.clone(), address: address.clone(), node_id });
    }
    let founding = match mark.founding {
        Some(founding) if founding.members == members => founding,
        older => Founding { members, sequence: older.map_or(0, |older| older.sequence) + 1 },
    };
    let drawn = format!("{:016x}", rand::random::<u64>());
    let cluster_id = mark.cluster_id.or(node.config.cluster_id.clone()).unwrap_or(drawn);
    store_founding(node, cluster_id.clone(), founding.clone()).await?;
    let record = to_record(&cluster_id, &founding);
    for (name, address) in others(node) {
        let request = proto::FoundRequest { record: Some(record.clone()) };
        let stored = ask(address, |mut client| async move { client.found(request).await }).await;
        let stored = stored.map_err(|why| format!("creating the cluster: {name} at {address}: {why}"))?;
        if !stored.stored {
            return Err(format!("creating the cluster: {name} at {address} refuses: {}", stored.why_not));
        }
    }
    let _entering = node.entering.lock().await;
    if node.stopping() {
        return Err("stopping".into());
    }
    let core = node.start().await?;
    let members: BTreeMap<u64, Member> = founding
        .members
        .into_iter()
        .map(|founder| (founder.node_id, Member { name: founder.name, address: founder.address }))
        .collect();
    core.initialize(members).await.map_err(|error| format!("creating the cluster: {error}"))?;
    tracing::info!(%cluster_id, "created the cluster");
    Ok(())
}

enum Identity {
    /// May be founded, under this node id.
    Blank(u64),
    /// Is in a cluster.
    Started,
}

async fn identify(node: &Arc<Node>, name: &str, address: &str) -> Result<Identity, String> {
    let request = proto::IdentifyRequest { from_name: node.config.name.clone() };
    let answer = ask(address, |mut client| async move { client.identify(request).await }).await;
    let answer =
        answer.map_err(|why| format!("creating the cluster: waiting for {name} at {address}: {why}"))?;
    if answer.name != name {
        return Err(format!(
            "creating the cluster: the master at {address} is called {}, not {name}; correct the master list",
            answer.name
        ));
    }
    if answer.started {
        return Ok(Identity::Started);
    }
    if !answer.blank {
        return Err(format!(
            "creating the cluster: the data directory of {name} was damaged; start {name} with an empty one"
        ));
    }
    Ok(Identity::Blank(answer.node_id))
}

/// The node id under which a configured master answers now.
pub(crate) async fn answers_as(node: &Node, name: &str) -> Option<u64> {
    let address = node.config.address_of(name)?;
    let request = proto::IdentifyRequest { from_name: node.config.name.clone() };
    let answer = ask(address, |mut client| async move { client.identify(request).await });
    let said = timeout(PRESENT, answer).await.ok()?.ok()?;
    (said.name == name).then_some(said.node_id)
}

async fn store_founding(node: &Node, cluster_id: String, founding: Founding) -> Result<(), String> {
    let change = move |mark: &mut Mark| {
        mark.cluster_id = Some(cluster_id);
        mark.incarnation = mark.incarnation.max(1);
        mark.founding = Some(founding);
    };
    node.store.change_mark(change).await.map_err(|error| format!("storing the founding record: {error}"))
}

fn to_record(cluster_id: &str, founding: &Founding) -> proto::FoundingRecord {
    let member = |founder: &Founder| proto::Member {
        name: founder.name.clone(),
        address: founder.address.clone(),
        node_id: founder.node_id,
    };
    proto::FoundingRecord {
        cluster_id: cluster_id.into(),
        members: founding.members.iter().map(member).collect(),
        sequence: founding.sequence,
    }
}

/// What a member answers to the creator's record (`protocol` H28).
pub(crate) async fn accept_founding(node: &Arc<Node>, record: proto::FoundingRecord) -> Result<(), String> {
    let _entering = node.entering.lock().await;
    let mark = node.store.mark();
    let members: Vec<Founder> = record
        .members
        .into_iter()
        .map(|member| Founder { name: member.name, address: member.address, node_id: member.node_id })
        .collect();
    let founding = Founding { members, sequence: record.sequence };
    let same_cluster = mark.cluster_id.as_deref() == Some(record.cluster_id.as_str());
    if same_cluster && mark.founding.as_ref() == Some(&founding) {
        return Ok(());
    }
    if let Some((_, why)) = &mark.damage {
        return Err(format!("its data directory was damaged ({why}); start it with an empty one"));
    }
    if !mark.blank() || mark.joined || node.core().is_some() {
        return Err(format!("it already takes part in the cluster {}", mark.cluster_id.unwrap_or_default()));
    }
    if record.cluster_id.is_empty() {
        return Err("the record names no cluster".into());
    }
    if let Some(expected) = node.config.cluster_id.as_ref().filter(|expected| **expected != record.cluster_id)
    {
        return Err(format!("it is configured for the cluster {expected}, not {}", record.cluster_id));
    }
    if !founding.members.iter().any(|it| it.name == mark.name && it.node_id == mark.node_id) {
        return Err(format!("the record does not name {} with its present node id", mark.name));
    }
    let named: Vec<&str> = founding.members.iter().map(|it| it.name.as_str()).collect();
    let configured: Vec<&str> = node.config.members.iter().map(|(name, _)| name.as_str()).collect();
    if named != configured {
        return Err(format!(
            "the master lists differ: {} here, {} there",
            configured.join(", "),
            named.join(", ")
        ));
    }
    if same_cluster && mark.founding.is_some_and(|known| known.sequence > founding.sequence) {
        return Err("a newer record of the same cluster is stored".into());
    }
    store_founding(node, record.cluster_id, founding).await
}

/// Asks the cluster to be taken in as a learner, unless a founding record comes first.
async fn join(node: &Arc<Node>, hint: Option<String>) -> Result<(), String> {
    let mark = node.store.mark();
    if mark.founding.is_some() && mark.damage.is_none() && !is_creator(node) {
        return Err("waiting for the creator to start the cluster".into());
    }
    let (replaces, why) = mark.damage.clone().unwrap_or((0, "an empty data directory".into()));
    let request = proto::JoinRequest {
        name: node.config.name.clone(),
        address: node.config.address_of(&node.config.name).unwrap_or_default().into(),
        node_id: mark.node_id,
        why: why.clone(),
        replaces,
        cluster_id: mark.cluster_id.unwrap_or_default(),
    };
    let mut said = Vec::new();
    let mut addresses: Vec<String> = hint.into_iter().collect();
    addresses.extend(others(node).map(|(_, address)| address.clone()));
    let mut at = 0;
    // Every answer may name the leader once more.
    while at < addresses.len() && at < 4 * node.config.members.len() {
        let address = addresses[at].clone();
        at += 1;
        let request = request.clone();
        match ask(&address, |mut client| async move { client.join(request).await }).await {
            Ok(answer) if answer.accepted => return joined(node, answer).await,
            Ok(answer) => {
                if let Some(leader) =
                    answer.leader.filter(|leader| !addresses[at - 1..].contains(&leader.address))
                {
                    addresses.insert(at, leader.address);
                } else if !answer.why_not.is_empty() {
                    said.push(answer.why_not);
                }
            }
            Err(_) => {}
        }
    }
    let told = said.first().map_or(String::from("no master answers that it leads"), Clone::clone);
    Err(format!("joining with {why}: {told}"))
}

fn is_creator(node: &Node) -> bool {
    node.config.members.first().is_some_and(|(name, _)| *name == node.config.name)
}

async fn joined(node: &Arc<Node>, answer: proto::JoinResponse) -> Result<(), String> {
    let _entering = node.entering.lock().await;
    if node.stopping() || node.core().is_some() {
        return Ok(());
    }
    if let Some(expected) = node.config.cluster_id.as_ref().filter(|expected| **expected != answer.cluster_id)
    {
        return Err(format!("the other masters are of the cluster {}, not {expected}", answer.cluster_id));
    }
    let change = move |mark: &mut Mark| {
        mark.cluster_id = Some(answer.cluster_id);
        mark.incarnation = answer.incarnation;
        mark.founding = None;
        mark.joined = true;
    };
    node.store.change_mark(change).await.map_err(|error| error.to_string())?;
    node.start().await?;
    tracing::info!("taken in as a learner");
    Ok(())
}

/// What the leader answers to one that wants in (`protocol` H29).
pub(crate) async fn take_in(node: &Arc<Node>, request: proto::JoinRequest) -> proto::JoinResponse {
    let mark = node.store.mark();
    let refused = |why_not: String| proto::JoinResponse { why_not, ..proto::JoinResponse::default() };
    let Some(core) = node.core() else { return refused("the cluster is not created yet".into()) };
    if leadership::leads(&core).is_none() || !leadership::has_quorum(node, &core) {
        let leader = node.leader().map(|it| proto::Member { name: it.name, address: it.address, node_id: 0 });
        return proto::JoinResponse { leader, ..refused(String::new()) };
    }
    let accepted = proto::JoinResponse {
        accepted: true,
        cluster_id: mark.cluster_id.clone().unwrap_or_default(),
        incarnation: mark.incarnation,
        ..proto::JoinResponse::default()
    };
    if !request.cluster_id.is_empty() && request.cluster_id != accepted.cluster_id {
        return refused(format!("{} belonged to another cluster, {}", request.name, request.cluster_id));
    }
    let membership = core.server_metrics().borrow_watched().membership_config.as_ref().clone();
    if membership.get_node(&request.node_id).is_some() {
        return accepted;
    }
    if let Err(why_not) = may_replace(node, &core, &membership, &request) {
        return refused(why_not);
    }
    // A former attempt under another node id: that directory is gone as well.
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let stale: BTreeSet<u64> = membership
        .nodes()
        .filter(|(id, it)| it.name == request.name && !voters.contains(id))
        .map(|(id, _)| *id)
        .collect();
    if !stale.is_empty()
        && let Err(error) = core.change_membership(openraft::ChangeMembers::RemoveNodes(stale), true).await
    {
        return refused(format!("a change of members is under way: {error}"));
    }
    let newcomer = Member { name: request.name.clone(), address: request.address };
    match core.add_learner(request.node_id, newcomer, false).await {
        Ok(_) => {
            tracing::info!(name = %request.name, node_id = request.node_id, why = %request.why, "took a learner in");
            accepted
        }
        Err(error) => refused(format!("a change of members is under way: {error}")),
    }
}

fn may_replace(
    node: &Node,
    core: &Core,
    membership: &StoredMembership,
    request: &proto::JoinRequest,
) -> Result<(), String> {
    let voters: Vec<u64> = membership.voter_ids().collect();
    let named = |id: &u64| member(membership, *id).is_some_and(|it| it.name == request.name);
    let Some(old) = voters.iter().copied().find(named) else {
        return Err(format!("{} is no master of this cluster", request.name));
    };
    if old == core.server_metrics().borrow_watched().id {
        return Err(format!("{} is the name of the leader", request.name));
    }
    if membership.get_joint_config().len() > 1 || pending(membership).any(|(_, name)| name != request.name) {
        return Err("another change of members is under way".into());
    }
    let silent = silence(node, old);
    let confirmed = lock(&node.confirmed).contains(&request.name);
    let said_itself = request.replaces == old;
    if !said_itself && !confirmed && silent < Duration::from_millis(node.config.replace_silence_ms) {
        return Err(format!(
            "the old disk of {0} was heard {1} s ago; wait, or confirm with `muster raft replace {0} --confirm`",
            request.name,
            silent.as_secs()
        ));
    }
    let limit = Duration::from_millis(node.config.election_ms_max * 4);
    let me = core.server_metrics().borrow_watched().id;
    let absent = voters.iter().find(|id| **id != me && **id != old && silence(node, **id) > limit);
    match absent.and_then(|id| member(membership, *id)) {
        Some(absent) => Err(format!("{} does not answer either; one replacement at a time", absent.name)),
        None => Ok(()),
    }
}

/// How long a node id has not been heard; what was before this replica led does not count.
fn silence(node: &Node, node_id: u64) -> Duration {
    let since = lock(&node.leading_since).unwrap_or_else(Instant::now);
    node.heard.last(node_id).map_or(since, |heard| heard.max(since)).elapsed()
}

/// Learners that are to take the place of a voter of the same name.
fn pending(membership: &StoredMembership) -> impl Iterator<Item = (u64, String)> + '_ {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    membership.nodes().filter(move |(id, _)| !voters.contains(id)).map(|(id, it)| (*id, it.name.clone()))
}

/// What a leader does for its members at every beat: promote a learner that is caught up in place of the
/// voter of its name, and finish a change that a former leader began.
pub(crate) fn tend(node: &Arc<Node>, core: &Core) {
    let metrics = core.metrics().borrow_watched().clone();
    let membership = &metrics.membership_config;
    let wanted = match membership.get_joint_config().as_slice() {
        [_, wanted] => Some(wanted.clone()),
        [voters] => pending(membership).find_map(|(learner, name)| {
            let old = voters.iter().find(|id| member(membership, **id).is_some_and(|it| it.name == name))?;
            let matched = metrics.replication.as_ref()?.get(&learner).copied().flatten()?;
            let close = matched.index + CAUGHT_UP_ENTRIES >= metrics.last_log_index.unwrap_or(0);
            close.then(|| voters.iter().filter(|id| *id != old).copied().chain([learner]).collect())
        }),
        _ => None,
    };
    let Some(wanted) = wanted else { return };
    let Ok(mut changing) = node.changing.clone().try_lock_owned() else { return };
    let core = core.clone();
    let inner = node.clone();
    node.spawn(async move {
        let names: BTreeSet<String> = wanted.iter().filter_map(|id| named(&core, *id)).collect();
        match core.change_membership(wanted, false).await {
            Ok(_) => {
                *changing += 1;
                lock(&inner.confirmed).retain(|name| !names.contains(name));
                tracing::info!("the voters changed");
            }
            Err(error) => tracing::info!(%error, "the voters did not change yet"),
        }
    });
}

fn named(core: &Core, node_id: u64) -> Option<String> {
    member(&core.server_metrics().borrow_watched().membership_config, node_id).map(|it| it.name)
}

impl Raft {
    /// Lets a master that lost its disk come back under a new node id. With `confirm`, an operator says that
    /// the old disk never comes back; without, the old node id must have been silent for long enough. A master
    /// that answers under its old node id has its disk, whatever anybody confirms.
    pub async fn replace_member(&self, name: &str, confirm: bool) -> Result<(), ReplaceError> {
        let node = self.node();
        let not_leading = || NotLeading { leader: node.leader() };
        let core = node.core().ok_or_else(not_leading)?;
        leadership::leads(&core).ok_or_else(not_leading)?;
        let metrics = core.server_metrics().borrow_watched().clone();
        let membership = &metrics.membership_config;
        let old = membership
            .voter_ids()
            .find(|id| member(membership, *id).is_some_and(|it| it.name == name))
            .ok_or_else(|| ReplaceError::Unknown(name.into()))?;
        if old == metrics.id {
            return Err(ReplaceError::Leads(name.into()));
        }
        if answers_as(node, name).await == Some(old) {
            return Err(ReplaceError::Well(name.into()));
        }
        let silent = silence(node, old);
        if !confirm && silent < Duration::from_millis(node.config.replace_silence_ms) {
            return Err(ReplaceError::Heard { name: name.into(), silent_s: silent.as_secs() });
        }
        lock(&node.confirmed).insert(name.into());
        Ok(())
    }
}
