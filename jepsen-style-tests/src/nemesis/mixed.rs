//! All faults there are, in an order that the dice decide.

use super::{
    Dice, kill_agents, kill_leader, kill_masters, pause_agents, pause_leader, pause_master, restart_member,
};
use crate::run::Field;
use std::time::Duration;

/// Faults to deal.
const CARDS: usize = 9;
/// How long members stand still or are dead: longer than an election takes, and than agents may be silent.
const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(3);

/// One fault. Each kind comes once before any comes again.
pub async fn mixed(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    let (masters, agents) = (field.cluster.master_names(), field.cluster.agent_names());
    let minority = masters.len().saturating_sub(1) / 2;
    let time = dice.time(LEAST, MOST);
    let some_agents = dice.count(agents.len().saturating_sub(1));
    let some_agents = dice.pick(agents.clone(), some_agents);
    match dice.deal(CARDS) {
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
        _ => {
            // The agents' word is lost with them and with the leader who heard it.
            let both = tokio::try_join!(kill_leader(field), kill_agents(field, &some_agents, time));
            both.map(drop)
        }
    }
}
