//! One bucket on each of several devices, all or nothing.
//!
//! Devices that have most free for the caller come first, equal ones in device order. It never sleeps
//! holding a bucket, or two callers could wait for each other: whoever finds one of his devices
//! empty gives everything back, waits for a bucket of *that* device, and begins again with it.
//!
//! Progress: without waiting as [`Allocator::try_alloc_on`], per device. Waiting, it is passed
//! on from device to device; each wait is fair, the whole is not: a caller that wants many
//! devices can be overtaken by callers that want one.

use crate::allocation::Allocation;
use crate::allocator::Allocator;
use crate::error::Error;
use crate::no_wait;
use std::time::Instant;
use tierce_core::{DeviceIndex, Reserve};

/// What one attempt came to.
enum Attempt<'a> {
    All(Vec<Allocation<'a>>),
    Empty(DeviceIndex),
}

impl Allocator {
    /// One bucket from each of `n` different devices, in device order; `None` if one of them has
    /// nothing free, and then whatever was taken is back on its list.
    ///
    /// ```
    /// # use tierce_core::{DeviceIndex, Geometry, Reserve};
    /// # use tierce_lockfree::{Allocator, Config, DeviceTable};
    /// # let geometry = Geometry::new(1024, 1, 128, 1)?;
    /// # let tables = vec![DeviceTable::empty(geometry), DeviceTable::empty(geometry)];
    /// # let (allocator, _reclaimers) = Allocator::start(Config::default(), tables)?.finish();
    /// let copies = allocator.try_alloc_set(Reserve::Btree, 2)?.expect("both have free buckets");
    /// let devices: Vec<u8> = copies.iter().map(|copy| copy.bucket_ref().device().get()).collect();
    /// assert_eq!(devices, [0, 1]);
    /// # Ok::<(), tierce_lockfree::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::TooFewDevices`] if fewer than `n` devices work; [`Error::Closed`].
    pub fn try_alloc_set(
        &self,
        reserve: Reserve,
        n: usize,
    ) -> Result<Option<Vec<Allocation<'_>>>, Error> {
        match self.attempt_set(reserve, n, None)? {
            Attempt::All(allocations) => Ok(Some(allocations)),
            Attempt::Empty(_) => Ok(None),
        }
    }

    /// As [`try_alloc_set`](Self::try_alloc_set), waiting until `deadline` (`None`: for as long
    /// as it takes).
    ///
    /// # Errors
    ///
    /// As there, and [`Error::TimedOut`]. A device that fails while it is waited for is left
    /// out, if enough others work.
    pub fn alloc_set_until(
        &self,
        reserve: Reserve,
        n: usize,
        deadline: Option<Instant>,
    ) -> Result<Vec<Allocation<'_>>, Error> {
        no_wait::check();
        let mut held = None;
        loop {
            let empty = match self.attempt_set(reserve, n, held.take())? {
                Attempt::All(allocations) => return Ok(allocations),
                Attempt::Empty(device) => device,
            };
            held = match self.alloc_until(empty, reserve, deadline) {
                Err(Error::DeviceFailed { .. }) => None,
                allocation => Some(allocation?),
            };
        }
    }

    /// Takes one bucket of each of the `n` best devices; `held` serves for its own device.
    fn attempt_set<'a>(
        &'a self,
        reserve: Reserve,
        n: usize,
        held: Option<Allocation<'a>>,
    ) -> Result<Attempt<'a>, Error> {
        let mut working = self.ranked(reserve);
        if n == 0 || working.len() < n {
            self.devices().iter().try_for_each(|device| match device.check() {
                Err(Error::Closed) => Err(Error::Closed),
                _ => Ok(()),
            })?;
            return Err(Error::TooFewDevices { working: working.len(), wanted: n });
        }
        // Stable, so equal devices stay in order. The held one is among the chosen.
        let held_on = held.as_ref().map(|allocation| allocation.bucket_ref().device());
        working.sort_by_key(|device| held_on != Some(device.index()));
        let mut allocations: Vec<Allocation<'a>> = held.into_iter().collect();
        // The poorest first: if one has nothing, most likely nothing was taken in vain.
        for device in working[allocations.len()..n].iter().rev() {
            match self.try_alloc_on(device.index(), reserve) {
                Ok(Some(allocation)) => allocations.push(allocation),
                // What was taken is given back as `allocations` is dropped.
                Ok(None) | Err(Error::DeviceFailed { .. }) => {
                    return Ok(Attempt::Empty(device.index()));
                }
                Err(error) => return Err(error),
            }
        }
        allocations.sort_by_key(|allocation| allocation.bucket_ref().device());
        Ok(Attempt::All(allocations))
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use crate::{Allocator, Config, DeviceTable, Error};
    use std::sync::Arc;
    use std::time::Instant;
    use tierce_core::{DeviceIndex, Geometry, Reserve};

    fn set(devices: usize) -> Arc<Allocator> {
        let geometry = Geometry::new(1024, 1, 128, 1).expect("a legal shape");
        let tables = vec![DeviceTable::empty(geometry); devices];
        let started = Allocator::start(Config::default(), tables).expect("legal settings");
        started.finish().0
    }

    /// 8 buckets of the btree reserve are free on each device after start, none in `none`.
    #[test]
    fn all_or_nothing() {
        let set = set(3);
        let alone: Vec<_> = (0..8)
            .map(|_| set.try_alloc_on(DeviceIndex::new(1), Reserve::Btree).unwrap().unwrap())
            .collect();
        let free = || set.stats().devices.iter().map(|d| d.free).collect::<Vec<_>>();
        let before = free();
        assert!(set.try_alloc_set(Reserve::Btree, 3).unwrap().is_none());
        assert_eq!(free(), before, "what was taken is back where it was");
        let two = set.try_alloc_set(Reserve::Btree, 2).unwrap().unwrap();
        let devices: Vec<_> = two.iter().map(|a| a.bucket_ref().device().get()).collect();
        assert_eq!(devices, [0, 2], "the fullest device is left out");
        let late = set.alloc_set_until(Reserve::Btree, 3, Some(Instant::now()));
        assert!(matches!(late, Err(Error::TimedOut)));
        drop(alone);
        assert_eq!(set.try_alloc_set(Reserve::Btree, 3).unwrap().unwrap().len(), 3);
        assert!(matches!(set.try_alloc_set(Reserve::Btree, 4), Err(Error::TooFewDevices { .. })));
    }

    #[test]
    fn a_waiter_gets_all_its_buckets() {
        let set = set(2);
        let mut held = Vec::new();
        while let Some(two) = set.try_alloc_set(Reserve::Btree, 2).unwrap() {
            held.extend(two);
        }
        std::thread::scope(|s| {
            let waiter = s.spawn(|| set.alloc_set_until(Reserve::Btree, 2, None).unwrap().len());
            while set.stats().devices.iter().map(|d| d.waiters).sum::<u64>() == 0 {
                std::thread::yield_now();
            }
            held.clear();
            assert_eq!(waiter.join().unwrap(), 2);
        });
    }
}
