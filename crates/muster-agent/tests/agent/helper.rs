//! The launch helper, and what happens when it is gone.

use crate::{
    runner::cases,
    world::{World, alive, children, launch, signal, try_signal},
};
use muster_model::{AgentCall, AgentEvent, TaskState};
use rustix::process::Signal;
use std::{fs, time::Duration};

cases!(
    a_helper_that_is_gone_is_replaced,
    launches_that_a_helper_takes_along_are_tried_again,
    nothing_is_started_twice_however_often_the_helper_is_killed,
    a_helper_ends_with_its_agent_and_not_with_its_tasks,
    a_helper_stays_small_and_has_no_zombies,
);

use TaskState::{Finished, Running};

async fn a_helper_that_is_gone_is_replaced(mut world: World) {
    let (mut stream, _) = world.join().await;
    let text = "echo $$ > up; while [ ! -e go ]; do sleep 0.01; done; echo done";
    world.run(&mut stream, 1, text).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    let helper = world.helper().await;
    signal(&helper, Signal::KILL);
    world.gone(&helper).await;
    world.run(&mut stream, 2, "true").await;
    assert_eq!(world.outcome(&mut stream, 2).await.0, [Running, Finished]);
    assert_ne!(world.helper().await, helper);
    // What it launched goes on, and is heard.
    fs::write(world.sandbox(1).join("go"), "").unwrap();
    assert_eq!(world.outcome(&mut stream, 1).await.0, [Finished]);
    assert_eq!(world.stdout(1), "done\n");
}

/// Each task writes a line of its own, so that a second start would be seen.
fn writes(world: &World, n: u64) -> String {
    format!("echo ran >> {}", world.dir.path().join(format!("ran-{n}")).display())
}

fn runs(world: &World, n: u64) -> usize {
    fs::read_to_string(world.dir.path().join(format!("ran-{n}"))).unwrap_or_default().lines().count()
}

/// It stands still while it is asked, and is killed then: what it was handed goes with it.
async fn launches_that_a_helper_takes_along_are_tried_again(mut world: World) {
    const TASKS: u64 = 20;
    let (mut stream, _) = world.join().await;
    let helper = world.helper().await;
    signal(&helper, Signal::STOP);
    for n in 1..=TASKS {
        let text = writes(&world, n);
        world.run(&mut stream, n, &text).await;
    }
    let mut accepted = 0;
    while accepted < TASKS {
        if let AgentCall::Accepted(launches) = stream.hear().await.unwrap().1 {
            accepted += launches.len() as u64;
        }
    }
    // Asked right after that; none is held as long as it stands still.
    stream.say(&AgentEvent::Ping(1)).await;
    while stream.hear().await.unwrap().1 != AgentCall::Pong(1) {}
    signal(&helper, Signal::KILL);
    for n in 1..=TASKS {
        assert_eq!(world.outcome(&mut stream, n).await.0, [Running, Finished], "task {n}");
        assert_eq!(runs(&world, n), 1, "task {n}");
    }
}

async fn nothing_is_started_twice_however_often_the_helper_is_killed(mut world: World) {
    const TASKS: u64 = 60;
    const LAG: u64 = 6;
    let (mut stream, _) = world.join().await;
    for n in 1..=TASKS {
        let text = writes(&world, n);
        world.run(&mut stream, n, &text).await;
        if n > LAG {
            // So that no launch loses more helpers than are tried for one.
            let update = world.update(&mut stream, n - LAG).await;
            assert_eq!(update.status.state, Running, "{update:?}");
        }
        if n % 3 == 0 {
            // The moment of death is what varies here, not what is waited for.
            tokio::time::sleep(Duration::from_micros(n * 97 % 3_000)).await;
            let helper = world.helper().await;
            try_signal(&helper, Signal::KILL); // it may be the one before, and reaped meanwhile
        }
    }
    for n in 1..=TASKS {
        let (states, message) = world.outcome(&mut stream, n).await;
        let expected = if n > TASKS - LAG { &[Running, Finished][..] } else { &[Finished] };
        assert_eq!(states, expected, "task {n}: {message}");
        assert_eq!(runs(&world, n), 1, "task {n}, {}", launch(n));
    }
}

async fn a_helper_ends_with_its_agent_and_not_with_its_tasks(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "echo $$ > up; while [ ! -e go ]; do sleep 0.01; done").await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    let task = world.line(&world.sandbox(1).join("up")).await;
    let helper = world.helper().await;
    world.kill_agent();
    world.gone(&helper).await;
    assert!(alive(&task));
    let (mut stream, _) = world.join().await;
    fs::write(world.sandbox(1).join("go"), "").unwrap();
    assert_eq!(world.outcome(&mut stream, 1).await.0.last(), Some(&Finished));
}

async fn a_helper_stays_small_and_has_no_zombies(mut world: World) {
    let (mut stream, _) = world.join().await;
    for n in 1..=20 {
        world.run(&mut stream, n, "true").await;
    }
    for n in 1..=20 {
        assert_eq!(world.outcome(&mut stream, n).await.0, [Running, Finished]);
    }
    let helper = world.helper().await;
    world.no_processes().await;
    while !children(&helper).is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await; // those that have said all, and end
    }
    let status = fs::read_to_string(format!("/proc/{helper}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(field("Threads"), "1");
    // Beside the pages of its files that were written to as it was loaded: those grow with the executable.
    let mut own_kb = 0;
    let mut is_of_file = true;
    for line in fs::read_to_string(format!("/proc/{helper}/smaps")).unwrap().lines() {
        let mut words = line.split_whitespace();
        match words.next().unwrap() {
            "Anonymous:" if !is_of_file => own_kb += words.next().unwrap().parse::<u64>().unwrap(),
            name if name.ends_with(':') => {}
            // A mapping: its addresses, what it allows, its offset, device and inode.
            _ => is_of_file = words.nth(3).unwrap() != "0",
        }
    }
    println!("the helper has {own_kb} KiB of its own");
    assert!(own_kb < 1_024, "{own_kb} KiB, which every fork copies the tables of");
}
