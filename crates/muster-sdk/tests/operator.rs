//! The operator client finds the leader.

#![allow(clippy::unwrap_used)]

use muster_proto::v1::operator_service_server::{OperatorService, OperatorServiceServer};
use muster_proto::v1::*;
use muster_sdk::{OperatorClient, SdkError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A master that leads, or names who does, or does not know.
enum Master {
    Leads,
    /// Leads, takes long to tear a framework down, and counts how often it was asked.
    Slow(Arc<AtomicU32>),
    Knows(String),
    Lost,
}

impl Master {
    #[allow(clippy::result_large_err)]
    fn leads(&self) -> Result<(), Status> {
        match self {
            Master::Leads | Master::Slow(_) => Ok(()),
            Master::Knows(leader) => {
                let mut status = Status::failed_precondition("not the leader");
                status.metadata_mut().insert("muster-leader", leader.parse().unwrap());
                Err(status)
            }
            Master::Lost => Err(Status::unavailable("no leader is known")),
        }
    }
}

#[tonic::async_trait]
impl OperatorService for Master {
    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        self.leads()?;
        let ids: &[&str] = match request.into_inner().after.as_str() {
            "" => &["S1", "S2"],
            "S2" => &["S3"],
            _ => &[],
        };
        let agents = ids.iter().map(|id| Agent { agent_id: id.to_string(), ..Default::default() }).collect();
        Ok(Response::new(ListAgentsResponse { agents }))
    }
    async fn list_frameworks(
        &self,
        _: Request<ListFrameworksRequest>,
    ) -> Result<Response<ListFrameworksResponse>, Status> {
        // The completed ones are not paged.
        let framework = Framework { framework_id: "F1".into(), ..Default::default() };
        Ok(Response::new(ListFrameworksResponse { frameworks: vec![framework] }))
    }
    async fn list_tasks(&self, _: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_raft_status(
        &self,
        _: Request<GetRaftStatusRequest>,
    ) -> Result<Response<GetRaftStatusResponse>, Status> {
        Ok(Response::new(GetRaftStatusResponse { name: "m1".into(), ..Default::default() }))
    }
    async fn teardown(&self, _: Request<TeardownRequest>) -> Result<Response<TeardownResponse>, Status> {
        self.leads()?;
        if let Master::Slow(asked) = self {
            asked.fetch_add(1, Ordering::SeqCst);
            // Longer than any other master is waited for before the next one is asked.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Ok(Response::new(TeardownResponse {}));
        }
        Err(Status::failed_precondition("no framework F9; see `muster framework list`"))
    }
    async fn mark_agent_gone(
        &self,
        _: Request<MarkAgentGoneRequest>,
    ) -> Result<Response<MarkAgentGoneResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn replace_member(
        &self,
        _: Request<ReplaceMemberRequest>,
    ) -> Result<Response<ReplaceMemberResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn transfer_leadership(
        &self,
        _: Request<TransferLeadershipRequest>,
    ) -> Result<Response<TransferLeadershipResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn serve(master: Master) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder().add_service(OperatorServiceServer::new(master));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

#[tokio::test]
async fn hints_lead_to_masters_that_were_not_given() {
    let leader = serve(Master::Leads).await;
    let follower = serve(Master::Knows(leader)).await;
    let agents = OperatorClient::new([follower]).agents().await.unwrap();
    let ids: Vec<_> = agents.iter().map(|agent| agent.agent_id.as_str()).collect();
    assert_eq!(ids, ["S1", "S2", "S3"], "all pages");
}

#[tokio::test]
async fn a_dead_or_lost_master_is_passed_over() {
    let dead = "127.0.0.1:1".to_owned();
    let lost = serve(Master::Lost).await;
    let leader = serve(Master::Leads).await;
    assert_eq!(OperatorClient::new([dead, lost, leader]).agents().await.unwrap().len(), 3);
}

/// A master that stands still: its kernel takes connections, and nobody answers.
async fn standing_still() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Far above what is waited for a silent master, far below what an answer may take.
const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_silent_master_is_not_waited_for() {
    let (_still, silent) = standing_still().await;
    let leader = serve(Master::Leads).await;
    let follower = serve(Master::Knows(leader.clone())).await;
    for masters in [[&silent, &leader], [&silent, &follower]] {
        let began = Instant::now();
        assert_eq!(OperatorClient::new(masters).agents().await.unwrap().len(), 3);
        assert!(began.elapsed() < SOON, "it was waited for: {:?}", began.elapsed());
    }
    // Nor when the others still take it for the leader, and nor by who wants to change something.
    let behind = serve(Master::Knows(silent.clone())).await;
    let began = Instant::now();
    let mut client = OperatorClient::new([&silent, &behind, &leader]);
    assert!(matches!(client.teardown("F9").await, Err(SdkError::Refused(_))));
    assert!(began.elapsed() < SOON, "it was waited for: {:?}", began.elapsed());
    let began = Instant::now();
    let all = OperatorClient::new([&silent, &leader]).raft_status().await;
    assert!(all[0].status.is_err() && all[1].status.is_ok());
    assert!(began.elapsed() < SOON, "it was waited for: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_change_that_takes_long_is_asked_for_once() {
    let (first, second) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let masters = [serve(Master::Slow(first.clone())).await, serve(Master::Slow(second.clone())).await];
    OperatorClient::new(masters).teardown("F1").await.unwrap();
    assert_eq!(first.load(Ordering::SeqCst) + second.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_a_leader_the_error_names_the_masters() {
    let lost = serve(Master::Lost).await;
    let mut client = OperatorClient::new([lost.clone()]).search_time(Duration::from_millis(300));
    let error = client.agents().await.unwrap_err().to_string();
    assert!(error.contains(&lost) && error.contains("no leader is known"), "{error}");
    let mut client = OperatorClient::new(["127.0.0.1:1"]).search_time(Duration::from_millis(300));
    let error = client.agents().await.unwrap_err().to_string();
    assert!(error.contains("no connection"), "{error}");
}

#[tokio::test]
async fn completed_frameworks_are_one_page() {
    let leader = serve(Master::Leads).await;
    assert_eq!(OperatorClient::new([leader]).frameworks(true).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_not_asked_of_another() {
    let leader = serve(Master::Leads).await;
    let error = OperatorClient::new([leader]).teardown("F9").await.unwrap_err();
    assert!(matches!(&error, SdkError::Refused(why) if why.contains("F9")), "{error}");
}

#[tokio::test]
async fn each_master_says_how_it_is() {
    let alive = serve(Master::Lost).await;
    let all = OperatorClient::new([alive, "127.0.0.1:1".into()]).raft_status().await;
    assert_eq!(all[0].status.as_ref().unwrap().name, "m1");
    assert!(all[1].status.is_err());
}
