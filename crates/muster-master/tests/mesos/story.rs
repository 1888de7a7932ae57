//! What happened around the real agent of the transcripts, up to where most of them were recorded: four frameworks that
//! came and went, and one whose task runs while two others are over.

use crate::ids::Ids;
use crate::real_agent::{Order, RealAgent};
use crate::stage::{Stage, Stream};
use crate::support::PATIENCE;
use crate::transcript::{Body, Message, Transcript, record};
use crate::wire;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// What goes with a stage of a real agent.
pub struct Story {
    pub agent: RealAgent,
    /// An operator's event stream, open since before the framework came.
    pub operator: Stream,
    /// All that operators were told on it so far.
    pub told: Vec<Value>,
}

/// The events of a transcript that has no request.
pub fn recorded_events(name: &str) -> Vec<Value> {
    let Some(Body::Chunks(chunks, _)) = Transcript::named(name).events else { panic!("{name}: no events") };
    chunks.iter().map(|chunk| serde_json::from_slice(record(chunk)).unwrap()).collect()
}

/// Asks until it is so.
async fn until(stage: &Stage, path: &str, is_so: impl Fn(&Value) -> bool) {
    let asked = async {
        while !is_so(&stage.read(path).await) {
            sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{path}: in time"));
}

fn scalar(name: &str, value: f64) -> Value {
    json!({ "name": name, "type": "SCALAR", "scalar": { "value": value } })
}

impl Stage {
    /// Reads JSON of the leader's.
    pub async fn read(&self, path: &str) -> Value {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let answer = wire::send(&self.address, request.as_bytes()).await.whole().await;
        assert_eq!(answer.status(), 200, "{path}");
        serde_json::from_slice(answer.whole()).unwrap()
    }

    /// A master with a real agent, and what happened.
    pub async fn told_the_story() -> Self {
        let mut stage = Self::masters(1, &[]).await;
        let agent = RealAgent::connect(&stage.address).await;
        stage.ids = Ids::of([(agent.id.clone(), "127.0.0.1".to_owned())].into());
        for n in 1..=4 {
            stage.come_and_go(n).await;
        }
        let subscribe = Transcript::named("op-SUBSCRIBE-initial").only().request.clone();
        let operator = Stream::of(wire::send(&stage.address, &subscribe.to_bytes()).await);
        stage.story = Some(Story { agent, operator, told: Vec::new() });
        stage.subscribe_as_recorded().await;
        stage.launch_and_wait().await;
        stage
    }

    /// A framework that is offered all there is, and goes without a timeout.
    async fn come_and_go(&self, n: usize) {
        let subscribe = Transcript::named("sched-subscribe-protobuf").only().request.clone();
        let mut stream = Stream::of(self.led(&subscribe).await);
        stream.until(|event| event["offers"]["offers"].as_array().cloned()).await;
        drop(stream);
        until(self, "/frameworks", |all| all["completed_frameworks"].as_array().map(Vec::len) == Some(n))
            .await;
    }

    /// Subscribes as the framework that operators were told of.
    async fn subscribe_as_recorded(&mut self) {
        let mut info =
            recorded_events("op-events-real-tasks")[0]["framework_added"]["framework"]["framework_info"]
                .clone();
        info.as_object_mut().unwrap().remove("id");
        let call = json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": info } });
        let mut request = Transcript::named("sched-subscribe-json").only().request.clone();
        request.set_body(call.to_string().into_bytes());
        self.subscribe_with(&request, ["127.0.0.1"]).await;
    }

    async fn launch_and_wait(&mut self) {
        let agent_id = self.ids.agent("127.0.0.1").unwrap();
        let task = |id: &str, command: &str| {
            json!({ "name": id, "task_id": { "value": id }, "agent_id": { "value": agent_id },
                "resources": [scalar("cpus", 0.5), scalar("mem", 64.0)],
                "command": { "shell": true, "value": command } })
        };
        let mut tasks = vec![task("fail", "exit 3"), task("ok", "exit 0"), task("run", "sleep 1000")];
        tasks[2]["labels"] = json!({ "labels": [{ "key": "a", "value": "b" }] });
        let launch =
            tasks.drain(..).map(|task| json!({ "type": "LAUNCH", "launch": { "task_infos": [task] } }));
        let accept = json!({ "offer_ids": [{ "value": self.take_offer("127.0.0.1") }],
            "operations": launch.collect::<Vec<_>>(), "filters": { "refuse_seconds": 0 } });
        self.call(json!({ "type": "ACCEPT", "accept": accept })).await;
        for task in self.ordered(3).await {
            self.agent().say_next(&task).await;
        }
        let mut waiting = Vec::new();
        for task in ["run", "ok", "fail"] {
            waiting.push(self.update(task).await);
        }
        self.offered(["127.0.0.1"]).await;
        // What both leave is then offered at once, as an allocator does that makes a round each second.
        self.call(json!({ "type": "SUPPRESS" })).await;
        for task in ["run", "ok", "fail"] {
            while self.agent().has_more_of_its_own_accord(task) {
                self.agent().say_next(task).await;
            }
        }
        // The next update of each is told when it is over: so operators are told of its end with it, as it was.
        let has_come = |all: &Value, task: &str, state: &str| {
            all["tasks"].as_array().unwrap().iter().any(|it| it["id"] == task && it["state"] == state)
        };
        until(self, "/tasks", |all| {
            has_come(all, "run", "TASK_RUNNING")
                && has_come(all, "ok", "TASK_FINISHED")
                && has_come(all, "fail", "TASK_FAILED")
        })
        .await;
        while let Some(status) = waiting.pop() {
            self.acknowledge(&status).await;
            let task = status["task_id"]["value"].as_str().unwrap().to_owned();
            let is_last = matches!(
                (&*task, status["state"].as_str().unwrap()),
                ("run", "TASK_RUNNING") | (_, "TASK_FINISHED" | "TASK_FAILED")
            );
            if !is_last {
                waiting.push(self.update(&task).await);
            }
        }
        self.call(json!({ "type": "REVIVE" })).await;
        self.forget_offers();
        self.offered(["127.0.0.1"]).await;
    }

    pub fn agent(&mut self) -> &mut RealAgent {
        &mut self.story.as_mut().expect("there is a real agent").agent
    }

    /// The tasks that the agent is ordered to run next.
    pub async fn ordered(&mut self, count: usize) -> Vec<String> {
        let mut tasks = Vec::new();
        for _ in 0..count {
            match self.agent().ordered().await {
                Order::Run(task) => tasks.push(task),
                Order::Kill(task) => panic!("{task} is not to be killed"),
            }
        }
        tasks
    }

    pub async fn acknowledge(&self, status: &Value) {
        let acknowledge = json!({ "agent_id": status["agent_id"], "task_id": status["task_id"],
            "uuid": status["uuid"] });
        self.call(json!({ "type": "ACKNOWLEDGE", "acknowledge": acknowledge })).await;
    }

    /// Operators' events until there are so many of others than heartbeats.
    pub async fn told_operators(&mut self, count: usize) -> Vec<Value> {
        let story = self.story.as_mut().expect("there is one");
        let mut told = Vec::new();
        while told.len() < count {
            let event = story.operator.next().await.unwrap().expect("it is open");
            if !matches!(event["type"].as_str(), Some("HEARTBEAT" | "SUBSCRIBED")) {
                told.push(event);
            }
        }
        story.told.extend(told.clone());
        told
    }

    /// Sends what was recorded, with the ids that there are here.
    pub async fn send_recorded(&self, name: &str) -> Message {
        let request = self.request(&Transcript::named(name).only().request);
        wire::send(&self.address, &request.to_bytes()).await.whole().await
    }
}
