//! Releasing, `lockfree/src/reclaimer.rs` and `device.rs`: can all sleep while a bucket could be
//! made free? Two threads that never poll; if both sleep, the model deadlocks.
#![cfg(tierce_loom)]

use loom::thread;
use tierce_core::Reserve;
use tierce_lockfree::{Allocator, Config, Reclaimer, Step};
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

fn use_up(allocator: &Allocator, buckets: u32) {
    for _ in 0..buckets {
        let got = allocator.alloc_until(DEVICE, Reserve::None, None).expect("in use");
        got.written();
    }
    allocator.close();
}

/// Nothing is free at first; what is used up becomes free again.
#[test]
fn whoever_waits_is_served() {
    model_within(1, || {
        let (allocator, reclaimer) = tiny::allocator(tiny::settings(), 1);
        let user = thread::spawn(move || use_up(&allocator, 3));
        reclaim(reclaimer);
        user.join().unwrap();
    });
}

/// As above, with every gen made durable first, and cells.
#[test]
fn whoever_waits_is_served_after_the_prio_write() {
    model_within(0, || {
        let settings = Config { sync: true, cpus: 1, ..tiny::settings() };
        let (allocator, reclaimer) = tiny::allocator(settings, 2);
        let user = thread::spawn(move || use_up(&allocator, 2));
        reclaim(reclaimer);
        user.join().unwrap();
    });
}
