//! The registry's laws, for random logs.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod world;

use muster_model::*;
use muster_registry::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use world::{Dice, World};

fn dice() -> impl Strategy<Value = Vec<Dice>> {
    proptest::collection::vec(any::<Dice>(), 0..240)
}

fn by_role<'a>(held: impl Iterator<Item = (&'a Role, Resources)>) -> BTreeMap<&'a Role, Resources> {
    let mut sums = BTreeMap::<_, Resources>::new();
    held.for_each(|(role, resources)| sums.entry(role).or_default().add(&resources));
    sums
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..Default::default() })]

    /// The laws hold after every entry; nobody has more held than an agent has, unless strays showed up.
    #[test]
    fn every_registry_is_lawful(dice in dice()) {
        let mut world = World::new();
        for roll in dice {
            world.play(roll);
            prop_assert_eq!(world.registry.check_laws(), Ok(()));
        }
    }

    /// The same log gives the same registry, outcomes and hash; so does a snapshot in its middle.
    #[test]
    fn replay_and_restore_agree(dice in dice(), at in any::<prop::sample::Index>()) {
        let mut world = World::new();
        for roll in dice {
            world.play(roll);
        }
        let cut = at.index(world.log.len());
        let mut again = Registry::new(ClusterId::new("c"), 1);
        let mut restored = None;
        for (n, (index, term, entry)) in world.log.iter().enumerate() {
            let applied = again.apply(*index, *term, entry);
            if let Some(other) = restored.as_mut() {
                let other: &mut Registry = other;
                prop_assert_eq!(applied, other.apply(*index, *term, entry));
            }
            if n == cut {
                restored = Some(Registry::restore(again.records()).unwrap());
            }
        }
        prop_assert!(again == world.registry);
        prop_assert_eq!(again.state_hash(), world.registry.state_hash());
        let restored = restored.unwrap();
        prop_assert!(restored == world.registry);
        prop_assert_eq!(restored.state_hash(), world.registry.state_hash());
    }

    /// What changes say is held adds up to what is held, on every account.
    #[test]
    fn changes_account_for_everything_held(dice in dice()) {
        let mut world = World::new();
        let mut held: BTreeMap<(AgentId, Option<Account>), i64> = BTreeMap::new();
        for roll in dice {
            for change in world.play(roll).changes {
                if let Change::HeldChanged { agent_id, account, freed, taken } = change {
                    let cpus = taken.quantity("cpus") as i64 - freed.quantity("cpus") as i64;
                    *held.entry((agent_id, account)).or_default() += cpus;
                }
            }
        }
        held.retain(|_, cpus| *cpus != 0);
        let mut real = BTreeMap::new();
        for it in world.registry.holdings() {
            *real.entry((it.agent_id, it.account)).or_insert(0) += it.resources.quantity("cpus") as i64;
        }
        real.retain(|_, cpus| *cpus != 0);
        prop_assert_eq!(held, real);
    }

    /// Counted by kind, what accounts hold is what all holdings are, one by one; and so is what counts against quotas.
    #[test]
    fn holdings_counted_by_kind_are_all_holdings(dice in dice()) {
        let mut world = World::new();
        for roll in dice {
            world.play(roll);
        }
        let registry = &world.registry;
        let mut counted: BTreeMap<Account, Resources> = BTreeMap::new();
        for (account, resources, n) in registry.held_by_accounts() {
            counted.entry(account).or_default().add(&resources.times(n));
        }
        let mut real: BTreeMap<Account, Resources> = BTreeMap::new();
        for it in registry.holdings() {
            let Some(account) = it.account else { continue };
            real.entry(account).or_default().add(&it.resources);
        }
        real.retain(|_, resources| !resources.is_empty());
        counted.retain(|_, resources| !resources.is_empty());
        prop_assert_eq!(&counted, &real);
        for agent in registry.agents() {
            let by_kind = registry.held_by_tasks_on(&agent.id).map(|(role, all, n)| (role, all.times(n)));
            prop_assert_eq!(registry.task_count_of_agent(&agent.id), registry.tasks_of_agent(&agent.id).count());
            let one_by_one = registry.tasks_of_agent(&agent.id).filter(|task| task.held);
            prop_assert_eq!(by_role(by_kind), by_role(one_by_one.map(|it| (&it.role, it.resources.clone()))));
        }
        for framework in registry.frameworks() {
            let id = &framework.id;
            let by_kind = registry.held_by_tasks_of(id).map(|(role, all, n)| (role, all.times(n)));
            prop_assert_eq!(registry.task_count_of_framework(id), registry.tasks_of_framework(id).count());
            let one_by_one = registry.tasks_of_framework(id).filter(|task| task.held);
            prop_assert_eq!(by_role(by_kind), by_role(one_by_one.map(|it| (&it.role, it.resources.clone()))));
        }
        let consumed = registry.consumed();
        let here = || registry.agents().filter(|agent| !agent.is_gone());
        let reserved: Vec<_> = here().flat_map(|agent| registry.total_of(agent).reserved()).collect();
        for role in real.keys().map(|(_, role)| role).chain(reserved.iter().map(|(role, _)| role)) {
            let of_tasks = real.iter().filter(|((_, it), _)| role.covers(it)).map(|(_, it)| it.unreserved());
            let of_agents = reserved.iter().filter(|(it, _)| role.covers(it)).map(|(_, it)| it.clone());
            let sum = of_tasks.chain(of_agents).fold(Resources::none(), |sum, it| sum.plus(&it.quantities()));
            prop_assert_eq!(consumed.of(role), sum);
        }
    }

    /// A task lives until it is completed. A launch is ordered at most until its agent has accepted it; updates come in the order of their queue,
    /// each told once as the head; launch numbers never repeat.
    #[test]
    fn orders_and_updates_keep_their_order(dice in dice()) {
        let mut world = World::new();
        let mut accepted: BTreeSet<LaunchNumber> = BTreeSet::new();
        let mut launched: BTreeSet<LaunchNumber> = BTreeSet::new();
        for roll in dice {
            let before: BTreeMap<TaskKey, Task> =
                world.registry.tasks().map(|task| (task.key.clone(), task.clone())).collect();
            let applied = world.play(roll);
            for change in &applied.changes {
                match change {
                    Change::RunDue(task) => {
                        prop_assert!(!accepted.contains(&task.launch), "{} ordered again", task.key);
                        if !before.contains_key(&task.key) {
                            prop_assert!(launched.insert(task.launch), "launch number used twice");
                        }
                    }
                    Change::UpdateDue { task, uuid, .. } => {
                        let now = world.registry.task(task).expect("its task lives");
                        prop_assert_eq!(now.updates()[0].uuid, *uuid);
                        if let Some(before) = before.get(task).filter(|it| it.launch == now.launch) {
                            let head = before.updates().first().map(|head| head.uuid);
                            prop_assert_ne!(head, Some(*uuid), "the head was told before");
                        }
                    }
                    _ => {}
                }
            }
            for (key, task) in &before {
                let lives = world.registry.task(key).is_some_and(|it| it.launch == task.launch);
                let ended = applied.changes.contains(&Change::TaskCompleted(key.clone()));
                prop_assert!(lives || ended, "{} vanished without an end", key);
            }
            let commands = world.log.last().map(|(_, _, entry)| entry.commands.clone()).unwrap_or_default();
            for task in world.registry.tasks() {
                if task.accepted {
                    accepted.insert(task.launch);
                }
                if let Some(before) = before.get(&task.key).filter(|it| it.launch == task.launch)
                    && let (Some(old), Some(new)) = (before.updates().first(), task.updates().first())
                {
                    // Only its own acknowledgement moves the head on. (What the same entry forgets may add
                    // the next one, so the new head need not have waited before.)
                    let acknowledgement = Command::Acknowledge { task: task.key.clone(), uuid: old.uuid };
                    let acknowledged = commands.contains(&acknowledgement);
                    prop_assert!(old == new || acknowledged, "the head of {} was replaced", task.key);
                    let waited = before.updates().get(1);
                    prop_assert!(old == new || waited.is_none_or(|next| next == new), "{} lost its turn", task.key);
                }
            }
        }
    }

    /// Whatever is made of resources, their sums are what their agents came with; and what is done is done once.
    #[test]
    fn conversions_change_no_sum(dice in dice()) {
        let mut world = World::new();
        let mut totals: BTreeMap<AgentId, Resources> = BTreeMap::new();
        for roll in dice {
            for change in world.play(roll).changes {
                match change {
                    Change::AgentAdmitted(agent) => {
                        totals.insert(agent.id.clone(), agent.info.resources.clone());
                    }
                    Change::TotalChanged { agent_id, total } => {
                        let before = totals.insert(agent_id, total.clone()).unwrap();
                        prop_assert_eq!(before.quantities(), total.quantities());
                    }
                    Change::AgentRemoved(id) => drop(totals.remove(&id)),
                    _ => {}
                }
            }
            for agent in world.registry.agents().filter(|agent| !agent.is_gone()) {
                let total = world.registry.total_of(agent).into_owned();
                prop_assert_eq!(totals.get(&agent.id), Some(&total), "{} is told as it is", agent.id);
            }
        }
    }

    /// Nothing that is remembered grows beyond its limit.
    #[test]
    fn memory_is_bounded(dice in proptest::collection::vec(any::<Dice>(), 200..500)) {
        let mut world = World::new();
        for roll in dice {
            world.play(roll);
            let limits = *world.registry.limits();
            prop_assert!(world.registry.completed_tasks().count() <= limits.completed_tasks as usize);
            // Each entry forgets one framework more than it completes at most.
            prop_assert!(
                world.registry.completed_frameworks().count() <= limits.completed_frameworks as usize + 1
            );
            let lost = world.registry.agents().filter(|it| it.lost_since().is_some()).count();
            prop_assert!(lost <= limits.lost_agents as usize);
            for task in world.registry.tasks() {
                prop_assert!(task.updates().len() <= limits.updates_per_task as usize);
            }
        }
    }
}
