//! Clocks that are wrong, and masters that are short of open files, of processor time or of memory.

use super::{CLOCKS, Dice, Down, FILES, Fault, GONE_MAX, MEMORY, PROGRESS_TASKS, PROGRESS_TIME, STARVE};
use crate::cluster;
use crate::run::Field;
use anyhow::{Context, bail};
use muster_testkit::LittleMemory;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How far clocks are set off, in seconds: more than any timeout there is.
const OFF: u64 = 7_200;
/// How often they jump, and the time between two jumps.
const JUMPS: u32 = 12;
const BETWEEN: Duration = Duration::from_millis(250);
/// Files that a master may open beyond those that it has: fewer than it keeps for itself.
const SPARE_FILES: u64 = 16;
/// How often it is dialled then at least, and the time between two dials.
const DIALS: u32 = 64;
const BEAT: Duration = Duration::from_millis(20);
/// Connections that a master with little memory must keep at most.
const HELD: usize = 64;
/// What is left of a processor, in hundredths.
const PERCENT: u32 = 5;
/// More memory than a master takes, and too little for one to begin, in bytes.
const AMPLE: u64 = 4 << 30;
const SCARCE_MIB: usize = 32;
/// Between two looks at what it has taken.
const PRESS: Duration = Duration::from_millis(25);
/// What the kernel ends one with that takes more.
const SIGKILL: i32 = 9;

/// The wall clocks of all members jump about by hours. Launches go on, and a framework that dies meanwhile and has
/// minutes to come back is not taken for gone.
pub async fn skew_clocks(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let (leader, term) = field.cluster.serving().await?;
    let names = [field.cluster.master_names(), field.cluster.agent_names()].concat();
    let (name, client) = field.clients.first_key_value().context("no framework loads the cluster")?;
    let fault = Fault::begins(field, CLOCKS, &names);
    let skewed: Vec<_> = names.iter().map(|name| field.cluster.skew(name, 0)).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    field.load.begin_epoch();
    client.kill().await?;
    for _ in 0..JUMPS {
        for clock in &skewed {
            let off = i64::try_from(dice.time(Duration::ZERO, Duration::from_secs(OFF)).as_secs())?;
            clock.set(if dice.count(2) == 1 { off } else { -off })?;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    for clock in &skewed {
        clock.set(i64::try_from(OFF)?)?;
    }
    let seen = cluster::wall_is_off(&field.cluster, Duration::from_secs(OFF / 2)).await?;
    client.start_another(&field.cluster)?;
    for name in field.clients.keys() {
        let progress = field.load.progress_of(name, 2, PROGRESS_TIME).await;
        progress.context("while wall clocks are wrong")?;
    }
    let lasted = begun.elapsed();
    drop(skewed);
    field.load.begin_epoch();
    field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await.context("after wall clocks were wrong")?;
    let (new, later) = field.cluster.serving().await?;
    fault.ends(format!(
        "all wall clocks jumped {JUMPS} times by up to {OFF} s in {lasted:.2?}; the leader showed a launch {seen} s off; \
         {name} died meanwhile and went on; {new} leads in term {later} (before: {leader} in {term})"
    ));
    Ok(())
}

/// Clients dial the leader when it may open a few files more, and no longer: it keeps those for itself, turns the
/// clients away and goes on to lead. Then it takes them again.
pub async fn exhaust_files(field: &Field, time: Duration) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let (leader, term) = field.cluster.serving().await?;
    let address = address_of(field, &leader)?;
    let fault = Fault::begins(field, FILES, std::slice::from_ref(&leader));
    let process = field.cluster.pid(&leader)?;
    let few = field.cluster.few_files(&leader, SPARE_FILES)?;
    let begun = Instant::now();
    field.load.begin_epoch();
    let mut dials = 0;
    while dials < DIALS || begun.elapsed() < time {
        tokio::time::timeout(PROGRESS_TIME, turned_away(&address))
            .await
            .context("a client was not turned away")??;
        dials += 1;
        tokio::time::sleep(BEAT).await;
    }
    field
        .load
        .progress(PROGRESS_TASKS, PROGRESS_TIME)
        .await
        .context("while the leader may open few files")?;
    let lasted = begun.elapsed();
    let limit = few.limit();
    drop(few);
    settle(field, &leader).await.context("after the leader could open few files")?;
    if field.cluster.pid(&leader)? != process {
        bail!("{leader} ended when clients dialled it {dials} times");
    }
    let (new, later) = field.cluster.serving().await?;
    fault.ends(format!(
        "{leader} could open {SPARE_FILES} files more than it had, {limit} in all, for {lasted:.2?}; it turned {dials} \
         clients away and lived; {new} leads in term {later} (before: {term})"
    ));
    Ok(())
}

/// Dials a master until it ends the connection without a word.
async fn turned_away(address: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    match stream.read(&mut [0; 64]).await {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        other => bail!("{address} answered a client that said nothing: {other:?}"),
    }
}

/// The leader gets hardly any processor time for so long. Whether it goes on to lead is open; service must come back.
pub async fn starve(field: &Field, time: Duration) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let (leader, term) = field.cluster.serving().await?;
    let fault = Fault::begins(field, STARVE, std::slice::from_ref(&leader));
    let starved = field.cluster.starve(&leader, PERCENT)?;
    let begun = Instant::now();
    tokio::time::sleep(time).await;
    let waited = starved.waited()?;
    if waited == 0 {
        bail!("{leader} had enough with {PERCENT} hundredths of a processor");
    }
    drop(starved);
    let lasted = begun.elapsed();
    settle(field, &leader).await.context("after the leader was starved")?;
    let (new, later) = field.cluster.serving().await?;
    fault.ends(format!(
        "{leader} had {PERCENT} hundredths of a processor for {lasted:.2?} and had to wait {waited} times; {new} leads in \
         term {later} (before: {term}), all was well {:.2?} after it",
        begun.elapsed().saturating_sub(lasted)
    ));
    Ok(())
}

/// A master is killed by the kernel because it takes more memory than it may: the leader or a follower in the midst of
/// its work, or one that begins; each once before any comes again. The others serve, and it comes back without a limit.
pub async fn little_memory(field: &Field, dice: &mut Dice) -> anyhow::Result<()> {
    field.cluster.ready().await?;
    let name = dice.pick_one(&field.cluster.master_names())?;
    let (leads, begins) = match dice.deal("memory", 3) {
        0 => (true, false),
        1 => (false, false),
        _ => (false, true),
    };
    let bytes = if begins { u64::try_from(dice.count(SCARCE_MIB))? << 20 } else { AMPLE };
    let fault = Fault::begins(field, MEMORY, std::slice::from_ref(&name));
    let down = Down::kill(&field.cluster, std::slice::from_ref(&name))?;
    let mut begun = Instant::now();
    let little = field.cluster.little_memory(&name, bytes)?;
    let (mut ended, mut limit) = (None, bytes);
    tokio::select! {
        status = field.cluster.ends(&name) => ended = Some(status?),
        back = field.cluster.caught_up(&name) => back?,
    }
    if leads && ended.is_none() {
        let (_, term) = field.cluster.serving().await?;
        if let Err(error) = field.cluster.transfer_leadership(&name).await {
            // A leader that was about to lose its office hands nothing over; then whoever leads now does.
            let (_, later) = field.cluster.serving().await?;
            if later <= term {
                return Err(error);
            }
        }
    }
    let (leader, term) = field.cluster.serving().await?;
    let status = match ended {
        Some(status) => status,
        None => {
            begun = Instant::now();
            let address = address_of(field, &name)?;
            tokio::select! {
                status = field.cluster.ends(&name) => status.context("it takes no more memory")?,
                error = press(&little, &address, &mut limit) => error?,
            }
        }
    };
    let lasted = begun.elapsed();
    let killed = little.killed()?;
    if status.signal() != Some(SIGKILL) || killed == 0 {
        let words = field.cluster.last_words(&name)?;
        bail!("{name} ended with {status}, and the kernel killed {killed} for their memory: {words}");
    }
    let (new, later) = match leader == name {
        true => field.cluster.serving_after(term).await?,
        false => field.cluster.serving().await?,
    };
    field.load.begin_epoch();
    let progress = field.load.progress(PROGRESS_TASKS, PROGRESS_TIME).await;
    progress.context("while a master is dead of too little memory")?;
    drop(little);
    down.restart()?;
    settle(field, &name).await.context("after a master had too little memory")?;
    fault.ends(format!(
        "the kernel killed {name} ({killed} killed) with {} KiB after {lasted:.2?}, {leader} led in term {term}; {new} \
         served in term {later}, all was well {:.2?} after it",
        limit >> 10,
        begun.elapsed().saturating_sub(lasted)
    ));
    Ok(())
}

/// Leaves a master no more memory than it has at any moment, and has it take more by connections that stay. Ends only
/// when that cannot be done.
async fn press<T>(little: &LittleMemory, address: &str, limit: &mut u64) -> anyhow::Result<T> {
    let mut held = Vec::new();
    loop {
        let left = little.squeeze()?;
        if little.killed()? == 0 {
            *limit = left;
        }
        if held.len() < HELD {
            held.push(tokio::time::timeout(GONE_MAX, TcpStream::connect(address)).await);
        }
        tokio::time::sleep(PRESS).await;
    }
}

fn address_of(field: &Field, name: &str) -> anyhow::Result<String> {
    let masters = field.cluster.master_names().into_iter().zip(field.cluster.masters());
    let address = masters.into_iter().find(|(other, _)| other == name).map(|(_, address)| address);
    address.with_context(|| format!("{name} has no address"))
}

async fn settle(field: &Field, name: &str) -> anyhow::Result<()> {
    super::partitions::whole_again(field).await?;
    field.cluster.caught_up(name).await
}
