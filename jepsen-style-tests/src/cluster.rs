//! The cluster under test: what it holds by its own word.

use crate::history::{Event, Held, Listed, Recorder, Usage};
use crate::model::{KnownTask, Mark, Truth, is_command_of, read_marks, read_marks_in_order, slot_of};
use anyhow::Context;
use muster_model::TaskState;
use muster_proto::task::task_state;
use muster_sdk::SdkError;
use muster_testkit::{TestCluster, v1};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// The state of an agent that another one of its machine has replaced, or that never comes back by an operator's word.
pub(crate) const GONE: &str = "gone";
/// Between two samples.
const SAMPLE: Duration = Duration::from_millis(100);
/// What a master logs when it begins to lead, and then the term.
const LEADING: &str = " muster_raft::leadership: leading term=";
/// More completed tasks than a run launches.
const COMPLETED_MAX: u32 = 10_000;

/// How long the leader's word on an agent is waited for: longer than pings may be missed, and than an agent
/// dials.
const SEEN_TIME: Duration = Duration::from_secs(30);

/// An agent by its leader's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenAgent {
    /// Its id.
    pub agent_id: String,
    /// Whether it is connected.
    pub registered: bool,
}

/// What the sampler saw last.
#[derive(Debug, Default)]
pub struct Seen(watch::Sender<BTreeMap<String, SeenAgent>>);

impl Seen {
    /// Waits until the leader says this of an agent, by host name.
    pub async fn agent(&self, name: &str, is: impl Fn(&SeenAgent) -> bool) -> anyhow::Result<()> {
        let mut seen = self.0.subscribe();
        let waited =
            tokio::time::timeout(SEEN_TIME, seen.wait_for(|all| all.get(name).is_some_and(&is))).await;
        let known =
            || format!("after {} s the leader says {:?} of {name}", SEEN_TIME.as_secs(), self.of(name));
        waited.map_err(|_| anyhow::anyhow!(known()))?.map(drop).context("nobody samples any more")
    }

    fn of(&self, name: &str) -> Option<SeenAgent> {
        self.0.borrow().get(name).cloned()
    }

    /// Takes what the leader says now; those that are new, or have a new id.
    fn take(&self, agents: &[v1::Agent]) -> Vec<(String, String)> {
        let mut new = Vec::new();
        self.0.send_modify(|all| {
            // One that is gone lost its answer with a leader, before it knew its id, or is another one now.
            for agent in agents.iter().filter(|agent| agent.state != GONE) {
                let (agent_id, registered) = (agent.agent_id.clone(), agent.state == "registered");
                let before = all.insert(agent.hostname.clone(), SeenAgent { agent_id, registered });
                if before.is_none_or(|before| before.agent_id != agent.agent_id) {
                    new.push((agent.hostname.clone(), agent.agent_id.clone()));
                }
            }
        });
        new
    }
}

/// Asks who leads, how far the logs reach, and the leader what the agents use, again and again, until it is dropped. Nobody leads at
/// times.
pub async fn sample(cluster: &TestCluster, recorder: &Recorder, seen: &Seen) {
    let (mut leaders, mut logs, mut served) = (BTreeSet::new(), BTreeMap::new(), None);
    loop {
        let said = cluster.statuses().await;
        let masters: BTreeMap<_, _> =
            said.iter().map(|(name, status)| (name.clone(), held(status))).collect();
        if masters != logs {
            logs.clone_from(&masters);
            recorder.record("sampler", Event::Logs { masters });
        }
        let leads = said.into_iter().filter(|(name, status)| is_leader(name, status));
        let leads = leads.map(|(name, status)| (status.fence.map_or(0, |fence| fence.term), name));
        let mut newest = None;
        for one in leads.collect::<BTreeSet<_>>() {
            if leaders.insert(one.clone()) {
                let (term, leader) = one.clone();
                recorder.record("sampler", Event::Leads { leader, term });
            }
            newest = Some(one);
        }
        let mut serves = None;
        if let Some((_, leader)) = newest
            && let Ok(agents) = cluster.agents_by(&leader).await
        {
            serves = Some(leader);
            for (agent, agent_id) in seen.take(&agents) {
                recorder.record("sampler", Event::AgentId { agent, agent_id });
            }
            let there = agents.iter().filter(|agent| agent.state != GONE);
            let agents = there.map(|agent| (agent.hostname.clone(), usage(agent))).collect();
            recorder.record("sampler", Event::Agents { agents });
        }
        // Each look in vain: between two of them nobody looked.
        if serves.is_none() || serves != served {
            recorder.record("sampler", Event::Serves { leader: serves.clone() });
            served = serves;
        }
        tokio::time::sleep(SAMPLE).await;
    }
}

fn held(status: &v1::GetRaftStatusResponse) -> Held {
    Held {
        disk: status.node_id,
        takes_part: matches!(&*status.state, "leader" | "follower" | "candidate"),
        last: status.last_log_index,
        applied: status.applied_index,
        state_hash: format!("{:016x}", status.state_hash),
    }
}

/// Waits until a leader serves, every agent is registered, and frameworks of these names are subscribed; how long that
/// took.
pub async fn all_back(cluster: &TestCluster, frameworks: &BTreeSet<&str>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    cluster.ready().await?;
    wait("every framework's subscription", async || {
        let all = cluster.operator().frameworks(false).await.map_err(|error| error.to_string())?;
        let subscribed = all.iter().filter(|one| one.connected).map(|one| &*one.name);
        let away: Vec<_> = frameworks.difference(&subscribed.collect()).copied().collect();
        if away.is_empty() { Ok(()) } else { Err(format!("{away:?} are away")) }
    })
    .await?;
    Ok(begun.elapsed())
}

/// Waits until a framework is as wanted by the leader's word; none once it was torn down.
pub async fn framework_becomes(
    cluster: &TestCluster,
    id: &str,
    is: impl Fn(Option<&v1::Framework>) -> bool,
) -> anyhow::Result<()> {
    wait(&format!("the leader's word on framework {id}"), async || {
        let all = cluster.operator().frameworks(false).await.map_err(|error| error.to_string())?;
        let found = all.iter().find(|one| one.framework_id == id);
        if is(found) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await
}

/// Waits until these agents, by their ids, are in this state by the leader's word.
pub async fn agents_become(cluster: &TestCluster, ids: &[String], state: &str) -> anyhow::Result<()> {
    wait(&format!("that agents are {state}"), async || {
        let agents = cluster.agents().await?;
        let of = |id: &String| agents.iter().find(|agent| agent.agent_id == *id).map(|agent| &*agent.state);
        let other = ids.iter().map(|id| (id, of(id))).find(|(_, now)| *now != Some(state));
        other.map_or(Ok(()), |(id, now)| Err(format!("{id} is {now:?}")))
    })
    .await
}

/// The tasks on these agents, by the agents' ids, that have not ended by the leader's word, or whose end is not
/// acknowledged.
pub async fn tasks_on(cluster: &TestCluster, ids: &[String]) -> anyhow::Result<Vec<(String, TaskState)>> {
    let mut all = Vec::new();
    wait("the leader's word on tasks", async || {
        all = cluster.operator().tasks(None).await.map_err(|error| error.to_string())?;
        Ok(())
    })
    .await?;
    let own = all.into_iter().filter(|task| ids.contains(&task.agent_id));
    Ok(own.map(|task| (task.task_id, task_state(task.state).unwrap_or(TaskState::Unknown))).collect())
}

/// Waits until no task of a framework, or of all when none is named, is left by the leader's word: each has ended and
/// its framework has acknowledged that.
pub async fn tasks_end(cluster: &TestCluster, framework_id: Option<&str>) -> anyhow::Result<()> {
    wait("the end of all tasks", async || {
        let tasks = cluster.operator().tasks(framework_id).await.map_err(|error| error.to_string())?;
        if tasks.is_empty() { Ok(()) } else { Err(format!("{} are there", tasks.len())) }
    })
    .await
}

/// Waits until the leader shows a task that was launched so far off from now; how far, in seconds.
pub async fn wall_is_off(cluster: &TestCluster, by: Duration) -> anyhow::Result<u64> {
    let mut seen = 0;
    wait("a launch by a wrong clock", async || {
        let tasks = cluster.operator().tasks(None).await.map_err(|error| error.to_string())?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let off = |task: &v1::Task| Duration::from_millis(task.launched_wall_ms).abs_diff(now);
        let most = tasks.iter().map(off).max().unwrap_or_default();
        seen = most.as_secs();
        if most >= by { Ok(()) } else { Err(format!("the clocks seem to be {seen} s off")) }
    })
    .await?;
    Ok(seen)
}

/// Asks until it is so; what was found then. Nobody may be there to answer for a while.
pub(crate) async fn wait<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let until = Instant::now() + SEEN_TIME;
    loop {
        let why = match ask().await {
            Ok(found) => return Ok(found),
            Err(why) => why,
        };
        if Instant::now() >= until {
            anyhow::bail!("{what} was waited for {} s: {why}", SEEN_TIME.as_secs());
        }
        tokio::time::sleep(SAMPLE).await;
    }
}

/// Whether a master says that it leads, in a term whose vote names itself.
fn is_leader(name: &str, status: &v1::GetRaftStatusResponse) -> bool {
    status.state == "leader" && status.leader.as_ref().is_some_and(|leader| leader.name == name)
}

fn usage(agent: &v1::Agent) -> Usage {
    let amounts = |list| crate::client::amounts(&muster_testkit::resources(list));
    Usage { total: amounts(&agent.total), used: amounts(&agent.used) }
}

/// What there is of a framework's tasks: by the machine's word and by the leader's.
pub async fn census(cluster: &TestCluster, framework: &str, id: &str) -> anyhow::Result<Event> {
    let (agents, tasks) = wait("the leader's word on a framework's tasks", async || {
        let mut operator = cluster.operator();
        let asked = async { Ok((operator.agents().await?, operator.tasks(Some(id)).await?)) };
        asked.await.map_err(|error: SdkError| error.to_string())
    })
    .await?;
    let listed = tasks.into_iter().map(|task| {
        let agent = agents.iter().find(|agent| agent.agent_id == task.agent_id);
        Listed {
            state: task_state(task.state).unwrap_or(TaskState::Unknown).name().into(),
            task: task.task_id,
            agent: agent.map(|agent| agent.hostname.clone()).unwrap_or_default(),
            agent_state: agent.map(|agent| agent.state.clone()).unwrap_or_default(),
        }
    });
    let listed = listed.collect();
    let mut alive = alive(cluster)?;
    alive.retain(|task| slot_of(task).is_some_and(|(set, _)| set == framework));
    Ok(Event::Census { alive, listed })
}

/// Which master began to lead in which term, by its own log.
pub fn led(cluster: &TestCluster) -> Vec<(String, u64)> {
    let masters = cluster.master_names();
    let mut led = Vec::new();
    for (name, log) in cluster.logs().into_iter().filter(|(name, _)| masters.contains(name)) {
        let text = std::fs::read(log).unwrap_or_default();
        let terms = String::from_utf8_lossy(&text).lines().filter_map(term_led).collect::<Vec<_>>();
        led.extend(terms.into_iter().map(|term| (name.clone(), term)));
    }
    led
}

/// The term in a line with which a master begins to lead.
fn term_led(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(LEADING)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What the masters hold, and what the tasks wrote. For a cluster that is at rest.
pub async fn truth(cluster: &TestCluster) -> anyhow::Result<Truth> {
    let (tasks, completed, agents, frameworks, removed) = wait("what the masters hold", async || {
        let mut operator = cluster.operator();
        let asked = async {
            Ok((
                operator.tasks(None).await?,
                operator.completed_tasks(None, COMPLETED_MAX).await?,
                operator.agents().await?,
                operator.frameworks(false).await?,
                operator.frameworks(true).await?,
            ))
        };
        asked.await.map_err(|error: SdkError| error.to_string())
    })
    .await?;
    let known = |ended| {
        move |task: v1::Task| KnownTask { task: task.task_id, framework_id: task.framework_id, ended }
    };
    let tasks = tasks.into_iter().map(known(false)).chain(completed.into_iter().map(known(true))).collect();
    let there = agents.iter().filter(|agent| agent.state != GONE);
    let totals = there.map(|agent| (agent.hostname.clone(), usage(agent).total)).collect();
    Ok(Truth {
        marks: read_marks(cluster.dir())?,
        slots: slot_marks(cluster)?,
        led: led(cluster),
        alive: alive(cluster)?,
        totals,
        tasks,
        frameworks: frameworks
            .into_iter()
            .map(|one| (one.framework_id, one.name))
            .collect::<BTreeMap<_, _>>(),
        removed: removed.into_iter().map(|one| (one.framework_id, one.name)).collect(),
        ..Default::default()
    })
}

/// What the tasks of sets wrote, in order.
pub fn slot_marks(cluster: &TestCluster) -> anyhow::Result<Vec<Mark>> {
    let marks = read_marks_in_order(cluster.dir())?;
    Ok(marks.into_iter().map(|(_, mark)| mark).filter(|mark| slot_of(&mark.task).is_some()).collect())
}

/// The tasks of sets that have a process.
fn alive(cluster: &TestCluster) -> anyhow::Result<Vec<String>> {
    let lines = cluster.command_lines();
    let started: BTreeSet<String> = slot_marks(cluster)?.into_iter().map(|mark| mark.task).collect();
    let alive = started.into_iter().filter(|task| lines.iter().any(|line| is_command_of(line, task)));
    Ok(alive.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_in_which_a_master_led_are_read_of_its_log() {
        let lines = [
            "2026-11-26T07:13:25.404130Z  INFO muster_raft::leadership: leading term=12",
            "2026-11-26T07:13:26.546325Z  INFO muster_raft::leadership: following term=2",
            "2026-11-26T07:13:25.459655Z  INFO muster_master::lead: leading term=1",
        ];
        assert_eq!(lines.map(term_led), [Some(12), None, None]);
    }
}
