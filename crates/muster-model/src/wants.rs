//! What a framework wants of the offers in one of its roles: how much at least, and of which agents.

use crate::{Attribute, AttributeValue, Resources, Role, Sealed};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// What a framework wants of offers, by role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleWants {
    /// In which role what.
    pub by_role: BTreeMap<Role, Wants>,
    /// The whole `mesos.v1.scheduler.OfferConstraints`, as it was sent.
    pub constraints: Sealed,
}

/// What a framework wants of offers in one role. Nothing said = whatever the masters think worth an offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// An offer holds one of these at least, counted whatever it is reserved for; none said = the masters' own bounds,
    /// an empty list = anything.
    pub at_least: Option<Vec<Resources>>,
    /// Which agents; none said = any.
    pub agents: Option<Constraints>,
}

/// One of these groups holds, and so each constraint in it (`mesos.v1.scheduler.OfferConstraints.RoleConstraints`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraints(pub Vec<Vec<Constraint>>);

/// Something about an agent that must be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// What is looked at.
    pub selector: Selector,
    /// What must be so.
    pub predicate: Predicate,
}

/// What of an agent is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The first attribute of this name.
    Attribute(Arc<str>),
    /// Its host name.
    Hostname,
    /// Its region or its zone, which our agents say nothing of.
    Domain,
}

/// What must be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// It is there.
    Exists,
    /// It is not there.
    NotExists,
    /// It is this text, or no text at all.
    TextEquals(Arc<str>),
    /// It is not there, or not this text.
    TextNotEquals(Arc<str>),
    /// All of it matches, or it is no text.
    TextMatches(Pattern),
    /// It is not there, or not all of it matches, or it is no text.
    TextNotMatches(Pattern),
}

/// A regular expression that matches whole texts, in the syntax that RE2 and Rust share.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    whole: regex::Regex,
}

/// A compiled pattern takes so many bytes at most.
const PATTERN_BYTES_MAX: usize = 1 << 18;

impl Pattern {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or takes too much memory.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut whole = regex::RegexBuilder::new(&format!(r"\A(?:{text})\z"));
        let whole = whole.size_limit(PATTERN_BYTES_MAX).nest_limit(64).build();
        // A pattern may close the group that it is put in; alone it must be one as well.
        regex::RegexBuilder::new(text)
            .size_limit(PATTERN_BYTES_MAX)
            .nest_limit(64)
            .build()
            .and(whole)
            .map(|whole| Self { text: text.into(), whole })
            .map_err(|error| format!("{text:?} is no regular expression: {error}"))
    }

    /// Whether all of a text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.whole.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl Constraints {
    /// Whether an agent of this name and these attributes is wanted.
    pub fn allow(&self, hostname: &str, attributes: &[Attribute]) -> bool {
        let holds = |constraint: &Constraint| constraint.holds(hostname, attributes);
        self.0.iter().any(|group| group.iter().all(holds))
    }
}

/// What a selector found.
enum Found<'a> {
    Nothing,
    Text(&'a str),
    /// A number, or numbers.
    Other,
}

impl Constraint {
    fn holds(&self, hostname: &str, attributes: &[Attribute]) -> bool {
        let found = match &self.selector {
            Selector::Hostname => Found::Text(hostname),
            Selector::Domain => Found::Nothing,
            Selector::Attribute(name) => match attributes.iter().find(|it| it.name == *name) {
                None => Found::Nothing,
                Some(Attribute { value: AttributeValue::Text(text), .. }) => Found::Text(text),
                Some(_) => Found::Other,
            },
        };
        match (&self.predicate, found) {
            (Predicate::Exists, found) => !matches!(found, Found::Nothing),
            (Predicate::NotExists, found) => matches!(found, Found::Nothing),
            (Predicate::TextEquals(_) | Predicate::TextMatches(_), Found::Nothing) => false,
            (Predicate::TextNotEquals(_) | Predicate::TextNotMatches(_), Found::Nothing) => true,
            (_, Found::Other) => true,
            (Predicate::TextEquals(wanted), Found::Text(text)) => **wanted == *text,
            (Predicate::TextNotEquals(unwanted), Found::Text(text)) => **unwanted != *text,
            (Predicate::TextMatches(pattern), Found::Text(text)) => pattern.matches(text),
            (Predicate::TextNotMatches(pattern), Found::Text(text)) => !pattern.matches(text),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn agent() -> Vec<Attribute> {
        let text = |name: &str, text: &str| Attribute {
            name: name.into(),
            value: AttributeValue::Text(text.into()),
        };
        let level = Attribute { name: "level".into(), value: AttributeValue::Scalar(1000) };
        vec![text("rack", "r12"), level, text("rack", "second")]
    }

    fn allows(attribute: &str, predicate: Predicate) -> bool {
        let selector = Selector::Attribute(attribute.into());
        Constraints(vec![vec![Constraint { selector, predicate }]]).allow("h1", &agent())
    }

    #[test]
    fn what_is_there_and_what_is_not_is_told_as_mesos_does() {
        let pattern = |text| Pattern::parse(text).unwrap();
        // What is asked; of a text that fits, of one that does not, of a number, of what is not there.
        type Make = fn(&str) -> Predicate;
        let equals: Make = |text| Predicate::TextEquals(text.into());
        let differs: Make = |text| Predicate::TextNotEquals(text.into());
        assert_eq!([equals("r12"), equals("r1")].map(|it| allows("rack", it)), [true, false]);
        assert_eq!([differs("r12"), differs("second")].map(|it| allows("rack", it)), [false, true]);
        assert_eq!(["level", "none"].map(|it| allows(it, equals("x"))), [true, false]);
        assert_eq!(["level", "none"].map(|it| allows(it, differs("x"))), [true, true]);
        let matches = |text| Predicate::TextMatches(pattern(text));
        let fails = |text| Predicate::TextNotMatches(pattern(text));
        assert_eq!(["r1", "r[0-9]+", "a|r12"].map(|it| allows("rack", matches(it))), [false, true, true]);
        assert_eq!(["r1", "r[0-9]+"].map(|it| allows("rack", fails(it))), [true, false]);
        assert_eq!(["level", "none"].map(|it| allows(it, matches("x"))), [true, false]);
        assert_eq!(["level", "none"].map(|it| allows(it, fails("x"))), [true, true]);
        assert_eq!(["rack", "none"].map(|it| allows(it, Predicate::Exists)), [true, false]);
        assert_eq!(["rack", "none"].map(|it| allows(it, Predicate::NotExists)), [false, true]);
    }

    #[test]
    fn one_group_must_hold_and_all_of_it() {
        let host = |text: &str| Constraint {
            selector: Selector::Hostname,
            predicate: Predicate::TextEquals(text.into()),
        };
        let domain = Constraint { selector: Selector::Domain, predicate: Predicate::NotExists };
        let allow = |groups| Constraints(groups).allow("h1", &[]);
        assert!(allow(vec![vec![host("h2")], vec![host("h1"), domain.clone()]]));
        assert!(!allow(vec![vec![host("h2"), domain]]));
        assert!(!allow(Vec::new()));
    }

    #[test]
    fn a_pattern_cannot_leave_its_group() {
        for bad in ["(", "a)|(b", "a{1000}{1000}{1000}"] {
            Pattern::parse(bad).unwrap_err();
        }
    }
}
