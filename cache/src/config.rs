//! What can be set.

use crate::clock::Clock;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tierce_core::Policy;
use tierce_io::DeviceOptions;

/// Of how many buckets the lru policy chooses one, unless told.
const LRU_SAMPLE: u32 = 8;

/// How to open a cache.
///
/// ```
/// use tierce_cache::Config;
/// use tierce_core::Policy;
/// let config = Config::new("/dev/nvme0n1").also("/dev/nvme1n1").policy(Policy::Fifo).cpus(4);
/// assert_eq!(config.paths()[1].to_str(), Some("/dev/nvme1n1"));
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) policy: Option<Policy>,
    pub(crate) cpus: Option<u32>,
    pub(crate) device: DeviceOptions,
    pub(crate) space_timeout: Duration,
    pub(crate) write_buffer_bytes: usize,
    pub(crate) memory_bytes: usize,
    pub(crate) segment_bytes: u32,
    pub(crate) streams: Option<usize>,
    pub(crate) when_full: WhenFull,
    pub(crate) reinsert_after: Option<u8>,
    pub(crate) lru_sample: u32,
    pub(crate) recover: Recover,
    pub(crate) clock: Clock,
}

/// What a cache does until it is known what is on its devices.
///
/// ```
/// assert_eq!(tierce_cache::Recover::default(), tierce_cache::Recover::First);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Recover {
    /// It is not open before.
    #[default]
    First,
    /// It is open. A get of a key of which nothing is known yet is a miss, counted as
    /// [`Stats::misses_recovering`](crate::Stats::misses_recovering).
    MissMeanwhile,
    /// It is open. A get of a key of which nothing is known yet waits until something is.
    WaitMeanwhile,
}

/// What an insert does while there is no memory for it, or no bucket.
///
/// ```
/// assert_eq!(tierce_cache::WhenFull::default(), tierce_cache::WhenFull::Wait);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits.
    #[default]
    Wait,
    /// It returns [`Error::Full`](crate::Error::Full), nothing is stored. While the cache is
    /// [recovering](Recover) it returns [`Error::Recovering`](crate::Error::Recovering), and so do
    /// removes and flushes.
    Fail,
}

/// How one entry is stored.
///
/// ```
/// use std::time::Duration;
/// let put = tierce_cache::Put::new().ttl(Duration::from_secs(60)).write_point(7);
/// assert_ne!(put, tierce_cache::Put::new());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Put {
    pub(crate) ttl: Option<Duration>,
    pub(crate) write_point: Option<u64>,
}

impl Put {
    /// For ever, anywhere.
    #[must_use]
    pub const fn new() -> Self {
        Self { ttl: None, write_point: None }
    }

    /// It expires after so long, by the [`Clock`]: when that shows so much more than at the insert,
    /// gets miss. If the clock jumps, so does the end; if it jumps back, the entry is there again,
    /// as long as its bucket is.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// A hint who writes (a tenant, a level, a table): entries with the same number share buckets
    /// and are thrown away together.
    #[must_use]
    pub const fn write_point(mut self, number: u64) -> Self {
        self.write_point = Some(number);
        self
    }
}

impl Config {
    /// The formatted file or block device at `path`.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            paths: vec![path.as_ref().to_owned()],
            policy: None,
            cpus: None,
            device: DeviceOptions::default(),
            space_timeout: Duration::from_secs(30),
            write_buffer_bytes: 16 << 20,
            memory_bytes: 0,
            segment_bytes: 128 << 10,
            streams: None,
            when_full: WhenFull::Wait,
            reinsert_after: None,
            lru_sample: LRU_SAMPLE,
            recover: Recover::First,
            clock: Clock::system(),
        }
    }

    /// Another device, of the same bucket and block size; 8 in all at most. Buckets are taken from
    /// the one that has most free. Name the devices in the same order every time.
    #[must_use]
    pub fn also(mut self, path: impl AsRef<Path>) -> Self {
        self.paths.push(path.as_ref().to_owned());
        self
    }

    /// Which bucket is reused next; otherwise what the first superblock says.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// The lru policy reuses, of so many buckets at random, the one that is least likely to be used
    /// again soon, 8 unless told, at most 1024; 0: the least recently used of all. How likely
    /// that is after how much time is learned from when buckets are used: if what was used lately is
    /// used again the oldest go, and of a loop that is longer than the cache, of which LRU keeps
    /// nothing, the youngest. An eighth of the buckets, 1024 of a large device, are reused at random
    /// for that, once all are full.
    ///
    /// ```
    /// // Exact LRU, and nothing is written twice.
    /// let config = tierce_cache::Config::new("/dev/nvme0n1").lru_sample(0).reinsert_after(0);
    /// # drop(config);
    /// ```
    #[must_use]
    pub fn lru_sample(self, buckets: u32) -> Self {
        Self { lru_sample: buckets, ..self }
    }

    /// For how many CPUs to keep per-CPU places; otherwise as many as there are.
    #[must_use]
    pub fn cpus(self, cpus: u32) -> Self {
        Self { cpus: Some(cpus), ..self }
    }

    /// By what means devices are read and written.
    #[must_use]
    pub fn device(self, device: DeviceOptions) -> Self {
        Self { device, ..self }
    }

    /// How long a blocking insert waits for memory and space before it fails, and how long closing
    /// a cache that is [recovering](Self::recover) waits for a device that does not answer; otherwise
    /// 30 s. A future waits until it is dropped.
    #[must_use]
    pub fn space_timeout(self, space_timeout: Duration) -> Self {
        Self { space_timeout, ..self }
    }

    /// Whether an insert waits while there is no memory or space; otherwise it does.
    #[must_use]
    pub fn when_full(self, when_full: WhenFull) -> Self {
        Self { when_full, ..self }
    }

    /// Entries whose key had at least so many hits (gets, and inserts in place of an older value)
    /// are written anew before their bucket is reused, which costs one of these: 1 to 3, or 0 for
    /// none; with the lru policy 1 unless told, with the others 0. Scans then drive out less of
    /// what is used, for more writes: at most half of what is reused
    /// ([`Stats::reinserted_bytes`](crate::Stats)). More than 3 hits count as 3.
    ///
    /// ```
    /// let config = tierce_cache::Config::new("/dev/nvme0n1").reinsert_after(2);
    /// # drop(config);
    /// ```
    #[must_use]
    pub fn reinsert_after(self, hits: u8) -> Self {
        Self { reinsert_after: Some(hits.min(crate::index::HITS_MAX)), ..self }
    }

    /// Memory for values that are not on the device yet, 16 MiB unless told. It is made larger if
    /// it could not hold what every stream has under way and one bucket.
    #[must_use]
    pub fn write_buffer_bytes(self, write_buffer_bytes: usize) -> Self {
        Self { write_buffer_bytes, ..self }
    }

    /// Memory for copies of what was inserted or read lately, so that what is read often is not read
    /// from the device; none unless told: it is in addition to
    /// [`write_buffer_bytes`](Self::write_buffer_bytes), and who keeps decoded values of his own
    /// has no use for another copy. Keys, values and what it takes to find them count.
    ///
    /// Values that are large among those of the cache are copied the less often, once memory is full,
    /// the larger they are: for what they take many small ones are found. It is divided among a few
    /// locks, by 1 MiB at least, and a value larger than such a share is not kept. A get from memory is a use of its bucket; when the bucket is reused the entry is
    /// gone, copy or not.
    ///
    /// ```
    /// # use tierce_cache::{Cache, Config};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("cache");
    /// # let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    /// # tierce_io::format(&path, &options)?;
    /// let cache = Cache::open(Config::new(&path).memory_bytes(4 << 20))?;
    /// cache.insert(b"key", b"value")?;
    /// cache.get(b"key")?;
    /// let stats = cache.stats();
    /// assert_eq!((stats.memory_hits, stats.memory_bytes_max), (1, 4 << 20));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn memory_bytes(self, memory_bytes: usize) -> Self {
        Self { memory_bytes, ..self }
    }

    /// How much is written at a time, 128 KiB unless told; at most a bucket. A read may have to wait
    /// in the device behind a whole write.
    #[must_use]
    pub fn segment_bytes(self, segment_bytes: u32) -> Self {
        Self { segment_bytes: segment_bytes.max(1), ..self }
    }

    /// How many buckets are filled at a time; otherwise one for every CPU, fewer on small devices.
    #[must_use]
    pub fn streams(self, streams: usize) -> Self {
        Self { streams: Some(streams.max(1)), ..self }
    }

    /// Whether the cache is open at once, and comes back while it is used already; otherwise it is
    /// opened when all of it is known.
    ///
    /// Buckets are read from the newest to the oldest, and a get finds what is known by then. It is
    /// never older than what it would find later: a value is known when no bucket that was not read
    /// can hold a newer one, or that the key was removed. [`contains`](crate::Cache::contains) says
    /// `true` for what is known. Inserts, removes and flushes wait for the end, with
    /// [`WhenFull::Fail`] they return [`Error::Recovering`](crate::Error::Recovering);
    /// [`recovered`](crate::Cache::recovered) waits for nothing else. Whatever goes wrong meanwhile
    /// is returned by all of these.
    ///
    /// ```
    /// # use tierce_cache::{Cache, Config};
    /// use tierce_cache::Recover;
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("cache");
    /// # let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    /// # tierce_io::format(&path, &options)?;
    /// let cache = Cache::open(Config::new(&path).recover(Recover::MissMeanwhile))?;
    /// let maybe = cache.get(b"key")?; // at once
    /// cache.insert(b"key", b"value")?; // when all is known
    /// let stats = cache.stats();
    /// assert_eq!(stats.recovered_buckets, stats.recovery_buckets);
    /// # assert_eq!(maybe, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn recover(self, recover: Recover) -> Self {
        Self { recover, ..self }
    }

    /// By which clock entries [expire](Put::ttl); otherwise by the system's.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// After how many hits values are written anew, with this policy; 0: none is.
    pub(crate) fn reinserts_after(&self, policy: Policy) -> u8 {
        self.reinsert_after.unwrap_or(u8::from(policy == Policy::Lru))
    }

    /// Where the cache is.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }
}
