//! P7: 8 sectors of an open bucket are taken and let go again, opening buckets included,
//! reclaiming not: it fills the lists between samples.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::backend::{Full, Locked, Order, Original, SectorWrite, Space};
use crate::measure::{Latency, Stopwatch, Subject, private_counters, run_for};
use std::time::{Duration, Instant};
use tierce_core::draws::Draws;

/// Operations between two looks at the clock.
const BATCH: u64 = 64;

/// Extents of 8 sectors in a bucket.
const PER_BUCKET: u64 = 128;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pattern {
    Sequential,
    Random,
    WritePoints,
}

/// One of it per thread: the same writes for every backend.
struct Writes {
    pattern: Pattern,
    thread: u32,
    draws: Draws,
    offset: u64,
}

impl Writes {
    fn new(pattern: Pattern, thread: usize) -> Self {
        let thread = thread as u32;
        Self { pattern, thread, draws: Draws::new(thread.into()), offset: 0 }
    }

    fn next(&mut self) -> SectorWrite {
        let inode = u64::from(self.thread);
        match self.pattern {
            Pattern::Sequential => {
                self.offset += 8;
                SectorWrite { inode, offset: self.offset, write_point: self.thread }
            }
            Pattern::Random => {
                let offset = u64::from(self.draws.below(1 << 30)) * 8;
                SectorWrite { inode, offset, write_point: self.thread }
            }
            Pattern::WritePoints => {
                let write_point = self.draws.below(256);
                SectorWrite { inode, offset: u64::from(self.draws.below(1 << 30)), write_point }
            }
        }
    }
}

pub(super) fn sectors<S: Space>(bench: &mut Bench<'_>) {
    let nbuckets = 64 << 10;
    // A quarter of the device free: enough for a sample.
    let full = Full { none: nbuckets / 4, ..Full::new(nbuckets, Order::Random) };
    let spaces = (S::start(&full), Original::start(&full));
    let locked = Locked::start(&full);
    let patterns = [
        (Pattern::Sequential, "sequential", 9.0),
        (Pattern::Random, "random positions", 10.0),
        (Pattern::WritePoints, "256 write points", 16.0),
    ];
    for (pattern, name, want) in patterns {
        let figure = |name_, unit, better| Figure::new("P7", name_, name, unit, better);
        let mean = figure("8 sectors, mean", "CPU ns", Better::Less);
        let figures = [
            mean.goals(Goal::AtMost(25.0), Goal::AtMost(want)),
            figure("8 sectors, p50 of batches of 64", "ns", Better::Less),
            figure("buckets opened per bucket filled", "", Better::Less),
        ];
        let time = bench.plan.sample;
        let subjects = vec![
            alone_on(&spaces.0, pattern, time),
            alone_on(&spaces.1, pattern, time),
            alone_on(&locked, pattern, time),
        ];
        bench.measure(&figures, subjects);
        let figure = Figure::new(
            "P7",
            "8 sectors, scaling of that of private counters",
            format!("{name}, 2 threads"),
            "",
            Better::More,
        );
        let figure = figure.goals(Goal::AtLeast(0.9), Goal::AtLeast(1.0));
        let subjects = vec![
            scaling_on(&spaces.0, pattern, time),
            scaling_on(&spaces.1, pattern, time),
            scaling_on(&locked, pattern, time),
        ];
        bench.measure(&[figure], subjects);
    }
}

/// As many batches as time allows and there are free buckets for.
fn batches<S: Space>(
    space: &S,
    writes: &mut Writes,
    go_on: &dyn Fn() -> bool,
    mut each: impl FnMut(Duration),
) -> u64 {
    let mut done = 0;
    while go_on() {
        let before = Instant::now();
        for _ in 0..BATCH {
            if space.sectors(&writes.next()).is_none() {
                return done;
            }
            done += 1;
        }
        each(before.elapsed());
    }
    done
}

fn alone_on<S: Space>(space: &S, pattern: Pattern, time: Duration) -> Subject<'_> {
    Subject::new(S::NAME, move || {
        space.reclaim();
        let (mut writes, mut latency) = (Writes::new(pattern, 0), Latency::default());
        let opened = space.counts().allocated;
        let (watch, end) = (Stopwatch::start(), Instant::now() + time);
        // Tenths: nanoseconds are too coarse for a cost of ten.
        let each = |took: Duration| latency.record_nanos(took.as_nanos() as u64 * 10 / BATCH);
        let done = batches(space, &mut writes, &|| Instant::now() < end, each);
        let took = watch.took();
        let opened = space.counts().allocated - opened;
        assert!(done > 0, "a full list of free buckets serves a batch");
        vec![
            took.cpu_nanos_per(done),
            latency.nanos_at(0.5) as f64 / 10.0,
            opened as f64 / done.div_ceil(PER_BUCKET) as f64,
        ]
    })
}

/// (two threads ÷ one thread) ÷ the same of private counters. Each thread has a stream, or
/// write points, of its own choice.
fn scaling_on<S: Space>(space: &S, pattern: Pattern, time: Duration) -> Subject<'_> {
    let throughput = move |threads| {
        space.reclaim();
        let run = run_for(threads, time, |thread, go_on| {
            let began = Instant::now();
            let mut writes = Writes::new(pattern, thread);
            let done = batches(space, &mut writes, go_on, |_| {});
            // A list that runs empty ends a thread early: its own time counts.
            done as f64 / began.elapsed().as_secs_f64()
        });
        run.results.iter().sum::<f64>()
    };
    Subject::new(S::NAME, move || {
        let one = throughput(1);
        let two = throughput(2);
        let machine = private_counters(2, time / 4) / private_counters(1, time / 4);
        vec![two / one / machine]
    })
}
