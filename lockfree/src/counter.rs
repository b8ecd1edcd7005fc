//! Counts that many threads change and few read.
//!
//! A counter is one padded cell per CPU; a thread adds to the cell of its hint, a reader sums
//! them. No line is written by every CPU. A sum taken while others add is some value between
//! the sum before and the sum after: good for statistics and for decisions that may be a little
//! early or late, never for safety.

use crate::hint;
use crate::sync::{AtomicI64, Ordering};
use crossbeam_utils::CachePadded;

/// A signed count in per-CPU cells.
#[derive(Debug)]
pub(crate) struct Counter {
    cells: Box<[CachePadded<AtomicI64>]>,
}

impl Counter {
    /// Zero, in `cells` cells.
    pub(crate) fn new(cells: usize) -> Self {
        Self { cells: (0..cells.max(1)).map(|_| CachePadded::new(AtomicI64::new(0))).collect() }
    }

    /// Adds `n`.
    pub(crate) fn add(&self, n: i64) {
        let cell = &self.cells[hint::place(self.cells.len())];
        // Relaxed: a count, nothing is published with it.
        cell.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum of all cells.
    pub(crate) fn sum(&self) -> i64 {
        // Relaxed: see `add`.
        self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    /// The sum of a counter that only grows.
    pub(crate) fn total(&self) -> u64 {
        self.sum().max(0).unsigned_abs()
    }
}

/// The number of buckets that could be reused, approximate under load.
///
/// It starts at what GC counted (the base), falls by one per allocation and rises by one per
/// free. With one cell it is exact and clamped at every step to 0..=nbuckets, as the sequential
/// specification has it; with several it is clamped when it is read.
#[derive(Debug)]
pub(crate) struct Available {
    delta: Counter,
    nbuckets: i64,
}

impl Available {
    /// 0 of `nbuckets`.
    pub(crate) fn new(cells: usize, nbuckets: u32) -> Self {
        Self { delta: Counter::new(cells), nbuckets: i64::from(nbuckets) }
    }

    /// One bucket more (+1) or fewer (−1).
    pub(crate) fn change(&self, n: i64) {
        let [only] = &*self.delta.cells else {
            self.delta.add(n);
            return;
        };
        let clamped = |old: i64| Some((old + n).clamp(0, self.nbuckets));
        // Relaxed: a count, nothing is published with it.
        let _ = only.fetch_update(Ordering::Relaxed, Ordering::Relaxed, clamped);
    }

    /// The value before clamping, for [`rebase`](Self::rebase).
    pub(crate) fn raw(&self) -> i64 {
        self.delta.sum()
    }

    /// GC counted `found`; `before` is what [`raw`](Self::raw) said when it began to count.
    /// The difference is applied as a change, so that what happened meanwhile is kept.
    pub(crate) fn rebase(&self, before: i64, found: u32) {
        self.change(i64::from(found) - before);
    }

    /// The present value.
    pub(crate) fn get(&self) -> u32 {
        u32::try_from(self.delta.sum().clamp(0, self.nbuckets)).unwrap_or(0)
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn one_cell_clamps_at_every_step() {
        let a = Available::new(1, 4);
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
    fn cells_add_up() {
        let c = Counter::new(4);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| (0..1000).for_each(|_| c.add(1)));
            }
        });
        assert_eq!(c.total(), 8000);
    }
}
