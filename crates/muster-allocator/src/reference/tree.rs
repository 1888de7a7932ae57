//! Whose turn it is: roles as a tree by their names, frameworks at its leaves, the smallest share first at each step.

use super::allocate::Ask;
use crate::Policy;
use muster_model::{Resources, Role};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

/// A dominant share in parts of 10^12 of the fleet, divided by the weight.
fn share(has: &Resources, fleet: &Resources, weight_milli: u64) -> u128 {
    let dominant = has.iter().filter_map(|(kind, _)| {
        let all = u128::from(fleet.scalar(kind));
        (u128::from(has.scalar(kind)) * 1_000_000_000_000).checked_div(all)
    });
    dominant.max().unwrap_or(0) * 1000 / u128::from(weight_milli.max(1))
}

/// The roles that want something. `a` stands above `a/b`: what `a/b` has counts for `a` as well, and among those below
/// `a` are its own frameworks, which take part like one of the roles below it.
pub(crate) struct Tree<'a> {
    fleet: &'a Resources,
    nodes: Vec<Node>,
    /// The leaf of each role that has frameworks.
    leaves: BTreeMap<Role, usize>,
}

#[derive(Default)]
struct Node {
    parent: usize,
    weight_milli: u64,
    has: Resources,
    /// Those below that want something, by share and then in the order of names.
    below: BTreeSet<(u128, usize)>,
    /// A role's own frameworks, by share and then in the order of names.
    asks: BinaryHeap<Reverse<(u128, usize)>>,
}

const ROOT: usize = 0;

impl<'a> Tree<'a> {
    /// Of those who ask. `roles` is what each role's own frameworks have, of all roles; weights are each role's.
    pub(crate) fn new(
        asks: &[Ask],
        roles: &BTreeMap<Role, Resources>,
        fleet: &'a Resources,
        weight_milli: impl Fn(&Role) -> u64,
    ) -> Self {
        let mut tree = Self { fleet, nodes: vec![Node::default()], leaves: BTreeMap::new() };
        let mut by_path: BTreeMap<&str, usize> = BTreeMap::new();
        let named: BTreeSet<&Role> = asks.iter().map(|ask| &ask.account.1).collect();
        for role in named {
            let mut at = ROOT;
            for path in paths(role.as_str()) {
                let nodes = &mut tree.nodes;
                at = *by_path.entry(path).or_insert_with(|| {
                    // A part of a role's name is one as well.
                    let weight = Role::parse(path).map_or(Policy::WEIGHT_MILLI, |role| weight_milli(&role));
                    nodes.push(Node { parent: at, weight_milli: weight, ..Node::default() });
                    nodes.len() - 1
                });
            }
            tree.nodes.push(Node { parent: at, weight_milli: Policy::WEIGHT_MILLI, ..Node::default() });
            tree.leaves.insert(role.clone(), tree.nodes.len() - 1);
        }
        for (role, has) in roles {
            for path in paths(role.as_str()) {
                if let Some(at) = by_path.get(path) {
                    tree.nodes[*at].has.add(has);
                }
            }
            if let Some(leaf) = tree.leaves.get(role) {
                tree.nodes[*leaf].has = has.clone();
            }
        }
        for (i, ask) in asks.iter().enumerate() {
            let leaf = tree.leaves[&ask.account.1];
            let share = share(&ask.has, fleet, Policy::WEIGHT_MILLI);
            tree.nodes[leaf].asks.push(Reverse((share, i)));
        }
        for at in (1..tree.nodes.len()).rev() {
            let place = (tree.share(at), at);
            let parent = tree.nodes[at].parent;
            tree.nodes[parent].below.insert(place);
        }
        tree
    }

    fn share(&self, at: usize) -> u128 {
        share(&self.nodes[at].has, self.fleet, self.nodes[at].weight_milli)
    }

    /// Whose turn it is. It is asked no more unless it is [served](Self::serve).
    pub(crate) fn next(&mut self) -> Option<usize> {
        loop {
            let mut at = ROOT;
            while let Some((_, below)) = self.nodes[at].below.first() {
                at = *below;
            }
            if let Some(Reverse((_, ask))) = self.nodes[at].asks.pop() {
                return Some(ask);
            }
            if at == ROOT {
                return None;
            }
            // Nobody is left here.
            let (place, parent) = ((self.share(at), at), self.nodes[at].parent);
            self.nodes[parent].below.remove(&place);
        }
    }

    /// Whose turn it was got this; it is asked again.
    pub(crate) fn serve(&mut self, i: usize, ask: &Ask, got: &Resources) {
        let Some(leaf) = self.leaves.get(&ask.account.1) else { return };
        self.nodes[*leaf].asks.push(Reverse((share(&ask.has, self.fleet, Policy::WEIGHT_MILLI), i)));
        let mut at = *leaf;
        while at != ROOT {
            let (before, parent) = ((self.share(at), at), self.nodes[at].parent);
            self.nodes[at].has.add(got);
            let now = (self.share(at), at);
            let below = &mut self.nodes[parent].below;
            below.remove(&before);
            below.insert(now);
            at = parent;
        }
    }
}

/// `a`, `a/b`, `a/b/c` of `a/b/c`.
fn paths(role: &str) -> impl Iterator<Item = &str> {
    role.match_indices('/').map(|(at, _)| &role[..at]).chain([role])
}
