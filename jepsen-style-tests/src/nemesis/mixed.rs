//! All faults there are, in an order that the dice decide.

use super::{
    Dice, SHAPES, block_framework, delay_leader, duplicate_framework, exhaust_files, expire_framework,
    fail_over_framework, kill_agents, kill_leader, kill_masters, partition, pause_agents, pause_leader,
    pause_master, reset_connections, restart_member, transfer_leadership,
};
use crate::run::Field;
use std::time::Duration;

/// Faults to deal.
const CARDS: usize = 18;
/// How long members stand still, are dead or are cut off: longer than an election takes, and than agents may be
/// silent.
const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(3);

/// One fault. Each kind comes once before any comes again.
pub async fn mixed(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    let (masters, agents) = (field.cluster.master_names(), field.cluster.agent_names());
    let minority = masters.len().saturating_sub(1) / 2;
    let time = dice.time(LEAST, MOST);
    let some_agents = dice.count(agents.len().saturating_sub(1));
    let some_agents = dice.pick(agents.clone(), some_agents);
    match dice.deal("fault", CARDS) {
        0 => kill_leader(field).await,
        1 => {
            let count = dice.count(minority);
            kill_masters(field, &dice.pick(masters, count)).await
        }
        2 => kill_masters(field, &masters).await,
        3 => pause_leader(field, time.max(MOST / 2)).await,
        4 => pause_master(field, &dice.pick_one(&masters)?, time).await,
        5 => restart_member(field, &dice.pick_one(&[masters, agents].concat())?).await,
        6 => kill_agents(field, &some_agents, time).await,
        7 => pause_agents(field, &some_agents, time).await,
        8 => {
            // The agents' word is lost with them and with the leader who heard it.
            let both = tokio::try_join!(kill_leader(field), kill_agents(field, &some_agents, time));
            both.map(drop)
        }
        9 | 10 => {
            let shape = SHAPES[dice.count(SHAPES.len()) - 1];
            partition(field, shape, time, dice).await
        }
        11 => reset_connections(field, dice).await,
        12 => delay_leader(field, dice, time).await,
        13 => transfer_leadership(field, dice).await,
        14 => {
            let leader_dies = dice.count(2) == 1;
            fail_over_framework(field, dice, leader_dies).await
        }
        15 => {
            duplicate_framework(field, dice).await?;
            block_framework(field, dice).await
        }
        16 => exhaust_files(field, time).await,
        _ => expire_framework(field, dice, false).await,
    }
}
