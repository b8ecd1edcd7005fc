//! Which slots belong to a place, and the hand that goes over them.
//!
//! Three bits per slot of the set: whether it is one of this place's, and whether it was used in
//! this *round*, and in the one before. A slot that was used in neither is *idle*. So the hand
//! passes over any number of slots in a few instructions, without a branch for each and without
//! touching what other CPUs write.
//!
//! All of it is hints: of two threads that share a place one may undo what the other noted.

use crate::sync::Ordering;
use crate::sync::unmodelled::{AtomicU32, AtomicU64};
use crossbeam_utils::CachePadded;
use tierce_core::broken;

const BITS: usize = u64::BITS as usize;

/// 64 slots: the words of different places never share a line.
#[derive(Debug)]
struct Part {
    mine: AtomicU64,
    /// Used in this round …
    recent: AtomicU64,
    /// … and in the one before.
    before: AtomicU64,
}

impl Part {
    fn mine(&self) -> u64 {
        // Relaxed: a hint.
        self.mine.load(Ordering::Relaxed)
    }

    fn unused(&self) -> u64 {
        // Relaxed: a hint.
        self.mine() & !self.recent.load(Ordering::Relaxed)
    }

    fn idle(&self) -> u64 {
        if broken!("hand_ignores_use") {
            return self.mine();
        }
        // Relaxed: a hint.
        self.unused() & !self.before.load(Ordering::Relaxed)
    }
}

/// A place's slots.
#[derive(Debug)]
pub(super) struct Hand {
    parts: Box<[CachePadded<Part>]>,
    /// The slot that it comes to next.
    at: AtomicU32,
    /// How many slots it has.
    owned: AtomicU32,
}

impl Hand {
    /// Over none of `slots` slots yet.
    pub(super) fn new(slots: usize) -> Self {
        let none = || AtomicU64::new(0);
        let part = || Part { mine: none(), recent: none(), before: none() };
        Self {
            parts: (0..slots.div_ceil(BITS)).map(|_| CachePadded::new(part())).collect(),
            at: AtomicU32::new(0),
            owned: AtomicU32::new(0),
        }
    }

    /// How many slots it has.
    pub(super) fn owned(&self) -> usize {
        // Relaxed: a hint.
        self.owned.load(Ordering::Relaxed) as usize
    }

    /// Slot `at` belongs to this place now.
    pub(super) fn gain(&self, at: usize) {
        let bit = 1 << (at % BITS);
        // Relaxed (both): hints; by read-modify-write, as it is rare and should stay even.
        if self.parts[at / BITS].mine.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.owned.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It belongs to another one.
    pub(super) fn lose(&self, at: usize) {
        let bit = 1 << (at % BITS);
        // Relaxed (both): as in `gain`.
        if self.parts[at / BITS].mine.fetch_and(!bit, Ordering::Relaxed) & bit != 0 {
            self.owned.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Slot `at` was used here, whosever it is.
    #[inline]
    pub(super) fn used(&self, at: usize) {
        let (part, bit) = (&self.parts[at / BITS], 1 << (at % BITS));
        // Relaxed (all): hints. Stored in any case: nobody could predict whether it changes.
        let (recent, mine) = (&part.recent, part.mine.load(Ordering::Relaxed));
        recent.store(recent.load(Ordering::Relaxed) | bit & mine, Ordering::Relaxed);
    }

    /// A round is over.
    pub(super) fn end_round(&self) {
        for part in &self.parts {
            // Relaxed (all): hints.
            part.before.store(part.recent.load(Ordering::Relaxed), Ordering::Relaxed);
            part.recent.store(0, Ordering::Relaxed);
        }
    }

    /// The next of its slots that is idle.
    pub(super) fn next_idle(&self) -> Option<usize> {
        self.next_of(Part::idle)
    }

    /// The next of its slots that was not used in this round.
    pub(super) fn next_unused(&self) -> Option<usize> {
        self.next_of(Part::unused)
    }

    /// The next of its slots, if it has any.
    pub(super) fn next(&self) -> Option<usize> {
        self.next_of(Part::mine)
    }

    /// The next of those that `of` says, which then is behind the hand.
    fn next_of(&self, of: fn(&Part) -> u64) -> Option<usize> {
        // Relaxed (both): hints.
        let at = self.at.load(Ordering::Relaxed) as usize;
        let (mut number, mut first) = (at / BITS % self.parts.len(), at % BITS);
        for _ in 0..=self.parts.len() {
            let found = of(&self.parts[number]) & u64::MAX << first;
            if found != 0 {
                let at = number * BITS + found.trailing_zeros() as usize;
                self.at.store(at as u32 + 1, Ordering::Relaxed);
                return Some(at);
            }
            (number, first) = ((number + 1) % self.parts.len(), 0);
        }
        None
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    /// It comes to every slot of its own in turn.
    #[test]
    fn the_hand_goes_round() {
        let hand = Hand::new(200);
        assert_eq!((hand.next(), hand.next_idle()), (None, None), "it has none");
        let mine = [0, 5, 63, 64, 130, 199];
        mine.iter().for_each(|&at| hand.gain(at));
        assert_eq!(hand.owned(), 6);
        let round = || [(); 6].map(|()| hand.next().expect("it has six"));
        assert_eq!((round(), round()), (mine, mine));
        hand.lose(64);
        assert_eq!([(); 5].map(|()| hand.next_idle()), [0, 5, 63, 130, 199].map(Some));
    }

    /// What was used is not idle until two rounds are over.
    #[test]
    fn who_is_used_is_passed_over() {
        let hand = Hand::new(200);
        let mine = [0, 5, 63, 64, 130, 199];
        mine.iter().for_each(|&at| hand.gain(at));
        // 77 is another's.
        [5, 64, 130, 77].into_iter().for_each(|at| hand.used(at));
        assert_eq!([(); 4].map(|()| hand.next_idle()), [0, 63, 199, 0].map(Some));
        hand.end_round();
        assert_eq!([(); 3].map(|()| hand.next_idle()), [63, 199, 0].map(Some), "used before");
        mine.iter().for_each(|&at| {
            if at != 5 {
                hand.used(at)
            }
        });
        assert_eq!(hand.next_idle(), None, "all were used");
        assert_eq!([(); 2].map(|()| hand.next_unused()), [5, 5].map(Some), "not in this round");
        hand.used(5);
        assert_eq!((hand.next_unused(), hand.next()), (None, Some(63)), "all were");
        hand.end_round();
        hand.end_round();
        assert_eq!([(); 2].map(|()| hand.next_idle()), [64, 130].map(Some), "none for two rounds");
    }
}
