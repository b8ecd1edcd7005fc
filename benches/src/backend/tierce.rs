//! tierce's own cache as a [`Store`].

use super::{Insertion, Store, StoreStats};
use tierce_cache::{Cache, Config, Error};

/// The harness's keys have so many bytes at most.
const KEY_BYTES_MAX: usize = 16;

/// An open tierce cache.
///
/// ```
/// use tierce_bench::{Insertion, Store, backend::Tierce};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("cache");
/// let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// tierce_io::format(&path, &options)?;
/// let store = Tierce::open(tierce_cache::Config::new(&path))?;
/// assert_eq!(store.insert(b"key", b"value")?, Insertion::Stored);
/// assert!(store.contains(b"key")?);
/// assert_eq!(store.stats().nbuckets, 1024);
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tierce {
    cache: Cache,
    value_bytes_max: usize,
}

impl Tierce {
    /// Opens the cache that this configures.
    ///
    /// # Errors
    /// Those of [`Cache::open`].
    pub fn open(config: Config) -> Result<Self, Error> {
        let cache = Cache::open(config)?;
        let value_bytes_max = cache.value_bytes_max(KEY_BYTES_MAX);
        Ok(Self { cache, value_bytes_max })
    }

    /// The cache itself.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Makes everything durable and closes it.
    ///
    /// # Errors
    /// Those of [`Cache::close`].
    pub fn close(self) -> Result<(), Error> {
        self.cache.close()
    }
}

impl Store for Tierce {
    type Error = Error;

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Error> {
        self.cache.get_into(key, value)
    }

    fn contains(&self, key: &[u8]) -> Result<bool, Error> {
        self.cache.contains(key)
    }

    /// This cache waits for space and drops nothing; what it cannot store is an error.
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Error> {
        self.cache.insert(key, value).map(|()| Insertion::Stored)
    }

    fn remove(&self, key: &[u8]) -> Result<bool, Error> {
        self.cache.remove(key)
    }

    fn flush(&self) -> Result<(), Error> {
        self.cache.flush()
    }

    fn value_bytes_max(&self) -> usize {
        self.value_bytes_max
    }

    fn stats(&self) -> StoreStats {
        let stats = self.cache.stats();
        StoreStats {
            nbuckets: stats.nbuckets,
            data_buckets: stats.data_buckets,
            held_buckets: stats.held_buckets,
            invalidated: stats.invalidated,
            prio_writes: stats.prio_writes,
            discards: stats.discards,
            gc_runs: stats.gc_runs,
            dropped_inserts: stats.failed_inserts,
            read_races: stats.read_races,
            reinserted: stats.reinserted,
            user_bytes_written: stats.user_bytes_written,
            device_bytes_written: stats.device_bytes_written,
            write_buffer_bytes_max: stats.write_buffer_bytes_max,
            memory_bytes_max: stats.memory_bytes_max,
            memory_hits: stats.memory_hits,
        }
    }
}
