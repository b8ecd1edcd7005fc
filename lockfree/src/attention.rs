//! What those who take and give back buckets must look at: one word per device, mostly zero.
//!
//! # State
//!
//! | bit | set by | cleared by | who looks |
//! |---|---|---|---|
//! | [`WAITING`] | whoever lines up | whoever empties the lines | who took a bucket: it is theirs. Who inserted one: he serves them |
//! | [`WATCHED`] | whoever waits until so much is free | the last of them, under their lock | who inserted a bucket: he wakes them |
//! | [`ENDED`] | close, failure | nobody | who took a bucket: he puts it back |
//! | [`ROOM`], [`BUCKETS`], [`UNBLOCKED`] | the reclaimer, before it sleeps | whoever rings | who made that |
//!
//! The fast path of an allocation looks once and that of giving back looks once, at a line that
//! is written only when somebody begins or ceases to wait.
//!
//! # Protocol and memory ordering
//!
//! Nobody may sleep although there is what he waits for. Whoever is going to sleep sets his bit
//! and *then* looks for it once more; whoever makes it available inserts it and *then* looks at
//! this word. One of the two must see the other, which takes sequential consistency on both
//! sides:
//!
//! * The sleeper: `fetch_or(SeqCst)`, `fence(SeqCst)`, then he looks (`set`).
//! * Who inserted into a queue, or changed something else: `fence(SeqCst)`, then a load (`after`).
//! * Who inserted into a cell: the exchange was SeqCst, and so is the load
//!   ([`crate::sync::load_after_rmw`], `after_cell`). No fence stands between them: on x86 it
//!   would cost as much again as the exchange, which is a full barrier there already.
//!
//! Proof for the last. Call the exchange E, the load L, the sleeper's fence F. All are in the one
//! total order S of SeqCst operations, E before L as in the program. If F comes before L, the
//! sleeper's bit was set before F and so L sees it (a SeqCst load after a SeqCst fence in S does
//! not read anything older than what was written before the fence). Otherwise E comes before L
//! and L before F; then whatever the sleeper reads after F is not older than E: he finds the
//! bucket, or that somebody else took it. ∎ With `fence` in the place of E and L the argument is
//! the usual one for two fences.
//!
//! Loom takes SeqCst accesses for AcqRel ones, so under the model L is a fence and a relaxed load.
//!
//! Who *took* a bucket looks by a relaxed load: whoever begins after somebody was known to be in
//! line sees that he is; for two that meet by chance there is no first.
//!
//! # Progress
//!
//! Wait-free.

use crate::sync::{AtomicU32, Ordering, fence, load_after_rmw};
use crossbeam_utils::CachePadded;

/// Somebody is in line for a bucket.
pub(crate) const WAITING: u32 = 1;
/// The device is out of use.
pub(crate) const ENDED: u32 = 2;
/// The reclaimer waits for room on the free lists: it has buckets to release.
pub(crate) const ROOM: u32 = 4;
/// The reclaimer waits for buckets for the prio write.
pub(crate) const BUCKETS: u32 = 8;
/// The reclaimer waits until nobody holds the prio write back.
pub(crate) const UNBLOCKED: u32 = 16;
/// Somebody waits until so many buckets can be had, see `watch.rs`.
pub(crate) const WATCHED: u32 = 32;
/// All that the reclaimer may wait for.
pub(crate) const HUNGRY: u32 = ROOM | BUCKETS | UNBLOCKED;

/// The word.
#[derive(Debug)]
pub(crate) struct Attention(CachePadded<AtomicU32>);

impl Attention {
    pub(crate) fn new() -> Self {
        Self(CachePadded::new(AtomicU32::new(0)))
    }

    /// Sets `bits`; what the caller looks at after this is not older than what anybody made
    /// available who does not see them.
    pub(crate) fn set(&self, bits: u32) {
        // SeqCst: precedes the fence in S, see above.
        self.0.fetch_or(bits, Ordering::SeqCst);
        // SeqCst: of this fence and the look of whoever inserts one comes first.
        fence(Ordering::SeqCst);
    }

    /// Sets `bits` without looking for anything afterwards.
    pub(crate) fn raise(&self, bits: u32) {
        // Relaxed: what it tells is under a lock, or looked for again.
        self.0.fetch_or(bits, Ordering::Relaxed);
    }

    /// Clears `bits`.
    pub(crate) fn clear(&self, bits: u32) {
        // Relaxed: nothing is published with it; who clears it has come to do what it asked for.
        self.0.fetch_and(!bits, Ordering::Relaxed);
    }

    /// A look by who has nothing to order.
    #[inline]
    pub(crate) fn now(&self) -> u32 {
        // Relaxed: see above.
        self.0.load(Ordering::Relaxed)
    }

    /// A look by who has just made something available.
    pub(crate) fn after(&self) -> u32 {
        if !cfg!(tierce_mutant = "wake_no_fence") {
            // SeqCst: pairs with the fence in `set`.
            fence(Ordering::SeqCst);
        }
        // Relaxed: ordered by the fence.
        self.0.load(Ordering::Relaxed)
    }

    /// A look by who has just pushed a bucket into a cell.
    #[inline]
    pub(crate) fn after_cell(&self) -> u32 {
        if cfg!(tierce_mutant = "wake_cell_unordered") {
            return self.now();
        }
        load_after_rmw(&self.0)
    }
}
