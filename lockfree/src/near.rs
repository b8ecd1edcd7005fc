//! Whether cells are near: changed by plain stores, each row by its own CPU alone.
//!
//! # Problem
//!
//! Most buckets are taken from, and given back to, the cells of the CPU on which the thread
//! runs. If nobody else touched them, restartable sections ([`crate::section`]) could do that
//! without a locked instruction. But others do now and then: whoever finds nothing else looks
//! there, threads may be unknown to the kernel's sections, and who waits for a bucket must not
//! miss one that is put there.
//!
//! # State
//!
//! Mode, version and visitors in the word of [`crate::attention`] (of the slots of open buckets
//! each has a word of its own, whose bits for who waits are never set: `sectors/change.rs`):
//!
//! | mode | a cell is changed by | from here to |
//! |---|---|---|
//! | [`SHARED`] | anybody: an exchange in a section that tests for this mode; or an exchange while he is counted as a visitor | [`OPENING`] |
//! | [`OPENING`] | nobody | [`NEAR`], after a barrier; [`SHARED`] |
//! | [`NEAR`] | who runs on its CPU: a store in a section that tests for this mode and CPU | [`CLOSING`] |
//! | [`CLOSING`] | nobody | [`SHARED`], after a barrier |
//!
//! Where there are no sections the mode is never looked at, and cells are changed by exchanges.
//! The *version* counts turns from one mode to the next. *Visitors* are threads without sections,
//! for as long as they change one cell.
//!
//! # Protocol
//!
//! 1. Who uses his own row makes one attempt, as the mode says. While the mode changes he passes
//!    the row by: the queue is behind it.
//! 2. Who wants a cell of any row, or lines up for a bucket, first sees to it that the mode is
//!    shared ([`Modes::share`]): NEAR → CLOSING, barrier, CLOSING → SHARED. Who finds
//!    CLOSING makes a barrier of his own and goes on as if he had begun; from OPENING he goes back.
//! 3. When a row has been used so often that a barrier is worth it, and nobody wanted the mode shared
//!    meanwhile, its user makes the cells near ([`Modes::open`]): SHARED → OPENING, only if
//!    nobody waits and there are no visitors; barrier; OPENING → NEAR, only if still nobody waits.
//!
//! Looking changes no mode: a scan that finds nothing costs no barrier.
//!
//! # Invariants
//!
//! 1. While the mode is NEAR every change of a row is a section on its CPU; none is concurrent
//!    with another. *From* OPENING: an exchange in a section tested for SHARED; after the barrier
//!    it has been made or will not be. A visitor keeps the mode from leaving SHARED.
//! 2. While the mode is SHARED every change is an exchange. *From* CLOSING: a store in a section tested
//!    for NEAR; after the barrier it has been made, and is visible, or will not be.
//! 3. While a bit of [`OFFERED`] is set and whoever set it has gone through [`Modes::share`],
//!    the mode is not NEAR. Bits, mode and version are one word: OPENING and NEAR are reached by
//!    exchanges of words without such bits.
//! 4. Who has made a barrier for one turn does not end another: the turn to end is named by its
//!    version. It wraps after 2^32 turns, of which every second takes a microsecond: about an hour
//!    in which the thread would have to stand still.
//!
//! By 3 no wake-up is lost. Let W set a bit and go through `share`, and P put a bucket into a cell.
//! If P stores, its section was before W's barrier, or before one that somebody else had made when W
//! saw SHARED: W sees the bucket when it looks. If P exchanges, see `attention.rs`. ∎
//!
//! # Memory ordering
//!
//! *mode*: turns are AcqRel: who finds SHARED sees all stores, who finds NEAR all exchanges, that
//! were made before; the barriers order them, too. A visitor leaves by Release, and OPENING acquires
//! that.
//!
//! # Progress
//!
//! Nobody waits for a thread: what one has begun the next one ends. `share` and `open` are lock-free
//! but for the system call, which waits until every CPU that runs a thread of this process has
//! been interrupted. A turn costs about as much as 200 exchanges, and makes all cells slower or
//! faster. Whoever often wants them shared has them so: each time they had to be shared soon after
//! they were near, they must have been used twice as often before they are again.

use crate::attention::OFFERED;
use crate::section::Section;
use crate::stats::CellUse;
use crate::sync::unmodelled::{AtomicU32, AtomicU64 as Hint};
use crate::sync::{AtomicU64, Ordering};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tierce_core::broken;

/// Cells are changed by anybody, by exchanges.
pub(crate) const SHARED: u64 = 1 << 8;
/// Each row is changed by its CPU alone, by stores.
pub(crate) const NEAR: u64 = 1 << 9;
/// From shared to near.
pub(crate) const OPENING: u64 = 1 << 10;
/// From near to shared.
pub(crate) const CLOSING: u64 = 1 << 11;
/// All of them.
pub(crate) const MODES: u64 = SHARED | NEAR | OPENING | CLOSING;

const ONE_VISITOR: u64 = 1 << 12;
const VISITORS: u64 = (1 << 32) - ONE_VISITOR;
const ONE_TURN: u64 = 1 << 32;
const TURNS: u64 = !(ONE_TURN - 1);

/// When it is worth a barrier to make cells near.
#[derive(Debug)]
pub(crate) struct Patience {
    /// How often they must be used before, at least …
    pub(crate) least: u32,
    /// … and at most.
    pub(crate) most: u32,
    /// Those that had to be shared before they were near for so long should not have been near.
    pub(crate) soon: Duration,
}

/// That of rows of cells: a turn concerns the rows of all CPUs.
const OF_ROWS: Patience =
    Patience { least: 1 << 12, most: 1 << 18, soon: Duration::from_millis(20) };

/// What it takes for cells to be near, and when they are worth it. But for the section all of
/// this is hints: lost or torn between threads, they cost time.
#[derive(Debug)]
pub(crate) struct Near {
    pub(crate) section: Section,
    /// How often somebody wanted the cells shared.
    unrest: AtomicU32,
    /// How often a row must be used without unrest.
    patience: AtomicU32,
    /// When they became near the last time, in nanoseconds.
    since: Hint,
    limits: &'static Patience,
}

impl Near {
    pub(crate) fn new(section: Section, limits: &'static Patience) -> Self {
        let patience = AtomicU32::new(limits.least);
        Self { section, unrest: AtomicU32::new(0), patience, since: Hint::new(0), limits }
    }

    /// A row whose `uses` these are was used once more while the cells are shared. Whether it was
    /// used so often that they should be near.
    #[inline]
    pub(crate) fn is_used(&self, uses: &Hint) -> bool {
        // Relaxed (all): hints.
        let (unrest, before) = (self.unrest.load(Ordering::Relaxed), uses.load(Ordering::Relaxed));
        // The lower half counts, since the unrest was what the upper half says.
        let since = u64::from(unrest) << 32;
        let now = if before >> 32 == u64::from(unrest) { before + 1 } else { since };
        uses.store(now, Ordering::Relaxed);
        now - since >= u64::from(self.patience.load(Ordering::Relaxed))
    }

    fn disturbed(&self) {
        // Relaxed (both): hints.
        self.unrest.store(self.unrest.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    fn begins(&self) {
        // Relaxed: a hint.
        self.since.store(nanos(), Ordering::Relaxed);
    }

    fn ends(&self) {
        // Relaxed (all): hints.
        let lasted = nanos().saturating_sub(self.since.load(Ordering::Relaxed));
        let patience = if u128::from(lasted) < self.limits.soon.as_nanos() {
            (self.patience.load(Ordering::Relaxed) * 2).min(self.limits.most)
        } else {
            self.limits.least
        };
        self.patience.store(patience, Ordering::Relaxed);
    }
}

/// Since the first time that anybody asked.
fn nanos() -> u64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The word of a turn to `mode`.
fn turned(word: u64, mode: u64) -> u64 {
    (word & !MODES | mode).wrapping_add(ONE_TURN)
}

fn is_same_turn(one: u64, other: u64) -> bool {
    (one ^ other) & (TURNS | MODES) == 0
}

/// The word that says how cells are changed, and what it takes to turn it: in this order, as the
/// word is looked at for every change, and the rest is not.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Modes {
    word: AtomicU64,
    near: Option<Near>,
}

impl Modes {
    /// Shared. With a section, cells can be near.
    pub(crate) fn new(section: Option<Section>) -> Self {
        Self::with_patience(section, &OF_ROWS)
    }

    /// As [`new`](Self::new), for cells of which a turn concerns more or fewer than rows of all CPUs.
    pub(crate) fn with_patience(section: Option<Section>, limits: &'static Patience) -> Self {
        let near = section.map(|section| Near::new(section, limits));
        Self { word: AtomicU64::new(SHARED), near }
    }

    /// Mode, version, visitors, and the bits of [`crate::attention`].
    #[inline]
    pub(crate) fn word(&self) -> &AtomicU64 {
        &self.word
    }

    /// What it takes for cells to be near.
    #[inline]
    pub(crate) fn near(&self) -> Option<&Near> {
        self.near.as_ref()
    }

    /// How cells are changed now: one of the modes.
    #[inline]
    pub(crate) fn mode(&self) -> u64 {
        // Acquire: pairs with the Release of the turn to this mode.
        self.word().load(Ordering::Acquire) & MODES
    }

    /// The mode, for statistics.
    pub(crate) fn cell_use(&self) -> CellUse {
        match self.near() {
            None => CellUse::Exchanges,
            Some(_) if self.mode() == NEAR => CellUse::Near,
            Some(_) => CellUse::Shared,
        }
    }

    /// How often the mode turned, modulo 2^32.
    pub(crate) fn turns(&self) -> u32 {
        // Relaxed: a statistic.
        (self.word().load(Ordering::Relaxed) >> 32) as u32
    }

    /// Cells are shared when this returns; they stay so while a bit of [`OFFERED`] is set.
    pub(crate) fn share(&self) {
        let Some(near) = self.near() else { return };
        near.disturbed();
        loop {
            // Acquire: as in `mode`.
            let now = self.word().load(Ordering::Acquire);
            match now & MODES {
                SHARED => return,
                NEAR => {
                    if self.turn(now, CLOSING).is_some() {
                        near.ends();
                    }
                }
                OPENING => {
                    self.turn(now, SHARED);
                }
                _closing => {
                    if !broken!("close_no_barrier") {
                        near.section.barrier();
                    }
                    self.turn(now, SHARED);
                }
            }
        }
    }

    /// Makes the cells near, if nobody objects.
    #[cold]
    pub(crate) fn open(&self) {
        let Some(near) = self.near() else { return };
        // Relaxed: the exchange decides.
        let now = self.word().load(Ordering::Relaxed);
        let visited = now & VISITORS != 0 && !broken!("open_ignores_visitors");
        if now & SHARED == 0 || visited || Self::is_wanted(now) {
            return;
        }
        let opening = turned(now, OPENING);
        // AcqRel: Acquire pairs with the Release of visitors who have left; for Release see above.
        // Relaxed (failure): somebody else came.
        let turned =
            self.word().compare_exchange(now, opening, Ordering::AcqRel, Ordering::Relaxed);
        if turned.is_err() {
            return;
        }
        if !broken!("open_no_barrier") {
            near.section.barrier();
        }
        near.begins();
        self.turn(opening, NEAR);
    }

    fn is_wanted(word: u64) -> bool {
        word & u64::from(OFFERED) != 0 && !broken!("open_ignores_waiters")
    }

    /// Ends the turn in which the word was `seen`, unless somebody else has. To NEAR only if nobody
    /// waits, else back to SHARED. Returns the word.
    fn turn(&self, seen: u64, to: u64) -> Option<u64> {
        let mut now = seen;
        while is_same_turn(now, seen) {
            let mode = if to == NEAR && Self::is_wanted(now) { SHARED } else { to };
            let next = turned(now, mode);
            // AcqRel: see above. Relaxed (failure): looked at again.
            match self.word().compare_exchange(now, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(next),
                Err(other) => now = other,
            }
        }
        None
    }

    /// Does `visit`, the change of a cell by an exchange, while cells are shared, without a
    /// section.
    #[cold]
    pub(crate) fn visited<T>(&self, visit: impl FnOnce() -> T) -> T {
        loop {
            self.share();
            // Relaxed: the exchange decides.
            let now = self.word().load(Ordering::Relaxed);
            let next = now + ONE_VISITOR;
            // Acquire: as in `mode`. Relaxed (failure): looked at again.
            let came = now & SHARED != 0
                && self
                    .word()
                    .compare_exchange(now, next, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok();
            if came {
                break;
            }
        }
        let result = visit();
        // Release: pairs with the Acquire of `open`.
        self.word().fetch_sub(ONE_VISITOR, Ordering::Release);
        result
    }
}
