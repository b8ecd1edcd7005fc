//! Open buckets, filled by many threads at once.
//!
//! Checked, I11 and more: of every bucket that was opened the extents are disjoint and gapless; it
//! is lost to nobody: all but the last ones, which are still open in the end, are full up to less
//! than a block; no bucket is opened in vain, whatever threads do at the end of one; the sectors
//! counted are those handed out. And: streams stay together while there are slots for them,
//! whichever thread goes on with one, and are mixed as little as possible when there are not.

#![cfg(not(tierce_loom))]

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Barrier};
use tierce_core::draws::Draws;
use tierce_core::{Geometry, Reserve, Sizes};
use tierce_lockfree::{
    Allocator, BucketRef, Config, DeviceTable, Reclaimer, SectorRequest, Step, WaitFor, WritePoint,
};

const NBUCKETS: u32 = 4096;
const SECTORS: u32 = 64;
const BLOCK: u32 = 4;

/// With nearly all buckets on the free list: none has to be reclaimed.
fn start(config: Config) -> Arc<Allocator> {
    let geometry = Geometry::new(NBUCKETS, 1, SECTORS, BLOCK).expect("a legal shape");
    let mut sizes = Sizes::tierce(&geometry, 0);
    (sizes.none, sizes.free_inc) = (NBUCKETS / 2, NBUCKETS / 4);
    sizes.candidates = NBUCKETS;
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let config = config.sync(false);
    let (allocator, mut reclaimers) =
        Allocator::start(config, vec![table]).expect("legal settings").finish();
    fill(&allocator, &mut reclaimers[0]);
    allocator
}

fn fill(allocator: &Allocator, reclaimer: &mut Reclaimer) {
    loop {
        match reclaimer.step() {
            Step::Wait(WaitFor::Gc) => allocator.begin_gc().expect("no other").finish(),
            Step::Wait(_) => return,
            Step::Ended | Step::PrioWrite(_) | Step::Discard(_) => {
                unreachable!("it is in use, without prio writes and discards")
            }
        }
    }
}

/// An extent's offset and length.
type Piece = (u32, u32);

/// The pieces must lie side by side from the start. Returns what is left behind them.
fn left_behind(pieces: &mut [Piece]) -> u32 {
    pieces.sort_unstable();
    let end = pieces.iter().fold(0, |end, &(offset, sectors)| {
        assert_eq!(offset, end, "extents must be disjoint and gapless");
        end + sectors
    });
    SECTORS - end
}

/// `threads` threads take small extents for `points` write points of their own, or shared ones,
/// until so much is written that no bucket needs to be reclaimed.
fn no_bucket_is_lost(config: Config, threads: u32, points: u32, are_shared: bool) {
    let slots = config.open_buckets;
    let allocator = start(config);
    let free_before = allocator.stats().devices[0].free_of(Reserve::None);
    let (start, each) = (Barrier::new(threads as usize), NBUCKETS * SECTORS / 6 / threads);
    let write = |thread: u32| {
        let mut draws = Draws::new(thread.into());
        let (mut taken, mut sectors) = (Vec::new(), 0);
        start.wait();
        while sectors < each {
            let point = draws.below(points) + if are_shared { 0 } else { thread << 16 };
            let request = SectorRequest::new(1 + draws.below(12));
            let request = request.write_point(WritePoint::new(point));
            let extent = allocator.try_alloc_sectors(&request).expect("in use");
            let extent = extent.expect("there are buckets enough");
            sectors += extent.sectors();
            taken.push((extent.bucket_ref(), (extent.offset(), extent.sectors())));
        }
        taken
    };
    let taken: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|t| scope.spawn(move || write(t))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let total: u64 = taken.iter().map(|&(_, (_, sectors))| u64::from(sectors)).sum();
    let mut buckets: HashMap<_, Vec<Piece>> = HashMap::new();
    for (bucket, piece) in taken {
        buckets.entry((bucket.id(), bucket.gen_())).or_default().push(piece);
    }
    let stats = &allocator.stats().devices[0];
    assert_eq!(stats.sectors_written, total, "what is open counts too");
    let tails: Vec<_> = buckets.values_mut().map(|pieces| left_behind(pieces)).collect();
    let open = tails.iter().filter(|&&left| left >= BLOCK).count();
    assert!(open <= slots as usize, "{open} buckets are not full, of {slots} that may be open");
    let lost = free_before - stats.free_of(Reserve::None) - buckets.len() as u64;
    assert_eq!(lost + stats.set_aside + stats.foreign_pin_total, 0, "buckets without any data");
    allocator.close();
    assert_eq!(allocator.stats().devices[0].sectors_written, total, "closing counts nothing twice");
    let pinned = |&&(id, _): &&(_, _)| allocator.snapshot(id).expect("a bucket").pin_count() > 0;
    assert_eq!(buckets.keys().filter(pinned).count(), 0, "all are closed, all extents dropped");
}

#[test]
fn no_bucket_is_lost_by_many_write_points() {
    no_bucket_is_lost(Config::default().cpus(4), 4, 100, false);
    no_bucket_is_lost(Config::default().cpus(4), 4, 300, true);
    no_bucket_is_lost(Config::default().cpus(4).restartable(false), 4, 300, true);
}

/// All meet at the end of every bucket.
#[test]
fn no_bucket_is_lost_by_threads_of_one_write_point() {
    no_bucket_is_lost(Config::default().cpus(4).open_buckets(1), 8, 1, true);
    no_bucket_is_lost(Config::default().cpus(4).open_buckets(5), 8, 5, true);
    no_bucket_is_lost(Config::default().cpus(0).open_buckets(16), 8, 5, true);
}

fn write_once(allocator: &Allocator, request: SectorRequest) -> BucketRef {
    let extent = allocator.try_alloc_sectors(&request).expect("in use");
    extent.expect("there are buckets enough").bucket_ref()
}

/// As long as there are as many slots as streams each has a bucket of its own, for a thread that
/// comes later too.
#[test]
fn a_stream_goes_on_in_its_bucket() {
    for cpus in [0, 1, 4] {
        let allocator = start(Config::default().cpus(cpus));
        let stream = |n: u64, at: u64| {
            SectorRequest::new(4).stream(n, at).write_point(WritePoint::from(n * n))
        };
        let first: Vec<_> = (1..=10).map(|n| write_once(&allocator, stream(n, 0))).collect();
        for at in [4, 8, 12] {
            // The third and fourth writes come from another thread.
            let (allocator, first) = (&allocator, &first);
            let go_on = move || {
                for (n, &bucket) in (1..).zip(first) {
                    assert_eq!(write_once(allocator, stream(n, at)), bucket, "stream {n} at {at}");
                }
            };
            if at == 4 {
                go_on();
            } else {
                std::thread::scope(|scope| scope.spawn(go_on).join()).expect("no panic");
            }
        }
        let mut buckets = first;
        buckets.dedup();
        assert_eq!(buckets.len(), 10, "no two streams share a bucket");
    }
}

/// How often a stream that writes all the time changes its bucket while others, more than there
/// are slots, write once each.
fn changes(cpus: u32) -> u32 {
    let allocator = start(Config::default().cpus(cpus).open_buckets(16));
    let busy = SectorRequest::new(1).stream(1, 0).write_point(WritePoint::new(0));
    let mut last = write_once(&allocator, busy);
    let mut changes = 0;
    for n in 0..2000u32 {
        let stray = SectorRequest::new(1).stream(2, u64::from(n) * 100 + 7);
        write_once(&allocator, stray.write_point(WritePoint::new(1 + n)));
        let bucket = write_once(&allocator, busy);
        changes += u32::from(bucket != last);
        last = bucket;
    }
    assert_eq!(allocator.stats().devices[0].sectors_written, 4001);
    changes
}

/// The clock hand leaves the slot in use alone, nearly as the exact order does: there a bucket is
/// changed when it is full, and when somebody else has got the slot in which it was.
#[test]
fn the_hand_passes_over_what_is_in_use() {
    let (exact, by_hand) = (changes(0), changes(1));
    assert!(exact >= 2001 / SECTORS && by_hand <= exact * 3 / 2, "{by_hand}, exactly {exact}");
}

/// Of how many write points a bucket has data, on average, if so many for each slot write in any
/// order. Without CPUs in the exact order.
fn points_per_bucket(cpus: u32, points_per_slot: u32) -> f64 {
    const SLOTS: u32 = 64;
    let allocator = start(Config::default().cpus(cpus).open_buckets(SLOTS));
    let mut draws = Draws::new(1);
    let mut buckets: HashMap<BucketRef, (u32, HashSet<u32>)> = HashMap::new();
    for at in 0..NBUCKETS * SECTORS / 24 {
        let point = draws.below(points_per_slot * SLOTS);
        let request = SectorRequest::new(4).stream(1, u64::from(at) * 1000);
        let bucket = write_once(&allocator, request.write_point(WritePoint::new(point)));
        let (writes, points) = buckets.entry(bucket).or_default();
        *writes += 1;
        points.insert(point);
    }
    let full = buckets.values().filter(|(writes, _)| *writes == SECTORS / 4);
    let points: Vec<_> = full.map(|(_, points)| points.len() as f64).collect();
    points.iter().sum::<f64>() / points.len() as f64
}

/// As few as there are for each slot, more or less; in the exact order, which gives whoever has no
/// slot the least recently used one, nearly as many as there are writes, 16.
#[test]
fn a_bucket_has_data_of_few_write_points() {
    let (found, exact) = ([1, 2, 4].map(|n| points_per_bucket(1, n)), points_per_bucket(0, 4));
    assert!(found[0] < 1.1, "a slot for each: {found:?}");
    assert!(found[1] < 3.0 && found[2] < 6.0, "2 and 4 for each slot: {found:?}");
    assert!(exact > 2.0 * found[2], "{exact} for 4 in the exact order");
}
