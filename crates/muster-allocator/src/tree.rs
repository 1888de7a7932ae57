//! Whose turn it is: the roles as a tree by their names, and in each the frameworks that ask.

use crate::{
    Policy,
    kinds::{add_in, share},
};
use muster_model::Role;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

const ROOT: usize = 0;

/// The roles that want something. `a` stands above `a/b`: what `a/b` has counts for `a` as well, and among those below
/// `a` are its own frameworks, which take part like one of the roles below it.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    nodes: Vec<ShapeNode>,
    /// The leaf of each role that has frameworks who ask.
    leaves: BTreeMap<Role, u32>,
    /// The nodes that count what a role's own frameworks have, by the role's place.
    counted_at: Vec<Vec<u32>>,
}

#[derive(Debug)]
struct ShapeNode {
    parent: usize,
    weight_milli: u64,
    is_leaf: bool,
}

impl Shape {
    /// Of the roles of those who ask. `all` are all roles there are, each in its place.
    pub(crate) fn new<'a>(
        asking: impl Iterator<Item = &'a Role>,
        all: impl Iterator<Item = &'a Role>,
        weight_milli: impl Fn(&Role) -> u64,
    ) -> Self {
        let root = ShapeNode { parent: ROOT, weight_milli: Policy::WEIGHT_MILLI, is_leaf: false };
        let mut shape = Self { nodes: vec![root], ..Self::default() };
        let mut by_path: BTreeMap<&str, usize> = BTreeMap::new();
        for role in asking.collect::<BTreeSet<_>>() {
            let mut at = ROOT;
            for path in paths(role.as_str()) {
                let nodes = &mut shape.nodes;
                at = *by_path.entry(path).or_insert_with(|| {
                    // A part of a role's name is one as well.
                    let weight = Role::parse(path).map_or(Policy::WEIGHT_MILLI, |role| weight_milli(&role));
                    nodes.push(ShapeNode { parent: at, weight_milli: weight, is_leaf: false });
                    nodes.len() - 1
                });
            }
            let leaf = ShapeNode { parent: at, weight_milli: Policy::WEIGHT_MILLI, is_leaf: true };
            shape.nodes.push(leaf);
            shape.leaves.insert(role.clone(), shape.nodes.len() as u32 - 1);
        }
        shape.counted_at = all
            .map(|role| {
                let above = paths(role.as_str()).filter_map(|path| by_path.get(path));
                above.map(|at| *at as u32).chain(shape.leaves.get(role).copied()).collect()
            })
            .collect();
        shape
    }

    /// Where a role's frameworks ask.
    pub(crate) fn leaf(&self, role: &Role) -> u32 {
        self.leaves.get(role).copied().unwrap_or_default()
    }

    /// How many roles there were.
    pub(crate) fn roles(&self) -> usize {
        self.counted_at.len()
    }
}

/// The shape with what everyone has, for one round.
pub(crate) struct Tree<'a> {
    shape: &'a Shape,
    fleet: &'a [u64],
    /// What each node has, row after row.
    has: Vec<u64>,
    /// Of each node those below that want something, by share and then in the order of names: nodes, or below a leaf those
    /// who ask.
    below: Vec<BinaryHeap<Reverse<(u128, u32)>>>,
    /// The nodes from the root to whose turn it is.
    path: Vec<usize>,
}

impl<'a> Tree<'a> {
    /// `roles` is what each role's own frameworks have, by their places, and `asks` are the leaf and the share of each who
    /// asks.
    pub(crate) fn new<'b>(
        shape: &'a Shape,
        fleet: &'a [u64],
        roles: impl Iterator<Item = &'b [u64]>,
        asks: impl Iterator<Item = (u32, u128)>,
    ) -> Self {
        let count = shape.nodes.len();
        let mut has = vec![0; count * fleet.len()];
        for (amounts, nodes) in roles.zip(&shape.counted_at) {
            for at in nodes {
                add_in(row(&mut has, fleet.len(), *at as usize), amounts);
            }
        }
        let mut below: Vec<Vec<Reverse<(u128, u32)>>> = vec![Vec::new(); count];
        for (n, (leaf, share)) in (0..).zip(asks) {
            below[leaf as usize].push(Reverse((share, n)));
        }
        let mut tree = Self { shape, fleet, has, below: Vec::new(), path: Vec::new() };
        for at in 1..count {
            let share = tree.share(at);
            below[shape.nodes[at].parent].push(Reverse((share, at as u32)));
        }
        tree.below = below.into_iter().map(BinaryHeap::from).collect();
        tree
    }

    fn share(&self, at: usize) -> u128 {
        let has = &self.has[at * self.fleet.len()..][..self.fleet.len()];
        share(has, self.fleet, self.shape.nodes[at].weight_milli)
    }

    /// Whose turn it is.
    pub(crate) fn first(&mut self) -> Option<usize> {
        loop {
            self.path.clear();
            let mut at = ROOT;
            self.path.push(at);
            while let Some(Reverse((_, first))) = self.below[at].peek() {
                if self.shape.nodes[at].is_leaf {
                    return Some(*first as usize);
                }
                at = *first as usize;
                self.path.push(at);
            }
            if at == ROOT {
                return None;
            }
            // Nobody is left here.
            self.below[self.shape.nodes[at].parent].pop();
        }
    }

    /// Whose turn it is asks no more.
    pub(crate) fn leave(&mut self) {
        if let Some(leaf) = self.path.last() {
            self.below[*leaf].pop();
        }
    }

    /// Whose turn it is got this, and has this share by now.
    pub(crate) fn serve(&mut self, got: &[u64], its_share: u128) {
        let Some(&leaf) = self.path.last() else { return };
        if let Some(mut first) = self.below[leaf].peek_mut() {
            first.0.0 = its_share;
        }
        for &at in &self.path[1..] {
            add_in(row(&mut self.has, self.fleet.len(), at), got);
            let parent = self.shape.nodes[at].parent;
            // Alone it is first whatever it has.
            if self.below[parent].len() > 1 {
                let share = self.share(at);
                if let Some(mut first) = self.below[parent].peek_mut() {
                    first.0.0 = share;
                }
            }
        }
    }
}

fn row(all: &mut [u64], kinds: usize, at: usize) -> &mut [u64] {
    &mut all[at * kinds..][..kinds]
}

/// `a`, `a/b`, `a/b/c` of `a/b/c`.
fn paths(role: &str) -> impl Iterator<Item = &str> {
    role.match_indices('/').map(|(at, _)| &role[..at]).chain([role])
}
