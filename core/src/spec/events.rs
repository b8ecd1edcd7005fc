//! What happened, in order.
//!
//! The order is what a test looks at: that a bucket was released only after the prio write that
//! made its gen durable shows as `PrioWritten` before `Released`. Recording can be switched off
//! ([`Options::record_events`](super::Options)).

use crate::bucket::{BucketId, DeviceIndex};
use crate::reserve::Reserve;

/// One step of the background run.
///
/// ```
/// use tierce_core::spec::{DeviceOptions, Event, Options, Set, Wait};
/// use tierce_core::{DeviceIndex, Geometry, Sizes};
/// let g = Geometry::new(1024, 1, 128, 8)?;
/// let device = DeviceOptions::new(g, Sizes::bcache(&g, 8));
/// let mut set = Set::new(Options::bcache(), vec![device])?;
/// set.start()?;
/// set.take_events();
/// assert_eq!(set.step(DeviceIndex::FIRST), Wait::Push);
/// let events = set.take_events();
/// assert!(matches!(events[0], Event::Invalidated { sectors: 0, .. }));
/// let written = events.iter().position(|e| matches!(e, Event::PrioWritten { seq: 1, .. }));
/// let released = events.iter().position(|e| matches!(e, Event::Released { .. }));
/// assert!(written < released, "first durable, then reusable");
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The bucket's gen advanced and it waits in `free_inc`. `sectors` were live in it: 0 means
    /// that nobody has to be told.
    Invalidated {
        /// Which bucket.
        bucket: BucketId,
        /// Live sectors at that moment, in sectors, saturated.
        sectors: u32,
    },
    /// Prio set `index` was written into `bucket`.
    PrioImage {
        /// Which part of the table, 0 is the head of the chain.
        index: u32,
        /// Where it went.
        bucket: BucketId,
    },
    /// A bucket of the previous chain was released.
    PrioFreed {
        /// Which bucket.
        bucket: BucketId,
    },
    /// The new chain is durable and published; the old one is released.
    PrioWritten {
        /// Of which device.
        device: DeviceIndex,
        /// The number of this prio write; the first is 1.
        seq: u64,
    },
    /// The device was told that the bucket's content is dead.
    Discarded {
        /// Which bucket.
        bucket: BucketId,
    },
    /// The bucket went to a free list.
    Released {
        /// Which bucket.
        bucket: BucketId,
        /// Which list.
        reserve: Reserve,
    },
}
