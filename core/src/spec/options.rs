//! How a set and its devices are configured.

use crate::bucket::BucketIndex;
use crate::error::Error;
use crate::geometry::{Geometry, MAX_DEVICES};
use crate::policy::Policy;
use crate::reserve::Sizes;

/// Settings of a whole set.
///
/// ```
/// use tierce_core::spec::Options;
/// assert!(Options::default().invalidate_during_gc);
/// assert!(!Options::bcache().invalidate_during_gc, "the original stops invalidation");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// On: garbage collection keeps *shadow marks* and publishes them at its end, invalidation
    /// goes on meanwhile. Off: it clears the marks *in place*, and invalidation stops.
    pub invalidate_during_gc: bool,
    /// On: the buckets of an old prio chain refill the prio reserve while it has room. Off: all
    /// of them are freed.
    pub recycle_prio_chain: bool,
    /// Buckets open at once, 1 to [`MAX_OPEN_BUCKETS`].
    pub open_buckets: u16,
    /// Garbage collection is due when some bucket's `gc_gen` passes this.
    pub gc_due_gen: u8,
    /// Whether [`take_events`](super::Set::take_events) has anything to show. Off for a set that
    /// runs for hours: the list grows until it is taken.
    pub record_events: bool,
}

/// Open buckets, at most. 128 is the original's number and the default.
pub const MAX_OPEN_BUCKETS: u16 = 4096;

impl Default for Options {
    fn default() -> Self {
        Self {
            invalidate_during_gc: true,
            recycle_prio_chain: true,
            open_buckets: 128,
            gc_due_gen: 64,
            record_events: true,
        }
    }
}

impl Options {
    /// The original's behaviour: marks in place, the whole old prio chain freed.
    #[must_use]
    pub fn bcache() -> Self {
        Self { invalidate_during_gc: false, recycle_prio_chain: false, ..Self::default() }
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        if !(1..=MAX_OPEN_BUCKETS).contains(&self.open_buckets) {
            let wanted = format!("1 to {MAX_OPEN_BUCKETS}");
            return Err(Error::limit("open_buckets", self.open_buckets, wanted));
        }
        Ok(())
    }
}

/// Settings of one device.
///
/// ```
/// use tierce_core::spec::DeviceOptions;
/// use tierce_core::{Geometry, Policy, Sizes};
/// let g = Geometry::new(1024, 1, 128, 8)?;
/// let mut device = DeviceOptions::new(g, Sizes::bcache(&g, 8));
/// device.policy = Policy::Fifo;
/// device.discard = true;
/// device.validate()?;
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DeviceOptions {
    /// Its shape.
    pub geometry: Geometry,
    /// How much its lists hold.
    pub sizes: Sizes,
    /// Which bucket is reused next.
    pub policy: Policy,
    /// Whether gens are made durable before reuse. Off: a scratch cache, which starts empty every
    /// time and has no prio writes.
    pub sync: bool,
    /// Whether a bucket is discarded before it becomes free.
    pub discard: bool,
    /// How many buckets from `first_bucket` on are the journal.
    pub journal_buckets: u32,
    /// Where the draws of [`Policy::Random`] start.
    pub seed: u64,
}

impl DeviceOptions {
    /// A device that keeps its contents, reuses by lru, does not discard, and has no journal of
    /// its own.
    #[must_use]
    pub fn new(geometry: Geometry, sizes: Sizes) -> Self {
        Self {
            geometry,
            sizes,
            policy: Policy::default(),
            sync: true,
            discard: false,
            journal_buckets: 0,
            seed: 0,
        }
    }

    /// Checks the settings.
    ///
    /// The sizes may together exceed the device, other than in [`Sizes::validate`]: then a pass
    /// can never fill `free_inc`, which is worth testing.
    ///
    /// # Errors
    ///
    /// As [`Sizes::validate_each`], and [`Error::Limit`] if the journal leaves no bucket.
    pub fn validate(&self) -> Result<(), Error> {
        self.sizes.validate_each(&self.geometry, self.sync)?;
        let most = self.geometry.buckets().len() as u32 - 1;
        if self.journal_buckets > most {
            let wanted = format!("0 to {most}");
            return Err(Error::limit("journal_buckets", self.journal_buckets, wanted));
        }
        Ok(())
    }

    /// The buckets of the journal.
    pub(super) fn journal(&self) -> impl Iterator<Item = BucketIndex> + use<> {
        self.geometry.buckets().take(self.journal_buckets as usize)
    }
}

/// Checks that the devices can work together.
pub(super) fn validate_devices(devices: &[DeviceOptions]) -> Result<(), Error> {
    if devices.is_empty() || devices.len() > usize::from(MAX_DEVICES) {
        let wanted = format!("1 to {MAX_DEVICES}");
        return Err(Error::limit("devices", devices.len() as u64, wanted));
    }
    let first = devices[0].geometry;
    for device in devices {
        device.validate()?;
        for (what, found, wanted) in [
            ("bucket_sectors", device.geometry.bucket_sectors(), first.bucket_sectors()),
            ("block_sectors", device.geometry.block_sectors(), first.block_sectors()),
        ] {
            if found != wanted {
                let wanted = format!("{wanted} as on the first device of the set");
                return Err(Error::limit(what, found, wanted));
            }
        }
    }
    Ok(())
}
