//! The law of the quick shard: it decides as the plain one does, whatever it is told.

#[path = "../../muster-registry/tests/world/mod.rs"]
mod world;

use crate::{Grant, Policy, Refused, Shard, ShardId, ShardInput, View, Wishes, reference};
use muster_model::{
    Attribute, AttributeValue, Constraint, Constraints, FrameworkId, Predicate, Resources, Role, Selector,
    Timestamp, Value, Wants,
};
use muster_registry::Change;
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};
use world::{Dice, World};

const ROLES: [&str; 5] = ["*", "a", "a/b", "b", "c"];

fn role(luck: u8) -> Role {
    Role::parse(ROLES[usize::from(luck) % ROLES.len()]).unwrap()
}

fn framework(luck: u8) -> FrameworkId {
    FrameworkId::new(format!("c-{:04}", luck % 6))
}

fn some_resources(luck: u8) -> Resources {
    let all =
        ["cpus:1", "cpus:2;mem:32", "mem:64", "disk:4", "cpus:3;mem:10;disk:8", "ports:[2-3]", "cpus:9"];
    Resources::parse(all[usize::from(luck) % all.len()]).unwrap()
}

/// Few different ones, so that some are alike.
fn wishes(a: u8, b: u8, c: u8) -> Wishes {
    let roles = (0..5).filter(|n| a >> n & 1 == 1).map(role).collect();
    let at_least = match c % 8 {
        0 => Some(Vec::new()),
        1 => Some(vec![some_resources(b / 8)]),
        _ => None,
    };
    let name = |n: u8| Selector::Attribute(["rack", "zone"][usize::from(n) % 2].into());
    let agents = match c / 8 % 5 {
        0 => vec![vec![Constraint { selector: name(b), predicate: Predicate::Exists }]],
        1 => {
            let predicate = Predicate::TextEquals(format!("{}", b / 16 % 2).as_str().into());
            vec![vec![Constraint { selector: name(b), predicate }]]
        }
        2 => vec![vec![Constraint {
            selector: Selector::Hostname,
            predicate: Predicate::TextNotEquals("h1".into()),
        }]],
        _ => Vec::new(),
    };
    let agents = (!agents.is_empty()).then_some(Constraints(agents));
    Wishes {
        roles,
        needs: (0..(b % 8).saturating_sub(5)).map(|n| some_resources(c / 32 + n)).collect(),
        wants: BTreeMap::from([(role(b), Wants { at_least, agents })]),
        refined: a & 32 > 0,
        gpus: a & 64 > 0,
    }
}

/// The world's agents are all alike: these are not.
fn varied(change: Change) -> Change {
    let Change::AgentAdmitted(agent) = change else { return change };
    let mut agent = (*agent).clone();
    let luck = agent.id.as_str().bytes().last().unwrap_or(0);
    let info = Arc::make_mut(&mut agent.info);
    info.hostname = format!("h{}", luck % 3).as_str().into();
    let text = |n: u8| AttributeValue::Text(n.to_string().as_str().into());
    for (name, n) in [("rack", luck % 2), ("zone", luck / 2 % 2)] {
        if luck % 5 > 0 {
            info.attributes.push(Attribute { name: name.into(), value: text(n) });
        }
    }
    let total = &mut info.resources;
    if luck.is_multiple_of(3) {
        total.insert("gpus", Value::Scalar(1000));
    }
    if luck.is_multiple_of(2) {
        total.insert("ports", Value::ranges([(1, 9)]));
    }
    if luck % 5 == 1 {
        // Of a kind that nobody else has, and that is reserved.
        for (name, label, value) in Resources::parse("fpga(b):4").unwrap().iter_labelled() {
            total.insert_labelled(name, label.cloned().map(Arc::new), value.clone());
        }
    }
    Change::AgentAdmitted(Arc::new(agent))
}

/// Both shards, and what is around them.
struct Both {
    quick: Shard,
    plain: reference::Shard,
    world: World,
    now: Timestamp,
    granted: Vec<Grant>,
}

impl Both {
    /// One of so many shards.
    fn new(count: u32) -> Self {
        let shard = ShardId { index: 0, count };
        let policy = Policy { weights: BTreeMap::from([(role(1), 2500)]), ..Policy::default() };
        let mut both = Self {
            quick: Shard::new(View::empty(shard), policy.clone()),
            plain: reference::Shard::new(View::empty(shard), policy),
            world: World::new(),
            now: Timestamp(0),
            granted: Vec::new(),
        };
        for n in 0..4 {
            both.play((3, 1, n, n));
        }
        both
    }

    fn tell(&mut self, inputs: Vec<ShardInput>) {
        let quick = self.quick.step(self.now, inputs.clone());
        assert_eq!(quick, self.plain.step(self.now, inputs.clone()), "after {inputs:?}");
        self.granted.extend(quick.grants);
    }

    fn play(&mut self, dice: Dice) {
        let changes = self.world.play(dice).changes.into_iter().map(varied).collect();
        self.tell(vec![ShardInput::Changed(Arc::new(changes))]);
    }

    /// Some of what stands goes back, declined or not.
    fn give_back(&mut self, (a, b, c): (u8, u8, u8), many: usize) {
        let mut inputs = Vec::new();
        for n in 0..many.min(self.granted.len()) {
            let grant = self.granted.swap_remove((usize::from(a) + 7 * n) % self.granted.len());
            let until = self.now.plus_ms(u64::from(b) * 40);
            let part = if c.is_multiple_of(3) { some_resources(c).into() } else { grant.resources.clone() };
            let refused = (!b.is_multiple_of(4)).then_some(Refused { resources: part, until });
            inputs.push(ShardInput::Returned(grant.n, refused));
        }
        self.tell(inputs);
    }

    fn act(&mut self, (what, a, b, c): Dice) {
        self.now = self.now.plus_ms(u64::from(c) * 4);
        let input = match what % 12 {
            0..=2 => ShardInput::Wish(framework(b), Some(wishes(a, b, c))),
            3 => ShardInput::Wish(framework(b), (a > 60).then(|| wishes(a, b, c))),
            4 => ShardInput::Revive(framework(a), (0..=b % 5).map(role).collect()),
            5 => ShardInput::Elsewhere(BTreeMap::from([(role(a), some_resources(b).quantities())])),
            6 if a < 40 => ShardInput::Reset(Box::new(self.world.registry.clone())),
            7 => return self.give_back((a, b, c), 1),
            8..=10 => return self.give_back((a, b, c), usize::from(a) % 6),
            _ => return self.tell(Vec::new()),
        };
        self.tell(vec![input]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_quick_shard_decides_as_the_plain_one(
        count in 1..4_u32,
        steps in proptest::collection::vec((any::<bool>(), any::<Dice>()), 0..160),
    ) {
        let mut both = Both::new(count);
        for (of_world, dice) in steps {
            if of_world { both.play(dice) } else { both.act(dice) }
        }
    }
}

#[test]
fn what_proptest_tries_is_not_nothing() {
    // The law says nothing if nobody is ever granted anything: the same steps, counted.
    let mut both = Both::new(1);
    for n in 0..=255_u8 {
        let mix = |by: u8| n.wrapping_mul(by).wrapping_add(by);
        both.act((mix(7), mix(29), mix(53), mix(11)));
    }
    assert!(both.quick.grants_counted() > 50, "{} grants", both.quick.grants_counted());
}
