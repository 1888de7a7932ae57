//! What a master says that was deposed, and may not know it yet.

use crate::history::{Event, Phase};
use crate::operators::tear_down_nobody;
use crate::run::Field;
use anyhow::Context;

/// Asks a master that was deposed, at once, for what only a leader may answer: to read what is current, and to tear down
/// a framework that nobody knows. Whether it answered what it was asked to read; what it made of the call is in the
/// history, to be compared with the log.
pub(super) async fn answers(field: &Field, name: &str) -> anyhow::Result<bool> {
    let names = field.cluster.master_names();
    let addresses = names.iter().zip(field.cluster.masters());
    let address = addresses.filter(|(one, _)| *one == name).map(|(_, address)| address).next();
    let address = address.with_context(|| format!("there is no {name}"))?;
    let target = format!("nobody-{}", field.recorder.now_us());
    let record = |phase| {
        let (master, target) = (name.to_owned(), target.clone());
        field.recorder.record("nemesis", Event::Probe { phase, master, target });
    };
    record(Phase::Invoked);
    let (read, called) = tokio::join!(field.cluster.agents_by(name), tear_down_nobody(&address, &target));
    record(called);
    Ok(read.is_ok())
}
