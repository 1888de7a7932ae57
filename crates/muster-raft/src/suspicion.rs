//! A leader whose process died is replaced before its lease runs out, and after a start nobody waits for one.
//!
//! When a process dies, its kernel ends its connections and refuses new ones. So a follower whose append stream breaks
//! off dials the leader. If that is refused, it waits for the leader's lease no longer and asks the others by pre-vote
//! (Ongaro, "Consensus: Bridging Theory and Practice", 9.6) whether they would elect it. Each answers for itself: one
//! that hears the leader still, or was not refused by it, says no, and nothing has changed. One that is asked dials the
//! leader too: it may have had no stream that could break off.
//!
//! Nothing depends on the lease that is cut short: reads ask a quorum, and what a leader orders is committed. openraft
//! gives it back with the next leader only, so a follower that was wrong grants every pre-vote of that term: a leader
//! that another one cannot hear either may then be replaced although a majority hears it. So a suspicion that is wrong
//! costs an election at most, and only with two of them. A second refusal is asked for, as a listener that is
//! restarted, or an address that is taken for a moment, refuses only once. Where no connection is
//! refused (a host that lost its power, a network that was cut, a process that stands still) the lease runs out as ever.

use crate::{
    machine::member,
    raft::{Core, Node},
    store::lock,
    types::Vote,
};
use openraft::{async_runtime::watch::WatchReceiver, raft::TransferLeaderRequest};
use std::{
    io::ErrorKind,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

/// Before the second dial; each pause is twice the one before, up to [`PAUSE_MAX`]. A kernel ends the newest connections of a
/// process first and refuses others last: with ten thousand of them a fifth of a second lies between.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(32);
/// So many in a row are believed.
const REFUSALS: u32 = 2;
/// A connection that is not made or refused by then says nothing.
const DIAL: Duration = Duration::from_millis(100);

/// Between two pre-votes of a voter whose turn it is.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Somebody who asked for a pre-vote so long ago still does.
const STILL_ASKS: Duration = ASK_AGAIN.saturating_mul(2);

/// The leadership that this replica suspects, or is finding out about.
#[derive(Debug, Default)]
pub(crate) struct Suspected {
    suspicion: Mutex<Option<Suspicion>>,
    /// Who asked for a pre-vote last, and when.
    asked: Mutex<Option<(u64, Instant)>>,
}

#[derive(Debug, Clone, Copy)]
struct Suspicion {
    vote: Vote,
    /// Of the newest reason. A leader that is heard after that lives, until there is another.
    since: Instant,
}

impl Suspected {
    /// Whether somebody has to find out: nobody does yet.
    fn raise(&self, vote: Vote, now: Instant) -> bool {
        let mut suspected = lock(&self.suspicion);
        let is_new = suspected.is_none_or(|it| it.vote != vote);
        *suspected = Some(Suspicion { vote, since: now });
        is_new
    }

    /// When there was a reason last, as long as this leadership is the suspected one.
    fn since(&self, vote: Vote) -> Option<Instant> {
        lock(&self.suspicion).filter(|it| it.vote == vote).map(|it| it.since)
    }

    /// Whether it is over, as there was no reason since that one; the next has to be looked into again.
    fn settle(&self, vote: Vote, since: Instant) -> bool {
        let mut suspected = lock(&self.suspicion);
        let is_newer = suspected.is_some_and(|it| it.vote == vote && it.since > since);
        if !is_newer {
            suspected.take_if(|it| it.vote == vote);
        }
        !is_newer
    }

    /// Whether a voter asks whose turn comes after that of this one, which was not there for it: two that ask at once would be
    /// granted it both, and then each would have its own vote only. Of two that ask at once one yields.
    fn yields(&self, own: u64, now: Instant) -> bool {
        lock(&self.asked).is_some_and(|(by, at)| by > own && now.saturating_duration_since(at) < STILL_ASKS)
    }
}

/// Somebody who led with this vote sends nothing more on a stream.
pub(crate) fn stream_ended(node: &Arc<Node>, leader: u64, vote: Vote) {
    if let Some(core) = node.core() {
        suspect(node, core, leader, vote);
    }
}

/// A peer would stand for election: what it found out about our leader is worth finding out, too. Its stream to us may not
/// have been there yet when it died.
pub(crate) fn pre_vote_asked(node: &Arc<Node>, core: &Core, by: u64) {
    *lock(&node.suspected.asked) = Some((by, Instant::now()));
    let metrics = core.server_metrics();
    let (vote, leader) = {
        let metrics = metrics.borrow_watched();
        (metrics.vote, metrics.current_leader)
    };
    if let Some(leader) = leader
        && leader != by
        && leader != node.store.mark().node_id
    {
        suspect(node, core.clone(), leader, vote);
    }
}

fn suspect(node: &Arc<Node>, core: Core, leader: u64, vote: Vote) {
    let newest = core.server_metrics().borrow_watched().vote == vote;
    if node.stopping() || !newest || !node.suspected.raise(vote, Instant::now()) {
        return;
    }
    node.spawn({
        let node = node.clone();
        async move {
            while let Some(since) = node.suspected.since(vote) {
                if find_out(&node, &core, leader, vote, since).await || node.suspected.settle(vote, since) {
                    return;
                }
            }
        }
    });
}

/// Whether it is dead, as far as can be told; then it is replaced.
async fn find_out(node: &Node, core: &Core, leader: u64, vote: Vote, ended: Instant) -> bool {
    let leads = || core.server_metrics().borrow_watched().vote == vote;
    // Of two that stood at once neither may have won: then one must stand again.
    let is_replaced = || !leads() && core.server_metrics().borrow_watched().current_leader.is_some();
    let silent = || node.heard.last(leader).is_none_or(|at| at <= ended);
    let membership = core.server_metrics().borrow_watched().membership_config.clone();
    let Some(there) = member(&membership, leader) else { return false };
    let address = node.config.address_of(&there.name).unwrap_or(&there.address).to_owned();
    let until = ended + Duration::from_millis(node.config.election_ms_max);
    if !is_refused(&address, || leads() && silent() && Instant::now() < until).await {
        return false;
    }
    tracing::info!(leader = there.name, term = vote.leader_id.term, "the leader's process is gone");
    // A transfer to the dead one: our lease ends, and nobody stands for election by it.
    if core.handle_transfer_leader(TransferLeaderRequest::new(vote, leader, None)).await.is_err() {
        return true; // consensus has stopped
    }
    let voters: Vec<_> = membership.voter_ids().filter(|id| *id != leader).collect();
    stand(node, core, &voters, || !is_replaced() && silent() && Instant::now() < until, || true).await;
    // One that was heard again may die another time. One that was not is stood against once: two survivors who are no majority
    // would ask each other for ever.
    !leads() || silent()
}

/// What a replica does that has just started: it knows of no leader's lease, and asks the others by pre-vote once a
/// leader would have been heard. One that is heard is not asked for, and those that hear it say no.
pub(crate) async fn at_start(node: Arc<Node>, core: Core) {
    let seen = || {
        let metrics = core.server_metrics();
        let metrics = metrics.borrow_watched();
        (metrics.vote, metrics.current_leader, metrics.membership_config.clone())
    };
    let (vote, _, membership) = seen();
    let voters: Vec<_> = membership.voter_ids().collect();
    let heartbeat = Duration::from_millis(node.config.heartbeat_ms);
    let until = Instant::now() + Duration::from_millis(node.config.election_ms_max);
    sleep(heartbeat).await;
    // The leader of the vote that it starts with is not heard; one of a newer vote is. Of two that stood at once the later may
    // have deposed the other, and not lead itself: then one must stand again.
    let is_led = || {
        let (newest, leader, _) = seen();
        newest != vote && leader.is_some()
    };
    stand(&node, &core, &voters, || !node.stopping() && Instant::now() < until, || !is_led()).await;
}

/// Stands for election by pre-vote for as long as it is of use, whenever that is due. One after the other, so that voters do not take each
/// other's votes; who is behind in its log is refused. In its turn a voter asks again and again until it has votes enough to stand:
/// others may be a moment later in finding out.
async fn stand(
    node: &Node,
    core: &Core,
    voters: &[u64],
    is_of_use: impl Fn() -> bool,
    is_due: impl Fn() -> bool,
) {
    let own = node.store.mark().node_id;
    let before = voters.iter().filter(|id| **id < own).count();
    let turn = Duration::from_millis(node.config.heartbeat_ms) / 2;
    let vote = || core.server_metrics().borrow_watched().vote;
    let late = turn * u32::try_from(before).unwrap_or(0);
    sleep(late).await;
    while is_of_use() {
        let (begun, first) = (Instant::now(), vote());
        // An election is not disturbed once it is on disk, be it ours or another's.
        while is_of_use() && vote() == first && begun.elapsed() < turn {
            if is_due()
                && !node.suspected.yields(own, Instant::now())
                && core.trigger().elect(true).await.is_err()
            {
                return;
            }
            sleep(ASK_AGAIN).await;
        }
        let round = turn * u32::try_from(voters.len()).unwrap_or(1);
        // An election that came to nothing looks like one whose disks are slow: that is left time. Who stood at once stands apart then.
        let pause = if vote() == first { round } else { round * 2 + late };
        sleep(pause.saturating_sub(begun.elapsed())).await;
    }
}

/// Whether nobody listens there, while it is worth knowing.
async fn is_refused(address: &str, is_of_use: impl Fn() -> bool) -> bool {
    let (mut refused, mut pause) = (0, PAUSE);
    while is_of_use() {
        match timeout(DIAL, TcpStream::connect(address)).await {
            // It listens, or its backlog is full.
            Ok(Ok(_)) | Err(_) => refused = 0,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
            Ok(Err(_)) => return false,
        }
        if refused == REFUSALS {
            return true;
        }
        sleep(pause).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn vote(term: u64) -> Vote {
        Vote::new_committed(term, 1)
    }

    #[test]
    fn a_reason_that_comes_while_another_is_looked_into_is_not_lost() {
        let suspected = Suspected::default();
        let first = Instant::now();
        let second = first + Duration::from_millis(1);
        assert!(suspected.raise(vote(1), first));
        assert_eq!(suspected.since(vote(1)), Some(first));
        assert!(!suspected.raise(vote(1), second), "somebody is at it already");
        assert!(!suspected.settle(vote(1), first), "but has to look again");
        assert_eq!(suspected.since(vote(1)), Some(second));
        assert!(suspected.settle(vote(1), second));
        assert!(suspected.raise(vote(1), second), "nobody is at it any more");
        assert!(suspected.raise(vote(2), second));
        assert_eq!(suspected.since(vote(1)), None, "a leadership that is over");
    }

    #[test]
    fn one_of_two_that_ask_at_once_yields_for_as_long_as_the_other_asks() {
        let (one, other) = (Suspected::default(), Suspected::default());
        let now = Instant::now();
        assert!(!one.yields(1, now));
        *lock(&one.asked) = Some((2, now));
        *lock(&other.asked) = Some((1, now));
        assert!(one.yields(1, now) && !other.yields(2, now));
        assert!(!one.yields(1, now + STILL_ASKS));
    }

    #[tokio::test]
    async fn only_a_refusal_is_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dials = std::cell::Cell::new(0);
        let ten = || dials.replace(dials.get() + 1) < 10;
        assert!(!is_refused(&address, ten).await, "it listens");
        assert_eq!(dials.get(), 11, "for as long as it is of use");
        drop(listener);
        assert!(!is_refused(&address, || false).await, "nobody wants to know any more");
        assert!(is_refused(&address, || true).await);
    }
}
