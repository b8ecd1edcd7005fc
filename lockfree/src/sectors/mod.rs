//! Sectors out of open buckets.
//!
//! # Problem
//!
//! Writers want sectors, not buckets. Streams should not mix (a bucket is thrown away as a
//! whole), a bucket must be filled without gaps, and the data of every extent has to be safe
//! from reuse until its key is in the index. Two writers of one stream meet on one word; nobody
//! should wait for anybody.
//!
//! # State
//!
//! Up to 128 *slots*, each one word (`slot.rs`) plus the write point that used it last. Per CPU
//! hint a small table write point → slot, so that finding the slot again touches nothing shared.
//!
//! # Protocol
//!
//! 1. Choose the slot: the one last used by this write point; else one never used; else the one
//!    the clock hand finds unused since it last came by, whose rest goes on to the new stream.
//! 2. One CAS on the slot's word takes the space. Whoever leaves less than a block closes the
//!    bucket with the same CAS.
//! 3. If the slot holds no bucket: allocate one *holding nothing*, take its pins in advance,
//!    publish it with a CAS. The loser of that race settles to pin 1, *then* gives his back.
//!
//! # Pins
//!
//! A free bucket has pin 1. Opening it adds units − 1: one pin for every unit it has, before the
//! slot is published. Every extent carries one of them (counted by `cnt` in the same CAS), so
//! the fast path never touches the bucket's word and no extent is ever unpinned. The open
//! bucket holds one for itself. Closing returns what is left of them in one subtraction.
//!
//! # Memory ordering
//!
//! Publishing a bucket is Release and taking space Acquire: the pins were taken before anybody
//! can hold an extent. The gen in the pointer is read after the CAS, under the extent's pin.
//!
//! # Progress
//!
//! Taking space is lock-free: a CAS fails only because another one succeeded. Opening a bucket
//! is as [`Allocator::try_alloc`], or blocks as asked, on nobody who holds a slot.

pub(crate) mod slot;

use crate::allocator::Allocator;
use crate::bucket_ref::BucketRef;
use crate::error::Error;
use crate::reserves::Free;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crossbeam_utils::CachePadded;
use slot::{SlotWord, Take};
use std::time::Instant;
use tierce_core::BucketId;

/// Entries of a hint table.
const HINTS: usize = 64;

/// Whose writes belong together: a hash of task, thread, tenant … as the user likes.
///
/// ```
/// use tierce_lockfree::WritePoint;
/// assert_ne!(WritePoint::new(1), WritePoint::new(2));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct WritePoint(u32);

impl WritePoint {
    /// The write point with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// What a slot that it used remembers; never 0.
    const fn tag(self) -> u64 {
        1 << 32 | self.0 as u64
    }
}

/// Space that was asked for: sectors and whose they are.
///
/// ```
/// use tierce_lockfree::{SectorRequest, WritePoint};
/// let request = SectorRequest::new(8).write_point(WritePoint::new(3));
/// assert_eq!(request.sectors(), 8);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SectorRequest {
    sectors: u32,
    write_point: WritePoint,
}

impl SectorRequest {
    /// `sectors` sectors, at least 1, for write point 0.
    ///
    /// # Panics
    ///
    /// If `sectors` is 0.
    #[must_use]
    pub const fn new(sectors: u32) -> Self {
        assert!(sectors > 0, "at least one sector");
        Self { sectors, write_point: WritePoint(0) }
    }

    /// For this write point.
    #[must_use]
    pub const fn write_point(self, write_point: WritePoint) -> Self {
        Self { write_point, ..self }
    }

    /// How many sectors are asked for.
    #[must_use]
    pub const fn sectors(&self) -> u32 {
        self.sectors
    }
}

/// A run of sectors of one bucket, the caller's to write. It holds a pin: until it is dropped
/// the bucket is not reused. Insert the key into the index *before* dropping it.
///
/// ```
/// # use tierce_lockfree::{Allocator, Config, DeviceTable, SectorRequest};
/// # use tierce_core::Geometry;
/// # let geometry = Geometry::new(1024, 1, 128, 1)?;
/// # let (allocator, mut reclaimers) = Allocator::start(
/// #     Config { sync: false, ..Config::default() }, vec![DeviceTable::empty(geometry)])?.finish();
/// # reclaimers[0].step();
/// let extent = allocator.try_alloc_sectors(&SectorRequest::new(8))?.expect("space");
/// assert_eq!(extent.sectors(), 8);
/// assert!(extent.first_sector() >= 128, "behind the superblock");
/// // … write the data, then insert the key …
/// drop(extent);
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it returns its pin"]
pub struct Extent<'a> {
    allocator: &'a Allocator,
    bucket: BucketRef,
    offset: u32,
    sectors: u32,
}

impl Extent<'_> {
    /// The bucket, with the gen that a pointer to this extent carries.
    #[must_use]
    pub fn bucket_ref(&self) -> BucketRef {
        self.bucket
    }

    /// Where it begins, in sectors from the start of the bucket.
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// How long it is, in sectors: at most what was asked for, at least 1.
    #[must_use]
    pub fn sectors(&self) -> u32 {
        self.sectors
    }

    /// Where it begins, in sectors from the start of the device.
    #[must_use]
    pub fn first_sector(&self) -> u64 {
        let geometry = self.allocator.geometry(self.bucket.device());
        geometry.first_sector(self.bucket.bucket()) + u64::from(self.offset)
    }

    /// The bucket is about to hold the only copy of something. Call it before the data may be
    /// that. Wait-free but for others who change the same bucket.
    pub fn mark_dirty(&self) {
        let table = self.allocator.devices()[self.bucket.device().as_usize()].table();
        table.mark_dirty(self.bucket.bucket());
    }
}

impl Drop for Extent<'_> {
    fn drop(&mut self) {
        let device = &self.allocator.devices()[self.bucket.device().as_usize()];
        device.table().unpin(self.bucket.bucket(), 1);
    }
}

#[derive(Debug)]
struct Slot {
    word: AtomicU64,
    /// The write point that used it last; 0: never used.
    tag: AtomicU64,
    /// 1 since it was used, 0 since the clock hand came by.
    used: AtomicU32,
}

#[derive(Debug)]
struct Hints([AtomicU32; HINTS]);

/// The open buckets of a set.
#[derive(Debug)]
pub(crate) struct OpenBuckets {
    slots: Box<[CachePadded<Slot>]>,
    hints: Box<[CachePadded<Hints>]>,
    hand: CachePadded<AtomicUsize>,
}

impl OpenBuckets {
    pub(crate) fn new(slots: u32, cpus: usize) -> Self {
        let slot = |_| {
            CachePadded::new(Slot {
                word: AtomicU64::new(SlotWord::default().bits()),
                tag: AtomicU64::new(0),
                used: AtomicU32::new(0),
            })
        };
        let hints = |_| CachePadded::new(Hints(core::array::from_fn(|_| AtomicU32::new(0))));
        Self {
            slots: (0..slots).map(slot).collect(),
            hints: (0..cpus.max(1)).map(hints).collect(),
            hand: CachePadded::new(AtomicUsize::new(0)),
        }
    }

    /// The slot that `write_point` writes to.
    fn choose(&self, write_point: WritePoint) -> &Slot {
        let hints = &self.hints[crate::hint::place(self.hints.len())];
        let hint = &hints.0[write_point.0 as usize % HINTS];
        // Relaxed (all in this function): hints. When wrong they cost locality, never safety.
        let guess = hint.load(Ordering::Relaxed) as usize;
        let slot = match self.slots.get(guess.wrapping_sub(1)) {
            Some(slot) if slot.tag.load(Ordering::Relaxed) == write_point.tag() => slot,
            _ => {
                let found = self.find(write_point);
                hint.store(found as u32 + 1, Ordering::Relaxed);
                &self.slots[found]
            }
        };
        if slot.used.load(Ordering::Relaxed) == 0 {
            slot.used.store(1, Ordering::Relaxed);
        }
        slot
    }

    #[cold]
    fn find(&self, write_point: WritePoint) -> usize {
        let tag = write_point.tag();
        // Relaxed (all in this function): as in `choose`.
        let position = |tag| self.slots.iter().position(|s| s.tag.load(Ordering::Relaxed) == tag);
        if let Some(mine) = position(tag) {
            return mine;
        }
        while let Some(unused) = position(0) {
            let slot = &self.slots[unused].tag;
            if slot.compare_exchange(0, tag, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return unused;
            }
        }
        // Twice around at most: the first round clears every mark.
        for _ in 0..2 * self.slots.len() {
            let at = self.hand.fetch_add(1, Ordering::Relaxed) % self.slots.len();
            if self.slots[at].used.swap(0, Ordering::Relaxed) == 0 {
                self.slots[at].tag.store(tag, Ordering::Relaxed);
                return at;
            }
        }
        // Others use them faster than the hand turns: any will do.
        let at = write_point.0 as usize % self.slots.len();
        self.slots[at].tag.store(tag, Ordering::Relaxed);
        at
    }

    /// Space for `request`; `None` if there is none and the caller does not want to wait.
    pub(crate) fn alloc<'a>(
        &self,
        allocator: &'a Allocator,
        request: &SectorRequest,
        wait: Wait,
    ) -> Result<Option<Extent<'a>>, Error> {
        let slot = self.choose(request.write_point);
        let mut spare = Spare { allocator, bucket: None };
        loop {
            // Acquire: pairs with the Release that published the bucket: its pins are taken.
            let word = SlotWord::from_bits(slot.word.load(Ordering::Acquire));
            if let Some(bucket) = word.bucket() {
                if allocator.devices()[bucket.device().as_usize()].check().is_err() {
                    close(allocator, slot, word, bucket);
                    continue;
                }
                if let Some(extent) = self.take(allocator, slot, word, bucket, request) {
                    return Ok(Some(extent));
                }
                continue;
            }
            if spare.bucket.is_none() {
                spare.bucket = allocator.bucket_for_sectors(wait)?;
            }
            let Some(bucket) = spare.bucket else { return Ok(None) };
            if open(allocator, slot, word, bucket) {
                spare.bucket = None;
            }
        }
    }

    /// Takes space out of the open `bucket`; `None` if somebody was faster.
    fn take<'a>(
        &self,
        allocator: &'a Allocator,
        slot: &Slot,
        word: SlotWord,
        bucket: BucketId,
        request: &SectorRequest,
    ) -> Option<Extent<'a>> {
        let device = &allocator.devices()[bucket.device().as_usize()];
        let geometry = device.geometry();
        let (units, block) = (device.bucket_units(), device.units(geometry.block_sectors()));
        let wanted = device.units(request.sectors);
        let Take::Units { off, units, next, unused_pins, .. } = word.take(wanted, units, block)
        else {
            return None;
        };
        // Acquire: as the load in `alloc`. Release: closing publishes nothing, but keeps what
        // the word published. Relaxed (failure): the caller loads it again.
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        slot.word.compare_exchange(word.bits(), next.bits(), order.0, order.1).ok()?;
        if let Some(unused) = unused_pins.filter(|&unused| unused > 0) {
            device.table().unpin(bucket.bucket(), unused);
        }
        let gen_ = device.table().peek(bucket.bucket()).gen_();
        let shift = geometry.sector_shift();
        Some(Extent {
            allocator,
            bucket: BucketRef::new(bucket, gen_),
            offset: off << shift,
            sectors: (units << shift).min(request.sectors),
        })
    }

    /// Closes every open bucket: for shutdown. What remains of them is lost.
    pub(crate) fn seal(&self, allocator: &Allocator) {
        for slot in &self.slots {
            loop {
                // Acquire: as in `alloc`.
                let word = SlotWord::from_bits(slot.word.load(Ordering::Acquire));
                let Some(bucket) = word.bucket() else { break };
                if close(allocator, slot, word, bucket) {
                    break;
                }
            }
        }
    }
}

/// Takes the bucket out of the slot and returns the pins that no extent has; what remains of it
/// is lost. `false` if somebody changed the slot.
fn close(allocator: &Allocator, slot: &Slot, word: SlotWord, bucket: BucketId) -> bool {
    // AcqRel: as in `take`. Relaxed (failure): the caller looks again.
    let order = (Ordering::AcqRel, Ordering::Relaxed);
    let next = word.closed().bits();
    let closed = slot.word.compare_exchange(word.bits(), next, order.0, order.1).is_ok();
    if closed {
        let device = &allocator.devices()[bucket.device().as_usize()];
        let unused = device.bucket_units() - word.cnt();
        let unused = u16::try_from(unused).expect("a bucket has ≤ 8191 units");
        device.table().unpin(bucket.bucket(), unused);
    }
    closed
}

/// Puts `bucket` into the slot; if somebody else's is there already, `bucket` is as before.
fn open(allocator: &Allocator, slot: &Slot, word: SlotWord, bucket: BucketId) -> bool {
    let device = &allocator.devices()[bucket.device().as_usize()];
    let prepaid = u16::try_from(device.bucket_units() - 1).expect("a bucket has ≤ 8191 units");
    device.table().prepay(bucket.bucket(), prepaid);
    let next = word.opened(bucket).bits();
    // Release: the pins were taken before; pairs with the Acquire in `alloc`. Relaxed
    // (failure): the caller loads it again.
    let order = (Ordering::Release, Ordering::Relaxed);
    let opened = slot.word.compare_exchange(word.bits(), next, order.0, order.1).is_ok();
    if opened {
        allocator.note_opened(bucket.device());
    } else {
        device.table().unpin(bucket.bucket(), prepaid);
    }
    opened
}

/// How long to wait for a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    No,
    Until(Option<Instant>),
}

/// A bucket taken for a slot that somebody else has filled; it goes back.
struct Spare<'a> {
    allocator: &'a Allocator,
    bucket: Option<BucketId>,
}

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        if let Some(bucket) = self.bucket {
            let device = &self.allocator.devices()[bucket.device().as_usize()];
            // Open buckets come from `none`.
            device.give_back(Free::none(bucket.bucket()));
        }
    }
}
