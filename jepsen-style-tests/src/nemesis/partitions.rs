//! Partitions in all their shapes. Whoever can reach a majority of the masters is served meanwhile, and everybody
//! once the network is whole again.

use super::{CUT, Dice, Fault, PROGRESS_TASKS, PROGRESS_TIME, agents, but, deposed};
use crate::run::Field;
use anyhow::{Context, anyhow, bail};
use muster_testkit::Cut;
use std::time::{Duration, Instant};

/// How often a link comes and goes, and how long it does either.
const FLAPS: u32 = 6;
const FLAP: Duration = Duration::from_millis(500);
/// Launches that count as progress of one framework.
const OWN_TASKS: u64 = 2;

/// Who does not hear whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The leader is with the smaller part: alone of three, with one of five. Some agents and frameworks are with it.
    LeaderWithFew,
    /// The leader is with the larger part. Some agents and frameworks are with the smaller one.
    LeaderWithMany,
    /// Two halves and one master that hears both.
    Bridge,
    /// Each of five masters hears its two neighbours. Of three masters, two do not hear each other.
    Ring,
    /// The leader and one other master do not hear each other, and all others do.
    OneLink,
    /// The leader and the others hear each other and do not, every half a second.
    Flapping,
    /// No agent hears the leader, and all hear the other masters.
    AgentsFromLeader,
}

/// All of them.
pub const SHAPES: [Shape; 7] = [
    Shape::LeaderWithFew,
    Shape::LeaderWithMany,
    Shape::Bridge,
    Shape::Ring,
    Shape::OneLink,
    Shape::Flapping,
    Shape::AgentsFromLeader,
];

/// What a shape comes to in one cluster.
struct Plan {
    /// Who hears each other; whoever is in no group hears everybody.
    groups: Vec<Vec<String>>,
    /// Whether another must come to lead.
    deposes: bool,
    /// Agents and frameworks that can reach no majority.
    stranded: Vec<String>,
}

impl Plan {
    fn of(field: &Field, shape: Shape, leader: &str, dice: &mut Dice) -> anyhow::Result<Self> {
        let masters = field.cluster.master_names();
        let others = but(&masters, leader);
        let few = masters.len().saturating_sub(1) / 2;
        let mut deposes = false;
        let mut stranded = Vec::new();
        let groups = match shape {
            Shape::LeaderWithFew | Shape::LeaderWithMany => {
                deposes = shape == Shape::LeaderWithFew;
                let mut small = if deposes { vec![leader.to_owned()] } else { Vec::new() };
                small.extend(dice.pick(others, few - small.len()));
                let mut large: Vec<_> =
                    masters.iter().filter(|name| !small.contains(name)).cloned().collect();
                // One of either kind hears everybody, some only the smaller part, the rest only the larger one.
                for names in [field.cluster.agent_names(), field.cluster.framework_names()] {
                    let mut named = dice.pick(names.clone(), names.len().saturating_sub(1));
                    let cut_off = dice.count(named.len());
                    large.extend(named.split_off(cut_off.min(named.len())));
                    stranded.extend(named);
                }
                small.extend(stranded.clone());
                vec![small, large]
            }
            Shape::Bridge => {
                // Through a leader that hears both there would be nothing to notice.
                let bridge = dice.pick_one(&others)?;
                let (left, right) = split(&but(&masters, &bridge), &bridge);
                vec![left, right]
            }
            Shape::Ring if masters.len() == 5 => {
                (0..5).map(|i| vec![masters[i].clone(), masters[(i + 1) % 5].clone()]).collect()
            }
            Shape::Ring | Shape::OneLink => {
                let one = dice.pick_one(&others)?;
                vec![but(&masters, &one), but(&masters, leader)]
            }
            Shape::Flapping => vec![vec![leader.to_owned()], others],
            Shape::AgentsFromLeader => {
                vec![[field.cluster.agent_names(), others.clone()].concat(), masters]
            }
        };
        Ok(Self { groups, deposes, stranded })
    }

    fn cut(&self, field: &Field) -> anyhow::Result<Cut> {
        let groups: Vec<Vec<&str>> =
            self.groups.iter().map(|group| group.iter().map(String::as_str).collect()).collect();
        field.cluster.partition(&groups.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// Waits until no agent that can reach no majority is connected by the leader's word. What is to be said of it.
    async fn strands(&self, field: &Field) -> anyhow::Result<String> {
        let agents: Vec<_> =
            field.cluster.agent_names().into_iter().filter(|name| self.stranded.contains(name)).collect();
        for name in &agents {
            field.seen.agent(name, |agent| !agent.registered).await.context("an agent is stranded")?;
        }
        let them = agents.join(" ");
        Ok(if them.is_empty() { them } else { format!("; {them} were disconnected by its word") })
    }

    fn reaches(&self, names: Vec<String>) -> Vec<String> {
        names.into_iter().filter(|name| !self.stranded.contains(name)).collect()
    }
}

/// Two halves that share one.
fn split(others: &[String], shared: &str) -> (Vec<String>, Vec<String>) {
    let (left, right) = others.split_at(others.len() / 2);
    let with = |half: &[String]| [half, &[shared.to_owned()]].concat();
    (with(left), with(right))
}

/// One shape. Each comes once before any comes again.
pub async fn partitions(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    let shape = SHAPES[dice.deal("shape", SHAPES.len())];
    let time = dice.time(Duration::from_secs(2), Duration::from_secs(4));
    partition(field, shape, time, dice).await
}

/// Cuts the network into this shape for at least so long.
pub async fn partition(field: &Field, shape: Shape, time: Duration, dice: &mut Dice) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    if shape == Shape::AgentsFromLeader {
        lead_near_agents(field).await?;
    }
    let (leader, term) = field.cluster.serving().await?;
    let plan = Plan::of(field, shape, &leader, dice)?;
    let parts: Vec<_> = plan.groups.iter().map(|group| group.join(" ")).collect();
    let fault = Fault::begins(field, CUT, &field.cluster.master_names());
    let begun = Instant::now();
    let felt = if shape == Shape::Flapping {
        flap(field, &plan).await?
    } else {
        let cut = plan.cut(field)?;
        cut.bites().await?;
        let served = during(field, &plan, &leader, term).await.with_context(|| {
            format!(
                "while {leader} led in term {term} and only these heard each other: {}",
                parts.join(" | ")
            )
        })?;
        let stranded = plan.strands(field).await?;
        tokio::time::sleep(time.saturating_sub(begun.elapsed())).await;
        if plan.deposes && deposed::answers(field, &leader).await? {
            bail!("{leader} was deposed while it was cut off, and answered a read that claims to be current");
        }
        format!(
            "{} bytes were held back, {} dials hung at its end; {served}{stranded}",
            cut.held(),
            cut.hanging()
        )
    };
    let lasted = begun.elapsed();
    let healed = Instant::now();
    whole_again(field).await.with_context(|| format!("after {shape:?}, when the network was whole again"))?;
    fault.ends(format!(
        "{shape:?} for {lasted:.2?}, {leader} led in term {term}, only these heard each other: {}; {felt}; all were \
         back {:.2?} after it",
        parts.join(" | "),
        healed.elapsed()
    ));
    Ok(())
}

/// Makes a master lead that an agent is connected to, so that the agents have something to lose. Agents may move, and
/// a leader that is about to lose its office hands nothing over, meanwhile.
pub(super) async fn lead_near_agents(field: &Field) -> anyhow::Result<()> {
    let until = Instant::now() + PROGRESS_TIME;
    loop {
        let (leader, _) = field.cluster.serving().await?;
        let agents = field.cluster.agent_names();
        let near = |master: &String| {
            agents.iter().any(|agent| field.cluster.traffic(agent, master).is_ok_and(|it| it.live > 0))
        };
        if near(&leader) {
            return Ok(());
        }
        let masters = field.cluster.master_names();
        let moved = match masters.iter().find(|master| near(master)) {
            Some(nearest) => field.cluster.transfer_leadership(nearest).await.map(drop),
            None => {
                tokio::time::sleep(Duration::from_millis(20)).await; // all may be on their way
                Err(anyhow!("no agent is connected to any master"))
            }
        };
        match moved {
            Err(error) if Instant::now() >= until => return Err(error),
            _ => {}
        }
    }
}

/// What must go on while the network is cut.
async fn during(field: &Field, plan: &Plan, leader: &str, term: u64) -> anyhow::Result<String> {
    let cut = Instant::now();
    let (new, later) =
        if plan.deposes { field.cluster.serving_after(term).await? } else { field.cluster.serving().await? };
    let serving = cut.elapsed();
    if plan.deposes && new == leader {
        bail!("{leader} leads in term {later} with a minority");
    }
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await?;
    let agents = plan.reaches(field.cluster.agent_names());
    // A framework's tasks on agents that are cut off are its share of the cluster still: the others may be entitled to
    // all that is left. It is served nevertheless.
    let all_launch = agents.len() == field.cluster.agent_names().len();
    for name in plan.reaches(field.cluster.framework_names()) {
        match all_launch {
            true => field.load.progress_of(&name, OWN_TASKS, PROGRESS_TIME).await?,
            false => field.load.answers_again(&name, PROGRESS_TIME).await?,
        }
    }
    for name in agents {
        field.load.progress_on(&name, OWN_TASKS, PROGRESS_TIME).await?;
    }
    Ok(format!(
        "{new} served in term {later} after {serving:.2?}, launches by and on all who reached a majority after {:.2?}",
        cut.elapsed()
    ))
}

/// The leader and the others are cut apart and put together again and again. Nothing is asked of them meanwhile.
async fn flap(field: &Field, plan: &Plan) -> anyhow::Result<String> {
    let (mut held, mut hanging) = (0, 0);
    for _ in 0..FLAPS {
        let cut = plan.cut(field)?;
        tokio::time::sleep(FLAP).await;
        held += cut.held();
        hanging += cut.hanging();
        drop(cut);
        tokio::time::sleep(FLAP).await;
    }
    if held == 0 && hanging == 0 {
        bail!("in {FLAPS} cuts of {FLAP:?} nobody sent or dialled");
    }
    Ok(format!("in {FLAPS} cuts {held} bytes were held back and {hanging} dials hung"))
}

/// Waits until everybody takes part again: each framework, each agent, each master.
pub(super) async fn whole_again(field: &Field) -> anyhow::Result<()> {
    field.cluster.serving().await?;
    agents::back(field, &field.cluster.agent_names()).await?;
    for name in field.cluster.framework_names() {
        field.load.progress_of(&name, OWN_TASKS, PROGRESS_TIME).await?;
    }
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await?;
    for name in field.cluster.master_names() {
        field.cluster.caught_up(&name).await?;
    }
    Ok(())
}
