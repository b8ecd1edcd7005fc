//! Which slot a write gets.
//!
//! 1. Only slots of its class: data that lives only on flash never shares a bucket with cached
//!    data.
//! 2. The one whose last write ended exactly where this one begins, in the same inode.
//! 3. Else the one last used by the same write point.
//! 4. Else one never used; else a closed one, the least recently used first.
//! 5. Else the least recently used one of the class: its rest goes on to the new stream.
//! 6. Else the least recently used one of the other class is closed and its slot reused.
//!
//! Of several matches the most recently used wins.
//!
//! # Hints
//!
//! 2 and 3 are looked up in two small tables per CPU hint: where a stream ended → slot, write
//! point → slot; what they say is verified against the slot. A hint that was lost (another stream
//! has the same place in the table, or another CPU wrote last) costs locality: a write whose
//! write point is known is not searched for elsewhere. Only a write whose write point is unknown
//! too looks at all slots, and then follows the list above exactly; so does every write if there
//! are at most 8 slots.
//!
//! "Recently" is by ticks, of which each CPU hint has its own count, never behind what it sees in
//! the slots that it uses or searches: nothing that all CPUs write, exact for one CPU, and close
//! for several.
//!
//! What a slot remembers is several words, which a racing reader may see mixed. That too costs
//! locality only: the class, which must not be wrong, is in the slot's own word.

use super::slot::SlotWord;
use super::{Extent, SectorRequest};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use tierce_core::BucketId;

/// Up to so many slots all are looked at: that costs no more than following hints.
const FEW: usize = 8;
/// Entries of the table of write points.
const POINTS: usize = 64;
/// Entries of the table of ends of streams.
const TAILS: usize = 1024;

/// A place for an open bucket.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(super) word: AtomicU64,
    /// The write point that used it last.
    write_point: AtomicU64,
    /// Whose data the last write was.
    inode: AtomicU64,
    /// Where it ended.
    next: AtomicU64,
    /// The tick of its last use; 0: never used.
    used: AtomicU64,
    /// The bucket of its last use, packed: for tools, which show closed ones too.
    bucket: AtomicU32,
}

/// What a slot remembers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) word: SlotWord,
    pub(crate) write_point: u64,
    pub(crate) inode: u64,
    pub(crate) next: u64,
    pub(crate) used: u64,
    pub(crate) bucket: BucketId,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU64::new(SlotWord::default().bits()),
            write_point: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            next: AtomicU64::new(0),
            used: AtomicU64::new(0),
            bucket: AtomicU32::new(0),
        }
    }

    pub(super) fn tag(&self) -> Tag {
        // Relaxed (all): hints, see the top of this file.
        Tag {
            word: SlotWord::from_bits(self.word.load(Ordering::Relaxed)),
            write_point: self.write_point.load(Ordering::Relaxed),
            inode: self.inode.load(Ordering::Relaxed),
            next: self.next.load(Ordering::Relaxed),
            used: self.used.load(Ordering::Relaxed),
            bucket: BucketId::unpack(self.bucket.load(Ordering::Relaxed)),
        }
    }
}

impl Tag {
    /// The smallest is chosen, see the list at the top of this file.
    fn rank(&self, request: &SectorRequest) -> (u8, u64) {
        if self.follows(request) {
            (2, u64::MAX - self.used)
        } else if self.is_writer(request) {
            (3, u64::MAX - self.used)
        } else if self.word.bucket().is_none() {
            (4, self.used)
        } else if self.is_of_class(request) {
            (5, self.used)
        } else {
            (6, self.used)
        }
    }

    fn is_of_class(&self, request: &SectorRequest) -> bool {
        self.used != 0 && self.word.is_flash_only() == request.flash_only
    }

    fn follows(&self, request: &SectorRequest) -> bool {
        self.is_of_class(request) && (self.inode, self.next) == (request.inode, request.offset)
    }

    fn is_writer(&self, request: &SectorRequest) -> bool {
        self.is_of_class(request) && self.write_point == request.write_point.0
    }
}

/// The hints of one CPU.
#[derive(Debug)]
pub(super) struct Hints {
    points: [AtomicU32; POINTS],
    tails: Box<[AtomicU32]>,
    tick: AtomicU64,
}

impl Hints {
    pub(super) fn new() -> Self {
        Self {
            points: core::array::from_fn(|_| AtomicU32::new(0)),
            tails: (0..TAILS).map(|_| AtomicU32::new(0)).collect(),
            tick: AtomicU64::new(0),
        }
    }

    fn point(&self, request: &SectorRequest) -> &AtomicU32 {
        &self.points[request.write_point.0 as usize % POINTS]
    }

    fn tail(&self, inode: u64, offset: u64) -> &AtomicU32 {
        // Ends of streams differ in their low bits, inodes by little.
        let place = inode.wrapping_mul(331).wrapping_add(offset);
        &self.tails[place as usize % TAILS]
    }

    /// The slot for `request`: its number in `slots`.
    pub(super) fn choose<S>(&self, slots: &[S], request: &SectorRequest) -> usize
    where
        S: core::ops::Deref<Target = Slot>,
    {
        if slots.len() == 1 {
            return 0;
        }
        if slots.len() <= FEW {
            return self.search(slots, request);
        }
        let verified = |hint: &AtomicU32, fits: fn(&Tag, &SectorRequest) -> bool| {
            // Relaxed: a hint.
            let at = (hint.load(Ordering::Relaxed) as usize).checked_sub(1)?;
            slots.get(at).filter(|slot| fits(&slot.tag(), request)).map(|_| at)
        };
        verified(self.tail(request.inode, request.offset), Tag::follows)
            .or_else(|| verified(self.point(request), Tag::is_writer))
            .unwrap_or_else(|| self.search(slots, request))
    }

    fn search<S>(&self, slots: &[S], request: &SectorRequest) -> usize
    where
        S: core::ops::Deref<Target = Slot>,
    {
        let mut newest = 0;
        let mut rank = |slot: &S| {
            let tag = slot.tag();
            newest = newest.max(tag.used);
            tag.rank(request)
        };
        let ranked = slots.iter().enumerate().map(|(at, slot)| (rank(slot), at));
        let (_, at) = ranked.min().expect("there is a slot");
        // Relaxed: a hint.
        self.tick.fetch_max(newest, Ordering::Relaxed);
        at
    }

    /// `request` has got an extent from slot `at`.
    pub(super) fn used(&self, slot: &Slot, at: usize, request: &SectorRequest, got: &Extent<'_>) {
        let next = request.offset.wrapping_add(got.sectors.into());
        // Relaxed (all): hints, see the top of this file.
        slot.write_point.store(request.write_point.0, Ordering::Relaxed);
        slot.inode.store(request.inode, Ordering::Relaxed);
        slot.next.store(next, Ordering::Relaxed);
        slot.bucket.store(got.bucket.id().pack(), Ordering::Relaxed);
        let tick = self.tick.load(Ordering::Relaxed).max(slot.used.load(Ordering::Relaxed)) + 1;
        self.tick.store(tick, Ordering::Relaxed);
        slot.used.store(tick, Ordering::Relaxed);
        self.point(request).store(at as u32 + 1, Ordering::Relaxed);
        self.tail(request.inode, next).store(at as u32 + 1, Ordering::Relaxed);
    }
}
