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
//! Up to 128 *slots*, each one word (`slot.rs`) plus what it remembers of its last use. Per CPU
//! hint two small tables, by which a stream finds its slot again without touching anything shared
//! (`choose.rs`).
//!
//! # Protocol
//!
//! 1. Choose the slot (`choose.rs` says how).
//! 2. One CAS on the slot's word takes the space. Whoever leaves less than a block closes the
//!    bucket with the same CAS.
//! 3. If the slot holds no bucket: allocate one *holding nothing*, take its pins in advance,
//!    publish it with a CAS. The loser of that race settles to pin 1, *then* gives his back, or
//!    keeps it for another slot if the winner writes data of the other class. A slot that holds
//!    a bucket of the other class, chosen because all do, is closed first.
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

mod choose;
pub(crate) mod slot;

use crate::allocation::Allocation;
use crate::allocator::Allocator;
use crate::bucket_ref::BucketRef;
use crate::error::Error;
use crate::sync::Ordering;
pub(crate) use choose::Tag;
use choose::{Hints, Slot};
use crossbeam_utils::CachePadded;
use slot::{SlotWord, Take};
use std::time::Instant;
use tierce_core::{BucketId, DeviceIndex, Reserve};

/// Whose writes belong together: a hash of task, thread, tenant … as the user likes.
///
/// ```
/// use tierce_lockfree::WritePoint;
/// assert_ne!(WritePoint::new(1), WritePoint::new(2));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct WritePoint(u64);

impl From<u64> for WritePoint {
    /// As [`new`](Self::new), for a hash of 64 bits.
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl WritePoint {
    /// The write point with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number as u64)
    }
}

/// Space that was asked for: sectors and whose they are.
///
/// ```
/// use tierce_lockfree::{SectorRequest, WritePoint};
/// let request = SectorRequest::new(8).write_point(WritePoint::new(3)).stream(7, 1000);
/// assert_eq!(request.sectors(), 8);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SectorRequest {
    sectors: u32,
    write_point: WritePoint,
    inode: u64,
    offset: u64,
    flash_only: bool,
    write_prio: bool,
}

impl SectorRequest {
    /// `sectors` sectors, at least 1, of cached data, for write point 0, not continuing
    /// anything.
    ///
    /// # Panics
    ///
    /// If `sectors` is 0.
    #[must_use]
    pub const fn new(sectors: u32) -> Self {
        assert!(sectors > 0, "at least one sector");
        Self {
            sectors,
            write_point: WritePoint(0),
            inode: 0,
            offset: 0,
            flash_only: false,
            write_prio: false,
        }
    }

    /// What is written begins at sector `offset` of the data of `inode`: a write that begins
    /// where the last one ended goes to the same bucket, whatever its write point.
    #[must_use]
    pub const fn stream(self, inode: u64, offset: u64) -> Self {
        Self { inode, offset, ..self }
    }

    /// Whether the data lives only on flash. It never shares a bucket with cached data, which can
    /// be thrown away.
    #[must_use]
    pub const fn flash_only(self, flash_only: bool) -> Self {
        Self { flash_only, ..self }
    }

    /// Whether moving GC writes: then its bucket may come from its reserve.
    #[must_use]
    pub const fn write_prio(self, write_prio: bool) -> Self {
        Self { write_prio, ..self }
    }

    const fn reserve(&self) -> Reserve {
        if self.write_prio { Reserve::MovingGc } else { Reserve::None }
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

/// The open buckets of a set.
#[derive(Debug)]
pub(crate) struct OpenBuckets {
    slots: Box<[CachePadded<Slot>]>,
    hints: Box<[CachePadded<Hints>]>,
}

impl OpenBuckets {
    pub(crate) fn new(slots: u32, cpus: usize) -> Self {
        Self {
            slots: (0..slots).map(|_| CachePadded::new(Slot::new())).collect(),
            hints: (0..cpus.max(1)).map(|_| CachePadded::new(Hints::new())).collect(),
        }
    }

    /// Space for `request`; `None` if there is none and the caller does not want to wait.
    pub(crate) fn alloc<'a>(
        &self,
        allocator: &'a Allocator,
        request: &SectorRequest,
        wait: Wait,
    ) -> Result<Option<Extent<'a>>, Error> {
        let hints = &self.hints[crate::hint::place(self.hints.len())];
        let mut spare = None;
        'choose: loop {
            let at = hints.choose(&self.slots, request);
            let slot = &self.slots[at];
            // Acquire: pairs with the Release that published the bucket: its pins are taken.
            let mut word = SlotWord::from_bits(slot.word.load(Ordering::Acquire));
            loop {
                if let Some(bucket) = word.bucket().filter(|_| serves(word, request)) {
                    if allocator.devices()[bucket.device().as_usize()].check().is_err() {
                        close(allocator, slot, word, bucket);
                    } else if let Some(extent) = self.take(allocator, slot, word, bucket, request) {
                        hints.used(slot, at, request, &extent);
                        return Ok(Some(extent));
                    }
                } else {
                    if spare.is_none() {
                        spare = allocator.bucket_for_sectors(request.reserve(), wait)?;
                    }
                    let Some(bucket) = spare.take() else { return Ok(None) };
                    if let Err(bucket) = open(allocator, slot, word, bucket, request) {
                        // Somebody else has put his bucket there, of whatever class.
                        spare = Some(bucket);
                        continue 'choose;
                    }
                }
                // Acquire: as above.
                word = SlotWord::from_bits(slot.word.load(Ordering::Acquire));
            }
        }
    }

    /// What each slot remembers that was ever used, least recently used first.
    pub(crate) fn tags(&self) -> Vec<Tag> {
        let tags = self.slots.iter().map(|slot| slot.tag());
        let mut used: Vec<_> = tags.filter(|tag| tag.used != 0).collect();
        used.sort_by_key(|tag| tag.used);
        used
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
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
        let sectors = (units << shift).min(request.sectors);
        device.counters.sectors_written.add(sectors.into());
        Some(Extent {
            allocator,
            bucket: BucketRef::new(bucket, gen_),
            offset: off << shift,
            sectors,
        })
    }

    /// Closes every open bucket, or those of one device: for shutdown. What remains of them is
    /// lost.
    pub(crate) fn seal(&self, allocator: &Allocator, device: Option<DeviceIndex>) {
        for slot in &self.slots {
            loop {
                // Acquire: as in `alloc`.
                let word = SlotWord::from_bits(slot.word.load(Ordering::Acquire));
                let mine = |bucket: &BucketId| device.is_none_or(|d| d == bucket.device());
                let Some(bucket) = word.bucket().filter(mine) else { break };
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
        // The slot's own pin, too.
        let unused = word.prepaid(device.bucket_units()) + 1;
        let unused = u16::try_from(unused).expect("a bucket has ≤ 8191 units");
        device.table().unpin(bucket.bucket(), unused);
    }
    closed
}

/// Whether `request` may take from the bucket that is open there.
fn serves(word: SlotWord, request: &SectorRequest) -> bool {
    word.is_flash_only() == request.flash_only
}

/// Puts `bucket` into the slot, closing what is open there; `Err` with it, as it was, if
/// somebody changed the slot.
fn open<'a>(
    allocator: &Allocator,
    slot: &Slot,
    mut word: SlotWord,
    bucket: Allocation<'a>,
    request: &SectorRequest,
) -> Result<(), Allocation<'a>> {
    if let Some(other) = word.bucket() {
        if !close(allocator, slot, word, other) {
            return Err(bucket);
        }
        word = word.closed();
    }
    let id = bucket.bucket_ref().id();
    let device = &allocator.devices()[id.device().as_usize()];
    let prepaid = u16::try_from(device.bucket_units() - 1).expect("a bucket has ≤ 8191 units");
    if !cfg!(tierce_mutant = "slot_before_prepay") {
        device.table().prepay(id.bucket(), prepaid);
    }
    let next = word.opened(id, request.flash_only).bits();
    // Release: the pins were taken before; pairs with the Acquire in `alloc`. Relaxed
    // (failure): the caller loads it again.
    let order = (Ordering::Release, Ordering::Relaxed);
    let opened = slot.word.compare_exchange(word.bits(), next, order.0, order.1).is_ok();
    if cfg!(tierce_mutant = "slot_before_prepay") {
        device.table().prepay(id.bucket(), prepaid);
    }
    if !opened {
        if cfg!(tierce_mutant = "spare_back_before_settled") {
            device.give_back(crate::reserves::Free::none(bucket.into_bucket().bucket()));
            device.table().unpin(id.bucket(), prepaid);
            return Ok(());
        }
        device.table().unpin(id.bucket(), prepaid);
        return Err(bucket);
    }
    allocator.note_opened(bucket.into_bucket().device());
    Ok(())
}

/// How long to wait for a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    No,
    Until(Option<Instant>),
}
