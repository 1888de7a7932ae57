//! `muster bench state`.

use super::{
    Api, Shape,
    frameworks::{Pace, Shared},
    masters::Masters,
    preload,
    report::{Report, median_max, times},
};
use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use muster_model::Resources;
use std::{
    mem,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinSet};

#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    #[command(flatten)]
    shape: Shape,
    /// Running tasks when it is read.
    #[arg(long, visible_alias = "running", default_value_t = 100_000)]
    tasks: usize,
    /// Completed tasks when it is read: at most 100,000, more no registry keeps.
    #[arg(long, default_value_t = 0)]
    completed: usize,
    /// What is read.
    #[arg(long, value_enum, default_value_t = Read::State)]
    read: Read,
    /// Who read all of it, again and again.
    #[arg(long, visible_alias = "clients", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    readers: u16,
    /// Tasks per second of all frameworks together, with readers and without.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// How long is measured with readers, and as long without, in each round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    secs: u64,
    /// Rounds, each without readers and then with them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// A big answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Read {
    /// `GET /state`, JSON.
    State,
    /// `POST /api/v1` GET_STATE in protobuf.
    GetState,
    /// `POST /api/v1` GET_STATE in JSON.
    GetStateJson,
}

/// What was launched while somebody read, or nobody.
struct Launched {
    tasks: u64,
    secs: f64,
    latency: Histogram<u64>,
}

/// One answer, read to its end.
struct Answer {
    first_byte: Duration,
    whole: Duration,
    bytes: u64,
}

pub(crate) async fn run(args: StateArgs) -> anyhow::Result<Report> {
    let mut masters = Masters::start(&args.shape).await?;
    let (moments, _unheard) = mpsc::channel(1);
    let shared = Shared::new(moments);
    let _agents = args.shape.start_agents(&masters.addresses, &shared);
    preload::running(&args.shape, &masters.addresses, &shared, args.tasks).await?;
    if args.completed > 0 {
        preload::completed(&args.shape, &masters.addresses, &shared, args.completed).await?;
    }
    let rss_filled = masters.rss_mib();
    let per_framework = args.rate as f64 / args.shape.frameworks as f64;
    let every = Duration::from_secs_f64(1.0 / per_framework);
    let pace = Pace { tasks_per_accept: 1, in_flight: 1, every, task: Resources::of(10, 1) };
    shared.launching.store(true, Ordering::Relaxed);
    let first = args.shape.frameworks;
    let mut frameworks = JoinSet::new();
    args.shape.add_frameworks(&mut frameworks, first, Api::Grpc, &masters.addresses, &pace, &shared);
    let leader = masters.leader().await?;
    let (uri, none) = (format!("http://{}", masters.addresses[leader]), Launched::none);
    let (mut alone, mut beside, mut answers) = (none(), none(), Vec::new());
    tokio::time::sleep(Duration::from_secs(args.secs)).await;
    for _ in 0..args.rounds {
        alone.add(during(&shared, args.secs).await);
        let reading = Arc::new(AtomicBool::new(true));
        let mut readers = JoinSet::new();
        for _ in 0..args.readers {
            readers.spawn(read(args.read, uri.clone(), reading.clone()));
        }
        beside.add(during(&shared, args.secs).await);
        reading.store(false, Ordering::Relaxed);
        while let Some(all) = readers.join_next().await {
            answers.extend(all.context("a reader died")??);
        }
    }
    shared.settle().await;
    let mut report = Report::default();
    report.figure("tasks", args.tasks as f64, "tasks");
    report.figure("answers", answers.len() as f64, "answers");
    if let Some(answer) = answers.first() {
        report.figure("answer_size", answer.bytes as f64 / f64::from(1 << 20), "MiB");
    }
    for (name, of) in [("first_byte", Answer::first_byte as fn(&Answer) -> _), ("whole", Answer::whole)] {
        if let Some((median, max)) = median_max(answers.iter().map(of).collect()) {
            report.figure(&format!("{name}_median"), median, "ms");
            report.figure(&format!("{name}_max"), max, "ms");
        }
    }
    for (name, launched) in [("alone", &alone), ("while_read", &beside)] {
        report.figure(&format!("launches_{name}"), launched.tasks as f64 / launched.secs, "tasks/s");
        for (quantile, q) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            let at = launched.latency.value_at_quantile(q) as f64 / 1e3;
            report.figure(&format!("latency_{quantile}_{name}"), at, "ms");
        }
    }
    report.figure("master_rss_filled", rss_filled, "MiB");
    report.figure("master_rss_read", masters.rss_mib(), "MiB");
    let (lost, doubled) = shared.ledger.judge();
    report.judge(lost, doubled);
    Ok(report)
}

/// What is launched in so many seconds.
async fn during(shared: &Shared, secs: u64) -> Launched {
    let latency = || shared.latency.lock().unwrap_or_else(PoisonError::into_inner);
    shared.start_recording();
    let (began, before) = (Instant::now(), shared.ledger.started_count());
    tokio::time::sleep(Duration::from_secs(secs)).await;
    let (secs, after) = (began.elapsed().as_secs_f64(), shared.ledger.started_count());
    shared.stop_recording();
    Launched { tasks: (after - before) as u64, secs, latency: mem::replace(&mut *latency(), times()) }
}

/// Reads the answer to its end, until it is told to stop, at least once.
async fn read(what: Read, uri: String, reading: Arc<AtomicBool>) -> anyhow::Result<Vec<Answer>> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut answers = Vec::new();
    while answers.is_empty() || reading.load(Ordering::Relaxed) {
        let (media_type, body): (_, &[u8]) = match what {
            Read::State => ("application/json", b""),
            Read::GetState => ("application/x-protobuf", &[0x08, 0x09]),
            Read::GetStateJson => ("application/json", br#"{"type":"GET_STATE"}"#),
        };
        let (method, path) = match what {
            Read::State => (Method::GET, "/state"),
            Read::GetState | Read::GetStateJson => (Method::POST, "/api/v1"),
        };
        let request = Request::builder().method(method).uri(format!("{uri}{path}"));
        let request = request.header(header::CONTENT_TYPE, media_type).header(header::ACCEPT, media_type);
        let began = Instant::now();
        let response = client.request(request.body(Full::new(Bytes::from_static(body)))?).await?;
        if !response.status().is_success() {
            bail!("the leader answered {}", response.status());
        }
        let (mut body, mut bytes, mut first_byte) = (response.into_body(), 0, None);
        while let Some(frame) = body.frame().await {
            first_byte.get_or_insert_with(|| began.elapsed());
            bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        let whole = began.elapsed();
        answers.push(Answer { first_byte: first_byte.unwrap_or(whole), whole, bytes });
    }
    Ok(answers)
}

impl Launched {
    fn none() -> Self {
        Self { tasks: 0, secs: 0.0, latency: times() }
    }

    fn add(&mut self, more: Self) {
        self.tasks += more.tasks;
        self.secs += more.secs;
        // Both have the same bounds.
        let _ = self.latency.add(more.latency);
    }
}

impl Answer {
    fn first_byte(&self) -> Duration {
        self.first_byte
    }

    fn whole(&self) -> Duration {
        self.whole
    }
}
