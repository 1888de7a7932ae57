//! EDN, as Jepsen's tools read it: a map for each line, `{:index 0, :time 12000, :process 0, :type :invoke, ..}`.

use super::Kind;
use serde_json::Value;
use std::fmt::{self, Display, Write};

/// One operation, to be written as a line.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its place in the history.
    pub index: usize,
    /// When, in nanoseconds since the history began.
    pub time: u64,
    /// Who, a number, or a [`keyword`] for whoever is no client.
    pub process: &'a str,
    /// What kind of entry.
    pub kind: Kind,
    /// What was to be done.
    pub f: &'a str,
    /// With what, or to what effect.
    pub value: &'a Value,
    /// Why it was not done, or is not known to be.
    pub error: Option<&'a Value>,
}

impl Display for Line<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, time, process, kind, f, value: with, error } = self;
        write!(to, "{{:index {index}, :time {time}, :process {process}, :type :{kind}, :f {}", keyword(f))?;
        write!(to, ", :value {}", value(with))?;
        match error {
            Some(error) => write!(to, ", :error {}}}", value(error)),
            None => to.write_char('}'),
        }
    }
}

/// A value: null is nil, an array a vector, an object a map with keywords where its keys may be some.
pub fn value(value: &Value) -> String {
    let mut text = String::new();
    // A string takes whatever is written to it.
    let _ = put(value, &mut text);
    text
}

fn put(value: &Value, to: &mut String) -> fmt::Result {
    match value {
        Value::Null => to.write_str("nil"),
        Value::Bool(it) => write!(to, "{it}"),
        Value::Number(it) => write!(to, "{it}"),
        Value::String(it) => to.write_str(&string(it)),
        Value::Array(all) => {
            to.write_char('[')?;
            for (n, one) in all.iter().enumerate() {
                if n > 0 {
                    to.write_char(' ')?;
                }
                put(one, to)?;
            }
            to.write_char(']')
        }
        Value::Object(fields) => {
            to.write_char('{')?;
            for (n, (key, one)) in fields.iter().enumerate() {
                if n > 0 {
                    to.write_str(", ")?;
                }
                to.write_str(&if is_plain(key) { format!(":{key}") } else { string(key) })?;
                to.write_char(' ')?;
                put(one, to)?;
            }
            to.write_char('}')
        }
    }
}

/// Whether a word is a keyword as it stands.
fn is_plain(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.chars().all(may_stand)
}

fn may_stand(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// A name as a keyword; what may not stand in one is replaced.
pub fn keyword(name: &str) -> String {
    let replaced = name.chars().map(|c| if may_stand(c) { c } else { '_' });
    format!(":{}", replaced.collect::<String>())
}

/// A string in quotes.
fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => _ = write!(quoted, "\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_as_edn_has_them() {
        for (given, written) in [
            (json!(null), "nil"),
            (json!([1, -2, true, 0.5]), "[1 -2 true 0.5]"),
            (json!({"task": "t1", "a key": [null]}), r#"{"a key" [nil], :task "t1"}"#),
            (json!("a \"b\" \\ c\nd\u{1}ü"), r#""a \"b\" \\ c\nd\u0001ü""#),
            (json!({}), "{}"),
        ] {
            assert_eq!(value(&given), written);
        }
        assert_eq!(keyword("f 1/ä"), ":f_1__");
    }

    #[test]
    fn a_line_is_a_map_and_one_line() {
        let (asked, why) = (json!({"n": 7}), json!("a\nb"));
        let mut line = Line {
            index: 3,
            time: 12,
            process: "0",
            kind: Kind::Invoke,
            f: "write",
            value: &asked,
            error: None,
        };
        assert_eq!(
            line.to_string(),
            "{:index 3, :time 12, :process 0, :type :invoke, :f :write, :value {:n 7}}"
        );
        (line.kind, line.error) = (Kind::Info, Some(&why));
        assert!(
            line.to_string().ends_with(r#":type :info, :f :write, :value {:n 7}, :error "a\nb"}"#),
            "{line}"
        );
    }
}
