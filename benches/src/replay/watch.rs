//! What a run does just now, for whoever watches it.

use crate::measure::Latency;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What happened since somebody looked.
///
/// ```
/// let nothing = tierce_bench::replay::Interval::default();
/// assert_eq!((nothing.accesses, nothing.get.count()), (0, 0));
/// ```
#[derive(Default, Debug)]
#[non_exhaustive]
pub struct Interval {
    /// Operations that looked a key up.
    pub accesses: u64,
    /// Accesses that found it.
    pub hits: u64,
    /// How long gets took, whatever they found.
    pub get: Latency,
    /// How long inserts took.
    pub insert: Latency,
}

/// Tells what a run does, interval by interval, while it goes on.
///
/// ```
/// use std::sync::Arc;
/// use tierce_bench::backend::Unbounded;
/// use tierce_bench::replay::{Settings, Watch, run};
/// use tierce_bench::workload::{Zipf, ZipfSettings};
/// let watch = Arc::<Watch>::default();
/// let mut settings = Settings::default();
/// settings.watch = Some(watch.clone());
/// let mut workload = ZipfSettings::default();
/// workload.requests = 1000;
/// let outcome = run(&Unbounded::default(), Zipf::new(&workload)?, &settings, &mut |_| {})?;
/// assert_eq!(watch.take().hits, outcome.hits);
/// assert_eq!(watch.take().hits, 0, "nothing since");
/// # Ok::<(), tierce_bench::Error>(())
/// ```
#[derive(Default, Debug)]
pub struct Watch {
    threads: Mutex<Vec<Arc<Watched>>>,
}

/// What one thread does. Its lock is taken by nobody else but once in an interval.
#[derive(Default, Debug)]
pub(super) struct Watched(Mutex<Interval>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// One more thread.
    pub(super) fn thread(&self) -> Arc<Watched> {
        let watched = Arc::<Watched>::default();
        lock(&self.threads).push(watched.clone());
        watched
    }

    /// What all threads did since this was asked before.
    #[must_use]
    pub fn take(&self) -> Interval {
        let mut all = Interval::default();
        for thread in lock(&self.threads).iter() {
            let Interval { accesses, hits, get, insert } = std::mem::take(&mut *lock(&thread.0));
            all.accesses += accesses;
            all.hits += hits;
            all.get.merge(&get);
            all.insert.merge(&insert);
        }
        all
    }
}

impl Watched {
    pub(super) fn access(&self, hit: bool) {
        let mut interval = lock(&self.0);
        interval.accesses += 1;
        interval.hits += u64::from(hit);
    }

    pub(super) fn get(&self, took: Duration) {
        lock(&self.0).get.record(took);
    }

    pub(super) fn insert(&self, took: Duration) {
        lock(&self.0).insert.record(took);
    }
}
