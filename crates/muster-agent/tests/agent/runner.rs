//! A small test runner that speaks what `cargo test` and `cargo nextest` ask of one.

use crate::world::World;
use std::{future::Future, pin::Pin, process::ExitCode, time::Duration};

/// A name, how long it never takes, and what it does in a world of its own.
pub(crate) type Case = (&'static str, Duration, fn(World) -> Pin<Box<dyn Future<Output = ()>>>);

/// No case takes this long, unless it says so.
pub(crate) const TIME: Duration = Duration::from_secs(60);

/// Names the functions of a module as cases.
macro_rules! cases {
    (within $time:expr; $($name:ident),* $(,)?) => {
        pub(crate) const CASES: &[crate::runner::Case] =
            &[$((concat!(module_path!(), "::", stringify!($name)), $time, |world| Box::pin($name(world)))),*];
    };
    ($($name:ident),* $(,)?) => {
        crate::runner::cases!(within crate::runner::TIME; $($name),*);
    };
}
pub(crate) use cases;

pub(crate) fn main(modules: &[&[Case]]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let mut filters = Vec::new();
    let mut skipped = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--skip" => skipped.extend(rest.next()),
            "--format" | "--test-threads" | "--color" | "-Z" | "--logfile" => drop(rest.next()),
            flag if flag.starts_with('-') => {}
            _ => filters.push(arg),
        }
    }
    let matches = |name: &str, filter: &String| {
        if has("--exact") { name == filter } else { name.contains(filter.as_str()) }
    };
    let chosen: Vec<Case> = modules
        .iter()
        .flat_map(|cases| cases.iter().copied())
        .map(|(name, time, case)| (name.strip_prefix("agent::").unwrap_or(name), time, case))
        .filter(|(name, ..)| filters.is_empty() || filters.iter().any(|filter| matches(name, filter)))
        .filter(|(name, ..)| !skipped.iter().any(|filter| matches(name, filter)))
        .collect();
    if has("--list") {
        if !has("--ignored") {
            chosen.iter().for_each(|(name, ..)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    if has("--ignored") {
        return ExitCode::SUCCESS;
    }
    println!("running {} tests", chosen.len());
    let failed = chosen.iter().filter(|case| !succeeds(**case)).count();
    println!(
        "test result: {}. {} passed; {failed} failed",
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each case has a thread and a runtime, so that a panic is its own.
fn succeeds((name, time, case): Case) -> bool {
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let world = World::new().await;
            tokio::time::timeout(time, case(world)).await.expect("in time");
        });
    });
    let succeeded = thread.expect("a thread").join().is_ok();
    println!("test {name} ... {}", if succeeded { "ok" } else { "FAILED" });
    succeeded
}
