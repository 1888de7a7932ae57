//! Who may do what: Mesos' ACLs. Pure.
//!
//! # Laws
//! - Of the rules of an action the first one that matches both who asks and what it is about decides; where none does,
//!   `permissive` does.
//! - What an [`Approver`] says is what the rules say, whatever it is asked about.

use super::action::{Action, Objects};
use muster_model::Role;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What stands on one side of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entity {
    /// Everybody, or everything: also who does not say who it is.
    Any,
    /// It matches like [`Any`](Self::Any), and allows nobody and nothing.
    None,
    /// These.
    Some(BTreeSet<String>),
}

impl Entity {
    /// Whether a rule with this is for what is asked: something named, or nothing in particular.
    fn matches(&self, asked: Option<&str>, below: bool) -> bool {
        match self {
            Self::Any | Self::None => true,
            Self::Some(values) => asked.is_some_and(|asked| holds(values, asked, below)),
        }
    }

    /// Whether a rule that is for it lets it pass.
    fn allows(&self) -> bool {
        *self != Self::None
    }
}

/// Whether a name is among values, of which some may stand for all roles below one.
fn holds(values: &BTreeSet<String>, name: &str, below: bool) -> bool {
    let is_below = |(at, _): (usize, &str)| values.contains(&format!("{}/%", &name[..at]));
    values.contains(name) || (below && name.match_indices('/').any(is_below))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    principals: Entity,
    objects: Entity,
}

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acls {
    permissive: bool,
    rules: BTreeMap<Action, Vec<Rule>>,
}

impl Default for Acls {
    /// Everybody may do everything.
    fn default() -> Self {
        Self { permissive: true, rules: BTreeMap::new() }
    }
}

/// What the rules of one action say to one principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver(Says);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Says {
    /// The same, whatever it is about.
    Always(bool),
    /// The first that matches decides.
    First { rules: Vec<(Entity, bool)>, below: bool, otherwise: bool },
}

impl Approver {
    /// Allows all.
    pub const ALL: Self = Self(Says::Always(true));
    /// Allows nothing.
    pub const NOTHING: Self = Self(Says::Always(false));

    /// What it says whatever it is asked about, if it always says the same.
    pub fn always(&self) -> Option<bool> {
        match self.0 {
            Says::Always(says) => Some(says),
            Says::First { .. } => None,
        }
    }

    /// Whether it may be done to this; none stands for nothing in particular.
    pub fn allows(&self, object: Option<&str>) -> bool {
        match &self.0 {
            Says::Always(says) => *says,
            Says::First { rules, below, otherwise } => {
                let first = rules.iter().find(|(objects, _)| objects.matches(object, *below));
                first.map_or(*otherwise, |(_, allowed)| *allowed)
            }
        }
    }

    /// Whether it may be done to this; what is not known is open to those alone to whom all is.
    pub fn allows_known(&self, object: Option<&str>) -> bool {
        match object {
            Some(object) => self.allows(Some(object)),
            None => self.always() == Some(true),
        }
    }

    /// The same, of what takes some work to find out: it is not done where nobody asks for it.
    pub fn allows_what<S: AsRef<str>>(&self, object: impl FnOnce() -> Option<S>) -> bool {
        self.always().unwrap_or_else(|| self.allows_known(object().as_ref().map(AsRef::as_ref)))
    }
}

impl Acls {
    /// Whether everybody may do everything.
    pub fn are_open(&self) -> bool {
        self.permissive && self.rules.is_empty()
    }

    /// What the rules of an action say to a principal; none is who did not say who it is.
    pub fn approver(&self, action: Action, principal: Option<&str>) -> Approver {
        let mut first = Vec::new();
        for rule in self.rules.get(&action).into_iter().flatten() {
            if !rule.principals.matches(principal, false) {
                continue;
            }
            let allowed = rule.principals.allows() && rule.objects.allows();
            match &rule.objects {
                // It decides whatever is left.
                Entity::Any | Entity::None => return Self::says(action, first, allowed),
                objects @ Entity::Some(_) => first.push((objects.clone(), allowed)),
            }
        }
        Self::says(action, first, self.permissive)
    }

    fn says(action: Action, rules: Vec<(Entity, bool)>, otherwise: bool) -> Approver {
        let below = action.objects() == Objects::Roles;
        Approver(match rules.is_empty() {
            true => Says::Always(otherwise),
            false => Says::First { rules, below, otherwise },
        })
    }

    /// Whether there are rules of an action.
    pub fn has(&self, action: Action) -> bool {
        self.rules.contains_key(&action)
    }

    /// Reads Mesos' JSON.
    ///
    /// # Errors
    /// Which field is wrong, and what to do.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Of two lists of one name the first would be as good as not written.
        let Distinct(whole) =
            serde_json::from_str(text).map_err(|error| format!("is no JSON object: {error}"))?;
        let Value::Object(whole) = whole else {
            return Err("is no JSON object: write {\"..\": [..]}".into());
        };
        let mut acls = Self::default();
        for (name, value) in &whole {
            if name == "permissive" {
                acls.permissive = value.as_bool().ok_or("permissive: write true or false")?;
                continue;
            }
            let action = Action::ALL.iter().find(|it| it.list() == name).ok_or_else(|| {
                format!("{name}: there is no such list of rules; correct its name, for example run_tasks")
            })?;
            let list = value.as_array().ok_or_else(|| format!("{name}: write a list of rules"))?;
            let read = |(at, value)| rule(*action, value).map_err(|why| format!("{name}[{at}].{why}"));
            let rules = list.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
            if !rules.is_empty() {
                acls.rules.insert(*action, rules);
            }
        }
        Ok(acls)
    }
}

/// JSON in which no object has a key twice.
struct Distinct(Value);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Read).map(Self)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_f64<E>(self, it: f64) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Distinct(it)) = from.next_element()? {
            list.push(it);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("{key}: it is there twice; write it once")));
            }
            let Distinct(value) = from.next_value()?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

fn rule(action: Action, value: &Value) -> Result<Rule, String> {
    let field = action.field();
    let rule: BTreeMap<String, Value> = serde_json::from_value(value.clone())
        .map_err(|_| format!("principals: write {{\"principals\": .., \"{field}\": ..}}"))?;
    if let Some(other) = rule.keys().find(|name| **name != "principals" && **name != field) {
        return Err(format!("{other}: a rule of this list has \"principals\" and \"{field}\" alone"));
    }
    let side = |name: &str| {
        let value = rule.get(name).ok_or_else(|| format!("{name}: it is missing; add it"))?;
        entity(value).map_err(|why| format!("{name}: {why}"))
    };
    let (principals, objects) = (side("principals")?, side(field)?);
    if let Entity::Some(values) = &objects {
        match action.objects() {
            Objects::Names => {}
            Objects::Whole => {
                return Err(format!(
                    "{field}: only {{\"type\": \"ANY\"}} or {{\"type\": \"NONE\"}} can be here"
                ));
            }
            Objects::Roles => {
                for value in values {
                    let role = value.strip_suffix("/%").unwrap_or(value);
                    Role::parse(role).map_err(|why| format!("{field}: {value:?}: {why}"))?;
                }
            }
        }
    }
    Ok(Rule { principals, objects })
}

/// An entity as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    r#type: Option<Kind>,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Some,
    Any,
    None,
}

fn entity(value: &Value) -> Result<Entity, String> {
    const FORM: &str = "write {\"type\": \"ANY\"}, {\"type\": \"NONE\"} or {\"values\": [\"..\"]}";
    let written: Written =
        serde_json::from_value(value.clone()).map_err(|error| format!("{error}; {FORM}"))?;
    match (written.r#type.unwrap_or(Kind::Some), written.values.is_empty()) {
        (Kind::Any, true) => Ok(Entity::Any),
        (Kind::None, true) => Ok(Entity::None),
        (Kind::Some, false) => Ok(Entity::Some(written.values.into_iter().collect())),
        (Kind::Some, true) => Err(format!("it has no values; {FORM}")),
        (Kind::Any | Kind::None, false) => Err(format!("ANY and NONE have no values; {FORM}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn acls(rules: &str) -> Acls {
        Acls::parse(rules).unwrap()
    }

    /// What one rule of this list, and none besides, says.
    fn says(permissive: bool, principals: &str, users: &str, who: Option<&str>, user: Option<&str>) -> bool {
        let side = |text: &str| match text {
            "ANY" | "NONE" => format!(r#"{{"type":"{text}"}}"#),
            values => format!(r#"{{"values":["{}"]}}"#, values.replace(',', r#"",""#)),
        };
        let rule = format!(r#"{{"principals":{},"users":{}}}"#, side(principals), side(users));
        let acls = acls(&format!(r#"{{"permissive":{permissive},"run_tasks":[{rule}]}}"#));
        acls.approver(Action::RunTask, who).allows(user)
    }

    #[test]
    fn a_rule_matches_and_allows_as_its_sides_say() {
        let (a, u, other) = (Some("a"), Some("u"), Some("x"));
        // Principals, users, who asks, for which user, and what is decided; none where it is left to `permissive`.
        for (principals, users, who, user, decided) in [
            ("a,b", "u", a, u, Some(true)),
            ("a,b", "u", other, u, None),
            ("a,b", "u", a, other, None),
            ("a,b", "u", None, u, None),
            ("a,b", "u", a, None, None),
            ("a", "ANY", a, u, Some(true)),
            ("a", "ANY", a, None, Some(true)),
            ("a", "NONE", a, u, Some(false)),
            ("a", "NONE", a, None, Some(false)),
            ("a", "NONE", other, u, None),
            ("ANY", "u", a, u, Some(true)),
            ("ANY", "u", None, u, Some(true)),
            ("ANY", "u", None, None, None),
            ("ANY", "ANY", None, None, Some(true)),
            ("ANY", "NONE", None, None, Some(false)),
            ("NONE", "u", a, u, Some(false)),
            ("NONE", "u", None, u, Some(false)),
            ("NONE", "u", a, other, None),
            ("NONE", "ANY", a, u, Some(false)),
            ("NONE", "NONE", None, None, Some(false)),
        ] {
            for permissive in [true, false] {
                let said = says(permissive, principals, users, who, user);
                let expected = decided.unwrap_or(permissive);
                assert_eq!(said, expected, "{principals} {users}: {who:?} {user:?}, {permissive}");
            }
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let acls = acls(
            r#"{"run_tasks": [
                {"principals": {"values": ["a"]}, "users": {"values": ["root"]}},
                {"principals": {"type": "NONE"}, "users": {"values": ["root"]}},
                {"principals": {"values": ["b"]}, "users": {"type": "NONE"}},
                {"principals": {"values": ["b"]}, "users": {"type": "ANY"}}
            ]}"#,
        );
        let may = |who, user| acls.approver(Action::RunTask, who).allows(Some(user));
        assert!(may(Some("a"), "root"));
        assert!(!may(Some("c"), "root") && !may(None, "root"), "NONE may run as root but a");
        assert!(!may(Some("b"), "web"), "what comes after is not looked at");
        assert!(may(Some("c"), "web"), "it is permissive where nothing is said");
        let view = acls.approver(Action::ViewTask, Some("c"));
        assert_eq!(view.always(), Some(true), "an action without rules");
    }

    #[test]
    fn a_role_may_stand_for_those_below_it() {
        let acls = acls(
            r#"{"permissive": false, "register_frameworks": [
                {"principals": {"values": ["a"]}, "roles": {"values": ["eng/%", "ads"]}}
            ], "run_tasks": [{"principals": {"values": ["a"]}, "users": {"values": ["eng/%"]}}]}"#,
        );
        let roles = acls.approver(Action::RegisterFramework, Some("a"));
        for (role, may) in [
            ("eng/dev", true),
            ("eng/dev/x", true),
            ("eng", false),
            ("engine/x", false),
            ("ads", true),
            ("ads/x", false),
            ("eng/%", true),
            ("x/eng/dev", false),
        ] {
            assert_eq!(roles.allows(Some(role)), may, "{role}");
        }
        let users = acls.approver(Action::RunTask, Some("a"));
        assert!(!users.allows(Some("eng/dev")), "of users nobody is below another");
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_field_and_the_fix() {
        for (text, parts) in [
            ("[]", &["no JSON object"] as &[_]),
            (r#"{"permissive": 1}"#, &["permissive", "true or false"]),
            (r#"{"run_task": []}"#, &["run_task:", "run_tasks"]),
            (r#"{"run_tasks": {}}"#, &["run_tasks", "list of rules"]),
            (r#"{"run_tasks": [{"principals": {"type": "ANY"}}]}"#, &["run_tasks[0].users", "missing"]),
            (
                r#"{"run_tasks": [{"principals": {"type": "ANY"}, "roles": {"type": "ANY"}}]}"#,
                &["run_tasks[0].roles", "\"users\""],
            ),
            (
                r#"{"run_tasks": [{"principals": {"type": "ALL"}, "users": {"type": "ANY"}}]}"#,
                &["run_tasks[0].principals", "ALL", "\"ANY\""],
            ),
            (
                r#"{"run_tasks": [{"principals": {}, "users": {"type": "ANY"}}]}"#,
                &["run_tasks[0].principals", "no values"],
            ),
            (
                r#"{"view_flags": [{"principals": {"type": "ANY"}, "flags": {"values": ["port"]}}]}"#,
                &["view_flags[0].flags", "ANY"],
            ),
            (r#"{"run_tasks": [], "permissive": true, "run_tasks": []}"#, &["run_tasks", "twice"]),
            (r#"{"run_tasks": [{"principals": {"type": "ANY", "type": "NONE"}}]}"#, &["type", "twice"]),
            ("[]", &["no JSON object"]),
            (
                r#"{"view_roles": [{"principals": {"type": "ANY"}, "roles": {"values": ["/x"]}}]}"#,
                &["view_roles[0].roles", "\"/x\""],
            ),
        ] {
            let why = Acls::parse(text).unwrap_err();
            for part in parts {
                assert!(why.contains(part), "{text}: {why}");
            }
        }
        assert_eq!(acls("{}"), Acls::default());
        for action in Action::ALL {
            let (list, field) = (action.list(), action.field());
            let any = r#"{"type": "ANY"}"#;
            let text = format!(r#"{{"{list}": [{{"principals": {any}, "{field}": {any}}}]}}"#);
            assert!(acls(&text).has(*action), "{list}");
        }
    }

    /// The rules as they are told: `matches` and `allows` of what is asked and what stands in a rule.
    fn told(acls: &Acls, action: Action, who: Option<&str>, what: Option<&str>) -> bool {
        let below = action.objects() == Objects::Roles;
        let is_among = |values: &BTreeSet<String>, name: &str, below: bool| {
            let stands_for = |value: &String| match value.strip_suffix('%').filter(|_| below) {
                Some(above) => name.starts_with(above) && name.len() > above.len(),
                None => false,
            };
            values.iter().any(|value| value == name || stands_for(value))
        };
        let matches = |asked: Option<&str>, rule: &Entity, below| match (asked, rule) {
            (Some(_) | None, Entity::Any | Entity::None) => true,
            (Some(name), Entity::Some(values)) => is_among(values, name, below),
            (None, Entity::Some(_)) => false,
        };
        let allows = |asked: Option<&str>, rule: &Entity, below| match (asked, rule) {
            (Some(_) | None, Entity::Any) => true,
            (Some(_) | None, Entity::None) | (None, Entity::Some(_)) => false,
            (Some(name), Entity::Some(values)) => is_among(values, name, below),
        };
        for rule in acls.rules.get(&action).into_iter().flatten() {
            if matches(who, &rule.principals, false) && matches(what, &rule.objects, below) {
                return allows(who, &rule.principals, false) && allows(what, &rule.objects, below);
            }
        }
        acls.permissive
    }

    fn an_entity() -> impl Strategy<Value = Entity> {
        let value = prop::sample::select(vec!["a", "a/b", "a/b/c", "b", "a/%", "a/b/%"]);
        let values = prop::collection::btree_set(value.prop_map(String::from), 1..3);
        prop_oneof![Just(Entity::Any), Just(Entity::None), values.prop_map(Entity::Some)]
    }

    fn a_name() -> impl Strategy<Value = Option<&'static str>> {
        prop::option::of(prop::sample::select(vec!["a", "a/b", "a/b/c", "b", "c"]))
    }

    proptest! {
        #[test]
        fn an_approver_says_what_the_rules_say(
            permissive: bool,
            on_roles: bool,
            rules in prop::collection::vec((an_entity(), an_entity()), 0..5),
            who in a_name(),
            what in a_name(),
        ) {
            let action = if on_roles { Action::ViewRole } else { Action::ViewTask };
            let rules: Vec<Rule> =
                rules.into_iter().map(|(principals, objects)| Rule { principals, objects }).collect();
            let acls = Acls { permissive, rules: BTreeMap::from([(action, rules)]) };
            let approver = acls.approver(action, who);
            prop_assert_eq!(approver.allows(what), told(&acls, action, who, what));
            if let Some(always) = approver.always() {
                for what in [None, Some("a"), Some("a/b"), Some("z")] {
                    prop_assert_eq!(always, told(&acls, action, who, what));
                }
            }
        }
    }
}
