//! Space that was taken.

use super::choose::Slot;
use super::slot::SlotWord;
use crate::bucket_ref::BucketRef;
use crate::device::Device;
use crate::sync::Ordering;
use core::fmt;
use tierce_core::{BucketId, Gen};

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
#[must_use = "dropping it returns its pin"]
pub struct Extent<'a> {
    device: &'a Device,
    /// Where it comes from.
    slot: &'a Slot,
    /// What the slot's word became when its space was taken.
    left: SlotWord,
    /// Packed: what is written as one word and read as one costs no wait for the store.
    bucket: u32,
    gen_: Gen,
    offset: u32,
    sectors: u32,
}

impl<'a> Extent<'a> {
    /// Its pin has been counted in the slot.
    #[inline]
    pub(super) fn new(
        device: &'a Device,
        slot: &'a Slot,
        left: SlotWord,
        bucket: BucketRef,
        offset: u32,
        sectors: u32,
    ) -> Self {
        let (bucket, gen_) = (bucket.id().pack(), bucket.gen_());
        Self { device, slot, left, bucket, gen_, offset, sectors }
    }

    /// The bucket, with the gen that a pointer to this extent carries.
    #[must_use]
    pub fn bucket_ref(&self) -> BucketRef {
        BucketRef::new(self.id(), self.gen_)
    }

    #[inline]
    fn id(&self) -> BucketId {
        BucketId::unpack(self.bucket)
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
        self.device.geometry().first_sector(self.id().bucket()) + u64::from(self.offset)
    }

    /// The bucket is about to hold the only copy of something. Call it before the data may be
    /// that. Wait-free but for others who change the same bucket.
    pub fn mark_dirty(&self) {
        self.device.table().mark_dirty(self.id().bucket());
    }
}

impl Drop for Extent<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.return_to_slot() {
            self.device.table().unpin(self.id().bucket(), 1);
        }
    }
}

impl Extent<'_> {
    /// Makes its pin the slot's again, if its bucket is still open there. Tried twice: the bucket's
    /// word takes it in any case.
    ///
    /// What the slot holds is not loaded before: a load waits until the read-modify-write before
    /// it is over, which took half as long again, and one that fails tells as well. Nobody can
    /// have put another bucket there that looks like this one, which is still pinned.
    #[inline]
    fn return_to_slot(&self) -> bool {
        let order = if cfg!(tierce_mutant = "extent_return_relaxed") {
            Ordering::Relaxed
        } else {
            // Release: what the holder did happened before the bucket is closed; pairs with the
            // Acquire of whoever closes it.
            Ordering::Release
        };
        let mut word = self.left;
        for _ in 0..2 {
            let Some(next) = word.returned(self.id()) else { return false };
            let (old, new) = (word.bits(), next.bits());
            // Relaxed (failure): only to try again.
            match self.slot.word.compare_exchange(old, new, order, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = SlotWord::from_bits(now),
            }
        }
        false
    }
}

impl fmt::Debug for Extent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extent")
            .field("bucket", &self.bucket_ref())
            .field("offset", &self.offset)
            .field("sectors", &self.sectors)
            .finish_non_exhaustive()
    }
}
