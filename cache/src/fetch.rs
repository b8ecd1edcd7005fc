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
    /// What is at `location`, in the life that `life` names. `None`: the device cannot read it.
    pub(crate) async fn fetch(
        &self,
        hash: KeyHash,
        location: Location,
        life: LifeWord,
        reads: Reads,
    ) -> Option<Fetched> {
        let place = Place { life: life.number, offset: location.offset };
        if let Some(copy) = self.memory.find(hash, place) {
            return Some(Fetched::Copied(copy));
        }
        if life.buffered
            && let Some(life) = self.lives.find(location.bucket)
            && let Some(bytes) = life.copy(location.offset, location.bytes)
        {
            self.counters.buffer_reads.add_one();
            return Some(Fetched::Buffered(bytes));
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
                self.counters.read_errors.add_one();
                event!(WARN, "read_failed", device = location.bucket.device(), cause = error);
                return None;
            }
        };
        if let Some(allocator) = self.allocator.get() {
            allocator.account_io((bytes as u32) / SECTOR_BYTES);
        }
        Some(Fetched::Read(buffer, (location.offset - start) as usize))
    }

    /// Keeps a copy of a record that was not fetched from one.
    pub(crate) fn keep(&self, hash: KeyHash, place: Place, fetched: &Fetched, record: &Record<'_>) {
        if !matches!(fetched, Fetched::Copied(_)) {
            self.memory.keep(hash, place, record);
        }
    }

    /// Appends the parts that `pointers` lead to; false if one of them is gone.
    pub(crate) async fn gather(&self, pointers: &[u8], value: &mut Vec<u8>, reads: Reads) -> bool {
        let Some(parts) = spread::decode(pointers) else { return false };
        for part in parts {
            let Part { location, life: number } = part;
            let read = self.begin_read();
            let Some(begun) = self.begin(read, location.bucket) else { return false };
            let life = self.lives.get(location.bucket.id());
            let place = Place { life: number, offset: location.offset };
            let fetched = self.fetch(place.hash(), location, life, reads).await;
            let valid = life.number == number && self.was_there(begun, location.bucket, number);
            let Some(fetched) = fetched.filter(|_| valid) else { return false };
            match fetched.record(number) {
                Some(record) if record.kind == Kind::Part => {
                    value.extend_from_slice(record.value);
                    self.keep(place.hash(), place, &fetched, &record);
                }
                _ => return false,
            }
        }
        true
    }
}
