//! What an allocation and a pin look like in the hands of their holder.

use crate::allocator::Allocator;
use crate::bucket_ref::BucketRef;
use crate::device::Device;
use crate::reserves::Free;
use crate::sync::Arc;
use tierce_core::{BucketId, BucketIndex, Gen, Reserve};

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
    device: &'a Device,
    what: Packed,
}

/// Bucket, gen and the list that it came from, in one word.
///
/// As fields of their own they would be stored byte by byte and read back in larger pieces
/// wherever an allocation is moved, which stalls the processor longer than a cache miss of the
/// first level: it cost more than the atomic operations.
#[derive(Clone, Copy)]
struct Packed(u64);

const COMMON: usize = Reserve::None as usize;

impl Packed {
    #[inline]
    fn new(free: Free, gen_: Gen) -> Self {
        let number = u64::from(free.bucket.get());
        Self(number | u64::from(gen_.get()) << 32 | (free.home as u64) << 40)
    }

    #[inline]
    fn bucket(self) -> BucketIndex {
        BucketIndex::new(self.0 as u32)
    }

    #[inline]
    fn gen_(self) -> Gen {
        Gen::new((self.0 >> 32) as u8)
    }

    #[inline]
    fn home(self) -> Reserve {
        match (self.0 >> 40) as usize {
            COMMON => Reserve::None,
            other => Reserve::ALL[other % Reserve::COUNT],
        }
    }

    #[inline]
    fn free(self) -> Free {
        Free { bucket: self.bucket(), home: self.home() }
    }
}

impl core::fmt::Debug for Packed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}@{} of {}", self.bucket(), self.gen_(), self.home())
    }
}

impl<'a> Allocation<'a> {
    #[inline]
    pub(crate) fn new(device: &'a Device, free: Free, gen_: Gen) -> Self {
        Self { device, what: Packed::new(free, gen_) }
    }

    /// The bucket, with the gen that pointers to it carry.
    #[must_use]
    #[inline]
    pub fn bucket_ref(&self) -> BucketRef {
        let id = BucketId::new(self.device.index(), self.what.bucket());
        BucketRef::new(id, self.what.gen_())
    }

    /// Where it begins, in sectors from the start of the device.
    #[must_use]
    pub fn first_sector(&self) -> u64 {
        self.device.geometry().first_sector(self.what.bucket())
    }

    /// The bucket is about to hold the only copy of something. Call it before that may be so:
    /// whoever sees the allocation's pin returned sees the mark. Lock-free.
    pub fn mark_dirty(&self) {
        self.device.table().mark_dirty(self.what.bucket());
    }

    /// It has content, and its key is in the index: the holder lets go, and the bucket is reused
    /// when its turn comes. What was written before happens before whatever the bucket's next
    /// owner does. Wait-free.
    #[inline]
    pub fn written(self) {
        self.device.table().unpin(self.what.bucket(), 1);
        core::mem::forget(self);
    }

    /// The same bucket, held by its allocator's handle instead of a borrow: for who keeps it open
    /// over many calls.
    ///
    /// # Panics
    ///
    /// If it is another allocator's.
    pub fn into_owned(self, allocator: &Arc<Allocator>) -> OwnedAllocation {
        let same = allocator.devices().get(self.device.index().as_usize());
        let is_its = same.is_some_and(|same| core::ptr::eq(self.device, same));
        assert!(is_its, "another allocator's");
        let (bucket, home) = self.into_parts();
        OwnedAllocation { allocator: Arc::clone(allocator), bucket, home, held: true }
    }

    /// Its pin passes to whoever gets the pointer, and with it the list that it came from.
    pub(crate) fn into_parts(self) -> (BucketRef, Reserve) {
        let parts = (self.bucket_ref(), self.what.home());
        core::mem::forget(self);
        parts
    }

    /// Its pin passes to whoever gets the number.
    pub(crate) fn into_bucket(self) -> BucketId {
        let id = self.bucket_ref().id();
        core::mem::forget(self);
        id
    }
}

impl Drop for Allocation<'_> {
    #[inline]
    fn drop(&mut self) {
        self.device.give_back(self.what.free());
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
/// let for_somebody_else = pin.clone_pin();
/// drop(pin);
/// assert_eq!(allocator.snapshot(pointer.id()).unwrap().pin_count(), 1);
/// # drop(for_somebody_else);
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

    /// Another pin of the same bucket, to be kept and dropped on its own. `None` if 49 152 pins
    /// are held already. Wait-free: unlike [`Allocator::pin`] it has nothing to check.
    #[must_use]
    pub fn clone_pin(&self) -> Option<Self> {
        let table = self.allocator.devices()[self.bucket.device().as_usize()].table();
        table.clone_pin(self.bucket.bucket()).then(|| Self::new(self.allocator, self.bucket))
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

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        for home in Reserve::ALL {
            let free = Free { bucket: BucketIndex::new(u32::MAX), home };
            let packed = Packed::new(free, Gen::new(255));
            assert_eq!((packed.free(), packed.gen_()), (free, Gen::new(255)));
        }
    }
}
