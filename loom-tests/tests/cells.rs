//! The cells, `lockfree/src/cells.rs`.
//!
//! Breaks that must turn these red: `cell_push_relaxed`, `cell_pop_relaxed`.
#![cfg(tierce_loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use tierce_core::BucketIndex;
use tierce_lockfree::model::Cells;
use tierce_loom_tests::model;

const B: BucketIndex = BucketIndex::new(5);

#[test]
fn what_the_pusher_did_happened_before_the_pop() {
    model(|| {
        let shared = Arc::new((Cells::new(1, 1), UnsafeCell::new(0)));
        let other = Arc::clone(&shared);
        let taker = thread::spawn(move || {
            if other.0.pop() == Some(B) {
                // SAFETY: the pop must have made it ours; loom checks that.
                let seen = other.1.with(|data| unsafe { *data });
                assert_eq!(seen, 1, "the pusher's write must happen before the pop");
            }
        });
        // SAFETY: the bucket is the pusher's until he pushes it.
        shared.1.with_mut(|data| unsafe { *data = 1 });
        assert!(shared.0.push(B));
        taker.join().unwrap();
    });
}

/// Two take and put back, on rows of their own or each other's.
#[test]
fn each_bucket_comes_out_once() {
    model(|| {
        let cells = Arc::new(Cells::new(2, 1));
        assert!(cells.push(B));
        let other = Arc::clone(&cells);
        let rival = thread::spawn(move || {
            let taken = other.pop();
            if let Some(bucket) = taken {
                assert!(other.push(bucket), "there was room when it was taken");
            }
        });
        if let Some(bucket) = cells.pop() {
            assert_eq!(bucket, B);
            assert_eq!(cells.pop(), None, "a bucket must come out once");
            assert!(cells.push(bucket));
        }
        rival.join().unwrap();
        assert_eq!((cells.pop(), cells.pop()), (Some(B), None), "a bucket must not be lost");
    });
}
