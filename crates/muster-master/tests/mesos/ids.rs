//! Ids in texts: those of the transcripts, and those of the masters under test.

use std::collections::BTreeMap;

/// What an id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    Framework,
    Offer,
    /// Of this host name, or unknown.
    Agent(Option<String>),
    /// A uuid with nothing behind it: a stream's or a master's.
    Bare,
}

/// Which agents there are, by cluster and number (`S0`).
#[derive(Debug, Clone, Default)]
pub struct Ids {
    agents: BTreeMap<String, String>,
    clusters: Vec<String>,
}

/// The clusters that were recorded.
const FAKE: &str = "00b95b68-6d1b-4959-b811-0e7fbe7201ba";
const REAL: &str = "88ffdd40-8dcb-43d8-829e-213dbdd3dde8";

impl Ids {
    /// Those of the transcripts.
    pub fn recorded() -> Self {
        let agents = [(FAKE, "S1", "fake1"), (FAKE, "S0", "fake2"), (REAL, "S0", "127.0.0.1")];
        let agents = agents.map(|(cluster, number, host)| (format!("{cluster}-{number}"), host.to_owned()));
        Self { agents: agents.into(), clusters: vec![FAKE.into(), REAL.into()] }
    }

    /// Those of a cluster under test, by the ids that its agents were given, with their host names.
    pub fn of(agents: BTreeMap<String, String>) -> Self {
        let clusters = agents.keys().filter_map(|id| id.rsplit_once('-')).map(|(it, _)| it.to_owned());
        Self { clusters: clusters.collect(), agents }
    }

    /// The id of the agent with this host name.
    pub fn agent(&self, host: &str) -> Option<String> {
        self.agents.iter().find(|(_, it)| *it == host).map(|(id, _)| id.clone())
    }

    /// A text in which all ids are swapped.
    pub fn swap(&self, text: &str, mut with: impl FnMut(&str, Id) -> String) -> String {
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(first) = rest.chars().next() {
            match self.at_start(rest) {
                Some((length, id)) => {
                    out += &with(&rest[..length], id);
                    rest = &rest[length..];
                }
                None => {
                    out.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        out
    }

    /// A text that says what its ids stand for.
    pub fn named(&self, text: &str) -> String {
        self.swap(text, |_, id| match id {
            Id::Framework => "<framework>".into(),
            Id::Offer => "<offer>".into(),
            Id::Agent(Some(host)) => format!("<agent {host}>"),
            Id::Agent(None) => "<agent>".into(),
            Id::Bare => "<uuid>".into(),
        })
    }

    /// The id that a text begins with, and its length.
    fn at_start(&self, text: &str) -> Option<(usize, Id)> {
        let cluster = self.clusters.iter().find(|it| text.starts_with(it.as_str())).map(String::len);
        let cluster = cluster.or_else(|| starts_with_uuid(text).then_some(UUID))?;
        let rest = &text[cluster..];
        let digits = |skip: usize| rest[skip..].bytes().take_while(u8::is_ascii_digit).count();
        if let Some(number) = rest.strip_prefix("-O") {
            let length = number.bytes().take_while(|it| it.is_ascii_digit() || *it == b'-').count();
            return Some((cluster + 2 + number[..length].trim_end_matches('-').len(), Id::Offer));
        }
        if rest.starts_with("-S") {
            let length = cluster + 2 + digits(2);
            return Some((length, Id::Agent(self.agents.get(&text[..length]).cloned())));
        }
        if rest.starts_with('-') && digits(1) >= 4 {
            return Some((cluster + 1 + digits(1), Id::Framework));
        }
        Some((cluster, Id::Bare))
    }
}

const UUID: usize = 36;

/// Whether a text begins with a uuid.
pub fn starts_with_uuid(text: &str) -> bool {
    let is_part = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() >= UUID && text.bytes().take(UUID).enumerate().all(is_part)
}

#[test]
fn ids_are_told_apart() {
    let recorded = Ids::recorded();
    let text = format!("Offer {FAKE}-O10 of {FAKE}-S1 for {FAKE}-0004 by {FAKE}, not {REAL}-S7");
    let named = "Offer <offer> of <agent fake1> for <framework> by <uuid>, not <agent>";
    assert_eq!(recorded.named(&text), named);
    let ours = Ids::of([("0123456789abcdef-S1".into(), "fake1".into())].into());
    let text = "0123456789abcdef-O1-0-12 is 0123456789abcdef-S1's, 0123456789abcdef-0000";
    assert_eq!(ours.named(text), "<offer> is <agent fake1>'s, <framework>");
    assert_eq!(ours.named("my-own-id nope"), "my-own-id nope");
}
