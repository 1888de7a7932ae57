//! A persistent, ordered map that keeps the sum of its records' hashes.

use imbl::OrdMap;
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};
use xxhash_rust::xxh3::xxh3_64;

/// Records by key. Cloning shares structure; iteration is in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table<K: Ord + Clone, V: Clone> {
    map: OrdMap<K, Record<V>>,
    hash: u64,
}

/// A record with its hash, so that one that is replaced is not read again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record<V> {
    value: Arc<V>,
    hash: u64,
}

impl<K: Ord + Clone, V: Clone> Default for Table<K, V> {
    fn default() -> Self {
        Self { map: OrdMap::new(), hash: 0 }
    }
}

/// Gathers what is hashed: many small pieces cost less to copy than to hash one by one.
struct Gathered(Vec<u8>);

impl Hasher for Gathered {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn finish(&self) -> u64 {
        xxh3_64(&self.0)
    }
}

pub(crate) fn hash_of<K: Hash, V: Hash>(key: &K, value: &V) -> u64 {
    let mut hasher = Gathered(Vec::with_capacity(1_024));
    key.hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Table<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.map.get(key).map(|record| &record.value)
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
        let hash = hash_of(&key, &value);
        self.put_hashed(key, Arc::new(value), hash)
    }

    /// The same with a record whose hash is known.
    pub(crate) fn put_hashed(&mut self, key: K, value: Arc<V>, hash: u64) -> Arc<V> {
        self.hash = self.hash.wrapping_add(hash);
        if let Some(old) = self.map.insert(key, Record { value: value.clone(), hash }) {
            self.hash = self.hash.wrapping_sub(old.hash);
        }
        value
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        let old = self.map.remove(key)?;
        self.hash = self.hash.wrapping_sub(old.hash);
        Some(old.value)
    }

    /// Changes a record and returns it as it is now.
    pub(crate) fn update(&mut self, key: &K, change: impl FnOnce(&mut V)) -> Option<Arc<V>> {
        let record = self.map.get_mut(key)?;
        change(Arc::make_mut(&mut record.value));
        let hash = hash_of(key, &*record.value);
        self.hash = self.hash.wrapping_sub(record.hash).wrapping_add(hash);
        record.hash = hash;
        Some(record.value.clone())
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &Arc<V>)> + Clone {
        self.map.iter().map(|(key, record)| (key, &record.value))
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &Arc<V>> + Clone {
        self.map.iter().map(|(_, record)| &record.value)
    }

    /// Records from `start` on, in order.
    pub(crate) fn range<R: std::ops::RangeBounds<K>>(&self, range: R) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.map.range(range).map(|(key, record)| (key, &record.value))
    }

    /// The record at a key, or else the last before it.
    pub(crate) fn at_or_before(&self, key: &K) -> Option<(&K, &Arc<V>)> {
        self.map.get_prev(key).map(|(key, record)| (key, &record.value))
    }

    pub(crate) fn first(&self) -> Option<(&K, &Arc<V>)> {
        self.map.get_min().map(|(key, record)| (key, &record.value))
    }
}
