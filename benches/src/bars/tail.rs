//! P3: how long allocations take while one thread does nothing but passes: LRU, rescale,
//! garbage collection, again and again.
//!
//! The free lists are large and the allocating threads give back what they take, so that nobody
//! waits for a bucket: what is measured is what the passes do to the others. (No prio writes
//! here: they are the device's time more than the allocator's.) Threads run at the priority of
//! the process, so with as many allocating threads as cores the largest values are the
//! scheduler's time slices, for every backend alike.

use super::Bench;
use super::pairs::latencies;
use super::row::{Better, Figure, Goal};
use crate::backend::{Full, Locked, Order, Original, Space};
use crate::measure::Subject;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(super) fn tail<S: Space>(bench: &mut Bench<'_>) {
    for nbuckets in bench.buckets(&[1 << 20], &[1 << 20, 16 << 20]) {
        let name = super::buckets_name(nbuckets);
        let full = Full { none: nbuckets / 64, ..Full::new(nbuckets, Order::Random) };
        let subject = S::start(&full);
        let (original, locked) = (Original::start(&full), Locked::start(&full));
        subject.reclaim();
        original.reclaim();
        locked.reclaim();
        for threads in bench.threads(&[1, 2], &[1, 2, 32]) {
            let setting = format!("{name} buckets, {}", super::threads_name(threads));
            let figure =
                |name, unit, better| Figure::new("P3", name, setting.clone(), unit, better);
            let p999 = figure("pair during passes, p99.9", "ns", Better::Less);
            let figures = [
                p999.goals(Goal::Times(100.0), Goal::AtMost(2000.0)),
                figure("pair during passes, max", "µs", Better::Less),
                figure("pair without passes, max", "µs", Better::Less),
                figure("passes meanwhile", "", Better::More),
            ];
            let time = bench.plan.sample * 2;
            let subjects = vec![
                tail_on(&subject, &full, threads, time),
                tail_on(&original, &full, threads, time),
                tail_on(&locked, &full, threads, time),
            ];
            bench.measure(&figures, subjects);
        }
    }
}

fn tail_on<'a, S: Space>(
    space: &'a S,
    full: &'a Full,
    threads: usize,
    time: Duration,
) -> Subject<'a> {
    Subject::new(S::NAME, move || {
        let (stop, passes) = (AtomicBool::new(false), AtomicU64::new(0));
        let quiet = latencies(space, threads, time);
        let busy = std::thread::scope(|scope| {
            scope.spawn(|| {
                // Relaxed (both): nothing is published with them.
                while !stop.load(Ordering::Relaxed) {
                    one_of_each(space, full);
                    passes.fetch_add(1, Ordering::Relaxed);
                }
            });
            let latency = latencies(space, threads, time);
            // Relaxed: as above.
            stop.store(true, Ordering::Relaxed);
            latency
        });
        let micros = |nanos: u64| nanos as f64 / 1e3;
        vec![
            busy.nanos_at(0.999) as f64,
            micros(busy.nanos_at(1.0)),
            micros(quiet.nanos_at(1.0)),
            // Relaxed: the thread has ended.
            passes.load(Ordering::Relaxed) as f64,
        ]
    })
}

/// A quarter of the free buckets is used up, so that an LRU pass follows; a rescale; a
/// collection.
fn one_of_each<S: Space>(space: &S, full: &Full) {
    for _ in 0..full.none / 4 {
        if let Some(bucket) = space.try_alloc() {
            space.written(bucket);
        }
    }
    let step = full.geometry().rescale_step(1);
    space.account_io(u32::try_from(step).unwrap_or(u32::MAX).saturating_add(1));
    space.reclaim();
    space.collect();
}
