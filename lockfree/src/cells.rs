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
//! pop: load; if there is a bucket, replace the word by one without it. push: load; if there is
//! none, replace it by one with the bucket and the next version. *Replacing* is an exchange of the
//! whole word, or a store that [`crate::section`] makes as good as one: [`crate::near`] says when
//! it is which. Whoever fails to replace a cell of his own row tries the next cell; whoever wants
//! one of any row tries until the word is another one.
//!
//! So inserting and counting the insertion, which the exact-failure argument of
//! [`crate::reserves`] needs, are one step. The version wraps after 2^32 insertions into *one*
//! cell, at 3 ns each 13 s; the sum would deceive a scan only if it were stopped for exactly
//! that many insertions, and then one allocation fails that need not have.
//!
//! # Memory ordering
//!
//! push is Release and pop Acquire: what the pusher did to the bucket happened before. pop is
//! Release too, and a scan that finds a cell empty has loaded it Acquire (also by losing an
//! exchange): a scanner that sees a cell emptied by a thread also sees what that thread inserted
//! before. A push by an exchange is SeqCst: it stands in for the fence between inserting and looking
//! whether somebody waits; one by a store needs none, see [`crate::attention`]. Stores do not carry on
//! the release sequences of others; each follows an Acquire load of what it overwrites, so whoever
//! sees it sees what was released there before.
//!
//! # Progress
//!
//! pop and push look at each cell of the thread's row at most once: wait-free, bounded by
//! [`PLACES`]. `pop_anywhere` and `push_anywhere` try a cell again only if its word has changed to
//! no avail, the thread was interrupted, or the mode changed: lock-free. After [`PATIENCE`] such
//! attempts on one cell it is changed as a visitor, whom nothing interrupts.

use crate::attention::Attention;
use crate::hint;
use crate::near::{MODES, NEAR, Near, SHARED};
use crate::section::Section;
use crate::sync::unmodelled::AtomicU64 as Hint;
use crate::sync::{Arc, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use tierce_core::{BucketIndex, broken};

/// Cells of a row: 16 of 8 bytes are two cache lines, which processors fetch together.
pub(crate) const PLACES: usize = 16;

const BUCKET: u64 = u32::MAX as u64;
const ONE_VERSION: u64 = 1 << 32;

/// Attempts by sections at one cell. More than a few fail only where every instruction is
/// interrupted, as in a debugger.
const PATIENCE: u32 = 16;

/// The cells of all CPUs for one reserve.
#[derive(Debug)]
pub(crate) struct Cells {
    rows: Box<[CachePadded<Row>]>,
    /// Per row: how often it was used while the cells were shared. None if they always are.
    uses: Box<[CachePadded<Hint>]>,
    /// Cells of a row in use.
    per_row: usize,
    attention: Arc<Attention>,
}

#[derive(Debug)]
struct Row([AtomicU64; PLACES]);

/// What became of a bucket that was to be put into a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Pushed {
    /// There is no room, or none for now.
    Not,
    /// It was exchanged: the pusher has to look whether somebody waits.
    Shared,
    /// It was stored: nobody waits who does not find it, see [`crate::near`].
    Near,
}

impl Pushed {
    /// Whether it is there.
    #[inline]
    pub(crate) fn is_done(self) -> bool {
        self != Self::Not
    }
}

/// One attempt to replace `old` in a cell by `new`.
trait Replace {
    /// What a push comes to.
    const PUSHED: Pushed;

    fn replace(&self, cell: &AtomicU64, old: u64, new: u64, order: Ordering) -> bool;
}

/// By a store (Release), while the cells are near and the thread runs on this CPU.
struct Stores<'a> {
    section: Section,
    modes: &'a AtomicU64,
    cpu: usize,
}

impl Replace for Stores<'_> {
    const PUSHED: Pushed = Pushed::Near;

    #[inline(always)]
    fn replace(&self, cell: &AtomicU64, old: u64, new: u64, _order: Ordering) -> bool {
        self.section.store(self.modes, in_mode(NEAR), self.cpu, cell, old, new)
    }
}

/// By an exchange: while the cells are shared (SeqCst), if there are sections; else always.
struct Exchanges<'a>(Option<(Section, &'a AtomicU64)>);

impl Replace for Exchanges<'_> {
    const PUSHED: Pushed = Pushed::Shared;

    #[inline]
    fn replace(&self, cell: &AtomicU64, old: u64, new: u64, order: Ordering) -> bool {
        match self.0 {
            Some((section, modes)) => section.exchange(modes, in_mode(SHARED), cell, old, new),
            // Acquire (failure): a cell that is empty now may be what a pop left.
            None => cell.compare_exchange(old, new, order, Ordering::Acquire).is_ok(),
        }
    }
}

/// What a section tests for.
#[inline]
fn in_mode(mode: u64) -> u64 {
    if broken!("section_any_mode") { MODES } else { mode }
}

#[inline]
fn bucket_in(word: u64) -> Option<BucketIndex> {
    let number = (word & BUCKET) as u32;
    number.checked_sub(1).map(BucketIndex::new)
}

/// The ordering of a pop by an exchange.
#[inline]
fn pop_order() -> Ordering {
    if broken!("cell_pop_unreleased") {
        Ordering::Acquire
    } else if broken!("cell_pop_relaxed") {
        Ordering::Relaxed
    } else {
        // AcqRel: Acquire pairs with the Release of a push; Release with the Acquire of
        // whoever finds the cell empty.
        Ordering::AcqRel
    }
}

/// The ordering of a push by an exchange.
#[inline]
fn push_order() -> Ordering {
    if broken!("cell_push_relaxed") {
        Ordering::Relaxed
    } else {
        // SeqCst: its Release publishes the bucket's word and data and pairs with the
        // Acquire of a pop; for the rest see `attention.rs`.
        Ordering::SeqCst
    }
}

/// A cell's word for a pop: an empty cell may be what another pop left.
#[inline]
fn look(cell: &AtomicU64) -> u64 {
    if broken!("cell_pop_relaxed") {
        // Relaxed: the deliberate break.
        return cell.load(Ordering::Relaxed);
    }
    // Acquire: pairs with the Release of whoever pushed into it, or popped from it.
    cell.load(Ordering::Acquire)
}

/// The word of a cell after `bucket` was pushed into it when it was `empty`.
#[inline]
fn filled(empty: u64, bucket: BucketIndex) -> u64 {
    let version = if broken!("insert_uncounted") { 0 } else { ONE_VERSION };
    empty.wrapping_add(version) | u64::from(bucket.get() + 1)
}

impl Cells {
    /// `rows` rows of `per_row` cells; none at all if `per_row` is 0.
    pub(crate) fn new(rows: usize, per_row: usize, attention: Arc<Attention>) -> Self {
        assert!(per_row <= PLACES);
        let rows = if per_row == 0 { 0 } else { rows };
        let row = || CachePadded::new(Row(core::array::from_fn(|_| AtomicU64::new(0))));
        let counted = if attention.near().is_some() { rows } else { 0 };
        Self {
            rows: (0..rows).map(|_| row()).collect(),
            uses: (0..counted).map(|_| CachePadded::default()).collect(),
            per_row,
            attention,
        }
    }

    /// How many buckets fit.
    pub(crate) fn capacity(&self) -> usize {
        self.rows.len() * self.per_row
    }

    /// How many cells a row has.
    pub(crate) fn per_row(&self) -> usize {
        self.per_row
    }

    /// A bucket from this CPU's row, if the cells are near: the section tests that.
    #[inline]
    pub(crate) fn pop_near(&self) -> Option<BucketIndex> {
        let (row, stores) = self.row_to_store(self.attention.near()?)?;
        self.pop_from(row, stores)
    }

    /// A bucket from this thread's row.
    #[inline]
    pub(crate) fn pop(&self) -> Option<BucketIndex> {
        match self.near_row() {
            Some((row, stores)) => self.pop_from(row, stores),
            None => self.pop_shared(),
        }
    }

    /// Puts `bucket` into this thread's row.
    #[inline]
    pub(crate) fn push(&self, bucket: BucketIndex) -> Pushed {
        match self.near_row() {
            Some((row, stores)) => self.push_to(row, bucket, stores),
            None => self.push_shared(bucket),
        }
    }

    /// As [`pop`](Self::pop), unless cells are near.
    #[inline(never)]
    fn pop_shared(&self) -> Option<BucketIndex> {
        let (row, exchanges) = self.shared_row()?;
        self.pop_from(row, exchanges)
    }

    /// As [`push`](Self::push), unless cells are near.
    #[inline(never)]
    fn push_shared(&self, bucket: BucketIndex) -> Pushed {
        let Some((row, exchanges)) = self.shared_row() else { return Pushed::Not };
        self.push_to(row, bucket, exchanges)
    }

    #[inline(always)]
    fn pop_from(&self, row: &Row, by: impl Replace) -> Option<BucketIndex> {
        for cell in self.cells_of(row) {
            let word = look(cell);
            let Some(bucket) = bucket_in(word) else { continue };
            if by.replace(cell, word, word & !BUCKET, pop_order()) {
                return Some(bucket);
            }
        }
        None
    }

    #[inline(always)]
    fn push_to<R: Replace>(&self, row: &Row, bucket: BucketIndex, by: R) -> Pushed {
        for cell in self.cells_of(row) {
            // Acquire: what a store overwrites is seen by who sees the store.
            let word = cell.load(Ordering::Acquire);
            if word & BUCKET == 0 && by.replace(cell, word, filled(word, bucket), push_order()) {
                return R::PUSHED;
            }
        }
        Pushed::Not
    }

    /// A bucket from any row, this thread's and the next ones first.
    pub(crate) fn pop_anywhere(&self) -> Option<BucketIndex> {
        let (before, after) = self.rows.split_at(self.place());
        let mut cells = after.iter().chain(before).flat_map(|row| self.cells_of(row));
        cells.find_map(|cell| {
            let mut word = look(cell);
            loop {
                let bucket = bucket_in(word)?;
                match self.replace_anywhere(cell, word, word & !BUCKET, pop_order()) {
                    Ok(()) => return Some(bucket),
                    Err(now) => word = now,
                }
            }
        })
    }

    /// As [`pop_anywhere`](Self::pop_anywhere), one attempt per cell, without sections.
    #[cfg(any(tierce_loom, all(test, not(tierce_shuttle))))]
    pub(crate) fn pop_as_visitor(&self) -> Option<BucketIndex> {
        self.cells().find_map(|cell| {
            let word = look(cell);
            let bucket = bucket_in(word)?;
            // Acquire (failure): as in `replace`.
            let pop = || {
                cell.compare_exchange(word, word & !BUCKET, pop_order(), Ordering::Acquire).is_ok()
            };
            self.attention.visited(pop).then_some(bucket)
        })
    }

    /// Puts `bucket` into any row; `false` if all are full.
    pub(crate) fn push_anywhere(&self, bucket: BucketIndex) -> bool {
        self.cells().any(|cell| {
            // Acquire: as in `push`.
            let mut word = cell.load(Ordering::Acquire);
            while word & BUCKET == 0 {
                match self.replace_anywhere(cell, word, filled(word, bucket), push_order()) {
                    Ok(()) => return true,
                    Err(now) => word = now,
                }
            }
            false
        })
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
        // Acquire: pairs with the Release of pushes and pops.
        self.cells().map(|cell| cell.load(Ordering::Acquire) >> 32).sum()
    }

    fn cells(&self) -> impl Iterator<Item = &AtomicU64> {
        self.rows.iter().flat_map(|row| self.cells_of(row))
    }

    #[inline]
    fn cells_of<'a>(&self, row: &'a Row) -> &'a [AtomicU64] {
        &row.0[..self.per_row.min(PLACES)]
    }

    /// The number of this thread's row.
    #[inline]
    fn place(&self) -> usize {
        if self.rows.is_empty() { 0 } else { hint::place(self.rows.len()) }
    }

    /// This CPU's row, if cells are near.
    #[inline]
    fn near_row(&self) -> Option<(&Row, Stores<'_>)> {
        let near = self.attention.near()?;
        if self.attention.mode() == NEAR { self.row_to_store(near) } else { None }
    }

    /// This CPU's row, and how to change it while cells are near.
    #[inline]
    fn row_to_store(&self, near: &Near) -> Option<(&Row, Stores<'_>)> {
        let cpu = near.section.cpu();
        let row = if broken!("near_foreign_row") { 0 } else { cpu };
        let modes = self.attention.word();
        Some((self.rows.get(row)?, Stores { section: near.section, modes, cpu }))
    }

    /// This thread's row, unless cells are near. None while that changes, or if there is no row.
    #[inline]
    fn shared_row(&self) -> Option<(&Row, Exchanges<'_>)> {
        let (place, row) = (self.place(), self.rows.get(self.place())?);
        let Some(near) = self.attention.near() else { return Some((row, Exchanges(None))) };
        if self.attention.mode() != SHARED || !near.section.is_registered() {
            return None;
        }
        if near.is_used(self.uses.get(place)?) && !cfg!(any(tierce_loom, tierce_shuttle)) {
            self.attention.open();
        }
        Some((row, Exchanges(Some((near.section, self.attention.word())))))
    }

    /// Replaces `old` in any cell by `new`; `Err` with what it holds if that is something else.
    #[cold]
    fn replace_anywhere(
        &self,
        cell: &AtomicU64,
        old: u64,
        new: u64,
        order: Ordering,
    ) -> Result<(), u64> {
        // Acquire (failure): as in `replace`.
        let exchange = || cell.compare_exchange(old, new, order, Ordering::Acquire).map(drop);
        let Some(near) = self.attention.near() else { return exchange() };
        let exchanges = Exchanges(Some((near.section, self.attention.word())));
        let attempts = if near.section.is_registered() { PATIENCE } else { 0 };
        for _ in 0..attempts {
            self.attention.share();
            if exchanges.replace(cell, old, new, order) {
                return Ok(());
            }
            let now = look(cell);
            if now != old {
                return Err(now);
            }
        }
        self.attention.visited(exchange)
    }
}

#[cfg(all(test, target_os = "linux", not(any(miri, tierce_loom, tierce_shuttle))))]
mod near_tests;

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    /// Cells that are changed by exchanges only.
    fn cells(rows: usize, per_row: usize) -> Cells {
        Cells::new(rows, per_row, Arc::new(Attention::new(None)))
    }

    #[test]
    fn what_goes_in_comes_out_once() {
        let cells = cells(2, 3);
        for b in 0..6 {
            assert!(cells.push_anywhere(BucketIndex::new(b)));
        }
        assert!(!cells.push_anywhere(BucketIndex::new(6)));
        assert_eq!(cells.len_hint(), 6);
        let mut out: Vec<u32> = std::iter::from_fn(|| cells.pop().or_else(|| cells.pop_anywhere()))
            .map(|b| b.get())
            .collect();
        out.sort_unstable();
        assert_eq!(out, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn insertions_are_counted() {
        let cells = cells(1, 2);
        let before = cells.inserts();
        for _ in 0..3 {
            assert_eq!(cells.push(BucketIndex::new(7)), Pushed::Shared);
            assert_eq!(cells.pop(), Some(BucketIndex::new(7)));
        }
        assert_eq!((cells.inserts() - before, cells.len_hint()), (3, 0));
        cells.rows[0].0[0].store(u64::MAX << 32, Ordering::Relaxed);
        assert!(
            cells.push(BucketIndex::new(0)).is_done(),
            "the version wraps and leaves the bucket alone"
        );
        assert_eq!(cells.pop(), Some(BucketIndex::new(0)));
    }

    #[test]
    fn no_cells_hold_nothing() {
        let cells = cells(4, 0);
        assert_eq!(cells.capacity(), 0);
        assert!(
            !cells.push(BucketIndex::new(1)).is_done() && !cells.push_anywhere(BucketIndex::new(1))
        );
        assert!(cells.pop().is_none() && cells.pop_anywhere().is_none());
    }
}
