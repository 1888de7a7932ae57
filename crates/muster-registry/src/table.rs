//! A persistent, ordered map that keeps the sum of its records' hashes.

use imbl::OrdMap;
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};
use xxhash_rust::xxh3::Xxh3Default;

/// Records by key. Cloning shares structure; iteration is in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table<K: Ord + Clone, V: Clone> {
    map: OrdMap<K, Arc<V>>,
    hash: u64,
}

impl<K: Ord + Clone, V: Clone> Default for Table<K, V> {
    fn default() -> Self {
        Self { map: OrdMap::new(), hash: 0 }
    }
}

fn hash_of<K: Hash, V: Hash>(key: &K, value: &V) -> u64 {
    let mut hasher = Xxh3Default::new();
    key.hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Table<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.map.get(key)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.map.contains_key(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Puts a record in its place and returns it shared.
    pub(crate) fn put(&mut self, key: K, value: V) -> Arc<V> {
        let value = Arc::new(value);
        self.hash = self.hash.wrapping_add(hash_of(&key, &*value));
        if let Some(old) = self.map.insert(key.clone(), value.clone()) {
            self.hash = self.hash.wrapping_sub(hash_of(&key, &*old));
        }
        value
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        let old = self.map.remove(key)?;
        self.hash = self.hash.wrapping_sub(hash_of(key, &*old));
        Some(old)
    }

    /// Changes a record and returns it as it is now.
    pub(crate) fn update(&mut self, key: &K, change: impl FnOnce(&mut V)) -> Option<Arc<V>> {
        let mut value = V::clone(self.map.get(key)?);
        change(&mut value);
        Some(self.put(key.clone(), value))
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &Arc<V>)> + Clone {
        self.map.iter()
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &Arc<V>> + Clone {
        self.map.iter().map(|(_, value)| value)
    }

    /// Records from `start` on, in order.
    pub(crate) fn range<R: std::ops::RangeBounds<K>>(&self, range: R) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.map.range(range)
    }

    pub(crate) fn first(&self) -> Option<(&K, &Arc<V>)> {
        self.map.get_min().map(|(key, value)| (key, value))
    }
}
