//! Who sleeps is seen by who inserts, `lockfree/src/attention.rs`.
//!
//! Breaks that must turn these red: `wake_no_fence`, `wake_cell_unordered`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::thread;
use tierce_core::BucketIndex;
use tierce_lockfree::model::{Attention, Cells, Ring};
use tierce_loom_tests::model;

#[test]
fn a_bucket_in_a_queue_or_a_sleeper_is_seen() {
    model(|| {
        let shared = Arc::new((Ring::new(1), Attention::default()));
        let other = Arc::clone(&shared);
        let sleeper = thread::spawn(move || {
            other.1.wait();
            other.0.pop().is_some()
        });
        assert!(shared.0.push(5));
        let seen = shared.1.somebody_waits();
        let found = sleeper.join().unwrap();
        assert!(seen || found, "the bucket and the sleeper must not miss each other");
    });
}

#[test]
fn a_bucket_in_a_cell_or_a_sleeper_is_seen() {
    model(|| {
        let shared = Arc::new((Cells::new(1, 1), Attention::default()));
        let other = Arc::clone(&shared);
        let sleeper = thread::spawn(move || {
            other.1.wait();
            other.0.pop().is_some()
        });
        assert!(shared.0.push(BucketIndex::new(5)));
        let seen = shared.1.somebody_waits_for_a_cell();
        let found = sleeper.join().unwrap();
        assert!(seen || found, "the bucket and the sleeper must not miss each other");
    });
}
