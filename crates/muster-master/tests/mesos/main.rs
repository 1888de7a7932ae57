//! What a real Mesos 1.11 was recorded to answer (`../mesos-wire`), replayed against muster masters over real sockets.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod agents;
mod cases;
mod ids;
mod replay;
mod seen;
mod stage;
#[allow(dead_code)]
#[path = "../masters/support.rs"]
mod support;
mod transcript;
mod wire;

use cases::{But, CASES, Case, State};
use replay::{Seen, replay};
use serde_json::Value;
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
    let (mut same, mut differ, mut missing) = (0, 0, 0);
    for case in CASES.iter().filter(|case| case.scene.is_some_and(|scene| scenes.contains(&scene))) {
        match case.state {
            State::Same => same += 1,
            State::Differs(..) => differ += 1,
            State::NotYet(_) | State::Elsewhere(_) => missing += 1,
        }
        if let Err(why) = check(case, &mut stages).await {
            wrong.push(format!("{}: {why}", case.name));
        }
    }
    stages.end().await;
    println!("{scenes:?}: {same} as Mesos, {differ} differ by intent, {missing} not yet");
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
        (State::Same, true) | (State::NotYet(_), false) | (State::Elsewhere(_), _) => Ok(()),
        (State::Same, false) => Err(difference(&seen)),
        (State::NotYet(missing), true) => {
            Err(format!("{missing:?} is not missing any more: it is as Mesos answered"))
        }
        (State::Differs(_, why), true) => Err(format!("it does not differ any more ({why})")),
        (State::Differs(buts, _), false) => {
            let mut seen = seen;
            for but in buts {
                seen = apart_from(*but, case.name, scene, seen, stages).await;
            }
            if seen.mesos == seen.muster { Ok(()) } else { Err(difference(&seen)) }
        }
    }
}

/// What was seen, without the difference that is meant.
async fn apart_from(but: But, name: &str, scene: Scene, mut seen: Seen, stages: &mut Stages) -> Seen {
    match but {
        But::Like(other) => return stages.replay(name, scene, Some(other)).await,
        But::Words => {
            for side in [&mut seen.mesos, &mut seen.muster] {
                seen::without_words(side);
            }
        }
        But::AgentIp => {
            for side in [&mut seen.mesos, &mut seen.muster] {
                seen::without_agents_ips(side);
            }
        }
        But::Container => {
            for side in [&mut seen.mesos, &mut seen.muster] {
                seen::without_containers(side);
            }
        }
        But::Times => {
            for side in [&mut seen.mesos, &mut seen.muster] {
                seen::without_times(side);
            }
        }
        But::Location => {
            for side in [&mut seen.mesos, &mut seen.muster] {
                seen::with_query_in_order(side);
            }
        }
        But::OnlyFields(fields) => {
            for side in [&mut seen.mesos, &mut seen.muster] {
                if let Value::Object(body) = &mut side["body"] {
                    body.retain(|field, _| fields.contains(&field.as_str()));
                }
            }
        }
    }
    seen
}

fn difference(Seen { mesos, muster, .. }: &Seen) -> String {
    let show = |value| serde_json::to_string_pretty(value).unwrap();
    let (mesos, muster) = (show(mesos), show(muster));
    let only = |one: &str, other: &str, sign: char| -> String {
        let there: BTreeSet<&str> = other.lines().collect();
        one.lines().filter(|line| !there.contains(line)).map(|line| format!("{sign}{line}\n")).collect()
    };
    format!("\n{}{}", only(&mesos, &muster, '-'), only(&muster, &mesos, '+'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_of_a_leader() {
    replay_all(&[Scene::Leader, Scene::RealAgent]).await;
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
