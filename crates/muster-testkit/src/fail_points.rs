//! The debug endpoint of members that were built with the feature `faults`.

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, header::HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Names the address of the endpoint to a member.
pub(crate) const ADDRESS: &str = "MUSTER_DEBUG_ADDRESS";
/// Names a bug to a member.
pub(crate) const PLANT: &str = "MUSTER_PLANT";
/// How long an answer may take: a member may stand still.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A fail point of one member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FailPoint {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub about: String,
    /// What it is set to.
    pub setting: Option<String>,
    /// How often it was reached since the process began.
    pub reached: u64,
    /// How often it did something since it was set.
    pub fired: u64,
}

/// Asks one endpoint.
pub(crate) async fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: &str,
) -> anyhow::Result<Bytes> {
    let answer = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let asked = Request::builder().method(method).uri(path).header(HOST, address.to_string());
        let request = asked.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            if status.is_success() { Ok(body) } else { bail!("{}", String::from_utf8_lossy(&body).trim()) }
        };
        // The connection does what the exchange waits for.
        tokio::pin!(connection);
        tokio::select! {
            done = exchange => done,
            ended = &mut connection => match ended {
                Ok(()) => bail!("it closed the connection"),
                Err(error) => Err(error.into()),
            },
        }
    };
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.with_context(|| format!("the debug endpoint {address}")),
        Err(_) => bail!("the debug endpoint {address} does not answer"),
    }
}
