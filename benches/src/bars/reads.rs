//! P8: a read hit: the check before the read, the check after it, the touch.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::backend::{Full, Locked, Order, Original, Space};
use crate::measure::{Stopwatch, Subject, private_counters, run_for};
use std::time::{Duration, Instant};
use tierce_lockfree::BucketRef;

/// Operations between two looks at the clock.
const BATCH: u64 = 256;

pub(super) fn reads<S: Space>(bench: &mut Bench<'_>) {
    let full = Full::new(64 << 10, Order::Random);
    let spaces = (S::start(&full), Original::start(&full));
    let locked = Locked::start(&full);
    let pointers = (written(&spaces.0), written(&spaces.1), written(&locked));
    let time = bench.plan.sample;
    let figure = Figure::new("P8", "read hit", "1 thread, 1 bucket", "CPU ns", Better::Less);
    let figure = figure.goals(Goal::AtMost(5.0), Goal::AtMost(2.0));
    let subjects = vec![
        alone_on(&spaces.0, pointers.0, time),
        alone_on(&spaces.1, pointers.1, time),
        alone_on(&locked, pointers.2, time),
    ];
    bench.measure(&[figure], subjects);
    let figure = Figure::new(
        "P8",
        "read hit, scaling of that of private counters",
        "2 threads, 1 bucket",
        "",
        Better::More,
    );
    let figure = figure.goals(Goal::AtLeast(0.9), Goal::AtLeast(1.0));
    let subjects = vec![
        scaling_on(&spaces.0, pointers.0, time),
        scaling_on(&spaces.1, pointers.1, time),
        scaling_on(&locked, pointers.2, time),
    ];
    bench.measure(&[figure], subjects);
}

fn written<S: Space>(space: &S) -> BucketRef {
    space.reclaim();
    let bucket = space.try_alloc().expect("it reclaimed");
    let pointer = S::pointer(&bucket).expect("it has gens");
    space.written(bucket);
    pointer
}

fn hits<S: Space>(space: &S, pointer: BucketRef, go_on: &dyn Fn() -> bool) -> u64 {
    let mut hits = 0;
    while go_on() {
        for _ in 0..BATCH {
            assert!(space.read_hit(std::hint::black_box(pointer)), "nothing is reused meanwhile");
        }
        hits += BATCH;
    }
    hits
}

fn alone_on<S: Space>(space: &S, pointer: BucketRef, time: Duration) -> Subject<'_> {
    Subject::new(S::NAME, move || {
        let (watch, end) = (Stopwatch::start(), Instant::now() + time);
        let hits = hits(space, pointer, &|| Instant::now() < end);
        vec![watch.took().cpu_nanos_per(hits)]
    })
}

/// (two threads ÷ one thread) ÷ the same of private counters.
fn scaling_on<S: Space>(space: &S, pointer: BucketRef, time: Duration) -> Subject<'_> {
    let throughput = move |threads| {
        let run = run_for(threads, time, |_, go_on| hits(space, pointer, go_on));
        run.results.iter().sum::<u64>() as f64
    };
    Subject::new(S::NAME, move || {
        let (one, two) = (throughput(1), throughput(2));
        let machine = private_counters(2, time / 4) / private_counters(1, time / 4);
        vec![two / one / machine]
    })
}
