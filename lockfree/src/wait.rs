//! Waiting for a free bucket: threads and futures in one line per reserve.
//!
//! # Problem
//!
//! When nothing is free an allocation sleeps until something is. No wake-up may be lost, one
//! bucket should wake one waiter and not a herd, and a waiter must not starve because running
//! threads snatch every bucket before he has woken up.
//!
//! # State
//!
//! One line (queue) per reserve under one lock, which nobody takes unless somebody waits;
//! `registered`, how many wait in all; per line `lost`, how many buckets were offered to the
//! line and snatched by others. A waiter remembers `lost` as it was when he lined up.
//!
//! # Protocol
//!
//! 1. A waiter lines up and raises `registered`; `fence(SeqCst)`; then *serves* (below).
//! 2. Whoever made a bucket free does `fence(SeqCst)`, loads `registered`, and serves unless 0.
//! 3. Serving, under the lock: for the first waiter of each line, pop a bucket on his behalf and
//!    hand it to him. A waiter wakes up holding his bucket: there is no retry loop, and a bucket
//!    on `none` wakes exactly one waiter of one line. If there is none, `lost` is raised.
//! 4. A waiter who was passed over [`PATIENCE`] times is *due*: the next bucket for his line is
//!    handed to him without becoming visible to others ([`Waits::hand_over`]).
//!
//! # Memory ordering
//!
//! The two fences forbid that the waiter misses the bucket *and* the releaser misses the waiter:
//! of the two SeqCst fences one comes first; if the waiter's does, the releaser's load sees him
//! registered; if the releaser's does, the waiter's serving sees the bucket.
//!
//! # Progress
//!
//! With nobody waiting: one fence and one relaxed load. Serving blocks on others who serve or
//! line up, never on a sleeper.

use crate::reserves::Free;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, fence};
use std::collections::VecDeque;
use std::task::Waker;
use tierce_core::Reserve;

/// How often a waiter is passed over before a bucket is handed to him directly.
pub(crate) const PATIENCE: u64 = 4;

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
    lost_at_arrival: u64,
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
    pub(crate) fn poll(&self, waker: &Waker) -> Turn {
        let mut lot = self.lot.lock();
        match &*lot {
            Lot::Waiting(_) => {
                *lot = Lot::Waiting(waker.clone());
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

    /// Decides his lot and wakes him. Called once, by whoever took him out of his line: until
    /// then nobody else touches his lot but himself, and he only changes his waker.
    fn decide(&self, lot: Lot) {
        let before = core::mem::replace(&mut *self.lot.lock(), lot);
        match before {
            Lot::Waiting(waker) => waker.wake(),
            other => unreachable!("a waiter in line was {other:?}"),
        }
    }
}

#[derive(Debug, Default)]
struct Line {
    waiters: VecDeque<Arc<Waiter>>,
    lost: u64,
}

impl Line {
    fn is_due(&self) -> bool {
        self.waiters.front().is_some_and(|w| self.lost - w.lost_at_arrival >= PATIENCE)
    }

    /// Hands `bucket` to the first in line, if there is one.
    fn hand(&mut self, bucket: Free) -> Result<(), Free> {
        let waiter = self.waiters.pop_front().ok_or(bucket)?;
        waiter.decide(Lot::Handed(bucket));
        Ok(())
    }
}

/// Everybody who waits for a bucket of one device.
#[derive(Debug)]
pub(crate) struct Waits {
    lines: Mutex<Lines>,
    registered: AtomicUsize,
    due: AtomicUsize,
}

#[derive(Debug, Default)]
struct Lines {
    by_reserve: [Line; Reserve::COUNT],
    /// Which line is served first next time.
    turn: usize,
    closed: bool,
}

impl Waits {
    /// Nobody.
    pub(crate) fn new() -> Self {
        Self {
            lines: Mutex::new(Lines::default()),
            registered: AtomicUsize::new(0),
            due: AtomicUsize::new(0),
        }
    }

    /// Lines up for `reserve`. The caller calls [`serve`](Self::serve) next.
    pub(crate) fn line_up(&self, reserve: Reserve, waker: &Waker) -> Arc<Waiter> {
        let mut lines = self.lines.lock();
        let closed = lines.closed;
        let line = &mut lines.by_reserve[reserve.as_usize()];
        let lot = if closed { Lot::Closed } else { Lot::Waiting(waker.clone()) };
        let waiter = Arc::new(Waiter { lot: Mutex::new(lot), lost_at_arrival: line.lost });
        if !closed {
            line.waiters.push_back(Arc::clone(&waiter));
        }
        self.recount(&lines);
        drop(lines);
        if !cfg!(tierce_mutant = "wait_no_fence") {
            // SeqCst: of this fence and the one in `somebody_waits` one comes first, see above.
            fence(Ordering::SeqCst);
        }
        waiter
    }

    /// Leaves the line. A bucket that was handed over meanwhile is returned.
    pub(crate) fn leave(&self, reserve: Reserve, waiter: &Arc<Waiter>) -> Option<Free> {
        let mut lines = self.lines.lock();
        lines.by_reserve[reserve.as_usize()].waiters.retain(|w| !Arc::ptr_eq(w, waiter));
        self.recount(&lines);
        drop(lines);
        match core::mem::replace(&mut *waiter.lot.lock(), Lot::Gone) {
            Lot::Handed(bucket) => Some(bucket),
            Lot::Waiting(_) | Lot::Closed | Lot::Gone => None,
        }
    }

    /// Whether somebody may be waiting. Called after a bucket was made visible; if it says yes,
    /// [`serve`](Self::serve) follows.
    pub(crate) fn somebody_waits(&self) -> bool {
        if !cfg!(tierce_mutant = "wake_no_fence") {
            // SeqCst: pairs with the fence in `line_up`.
            fence(Ordering::SeqCst);
        }
        // Relaxed: ordered by the fence.
        self.registered.load(Ordering::Relaxed) != 0
    }

    /// Pops buckets by `pop` for the first waiters of all lines until there are no more.
    /// `offered` says to which list a bucket has just been added, if one was: lines that could
    /// have used it and find nothing were passed over.
    pub(crate) fn serve(&self, offered: Option<Reserve>, pop: impl Fn(Reserve) -> Option<Free>) {
        let mut lines = self.lines.lock();
        let first = lines.turn;
        lines.turn = (first + 1) % Reserve::COUNT;
        for i in 0..Reserve::COUNT {
            let reserve = Reserve::ALL[(first + i) % Reserve::COUNT];
            let line = &mut lines.by_reserve[reserve.as_usize()];
            let mut served = false;
            while !line.waiters.is_empty() {
                let Some(bucket) = pop(reserve) else {
                    let fits = offered == Some(Reserve::None) || offered == Some(reserve);
                    line.lost += u64::from(fits && !served);
                    break;
                };
                served = true;
                line.hand(bucket).expect("the line is not empty, and nobody leaves it unlocked");
            }
        }
        self.recount(&lines);
    }

    /// Hands a bucket that is not visible to anybody yet to a waiter who is due and could use the
    /// list that it is meant for.
    pub(crate) fn hand_over(&self, free: Free) -> Result<(), Free> {
        // Relaxed: a waiter who becomes due just now is seen by the next bucket.
        if self.due.load(Ordering::Relaxed) == 0 {
            return Err(free);
        }
        let mut lines = self.lines.lock();
        let mut result = Err(free);
        for (line, of) in lines.by_reserve.iter_mut().zip(Reserve::ALL) {
            if line.is_due() && (free.home == Reserve::None || of == free.home) {
                result = line.hand(free);
                break;
            }
        }
        self.recount(&lines);
        result
    }

    /// Nothing will come any more: everybody is told, now and in future.
    pub(crate) fn close(&self) {
        let mut lines = self.lines.lock();
        lines.closed = true;
        for line in &mut lines.by_reserve {
            for waiter in line.waiters.drain(..) {
                waiter.decide(Lot::Closed);
            }
        }
        self.recount(&lines);
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        // Relaxed: a statistic.
        self.registered.load(Ordering::Relaxed)
    }

    fn recount(&self, lines: &Lines) {
        let registered = lines.by_reserve.iter().map(|line| line.waiters.len()).sum();
        let due = lines.by_reserve.iter().filter(|line| line.is_due()).count();
        // Relaxed: `registered` is ordered by the fences, `due` is a hint; written under the
        // lock only, so a plain store loses nothing.
        self.registered.store(registered, Ordering::Relaxed);
        self.due.store(due, Ordering::Relaxed);
    }
}
