//! Every allocator that is measured does what a measurement takes for granted:
//!
//! 1. no bucket is in two hands at once, and none is lost by being given back;
//! 2. what was written is reclaimed, also while a collection runs;
//! 3. sectors are handed out in full, read hits are valid until the bucket is reused;
//! 4. dirty buckets are never reused.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use tierce_bench::backend::{FifoQueue, Full, Locked, Lockfree, Order, Original};
use tierce_bench::backend::{SectorWrite, Space};

const FULL: Full = Full::new(4096, Order::Random);

fn all_free<S: Space>(space: &S) -> Vec<S::Bucket<'_>> {
    std::iter::from_fn(|| space.try_alloc()).collect()
}

/// In all rounds more than there are, so that a bucket that is lost would be missed: also of those
/// that the free lists have no room for when they come back.
fn gives_back<S: Space>(space: &S) {
    for _ in 0..100 {
        space.reclaim();
        let all = all_free(space);
        let (count, pointers) = (all.len(), all.iter().filter_map(S::pointer));
        assert!(count >= 64, "{}: {count} free", S::NAME);
        let distinct = pointers.map(|pointer| pointer.id()).collect::<HashSet<_>>().len();
        assert!(distinct == 0 || distinct == count, "{}", S::NAME);
    }
}

/// Far more buckets than there are, by several threads at once, with a reclaimer.
fn goes_round<S: Space>(space: &S) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reclaimer = scope.spawn(|| space.reclaim_until(&stop));
        let work = || {
            for _ in 0..3000 {
                space.written(space.alloc());
                space.account_io(1024);
            }
        };
        let writers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        space.collect();
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        // Relaxed: nothing is published with it.
        stop.store(true, Ordering::Relaxed);
        reclaimer.join().expect("no panic");
    });
}

fn sectors_and_reads<S: Space>(space: &S) {
    space.reclaim();
    for n in 0..1000 {
        let write = SectorWrite { inode: 1, offset: 8 * n, write_point: 3 };
        let got = space.sectors(&write).map(|extent| S::sectors_of(&extent));
        assert_eq!(got, Some(8), "{}", S::NAME);
    }
    let bucket = space.try_alloc().expect("free");
    let pointer = S::pointer(&bucket).expect("gens");
    space.written(bucket);
    assert!(space.read_hit(pointer), "{}", S::NAME);
    // One goes round: as all grow older, each is the oldest some time.
    for _ in 0..2 * FULL.nbuckets {
        match space.try_alloc() {
            Some(bucket) => space.written(bucket),
            None => {
                space.account_io(4097);
                space.reclaim();
            }
        }
    }
    assert!(!space.read_hit(pointer), "{}", S::NAME);
    assert!(space.counts().invalidated > u64::from(FULL.nbuckets), "{}", S::NAME);
}

fn dirty_stays<S: Space>() {
    let full = Full { order: Order::Ineligible, ..FULL };
    let space = S::start(&full);
    for _ in 0..2 * full.nbuckets {
        match space.try_alloc() {
            Some(bucket) => {
                let pointer = S::pointer(&bucket).expect("gens");
                assert_eq!(pointer.bucket().get() % 10, 0, "{} reused dirty data", S::NAME);
                space.written(bucket);
            }
            None => space.reclaim(),
        }
    }
    assert!(space.counts().invalidated > 0, "{}", S::NAME);
}

fn all<S: Space>() {
    let space = S::start(&FULL);
    gives_back(&space);
    goes_round(&space);
    gives_back(&space);
    sectors_and_reads(&space);
    dirty_stays::<S>();
}

#[test]
fn lockfree() {
    all::<Lockfree>();
}

#[test]
fn original() {
    all::<Original>();
}

#[test]
fn locked() {
    all::<Locked>();
}

#[test]
fn fifo_queue() {
    let space = FifoQueue::start(&FULL);
    gives_back(&space);
    goes_round(&space);
    gives_back(&space);
}
