//! A bucket and the gen it had: what every pointer into it boils down to.

use core::fmt;
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen};

/// A bucket in one of its lives. Stale as soon as the bucket's gen has moved on.
///
/// ```
/// use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen};
/// use tierce_lockfree::BucketRef;
/// let id = BucketId::new(DeviceIndex::FIRST, BucketIndex::new(9));
/// let pointer = BucketRef::new(id, Gen::new(3));
/// assert_eq!(pointer.to_string(), "0:9@3");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketRef {
    id: BucketId,
    gen_: Gen,
}

impl BucketRef {
    /// The life of bucket `id` in which it had gen `gen_`.
    #[must_use]
    pub const fn new(id: BucketId, gen_: Gen) -> Self {
        Self { id, gen_ }
    }

    /// The bucket, in its set.
    #[must_use]
    pub const fn id(self) -> BucketId {
        self.id
    }

    /// The device.
    #[must_use]
    pub const fn device(self) -> DeviceIndex {
        self.id.device()
    }

    /// The bucket, on its device.
    #[must_use]
    pub const fn bucket(self) -> BucketIndex {
        self.id.bucket()
    }

    /// The gen.
    #[must_use]
    pub const fn gen_(self) -> Gen {
        self.gen_
    }
}

impl fmt::Display for BucketRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.gen_)
    }
}

impl fmt::Debug for BucketRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.id, self.gen_)
    }
}
