//! Faults of frameworks: their processes die, come twice, or do not read what they are told.

use super::{BLOCK, DUPLICATE, Dice, EXPIRE, FAILOVER, Fault, GONE_MAX, PROGRESS_TIME, kill_leader};
use crate::client::{Client, Setting};
use crate::cluster;
use crate::model::MARKS;
use crate::run::Field;
use crate::workload::{Churn, Load, Workload};
use anyhow::{Context, bail};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Launches that count as progress of one framework, and of the others beside it.
const OWN_TASKS: u64 = 5;
/// How many answers a framework that reads none asks for: they are told in 8 s, and the buffers on their way hold less
/// than half of them.
const ASKED: u32 = 100_000;
/// What the masters say to a scheduler when another one of its framework has subscribed.
pub(crate) const FAILED_OVER: &str = "failed over";
/// What they say to one of a framework that was torn down.
pub(crate) const REMOVED: &str = "has been removed";
/// How long a framework that expires may be gone, and how long its tasks would run.
const EXPIRES: Duration = Duration::from_secs(2);
const LONG_MS: u64 = 600_000;

fn one_of<'a>(field: &'a Field, dice: &mut Dice) -> anyhow::Result<(&'a str, &'a Client, String)> {
    let names: Vec<_> = field.clients.keys().cloned().collect();
    let name = dice.pick_one(&names)?;
    let (name, client) = field.clients.get_key_value(&name).context("no framework loads the cluster")?;
    let id = client.framework_id().with_context(|| format!("{name} was never registered"))?;
    Ok((name, client, id))
}

/// The same, or the set.
fn any<'a>(field: &'a Field, dice: &mut Dice) -> anyhow::Result<(&'a str, &'a Client, String)> {
    if dice.count(field.clients.len() + 1) > 1 {
        return one_of(field, dice);
    }
    let id = field.set.framework_id().context("the set was never registered")?;
    Ok((field.set.name(), &field.set, id))
}

/// Waits until a framework launches again; a set, which has nothing to launch, until it was told of all that it has.
async fn goes_on(field: &Field, name: &str) -> anyhow::Result<()> {
    if name == field.set.name() {
        return field.set.reconcile(PROGRESS_TIME).await;
    }
    field.load.begin_epoch();
    field.load.progress_of(name, OWN_TASKS, PROGRESS_TIME).await
}

/// A framework's process dies without a word; another one goes on in its place after a while, under the same id.
/// Its tasks go on meanwhile. If wanted, the leader dies as well.
pub async fn fail_over_framework(field: &Field, dice: &mut Dice, leader_dies: bool) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let (name, client, id) = any(field, dice)?;
    let gone = dice.time(Duration::ZERO, GONE_MAX);
    let fault = Fault::begins(field, FAILOVER, &[name.to_owned()]);
    client.kill().await?;
    let killed = Instant::now();
    let mut noticed = "before it was asked".to_owned();
    let leads_on = async { if leader_dies { kill_leader(field).await } else { Ok(()) } };
    let away = async {
        if !leader_dies {
            cluster::framework_becomes(&field.cluster, &id, |it| it.is_some_and(|it| !it.connected)).await?;
            noticed = format!("after {:.2?}", killed.elapsed());
        }
        tokio::time::sleep(gone.saturating_sub(killed.elapsed())).await;
        client.start_another(&field.cluster)
    };
    let (_, _) = tokio::try_join!(leads_on, away)?;
    let back = killed.elapsed();
    goes_on(field, name).await.context("after a framework failed over")?;
    fault.ends(format!(
        "{name} ({id}) died, the leader knew {noticed}; another scheduler subscribed after {back:.2?} and went on \
         after {:.2?}",
        killed.elapsed()
    ));
    Ok(())
}

/// A second scheduler subscribes under a framework's id while the first one is there: the first is told, and ends.
pub async fn duplicate_framework(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let (name, client, id) = any(field, dice)?;
    let fault = Fault::begins(field, DUPLICATE, &[name.to_owned()]);
    let begun = Instant::now();
    let former = client.start_another(&field.cluster)?;
    let told = client.ended(&former).await?;
    let told = told.with_context(|| format!("the former scheduler of {name} ended without an error"))?;
    if !told.to_string().contains(FAILED_OVER) {
        bail!("the former scheduler of {name} was told {told}");
    }
    let ended = begun.elapsed();
    goes_on(field, name).await.context("after a framework came twice")?;
    fault.ends(format!(
        "the former scheduler of {name} ({id}) was told {:?} after {ended:.2?}, the new one went on after {:.2?}",
        told.to_string(),
        begun.elapsed()
    ));
    Ok(())
}

/// A framework asks for much and reads nothing of it: its leader must give it up, the others go on, and when it
/// reads again it takes part again.
pub async fn block_framework(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let (name, client, id) = one_of(field, dice)?;
    let fault = Fault::begins(field, BLOCK, &[name.to_owned()]);
    let begun = Instant::now();
    let blocked = client.block();
    client.ask_in_vain(ASKED)?;
    let gone = cluster::framework_becomes(&field.cluster, &id, |it| it.is_some_and(|it| !it.connected)).await;
    gone.with_context(|| format!("{name} asked for {ASKED} answers, read none, and is not given up"))?;
    let noticed = begun.elapsed();
    field.load.begin_epoch();
    for other in field.clients.keys().filter(|other| *other != name) {
        let beside = field.load.progress_of(other, OWN_TASKS, PROGRESS_TIME).await;
        beside.with_context(|| format!("while {name} read nothing"))?;
    }
    let beside = begun.elapsed();
    drop(blocked);
    field.load.begin_epoch();
    field.load.progress_of(name, OWN_TASKS, PROGRESS_TIME).await.context("after a framework read again")?;
    let again = begun.elapsed();
    // Until then it would not be asked anew.
    client.told_in_vain(2 * PROGRESS_TIME).await.with_context(|| format!("after {name} read again"))?;
    fault.ends(format!(
        "{name} ({id}) read nothing of {ASKED} answers, the leader gave it up after {noticed:.2?}; the others \
         launched after {beside:.2?}, it launched again after {again:.2?} and was told the rest after {:.2?}",
        begun.elapsed()
    ));
    Ok(())
}

/// A framework that may be gone for a short time only launches tasks that would run for long, and dies. It is torn
/// down once its time is over, not before, under whoever leads then; its tasks end, and its id is never accepted
/// again.
pub async fn expire_framework(field: &Field, dice: &mut Dice, leader_dies: bool) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let name = format!("e{}", field.expired.fetch_add(1, Ordering::Relaxed) + 1);
    let fault = Fault::begins(field, EXPIRE, std::slice::from_ref(&name));
    let load = Arc::<Load>::default();
    let churn = Churn {
        open_max: 2,
        tasks_max: 2,
        run_ms: (LONG_MS, LONG_MS),
        kill_one_in: u32::MAX,
        ..Churn::default()
    };
    let setting = Setting {
        failover_timeout: EXPIRES,
        ..Setting::lasting(
            field.cluster.dir().join(MARKS),
            Workload::Churn(churn),
            load.clone(),
            field.recorder.clone(),
        )
    };
    let client = Client::start(&name, &field.cluster, setting, dice.seed())?;
    load.progress(2, PROGRESS_TIME).await.with_context(|| format!("of {name}"))?;
    let id = client.framework_id().with_context(|| format!("{name} was never registered"))?;
    let killed = Instant::now();
    client.kill().await?;
    if leader_dies {
        kill_leader(field).await?;
    }
    cluster::framework_becomes(&field.cluster, &id, |it| it.is_none()).await?;
    let expired = killed.elapsed();
    if expired < EXPIRES {
        bail!("{name} may be gone for {EXPIRES:?}, and was torn down {expired:.2?} after it died");
    }
    cluster::tasks_end(&field.cluster, Some(&id)).await?;
    let ended = killed.elapsed();
    drop(client.start_another(&field.cluster)?);
    let told = client.ended(&client.newest()).await?.map(|error| error.to_string()).unwrap_or_default();
    if !told.contains(REMOVED) {
        bail!("{name} was torn down, subscribed again under its id, and was told {told:?}");
    }
    fault.ends(format!(
        "{name} ({id}) died, was torn down after {expired:.2?}, its tasks ended after {ended:.2?}, and its id was \
         refused: {told:?}"
    ));
    Ok(())
}
