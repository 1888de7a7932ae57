//! Who leads, as openraft shows it and as we act on it.

use crate::{
    error::{NotLeading, TransferError},
    machine::member,
    member as cluster,
    raft::{Core, Node, Raft},
    store::lock,
    types::{Member, Vote},
};
use muster_model::{Fence, Term};
use openraft::{Instant as _, ServerState, async_runtime::watch::WatchReceiver, raft::VoteRequest};
use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, Instant},
};

/// The least patience with a transfer: a master that has much else to do is slow, and not absent.
const HANDING_OVER_MIN: Duration = Duration::from_secs(5);

/// What a replica knows of who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This one does.
    Leading {
        /// Goes with everything it says.
        fence: Fence,
        /// Whether a quorum was heard within an election timeout. While it was not, this one makes no offer,
        /// gives no order and answers no read that claims to be current (`protocol` A5).
        quorum: bool,
    },
    /// Another one does, or nobody that is known.
    Following {
        /// Who.
        leader: Option<Member>,
        /// The newest that was heard of.
        fence: Fence,
    },
    /// It is in no cluster: not founded yet, joining, damaged or stopped.
    Outside {
        /// What it needs.
        note: String,
    },
}

/// The term in which this replica leads, by openraft's own word.
pub(crate) fn leads(core: &Core) -> Option<u64> {
    let metrics = core.server_metrics();
    let metrics = metrics.borrow_watched();
    let vote = &metrics.vote;
    let leads =
        metrics.state == ServerState::Leader && vote.committed && vote.leader_id.voted_for == metrics.id;
    leads.then_some(vote.leader_id.term)
}

/// Whether a quorum was heard within an election timeout.
pub(crate) fn has_quorum(node: &Node, core: &Core) -> bool {
    if core.voter_ids().count() == 1 {
        return true;
    }
    let metrics = core.data_metrics();
    let heard = metrics.borrow_watched().last_quorum_acked;
    heard.is_some_and(|at| at.elapsed() <= Duration::from_millis(node.config.election_ms_max))
}

fn look(node: &Node, core: &Core) -> Leadership {
    let incarnation = node.store.mark().incarnation;
    let leads = leads(core);
    if let Some(reigning) = node.shared.reigning()
        && leads != Some(reigning)
    {
        node.shared.end(reigning);
    }
    let mut since = lock(&node.leading_since);
    match leads {
        Some(_) => since.get_or_insert_with(Instant::now),
        None => &mut since.take().unwrap_or_else(Instant::now),
    };
    drop(since);
    match leads {
        Some(term) if !node.shared.over(term) => Leadership::Leading {
            fence: Fence { incarnation, term: Term(term) },
            quorum: has_quorum(node, core),
        },
        _ => {
            let term = Term(core.server_metrics().borrow_watched().vote.leader_id.term);
            Leadership::Following { leader: node.leader(), fence: Fence { incarnation, term } }
        }
    }
}

/// Publishes who leads, and does what only a leader does for its members.
pub(crate) async fn watch(node: Arc<Node>, core: Core) {
    let mut metrics = core.server_metrics();
    let mut acks = core.data_metrics();
    let mut tick = tokio::time::interval(Duration::from_millis(node.config.heartbeat_ms));
    let mut last_abdication = Instant::now();
    loop {
        let seen = look(&node, &core);
        node.leadership.send_if_modified(|known| {
            let changed = *known != seen;
            if changed {
                log(known, &seen);
                *known = seen.clone();
            }
            changed
        });
        if let Some(term) = leads(&core) {
            if node.shared.over(term)
                && !node.stopping()
                // A leader that hands over takes nothing in any more, by which its reign ends.
                && node.handing_over.try_lock().is_ok()
                && last_abdication.elapsed() > Duration::from_millis(node.config.election_ms_max)
            {
                // Its reign ended before its leadership did: only another term can begin one.
                last_abdication = Instant::now();
                match heirs(&node, &core, None).first() {
                    Some((heir, _)) => drop(core.trigger().transfer_leader(*heir).await),
                    None => begin_anew(&core, term).await,
                }
            }
            cluster::tend(&node, &core);
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() {
                break;
            },
            // A new leader may act as soon as its quorum answers, not only at the next beat.
            _ = acks.changed(), if matches!(seen, Leadership::Leading { quorum: false, .. }) => {}
            _ = tick.tick() => {}
        }
        let state = core.metrics().borrow_watched().running_state.clone();
        if let Err(fatal) = state
            && !node.stopping()
        {
            node.store.fail(format!("consensus stopped: {fatal}"));
        }
    }
    if !node.stopping() {
        node.store.fail("consensus stopped".into());
    }
    node.shared.end(u64::MAX);
}

/// The only voter has nobody to hand over to, and openraft lets no leader stand for election. So it grants its vote in
/// the next term to a candidate that does not exist, which ends its leadership as any higher vote would; in the term
/// after that one it is elected again. This is for a reign that ended by itself, because its thread could not be
/// started or panicked: without, such a master would lead without leading until somebody restarts it.
async fn begin_anew(core: &Core, term: u64) {
    let nobody = core.server_metrics().borrow_watched().id ^ 1;
    // Refused for its shorter log, the candidate learns how long the log is.
    let mut last = None;
    for _ in 0..2 {
        let mut request = VoteRequest::new(Vote::new(term + 1, nobody), last);
        // The leader's own lease would refuse an ordinary one.
        request.leadership_transfer = true;
        match core.vote(request).await {
            Ok(answer) if answer.vote_granted => break,
            Ok(answer) => last = answer.last_log_id,
            Err(_) => return,
        }
    }
    tracing::warn!(term, "the reign ended by itself: another term is begun");
}

fn log(old: &Leadership, new: &Leadership) {
    match (old, new) {
        (Leadership::Leading { fence: old, .. }, Leadership::Leading { fence, quorum }) if old == fence => {
            tracing::info!(term = %fence.term, quorum, "the leader's quorum changed");
        }
        (_, Leadership::Leading { fence, .. }) => tracing::info!(term = %fence.term, "leading"),
        (_, Leadership::Following { leader, fence }) => {
            let leader = leader.as_ref().map(|leader| leader.name.as_str());
            tracing::info!(term = %fence.term, leader, "following");
        }
        _ => {}
    }
}

/// The other voters by name, or the named one: those first that were heard a moment ago, and of them those with the longest
/// logs.
fn heirs(node: &Node, core: &Core, name: Option<&str>) -> Vec<(u64, String)> {
    let metrics = core.metrics();
    let metrics = metrics.borrow_watched();
    let Some(replication) = metrics.replication.as_ref() else { return Vec::new() };
    let moment = Duration::from_millis(node.config.election_ms_max);
    let voters = metrics.membership_config.voter_ids().filter(|id| *id != metrics.id);
    let mut heirs: Vec<_> = voters
        .filter_map(|id| Some((id, member(&metrics.membership_config, id)?.name)))
        .filter(|(_, known)| name.is_none_or(|name| known == name))
        .collect();
    heirs.sort_by_cached_key(|(id, _)| {
        let there = node.heard.last(*id).is_some_and(|at| at.elapsed() <= moment);
        Reverse((there, replication.get(id).copied().flatten().map(|matched| matched.index)))
    });
    heirs
}

/// The first of them that says who it is. Each may take a second for that.
async fn who_is_there(node: &Node, heirs: &[(u64, String)]) -> Option<(u64, String)> {
    for (id, name) in heirs {
        if cluster::answers_as(node, name).await == Some(*id) {
            return Some((*id, name.clone()));
        }
    }
    None
}

impl Raft {
    /// Hands leadership to the named master, or to the one with the longest log; says to whom. A leader that hands
    /// over takes nothing in any more, so whoever it is must be there: each that is asked may take a second to say so.
    pub async fn transfer_leadership(&self, to: Option<&str>) -> Result<String, TransferError> {
        let node = self.node();
        let not_leading = || NotLeading { leader: node.leader() };
        let _handing_over = node.handing_over.lock().await;
        let core = node.core().ok_or_else(not_leading)?;
        let term = leads(&core).ok_or_else(not_leading)?;
        if to == Some(node.config.name.as_str()) {
            return Ok(node.config.name.clone());
        }
        let heirs = heirs(node, &core, to);
        let Some((_, first)) = heirs.first() else {
            return Err(to.map_or(TransferError::Nobody, |name| TransferError::Unknown(name.into())));
        };
        let silent = || TransferError::Silent(first.clone());
        let (id, name) = who_is_there(node, &heirs).await.ok_or_else(silent)?;
        core.trigger().transfer_leader(id).await.map_err(|_| not_leading())?;
        let mut metrics = core.server_metrics();
        let took_over = async {
            loop {
                let now = metrics.borrow_watched().clone();
                if let Some(leader) = now.current_leader
                    && now.vote.leader_id.term > term
                {
                    return Some(leader);
                }
                metrics.changed().await.ok()?;
            }
        };
        let patience = HANDING_OVER_MIN.max(Duration::from_millis(node.config.election_ms_max * 4));
        // It may end meanwhile: everybody is told to at once where a whole cluster ends.
        let gone = async {
            while cluster::answers_as(node, &name).await == Some(id) {
                tokio::time::sleep(Duration::from_millis(node.config.heartbeat_ms)).await;
            }
        };
        tokio::select! {
            leader = took_over => match leader {
                Some(leader) if leader == id => Ok(name),
                Some(leader) => {
                    let known = member(&core.server_metrics().borrow_watched().membership_config, leader);
                    let leader = known.map(|member| member.name).unwrap_or_default();
                    Err(TransferError::Another { wanted: name, leader })
                }
                None => Err(TransferError::TimedOut(name)),
            },
            () = gone => Err(TransferError::Silent(name)),
            () = tokio::time::sleep(patience) => {
                Err(TransferError::TimedOut(name))
            }
        }
    }
}
