//! Space that was taken.

use crate::bucket_ref::BucketRef;
use crate::device::Device;
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
/// #     Config::default().sync(false), vec![DeviceTable::empty(geometry)])?.finish();
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
    /// Its bucket, packed, and above it the gen. What is written as one word and read as one costs
    /// no wait for the store.
    pointer: u64,
    /// Its offset in the bucket, and above it its length, in sectors.
    run: u64,
}

impl<'a> Extent<'a> {
    /// Its pin has been counted in the slot.
    #[inline]
    pub(super) fn new(device: &'a Device, bucket: BucketRef, offset: u32, sectors: u32) -> Self {
        let pointer = u64::from(bucket.id().pack()) | u64::from(bucket.gen_().get()) << 32;
        Self { device, pointer, run: u64::from(offset) | u64::from(sectors) << 32 }
    }

    /// The bucket, with the gen that a pointer to this extent carries.
    #[must_use]
    pub fn bucket_ref(&self) -> BucketRef {
        BucketRef::new(self.id(), Gen::new((self.pointer >> 32) as u8))
    }

    #[inline]
    fn id(&self) -> BucketId {
        BucketId::unpack(self.pointer as u32)
    }

    /// Where it begins, in sectors from the start of the bucket.
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.run as u32
    }

    /// How long it is, in sectors: at most what was asked for, at least 1.
    #[must_use]
    pub fn sectors(&self) -> u32 {
        (self.run >> 32) as u32
    }

    /// Where it begins, in sectors from the start of the device.
    #[must_use]
    pub fn first_sector(&self) -> u64 {
        self.device.geometry().first_sector(self.id().bucket()) + u64::from(self.offset())
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
        self.device.table().unpin(self.id().bucket(), 1);
    }
}

impl fmt::Debug for Extent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extent")
            .field("bucket", &self.bucket_ref())
            .field("offset", &self.offset())
            .field("sectors", &self.sectors())
            .finish_non_exhaustive()
    }
}
