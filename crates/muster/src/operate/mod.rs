//! What operators set: agents out of use, roles, quotas, maintenance. By the Mesos operator API of the leader, which
//! checks and words it.

pub(crate) mod agents;
pub(crate) mod args;
pub(crate) mod maintenance;
pub(crate) mod quotas;
pub(crate) mod roles;

use crate::{cli::Masters, lists::patiently};
use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use muster_proto::{
    json::Codec,
    mesos::master::{Call, Response, call::Type},
};
use muster_sdk::Credential;
use std::{collections::VecDeque, time::Duration};
use tokio::time::{Instant, sleep, timeout};

const PATH: &str = "/api/v1";
/// How long the leader is looked for.
const SEARCH_TIME: Duration = Duration::from_secs(5);
/// How long a master may take to say who leads.
const LOOK_TIME: Duration = Duration::from_secs(2);
/// How long the leader may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
const DIAL_TIME: Duration = Duration::from_secs(1);
/// The wait after all masters were asked in vain.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Asks the leader, wherever it is.
struct Operator {
    masters: Vec<String>,
    credential: Option<Credential>,
    requests: Client<HttpConnector, Full<Bytes>>,
}

/// An answer of a master: its code, where it points, and its body.
struct Answer {
    code: StatusCode,
    location: Option<String>,
    body: Bytes,
}

impl Operator {
    fn new(masters: &Masters) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(DIAL_TIME));
        let requests = Client::builder(TokioExecutor::new()).build(connector);
        let Masters { masters, credential } = masters.clone();
        Self { masters, credential, requests }
    }

    async fn post(&self, address: &str, call: &Call, within: Duration) -> anyhow::Result<Answer> {
        let codec = Codec::Protobuf;
        let mut request = Request::post(format!("http://{address}{PATH}"))
            .header(header::CONTENT_TYPE, codec.media_type())
            .header(header::ACCEPT, codec.media_type());
        if let Some(credential) = &self.credential {
            request = request.header(header::AUTHORIZATION, credential.header());
        }
        let request = request
            .body(Full::new(codec.write(call)))
            .with_context(|| format!("{address:?} is not an address like 127.0.0.1:5050"))?;
        let answer = async {
            let response = self.requests.request(request).await?;
            let (head, body) = response.into_parts();
            let location = head.headers.get(header::LOCATION).and_then(|it| it.to_str().ok());
            let location = location.map(|it| it.trim_start_matches("//").split('/').next().unwrap_or(it));
            let location = location.map(str::to_owned);
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body =
                body.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?.to_bytes();
            Ok(Answer { code: head.status, location, body })
        };
        timeout(within, answer).await.unwrap_or_else(|_| bail!("no answer for {} ms", within.as_millis()))
    }

    /// The leader's address: it has said so itself just now.
    async fn leader(&self) -> anyhow::Result<String> {
        let deadline = Instant::now() + SEARCH_TIME;
        let look = of(Type::GetMaster);
        let mut why = String::from("none is given");
        loop {
            let mut round: VecDeque<String> = self.masters.iter().cloned().collect();
            let mut hints = 0;
            while let Some(address) = round.pop_front() {
                match self.post(&address, &look, LOOK_TIME).await {
                    Ok(answer) if answer.code == StatusCode::OK => return Ok(address),
                    Ok(Answer { code: StatusCode::TEMPORARY_REDIRECT, location: Some(there), .. }) => {
                        why = format!("{address}: {there} leads, and does not answer");
                        // Masters that point at each other are not followed for ever.
                        if hints < 3 && there != address {
                            hints += 1;
                            round.push_front(there);
                        }
                    }
                    Ok(answer) if answer.code == StatusCode::SERVICE_UNAVAILABLE => {
                        why = format!("{address}: {}", answer.words());
                    }
                    Ok(answer) => bail!(answer.words()),
                    Err(error) => why = format!("{address}: {error:#}"),
                }
            }
            if Instant::now() + PAUSE > deadline {
                bail!("no leader found ({why}); check the addresses {}", self.masters.join(", "));
            }
            sleep(PAUSE).await;
        }
    }

    /// Has a call carried out, once: it may have been also if this fails in the midst.
    async fn call(&self, call: &Call) -> anyhow::Result<Bytes> {
        let leader = self.leader().await?;
        let answer = self.post(&leader, call, ANSWER_TIME).await;
        let answer = answer.with_context(|| {
            format!("the leader {leader} did not answer: look whether it is done, and ask again if not")
        })?;
        match answer.code {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(answer.body),
            StatusCode::TEMPORARY_REDIRECT => bail!("the leader changed before it was asked: ask again"),
            _ => bail!(answer.words()),
        }
    }
}

impl Answer {
    /// What a refusal says.
    fn words(&self) -> String {
        match String::from_utf8_lossy(&self.body).trim() {
            "" => format!("the master answers {}", self.code),
            words => words.to_owned(),
        }
    }
}

fn of(kind: Type) -> Call {
    Call { r#type: Some(kind.into()), ..Default::default() }
}

/// Asks for a change.
async fn act(masters: &Masters, call: Call) -> anyhow::Result<()> {
    patiently(masters, Operator::new(masters).call(&call)).await.map(drop)
}

/// Asks for what there is.
async fn ask(masters: &Masters, kind: Type) -> anyhow::Result<Response> {
    let answer = patiently(masters, Operator::new(masters).call(&of(kind))).await?;
    Codec::Protobuf.read(&answer).map_err(|error| anyhow::anyhow!("the answer is damaged: {error}"))
}

/// A number as people write it: whole where it is.
fn amount_text(amount: f64) -> String {
    amount.to_string()
}
