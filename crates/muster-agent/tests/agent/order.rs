//! Which words of a leader count.

use crate::{
    master::fence,
    runner::cases,
    world::{World, launch, order, shell},
};
use muster_model::{AgentCall, AgentEvent, Index, Session, TaskState};
use muster_proto::agent_down_frame;
use std::sync::atomic::Ordering;
use tokio::time::{Duration, timeout};

cases!(
    a_launch_delivered_twice_starts_once,
    below_the_low_mark_nothing_starts,
    an_older_leader_is_not_heard,
    another_session_is_not_heard,
    a_redial_leads_to_another_master,
    a_closed_stream_is_dialled_again,
    a_refused_stream_is_dialled_again,
    a_new_agent_whose_welcome_was_lost_is_known_by_its_token,
    a_rejected_agent_stops_and_says_why,
);

async fn a_launch_delivered_twice_starts_once(mut world: World) {
    let (mut stream, _) = world.join().await;
    for _ in 0..3 {
        world.run(&mut stream, 1, "echo ran").await;
    }
    world.outcome(&mut stream, 1).await;
    // Also when it is over and forgotten: then it is said to have ended.
    world.run(&mut stream, 1, "echo ran").await;
    while stream.hear().await.unwrap().1 != AgentCall::Ended(launch(1)) {}
    // What is answered later was kept later: by then the first is forgotten on the disk too.
    world.run(&mut stream, 2, "true").await;
    while stream.hear().await.unwrap().1 != AgentCall::Accepted(vec![launch(2)]) {}
    world.kill_agent();
    let (mut stream, hello) = world.join().await;
    assert!(hello.tasks.iter().all(|task| task.launch == launch(2)));
    world.run(&mut stream, 1, "echo ran").await;
    while stream.hear().await.unwrap().1 != AgentCall::Ended(launch(1)) {}
    assert_eq!(world.stdout(1), "ran\n");
}

async fn below_the_low_mark_nothing_starts(mut world: World) {
    world.start();
    let (mut stream, _) = world.hello(1).await;
    world.admit(&mut stream, Vec::new(), Index(10)).await;
    world.run(&mut stream, 11, "true").await;
    world.outcome(&mut stream, 11).await;
    world.kill_agent();
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 9, "true").await;
    world.run(&mut stream, 10, "true").await;
    world.outcome(&mut stream, 10).await;
    assert!(!world.sandbox(9).exists());
}

async fn an_older_leader_is_not_heard(mut world: World) {
    world.start();
    let (mut stream, _) = world.welcome(5).await;
    let stale = AgentEvent::Run(Box::new(order(1, &shell("true"))));
    stream.frame(agent_down_frame(fence(4), stream.session, &stale)).await;
    world.run(&mut stream, 2, "true").await;
    world.outcome(&mut stream, 2).await;
    // Nor by the next agent of this work directory: the fence is on the disk.
    world.kill_agent();
    world.start();
    let mut stream = world.master.stream().await;
    stream.leader(4).await;
    assert!(
        timeout(Duration::from_millis(200), stream.hear()).await.is_err(),
        "no hello for an older leader"
    );
    stream.leader(5).await;
    assert!(matches!(stream.hear().await, Some((Session(0), AgentCall::Hello(..)))));
    assert!(!world.sandbox(1).exists());
}

async fn another_session_is_not_heard(mut world: World) {
    let (mut stream, _) = world.join().await;
    let late = AgentEvent::Run(Box::new(order(1, &shell("true"))));
    stream.frame(agent_down_frame(fence(1), Session(0), &late)).await;
    stream.frame(agent_down_frame(fence(1), Session(99), &late)).await;
    world.run(&mut stream, 2, "true").await;
    assert_eq!(world.outcome(&mut stream, 2).await.0.last(), Some(&TaskState::Finished));
    assert!(!world.sandbox(1).exists());
}

async fn a_redial_leads_to_another_master(mut world: World) {
    let mut other = crate::master::Master::start().await;
    world.configure(&world.work_dir(), &[world.master.address.to_string(), other.address.to_string()]);
    world.start();
    for _ in 0..3 {
        let (first, last) = (&mut world.master, &mut other);
        let mut stream = tokio::select! {
            stream = first.stream() => { std::mem::swap(&mut world.master, &mut other); stream }
            stream = last.stream() => stream,
        };
        stream.leader(1).await;
        assert!(matches!(stream.hear().await, Some((_, AgentCall::Hello(..)))));
        stream.redial().await;
        assert!(stream.hear().await.is_none(), "closed");
        // It was `other` that the agent was connected to: now it is the first.
        let mut stream = world.master.stream().await;
        stream.redial().await;
    }
}

async fn a_refused_stream_is_dialled_again(mut world: World) {
    // The connection is there, the stream is not: as a master answers that is about to end.
    world.master.refusals.store(3, Ordering::SeqCst);
    world.join().await;
    assert_eq!(world.master.refusals.load(Ordering::SeqCst), 0);
}

async fn a_new_agent_whose_welcome_was_lost_is_known_by_its_token(mut world: World) {
    world.start();
    let mut tokens = Vec::new();
    for term in 1..=3 {
        let mut stream = world.master.stream().await;
        stream.leader(term).await;
        let Some((_, AgentCall::Hello(hello, token, _))) = stream.hear().await else { panic!("no hello") };
        assert_eq!(hello.agent_id, None);
        tokens.push(token);
    }
    assert!(tokens[0].is_some() && tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    let (stream, _) = world.welcome(4).await;
    drop(stream);
    // Its id says it from now on.
    let mut stream = world.master.stream().await;
    stream.leader(5).await;
    let Some((_, AgentCall::Hello(hello, token, _))) = stream.hear().await else { panic!("no hello") };
    assert!(hello.agent_id.is_some() && token.is_none());
}

async fn a_closed_stream_is_dialled_again(mut world: World) {
    let (mut stream, _) = world.join().await;
    world.run(&mut stream, 1, "echo up > up; while [ ! -e go ]; do sleep 0.01; done; exit 5").await;
    assert_eq!(world.update(&mut stream, 1).await.status.state, TaskState::Running);
    world.line(&world.sandbox(1).join("up")).await;
    drop(stream);
    let (mut stream, hello) = world.hello(2).await;
    assert_eq!(hello.tasks.len(), 1);
    assert!(hello.tasks[0].alive && hello.tasks[0].state == TaskState::Running);
    // It ends while nobody listens: said after the welcome.
    std::fs::write(world.sandbox(1).join("go"), "").unwrap();
    world.admit(&mut stream, Vec::new(), Index(0)).await;
    assert_eq!(world.outcome(&mut stream, 1).await.1, "Command exited with status 5");
}

async fn a_rejected_agent_stops_and_says_why(mut world: World) {
    world.start();
    let (mut stream, _) = world.hello(1).await;
    stream.say(&AgentEvent::Rejected("it was marked gone".into())).await;
    let mut agent = world.agent.take().unwrap();
    let status = tokio::task::spawn_blocking(move || agent.wait().unwrap()).await.unwrap();
    assert!(!status.success());
    let log = std::fs::read_to_string(world.dir.path().join("log")).unwrap();
    assert!(log.contains("agent failed: the leader refuses this agent: it was marked gone"), "{log}");
}
