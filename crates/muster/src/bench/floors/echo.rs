//! Messages there and back over tonic's bidirectional streams; both ends share this machine, as masters and their load do.

use anyhow::Context;
use bytes::Bytes;
use http::uri::PathAndQuery;
use muster_proto::raw::{
    BytesCodec,
    agent_service_server::{AgentService, AgentServiceServer},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Endpoint, Server, server::TcpIncoming},
};

/// Streams, each over a connection of its own.
const STREAMS: usize = 8;
/// Messages of a stream that are on their way.
const IN_FLIGHT: usize = 256;
const WINDOW_BYTES: u32 = 1 << 20;

/// Says what it hears. The service is ours for its name alone: frames are bytes here.
struct Echo;

#[tonic::async_trait]
impl AgentService for Echo {
    type SessionStream = Streaming<Bytes>;
    async fn session(
        &self,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

/// Messages per second that came back.
pub(super) async fn measure(bytes: usize, each: Duration) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new(); // all end when it is dropped
    let server = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .add_service(AgentServiceServer::new(Echo));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tasks.spawn(async move { Ok(server.serve_with_incoming(incoming).await?) });
    let back = Arc::new(AtomicU64::new(0));
    for _ in 0..STREAMS {
        tasks.spawn(stream(format!("http://{address}"), Bytes::from(vec![7; bytes]), back.clone()));
    }
    tokio::select! {
        ended = tasks.join_next() => {
            ended.context("there are no streams")?.context("a stream died")??;
            anyhow::bail!("a stream of the echo ended early");
        }
        // What comes before is warm-up.
        () = warm(&back, each / 5) => {}
    }
    let (begun, before) = (Instant::now(), back.load(Ordering::Relaxed));
    tokio::time::sleep(each - each / 5).await;
    let messages = back.load(Ordering::Relaxed) - before;
    let per_second = messages as f64 / begun.elapsed().as_secs_f64();
    tasks.shutdown().await;
    Ok(per_second)
}

/// For so long, and until something has come back.
async fn warm(back: &AtomicU64, each: Duration) {
    tokio::time::sleep(each).await;
    while back.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Keeps so many messages on their way.
async fn stream(uri: String, message: Bytes, back: Arc<AtomicU64>) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(uri)?
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect()
        .await?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let (to, messages) = mpsc::channel(IN_FLIGHT);
    for _ in 0..IN_FLIGHT {
        to.send(message.clone()).await?;
    }
    let path = PathAndQuery::from_static("/muster.v1.AgentService/Session");
    let request = Request::new(ReceiverStream::new(messages));
    let mut heard = client.streaming(request, path, BytesCodec).await?.into_inner();
    while heard.message().await?.is_some() {
        back.fetch_add(1, Ordering::Relaxed);
        to.send(message.clone()).await?;
    }
    Ok(())
}
