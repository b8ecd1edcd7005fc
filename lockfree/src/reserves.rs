//! The free lists of one device: per-CPU cells before the `none` queue, and the three reserves.
//!
//! # State
//!
//! ```text
//!            own cells ─▶ none queue ─▶ all CPUs' cells ─▶ own reserve's queue        (alloc)
//!   prio queue ─▶ btree queue ─▶ moving_gc queue ─▶ none queue ─▶ any cell            (release)
//! ```
//!
//! A free bucket is in exactly one of them, with pin 1 and a gen that is safe to use. Cells and
//! queues count what was ever inserted into them, and there is a count of *movers*.
//!
//! # Protocol: failing exactly
//!
//! "Nothing is free" is said only if at some instant inside the call nothing was. Looking into
//! many places takes time, so a scan that found all of them empty proves nothing by itself: a
//! bucket may have been put into a place already passed, and another taken from a place still
//! ahead. Therefore:
//!
//! 1. Sum what all places count, and the movers.
//! 2. Look everywhere; take what is found.
//! 3. Sum again. Equal, and no mover: fail. Otherwise look again.
//!
//! Counting an insertion is part of it (the version of a cell) or follows before the inserter
//! returns (the tail of a queue): nothing else has to be written to announce it. A thread that
//! carries buckets from a queue to cells is a *mover* from before it takes them until after it
//! has put them down; the bucket that it takes for itself is none of those.
//!
//! Proof sketch. Let the sums be equal without movers. Sums of counts that only grow are equal
//! only if each is, so no insertion was counted between the two reads of its place. An insertion
//! not yet counted at the second read belongs to a push that has not returned: it may be ordered
//! just before its bucket's pop, or after our call. What remains are the buckets inserted and
//! counted before step 1. Nobody carried one (no movers), each place was seen empty once, so
//! each was popped before its place was seen. After the last of these pops nothing was free. ∎
//!
//! # Memory ordering
//!
//! Step 1 reads the counts Acquire, so a counted insertion is seen by the scan. For step 3 take a
//! thread A that inserts, then pops from a place still ahead of the scan: the scan sees that
//! place empty by an Acquire load of A's Release pop (`cells.rs` and `ring.rs` see to that), so
//! step 3 sees what A's insertion counted.
//!
//! # Progress
//!
//! pop from own cells: wait-free. Everything else is lock-free: nobody waits for a stopped thread.
//! A failing pop repeats only while others insert; while a mover is stopped a pop that finds
//! nothing gives up after three scans and says `Empty { movers_seen }`. A mover has one bucket in
//! hand at a time.

use crate::attention::Attention;
use crate::cells::{Cells, Pushed};
use crate::sync::{Arc, AtomicU64, Ordering, Queue, fence};
use crossbeam_utils::CachePadded;
use std::collections::VecDeque;
use tierce_core::reserve::REFILL_ORDER;
use tierce_core::{BucketIndex, Reserve, Sizes, broken};

/// How many buckets one refill takes from the queue, the caller's own included: as many as a
/// cache line of the table has words. Neighbours should stay on one CPU.
const REFILL: usize = 8;

/// Scans that find a mover at work before the caller is told so.
const MOVER_SCANS: u32 = 3;

/// Nothing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Empty {
    /// A thread was carrying buckets between places: something may be free after all.
    pub(crate) movers_seen: bool,
}

/// A bucket from a free list, and which: given back, it goes there again, so that no reserve
/// drains into `none` by allocations that were in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Free {
    pub(crate) bucket: BucketIndex,
    pub(crate) home: Reserve,
}

impl Free {
    /// One of `none`.
    pub(crate) fn none(bucket: BucketIndex) -> Self {
        Self { bucket, home: Reserve::None }
    }
}

/// What a pop found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The bucket.
    pub(crate) free: Free,
    /// Buckets were carried from the queue to the cells: whoever failed to find them meanwhile
    /// and waits has to be served.
    pub(crate) moved: bool,
    /// A bucket that was carried and found no place. The caller must put it somewhere.
    pub(crate) spare: Option<BucketIndex>,
}

impl From<Free> for Found {
    fn from(free: Free) -> Self {
        Self { free, moved: false, spare: None }
    }
}

/// The free lists of one device.
#[derive(Debug)]
pub(crate) struct Reserves {
    cells: Cells,
    queues: [Option<Queue>; Reserve::COUNT],
    /// How many carry buckets right now.
    movers: CachePadded<AtomicU64>,
}

impl Reserves {
    /// Empty lists of these sizes, with cells for `cpus` CPUs (none if 0), which are changed as
    /// `attention` says.
    pub(crate) fn new(sizes: &Sizes, cpus: u32, attention: Arc<Attention>) -> Self {
        let per_row = if cpus == 0 { 0 } else { sizes.cells_per_cpu(cpus) as usize };
        let cells = Cells::new(cpus as usize, per_row, attention);
        let queues = Reserve::ALL.map(|reserve| {
            let size = sizes.of(reserve) as usize;
            let size = if reserve == Reserve::None { size - cells.capacity() } else { size };
            (size > 0).then(|| Queue::new(size))
        });
        Self { cells, queues, movers: CachePadded::new(AtomicU64::new(0)) }
    }

    /// A bucket of `none` from this CPU's cells, if they are near.
    #[inline]
    pub(crate) fn pop_near_cells(&self) -> Option<BucketIndex> {
        self.cells.pop_near()
    }

    /// A bucket of `none` from this thread's cells.
    #[inline]
    pub(crate) fn pop_own_cells(&self) -> Option<BucketIndex> {
        self.cells.pop()
    }

    /// A bucket for a user of `reserve`: from `none` first, then from the reserve.
    pub(crate) fn pop(&self, reserve: Reserve) -> Result<Found, Empty> {
        if let Some(bucket) = self.cells.pop() {
            return Ok(Free::none(bucket).into());
        }
        // Before the first look at what all places count, which other CPUs write.
        if let Some(found) = self.pop_none_queue() {
            return Ok(found);
        }
        let mut scans = 0;
        loop {
            let before = self.version();
            if let Some(found) = self.look_everywhere(reserve) {
                return Ok(found);
            }
            if broken!("version_unchecked") {
                return Err(Empty { movers_seen: false });
            }
            let after = self.version();
            let movers_seen = before.movers + after.movers > 0;
            if before.inserts == after.inserts {
                if !movers_seen {
                    return Err(Empty { movers_seen });
                }
                scans += 1;
                if scans == MOVER_SCANS {
                    return Err(Empty { movers_seen });
                }
            }
        }
    }

    fn look_everywhere(&self, reserve: Reserve) -> Option<Found> {
        if let Some(bucket) = self.cells.pop() {
            return Some(Free::none(bucket).into());
        }
        if let Some(found) = self.pop_none_queue() {
            return Some(found);
        }
        let stolen = self.cells.pop_anywhere().map(Free::none);
        let other = stolen.or_else(|| match reserve {
            Reserve::None => None,
            home => self.pop_queue(home).map(|bucket| Free { bucket, home }),
        });
        other.map(Found::from)
    }

    fn pop_queue(&self, reserve: Reserve) -> Option<BucketIndex> {
        self.queues[reserve.as_usize()].as_ref()?.pop().map(BucketIndex::new)
    }

    /// A bucket from the `none` queue; the next few go into this thread's cells.
    fn pop_none_queue(&self) -> Option<Found> {
        let first = self.pop_queue(Reserve::None)?;
        let more = REFILL.min(self.cells.per_row()).saturating_sub(1);
        if more == 0 {
            return Some(Free::none(first).into());
        }
        if !broken!("mover_unannounced") {
            // Acquire: the pops below stay below the announcement. A scan that misses what we
            // carry has seen the queue without it, hence (by the queue's orderings) sees us.
            self.movers.fetch_add(1, Ordering::Acquire);
        }
        let (moved, spare) = self.carry(first, more);
        if !broken!("mover_unannounced") {
            let order = if broken!("mover_done_relaxed") {
                Ordering::Relaxed
            } else {
                // Release: what was put down is seen by whoever does not see us any more.
                Ordering::Release
            };
            self.movers.fetch_sub(1, order);
        }
        Some(Found { free: Free::none(first), moved, spare })
    }

    /// Carries up to `most` buckets from the `none` queue to this thread's cells. A run of
    /// neighbours ends with its cache line, so that the next one begins with one. Returns whether
    /// there was any, and one that found no place.
    fn carry(&self, first: BucketIndex, most: usize) -> (bool, Option<BucketIndex>) {
        let in_line = |bucket: BucketIndex| bucket.as_usize() % REFILL;
        let (mut last, mut run, mut moved) = (first, true, false);
        for _ in 0..most {
            if run && in_line(last) == REFILL - 1 && in_line(first) != REFILL - 1 {
                break;
            }
            let Some(bucket) = self.pop_queue(Reserve::None) else { break };
            moved = true;
            run = run && bucket.get() == last.get() + 1;
            last = bucket;
            if !self.cells.push(bucket).is_done() {
                // Somebody filled our row meanwhile.
                return (true, self.insert_none(bucket).err());
            }
        }
        (moved, None)
    }

    /// Puts a bucket that has become ready where it is needed most. `Err` if all lists are full.
    pub(crate) fn release(&self, bucket: BucketIndex) -> Result<Reserve, BucketIndex> {
        let inserted = |&reserve: &Reserve| match reserve {
            Reserve::None => self.insert_none(bucket).is_ok(),
            own => self.insert_reserve(own, bucket),
        };
        REFILL_ORDER.into_iter().find(inserted).ok_or(bucket)
    }

    /// As [`release`](Self::release), of the first of `ready`, as many as there is room for: they
    /// leave it. `released` hears of each.
    pub(crate) fn release_all(
        &self,
        ready: &mut VecDeque<BucketIndex>,
        mut released: impl FnMut(BucketIndex, Reserve),
    ) {
        for reserve in REFILL_ORDER {
            let queue = self.queues[reserve.as_usize()].as_ref();
            while let Some(queue) = queue
                && let some @ 1.. = queue.push_some(ready.iter().map(|bucket| bucket.get()))
            {
                ready.drain(..some).for_each(|bucket| released(bucket, reserve));
            }
            while reserve == Reserve::None
                && let Some(&bucket) = ready.front()
                && self.cells.push_anywhere(bucket)
            {
                ready.pop_front();
                released(bucket, reserve);
            }
        }
    }

    /// Puts a bucket of `none` back into this thread's cells.
    #[inline]
    pub(crate) fn push_own_cells(&self, bucket: BucketIndex) -> Pushed {
        self.cells.push(bucket)
    }

    /// Puts a bucket back that was taken in vain: on the list it came from, for `none` where this
    /// thread finds it again. `Err` if all lists are full.
    pub(crate) fn give_back(&self, free: Free) -> Result<Reserve, BucketIndex> {
        let Free { bucket, home } = free;
        if home != Reserve::None && self.insert_reserve(home, bucket) {
            return Ok(home);
        }
        if self.cells.push(bucket).is_done() || self.insert_none(bucket).is_ok() {
            return Ok(Reserve::None);
        }
        self.release(bucket)
    }

    /// Puts `bucket`, one of the `prio` chain, into the reserve of the prio write only.
    pub(crate) fn refill_prio(&self, bucket: BucketIndex) -> bool {
        self.insert_reserve(Reserve::Prio, bucket)
    }

    fn insert_reserve(&self, reserve: Reserve, bucket: BucketIndex) -> bool {
        let queue = self.queues[reserve.as_usize()].as_ref();
        queue.is_some_and(|queue| queue.push(bucket.get()).is_ok())
    }

    fn insert_none(&self, bucket: BucketIndex) -> Result<(), BucketIndex> {
        let queue = self.queues[Reserve::None.as_usize()].as_ref();
        let inserted = queue.is_some_and(|queue| queue.push(bucket.get()).is_ok())
            || self.cells.push_anywhere(bucket);
        if inserted { Ok(()) } else { Err(bucket) }
    }

    /// How many buckets are on the list, at no particular instant: never decides anything but
    /// when to wake the reclaimer.
    pub(crate) fn len_hint(&self, reserve: Reserve) -> usize {
        let queue = self.queues[reserve.as_usize()].as_ref().map_or(0, Queue::len);
        if reserve == Reserve::None { queue + self.cells.len_hint() } else { queue }
    }

    /// The buckets on a list, oldest first, at no particular instant. For tests and tools.
    pub(crate) fn list(&self, reserve: Reserve) -> Vec<BucketIndex> {
        let cells = if reserve == Reserve::None { self.cells.list() } else { Vec::new() };
        let queue = self.queues[reserve.as_usize()].as_ref().map(Queue::items);
        let queued = queue.into_iter().flatten().map(BucketIndex::new);
        cells.into_iter().chain(queued).collect()
    }

    /// Whether `none` is at most half full, as far as its queue tells.
    pub(crate) fn is_low(&self) -> bool {
        let none = self.queues[Reserve::None.as_usize()].as_ref();
        none.is_none_or(|queue| queue.len() * 2 <= queue.capacity())
    }

    /// Whether prio writes find `sets` buckets in `none` and `prio` together, as far as one
    /// can tell without taking them.
    pub(crate) fn could_write_prios(&self, sets: usize) -> bool {
        self.len_hint(Reserve::None) + self.len_hint(Reserve::Prio) >= sets
    }

    fn version(&self) -> Version {
        // Acquire: step 3 of the protocol reads the counts after everything the scan read.
        fence(Ordering::Acquire);
        let queued = self.queues.iter().flatten().map(Queue::inserts).sum::<u64>();
        // Acquire: pairs with the Release of a mover that has put everything down.
        let movers = self.movers.load(Ordering::Acquire);
        Version { inserts: self.cells.inserts() + queued, movers }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Version {
    inserts: u64,
    movers: u64,
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use tierce_core::Geometry;

    /// Runs of neighbours are cut where cache lines of the table end; others are as long as can
    /// be.
    #[test]
    fn refills_are_whole_lines() {
        let lists = Reserves::new(&sizes(), 2, Arc::new(Attention::new(None)));
        for bucket in (13..32).chain([71, 73, 79, 90, 91, 92, 93, 94]) {
            lists.insert_none(BucketIndex::new(bucket)).expect("there is room");
        }
        let refill = || {
            let first = lists.pop_none_queue().expect("there are more").free.bucket;
            let cells = std::iter::from_fn(|| lists.cells.pop());
            std::iter::once(first).chain(cells).map(BucketIndex::get).collect::<Vec<_>>()
        };
        assert!(refill().into_iter().eq(13..16));
        assert!(refill().into_iter().eq(16..24) && refill().into_iter().eq(24..32));
        assert_eq!(refill(), [71, 73, 79, 90, 91, 92, 93, 94]);
    }

    fn sizes() -> Sizes {
        let geometry = Geometry::new(2048, 1, 128, 1).expect("a legal shape");
        let mut sizes = Sizes::tierce(&geometry, 16);
        sizes.none = 64;
        sizes
    }

    #[test]
    fn refill_and_take_in_the_specified_order() {
        let mut sizes = sizes();
        (sizes.btree, sizes.prio, sizes.moving_gc, sizes.none) = (1, 1, 1, 2);
        let lists = Reserves::new(&sizes, 0, Arc::new(Attention::new(None)));
        let order: Vec<_> =
            (1..=6).map(|b| lists.release(BucketIndex::new(b)).map_err(|b| b.get())).collect();
        assert_eq!(
            order,
            [
                Ok(Reserve::Prio),
                Ok(Reserve::Btree),
                Ok(Reserve::MovingGc),
                Ok(Reserve::None),
                Ok(Reserve::None),
                Err(6)
            ]
        );
        let take = |reserve| lists.pop(reserve).map(|found| found.free.bucket.get());
        let empty = Err(Empty { movers_seen: false });
        assert_eq!(take(Reserve::Btree), Ok(4), "from none first, oldest first");
        assert_eq!(take(Reserve::Btree), Ok(5));
        assert_eq!(take(Reserve::Btree), Ok(2));
        assert_eq!(take(Reserve::Btree), empty);
        assert_eq!(take(Reserve::None), empty, "none does not take from the others");
        assert_eq!((take(Reserve::Prio), take(Reserve::MovingGc)), (Ok(1), Ok(3)));
    }

    #[test]
    fn every_bucket_comes_out_once_through_cells_and_queue() {
        let lists = Reserves::new(&sizes(), 2, Arc::new(Attention::new(None)));
        let mut inside = 0;
        while lists.release(BucketIndex::new(inside + 1)).is_ok() {
            inside += 1;
        }
        let sizes = sizes();
        assert_eq!(inside, sizes.btree + sizes.prio + sizes.moving_gc + sizes.none);
        let mut out = Vec::new();
        for reserve in Reserve::ALL {
            while let Ok(found) = lists.pop(reserve) {
                assert_eq!(found.spare, None);
                out.push(found.free.bucket.get());
            }
        }
        out.sort_unstable();
        assert!(out.iter().copied().eq(1..=inside));
    }
}
