//! The one reclaimer of a device, `lockfree/src/reclaimer.rs` and `device.rs`: it sleeps only
//! while there is nothing to do (I7), and whoever gives it something to do wakes it (I10).
//! `bell.rs` and `release.rs` check its bell and its way round.
//!
//! Breaks that must turn these red: `gc_needed_is_a_flag`, `set_aside_no_fence`,
//! `pin_dropped_no_fence`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::thread;
use tierce_core::Reserve;
use tierce_lockfree::{Step, WaitFor, model as inside};
use tierce_loom_tests::{
    model,
    tiny::{self, DEVICE},
};

/// I7: one collection ends while another is asked for. The request is for one that begins
/// later, and must not be taken for met.
#[test]
fn i7_a_request_for_a_collection_is_not_lost() {
    model(|| {
        let (allocator, reclaimer) = tiny::of_five(tiny::settings(), 0, 2);
        let other = Arc::clone(&allocator);
        let collector = thread::spawn(move || {
            for _ in 0..2 {
                assert!(other.wait_gc_due(None), "somebody waits for it");
                other.begin_gc().expect("no other").finish();
            }
        });
        for _ in 0..2 {
            let finished = inside::ask_for_collection(&allocator);
            while inside::collections(&allocator) == finished {
                reclaimer.park(None);
            }
        }
        collector.join().unwrap();
    });
}

/// I9, I10: a free bucket on which somebody else's pin lies is set aside while that pin goes
/// away, and free again afterwards.
#[test]
fn i9_the_end_of_a_foreign_pin_wakes_the_reclaimer() {
    model(|| {
        let (allocator, mut reclaimer) = tiny::of_five(tiny::settings(), 1, 2);
        let node = allocator.try_alloc(Reserve::Btree).unwrap().expect("filled at start");
        let pointer = node.bucket_ref();
        drop(node);
        core::mem::forget(allocator.pin(pointer).expect("its gen has not moved"));
        let others = tiny::drain(&allocator);
        while inside::set_aside(&allocator, DEVICE) == 0 {
            assert!(allocator.try_alloc(Reserve::Btree).unwrap().is_none());
        }
        others.into_iter().for_each(|other| other.written());
        (3..8).map(tiny::bucket).for_each(|bucket| inside::mark_dirty(&allocator, bucket));
        while reclaimer.park(Some(std::time::Instant::now())) {}
        let other = Arc::clone(&allocator);
        let holder = thread::spawn(move || inside::drop_pin(&other, pointer.id()));
        loop {
            let step = reclaimer.step();
            assert!(matches!(step, Step::Wait(WaitFor::Gc)), "nothing else to do: {step:?}");
            if inside::set_aside(&allocator, DEVICE) == 0 {
                break;
            }
            reclaimer.park(None);
        }
        holder.join().unwrap();
        let word = allocator.snapshot(pointer.id()).expect("one of its buckets");
        assert_eq!(word.pin_count(), 1, "it is on a list");
    });
}
