//! Numbers that belong to one living thread at a time.
//!
//! # Problem
//!
//! What only one thread writes needs no read-modify-write: a count kept so costs a load and a
//! store. But threads end, and there may be more of them than places.
//!
//! # State
//!
//! [`Owners`]: one bit per number that is owned. A thread's number, in a thread-local that is one
//! load to read: below [`OWNERS`] it is the thread's own; [`NONE`] if it has none; [`UNKNOWN`]
//! before the first use.
//!
//! # Protocol
//!
//! 1. A thread that needs a number sets the lowest clear bit; if there is none it does without.
//! 2. When the thread ends it forgets its number, *then* clears the bit. What its other
//!    thread-local values do on their way out they do without a number.
//!
//! Invariant: at most one thread uses a number at a time, and its uses happened before those of
//! the next owner.
//!
//! # Memory ordering
//!
//! *taken*: clearing is Release, setting Acquire: the next owner of a number sees everything that
//! the last one stored under it, without any ordering of those stores themselves.
//!
//! # Progress
//!
//! Reading the number: wait-free. The first use in a thread: lock-free.

pub(crate) use crate::sync::OWNERS;
use crate::sync::{AtomicU64, Ordering, thread_local};
use core::cell::Cell;
use tierce_core::broken;

const _: () = assert!(OWNERS <= u64::BITS as usize);
/// The number of a thread that has none.
#[cfg(not(any(tierce_loom, tierce_shuttle)))]
const NONE: usize = usize::MAX - 1;

/// The number of a thread that has not asked yet.
const UNKNOWN: usize = usize::MAX;

/// Which numbers are owned.
#[derive(Debug)]
pub(crate) struct Owners {
    taken: AtomicU64,
}

#[cfg_attr(tierce_shuttle, expect(dead_code, reason = "no number is used twice there"))]
impl Owners {
    #[cfg(not(any(tierce_loom, tierce_shuttle)))]
    const fn new() -> Self {
        Self { taken: AtomicU64::new(0) }
    }

    #[cfg(any(tierce_loom, tierce_shuttle))]
    pub(crate) fn new() -> Self {
        Self { taken: AtomicU64::new(0) }
    }

    /// The lowest number that nobody owns.
    pub(crate) fn take(&self) -> Option<usize> {
        // Relaxed: the exchange decides.
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let lowest = taken.trailing_ones() as usize;
            if lowest >= OWNERS {
                return None;
            }
            let order = if broken!("owner_take_relaxed") {
                Ordering::Relaxed
            } else {
                // Acquire: pairs with the Release in `give_up`.
                Ordering::Acquire
            };
            // Relaxed (failure): only to try again.
            let next = taken | 1 << lowest;
            match self.taken.compare_exchange(taken, next, order, Ordering::Relaxed) {
                Ok(_) => return Some(lowest),
                Err(now) => taken = now,
            }
        }
    }

    /// The caller does not use `number` any more.
    pub(crate) fn give_up(&self, number: usize) {
        // Release: what was stored under the number is seen by its next owner.
        self.taken.fetch_and(!(1 << number), Ordering::Release);
    }
}

#[cfg(not(any(tierce_loom, tierce_shuttle)))]
mod numbers {
    use super::{Cell, NONE, Ordering, Owners, UNKNOWN, thread_local};
    use crate::sync::AtomicUsize;

    thread_local! {
        pub(super) static NUMBER: Cell<usize> = const { Cell::new(UNKNOWN) };
    }

    static OWNED: Owners = Owners::new();

    /// All numbers that were ever owned are below it.
    static USED: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn used() -> usize {
        // Relaxed: raised before a number is used, so whoever has been synchronised with such a
        // use sees it.
        USED.load(Ordering::Relaxed)
    }

    fn take() -> Option<Owned> {
        let number = OWNED.take()?;
        // Relaxed: as in `used`.
        USED.fetch_max(number + 1, Ordering::Relaxed);
        Some(Owned(number))
    }

    /// Gives up its number when the thread ends.
    struct Owned(usize);

    impl Drop for Owned {
        fn drop(&mut self) {
            NUMBER.set(NONE);
            OWNED.give_up(self.0);
        }
    }

    thread_local! {
        static OWNER: Option<Owned> = take();
    }

    /// The number of a thread that has not asked before.
    pub(super) fn draw() -> usize {
        // A thread that is being torn down cannot own anything any more.
        let owned = OWNER.try_with(|owner| owner.as_ref().map(|owned| owned.0));
        owned.ok().flatten().unwrap_or(NONE)
    }
}

/// Under the model checker numbers are not used twice: the protocol has a model of its own.
#[cfg(any(tierce_loom, tierce_shuttle))]
mod numbers {
    use super::{Cell, UNKNOWN, thread_local};

    thread_local! {
        pub(super) static NUMBER: Cell<usize> = Cell::new(UNKNOWN);
    }

    pub(super) fn draw() -> usize {
        crate::hint::place(usize::MAX)
    }

    pub(super) fn used() -> usize {
        super::OWNERS
    }
}

/// This thread's number if it is below [`OWNERS`]; else it has none, or has not asked yet for
/// [`number`].
#[inline]
pub(crate) fn known() -> usize {
    numbers::NUMBER.with(Cell::get)
}

/// This thread's number, below [`OWNERS`], if it has one: no other living thread has it.
#[inline]
pub(crate) fn number() -> Option<usize> {
    let known = known();
    let number = if known == UNKNOWN { first_use() } else { known };
    (number < OWNERS).then_some(number)
}

/// No thread has had a number that is not below this.
pub(crate) fn numbers_used() -> usize {
    numbers::used()
}

#[cold]
fn first_use() -> usize {
    let number = numbers::draw();
    numbers::NUMBER.with(|own| own.set(number));
    number
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_number_is_owned_again() {
        let owners = Owners::new();
        let all: Vec<_> = std::iter::from_fn(|| owners.take()).collect();
        assert!(all.iter().copied().eq(0..OWNERS));
        owners.give_up(40);
        owners.give_up(7);
        assert_eq!((owners.take(), owners.take(), owners.take()), (Some(7), Some(40), None));
    }

    #[test]
    fn a_thread_keeps_its_number() {
        std::thread::scope(|s| {
            let number = || (super::number(), super::number());
            let here = number();
            let there = s.spawn(number).join().expect("it did not panic");
            assert_eq!((here.0, there.0), (here.1, there.1));
            assert!(here.0.is_none() || here.0 != there.0);
        });
    }
}
