//! The bell, `lockfree/src/bell.rs`.
//!
//! Break that must turn these red: `bell_ring_relaxed`.
#![cfg(tierce_loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use tierce_lockfree::Bell;
use tierce_loom_tests::model;

#[test]
fn the_work_is_seen_after_the_ring() {
    model(|| {
        let shared = Arc::new((Bell::new(), UnsafeCell::new(0)));
        let other = Arc::clone(&shared);
        let ringer = thread::spawn(move || {
            // SAFETY: the ringer's until he rings.
            other.1.with_mut(|work| unsafe { *work = 1 });
            other.0.ring();
        });
        assert!(shared.0.wait(None));
        // SAFETY: the ring must have made it ours; loom checks that.
        let seen = shared.1.with(|work| unsafe { *work });
        assert_eq!(seen, 1, "the work must happen before the look");
        ringer.join().unwrap();
    });
}

/// The second ring overwrites the first, or comes while the owner falls asleep: whatever
/// happens, he sees the work of both and then sleeps no more.
#[test]
fn no_ring_is_lost() {
    use loom::sync::atomic::{AtomicU32, Ordering};
    model(|| {
        let shared = Arc::new((Bell::new(), AtomicU32::new(0)));
        let ringers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    // Relaxed: the ring publishes it.
                    shared.1.fetch_add(1, Ordering::Relaxed);
                    shared.0.ring();
                })
            })
            .collect();
        // Relaxed: after the wait.
        while shared.1.load(Ordering::Relaxed) < 2 {
            assert!(shared.0.wait(None));
        }
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    });
}
