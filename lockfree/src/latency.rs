//! How long slow things took: a histogram that many may add to.
//!
//! One counter per power of two of nanoseconds, and a sum. That is too coarse to compare two
//! allocators and fine enough to see whether a wait took microseconds or seconds; it costs 336
//! bytes and, for each thing that took long, two additions to memory that others add to as well.
//! Nothing that is expected to take less than a microsecond is measured so.

use crate::sync::Ordering;
use crate::sync::unmodelled::AtomicU64;
use std::time::Duration;

/// 2⁴⁰ ns are 18 minutes; what took longer counts as that.
const BANDS: usize = 41;

/// Adds up.
#[derive(Debug)]
pub(crate) struct Histogram {
    bands: [AtomicU64; BANDS],
    nanoseconds: AtomicU64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        let bands = core::array::from_fn(|_| AtomicU64::new(0));
        Self { bands, nanoseconds: AtomicU64::new(0) }
    }

    pub(crate) fn add(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let band = (u64::BITS - nanoseconds.leading_zeros()) as usize;
        // Relaxed (both): statistics.
        self.bands[band.min(BANDS - 1)].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Latencies {
        // Relaxed (both): statistics.
        let bands = core::array::from_fn(|band| self.bands[band].load(Ordering::Relaxed));
        Latencies { bands, total: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)) }
    }
}

/// How long things of one kind took, since the allocator was started.
///
/// ```
/// # use tierce_lockfree::{Allocator, Config, DeviceTable};
/// # let geometry = tierce_core::Geometry::new(1024, 1, 128, 1)?;
/// # let (allocator, _reclaimers) =
/// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// let waits = allocator.stats().devices[0].alloc_wait;
/// assert_eq!((waits.count(), waits.quantile(0.99)), (0, None));
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latencies {
    /// By ⌈log₂⌉ of the nanoseconds.
    bands: [u64; BANDS],
    total: Duration,
}

impl Latencies {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bands.iter().sum()
    }

    /// How long they took together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.total
    }

    /// A duration that a share of `quantile` (0 to 1) did not exceed, and that is at most twice
    /// what it has to be; `None` if there were none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.count();
        let wanted = ((count as f64 * quantile).ceil() as u64).clamp(1, count.max(1));
        let mut sum = 0;
        let reached = |&(_, &n): &(usize, &u64)| {
            sum += n;
            sum >= wanted
        };
        let (band, _) = self.bands.iter().enumerate().find(reached)?;
        Some(Duration::from_nanos((1 << band) - 1))
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_at_most_twice_what_it_has_to_be() {
        let histogram = Histogram::new();
        assert_eq!(histogram.read().quantile(0.5), None);
        for nanoseconds in 0..1000 {
            histogram.add(Duration::from_nanos(nanoseconds));
        }
        histogram.add(Duration::MAX);
        let read = histogram.read();
        assert_eq!(read.count(), 1001);
        let median = read.quantile(0.5).unwrap().as_nanos();
        assert!((500..1000).contains(&median), "{median}");
        assert_eq!(read.quantile(0.0).unwrap(), Duration::ZERO);
        assert!(read.quantile(1.0).unwrap() > Duration::from_secs(1000));
    }
}
