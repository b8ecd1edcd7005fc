//! P5 and P6: what a pass costs.
//!
//! A pass is not something that users call. What is measured is one turn of the reclaimer in
//! which exactly one took place (the counters tell). A turn with an LRU pass also invalidates
//! what it chose (1/256 of the buckets, or less) and puts part of it on the free lists; a turn
//! with a rescale also looks at lists that are full already. Both are a few hundredths of a
//! nanosecond per bucket.
//!
//! An LRU pass is measured with vector instructions where the processor has them, without them
//! (*portable*), and by the wall clock with one thread and with two. What two threads can reach
//! on the machine at that time is measured in the same turns: each adds to a counter of its own,
//! and each reads half of as many words as there are buckets.
//! A *bare scan* is a relaxed load of one word per bucket, and nothing else.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::backend::{Full, Locked, Lockfree, Order, Original, Space};
use crate::measure::{Stopwatch, Subject, Took, private_counters};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tierce_lockfree::Config;

const ORDERS: [(Order, &str); 4] = [
    (Order::Random, "random"),
    (Order::Equal, "all equal"),
    (Order::Descending, "descending"),
    (Order::Ineligible, "90 % ineligible"),
];

/// P5: LRU.
pub(super) fn lru<S: Space>(bench: &mut Bench<'_>) {
    let sizes = bench.buckets(&[64 << 10, 1 << 20], &[64 << 10, 1 << 20, 16 << 20]);
    for &nbuckets in &sizes {
        let size = super::buckets_name(nbuckets);
        // There is no time for all of it on every size.
        let whole = !bench.plan.quick || Some(&nbuckets) == sizes.last();
        let mut random = [f64::NAN; 2];
        for (order, name) in ORDERS {
            let full = Full::new(nbuckets, order);
            let setting = format!("{size} buckets, {name}");
            let own = lru_by_one_thread::<S>(bench, &full, &setting, random[0]);
            let mut portable = f64::NAN;
            if S::NAME == Lockfree::NAME && whole {
                portable = lru_portable(bench, &full, &setting, random[1]);
                lru_by_two_threads(bench, &full, &setting);
            }
            if order == Order::Random {
                random = [own, portable];
            }
        }
    }
    // What little a second thread costs counts for less, the larger the device is.
    let large = Full::new(16 << 20, Order::Random);
    let plan = bench.plan;
    if S::NAME == Lockfree::NAME && plan.quick && plan.rounds > 1 && plan.buckets.is_empty() {
        lru_by_two_threads(bench, &large, "16 Mi buckets, random");
    }
}

/// A device whose passes are made like that.
fn passes(full: &Full, pass_threads: u32, pass_vectors: bool) -> Lockfree {
    Lockfree::start_with(
        full,
        Config::default().pass_threads(pass_threads).pass_vectors(pass_vectors),
    )
}

/// The goal of the random order, and of the others twice what that took.
fn at_most(random: f64, goal: f64) -> Goal {
    Goal::AtMost(if random.is_nan() { goal } else { (2.0 * random * 100.0).round() / 100.0 })
}

/// CPU time of one thread with default settings: vectors if there are any. Returns what it was.
fn lru_by_one_thread<S: Space>(
    bench: &mut Bench<'_>,
    full: &Full,
    setting: &str,
    random: f64,
) -> f64 {
    let figure = Figure::new("P5", "LRU pass", setting, "CPU ns/bucket", Better::Less);
    let figure = figure.goals(at_most(random, 0.9), Goal::AtMost(0.5));
    let (own, original, locked) = (S::start(full), Original::start(full), Locked::start(full));
    let subjects = vec![
        lru_on(S::NAME, &own, full.nbuckets, cpu),
        lru_on(Original::NAME, &original, full.nbuckets, cpu),
        lru_on(Locked::NAME, &locked, full.nbuckets, cpu),
        bare_scan(full.nbuckets),
    ];
    bench.measure(&[figure], subjects);
    bench.results.rows.last().map_or(f64::NAN, |row| row.value)
}

/// CPU time per word of reading as many words as there are buckets.
fn bare_scan(nbuckets: u32) -> Subject<'static> {
    let words = words(nbuckets);
    Subject::new("bare scan", move || {
        let watch = Stopwatch::start();
        read(&words);
        vec![cpu(watch.took(), nbuckets)]
    })
}

/// As many words as there are buckets.
fn words(nbuckets: u32) -> Vec<AtomicU64> {
    (0..nbuckets).map(|n| AtomicU64::new(n.into())).collect()
}

/// Reads them all.
fn read(words: &[AtomicU64]) {
    // Relaxed: nobody writes.
    let sum = words.iter().fold(0u64, |sum, word| sum ^ word.load(Ordering::Relaxed));
    std::hint::black_box(sum);
}

/// Wall time per word if so many threads, which are there already, read a part of them each.
fn bare_scan_by(threads: usize, words: &[AtomicU64]) -> f64 {
    let there = &AtomicU64::new(0);
    let part = move |part| {
        // Relaxed (both): nothing is published.
        there.fetch_add(1, Ordering::Relaxed);
        while there.load(Ordering::Relaxed) < threads as u64 {
            std::thread::yield_now();
        }
        let begin = Instant::now();
        read(part);
        (begin, Instant::now())
    };
    let all = std::thread::scope(|scope| {
        let parts = words.chunks(words.len().div_ceil(threads));
        let parts: Vec<_> = parts.map(|words| scope.spawn(move || part(words))).collect();
        let parts = parts.into_iter().map(|thread| thread.join().expect("it only reads"));
        parts.reduce(|(begin, end), other| (begin.min(other.0), end.max(other.1)))
    });
    let wall = all.map_or(Duration::ZERO, |(begin, end)| end.duration_since(begin));
    wall.as_nanos() as f64 / words.len() as f64
}

/// The same without vectors, beside that with them.
fn lru_portable(bench: &mut Bench<'_>, full: &Full, setting: &str, random: f64) -> f64 {
    let figure = Figure::new("P5", "LRU pass, portable", setting, "CPU ns/bucket", Better::Less);
    let figure = figure.goals(at_most(random, 1.5), Goal::Shown).against("vectors");
    let (portable, vectors) = (passes(full, 1, false), passes(full, 1, true));
    let subjects = vec![
        lru_on(Lockfree::NAME, &portable, full.nbuckets, cpu),
        lru_on("vectors", &vectors, full.nbuckets, cpu),
    ];
    bench.measure(&[figure], subjects);
    bench.results.rows.last().map_or(f64::NAN, |row| row.value)
}

/// Wall time with one helper beside that of the reclaimer alone, and what two threads that share
/// nothing, or nothing but the way to memory, reach beside one.
fn lru_by_two_threads(bench: &mut Bench<'_>, full: &Full, setting: &str) {
    let figure = |name, unit, better| {
        let figure = Figure::new("P5", name, format!("{setting}, 2 threads"), unit, better);
        figure.against("1 thread")
    };
    let pass = figure("LRU pass", "wall ns/bucket", Better::Less);
    let figures = [
        pass.goals(Goal::Times(1.67), Goal::Shown),
        figure("private counters", "M/s", Better::More),
        figure("bare scan", "wall ns/word", Better::Less),
    ];
    let words = &words(full.nbuckets);
    let (two, one) = (passes(full, 2, true), passes(full, 1, true));
    let calibrated = |name, space, threads| {
        let mut pass = lru_on(name, space, full.nbuckets, wall);
        Subject::new(name, move || {
            let mut figures = pass.run();
            figures.push(private_counters(threads, CALIBRATION) / 1e6);
            figures.push(bare_scan_by(threads, words));
            figures
        })
    };
    let subjects = vec![calibrated("2 threads", &two, 2), calibrated("1 thread", &one, 1)];
    bench.measure(&figures, subjects);
}

/// How long private counters are counted in each turn.
const CALIBRATION: Duration = Duration::from_millis(20);

fn cpu(took: Took, nbuckets: u32) -> f64 {
    took.cpu_nanos_per(nbuckets.into())
}

fn wall(took: Took, nbuckets: u32) -> f64 {
    took.wall.as_nanos() as f64 / f64::from(nbuckets)
}

/// Uses buckets up until a turn of the reclaimer contains a pass; what that turn took.
fn lru_on<'a, S: Space>(
    name: &'static str,
    space: &'a S,
    nbuckets: u32,
    figure: fn(Took, u32) -> f64,
) -> Subject<'a> {
    Subject::new(name, move || {
        let before = space.counts().invalidated;
        loop {
            while let Some(bucket) = space.try_alloc() {
                space.written(bucket);
            }
            let watch = Stopwatch::start();
            space.reclaim();
            let took = watch.took();
            if space.counts().invalidated > before {
                return vec![figure(took, nbuckets)];
            }
        }
    })
}

/// P6: rescale.
pub(super) fn rescale<S: Space>(bench: &mut Bench<'_>) {
    for nbuckets in bench.buckets(&[64 << 10, 1 << 20], &[64 << 10, 1 << 20, 16 << 20]) {
        let size = super::buckets_name(nbuckets);
        let full = Full::new(nbuckets, Order::Random);
        let setting = format!("{size} buckets");
        let figure = Figure::new("P6", "rescale", setting, "CPU ns/bucket", Better::Less);
        let figure = figure.goals(Goal::AtMost(2.6), Goal::AtMost(0.5));
        let spaces = (S::start(&full), Original::start(&full));
        let locked = Locked::start(&full);
        let subjects = vec![
            rescale_on(&spaces.0, &full),
            rescale_on(&spaces.1, &full),
            rescale_on(&locked, &full),
        ];
        bench.measure(&[figure], subjects);
    }
}

fn rescale_on<'a, S: Space>(space: &'a S, full: &'a Full) -> Subject<'a> {
    Subject::new(S::NAME, move || {
        space.reclaim();
        let before = space.counts().rescales;
        let watch = Stopwatch::start();
        while space.counts().rescales == before {
            // In `original` this is the pass, in the others it asks the reclaimer for it.
            let step = u32::try_from(full.geometry().rescale_step(1)).unwrap_or(u32::MAX);
            space.account_io(step);
            space.reclaim();
        }
        let passes = space.counts().rescales - before;
        vec![watch.took().cpu_nanos_per(u64::from(full.nbuckets) * passes)]
    })
}
