//! Counters and gauges.

use crate::engine::Engine;
use std::sync::atomic::{AtomicU64, Ordering};
use tierce_core::Reserve;

/// A count of events.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, n: u64) {
        // Relaxed: a count, nothing is published with it.
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        // Relaxed: as above.
        self.0.load(Ordering::Relaxed)
    }
}

/// What the cache itself counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Count,
    pub(crate) misses: Count,
    pub(crate) stale: Count,
    pub(crate) corrupt: Count,
    pub(crate) other_key: Count,
    pub(crate) expired: Count,
    pub(crate) misses_recovering: Count,
    pub(crate) read_errors: Count,
    pub(crate) read_races: Count,
    pub(crate) buffer_reads: Count,
    pub(crate) inserts: Count,
    pub(crate) failed_inserts: Count,
    pub(crate) removes: Count,
    pub(crate) memory_waits: Count,
    pub(crate) write_errors: Count,
    pub(crate) user_bytes_written: Count,
    pub(crate) device_bytes_written: Count,
    pub(crate) dead_lists_written: Count,
    pub(crate) reinserted: Count,
    pub(crate) reinserted_bytes: Count,
    pub(crate) reinsertions_given_up: Count,
    pub(crate) reinsertion_read_errors: Count,
}

/// The cache at about one instant: each number is right by itself.
///
/// ```
/// let stats = tierce_cache::Stats::default();
/// assert_eq!(stats.hits + stats.misses, 0);
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Buckets of all devices.
    pub nbuckets: u64,
    /// Buckets that are neither superblock, journal, prio sets nor held free: at most so many
    /// hold data at a time.
    pub data_buckets: u64,
    /// Buckets that hold data just now. More than `data_buckets` while free lists are not full.
    pub held_buckets: u64,
    /// Bytes of a bucket.
    pub bucket_bytes: u64,
    /// Entries of the index, some of which may be stale.
    pub entries: u64,
    /// Bytes of memory of the index.
    pub index_bytes: u64,
    /// Bytes of memory of values that are not on the device yet.
    pub write_buffer_bytes: u64,
    /// As many as there may be.
    pub write_buffer_bytes_max: u64,
    /// Bytes of memory of copies of records, see
    /// [`Config::memory_bytes`](crate::Config::memory_bytes).
    pub memory_bytes: u64,
    /// As many as there may be.
    pub memory_bytes_max: u64,
    /// Records that were read from copies in memory. A get of a value in parts reads several.
    pub memory_hits: u64,
    /// Copies that gave way to others, or to a newer one of their own key.
    pub memory_evictions: u64,
    /// Bytes of memory of what must not come back, see the crate's documentation.
    pub lineage_bytes: u64,
    /// Gets that found the value.
    pub hits: u64,
    /// Gets that did not, for whatever reason. Each is counted as one of `stale`, `read_races`,
    /// `corrupt`, `other_key`, `expired`, `misses_recovering` and `read_errors`, a value in parts by
    /// the first that is not there; the rest of them, of keys under which nothing is stored, as none.
    pub misses: u64,
    /// Misses because the bucket had been reused before the read.
    pub stale: u64,
    /// Misses because what was read is damaged. What a restart passes over is not counted.
    pub corrupt: u64,
    /// Misses because another key has the same hash.
    pub other_key: u64,
    /// Misses because the entry's time was over.
    pub expired: u64,
    /// Misses because nothing was known of the key yet, see
    /// [`Config::recover`](crate::Config::recover).
    pub misses_recovering: u64,
    /// Buckets that may have held something when the cache was opened.
    pub recovery_buckets: u64,
    /// As many of them are known by now. As long as they are fewer the cache is recovering, and what
    /// the allocator counts is 0.
    pub recovered_buckets: u64,
    /// Misses because the device could not be read.
    pub read_errors: u64,
    /// Records that were read from a write buffer, before they were on the device.
    pub buffer_reads: u64,
    /// Inserts acknowledged.
    pub inserts: u64,
    /// Inserts that returned an error. None is ever dropped silently.
    pub failed_inserts: u64,
    /// Removes that found something.
    pub removes: u64,
    /// Inserts that had to wait for memory.
    pub memory_waits: u64,
    /// Writes that a device refused; it is out of use from the first one on.
    pub write_errors: u64,
    /// Bytes of keys and values that were inserted.
    pub user_bytes_written: u64,
    /// Bytes that were written for them: records, headers, summaries.
    pub device_bytes_written: u64,
    /// Lists of records that must not come back, written into older buckets.
    pub dead_lists_written: u64,
    /// Entries with hits that were written anew before their bucket was reused.
    pub reinserted: u64,
    /// Bytes of their keys and values.
    pub reinserted_bytes: u64,
    /// Times that this ended early: no bucket was free, or half of what went was written anew.
    pub reinsertions_given_up: u64,
    /// Reads for it that the device could not do: what was to be written anew is gone.
    pub reinsertion_read_errors: u64,
    /// Misses because the bucket was reused during the read.
    pub read_races: u64,
    /// Buckets invalidated.
    pub invalidated: u64,
    /// Writes of the gens and prios that became durable.
    pub prio_writes: u64,
    /// Buckets discarded.
    pub discards: u64,
    /// Garbage collections.
    pub gc_runs: u64,
    /// Ageing passes.
    pub rescales: u64,
    /// Times that somebody had to wait for a bucket.
    pub space_waits: u64,
    /// Each device, in the order of the configuration.
    pub devices: Vec<DeviceStats>,
}

/// One device of a cache at about one instant.
///
/// ```
/// use tierce_cache::{Cache, Config};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// # let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// # tierce_io::format(&path, &options)?;
/// let stats = Cache::open(Config::new(&path))?.stats();
/// assert_eq!(stats.devices[0].nbuckets, 1024);
/// assert_eq!(stats.devices[0].waiters, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DeviceStats {
    /// What it is called in errors.
    pub name: String,
    /// Buckets.
    pub nbuckets: u64,
    /// Free buckets for the next write of gens and prios.
    pub free_prio: u64,
    /// Free buckets for what is written anew before its bucket goes.
    pub free_moving_gc: u64,
    /// Free buckets for values.
    pub free_none: u64,
    /// Buckets that were chosen to be reused and are not free yet.
    pub free_inc: u64,
    /// Writers that wait for a bucket just now.
    pub waiters: u64,
    /// Times that somebody had to wait for a bucket.
    pub space_waits: u64,
    /// Buckets invalidated.
    pub invalidated: u64,
    /// Writes of the gens and prios that became durable.
    pub prio_writes: u64,
    /// Buckets discarded.
    pub discards: u64,
}

impl DeviceStats {
    fn of(name: String, device: &tierce_lockfree::DeviceStats) -> Self {
        Self {
            name,
            nbuckets: device.nbuckets.into(),
            free_prio: device.free_of(Reserve::Prio),
            free_moving_gc: device.free_of(Reserve::MovingGc),
            free_none: device.free_of(Reserve::None),
            free_inc: device.free_inc,
            waiters: device.waiters,
            space_waits: device.alloc_wait_total,
            invalidated: device.invalidate_total,
            prio_writes: device.prio_write_total,
            discards: device.discard_total,
        }
    }
}

impl Stats {
    pub(crate) fn of(engine: &Engine) -> Self {
        let allocator = engine.allocator.get().map(|allocator| allocator.stats());
        let devices = || allocator.iter().flat_map(|allocator| &allocator.devices);
        let counters = &engine.counters;
        let (recovered_buckets, recovery_buckets) = engine.warm.known();
        Self {
            nbuckets: engine.lives.nbuckets(),
            data_buckets: engine.devices.iter().map(|disk| disk.data_buckets).sum(),
            held_buckets: engine.lives.count(),
            bucket_bytes: engine.layout.bucket_bytes.into(),
            entries: engine.index.len() as u64,
            index_bytes: engine.index.bytes() as u64,
            write_buffer_bytes: engine.budget.used() as u64,
            write_buffer_bytes_max: engine.budget.total() as u64,
            memory_bytes: engine.memory.bytes(),
            memory_bytes_max: engine.memory.bytes_max(),
            memory_hits: engine.memory.hits(),
            memory_evictions: engine.memory.evictions(),
            lineage_bytes: engine.lineage.bytes() as u64,
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            stale: counters.stale.get(),
            corrupt: counters.corrupt.get(),
            other_key: counters.other_key.get(),
            expired: counters.expired.get(),
            misses_recovering: counters.misses_recovering.get(),
            recovery_buckets,
            recovered_buckets,
            read_errors: counters.read_errors.get(),
            buffer_reads: counters.buffer_reads.get(),
            inserts: counters.inserts.get(),
            failed_inserts: counters.failed_inserts.get(),
            removes: counters.removes.get(),
            memory_waits: counters.memory_waits.get(),
            write_errors: counters.write_errors.get(),
            user_bytes_written: counters.user_bytes_written.get(),
            device_bytes_written: counters.device_bytes_written.get(),
            dead_lists_written: counters.dead_lists_written.get(),
            reinserted: counters.reinserted.get(),
            reinserted_bytes: counters.reinserted_bytes.get(),
            reinsertions_given_up: counters.reinsertions_given_up.get(),
            reinsertion_read_errors: counters.reinsertion_read_errors.get(),
            read_races: counters.read_races.get(),
            invalidated: devices().map(|device| device.invalidate_total).sum(),
            prio_writes: devices().map(|device| device.prio_write_total).sum(),
            discards: devices().map(|device| device.discard_total).sum(),
            gc_runs: allocator.as_ref().map_or(0, |allocator| allocator.gc_total),
            rescales: allocator.as_ref().map_or(0, |allocator| allocator.rescale_total),
            space_waits: devices().map(|device| device.alloc_wait_total).sum(),
            devices: devices()
                .zip(&engine.devices)
                .map(|(device, disk)| DeviceStats::of(disk.device.name().to_string(), device))
                .collect(),
        }
    }
}
