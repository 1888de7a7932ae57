//! The gRPC door: streams of `muster.v1.SchedulerService` in and out of the core.

use super::core::{Down, Opened, Shared};
use muster_proto::scheduler::{scheduler_leader_frame, scheduler_redial_frame};
use muster_proto::v1::scheduler_service_server::{SchedulerService, SchedulerServiceServer};
use muster_proto::{SchedulerDown, limits, scheduler_call, scheduler_down_frame, v1};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

struct Door {
    shared: Shared,
    master: u64,
}

/// A free port of loopback, taken.
pub(crate) fn listen() -> anyhow::Result<(TcpIncoming, SocketAddr)> {
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into())?.with_nodelay(Some(true));
    let address = incoming.local_addr()?;
    Ok((incoming, address))
}

/// Serves a master until the other end of `stop` is dropped.
pub(crate) fn serve(incoming: TcpIncoming, shared: Shared, master: u64, stop: oneshot::Receiver<()>) {
    let service = SchedulerServiceServer::new(Door { shared, master })
        .max_decoding_message_size(limits::FRAME_BYTES_MAX)
        .max_encoding_message_size(limits::DOWN_FRAME_BYTES_MAX);
    let stopped = async move { drop(stop.await) };
    let server = tonic::transport::Server::builder().add_service(service);
    // A listener that fails is seen by whoever dials it.
    tokio::spawn(async move { drop(server.serve_with_incoming_shutdown(incoming, stopped).await) });
}

fn frame((fence, down): Down) -> v1::SchedulerDownFrame {
    match down {
        SchedulerDown::Leader { name, address } => scheduler_leader_frame(fence, &name, &address),
        SchedulerDown::Redial(why) => scheduler_redial_frame(fence, &why),
        SchedulerDown::Event(event) => scheduler_down_frame(fence, &event),
    }
}

#[tonic::async_trait]
impl SchedulerService for Door {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::SchedulerDownFrame, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SchedulerFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let opened = self.shared.lock().opened(self.master);
        let Opened { stream, down, ended } = opened.map_err(Status::unavailable)?;
        tokio::spawn(read(self.shared.clone(), stream, request.into_inner(), ended));
        Ok(Response::new(Box::pin(ReceiverStream::new(down).map(|down| Ok(frame(down))))))
    }
}

/// Takes a scheduler's frames until its stream ends at either side.
async fn read(
    shared: Shared,
    stream: u64,
    mut frames: Streaming<v1::SchedulerFrame>,
    mut ended: oneshot::Receiver<()>,
) {
    loop {
        let next = tokio::select! {
            next = frames.message() => next,
            _ = &mut ended => return,
        };
        match next {
            Ok(Some(frame)) => {
                shared.called(stream, scheduler_call(frame).map_err(|error| error.to_string()));
            }
            Ok(None) | Err(_) => return shared.lock().end(stream, "the scheduler ended its stream"),
        }
    }
}
