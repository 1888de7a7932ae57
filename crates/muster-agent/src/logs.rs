//! How much is kept of what tasks write: what the agent says, and what a task says for itself, as it says it to Mesos'
//! logger that rotates.

use crate::{
    AgentError,
    command::Unfit,
    supervisor::{Outputs, Rotation},
};
use muster_proto::mesos::{CommandInfo, environment};
use serde::{Deserialize, Serialize};

/// The smallest file that is rotated, in bytes (Mesos: a page).
const BYTES_MIN: u64 = 4_096;
const BYTES_MAX: u64 = 1 << 40;
/// Older files of one stream.
const KEEP_MAX: u32 = 100;
/// The size of a file whose task says only how many are kept, on an agent that rotates none, in bytes (Mesos).
const BYTES_USUAL: u64 = 10 << 20;
/// Begins the variables that say it for one task.
const PREFIX: &str = "CONTAINER_LOGGER_";

/// What is kept of what tasks write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LogSection {
    /// Bytes of a file; 0 = it grows.
    pub rotate_bytes: u64,
    /// Older files that are kept beside it.
    pub keep: u32,
    /// What a task may ask to be kept of one stream, in bytes.
    pub asked_bytes_max: u64,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { rotate_bytes: 0, keep: 9, asked_bytes_max: 10 << 30 }
    }
}

impl LogSection {
    /// Checks all values.
    pub(crate) fn check(&self) -> Result<(), AgentError> {
        let wrong = |text: String| Err(AgentError::Config(text));
        if self.rotate_bytes != 0 && !(BYTES_MIN..=BYTES_MAX).contains(&self.rotate_bytes) {
            let value = self.rotate_bytes;
            return wrong(format!("logs.rotate-bytes is {value}, must be 0 or {BYTES_MIN} to {BYTES_MAX}"));
        }
        if self.keep > KEEP_MAX {
            return wrong(format!("logs.keep is {}, must be 0 to {KEEP_MAX}", self.keep));
        }
        if !(BYTES_MIN..=BYTES_MAX).contains(&self.asked_bytes_max) {
            let value = self.asked_bytes_max;
            return wrong(format!("logs.asked-bytes-max is {value}, must be {BYTES_MIN} to {BYTES_MAX}"));
        }
        Ok(())
    }

    /// What becomes of what a command writes.
    pub(crate) fn of(&self, command: &CommandInfo, terminal: Option<(u16, u16)>) -> Result<Outputs, Unfit> {
        Ok(Outputs {
            stdout: self.stream(command, "STDOUT")?,
            stderr: self.stream(command, "STDERR")?,
            terminal,
        })
    }

    fn stream(&self, command: &CommandInfo, stream: &str) -> Result<Option<Rotation>, Unfit> {
        // Mesos' own name, and that of the logger of DC/OS.
        let sizes = [format!("MAX_{stream}_SIZE"), format!("LOGROTATE_MAX_{stream}_SIZE")];
        let options = format!("LOGROTATE_{stream}_OPTIONS");
        let (mut bytes, mut keep) = (None, None);
        for variable in command.environment.iter().flat_map(|it| &it.variables) {
            let Some(name) = variable.name.strip_prefix(PREFIX) else { continue };
            if variable.r#type() != environment::variable::Type::Value {
                continue;
            }
            let wrong = |why: String| Unfit::Invalid(format!("The variable {PREFIX}{name} {why}"));
            let value = variable.value();
            if sizes.iter().any(|it| it == name) {
                bytes = Some(size(value).map_err(wrong)?);
            } else if name == options {
                keep = rotations(value).map_err(wrong)?.or(keep);
            }
        }
        if bytes.is_none() && keep.is_none() {
            return Ok(match self.rotate_bytes {
                0 => None,
                bytes => Some(Rotation { bytes, keep: self.keep }),
            });
        }
        let usual = if self.rotate_bytes == 0 { BYTES_USUAL } else { self.rotate_bytes };
        let asked = Rotation { bytes: bytes.unwrap_or(usual), keep: keep.unwrap_or(self.keep) };
        let all = asked.bytes.saturating_mul(u64::from(asked.keep) + 1);
        if all > self.asked_bytes_max {
            return Err(Unfit::Here(format!(
                "The task asks to keep {all} bytes of {} ({PREFIX}{} and {PREFIX}{options}); this agent keeps at most {} \
                 (logs.asked-bytes-max)",
                stream.to_lowercase(),
                sizes[0],
                self.asked_bytes_max
            )));
        }
        Ok(Some(asked))
    }
}

/// Reads a size as Mesos writes it: a number and a unit.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match &*unit.to_ascii_uppercase() {
        "B" => 0,
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return Err(format!("is {text:?}, must be a number and B, KB, MB, GB or TB, for example 10MB")),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| (BYTES_MIN..=BYTES_MAX).contains(bytes))
        .ok_or_else(|| format!("is {text:?}, must be {BYTES_MIN} bytes to {} TB", BYTES_MAX >> 40))
}

/// Reads how many older files are kept, of what `logrotate` would be told; the rest of that is none of ours.
fn rotations(options: &str) -> Result<Option<u32>, String> {
    let mut keep = None;
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        let number = words.next().and_then(|word| word.parse::<u32>().ok());
        keep = match (word, number) {
            ("rotate", Some(number @ 0..=KEEP_MAX)) => Some(number),
            _ => {
                return Err(format!(
                    "is {options:?}; of what logrotate knows agents do `rotate N` alone, with N from 0 to {KEEP_MAX}"
                ));
            }
        };
    }
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::mesos::Environment;

    fn command(variables: &[(&str, &str)]) -> CommandInfo {
        let variable = |(name, value): &(&str, &str)| environment::Variable {
            name: (*name).into(),
            value: Some((*value).into()),
            ..Default::default()
        };
        let variables = variables.iter().map(variable).collect();
        CommandInfo { environment: Some(Environment { variables }), ..Default::default() }
    }

    #[test]
    fn a_task_says_what_is_kept_of_it_as_with_mesos() {
        let usual = LogSection::default();
        let rotating = LogSection { rotate_bytes: 1 << 20, keep: 3, ..usual.clone() };
        let some = |bytes, keep| Some(Rotation { bytes, keep });
        for (section, variables, stdout, stderr) in [
            (&usual, &[][..], None, None),
            (&rotating, &[], some(1 << 20, 3), some(1 << 20, 3)),
            (&usual, &[("CONTAINER_LOGGER_MAX_STDOUT_SIZE", "2MB")], some(2 << 20, 9), None),
            (&usual, &[("CONTAINER_LOGGER_LOGROTATE_STDERR_OPTIONS", "rotate 2")], None, some(10 << 20, 2)),
            (
                &rotating,
                &[
                    ("CONTAINER_LOGGER_LOGROTATE_MAX_STDERR_SIZE", "4kb"),
                    ("CONTAINER_LOGGER_LOGROTATE_STDERR_OPTIONS", " rotate 0\n"),
                    ("CONTAINER_LOGGER_DESTINATION_TYPE", "logrotate"),
                    ("MAX_STDOUT_SIZE", "none of ours"),
                ],
                some(1 << 20, 3),
                some(4_096, 0),
            ),
        ] {
            let outputs = section.of(&command(variables), None).unwrap();
            assert_eq!((outputs.stdout, outputs.stderr), (stdout, stderr), "{variables:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_by_name() {
        let section = LogSection::default();
        for (name, value, part) in [
            ("MAX_STDOUT_SIZE", "10", "B, KB, MB"),
            ("MAX_STDERR_SIZE", "MB", "4096 bytes to 1 TB"),
            ("LOGROTATE_MAX_STDOUT_SIZE", "4095B", "4096 bytes"),
            ("MAX_STDOUT_SIZE", "99999999999999999999TB", "4096 bytes"),
            ("LOGROTATE_STDOUT_OPTIONS", "rotate", "`rotate N`"),
            ("LOGROTATE_STDOUT_OPTIONS", "rotate 101", "0 to 100"),
            ("LOGROTATE_STDERR_OPTIONS", "rotate 9\ncompress", "`rotate N`"),
        ] {
            let name = format!("{PREFIX}{name}");
            let refused = section.of(&command(&[(&name, value)]), None);
            let Err(Unfit::Invalid(why)) = refused else { panic!("{name}={value}: {refused:?}") };
            assert!(why.contains(&name) && why.contains(part), "{why}");
        }
        let much = [
            ("CONTAINER_LOGGER_MAX_STDOUT_SIZE", "5GB"),
            ("CONTAINER_LOGGER_LOGROTATE_STDOUT_OPTIONS", "rotate 2"),
        ];
        let refused = section.of(&command(&much), None);
        assert!(
            matches!(&refused, Err(Unfit::Here(why)) if why.contains("logs.asked-bytes-max")),
            "{refused:?}"
        );
    }

    #[test]
    fn a_configuration_is_checked() {
        let usual = LogSection::default();
        for (section, part) in [
            (
                LogSection { rotate_bytes: 4_095, ..usual.clone() },
                "logs.rotate-bytes is 4095, must be 0 or 4096",
            ),
            (LogSection { keep: 101, ..usual.clone() }, "logs.keep is 101, must be 0 to 100"),
            (LogSection { asked_bytes_max: 1, ..usual.clone() }, "logs.asked-bytes-max is 1, must be 4096"),
        ] {
            let why = section.check().unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
        usual.check().unwrap();
    }
}
