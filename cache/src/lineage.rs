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
//! A record is *dead* if its bucket's list says so ([`crate::layout`]): its value must not be found
//! any more, but it still hides every older record of its key.
//!
//! 1. Whenever a record takes the place of an older one in another bucket, that is noted under the
//!    *newer* one's bucket ([`Lineage::note`]). If both are in one bucket they go together.
//! 2. Before a bucket's new gen becomes durable ([`Lineage::evict`], called by the pipeline), the
//!    notes under it are looked at: the older records that are still there become dead, written
//!    into their own bucket's list, in place: after a flush, so that what they gave way to is
//!    durable before they are dead. The pipeline's flush makes that durable no later than the new
//!    gen.
//! 3. A restart lets the newest record of each key count, dead or not, and makes the notes anew
//!    from what it finds.
//!
//! # Why that is enough
//!
//! Claim: if a record can be found and is not dead, the next newer one of its key can be found, or
//! was never durable. It goes only by step 2, with its bucket, and the note that is there since it
//! was written makes the older one dead no later. It may be dead itself by then: that hides the
//! older one as well, so nothing has to happen to that one yet, and a power loss between any two
//! lists does no harm. The index drops an entry only when its bucket's new gen is durable; then the
//! record before it is dead, and the next one need not know of it. A tombstone that nobody knows of
//! any more brings nothing back.
//!
//! # Cost
//!
//! 12 bytes of memory for every record that overwrote another that is still there, and one write of
//! a few blocks per older bucket concerned, when newer ones go first: never under FIFO, rarely
//! under LRU.

use crate::layout::{Dead, Layout};
use crate::life::Lives;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tierce_core::{BucketId, broken};

/// Where a record is: its bucket and its offset there, in bytes.
pub(crate) type Place = (BucketId, u32);

/// A record whose place was taken.
#[derive(Clone, Copy, Debug)]
struct Old {
    bucket: u32,
    offset: u32,
    /// What is kept of the number of its bucket's life.
    life: LifeHash,
}

/// Half of a life's number, so to speak. Not the lower half: lives of different runs have that in
/// common, for every run begins at a round number ([`crate::recover`]), and a bucket that is
/// opened as the n-th in two runs would be taken for the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LifeHash(u32);

impl LifeHash {
    fn of(life: u64) -> Self {
        let life = if broken!("lineage_lower_half") {
            life << 32
        } else {
            // By an odd number near 2^64 / 1.618: whatever differs by a multiple of some power of
            // two differs in the upper bits.
            life.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        };
        Self((life >> 32) as u32)
    }
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

    /// A record in the bucket `newer` took the place of the one at `older`, in a life of that
    /// number.
    pub(crate) fn note(&self, newer: BucketId, older: Place, life: u64) {
        if newer != older.0 {
            let life = LifeHash::of(life);
            let old = Old { bucket: older.0.pack(), offset: older.1, life };
            self.shard(newer).entry(newer).or_default().push(old);
        }
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
        if broken!("no_lineage") {
            return BTreeMap::new();
        }
        let mut lists = lock(&self.dead);
        for old in buckets.iter().flat_map(|id| self.shard(*id).remove(id).unwrap_or_default()) {
            let id = BucketId::unpack(old.bucket);
            let life = lives.get(id).number;
            if life == 0 || LifeHash::of(life) != old.life || buckets.contains(&id) {
                continue; // gone, or going with us
            }
            let list = lists.entry(id).or_default();
            if list.insert(layout, old.offset) {
                changed.insert(id, life);
            }
        }
        changed.into_iter().map(|(id, life)| (id, (life, lists[&id].clone()))).collect()
    }

    /// The content of a bucket is gone for good.
    pub(crate) fn gone(&self, id: BucketId) {
        lock(&self.dead).remove(&id);
    }

    /// Nothing that was noted counts.
    pub(crate) fn clear(&self) {
        self.notes.iter().for_each(|notes| lock(notes).clear());
        lock(&self.dead).clear();
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
        lineage.note(bucket(2), (bucket(1), 1024), 101);
        lineage.note(bucket(2), (bucket(3), 1024), 103);
        lineage.note(bucket(2), (bucket(4), 1024), 99);
        let evicted = BTreeSet::from([bucket(2), bucket(3)]);
        let changed = lineage.evict(&evicted, &lives, &layout);
        let mut dead = Dead::default();
        dead.insert(&layout, 1024);
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), [(bucket(1), (101, dead))]);
        assert!(lineage.evict(&evicted, &lives, &layout).is_empty(), "done already");
    }

    /// The n-th bucket that a run opens was the n-th of an earlier run.
    #[test]
    fn lives_of_different_runs_are_told_apart() {
        let (layout, lives, lineage) = some();
        for (run, later) in [(0, 1), (1, 2), (0, 1 << 17), (1 << 17, (1 << 17) + 64)] {
            let nth = |run: u64| (run << 44) + 7;
            lives.found(BucketRef::new(bucket(1), Gen::new(2)), nth(later));
            lineage.note(bucket(2), (bucket(1), 1024), nth(run));
            let changed = lineage.evict(&BTreeSet::from([bucket(2)]), &lives, &layout);
            assert!(changed.is_empty(), "what is in bucket 1 now is not what was, {run} {later}");
        }
    }

    /// 1@512 → 1@1024 → 5@512 → 2@512: each goes in its turn.
    #[test]
    fn the_dead_hide_what_is_older() {
        let (layout, lives, lineage) = some();
        lineage.note(bucket(1), (bucket(1), 512), 101);
        lineage.note(bucket(5), (bucket(1), 1024), 101);
        lineage.note(bucket(2), (bucket(5), 512), 105);
        let changed = lineage.evict(&BTreeSet::from([bucket(2)]), &lives, &layout);
        assert!(changed[&bucket(5)].1.contains(&layout, 512));
        assert_eq!(changed.len(), 1, "which hides those in 1");
        let changed = lineage.evict(&BTreeSet::from([bucket(5)]), &lives, &layout);
        let (_, of_1) = &changed[&bucket(1)];
        assert!(of_1.contains(&layout, 1024), "although it was dead");
        assert!(!of_1.contains(&layout, 512), "hidden by the other, with which it goes");
    }
}
