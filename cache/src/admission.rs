//! Which records are copied into memory at all, once it is full.
//!
//! # Problem
//!
//! A read of the device takes hardly longer for 16 KiB than for one. So a copy saves the more, for
//! the memory that it takes, the smaller it is. A policy that knows of uses alone fills memory with
//! a few large records, for which many small ones have to be read.
//!
//! # Protocol
//!
//! 1. A record of twice the *usual* size, or smaller, is copied. The usual size is the geometric
//!    mean of those that were offered lately, say a thousand: of records that differ by orders of
//!    magnitude it is that of the small ones, of similar ones it is that of all.
//! 2. A larger one is copied with a probability of twice the usual size / its own, whenever it is
//!    offered: at a read, at an insert. What is wanted often is copied soon; of what is wanted once
//!    few bytes are.
//!
//! Of records of one size all are copied. Nothing else is kept: no ghosts, no lists.
//!
//! # State
//!
//! One word: the usual size's binary logarithm, 16 bits of it behind the point; 0: nothing was
//! offered yet. Between powers of two it is interpolated. One offer in 16, by lot, moves it by a 64th
//! of the difference, so that CPUs do not fight for the word.
//!
//! # Memory ordering
//!
//! Relaxed: nothing is published with a guess, and changes that meet are both small.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use tierce_core::draws::Draws;

/// Binary digits behind the point.
const POINT: u32 = 16;

/// One offer in so many is looked at.
const SAMPLE: u32 = 16;

/// One part in so many of the difference is taken.
const STEP: i64 = 64;

/// What is larger than so many times the usual size is not always copied.
const ALWAYS: u64 = 2;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Admission {
    usual: AtomicU32,
}

/// The binary logarithm; of 0 as of 1.
fn logarithm(bytes: u32) -> u32 {
    let bytes = u64::from(bytes.max(1));
    let whole = bytes.ilog2();
    let part = ((bytes << POINT) >> whole) - (1 << POINT);
    (whole << POINT) + part as u32
}

/// Whose [`logarithm`] that is, or nearly.
const fn power(logarithm: u32) -> u64 {
    let part = (logarithm & ((1 << POINT) - 1)) as u64;
    (((1 << POINT) + part) << (logarithm >> POINT)) >> POINT
}

/// A number below `n`, by lot.
fn lot(n: u32) -> u32 {
    thread_local! {
        static DRAWS: RefCell<Draws> = const { RefCell::new(Draws::new(0)) };
    }
    DRAWS.with_borrow_mut(|draws| draws.below(n))
}

impl Admission {
    /// Whether a record of so many bytes that is offered is copied, although others give way to it.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // Relaxed: a guess.
        let usual = self.usual.load(Ordering::Relaxed);
        if usual == 0 || lot(SAMPLE) == 0 {
            self.learn(usual, logarithm(bytes));
        }
        let always = power(usual) * ALWAYS;
        usual == 0 || u64::from(bytes) <= always || u64::from(lot(bytes)) < always
    }

    #[cold]
    fn learn(&self, usual: u32, offered: u32) {
        let step = match usual {
            0 => i64::from(offered),
            _ => (i64::from(offered) - i64::from(usual)) / STEP,
        };
        // Relaxed: a guess. Wrapping is subtraction; two first offers that meet double it, which
        // those that follow undo.
        self.usual.fetch_add(step as u32, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_come_back() {
        for bytes in [1, 2, 3, 100, 2370, 4096, 65_535, 1 << 20, (1 << 30) + 1, u32::MAX] {
            let back = power(logarithm(bytes)) as f64 / f64::from(bytes);
            assert!((0.999..=1.0).contains(&back), "{bytes}: {back}");
        }
        assert_eq!((logarithm(1), logarithm(2), logarithm(1 << 20)), (0, 1 << 16, 20 << 16));
    }

    /// Of 10 000 offers each, how many are copied.
    fn admitted(admission: &Admission, sizes: &[usize]) -> Vec<usize> {
        let mut admitted = vec![0; sizes.len()];
        for _ in 0..10_000 {
            for (count, &bytes) in admitted.iter_mut().zip(sizes) {
                *count += usize::from(admission.admits(bytes));
            }
        }
        admitted
    }

    #[test]
    fn of_one_size_all_are_copied() {
        for bytes in [1, 700, 4096, 1 << 20] {
            assert_eq!(admitted(&Admission::default(), &[bytes]), [10_000], "{bytes}");
        }
        // Also if they differ by less than it takes to matter.
        assert_eq!(admitted(&Admission::default(), &[3000, 4000, 6000]), [10_000; 3]);
    }

    #[test]
    fn what_is_much_larger_than_usual_is_copied_for_its_bytes() {
        // The geometric mean of nine of 1024 and one of 65 536 is 1552.
        let sizes = [[1024; 9].as_slice(), &[65_536]].concat();
        let admitted = admitted(&Admission::default(), &sizes);
        assert!(admitted[..9].iter().all(|&count| count == 10_000));
        // 2 · 1552 / 65 536 of them, but for the first, when nothing else was known.
        assert!((350..700).contains(&admitted[9]), "{}", admitted[9]);
    }

    #[test]
    fn it_learns_anew() {
        let admission = Admission::default();
        admitted(&admission, &[100]);
        assert!(!(0..100).all(|_| admission.admits(100_000)));
        admitted(&admission, &[100_000]);
        assert_eq!(admitted(&admission, &[100_000]), [10_000]);
    }
}
