//! Resources as people write them: Mesos' flag syntax.

use super::{Label, Reservation, Resources, Value, kind::MARK};
use crate::Role;
use std::{fmt, sync::Arc};

impl Resources {
    /// Reads Mesos' flag syntax: `cpus:4;mem:8192;ports:[31000-32000];tags:{a,b}`, and `cpus(web):4` for what is
    /// reserved for a role. Errors name the item.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = Self::none();
        for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
            let wrong = |why: &str| format!("resource {item:?}: {why}");
            let (name, value) =
                item.split_once(':').ok_or_else(|| wrong("write NAME:VALUE, for example cpus:4"))?;
            let (name, label) = parse_kind(name.trim()).map_err(|why| wrong(&why))?;
            let value = value.trim();
            if all.get_labelled(name, label.as_deref()).is_some() {
                return Err(wrong("the name occurs twice"));
            }
            let value = match value.as_bytes() {
                [b'[', .., b']'] => parse_ranges(&value[1..value.len() - 1]).map_err(|why| wrong(&why))?,
                [b'{', .., b'}'] => Value::Set(
                    value[1..value.len() - 1].split(',').map(|part| Arc::from(part.trim())).collect(),
                ),
                _ => Value::Scalar(parse_milli(value).map_err(|why| wrong(&why))?),
            };
            if all.iter().any(|(other, have)| other == name && !have.is_like(&value)) {
                return Err(wrong("the name occurs with another type"));
            }
            all.insert_labelled(name, label, value);
        }
        Ok(all)
    }
}

/// A name, or a name and the role that it is reserved for: `cpus(web)`.
fn parse_kind(text: &str) -> Result<(&str, Option<Arc<Label>>), String> {
    let (name, role) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some((name, role)) => (name.trim(), Some(Role::parse(role.trim())?)),
        None => (text, None),
    };
    match name {
        "" => return Err("the name is missing".into()),
        name if name.contains(MARK) => return Err("the name contains a zero byte".into()),
        _ => {}
    }
    let reserved = |role| {
        let reservation = Reservation { dynamic: false, role, principal: None, labels: Vec::new() };
        Arc::new(Label::reserved(reservation))
    };
    Ok((name, role.filter(|role| *role != Role::any()).map(reserved)))
}

fn parse_ranges(text: &str) -> Result<Value, String> {
    let mut pairs = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (begin, end) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim().parse::<u64>().map_err(|_| format!("{part:?} is not a range like 31000-32000"))
        };
        let (begin, end) = (number(begin)?, number(end)?);
        if begin > end {
            return Err(format!("{part:?} begins after its end"));
        }
        pairs.push((begin, end));
    }
    Ok(Value::ranges(pairs))
}

/// Reads a decimal number of at most three decimals into thousandths.
fn parse_milli(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a number with at most three decimals, 0 or more");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) || whole.is_empty() {
        return Err(bad());
    }
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let fraction: u64 = format!("{fraction:0<3}").parse().map_err(|_| bad())?;
    whole.checked_mul(1000).and_then(|n| n.checked_add(fraction)).ok_or_else(bad)
}

impl fmt::Display for Resources {
    /// The flag syntax that [`Resources::parse`] reads, as far as it has words for it: not for what was reserved while
    /// the agent was there, nor for volumes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, label, value)) in self.iter_labelled().enumerate() {
            if i > 0 {
                f.write_str(";")?;
            }
            f.write_str(name)?;
            if let Some(label) = label {
                write!(f, "{label}")?;
            }
            write!(f, ":{value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(n) if n % 1000 == 0 => write!(f, "{}", n / 1000),
            Self::Scalar(n) => {
                let text = format!("{}.{:03}", n / 1000, n % 1000);
                f.write_str(text.trim_end_matches('0'))
            }
            Self::Ranges(ranges) => {
                let texts: Vec<_> = ranges.iter().map(|(a, b)| format!("{a}-{b}")).collect();
                write!(f, "[{}]", texts.join(","))
            }
            Self::Set(items) => {
                let texts: Vec<_> = items.iter().map(|item| &**item).collect();
                write!(f, "{{{}}}", texts.join(","))
            }
        }
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
