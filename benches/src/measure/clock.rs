//! Wall time and CPU time.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::{Duration, Instant};

/// What something took.
///
/// ```
/// use tierce_bench::measure::Stopwatch;
/// let watch = Stopwatch::start();
/// assert!(watch.took().cpu_nanos_per(1) >= 0.0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Took {
    /// By the wall clock.
    pub wall: Duration,
    /// On CPUs: of the measuring thread.
    pub cpu: Duration,
}

impl Took {
    /// CPU nanoseconds for each of `operations`.
    #[must_use]
    pub fn cpu_nanos_per(&self, operations: u64) -> f64 {
        self.cpu.as_nanos() as f64 / operations as f64
    }
}

/// Measures this thread.
///
/// ```
/// let watch = tierce_bench::measure::Stopwatch::start();
/// let took = watch.took();
/// assert!(took.wall.as_secs() < 3600);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    /// From now on.
    #[must_use]
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu(ClockId::ThreadCPUTime) }
    }

    /// Until now.
    #[must_use]
    pub fn took(&self) -> Took {
        let cpu = cpu(ClockId::ThreadCPUTime).saturating_sub(self.cpu);
        Took { wall: self.wall.elapsed(), cpu }
    }
}

/// CPU time of all threads of this process.
pub(crate) fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    Duration::new(tv_sec.max(0).unsigned_abs(), u32::try_from(tv_nsec).unwrap_or(0))
}

/// What one look at the clock costs, in nanoseconds: every latency that is measured one by one
/// contains it once.
///
/// ```
/// assert!(tierce_bench::measure::timer_nanos() > 0.0);
/// ```
#[must_use]
pub fn timer_nanos() -> f64 {
    const LOOKS: u32 = 200_000;
    let watch = Stopwatch::start();
    for _ in 0..LOOKS {
        std::hint::black_box(Instant::now());
    }
    watch.took().cpu_nanos_per(LOOKS.into())
}

/// What an atomic read-modify-write costs that nobody contends, in nanoseconds: the unit in which
/// lock-free operations are best counted, for it differs threefold between processors.
///
/// ```
/// assert!(tierce_bench::measure::rmw_nanos() > 0.0);
/// ```
#[must_use]
pub fn rmw_nanos() -> f64 {
    const TIMES: u64 = 1_000_000;
    let word = std::sync::atomic::AtomicU64::new(0);
    let watch = Stopwatch::start();
    for n in 0..TIMES {
        // AcqRel: as most of what is measured; nothing is published.
        std::hint::black_box(&word).fetch_add(n, std::sync::atomic::Ordering::AcqRel);
    }
    watch.took().cpu_nanos_per(TIMES)
}
