//! Discards of an owner who allows several at a time.
//!
//! Checked: a bucket whose discard is under way is never handed out, whatever else happens (I18);
//! each bucket of a batch is claimed once, discarded or released without; those who wait are
//! served while discards are not allowed, or hang; what is not short is discarded.

#![cfg(not(tierce_loom))]

use std::collections::HashSet;
use std::sync::Arc;
use tierce_core::draws::Draws;
use tierce_core::{BucketIndex, Geometry, Reserve, Sizes};
use tierce_lockfree::{Allocator, Config, DeviceTable, Reclaimer, Step, Unused, WaitFor};

const NBUCKETS: u32 = 256;

fn start() -> (Arc<Allocator>, Reclaimer) {
    let geometry = Geometry::new(NBUCKETS, 1, 128, 8).expect("a legal shape");
    let mut sizes = Sizes::tierce(&geometry, 0);
    (sizes.none, sizes.free_inc) = (16, 16);
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let config = Config::default().discard(true).cpus(0);
    let (allocator, mut reclaimers) =
        Allocator::start(config, vec![table]).expect("legal settings").finish();
    (allocator, reclaimers.remove(0))
}

/// Steps until it asks for a discard or waits for something else than a collection.
fn step(allocator: &Allocator, reclaimer: &mut Reclaimer) -> Step {
    for _ in 0..100 {
        match reclaimer.step() {
            Step::PrioWrite(mut write) => {
                write.encode(0, |_, _| ());
                assert!(write.confirm(), "nobody holds it back");
                reclaimer.prio_durable(write);
            }
            Step::Wait(WaitFor::Gc) => allocator.begin_gc().expect("no other").finish(),
            other => return other,
        }
    }
    panic!("it does nothing but collect")
}

fn discards(allocator: &Allocator) -> (u64, u64) {
    let stats = &allocator.stats().devices[0];
    (stats.discard_total, stats.discard_skipped_total)
}

#[test]
fn no_bucket_is_handed_out_while_it_is_discarded() {
    for seed in 0..40 {
        let mut draws = Draws::new(seed);
        let (allocator, mut reclaimer) = start();
        let mut under_way: Vec<BucketIndex> = Vec::new();
        let mut taken = 0;
        for _ in 0..2000 {
            let room = 8 - under_way.len();
            reclaimer.allow_discards(room.min(draws.below(4) as usize));
            if let Step::Discard(bucket) = step(&allocator, &mut reclaimer) {
                assert!(!under_way.contains(&bucket), "{bucket} is discarded twice at a time");
                under_way.push(bucket);
            }
            if !under_way.is_empty() && draws.below(3) == 0 {
                let which = draws.below(under_way.len() as u32) as usize;
                reclaimer.discarded(under_way.swap_remove(which));
            }
            let reserve = if draws.below(8) == 0 { Reserve::Btree } else { Reserve::None };
            for _ in 0..draws.below(4) {
                let Some(bucket) = allocator.try_alloc(reserve).expect("in use") else { break };
                let pointer = bucket.bucket_ref();
                assert!(!under_way.contains(&pointer.bucket()), "{pointer} is being discarded");
                taken += 1;
                bucket.written();
                if draws.below(16) == 0 {
                    let _: Unused = allocator.unused(pointer);
                }
            }
        }
        let (discarded, skipped) = discards(&allocator);
        assert!(taken > 500 && discarded > 50 && skipped > 50, "{taken} {discarded} {skipped}");
    }
}

/// Every bucket that becomes free while nobody is short was discarded, exactly once.
#[test]
fn nothing_is_skipped_while_there_is_no_need() {
    let (allocator, mut reclaimer) = start();
    let (mut asked, mut distinct) = (0, HashSet::new());
    loop {
        reclaimer.allow_discards(4);
        match step(&allocator, &mut reclaimer) {
            Step::Discard(bucket) => {
                asked += 1;
                distinct.insert(bucket);
                reclaimer.discarded(bucket);
            }
            Step::Wait(reason) => break assert_eq!(reason, WaitFor::Room),
            other => panic!("{other:?}"),
        }
    }
    // Two batches: one on the lists, one that waits for room and is discarded already.
    assert_eq!((asked, distinct.len(), discards(&allocator)), (32, 32, (32, 0)));
}

/// Not one discard is allowed, or those that are hang: who waits gets buckets all the same.
#[test]
fn those_who_wait_are_served_without_discards() {
    for allowed in [0, 3] {
        let (allocator, mut reclaimer) = start();
        let mut hang = HashSet::new();
        for round in 0..3 * NBUCKETS {
            reclaimer.allow_discards(allowed - hang.len());
            let got = (0..10).find_map(|_| {
                let got = allocator.try_alloc(Reserve::None).expect("in use");
                if got.is_none()
                    && let Step::Discard(bucket) = step(&allocator, &mut reclaimer)
                {
                    hang.insert(bucket);
                }
                got
            });
            let got = got.unwrap_or_else(|| panic!("round {round}, {allowed}: nothing is free"));
            assert!(!hang.contains(&got.bucket_ref().bucket()));
            got.written();
        }
        let (discarded, skipped) = discards(&allocator);
        assert_eq!((hang.len(), discarded), (allowed, 0));
        assert!(skipped >= 2 * u64::from(NBUCKETS), "{skipped}");
    }
}

/// A reclaimer that waits for its discards is woken when somebody comes to wait.
#[test]
fn whoever_comes_to_wait_rings() {
    let (allocator, mut reclaimer) = start();
    reclaimer.allow_discards(0);
    assert!(matches!(step(&allocator, &mut reclaimer), Step::Wait(WaitFor::Discard)));
    // Whatever rang so far is over.
    let now = std::time::Instant::now;
    while reclaimer.park(Some(now())) {}
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let device = tierce_core::DeviceIndex::FIRST;
            allocator.alloc_until(device, Reserve::None, None).expect("in use").written();
        });
        assert!(reclaimer.park(None), "rung");
        while !waiter.is_finished() {
            let _: Step = step(&allocator, &mut reclaimer);
        }
    });
    assert!(discards(&allocator).1 > 0);
}

/// And when a discard that somebody else performs is over.
#[test]
fn a_waker_rings() {
    let (_allocator, reclaimer) = start();
    let now = std::time::Instant::now;
    while reclaimer.park(Some(now())) {}
    reclaimer.waker().wake();
    assert!(reclaimer.park(Some(now())));
}

/// Whoever begins to allow several goes on with the one that is under way, or waits for room.
#[test]
fn one_at_a_time_becomes_several() {
    for over in [false, true] {
        let (allocator, mut reclaimer) = start();
        let mut given = Vec::new();
        let last = loop {
            match step(&allocator, &mut reclaimer) {
                Step::Discard(bucket) => given.push(bucket),
                // Its discard is over, and the lists are full.
                Step::Wait(WaitFor::Room) => break *given.last().expect("lists have room"),
                other => panic!("{other:?}"),
            }
            if !over {
                break given[0];
            }
            reclaimer.discarded(given[given.len() - 1]);
        };
        reclaimer.allow_discards(0);
        if !over {
            reclaimer.discarded(last);
        }
        let mut free = Vec::new();
        loop {
            let _ = step(&allocator, &mut reclaimer);
            let next =
                || Reserve::ALL.iter().find_map(|&of| allocator.try_alloc(of).expect("works"));
            let before = free.len();
            free.extend(std::iter::from_fn(next));
            if free.iter().any(|bucket| bucket.bucket_ref().bucket() == last) {
                break;
            }
            assert!(free.len() > before, "{last} was lost, over: {over}");
        }
    }
}
