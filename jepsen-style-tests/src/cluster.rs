//! The cluster under test: what it holds by its own word.

use crate::history::{Event, Recorder, Usage};
use crate::model::{KnownTask, Truth, read_marks};
use muster_testkit::TestCluster;
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two samples.
const SAMPLE: Duration = Duration::from_millis(100);
/// More completed tasks than a run launches.
const COMPLETED_MAX: u32 = 10_000;

/// Asks the leader what the agents use, again and again, until it is dropped. Nobody leads at times.
pub async fn sample(cluster: &TestCluster, recorder: &Recorder) {
    loop {
        if let Ok(agents) = cluster.agents().await {
            let agents = agents.iter().map(|agent| (agent.hostname.clone(), usage(agent))).collect();
            recorder.record("sampler", Event::Agents { agents });
        }
        tokio::time::sleep(SAMPLE).await;
    }
}

fn usage(agent: &muster_testkit::v1::Agent) -> Usage {
    let amounts = |list| crate::client::amounts(&muster_testkit::resources(list));
    Usage { total: amounts(&agent.total), used: amounts(&agent.used) }
}

/// What the masters hold, and what the tasks wrote. For a cluster that is at rest.
pub async fn truth(cluster: &TestCluster) -> anyhow::Result<Truth> {
    let mut operator = cluster.operator();
    let known = |ended| {
        move |task: muster_testkit::v1::Task| KnownTask {
            task: task.task_id,
            framework_id: task.framework_id,
            ended,
        }
    };
    let mut tasks: Vec<_> = operator.tasks(None).await?.into_iter().map(known(false)).collect();
    tasks.extend(operator.completed_tasks(None, COMPLETED_MAX).await?.into_iter().map(known(true)));
    let agents = operator.agents().await?;
    let totals = agents.iter().map(|agent| (agent.hostname.clone(), usage(agent).total)).collect();
    let frameworks = operator.frameworks(false).await?;
    Ok(Truth {
        marks: read_marks(cluster.dir())?,
        totals,
        tasks,
        frameworks: frameworks
            .into_iter()
            .map(|one| (one.framework_id, one.name))
            .collect::<BTreeMap<_, _>>(),
        ..Default::default()
    })
}
