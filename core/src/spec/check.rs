//! The invariants, as one walk over everything.

use super::device::{Device, Place};
use super::set::Set;
use crate::bucket::{BucketIndex, DeviceIndex};
use crate::error::Error;
use crate::reserve::Reserve;

impl Set {
    /// Checks what must hold between any two calls:
    ///
    /// 1. each bucket is in exactly one place, and on one list there;
    /// 2. on a list, in `free_inc` or in hand: pin 1, or more if a foreign pin is held;
    /// 3. set aside: pinned; in the prio chain: metadata or dirty, whatever a GC under way in
    ///    place has cleared;
    /// 4. lists hold no more than their sizes, and only buckets that can be allocated;
    /// 5. an open bucket is in one slot and pinned;
    /// 6. available ≤ nbuckets.
    ///
    /// # Errors
    ///
    /// [`Error::State`] naming the first bucket for which one does not hold.
    pub fn check(&self) -> Result<(), Error> {
        for device in self.device_indexes() {
            let d = &self.devices[device.as_usize()];
            let listed = self.walk_lists(device)?;
            for b in (0..d.words.len() as u32).map(BucketIndex::new) {
                self.check_bucket(device, b, listed[b.as_usize()])?;
            }
        }
        if self.available > self.nbuckets() {
            return Err(Error::state("available", self.available, "at most nbuckets"));
        }
        Ok(())
    }

    /// How often each bucket is on any list or in a slot, having checked that its place says
    /// which.
    fn walk_lists(&self, device: DeviceIndex) -> Result<Vec<u8>, Error> {
        let d = &self.devices[device.as_usize()];
        let mut listed = vec![0u8; d.words.len()];
        let mut see = |b: BucketIndex, place: Place| {
            if d.place(b) != place || listed[b.as_usize()] != 0 {
                let found = format!("{place:?} and {:?}", d.place(b));
                return Err(Error::state(format!("bucket {device}:{b}"), found, "one place"));
            }
            listed[b.as_usize()] = 1;
            Ok(())
        };
        for reserve in Reserve::ALL {
            d.check_size(reserve)?;
            d.list(reserve).iter().try_for_each(|&b| see(b, Place::Free(reserve)))?;
        }
        d.free_inc.iter().try_for_each(|&b| see(b, Place::FreeInc))?;
        d.ready.iter().try_for_each(|&b| see(b, Place::Ready))?;
        d.set_aside.iter().try_for_each(|&b| see(b, Place::SetAside))?;
        d.chain.iter().try_for_each(|&b| see(b, Place::PrioChain))?;
        self.slots()
            .filter(|s| s.bucket.device() == device && s.sectors_left > 0)
            .try_for_each(|s| see(s.bucket.bucket(), Place::Open))?;
        Ok(listed)
    }

    fn check_bucket(&self, device: DeviceIndex, b: BucketIndex, listed: u8) -> Result<(), Error> {
        let d = &self.devices[device.as_usize()];
        let word = d.word(b);
        let in_place_gc = !self.marks_valid;
        let (holds, wanted) = match d.place(b) {
            Place::Out => (listed == 0, "on no list"),
            _ if listed != 1 || !d.options.geometry.contains(b) => (false, "on its list"),
            Place::PrioChain => {
                (in_place_gc || !word.mark().is_reclaimable(), "a mark that protects it")
            }
            Place::SetAside => (word.pin_count() > 1, "a foreign pin"),
            Place::Open | Place::Free(_) | Place::FreeInc | Place::Ready => {
                (word.pin_count() >= 1, "pin 1")
            }
        };
        if holds {
            return Ok(());
        }
        let found = format!("{:?}, on {listed} lists, {word:?}", d.place(b));
        Err(Error::state(format!("bucket {device}:{b}"), found, wanted))
    }
}

impl Device {
    fn check_size(&self, reserve: Reserve) -> Result<(), Error> {
        let (len, size) = (self.list(reserve).len(), self.options.sizes.of(reserve));
        if len > size as usize || self.free_inc.len() > self.options.sizes.free_inc as usize {
            let found = format!("{len} in {reserve}, {} in free_inc", self.free_inc.len());
            return Err(Error::state("free lists", found, "at most their sizes"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
