//! The files of agents, by their Mesos API.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use mesos::agent::{Call, Response as Answer, call};
use muster_http::files::FILE_HEADER;
use muster_proto::{json::Codec, mesos};
use muster_sdk::Credential;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::{collections::BTreeMap, convert::Infallible, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

const RECORDIO: &str = "application/recordio";
const DIAL_TIME: Duration = Duration::from_secs(2);
/// How long an agent may take to begin its answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The longest listing that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why an agent could not be read from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// It may answer later, or elsewhere.
    #[error("{0}")]
    Away(String),
    /// It has no such file.
    #[error("there is no such file; its sandbox may be removed already")]
    NotThere,
    /// It will not be different later.
    #[error("{0}")]
    Refused(String),
}

/// What is read of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePart {
    pub(crate) bytes: Vec<u8>,
    /// How long the whole file is.
    pub(crate) size: u64,
    /// Which file it is, whatever its name; none: the agent does not say.
    pub(crate) file: Option<String>,
}

/// Asks agents.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    credential: Option<Credential>,
    requests: Client<HttpConnector, Full<Bytes>>,
}

impl Agent {
    pub(crate) fn new(credential: Option<Credential>) -> Self {
        Self { credential, requests: Client::builder(TokioExecutor::new()).build(connector()) }
    }

    /// What is in a directory.
    pub(crate) async fn list(&self, address: &str, path: &str) -> Result<Vec<mesos::FileInfo>, Failed> {
        let list_files = Some(call::ListFiles { path: path.into() });
        let call = Call { list_files, ..of(call::Type::ListFiles) };
        Ok(self.call(address, &call).await?.list_files.unwrap_or_default().file_infos)
    }

    /// A part of a file, as much as the agent gives at once from there on.
    pub(crate) async fn read(&self, address: &str, path: &str, offset: u64) -> Result<FilePart, Failed> {
        let read_file = Some(call::ReadFile { path: path.into(), offset, length: None });
        let call = Call { read_file, ..of(call::Type::ReadFile) };
        let response = self.called(address, &call).await?;
        let file = response.headers().get(FILE_HEADER);
        let file = file.and_then(|it| it.to_str().ok()).filter(|it| !it.is_empty()).map(str::to_owned);
        let part = answer(response).await?.read_file.unwrap_or_default();
        Ok(FilePart { bytes: part.data.to_vec(), size: part.size, file })
    }

    /// A whole file, as it comes.
    pub(crate) async fn download(&self, address: &str, path: &str) -> Result<Incoming, Failed> {
        let path = utf8_percent_encode(path, NON_ALPHANUMERIC);
        let request = Request::get(format!("http://{address}/files/download?path={path}"));
        Ok(self.send(address, request, Bytes::new()).await?.into_body())
    }

    /// All that it counts and measures, by name.
    pub(crate) async fn metrics(&self, address: &str) -> Result<BTreeMap<String, f64>, Failed> {
        let request = Request::get(format!("http://{address}/metrics/snapshot"));
        let response = self.send(address, request, Bytes::new()).await?;
        serde_json::from_slice(&whole(response).await?)
            .map_err(|error| Failed::Away(format!("its answer is damaged: {error}")))
    }

    /// The containers that live, with those within others.
    pub(crate) async fn containers(
        &self,
        address: &str,
    ) -> Result<Vec<mesos::agent::response::get_containers::Container>, Failed> {
        let get_containers = Some(call::GetContainers { show_nested: Some(true), ..Default::default() });
        let call = Call { get_containers, ..of(call::Type::GetContainers) };
        Ok(self.call(address, &call).await?.get_containers.unwrap_or_default().containers)
    }

    /// The wait status of a container that is over, or is soon.
    pub(crate) async fn wait(&self, address: &str, id: &mesos::ContainerId) -> Result<i32, Failed> {
        let wait_container = Some(call::WaitContainer { container_id: id.clone() });
        let call = Call { wait_container, ..of(call::Type::WaitContainer) };
        let status = self.call(address, &call).await?.wait_container.unwrap_or_default().exit_status;
        status.ok_or_else(|| Failed::Refused("its status is not known".into()))
    }

    /// What a call answers with, record by record.
    pub(crate) async fn stream(&self, address: &str, call: &Call) -> Result<Incoming, Failed> {
        let kind = Codec::Protobuf.media_type();
        let request = self
            .posted(address)
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, RECORDIO)
            .header("Message-Accept", kind);
        Ok(self.send(address, request, Codec::Protobuf.write(call)).await?.into_body())
    }

    /// Sends records until there are no more, or the agent wants none.
    pub(crate) async fn give(&self, address: &str, records: mpsc::Receiver<Bytes>) -> Result<(), Failed> {
        let frames = ReceiverStream::new(records).map(|record| Ok::<_, Infallible>(Frame::data(record)));
        let mut request = self
            .posted(address)
            .header(header::CONTENT_TYPE, RECORDIO)
            .header("Message-Content-Type", Codec::Protobuf.media_type());
        if let Some(credential) = &self.credential {
            request = request.header(header::AUTHORIZATION, credential.header());
        }
        let request = request
            .body(StreamBody::new(frames).boxed())
            .map_err(|error| Failed::Refused(format!("{address:?} cannot be asked: {error}")))?;
        let client = Client::builder(TokioExecutor::new()).build(connector());
        let answered = client.request(request).await.map_err(|error| Failed::Away(cause(&error)))?;
        match answered.status() {
            StatusCode::OK => Ok(()),
            status => Err(Failed::Refused(format!("it takes no input: {status}"))),
        }
    }

    fn posted(&self, address: &str) -> http::request::Builder {
        Request::post(format!("http://{address}/api/v1"))
    }

    async fn call(&self, address: &str, call: &Call) -> Result<Answer, Failed> {
        answer(self.called(address, call).await?).await
    }

    async fn called(&self, address: &str, call: &Call) -> Result<Response<Incoming>, Failed> {
        let codec = Codec::Protobuf;
        let request = self
            .posted(address)
            .header(header::CONTENT_TYPE, codec.media_type())
            .header(header::ACCEPT, codec.media_type());
        self.send(address, request, codec.write(call)).await
    }

    async fn send(
        &self,
        address: &str,
        mut request: http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failed> {
        if let Some(credential) = &self.credential {
            request = request.header(header::AUTHORIZATION, credential.header());
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Failed::Refused(format!("{address:?} cannot be asked: {error}")))?;
        let response = timeout(ANSWER_TIME, self.requests.request(request)).await;
        let response = response
            .map_err(|_| Failed::Away(format!("no answer for {} s", ANSWER_TIME.as_secs())))?
            .map_err(|error| Failed::Away(cause(&error)))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(Failed::NotThere),
            StatusCode::SERVICE_UNAVAILABLE => Err(Failed::Away("it is not ready".into())),
            StatusCode::UNAUTHORIZED => {
                Err(Failed::Refused("it wants to know who asks: give --credential PRINCIPAL:FILE".into()))
            }
            status => {
                let words = whole(response).await.unwrap_or_default();
                let words = String::from_utf8_lossy(&words).trim().to_owned();
                let why = if words.is_empty() { format!("it answers {status}") } else { words };
                Err(Failed::Refused(why))
            }
        }
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(DIAL_TIME));
    connector
}

async fn answer(response: Response<Incoming>) -> Result<Answer, Failed> {
    let read = Codec::Protobuf.read(&whole(response).await?);
    read.map_err(|error| Failed::Away(format!("its answer is damaged: {error}")))
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Failed> {
    let body = timeout(ANSWER_TIME, Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect()).await;
    let body = body.map_err(|_| Failed::Away("its answer does not end".into()))?;
    body.map(|body| body.to_bytes())
        .map_err(|error| Failed::Away(format!("its answer cannot be read: {error}")))
}

fn of(kind: call::Type) -> Call {
    Call { r#type: Some(kind.into()), ..Default::default() }
}

/// The last of an error's causes: the system's own word.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
