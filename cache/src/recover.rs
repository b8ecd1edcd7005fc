//! Coming back warm: the index is made anew from what the buckets say of themselves.
//!
//! # Protocol
//!
//! 1. Every bucket that may hold something is read, many at a time: header, list of dead records,
//!    footer and summary. It counts if the header is of this device, this bucket and the gen that
//!    the table has. A bucket without a summary was being filled: its records are read one after
//!    the other, as far as they are whole.
//! 2. Records are sorted by key and version. The newest enters the index if it is a value and not
//!    dead; each is noted as the predecessor of the next newer one ([`crate::lineage`]).
//! 3. All of these buckets are shown to the allocator (`observe`), before it hands out anything.
//!
//! Versions and numbers of lives go on above everything that was found, and above what earlier runs
//! can have used: the superblock's seq, which every opening makes durable first, is their upper part.
//!
//! # What is cold
//!
//! A bucket whose header, summary and records are damaged, of an unknown version, or of another
//! hash seed is left as it is: it is reused in its turn.
//!
//! A bucket that the device cannot read might have held the newest record of any key, so nothing
//! that is older may count: everything is cold, for good ([`crate::void`]).

use crate::index::{Index, KeyHash, Location};
use crate::layout::{BucketHeader, Dead, Entry, Kind, Layout, Record, decode_footer};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use tierce_core::geometry::SECTOR_BYTES;
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen};
use tierce_io::{Device, DeviceExt};
use tierce_lockfree::BucketRef;

/// Buckets that are read at a time, over all devices.
const READERS: usize = 16;
/// Bits of versions below the superblock's seq.
const RUN_BITS: u32 = 44;

/// A device as it is read.
pub(crate) struct Source<'a> {
    pub(crate) index: DeviceIndex,
    pub(crate) device: &'a dyn Device,
    pub(crate) uuid: [u8; 16],
    /// The superblock's seq in this run.
    pub(crate) seq: u64,
    /// Gens by bucket.
    pub(crate) gens: Vec<Gen>,
    /// Buckets that may hold data.
    pub(crate) buckets: Vec<BucketIndex>,
}

/// What one bucket says.
pub(crate) struct Found {
    pub(crate) bucket: BucketRef,
    pub(crate) header: BucketHeader,
    pub(crate) dead: Dead,
    /// Its part of the entries of all.
    entries: Range<usize>,
}

/// What all buckets say.
#[derive(Default)]
pub(crate) struct Scan {
    pub(crate) buckets: Vec<Found>,
    /// Of all buckets, in one piece: it goes back to the system in one piece, too.
    entries: Vec<Entry>,
}

impl Scan {
    /// The records of a bucket, in its order.
    fn entries(&self, found: &Found) -> &[Entry] {
        &self.entries[found.entries.clone()]
    }

    fn bucket(&self, record: &Sorted) -> &Found {
        &self.buckets[record.bucket as usize]
    }

    fn entry(&self, record: &Sorted) -> Entry {
        self.entries(self.bucket(record))[record.entry as usize]
    }

    fn add(&mut self, mut found: Found, entries: Vec<Entry>) {
        let from = self.entries.len();
        self.entries.extend(entries);
        found.entries = from..self.entries.len();
        self.buckets.push(found);
    }

    /// Sectors of records of a bucket that are not dead.
    pub(crate) fn sectors(&self, found: &Found, layout: &Layout) -> u32 {
        let live = self.entries(found).iter().filter(|e| !found.dead.contains(layout, e.offset));
        let bytes: u64 = live.map(|entry| u64::from(entry.bytes)).sum();
        (bytes.div_ceil(u64::from(SECTOR_BYTES)) as u32).max(1)
    }
}

/// Everything that can be found on the devices.
///
/// # Errors
///
/// The first bucket that could not be read.
pub(crate) fn scan(sources: &[Source<'_>], layout: &Layout) -> Result<Scan, tierce_io::Error> {
    let work: Vec<_> =
        sources.iter().flat_map(|s| s.buckets.iter().map(move |&bucket| (s, bucket))).collect();
    let (next, scan) = (AtomicUsize::new(0), Mutex::new(Scan::default()));
    let read = || {
        // Relaxed: each number is drawn once, whatever the order.
        while let Some(&(source, bucket)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some((found, entries)) = read_bucket(source, layout, bucket)? {
                scan.lock().unwrap_or_else(PoisonError::into_inner).add(found, entries);
            }
        }
        Ok::<_, tierce_io::Error>(())
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS.min(work.len())).map(|_| scope.spawn(read)).collect();
        let join = |reader: ScopedJoinHandle<'_, _>| {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        readers.into_iter().try_for_each(join)
    })?;
    let mut scan = scan.into_inner().unwrap_or_else(PoisonError::into_inner);
    let newest = scan.buckets.iter().max_by_key(|found| found.header.life);
    if let Some(seed) = newest.map(|found| found.header.hash_seed) {
        scan.buckets.retain(|found| found.header.hash_seed == seed);
    }
    Ok(scan)
}

/// What a bucket says, or `None` if it is cold.
fn read_bucket(
    source: &Source<'_>,
    layout: &Layout,
    bucket: BucketIndex,
) -> Result<Option<(Found, Vec<Entry>)>, tierce_io::Error> {
    let start = layout.start(bucket);
    let read = |offset: u32, end: u32| {
        source.device.read_at(start + u64::from(offset), (end - offset) as usize)
    };
    let Some(header) = BucketHeader::decode(&read(0, layout.block)?) else { return Ok(None) };
    let gen_ = source.gens[bucket.as_usize()];
    if header.uuid != source.uuid || header.bucket != bucket.get() || header.gen_ != gen_.get() {
        return Ok(None);
    }
    let life = header.life;
    // What most summaries take, in one read with footer and dead records.
    let guess =
        layout.footer.saturating_sub((layout.bucket_bytes / 32).next_multiple_of(layout.block));
    let guess = guess.max(layout.first_record());
    let tail = read(guess, layout.bucket_bytes)?;
    let dead = Dead::decode(life, &tail[(layout.dead - guess) as usize..]);
    let footer_at = (layout.footer - guess) as usize;
    let sealed = match decode_footer(layout, life, &tail[footer_at..]) {
        Some(footer) if footer.summary_bytes() > footer_at => {
            let all = read(layout.summary(footer.records), layout.footer)?;
            footer.entries(layout, life, &all[all.len() - footer.summary_bytes()..])
        }
        Some(footer) => {
            footer.entries(layout, life, &tail[footer_at - footer.summary_bytes()..footer_at])
        }
        None => None,
    };
    let entries = match sealed {
        Some(entries) => entries,
        None => follow(layout, header, &read(0, layout.footer)?),
    };
    let bucket = BucketRef::new(BucketId::new(source.index, bucket), gen_);
    Ok(Some((Found { bucket, header, dead, entries: 0..0 }, entries)))
}

/// The records of a bucket that has no summary.
fn follow(layout: &Layout, header: BucketHeader, bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut at = layout.first_record() as usize;
    while at < bytes.len() {
        let Some(record) = Record::decode(header.life, &bytes[at..]) else {
            // A write ended here, or all of them.
            let next_block = (at + 1).next_multiple_of(layout.block as usize);
            if at.is_multiple_of(layout.block as usize) || next_block >= bytes.len() {
                break;
            }
            at = next_block;
            continue;
        };
        let hash = match record.kind {
            Kind::Part => 0,
            _ => KeyHash::of(header.hash_seed, record.key).0,
        };
        let (version, kind, length) = (record.version, record.kind, record.bytes());
        entries.push(Entry { hash, version, offset: at as u32, bytes: length, kind });
        at = (at + length as usize).next_multiple_of(layout.grain as usize);
    }
    entries
}

/// Where versions and lives go on.
pub(crate) fn clock(sources: &[Source<'_>], scan: &Scan) -> u64 {
    let runs = sources.iter().map(|source| source.seq.saturating_mul(1 << RUN_BITS));
    let lives = scan.buckets.iter().map(|found| found.header.life + 1);
    let entries = scan.buckets.iter().flat_map(|found| scan.entries(found));
    let versions = entries.map(|entry| entry.version + 1);
    // The top bit of a life's number is used for something else.
    runs.chain(lives).chain(versions).max().unwrap_or(1).clamp(1, 1 << 62)
}

/// A record of a key.
struct Sorted {
    hash: u64,
    /// In the scan.
    bucket: u32,
    entry: u32,
}

/// Enters the newest value of every key into the index. `superseded` is told of each record that
/// has a newer one: the newer's bucket, and the older's with its offset there.
pub(crate) fn rebuild(
    scan: &Scan,
    layout: &Layout,
    index: &Index,
    superseded: impl Fn(&Found, (&Found, u32)) + Sync,
) {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let superseded = &superseded;
            scope.spawn(move || {
                let shards = Index::shards();
                let mine = worker * shards / workers..(worker + 1) * shards / workers;
                // A few shards at a time: sorting needs memory for these only.
                let mut records = Vec::new();
                for first in mine.clone().step_by(64) {
                    let part = first..(first + 64).min(mine.end);
                    collect(scan, &part, &mut records);
                    enter(&records, scan, layout, index, superseded);
                }
            });
        }
    });
}

/// The records of some shards, by key, newest first.
fn collect(scan: &Scan, shards: &Range<usize>, records: &mut Vec<Sorted>) {
    records.clear();
    for (bucket, found) in (0..).zip(&scan.buckets) {
        for (entry, record) in (0..).zip(scan.entries(found)) {
            let in_shards = shards.contains(&KeyHash(record.hash).shard());
            if record.kind != Kind::Part && in_shards {
                records.push(Sorted { hash: record.hash, bucket, entry });
            }
        }
    }
    records.sort_unstable_by_key(|record| record.hash);
    // Hardly any key has more than one record: versions are looked up for those.
    for key in records.chunk_by_mut(|a, b| a.hash == b.hash).filter(|key| key.len() > 1) {
        key.sort_unstable_by_key(|record| std::cmp::Reverse(scan.entry(record).version));
    }
}

fn enter(
    records: &[Sorted],
    scan: &Scan,
    layout: &Layout,
    index: &Index,
    superseded: &impl Fn(&Found, (&Found, u32)),
) {
    // The records of a shard lie together: it grows once, to what it needs.
    for shard in records.chunk_by(|a, b| KeyHash(a.hash).shard() == KeyHash(b.hash).shard()) {
        let keys = shard.chunk_by(|a, b| a.hash == b.hash).count();
        index.reserve(KeyHash(shard[0].hash).shard(), keys);
    }
    for key in records.chunk_by(|a, b| a.hash == b.hash) {
        let newest = &key[0];
        let (bucket, entry) = (scan.bucket(newest), scan.entry(newest));
        let counts = matches!(entry.kind, Kind::Value | Kind::Spread);
        if counts && !bucket.dead.contains(layout, entry.offset) {
            let hash = KeyHash(entry.hash);
            let (offset, bytes) = (entry.offset, entry.bytes);
            let location = Location { bucket: bucket.bucket, offset, bytes };
            index.shard(hash).replace(hash, location);
        }
        for pair in key.windows(2) {
            let [newer, older] = [&pair[0], &pair[1]];
            superseded(scan.bucket(newer), (scan.bucket(older), scan.entry(older).offset));
        }
    }
}
