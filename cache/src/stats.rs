//! Counters and gauges.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count of events.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add_one(&self) {
        // Relaxed: a count, nothing is published with it.
        self.0.fetch_add(1, Ordering::Relaxed);
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
    pub(crate) inserts: Count,
    pub(crate) failed_inserts: Count,
    pub(crate) removes: Count,
}

/// The cache at about one instant: each number is right by itself.
///
/// ```
/// let stats = tierce_cache::Stats::default();
/// assert_eq!(stats.hits + stats.misses, 0);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Buckets of the device.
    pub nbuckets: u64,
    /// Buckets that are neither superblock, journal, prio sets nor held free: at most so many
    /// hold data at a time.
    pub data_buckets: u64,
    /// Bytes of a bucket.
    pub bucket_bytes: u64,
    /// Entries of the index, some of which may be stale.
    pub entries: u64,
    /// Gets that found the value.
    pub hits: u64,
    /// Gets that did not, for whatever reason.
    pub misses: u64,
    /// Misses because the bucket had been reused before the read.
    pub stale: u64,
    /// Misses because the bucket was reused during the read.
    pub read_races: u64,
    /// Misses because what was read is damaged.
    pub corrupt: u64,
    /// Misses because another key has the same hash.
    pub other_key: u64,
    /// Inserts acknowledged.
    pub inserts: u64,
    /// Inserts that returned an error. None is ever dropped silently.
    pub failed_inserts: u64,
    /// Removes that found something.
    pub removes: u64,
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
    /// Inserts that had to wait for a bucket.
    pub space_waits: u64,
}
