//! Waiting, `lockfree/src/wait.rs` and `future.rs`. A lost wake-up is a deadlock of the model.
//!
//! Breaks that must turn these red: `wait_no_fence`, `wake_cell_unordered`, `overtakes`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::thread;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tierce_core::Reserve;
use tierce_lockfree::{Allocator, Error};
use tierce_loom_tests::{
    model, model_within,
    tiny::{self, DEVICE},
};

/// One CPU with cells: the only list whose emptiness is seen without a lock in between.
fn allocator() -> Arc<Allocator> {
    let (allocator, mut reclaimer) = tiny::allocator(tiny::settings().cpus(1), 2);
    let _ = reclaimer.step();
    allocator
}

#[test]
fn what_is_given_back_wakes_who_waits() {
    model(|| {
        let allocator = allocator();
        let mut held = tiny::drain(&allocator);
        let other = Arc::clone(&allocator);
        let waiter = thread::spawn(move || {
            let got = other.alloc_until(DEVICE, Reserve::None, None).expect("in use");
            got.written();
        });
        drop(held.remove(0)); // one of `none`, where it goes back to
        waiter.join().unwrap();
        held.into_iter().for_each(|held| held.written());
    });
}

/// Whoever comes when somebody is in line leaves him what becomes free.
#[test]
fn nobody_overtakes_who_waits() {
    model(|| {
        let allocator = allocator();
        let mut held = tiny::drain(&allocator);
        let mut waiting = pin!(allocator.alloc_on(DEVICE, Reserve::None));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending(), "everything is held");
        let other = Arc::clone(&allocator);
        let newcomer = thread::spawn(move || {
            let got = other.try_alloc(Reserve::None).expect("in use").map(|got| got.written());
            assert_eq!(got, None, "it must go to who was first");
        });
        drop(held.remove(0)); // one of `none`, where it goes back to
        newcomer.join().unwrap();
        let got = waiting.as_mut().poll(&mut context).map(|got| got.expect("in use").written());
        assert_eq!(got, Poll::Ready(()), "who was first must have it");
        held.into_iter().for_each(|held| held.written());
    });
}

/// The bucket is handed to a future that is dropped just then.
#[test]
fn a_dropped_future_passes_its_bucket_on() {
    model_within(2, || {
        let allocator = allocator();
        let mut held = tiny::drain(&allocator);
        let other = Arc::clone(&allocator);
        let waiter = thread::spawn(move || {
            let got = other.alloc_until(DEVICE, Reserve::None, None).expect("in use");
            got.written();
        });
        let mut given_up = allocator.alloc_on(DEVICE, Reserve::None);
        let polled = pin!(&mut given_up).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "everything is held");
        drop(held.remove(0)); // one of `none`, where it goes back to
        drop(given_up);
        waiter.join().unwrap();
        held.into_iter().for_each(|held| held.written());
    });
}

#[test]
fn closing_tells_who_waits() {
    model(|| {
        let allocator = allocator();
        let held = tiny::drain(&allocator);
        let other = Arc::clone(&allocator);
        let waiter = thread::spawn(move || {
            let error = other.alloc_until(DEVICE, Reserve::None, None).expect_err("all is held");
            assert!(matches!(error, Error::Closed));
        });
        allocator.close();
        waiter.join().unwrap();
        held.into_iter().for_each(|held| held.written());
    });
}

/// One bucket goes round: whoever is woken wakes the next.
#[test]
fn each_who_is_woken_wakes_the_next() {
    model(|| {
        let allocator = allocator();
        let mut held = tiny::drain(&allocator);
        let other = Arc::clone(&allocator);
        let waiter = thread::spawn(move || {
            drop(other.alloc_until(DEVICE, Reserve::None, None).expect("in use"));
        });
        drop(held.remove(0)); // one of `none`, where it goes back to
        drop(allocator.alloc_until(DEVICE, Reserve::None, None).expect("in use"));
        waiter.join().unwrap();
        let free = pin!(allocator.alloc_on(DEVICE, Reserve::None))
            .poll(&mut Context::from_waker(Waker::noop()))
            .map(|got| got.expect("in use").written());
        assert_eq!(free, Poll::Ready(()), "it is free in the end");
        held.into_iter().for_each(|held| held.written());
    });
}
