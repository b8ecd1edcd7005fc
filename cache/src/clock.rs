//! What time it is, for times to live.
//!
//! An entry has the time of its end in its record: it counts over a restart, and on another
//! machine. So it is the time of day, which somebody may set: then entries end earlier or later.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The clock by which entries [expire](crate::Put::ttl).
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::{Duration, UNIX_EPOCH};
/// use tierce_cache::{Cache, Clock, Config, Put};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// # let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// # tierce_io::format(&path, &options)?;
///
/// let hour = Arc::new(AtomicU64::new(500_000));
/// let hand = hour.clone();
/// // Relaxed: a number.
/// let hours = move || UNIX_EPOCH + Duration::from_secs(3600 * hand.load(Ordering::Relaxed));
/// let cache = Cache::open(Config::new(&path).clock(Clock::new(hours)))?;
/// cache.insert_with(b"key", b"value", &Put::new().ttl(Duration::from_secs(7200)))?;
/// assert!(cache.get(b"key")?.is_some());
/// hour.fetch_add(2, Ordering::Relaxed); // Relaxed: a number.
/// assert!(cache.get(b"key")?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>);

impl Clock {
    /// The system's.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// One that shows what `now` returns: a coarse one that is cheap to ask, or a test's. It is
    /// asked by every insert with a time to live and by every get of such an entry, on the calling
    /// thread.
    #[must_use]
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// Milliseconds since 1970, 0 for any time before. A clock that jumps makes entries expire
    /// earlier or later, nothing else.
    fn now_ms(&self) -> u64 {
        let now = self.0.as_ref().map_or_else(SystemTime::now, |now| now());
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// When an entry that is written now ends, for its record: never 0, which stands for never.
    pub(crate) fn end(&self, ttl: Duration) -> u64 {
        self.now_ms().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)).max(1)
    }

    /// Whether an entry with that end in its record has ended.
    pub(crate) fn is_past(&self, end: u64) -> bool {
        end != 0 && end <= self.now_ms()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_none() { "Clock(system)" } else { "Clock(own)" })
    }
}
