//! How a background thread sleeps until there is something to do.
//!
//! # State
//!
//! One word: QUIET (awake, or about to look), RUNG (somebody rang since the last look), ASLEEP.
//!
//! # Protocol
//!
//! * Ringing: make the work visible, then `swap(RUNG)`; if it was ASLEEP, unpark the sleeper.
//! * Waiting: RUNG → QUIET and return, so that the caller looks; else QUIET → ASLEEP and park.
//!
//! A ring that comes while the owner looks leaves RUNG behind, so the next wait returns at once:
//! no ring is lost, and any number of rings costs one look.
//!
//! To be woken takes some tens of microseconds, in which others may use up all that is free. So
//! who was woken soon after he began to wait looks for a ring for 20 µs before he sleeps
//! the next time, leaving his CPU to whoever wants it. Who waits long does so once.
//!
//! # Memory ordering
//!
//! The ringer's swap is Release and the owner's exchange Acquire: what was made visible before
//! the ring is seen by the look after it. Every change is an RMW, so earlier rings that were
//! overwritten are seen as well. Lingering only looks; what ends a wait is always that exchange.
//!
//! # Progress
//!
//! Ringing: wait-free, but for the short lock around the sleeper's handle when it sleeps.

use crate::sync::unmodelled::AtomicU32 as Flag;
use crate::sync::{AtomicU32, Mutex, Ordering, Thread, current, park_until, yield_now};
use std::time::{Duration, Instant};
use tierce_core::broken;

/// How long a busy owner looks before he sleeps.
const LINGER: Duration = Duration::from_micros(20);
/// An owner is busy if he waited for less than this.
const SOON: Duration = Duration::from_micros(100);

const QUIET: u32 = 0;
const RUNG: u32 = 1;
const ASLEEP: u32 = 2;

/// A door bell with one owner, who waits, and any number of ringers.
///
/// ```
/// use tierce_lockfree::Bell;
/// let bell = Bell::new();
/// bell.ring();
/// bell.ring();
/// assert!(bell.wait(None), "it rang before, so this returns at once");
/// let soon = std::time::Instant::now();
/// assert!(!bell.wait(Some(soon)), "nobody rang again");
/// ```
#[derive(Debug)]
pub struct Bell {
    state: AtomicU32,
    owner: Mutex<Option<Thread>>,
    /// The owner's: 1 if he was rung soon the last time.
    busy: Flag,
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}

impl Bell {
    /// A bell that nobody has rung.
    #[must_use]
    pub fn new() -> Self {
        Self { state: AtomicU32::new(QUIET), owner: Mutex::new(None), busy: Flag::new(0) }
    }

    /// Wakes the owner, now or at his next [`wait`](Self::wait). Wait-free, but for a short lock if
    /// he sleeps. What was done before is seen by who is woken.
    pub fn ring(&self) {
        let order = if broken!("bell_ring_relaxed") {
            Ordering::Relaxed
        } else {
            // Release: publishes the work; pairs with the Acquire in `wait`.
            Ordering::Release
        };
        // Relaxed: the deliberate break, who is awake is not told.
        if broken!("bell_ring_lost") && self.state.load(Ordering::Relaxed) != ASLEEP {
            return;
        }
        if self.state.swap(RUNG, order) == ASLEEP {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        if let Some(owner) = &*self.owner.lock() {
            owner.unpark();
        }
    }

    /// Sleeps until somebody rings, or until `deadline`. `true` if somebody rang since the last
    /// time this returned `true`. Only one thread may wait at a time.
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        if self.take() {
            return true;
        }
        let began = Instant::now();
        self.linger(began);
        let rung = self.sleep(deadline);
        let soon = rung && began.elapsed() < SOON;
        // Relaxed: nobody else uses it.
        self.busy.store(soon.into(), Ordering::Relaxed);
        rung
    }

    /// Whether somebody has rung; then that is over.
    fn take(&self) -> bool {
        let order = if broken!("bell_wait_relaxed") {
            Ordering::Relaxed
        } else {
            // Acquire: pairs with the Release in `ring`.
            Ordering::Acquire
        };
        // Relaxed (failure): nothing was rung.
        self.state.compare_exchange(RUNG, QUIET, order, Ordering::Relaxed).is_ok()
    }

    /// Looks for a ring for a while, if the owner is busy. (Time is none of a checker's.)
    fn linger(&self, began: Instant) {
        // Relaxed (both): his own; and a hint.
        let lingers = !cfg!(any(tierce_loom, tierce_shuttle));
        if lingers && self.busy.load(Ordering::Relaxed) != 0 {
            while self.state.load(Ordering::Relaxed) != RUNG && began.elapsed() < LINGER {
                yield_now();
            }
        }
    }

    fn sleep(&self, deadline: Option<Instant>) -> bool {
        while !self.take() {
            if deadline.is_some_and(|at| at <= Instant::now()) {
                // Acquire: as in `take`, if it rang just now.
                return self.state.swap(QUIET, Ordering::Acquire) == RUNG;
            }
            *self.owner.lock() = Some(current());
            // Relaxed (both): if it rang meanwhile the loop looks again; the owner's handle is
            // published by its lock.
            let asleep =
                self.state.compare_exchange(QUIET, ASLEEP, Ordering::Relaxed, Ordering::Relaxed);
            if asleep.is_ok() || asleep == Err(ASLEEP) {
                park_until(deadline);
            }
        }
        true
    }
}
