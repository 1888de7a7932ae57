//! What an operator asks a replica.

use crate::{
    leadership::{self, Leadership},
    raft::Raft,
    types::Member,
};
use muster_model::{Fence, Index, Term};
use openraft::async_runtime::watch::WatchReceiver;

/// What a replica says of itself; any of them answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its configured name.
    pub name: String,
    /// Empty when it is in no cluster.
    pub cluster_id: String,
    /// leader, follower, candidate, learner, founding, joining or damaged.
    pub state: &'static str,
    /// Who leads, this one included.
    pub leader: Option<Member>,
    /// The newest fence heard of.
    pub fence: Fence,
    /// The last entry in its log.
    pub last_log_index: Index,
    /// The last entry that it knows to be committed.
    pub committed_index: Index,
    /// The last entry in its registry.
    pub applied_index: Index,
    /// The last entry in its newest snapshot.
    pub snapshot_index: Index,
    /// The last entry that left its log.
    pub purged_index: Index,
    /// The members as it knows them.
    pub members: Vec<MemberStatus>,
    /// Equal on replicas that applied the same.
    pub state_hash: u64,
    /// Of its data directory.
    pub node_id: u64,
    /// What a member that may not vote needs, what keeps it from taking snapshots, which peers are of another cluster.
    pub note: String,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Name and address.
    pub member: Member,
    /// Of its data directory.
    pub node_id: u64,
    /// Whether it votes.
    pub voter: bool,
    /// How much of the log it has; only the leader knows.
    pub matched_index: Option<Index>,
}

impl Raft {
    /// What there is to say about this replica.
    pub fn status(&self) -> Status {
        let node = self.node();
        let mark = node.store.mark();
        let registry = node.shared.registry();
        let note = match &*node.leadership.borrow() {
            Leadership::Outside { note } => note.clone(),
            _ => {
                let problem = node.store.snapshot_problem().map(|(why, _)| format!("no snapshot: {why}"));
                let notes = [problem.unwrap_or_default(), node.strangers.note()];
                notes.into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>().join("; ")
            }
        };
        let mut status = Status {
            name: node.config.name.clone(),
            cluster_id: mark.cluster_id.clone().unwrap_or_default(),
            state: match (
                &mark.damage,
                mark.founding.is_some() || node.config.members[0].0 == node.config.name,
            ) {
                (Some(_), _) => "damaged",
                (None, true) => "founding",
                (None, false) => "joining",
            },
            leader: None,
            fence: Fence { incarnation: mark.incarnation, term: Term(mark.vote.map_or(0, |vote| vote.term)) },
            last_log_index: Index(0),
            committed_index: Index(0),
            applied_index: registry.applied(),
            snapshot_index: Index(0),
            purged_index: Index(0),
            members: Vec::new(),
            state_hash: registry.state_hash(),
            node_id: mark.node_id,
            note,
        };
        let Some(core) = node.core() else { return status };
        let metrics = core.metrics().borrow_watched().clone();
        let index = |id: Option<crate::types::LogId>| Index(id.map_or(0, |id| id.index));
        let members = metrics.membership_config.membership();
        let voters: Vec<u64> = members.voter_ids().collect();
        status.state = match metrics.state {
            openraft::ServerState::Leader => "leader",
            openraft::ServerState::Candidate => "candidate",
            openraft::ServerState::Follower => "follower",
            _ if mark.damage.is_some() && !voters.contains(&mark.node_id) => "damaged",
            _ => "learner",
        };
        status.fence.term = Term(metrics.vote.leader_id.term);
        status.last_log_index = Index(metrics.last_log_index.unwrap_or(0));
        status.committed_index = index(metrics.local_committed);
        status.snapshot_index = index(metrics.snapshot);
        status.purged_index = index(metrics.purged);
        let leads = leadership::leads(&core).is_some();
        status.members = members
            .nodes()
            .map(|(id, member)| {
                let matched = if *id == mark.node_id {
                    Some(status.last_log_index)
                } else {
                    let replication = metrics.replication.as_ref();
                    replication.and_then(|all| all.get(id)).map(|matched| index(*matched))
                };
                let (node_id, voter) = (*id, voters.contains(id));
                MemberStatus {
                    member: member.clone(),
                    node_id,
                    voter,
                    matched_index: matched.filter(|_| leads),
                }
            })
            .collect();
        let leader = metrics.current_leader.and_then(|id| status.members.iter().find(|it| it.node_id == id));
        status.leader = leader.map(|leader| leader.member.clone());
        status
    }
}
