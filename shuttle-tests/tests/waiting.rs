//! Waiting for buckets of which there are fewer than threads, and nothing makes new ones: what
//! one thread gives back is all that another can get. A wake-up that is lost leaves everybody
//! waiting, which shuttle takes for a failure (I10).

#![cfg(tierce_shuttle)]

use shuttle::thread;
use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use tierce_core::{BucketIndex, DeviceIndex, Geometry, Reserve, Sizes};
use tierce_lockfree::{Allocation, Allocator, Config, DeviceTable, Error, Reclaimer};
use tierce_shuttle_tests::check;

const DEVICE: DeviceIndex = DeviceIndex::FIRST;
const ROUNDS: u32 = 3;

/// An allocator whose free lists are full; nothing has to become durable.
fn start(cpus: u32) -> (std::sync::Arc<Allocator>, Reclaimer) {
    let geometry = Geometry::new(32, 1, 128, 8).expect("a legal shape");
    let mut sizes = Sizes::tierce(&geometry, 0);
    (sizes.btree, sizes.moving_gc, sizes.none) = (1, 1, 8);
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let config = Config::default().cpus(cpus).sync(false);
    let (allocator, mut reclaimers) =
        Allocator::start(config, vec![table]).expect("legal settings").finish();
    let mut reclaimer = reclaimers.remove(0);
    let _ = reclaimer.step();
    (allocator, reclaimer)
}

/// Everything that is free; the last are those of `none`, which serve everybody.
fn drain(allocator: &Allocator) -> Vec<Allocation<'_>> {
    let take = |reserve| allocator.try_alloc(reserve).expect("in use");
    let next = || Reserve::ALL.into_iter().find_map(take);
    let mut all: Vec<_> = std::iter::from_fn(next).collect();
    all.reverse();
    all
}

/// One bucket, in one of the ways to wait for one; `None` if a future was dropped that waited, or
/// if others were faster after a wait that takes nothing.
fn wait(allocator: &Allocator, way: u32, reserve: Reserve) -> Option<Allocation<'_>> {
    let got = match way % 5 {
        0 | 1 => allocator.alloc_until(DEVICE, reserve, None),
        2 => shuttle::future::block_on(allocator.alloc_on(DEVICE, reserve)),
        3 => {
            allocator.wait_for_until(reserve, 1, None).expect("in use");
            return allocator.try_alloc(reserve).expect("in use");
        }
        _ => {
            let mut given_up = pin!(allocator.alloc_on(DEVICE, reserve));
            match given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(got) => got,
                Poll::Pending => return None,
            }
        }
    };
    Some(got.expect("in use"))
}

fn share(cpus: u32, supply: usize, threads: u32) {
    let (allocator, _reclaimer) = start(cpus);
    let mut all = drain(&allocator); // held to the end, but for the supply
    let owned = Mutex::new(Vec::<BucketIndex>::new());
    let work = |me: u32| {
        for round in 0..ROUNDS {
            let reserve = Reserve::ALL[(round + me) as usize % Reserve::COUNT];
            let Some(allocation) = wait(&allocator, round / 2 + me, reserve) else { continue };
            let bucket = allocation.bucket_ref().bucket();
            {
                let mut owned = owned.lock().expect("nobody failed");
                assert!(!owned.contains(&bucket), "I9: two owners of {bucket}");
                owned.push(bucket);
            }
            thread::yield_now();
            owned.lock().expect("nobody failed").retain(|&other| other != bucket);
            drop(allocation);
        }
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..threads).map(|me| scope.spawn(move || work(me))).collect();
        (0..supply).for_each(|_| drop(all.pop()));
        threads.into_iter().for_each(|thread| thread.join().expect("done"));
    });
    let stats = &allocator.stats().devices[0];
    assert_eq!(stats.free.iter().sum::<u64>() + stats.set_aside, supply as u64, "I9: {stats:?}");
    assert_eq!((stats.waiters, allocator.stats().watchers), (0, 0));
}

/// Buckets go through cells and the queue behind them, carried from one to the other.
#[test]
fn no_wake_up_is_lost_among_few_buckets_and_cells() {
    check(|| share(2, 4, 5));
}

#[test]
fn no_wake_up_is_lost_over_one_bucket_without_cells() {
    check(|| share(0, 1, 4));
}

/// Closing comes at any time, and everybody is told.
#[test]
fn closing_tells_everybody() {
    check(|| {
        let (allocator, _reclaimer) = start(2);
        let all = drain(&allocator);
        thread::scope(|scope| {
            let allocator = &allocator;
            for reserve in Reserve::ALL {
                scope.spawn(move || {
                    let told = allocator.alloc_until(DEVICE, reserve, None).map(drop);
                    assert!(matches!(told, Err(Error::Closed)), "{told:?}");
                });
            }
            scope.spawn(move || {
                let told = allocator.wait_for_until(Reserve::None, 2, None);
                assert!(matches!(told, Err(Error::Closed)), "{told:?}");
            });
            allocator.close();
        });
        drop(all);
    });
}
