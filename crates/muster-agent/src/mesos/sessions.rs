//! Calls that look into containers: a command is run beside a task, or the task's own terminal is joined, and the streams
//! go over the calls' bodies.

use super::{
    Reads,
    api::{Form, RecordBody, Refusal, refuse},
    containers::{is_within_own, number, session_user, user_in},
    view::View,
};
use crate::{
    command::{Unfit, program, variables},
    containers::terminal_size,
    sessions::{Listening, NotLaunched, Output, Session},
    supervisor::SessionSpec,
};
use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use mesos::{
    agent::{
        Call, ProcessIo,
        call::{AttachContainerInput, LaunchNestedContainerSession, attach_container_input},
        process_io::{self, Control, Data, control::Heartbeat},
    },
    container_info,
};
use muster_http::{
    answer::{bad, plain, unavailable},
    auth::{Action, Subject, forbidden},
};
use muster_proto::{agent_api::container_text, media::record, mesos};
use std::{io, sync::Arc, time::Duration};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often who reads is told that the agent lives (Mesos).
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Runs a command in a container, and answers with what it writes.
pub(super) async fn launch(
    on: &Reads,
    who: &Subject,
    call: LaunchNestedContainerSession,
    wanted: Form,
) -> Result<Response<Body>, Refusal> {
    let id = &call.container_id;
    let name = container_text(id);
    let Some(parent) = id.parent.as_deref() else {
        return refuse(StatusCode::BAD_REQUEST, "Expecting 'container_id.parent' to be present");
    };
    let seen = on.seen(View::all());
    let number = number(&seen, parent);
    let of_parent = number.and_then(|number| user_in(&seen, number));
    let runs_as = number.and_then(|number| session_user(&seen, number));
    let command = call.command.clone().unwrap_or_default();
    let named = command.user.as_deref().filter(|user| !user.is_empty());
    let may = match &who.claims {
        Some(claims) => is_within_own(claims, id),
        None => {
            let may = |action, user: Option<&str>| on.auth.approver(who, action).allows(user);
            may(Action::LaunchNestedContainerSessionUnderParentWithUser, of_parent.as_deref())
                && may(Action::LaunchNestedContainerSessionAsUser, named.or(runs_as.as_deref()))
        }
    };
    if !may {
        return Err(Box::new(forbidden()));
    }
    let failed = |why: String| Box::new(bad(format!("Failed to launch container {name}: {why}")));
    let Some(lives) = number.and_then(|number| seen.history.lives(number)) else {
        return Err(failed(format!("Unable to find parent container {}", container_text(parent))));
    };
    let Some(process) = lives else {
        let why = "its parent has no process as yet, or never has one: name the container of a task";
        return Err(failed(why.into()));
    };
    if named.is_some() && named != runs_as.as_deref() {
        return Err(failed("a session runs as the user of its parent: leave command.user out".into()));
    }
    let what = spec(&call).map_err(failed)?;
    let launch = number.map(crate::history::Contained::launch).unwrap_or_default();
    match on.sessions.launch(&name, launch, process, what).await {
        Ok(outputs) => Ok(streamed(outputs, wanted)),
        Err(NotLaunched::InUse) => {
            refuse(StatusCode::ACCEPTED, format!("Container {name} is launched already"))
        }
        Err(NotLaunched::TooMany) => Err(Box::new(unavailable("Too many sessions are open on this agent"))),
        Err(NotLaunched::Failed(why)) => Err(failed(why)),
    }
}

/// What is run; what a session cannot have is refused in words.
fn spec(call: &LaunchNestedContainerSession) -> Result<SessionSpec, String> {
    let command = call.command.as_ref().ok_or("it has no command")?;
    if !command.uris.is_empty() {
        return Err("nothing is fetched for a session: leave command.uris out".into());
    }
    let mut tty = None;
    if let Some(container) = &call.container {
        let shares = container.linux_info.as_ref().is_none_or(mesos::LinuxInfo::share_cgroups);
        let is_plain = container.r#type() == container_info::Type::Mesos
            && container.mesos.as_ref().is_none_or(|it| it.image.is_none())
            && container.volumes.is_empty();
        if !shares {
            return Err(
                "container.linux_info.share_cgroups must be true: a session is in its parent's".into()
            );
        }
        if !is_plain {
            return Err("a session has what its parent has: only container.tty_info may be said".into());
        }
        tty = container.tty_info.as_ref().map(terminal_size);
    }
    let words = |unfit| match unfit {
        Unfit::Invalid(why) | Unfit::Here(why) => why,
    };
    let (program, arg0, args) = program(command).map_err(words)?;
    Ok(SessionSpec { program, arg0, args, env: variables(command).map_err(words)?, tty })
}

/// What can be joined.
enum Joined {
    /// A session.
    Session(Arc<Session>),
    /// The terminal of a task itself.
    Terminal(Arc<Session>, Option<Listening>),
}

/// Joins what is meant, if somebody may do this to it.
async fn join(on: &Reads, who: &Subject, id: &mesos::ContainerId, action: Action) -> Result<Joined, Refusal> {
    let (name, seen) = (container_text(id), on.seen(View::all()));
    let of_session = on.sessions.find(&name).filter(|session| session.ended().is_none());
    let at = if of_session.is_some() { id.parent.as_deref().unwrap_or(id) } else { id };
    let number = number(&seen, at);
    let may = match &who.claims {
        Some(claims) => is_within_own(claims, id),
        None => on.auth.approver(who, action).allows_what(|| number.and_then(|it| user_in(&seen, it))),
    };
    let none = |why: &str| {
        let why = format!("Container {name} cannot be attached to: {why}");
        refuse(StatusCode::INTERNAL_SERVER_ERROR, why)
    };
    match (may, of_session, number.and_then(|number| Some((number, seen.history.lives(number)?)))) {
        (false, ..) => Err(Box::new(forbidden())),
        (true, Some(session), _) => Ok(Joined::Session(session)),
        (true, None, Some((number, Some(process)))) => {
            let output = action == Action::AttachContainerOutput;
            match on.sessions.attach(number.launch(), process, output).await {
                Ok((session, listening)) => Ok(Joined::Terminal(session, listening)),
                Err(why) => none(&why),
            }
        }
        (true, None, Some((_, None))) => none("it has no process"),
        (true, None, None) => refuse(StatusCode::NOT_FOUND, format!("Container {name} cannot be found")),
    }
}

/// Answers with what a session writes, or the terminal of a task shows, from now on.
pub(super) async fn attach_output(
    on: &Reads,
    who: &Subject,
    id: &mesos::ContainerId,
    wanted: Form,
) -> Result<Response<Body>, Refusal> {
    let outputs = match join(on, who, id, Action::AttachContainerOutput).await? {
        Joined::Session(session) => session.listen(),
        Joined::Terminal(_, listening) => listening,
    };
    let outputs = outputs.ok_or_else(|| Box::new(unavailable("Too many are attached to this container")))?;
    Ok(streamed(outputs, wanted))
}

/// Gives a session, or the terminal of a task, what comes with the body, until that or the session ends.
pub(super) async fn attach_input(
    on: &Reads,
    who: &Subject,
    first: AttachContainerInput,
    mut rest: RecordBody,
    codec: muster_proto::json::Codec,
) -> Result<Response<Body>, Refusal> {
    let id = match (first.r#type(), first.container_id) {
        (attach_container_input::Type::ContainerId, Some(id)) => id,
        (attach_container_input::Type::ContainerId, None) => {
            return refuse(
                StatusCode::BAD_REQUEST,
                "Failed to validate agent::Call: Expecting 'attach_container_input.container_id' to be present",
            );
        }
        _ => {
            let why = "Expecting 'attach_container_input.type' of the first record to be CONTAINER_ID";
            return refuse(StatusCode::BAD_REQUEST, why);
        }
    };
    let (Joined::Session(session) | Joined::Terminal(session, _)) =
        join(on, who, &id, Action::AttachContainerInput).await?;
    loop {
        let next = tokio::select! {
            next = rest.next() => next?,
            _ = session.wait() => None,
        };
        let Some(next) = next else { break };
        let call: Call = codec.read(&next).map_err(|error| Box::new(bad(error.to_string())))?;
        let Some(io) = call.attach_container_input.and_then(|it| it.process_io) else {
            let why = "Expecting 'attach_container_input.process_io' to be present";
            return refuse(StatusCode::BAD_REQUEST, why);
        };
        if !given(&session, &io).await? {
            break; // it is over
        }
    }
    Ok(plain(StatusCode::OK, ""))
}

/// Hands one message on. False: the session is over.
async fn given(session: &Session, io: &ProcessIo) -> Result<bool, Refusal> {
    match (&io.data, &io.control) {
        (Some(data), None) if data.r#type() == process_io::data::Type::Stdin => {
            Ok(session.give(data.data()).await)
        }
        (None, Some(control)) => match control.r#type() {
            process_io::control::Type::TtyInfo => {
                let Some(to) = control.tty_info.as_ref().filter(|it| it.window_size.is_some()) else {
                    let why = "Expecting 'process_io.control.tty_info.window_size' to be present";
                    return refuse(StatusCode::BAD_REQUEST, why);
                };
                let (rows, columns) = terminal_size(to);
                Ok(session.resize(rows, columns).await)
            }
            process_io::control::Type::Heartbeat => Ok(session.ended().is_none()),
            process_io::control::Type::Unknown => {
                refuse(StatusCode::BAD_REQUEST, "'process_io.control.type' is unknown")
            }
        },
        _ => refuse(StatusCode::BAD_REQUEST, "Expecting 'process_io' to be data of STDIN, or control"),
    }
}

/// What a session writes, as records of an answer's body. The session is left when the body is dropped. A body that
/// is cut off does not end as others do.
fn streamed(outputs: Listening, wanted: Form) -> Response<Body> {
    let mut beats = interval(HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let codec = wanted.codec;
    let body = Body::from_stream(records(outputs, beats, move |io| record(&codec.write(io))));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let of_message = HeaderValue::from_static(codec.media_type());
    match wanted.is_stream {
        true => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(super::api::RECORDIO));
            headers.insert(super::api::MESSAGE_CONTENT_TYPE, of_message);
        }
        false => drop(headers.insert(header::CONTENT_TYPE, of_message)),
    }
    response
}

fn records(
    outputs: Listening,
    beats: Interval,
    write: impl Fn(&ProcessIo) -> Bytes,
) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold((Some(outputs), beats, write), |(mut outputs, mut beats, write)| async {
        let listening = outputs.as_mut()?;
        let next = tokio::select! {
            biased;
            output = listening.next() => match output {
                Some(output) => said(output),
                None if listening.is_cut() => {
                    return Some((Err(io::ErrorKind::ConnectionAborted.into()), (None, beats, write)));
                }
                None => return None,
            },
            _ = beats.tick() => heartbeat(),
        };
        let record = write(&next);
        Some((Ok(record), (outputs, beats, write)))
    })
}

fn said(output: Output) -> ProcessIo {
    let from = if output.is_error { process_io::data::Type::Stderr } else { process_io::data::Type::Stdout };
    let data = Data { r#type: Some(from.into()), data: Some(output.bytes.into()) };
    ProcessIo { r#type: Some(process_io::Type::Data.into()), data: Some(data), control: None }
}

fn heartbeat() -> ProcessIo {
    let nanoseconds = i64::try_from(HEARTBEAT.as_nanos()).unwrap_or(i64::MAX);
    let control = Control {
        r#type: Some(process_io::control::Type::Heartbeat.into()),
        heartbeat: Some(Heartbeat { interval: Some(mesos::DurationInfo { nanoseconds }) }),
        ..Default::default()
    };
    ProcessIo { r#type: Some(process_io::Type::Control.into()), control: Some(control), data: None }
}
