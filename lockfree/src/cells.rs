//! Free buckets in per-CPU cells, in front of the shared queue.
//!
//! # Problem
//!
//! A queue shared by all CPUs moves a cache line on every operation. Most allocations should
//! touch nothing that another CPU writes, and wait for nobody.
//!
//! # State
//!
//! ```text
//!  63              32 31                      0
//! ┌──────────────────┬─────────────────────────┐
//! │     version      │ 0, or bucket + 1        │   one cell
//! └──────────────────┴─────────────────────────┘
//! ```
//!
//! One row of [`PLACES`] cells per CPU. The CPU is a hint ([`crate::hint`]): any thread may pop
//! or push any cell, so nothing is stranded and migration is harmless. *version* counts what was
//! ever pushed into the cell.
//!
//! # Protocol
//!
//! pop: load; if there is a bucket, exchange the word for one without it. push: load; if there is
//! none, exchange for one with the bucket and the next version. Whoever loses an exchange
//! tries the next cell.
//!
//! So inserting and counting the insertion, which the exact-failure argument of
//! [`crate::reserves`] needs, are one step. The version wraps after 2^32 insertions into *one*
//! cell, at 10 ns each 43 s; the sum would deceive a scan only if it were stopped for exactly
//! that many insertions, and then one allocation fails that need not have.
//!
//! # Memory ordering
//!
//! push is Release and pop Acquire: what the pusher did to the bucket happened before. pop is
//! Release too, and a scan that finds a cell empty has loaded it Acquire (also by losing an
//! exchange): a scanner that sees a cell emptied by a thread also sees what that thread inserted
//! before. push is SeqCst: it stands in for the fence between inserting and looking whether
//! somebody waits, see [`crate::attention`].
//!
//! # Progress
//!
//! pop and push look at each cell of a row at most once: wait-free, bounded by [`PLACES`].

use crate::sync::{AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use tierce_core::BucketIndex;

/// Cells of a row: 16 of 8 bytes are two cache lines, which processors fetch together.
pub(crate) const PLACES: usize = 16;

const BUCKET: u64 = u32::MAX as u64;
const ONE_VERSION: u64 = 1 << 32;

/// The cells of all CPUs for one reserve.
#[derive(Debug)]
pub(crate) struct Cells {
    rows: Box<[CachePadded<Row>]>,
    /// Cells of a row in use.
    per_row: usize,
}

#[derive(Debug)]
struct Row([AtomicU64; PLACES]);

fn bucket_in(word: u64) -> Option<BucketIndex> {
    let number = (word & BUCKET) as u32;
    number.checked_sub(1).map(BucketIndex::new)
}

impl Row {
    fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    #[inline]
    fn pop(&self, per_row: usize) -> Option<BucketIndex> {
        let order = if cfg!(tierce_mutant = "cell_pop_unreleased") {
            Ordering::Acquire
        } else if cfg!(tierce_mutant = "cell_pop_relaxed") {
            Ordering::Relaxed
        } else {
            // AcqRel: Acquire pairs with the Release in `push`; Release with the Acquire of
            // whoever finds the cell empty.
            Ordering::AcqRel
        };
        for cell in &self.0[..per_row.min(PLACES)] {
            let look = if cfg!(tierce_mutant = "cell_pop_relaxed") {
                Ordering::Relaxed
            } else {
                // Acquire: an empty cell may be what a pop left; pairs with its Release, see above.
                Ordering::Acquire
            };
            let word = cell.load(look);
            let Some(bucket) = bucket_in(word) else { continue };
            // Acquire (failure): as above, it may be empty now.
            let taken = cell.compare_exchange(word, word & !BUCKET, order, Ordering::Acquire);
            if taken.is_ok() {
                return Some(bucket);
            }
        }
        None
    }

    #[inline]
    fn push(&self, per_row: usize, bucket: BucketIndex) -> bool {
        let order = if cfg!(tierce_mutant = "cell_push_relaxed") {
            Ordering::Relaxed
        } else {
            // SeqCst: its Release publishes the bucket's word and data and pairs with the
            // Acquire in `pop`; for the rest see `attention.rs`.
            Ordering::SeqCst
        };
        let version = if cfg!(tierce_mutant = "insert_uncounted") { 0 } else { ONE_VERSION };
        for cell in &self.0[..per_row.min(PLACES)] {
            // Relaxed: the exchange decides.
            let word = cell.load(Ordering::Relaxed);
            if word & BUCKET != 0 {
                continue;
            }
            let next = word.wrapping_add(version) | u64::from(bucket.get() + 1);
            // Relaxed (failure): the next cell is tried.
            if cell.compare_exchange(word, next, order, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
        false
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
    #[inline]
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
    #[inline]
    pub(crate) fn push(&self, bucket: BucketIndex) -> bool {
        self.rows.get(self.own()).is_some_and(|row| row.push(self.per_row, bucket))
    }

    /// Puts `bucket` into any row; `false` if all are full.
    pub(crate) fn push_anywhere(&self, bucket: BucketIndex) -> bool {
        self.rows.iter().any(|row| row.push(self.per_row, bucket))
    }

    /// How many are filled, at no particular instant.
    pub(crate) fn len_hint(&self) -> usize {
        self.all().count()
    }

    /// The buckets in all rows, at no particular instant.
    pub(crate) fn list(&self) -> Vec<BucketIndex> {
        self.all().collect()
    }

    fn all(&self) -> impl Iterator<Item = BucketIndex> {
        // Relaxed: a statistic.
        self.cells().filter_map(|cell| bucket_in(cell.load(Ordering::Relaxed)))
    }

    /// How many insertions there were, cell by cell: a sum that stays the same only if none of
    /// its parts changes.
    pub(crate) fn inserts(&self) -> u64 {
        // Acquire: pairs with the Release in `push` and `pop`.
        self.cells().map(|cell| cell.load(Ordering::Acquire) >> 32).sum()
    }

    fn cells(&self) -> impl Iterator<Item = &AtomicU64> {
        self.rows.iter().flat_map(|row| row.0.iter().take(self.per_row))
    }

    #[inline]
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
    fn insertions_are_counted() {
        let cells = Cells::new(1, 2);
        let before = cells.inserts();
        for _ in 0..3 {
            assert!(cells.push(BucketIndex::new(7)));
            assert_eq!(cells.pop(), Some(BucketIndex::new(7)));
        }
        assert_eq!((cells.inserts() - before, cells.len_hint()), (3, 0));
        cells.rows[0].0[0].store(u64::MAX << 32, Ordering::Relaxed);
        assert!(cells.push(BucketIndex::new(0)), "the version wraps and leaves the bucket alone");
        assert_eq!(cells.pop(), Some(BucketIndex::new(0)));
    }

    #[test]
    fn no_cells_hold_nothing() {
        let cells = Cells::new(4, 0);
        assert_eq!(cells.capacity(), 0);
        assert!(!cells.push(BucketIndex::new(1)) && !cells.push_anywhere(BucketIndex::new(1)));
        assert!(cells.pop().is_none() && cells.steal().is_none());
    }
}
