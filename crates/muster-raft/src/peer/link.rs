//! One long-lived stream of appends to one peer, shared by replication and heartbeats.
//!
//! Requests are answered in order, so a queue of who asked tells whose an answer is.

use super::{MESSAGE_BYTES_MAX, PIPELINE};
use crate::store::lock;
use muster_fault::{Point, point_async};
use muster_proto::raft::{AppendRequest, AppendResponse, peer_service_client::PeerServiceClient};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::Channel;

/// Requests of all lanes that may wait for the connection.
const QUEUE: usize = 2 * PIPELINE;

pub(crate) struct Item {
    pub(crate) request: AppendRequest,
    pub(crate) answer: mpsc::Sender<AppendResponse>,
}

/// A stream that is open, or is being opened.
pub(crate) struct Link {
    items: mpsc::Sender<Item>,
    task: AbortHandle,
    /// Why it ended, once it did.
    ended: watch::Receiver<Option<String>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Opens a stream in the background; what is sent meanwhile waits.
    pub(crate) fn open(channel: Channel, setup: Duration, idle: Duration) -> Self {
        let (items, queue) = mpsc::channel(QUEUE);
        let (over, ended) = watch::channel(None);
        let task = tokio::spawn(async move {
            let why = run(channel, queue, setup, idle).await;
            over.send_replace(Some(why));
        });
        Self { items, task: task.abort_handle(), ended }
    }

    /// Whether it can still be used.
    pub(crate) fn is_open(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Resolves with the reason when the stream ends.
    pub(crate) fn ended(&self) -> impl Future<Output = String> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or_default(),
                Err(_) => "the stream was dropped".into(),
            }
        }
    }

    /// Queues a request. False: the stream is over, or the peer does not keep up.
    pub(crate) fn send(&self, item: Item) -> bool {
        self.items.try_send(item).is_ok()
    }
}

async fn sent(request: AppendRequest) -> std::io::Result<AppendRequest> {
    point_async!(Point::AppendSend).await?;
    Ok(request)
}

type Waiting = Arc<Mutex<VecDeque<(u64, mpsc::Sender<AppendResponse>)>>>;

async fn run(channel: Channel, queue: mpsc::Receiver<Item>, setup: Duration, idle: Duration) -> String {
    let waiting: Waiting = Arc::default();
    let mut sequence = 0;
    let requests = ReceiverStream::new(queue).map({
        let waiting = waiting.clone();
        move |item: Item| {
            sequence += 1;
            lock(&waiting).push_back((sequence, item.answer));
            AppendRequest { sequence, ..item.request }
        }
    });
    // A request that is not sent ends the stream, as a broken connection would.
    let requests = requests.then(sent).map_while(Result::ok);
    let mut client = PeerServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut responses = match timeout(setup, client.append(requests)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return status.to_string(),
        Err(_) => return "the stream could not be opened in time".into(),
    };
    loop {
        match timeout(idle, responses.next()).await {
            Ok(Some(Ok(response))) => {
                let asked = lock(&waiting).pop_front();
                match asked {
                    Some((sequence, answer)) if sequence == response.sequence => {
                        // A lane never has more on its way than its channel holds.
                        answer.try_send(response).ok();
                    }
                    _ => return "answers came out of order".into(),
                }
            }
            Ok(Some(Err(status))) => return status.to_string(),
            Ok(None) => return "the stream ended".into(),
            Err(_) if lock(&waiting).is_empty() => {}
            Err(_) => return format!("no answer for {} ms", idle.as_millis()),
        }
    }
}
