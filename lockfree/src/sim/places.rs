//! Where each bucket is, found by looking everywhere: the allocator itself keeps no such record.

use super::{Result, Scripted, State, refused};
use crate::device::Device;
use tierce_core::spec::Place;
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Mark, Reserve, Snapshot};

impl Scripted {
    /// A free list, oldest first.
    pub(super) fn free_list(&self, device: &Device, reserve: Reserve) -> Vec<BucketIndex> {
        device.reserves().list(reserve)
    }

    /// Every bucket that is neither full nor with an owner, and where it is.
    pub(super) fn places(&self, index: DeviceIndex) -> Vec<(BucketIndex, Place)> {
        let device = self.device(index);
        let mut places = Vec::new();
        let mut put = |buckets: Vec<BucketIndex>, place: Place| {
            places.extend(buckets.into_iter().map(|bucket| (bucket, place)));
        };
        for reserve in Reserve::ALL {
            put(self.free_list(device, reserve), Place::Free(reserve));
        }
        if let Some(running) = self.running() {
            let reclaimer = &running.reclaimers[index.as_usize()];
            put(reclaimer.waiting().collect(), Place::FreeInc);
            put(reclaimer.in_hand().into_iter().collect(), Place::Ready);
        }
        // Nobody else runs: taken, and put back.
        for bucket in device.take_leftovers() {
            let aside = device.table().peek(bucket).pin_count() > 1;
            let pile = if aside { &device.set_aside } else { &device.leftovers };
            pile.put(bucket);
            put(vec![bucket], if aside { Place::SetAside } else { Place::Ready });
        }
        put(device.chain.lock().live.clone(), Place::PrioChain);
        let tags = self.allocator().open_buckets().tags();
        let open = tags.iter().filter_map(|tag| tag.word.bucket());
        let mine = open.filter(|bucket| bucket.device() == index);
        put(mine.map(BucketId::bucket).collect(), Place::Open);
        places
    }

    /// Where one bucket is.
    pub(super) fn place(&self, bucket: BucketId) -> Place {
        let places = self.places(bucket.device());
        let found = places.into_iter().find(|&(b, _)| b == bucket.bucket());
        found.map_or(Place::Out, |(_, place)| place)
    }

    /// The bucket's word, or an error that names it.
    pub(super) fn locate(&self, bucket: BucketId) -> Result<Snapshot> {
        let found = self.allocator().snapshot(bucket).map(|word| self.as_users_see(bucket, word));
        found.ok_or_else(|| refused(format!("bucket {bucket}"), "none", "a bucket of the set"))
    }

    /// Without the pins that an open bucket took in advance; during start-up with the marks that
    /// a collection in place would have made.
    pub(super) fn as_users_see(&self, bucket: BucketId, word: Snapshot) -> Snapshot {
        let word = word.with_pin(word.pin_count() - self.prepaid(bucket));
        match &self.state {
            // What was observed is not published yet, and its pins are marks of the start-up.
            State::Starting(startup) => {
                let in_place = !self.options.invalidate_during_gc;
                let found = if in_place { startup.found(bucket) } else { (Mark::Metadata, 0) };
                word.with_mark(found.0).with_sectors(found.1).with_pin(0)
            }
            _ => word,
        }
    }

    /// Pins of an open bucket that no extent has yet.
    pub(super) fn prepaid(&self, bucket: BucketId) -> u16 {
        let tags = self.allocator().open_buckets().tags();
        let open = tags.iter().find(|tag| tag.word.bucket() == Some(bucket));
        let units = self.device(bucket.device()).bucket_units();
        open.map_or(0, |tag| tag.word.prepaid(units) as u16)
    }

    /// Each bucket is in one place at most, pinned as that place wants it.
    pub(super) fn check_places(&self, index: DeviceIndex) -> Result<()> {
        let device = self.device(index);
        let mut seen = vec![false; device.table().len()];
        for (bucket, place) in self.places(index) {
            let id = BucketId::new(index, bucket);
            let word = self.locate(id)?;
            let marks_valid = self.running().is_some() && self.allocator().gc_state().marks_valid();
            let holds = match place {
                _ if seen[bucket.as_usize()] || !device.geometry().contains(bucket) => false,
                Place::PrioChain => !marks_valid || !word.mark().is_reclaimable(),
                Place::SetAside => word.pin_count() > 1,
                Place::Out => true,
                Place::Open | Place::Free(_) | Place::FreeInc | Place::Ready => {
                    word.pin_count() >= 1
                }
            };
            if !holds {
                let found = format!("{place:?} (again: {}), {word:?}", seen[bucket.as_usize()]);
                return Err(refused(format!("bucket {id}"), found, "one place, and its pin"));
            }
            seen[bucket.as_usize()] = true;
        }
        Ok(())
    }
}
