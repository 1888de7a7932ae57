//! Calls about containers, as far as plain processes reach: each executor and each task with a process of its own is one.
//! A task of a built-in executor is in one within its executor's.

use super::{
    Reads,
    seen::Seen,
    view::{View, user_among},
};
use crate::{
    history::{Contained, UNKNOWN, Wait},
    sessions::Session,
    supervisor::Found,
};
use axum::body::Body;
use http::{Response, StatusCode};
use mesos::agent::{
    Call, Response as Answer,
    call::Type,
    response::{self, WaitContainer, WaitNestedContainer},
};
use muster_http::answer::plain;
use muster_http::auth::{Action, Claims, Subject, forbidden};
use muster_node::Process;
use muster_proto::{
    agent_api::{container, container_text},
    executor_api::{container_id, nested_container},
    mesos,
};
use prost::Message;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Answers a call that names a container; none if it is no such call.
pub(super) async fn answer(
    on: &Reads,
    who: &Subject,
    kind: Type,
    call: &Call,
) -> Result<Answer, Box<Response<Body>>> {
    let Some((_, id)) = container(call, kind) else {
        return Err(Box::new(muster_http::answer::not_yet(kind.as_str_name())));
    };
    let (text, seen) = (container_text(id), on.seen(View::all()));
    if let (Some(parent), Some(session)) = (&id.parent, on.sessions.find(&text)) {
        return match may(on, who, kind, id, &seen, number(&seen, parent)) {
            true => of_session(on, kind, call, &text, &session).await,
            false => Err(Box::new(forbidden())),
        };
    }
    let number = number(&seen, id);
    if !may(on, who, kind, id, &seen, number) {
        return Err(Box::new(forbidden()));
    }
    let found = number.and_then(|number| seen.history.lives(number));
    match kind {
        Type::WaitContainer | Type::WaitNestedContainer => wait(on, kind, &text, number).await,
        Type::KillContainer | Type::KillNestedContainer => {
            Err(Box::new(kill(&text, found.flatten(), signal(call))))
        }
        _ => Err(Box::new(remove(&seen, id, &text, found.is_some()))),
    }
}

/// What is asked of a session.
async fn of_session(
    on: &Reads,
    kind: Type,
    call: &Call,
    text: &str,
    session: &Session,
) -> Result<Answer, Box<Response<Body>>> {
    match kind {
        Type::WaitContainer | Type::WaitNestedContainer => Ok(waited(
            kind,
            match session.wait().await {
                Found::Exited(code) => code << 8,
                Found::Signaled(signal) => signal,
                Found::TimedOut | Found::Failed(_) => UNKNOWN,
            },
        )),
        Type::KillContainer | Type::KillNestedContainer => {
            Err(Box::new(match session.signal(signal(call)) {
                true => plain(StatusCode::OK, ""),
                false if session.ended().is_some() => gone(text),
                false => {
                    muster_http::answer::unavailable("The container does not take what it was given before")
                }
            }))
        }
        _ if session.ended().is_none() => {
            Err(Box::new(not_removed(text, "Container has not terminated yet")))
        }
        _ => {
            on.sessions.forget(text);
            Err(Box::new(plain(StatusCode::OK, "")))
        }
    }
}

/// An executor may do all to containers within its own.
pub(super) fn is_within_own(claims: &Claims, id: &mesos::ContainerId) -> bool {
    let mut outermost = id;
    while let Some(parent) = &outermost.parent {
        outermost = parent;
    }
    id.parent.is_some() && outermost.value == claims.cid
}

/// The user of what runs in a container.
pub(super) fn user_in(seen: &Seen, number: Contained) -> Option<String> {
    user_among(seen, |_, executor| match number {
        Contained::Alone(number) => executor.number == number,
        Contained::Within(launch) => {
            executor.tasks.iter().chain(&executor.done).any(|task| task.intent.launch == launch)
        }
    })
}

/// The user that a session in a container runs as: a task of a pod may have one of its own.
pub(super) fn session_user(seen: &Seen, number: Contained) -> Option<String> {
    let Contained::Within(launch) = number else { return user_in(seen, number) };
    let own = seen.frameworks().into_iter().find_map(|framework| {
        let executors = framework.executors.iter().chain(&framework.completed);
        let mut tasks = executors.flat_map(|executor| executor.tasks.iter().chain(&executor.done));
        let task = tasks.find(|task| task.intent.launch == launch)?;
        let info = mesos::TaskInfo::decode(&*task.intent.sealed).ok()?;
        info.command.and_then(|command| command.user).filter(|user| !user.is_empty())
    });
    own.or_else(|| user_in(seen, number))
}

/// Whether somebody may do this to a container. An executor may to those within its own.
fn may(
    on: &Reads,
    who: &Subject,
    kind: Type,
    id: &mesos::ContainerId,
    seen: &Seen,
    number: Option<Contained>,
) -> bool {
    if let Some(claims) = &who.claims {
        return is_within_own(claims, id);
    }
    let is_own = number.is_some() || id.parent.is_some();
    let action = match kind {
        Type::WaitContainer | Type::WaitNestedContainer if is_own => Action::WaitNestedContainer,
        Type::WaitContainer | Type::WaitNestedContainer => Action::WaitStandaloneContainer,
        Type::KillContainer | Type::KillNestedContainer if is_own => Action::KillNestedContainer,
        Type::KillContainer | Type::KillNestedContainer => Action::KillStandaloneContainer,
        _ if is_own => Action::RemoveNestedContainer,
        _ => Action::RemoveStandaloneContainer,
    };
    let approver = on.auth.approver(who, action);
    approver.allows_what(|| number.and_then(|number| user_in(seen, number)))
}

/// The run or task in a container.
pub(super) fn number(seen: &Seen, id: &mesos::ContainerId) -> Option<Contained> {
    let history = &seen.history;
    if id.parent.is_some() {
        let mut within = history.tasks.iter().filter_map(|(launch, task)| Some((launch, task.executor?)));
        let found = within.find(|(launch, number)| nested_container(*number, **launch) == *id);
        return found.map(|(launch, _)| Contained::Within(*launch));
    }
    let mut numbers = history.runs.keys().chain(history.tasks.keys());
    numbers.find(|number| container_id(**number) == id.value).map(|number| Contained::Alone(*number))
}

async fn wait(
    on: &Reads,
    kind: Type,
    text: &str,
    number: Option<Contained>,
) -> Result<Answer, Box<Response<Body>>> {
    let unknown = || Box::new(plain(StatusCode::NOT_FOUND, format!("Container {text} cannot be found")));
    let status = match number.map(|number| on.shown.wait(number)) {
        Some(Wait::For(wait)) => wait.await.map_err(|_| unknown())?,
        Some(Wait::Over(status)) => status,
        Some(Wait::TooMany) => {
            return Err(Box::new(muster_http::answer::unavailable("Too many wait for containers")));
        }
        Some(Wait::Unknown) | None => return Err(unknown()),
    };
    Ok(waited(kind, status))
}

fn waited(kind: Type, status: i32) -> Answer {
    // What nobody knows is left out.
    let exit_status = (status >= 0).then_some(status);
    match kind {
        Type::WaitNestedContainer => Answer {
            r#type: Some(response::Type::WaitNestedContainer.into()),
            wait_nested_container: Some(WaitNestedContainer { exit_status, ..Default::default() }),
            ..Default::default()
        },
        _ => Answer {
            r#type: Some(response::Type::WaitContainer.into()),
            wait_container: Some(WaitContainer { exit_status, ..Default::default() }),
            ..Default::default()
        },
    }
}

/// The signal that is asked for.
#[allow(deprecated)]
fn signal(call: &Call) -> i32 {
    let nested = call.kill_nested_container.as_ref().and_then(|it| it.signal);
    let own = call.kill_container.as_ref().and_then(|it| it.signal);
    own.or(nested).unwrap_or(Signal::KILL.as_raw())
}

/// Signals the first process of a container, as Mesos does. What it leaves behind its supervisor ends.
fn kill(text: &str, process: Option<&Process>, number: i32) -> Response<Body> {
    let Some(signal) = Signal::from_named_raw(number) else {
        return muster_http::answer::bad(format!("{number} is no signal"));
    };
    let sent = process.is_some_and(|process| {
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return false };
        // Held, the process keeps its number; then it is told from a later one by its start.
        let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        let start = crate::supervisor::start_time(process.pid);
        start == Some(process.start_time) && pidfd_send_signal(held, signal).is_ok()
    });
    match sent {
        true => plain(StatusCode::OK, ""),
        false => gone(text),
    }
}

fn gone(text: &str) -> Response<Body> {
    plain(StatusCode::NOT_FOUND, format!("Container '{text}' cannot be found (or is already killed)"))
}

fn not_removed(text: &str, why: &str) -> Response<Body> {
    plain(StatusCode::INTERNAL_SERVER_ERROR, format!("Failed to remove container {text}: {why}"))
}

/// What is over is removed by itself; what is within a container that is gone went with it.
fn remove(seen: &Seen, id: &mesos::ContainerId, text: &str, is_live: bool) -> Response<Body> {
    let failed = |why| not_removed(text, why);
    match &id.parent {
        Some(parent) if number(seen, parent).and_then(|it| seen.history.lives(it)).is_none() => {
            plain(StatusCode::OK, "")
        }
        _ if is_live => failed("Container has not terminated yet"),
        _ => failed("Container cannot be found"),
    }
}
