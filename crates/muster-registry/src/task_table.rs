//! A table by the names of tasks.

use crate::table::hash_of;
use imbl::OrdMap;
use muster_model::{FrameworkId, TaskId, TaskKey};
use std::{hash::Hash, ops::Bound};

/// Records by framework and task id: as [`Table`](crate::table::Table), but a table of each framework's, in which only
/// task ids are kept and compared. What stands in it is small, or shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskTable<V: Clone> {
    by_framework: OrdMap<FrameworkId, OrdMap<TaskId, Record<V>>>,
    len: usize,
    hash: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record<V> {
    value: V,
    hash: u64,
}

impl<V: Clone> Default for TaskTable<V> {
    fn default() -> Self {
        Self { by_framework: OrdMap::new(), len: 0, hash: 0 }
    }
}

impl<V: Clone + Hash> TaskTable<V> {
    pub(crate) fn get(&self, key: &TaskKey) -> Option<&V> {
        self.by_framework.get(&key.framework_id)?.get(&key.task_id).map(|record| &record.value)
    }

    pub(crate) fn contains(&self, key: &TaskKey) -> bool {
        self.by_framework.get(&key.framework_id).is_some_and(|its| its.contains_key(&key.task_id))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Puts a record in its place, and gives the one that was there.
    pub(crate) fn put(&mut self, key: &TaskKey, value: V) -> Option<V> {
        let hash = hash_of(key, &value);
        self.put_hashed(key, value, hash)
    }

    /// The same with a record whose hash is known.
    pub(crate) fn put_hashed(&mut self, key: &TaskKey, value: V, hash: u64) -> Option<V> {
        self.hash = self.hash.wrapping_add(hash);
        let record = Record { value, hash };
        let old = match self.by_framework.get_mut(&key.framework_id) {
            Some(its) => its.insert(key.task_id.clone(), record),
            None => {
                let first = OrdMap::unit(key.task_id.clone(), record);
                self.by_framework.insert(key.framework_id.clone(), first);
                None
            }
        };
        match &old {
            Some(old) => self.hash = self.hash.wrapping_sub(old.hash),
            None => self.len += 1,
        }
        old.map(|old| old.value)
    }

    pub(crate) fn remove(&mut self, key: &TaskKey) -> Option<V> {
        let its = self.by_framework.get_mut(&key.framework_id)?;
        let old = its.remove(&key.task_id)?;
        if its.is_empty() {
            self.by_framework.remove(&key.framework_id);
        }
        self.len -= 1;
        self.hash = self.hash.wrapping_sub(old.hash);
        Some(old.value)
    }

    /// Changes a record and returns it as it is now.
    pub(crate) fn update(&mut self, key: &TaskKey, change: impl FnOnce(&mut V)) -> Option<&V> {
        let record = self.by_framework.get_mut(&key.framework_id)?.get_mut(&key.task_id)?;
        change(&mut record.value);
        let hash = hash_of(key, &record.value);
        self.hash = self.hash.wrapping_sub(record.hash).wrapping_add(hash);
        record.hash = hash;
        Some(&record.value)
    }

    /// All records, of one framework after the other, in order.
    pub(crate) fn iter_by_framework(&self) -> impl Iterator<Item = (&FrameworkId, impl Iterator<Item = &V>)> {
        self.by_framework.iter().map(|(id, its)| (id, its.values().map(|record| &record.value)))
    }

    /// All names and records, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&FrameworkId, &TaskId, &V)> {
        self.by_framework
            .iter()
            .flat_map(|(framework_id, its)| its.iter().map(move |(id, it)| (framework_id, id, &it.value)))
    }

    /// All records, in order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(.., value)| value)
    }

    /// A framework's, in order.
    pub(crate) fn of_framework<'a>(&'a self, id: &FrameworkId) -> impl Iterator<Item = &'a V> + use<'a, V> {
        self.by_framework.get(id).into_iter().flat_map(|its| its.values()).map(|record| &record.value)
    }

    pub(crate) fn len_of_framework(&self, id: &FrameworkId) -> usize {
        self.by_framework.get(id).map_or(0, OrdMap::len)
    }

    /// Records from `start` on, in order.
    pub(crate) fn from(&self, start: TaskKey) -> impl Iterator<Item = &V> {
        let TaskKey { framework_id, task_id } = start;
        let rest = self.by_framework.range((Bound::Excluded(framework_id.clone()), Bound::Unbounded));
        let here = self.by_framework.get(&framework_id).into_iter();
        let here = here.flat_map(move |its| its.range(task_id.clone()..));
        here.chain(rest.flat_map(|(_, its)| its.iter())).map(|(_, record)| &record.value)
    }
}
