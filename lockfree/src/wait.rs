//! Waiting for a free bucket: threads and futures in one line per reserve.
//!
//! # Problem
//!
//! When nothing is free an allocation sleeps until something is. No wake-up may be lost, one
//! bucket should wake one waiter and not a herd, and a waiter must not starve because running
//! threads snatch every bucket before he has woken up. Waking costs more than all the rest, so
//! whoever releases many buckets should not do it for each of them while others wait for him.
//!
//! # State
//!
//! One line (queue) per reserve under one lock, which nobody takes unless somebody waits, and the
//! bit [`WAITING`] of [`crate::attention`], set while a line is not empty.
//!
//! # Protocol
//!
//! 1. A waiter lines up and sets the bit; `fence(SeqCst)`; then *serves* (below).
//! 2. Whoever inserted a bucket looks at the bit, ordered as `attention.rs` explains, and serves if
//!    it is set.
//! 3. Serving, under the lock: for the first waiter of each line, pop a bucket on his behalf and
//!    hand it to him. A waiter wakes up holding his bucket: there is no retry loop, and a bucket
//!    on `none` wakes exactly one waiter of one line.
//! 4. Whoever took a bucket looks at the bit, too. If somebody is in line who could use the
//!    bucket it is his: the taker hands it over and looks for another ([`Waits::give_way`]).
//! 5. Whoever releases many hands them out in one pass over the lines, shows only what is left to
//!    everybody, and wakes last ([`Waits::hand_out`]): those who run find enough to go on, and
//!    need not line up again for one bucket each.
//! 6. Everybody is woken outside the lock.
//!
//! Fairness: a bucket that was taken by somebody who began when a waiter was in line goes to the
//! first in line, by 4. So no waiter is overtaken, except by the prio write, without which
//! nothing would become free. Lines take turns.
//!
//! # Memory ordering
//!
//! The waiter must not miss the bucket *and* the releaser the waiter: see `attention.rs`. All else
//! is under the lock.
//!
//! # Progress
//!
//! With nobody waiting: one load. Serving blocks on others who serve or line up, never on a
//! sleeper.

use crate::attention::{Attention, WAITING};
use crate::reserves::Free;
use crate::sync::{Arc, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::task::Waker;
use tierce_core::{BucketIndex, Reserve, broken};

/// What became of a waiter.
#[derive(Debug)]
enum Lot {
    /// In line; woken through this.
    Waiting(Waker),
    /// This bucket is his.
    Handed(Free),
    /// The lists were closed: the device failed or the set is shutting down.
    Closed,
    /// He has taken his bucket or left.
    Gone,
}

/// Somebody in line.
#[derive(Debug)]
pub(crate) struct Waiter {
    lot: Mutex<Lot>,
}

/// What a waiter finds when he looks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Not yet.
    Wait,
    /// This bucket.
    Bucket(Free),
    /// Nothing will come any more.
    Closed,
}

impl Waiter {
    /// Looks; if there is nothing yet, `waker` is called when there is.
    ///
    /// Wakers are cloned and dropped without the lock: with the last waker of a task goes the task,
    /// and whatever bucket it holds may be the one that this waiter is handed.
    pub(crate) fn poll(&self, waker: &Waker) -> Turn {
        let waker = waker.clone();
        let mut lot = self.lot.lock();
        match &mut *lot {
            Lot::Waiting(old) => {
                let old = core::mem::replace(old, waker);
                drop(lot);
                drop(old);
                Turn::Wait
            }
            Lot::Handed(bucket) => {
                let bucket = *bucket;
                *lot = Lot::Gone;
                Turn::Bucket(bucket)
            }
            Lot::Closed | Lot::Gone => Turn::Closed,
        }
    }

    /// Decides his lot; the result wakes him. Called once, by whoever took him out of his line:
    /// until then nobody else touches his lot but himself, and he only changes his waker.
    fn decide(&self, lot: Lot) -> Waker {
        match core::mem::replace(&mut *self.lot.lock(), lot) {
            Lot::Waiting(waker) => waker,
            other => unreachable!("a waiter in line was {other:?}"),
        }
    }
}

/// Those who have been decided upon and are still asleep. Dropping it wakes them, so it has to
/// outlive the lock.
#[derive(Debug, Default)]
#[must_use = "they sleep until it is dropped"]
pub(crate) struct Sleepers(Vec<Waker>);

impl Drop for Sleepers {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

/// Everybody who waits for a bucket of one device.
#[derive(Debug)]
pub(crate) struct Waits {
    lines: Mutex<Lines>,
    attention: Arc<Attention>,
}

#[derive(Debug, Default)]
struct Lines {
    by_reserve: [VecDeque<Arc<Waiter>>; Reserve::COUNT],
    /// Which line is served first next time.
    turn: usize,
    closed: bool,
}

impl Lines {
    /// All lines, each with its reserve, beginning with the one whose turn it is.
    fn in_turn(&self) -> impl Iterator<Item = Reserve> + use<> {
        let first = self.turn;
        (0..Reserve::COUNT).map(move |i| Reserve::ALL[(first + i) % Reserve::COUNT])
    }

    fn first_of(&self, reserve: Reserve) -> Option<&Arc<Waiter>> {
        self.by_reserve[reserve.as_usize()].front()
    }

    /// Hands `free` to the first in line for `reserve`, who is there.
    fn hand(&mut self, reserve: Reserve, free: Free, sleepers: &mut Sleepers) {
        let waiter = self.by_reserve[reserve.as_usize()].pop_front();
        let waiter = waiter.expect("the line is not empty, and nobody leaves it unlocked");
        self.turn = (reserve.as_usize() + 1) % Reserve::COUNT;
        sleepers.0.push(waiter.decide(Lot::Handed(free)));
    }

    /// The next line whose first waiter could use a bucket of the list `home`.
    fn next_for(&self, home: Reserve) -> Option<Reserve> {
        let fits = |&reserve: &Reserve| home == Reserve::None || reserve == home;
        self.in_turn().filter(fits).find(|&reserve| self.first_of(reserve).is_some())
    }

    fn len(&self) -> usize {
        self.by_reserve.iter().map(VecDeque::len).sum()
    }
}

impl Waits {
    /// Nobody.
    pub(crate) fn new(attention: Arc<Attention>) -> Self {
        Self { lines: Mutex::new(Lines::default()), attention }
    }

    /// Lines up for `reserve`. The caller calls [`serve`](Self::serve) next.
    pub(crate) fn line_up(&self, reserve: Reserve, waker: &Waker) -> Arc<Waiter> {
        let mut lines = self.lines.lock();
        if lines.closed {
            return Arc::new(Waiter { lot: Mutex::new(Lot::Closed) });
        }
        let waiter = Arc::new(Waiter { lot: Mutex::new(Lot::Waiting(waker.clone())) });
        lines.by_reserve[reserve.as_usize()].push_back(Arc::clone(&waiter));
        if broken!("wait_no_fence") {
            self.attention.raise(WAITING);
        } else {
            self.attention.set(WAITING);
        }
        waiter
    }

    /// Leaves the line. A bucket that was handed over meanwhile is returned.
    pub(crate) fn leave(&self, reserve: Reserve, waiter: &Arc<Waiter>) -> Option<Free> {
        let mut lines = self.lines.lock();
        lines.by_reserve[reserve.as_usize()].retain(|w| !Arc::ptr_eq(w, waiter));
        self.unlock(lines);
        let lot = core::mem::replace(&mut *waiter.lot.lock(), Lot::Gone);
        match lot {
            Lot::Handed(bucket) => Some(bucket),
            Lot::Waiting(_) | Lot::Closed | Lot::Gone => None,
        }
    }

    /// Pops buckets by `pop` for the first waiters of all lines until there are no more.
    pub(crate) fn serve(&self, pop: impl Fn(Reserve) -> Option<Free>) -> Sleepers {
        let mut sleepers = Sleepers::default();
        let mut lines = self.lines.lock();
        loop {
            let waited_for = |&reserve: &Reserve| lines.first_of(reserve).is_some();
            let next = lines.in_turn().filter(waited_for).find_map(|of| Some((of, pop(of)?)));
            let Some((reserve, free)) = next else { break };
            lines.hand(reserve, free, &mut sleepers);
        }
        self.unlock(lines);
        sleepers
    }

    /// Hands a bucket that nobody else sees to a waiter who can use it; `Err` if there is none.
    pub(crate) fn give_way(&self, free: Free) -> Result<Sleepers, Free> {
        let mut sleepers = Sleepers::default();
        let mut lines = self.lines.lock();
        let reserve = lines.next_for(free.home).ok_or(free)?;
        lines.hand(reserve, free, &mut sleepers);
        self.unlock(lines);
        Ok(sleepers)
    }

    /// Hands out buckets for anybody, in the order in which `next` gives them, until nobody waits
    /// or there are no more.
    pub(crate) fn hand_out(&self, mut next: impl FnMut() -> Option<BucketIndex>) -> Sleepers {
        let mut sleepers = Sleepers::default();
        let mut lines = self.lines.lock();
        while let Some(reserve) = lines.next_for(Reserve::None)
            && let Some(bucket) = next()
        {
            lines.hand(reserve, Free::none(bucket), &mut sleepers);
        }
        self.unlock(lines);
        sleepers
    }

    /// Nothing will come any more: everybody is told, now and in future.
    pub(crate) fn close(&self) {
        let mut sleepers = Sleepers::default();
        let mut lines = self.lines.lock();
        lines.closed = true;
        let waiters = lines.by_reserve.iter_mut().flat_map(|line| line.drain(..));
        sleepers.0.extend(waiters.map(|waiter| waiter.decide(Lot::Closed)));
        self.unlock(lines);
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        if self.attention.now() & WAITING == 0 { 0 } else { self.lines.lock().len() }
    }

    /// Whoever made a line shorter leaves by this.
    fn unlock(&self, lines: MutexGuard<'_, Lines>) {
        // Under the lock, so that nobody can have lined up since it was counted.
        if lines.len() == 0 {
            self.attention.clear(WAITING);
        }
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    fn bucket(number: u32) -> BucketIndex {
        BucketIndex::new(number)
    }

    fn turn(waiter: &Waiter) -> Turn {
        waiter.poll(Waker::noop())
    }

    /// Who took a bucket of a reserve owes it to nobody in another line.
    #[test]
    fn a_bucket_goes_to_who_can_use_it() {
        let waits = Waits::new(Arc::new(Attention::new(None)));
        let btree = waits.line_up(Reserve::Btree, Waker::noop());
        let prio = Free { bucket: bucket(1), home: Reserve::Prio };
        assert_eq!(waits.give_way(prio).map(drop), Err(prio));
        let own = Free { bucket: bucket(2), home: Reserve::Btree };
        assert_eq!(waits.give_way(own).map(drop), Ok(()));
        assert_eq!(turn(&btree), Turn::Bucket(own));
        assert_eq!((waits.len(), waits.attention.now()), (0, 0));
    }

    /// Lines take turns, each is served in order, and what is left stays with the releaser.
    #[test]
    fn many_are_handed_out_in_one_pass() {
        let waits = Waits::new(Arc::new(Attention::new(None)));
        let line_up = |reserve| waits.line_up(reserve, Waker::noop());
        let none = [line_up(Reserve::None), line_up(Reserve::None)];
        let btree = [line_up(Reserve::Btree), line_up(Reserve::Btree)];
        let mut buckets = 1..10;
        drop(waits.hand_out(|| buckets.next().map(bucket)));
        assert_eq!(buckets.next(), Some(5));
        let got = [&btree[0], &none[0], &btree[1], &none[1]].map(|waiter| turn(waiter));
        assert_eq!(got, [1, 2, 3, 4].map(|b| Turn::Bucket(Free::none(bucket(b)))));
    }
}
