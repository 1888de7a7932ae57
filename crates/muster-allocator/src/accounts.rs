//! Who has what: each account and each role has a place, and a row of amounts there.

use crate::kinds::{Amounts, Kinds, add, is_nothing, subtract};
use muster_model::{Resources, Role};
use muster_registry::Account;
use std::collections::BTreeMap;

/// Beyond this many rows, and twice as many as were of use, those of no use are dropped.
const ROWS_MIN: usize = if cfg!(test) { 4 } else { 256 };

/// What an account has: held or granted.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) account: Account,
    pub(crate) has: Amounts,
    /// The place of its role.
    role: usize,
}

/// All accounts that have something or want something.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    places: BTreeMap<Account, u32>,
    rows: Vec<Row>,
    role_places: BTreeMap<Role, usize>,
    /// What each role's own frameworks have.
    roles: Vec<(Role, Amounts)>,
    /// So many rows were of use when that was last looked at.
    of_use: usize,
}

impl Accounts {
    /// An account's place.
    pub(crate) fn place(&mut self, account: &Account) -> u32 {
        if let Some(place) = self.places.get(account) {
            return *place;
        }
        let role = *self.role_places.entry(account.1.clone()).or_insert_with(|| {
            self.roles.push((account.1.clone(), Amounts::new()));
            self.roles.len() - 1
        });
        let place = self.rows.len() as u32;
        self.rows.push(Row { account: account.clone(), has: Amounts::new(), role });
        self.places.insert(account.clone(), place);
        place
    }

    /// An account's place, if it has one.
    pub(crate) fn find(&self, account: &Account) -> Option<u32> {
        self.places.get(account).copied()
    }

    pub(crate) fn row(&self, place: u32) -> &Row {
        &self.rows[place as usize]
    }

    /// Every role, and what its own frameworks have.
    pub(crate) fn roles(&self) -> &[(Role, Amounts)] {
        &self.roles
    }

    pub(crate) fn takes(&mut self, place: u32, taken: &[u64]) {
        let row = &mut self.rows[place as usize];
        add(&mut row.has, taken);
        add(&mut self.roles[row.role].1, taken);
    }

    pub(crate) fn gives(&mut self, place: u32, freed: &[u64]) {
        let row = &mut self.rows[place as usize];
        subtract(&mut row.has, freed);
        subtract(&mut self.roles[row.role].1, freed);
    }

    /// Whether there may be enough rows of no use to look for them.
    pub(crate) fn has_grown(&self) -> bool {
        self.rows.len() > ROWS_MIN.max(2 * self.of_use)
    }

    /// How many rows there are, of use or not.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All rows are of use now.
    pub(crate) fn all_of_use(&mut self) {
        self.of_use = self.rows.len();
    }

    /// What each account has, by name.
    pub(crate) fn named(&self, kinds: &Kinds) -> BTreeMap<Account, Resources> {
        let rows = self.rows.iter().filter(|row| !is_nothing(&row.has));
        rows.map(|row| (row.account.clone(), kinds.resources(&row.has))).collect()
    }

    /// What each role has, by name.
    pub(crate) fn roles_named(&self, kinds: &Kinds) -> BTreeMap<Role, Resources> {
        let roles = self.roles.iter().filter(|(_, has)| !is_nothing(has));
        roles.map(|(role, has)| (role.clone(), kinds.resources(has))).collect()
    }
}
