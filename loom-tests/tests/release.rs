//! Releasing, `lockfree/src/reclaimer.rs` and `device.rs`: can all sleep while a bucket could be
//! made free? Two threads that never poll; if both sleep, the model deadlocks.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::thread;
use tierce_core::{Policy, Reserve};
use tierce_lockfree::{Allocator, Config, Reclaimer, Step, WaitFor, model as inside};
use tierce_loom_tests::{
    model_within,
    tiny::{self, DEVICE},
};

/// Steps and sleeps until the allocator is closed.
fn reclaim(mut reclaimer: Reclaimer) {
    loop {
        match reclaimer.step() {
            Step::Ended => return,
            Step::Discard(bucket) => reclaimer.discarded(bucket),
            Step::Wait(_) => {
                reclaimer.park(None);
            }
            Step::PrioWrite(mut write) => {
                write.encode(0, |_, _| ());
                assert!(write.confirm(), "nobody holds it back");
                reclaimer.prio_durable(write);
            }
        }
    }
}

fn fifo() -> Config {
    tiny::settings().policy(Policy::Fifo)
}

fn use_up(allocator: &Allocator, buckets: u32) {
    for _ in 0..buckets {
        let got = allocator.alloc_until(DEVICE, Reserve::None, None).expect("in use");
        got.written();
    }
    allocator.close();
}

/// Nothing is free at first: somebody lines up while the reclaimer makes its round.
#[test]
fn i10_whoever_waits_is_served() {
    model_within(2, || {
        let (allocator, reclaimer) = tiny::of_five(fifo(), 0, 2);
        let user = thread::spawn(move || use_up(&allocator, 1));
        reclaim(reclaimer);
        user.join().unwrap();
    });
}

/// The lists are full and the reclaimer is about to sleep while somebody empties them: what he
/// uses up becomes free again.
#[test]
fn i7_whoever_makes_room_wakes_the_reclaimer() {
    model_within(2, || {
        let (allocator, mut reclaimer) = tiny::of_five(fifo(), 0, 2);
        assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Room)));
        let user = thread::spawn(move || use_up(&allocator, 2));
        reclaim(reclaimer);
        user.join().unwrap();
    });
}

/// The lists are full and there is more in stock: two take it there at once, and what one finds
/// in the hands of the other he gets all the same.
#[test]
fn i10_whoever_finds_the_stock_in_use_is_served() {
    model_within(2, || {
        let (allocator, mut reclaimer) = tiny::of_five(fifo(), 0, 2);
        assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Room)));
        let other = Arc::clone(&allocator);
        let first = thread::spawn(move || {
            let got = other.alloc_until(DEVICE, Reserve::None, None).expect("in use");
            got.bucket_ref().bucket()
        });
        let second = thread::spawn(move || {
            let got = allocator.alloc_until(DEVICE, Reserve::None, None).expect("in use");
            let other = first.join().unwrap();
            assert_ne!(got.bucket_ref().bucket(), other, "I9: two owners");
            drop(got);
            allocator.close();
        });
        reclaim(reclaimer);
        second.join().unwrap();
    });
}

/// A batch that is not full, and cannot be, is written because somebody waits.
#[test]
fn i7_whoever_waits_is_served_after_the_prio_write() {
    model_within(2, || {
        let settings = fifo().sync(true);
        let (allocator, reclaimer) = tiny::of_five(settings, 0, 3);
        (3..6).map(tiny::bucket).for_each(|bucket| inside::mark_dirty(&allocator, bucket));
        let user = thread::spawn(move || use_up(&allocator, 1));
        reclaim(reclaimer);
        user.join().unwrap();
    });
}
