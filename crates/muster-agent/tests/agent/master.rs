//! A master that says what the test tells it to.

use muster_model::{AgentCall, AgentEvent, Fence, Session, Term};
use muster_proto::{
    agent::{agent_leader_frame, agent_redial_frame},
    agent_call, agent_down_frame, v1,
    v1::agent_service_server::{AgentService, AgentServiceServer},
};
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

/// Listens for agents.
pub(crate) struct Master {
    pub(crate) address: SocketAddr,
    /// So many streams are refused before one is taken.
    pub(crate) refusals: Arc<AtomicU32>,
    sessions: mpsc::Receiver<AgentStream>,
    server: JoinHandle<()>,
}

/// An agent's stream.
pub(crate) struct AgentStream {
    up: Streaming<v1::AgentFrame>,
    down: mpsc::Sender<Result<v1::AgentDownFrame, Status>>,
    pub(crate) fence: Fence,
    pub(crate) session: Session,
}

struct Door(mpsc::Sender<AgentStream>, Arc<AtomicU32>);

#[tonic::async_trait]
impl AgentService for Door {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::AgentDownFrame, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let refuses =
            self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if refuses {
            return Err(Status::unavailable("this master is about to end"));
        }
        let (down, frames) = mpsc::channel(64);
        let stream = AgentStream { up: request.into_inner(), down, fence: fence(1), session: Session(0) };
        self.0.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }
}

pub(crate) fn fence(term: u64) -> Fence {
    Fence { incarnation: 1, term: Term(term) }
}

impl Master {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (door, sessions) = mpsc::channel(8);
        let refusals = Arc::<AtomicU32>::default();
        let door = Door(door, refusals.clone());
        let server = tonic::transport::Server::builder().add_service(AgentServiceServer::new(door));
        let server = tokio::spawn(async move {
            server
                .serve_with_incoming(
                    TcpListenerStream::new(listener)
                        .map(|stream| stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream))),
                )
                .await
                .unwrap();
        });
        Self { address, refusals, sessions, server }
    }

    /// The next stream that an agent opens.
    pub(crate) async fn stream(&mut self) -> AgentStream {
        self.sessions.recv().await.expect("an agent")
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl AgentStream {
    pub(crate) async fn leader(&mut self, term: u64) {
        self.fence = fence(term);
        self.frame(agent_leader_frame(self.fence, "m1", "127.0.0.1:1")).await;
    }

    /// The same to an agent that may be gone by now: none then.
    pub(crate) async fn try_leader(&mut self, term: u64) -> Option<()> {
        self.fence = fence(term);
        self.try_frame(agent_leader_frame(self.fence, "m1", "127.0.0.1:1")).await
    }

    pub(crate) async fn redial(&mut self) {
        self.frame(agent_redial_frame(self.fence, "no leader")).await;
    }

    pub(crate) async fn say(&mut self, event: &AgentEvent) {
        self.frame(agent_down_frame(self.fence, self.session, event)).await;
    }

    /// The same to an agent that may be gone by now: none then.
    pub(crate) async fn try_say(&mut self, event: &AgentEvent) -> Option<()> {
        self.try_frame(agent_down_frame(self.fence, self.session, event)).await
    }

    pub(crate) async fn frame(&mut self, frame: v1::AgentDownFrame) {
        self.try_frame(frame).await.expect("an open stream");
    }

    async fn try_frame(&mut self, frame: v1::AgentDownFrame) -> Option<()> {
        self.down.send(Ok(frame)).await.ok()
    }

    /// The next call, or none when the stream is closed. What an agent does not list at first it is asked to.
    pub(crate) async fn hear(&mut self) -> Option<(Session, AgentCall)> {
        loop {
            let frame = self.up.next().await?.ok()?;
            match agent_call(frame).expect("a valid frame") {
                (_, AgentCall::HelloAsKnown(..)) => {
                    self.try_frame(agent_down_frame(self.fence, Session(0), &AgentEvent::ListAll)).await?;
                }
                said => return Some(said),
            }
        }
    }
}
