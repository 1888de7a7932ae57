//! Two faults at once: one of a master, and one of something else beside it. Together they never take a quorum away, so
//! each promises what it promises alone.

use super::{
    Dice, SLOW_SYNC, Shape, but, cut_power, damage_disk, delay_leader_a_little, disk_full,
    fail_over_framework, kill_agents, kill_masters, lose_disk, partition, partitions, pause_agents,
    pause_master, skew_clocks, slow_syncs, starve, strike_leader, sync_kills,
};
use crate::history::Event;
use crate::run::Field;
use anyhow::bail;
use std::time::Duration;

/// Faults of a master, and faults beside it; where a minority is more than one, another master's is one more.
const OF_MASTER: usize = 8;
const BESIDE: usize = 8;
/// The fault of a master that is its death.
const KILLED: usize = 0;
/// The fault of what is between agents and the leader.
const AGENTS_FROM_LEADER: usize = 2;
/// How long members stand still, are dead or are cut off: longer than an election takes, and than agents may be silent.
const LEAST: Duration = Duration::from_millis(1_500);
const MOST: Duration = Duration::from_secs(3);

/// Two faults at once, as the dice choose: of either sort each comes once before any comes again.
pub async fn composed(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    let masters = field.cluster.master_names();
    let minority = masters.len().saturating_sub(1) / 2;
    let of_master = dice.deal("of a master", OF_MASTER);
    let beside = dice.deal("beside it", if minority > 1 { BESIDE + 1 } else { BESIDE });
    let mut own = Dice::new(dice.seed());
    field.cluster.ready().await?;
    if beside == AGENTS_FROM_LEADER {
        partitions::lead_near_agents(field).await?;
    }
    // What is done to the leader is done beside a follower's fault.
    let (leader, _) = field.cluster.serving().await?;
    let name = dice.pick_one(&but(&masters, &leader))?;
    let other = dice.pick_one(&but(&masters, &name))?;
    let from = field.recorder.len();
    let first = fault_of(field, &mut own, of_master, &name);
    let second = async {
        match beside {
            BESIDE if of_master == KILLED => pause_master(field, &other, dice.time(LEAST, MOST)).await,
            BESIDE => kill_masters(field, &[other]).await,
            _ => fault_beside(field, dice, beside).await,
        }
    };
    let (_, _) = tokio::try_join!(first, second)?;
    met(field, from)
}

/// A fault of one master.
async fn fault_of(field: &Field, dice: &mut Dice, card: usize, name: &str) -> anyhow::Result<()> {
    let names = [name.to_owned()];
    match card {
        KILLED => kill_masters(field, &names).await,
        1 => pause_master(field, name, dice.time(LEAST, MOST)).await,
        2 => cut_power(field, dice, &names).await,
        3 => sync_kills(field, name, dice.deal_sync()).await,
        4 => disk_full(field, name).await,
        5 => lose_disk(field, name).await,
        6 => damage_disk(field, dice, name).await,
        _ => slow_syncs(field, name, SLOW_SYNC).await,
    }
}

/// A fault that leaves all masters what they need to serve, the leader perhaps too little.
async fn fault_beside(field: &Field, dice: &mut Dice, card: usize) -> anyhow::Result<()> {
    let agents = field.cluster.agent_names();
    let count = dice.count(agents.len().saturating_sub(1));
    let some = dice.pick(agents, count);
    let time = dice.time(LEAST, MOST);
    match card {
        0 => kill_agents(field, &some, time).await,
        1 => pause_agents(field, &some, time).await,
        AGENTS_FROM_LEADER => partition(field, Shape::AgentsFromLeader, time, dice).await,
        3 => delay_leader_a_little(field, dice, time).await,
        4 => strike_leader(field).await,
        5 => skew_clocks(field, dice).await,
        6 => starve(field, time).await,
        _ => fail_over_framework(field, dice, false).await,
    }
}

/// Fails unless both faults had begun before one of them ended.
fn met(field: &Field, from: usize) -> anyhow::Result<()> {
    let history = field.recorder.since(from);
    let mut faults = history.iter().filter_map(|entry| match &entry.event {
        Event::Nemesis { fault, begins, .. } => Some((fault, *begins)),
        _ => None,
    });
    match (faults.next(), faults.next()) {
        (Some((_, true)), Some((_, true))) => Ok(()),
        (first, second) => bail!("the two faults were not at once: {first:?}, then {second:?}"),
    }
}
