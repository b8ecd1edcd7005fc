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
//!    *newer* one's bucket ([`Lineage::note`]). If both are in one bucket they go together; it is
//!    noted so that they die together, too.
//! 2. Before a bucket's new gen becomes durable ([`Lineage::evict`], called by the pipeline), the
//!    notes under it are looked at: the older records that are still there become *dead*, written
//!    into their own bucket's list ([`crate::layout`]), in place: after a flush, so that what they
//!    gave way to is durable before any of them is dead. The pipeline's flush makes that durable
//!    no later than the new gen.
//! 3. A restart leaves out dead records, and makes the notes anew from what it finds.
//!
//! # Why that is enough
//!
//! Claim: if a record can be found and is not dead, its immediate successor can be found, or was
//! never durable. A successor goes only by step 2, with its bucket, and that makes the record dead
//! no later; or by dying itself, and then its own successor went, which made it dead: then whoever
//! is in the same bucket before it dies with it, and whoever is in another bucket is still noted
//! under the bucket that both records' notes lead to: the dead record's bucket, whose going makes
//! them dead. By then nothing newer can be found either, so it must not wait: see [`Lineage::kill`].
//! The index drops an entry only when its bucket's new gen is durable, so whoever is not in the index
//! has no record that could come back.
//!
//! # Cost
//!
//! 16 bytes of memory for every record that overwrote another that is still there, and one write of
//! a few blocks per older bucket concerned, when newer ones go first: never under FIFO, rarely
//! under LRU.

use crate::layout::{Dead, Layout};
use crate::life::Lives;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tierce_core::BucketId;

/// Where a record is: its bucket and its offset there, in bytes.
pub(crate) type Place = (BucketId, u32);

/// A record whose place was taken.
#[derive(Clone, Copy, Debug)]
struct Old {
    /// Where the record is that took it, in the bucket under which this is noted.
    newer: u32,
    bucket: u32,
    offset: u32,
    /// The low half of the number of its bucket's life.
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

const SHARDS: usize = 64;

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

    /// The record at `newer` took the place of the one at `older`, in a life of that number.
    pub(crate) fn note(&self, newer: Place, older: Place, life: u64) {
        let (bucket, offset) = (older.0.pack(), older.1);
        let old = Old { newer: newer.1, bucket, offset, life: life as u32 };
        self.shard(newer.0).entry(newer.0).or_default().push(old);
    }

    /// What a restart found in a bucket's list.
    pub(crate) fn found_dead(&self, id: BucketId, dead: Dead) {
        if !dead.is_empty() {
            lock(&self.dead).insert(id, dead);
        }
    }

    /// Buckets under which something is noted.
    pub(crate) fn noted(&self) -> Vec<BucketId> {
        let keys = |shard: &Mutex<Notes>| lock(shard).keys().copied().collect::<Vec<_>>();
        self.notes.iter().flat_map(keys).collect()
    }

    /// The content of `buckets` is about to go for good. Returns what has to be written before:
    /// for each bucket concerned its life's number and its list.
    pub(crate) fn evict(
        &self,
        buckets: &BTreeSet<BucketId>,
        lives: &Lives,
        layout: &Layout,
    ) -> BTreeMap<BucketId, (u64, Dead)> {
        let mut changed = BTreeMap::new();
        for id in buckets {
            let notes = self.shard(*id).remove(id).unwrap_or_default();
            for old in notes {
                if !cfg!(tierce_mutant = "no_lineage") {
                    self.kill(old, buckets, lives, layout, &mut changed);
                }
            }
        }
        changed
    }

    /// The content of a bucket is gone for good.
    pub(crate) fn gone(&self, id: BucketId) {
        lock(&self.dead).remove(&id);
    }

    /// Makes a record dead, unless its bucket is gone, and then whoever it took the place of.
    fn kill(
        &self,
        first: Old,
        going: &BTreeSet<BucketId>,
        lives: &Lives,
        layout: &Layout,
        changed: &mut BTreeMap<BucketId, (u64, Dead)>,
    ) {
        let mut doomed = vec![first];
        while let Some(old) = doomed.pop() {
            let id = BucketId::unpack(old.bucket);
            let life = lives.get(id).number;
            if life == 0 || life as u32 != old.life || going.contains(&id) {
                continue; // gone, or going with us
            }
            let mut dead = lock(&self.dead);
            let list = dead.entry(id).or_default();
            if !list.insert(layout, old.offset) {
                continue;
            }
            changed.insert(id, (life, list.clone()));
            drop(dead);
            // Its note is of no use any more: what it led to dies now.
            if let Some(notes) = self.shard(id).get_mut(&id) {
                doomed.extend(notes.extract_if(.., |note| note.newer == old.offset));
            }
        }
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
    use tierce_core::{BucketIndex, DeviceIndex, Gen};
    use tierce_lockfree::BucketRef;

    fn bucket(number: u32) -> BucketId {
        BucketId::new(DeviceIndex::FIRST, BucketIndex::new(number))
    }

    fn some() -> (Layout, Lives, Lineage) {
        let layout = Layout::new(64 << 10, 512).expect("room");
        let lives = Lives::new([10].into_iter());
        for n in 1..9 {
            let life = BucketRef::new(bucket(n), Gen::new(1));
            lives.found(life, 100 + u64::from(n));
        }
        (layout, lives, Lineage::new())
    }

    #[test]
    fn the_older_dies_with_the_newer_unless_it_is_gone() {
        let (layout, lives, lineage) = some();
        lineage.note((bucket(2), 512), (bucket(1), 1024), 101);
        lineage.note((bucket(2), 768), (bucket(3), 1024), 103);
        lineage.note((bucket(2), 1024), (bucket(4), 1024), 99);
        let evicted = BTreeSet::from([bucket(2), bucket(3)]);
        let changed = lineage.evict(&evicted, &lives, &layout);
        let mut dead = Dead::default();
        dead.insert(&layout, 1024);
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), [(bucket(1), (101, dead))]);
        assert!(lineage.evict(&evicted, &lives, &layout).is_empty(), "done already");
    }

    /// 1@512 → 1@1024 → 5@512 → 2@512: when 2 goes, all of them must.
    #[test]
    fn the_dead_take_their_predecessors_along() {
        let (layout, lives, lineage) = some();
        lineage.note((bucket(1), 1024), (bucket(1), 512), 101);
        lineage.note((bucket(5), 512), (bucket(1), 1024), 101);
        lineage.note((bucket(2), 512), (bucket(5), 512), 105);
        let changed = lineage.evict(&BTreeSet::from([bucket(2)]), &lives, &layout);
        let (_, of_1) = &changed[&bucket(1)];
        assert!(of_1.contains(&layout, 512) && of_1.contains(&layout, 1024));
        assert!(changed[&bucket(5)].1.contains(&layout, 512));
    }
}
