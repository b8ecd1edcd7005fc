//! From where an entry's record is to the record: memory, the write buffer, or the device.

use crate::engine::{Engine, Reads};
use crate::events::event;
use crate::index::{KeyHash, Location};
use crate::layout::{Kind, Record};
use crate::life::LifeWord;
use crate::memory::{Copied, Place};
use crate::spread::{self, Part};
use std::sync::Arc;
use tierce_core::geometry::SECTOR_BYTES;
use tierce_io::{Buffer, Request};

/// A record, as it was found.
pub(crate) enum Fetched {
    /// In memory, known to be what it should be.
    Copied(Arc<Copied>),
    /// In the write buffer.
    Buffered(Vec<u8>),
    /// On the device, from so many bytes on.
    Read(Buffer, usize),
}

/// Why a record, or a part of its value, is not there any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lost {
    /// The bucket had been reused before the read.
    Reused,
    /// The bucket was reused during the read.
    ReusedMeanwhile,
    /// The device cannot read it.
    Unreadable,
    /// What was read is something else.
    Damaged,
}

impl Fetched {
    /// The record, if it is one of that life and whole.
    pub(crate) fn record(&self, life: u64) -> Option<Record<'_>> {
        match self {
            Self::Copied(copy) => Some(copy.record()),
            Self::Buffered(bytes) => Record::decode(life, bytes),
            Self::Read(buffer, from) => Record::decode(life, &buffer[*from..]),
        }
    }
}

impl Engine {
    /// What is at `location`, in the life that `life` names.
    pub(crate) async fn fetch(
        &self,
        hash: KeyHash,
        location: Location,
        life: LifeWord,
        reads: Reads,
    ) -> Result<Fetched, Lost> {
        let place = Place { life: life.number, offset: location.offset };
        if let Some(copy) = self.memory.find(hash, place) {
            return Ok(Fetched::Copied(copy));
        }
        if life.buffered
            && let Some(life) = self.lives.find(location.bucket)
            && let Some(bytes) = life.copy(location.offset, location.bytes)
        {
            self.counters.buffer_reads.add_one();
            return Ok(Fetched::Buffered(bytes));
        }
        let block = self.layout.block;
        let start = location.offset / block * block;
        let end = (location.offset + location.bytes).next_multiple_of(block);
        let bytes = (end.min(self.layout.bucket_bytes) - start) as usize;
        let device = &self.devices[location.bucket.device().as_usize()].device;
        let offset = self.layout.start(location.bucket.bucket()) + u64::from(start);
        let request = Request::read(offset, device.buffer(bytes));
        let buffer = match reads {
            Reads::Here => device.perform(request),
            Reads::Elsewhere => device.submit(request).await,
        };
        let buffer = match buffer {
            Ok(buffer) => buffer,
            Err(error) => {
                event!(WARN, "read_failed", device = location.bucket.device(), cause = error);
                return Err(Lost::Unreadable);
            }
        };
        if let Some(allocator) = self.allocator.get() {
            allocator.account_io((bytes as u32) / SECTOR_BYTES);
        }
        Ok(Fetched::Read(buffer, (location.offset - start) as usize))
    }

    /// Keeps a copy of a record that was not fetched from one.
    pub(crate) fn keep(&self, hash: KeyHash, place: Place, fetched: &Fetched, record: &Record<'_>) {
        if !matches!(fetched, Fetched::Copied(_)) {
            self.memory.keep(hash, place, record);
        }
    }

    /// Appends the parts that `pointers` lead to; an error if one of them is gone.
    pub(crate) async fn gather(
        &self,
        pointers: &[u8],
        value: &mut Vec<u8>,
        reads: Reads,
    ) -> Result<(), Lost> {
        for part in spread::decode(pointers).ok_or(Lost::Damaged)? {
            let Part { location, life: number } = part;
            let read = self.begin_read();
            let begun = self.begin(read, location.bucket).ok_or(Lost::Reused)?;
            let life = self.lives.get(location.bucket.id());
            if life.number != number {
                return Err(Lost::Reused);
            }
            let place = Place { life: number, offset: location.offset };
            let fetched = self.fetch(place.hash(), location, life, reads).await?;
            if !self.was_there(begun, location.bucket, number) {
                return Err(Lost::ReusedMeanwhile);
            }
            let record = fetched.record(number).filter(|record| record.kind == Kind::Part);
            let record = record.ok_or(Lost::Damaged)?;
            value.extend_from_slice(record.value);
            self.keep(place.hash(), place, &fetched, &record);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::formatted;
    use crate::{Cache, Config, Stats};
    use tierce_io::{Fault, FaultKind, Operation};

    fn by_reason(stats: &Stats) -> u64 {
        let lost = stats.stale + stats.read_races + stats.corrupt + stats.read_errors;
        lost + stats.other_key + stats.expired + stats.misses_recovering
    }

    /// Also of a value in parts, whichever of them is not there.
    #[test]
    fn a_miss_has_one_reason() {
        let sim = formatted(0, 640, 16 << 10);
        let config = Config::new("sim").streams(1);
        let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
        let value = vec![7; cache.value_bytes_max(1)];
        cache.insert(b"k", &value).expect("it is spread over two buckets");
        cache.close().expect("closes");

        let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
        let mut misses = 0;
        for kind in [FaultKind::Io, FaultKind::Corrupt] {
            // The pointers, and two parts.
            for read in 0..3 {
                sim.inject(Fault::new(kind, Operation::Read, read));
                misses += u64::from(cache.get(b"k").expect("a get never fails").is_none());
                sim.clear_faults();
                let stats = cache.stats();
                assert_eq!((stats.misses, by_reason(&stats)), (misses, misses), "{stats:?}");
            }
        }
        assert_eq!((misses > 4, cache.stats().read_errors), (true, 3));
        assert_eq!(cache.get(b"k").expect("no fault"), Some(value));
        assert_eq!(cache.get(b"nothing").expect("no fault"), None);
        let stats = cache.stats();
        assert_eq!((stats.misses, by_reason(&stats)), (misses + 1, misses));
        cache.close().expect("closes");
    }
}
