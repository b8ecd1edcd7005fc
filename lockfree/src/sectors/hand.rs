//! Which slots belong to a place, and the clock hand that goes over them.
//!
//! Two bits per slot of the set: whether it is one of this place's, and whether it was used since
//! the hand came by. So the hand passes over any number of slots in a few instructions, without
//! a branch for each and without touching what other CPUs write.
//!
//! All of it is hints: of two threads that share a place one may undo what the other noted.

use crate::sync::Ordering;
use crate::sync::unmodelled::{AtomicU32, AtomicU64};
use crossbeam_utils::CachePadded;

const BITS: usize = u64::BITS as usize;

/// 64 slots: the words of different places never share a line.
#[derive(Debug)]
struct Part {
    mine: AtomicU64,
    recent: AtomicU64,
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
        let none = || Part { mine: AtomicU64::new(0), recent: AtomicU64::new(0) };
        Self {
            parts: (0..slots.div_ceil(BITS)).map(|_| CachePadded::new(none())).collect(),
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
        // Relaxed (both): hints; by read-modify-write, as it is rare and should stay even.
        self.parts[at / BITS].mine.fetch_or(1 << (at % BITS), Ordering::Relaxed);
        self.owned.fetch_add(1, Ordering::Relaxed);
    }

    /// It belongs to another one.
    pub(super) fn lose(&self, at: usize) {
        // Relaxed (both): as in `gain`.
        self.parts[at / BITS].mine.fetch_and(!(1 << (at % BITS)), Ordering::Relaxed);
        self.owned.fetch_sub(1, Ordering::Relaxed);
    }

    /// Slot `at` was used here, whosever it is.
    #[inline]
    pub(super) fn used(&self, at: usize) {
        let (part, bit) = (&self.parts[at / BITS], 1 << (at % BITS));
        // Relaxed (all): hints. Stored in any case: nobody could predict whether it changes.
        let (recent, mine) = (&part.recent, part.mine.load(Ordering::Relaxed));
        recent.store(recent.load(Ordering::Relaxed) | bit & mine, Ordering::Relaxed);
    }

    /// The next of its slots that was not used since the hand came by last, if it has any: having
    /// gone round once it finds one.
    pub(super) fn advance(&self) -> Option<usize> {
        // Relaxed (all): hints.
        let at = self.at.load(Ordering::Relaxed) as usize;
        let (mut number, mut first) = (at / BITS % self.parts.len(), at % BITS);
        for _ in 0..=2 * self.parts.len() {
            let part = &self.parts[number];
            let ahead = part.mine.load(Ordering::Relaxed) & u64::MAX << first;
            let recent = part.recent.load(Ordering::Relaxed);
            let ignores = cfg!(tierce_mutant = "hand_ignores_use");
            let found = if ignores { ahead } else { ahead & !recent };
            let below = (found & found.wrapping_neg()).wrapping_sub(1);
            part.recent.store(recent & !(ahead & below), Ordering::Relaxed);
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

    /// It comes to every slot of its own in turn, and to none that was used meanwhile until it
    /// has come round.
    #[test]
    fn the_hand_goes_round() {
        let hand = Hand::new(200);
        assert_eq!(hand.advance(), None, "it has none");
        let mine = [0, 5, 63, 64, 130, 199];
        mine.iter().for_each(|&at| hand.gain(at));
        assert_eq!(hand.owned(), 6);
        let round = || [(); 6].map(|()| hand.advance().expect("it has some"));
        assert_eq!((round(), round()), (mine, mine));
        // 77 is another's.
        for at in [5, 64, 130, 77] {
            hand.used(at);
        }
        assert_eq!([(); 4].map(|()| hand.advance()), [0, 63, 199, 0].map(Some));
        assert_eq!(hand.advance(), Some(5), "not used since it came by");
        mine.iter().for_each(|&at| hand.used(at));
        assert_eq!(hand.advance(), Some(63), "all were: the first that it passed");
        hand.lose(64);
        assert_eq!(hand.advance(), Some(130), "no longer its own");
    }
}
