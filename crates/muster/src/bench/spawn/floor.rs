//! What the machine does without a cluster: the same program, started and waited for.

use anyhow::Context;
use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Instant,
};

/// How processes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Way {
    /// The C library's, which copies nothing of this process.
    PosixSpawn,
    /// A copy of this process, which becomes the program.
    ForkExec,
}

/// Processes started and ended per second, by so many threads.
pub(in crate::bench) fn rate(
    way: Way,
    threads: usize,
    processes: usize,
    command: &[String],
) -> anyhow::Result<f64> {
    let each = processes.div_ceil(threads);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| some(way, each, command))).collect();
        workers
            .into_iter()
            .try_for_each(|it| it.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
    })?;
    Ok((each * threads) as f64 / begun.elapsed().as_secs_f64())
}

fn some(way: Way, count: usize, command: &[String]) -> anyhow::Result<()> {
    for _ in 0..count {
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if way == Way::ForkExec {
            // The user that it is anyway: the standard library asks for no more than a fork then.
            process.uid(rustix::process::geteuid().as_raw());
        }
        let status = process.status().with_context(|| format!("cannot run {}", command[0]))?;
        anyhow::ensure!(
            status.success(),
            "{} fails ({status}): give --cmd a program that succeeds",
            command[0]
        );
    }
    Ok(())
}
