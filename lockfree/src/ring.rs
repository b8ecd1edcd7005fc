//! A bounded queue of buckets that waits for nobody.
//!
//! # Problem
//!
//! The free lists are shared by all CPUs and by threads of all priorities. In the usual array
//! queue a thread takes a number first and fills or empties its slot after that; stopped in
//! between, it holds up everybody who comes to that slot. A reclaimer of low priority would so
//! stop allocating threads of high priority for as long as they leave it no CPU.
//!
//! # State
//!
//! ```text
//!  63              32 31                      0
//! ┌──────────────────┬─────────────────────────┐
//! │       turn       │ 0, or bucket + 1        │   one slot
//! └──────────────────┴─────────────────────────┘
//! ```
//!
//! Item number i, counted from the first push, goes to slot i mod n in turn i div n. A slot with
//! turn t is empty until item t·n + slot comes, full until that item goes, and then has turn
//! t + 1. *tail* is the number of the next item to come, *head* that of the next to go; either
//! may be too low while whoever made the step has not said so yet.
//!
//! # Protocol
//!
//! push: read tail, look at its slot. Empty and in its turn: exchange it for full; then advance
//! tail. Full of the turn before: the queue is full. Otherwise somebody has filled the slot:
//! advance tail on his behalf and begin again.
//!
//! push of several: the same from slot to slot, and tail is advanced behind the last of them
//! only. Others who come meanwhile find the slots full behind tail, and advance it one by one.
//!
//! pop: read head, look at its slot. Full and in its turn: exchange it for empty of the next turn;
//! then advance head. Empty and in its turn: the queue is empty. Otherwise somebody has emptied
//! it: advance head on his behalf and begin again.
//!
//! # Invariants
//!
//! 1. Items come in order without gaps: tail passes i only when slot i has been filled, so who
//!    fills i + 1 comes after who filled i. Likewise they go in order.
//! 2. So if slot *head* is empty in its turn the queue is empty at that instant, and if slot
//!    *tail* is full of the turn before it holds n items.
//!    So does slot *i*, full of the turn before, if all from tail to i are filled.
//! 3. An item goes once: each exchange names turn and item.
//!
//! The turn wraps after 2^32 turns; a thread stopped for exactly as long could do its step in
//! the wrong turn. At 10 ns an operation and one slot that takes 43 s and a coincidence of 1 in
//! 2^32 besides; every free list has more slots than one where it matters.
//!
//! # Memory ordering
//!
//! *slot*: filling is Release and emptying Acquire: what the pusher did to the bucket happened
//! before. Emptying is Release, too, and whoever finds the slot in another turn acquired it.
//! *head*, *tail*: advancing is Release, reading Acquire. So who finds the queue empty has
//! synchronised with whoever took the last item, also if a third advanced head for him: the
//! exact-failure argument of [`crate::reserves`] needs that. A load of tail never counts fewer
//! insertions than the loading thread knows to have returned.
//!
//! # Progress
//!
//! Lock-free: a thread begins again only if another one's step, or the telling of it, succeeded.

use crate::sync::{AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use tierce_core::broken;

const ITEM: u64 = u32::MAX as u64;

/// How many a push of several may be: until it is over, hints take the queue for so much emptier.
const TOGETHER: usize = 64;

/// A bounded first-in first-out queue.
#[derive(Debug)]
pub(crate) struct Ring {
    slots: Box<[AtomicU64]>,
    head: CachePadded<AtomicU64>,
    tail: CachePadded<AtomicU64>,
}

/// How a slot's turn relates to the one in which it was looked for.
enum Look {
    /// Not come to it yet.
    Before,
    /// In its turn, without an item.
    Empty,
    /// In its turn, with this item.
    Full(u32),
    /// Past it.
    After,
}

impl Ring {
    /// Empty, for `capacity` items.
    pub(crate) fn new(capacity: usize) -> Self {
        assert!(capacity > 0);
        Self {
            slots: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
            head: CachePadded::new(AtomicU64::new(0)),
            tail: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// The slot of item number `at`, and its turn.
    fn slot(&self, at: u64) -> (&AtomicU64, u32) {
        let n = self.slots.len() as u64;
        (&self.slots[(at % n) as usize], (at / n) as u32)
    }

    fn look(word: u64, turn: u32) -> Look {
        let ahead = ((word >> 32) as u32).wrapping_sub(turn).cast_signed();
        match (ahead, (word & ITEM) as u32) {
            (0, 0) => Look::Empty,
            (0, item) => Look::Full(item - 1),
            (ahead, _) if ahead < 0 => Look::Before,
            _ => Look::After,
        }
    }

    /// Says that the step `at` was made.
    fn advance(counter: &AtomicU64, at: u64) {
        Self::advance_to(counter, at, at + 1);
    }

    /// Says that all steps from `now`, which the counter was, up to `at` were made, if nobody else
    /// has.
    fn advance_to(counter: &AtomicU64, mut now: u64, at: u64) {
        let order = if broken!("ring_advance_relaxed") {
            Ordering::Relaxed
        } else {
            // Release: who reads it has synchronised with who made the steps.
            Ordering::Release
        };
        while now < at {
            // Relaxed (failure): only to try again, unless somebody else has said it.
            match counter.compare_exchange(now, at, order, Ordering::Relaxed) {
                Ok(_) => break,
                Err(further) => now = further,
            }
        }
    }

    /// Appends `item`; `Err` with it if the queue is full.
    pub(crate) fn push(&self, item: u32) -> Result<(), u32> {
        loop {
            // Acquire: pairs with the Release in `advance`.
            let at = self.tail.load(Ordering::Acquire);
            let (slot, turn) = self.slot(at);
            // Acquire: who emptied it did so before.
            let word = slot.load(Ordering::Acquire);
            match Self::look(word, turn) {
                Look::Before => return Err(item),
                Look::Empty => {
                    if Self::fill(slot, word, turn, item) {
                        Self::advance(&self.tail, at);
                        return Ok(());
                    }
                }
                Look::Full(_) | Look::After => Self::help(&self.tail, at),
            }
        }
    }

    /// Appends as many of `items` as there is room for, up to [`TOGETHER`], and returns how many.
    /// Costs half of as many pushes.
    pub(crate) fn push_some(&self, items: impl Iterator<Item = u32>) -> usize {
        // Acquire: pairs with the Release in `advance`.
        let first = self.tail.load(Ordering::Acquire);
        let (mut at, mut pushed) = (first, 0);
        if broken!("ring_some_told_early") {
            Self::advance_to(&self.tail, first, first + 2);
        }
        for item in items.take(TOGETHER) {
            let Some(place) = self.fill_next(at, item) else { break };
            at = place + 1;
            pushed += 1;
        }
        Self::advance_to(&self.tail, first, at);
        pushed
    }

    /// Puts `item` into the first slot from number `at` on that is empty; all before it are filled.
    /// Returns the slot's number; nothing if the queue is full.
    fn fill_next(&self, mut at: u64, item: u32) -> Option<u64> {
        loop {
            let (slot, turn) = self.slot(at);
            // Acquire: who emptied it did so before; and whoever filled it, if it is not for us,
            // is told of by our advancing tail.
            let word = slot.load(Ordering::Acquire);
            match Self::look(word, turn) {
                Look::Before => return None,
                Look::Empty if Self::fill(slot, word, turn, item) => return Some(at),
                Look::Empty => {}
                Look::Full(_) | Look::After => at += 1,
            }
        }
    }

    /// Exchanges `word`, a slot empty in this turn, for one with `item`, unless somebody was
    /// faster.
    fn fill(slot: &AtomicU64, word: u64, turn: u32, item: u32) -> bool {
        let order = if broken!("ring_push_relaxed") {
            Ordering::Relaxed
        } else {
            // Release: publishes the bucket; pairs with the Acquire in `pop`.
            Ordering::Release
        };
        let full = u64::from(turn) << 32 | u64::from(item + 1);
        // Relaxed (failure): only to look again.
        slot.compare_exchange(word, full, order, Ordering::Relaxed).is_ok()
    }

    /// The oldest item.
    pub(crate) fn pop(&self) -> Option<u32> {
        loop {
            // Acquire: pairs with the Release in `advance`.
            let at = self.head.load(Ordering::Acquire);
            let (slot, turn) = self.slot(at);
            // Acquire: pairs with the Release in `push` and below.
            let word = slot.load(Ordering::Acquire);
            match Self::look(word, turn) {
                Look::Empty => return None,
                Look::Full(item) => {
                    let empty = u64::from(turn.wrapping_add(1)) << 32;
                    // AcqRel: Acquire as above; Release pairs with the Acquire of who finds it
                    // empty. Relaxed (failure): only to look again.
                    let order = (Ordering::AcqRel, Ordering::Relaxed);
                    if slot.compare_exchange(word, empty, order.0, order.1).is_ok() {
                        Self::advance(&self.head, at);
                        return Some(item);
                    }
                }
                Look::After => Self::help(&self.head, at),
                Look::Before => unreachable!("head is at {at}, behind it an item has not gone"),
            }
        }
    }

    /// Says on another thread's behalf that the step `at` was made.
    #[cold]
    fn help(counter: &AtomicU64, at: u64) {
        Self::advance(counter, at);
    }

    /// How many items were ever pushed; one that is being pushed right now may be missing.
    pub(crate) fn inserts(&self) -> u64 {
        // Acquire: pairs with the Release in `advance`.
        self.tail.load(Ordering::Acquire)
    }

    /// How many there are, at no particular instant.
    #[cfg(not(tierce_loom))] // the model of everything else has a queue of its own
    pub(crate) fn len(&self) -> usize {
        // Relaxed (both): a hint. Either may lag behind the other.
        let (head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        usize::try_from(tail.saturating_sub(head)).map_or(0, |len| len.min(self.capacity()))
    }

    /// How many fit.
    #[cfg(not(tierce_loom))] // the model of everything else has a queue of its own
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// All items, oldest first, at no particular instant.
    #[cfg(not(tierce_loom))] // the model of everything else has a queue of its own
    pub(crate) fn items(&self) -> Vec<u32> {
        // Relaxed (all): a look for tests and tools.
        let head = self.head.load(Ordering::Relaxed);
        let items = (head..head + self.slots.len() as u64).map_while(|at| {
            let (slot, turn) = self.slot(at);
            match Self::look(slot.load(Ordering::Relaxed), turn) {
                Look::Full(item) => Some(item),
                Look::Before | Look::Empty | Look::After => None,
            }
        });
        items.collect()
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn as_a_list_that_is_bounded() {
        for capacity in [1, 2, 3, 7, 64] {
            let (ring, mut list) = (Ring::new(capacity), VecDeque::new());
            let mut draws = tierce_core::draws::Draws::new(capacity as u64);
            for item in 0..20_000 {
                match draws.below(4) {
                    0 => {
                        let pushed = ring.push(item).is_ok();
                        assert_eq!(pushed, list.len() < capacity);
                        list.extend(pushed.then_some(item));
                    }
                    1 => {
                        let some = item..item + draws.below(100);
                        let room = (capacity - list.len()).min(TOGETHER).min(some.len());
                        assert_eq!(ring.push_some(some.clone()), room);
                        list.extend(some.take(room));
                    }
                    _ => assert_eq!(ring.pop(), list.pop_front()),
                }
                assert_eq!((ring.len(), ring.capacity()), (list.len(), capacity));
                assert!(ring.items().into_iter().eq(list.iter().copied()));
            }
        }
    }

    /// Who was stopped before he said what he did holds nobody up.
    #[test]
    fn a_stopped_thread_is_helped() {
        let ring = Ring::new(2);
        // Two pushers and, later, a popper who never came to advance.
        ring.slots[0].store(7 + 1, Ordering::Relaxed);
        assert_eq!((ring.push_some([8, 9].into_iter()), ring.push(9)), (1, Err(9)));
        ring.slots[0].store(1 << 32, Ordering::Relaxed);
        assert_eq!((ring.pop(), ring.pop()), (Some(8), None));
        assert_eq!((ring.inserts(), ring.push(10), ring.pop()), (2, Ok(()), Some(10)));
    }

    #[test]
    fn the_turn_wraps() {
        let ring = Ring::new(1);
        let last = u64::from(u32::MAX);
        ring.slots[0].store(last << 32, Ordering::Relaxed);
        ring.head.store(last, Ordering::Relaxed);
        ring.tail.store(last, Ordering::Relaxed);
        for item in 0..3 {
            assert_eq!((ring.push(item), ring.push(item)), (Ok(()), Err(item)));
            assert_eq!((ring.pop(), ring.pop()), (Some(item), None));
        }
    }

    /// Every item comes out once, and each pusher's in his order.
    #[test]
    fn many_threads_lose_nothing() {
        const EACH: u32 = 20_000;
        let ring = Ring::new(5);
        let outcome = std::thread::scope(|s| {
            for pusher in 0..3u32 {
                let ring = &ring;
                s.spawn(move || {
                    let mut n = 0;
                    while n < EACH {
                        // One of them pushes several at a time.
                        let some = n..EACH.min(n + if pusher == 0 { 7 } else { 1 });
                        let pushed = match pusher {
                            0 => ring.push_some(some),
                            _ => usize::from(ring.push(pusher << 24 | n).is_ok()),
                        };
                        n += pushed as u32;
                        if pushed == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let popper = || {
                let mut out = Vec::new();
                while out.len() < EACH as usize {
                    match ring.pop() {
                        Some(item) => out.push(item),
                        None => std::thread::yield_now(),
                    }
                }
                out
            };
            let poppers: Vec<_> = (0..3).map(|_| s.spawn(popper)).collect();
            poppers.into_iter().map(|popper| popper.join().unwrap()).collect::<Vec<_>>()
        });
        for out in &outcome {
            for pusher in 0..3 {
                assert!(out.iter().filter(|&item| item >> 24 == pusher).is_sorted());
            }
        }
        let mut all: Vec<_> = outcome.concat();
        all.sort_unstable();
        let pushed = (0..3).flat_map(|pusher| (0..EACH).map(move |n| pusher << 24 | n));
        assert!(all.into_iter().eq(pushed) && ring.pop().is_none());
    }
}
