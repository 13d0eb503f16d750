//! A map from names to shared objects that many connections read at once.

use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::model::collections::Map;

const SHARDS: usize = 16;

/// Objects by name, split so that readers and writers of different names rarely meet.
#[derive(Debug)]
pub(super) struct Shards<T> {
    shards: [RwLock<Map<Arc<str>, Arc<T>>>; SHARDS],
    hasher: foldhash::quality::RandomState,
}

impl<T> Shards<T> {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| RwLock::default()), hasher: foldhash::quality::RandomState::default() }
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<T>> {
        self.shard(name)?.read().get(name).cloned()
    }

    pub(super) fn insert(&self, name: Arc<str>, value: Arc<T>) {
        if let Some(shard) = self.shard(&name) {
            shard.write().insert(name, value);
        }
    }

    /// Removes this very object; another one of the same name stays. False when it was not there.
    pub(super) fn remove(&self, name: &str, value: &Arc<T>) -> bool {
        let Some(shard) = self.shard(name) else {
            return false;
        };
        let mut shard = shard.write();
        let is_known = shard.get(name).is_some_and(|known| Arc::ptr_eq(known, value));
        if is_known {
            shard.remove(name);
        }
        is_known
    }

    /// Everything there is, in no particular order.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.read().values().cloned());
        }
        all
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    fn shard(&self, name: &str) -> Option<&RwLock<Map<Arc<str>, Arc<T>>>> {
        let hash = self.hasher.hash_one(name);
        self.shards.get(hash as usize % SHARDS)
    }
}
