//! Agents that are killed and come back.

use crate::{
    runner::cases,
    world::{World, alive, launch, parent, signal},
};
use muster_agent::{AgentConfig, end_tasks};
use muster_model::{AgentCall, AgentEvent, Index, TaskState};
use rustix::process::Signal;
use std::{fs, os::unix::fs::MetadataExt};

cases!(
    running_and_ended_tasks_are_found_again,
    an_ending_is_written_down_where_no_agent_keeps_it,
    a_supervisor_that_is_late_has_the_last_word,
    many_tasks_that_nobody_knows_are_ended_at_once,
    a_torn_checkpoint_tail_is_ignored,
    damaged_checkpoints_end_all_tasks_and_make_a_new_agent,
    a_wiped_work_directory_ends_all_tasks,
    a_work_directory_in_use_is_refused,
    a_command_is_not_run_when_the_agent_dies_before_the_release,
    kills_go_on_after_a_restart,
    tasks_can_be_ended_without_their_agent,
    a_runtime_directory_that_is_cleaned_away_is_made_again,
    a_planned_stop_leaves_tasks_running_and_nothing_else,
    an_agent_killed_at_any_moment_starts_nothing_twice,
);

use TaskState::{Failed, Finished, Killed, Running};

async fn running_and_ended_tasks_are_found_again(mut world: World) {
    let (mut stream, _) = world.join().await;
    let text = "echo $$ > up; while [ ! -e go ]; do sleep 0.01; done; echo done; exit 6";
    for n in [1, 2] {
        world.run(&mut stream, n, text).await;
        assert_eq!(world.update(&mut stream, n).await.status.state, Running);
    }
    let [first, second] = [1, 2].map(|n| world.sandbox(n));
    let [one, two] = [world.line(&first.join("up")).await, world.line(&second.join("up")).await];
    world.kill_agent();
    // One ends while no agent is there.
    fs::write(first.join("go"), "").unwrap();
    world.gone(&one).await;
    assert!(alive(&two));

    let (mut stream, hello) = world.join().await;
    assert_eq!(hello.agent_id.as_ref().unwrap().as_str(), "c1-S1");
    let (states, message) = world.outcome(&mut stream, 1).await;
    assert_eq!((states.last(), message.as_str()), (Some(&Failed), "Command exited with status 6"));
    fs::write(second.join("go"), "").unwrap();
    let (states, message) = world.outcome(&mut stream, 2).await;
    assert_eq!((states.last(), message.as_str()), (Some(&Failed), "Command exited with status 6"));
    assert_eq!((world.stdout(1), world.stdout(2)), ("done\n".into(), "done\n".into()));
}

/// An agent that listens has it in its log before the supervisor ends; else there is a file.
async fn an_ending_is_written_down_where_no_agent_keeps_it(mut world: World) {
    let (mut stream, _) = world.join().await;
    let files = |world: &World| fs::read_dir(world.work_dir().join("meta/exits")).unwrap().count();
    world.run(&mut stream, 1, "exit 3").await;
    while !world.unconfirmed(&mut stream, 1).await.status.state.is_terminal() {}
    world.no_processes().await;
    assert_eq!(files(&world), 0, "kept by the agent, though it is not confirmed yet");
    world.run(&mut stream, 2, "echo $$ > up; while [ ! -e go ]; do sleep 0.01; done; exit 4").await;
    assert_eq!(world.update(&mut stream, 2).await.status.state, Running);
    world.line(&world.sandbox(2).join("up")).await;
    world.kill_agent();
    fs::write(world.sandbox(2).join("go"), "").unwrap();
    world.no_processes().await;
    assert_eq!(files(&world), 1, "nobody was there to keep it");
    let (mut stream, _) = world.join().await;
    for (n, status) in [(1, 3), (2, 4)] {
        let (states, message) = world.outcome(&mut stream, n).await;
        assert_eq!((states.last(), message), (Some(&Failed), format!("Command exited with status {status}")));
    }
}

/// The supervisor stands still when its agent comes back, and goes on only when that has ended what was left of the task.
async fn a_supervisor_that_is_late_has_the_last_word(mut world: World) {
    let (mut stream, _) = world.join().await;
    let text = "sleep 1000 & echo $$ $! > up; while [ ! -e go ]; do sleep 0.01; done; exit 3";
    world.run(&mut stream, 1, text).await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    let numbers = world.line(&world.sandbox(1).join("up")).await;
    let (first, left) = numbers.split_once(' ').unwrap();
    let supervisor = parent(first);
    world.kill_agent();
    signal(&supervisor, Signal::STOP);
    fs::write(world.sandbox(1).join("go"), "").unwrap();
    world.gone(first).await;
    world.start();
    world.gone(left).await;
    signal(&supervisor, Signal::CONT);
    let (mut stream, _) = world.welcome(1).await;
    let (states, message) = world.outcome(&mut stream, 1).await;
    assert_eq!((states.last(), message.as_str()), (Some(&Failed), "Command exited with status 3"));
}

/// One after the other, with what each may take, they would keep an agent from starting.
async fn many_tasks_that_nobody_knows_are_ended_at_once(mut world: World) {
    let (mut stream, _) = world.join().await;
    for n in 1..=8 {
        world.run(&mut stream, n, "echo $$ > up; sleep 1000").await;
        assert_eq!(world.update(&mut stream, n).await.status.state, Running);
    }
    let mut numbers = Vec::new();
    for n in 1..=8 {
        numbers.push(world.line(&world.sandbox(n).join("up")).await);
    }
    world.kill_agent();
    fs::remove_dir_all(world.work_dir()).unwrap();
    let (_, hello) = world.join().await;
    assert_eq!((hello.agent_id, hello.tasks.len()), (None, 0));
    assert!(!numbers.iter().any(|number| alive(number)), "ended before the hello");
}

async fn a_torn_checkpoint_tail_is_ignored(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "exit 1").await;
    let update = loop {
        let update = world.unconfirmed(&mut stream, 1).await;
        if update.status.state.is_terminal() {
            break update;
        }
    };
    world.kill_agent();
    let log = world.work_dir().join("meta/agent.log");
    let mut bytes = fs::read(&log).unwrap();
    bytes.extend_from_slice(&[200, 0, 0, 0, 1, 2, 3]);
    fs::write(&log, &bytes).unwrap();
    let (_, hello) = world.join().await;
    assert_eq!(hello.agent_id.unwrap().as_str(), "c1-S1");
    assert_eq!(hello.tasks[0].updates.last(), Some(&update));
}

async fn start_one(world: &mut World) -> String {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "trap '' TERM; echo $$ > up; sleep 1000; sleep 1000").await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    let number = world.line(&world.sandbox(1).join("up")).await;
    world.kill_agent();
    assert!(alive(&number));
    number
}

async fn damaged_checkpoints_end_all_tasks_and_make_a_new_agent(mut world: World) {
    let number = start_one(&mut world).await;
    let log = world.work_dir().join("meta/agent.log");
    let mut bytes = fs::read(&log).unwrap();
    bytes[20] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let (_, hello) = world.join().await;
    assert_eq!((hello.agent_id, hello.tasks.len()), (None, 0));
    assert!(!alive(&number), "ended before the hello");
    assert_eq!(fs::read(log.with_extension("damaged-1")).unwrap(), bytes, "kept aside");
}

async fn a_wiped_work_directory_ends_all_tasks(mut world: World) {
    let number = start_one(&mut world).await;
    fs::remove_dir_all(world.work_dir()).unwrap();
    let (_, hello) = world.join().await;
    assert_eq!((hello.agent_id, hello.tasks.len()), (None, 0));
    assert!(!alive(&number), "ended before the hello");
}

async fn a_work_directory_in_use_is_refused(mut world: World) {
    let (_stream, _) = world.join().await;
    let mut second = world.command();
    let status = tokio::task::spawn_blocking(move || second.status().unwrap()).await.unwrap();
    assert!(!status.success());
    let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
    let work_dir = fs::canonicalize(world.work_dir()).unwrap();
    let expected =
        format!("agent failed: the work directory {} is in use by another agent", work_dir.display());
    assert!(log.contains(&expected), "{log}");
}

/// The agent asks for a supervisor, and is gone when the command is held. The helper that is asked stands still until
/// then, so that nothing of this depends on who is faster; only whether the agent had asked is seen afterwards.
async fn a_command_is_not_run_when_the_agent_dies_before_the_release(mut world: World) {
    let ran = world.dir.path().join("ran");
    for n in 1.. {
        world.start();
        let (mut stream, _) = world.hello(1).await;
        // Those before may be accepted and not held: this agent would start them.
        world.admit(&mut stream, (1..n).map(launch).collect(), Index(0)).await;
        let helper = world.helper().await;
        signal(&helper, Signal::STOP);
        world.run(&mut stream, n, &format!("echo > {}", ran.display())).await;
        while stream.hear().await.unwrap().1 != AgentCall::Accepted(vec![launch(n)]) {}
        // It asks right after it has accepted.
        tokio::time::sleep(std::time::Duration::from_millis(5 * n)).await;
        world.kill_agent();
        signal(&helper, Signal::CONT);
        world.all_are_found().await;
        world.no_processes().await;
        assert!(!ran.exists(), "run {n}");
        if world.sandbox(n).join("stdout").exists() {
            return; // it was held
        }
        assert!(n < 100, "the agent never asks");
    }
}

async fn kills_go_on_after_a_restart(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "trap '' TERM; echo $$ > up; sleep 1000; sleep 1000; sleep 1000").await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    world.line(&world.sandbox(1).join("up")).await;
    let kill = |grace_ms| AgentEvent::Kill { launch: launch(1), task: crate::world::key(1), grace_ms };
    stream.say(&kill(Some(700))).await;
    // An answered ping shows that the kill was taken in; another order's acceptance, that it is on the disk.
    world.run(&mut stream, 2, "true").await;
    world.outcome(&mut stream, 2).await;
    world.kill_agent();
    let (mut stream, _) = world.join().await;
    assert_eq!(world.outcome(&mut stream, 1).await.0.last(), Some(&Killed));
}

/// Each task appends a line to its own file outside the sandbox; the agent dies at ever later moments of its start.
async fn an_agent_killed_at_any_moment_starts_nothing_twice(mut world: World) {
    let runs = world.dir.path().join("runs");
    fs::create_dir(&runs).unwrap();
    for n in 1..=12 {
        let (mut stream, _) = world.join().await;
        let text = format!("echo $$ >> {}/{n}; sleep 0.05", runs.display());
        world.run(&mut stream, n, &text).await;
        // The moment of death is what varies here, not what is waited for.
        tokio::time::sleep(std::time::Duration::from_micros(n * 500)).await;
        world.kill_agent();
        drop(stream);
        world.start();
        let (mut stream, hello) = world.hello(1).await;
        let known = hello.tasks.iter().any(|task| task.launch == launch(n));
        world.admit(&mut stream, Vec::new(), Index(0)).await;
        if !known {
            world.run(&mut stream, n, &text).await; // as a leader does with an order that was not accepted
        }
        let (states, message) = world.outcome(&mut stream, n).await;
        let ran = fs::read_to_string(runs.join(n.to_string())).unwrap_or_default().lines().count();
        match states.last() {
            Some(Finished) => assert_eq!(ran, 1, "task {n}"),
            Some(TaskState::Dropped) => assert_eq!(ran, 0, "task {n}: {message}"),
            other => panic!("task {n} ended as {other:?}: {message}"),
        }
        world.kill_agent();
        assert_eq!(fs::metadata(runs.join(n.to_string())).map_or(0, |file| file.size().min(1)), ran as u64);
    }
}

async fn a_planned_stop_leaves_tasks_running_and_nothing_else(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "echo $$ > up; while [ ! -e go ]; do sleep 0.01; done").await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    let number = world.line(&world.sandbox(1).join("up")).await;
    assert!(world.stop_agent().await.success());
    assert!(alive(&number));
    let (mut stream, _) = world.join().await;
    fs::write(world.sandbox(1).join("go"), "").unwrap();
    assert_eq!(world.outcome(&mut stream, 1).await.0.last(), Some(&Finished));
    stream.say(&AgentEvent::Ping(1)).await; // the confirmation before it was taken in
    while stream.hear().await.unwrap().1 != muster_model::AgentCall::Pong(1) {}
    world.no_processes().await; // the supervisor has said its last word
    assert!(world.stop_agent().await.success());
    assert_eq!(fs::read_dir(world.runtime_dir()).unwrap().count(), 0, "the runtime directory is empty");
}

async fn tasks_can_be_ended_without_their_agent(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "trap '' TERM; echo $$ > up; sleep 1000; sleep 1000").await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    let number = world.line(&world.sandbox(1).join("up")).await;
    let config = AgentConfig::read(&world.config()).unwrap();
    let refused = end_tasks(config.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("in use by another agent"), "{refused}");
    world.kill_agent();
    end_tasks(config).await.unwrap();
    assert!(!alive(&number));
    let (mut stream, _) = world.join().await;
    let (states, message) = world.outcome(&mut stream, 1).await;
    assert_eq!((states.last(), message.as_str()), (Some(&Failed), "Command terminated with signal SIGKILL"));
}

async fn a_runtime_directory_that_is_cleaned_away_is_made_again(mut world: World) {
    let (mut stream, _) = world.join().await;
    fs::remove_dir_all(world.runtime_dir()).unwrap();
    world.run(&mut stream, 1, "echo up > up; while [ ! -e go ]; do sleep 0.01; done").await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, Running);
    world.line(&world.sandbox(1).join("up")).await;
    world.kill_agent();
    let (mut stream, _) = world.join().await;
    fs::write(world.sandbox(1).join("go"), "").unwrap();
    assert_eq!(world.outcome(&mut stream, 1).await.0.last(), Some(&Finished));
}
