//! A pass: who gets what of which room.

use crate::{
    About, Ask, Policy, Room, Why, Wishes,
    allocate::{Standing, allocate},
    quota::{Consumed, Quotas},
};
use muster_model::{
    AgentId, Constraint, Constraints, FrameworkId, Predicate, Resources, Role, Selector, Wants,
};
use muster_registry::Quota;
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
    rooms: Vec<Room>,
    asks: Vec<Ask>,
    has: BTreeMap<Role, Resources>,
    weights: BTreeMap<Role, u64>,
    quotas: BTreeMap<Role, Quota>,
}

impl Pass {
    fn agents(mut self, all: &[&str]) -> Self {
        for resources in all {
            let n = self.rooms.len();
            let about = Arc::new(About { hostname: format!("h{n}").into(), attributes: Vec::new() });
            let agent_id = AgentId::new(format!("a{n}"));
            self.rooms.push(Room { agent_id, about, total: r(resources), free: r(resources) });
        }
        self
    }

    /// A framework in one role.
    fn framework(mut self, name: &str, role_name: &str, wishes: Wishes) -> Self {
        let account = (FrameworkId::new(name), role(role_name));
        self.asks.push(Ask { account, has: Resources::none(), wishes: Arc::new(wishes) });
        self
    }

    fn quota(mut self, role_name: &str, guarantees: &str, limits: &[(&str, u64)]) -> Self {
        let limits = limits.iter().map(|(kind, most)| ((*kind).into(), *most)).collect();
        self.quotas.insert(role(role_name), Quota { guarantees: r(guarantees), limits });
        self
    }

    /// What each framework got of which room, and who got nothing.
    fn go(mut self) -> (Vec<Got>, Vec<(String, Why)>) {
        let mut fleet = Resources::none();
        let mut reserved: BTreeMap<Role, Resources> = BTreeMap::new();
        for room in &self.rooms {
            fleet.add(&room.total.quantities());
            for (role, part) in room.total.reserved() {
                reserved.entry(role).or_default().add(&part.quantities());
            }
        }
        let mut free = fleet.clone();
        self.has.values().chain(reserved.values()).for_each(|it| free.subtract(it));
        let consumed = Consumed { by_role: self.has.clone(), reserved, free };
        let mut quotas = Quotas::new(&self.quotas, &consumed);
        let standing = Standing {
            roles: &self.has,
            fleet: &fleet,
            largest: &fleet,
            policy: &Policy::default(),
            weights: &self.weights,
            hidden: &|_, _, _| false,
        };
        let (given, passes) = allocate(&mut self.rooms, &mut self.asks, &standing, &mut quotas);
        let name = |ask: usize| self.asks[ask].account.0.to_string();
        let given = given.into_iter().map(|(ask, room, part)| (name(ask), room, part.to_string()));
        let passes = passes.into_iter().map(|pass| (pass.account.0.to_string(), pass.why));
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
