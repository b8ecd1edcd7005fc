//! The state of one device: its table of words, its free lists, and where each bucket is.

use super::options::DeviceOptions;
use super::run::Phase;
use crate::bucket::{BucketIndex, GC_GEN_LIMIT, Gen};
use crate::draws::Draws;
use crate::policy::Policy;
use crate::reserve::{REFILL_ORDER, Reserve};
use crate::word::Snapshot;
use std::collections::VecDeque;

/// Where a bucket is. Each bucket is in exactly one place.
///
/// | place | pin |
/// |---|---|
/// | [`Out`](Place::Out): held by somebody, or full | any |
/// | [`Open`](Place::Open): in a slot that hands out its sectors | ≥ 1, one is the slot's |
/// | [`Free`](Place::Free), [`FreeInc`](Place::FreeInc), [`Ready`](Place::Ready) | 1 |
/// | [`SetAside`](Place::SetAside): popped from a free list while somebody had it pinned | > 1 |
/// | [`PrioChain`](Place::PrioChain): holds a prio set of the durable table | 0 |
///
/// A pin on a free bucket beyond its 1 is *foreign*: a forged or corrupt pointer made it.
///
/// ```
/// use tierce_core::spec::{DeviceOptions, Options, Place, Set};
/// use tierce_core::{BucketId, BucketIndex, DeviceIndex, Geometry, Reserve, Sizes};
/// let g = Geometry::new(1024, 1, 128, 8)?;
/// let device = DeviceOptions::new(g, Sizes::bcache(&g, 8));
/// let mut set = Set::new(Options::default(), vec![device])?;
/// set.start()?;
/// let id = BucketId::new(DeviceIndex::FIRST, BucketIndex::new(1));
/// assert_eq!(set.place(id), Some(Place::Free(Reserve::Prio)));
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// With an owner, or full.
    Out,
    /// In a slot that hands out its sectors.
    Open,
    /// On a free list.
    Free(Reserve),
    /// Invalidated, its gen not durable yet.
    FreeInc,
    /// Ready to be free, but all lists were full: *in hand*.
    Ready,
    /// Foreign pin found when it was about to be handed out.
    SetAside,
    /// Holds a prio set of the durable table.
    PrioChain,
}

/// One device.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) options: DeviceOptions,
    /// One word per bucket, from bucket 0.
    pub(super) words: Vec<Snapshot>,
    /// The gen of each bucket in the newest durable table.
    pub(super) durable: Vec<Gen>,
    pub(super) places: Vec<Place>,
    /// The list that each bucket came from when it was last handed out.
    pub(super) homes: Vec<Reserve>,
    /// The four free lists, oldest first.
    pub(super) free: [VecDeque<BucketIndex>; Reserve::COUNT],
    /// Invalidated, oldest first.
    pub(super) free_inc: VecDeque<BucketIndex>,
    /// Ready, but the lists were full. The background run keeps at most one; more come from
    /// `give_back` and `unused`.
    pub(super) ready: VecDeque<BucketIndex>,
    pub(super) set_aside: Vec<BucketIndex>,
    /// Where the background run goes on.
    pub(super) phase: Phase,
    /// The next bucket FIFO looks at.
    pub(super) fifo_next: u32,
    pub(super) random: Draws,
    /// No further pass until this many GCs have finished (`invalidate_needs_gc`).
    pub(super) needs_gc: u64,
    /// How many GCs had finished at the last pass.
    pub(super) last_pass_gc: u64,
    /// The last pass came right after a GC and still could not fill `free_inc`.
    pub(super) write_partial: bool,
    /// The last pass skipped a bucket because its gen runs too far ahead of the durable one.
    pub(super) write_early: bool,
    /// The buckets of the durable table, head first.
    pub(super) chain: Vec<BucketIndex>,
    /// The number of the last prio write.
    pub(super) prio_seq: u64,
    /// Why the device was taken out.
    pub(super) failed: Option<String>,
    pub(super) sectors_written: u64,
    pub(super) discards: u64,
}

impl Device {
    /// All buckets empty: gen 0, prio 0, unmarked, unpinned.
    pub(super) fn new(options: DeviceOptions) -> Self {
        let nbuckets = options.geometry.nbuckets() as usize;
        Self {
            words: vec![Snapshot::default(); nbuckets],
            durable: vec![Gen::default(); nbuckets],
            places: vec![Place::Out; nbuckets],
            homes: vec![Reserve::None; nbuckets],
            free: Default::default(),
            free_inc: VecDeque::new(),
            ready: VecDeque::new(),
            set_aside: Vec::new(),
            phase: Phase::Drain,
            fifo_next: 0,
            random: Draws::new(options.seed),
            needs_gc: 0,
            last_pass_gc: 0,
            write_partial: false,
            write_early: false,
            chain: Vec::new(),
            prio_seq: 0,
            failed: None,
            sectors_written: 0,
            discards: 0,
            options,
        }
    }

    pub(super) fn word(&self, bucket: BucketIndex) -> Snapshot {
        self.words[bucket.as_usize()]
    }

    pub(super) fn store(&mut self, bucket: BucketIndex, word: Snapshot) {
        self.words[bucket.as_usize()] = word;
    }

    pub(super) fn place(&self, bucket: BucketIndex) -> Place {
        self.places[bucket.as_usize()]
    }

    pub(super) fn put_in(&mut self, bucket: BucketIndex, place: Place) {
        self.places[bucket.as_usize()] = place;
    }

    /// The buckets that may be allocated, as an iterator that does not borrow.
    pub(super) fn buckets(&self) -> impl Iterator<Item = BucketIndex> + use<> {
        self.options.geometry.buckets()
    }

    pub(super) fn list(&self, reserve: Reserve) -> &VecDeque<BucketIndex> {
        &self.free[reserve.as_usize()]
    }

    /// Buckets that a caller with this reserve can be given.
    pub(super) fn usable(&self, reserve: Reserve) -> usize {
        let own = if reserve == Reserve::None { 0 } else { self.list(reserve).len() };
        self.list(Reserve::None).len() + own
    }

    pub(super) fn free_inc_is_full(&self) -> bool {
        self.free_inc.len() >= self.options.sizes.free_inc as usize
    }

    /// Sectors in the unit that the words count in, rounded up: what is not empty stays so.
    pub(super) fn units(&self, sectors: u32) -> u32 {
        self.options.geometry.units(sectors)
    }

    /// The live sectors that the word counts, in sectors.
    pub(super) fn live_sectors(&self, word: Snapshot) -> u32 {
        u32::from(word.sectors()) << self.options.geometry.sector_shift()
    }

    /// How far the bucket's gen is ahead of the durable one. A device without prio writes has no
    /// durable gens that anybody could trust, so nothing lags behind them.
    pub(super) fn durable_gen(&self, bucket: BucketIndex) -> Gen {
        if self.options.sync { self.durable[bucket.as_usize()] } else { self.word(bucket).gen_() }
    }

    /// Whether the gen has run as far ahead of the durable one as it may.
    pub(super) fn is_far_ahead(&self, bucket: BucketIndex) -> bool {
        self.word(bucket).gen_().since(self.durable_gen(bucket)) >= GC_GEN_LIMIT
    }

    /// Appends a ready bucket to the first free list with room, in [`REFILL_ORDER`].
    pub(super) fn offer(&mut self, bucket: BucketIndex) -> Option<Reserve> {
        let reserve = REFILL_ORDER.into_iter().find(|&r| self.has_room(r))?;
        self.append(bucket, reserve);
        Some(reserve)
    }

    /// Appends a bucket that was taken in vain to the list it came from, so that no reserve
    /// drains into another by that; if this is full to `none`; else as [`offer`](Self::offer).
    pub(super) fn offer_back(&mut self, bucket: BucketIndex) -> Option<Reserve> {
        let home = self.homes[bucket.as_usize()];
        match [home, Reserve::None].into_iter().find(|&r| self.has_room(r)) {
            Some(reserve) => {
                self.append(bucket, reserve);
                Some(reserve)
            }
            None => self.offer(bucket),
        }
    }

    fn has_room(&self, reserve: Reserve) -> bool {
        self.list(reserve).len() < self.options.sizes.of(reserve) as usize
    }

    /// Appends to one list.
    pub(super) fn append(&mut self, bucket: BucketIndex, reserve: Reserve) {
        self.put_in(bucket, Place::Free(reserve));
        self.free[reserve.as_usize()].push_back(bucket);
    }

    pub(super) fn set_policy(&mut self, policy: Policy) {
        self.options.policy = policy;
    }
}
