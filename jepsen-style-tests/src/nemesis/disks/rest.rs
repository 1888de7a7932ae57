//! What is lost or damaged while a master does not run.

use super::super::{DAMAGE, DISK_LOST, Dice, Down};
use super::{DiskFault, LOOK, equal, progress, status};
use crate::run::Field;
use anyhow::{Context, bail};
use muster_testkit::Damage;
use muster_testkit::v1::GetRaftStatusResponse;
use std::time::{Duration, Instant};

/// How long a master may take to be back by itself, or to say what it needs.
const BACK_TIME: Duration = Duration::from_secs(60);
/// What a master says that lost what it had and cannot prove whose it was.
const NEEDS_CONFIRMATION: &str = "or confirm with `muster raft replace";
/// What it says of a data directory without anything in it, where operators look.
const EMPTY: &str = "an empty data directory";
/// What one logs that found what it had damaged, and begins anew.
const SET_ASIDE: &str = "the data directory is damaged; setting it aside";
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

/// Takes all that a master had. It must say so, and must not vote before it was let back in, as a new member.
pub async fn lose_disk(field: &Field, name: &str) -> anyhow::Result<()> {
    let names = [name.to_owned()];
    field.cluster.serving().await?;
    let fault = DiskFault::begins(field, DISK_LOST, &names).await?;
    let down = Down::kill(&field.cluster, &names)?;
    field.cluster.lose_disk(name)?;
    progress(field, "without a master that is down").await?;
    down.restart()?;
    let began = Instant::now();
    let mut note = String::new();
    while began.elapsed() < WATCH || !note.contains(EMPTY) {
        let said = field.cluster.statuses().await;
        if let Some(own) = outsider(&fault, &said, name)? {
            note.clone_from(&own.note);
        }
        if voter(&said, name) {
            bail!("{name} lost its disk and votes, though nobody let it back in");
        }
        if began.elapsed() >= BACK_TIME {
            bail!("{name} lost its disk and does not say so: {note:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
    let watched = began.elapsed();
    if !fault.new_disk().await? {
        bail!("{name} lost its disk and has its node id still");
    }
    field.cluster.replace(name).await?;
    equal(field, name).await?;
    progress(field, "after a lost disk").await?;
    fault.ends(format!(
        "all that {name} had was gone; it noted {note:?}, did not vote for {watched:.2?}, and did as a new member after \
         {:.2?}",
        began.elapsed()
    ))
}

/// Waits until a master votes again and holds what the others hold: by itself, or with an operator's word where it asks
/// for one, or with an empty disk where it refuses the one that it has. One that set what it had aside must have said so,
/// and must not vote before it was taken in as a new member. How it came back.
pub(super) async fn back_somehow(field: &Field, fault: &DiskFault<'_>, name: &str) -> anyhow::Result<String> {
    // Before anybody looks: it may refuse what it has.
    field.cluster.may_end(name)?;
    let until = Instant::now() + BACK_TIME;
    let (mut looks, mut refused) = (0, false);
    let mut how = loop {
        if let Some(ended) = field.cluster.ended(name)? {
            let words = fault.words()?;
            if words.is_empty() {
                bail!("{name} ended ({ended}) without a word");
            }
            field.cluster.lose_disk(name)?;
            field.cluster.restart(name)?;
            field.cluster.replace(name).await?;
            refused = true;
            break format!("it refused ({ended}), and votes with an empty disk");
        }
        let said = field.cluster.statuses().await;
        looks += usize::from(outsider(fault, &said, name)?.is_some());
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
    let (is_new, says) = (fault.new_disk().await?, fault.words()?.contains(SET_ASIDE));
    match (is_new, refused, says) {
        (false, false, false) => how += " as the member that it was",
        (true, true, _) => {}
        (true, false, true) => {
            how += " as a new member; it said that it set aside what it had, and did not vote meanwhile, as ";
            how += &format!("{looks} looks show");
        }
        (true, false, false) => bail!("{name} is a new member, and did not say why: {:?}", fault.words()?),
        (false, ..) => bail!("{name} said {:?}, and is the member that it was", fault.words()?),
    }
    Ok(how)
}

/// A master with another disk than before that the leader has not taken in as a voter. It must not have given a vote, nor
/// ask for any.
fn outsider<'a>(
    fault: &DiskFault<'_>,
    said: &'a [(String, GetRaftStatusResponse)],
    name: &str,
) -> anyhow::Result<Option<&'a GetRaftStatusResponse>> {
    let is_new = |own: &&GetRaftStatusResponse| fault.node_ids.first() != Some(&own.node_id);
    let Some(own) = status(said, name).filter(is_new).filter(|_| !voter(said, name)) else {
        return Ok(None);
    };
    let term = own.fence.as_ref().map_or(0, |fence| fence.term);
    let somebody_leads = said.iter().any(|(_, status)| status.state == "leader");
    if somebody_leads && (own.state == "leader" || own.state == "candidate") {
        bail!("{name} lost its disk and is {} in term {term}, though nobody let it back in", own.state);
    }
    // Its Raft has not begun, so that no leader has told it of a term: one that it has it voted in.
    if ["founding", "joining"].contains(&&*own.state) && term > 0 {
        bail!("{name} lost its disk and voted in term {term}, though nobody let it back in");
    }
    Ok(Some(own))
}

/// Whether a master votes with the disk that it has, by the leader's word.
fn voter(said: &[(String, GetRaftStatusResponse)], name: &str) -> bool {
    let Some(own) = status(said, name) else { return false };
    let leader = said.iter().find(|(_, status)| status.state == "leader");
    let members = leader.map(|(_, leader)| &*leader.members).unwrap_or_default();
    members.iter().any(|member| member.name == name && member.node_id == own.node_id && member.voter)
}
