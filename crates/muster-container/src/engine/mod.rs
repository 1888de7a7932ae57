//! A Docker engine, spoken to by its command line: what is asked for ([`EngineSpec`]) becomes arguments, and each call has
//! a deadline.

mod call;
mod spec;

pub use call::{EngineError, env_memory};
pub use spec::{EngineMount, EngineSource, EngineSpec, Network, Port, fits_a_line};

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// How long it may take to say something that it knows.
const ASKING: Duration = Duration::from_secs(10);
/// How long it may take to make a container, which is less than a supervisor has.
const MAKING: Duration = Duration::from_secs(60);
/// How long it may take to end and remove one.
const REMOVING: Duration = Duration::from_secs(30);

/// An engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Its command line.
    pub program: PathBuf,
    /// Its socket.
    pub socket: PathBuf,
}

/// What an engine is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineAbout {
    /// Its version.
    pub version: String,
    /// Whether it makes control groups itself (`cgroupfs`), so that a container can be made below any. Else systemd does.
    pub has_own_groups: bool,
}

/// What an image says of its containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineImage {
    /// Who they run as; empty: root.
    pub user: String,
    /// Where they run; empty: `/`.
    pub working_dir: String,
}

/// What has become of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// It was made and not started, or its start failed, for this reason if there is one.
    Created(String),
    /// It runs.
    Runs,
    /// It ended.
    Ended {
        /// The status of its command; above 128 it is the signal that ended it.
        code: i32,
        /// Whether the kernel killed of it for want of memory.
        out_of_memory: bool,
    },
}

/// `.State` of a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Stated {
    status: String,
    running: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    exit_code: i32,
    error: String,
}

impl Engine {
    /// A command of its command line, without arguments of its own.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(format!("--host=unix://{}", self.socket.display()));
        command
    }

    /// What it is like, if it answers.
    ///
    /// # Errors
    /// It does not, or is none for Linux.
    pub fn about(&self) -> Result<EngineAbout, EngineError> {
        let format = "--format={{.ServerVersion}} {{.OSType}} {{.CgroupDriver}}";
        let said = self.call("look at the engine", &["info", format], ASKING)?;
        let mut words = said.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(version), Some("linux"), Some(driver)) => {
                Ok(EngineAbout { version: version.into(), has_own_groups: driver == "cgroupfs" })
            }
            _ => Err(EngineError::Strange { doing: "look at the engine", said }),
        }
    }

    /// What it knows of an image; none: it has none of this name.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn image(&self, name: &str) -> Result<Option<EngineImage>, EngineError> {
        let doing = "look at the image";
        match self.call(doing, &["image", "inspect", "--format={{json .Config}}", name], ASKING) {
            Ok(said) => serde_json::from_str::<Option<EngineImage>>(&said)
                .map(|image| Some(image.unwrap_or_default()))
                .map_err(|_| EngineError::Strange { doing, said }),
            Err(EngineError::NoSuch) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a container. One of this name that never ran, of an attempt before, goes.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn create(&self, spec: &EngineSpec) -> Result<(), EngineError> {
        let (file, path) = env_memory(&spec.env).map_err(EngineError::Io)?;
        let args = spec.arguments(&path);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let made = match self.call("make the container", &args, MAKING) {
            Err(EngineError::Refused { why, .. }) if why.contains("is already in use by container") => {
                // Not by force: one that runs stays, and is an error.
                self.call("remove a container", &["rm", "--volumes", &spec.name], REMOVING)?;
                self.call("make the container", &args, MAKING)
            }
            made => made,
        };
        drop(file);
        made.map(drop)
    }

    /// What has become of a container.
    ///
    /// # Errors
    /// There is none, or the engine does not answer.
    pub fn state(&self, name: &str) -> Result<EngineState, EngineError> {
        let doing = "look at the container";
        let said = self.call(doing, &["container", "inspect", "--format={{json .State}}", name], ASKING)?;
        state(&said).ok_or(EngineError::Strange { doing, said })
    }

    /// Copies a file or directory out of a container, whether it runs or not.
    ///
    /// # Errors
    /// There is none, or the engine does not answer.
    pub fn copy_out(&self, name: &str, path: &str, to: &Path) -> Result<(), EngineError> {
        let from = format!("{name}:{path}");
        self.call("copy from the container", &["cp", "--follow-link", &from, &to.to_string_lossy()], ASKING)
            .map(drop)
    }

    /// Ends a container and removes it, with the volumes that have no name. One that is not there is removed.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub fn remove(&self, name: &str) -> Result<(), EngineError> {
        match self.call("remove the container", &["rm", "--force", "--volumes", name], REMOVING) {
            Ok(_) | Err(EngineError::NoSuch) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The containers with a label: their names, and what another label of them says.
    ///
    /// # Errors
    /// The engine does not answer.
    pub fn labelled(
        &self,
        label: &str,
        value: &str,
        other: &str,
    ) -> Result<BTreeMap<String, String>, EngineError> {
        let (filter, format) = (
            format!("--filter=label={label}={value}"),
            format!("--format={{{{.Names}}}} {{{{.Label \"{other}\"}}}}"),
        );
        let said = self.call("list containers", &["ps", "--all", "--no-trunc", &filter, &format], ASKING)?;
        let one = |line: &str| {
            let (name, other) = line.split_once(' ')?;
            Some((name.to_owned(), other.to_owned()))
        };
        Ok(said.lines().filter_map(one).collect())
    }
}

fn state(said: &str) -> Option<EngineState> {
    let stated: Stated = serde_json::from_str(said).ok()?;
    Some(match &*stated.status {
        "created" => EngineState::Created(stated.error),
        "exited" | "dead" => EngineState::Ended { code: stated.exit_code, out_of_memory: stated.oom_killed },
        // Paused or being removed it goes on.
        _ if stated.running => EngineState::Runs,
        "removing" => EngineState::Runs,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_become_of_a_container_is_read() {
        let created =
            r#"{"Status":"created","Running":false,"OOMKilled":false,"ExitCode":127,"Error":"no such file"}"#;
        assert_eq!(state(created), Some(EngineState::Created("no such file".into())));
        for status in ["running", "paused"] {
            let said = format!(r#"{{"Status":"{status}","Running":true,"ExitCode":0}}"#);
            assert_eq!(state(&said), Some(EngineState::Runs));
        }
        let ended = r#"{"Status":"exited","Running":false,"OOMKilled":true,"ExitCode":137,"Error":""}"#;
        assert_eq!(state(ended), Some(EngineState::Ended { code: 137, out_of_memory: true }));
        assert_eq!(state(r#"{"Status":"new"}"#), None);
        assert_eq!(state("<no value>"), None);
    }
}
