//! What one CPU knows of open buckets.

use super::hand::Hand;
use super::tables::{Ends, Points};
use crate::sync::Ordering;
use crate::sync::unmodelled::AtomicU64;

/// Searches come once in so many writes per slot …
const WRITES_PER_SLOT: u64 = 32;
/// … but so many may come at once.
const BURST: u64 = 16;
/// Who has used a slot in the last so many writes per slot is busy with it; a round of the hand
/// is as long.
pub(super) const BUSY_PER_SLOT: u64 = 8;

/// A CPU's place. All of it is hints.
#[derive(Debug)]
pub(super) struct Place {
    /// None of either if all slots are looked at anyway.
    pub(super) tables: Option<(Points, Ends)>,
    /// Counts the writes here, and never behind a slot used here.
    pub(super) tick: AtomicU64,
    /// The slots that belong to it.
    pub(super) hand: Hand,
    /// The tick from which on the next search is within the average.
    next_search: AtomicU64,
    /// The tick at which the round of the hand is over.
    round_end: AtomicU64,
    /// The tick until which no slot is taken to be idle.
    crowded_until: AtomicU64,
}

impl Place {
    pub(super) fn new(slots: usize, has_tables: bool) -> Self {
        Self {
            tables: has_tables.then(|| (Points::new(slots), Ends::new(slots))),
            tick: AtomicU64::new(0),
            hand: Hand::new(slots),
            next_search: AtomicU64::new(0),
            round_end: AtomicU64::new(0),
            crowded_until: AtomicU64::new(0),
        }
    }

    /// Whether the searches so far leave room for another, which then is counted.
    pub(super) fn may_search(&self, slots: usize) -> bool {
        let every = WRITES_PER_SLOT * slots as u64;
        // Relaxed (all): hints.
        let tick = self.tick.load(Ordering::Relaxed);
        let due = self.next_search.load(Ordering::Relaxed);
        let may = due <= tick + (BURST - 1) * every;
        if may {
            self.next_search.store(due.max(tick) + every, Ordering::Relaxed);
        }
        may
    }

    /// Whether more streams write here than there are slots.
    #[inline]
    pub(super) fn is_crowded(&self) -> bool {
        // Relaxed (both): hints.
        self.tick.load(Ordering::Relaxed) < self.crowded_until.load(Ordering::Relaxed)
    }

    /// No slot was found to be idle: none will be, before the round is over.
    pub(super) fn note_crowd(&self) {
        // Relaxed (both): hints.
        self.crowded_until.store(self.round_end.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Ends the round of the hand if it is time.
    pub(super) fn turn_round(&self) {
        // Relaxed (all): hints.
        let tick = self.tick.load(Ordering::Relaxed);
        if tick >= self.round_end.load(Ordering::Relaxed) {
            self.hand.end_round();
            let round = BUSY_PER_SLOT * self.hand.owned() as u64;
            self.round_end.store(tick + round, Ordering::Relaxed);
        }
    }
}
