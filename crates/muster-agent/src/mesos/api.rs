//! `POST /api/v1`: the operator API of an agent. The checks come in the order of Mesos' agents, which look at what is
//! accepted before they read the body.

use super::{Reads, containers, messages, metrics, seen::Seen, sessions, view::View};
use axum::body::Body;
use bytes::{Buf, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use mesos::agent::{Call, Response as Answer, call::Type, response};
use muster_http::{
    MESOS_VERSION,
    answer::{bad, not_yet, plain},
    auth::{Action, Subject, forbidden},
    body::Wrapped,
    files::FILE_HEADER,
    logging,
    query::takes_gzip,
    request,
};
use muster_proto::{agent_api::validate, json::Codec, limits::FRAME_BYTES_MAX, media, mesos};
use std::io::Write;

pub(super) type Refusal = Box<Response<Body>>;

pub(super) const RECORDIO: &str = "application/recordio";
pub(super) const MESSAGE_CONTENT_TYPE: &str = "Message-Content-Type";
const MESSAGE_ACCEPT: &str = "Message-Accept";

/// A codec, and whether messages come as records of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) codec: Codec,
    pub(super) is_stream: bool,
}

/// Answers a POST; a refusal is an answer like any other.
pub(super) async fn answer(on: &Reads, who: &Subject, request: Request<Body>) -> Response<Body> {
    match try_answer(on, who, request).await {
        Ok(response) => response,
        Err(refusal) => *refusal,
    }
}

async fn try_answer(on: &Reads, who: &Subject, request: Request<Body>) -> Result<Response<Body>, Refusal> {
    let (head, body) = request.into_parts();
    let (spoken, wanted) = (spoken(&head.headers)?, wanted(&head.headers)?);
    let mut rest = None;
    let body = match spoken.is_stream {
        true => {
            let first = rest.insert(RecordBody::new(body)).next().await?;
            first.ok_or_else(ended)?
        }
        false => request::body(&head.headers, body).await?,
    };
    let call: Call = spoken.codec.read(&body).map_err(|error| Box::new(bad(error.to_string())))?;
    let kind =
        validate(&call).map_err(|why| Box::new(bad(format!("Failed to validate agent::Call: {why}"))))?;
    check_streams(kind, spoken, wanted)?;
    let gzip = takes_gzip(&head.headers);
    if !may(on, who, kind, &call) {
        return Err(Box::new(forbidden()));
    }
    match (kind, rest) {
        (Type::AttachContainerInput, Some(rest)) => {
            let first = call.attach_container_input.unwrap_or_default();
            return sessions::attach_input(on, who, first, rest, spoken.codec).await;
        }
        (Type::AttachContainerOutput, _) => {
            let id = call.attach_container_output.unwrap_or_default().container_id;
            return sessions::attach_output(on, who, &id, wanted).await;
        }
        (Type::LaunchNestedContainerSession, _) => {
            let launch = call.launch_nested_container_session.unwrap_or_default();
            return sessions::launch(on, who, launch, wanted).await;
        }
        (Type::ReadFile, _) => {
            let asked = call.read_file.unwrap_or_default();
            let part = on.files.read(asked.path, Some(asked.offset), asked.length).await?;
            let file = part.file_header();
            let read_file = Some(response::ReadFile { size: part.size, data: part.data.into() });
            let answer = Answer { read_file, ..of(response::Type::ReadFile) };
            let mut response = written(on, wanted.codec, gzip, whole(|| answer)).await;
            response.headers_mut().insert(FILE_HEADER, file);
            return Ok(response);
        }
        _ => {}
    }
    let answer = to(on, who, kind, call).await?;
    Ok(written(on, wanted.codec, gzip, answer).await)
}

async fn written(on: &Reads, codec: Codec, gzip: bool, answer: Making) -> Response<Body> {
    let write = move |out: &mut dyn Write| out.write_all(&codec.write(&answer()));
    on.writers.answer(codec.media_type(), Wrapped { gzip, jsonp: None }, write).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect()
}

pub(super) fn refuse<T>(status: StatusCode, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Box::new(plain(status, why)))
}

/// How the body speaks.
fn spoken(headers: &HeaderMap) -> Result<Form, Refusal> {
    let (whole, of_message) = (text(headers, "Content-Type"), text(headers, MESSAGE_CONTENT_TYPE));
    let Some(kind) = whole.first() else {
        return refuse(StatusCode::BAD_REQUEST, media::Unfit::NoContentType.text());
    };
    let is_stream = kind.split(';').next().is_some_and(|it| it.trim().eq_ignore_ascii_case(RECORDIO));
    match (is_stream, of_message.first()) {
        (false, None) => match media::spoken(Some(kind)) {
            Ok(codec) => Ok(Form { codec, is_stream }),
            Err(why) => refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("{} or {RECORDIO}", why.text())),
        },
        (false, Some(_)) => {
            let why = format!("Expecting '{MESSAGE_CONTENT_TYPE}' to be not set for non-streaming requests");
            refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, why)
        }
        (true, None) => {
            let why = format!("Expecting '{MESSAGE_CONTENT_TYPE}' to be set for streaming requests");
            refuse(StatusCode::BAD_REQUEST, why)
        }
        (true, Some(of_message)) => match media::spoken(Some(of_message)) {
            Ok(codec) => Ok(Form { codec, is_stream }),
            Err(_) => {
                let why = "of application/json or application/x-protobuf";
                refuse(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    format!("Expecting '{MESSAGE_CONTENT_TYPE}' {why}"),
                )
            }
        },
    }
}

/// How the answer shall speak.
fn wanted(headers: &HeaderMap) -> Result<Form, Refusal> {
    let (accepts, of_message) = (text(headers, header::ACCEPT.as_str()), text(headers, MESSAGE_ACCEPT));
    let takes_records = accepts
        .iter()
        .flat_map(|it| it.split(','))
        .any(|kind| kind.split(';').next().is_some_and(|it| it.trim().eq_ignore_ascii_case(RECORDIO)));
    match media::wanted(&accepts) {
        Ok(codec) if of_message.is_empty() => Ok(Form { codec, is_stream: false }),
        Ok(_) => {
            let why = format!("Expecting '{MESSAGE_ACCEPT}' to be not set for non-streaming responses");
            refuse(StatusCode::NOT_ACCEPTABLE, why)
        }
        Err(_) if takes_records => match media::wanted(&of_message) {
            Ok(codec) => Ok(Form { codec, is_stream: true }),
            Err(_) => {
                let why = "to allow application/json or application/x-protobuf";
                refuse(StatusCode::NOT_ACCEPTABLE, format!("Expecting '{MESSAGE_ACCEPT}' {why}"))
            }
        },
        Err(_) => {
            let why = "to allow application/json or application/x-protobuf or application/recordio";
            refuse(StatusCode::NOT_ACCEPTABLE, format!("Expecting 'Accept' {why}"))
        }
    }
}

/// Only some calls stream.
fn check_streams(kind: Type, spoken: Form, wanted: Form) -> Result<(), Refusal> {
    let name = kind.as_str_name();
    match (spoken.is_stream, kind == Type::AttachContainerInput) {
        (true, false) => refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("Streaming 'Content-Type' {RECORDIO} is not supported for {name} call"),
        ),
        (false, true) => refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("Expecting 'Content-Type' to be {RECORDIO} for {name} call"),
        ),
        _ if wanted.is_stream
            && !matches!(kind, Type::AttachContainerOutput | Type::LaunchNestedContainerSession) =>
        {
            let why = format!("Streaming response is not supported for {name} call");
            refuse(StatusCode::NOT_ACCEPTABLE, why)
        }
        _ => Ok(()),
    }
}

/// A body that goes on, as records.
pub(super) struct RecordBody {
    body: Body,
    read: BytesMut,
}

impl RecordBody {
    fn new(body: Body) -> Self {
        Self { body, read: BytesMut::new() }
    }

    /// The next one; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<bytes::Bytes>, Refusal> {
        loop {
            let end = self.read.iter().take(DIGITS_MAX + 1).position(|byte| *byte == b'\n');
            let length = end.map(|end| {
                let text = std::str::from_utf8(&self.read[..end]).ok();
                (end, text.and_then(|text| text.parse::<usize>().ok()))
            });
            match length {
                Some((_, None)) => {
                    return refuse(StatusCode::BAD_REQUEST, "Failed to decode length of a record");
                }
                None if self.read.len() > DIGITS_MAX => {
                    return refuse(StatusCode::BAD_REQUEST, "Failed to decode length of a record");
                }
                Some((_, Some(length))) if length > FRAME_BYTES_MAX => {
                    let why = format!("A record has more than {FRAME_BYTES_MAX} bytes");
                    return refuse(StatusCode::PAYLOAD_TOO_LARGE, why);
                }
                Some((end, Some(length))) if self.read.len() > end + length => {
                    self.read.advance(end + 1);
                    return Ok(Some(self.read.split_to(length).freeze()));
                }
                _ => {}
            }
            match self.body.frame().await {
                None if self.read.is_empty() => return Ok(None),
                None => return Err(ended()),
                Some(Ok(frame)) => {
                    self.read.extend_from_slice(frame.data_ref().unwrap_or(&bytes::Bytes::new()));
                }
                Some(Err(error)) => {
                    return refuse(StatusCode::BAD_REQUEST, format!("The body broke off: {error}"));
                }
            }
        }
    }
}

/// Digits of the longest length of a record.
const DIGITS_MAX: usize = 20;

fn ended() -> Refusal {
    Box::new(plain(StatusCode::BAD_REQUEST, "Received EOF while reading request body"))
}

/// What makes an answer, on a thread that may block.
type Making = Box<dyn FnOnce() -> Answer + Send>;

/// Whether a call may be made at all. What is read shows what may be seen; containers are judged with the call.
fn may(on: &Reads, who: &Subject, kind: Type, call: &Call) -> bool {
    let whole = |action| on.auth.may(who, action, None);
    match kind {
        Type::GetFlags => whole(Action::ViewFlags),
        Type::SetLoggingLevel => whole(Action::SetLogLevel),
        Type::ListFiles => call.list_files.as_ref().is_none_or(|it| on.may_see_file(who, &it.path)),
        Type::ReadFile => call.read_file.as_ref().is_none_or(|it| on.may_see_file(who, &it.path)),
        Type::MarkResourceProviderGone => whole(Action::MarkResourceProvidersGone),
        Type::AddResourceProviderConfig
        | Type::UpdateResourceProviderConfig
        | Type::RemoveResourceProviderConfig => whole(Action::ModifyResourceProviderConfig),
        Type::PruneImages => whole(Action::PruneImages),
        _ => true,
    }
}

async fn to(on: &Reads, who: &Subject, kind: Type, call: Call) -> Result<Making, Refusal> {
    let view = match kind {
        Type::GetContainers => View::of_containers(&on.auth, who),
        _ => View::of(&on.auth, who),
    };
    let seen = || on.seen(view);
    Ok(match kind {
        Type::Unknown => return refuse(StatusCode::NOT_IMPLEMENTED, "Received 'UNKNOWN' call"),
        Type::GetHealth => whole(|| here(Type::GetHealth, &Default::default())),
        Type::GetVersion => whole(|| here(Type::GetVersion, &Default::default())),
        Type::GetLoggingLevel => whole(|| here(Type::GetLoggingLevel, &Default::default())),
        Type::GetFlags => {
            let about = on.about.clone();
            whole(move || here(Type::GetFlags, &about.flags))
        }
        Type::SetLoggingLevel => {
            // Done or not, it is answered without a message.
            let asked = call.set_logging_level.unwrap_or_default();
            return Err(Box::new(logging::set(asked.level, asked.duration.nanoseconds)));
        }
        Type::ListFiles => {
            let path = call.list_files.unwrap_or_default().path;
            let file_infos = on.files.list(path).await?;
            let list_files = Some(response::ListFiles { file_infos });
            whole(|| Answer { list_files, ..of(response::Type::ListFiles) })
        }
        Type::GetMetrics
        | Type::GetState
        | Type::GetFrameworks
        | Type::GetExecutors
        | Type::GetOperations
        | Type::GetTasks
        | Type::GetAgent
        | Type::GetResourceProviders => {
            let seen = seen();
            whole(move || read(kind, &seen))
        }
        Type::GetContainers => {
            let (seen, nested) = (seen(), call.get_containers.unwrap_or_default().show_nested());
            whole(move || {
                let get_containers = Some(messages::containers(&seen, nested));
                Answer { get_containers, ..of(response::Type::GetContainers) }
            })
        }
        Type::WaitContainer
        | Type::WaitNestedContainer
        | Type::KillContainer
        | Type::KillNestedContainer
        | Type::RemoveContainer
        | Type::RemoveNestedContainer => {
            let answer = containers::answer(on, who, kind, &call).await?;
            whole(|| answer)
        }
        Type::MarkResourceProviderGone => {
            let id = call.mark_resource_provider_gone.map(|it| it.resource_provider_id.value);
            let why = format!("Resource provider '{}' cannot be found", id.unwrap_or_default());
            return refuse(StatusCode::NOT_FOUND, why);
        }
        Type::LaunchContainer
        | Type::LaunchNestedContainer
        | Type::LaunchNestedContainerSession
        | Type::AttachContainerInput
        | Type::AttachContainerOutput
        | Type::ReadFile
        | Type::AddResourceProviderConfig
        | Type::UpdateResourceProviderConfig
        | Type::RemoveResourceProviderConfig
        | Type::PruneImages => return Err(Box::new(not_yet(kind.as_str_name()))),
    })
}

fn whole(make: impl FnOnce() -> Answer + Send + 'static) -> Making {
    Box::new(make)
}

fn of(kind: response::Type) -> Answer {
    Answer { r#type: Some(kind.into()), ..Default::default() }
}

/// What needs nothing of the tasks.
fn here(kind: Type, flags: &std::collections::BTreeMap<&'static str, String>) -> Answer {
    match kind {
        Type::GetFlags => {
            let flag = |(name, value): (&&str, &String)| mesos::Flag {
                name: (*name).into(),
                value: Some(value.clone()),
            };
            let get_flags = Some(response::GetFlags { flags: flags.iter().map(flag).collect() });
            Answer { get_flags, ..of(response::Type::GetFlags) }
        }
        Type::GetVersion => {
            let version_info = mesos::VersionInfo { version: MESOS_VERSION.into(), ..Default::default() };
            let get_version = Some(response::GetVersion { version_info });
            Answer { get_version, ..of(response::Type::GetVersion) }
        }
        Type::GetLoggingLevel => {
            let get_logging_level = Some(response::GetLoggingLevel { level: logging::level() });
            Answer { get_logging_level, ..of(response::Type::GetLoggingLevel) }
        }
        _ => {
            let get_health = Some(response::GetHealth { healthy: true });
            Answer { get_health, ..of(response::Type::GetHealth) }
        }
    }
}

/// What is read, from one moment.
pub(super) fn read(kind: Type, seen: &Seen) -> Answer {
    match kind {
        Type::GetMetrics => {
            let metric = |(name, value)| mesos::Metric { name, value: Some(value) };
            let metrics = metrics::all(seen).into_iter().map(metric).collect();
            let get_metrics = Some(response::GetMetrics { metrics });
            Answer { get_metrics, ..of(response::Type::GetMetrics) }
        }
        Type::GetState => Answer { get_state: Some(messages::state(seen)), ..of(response::Type::GetState) },
        Type::GetFrameworks => {
            let get_frameworks = Some(messages::frameworks(seen));
            Answer { get_frameworks, ..of(response::Type::GetFrameworks) }
        }
        Type::GetExecutors => {
            let get_executors = Some(messages::executors(seen));
            Answer { get_executors, ..of(response::Type::GetExecutors) }
        }
        Type::GetTasks => Answer { get_tasks: Some(messages::tasks(seen)), ..of(response::Type::GetTasks) },
        Type::GetAgent => Answer { get_agent: Some(messages::agent(seen)), ..of(response::Type::GetAgent) },
        // Operations are the registry's, and nobody provides resources.
        Type::GetOperations => {
            Answer { get_operations: Some(Default::default()), ..of(response::Type::GetOperations) }
        }
        _ => Answer {
            get_resource_providers: Some(Default::default()),
            ..of(response::Type::GetResourceProviders)
        },
    }
}
