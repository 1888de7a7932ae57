//! What is allocated: agents and frameworks in a registry of their own, made by its commands.
//!
//! The shape is that of Mesos' benchmark of its hierarchical allocator: agents of 24 cpus that are alike, each with a
//! task of one framework after the other on it.

use anyhow::bail;
use muster_allocator::{Policy, ShardId, ShardInput, View, Wishes};
use muster_model::{
    AgentId, AgentInfo, Attribute, AttributeValue, Capabilities, ClusterId, Constraint, Constraints,
    FrameworkId, FrameworkInfo, Hello, Index, MachineId, Predicate, Resources, Role, Sealed, Selector,
    TaskId, TaskSpec, Term, Wants,
};
use muster_registry::{Command, Entry, Launch, Outcome, Quota, Registry, Subscribe};
use std::collections::BTreeMap;

const AGENT: &str = "cpus:24;mem:4096;disk:4096;ports:[31000-32000]";
const TASK: &str = "cpus:2;mem:1024;ports:[31126-31126,31510-31510,31863-31863]";
/// Roles at most; frameworks are spread over them.
const ROLES: usize = 10;
const ZONES: usize = 8;

/// A fleet, and who wants it.
pub(super) struct Fleet {
    registry: Registry,
    /// Each framework, and what it wants.
    pub(super) wishes: Vec<(FrameworkId, Wishes)>,
    pub(super) policy: Policy,
}

impl Fleet {
    pub(super) fn new(
        agents: usize,
        frameworks: usize,
        quota: bool,
        constraints: bool,
    ) -> anyhow::Result<Self> {
        let roles: Vec<Role> = (0..ROLES.min(frameworks)).map(role).collect::<Result<_, _>>()?;
        // Every third role weighs double.
        let weights = roles.iter().step_by(3).map(|role| (role.clone(), 2 * Policy::WEIGHT_MILLI)).collect();
        let mut fleet = Self {
            registry: Registry::new(ClusterId::new(format!("{:016x}", 6)), 1),
            wishes: Vec::with_capacity(frameworks),
            policy: Policy { weights, ..Policy::default() },
        };
        let (agent, task) = (parse(AGENT)?, parse(TASK)?);
        let subscribes = (0..frameworks).map(|n| subscribe(n, roles[n % roles.len()].clone()));
        for (n, outcome) in fleet.apply(subscribes.collect()).into_iter().enumerate() {
            let Outcome::Subscribed { framework_id, .. } = outcome else {
                bail!("no framework: {outcome:?}")
            };
            fleet.wishes.push((framework_id, wishes(n, roles[n % roles.len()].clone(), constraints)));
        }
        let hellos = (0..agents).map(|n| hello(n, agent.clone()));
        let mut launches = Vec::with_capacity(agents);
        for (n, outcome) in fleet.apply(hellos.collect()).into_iter().enumerate() {
            let Outcome::Admitted { agent_id, .. } = outcome else { bail!("no agent: {outcome:?}") };
            let framework_id = fleet.wishes[n % frameworks].0.clone();
            launches.push(launch(
                n,
                framework_id,
                roles[n % frameworks % roles.len()].clone(),
                agent_id,
                &task,
            ));
        }
        fleet.apply(launches);
        if fleet.registry.task_count() != agents {
            bail!("{} of {agents} tasks are launched", fleet.registry.task_count());
        }
        if quota {
            fleet.set_quotas(&roles, agents)?;
        }
        Ok(fleet)
    }

    /// Every second role is guaranteed half of an equal share, and may have twice that share.
    fn set_quotas(&mut self, roles: &[Role], agents: usize) -> anyhow::Result<()> {
        let (cpus, mem) = (24_000 * agents as u64, 4_096_000 * agents as u64);
        let each = |all: u64, times: u64| all * times / 2 / roles.len() as u64;
        let quota = Quota {
            guarantees: Resources::of(each(cpus, 1), each(mem, 1) / 1000),
            limits: BTreeMap::from([("cpus".into(), each(cpus, 4)), ("mem".into(), each(mem, 4))]),
        };
        let quotas = roles.iter().step_by(2).map(|role| (role.clone(), quota.clone())).collect();
        match self.apply(vec![Command::SetQuotas { quotas, force: true, new: false }]).pop() {
            Some(Outcome::Refused(why)) => bail!("quotas are refused: {why:?}"),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let index = Index(self.registry.applied().0 + 1);
        let entry = Entry { commands, ..Entry::default() };
        self.registry.apply(index, Term(0), &entry).outcomes
    }

    /// What a shard starts with.
    pub(super) fn view(&self, shard: ShardId) -> View {
        View::of(&self.registry, shard)
    }

    /// All wishes, as a leader tells them.
    pub(super) fn wish_all(&self) -> Vec<ShardInput> {
        self.wishes.iter().map(|(id, wishes)| ShardInput::Wish(id.clone(), Some(wishes.clone()))).collect()
    }
}

fn parse(text: &str) -> anyhow::Result<Resources> {
    Resources::parse(text).map_err(|why| anyhow::anyhow!("{text}: {why}"))
}

/// Every second role stands below another one.
fn role(n: usize) -> anyhow::Result<Role> {
    let text = if n.is_multiple_of(2) { format!("team-{n}") } else { format!("team-{}/web", n - 1) };
    Role::parse(&text).map_err(anyhow::Error::msg)
}

fn wishes(n: usize, role: Role, constraints: bool) -> Wishes {
    let mut wishes = Wishes { roles: [role.clone()].into(), ..Wishes::default() };
    if constraints && n.is_multiple_of(2) {
        let selector = Selector::Attribute("zone".into());
        let predicate = Predicate::TextNotEquals(format!("z{}", n / 2 % ZONES).as_str().into());
        let agents = Some(Constraints(vec![vec![Constraint { selector, predicate }]]));
        wishes.wants = BTreeMap::from([(role, Wants { at_least: None, agents })]);
    }
    wishes
}

fn subscribe(n: usize, role: Role) -> Command {
    let info = FrameworkInfo {
        name: format!("framework-{n}").as_str().into(),
        user: "bench".into(),
        principal: None,
        roles: vec![role],
        failover_timeout_ms: 0,
        capabilities: Capabilities::default(),
        sealed: Sealed::default(),
    };
    Command::Subscribe(Subscribe { framework_id: None, info, suppressed_roles: Vec::new() })
}

fn hello(n: usize, resources: Resources) -> Command {
    let attribute = |name: &str, value: String| Attribute {
        name: name.into(),
        value: AttributeValue::Text(value.as_str().into()),
    };
    let info = AgentInfo {
        machine_id: MachineId::new(format!("m{n}")),
        hostname: format!("agent-{n}").as_str().into(),
        port: 5051,
        resources,
        attributes: vec![
            attribute("rack", format!("r{}", n / 40)),
            attribute("zone", format!("z{}", n % ZONES)),
        ],
    };
    let hello = Hello { agent_id: None, info, tasks: Vec::new(), sealed: Sealed::default() };
    Command::AdmitAgent(Box::new(hello))
}

fn launch(n: usize, framework_id: FrameworkId, role: Role, agent_id: AgentId, task: &Resources) -> Command {
    Command::Launch(Launch {
        framework_id,
        agent_id,
        role,
        offer_ids: Vec::new(),
        offered: task.clone(),
        tasks: vec![TaskSpec {
            task_id: TaskId::new(format!("t{n}")),
            name: "task".into(),
            resources: task.clone(),
            executor: None,
            grace_ms: None,
            sealed: Sealed::default(),
        }],
    })
}
