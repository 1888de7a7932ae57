//! The shard machine: fair, exact, quiet.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use muster_allocator::*;
use muster_model::*;
use muster_registry::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A registry with shards that follow it, and frameworks that want offers.
struct Fleet {
    registry: Registry,
    index: u64,
    shards: Vec<Shard>,
}

fn r(text: &str) -> Resources {
    Resources::parse(text).unwrap()
}

fn role(text: &str) -> Role {
    Role::parse(text).unwrap()
}

impl Fleet {
    fn new(shards: u32, policy: Policy) -> Self {
        let registry = Registry::new(ClusterId::new("c"), 1);
        let shard = |index| Shard::new(View::empty(ShardId { index, count: shards }), policy.clone());
        Self { registry, index: 0, shards: (0..shards).map(shard).collect() }
    }

    fn apply(&mut self, command: Command) -> (Outcome, Vec<Grant>) {
        self.index += 1;
        let entry = Entry { commands: vec![command], ..Default::default() };
        let applied = self.registry.apply(Index(self.index), Term(0), &entry);
        let changes = Arc::new(applied.changes);
        let grants = self.step(0, |_| vec![ShardInput::Changed(changes.clone())]);
        (applied.outcomes[0].clone(), grants)
    }

    fn step(&mut self, now: u64, inputs: impl Fn(usize) -> Vec<ShardInput>) -> Vec<Grant> {
        let steps = self.shards.iter_mut().enumerate();
        steps.flat_map(|(n, shard)| shard.step(Timestamp(now), inputs(n)).grants).collect()
    }

    fn agent(&mut self, n: usize, resources: &str) -> (AgentId, Vec<Grant>) {
        let info = AgentInfo {
            machine_id: MachineId::new(format!("m{n}")),
            hostname: "h".into(),
            port: 1,
            resources: r(resources),
            attributes: Vec::new(),
        };
        let hello = Hello { agent_id: None, info, tasks: Vec::new(), sealed: Sealed::default() };
        match self.apply(Command::AdmitAgent(Box::new(hello))) {
            (Outcome::Admitted { agent_id, .. }, grants) => (agent_id, grants),
            (other, _) => panic!("{other:?}"),
        }
    }

    fn framework(&mut self, roles: &[&str]) -> FrameworkId {
        let info = FrameworkInfo {
            name: "f".into(),
            user: "u".into(),
            principal: None,
            roles: roles.iter().map(|it| role(it)).collect(),
            failover_timeout_ms: 0,
            capabilities: Capabilities::default(),
            sealed: Sealed::default(),
        };
        let subscribe = Subscribe { framework_id: None, info, suppressed_roles: Vec::new() };
        match self.apply(Command::Subscribe(subscribe)) {
            (Outcome::Subscribed { framework_id, .. }, _) => framework_id,
            (other, _) => panic!("{other:?}"),
        }
    }

    fn wish(&mut self, id: &FrameworkId, roles: &[&str], needs: &[&str]) -> Vec<Grant> {
        let roles = roles.iter().map(|it| role(it)).collect();
        let needs = needs.iter().map(|it| r(it)).collect();
        let wishes = Wishes { roles, needs, ..Wishes::default() };
        self.step(0, |_| vec![ShardInput::Wish(id.clone(), Some(wishes.clone()))])
    }

    fn shard_of(&self, agent_id: &AgentId) -> usize {
        let count = self.shards.len() as u32;
        (0..count).find(|&index| ShardId { index, count }.owns(agent_id)).unwrap() as usize
    }

    fn give_back(&mut self, grant: &Grant, refused: Option<Refused>, now: u64) -> Vec<Grant> {
        let owner = self.shard_of(&grant.agent_id);
        let input = ShardInput::Returned(grant.n, refused);
        self.step(now, |n| if n == owner { vec![input.clone()] } else { vec![] })
    }

    /// Launches a task out of a grant and gives the rest back.
    fn launch(&mut self, grant: &Grant, task_id: usize, resources: &Resources) -> Vec<Grant> {
        let launch = Launch {
            framework_id: grant.framework_id.clone(),
            agent_id: grant.agent_id.clone(),
            role: grant.role.clone(),
            offer_ids: Vec::new(),
            offered: Resources::clone(&grant.resources),
            tasks: vec![TaskSpec {
                task_id: TaskId::new(format!("t{task_id}")),
                name: "t".into(),
                resources: resources.clone(),
                executor: None,
                grace_ms: None,
                sealed: Sealed::default(),
            }],
        };
        let (outcome, mut grants) = self.apply(Command::Launch(launch));
        let Outcome::Launched(outcome) = outcome else { panic!("{outcome:?}") };
        assert!(matches!(outcome.tasks[0].1, TaskOutcome::Launched(_)), "a grant has room: {outcome:?}");
        grants.extend(self.give_back(grant, None, 0));
        grants
    }

    /// Each framework launches a small task out of every grant it gets, until nothing is left.
    /// Returns each framework's share of the fleet's cpus, in thousandths.
    fn fill(&mut self, mut grants: Vec<Grant>, task: &Resources, until: u64) -> BTreeMap<FrameworkId, u64> {
        let mut launched = 0;
        while let Some(grant) = grants.pop() {
            if launched == until || !grant.resources.contains(task) {
                continue;
            }
            launched += 1;
            let more = self.launch(&grant, launched as usize, task);
            grants.splice(0..0, more);
        }
        let all: u64 = self.registry.agents().map(|agent| agent.info.resources.scalar("cpus")).sum();
        let mut shares = BTreeMap::new();
        for held in self.registry.holdings() {
            let (id, _) = held.account.unwrap();
            *shares.entry(id).or_default() += held.resources.scalar("cpus") * 1000;
        }
        shares.values_mut().for_each(|share| *share /= all);
        shares
    }
}

#[test]
fn nothing_new_grants_nothing() {
    let mut fleet = Fleet::new(2, Policy::default());
    let f = fleet.framework(&["a"]);
    let grants = fleet.wish(&f, &["a"], &[]);
    assert!(grants.is_empty(), "there is no agent");
    let (_, grants) = fleet.agent(0, "cpus:4;mem:1000");
    assert_eq!(grants.len(), 1, "a new agent is offered at once");
    assert_eq!(*grants[0].resources, r("cpus:4;mem:1000"));
    assert!(fleet.step(9, |_| vec![]).is_empty());
    assert!(fleet.wish(&f, &["a"], &[]).is_empty(), "what is granted is not granted again");
}

#[test]
fn a_declined_agent_stays_hidden_until_there_is_something_new() {
    let mut fleet = Fleet::new(1, Policy::default());
    let (f, g) = (fleet.framework(&["a"]), fleet.framework(&["a"]));
    fleet.wish(&f, &["a"], &[]);
    let (_, grants) = fleet.agent(0, "cpus:4;mem:1000");
    let refused = Refused { resources: grants[0].resources.clone(), until: Timestamp(5_000) };
    assert!(
        fleet.give_back(&grants[0], Some(refused.clone()), 0).is_empty(),
        "the only framework declined it"
    );
    assert!(fleet.step(4_999, |_| vec![]).is_empty());
    let grants = fleet.step(5_000, |_| vec![]);
    assert_eq!(grants.len(), 1, "the filter ended");
    let refused = Refused { until: Timestamp(99_000), ..refused };
    fleet.give_back(&grants[0], Some(refused.clone()), 6_000);
    let others = fleet.wish(&g, &["a"], &[]);
    assert_eq!(others[0].framework_id, g, "a filter hides from one framework only");
    let refused_by_g = Refused { until: Timestamp(99_000), ..refused };
    assert!(fleet.give_back(&others[0], Some(refused_by_g), 6_000).is_empty());
    let revive = ShardInput::Revive(f.clone(), BTreeSet::from([role("a")]));
    let grants = fleet.step(6_000, |_| vec![revive.clone()]);
    assert_eq!(grants[0].framework_id, f, "revive clears filters");
}

#[test]
fn a_filter_hides_no_more_than_was_refused() {
    let mut fleet = Fleet::new(1, Policy::default());
    let f = fleet.framework(&["a"]);
    fleet.wish(&f, &["a"], &[]);
    let (_, grants) = fleet.agent(0, "cpus:4;mem:1000");
    // Uses a part, refuses the rest: the part is offered again when it is free, with the rest.
    let task = r("cpus:1;mem:100");
    let launch = fleet.launch(&grants[0], 1, &task);
    let rest = launch[0].clone();
    assert_eq!(*rest.resources, r("cpus:3;mem:900"));
    let refused = Refused { resources: rest.resources.clone(), until: Timestamp(99_000) };
    assert!(fleet.give_back(&rest, Some(refused), 0).is_empty());
    let task = fleet.registry.tasks().next().unwrap().clone();
    let status = Status {
        state: TaskState::Finished,
        source: Source::Executor,
        reason: None,
        message: "".into(),
        wall: WallTime(0),
        sealed: Sealed::default(),
    };
    let update =
        StatusUpdate { launch: task.launch, task: task.key.clone(), seq: 1, uuid: Uuid::default(), status };
    let (_, grants) =
        fleet.apply(Command::Status { agent_id: task.agent_id.clone(), update: Box::new(update) });
    assert_eq!(*grants[0].resources, r("cpus:4;mem:1000"), "there is something new");
}

#[test]
fn needs_rank_agents_by_score() {
    let mut fleet = Fleet::new(1, Policy::default());
    let f = fleet.framework(&["a"]);
    let (small, _) = fleet.agent(0, "cpus:1;mem:1000");
    let (half_used, _) = fleet.agent(1, "cpus:4;mem:8000");
    let (empty, _) = fleet.agent(2, "cpus:4;mem:8000");
    let g = fleet.framework(&["a"]);
    let grants = fleet.wish(&g, &["a"], &[]);
    let grant = grants.iter().find(|it| it.agent_id == half_used).unwrap().clone();
    fleet.step(0, |_| vec![ShardInput::Wish(g.clone(), None)]);
    fleet.launch(&grant, 1, &r("cpus:2;mem:4000"));
    for grant in grants.iter().filter(|it| it.agent_id != half_used) {
        fleet.give_back(grant, None, 0);
    }
    let grants = fleet.wish(&f, &["a"], &["cpus:2;mem:4000"]);
    let agents: Vec<_> = grants.iter().map(|it| it.agent_id.clone()).collect();
    assert_eq!(agents, [empty, half_used], "the best first; {small} has no room for it");
}

#[test]
fn roles_share_by_weight_and_frameworks_of_a_role_equally() {
    let policy = Policy { weights: BTreeMap::from([(role("a"), 2000)]), ..Default::default() };
    let mut fleet = Fleet::new(1, policy);
    let frameworks = [fleet.framework(&["a"]), fleet.framework(&["b"]), fleet.framework(&["b"])];
    for n in 0..90 {
        fleet.agent(n, "cpus:4;mem:4000");
    }
    fleet.wish(&frameworks[0], &["a"], &[]); // takes everything, and gives it back below
    let mut back: Vec<Grant> = Vec::new();
    for id in &frameworks[1..] {
        back.extend(fleet.wish(id, &["b"], &[]));
    }
    assert!(back.is_empty());
    let outstanding: Vec<Grant> = (1..=90)
        .map(|n| Grant {
            n,
            framework_id: frameworks[0].clone(),
            role: role("a"),
            agent_id: AgentId::new("c-S0"),
            resources: Resources::none().into(),
        })
        .collect();
    let inputs: Vec<_> = outstanding.iter().map(|grant| ShardInput::Returned(grant.n, None)).collect();
    let grants = fleet.step(0, |_| inputs.clone());
    let mut count: BTreeMap<&FrameworkId, usize> = BTreeMap::new();
    for grant in &grants {
        *count.entry(&grant.framework_id).or_default() += 1;
    }
    assert_eq!(count[&frameworks[0]], 60, "weight 2 against 1");
    assert_eq!((count[&frameworks[1]], count[&frameworks[2]]), (15, 15));
}

#[test]
fn many_shards_are_as_fair_as_one() {
    let mut results = Vec::new();
    for shards in [1, 2, 4, 8] {
        let policy = Policy { weights: BTreeMap::from([(role("a"), 2000)]), ..Default::default() };
        let mut fleet = Fleet::new(shards, policy);
        let ids: Vec<_> =
            ["a", "a", "b", "b", "b", "c"].iter().map(|role| (fleet.framework(&[role]), *role)).collect();
        let mut grants = Vec::new();
        for (id, role) in &ids {
            grants.extend(fleet.wish(id, &[role], &[]));
        }
        for n in 0..240 {
            grants.extend(fleet.agent(n, "cpus:4;mem:4000").1);
        }
        // Half the fleet: everybody always wants more, so shares are decided by fairness alone.
        let shares = fleet.fill(grants, &r("cpus:0.5;mem:500"), 960);
        results.push(ids.iter().map(|(id, _)| shares.get(id).copied().unwrap_or(0)).collect::<Vec<_>>());
    }
    for (n, shares) in results.iter().enumerate().skip(1) {
        for (one, many) in results[0].iter().zip(shares) {
            assert!(one.abs_diff(*many) <= 10, "shares with {} shards differ: {results:?}", 1 << n);
        }
    }
}

impl Fleet {
    /// Steps one shard after the other, each told first what stands of the others' grants, as a leader does where there are
    /// quotas. `stands` is what all have granted so far, in one role.
    fn in_turn(&mut self, in_role: &str, stands: &mut Vec<Grant>) {
        for n in 0..self.shards.len() {
            let others = stands.iter().filter(|grant| self.shard_of(&grant.agent_id) != n);
            let sum = others.fold(Resources::none(), |sum, grant| sum.plus(&grant.resources.quantities()));
            let elsewhere = ShardInput::Elsewhere([(role(in_role), sum)].into());
            stands.extend(self.shards[n].step(Timestamp(0), [elsewhere]).grants);
        }
    }
}

fn cpus(stands: &[Grant]) -> u64 {
    stands.iter().map(|grant| grant.resources.scalar("cpus")).sum()
}

#[test]
fn a_kind_that_only_another_shards_agents_have_is_counted() {
    let mut fleet = Fleet::new(2, Policy::default());
    let f = fleet.framework(&["web"]);
    let quota = Quota { limits: [("cpus".into(), 2_000)].into(), ..Quota::default() };
    fleet.apply(Command::SetQuotas { quotas: vec![(role("web"), quota)], force: false, new: false });
    fleet.wish(&f, &["web"], &[]);
    let mut stands = Vec::new();
    for n in 0..8 {
        // In one agent, of whichever shard, reserved for somebody else.
        let resources = if n == 0 { "cpus:4;mem:1000;gpus(ml):8" } else { "cpus:4;mem:1000" };
        stands.extend(fleet.agent(n, resources).1);
        fleet.in_turn("web", &mut stands);
    }
    assert_eq!(cpus(&stands), 2_000, "{stands:?}");
}

#[test]
fn a_limit_holds_over_all_shards_and_all_that_is_below_the_role() {
    let mut fleet = Fleet::new(4, Policy::default());
    let (f, g) = (fleet.framework(&["web/a"]), fleet.framework(&["web/b"]));
    let quota = Quota { limits: [("cpus".into(), 10_000)].into(), ..Quota::default() };
    let quotas = vec![(role("web"), quota)];
    fleet.apply(Command::SetQuotas { quotas, force: false, new: false });
    fleet.wish(&f, &["web/a"], &[]);
    let mut stands = Vec::new();
    for n in 0..12 {
        stands.extend(fleet.agent(n, "cpus:4;mem:1000").1);
        if n == 0 {
            assert_eq!(cpus(&stands), 4_000);
        }
        fleet.in_turn("web/a", &mut stands);
        assert!(cpus(&stands) <= 10_000, "{} of {n}", cpus(&stands));
    }
    assert_eq!(cpus(&stands), 10_000, "{stands:?}");
    // What one gives back another may have, of whatever agent.
    fleet.wish(&g, &["web/b"], &[]);
    let back = stands.remove(0);
    let refused = Refused { resources: back.resources.clone(), until: Timestamp(99) };
    stands.extend(fleet.give_back(&back, Some(refused), 0));
    fleet.in_turn("web/a", &mut stands);
    assert_eq!(cpus(&stands), 10_000, "{stands:?}");
    assert!(stands.iter().any(|grant| grant.framework_id == g), "{stands:?}");
    // Without the limit all is had.
    stands.extend(fleet.apply(Command::RemoveQuota(role("web"))).1);
    fleet.in_turn("web/a", &mut stands);
    assert_eq!(cpus(&stands), 12 * 4_000, "{stands:?}");
}
