//! Waiting until so much is free, `lockfree/src/watch.rs`. A lost wake-up is a deadlock of the
//! model.
//!
//! Breaks that must turn these red: `watch_no_second_look`, `watch_leaves_silently`,
//! `offered_unwatched`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::thread;
use tierce_core::Reserve;
use tierce_lockfree::{Allocator, Error};
use tierce_loom_tests::{model, model_within, tiny};

/// One CPU with cells: into a cell a bucket goes without a lock.
fn allocator() -> Arc<Allocator> {
    let (allocator, mut reclaimer) = tiny::allocator(tiny::settings().cpus(1), 2);
    let _ = reclaimer.step();
    allocator
}

/// The bit of the watcher and the bucket that is given back: one of the two sees the other.
#[test]
fn i10_what_is_given_back_wakes_who_watches() {
    model(|| {
        let allocator = allocator();
        let mut held = tiny::drain(&allocator);
        let other = Arc::clone(&allocator);
        let watcher = thread::spawn(move || {
            other.wait_for_until(Reserve::None, 1, None).expect("in use");
        });
        drop(held.remove(0)); // one of `none`, where it goes back to
        watcher.join().unwrap();
        held.into_iter().for_each(|held| held.written());
    });
}

/// A bucket wakes the first in line, who takes nothing and wakes the next.
#[test]
fn i10_each_who_has_seen_enough_wakes_the_next() {
    model_within(2, || {
        let allocator = allocator();
        let mut held = tiny::drain(&allocator);
        let watchers = [(); 2].map(|()| {
            let other = Arc::clone(&allocator);
            thread::spawn(move || {
                other.wait_for_until(Reserve::None, 1, None).expect("in use");
            })
        });
        drop(held.remove(0)); // one of `none`, where it goes back to
        watchers.into_iter().for_each(|watcher| watcher.join().unwrap());
        held.into_iter().for_each(|held| held.written());
    });
}

#[test]
fn closing_tells_who_watches() {
    model(|| {
        let allocator = allocator();
        let held = tiny::drain(&allocator);
        let other = Arc::clone(&allocator);
        let watcher = thread::spawn(move || {
            let error = other.wait_for_until(Reserve::None, 1, None).expect_err("all is held");
            assert!(matches!(error, Error::Closed));
        });
        allocator.close();
        watcher.join().unwrap();
        held.into_iter().for_each(|held| held.written());
    });
}
