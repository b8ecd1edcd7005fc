//! Free buckets in per-CPU cells, in front of the shared queue.
//!
//! # Problem
//!
//! A queue shared by all CPUs moves a cache line on every operation, and a thread that is
//! stopped in the middle of one holds up the others. Most allocations should touch nothing
//! that another CPU writes, and wait for nobody.
//!
//! # State
//!
//! One row of [`PLACES`] words per CPU, one cache line. A word is 0 (empty) or bucket + 1. The
//! CPU is a hint ([`crate::hint`]): any thread may pop or push any cell, so nothing is stranded
//! and migration is harmless.
//!
//! # Protocol
//!
//! pop: load; if not 0, `swap(0)`; the bucket is ours if the swap returned it. push:
//! `compare_exchange(0 → bucket + 1)`. There is no ABA: a swap takes whatever is there.
//!
//! # Memory ordering
//!
//! push is Release and pop Acquire: what the pusher did to the bucket happened before. pop is
//! Release too, and a scan that finds a cell empty loads it Acquire: a scanner that sees a cell
//! emptied by a thread also sees the insertions which that thread announced before, which the
//! exact-failure argument of [`crate::reserves`] needs.
//!
//! # Progress
//!
//! pop and push look at each word of a row at most once: wait-free, bounded by [`PLACES`].

use crate::sync::{AtomicU32, Ordering};
use crossbeam_utils::CachePadded;
use tierce_core::BucketIndex;

/// Words of a row: 16 of 4 bytes are one cache line.
pub(crate) const PLACES: usize = 16;

/// The cells of all CPUs for one reserve.
#[derive(Debug)]
pub(crate) struct Cells {
    rows: Box<[CachePadded<Row>]>,
    /// Words of a row in use.
    per_row: usize,
}

#[derive(Debug)]
struct Row([AtomicU32; PLACES]);

impl Row {
    fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU32::new(0)))
    }

    fn pop(&self, per_row: usize) -> Option<BucketIndex> {
        for cell in &self.0[..per_row] {
            // Acquire: an empty cell may be what a pop left; pairs with its Release, see above.
            if cell.load(Ordering::Acquire) == 0 {
                continue;
            }
            let order = if cfg!(tierce_mutant = "cell_pop_unreleased") {
                Ordering::Acquire
            } else {
                // AcqRel: Acquire pairs with the Release in `push`; Release with the load above.
                Ordering::AcqRel
            };
            let taken = cell.swap(0, order);
            if taken != 0 {
                return Some(BucketIndex::new(taken - 1));
            }
        }
        None
    }

    fn push(&self, per_row: usize, bucket: BucketIndex) -> bool {
        let order = if cfg!(tierce_mutant = "cell_push_relaxed") {
            Ordering::Relaxed
        } else {
            // Release: publishes the bucket's word and data; pairs with the swap in `pop`.
            Ordering::Release
        };
        self.0[..per_row].iter().any(|cell| {
            // Relaxed: a test before the CAS, so that full cells are not written.
            cell.load(Ordering::Relaxed) == 0
                // Relaxed (failure): the next cell is tried.
                && cell.compare_exchange(0, bucket.get() + 1, order, Ordering::Relaxed).is_ok()
        })
    }
}

impl Cells {
    /// `rows` rows of `per_row` cells; none at all if `per_row` is 0.
    pub(crate) fn new(rows: usize, per_row: usize) -> Self {
        assert!(per_row <= PLACES);
        let rows = if per_row == 0 { 0 } else { rows };
        Self { rows: (0..rows).map(|_| CachePadded::new(Row::new())).collect(), per_row }
    }

    /// How many buckets fit.
    pub(crate) fn capacity(&self) -> usize {
        self.rows.len() * self.per_row
    }

    /// How many cells a row has.
    pub(crate) fn per_row(&self) -> usize {
        self.per_row
    }

    /// A bucket from this thread's row.
    pub(crate) fn pop(&self) -> Option<BucketIndex> {
        self.rows.get(self.own())?.pop(self.per_row)
    }

    /// A bucket from any other row, the next ones first.
    pub(crate) fn steal(&self) -> Option<BucketIndex> {
        let own = self.own();
        let (before, after) = self.rows.split_at(own.min(self.rows.len()));
        after.iter().skip(1).chain(before).find_map(|row| row.pop(self.per_row))
    }

    /// Puts `bucket` into this thread's row; `false` if it is full.
    pub(crate) fn push(&self, bucket: BucketIndex) -> bool {
        self.rows.get(self.own()).is_some_and(|row| row.push(self.per_row, bucket))
    }

    /// Puts `bucket` into any row; `false` if all are full.
    pub(crate) fn push_anywhere(&self, bucket: BucketIndex) -> bool {
        self.rows.iter().any(|row| row.push(self.per_row, bucket))
    }

    /// How many are filled, at no particular instant.
    pub(crate) fn len_hint(&self) -> usize {
        let cells = self.rows.iter().flat_map(|row| &row.0);
        // Relaxed: a statistic.
        cells.filter(|cell| cell.load(Ordering::Relaxed) != 0).count()
    }

    /// The buckets in all rows, at no particular instant.
    pub(crate) fn list(&self) -> Vec<BucketIndex> {
        let cells = self.rows.iter().flat_map(|row| &row.0);
        // Relaxed: a statistic.
        let numbers = cells.map(|cell| cell.load(Ordering::Relaxed));
        numbers.filter_map(|number| number.checked_sub(1)).map(BucketIndex::new).collect()
    }

    fn own(&self) -> usize {
        if self.rows.is_empty() { 0 } else { crate::hint::place(self.rows.len()) }
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_once() {
        let cells = Cells::new(2, 3);
        for b in 0..6 {
            assert!(cells.push_anywhere(BucketIndex::new(b)));
        }
        assert!(!cells.push_anywhere(BucketIndex::new(6)));
        assert_eq!(cells.len_hint(), 6);
        let mut out: Vec<u32> =
            std::iter::from_fn(|| cells.pop().or_else(|| cells.steal())).map(|b| b.get()).collect();
        out.sort_unstable();
        assert_eq!(out, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn no_cells_hold_nothing() {
        let cells = Cells::new(4, 0);
        assert_eq!(cells.capacity(), 0);
        assert!(!cells.push(BucketIndex::new(1)) && !cells.push_anywhere(BucketIndex::new(1)));
        assert!(cells.pop().is_none() && cells.steal().is_none());
    }
}
