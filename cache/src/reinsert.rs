//! Reinsertion: what was hit is written anew before its bucket goes.
//!
//! # Problem
//!
//! A bucket is reused as a whole, also if some of its entries are needed all the time. And a scan
//! writes many buckets that nobody reads again, which drive out what is read.
//!
//! # Protocol
//!
//! An entry of the index counts its key's hits, gets and overwrites, up to 3. Before the new gens
//! of buckets become durable ([`Engine::evict`] is called next), for each of them in which anything
//! was hit at all, which is noted in memory ([`Lives`](crate::life::Lives)), so that a scan costs no reads:
//!
//! 1. Its summary is read, and each record asked of the index: is it where its key leads to, with
//!    as many hits as [`Config::reinsert_after`](crate::Config::reinsert_after) says?
//! 2. Those are read, many with one operation where they lie close together.
//! 3. Each becomes a new record of the same key with a higher version, in the survivors' stream,
//!    and the index leads there instead, for one hit of those that it has: if it still leads to the
//!    old place, which is looked up under the lock of the key's shard.
//!
//! # Why that is safe
//!
//! *Nothing old takes the place of something newer*: whoever overwrote or removed the key did it
//! under the same lock, and then the index leads elsewhere. *Nothing comes back*: for the lineage it
//! is an overwrite like any other. *Nothing is promised*: a power loss may take the new record
//! before it is durable; the bucket that held the old one was being reused, so it could go.
//!
//! The bucket has a new gen in memory already. Its bytes stay until that is durable, which nobody but
//! the calling thread makes it, and can be read as long ([`crate::going`]).
//!
//! # Progress
//!
//! This is the thread that makes buckets free, so it waits for none: without a free bucket, of its
//! own reserve or another, it gives up the rest of this batch. It has memory of its own, and waits
//! for the device alone to have it written. What is written anew is at most half of what goes.

use crate::block::block_on;
use crate::engine::{Engine, Reads};
use crate::error::Error;
use crate::index::{KeyHash, Location};
use crate::layout::{Entry, Kind, Record, decode_footer};
use tierce_core::{BucketId, BucketIndex, DeviceIndex};
use tierce_io::DeviceExt;

/// Records that lie closer together than this are read with one operation.
const GAP_BYTES: u32 = 64 << 10;

/// A record that is worth it.
#[derive(Clone, Copy, Debug)]
struct Worth {
    hash: KeyHash,
    location: Location,
    entry: Entry,
}

impl Engine {
    /// Writes anew what was hit in `buckets` of `device`, whose content is about to go.
    pub(crate) fn reinsert(&self, device: DeviceIndex, buckets: &[BucketIndex]) {
        if self.reinsert_after == 0 {
            return;
        }
        let mut left = buckets.len() as u64 * u64::from(self.layout.bucket_bytes) / 2;
        for &bucket in buckets {
            let id = BucketId::new(device, bucket);
            let life = self.lives.get(id).number;
            // A bucket that was named before, or never written, has none.
            if life == 0 || !self.lives.was_hit(id) {
                continue;
            }
            let Ok(worth) = self.worth(id, life) else {
                self.counters.read_errors.add_one();
                continue;
            };
            for run in worth.chunk_by(|a, b| b.entry.offset < end(&a.entry) + GAP_BYTES) {
                if self.move_run(id, life, run, &mut left).is_err() {
                    self.counters.reinsertions_given_up.add_one();
                    return;
                }
            }
        }
    }

    /// The records of a bucket that were hit often enough, in its order.
    fn worth(&self, id: BucketId, life: u64) -> Result<Vec<Worth>, tierce_io::Error> {
        let worth = |entry: Entry| {
            let hash = KeyHash(entry.hash);
            let (location, hits) = self.index.shard(hash).get_counted(hash)?;
            let is_here = location.bucket.id() == id && location.offset == entry.offset;
            let wanted = is_here && hits >= self.reinsert_after;
            (wanted && self.lives.may_come_back(location.bucket)).then_some(Worth {
                hash,
                location,
                entry,
            })
        };
        let entries = self.summary(id, life)?;
        Ok(entries.into_iter().filter(|e| e.kind != Kind::Part).filter_map(worth).collect())
    }

    /// What the summary of a bucket says; nothing if it has none.
    fn summary(&self, id: BucketId, life: u64) -> Result<Vec<Entry>, tierce_io::Error> {
        let (layout, device) = (&self.layout, &self.devices[id.device().as_usize()].device);
        let start = layout.start(id.bucket());
        let footer = device.read_at(start + u64::from(layout.footer), layout.block as usize)?;
        let Some(footer) = decode_footer(layout, life, &footer) else { return Ok(Vec::new()) };
        let at = layout.summary(footer.records);
        let bytes = device.read_at(start + u64::from(at), (layout.footer - at) as usize)?;
        let summary = &bytes[bytes.len() - footer.summary_bytes()..];
        Ok(footer.entries(layout, life, summary).unwrap_or_default())
    }

    /// Moves records that lie close together. An error: there is no room for more.
    fn move_run(
        &self,
        id: BucketId,
        life: u64,
        run: &[Worth],
        left: &mut u64,
    ) -> Result<(), Error> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let block = self.layout.block;
        let start = first.entry.offset / block * block;
        let bytes = end(&last.entry).next_multiple_of(block) - start;
        let device = &self.devices[id.device().as_usize()].device;
        let from = self.layout.start(id.bucket()) + u64::from(start);
        let Ok(bytes) = device.read_at(from, bytes as usize) else {
            self.counters.read_errors.add_one();
            return Ok(());
        };
        for &Worth { hash, location, entry } in run {
            let record = Record::decode(life, &bytes[(entry.offset - start) as usize..]);
            let Some(record) = record.filter(|record| !self.clock.is_past(record.expires)) else {
                continue;
            };
            let mut whole = Vec::new();
            let value = match record.kind {
                Kind::Spread if block_on(self.gather(record.value, &mut whole, Reads::Here)) => {
                    &whole
                }
                Kind::Value => record.value,
                _ => continue,
            };
            let moved = Record { kind: Kind::Value, value, ..record };
            let bytes = (record.key.len() + value.len()) as u64;
            *left = left.checked_sub(bytes).ok_or(Error::Full)?;
            // It never waits for a bucket, so this ends.
            block_on(self.store_record(self.streams.survivors(), hash, moved, Some(location)))?;
        }
        Ok(())
    }
}

/// Where a record ends, at most.
const fn end(entry: &Entry) -> u32 {
    entry.offset + entry.bytes
}

#[cfg(test)]
mod tests {
    use crate::testing::formatted;
    use crate::{Cache, Config};
    use tierce_core::Policy;
    use tierce_io::{Fault, FaultKind, Operation};

    /// A device that cannot be read tells whether anybody reads.
    #[test]
    fn a_scan_costs_no_reads_and_what_was_hit_does() {
        let sim = formatted(0, 640, 16 << 10);
        let config = Config::new("sim").policy(Policy::Fifo).reinsert_after(1);
        let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
        let mut keys = 0_u32..;
        let mut scan = || {
            sim.inject(Fault::new(FaultKind::Io, Operation::Read, 0).for_good());
            for n in keys.by_ref().take(1000) {
                cache.insert(&n.to_le_bytes(), &[1; 14_000]).expect("room");
            }
            sim.clear_faults();
            let stats = cache.stats();
            (keys.start, stats.invalidated > 0, stats.read_errors)
        };
        assert_eq!(scan(), (1000, true, 0));
        let hit = cache.get(&990_u32.to_le_bytes()).expect("a get never fails");
        assert!(hit.is_some(), "it was inserted just now");
        let (.., read_errors) = scan();
        assert!(read_errors > 0, "what was hit is read before it goes");
        cache.close().expect("closes");
    }
}
