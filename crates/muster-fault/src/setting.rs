//! What a point does, as people write it.

use crate::Point;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The longest delay that can be asked for.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It fails with an error: of the disk at a store's or an agent's point, of the network at a send.
    Error,
    /// It is late by so much, at most a minute.
    Delay(Duration),
    /// It panics.
    Panic,
    /// The process is gone at once, as by SIGKILL.
    Crash,
}

/// When a point does what.
///
/// Written as `ACTION` and what may follow, separated by commas: `error`, `delay=50` (ms), `panic` or `crash`, then
/// `chance=0.25` (else always), `after=10` (not the first ten times), `count=3` (then no more) and `seed=7` (else 0).
/// `crash,after=4` is a crash at the fifth time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// What happens.
    pub action: Action,
    /// How likely each time, from 0 to 1.
    pub chance: f64,
    /// How many times nothing happens at first.
    pub after: u64,
    /// How many times it happens at most.
    pub count: Option<u64>,
    /// What decides by chance.
    pub seed: u64,
}

/// What cannot be understood, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError(String);

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingError {}

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let wrong = |word: &str, help: &str| SettingError(format!("{word:?} of {text:?}: {help}"));
        let mut words = text.trim().split(',');
        let first = words.next().unwrap_or_default();
        let action = match first.split_once('=') {
            None if first == "error" => Action::Error,
            None if first == "panic" => Action::Panic,
            None if first == "crash" => Action::Crash,
            Some(("delay", ms)) => match ms.parse().map(Duration::from_millis) {
                Ok(delay) if delay <= DELAY_MAX => Action::Delay(delay),
                _ => return Err(wrong(first, "write delay=MS, at most 60000")),
            },
            _ => return Err(wrong(first, "begin with error, delay=MS, panic or crash")),
        };
        let mut setting = Self { action, chance: 1.0, after: 0, count: None, seed: 0 };
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || value.parse::<u64>().map_err(|_| wrong(word, "write a whole number"));
            match key {
                "chance" => {
                    let chance = value.parse().ok().filter(|chance| (0.0..=1.0).contains(chance));
                    setting.chance = chance.ok_or_else(|| wrong(word, "write a number from 0 to 1"))?;
                }
                "after" => setting.after = number()?,
                "count" => setting.count = Some(number()?),
                "seed" => setting.seed = number()?,
                _ => return Err(wrong(word, "there are chance, after, count and seed")),
            }
        }
        Ok(setting)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Error => f.write_str("error")?,
            Action::Delay(delay) => write!(f, "delay={}", delay.as_millis())?,
            Action::Panic => f.write_str("panic")?,
            Action::Crash => f.write_str("crash")?,
        }
        if self.chance < 1.0 {
            write!(f, ",chance={}", self.chance)?;
        }
        if self.after > 0 {
            write!(f, ",after={}", self.after)?;
        }
        if let Some(count) = self.count {
            write!(f, ",count={count}")?;
        }
        if self.seed > 0 {
            write!(f, ",seed={}", self.seed)?;
        }
        Ok(())
    }
}

/// Settings of several points, `POINT:SETTING` separated by semicolons.
pub fn settings(text: &str) -> Result<Vec<(Point, Setting)>, SettingError> {
    let one = |part: &str| {
        let (point, setting) = part.split_once(':').ok_or_else(|| {
            SettingError(format!("{part:?}: write POINT:ACTION, store.log.sync:error for instance"))
        })?;
        Ok((point.trim().parse().map_err(SettingError)?, setting.parse()?))
    };
    text.split(';').filter(|part| !part.trim().is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        for text in ["error", "crash,after=4", "delay=50,chance=0.25,count=3,seed=7", "panic,count=1"] {
            assert_eq!(text.parse::<Setting>().unwrap().to_string(), text);
        }
        let two = settings("store.log.sync:error,count=1; raft.append.send:delay=20").unwrap();
        assert_eq!(
            two.iter().map(|(point, _)| *point).collect::<Vec<_>>(),
            [Point::LogSync, Point::AppendSend]
        );
        assert_eq!(settings("").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (text, word) in [
            ("", "begin with"),
            ("fail", "fail"),
            ("delay", "begin with"),
            ("delay=70000", "at most"),
            ("error,chance=2", "chance=2"),
            ("error,chance=NaN", "chance=NaN"),
            ("error,count=-1", "count=-1"),
            ("error,often", "often"),
        ] {
            let error = text.parse::<Setting>().unwrap_err().to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
        assert!(settings("store.log.sync").unwrap_err().to_string().contains("POINT:ACTION"));
        assert!(settings("nowhere:error").unwrap_err().to_string().contains("nowhere"));
    }
}
