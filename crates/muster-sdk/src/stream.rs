//! One gRPC stream to one master.

use crate::credential::Shows;
use muster_driver::{Down, Input};
use muster_proto::v1::scheduler_service_client::SchedulerServiceClient;
use muster_proto::{SchedulerDown, limits, scheduler_event, v1};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// Frames that wait to be written to, or to be taken from, one stream.
const FRAMES_WAITING_MAX: usize = 256;

/// An open stream, or one being opened. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) dial: u64,
    pub(crate) out: mpsc::Sender<v1::SchedulerFrame>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What all streams of a driver report on.
pub(crate) fn inbound() -> (mpsc::Sender<Input>, mpsc::Receiver<Input>) {
    mpsc::channel(FRAMES_WAITING_MAX)
}

impl Stream {
    pub(crate) fn open(dial: u64, address: String, shows: Shows, inbound: mpsc::Sender<Input>) -> Self {
        let (out, frames) = mpsc::channel(FRAMES_WAITING_MAX);
        let task = tokio::spawn(async move {
            let why = match pump(dial, &address, shows, frames, &inbound).await {
                Ok(()) => "the master closed the stream".into(),
                Err(why) => why,
            };
            tracing::debug!(address, why, "stream ended");
            // Fails only when the driver is gone.
            let _ = inbound.send(Input::Broken { dial, why }).await;
        });
        Self { dial, out, task }
    }
}

async fn pump(
    dial: u64,
    address: &str,
    shows: Shows,
    frames: mpsc::Receiver<v1::SchedulerFrame>,
    inbound: &mpsc::Sender<Input>,
) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address:?} is not an address like 127.0.0.1:5050: {error}"))?
        .connect_timeout(Duration::from_secs(2))
        // A master that stands still or lost its network is noticed within five seconds: another leads after one.
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(4))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(|error| chain(&error))?;
    let mut client = SchedulerServiceClient::with_interceptor(channel, shows)
        .max_decoding_message_size(limits::DOWN_FRAME_BYTES_MAX);
    let response = client.session(ReceiverStream::new(frames)).await.map_err(|status| {
        if status.code() == tonic::Code::Unauthenticated {
            tracing::error!(address, why = said(&status), "the master does not let this scheduler in");
        }
        said(&status)
    })?;
    let mut down = response.into_inner();
    let gone = |_| "the driver is gone".to_owned();
    inbound.send(Input::Connected { dial }).await.map_err(gone)?;
    while let Some(frame) = down.message().await.map_err(|status| said(&status))? {
        let (fence, down) = scheduler_event(frame).map_err(|error| error.to_string())?;
        let down = match down {
            SchedulerDown::Leader { name, address } => Down::Leader { name, address },
            SchedulerDown::Redial(why) => Down::Redial(why),
            SchedulerDown::Event(event) => Down::Event(event),
        };
        inbound.send(Input::Frame { dial, fence, down }).await.map_err(gone)?;
    }
    Ok(())
}

/// What a master said, in words.
pub(crate) fn said(status: &tonic::Status) -> String {
    match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    }
}

/// An error with its causes, in words.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
