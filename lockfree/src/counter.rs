//! Counts that many threads change and few read.
//!
//! # State
//!
//! Several counts that are changed together lie in one block, and there are several blocks, each
//! on cache lines of its own: one for each number that a thread can own ([`crate::owner`]), and
//! one per CPU for threads without a number of their own. A count is the sum over all blocks.
//!
//! # Protocol
//!
//! A thread adds to its own block by a load and a store: nobody else writes there. A thread that
//! owns no number (there are more than [`OWNERS`], or it is being torn down) adds to a shared
//! block by a read-modify-write. Without per-CPU data there is nothing but one shared block.
//!
//! Nothing is lost when a thread ends: its number, and with it its block, passes to another
//! thread, which sees what the last owner stored (the number is handed over by Release and
//! Acquire) and goes on from there.
//!
//! A sum taken while others add is some value between the sum before and the sum after: good
//! for statistics and for decisions that may be a little early or late, never for safety. When
//! those who added have been synchronised with, it is exact.
//!
//! # Memory ordering
//!
//! All Relaxed: nothing is published with a count.
//!
//! # Progress
//!
//! Wait-free.

use crate::hint;
use crate::owner::{self, OWNERS};
use crate::sync::{AtomicI64, Ordering};
use crossbeam_utils::CachePadded;
use tierce_core::{Reserve, broken};

type Block<const N: usize> = CachePadded<[AtomicI64; N]>;

/// `N` signed counts.
#[derive(Debug)]
pub(crate) struct Counts<const N: usize> {
    owned: Box<[Block<N>]>,
    shared: Box<[Block<N>]>,
}

impl<const N: usize> Counts<N> {
    /// Zeros, for `cpus` CPUs; 0: without per-CPU data.
    pub(crate) fn new(cpus: usize) -> Self {
        let block = |_| CachePadded::new(core::array::from_fn(|_| AtomicI64::new(0)));
        let owned = if cpus > 0 { OWNERS } else { 0 };
        Self {
            owned: (0..owned).map(block).collect(),
            shared: (0..cpus.max(1)).map(block).collect(),
        }
    }

    /// Adds `n` to count `which`.
    #[inline]
    pub(crate) fn add(&self, which: usize, n: i64) {
        if !self.add_owned(owner::known(), which, n) {
            self.add_elsewhere(which, n);
        }
    }

    /// Adds `n` to count `which` of the block with this number; `false` if there is no such block.
    #[inline]
    fn add_owned(&self, number: usize, which: usize, n: i64) -> bool {
        let Some(own) = self.owned.get(number) else { return false };
        let count = &own[which];
        // Relaxed (both): a count; no other thread stores here (by the Invariant of `owner`).
        count.store(count.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        true
    }

    /// The first time in a thread, and always in one that owns no number.
    #[cold]
    fn add_elsewhere(&self, which: usize, n: i64) {
        self.add_as(owner::number(), which, n);
    }

    /// As [`add`](Self::add), of a thread that owns this number.
    pub(crate) fn add_as(&self, number: Option<usize>, which: usize, n: i64) {
        if !number.is_some_and(|number| self.add_owned(number, which, n)) {
            self.add_shared(which, n);
        }
    }

    fn add_shared(&self, which: usize, n: i64) {
        let count = &self.shared[hint::place(self.shared.len())][which];
        if broken!("count_shared_plain") {
            // Relaxed (both): the deliberate break, no RMW.
            count.store(count.load(Ordering::Relaxed) + n, Ordering::Relaxed);
            return;
        }
        // Relaxed: a count, nothing is published with it.
        count.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum of count `which`.
    pub(crate) fn sum(&self, which: usize) -> i64 {
        let used = self.owned.len().min(owner::numbers_used());
        let blocks = self.owned[..used].iter().chain(&self.shared);
        // Relaxed: see `add`.
        blocks.map(|block| block[which].load(Ordering::Relaxed)).sum()
    }

    /// The sum of a count that only grows.
    pub(crate) fn total(&self, which: usize) -> u64 {
        self.sum(which).max(0).unsigned_abs()
    }
}

/// One signed count.
#[derive(Debug)]
pub(crate) struct Counter(Counts<1>);

impl Counter {
    /// Zero, for `cpus` CPUs; 0: without per-CPU data.
    pub(crate) fn new(cpus: usize) -> Self {
        Self(Counts::new(cpus))
    }

    /// Adds `n`.
    #[inline]
    pub(crate) fn add(&self, n: i64) {
        self.0.add(0, n);
    }

    /// The sum of all blocks.
    pub(crate) fn sum(&self) -> i64 {
        self.0.sum(0)
    }

    /// The sum of a counter that only grows.
    pub(crate) fn total(&self) -> u64 {
        self.0.total(0)
    }
}

/// The number of buckets that could be reused, approximate under load, and how many were
/// allocated.
///
/// It starts at what GC counted (the base), falls by one per allocation and rises by one per
/// free. An allocation changes one count, that of its reserve, which is subtracted from all other
/// changes when the number is read.
///
/// Without per-CPU data it is exact and clamped at every step to 0..=nbuckets, as the sequential
/// specification has it; else it is clamped when it is read.
#[derive(Debug)]
pub(crate) struct Available {
    /// Allocations by [`Reserve`], then [`CHANGES`].
    counts: Counts<{ Reserve::COUNT + 1 }>,
    /// If it is exact.
    exact: Option<AtomicI64>,
    nbuckets: i64,
}

/// Which count is that of all other changes.
const CHANGES: usize = Reserve::COUNT;

impl Available {
    /// 0 of `nbuckets`, for `cpus` CPUs; 0: without per-CPU data.
    pub(crate) fn new(cpus: usize, nbuckets: u32) -> Self {
        let exact = (cpus == 0).then(|| AtomicI64::new(0));
        Self { counts: Counts::new(cpus), exact, nbuckets: i64::from(nbuckets) }
    }

    /// One bucket fewer: it was allocated from `reserve`.
    #[inline]
    pub(crate) fn allocated(&self, reserve: Reserve) {
        self.count(reserve.as_usize(), 1, -1);
    }

    /// How many were allocated from `reserve`.
    pub(crate) fn allocations(&self, reserve: Reserve) -> u64 {
        self.counts.total(reserve.as_usize())
    }

    /// One bucket more (+1) or fewer (−1).
    #[inline]
    pub(crate) fn change(&self, n: i64) {
        self.count(CHANGES, n, n);
    }

    /// Adds `n` to a count, by which the number changes by `change`.
    #[inline]
    fn count(&self, which: usize, n: i64, change: i64) {
        if !self.counts.add_owned(owner::known(), which, n) {
            self.count_elsewhere(which, n, change);
        }
    }

    #[cold]
    fn count_elsewhere(&self, which: usize, n: i64, change: i64) {
        if self.exact.is_none() || which != CHANGES {
            self.counts.add_elsewhere(which, n);
        }
        if let Some(exact) = &self.exact {
            let clamped = |old: i64| Some((old + change).clamp(0, self.nbuckets));
            // Relaxed: a count, nothing is published with it.
            let _ = exact.fetch_update(Ordering::Relaxed, Ordering::Relaxed, clamped);
        }
    }

    /// The value before clamping, for [`rebase`](Self::rebase).
    pub(crate) fn raw(&self) -> i64 {
        match &self.exact {
            // Relaxed: as in `count_elsewhere`.
            Some(exact) => exact.load(Ordering::Relaxed),
            None => {
                let allocated: i64 = (0..CHANGES).map(|which| self.counts.sum(which)).sum();
                self.counts.sum(CHANGES) - allocated
            }
        }
    }

    /// GC counted `found`; `before` is what [`raw`](Self::raw) said when it began to count.
    /// The difference is applied as a change, so that what happened meanwhile is kept.
    pub(crate) fn rebase(&self, before: i64, found: u32) {
        self.change(i64::from(found) - before);
    }

    /// The present value.
    pub(crate) fn get(&self) -> u32 {
        u32::try_from(self.raw().clamp(0, self.nbuckets)).unwrap_or(0)
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_exact_one_clamps_at_every_step() {
        let a = Available::new(0, 4);
        a.change(-1);
        a.change(1);
        assert_eq!(a.get(), 1, "the step below 0 was not remembered");
        for _ in 0..9 {
            a.change(1);
        }
        a.change(-1);
        assert_eq!(a.get(), 3);
        a.rebase(a.raw(), 1);
        assert_eq!(a.get(), 1);
    }

    #[test]
    fn an_allocation_is_one_bucket_fewer() {
        for cpus in [0, 2] {
            let a = Available::new(cpus, 9);
            a.change(7);
            a.allocated(Reserve::None);
            a.allocated(Reserve::Prio);
            a.allocated(Reserve::None);
            assert_eq!((a.get(), a.raw()), (4, 4));
            assert_eq!(Reserve::ALL.map(|r| a.allocations(r)).iter().sum::<u64>(), 3);
            assert_eq!(a.allocations(Reserve::None), 2);
        }
    }

    /// More threads at once than can own a number, twice, so that numbers change hands.
    #[test]
    fn nothing_is_lost_however_many_threads_there_are() {
        let counts = Counts::<2>::new(2);
        for _ in 0..2 {
            let all_there = std::sync::Barrier::new(OWNERS + 20);
            std::thread::scope(|s| {
                for _ in 0..OWNERS + 20 {
                    s.spawn(|| {
                        owner::number();
                        all_there.wait();
                        (0..1000).for_each(|_| counts.add(1, 1));
                    });
                }
            });
        }
        assert_eq!((counts.total(0), counts.total(1)), (0, 2 * (OWNERS as u64 + 20) * 1000));
        assert!(counts.shared.iter().any(|block| block[1].load(Ordering::Relaxed) > 0));
    }

    /// A value that counts when its thread ends, after or before the thread gave up its number.
    #[test]
    fn a_thread_counts_to_its_very_end() {
        static COUNT: std::sync::OnceLock<Counter> = std::sync::OnceLock::new();
        struct CountsAtTheEnd;
        impl Drop for CountsAtTheEnd {
            fn drop(&mut self) {
                COUNT.get().expect("it was set").add(1);
            }
        }
        std::thread_local! {
            static FIRST: CountsAtTheEnd = const { CountsAtTheEnd };
            static LAST: CountsAtTheEnd = const { CountsAtTheEnd };
        }
        let count = COUNT.get_or_init(|| Counter::new(2));
        for _ in 0..100 {
            std::thread::spawn(move || {
                FIRST.with(|_| count.add(1));
                LAST.with(|_| count.add(1));
            })
            .join()
            .unwrap();
        }
        assert_eq!(count.total(), 400);
    }
}
