//! Agents that are away for longer than they may be and come back late, and agents of which an operator says that they
//! never do. The long-running set shows what becomes of tasks: it always has some that nobody ends.

use super::process::MemberProcess;
use super::{AWAY, Dice, Down, Fault, GONE, PROGRESS_TIME, agents, but, kill_leader};
use crate::cluster;
use crate::history::Event;
use crate::model::{is_command_of, slot_of};
use crate::run::Field;
use crate::workload::Set;
use anyhow::{Context, anyhow, bail};
use muster_model::TaskState;
use muster_testkit::{Cut, Paused};
use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How long agents may be away: what masters of these scenarios are set to.
pub const AGENT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest that they stay away when that time is over.
const LATE_MAX: Duration = Duration::from_secs(2);
/// Launches that count as progress of one agent.
const OWN_TASKS: u64 = 2;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// States of an agent.
const UNREACHABLE: &str = "unreachable";
const REGISTERED: &str = "registered";
/// What an agent is told that was marked gone.
const MARKED_GONE: &str = "marked gone";

/// How agents are away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Dead,
    Still,
    CutOff,
}

const WAYS: [Way; 3] = [Way::Dead, Way::Still, Way::CutOff];

/// Agents that are away. They are back when this is dropped.
enum Away<'a> {
    Dead(Down<'a>),
    Still(Vec<(MemberProcess, Paused)>),
    CutOff(Vec<Cut>),
}

impl<'a> Away<'a> {
    fn begin(field: &'a Field, way: Way, names: &[String]) -> anyhow::Result<Self> {
        let cluster = &field.cluster;
        Ok(match way {
            Way::Dead => Self::Dead(Down::kill(cluster, names)?),
            Way::Still => {
                let pause = |name: &String| Ok((MemberProcess::of(cluster, name)?, cluster.pause(name)?));
                Self::Still(names.iter().map(pause).collect::<anyhow::Result<_>>()?)
            }
            Way::CutOff => {
                Self::CutOff(names.iter().map(|name| cluster.isolate(name)).collect::<Result<_, _>>()?)
            }
        })
    }

    /// Lets them come back; what shows that they were away.
    fn end(self) -> anyhow::Result<String> {
        match self {
            Self::Dead(down) => down.restart().map(|()| "they were dead".into()),
            Self::Still(paused) => {
                paused.iter().try_for_each(|(process, _)| process.stands_still())?;
                Ok("they stood still".into())
            }
            Self::CutOff(cuts) => {
                let held: u64 = cuts.iter().map(Cut::held).sum();
                if held == 0 {
                    bail!("nobody said a word to agents that were cut off");
                }
                Ok(format!("{held} bytes to and from them were held back"))
            }
        }
    }
}

/// Some agents, but not all, are away for longer than they may be: dead, standing still or cut off, and every other time
/// the leader dies meanwhile. They become unreachable, not before their time; their tasks show as such, are told so, and
/// run on. Then they come back, and what runs is told to be running.
pub async fn stay_away(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let card = dice.deal("away", 2 * WAYS.len());
    let (way, leader_dies) = (WAYS[card / 2], card % 2 == 1);
    let late = dice.time(Duration::ZERO, LATE_MAX);
    let count = dice.count(field.cluster.agent_names().len().saturating_sub(1));
    let names = some(field, dice, count).await?;
    let lasting = lasting_on(field, &names).await?;
    let (ids, begun) = ids_of(field, &names).await?;
    let from = field.recorder.len();
    let fault = Fault::begins(field, AWAY, &names);
    let away = Away::begin(field, way, &names)?;
    if leader_dies {
        kill_leader(field).await.context("while agents are away")?;
    }
    cluster::agents_become(&field.cluster, &ids, UNREACHABLE).await?;
    let unreachable = begun.elapsed();
    if unreachable < AGENT_TIMEOUT {
        bail!("{names:?} may be away for {AGENT_TIMEOUT:?}, and were unreachable after {unreachable:.2?}");
    }
    let tasks = cluster::tasks_on(&field.cluster, &ids).await?;
    let is_told = |state: TaskState| state == TaskState::Unreachable || state.is_terminal();
    if let Some((task, state)) = tasks.iter().find(|(_, state)| !is_told(*state)) {
        bail!("{names:?} are unreachable, and their task {task} is {state}");
    }
    told(field, from, &lasting, TaskState::Unreachable).await?;
    let them = tasks.iter().filter(|(_, state)| *state == TaskState::Unreachable).count();
    tokio::time::sleep(late).await;
    let back_from = field.recorder.len();
    let bit = away.end()?;
    let lasted = begun.elapsed();
    agents::back(field, &names).await.context("after agents were away for too long")?;
    told(field, back_from, &lasting, TaskState::Running).await?;
    fault.ends(format!(
        "{} for {lasted:.2?}{}: {bit}; unreachable after {unreachable:.2?}, {them} tasks with them; {} were told to be \
         unreachable and to run again, all was back after {:.2?}",
        names.join(" "),
        if leader_dies { ", the leader died meanwhile" } else { "" },
        lasting.join(" "),
        begun.elapsed()
    ));
    Ok(())
}

/// An operator says that an agent never comes back: while it lives, while it is dead, or when it has been away for too
/// long. Its tasks are over, it is refused and ends. With an empty work directory it is a new agent, and nothing of the
/// old one runs on.
pub async fn mark_gone(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let way = dice.deal("gone", 3);
    let names = some(field, dice, 1).await?;
    let name = names.first().context("there is no agent")?;
    let lasting = lasting_on(field, &names).await?;
    let (ids, _) = ids_of(field, &names).await?;
    let id = ids.first().context("it has no id")?;
    let from = field.recorder.len();
    let before = field.cluster.error_lines_of(name)?.len();
    let fault = Fault::begins(field, GONE, &names);
    let begun = Instant::now();
    let down = Down::of(&field.cluster, &names);
    let (was, status) = ends_as_gone(field, way, name, &ids).await?;
    let refused = begun.elapsed();
    let said: Vec<_> = field.cluster.error_lines_of(name)?.into_iter().skip(before).collect();
    if status.success() || !said.iter().any(|line| line.contains(MARKED_GONE)) {
        bail!("{name} ({id}) was marked gone, ended with {status} and said {said:?}");
    }
    told(field, from, &lasting, TaskState::GoneByOperator).await?;
    field.cluster.lose_work_dir(name)?;
    down.restart()?;
    let is_new = |agent: &cluster::SeenAgent| agent.registered && agent.agent_id != *id;
    field.seen.agent(name, is_new).await.context("an agent with an empty work directory")?;
    // It has ended what the old one left before it said that it is there.
    let lines = field.cluster.command_lines();
    if let Some(task) = lasting.iter().find(|task| lines.iter().any(|line| is_command_of(line, task))) {
        bail!("{name} is another agent than the one that was marked gone, and {task} of that one runs on");
    }
    field.load.begin_epoch();
    field.load.progress_on(name, OWN_TASKS, PROGRESS_TIME).await.context("after an agent was marked gone")?;
    for line in said {
        let (fault, member) = (GONE.into(), name.clone());
        field.recorder.record("nemesis", Event::Said { fault, member, line });
    }
    fault.ends(format!(
        "{name} ({id}) was marked gone while it was {was}, was refused and ended after {refused:.2?} ({status}); {} \
         were told to be gone, none of them ran when a new agent was there; that took tasks after {:.2?}",
        lasting.join(" "),
        begun.elapsed()
    ));
    Ok(())
}

/// Marks an agent gone that lives, that is dead and started again, or that is unreachable and goes on, and waits until
/// it has ended of that. What it was then, and how it ended.
async fn ends_as_gone(
    field: &Field,
    way: usize,
    name: &str,
    ids: &[String],
) -> anyhow::Result<(&'static str, ExitStatus)> {
    let id = ids.first().context("it has no id")?;
    match way {
        0 => {
            // From the first on it may end, so that nobody takes that for a failure.
            let ends = field.cluster.ends(name);
            let (status, ()) = tokio::try_join!(ends, is_marked_gone(field, id))?;
            Ok(("alive", status))
        }
        1 => {
            field.cluster.kill(name)?;
            field.seen.agent(name, |agent| !agent.registered).await.context("an agent is dead")?;
            is_marked_gone(field, id).await?;
            field.cluster.restart(name)?;
            Ok(("dead", field.cluster.ends(name).await?))
        }
        _ => {
            let paused = field.cluster.pause(name)?;
            cluster::agents_become(&field.cluster, ids, UNREACHABLE).await?;
            is_marked_gone(field, id).await?;
            drop(paused);
            Ok(("unreachable", field.cluster.ends(name).await?))
        }
    }
}

/// Says it until the leader shows it: the word is lost with the leader that it was given to.
async fn is_marked_gone(field: &Field, id: &str) -> anyhow::Result<()> {
    let until = Instant::now() + PROGRESS_TIME;
    loop {
        let answer = field.cluster.operator().mark_agent_gone(id).await;
        match (answer, state_of(field, id).await) {
            (_, Ok(state)) if state == cluster::GONE => return Ok(()),
            (Ok(()), Ok(state)) => bail!("{id} was marked gone, and is {state}"),
            (answer, state) if Instant::now() >= until => {
                bail!("{id} is not marked gone: {answer:?}, {state:?}")
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn state_of(field: &Field, id: &str) -> anyhow::Result<String> {
    let agents = field.cluster.agents().await.map_err(|error| anyhow!(error))?;
    let found = agents.into_iter().find(|agent| agent.agent_id == id);
    found.map(|agent| agent.state).with_context(|| format!("the leader does not know {id}"))
}

/// So many agents, one of which has tasks that are to run on.
async fn some(field: &Field, dice: &mut Dice, count: usize) -> anyhow::Result<Vec<String>> {
    let holders: Vec<_> = lasting(field).await?.into_values().collect();
    let first = dice.pick_one(&holders)?;
    let others = but(&field.cluster.agent_names(), &first);
    let others = dice.pick(others, count.saturating_sub(1));
    Ok([vec![first], others].concat())
}

/// The tasks of the set that nobody ends, with their agents by host name, once they all run.
async fn lasting(field: &Field) -> anyhow::Result<BTreeMap<String, String>> {
    let set = Set::default();
    let slots = set.slots - set.killed;
    let id = field.set.framework_id().context("the set was never registered")?;
    let enough = usize::try_from(slots)?;
    cluster::wait("the set's tasks that nobody ends", async || {
        let listed = match cluster::census(&field.cluster, field.set.name(), &id).await {
            Ok(Event::Census { listed, .. }) => listed,
            Ok(other) => return Err(format!("a census is {other:?}")),
            Err(error) => return Err(format!("{error:#}")),
        };
        let running = TaskState::Running.name();
        let runs = listed.into_iter().filter(|one| one.state == running && one.agent_state == REGISTERED);
        let is_lasting = |task: &str| slot_of(task).is_some_and(|(_, slot)| slot <= slots);
        let lasting: BTreeMap<_, _> =
            runs.filter(|one| is_lasting(&one.task)).map(|one| (one.task, one.agent)).collect();
        if lasting.len() >= enough { Ok(lasting) } else { Err(format!("no more than {lasting:?} run")) }
    })
    .await
}

/// Those of them that are on these agents.
async fn lasting_on(field: &Field, names: &[String]) -> anyhow::Result<Vec<String>> {
    let all = lasting(field).await?.into_iter();
    Ok(all.filter(|(_, agent)| names.contains(agent)).map(|(task, _)| task).collect())
}

/// The ids of these agents, once all of them are registered, and a moment at which they were not disconnected yet.
async fn ids_of(field: &Field, names: &[String]) -> anyhow::Result<(Vec<String>, Instant)> {
    cluster::wait(&format!("the registration of {names:?}"), async || {
        let asked = Instant::now();
        let agents = field.cluster.agents().await;
        let of = |name: &String| {
            let mut there = agents.iter().flatten().filter(|agent| agent.state == REGISTERED);
            there.find(|agent| agent.hostname == *name).map(|agent| agent.agent_id.clone())
        };
        let ids: Option<Vec<String>> = names.iter().map(of).collect();
        ids.map(|ids| (ids, asked)).ok_or_else(|| format!("{agents:?}"))
    })
    .await
}

/// Waits until the set was told this of each of these tasks, by updates that came after a place in the history.
async fn told(field: &Field, from: usize, tasks: &[String], wanted: TaskState) -> anyhow::Result<()> {
    cluster::wait(&format!("the set's word that its tasks are {wanted}"), async || {
        let history = field.recorder.since(from);
        let is_told = |name: &String| {
            history.iter().any(|entry| match &entry.event {
                Event::Update { task, state, durable: true, .. } => task == name && state == wanted.name(),
                _ => false,
            })
        };
        tasks.iter().find(|task| !is_told(task)).map_or(Ok(()), |left| Err(format!("{left} is not")))
    })
    .await
}
