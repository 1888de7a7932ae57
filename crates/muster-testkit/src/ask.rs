//! Questions to one master. Unlike a client's, they follow no hint and have little patience: the master asked
//! may be dead, or standing still.

use muster_proto::v1::operator_service_client::OperatorServiceClient;
use muster_proto::{limits, v1};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long a leader may take to hand over.
const TRANSFER_TIME: Duration = Duration::from_secs(10);
/// More agents and frameworks than a test has.
const AGENTS_MAX: u32 = 10_000;
const FRAMEWORKS_MAX: u32 = 10_000;

async fn client(address: &str) -> Result<OperatorServiceClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    Ok(OperatorServiceClient::new(channel).max_decoding_message_size(limits::DOWN_FRAME_BYTES_MAX))
}

async fn patiently<T>(answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    within(PATIENCE, answer).await
}

async fn within<T>(time: Duration, answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(time, answer).await.unwrap_or_else(|_| Err("no answer".into()))
}

/// What it says of itself, leader or not.
pub(crate) async fn status(address: String) -> Result<v1::GetRaftStatusResponse, String> {
    patiently(async {
        let answer = client(&address).await?.get_raft_status(v1::GetRaftStatusRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    })
    .await
}

/// The agents: a read that claims to be current, which nobody but a leader may answer.
pub(crate) async fn agents(address: &str) -> Result<Vec<v1::Agent>, String> {
    patiently(async {
        let request = v1::ListAgentsRequest { after: String::new(), limit: AGENTS_MAX };
        let answer = client(address).await?.list_agents(request).await;
        answer.map(|answer| answer.into_inner().agents).map_err(|status| status.message().to_owned())
    })
    .await
}

/// The frameworks: such a read, too.
pub(crate) async fn frameworks(address: &str) -> Result<Vec<v1::Framework>, String> {
    patiently(async {
        let request = v1::ListFrameworksRequest { limit: FRAMEWORKS_MAX, ..Default::default() };
        let answer = client(address).await?.list_frameworks(request).await;
        answer.map(|answer| answer.into_inner().frameworks).map_err(|status| status.message().to_owned())
    })
    .await
}

/// Asks a leader to hand over to another master.
pub(crate) async fn transfer(address: &str, to: &str) -> Result<String, String> {
    within(TRANSFER_TIME, async {
        let request = v1::TransferLeadershipRequest { name: to.into() };
        let answer = client(address).await?.transfer_leadership(request).await;
        answer.map(|answer| answer.into_inner().name).map_err(|status| status.message().to_owned())
    })
    .await
}
