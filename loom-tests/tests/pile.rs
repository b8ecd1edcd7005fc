//! What is kept from the lists, `lockfree/src/pile.rs`.
//!
//! Breaks that must turn these red: `pile_put_relaxed`, `pile_take_relaxed`.
#![cfg(tierce_loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use tierce_lockfree::model::Pile;
use tierce_loom_tests::model;

/// Also what a putter did whose bucket lies below another one's.
#[test]
fn what_the_putters_did_happened_before_the_take() {
    model(|| {
        let shared = Arc::new((Pile::default(), [UnsafeCell::new(0), UnsafeCell::new(0)]));
        let putters: Vec<_> = (0..2)
            .map(|bucket| {
                let other = Arc::clone(&shared);
                thread::spawn(move || {
                    // SAFETY: the bucket is the putter's until he puts it.
                    other.1[bucket as usize].with_mut(|data| unsafe { *data = 1 });
                    other.0.put(bucket);
                })
            })
            .collect();
        for bucket in shared.0.take() {
            // SAFETY: the take must have made it ours; loom checks that.
            let seen = shared.1[bucket as usize].with(|data| unsafe { *data });
            assert_eq!(seen, 1, "the putter's write must happen before the take");
        }
        putters.into_iter().for_each(|putter| putter.join().unwrap());
    });
}

#[test]
fn each_comes_out_once_whoever_puts_meanwhile() {
    model(|| {
        let pile = Arc::new(Pile::default());
        let putters: Vec<_> = [[0, 1], [2, 3]]
            .into_iter()
            .map(|buckets| {
                let other = Arc::clone(&pile);
                thread::spawn(move || buckets.into_iter().for_each(|bucket| other.put(bucket)))
            })
            .collect();
        let mut taken = pile.take();
        putters.into_iter().for_each(|putter| putter.join().unwrap());
        taken.append(&mut pile.take());
        let at = |bucket| taken.iter().position(|&taken| taken == bucket);
        assert!(at(0) < at(1) && at(2) < at(3), "each thread's in order: {taken:?}");
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2, 3]);
    });
}
