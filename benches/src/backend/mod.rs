//! What a cache must offer to be driven by this harness.
//!
//! Implement [`Store`] for anything that keeps values by key; nothing else is needed to replay
//! traces against it. [`Unbounded`] is the smallest example, [`Tierce`] the cache
//! of this project.
//!
//! Implement [`Space`] for anything that hands out buckets, to measure it against the allocator
//! of this project ([`Lockfree`]), against the same under one lock ([`Locked`]), against the
//! specification under one lock ([`Original`]) and against a bare queue ([`FifoQueue`], the
//! smallest example).

mod fifo_queue;
mod locked;
mod lockfree;
mod original;
mod space;
mod tierce;
mod unbounded;

pub use fifo_queue::FifoQueue;
pub use locked::Locked;
pub use lockfree::Lockfree;
pub use original::Original;
pub use space::{Full, Order, SectorWrite, Space, SpaceCounts};
pub use tierce::Tierce;
pub use unbounded::Unbounded;

/// A cache under test.
///
/// All operations may be called from many threads at once. The harness never runs two
/// operations on the same key at a time, and expects of each key:
/// * after an insert that returned [`Insertion::Stored`], gets return that value or nothing;
/// * after [`Insertion::Dropped`] or a remove, gets return nothing.
///
/// ```
/// use tierce_bench::{Insertion, Store, backend::Unbounded};
/// let store = Unbounded::default();
/// let mut value = Vec::new();
/// assert!(!store.get(b"k", &mut value).unwrap());
/// assert_eq!(store.insert(b"k", b"v").unwrap(), Insertion::Stored);
/// assert!(store.get(b"k", &mut value).unwrap() && value == b"v");
/// assert!(store.remove(b"k").unwrap() && !store.contains(b"k").unwrap());
/// ```
pub trait Store: Sync {
    /// What can go wrong in it. A run ends at the first error.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Makes `value` the value of `key` and returns `true`, or `false` if there is none;
    /// then `value` may hold anything.
    ///
    /// # Errors
    /// The cache's own.
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Self::Error>;

    /// Makes `value` the value of `key`.
    ///
    /// # Errors
    /// The cache's own.
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Self::Error>;

    /// Forgets `key`; `true` if it had a value.
    ///
    /// # Errors
    /// The cache's own.
    fn remove(&self, key: &[u8]) -> Result<bool, Self::Error>;

    /// Whether `key` has a value, without counting as a use of it if the cache can tell so.
    ///
    /// # Errors
    /// The cache's own.
    fn contains(&self, key: &[u8]) -> Result<bool, Self::Error> {
        self.get(key, &mut Vec::new())
    }

    /// Returns when everything acknowledged before the call survives a crash, as far as the
    /// cache promises that at all.
    ///
    /// # Errors
    /// The cache's own.
    fn flush(&self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// The size in bytes from which on it refuses values; larger ones are not offered to it.
    fn value_bytes_max(&self) -> usize {
        usize::MAX
    }

    /// What it counted since it was opened.
    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
}

/// What became of a value given to [`Store::insert`].
///
/// ```
/// use tierce_bench::Insertion;
/// assert_ne!(Insertion::Stored, Insertion::Dropped);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use]
pub enum Insertion {
    /// It can be read from now on.
    Stored,
    /// The cache chose not to keep it, and the key has no value now.
    Dropped,
}

/// What a cache counted. Caches without buckets leave those counts 0.
///
/// ```
/// use tierce_bench::StoreStats;
/// let stats = StoreStats { nbuckets: 8192, ..StoreStats::default() };
/// assert_eq!(stats.invalidated, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
// A peer that was built earlier says less.
#[serde(default)]
pub struct StoreStats {
    /// Buckets of all devices.
    pub nbuckets: u64,
    /// Of these, buckets that can hold data: without superblock, journal, prios and reserves.
    pub data_buckets: u64,
    /// Buckets that hold data just now.
    #[serde(default)]
    pub held_buckets: u64,
    /// Buckets invalidated to be reused.
    pub invalidated: u64,
    /// Prio writes.
    pub prio_writes: u64,
    /// Buckets discarded.
    pub discards: u64,
    /// Garbage collections finished.
    pub gc_runs: u64,
    /// Inserts that were given up.
    pub dropped_inserts: u64,
    /// Reads whose bucket was reused meanwhile, reported as misses.
    pub read_races: u64,
    /// Values that were written anew because they had been hit, before their space was reused.
    #[serde(default)]
    pub reinserted: u64,
    /// Bytes of keys and values that the user inserted, …
    #[serde(default)]
    pub user_bytes_written: u64,
    /// … and bytes that were written to the device for them.
    #[serde(default)]
    pub device_bytes_written: u64,
    /// Bytes of memory that may hold values on their way to the device.
    pub write_buffer_bytes_max: u64,
    /// Bytes of memory that may hold copies of values that are on the device.
    pub memory_bytes_max: u64,
    /// Reads that such a copy answered.
    pub memory_hits: u64,
}
