//! A pass: who gets what of which room.

use crate::{Policy, Shard, ShardId, ShardInput, View, Why, Wishes};
use muster_model::{
    AgentId, AgentInfo, ClusterId, Constraint, Constraints, FrameworkId, Hello, Index, MachineId, Predicate,
    Resources, Role, Sealed, Selector, Term, Timestamp, Wants,
};
use muster_registry::{Change, Command, Entry, Quota, Registry, RoleSettings};
use std::{collections::BTreeMap, sync::Arc};

fn r(text: &str) -> Resources {
    Resources::parse(text).unwrap()
}

fn role(text: &str) -> Role {
    Role::parse(text).unwrap()
}

/// What a framework got of which room.
type Got = (String, usize, String);

/// A fleet of agents with nothing in use, and frameworks that want it.
#[derive(Default)]
struct Pass {
    agents: Vec<Resources>,
    asks: Vec<(FrameworkId, Wishes)>,
    has: BTreeMap<Role, Resources>,
    weights: BTreeMap<Role, u64>,
    quotas: BTreeMap<Role, Quota>,
}

impl Pass {
    fn agents(mut self, all: &[&str]) -> Self {
        self.agents.extend(all.iter().map(|it| r(it)));
        self
    }

    /// A framework in one role.
    fn framework(mut self, name: &str, role_name: &str, wishes: Wishes) -> Self {
        self.asks.push((FrameworkId::new(name), Wishes { roles: [role(role_name)].into(), ..wishes }));
        self
    }

    fn quota(mut self, role_name: &str, guarantees: &str, limits: &[(&str, u64)]) -> Self {
        let limits = limits.iter().map(|(kind, most)| ((*kind).into(), *most)).collect();
        self.quotas.insert(role(role_name), Quota { guarantees: r(guarantees), limits });
        self
    }

    /// All that the shard is told before it is asked.
    fn changes(&self) -> Vec<Change> {
        let hello = |(n, resources): (usize, &Resources)| {
            let info = AgentInfo {
                machine_id: MachineId::new(format!("m{n}")),
                hostname: format!("h{n}").as_str().into(),
                port: 1,
                resources: resources.clone(),
                attributes: Vec::new(),
            };
            let hello = Hello { agent_id: None, info, tasks: Vec::new(), sealed: Sealed::default() };
            Command::AdmitAgent(Box::new(hello))
        };
        let commands = self.agents.iter().enumerate().map(hello).collect();
        let mut registry = Registry::new(ClusterId::new("c"), 1);
        let applied = registry.apply(Index(1), Term(0), &Entry { commands, ..Entry::default() });
        let held = self.has.iter().map(|(role, has)| Change::HeldChanged {
            agent_id: AgentId::new("elsewhere"),
            account: Some((FrameworkId::new("somebody"), role.clone())),
            freed: Resources::none(),
            taken: has.clone(),
        });
        let mut settings: BTreeMap<Role, RoleSettings> = BTreeMap::new();
        for (role, weight) in &self.weights {
            settings.entry(role.clone()).or_default().weight_milli = Some(*weight);
        }
        for (role, quota) in &self.quotas {
            settings.entry(role.clone()).or_default().quota = quota.clone();
        }
        let settings = settings.into_iter().map(|(role, it)| Change::RoleSettings(role, Arc::new(it)));
        applied.changes.into_iter().chain(held).chain(settings).collect()
    }

    /// What each framework got of which room, and who got nothing.
    fn go(self) -> (Vec<Got>, Vec<(String, Why)>) {
        let view = View::empty(ShardId { index: 0, count: 1 });
        let mut shard = Shard::new(view, Policy::default());
        let changes = ShardInput::Changed(Arc::new(self.changes()));
        let wishes = self.asks.into_iter().map(|(id, wishes)| ShardInput::Wish(id, Some(wishes)));
        let output = shard.step(Timestamp(0), [changes].into_iter().chain(wishes));
        let room = |id: &AgentId| id.as_str().trim_start_matches("c-S").parse().unwrap();
        let given = output.grants.into_iter();
        let given =
            given.map(|it| (it.framework_id.to_string(), room(&it.agent_id), it.resources.to_string()));
        let passes = output.passes.into_iter().map(|pass| (pass.account.0.to_string(), pass.why));
        (given.collect(), passes.collect())
    }

    fn given(self) -> Vec<Got> {
        self.go().0
    }
}

fn got(name: &str, room: usize, part: &str) -> Got {
    (name.into(), room, part.into())
}

fn any() -> Wishes {
    Wishes::default()
}

#[test]
fn what_is_reserved_goes_to_the_role_and_to_those_below_it() {
    let pass = || Pass::default().agents(&["cpus:1;mem:100;cpus(web):2;mem(web):200"]);
    assert_eq!(pass().framework("f", "db", any()).given(), [got("f", 0, "cpus:1;mem:100")]);
    let all = "cpus:1;cpus(web):2;mem:100;mem(web):200";
    for below in ["web", "web/front"] {
        assert_eq!(pass().framework("f", below, any()).given(), [got("f", 0, all)], "{below}");
    }
    // What one may not have is left for who may.
    let both = pass().framework("d", "db", any()).framework("w", "web", any()).given();
    assert_eq!(both, [got("d", 0, "cpus:1;mem:100"), got("w", 0, "cpus(web):2;mem(web):200")]);
    let (given, passes) =
        Pass::default().agents(&["cpus(web):2;mem(web):200"]).framework("f", "db", any()).go();
    assert_eq!((given, passes), (vec![], vec![("f".into(), Why::NotForIt)]));
}

#[test]
fn agents_with_gpus_are_for_those_that_know_them() {
    let pass = || Pass::default().agents(&["cpus:1;mem:100;gpus:1", "cpus:1;mem:100"]);
    assert_eq!(pass().framework("f", "*", any()).given(), [got("f", 1, "cpus:1;mem:100")]);
    let gpus = Wishes { gpus: true, ..any() };
    assert_eq!(pass().framework("f", "*", gpus).given().len(), 2);
}

fn wants(at_least: Option<Vec<Resources>>, agents: Option<Constraints>) -> Wishes {
    Wishes { wants: [(role("*"), Wants { at_least, agents })].into(), ..any() }
}

#[test]
fn who_says_what_it_wants_at_least_is_offered_that() {
    let pass = || Pass::default().agents(&["cpus:1;mem:100", "cpus:4;mem:100", "disk:5"]);
    let at_least = |some: &[&str]| wants(Some(some.iter().map(|it| r(it)).collect()), None);
    assert_eq!(pass().framework("f", "*", at_least(&["cpus:2"])).given(), [got("f", 1, "cpus:4;mem:100")]);
    let rooms = |wishes| {
        let given = pass().framework("f", "*", wishes).given();
        given.into_iter().map(|(_, room, _)| room).collect::<Vec<_>>()
    };
    assert_eq!(rooms(at_least(&["cpus:2", "disk:1"])), [1, 2], "one of them is enough");
    assert_eq!(rooms(at_least(&[])), [0, 1, 2], "anything");
    assert_eq!(rooms(any()), [0, 1], "a disk alone is not worth an offer");
}

#[test]
fn who_says_which_agents_it_wants_is_offered_those() {
    let (selector, predicate) = (Selector::Hostname, Predicate::TextEquals("h1".into()));
    let only = Constraints(vec![vec![Constraint { selector, predicate }]]);
    let pass = Pass::default().agents(&["cpus:1;mem:100"; 3]);
    assert_eq!(pass.framework("f", "*", wants(None, Some(only))).given(), [got("f", 1, "cpus:1;mem:100")]);
}

#[test]
fn a_role_has_no_more_than_its_limits() {
    let pass =
        || Pass::default().agents(&["cpus:4;mem:400;ports:[1-9]"; 2]).quota("web", "", &[("cpus", 5_000)]);
    let given = pass().framework("f", "web", any()).given();
    assert_eq!(
        given,
        [got("f", 0, "cpus:4;mem:400;ports:[1-9]"), got("f", 1, "cpus:1;mem:400;ports:[1-9]")],
        "what is not limited is not cut"
    );
    // Those below count as well, and others take what is left.
    let given =
        pass().framework("a", "web/a", any()).framework("b", "web/b", any()).framework("o", "x", any());
    let cpus = |name: &str, given: &[Got]| -> u64 {
        given.iter().filter(|it| it.0.starts_with(name)).map(|it| r(&it.2).scalar("cpus")).sum()
    };
    let given = given.given();
    assert!(cpus("a", &given) + cpus("b", &given) <= 5_000, "{given:?}");
    assert_eq!(cpus("", &given), 8_000, "{given:?}");
    // What is reserved counts against the limit, and is the role's all the same.
    let reserved = Pass::default().agents(&["cpus(web):5;mem:400", "cpus:4;mem:400"]).quota(
        "web",
        "",
        &[("cpus", 5_000)],
    );
    let given = reserved.framework("f", "web", any()).given();
    assert_eq!(given, [got("f", 0, "cpus(web):5;mem:400"), got("f", 1, "mem:400")]);
}

#[test]
fn what_is_guaranteed_is_kept_for_the_role() {
    let pass = || Pass::default().agents(&["cpus:4;mem:400"; 3]).quota("web", "cpus:6;mem:400", &[]);
    // It is away: others have what is beyond.
    let given = pass().framework("o", "x", any()).given();
    let all = given.iter().fold(Resources::none(), |sum, it| sum.plus(&r(&it.2)));
    assert_eq!(all, r("cpus:6;mem:800"));
    // It is there: it is first, although it has more than the other, and the rest is shared.
    let mut both = pass().framework("o", "x", any()).framework("w", "web", any());
    both.has = [(role("web"), r("cpus:0.5"))].into();
    let given = both.given();
    let of = |name: &str| {
        let own = given.iter().filter(|it| it.0 == name);
        own.fold(Resources::none(), |sum, it| sum.plus(&r(&it.2)))
    };
    assert!(of("w").contains(&r("cpus:5.5;mem:400")), "{given:?}");
    assert!(of("o").scalar("cpus") > 0, "{given:?}");
}

#[test]
fn a_role_shares_with_its_sisters_what_their_parent_gets() {
    let mut pass = Pass::default().agents(&["cpus:1;mem:100"; 12]);
    for (name, role) in [("p", "a/x"), ("q", "a/y"), ("r", "b")] {
        pass = pass.framework(name, role, any());
    }
    let count = |given: &[Got], name| given.iter().filter(|it| it.0 == name).count();
    let given = pass.given();
    assert_eq!([count(&given, "p"), count(&given, "q"), count(&given, "r")], [3, 3, 6]);
    let mut pass = Pass::default().agents(&["cpus:1;mem:100"; 12]);
    pass.weights = [(role("a"), 2000), (role("a/x"), 3000)].into();
    for (name, role) in [("p", "a/x"), ("o", "a"), ("r", "b")] {
        pass = pass.framework(name, role, any());
    }
    let given = pass.given();
    // The frameworks of `a` itself stand beside `a/x`.
    assert_eq!([count(&given, "p"), count(&given, "o"), count(&given, "r")], [6, 2, 4]);
}

#[test]
fn a_pass_ends_when_everybody_has_what_it_may_have() {
    let pass = Pass::default().agents(&["cpus:1;mem:100"; 2]).quota("web", "", &[("cpus", 0), ("mem", 0)]);
    let (given, passes) = pass.framework("f", "web", any()).go();
    assert_eq!((given, passes), (vec![], vec![("f".into(), Why::NotForIt)]));
    let needs = Wishes { needs: vec![r("cpus:1")], ..any() };
    let pass = Pass::default().agents(&["cpus:2;mem:100"]).quota("web", "", &[("cpus", 1_000)]);
    assert_eq!(pass.framework("f", "web", needs).given(), [got("f", 0, "cpus:1;mem:100")]);
}

#[test]
fn accounts_of_no_use_are_forgotten() {
    let mut shard = Shard::new(View::empty(ShardId { index: 0, count: 1 }), Policy::default());
    let hello = Pass::default().agents(&["cpus:1;mem:100"]).changes();
    shard.step(Timestamp(0), [ShardInput::Changed(Arc::new(hello))]);
    for round in 0..20 {
        let id = |n: usize| FrameworkId::new(format!("f{}", round * 1_000 + n));
        let wishes = Wishes { roles: [role("*")].into(), ..any() };
        let come = (0..300).map(|n| ShardInput::Wish(id(n), Some(wishes.clone())));
        let grants = shard.step(Timestamp(0), come).grants;
        assert_eq!(grants.len(), 1);
        let go = (0..300).map(|n| ShardInput::Wish(id(n), None));
        let back = grants.into_iter().map(|grant| ShardInput::Returned(grant.n, None));
        shard.step(Timestamp(0), go.chain(back));
        assert!(shard.accounts_kept() <= 900, "{} after {round}", shard.accounts_kept());
    }
}
