//! P1 and P2: a bucket is allocated and given back, and nothing is reclaimed meanwhile.

use super::Bench;
use super::row::{Better, Figure, Goal};
use super::shape::Curve;
use crate::backend::{FifoQueue, Full, Locked, Lockfree, Order, Original, Space};
use crate::measure::{Latency, Stopwatch, Subject, run_for};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Operations between two looks at the clock.
const BATCH: u64 = 256;

const FULL: Full = Full::new(64 << 10, Order::Random);

fn started<S: Space>() -> S {
    let space = S::start(&FULL);
    space.reclaim();
    space
}

/// P1: one thread. The figure contains all that an owner pays: cell, word, counters, the look
/// for waiters, the guard.
pub(super) fn alone<S: Space>(bench: &mut Bench<'_>) {
    let figure = Figure::new("P1", "try_alloc + give_back", "1 thread", "CPU ns", Better::Less);
    let figure = figure.goals(Goal::AtMost(15.0), Goal::AtMost(9.0));
    let spaces = (started::<S>(), started::<Original>());
    let more = (started::<Locked>(), started::<FifoQueue>());
    let time = bench.plan.sample;
    let subjects = vec![
        alone_on(&spaces.0, time),
        alone_on(&spaces.1, time),
        alone_on(&more.0, time),
        alone_on(&more.1, time),
    ];
    bench.measure(&[figure], subjects);
    let bare = Figure::new("P1", "pop + push of a cell", "1 thread", "CPU ns", Better::Less);
    bench.measure(&[bare.goals(Goal::Shown, Goal::AtMost(5.0))], vec![bare_cells(time)]);
    let unit = Figure::new("P1", "read-modify-write, uncontended", "", "CPU ns", Better::Less);
    let rmw = Subject::new(Lockfree::NAME, || vec![crate::measure::rmw_nanos()]);
    bench.measure(&[unit], vec![rmw]);
}

/// The part of a pair that cannot be less: the cells alone.
fn bare_cells(time: Duration) -> Subject<'static> {
    let cells = tierce_lockfree::bare::Cells::new();
    Subject::new(Lockfree::NAME, move || {
        let (watch, end) = (Stopwatch::start(), Instant::now() + time);
        let mut pairs = 0;
        while Instant::now() < end {
            for _ in 0..BATCH {
                let bucket = std::hint::black_box(&cells).pop().expect("it is full");
                assert!(cells.push(bucket), "it has room again");
            }
            pairs += BATCH;
        }
        vec![watch.took().cpu_nanos_per(pairs)]
    })
}

fn alone_on<S: Space>(space: &S, time: Duration) -> Subject<'_> {
    Subject::new(S::NAME, move || {
        let (watch, end) = (Stopwatch::start(), Instant::now() + time);
        let mut pairs = 0;
        while Instant::now() < end {
            for _ in 0..BATCH {
                drop(space.try_alloc().expect("one thread holds one bucket of many"));
            }
            pairs += BATCH;
        }
        vec![watch.took().cpu_nanos_per(pairs)]
    })
}

/// P2: many threads on few cores.
pub(super) fn crowded<S: Space>(bench: &mut Bench<'_>) {
    let spaces = (started::<S>(), started::<Original>());
    let more = (started::<Locked>(), started::<FifoQueue>());
    let time = bench.plan.sample;
    for threads in bench.threads(&[1, 2, 8, 32], &[1, 2, 4, 8, 16, 32, 64]) {
        let setting = super::threads_name(threads);
        let figure = |name, unit, better| {
            Figure::new("P2", name, setting.clone(), unit, better).against("locked")
        };
        let mut figures = [
            figure("pairs per second", "M/s", Better::More),
            figure("pair, p99.99", "ns", Better::Less),
            figure("found nothing free", "ppm", Better::Less),
        ];
        if threads == 32 {
            let [pairs, tail, _] = &mut figures;
            *pairs = pairs.clone().goals(Goal::Times(2.5), Goal::Times(5.0));
            *tail = tail.clone().goals(Goal::Times(100.0), Goal::AtMost(200.0));
        }
        let kept: [RefCell<Latency>; 4] = Default::default();
        let subjects = vec![
            crowded_on(&spaces.0, threads, time, &kept[0]),
            crowded_on(&spaces.1, threads, time, &kept[1]),
            crowded_on(&more.0, threads, time, &kept[2]),
            crowded_on(&more.1, threads, time, &kept[3]),
        ];
        bench.measure(&figures, subjects);
        let names = [S::NAME, Original::NAME, Locked::NAME, FifoQueue::NAME];
        for (latency, name) in kept.into_iter().zip(names) {
            let curve = Curve::of("pair", &setting, name, &latency.into_inner());
            bench.results.curves.push(curve);
        }
    }
}

/// Throughput without looks at the clock, then latencies with one look per pair.
fn crowded_on<'a, S: Space>(
    space: &'a S,
    threads: usize,
    time: Duration,
    kept: &'a RefCell<Latency>,
) -> Subject<'a> {
    Subject::new(S::NAME, move || {
        let run = run_for(threads, time, |_, go_on| {
            let (mut pairs, mut failed) = (0, 0);
            while go_on() {
                for _ in 0..BATCH {
                    match space.try_alloc() {
                        Some(_) => pairs += 1,
                        None => failed += 1,
                    }
                }
            }
            (pairs, failed)
        });
        let pairs: u64 = run.results.iter().map(|(pairs, _)| pairs).sum();
        let failed: u64 = run.results.iter().map(|(_, failed)| failed).sum();
        let latency = latencies(space, threads, time);
        kept.borrow_mut().merge(&latency);
        vec![
            pairs as f64 / run.wall.as_secs_f64() / 1e6,
            latency.nanos_at(0.9999) as f64,
            failed as f64 * 1e6 / (pairs + failed) as f64,
        ]
    })
}

/// How long each pair took, one look at the clock included.
fn latencies<S: Space>(space: &S, threads: usize, time: Duration) -> Latency {
    let run = run_for(threads, time, |_, go_on| {
        let mut latency = Latency::default();
        while go_on() {
            let mut before = Instant::now();
            for _ in 0..BATCH {
                drop(space.try_alloc());
                let now = Instant::now();
                latency.record(now - before);
                before = now;
            }
        }
        latency
    });
    let mut all = Latency::default();
    run.results.iter().for_each(|latency| all.merge(latency));
    all
}
