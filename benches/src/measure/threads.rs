//! Many threads that do the same for a while.

use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

/// What came of it.
///
/// ```
/// use std::time::Duration;
/// use tierce_bench::measure::run_for;
/// let run = run_for(2, Duration::from_millis(1), |_thread, go_on| {
///     let mut times = 0u64;
///     while go_on() {
///         times += 1;
///     }
///     times
/// });
/// assert_eq!(run.results.len(), 2);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run<T> {
    /// What each thread returned.
    pub results: Vec<T>,
    /// From the start of all threads until the last batch was begun.
    pub wall: Duration,
}

/// Runs `work` on `threads` threads at once. It is given the thread's number and asks before
/// each batch of operations whether to go on; asking is a look at the clock, so that no thread
/// has to be woken to stop the others, whatever their priority.
///
/// # Panics
///
/// If a thread does.
pub fn run_for<T: Send>(
    threads: usize,
    time: Duration,
    work: impl Fn(usize, &dyn Fn() -> bool) -> T + Sync,
) -> Run<T> {
    let (end, start) = (OnceLock::new(), Barrier::new(threads));
    let (end, start, work) = (&end, &start, &work);
    std::thread::scope(|scope| {
        let spawn = |number| {
            scope.spawn(move || {
                start.wait();
                let end = *end.get_or_init(|| Instant::now() + time);
                work(number, &|| Instant::now() < end)
            })
        };
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        let results = handles.into_iter().map(|thread| thread.join().expect("it did not panic"));
        Run { results: results.collect(), wall: time }
    })
}

/// How many operations per second `threads` threads reach that share nothing: each adds to a
/// counter of its own. What of this is missing to `threads` times that of one thread is the
/// machine's doing, and no allocator's.
///
/// ```
/// use std::time::Duration;
/// use tierce_bench::measure::private_counters;
/// assert!(private_counters(2, Duration::from_millis(2)) > 0.0);
/// ```
#[must_use]
pub fn private_counters(threads: usize, time: Duration) -> f64 {
    let run = run_for(threads, time, |_, go_on| {
        let mut counter = 0u64;
        while go_on() {
            for _ in 0..256 {
                counter = std::hint::black_box(counter + 1);
            }
        }
        counter
    });
    run.results.iter().sum::<u64>() as f64 / run.wall.as_secs_f64()
}
