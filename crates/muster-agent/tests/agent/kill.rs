//! Ending tasks.

use crate::{
    master::AgentStream,
    runner::cases,
    world::{World, key, launch, order, parent, shell, signal},
};
use muster_model::{AgentEvent, Reason, TaskState};
use std::time::{Duration, Instant};

cases!(
    a_kill_asks_first_and_forces_after_the_grace,
    a_task_that_obeys_is_killed_at_once,
    leftovers_end_with_their_task,
    a_second_kill_shortens_the_grace,
    a_kill_with_the_order_starts_nothing,
    a_kill_before_the_order_refuses_it,
    a_lost_supervisor_takes_its_task_along,
    kills_of_orders_that_wait_start_nothing,
);

use TaskState::{Failed, Gone, Killed, Running};

async fn kill(stream: &mut AgentStream, n: u64, grace_ms: Option<u64>) {
    stream.say(&AgentEvent::Kill { launch: launch(n), task: key(n), grace_ms }).await;
}

/// Ignores TERM, as do its child and its grandchild; each writes its number.
const STUBBORN: &str = "trap '' TERM; (sh -c 'echo $$ > grandchild; sleep 1000' & echo $! > child; sleep 1000) & \
                        echo $$ > leader; sleep 1000; sleep 1000; sleep 1000";

async fn numbers(world: &World, n: u64) -> [String; 2] {
    [
        world.line(&world.sandbox(n).join("leader")).await,
        world.line(&world.sandbox(n).join("grandchild")).await,
    ]
}

async fn a_kill_asks_first_and_forces_after_the_grace(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, STUBBORN).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    let numbers = numbers(&world, 1).await;
    let asked = Instant::now();
    kill(&mut stream, 1, None).await;
    let (states, message) = world.outcome(&mut stream, 1).await;
    assert_eq!((states.last(), message.as_str()), (Some(&Killed), "Command terminated with signal SIGKILL"));
    assert!(asked.elapsed() >= Duration::from_millis(400), "the configured grace");
    for number in numbers {
        assert!(!crate::world::alive(&number), "{number} outlived its task");
    }
}

async fn a_task_that_obeys_is_killed_at_once(mut world: World) {
    let (mut stream, _) = world.join().await;
    world
        .run(&mut stream, 1, "trap 'echo bye; exit 0' TERM; echo up > up; while :; do sleep 0.01; done")
        .await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    world.line(&world.sandbox(1).join("up")).await;
    kill(&mut stream, 1, Some(60_000)).await;
    let (states, message) = world.outcome(&mut stream, 1).await;
    assert_eq!((states.last(), message.as_str()), (Some(&Killed), "Command exited with status 0"));
    assert_eq!(world.stdout(1), "bye\n");
}

async fn leftovers_end_with_their_task(mut world: World) {
    let (mut stream, _) = world.join().await;
    // One stays in the group, one leaves it for a session of its own.
    let text = "sh -c 'echo $$ > stays; sleep 1000' & setsid sh -c 'echo $$ > leaves; sleep 1000' & \
                while [ ! -s stays ] || [ ! -s leaves ]; do sleep 0.01; done; exit 4";
    world.run(&mut stream, 1, text).await;
    assert_eq!(world.outcome(&mut stream, 1).await.0, [Running, Failed]);
    for name in ["stays", "leaves"] {
        let number = world.line(&world.sandbox(1).join(name)).await;
        assert!(!crate::world::alive(&number), "{name} outlived its task");
    }
}

async fn a_second_kill_shortens_the_grace(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, STUBBORN).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    numbers(&world, 1).await;
    kill(&mut stream, 1, Some(600_000)).await;
    kill(&mut stream, 1, Some(10)).await;
    assert_eq!(world.outcome(&mut stream, 1).await.0.last(), Some(&Killed));
}

async fn a_kill_with_the_order_starts_nothing(mut world: World) {
    let (mut stream, _) = world.join().await;
    let mut order = order(1, &shell("echo ran"));
    order.killed = true;
    stream.say(&AgentEvent::Run(Box::new(order))).await;
    let update = world.update(&mut stream, 1).await;
    assert_eq!((update.status.state, update.status.reason), (Killed, Some(Reason::TaskKilledDuringLaunch)));
    assert!(!world.sandbox(1).exists());
}

async fn a_kill_before_the_order_refuses_it(mut world: World) {
    let (mut stream, _) = world.join().await;
    kill(&mut stream, 1, None).await;
    let update = world.update(&mut stream, 1).await;
    assert_eq!((update.status.state, update.status.reason), (Killed, Some(Reason::TaskKilledDuringLaunch)));
    world.run(&mut stream, 1, "echo ran").await;
    // The same after a restart: the refusal is on the disk.
    world.kill_agent();
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "echo ran").await;
    world.run(&mut stream, 2, "true").await;
    world.outcome(&mut stream, 2).await;
    assert!(!world.sandbox(1).exists());
}

async fn a_lost_supervisor_takes_its_task_along(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, STUBBORN).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    let [leader, grandchild] = numbers(&world, 1).await;
    signal(&parent(&leader), rustix::process::Signal::KILL);
    let update = world.update(&mut stream, 1).await;
    assert_eq!(update.status.state, Gone);
    assert!(!crate::world::alive(&leader) && !crate::world::alive(&grandchild));
}

async fn kills_of_orders_that_wait_start_nothing(mut world: World) {
    let (mut stream, _) = world.join().await;
    // More than are started at once, each killed right behind its order.
    for n in 1..=100 {
        world.run(&mut stream, n, "echo ran; sleep 1000").await;
    }
    for n in 1..=100 {
        kill(&mut stream, n, Some(0)).await;
    }
    for n in 1..=100 {
        let (states, message) = world.outcome(&mut stream, n).await;
        assert_eq!(states.last(), Some(&Killed), "task {n}: {message}");
        let started = states.len() > 1 || message.starts_with("Command");
        assert!(started || !world.stdout(n).contains("ran"), "task {n}: {states:?}, {message}");
    }
}
