//! Choosing buckets whose live data is worth moving out.
//!
//! A bucket that is nearly empty wastes its rest for as long as its last sectors live. Moving GC
//! rewrites those sectors elsewhere, with requests that may use its own reserve
//! ([`SectorRequest::write_prio`](crate::SectorRequest::write_prio)), and the bucket can be
//! reused as a whole. The emptiest go first, and only as many as that reserve can take up.

use crate::allocator::Allocator;
use tierce_core::{BucketIndex, DeviceIndex, Mark, Reserve};

impl Allocator {
    /// Chooses the buckets of a device that are worth moving out, flags them, and returns them,
    /// emptiest first, equal ones by number: neither metadata nor pinned, partly full, their live
    /// sectors together at most what the `moving_gc` reserve holds. The owner of the index
    /// rewrites the keys that point into them, taking a pin on each while he reads it. Flags of
    /// an earlier round are cleared. `None` while marks are not valid
    /// ([`Config::invalidate_during_gc`](crate::Config)).
    ///
    /// Looks at every bucket of the device; flags are hints.
    ///
    /// ```
    /// # use tierce_core::{DeviceIndex, Geometry};
    /// # use tierce_lockfree::{Allocator, Config, DeviceTable};
    /// # let geometry = Geometry::new(1024, 1, 128, 1)?;
    /// # let (allocator, _reclaimers) =
    /// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
    /// assert_eq!(allocator.moving_candidates(DeviceIndex::FIRST), Some(vec![]));
    /// # Ok::<(), tierce_lockfree::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If the set has no such device.
    #[must_use]
    pub fn moving_candidates(&self, device: DeviceIndex) -> Option<Vec<BucketIndex>> {
        if !self.gc_state().marks_valid() {
            return None;
        }
        let device = &self.devices()[device.as_usize()];
        let (table, whole) = (device.table(), device.bucket_units());
        let mut worth = Vec::new();
        for bucket in device.geometry().buckets() {
            table.set_moving(bucket, false);
            let word = table.peek(bucket);
            let partly_full = (1..whole).contains(&u32::from(word.sectors()));
            if partly_full && word.pin_count() == 0 && word.mark() != Mark::Metadata {
                worth.push((word.sectors(), bucket));
            }
        }
        worth.sort_unstable();
        let reserve = device.reserves().len_hint(Reserve::MovingGc) as u64;
        let mut room = u64::from(whole) * reserve;
        let fits = |&(sectors, _): &(u16, BucketIndex)| {
            let left = room.checked_sub(u64::from(sectors));
            left.inspect(|&left| room = left).is_some()
        };
        let chosen: Vec<_> = worth.into_iter().take_while(fits).map(|(_, bucket)| bucket).collect();
        chosen.iter().for_each(|&bucket| table.set_moving(bucket, true));
        Some(chosen)
    }
}
