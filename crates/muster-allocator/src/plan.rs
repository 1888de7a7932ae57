//! Who asks for what, prepared once for many passes: until wishes, weights or roles change.

use crate::{Wishes, accounts::Accounts, bits::Bits, nouns::About, tree::Shape};
use muster_model::{Constraints, FrameworkId, Resources, Role};
use std::{collections::BTreeMap, sync::Arc};

/// So many different constraints have their answers kept, and so many asks of a role are compared with a new one. What is
/// beyond is looked at anew each time.
const KEPT_MAX: usize = if cfg!(test) { 3 } else { 64 };

/// A framework that wants offers in a role.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The place of who asks in which role.
    pub(crate) account: u32,
    /// The place of all that ask the same.
    pub(crate) class: u32,
    /// Where the tree has it.
    pub(crate) leaf: u32,
}

/// What some asks have in common: whatever one of them may have of an agent, each of them may, but for its filters.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) role: Role,
    pub(crate) gpus: bool,
    pub(crate) refined: bool,
    pub(crate) at_least: Option<Vec<Resources>>,
    pub(crate) needs: Vec<Resources>,
    agents: Option<Constraints>,
    /// Where the answers to `agents` are kept, if they are.
    kept: Option<usize>,
}

impl Class {
    fn new(role: &Role, wishes: &Wishes) -> Self {
        let wants = wishes.wants.get(role);
        Self {
            role: role.clone(),
            gpus: wishes.gpus,
            refined: wishes.refined,
            at_least: wants.and_then(|wants| wants.at_least.clone()),
            needs: wishes.needs.clone(),
            agents: wants.and_then(|wants| wants.agents.clone()),
            kept: None,
        }
    }

    fn is(&self, role: &Role, wishes: &Wishes) -> bool {
        let wants = wishes.wants.get(role);
        self.role == *role
            && (self.gpus, self.refined) == (wishes.gpus, wishes.refined)
            && self.at_least.as_ref() == wants.and_then(|wants| wants.at_least.as_ref())
            && self.needs == wishes.needs
            && self.agents.as_ref() == wants.and_then(|wants| wants.agents.as_ref())
    }

    /// Whether it wants anything of an agent of this description, which is in this place.
    pub(crate) fn wants(&self, place: u32, about: &About, answers: &mut Answers) -> bool {
        let Some(agents) = &self.agents else { return true };
        let allows = || agents.allow(&about.hostname, &about.attributes);
        match self.kept {
            Some(kept) => answers.all[kept].get(place as usize, allows),
            None => allows(),
        }
    }
}

/// What constraints say of the agents in their places.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    all: Vec<Answer>,
}

#[derive(Debug)]
struct Answer {
    to: Constraints,
    known: Bits,
    yes: Bits,
}

impl Answer {
    fn get(&mut self, place: usize, allows: impl FnOnce() -> bool) -> bool {
        if !self.known.has(place) {
            self.known.set(place, true);
            self.yes.set(place, allows());
        }
        self.yes.has(place)
    }
}

impl Answers {
    /// What is in a place may be another.
    pub(crate) fn forget(&mut self, place: u32) {
        self.all.iter_mut().for_each(|answer| answer.known.set(place as usize, false));
    }

    fn place(&mut self, constraints: &Constraints) -> Option<usize> {
        let found = self.all.iter().position(|answer| answer.to == *constraints);
        if found.is_none() && self.all.len() < KEPT_MAX {
            let to = constraints.clone();
            self.all.push(Answer { to, known: Bits::default(), yes: Bits::default() });
            return Some(self.all.len() - 1);
        }
        found
    }
}

/// All who ask.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// By framework, then by role: so ties go by name.
    pub(crate) asks: Vec<Ask>,
    pub(crate) classes: Vec<Class>,
    pub(crate) shape: Shape,
    /// Somebody may be content with less than others.
    pub(crate) is_any_content: bool,
    /// Somebody said what it needs.
    pub(crate) is_any_choosy: bool,
}

impl Plan {
    pub(crate) fn new(
        wishes: &BTreeMap<FrameworkId, Arc<Wishes>>,
        accounts: &mut Accounts,
        answers: &mut Answers,
        weight_milli: impl Fn(&Role) -> u64,
    ) -> Self {
        let mut plan = Self::default();
        let mut of_role: BTreeMap<&Role, Vec<u32>> = BTreeMap::new();
        for (framework_id, wishes) in wishes {
            for role in &wishes.roles {
                let classes = of_role.entry(role).or_default();
                let newest = classes.iter().rev().take(KEPT_MAX);
                let same = newest.copied().find(|at| plan.classes[*at as usize].is(role, wishes));
                let class = same.unwrap_or_else(|| {
                    plan.classes.push(Class::new(role, wishes));
                    classes.push(plan.classes.len() as u32 - 1);
                    plan.classes.len() as u32 - 1
                });
                let account = accounts.place(&(framework_id.clone(), role.clone()));
                plan.asks.push(Ask { account, class, leaf: 0 });
            }
        }
        // Answers that nobody waits for any more are dropped.
        let is_wanted =
            |answer: &Answer| plan.classes.iter().any(|it| it.agents.as_ref() == Some(&answer.to));
        answers.all.retain(is_wanted);
        for class in &mut plan.classes {
            class.kept = class.agents.as_ref().and_then(|agents| answers.place(agents));
        }
        let asking = plan.classes.iter().map(|class| &class.role);
        plan.shape = Shape::new(asking, accounts.roles().iter().map(|(role, _)| role), weight_milli);
        for ask in &mut plan.asks {
            ask.leaf = plan.shape.leaf(&plan.classes[ask.class as usize].role);
        }
        plan.is_any_content = plan.classes.iter().any(|class| class.at_least.is_some());
        plan.is_any_choosy = plan.classes.iter().any(|class| !class.needs.is_empty());
        plan
    }
}
