//! What an allocation and a pin look like in the hands of their holder.

use crate::allocator::Allocator;
use crate::bucket_ref::BucketRef;
use crate::device::Device;
use crate::reserves::Free;
use crate::sync::Arc;
use tierce_core::{BucketId, DeviceIndex, Gen, Reserve};

/// A whole bucket, the caller's alone. Dropping it unwritten gives it back: it is free again,
/// its gen unchanged.
///
/// ```
/// # use tierce_core::{Geometry, Reserve};
/// # use tierce_lockfree::{Allocator, Config, DeviceTable};
/// # let geometry = Geometry::new(1024, 1, 128, 8)?;
/// # let (allocator, _reclaimers) =
/// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// let bucket = allocator.try_alloc(Reserve::Btree)?.expect("the reserve was filled at start");
/// let pointer = bucket.bucket_ref();
/// // … write the bucket, insert the key …
/// bucket.written();
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub struct Allocation<'a> {
    allocator: &'a Allocator,
    bucket: BucketRef,
    /// The list that it came from.
    home: Reserve,
}

impl<'a> Allocation<'a> {
    pub(crate) fn new(
        allocator: &'a Allocator,
        device: DeviceIndex,
        free: Free,
        gen_: Gen,
    ) -> Self {
        let bucket = BucketRef::new(BucketId::new(device, free.bucket), gen_);
        Self { allocator, bucket, home: free.home }
    }

    /// The bucket, with the gen that pointers to it carry.
    #[must_use]
    pub fn bucket_ref(&self) -> BucketRef {
        self.bucket
    }

    /// Where it begins, in sectors from the start of the device.
    #[must_use]
    pub fn first_sector(&self) -> u64 {
        self.allocator.geometry(self.bucket.device()).first_sector(self.bucket.bucket())
    }

    fn device(&self) -> &'a Device {
        &self.allocator.devices()[self.bucket.device().as_usize()]
    }

    /// The bucket is about to hold the only copy of something. Call it before that may be so.
    pub fn mark_dirty(&self) {
        self.device().table().mark_dirty(self.bucket.bucket());
    }

    /// It has content, and its key is in the index: the holder lets go, and the bucket is reused
    /// when its turn comes.
    pub fn written(self) {
        self.device().table().unpin(self.bucket.bucket(), 1);
        core::mem::forget(self);
    }

    /// The same bucket, held by its allocator's handle instead of a borrow: for who keeps it open
    /// over many calls.
    ///
    /// # Panics
    ///
    /// If it is another allocator's.
    pub fn into_owned(self, allocator: &Arc<Allocator>) -> OwnedAllocation {
        assert!(core::ptr::eq(self.allocator, &raw const **allocator), "another allocator's");
        let (bucket, home) = self.into_parts();
        OwnedAllocation { allocator: Arc::clone(allocator), bucket, home, held: true }
    }

    /// Its pin passes to whoever gets the pointer, and with it the list that it came from.
    pub(crate) fn into_parts(self) -> (BucketRef, Reserve) {
        let parts = (self.bucket, self.home);
        core::mem::forget(self);
        parts
    }

    /// Its pin passes to whoever gets the number.
    pub(crate) fn into_bucket(self) -> BucketId {
        let id = self.bucket.id();
        core::mem::forget(self);
        id
    }
}

impl Drop for Allocation<'_> {
    fn drop(&mut self) {
        self.device().give_back(Free { bucket: self.bucket.bucket(), home: self.home });
    }
}

/// An [`Allocation`] that borrows nothing. Dropping it unwritten gives it back.
///
/// ```
/// # use tierce_core::{Geometry, Reserve};
/// # use tierce_lockfree::{Allocator, Config, DeviceTable};
/// # let geometry = Geometry::new(1024, 1, 128, 8)?;
/// # let (allocator, _reclaimers) =
/// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// let bucket = allocator.try_alloc(Reserve::Btree)?.expect("the reserve was filled at start");
/// let open = bucket.into_owned(&allocator);
/// std::thread::spawn(move || open.written()).join().expect("no panic");
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub struct OwnedAllocation {
    allocator: Arc<Allocator>,
    bucket: BucketRef,
    home: Reserve,
    /// Not written yet.
    held: bool,
}

impl OwnedAllocation {
    /// The bucket, with the gen that pointers to it carry.
    #[must_use]
    pub fn bucket_ref(&self) -> BucketRef {
        self.bucket
    }

    /// As [`Allocation::written`].
    pub fn written(mut self) {
        self.held = false;
        let device = &self.allocator.devices()[self.bucket.device().as_usize()];
        device.table().unpin(self.bucket.bucket(), 1);
    }
}

impl Drop for OwnedAllocation {
    fn drop(&mut self) {
        if self.held {
            let device = &self.allocator.devices()[self.bucket.device().as_usize()];
            device.give_back(Free { bucket: self.bucket.bucket(), home: self.home });
        }
    }
}

/// Keeps a bucket from being reused.
///
/// ```
/// # use tierce_core::{Geometry, Reserve};
/// # use tierce_lockfree::{Allocator, Config, DeviceTable};
/// # let geometry = Geometry::new(1024, 1, 128, 8)?;
/// # let (allocator, _reclaimers) =
/// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// # let bucket = allocator.try_alloc(Reserve::Btree)?.unwrap();
/// let pointer = bucket.bucket_ref();
/// bucket.written();
/// let pin = allocator.pin(pointer).expect("not stale");
/// assert_eq!(allocator.snapshot(pointer.id()).unwrap().pin_count(), 1);
/// drop(pin);
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it lets the bucket be reused"]
pub struct PinGuard<'a> {
    allocator: &'a Allocator,
    bucket: BucketRef,
}

impl<'a> PinGuard<'a> {
    pub(crate) fn new(allocator: &'a Allocator, bucket: BucketRef) -> Self {
        Self { allocator, bucket }
    }

    /// The bucket and the gen that is frozen.
    #[must_use]
    pub fn bucket_ref(&self) -> BucketRef {
        self.bucket
    }
}

impl Drop for PinGuard<'_> {
    fn drop(&mut self) {
        let device = &self.allocator.devices()[self.bucket.device().as_usize()];
        device.pin_dropped(device.table().unpin(self.bucket.bucket(), 1));
    }
}
