//! How a task is looked after: checks, health checks, kill policy and completion time of a TaskInfo, and what is told of
//! them in a status.

use crate::error::{Within, required};
use crate::executor_api::{container_status, nested_container_status};
use crate::task::{duration_ms, runnable};
use crate::{WireError, mesos};
use mesos::{check_info, check_status_info, environment::variable, health_check};
use muster_model::{CheckKind, CheckResult, CheckTerms, HealthTerms, Sealed, TaskTerms, Told};
use prost::Message;

/// What an agent keeps to of a task, with what is wrong with it (Mesos v1).
pub(crate) fn terms(info: &mesos::TaskInfo) -> Result<TaskTerms, WireError> {
    Ok(TaskTerms {
        tells_killing: false,
        completion_ms: duration_ms(info.max_completion_time.as_ref())
            .map_err(|_| WireError::new("max_completion_time", "is negative, must be 0 or more"))?,
        health: info.health_check.as_ref().map(health_terms).transpose().within("health_check")?,
        check: info.check.as_ref().map(check_terms).transpose().within("check")?,
    })
}

/// The same of a task that was checked once; what is wrong is left out.
pub(crate) fn terms_of(task_info: &[u8], framework_info: &[u8]) -> TaskTerms {
    use mesos::framework_info::capability::Type;
    let info = mesos::TaskInfo::decode(task_info).unwrap_or_default();
    let framework = mesos::FrameworkInfo::decode(framework_info).unwrap_or_default();
    let tells_killing =
        framework.capabilities.iter().any(|it| it.r#type == Some(Type::TaskKillingState.into()));
    TaskTerms { tells_killing, ..terms(&info).unwrap_or_default() }
}

fn check_terms(check: &mesos::CheckInfo) -> Result<CheckTerms, WireError> {
    use check_info::Type;
    let kind = match check.r#type.and_then(|kind| Type::try_from(kind).ok()) {
        Some(Type::Command) => {
            command(&required("command", check.command.as_ref())?.command).within("command.command")?;
            CheckKind::Command
        }
        Some(Type::Http) => {
            let http = required("http", check.http.as_ref())?;
            port(http.port).within("http")?;
            path(http.path.as_deref()).within("http")?;
            CheckKind::Http
        }
        Some(Type::Tcp) => {
            port(required("tcp", check.tcp.as_ref())?.port).within("tcp")?;
            CheckKind::Tcp
        }
        Some(Type::Unknown) | None => return Err(no_type()),
    };
    times(kind, check.delay_seconds(), check.interval_seconds(), check.timeout_seconds())
}

/// The kind of a health check; one that does not say is of the kind of the part that it has.
pub fn health_kind(check: &mesos::HealthCheck) -> Option<CheckKind> {
    use health_check::Type;
    match check.r#type.map(Type::try_from) {
        Some(Ok(Type::Command)) => Some(CheckKind::Command),
        Some(Ok(Type::Http)) => Some(CheckKind::Http),
        Some(Ok(Type::Tcp)) => Some(CheckKind::Tcp),
        Some(_) => None,
        None if check.command.is_some() => Some(CheckKind::Command),
        None => check.http.is_some().then_some(CheckKind::Http),
    }
}

fn health_terms(check: &mesos::HealthCheck) -> Result<HealthTerms, WireError> {
    let kind = health_kind(check).ok_or_else(no_type)?;
    match kind {
        CheckKind::Command => {
            command(required("command", check.command.as_ref())?).within("command")?;
        }
        CheckKind::Http => {
            let http = required("http", check.http.as_ref())?;
            port(http.port).within("http")?;
            path(http.path.as_deref()).within("http")?;
            if let Some(scheme) = http.scheme.as_deref().filter(|it| !matches!(*it, "http" | "https")) {
                let why = format!("is {scheme:?}, must be \"http\" or \"https\"");
                return Err(WireError::new("http.scheme", why));
            }
        }
        CheckKind::Tcp => port(required("tcp", check.tcp.as_ref())?.port).within("tcp")?,
    }
    Ok(HealthTerms {
        check: times(kind, check.delay_seconds(), check.interval_seconds(), check.timeout_seconds())?,
        grace_ms: ms("grace_period_seconds", check.grace_period_seconds())?,
        failures_max: check.consecutive_failures().max(1),
    })
}

fn no_type() -> WireError {
    WireError::new("type", "is missing or not known: set COMMAND, HTTP or TCP, and the part of that name")
}

fn times(kind: CheckKind, delay: f64, interval: f64, timeout: f64) -> Result<CheckTerms, WireError> {
    Ok(CheckTerms {
        kind,
        delay_ms: ms("delay_seconds", delay)?,
        interval_ms: ms("interval_seconds", interval)?,
        timeout_ms: ms("timeout_seconds", timeout)?,
    })
}

fn ms(field: &str, seconds: f64) -> Result<u64, WireError> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(WireError::new(field, format!("is {seconds}, must be 0 or more")));
    }
    // More than there are stands for ever.
    Ok((seconds * 1_000.0).ceil() as u64)
}

fn port(port: u32) -> Result<(), WireError> {
    match u16::try_from(port) {
        Ok(1..) => Ok(()),
        _ => Err(WireError::new("port", format!("is {port}, must be 1 to 65535"))),
    }
}

fn path(path: Option<&str>) -> Result<(), WireError> {
    match path {
        Some(path) if !path.starts_with('/') => {
            Err(WireError::new("path", format!("is {path:?}, must begin with '/'")))
        }
        _ => Ok(()),
    }
}

fn command(command: &mesos::CommandInfo) -> Result<(), WireError> {
    runnable(command, false)?;
    for variable in command.environment.iter().flat_map(|it| &it.variables) {
        let wrong = match variable.r#type() {
            variable::Type::Value if variable.value.is_none() => "of type VALUE needs a value",
            variable::Type::Value if variable.secret.is_some() => "of type VALUE must have no secret",
            variable::Type::Secret if variable.secret.is_none() => "of type SECRET needs a secret",
            variable::Type::Secret if variable.value.is_some() => "of type SECRET must have no value",
            variable::Type::Unknown => "has a type that is not known",
            variable::Type::Value | variable::Type::Secret => continue,
        };
        return Err(WireError::new("environment", format!("variable {:?} {wrong}", variable.name)));
    }
    Ok(())
}

/// The parts of a `mesos.v1.TaskStatus` that are not decided on; its state is put on top of them.
pub fn told_status(told: &Told<'_>) -> Sealed {
    let (container, executor_id) = match told.within {
        Some((number, id)) => (nested_container_status(number, told.launch), id.as_str()),
        None => (container_status(told.launch), told.task_id.as_str()),
    };
    let status = mesos::TaskStatus {
        task_id: mesos::TaskId { value: told.task_id.to_string() },
        timestamp: Some(told.wall.0 as f64 / 1000.0),
        executor_id: Some(mesos::ExecutorId { value: executor_id.into() }),
        healthy: told.healthy,
        check_status: told.check.map(check_status),
        container_status: Some(container),
        ..Default::default()
    };
    Sealed::new(status.encode_to_vec())
}

fn check_status(result: CheckResult) -> mesos::CheckStatusInfo {
    use check_info::Type;
    use check_status_info::{Command, Http, Tcp};
    let (kind, exit, code, connected) = match result {
        CheckResult::Nothing(CheckKind::Command) => (Type::Command, None, None, None),
        CheckResult::Nothing(CheckKind::Http) => (Type::Http, None, None, None),
        CheckResult::Nothing(CheckKind::Tcp) => (Type::Tcp, None, None, None),
        CheckResult::Exit(status) => (Type::Command, Some(status), None, None),
        CheckResult::Status(status) => (Type::Http, None, Some(status), None),
        CheckResult::Connected(connected) => (Type::Tcp, None, None, Some(connected)),
    };
    mesos::CheckStatusInfo {
        r#type: Some(kind.into()),
        command: (kind == Type::Command).then_some(Command { exit_code: exit }),
        http: (kind == Type::Http).then_some(Http { status_code: code }),
        tcp: (kind == Type::Tcp).then_some(Tcp { succeeded: connected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::{LaunchNumber, TaskId, WallTime};

    fn wrong(change: impl FnOnce(&mut mesos::TaskInfo)) -> String {
        let mut info = mesos::TaskInfo::default();
        change(&mut info);
        terms(&info).map_or_else(|error| error.to_string(), |terms| format!("{terms:?}"))
    }

    fn shell(value: &str) -> mesos::CommandInfo {
        mesos::CommandInfo { value: Some(value.into()), ..Default::default() }
    }

    #[test]
    fn a_health_check_has_mesos_defaults_and_a_kind_by_its_part() {
        let health = |check: mesos::HealthCheck| {
            terms(&mesos::TaskInfo { health_check: Some(check), ..Default::default() })
                .unwrap()
                .health
                .unwrap()
        };
        let found = health(mesos::HealthCheck { command: Some(shell("true")), ..Default::default() });
        let times = CheckTerms {
            kind: CheckKind::Command,
            delay_ms: 15_000,
            interval_ms: 10_000,
            timeout_ms: 20_000,
        };
        assert_eq!(found, HealthTerms { check: times, grace_ms: 10_000, failures_max: 3 });
        let http = health_check::HttpCheckInfo { port: 80, ..Default::default() };
        let found = health(mesos::HealthCheck {
            http: Some(http),
            consecutive_failures: Some(0),
            delay_seconds: Some(0.0005),
            ..Default::default()
        });
        assert_eq!((found.check.kind, found.check.delay_ms, found.failures_max), (CheckKind::Http, 1, 1));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        use mesos::{CheckInfo, HealthCheck};
        let nanoseconds = -1;
        let negative = mesos::DurationInfo { nanoseconds };
        let http = |path: &str, scheme: Option<&str>| health_check::HttpCheckInfo {
            port: 80,
            path: Some(path.into()),
            scheme: scheme.map(Into::into),
            ..Default::default()
        };
        let cases: [(String, &str); 9] = [
            (wrong(|it| it.max_completion_time = Some(negative)), "max_completion_time: is negative"),
            (wrong(|it| it.check = Some(CheckInfo::default())), "check.type: is missing"),
            (
                wrong(|it| {
                    let kind = Some(check_info::Type::Tcp.into());
                    it.check = Some(CheckInfo { r#type: kind, ..Default::default() });
                }),
                "check.tcp: is missing",
            ),
            (
                wrong(|it| {
                    let kind = Some(check_info::Type::Tcp.into());
                    let tcp = Some(check_info::Tcp { port: 70_000 });
                    it.check = Some(CheckInfo { r#type: kind, tcp, ..Default::default() });
                }),
                "check.tcp.port: is 70000",
            ),
            (
                wrong(|it| {
                    let kind = Some(check_info::Type::Command.into());
                    let command = Some(check_info::Command { command: shell("") });
                    it.check = Some(CheckInfo { r#type: kind, command, ..Default::default() });
                }),
                "check.command.command.value: is missing",
            ),
            (
                wrong(|it| {
                    it.health_check = Some(HealthCheck { http: Some(http("x", None)), ..Default::default() });
                }),
                "health_check.http.path: is \"x\"",
            ),
            (
                wrong(|it| {
                    it.health_check =
                        Some(HealthCheck { http: Some(http("/x", Some("ftp"))), ..Default::default() });
                }),
                "health_check.http.scheme: is \"ftp\"",
            ),
            (
                wrong(|it| {
                    it.health_check = Some(HealthCheck {
                        command: Some(shell("true")),
                        grace_period_seconds: Some(-1.0),
                        ..Default::default()
                    });
                }),
                "health_check.grace_period_seconds: is -1",
            ),
            (
                wrong(|it| {
                    let variable = mesos::environment::Variable { name: "A".into(), ..Default::default() };
                    let environment = Some(mesos::Environment { variables: vec![variable] });
                    let command = Some(mesos::CommandInfo { environment, ..shell("true") });
                    it.health_check = Some(HealthCheck { command, ..Default::default() });
                }),
                "health_check.command.environment: variable \"A\" of type VALUE needs a value",
            ),
        ];
        for (found, expected) in cases {
            assert!(found.starts_with(expected), "{found} is not {expected}");
        }
    }

    #[test]
    fn a_check_is_told_before_it_ran() {
        let task_id = TaskId::new("t");
        let told = Told {
            launch: LaunchNumber { incarnation: 1, index: muster_model::Index(7), n: 0 },
            task_id: &task_id,
            within: None,
            healthy: Some(false),
            check: Some(CheckResult::Nothing(CheckKind::Http)),
            wall: WallTime(1_500),
        };
        let status = mesos::TaskStatus::decode(&*told_status(&told)).unwrap();
        assert_eq!(status.check_status.unwrap().http.unwrap().status_code, None);
        assert_eq!((status.healthy, status.timestamp), (Some(false), Some(1.5)));
        assert_eq!(status.executor_id.unwrap().value, "t");
    }
}
