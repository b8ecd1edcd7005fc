//! P7: 8 sectors of an open bucket are taken, opening buckets included, reclaiming not: it fills
//! the lists between samples.
//!
//! The bar is for *taking*: batches of 64 extents are taken and kept, in memory that is there
//! already. What to ask for is drawn before, and they are let go after, which is not timed. Each
//! batch is timed by the wall clock, which costs a third of a nanosecond per extent; the CPU's would
//! cost several. Beside it stands, without a bar, what it costs to take each and let it go at once.
//!
//! What two threads reach is divided by what one does, and that by the same of private counters,
//! which are added to in batches that are timed in the same way.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::backend::{Full, Locked, Order, Original, SectorWrite, Space};
use crate::measure::{Latency, Subject, run_for};
use std::time::{Duration, Instant};
use tierce_core::draws::Draws;

/// Extents between two looks at the clock.
const BATCH: usize = 64;

/// Additions to a private counter between two looks: about as long.
const COUNTED: usize = 1024;

/// Extents of 8 sectors in a bucket.
const PER_BUCKET: u64 = 128;

/// What becomes of an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    /// It is kept until the clock was looked at.
    Kept,
    /// It is let go at once.
    LetGo,
}

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
    let time = bench.plan.sample;
    for (pattern, name, want) in patterns {
        let taken = ["8 sectors taken, mean", "8 sectors taken, p50", "8 sectors taken, 2 threads"];
        let both = [
            "8 sectors taken, let go, mean",
            "the same, p50",
            "8 sectors taken, let go, 2 threads",
        ];
        let bars = (Goal::AtMost(25.0), Goal::AtMost(want));
        let scaling = (Goal::AtLeast(0.9), Goal::AtLeast(1.0));
        let shown = (Goal::Shown, Goal::Shown);
        for (then, names, bars, scaling) in
            [(Then::Kept, taken, bars, scaling), (Then::LetGo, both, shown, shown)]
        {
            let figure = |name_, unit, better| Figure::new("P7", name_, name, unit, better);
            let figures = [
                figure(names[0], "ns", Better::Less).goals(bars.0, bars.1),
                figure(names[1], "ns", Better::Less),
                figure("buckets opened per bucket filled", "", Better::Less),
            ];
            let subjects = vec![
                alone_on(&spaces.0, pattern, then, time),
                alone_on(&spaces.1, pattern, then, time),
                alone_on(&locked, pattern, then, time),
            ];
            bench.measure(&figures, subjects);
            let setting = format!("{name}, scaling ÷ private counters");
            let figure = Figure::new("P7", names[2], setting, "", Better::More);
            let subjects = vec![
                scaling_on(&spaces.0, pattern, then, time),
                scaling_on(&spaces.1, pattern, then, time),
                scaling_on(&locked, pattern, then, time),
            ];
            bench.measure(&[figure.goals(scaling.0, scaling.1)], subjects);
        }
    }
}

/// What batches came to.
#[derive(Default)]
struct Batches {
    operations: u64,
    timed: Duration,
    latency: Latency,
}

impl Batches {
    /// As many of `size` operations as time allows, at least one. `batch` makes one and tells how
    /// long it took; or that it could not be made whole, which ends them and does not count.
    fn of(
        size: usize,
        go_on: &dyn Fn() -> bool,
        mut batch: impl FnMut() -> Option<Duration>,
    ) -> Self {
        let mut batches = Self::default();
        while let Some(took) = batch() {
            batches.operations += size as u64;
            batches.timed += took;
            // Tenths: nanoseconds are too coarse for a cost of ten.
            batches.latency.record_nanos(took.as_nanos() as u64 * 10 / size as u64);
            if !go_on() {
                break;
            }
        }
        batches
    }

    fn nanos_each(&self) -> f64 {
        self.timed.as_nanos() as f64 / self.operations as f64
    }
}

/// Extents are taken as long as there are free buckets.
fn take<S: Space>(space: &S, writes: &mut Writes, then: Then, go_on: &dyn Fn() -> bool) -> Batches {
    let (mut batch, mut kept) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    Batches::of(BATCH, go_on, || {
        batch.clear();
        batch.extend((0..BATCH).map(|_| writes.next()));
        let began = Instant::now();
        let is_whole = match then {
            Then::Kept => take_each(space, &batch, |extent| kept.push(extent)),
            Then::LetGo => take_each(space, &batch, drop),
        };
        let took = began.elapsed();
        kept.clear();
        is_whole.then_some(took)
    })
}

/// What threads do that share nothing: each adds to a counter of its own.
fn count(go_on: &dyn Fn() -> bool) -> Batches {
    let mut counter = 0u64;
    Batches::of(COUNTED, go_on, || {
        let began = Instant::now();
        for _ in 0..COUNTED {
            counter = std::hint::black_box(counter + 1);
        }
        Some(began.elapsed())
    })
}

/// Whether there was space for all.
#[inline]
fn take_each<'a, S: Space>(
    space: &'a S,
    batch: &[SectorWrite],
    mut each: impl FnMut(S::Extent<'a>),
) -> bool {
    for write in batch {
        let Some(extent) = space.sectors(write) else { return false };
        each(extent);
    }
    true
}

fn alone_on<S: Space>(space: &S, pattern: Pattern, then: Then, time: Duration) -> Subject<'_> {
    Subject::new(S::NAME, move || {
        space.reclaim();
        let mut writes = Writes::new(pattern, 0);
        let opened = space.counts().allocated;
        let end = Instant::now() + time;
        let done = take(space, &mut writes, then, &|| Instant::now() < end);
        let opened = space.counts().allocated - opened;
        assert!(done.operations > 0, "a full list of free buckets serves a batch");
        vec![
            done.nanos_each(),
            done.latency.nanos_at(0.5) as f64 / 10.0,
            opened as f64 / done.operations.div_ceil(PER_BUCKET) as f64,
        ]
    })
}

/// (two threads ÷ one thread) ÷ the same of private counters, which are timed in the same way. Each
/// thread has a stream, or write points, of its own choice. A list that runs empty ends a thread
/// early: what counts is how many extents each took per second of its own time.
fn scaling_on<S: Space>(space: &S, pattern: Pattern, then: Then, time: Duration) -> Subject<'_> {
    let extents = move |threads| {
        space.reclaim();
        throughput(threads, time, |thread, go_on| {
            take(space, &mut Writes::new(pattern, thread), then, go_on)
        })
    };
    let counters = move |threads| throughput(threads, time / 2, |_, go_on| count(go_on));
    Subject::new(S::NAME, move || {
        let (one, two) = (extents(1), extents(2));
        let machine = counters(2) / counters(1);
        vec![two / one / machine]
    })
}

/// Operations per nanosecond of so many threads.
fn throughput(
    threads: usize,
    time: Duration,
    work: impl Fn(usize, &dyn Fn() -> bool) -> Batches + Sync,
) -> f64 {
    run_for(threads, time, work).results.iter().map(|done| 1.0 / done.nanos_each()).sum()
}
