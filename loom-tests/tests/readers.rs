//! Reading without pinning, `lockfree/src/readers.rs`.
//!
//! Breaks that must turn these red: `read_no_fence`, `read_three_epochs`, `gc_epoch_late`,
//! `validate_by_staleness`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::thread;
use tierce_core::{Gen, Mark, broken};
use tierce_lockfree::{Allocator, BucketRef, Marked, model as inside};
use tierce_loom_tests::{
    model,
    tiny::{self, bucket},
};

/// A bucket that is full, and the pointer into it.
fn full() -> (Arc<Allocator>, BucketRef) {
    let (allocator, _) = tiny::allocator(tiny::settings(), 1);
    let word = |b| allocator.snapshot(b).expect("one of its buckets");
    let free = (1..8).map(bucket).find(|&b| word(b).pin_count() == 0);
    let pointer = BucketRef::new(free.expect("a bucket"), Gen::new(0));
    (allocator, pointer)
}

/// Puts other data into the bucket, as a device in memory does.
fn overwrite(data: &AtomicU32, value: u32) {
    // Release: the gen advanced before; pairs with the fence of the reader.
    if !broken!("device_no_fence") {
        fence(Ordering::Release);
    }
    // Relaxed: ordered by the fence.
    data.store(value, Ordering::Relaxed);
}

fn collect(allocator: &Allocator) {
    allocator.begin_gc().expect("one at a time").finish();
}

#[test]
fn reuse_during_the_read_is_noticed() {
    model(|| {
        let (allocator, pointer) = full();
        let data = Arc::new(AtomicU32::new(1));
        let (other, others_data) = (Arc::clone(&allocator), Arc::clone(&data));
        let writer = thread::spawn(move || {
            assert!(inside::invalidate(&other, pointer.id()));
            overwrite(&others_data, 2);
        });
        if let Some(open) = allocator.begin_read().open(pointer) {
            // Relaxed: ordered by the fence in `validate`.
            let seen = data.load(Ordering::Relaxed);
            if open.validate() {
                assert_eq!(seen, 1, "an accepted read must have read its own life");
            }
        }
        writer.join().unwrap();
    });
}

/// The gen comes round while a read hangs: 96 lives, a collection, 96 lives, a second
/// collection, and in the last life before the gen is equal again other data. Everything from
/// the second collection on is in any order.
#[test]
fn a_wrapped_gen_is_noticed() {
    model(|| {
        let (allocator, pointer) = full();
        let data = Arc::new(AtomicU32::new(1));
        let open = allocator.begin_read().open(pointer).expect("current");
        assert_eq!(inside::lives(&allocator, pointer.id(), 256), 96, "up to the limit");
        collect(&allocator);
        assert_eq!(inside::lives(&allocator, pointer.id(), 256), 96, "up to the limit");
        let other = Arc::clone(&allocator);
        let collector = thread::spawn(move || collect(&other));
        let (other, others_data) = (Arc::clone(&allocator), Arc::clone(&data));
        let writer = thread::spawn(move || {
            if inside::lives(&other, pointer.id(), 64) == 64 {
                overwrite(&others_data, 2);
            }
        });
        // Relaxed: ordered by the fence in `validate`.
        let seen = data.load(Ordering::Relaxed);
        if open.validate() {
            assert_eq!(seen, 1, "an equal gen must be the same gen");
        }
        collector.join().unwrap();
        writer.join().unwrap();
    });
}

/// As above, but all of it happens between the look-up of the key and the look at the bucket:
/// the epoch must have been noted before the look-up.
#[test]
fn i5_a_gen_that_wrapped_behind_the_look_up_is_noticed() {
    model(|| {
        let (allocator, reclaimer) = tiny::of_five(tiny::settings(), 0, 2);
        drop(reclaimer);
        let pointer = tiny::full(&allocator);
        let shared = Arc::new((AtomicU32::new(1), AtomicU32::new(1)));
        let (other, others) = (Arc::clone(&allocator), Arc::clone(&shared));
        let writer = thread::spawn(move || {
            let (index, data) = &*others;
            assert_eq!(inside::lives(&other, pointer.id(), 256), 96, "up to the limit");
            let gc = other.begin_gc().expect("no other");
            // Release: a stale key, met on the walk, is removed; pairs with the look-up.
            index.store(0, Ordering::Release);
            gc.finish();
            assert_eq!(inside::lives(&other, pointer.id(), 256), 96, "up to the limit");
            collect(&other);
            assert_eq!(inside::lives(&other, pointer.id(), 64), 64, "the gen is equal again");
            overwrite(data, 2);
        });
        let (index, data) = &*shared;
        let read = allocator.begin_read();
        // Acquire: pairs with the removal.
        let found = index.load(Ordering::Acquire) == 1;
        if let Some(open) = Some(pointer).filter(|_| found).and_then(|pointer| read.open(pointer)) {
            // Relaxed: ordered by the fence in `validate`.
            let seen = data.load(Ordering::Relaxed);
            if open.validate() {
                assert_eq!(seen, 1, "an equal gen must be the same gen");
            }
        }
        writer.join().unwrap();
    });
}

/// Three quarters round, a pointer is ahead of its bucket: not stale, but not current either.
#[test]
fn a_gen_three_quarters_round_is_noticed() {
    model(|| {
        let (allocator, pointer) = full();
        let open = allocator.begin_read().open(pointer).expect("current");
        assert_eq!(inside::lives(&allocator, pointer.id(), 256), 96, "up to the limit");
        let other = Arc::clone(&allocator);
        let collector = thread::spawn(move || collect(&other));
        let other = Arc::clone(&allocator);
        let writer = thread::spawn(move || inside::lives(&other, pointer.id(), 256));
        assert!(!open.validate(), "the bucket has been reused long since");
        collector.join().unwrap();
        let lived = writer.join().unwrap() + inside::lives(&allocator, pointer.id(), 256);
        assert_eq!(lived, 96, "as far as the collection allows");
        assert!(!open.validate(), "the bucket has been reused long since");
    });
}

/// I15: neither is a stale one that is still in the index when a collection meets it.
#[test]
fn i15_a_stale_key_that_is_met_holds_reuse_back() {
    model(|| {
        let (allocator, pointer) = full();
        assert_eq!(inside::lives(&allocator, pointer.id(), 10), 10);
        let gc = allocator.begin_gc().expect("the first");
        assert_eq!(gc.mark(pointer, 8, Mark::Reclaimable), Marked::Stale);
        let other = Arc::clone(&allocator);
        let writer = thread::spawn(move || inside::lives(&other, pointer.id(), 256));
        gc.finish();
        let lived = writer.join().unwrap() + inside::lives(&allocator, pointer.id(), 256);
        assert_eq!(10 + lived, 96, "a gen runs at most 96 ahead of a pointer that exists");
    });
}

/// The proof's other half: a pointer that a collection saw is not outrun.
#[test]
fn what_lives_holds_reuse_back() {
    model(|| {
        let (allocator, pointer) = full();
        let first = allocator.begin_gc().expect("the first");
        let _ = first.mark(pointer, 8, Mark::Reclaimable);
        let other = Arc::clone(&allocator);
        let writer = thread::spawn(move || inside::lives(&other, pointer.id(), 256));
        first.finish();
        let lived = writer.join().unwrap() + inside::lives(&allocator, pointer.id(), 256);
        assert_eq!(lived, 96, "a gen runs at most 96 ahead of a live pointer");
    });
}
