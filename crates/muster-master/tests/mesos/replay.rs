//! Sends what was recorded to a muster master, and shows what Mesos answered and what came.

use crate::ids::Ids;
use crate::seen;
use crate::stage::{Stage, Stream};
use crate::transcript::{Body, Exchange, Message, Transcript};
use crate::wire;
use serde_json::Value;

/// What Mesos answered, and what muster did.
#[derive(Debug)]
pub struct Seen {
    pub mesos: Value,
    pub muster: Value,
    /// Whether the stage is as it was before.
    pub changed_nothing: bool,
}

/// Replays a transcript; if another one is named, as if its answers had been recorded.
pub async fn replay(name: &str, stage: &mut Stage, like: Option<&str>) -> Seen {
    let transcript = Transcript::named(name);
    let expected = Transcript::named(like.unwrap_or(name));
    let Exchange { request, .. } = transcript.only();
    let Exchange { answer, .. } = expected.only();
    if expected.events.is_some() {
        stage.told().await.expect("what was told before");
    }
    let mut mesos = seen::answer(answer, &Ids::recorded(), recorded_leader(answer));
    let asked = stage.request(request);
    let came = wire::send(&stage.address, &asked.to_bytes()).await;
    // Whoever subscribed is gone in a moment, but not forgotten.
    let changed_nothing = !came.is_stream();
    let (came, problem) = if came.is_stream() {
        until_like(&mesos["events"], came, stage).await
    } else {
        (came.whole().await, None)
    };
    let mut muster = seen::answer(&came, &stage.ids, &stage.leader);
    if mesos["body"] == seen::LEFT_OUT {
        muster["body"] = seen::LEFT_OUT.into();
    }
    if let Some(problem) = problem {
        muster["problem"] = problem.into();
    }
    if let Some(Body::Chunks(chunks, ended)) = &expected.events {
        let codec = muster_proto::json::Codec::Json;
        let all = chunks.iter().map(|chunk| seen::event(codec, chunk));
        mesos["told"] = seen::events(all, *ended, &Ids::recorded());
        muster["told"] = told(stage, &mesos["told"]).await;
    }
    Seen { mesos, muster, changed_nothing }
}

/// The leader that a recorded answer names.
fn recorded_leader(answer: &Message) -> &str {
    let location = answer.header("Location").unwrap_or("//nobody");
    location.trim_start_matches('/').split('/').next().unwrap_or_default()
}

fn length(events: &Value, key: &str) -> usize {
    events[key].as_array().map_or(0, Vec::len)
}

/// Whether as much came as was recorded.
fn is_enough(came: &[Value], recorded: &Value, stage: &Stage) -> bool {
    let came = seen::events(came.iter().cloned(), false, &stage.ids);
    length(&came, "offers") >= length(recorded, "offers")
        && length(&came, "others") >= length(recorded, "others")
}

/// Reads a stream until as much came as was recorded, to its end if that was.
async fn until_like(recorded: &Value, answer: wire::Answer, stage: &Stage) -> (Message, Option<String>) {
    let mut head = answer.head.clone();
    let to_the_end = recorded["ended"] == true;
    let codec = seen::codec(head.header("Content-Type"));
    let (mut answer, mut chunks, mut came) = (answer, Vec::new(), Vec::new());
    let (ended, problem) = loop {
        if !to_the_end && is_enough(&came, recorded, stage) {
            break (false, None);
        }
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                came.push(seen::event(codec, &chunk));
                chunks.push(chunk);
            }
            Ok(None) => break (true, None),
            Err(problem) => break (false, Some(problem)),
        }
    };
    head.body = Body::Chunks(chunks, ended);
    (head, problem)
}

/// What is told on the stream that is open: as much as was recorded, and what comes with it.
async fn told(stage: &mut Stage, recorded: &Value) -> Value {
    let (mut came, mut problem) = (Vec::new(), None);
    let mut ended = false;
    while !ended && problem.is_none() && (recorded["ended"] == true || !is_enough(&came, recorded, stage)) {
        match next(stage).await {
            Ok(Some(event)) => came.push(event),
            Ok(None) => ended = true,
            Err(why) => problem = Some(why),
        }
    }
    if !ended && problem.is_none() {
        match stage.told().await {
            Ok(more) => came.extend(more),
            Err(why) => problem = Some(why),
        }
    }
    let mut told = seen::events(came, ended, &stage.ids);
    if let Some(problem) = problem {
        told["problem"] = problem.into();
    }
    told
}

async fn next(stage: &mut Stage) -> Result<Option<Value>, String> {
    let stream: &mut Stream = stage.stream.as_mut().expect("a stream is open");
    stream.next().await
}
