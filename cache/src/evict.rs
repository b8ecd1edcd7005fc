//! Before the content of buckets goes for good: whatever must not come back without it is written
//! down, see [`crate::lineage`] and [`crate::void`].

use crate::engine::{Disk, Engine};
use crate::events::event;
use crate::layout::Dead;
use crate::void::Void;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};
use tierce_core::{BucketId, BucketIndex, DeviceIndex, broken};
use tierce_io::{Completion, DeviceExt, Request};

/// How many lists of dead records are on their way to the devices at a time, at most.
const LISTS_AT_A_TIME: usize = 8;

impl Engine {
    /// The content of `buckets` of `device` is about to go for good, see [`Lineage`].
    pub(crate) fn evict(
        &self,
        device: DeviceIndex,
        buckets: &[BucketIndex],
    ) -> Result<(), tierce_io::Error> {
        event!(DEBUG, "evicted", device = device, buckets = buckets.len());
        let ids = buckets.iter().map(|&bucket| BucketId::new(device, bucket)).collect();
        let _one_at_a_time = self.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = self.lineage.evict(&ids, &self.lives, &self.layout);
        if changed.is_empty() {
            return Ok(());
        }
        // The records that the dead give way to become durable first. They are in buckets that are
        // about to go, and were written; but a power loss before they have gone could take them
        // and leave the lists: a value that was durable would be lost.
        let mut own = match broken!("dead_before_newer") {
            true => Ok(()),
            false => self.devices[device.as_usize()].device.flush(),
        };
        let mut void = Vec::new();
        while !changed.is_empty() {
            let (lost, written) = self.write_dead(device, &changed);
            // Its notes are used up, so the other lists are written all the same.
            own = own.and(written);
            changed.clear();
            for (other, error) in lost {
                self.allocator().fail(other, Arc::new(error));
                // It will not come back, so it is as if all of its buckets went now.
                let noted = self.lineage.noted().into_iter();
                let gone = noted.filter(|id| id.device() == other).collect();
                changed.extend(self.lineage.evict(&gone, &self.lives, &self.layout));
                void.push(other);
            }
        }
        if void.is_empty() || broken!("no_void") {
            return own;
        }
        // Only now: what its records took the place of is dead, durably.
        own?;
        self.devices[device.as_usize()].device.flush()?;
        let told = void.into_iter().map(|other| self.declare_void(other, device));
        told.fold(Ok(()), Result::and)
    }

    /// The content of `buckets` of `device` is gone for good.
    pub(crate) fn gone(&self, device: DeviceIndex, buckets: &[BucketIndex]) {
        for &bucket in buckets {
            let id = BucketId::new(device, bucket);
            self.lives.end(id);
            self.lineage.gone(id);
        }
    }

    /// Writes lists of dead records, durably but for those on `device`. Returns the other devices
    /// that cannot be written, and what became of those on `device`.
    fn write_dead(
        &self,
        device: DeviceIndex,
        changed: &BTreeMap<BucketId, (u64, Dead)>,
    ) -> (Vec<(DeviceIndex, tierce_io::Error)>, Result<(), tierce_io::Error>) {
        let (mut others, mut lost, mut own) = (BTreeSet::new(), Vec::new(), Ok(()));
        let mut settle = |(number, write): (DeviceIndex, Completion)| match write.wait() {
            Ok(_) if number == device => {}
            Ok(_) => drop(others.insert(number.get())),
            Err(error) if number == device => own = Err(error),
            Err(_) if lost.iter().any(|(lost, _)| *lost == number) => {}
            Err(error) => lost.push((number, error)),
        };
        // Many at a time: one after the other they would take longer than all that follows, and
        // who waits for a bucket waits for them.
        let mut writes = VecDeque::with_capacity(LISTS_AT_A_TIME);
        for (id, (life, dead)) in changed {
            let Disk { device: disk, uuid, .. } = &self.devices[id.device().as_usize()];
            if self.void().contains(*uuid, *life) {
                continue;
            }
            if writes.len() == LISTS_AT_A_TIME {
                writes.pop_front().map(&mut settle);
            }
            let offset = self.layout.start(id.bucket()) + u64::from(self.layout.dead);
            let list = dead.encode(&self.layout, *life);
            let mut buffer = disk.buffer(list.len());
            buffer.copy_from_slice(&list);
            self.counters.dead_lists_written.add_one();
            writes.push_back((id.device(), disk.submit(Request::write(offset, buffer))));
        }
        writes.into_iter().for_each(settle);
        for other in others.into_iter().map(DeviceIndex::new) {
            let is_lost = lost.iter().any(|(lost, _)| *lost == other);
            if !is_lost && let Err(error) = self.devices[other.as_usize()].device.flush() {
                lost.push((other, error));
            }
        }
        (lost, own)
    }

    pub(crate) fn void(&self) -> MutexGuard<'_, Void> {
        // No code that can panic runs under the lock.
        self.void.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `lost` goes on without knowing what happens from now on: the others say so, `teller` among
    /// them.
    fn declare_void(&self, lost: DeviceIndex, teller: DeviceIndex) -> Result<(), tierce_io::Error> {
        let void = {
            let mut void = self.void();
            void.insert(self.devices[lost.as_usize()].uuid, self.tick());
            void.clone()
        };
        for (number, disk) in (0..).zip(&self.devices) {
            let number = DeviceIndex::new(number);
            if number == lost {
                continue;
            }
            match void.write(&*disk.device) {
                Err(error) if number == teller => return Err(error),
                Err(error) => self.allocator().fail(number, Arc::new(error)),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::formatted;
    use crate::{Cache, Config};
    use std::sync::atomic::Ordering;
    use tierce_core::{DeviceIndex, Policy};

    /// The third of three values is written, not flushed, and its bucket about to go, when the
    /// power fails. The second was durable: it comes back, or the third does.
    #[test]
    fn what_dies_gave_way_to_something_durable() {
        for seed in 0..100 {
            let sim = formatted(seed, 640, 16 << 10);
            // FIFO comes to none of these again; LRU hardly knows old from new in so young a cache.
            let config = Config::new("sim").streams(1).policy(Policy::Fifo);
            let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
            // One fills a bucket.
            let value = |version| vec![version; 14_500];
            cache.insert(b"key", &value(1)).expect("room");
            cache.insert_durable(b"key", &value(2)).expect("room");
            cache.insert(b"key", &value(3)).expect("room");
            cache.insert(b"another", &value(0)).expect("room");
            let engine = &cache.engine();
            let third = engine.index.get(engine.hash(b"key").expect("a key")).expect("it is there");
            while engine.lives.get(third.bucket.id()).buffered {
                std::thread::yield_now(); // until its summary is written
            }
            engine.evict(DeviceIndex::FIRST, &[third.bucket.bucket()]).expect("it has power");

            let after = sim.power_loss();
            drop(cache);
            let cache = Cache::open_on(&config, vec![after]).expect("opens");
            let found = cache.get(b"key").expect("a get never fails");
            let found = found.and_then(|value| value.first().copied());
            assert!(matches!(found, Some(2 | 3)), "seed {seed}: version {found:?}");
        }
    }

    /// Runs begin at round numbers, so lives of different runs may end alike. Here all do.
    #[test]
    fn what_is_in_a_bucket_does_not_die_for_what_was() {
        let sim = formatted(0, 640, 16 << 10);
        let config = Config::new("sim").streams(1).cpus(1).policy(Policy::Fifo);
        let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
        let begin = cache.engine().tick() >> 44;
        // One fills a bucket. Every key has two values, 200 buckets apart, for a good two rounds.
        let key = |n: u64| (n / 400 * 200 + n % 200).to_le_bytes();
        for n in 0..1500 {
            // Relaxed: one thread.
            cache.engine().ticks.store((begin + n + 1) << 44, Ordering::Relaxed);
            cache.insert(&key(n), &[n as u8; 14_500]).expect("room");
        }
        // The older value goes first: nothing that is there has to die.
        assert_eq!(cache.stats().dead_lists_written, 0);
        cache.close().expect("closes");
    }
}
