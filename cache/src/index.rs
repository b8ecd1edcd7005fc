//! Where each key's value is: a sharded table in memory.
//!
//! A key is represented by a 64-bit hash with a seed drawn at start. Two keys with the same hash
//! share one entry: the later insert wins, the other key misses (the whole key is compared on
//! the device). A shard's lock is held for one operation of its table, never across I/O.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tierce_lockfree::BucketRef;

const SHARDS: usize = 64;

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) bucket: BucketRef,
    /// From the start of the bucket.
    pub(crate) offset_sectors: u32,
    pub(crate) sectors: u32,
}

/// The hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash(u64);

/// A [`KeyHash`] is random already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only whole hashes are looked up")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Shard = HashMap<KeyHash, Location, BuildHasherDefault<Identity>>;

/// The index.
pub(crate) struct Index {
    seed: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("entries", &self.len()).finish_non_exhaustive()
    }
}

impl Index {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { seed: RandomState::new(), shards }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.seed.hash_one(key))
    }

    /// The top bits choose the shard; the table uses the others.
    fn shard(&self, hash: KeyHash) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[(hash.0 >> 32) as usize % SHARDS];
        // No operation of a table panics half-way.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, hash: KeyHash) -> Option<Location> {
        self.shard(hash).get(&hash).copied()
    }

    /// Replaces what was there.
    pub(crate) fn insert(&self, hash: KeyHash, location: Location) {
        self.shard(hash).insert(hash, location);
    }

    /// `true` if there was something.
    pub(crate) fn remove(&self, hash: KeyHash) -> bool {
        self.shard(hash).remove(&hash).is_some()
    }

    /// Removes the entry if it is still `location`: whoever found it stale must not remove what
    /// was inserted meanwhile.
    pub(crate) fn remove_if(&self, hash: KeyHash, location: Location) {
        if let Entry::Occupied(entry) = self.shard(hash).entry(hash)
            && *entry.get() == location
        {
            entry.remove();
        }
    }

    /// Visits every entry, shard by shard, and keeps those for which `keep` says so.
    pub(crate) fn retain(&self, mut keep: impl FnMut(Location) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, location| keep(*location));
        }
    }

    pub(crate) fn len(&self) -> usize {
        let lock =
            |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(lock).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen};

    fn location(bucket: u32) -> Location {
        let id = BucketId::new(DeviceIndex::FIRST, BucketIndex::new(bucket));
        Location { bucket: BucketRef::new(id, Gen::new(0)), offset_sectors: 0, sectors: 8 }
    }

    #[test]
    fn a_stale_finding_removes_only_itself() {
        let index = Index::new();
        let key = index.hash(b"key");
        index.insert(key, location(1));
        index.insert(key, location(2));
        index.remove_if(key, location(1));
        assert_eq!(index.get(key), Some(location(2)));
        index.remove_if(key, location(2));
        assert_eq!((index.get(key), index.len()), (None, 0));
        assert!(!index.remove(key));
    }
}
