//! What is lost or damaged while a master does not run.

use super::super::{DAMAGE, DISK_LOST, Dice, Down};
use super::{DiskFault, LOOK, equal, progress, status};
use crate::run::Field;
use anyhow::{Context, bail};
use muster_testkit::Damage;
use std::time::{Duration, Instant};

/// How long a master may take to be back by itself, or to say what it needs.
const BACK_TIME: Duration = Duration::from_secs(60);
/// What a master says that lost what it had and cannot prove whose it was.
const NEEDS_CONFIRMATION: &str = "or confirm with `muster raft replace";
/// How long one with a new disk is watched that nobody let back in.
const WATCH: Duration = Duration::from_secs(1);

/// Damages a file of one master while it is down, as the dice choose. It comes back with what the others hold: as the
/// member that it was, or as a new one that noticed its loss.
pub async fn damage_disk(field: &Field, dice: &mut Dice, name: &str) -> anyhow::Result<()> {
    let damage = if dice.count(3) > 1 { Damage::Flip } else { Damage::Truncate };
    let seed = dice.seed();
    let names = [name.to_owned()];
    field.cluster.serving().await?;
    let fault = DiskFault::begins(field, DAMAGE, &names).await?;
    let down = Down::kill(&field.cluster, &names)?;
    let damaged = field.cluster.damage(name, damage, seed)?;
    progress(field, "without a master that is down").await?;
    down.restart()?;
    let began = Instant::now();
    let how = back_somehow(field, &fault, name).await.with_context(|| format!("{name}: {damaged}"))?;
    fault.ends(format!("{damaged}; {how} after {:.2?}", began.elapsed()))
}

/// Takes all that a master had. It must not vote before it was let back in, as a new member.
pub async fn lose_disk(field: &Field, name: &str) -> anyhow::Result<()> {
    let names = [name.to_owned()];
    field.cluster.serving().await?;
    let fault = DiskFault::begins(field, DISK_LOST, &names).await?;
    let down = Down::kill(&field.cluster, &names)?;
    field.cluster.lose_disk(name)?;
    progress(field, "without a master that is down").await?;
    down.restart()?;
    let began = Instant::now();
    while began.elapsed() < WATCH {
        let said = field.cluster.statuses().await;
        if let Some(own) = status(&said, name).filter(|own| own.state == "leader" || own.state == "candidate")
        {
            bail!("{name} lost its disk and is {} in term {:?}", own.state, own.fence);
        }
        if voter(&said, name) {
            bail!("{name} lost its disk and votes, though nobody let it back in");
        }
        tokio::time::sleep(LOOK).await;
    }
    if !fault.new_disk().await? {
        bail!("{name} lost its disk and has its node id still");
    }
    field.cluster.replace(name).await?;
    equal(field, name).await?;
    progress(field, "after a lost disk").await?;
    fault.ends(format!(
        "all that {name} had was gone; for {WATCH:.0?} it did not vote, and did as a new member after {:.2?}",
        began.elapsed()
    ))
}

/// Waits until a master votes again and holds what the others hold: by itself, or with an operator's word where it asks
/// for one, or with an empty disk where it refuses the one that it has. How.
pub(super) async fn back_somehow(field: &Field, fault: &DiskFault<'_>, name: &str) -> anyhow::Result<String> {
    let until = Instant::now() + BACK_TIME;
    let mut how = loop {
        if let Some(ended) = field.cluster.ended(name)? {
            let words = fault.words()?;
            if words.is_empty() {
                bail!("{name} ended ({ended}) without a word");
            }
            field.cluster.lose_disk(name)?;
            field.cluster.restart(name)?;
            field.cluster.replace(name).await?;
            break format!("it refused ({ended}), and votes with an empty disk");
        }
        let said = field.cluster.statuses().await;
        if voter(&said, name) {
            break "it votes".into();
        }
        let note = status(&said, name).map(|own| own.note.clone()).unwrap_or_default();
        if note.contains(NEEDS_CONFIRMATION) {
            field.cluster.replace(name).await?;
            break "it asked for an operator's word, and votes".into();
        }
        if Instant::now() >= until {
            bail!("{name} is not back after {} s: {note:?}, {}", BACK_TIME.as_secs(), fault.words()?);
        }
        tokio::time::sleep(LOOK).await;
    };
    field.cluster.votes(name).await?;
    equal(field, name).await?;
    progress(field, "after a master with a bad disk came back").await?;
    how += if fault.new_disk().await? { " as a new member" } else { " as the member that it was" };
    Ok(how)
}

/// Whether a master votes with the disk that it has, by the leader's word.
fn voter(said: &[(String, muster_testkit::v1::GetRaftStatusResponse)], name: &str) -> bool {
    let Some(own) = status(said, name) else { return false };
    let leader = said.iter().find(|(_, status)| status.state == "leader");
    let members = leader.map(|(_, leader)| &*leader.members).unwrap_or_default();
    members.iter().any(|member| member.name == name && member.node_id == own.node_id && member.voter)
}
