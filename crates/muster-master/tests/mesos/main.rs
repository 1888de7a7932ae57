//! What a real Mesos 1.11 was recorded to answer (`../mesos-wire`), replayed against muster masters over real sockets.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod agents;
mod apart;
mod cases;
mod ids;
mod metrics;
mod ours;
mod real;
mod real_agent;
mod replay;
mod seen;
mod stage;
mod story;
#[allow(dead_code)]
#[path = "../masters/support.rs"]
mod support;
mod transcript;
mod wire;

use cases::{But, CASES, Case, State};
use replay::{Seen, replay};
use stage::{Scene, Stage};
use std::collections::BTreeSet;

#[test]
fn every_transcript_has_its_place() {
    let files = std::fs::read_dir(transcript::directory()).unwrap().map(|file| file.unwrap().path());
    let recorded: BTreeSet<String> = files
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let placed: BTreeSet<String> = CASES.iter().map(|case| case.name.to_owned()).collect();
    assert_eq!(placed.len(), CASES.len(), "none has two places");
    assert_eq!(placed, recorded);
    for case in CASES {
        if let State::Elsewhere(tests) = case.state {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../").to_owned() + tests;
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(text.contains(case.name), "{tests} has no {}", case.name);
        }
    }
}

/// Replays all cases of these scenes, and says what is wrong with each.
async fn replay_all(scenes: &[Scene]) {
    let (mut wrong, mut stages) = (Vec::new(), Stages::default());
    let (mut same, mut differ) = (0, 0);
    for case in CASES.iter().filter(|case| case.scene.is_some_and(|scene| scenes.contains(&scene))) {
        match case.state {
            State::Same => same += 1,
            State::Differs(..) => differ += 1,
            State::Elsewhere(_) => {}
        }
        if let Err(why) = check(case, &mut stages).await {
            wrong.push(format!("{}: {why}", case.name));
        }
    }
    stages.end().await;
    println!("{scenes:?}: {same} as Mesos, {differ} differ by intent");
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Stages that are as they were, to be used again.
#[derive(Default)]
struct Stages(Vec<(Scene, Stage)>);

impl Stages {
    async fn replay(&mut self, name: &str, scene: Scene, like: Option<&str>) -> Seen {
        let at = self.0.iter().position(|(there, _)| *there == scene);
        let mut stage = match at {
            Some(at) => self.0.remove(at).1,
            None => Stage::set(scene).await,
        };
        let seen = replay(name, &mut stage, like).await;
        if scene.is_nobodys() && seen.changed_nothing {
            self.0.push((scene, stage));
        } else {
            stage.end().await;
        }
        seen
    }

    async fn end(self) {
        for (_, stage) in self.0 {
            stage.end().await;
        }
    }
}

async fn check(case: &Case, stages: &mut Stages) -> Result<(), String> {
    let Some(scene) = case.scene else { return Ok(()) };
    let seen = stages.replay(case.name, scene, None).await;
    match (case.state, seen.mesos == seen.muster) {
        (State::Same, true) | (State::Elsewhere(_), _) => Ok(()),
        (State::Same, false) => Err(difference(&seen)),
        (State::Differs(_, why), true) => Err(format!("it does not differ any more ({why})")),
        (State::Differs(buts, _), false) => {
            let mut seen = seen;
            for but in buts {
                if let But::Like(other) = but {
                    seen = stages.replay(case.name, scene, Some(other)).await;
                }
            }
            differs_in(&seen, buts)
        }
    }
}

/// Whether both differ in all of these, and in nothing else.
pub fn differs_in(seen: &Seen, buts: &'static [But]) -> Result<(), String> {
    let buts = apart::one_by_one(buts);
    let without = |left_in: Option<usize>| {
        let mut seen = Seen { mesos: seen.mesos.clone(), muster: seen.muster.clone(), ..*seen };
        for (_, but) in buts.iter().enumerate().filter(|(at, _)| Some(*at) != left_in) {
            apart::apart_from(*but, &mut seen.mesos);
            apart::apart_from(*but, &mut seen.muster);
        }
        seen
    };
    let both = without(None);
    if both.mesos != both.muster {
        return Err(difference(&both));
    }
    let is_needless = |at: &usize| {
        let seen = without(Some(*at));
        !matches!(buts[*at], But::Like(_)) && seen.mesos == seen.muster
    };
    let needless: Vec<_> = (0..buts.len()).filter(is_needless).map(|at| buts[at]).collect();
    if needless.is_empty() { Ok(()) } else { Err(format!("it does not differ any more in {needless:?}")) }
}

fn difference(Seen { mesos, muster, .. }: &Seen) -> String {
    let show = |value| serde_json::to_string_pretty(value).unwrap();
    let (mesos, muster) = (show(mesos), show(muster));
    let only = |one: &str, other: &str, sign: char| -> String {
        let mut left: Vec<&str> = other.lines().collect();
        let is_new = |line: &&str| match left.iter().position(|it| it == line) {
            Some(at) => {
                left.swap_remove(at);
                false
            }
            None => true,
        };
        one.lines().filter(is_new).map(|line| format!("{sign}{line}\n")).collect()
    };
    format!("\n{}{}", only(&mesos, &muster, '-'), only(&muster, &mesos, '+'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_of_a_leader() {
    replay_all(&[Scene::Leader, Scene::RealAgent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_while_a_real_agent_has_tasks() {
    replay_all(&[Scene::Real]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_by_an_operator() {
    // What writes the log is no part of a master.
    let (set, mut levels) = tokio::sync::mpsc::channel(8);
    muster_master::on_logging_level(move |level| {
        let _ = set.try_send(level); // the test may be over
    });
    replay_all(&[Scene::Operated, Scene::WithQuota, Scene::Scheduled, Scene::Down]).await;
    assert_eq!(levels.recv().await, Some(Some(1)));
    assert_eq!(levels.recv().await, Some(None), "a second later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_of_a_master_that_does_not_lead() {
    replay_all(&[Scene::Follower, Scene::Leaderless]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_by_a_framework() {
    replay_all(&[Scene::Subscribed, Scene::TakenOver, Scene::TornDown]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_by_a_framework_with_tasks() {
    replay_all(&[Scene::Launched, Scene::Running, Scene::Spent, Scene::Killed]).await;
}

/// What a transcript shows of the first seconds goes on: a heartbeat is an event and a chunk like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_with_heartbeats() {
    let stage = Stage::with_heartbeats(100).await;
    let subscribe = transcript::Transcript::named("sched-subscribe-json").only().request.clone();
    let mut stream = stage::Stream::of(stage.led(&subscribe).await);
    let subscribed = stream.next().await.unwrap().unwrap();
    assert_eq!(subscribed["subscribed"]["heartbeat_interval_seconds"], 0.1, "{subscribed}");
    for _ in 0..4 {
        let event = stream.next().await.unwrap().unwrap();
        assert_eq!(event, serde_json::json!({ "type": "HEARTBEAT" }));
    }
    drop(stream);
    stage.end().await;
}
