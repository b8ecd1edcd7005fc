//! What those who take and give back buckets must look at: one word per device, mostly zero.
//!
//! # State
//!
//! ```text
//!  63          32 31          12 11     8 7      0
//! ┌──────────────┬──────────────┬────────┬────────┐
//! │   version    │   visitors   │  mode  │  bits  │
//! └──────────────┴──────────────┴────────┴────────┘
//! ```
//!
//! Version, visitors and mode say how the cells may be changed, see [`crate::near`]. The bits:
//!
//! | bit | set by | cleared by | who looks |
//! |---|---|---|---|
//! | [`WAITING`] | whoever lines up | whoever empties the lines | who took a bucket: it is theirs. Who inserted one: he serves them |
//! | [`WATCHED`] | whoever waits until so much is free | the last of them, under their lock | who inserted a bucket: he wakes them |
//! | [`ENDED`] | close, failure | nobody | who took a bucket: he puts it back |
//! | [`ROOM`], [`BUCKETS`], [`UNBLOCKED`], [`DISCARDS`] | the reclaimer, before it sleeps | whoever rings | who made that |
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
//! * Who inserted into a cell by an exchange: it was SeqCst, and so is the load
//!   ([`crate::sync::load_after_rmw`], `after_cell`). No fence stands between them: on x86 it
//!   would cost as much again as the exchange, which is a full barrier there already.
//! * Who inserted into a cell by a plain store ([`crate::section`]) does not look: the store was before
//!   the barrier by which `set` puts an end to such stores, until the bit is cleared
//!   ([`crate::near`]), so the sleeper, who looks after it, sees it.
//!
//! Proof for the exchange. Call it E, the load L, the sleeper's fence F. All are in the one
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
//! Wait-free; but while the cells are [near](crate::near), who sets a bit for those who insert
//! buckets puts an end to that, by a system call.

use crate::near::{MODES, Modes, NEAR};
use crate::section::Section;
use crate::sync::{Ordering, fence, load_after_rmw};
use crossbeam_utils::CachePadded;
use tierce_core::broken;

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
/// The reclaimer waits for discards, unless buckets get short.
pub(crate) const DISCARDS: u32 = 64;
/// All that the reclaimer may wait for.
pub(crate) const HUNGRY: u32 = ROOM | BUCKETS | UNBLOCKED | DISCARDS;
/// What those who insert a bucket look for.
pub(crate) const OFFERED: u32 = WAITING | BUCKETS | WATCHED;

/// The word.
#[derive(Debug)]
pub(crate) struct Attention(CachePadded<Modes>);

impl core::ops::Deref for Attention {
    type Target = Modes;

    #[inline]
    fn deref(&self) -> &Modes {
        &self.0
    }
}

impl Attention {
    /// Nobody waits. With a section, cells can be near.
    pub(crate) fn new(section: Option<Section>) -> Self {
        Self(CachePadded::new(Modes::new(section)))
    }

    /// Sets `bits`; what the caller looks at after this is not older than what anybody made
    /// available who does not see them.
    pub(crate) fn set(&self, bits: u32) {
        // SeqCst: precedes the fence in S, see above.
        self.word().fetch_or(bits.into(), Ordering::SeqCst);
        // SeqCst: of this fence and the look of whoever inserts one comes first.
        fence(Ordering::SeqCst);
        if bits & OFFERED != 0 && !broken!("wait_while_near") {
            self.share();
        }
    }

    /// Sets `bits` without looking for anything afterwards.
    pub(crate) fn raise(&self, bits: u32) {
        // Relaxed: what it tells is under a lock, or looked for again.
        self.word().fetch_or(bits.into(), Ordering::Relaxed);
    }

    /// Clears `bits`.
    pub(crate) fn clear(&self, bits: u32) {
        // Relaxed: nothing is published with it; who clears it has come to do what it asked for.
        self.word().fetch_and(!u64::from(bits), Ordering::Relaxed);
    }

    /// A look by who has nothing to order.
    #[inline]
    pub(crate) fn now(&self) -> u32 {
        // Relaxed: see above.
        bits_of(self.word().load(Ordering::Relaxed))
    }

    /// Whether cells are near and the device is in use: nobody is in line.
    #[inline]
    pub(crate) fn is_near_and_open(&self) -> bool {
        // Acquire: as in `mode`.
        let word = self.word().load(Ordering::Acquire);
        word & (MODES | u64::from(WAITING | ENDED)) == NEAR
    }

    /// A look by who has just made something available.
    pub(crate) fn after(&self) -> u32 {
        if !broken!("wake_no_fence") {
            // SeqCst: pairs with the fence in `set`.
            fence(Ordering::SeqCst);
        }
        // Relaxed: ordered by the fence.
        bits_of(self.word().load(Ordering::Relaxed))
    }

    /// A look by who has just pushed a bucket into a cell.
    #[inline]
    pub(crate) fn after_cell(&self) -> u32 {
        if broken!("wake_cell_unordered") {
            return self.now();
        }
        bits_of(load_after_rmw(self.word()))
    }
}

/// The lowest 8.
#[inline]
fn bits_of(word: u64) -> u32 {
    (word & 0xFF) as u32
}
