//! P5 and P6: what a pass costs.
//!
//! A pass is not something that users call. What is measured is one turn of the reclaimer in
//! which exactly one took place (the counters tell). A turn with an LRU pass also invalidates
//! what it chose (1/256 of the buckets, or less) and puts part of it on the free lists; a turn
//! with a rescale also looks at lists that are full already. Both are a few hundredths of a
//! nanosecond per bucket.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::backend::{Full, Locked, Order, Original, Space};
use crate::measure::{Stopwatch, Subject};

const ORDERS: [(Order, &str); 4] = [
    (Order::Random, "random"),
    (Order::Equal, "all equal"),
    (Order::Descending, "descending"),
    (Order::Ineligible, "90 % ineligible"),
];

/// P5: LRU.
pub(super) fn lru<S: Space>(bench: &mut Bench<'_>) {
    for nbuckets in bench.buckets(&[64 << 10, 1 << 20], &[64 << 10, 1 << 20, 16 << 20]) {
        let size = super::buckets_name(nbuckets);
        let mut random = f64::NAN;
        for (order, name) in ORDERS {
            let full = Full::new(nbuckets, order);
            let setting = format!("{size} buckets, {name}");
            let figure = Figure::new("P5", "LRU pass", setting, "CPU ns/bucket", Better::Less);
            let must =
                if order == Order::Random { 1.5 } else { (2.0 * random * 100.0).round() / 100.0 };
            let figure = figure.goals(Goal::AtMost(must), Goal::AtMost(0.5));
            let spaces = (S::start(&full), Original::start(&full));
            let locked = Locked::start(&full);
            let subjects = vec![
                lru_on(&spaces.0, nbuckets),
                lru_on(&spaces.1, nbuckets),
                lru_on(&locked, nbuckets),
            ];
            bench.measure(&[figure], subjects);
            if order == Order::Random {
                random = bench.results.rows.last().map_or(f64::NAN, |row| row.value);
            }
        }
    }
}

/// Uses buckets up until a turn of the reclaimer contains a pass; the CPU time of that turn.
fn lru_on<S: Space>(space: &S, nbuckets: u32) -> Subject<'_> {
    Subject::new(S::NAME, move || {
        let before = space.counts().invalidated;
        loop {
            while let Some(bucket) = space.try_alloc() {
                space.written(bucket);
            }
            let watch = Stopwatch::start();
            space.reclaim();
            let took = watch.took();
            if space.counts().invalidated > before {
                return vec![took.cpu_nanos_per(nbuckets.into())];
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
