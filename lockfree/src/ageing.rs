//! Ageing: buckets that are not read grow older as I/O goes by.
//!
//! # Problem
//!
//! Every I/O is counted in sectors. Each 1/1024 of the set's size of it, one *rescale* is
//! requested from the reclaimers: every bucket that is not pinned, not metadata and not oldest
//! already ages by one, and `min_prio` becomes the smallest result (unchanged if there is none).
//! A read hit makes a bucket fresh again. Nobody may wait for a rescale, or have the cache
//! lines of the table taken away by one.
//!
//! # State
//!
//! | field | what it is | who changes it |
//! |---|---|---|
//! | `clock` | the age epoch: how many rescales there were; with it a word's stamp is decoded (`tierce_core::age`) | who makes a rescale |
//! | `due` | rescales requested and not begun · 2 + 1 while one is being made | see the protocol |
//! | `min_prio` | the smallest prio that the last rescale left | who makes a rescale |
//! | `left`, `gathered` | sectors until the next request | whoever does I/O |
//!
//! Sectors are gathered per CPU hint and flushed at step / (4·CPUs), so that no line is written
//! by every CPU on every I/O. With one cell they are counted at once.
//!
//! # Protocol
//!
//! 1. Whoever counts I/O past the step requests a rescale and rings a reclaimer.
//! 2. A reclaimer takes a request if there is one and no rescale is being made: one CAS on `due`.
//!    If one is, he leaves the request to who makes it, who looks again in the same CAS that
//!    would end his turn: no request is stranded, no two rescales overlap, and nobody waits.
//! 3. The epoch goes on by one. From here on every bucket is one older. If several are due the
//!    maker takes up to 8 requests at once: the epoch goes on by their number, and step 4 is done
//!    once for all of them, which is as if they were made one after the other in no time.
//! 4. Each word is looked at (`rescale.rs`). Only pinned ones, which must not age, and very old
//!    ones, whose stamps must not come round, are written ([`AgeEpoch::rescale`]), each by a
//!    CAS that is repeated when the word has changed.
//! 5. `min_prio` is stored.
//!
//! # What holds when others are at work
//!
//! Let a rescale begin at its step 3. Others load the epoch when they have loaded the word, and
//! stamp the word with it by CAS.
//!
//! 1. A bucket that nobody uses or pins ages by exactly one per rescale, and stops at 0.
//! 2. A bucket that is pinned throughout a rescale does not age by it. If it is pinned or
//!    unpinned meanwhile, what counts is whether it is pinned when it is looked at. Between step
//!    3 and that look a pinned bucket seems one older than it is, and for whoever still
//!    holds the epoch before, one younger after it: a prio that is read meanwhile (by
//!    `snapshot`, by a prio write) is one step off for each rescale that is being made, no more.
//! 3. A hit counts from an instant within it: afterwards the bucket is as old as the number of
//!    rescales that began since that instant, so fresh if there was none. It never makes the
//!    bucket older: a stamp of an epoch that the hit has not seen yet counts as fresh. If
//!    another change of the word wins its one CAS, the hit is lost, as ever.
//! 4. The same holds of what invalidation and allocation make fresh. Both leave the bucket
//!    pinned, so if a rescale begins between their two accesses and has looked at the word
//!    before the second, the bucket is one step below fresh for as long as it is free (or as
//!    many as are made at once).
//! 5. No stamp is ahead of the epoch: the pinned ones' follow it, but stop at it.
//! 6. No stamp comes round. A hit's CAS only succeeds if the word is as it was loaded, before the
//!    epoch was; and a word that nobody else changes a rescale changes before it is 49152 epochs
//!    old (`tierce_core::age`). So the epoch that is stamped is not older than that, however long the hit slept.
//!
//! Prios are hints. Whatever they are, a bucket is reused only if its word allows it; marks, gens
//! and pins are never changed by a rescale. So it may run during a garbage collection, in place
//! or not, and during passes and prio writes.
//!
//! # Memory ordering
//!
//! *clock*: Relaxed. A load that comes late is one of a hit that came early. Stores are made by
//! one thread at a time, which has it from `due`. *due*: Acquire when a rescale is begun, Release
//! when it has ended: the next one, on whatever thread, sees the epoch and the words as this one
//! left them. *words*: Relaxed, each by itself; but a hit loads the word with Acquire, so that the
//! epoch is loaded after it (6). The others matter less: a thread that stops between the two for
//! thousands of rescales gives a bucket a wrong age once.
//!
//! # Progress
//!
//! Counting I/O, decoding, hits: wait-free. A rescale waits for nobody, and nobody for it: users
//! load `clock` and find every word free at any time; the most that can happen to them is that
//! one CAS meets the CAS on a pinned word, and is repeated.

use crate::hint;
use crate::sync::{Arc, AtomicI64, AtomicU32, AtomicU64, Ordering};
use crate::table::Table;
use crossbeam_utils::CachePadded;
use tierce_core::{AgeEpoch, Prio, broken};

/// The age epoch of a set, shared by the tables of its devices.
#[derive(Debug)]
pub(crate) struct AgeClock {
    /// Read on every hit, so nothing lies beside it that is written more often than this.
    epoch: CachePadded<AtomicU32>,
}

impl Default for AgeClock {
    fn default() -> Self {
        Self::at(AgeEpoch::FIRST)
    }
}

impl AgeClock {
    /// A clock that begins at `epoch`.
    pub(crate) fn at(epoch: AgeEpoch) -> Self {
        Self { epoch: CachePadded::new(AtomicU32::new(epoch.stamp().bits().into())) }
    }

    /// The age epoch.
    #[inline]
    pub(crate) fn now(&self) -> AgeEpoch {
        // Relaxed: see the top of the file.
        let bits = self.epoch.load(Ordering::Relaxed) as u16;
        AgeEpoch::from_bits(bits).unwrap_or(AgeEpoch::FIRST)
    }

    /// So many more rescales begin. Returns the new epoch. One thread at a time.
    pub(crate) fn advance(&self, steps: u16) -> AgeEpoch {
        let next = self.now().after(steps);
        // Relaxed: see the top of the file.
        self.epoch.store(next.stamp().bits().into(), Ordering::Relaxed);
        next
    }
}

/// A rescale is being made.
const MAKING: u64 = 1;
/// A rescale was requested.
const REQUEST: u64 = 2;
/// One look at all words serves several rescales. So they wait until something depends on them (a
/// pass, a prio write at the end), or until there are so many.
const WORTH_A_LOOK: u64 = 4;
/// So many rescales are made before their maker looks for something else to do. On a small device
/// who reads fast makes more of them due than the reclaimer can make.
pub(crate) const AT_ONCE: u32 = AgeEpoch::STEPS_MAX as u32;

/// The age of a set.
#[derive(Debug)]
pub(crate) struct Ageing {
    clock: Arc<AgeClock>,
    /// Sectors of I/O for one rescale.
    step: i64,
    gathered: Box<[CachePadded<AtomicI64>]>,
    flush_at: i64,
    /// Below 0 a rescale is due.
    left: CachePadded<AtomicI64>,
    due: AtomicU64,
    min_prio: AtomicU32,
}

impl Ageing {
    pub(crate) fn new(step: u64, cells: usize, clock: Arc<AgeClock>) -> Self {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let cells = cells.max(1);
        let flush_at = if cells == 1 { 0 } else { (step / (4 * cells as i64)).max(1) };
        Self {
            clock,
            step,
            gathered: (0..cells).map(|_| CachePadded::new(AtomicI64::new(0))).collect(),
            flush_at,
            left: CachePadded::new(AtomicI64::new(0)),
            due: AtomicU64::new(0),
            min_prio: AtomicU32::new(0),
        }
    }

    /// Counts I/O. `true` if a rescale became due and a reclaimer should be woken.
    pub(crate) fn account(&self, sectors: u64) -> bool {
        let sectors = i64::try_from(sectors).unwrap_or(i64::MAX);
        let cell = &self.gathered[hint::place(self.gathered.len())];
        // Relaxed (all in this function): counts, nothing is published with them.
        let mine = cell.fetch_add(sectors, Ordering::Relaxed).saturating_add(sectors);
        if mine < self.flush_at {
            return false;
        }
        let flushed = cell.swap(0, Ordering::Relaxed);
        if self.left.fetch_sub(flushed, Ordering::Relaxed) - flushed >= 0 {
            return false;
        }
        self.left.fetch_add(self.step, Ordering::Relaxed);
        self.due.fetch_add(REQUEST, Ordering::Relaxed);
        true
    }

    /// Makes the rescales that are due by now, [`AT_ONCE`] at most, unless somebody is making them:
    /// then he makes these too. Returns how many it made. If those are as many as it may, the
    /// caller comes again.
    pub(crate) fn rescale_due<'a>(&self, tables: impl Iterator<Item = &'a Table> + Clone) -> u32 {
        let (mut made, mut steps) = (0, self.begin());
        while steps > 0 {
            self.rescale(tables.clone(), steps);
            made += u32::from(steps);
            steps = self.again(AT_ONCE - made);
        }
        made
    }

    /// Whether so many are due that they are made even if nothing else is to be done.
    pub(crate) fn is_worth_a_look(&self) -> bool {
        // Relaxed: a hint; who requests one rings.
        self.due.load(Ordering::Relaxed) >= WORTH_A_LOOK * REQUEST
    }

    /// How many of the rescales that are `due` are made next, if `most` may be.
    fn steps(due: u64, most: u32) -> u16 {
        (due / REQUEST).min(most.into()) as u16
    }

    /// Takes requests, and the right to make rescales, if there is any and nobody makes any.
    /// Returns how many.
    fn begin(&self) -> u16 {
        let taken = |due: u64| {
            let alone = due & MAKING == 0 || broken!("rescales_overlap");
            let steps = if alone { Self::steps(due, AT_ONCE) } else { 0 };
            (steps > 0).then(|| (due - u64::from(steps) * REQUEST) | MAKING)
        };
        let order = if broken!("rescale_turn_relaxed") {
            Ordering::Relaxed
        } else {
            // Acquire: the last rescale has ended; pairs with the Release in `again`.
            Ordering::Acquire
        };
        // Relaxed (failure): nothing is begun.
        let before = self.due.fetch_update(order, Ordering::Relaxed, taken);
        before.map_or(0, |due| Self::steps(due, AT_ONCE))
    }

    /// Takes more requests, at most `most`, or ends the turn that `begin` began. Returns how many.
    fn again(&self, most: u32) -> u16 {
        let most = if broken!("rescale_request_stranded") { 0 } else { most };
        let next = |due: u64| match Self::steps(due, most) {
            0 => Some(due & !MAKING),
            steps => Some(due - u64::from(steps) * REQUEST),
        };
        // Release: who makes the next rescale sees what this one left; pairs with the Acquire in
        // `begin`. Relaxed (failure): only to try again.
        let before = self.due.fetch_update(Ordering::Release, Ordering::Relaxed, next);
        before.map_or(0, |due| Self::steps(due, most))
    }

    /// So many rescales of all devices at once.
    fn rescale<'a>(&self, mut tables: impl Iterator<Item = &'a Table> + Clone, steps: u16) {
        let epoch = self.clock.advance(steps);
        let min = tables.clone().filter_map(|table| table.rescale(epoch, steps)).min();
        let before = || tables.any(|table| table.aged_before(epoch, steps)).then_some(Prio::OLDEST);
        if let Some(min) = min.or_else(before) {
            // Relaxed: a hint.
            self.min_prio.store(min.get().into(), Ordering::Relaxed);
        }
    }

    /// Sectors left until the next rescale.
    pub(crate) fn left(&self) -> i64 {
        // Relaxed: a statistic.
        self.left.load(Ordering::Relaxed)
    }

    /// A tool brings the allocator into a state by hand.
    pub(crate) fn set(&self, left: Option<i64>, min_prio: Option<Prio>) {
        // Relaxed (both): hints.
        if let Some(left) = left {
            self.left.store(left, Ordering::Relaxed);
        }
        if let Some(min_prio) = min_prio {
            self.min_prio.store(min_prio.get().into(), Ordering::Relaxed);
        }
    }

    /// The smallest prio that the last rescale left.
    pub(crate) fn min_prio(&self) -> Prio {
        // Relaxed: a hint.
        Prio::new(self.min_prio.load(Ordering::Relaxed) as u16)
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    /// The counter starts at 0 and fires below it, once per call, as the sequential
    /// specification has it: step 4.
    #[test]
    fn fires_once_per_call_below_zero() {
        let ageing = Ageing::new(4, 1, Arc::default());
        let fired: Vec<bool> = [1, 3, 1, 100, 0].map(|sectors| ageing.account(sectors)).into();
        assert_eq!(fired, [true, false, true, true, true]);
        assert_eq!(ageing.rescale_due(core::iter::empty()), 4);
        assert_eq!(ageing.rescale_due(core::iter::empty()), 0);
    }

    /// Who reads faster than rescales are made does not keep the reclaimer from anything else.
    #[test]
    fn so_many_at_once_and_the_rest_later() {
        let ageing = Ageing::new(4, 1, Arc::default());
        assert!((0..2 * AT_ONCE + 1).all(|_| ageing.account(5)));
        let made = [(); 4].map(|()| ageing.rescale_due(core::iter::empty()));
        assert_eq!(made, [AT_ONCE, AT_ONCE, 1, 0]);
    }
}
