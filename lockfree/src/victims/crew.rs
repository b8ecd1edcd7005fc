//! Threads that work on one pass together.
//!
//! # Problem
//!
//! A long pass is a few *phases*, each of which needs what the one before it found and can be cut
//! into pieces. To wake a thread takes as long as the shortest of them, some tens of
//! microseconds. So helpers are called once per pass, while the first phase goes on already, and
//! wait for the next one by looking for it.
//!
//! # State
//!
//! One word says which phase it is, how many pieces it has, and which of them is next; a counter
//! says how many are done.
//!
//! ```text
//!  63            56 55            28 27             0
//! ┌────────────────┬────────────────┬────────────────┐
//! │     phase      │     pieces     │      next      │
//! └────────────────┴────────────────┴────────────────┘
//! ```
//!
//! # Protocol
//!
//! 1. The *leader*, whose pass it is, opens a phase: `done` becomes 0, then the word (phase,
//!    pieces, 0).
//! 2. Leader and helpers take pieces by a CAS that raises *next*, do them, and count them in
//!    `done`.
//! 3. When all are taken the leader waits until all are done; then he may open another phase.
//! 4. Before he ends he closes the crew, and helpers leave.
//!
//! The word may come back: a CAS that was prepared in one phase can succeed in a later one of the
//! same name and size. What it takes is a piece of that later phase then, and as nothing but the
//! word was read for it, it is done as such.
//!
//! # Memory ordering
//!
//! * The *word*: opening is Release and taking Acquire, so that whoever does a piece sees
//!   what the leader did before he opened the phase. It changes by RMW only, so those who took
//!   pieces in between continue the release sequence.
//! * *done*: counting is Release, and the leader's load Acquire: he sees what helpers did. It is
//!   cleared before the word is opened, which publishes that as well.
//!
//! # Progress
//!
//! The leader waits for those who have taken a piece; nobody else ever waits for a pass. Who
//! looks in vain for a while sleeps between looks, so that a thread which was taken off its CPU
//! gets it back, whatever the priorities are. A piece that panics counts as done, and a
//! leader who panics closes the crew: nobody waits for ever.

use crate::sync::{AtomicU64, Ordering, look_again};
use crossbeam_utils::CachePadded;
use tierce_core::broken;
use tierce_core::geometry::MAX_BUCKETS;

/// Bits of a number of pieces.
const BITS: u32 = 28;
const MASK: u64 = (1 << BITS) - 1;
const _: () = assert!(MAX_BUCKETS as u64 <= MASK, "no piece is smaller than a bucket");

/// What is done together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nothing yet.
    Idle,
    /// Looking at a sample of the words.
    Sample,
    /// Looking at all words.
    Scan,
    /// Taking what was found.
    Take,
    /// Nothing any more.
    Closed,
}

impl Phase {
    fn of(turn: u64) -> Self {
        match turn >> (2 * BITS) {
            0 => Self::Idle,
            1 => Self::Sample,
            2 => Self::Scan,
            3 => Self::Take,
            _ => Self::Closed,
        }
    }

    /// With so many pieces, none of them taken.
    fn turn(self, pieces: usize) -> u64 {
        let pieces = pieces as u64;
        debug_assert!(pieces <= MASK, "a device has fewer buckets than that");
        (self as u64) << (2 * BITS) | pieces << BITS
    }
}

/// What leader and helpers share.
#[derive(Debug)]
pub(crate) struct Crew {
    /// Written by everybody, once per piece.
    turn: CachePadded<AtomicU64>,
    /// The same.
    done: CachePadded<AtomicU64>,
}

impl Crew {
    pub(crate) fn new() -> Self {
        let word = |value| CachePadded::new(AtomicU64::new(value));
        Self { turn: word(Phase::Idle.turn(0)), done: word(0) }
    }

    /// A phase of so many pieces: `work` does one here, and what helpers were given to do does
    /// the others. Returns when all are done.
    pub(crate) fn lead(&self, phase: Phase, pieces: usize, mut work: impl FnMut(usize)) {
        // Relaxed: nobody counts before the word is opened.
        self.done.swap(0, Ordering::Relaxed);
        let order = if broken!("crew_opens_relaxed") {
            Ordering::Relaxed
        } else {
            // Release: publishes what the phase works on; pairs with the Acquire in `take`.
            Ordering::Release
        };
        self.turn.swap(phase.turn(pieces), order);
        while let Ok((_, piece)) = self.take() {
            let _done = Done(self);
            work(piece);
        }
        let order = if broken!("crew_done_relaxed") {
            Ordering::Relaxed
        } else {
            // Acquire: pairs with the Release of those who count: their work is seen.
            Ordering::Acquire
        };
        let mut looks = 0;
        while self.done.load(order) < pieces as u64 {
            look_again(&mut looks);
        }
    }

    /// No phase follows.
    pub(crate) fn close(&self) {
        // Relaxed: nothing is published with it.
        self.turn.swap(Phase::Closed.turn(0), Ordering::Relaxed);
    }

    /// Does pieces until the crew is closed.
    #[cfg_attr(tierce_shuttle, expect(dead_code, reason = "passes have one thread there"))]
    pub(crate) fn help(&self, mut work: impl FnMut(Phase, usize)) {
        let mut looks = 0;
        loop {
            match self.take() {
                Ok((phase, piece)) => {
                    let _done = Done(self);
                    work(phase, piece);
                    looks = 0;
                }
                Err(Phase::Closed) => break,
                Err(_) => look_again(&mut looks),
            }
        }
    }

    /// The next piece, which then is the caller's to do. `Err` with the phase if all are taken.
    fn take(&self) -> Result<(Phase, usize), Phase> {
        // Relaxed: the CAS decides; of a phase without pieces nothing is used.
        let mut turn = self.turn.load(Ordering::Relaxed);
        loop {
            let (pieces, next) = (turn >> BITS & MASK, turn & MASK);
            if next == pieces {
                return Err(Phase::of(turn));
            }
            if broken!("crew_takes_by_store") {
                // Acquire: the deliberate break, whoever took it meanwhile.
                self.turn.swap(turn + 1, Ordering::Acquire);
                return Ok((Phase::of(turn), next as usize));
            }
            // Acquire: pairs with the Release in `lead`. Relaxed (failure): only to try again.
            let order = (Ordering::Acquire, Ordering::Relaxed);
            match self.turn.compare_exchange_weak(turn, turn + 1, order.0, order.1) {
                Ok(_) => return Ok((Phase::of(turn), next as usize)),
                Err(now) => turn = now,
            }
        }
    }
}

/// Counts a piece as done when it is dropped, after a panic, too.
struct Done<'a>(&'a Crew);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        // Release: publishes what was done; pairs with the Acquire in `lead`.
        self.0.done.fetch_add(1, Ordering::Release);
    }
}
