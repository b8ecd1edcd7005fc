//! What was overwritten or removed stays so, over any restart.
//!
//! # Problem
//!
//! A restart finds every key's records by reading the buckets, and the newest wins. But buckets are
//! reused in any order: if the newer record's bucket is reused first, the older record would be
//! the newest that is left, and a removed value, or one that was overwritten long ago, would come
//! back.
//!
//! # Protocol
//!
//! 1. Whenever a record takes the place of an older one in another bucket, that is noted under the
//!    *newer* one's bucket ([`Lineage::note`]).
//! 2. Before a bucket's new gen becomes durable ([`Lineage::evict`], called by the pipeline), the
//!    notes under it are looked at: what is left of the older records' buckets gets them written
//!    into its list of dead records ([`crate::layout`]), in place. The pipeline's flush makes that
//!    durable no later than the new gen.
//! 3. A restart leaves out dead records, and makes the notes anew from what it finds.
//!
//! # Why that is enough
//!
//! For every record that can be found and is not dead, all newer records of its key that can be
//! found are found as well, or none was ever made durable. A record goes only by step 2, and then
//! its immediate predecessor is gone, dead, or goes with it. Older predecessors are noted under
//! their own successors. An index entry that was dropped because its bucket had been reused left no
//! predecessor: that bucket was invalidated before, so its new gen is durable no later.
//!
//! # Cost
//!
//! 24 bytes of memory for every record that overwrote another that is still there, and one write of
//! a few blocks per older bucket concerned, when newer ones go first: never under FIFO, rarely
//! under LRU.

use crate::layout::{DEAD_PER_SECTOR, Dead, Layout};
use crate::life::Lives;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tierce_core::BucketId;

const SHARDS: usize = 64;

/// A record whose place was taken.
#[derive(Clone, Copy, Debug)]
struct Old {
    hash: u64,
    /// Of the record that took it.
    version: u64,
    bucket: u32,
    /// The low half of its life's number.
    life: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Lineage {
    /// By the bucket of the newer record.
    notes: Box<[Mutex<Notes>]>,
    dead: Mutex<HashMap<BucketId, Dead>>,
}

type Notes = HashMap<BucketId, Vec<Old>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lineage {
    pub(crate) fn new() -> Self {
        let notes = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { notes, dead: Mutex::default() }
    }

    fn shard(&self, id: BucketId) -> MutexGuard<'_, Notes> {
        lock(&self.notes[id.bucket().as_usize() % SHARDS])
    }

    /// The record of `hash` with `version`, in `newer`, took the place of one in `older`, whose
    /// life is `life`.
    pub(crate) fn note(
        &self,
        hash: u64,
        version: u64,
        newer: BucketId,
        (older, life): (BucketId, u64),
    ) {
        if newer == older {
            return; // they go together
        }
        let old = Old { hash, version, bucket: older.pack(), life: life as u32 };
        self.shard(newer).entry(newer).or_default().push(old);
    }

    /// What a restart found in a bucket's list.
    pub(crate) fn found_dead(&self, id: BucketId, dead: Dead) {
        if dead != Dead::default() {
            lock(&self.dead).insert(id, dead);
        }
    }

    /// Buckets under which something is noted.
    pub(crate) fn noted(&self) -> Vec<BucketId> {
        self.notes
            .iter()
            .flat_map(|shard| lock(shard).keys().copied().collect::<Vec<_>>())
            .collect()
    }

    /// The content of `buckets` is about to go for good. Returns what has to be written before:
    /// for each bucket concerned its life's number and its list.
    pub(crate) fn evict(
        &self,
        buckets: impl Iterator<Item = BucketId> + Clone,
        lives: &Lives,
        layout: &Layout,
    ) -> BTreeMap<BucketId, (u64, Dead)> {
        {
            let mut dead = lock(&self.dead);
            for id in buckets.clone() {
                lives.set(id, 0);
                dead.remove(&id);
            }
        }
        let mut changed = BTreeMap::new();
        for id in buckets {
            for old in self.shard(id).remove(&id).unwrap_or_default() {
                let bucket = BucketId::unpack(old.bucket);
                let life = lives.get(bucket).number;
                if life == 0 || life as u32 != old.life || cfg!(tierce_mutant = "no_lineage") {
                    continue; // gone, or going with us
                }
                let mut dead = lock(&self.dead);
                let list = dead.entry(bucket).or_default();
                if !list.contains(old.hash, old.version) {
                    list.records.push((old.hash, old.version));
                }
                list.all |= list.records.len() > layout.dead_sectors() * DEAD_PER_SECTOR;
                if list.all {
                    list.records = Vec::new();
                }
                changed.insert(bucket, (life, list.clone()));
            }
        }
        changed
    }

    /// Bytes of memory that the notes take, about.
    pub(crate) fn bytes(&self) -> usize {
        let notes = |shard: &Mutex<Notes>| {
            lock(shard).values().map(|old| old.capacity() * size_of::<Old>()).sum::<usize>()
        };
        self.notes.iter().map(notes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tierce_core::{BucketIndex, DeviceIndex};

    fn bucket(number: u32) -> BucketId {
        BucketId::new(DeviceIndex::FIRST, BucketIndex::new(number))
    }

    #[test]
    fn the_older_dies_with_the_newer_unless_it_is_gone() {
        let layout = Layout::new(64 << 10, 512).expect("room");
        let lives = Lives::new([10].into_iter());
        let lineage = Lineage::new();
        for n in 1..6 {
            lives.set(bucket(n), 100 + u64::from(n));
        }
        lineage.note(7, 50, bucket(2), (bucket(1), 101));
        lineage.note(8, 51, bucket(2), (bucket(3), 103));
        lineage.note(9, 52, bucket(2), (bucket(2), 102));
        lineage.note(6, 53, bucket(2), (bucket(4), 99));
        lineage.note(5, 54, bucket(2), (bucket(1), 101));
        let evicted = [bucket(2), bucket(3)];
        let changed = lineage.evict(evicted.into_iter(), &lives, &layout);
        let dead = Dead { records: vec![(7, 50), (5, 54)], all: false };
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), [(bucket(1), (101, dead))]);
        assert!(lineage.evict(evicted.into_iter(), &lives, &layout).is_empty(), "done already");
    }
}
