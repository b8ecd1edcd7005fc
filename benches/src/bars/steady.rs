//! P4: buckets are allocated, held for a while, written, and reclaimed by LRU when their turn
//! comes. Whoever finds nothing free waits.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::backend::{FifoQueue, Full, Locked, Order, Original, Space};
use crate::measure::{Subject, run_for};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Buckets that a thread holds while it goes on.
const HELD: usize = 4;

/// No sample is made longer than this because of the size of the device.
const LONGEST: Duration = Duration::from_secs(3);

pub(super) fn steady<S: Space>(bench: &mut Bench<'_>) {
    for nbuckets in bench.buckets(&[64 << 10, 1 << 20], &[64 << 10, 1 << 20, 16 << 20]) {
        let name = super::buckets_name(nbuckets);
        let full = Full::new(nbuckets, Order::Random);
        let spaces = (S::start(&full), Original::start(&full));
        let more = (Locked::start(&full), FifoQueue::start(&full));
        let counts = bench.threads(&[1, 32], &[1, 2, 8, 32]);
        for (threads, ageing) in counts.into_iter().flat_map(|n| [(n, false), (n, true)]) {
            let ages = if ageing { ", ageing" } else { "" };
            let setting = format!("{name} buckets, {}{ages}", super::threads_name(threads));
            let figure = Figure::new("P4", "alloc → written", setting, "k/s", Better::More);
            let figure = figure.goals(Goal::Times(4.0), Goal::Times(10.0));
            let time = sample_time(bench.plan.sample, nbuckets);
            let run = Steady { threads, ageing, time };
            let subjects = vec![
                steady_on(&spaces.0, run),
                steady_on(&spaces.1, run),
                steady_on(&more.0, run),
                steady_on(&more.1, run),
            ];
            bench.measure(&[figure], subjects);
        }
    }
}

/// How long a sample takes, the same for all subjects. What is free when it begins should be little
/// of what is allocated in it, and it should contain many passes, with their rescales, of those who
/// take longest for them: half a second for 16 Mi buckets.
fn sample_time(sample: Duration, nbuckets: u32) -> Duration {
    let longer = sample * (nbuckets >> 19).max(1);
    longer.min(sample.max(LONGEST))
}

#[derive(Clone, Copy)]
struct Steady {
    threads: usize,
    /// Each bucket written counts as I/O, so that one in 1/1024 of the device brings a rescale.
    ageing: bool,
    time: Duration,
}

fn steady_on<S: Space>(space: &S, steady: Steady) -> Subject<'_> {
    Subject::new(S::NAME, move || {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reclaimer = scope.spawn(|| space.reclaim_until(&stop));
            let run = run_for(steady.threads, steady.time, |_, go_on| {
                let (mut held, mut allocated) = (VecDeque::with_capacity(HELD + 1), 0u64);
                while go_on() {
                    for _ in 0..16 {
                        held.push_back(space.alloc());
                        allocated += 1;
                        if held.len() > HELD
                            && let Some(oldest) = held.pop_front()
                        {
                            space.written(oldest);
                        }
                        if steady.ageing {
                            space.account_io(1024);
                        }
                    }
                }
                held.into_iter().for_each(|bucket| space.written(bucket));
                allocated
            });
            // Relaxed: nothing is published with it.
            stop.store(true, Ordering::Relaxed);
            reclaimer.join().expect("it did not panic");
            let allocated: u64 = run.results.iter().sum();
            vec![allocated as f64 / run.wall.as_secs_f64() / 1e3]
        })
    })
}
