//! Buckets whose gen runs ahead of the one on the device, other than by waiting in `free_inc`.
//!
//! # Problem
//!
//! After a crash the gens on the device are all that is left, and a pointer is told from a stale
//! one by a distance of at most 128. A gen that advances without waiting to become durable
//! (`unused`, the freed nodes of an index, what start-up observed) must therefore not run more
//! than 96 ahead of the durable one; and the short way of `unused` may be taken once per prio
//! write only.
//!
//! # State
//!
//! The durable gen of exactly those buckets, which are few: an ordinary bucket needs no entry,
//! for its gen is the durable one unless it is in `free_inc` or being written, where it is one
//! ahead and pinned. So there is no second gen per bucket.
//!
//! # Protocol
//!
//! Whoever advances a gen that way does it under the lock, and enters the gen it had. A prio
//! write notes which buckets have an entry, then encodes; once it is durable the gens that it
//! encoded for those become the durable ones. What entered later keeps its older durable gen,
//! which errs on the safe side until the next prio write.
//!
//! # Progress
//!
//! A short lock on the paths of the index's owner (freeing nodes, `unused`) and of the reclaimer;
//! nobody who allocates, pins, reads or writes takes it.

use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering};
use crate::table::Table;
use std::collections::BTreeMap;
use tierce_core::bucket::GC_GEN_LIMIT;
use tierce_core::{BucketIndex, Gen, broken};

/// The durable gens of the buckets that are ahead of them.
#[derive(Debug)]
pub(crate) struct Ahead {
    durable: Mutex<BTreeMap<BucketIndex, Gen>>,
    /// 0 while there is none: passes need not lock.
    any: AtomicU32,
}

impl Ahead {
    /// No bucket is ahead.
    pub(crate) fn new() -> Self {
        Self { durable: Mutex::new(BTreeMap::new()), any: AtomicU32::new(0) }
    }

    /// Keeps gens from being advanced by others, and tells and changes the durable ones.
    pub(crate) fn lock(&self) -> Entries<'_> {
        Entries { durable: self.durable.lock(), any: &self.any }
    }

    /// Every bucket that has an entry, ascending.
    pub(crate) fn buckets(&self) -> Vec<BucketIndex> {
        self.durable.lock().keys().copied().collect()
    }

    /// The buckets that have run as far ahead as they may, ascending: only a prio write helps.
    pub(crate) fn far(&self, table: &Table) -> Vec<BucketIndex> {
        // Relaxed: whoever advanced a gen did it before he asks the reclaimer for anything.
        if self.any.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let durable = self.durable.lock();
        let far = |(&bucket, &durable): (&BucketIndex, &Gen)| {
            (table.peek(bucket).gen_().since(durable) >= GC_GEN_LIMIT).then_some(bucket)
        };
        durable.iter().filter_map(far).collect()
    }
}

/// The locked entries of a device.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    durable: MutexGuard<'a, BTreeMap<BucketIndex, Gen>>,
    any: &'a AtomicU32,
}

impl Entries<'_> {
    /// The durable gen of a bucket whose present one is `current`.
    pub(crate) fn durable_gen(&self, bucket: BucketIndex, current: Gen) -> Gen {
        self.durable.get(&bucket).copied().unwrap_or(current)
    }

    /// The bucket's gen advances from `current`, which was the durable one if nothing else is
    /// known.
    pub(crate) fn advance(&mut self, bucket: BucketIndex, current: Gen) {
        if broken!("ahead_forgets_the_first") {
            self.durable.insert(bucket, current);
        } else {
            self.durable.entry(bucket).or_insert(current);
        }
        self.count();
    }

    /// `durable` has become durable while the bucket's gen is `current`.
    pub(crate) fn settle(&mut self, bucket: BucketIndex, durable: Gen, current: Gen) {
        if durable == current {
            self.durable.remove(&bucket);
        } else {
            self.durable.insert(bucket, durable);
        }
        self.count();
    }

    fn count(&self) {
        // Relaxed: written under the lock; see `Ahead::far`.
        self.any.store(u32::from(!self.durable.is_empty()), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use tierce_core::Snapshot;

    #[test]
    fn lags_are_counted_from_the_durable_gen() {
        let words = [100, 96, 95].map(|gen_| Snapshot::default().with_gen(Gen::new(gen_)));
        let table = Table::new(words.into_iter(), Default::default());
        let ahead = Ahead::new();
        let [a, b, c] = [0, 1, 2].map(BucketIndex::new);
        assert!(ahead.far(&table).is_empty());
        for bucket in [a, b, c] {
            ahead.lock().advance(bucket, Gen::new(0));
            ahead.lock().advance(bucket, Gen::new(50));
        }
        assert_eq!(ahead.lock().durable_gen(a, Gen::new(100)), Gen::new(0), "the first counts");
        assert_eq!(ahead.far(&table), [a, b], "96 and more");
        ahead.lock().settle(a, Gen::new(60), Gen::new(100));
        ahead.lock().settle(b, Gen::new(96), Gen::new(96));
        assert_eq!(ahead.buckets(), [a, c]);
        assert!(ahead.far(&table).is_empty());
    }
}
