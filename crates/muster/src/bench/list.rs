//! `muster bench list`: pages of tasks, of one framework, by both APIs.

use super::{
    Shape,
    frameworks::Shared,
    masters::Masters,
    preload,
    report::{Report, record, times},
};
use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use muster_proto::{limits, v1};
use muster_sdk::OperatorClient;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    shape: Shape,
    /// Tasks that run.
    #[arg(long, default_value_t = 100_000, value_parser = super::positive)]
    tasks: usize,
    /// Tasks of a page.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    page: u32,
    /// How long is measured, half of it by each API.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    secs: u64,
}

/// How often in a row nobody may answer.
const UNAVAILABLE_MAX: u64 = 100;

/// How pages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    /// `ListTasks`.
    Grpc,
    /// `GET /tasks`.
    Http,
}

/// Pages that were read.
struct Pages {
    took: Histogram<u64>,
    /// The fewest tasks of a first page.
    shortest: u64,
    /// Answers that there is no leader: it changed.
    unavailable: u64,
}

/// Who reads, of one framework.
struct Reader<'a> {
    masters: &'a mut Masters,
    api: Api,
    of: &'a v1::Framework,
    page: u32,
}

pub(crate) async fn run(args: ListArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut masters = Masters::start(&args.shape).await?;
    let (moments, _unheard) = mpsc::channel(1);
    let shared = Shared::new(moments);
    let mut agents = args.shape.start_agents(&masters.addresses, &shared);
    preload::running(&args.shape, &masters.addresses, &shared, args.tasks).await?;
    // The framework with most tasks: it has a whole page, if any has.
    let frameworks = OperatorClient::new(masters.addresses.clone()).frameworks(false).await?;
    let of = frameworks.iter().max_by_key(|it| it.tasks).context("no framework is known")?;
    let page = u64::from(args.page).min(of.tasks);
    report.figure("tasks", args.tasks as f64, "tasks");
    report.figure("tasks_of_framework", of.tasks as f64, "tasks");
    report.figure("page", page as f64, "tasks");
    let half = Duration::from_secs_f64(args.secs as f64 / 2.0);
    for (name, api) in [("list_grpc", Api::Grpc), ("list_http", Api::Http)] {
        let mut reader = Reader { masters: &mut masters, api, of, page: args.page };
        let pages = reader.read(half).await?;
        ensure!(
            pages.shortest >= page,
            "{name}: a page has {} tasks of {page}: the masters leave some out",
            pages.shortest
        );
        report.figure(&format!("{name}_pages"), pages.took.len() as f64, "pages");
        report.figure(&format!("{name}_unavailable"), pages.unavailable as f64, "answers");
        report.quantiles(name, &pages.took, &[("p50", 0.5), ("p99", 0.99), ("max", 1.0)]);
    }
    let (lost, doubled) = shared.ledger.judge();
    report.judge(lost, doubled);
    agents.shutdown().await;
    Ok(report)
}

impl Reader<'_> {
    /// Page after page, and from the first again, as long as that.
    async fn read(&mut self, length: Duration) -> anyhow::Result<Pages> {
        let mut pages = Pages { took: times(), shortest: u64::MAX, unavailable: 0 };
        let begun = Instant::now();
        let mut in_a_row = 0;
        while begun.elapsed() < length || pages.took.is_empty() {
            let leader = self.masters.leader().await?;
            let leader = self.masters.addresses[leader].clone();
            let before = pages.took.len();
            let left = length.saturating_sub(begun.elapsed());
            let read = match self.api {
                Api::Grpc => self.by_grpc(&leader, left, &mut pages).await,
                Api::Http => self.by_http(&leader, left, &mut pages).await,
            };
            let Err(error) = read else { break };
            in_a_row = if pages.took.len() > before { 1 } else { in_a_row + 1 };
            if in_a_row > UNAVAILABLE_MAX {
                return Err(error);
            }
            pages.unavailable += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(pages)
    }

    async fn by_grpc(&self, leader: &str, length: Duration, pages: &mut Pages) -> anyhow::Result<()> {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{leader}"))?.tcp_nodelay(true);
        let client = v1::operator_service_client::OperatorServiceClient::new(channel.connect().await?);
        let mut client = client.max_decoding_message_size(limits::DOWN_FRAME_BYTES_MAX);
        let framework_id = self.of.framework_id.clone();
        let first = v1::ListTasksRequest { framework_id, limit: self.page, ..Default::default() };
        let (mut request, begun) = (first.clone(), Instant::now());
        while begun.elapsed() < length || pages.took.is_empty() {
            let at = Instant::now();
            let tasks = client.list_tasks(request.clone()).await?.into_inner().tasks;
            pages.add(at.elapsed(), tasks.len(), request == first);
            request = match tasks.last() {
                Some(last) if tasks.len() == self.page as usize => v1::ListTasksRequest {
                    after_framework_id: last.framework_id.clone(),
                    after_task_id: last.task_id.clone(),
                    ..request
                },
                _ => first.clone(),
            };
        }
        Ok(())
    }

    async fn by_http(&self, leader: &str, length: Duration, pages: &mut Pages) -> anyhow::Result<()> {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let (mut offset, begun) = (0, Instant::now());
        while begun.elapsed() < length || pages.took.is_empty() {
            let (framework_id, page) = (&self.of.framework_id, self.page);
            let path = format!("/tasks?framework_id={framework_id}&limit={page}&offset={offset}");
            let at = Instant::now();
            let response = client.get(format!("http://{leader}{path}").parse()?).await?;
            ensure!(response.status().is_success(), "{leader} answers {path} with {}", response.status());
            let body = response.into_body().collect().await?.to_bytes();
            let took = at.elapsed();
            let answer: serde_json::Value = serde_json::from_slice(&body).context("/tasks is no JSON")?;
            pages.add(took, answer["tasks"].as_array().map_or(0, Vec::len), offset == 0);
            offset += u64::from(page);
            if offset >= self.of.tasks {
                offset = 0;
            }
        }
        Ok(())
    }
}

impl Pages {
    fn add(&mut self, took: Duration, tasks: usize, is_first: bool) {
        record(&mut self.took, took);
        if is_first {
            self.shortest = self.shortest.min(tasks as u64);
        }
    }
}
