//! Open buckets, `lockfree/src/sectors/`.
//!
//! Breaks that must turn these red: `slot_before_prepay`, `spare_back_before_settled`.
#![cfg(tierce_loom)]

use loom::sync::{Arc, Mutex};
use loom::thread;
use tierce_core::{BucketIndex, Reserve};
use tierce_lockfree::{Allocator, Extent, SectorRequest};
use tierce_loom_tests::{model_within, tiny};

/// What was handed out: bucket and offset in sectors.
type Taken = Mutex<Vec<(BucketIndex, u32)>>;

/// Half a bucket, checked.
fn take(allocator: &Allocator, taken: &Taken) -> bool {
    let Some(extent) = allocator.try_alloc_sectors(&SectorRequest::new(4)).expect("in use") else {
        return false;
    };
    check(allocator, &extent);
    let place = (extent.bucket_ref().bucket(), extent.offset());
    taken.lock().expect("no thread panics").push(place);
    check(allocator, &extent);
    true
}

fn check(allocator: &Allocator, extent: &Extent<'_>) {
    let pointer = extent.bucket_ref();
    let word = allocator.snapshot(pointer.id()).expect("one of its buckets");
    assert_eq!(word.gen_(), pointer.gen_(), "an extent in flight must freeze the gen");
    assert!(word.pin_count() > 0, "an extent in flight must be pinned");
    assert_eq!(extent.sectors(), 4);
}

/// Two writers open, fill and close buckets of one slot, of which there are enough.
#[test]
fn extents_are_disjoint_and_pinned() {
    model_within(1, || {
        let (allocator, mut reclaimer) = tiny::allocator(tiny::settings(), 3);
        let _ = reclaimer.step();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (other, others_taken) = (Arc::clone(&allocator), Arc::clone(&taken));
        let writer = thread::spawn(move || {
            assert!(take(&other, &others_taken), "there is enough for both");
        });
        for _ in 0..2 {
            assert!(take(&allocator, &taken), "there is enough for both");
        }
        writer.join().unwrap();
        allocator.close();
        let mut taken = taken.lock().unwrap().clone();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 3, "extents must be disjoint");
        for (bucket, offset) in taken.iter().copied() {
            assert!(offset == 0 || taken.contains(&(bucket, 0)), "extents must be gapless");
            let word = allocator.snapshot(tiny::bucket(bucket.get())).unwrap();
            assert_eq!(word.pin_count(), 0, "sealed and done, no pin may be left");
        }
        let stats = &allocator.stats().devices[0];
        assert_eq!(stats.foreign_pin_total, 0, "a spare bucket goes back with one pin");
        assert_eq!(stats.set_aside, 0);
    });
}

/// Two open the same slot; the bucket of the one who comes second is free again, and a third
/// takes it at once.
#[test]
fn a_spare_bucket_goes_back_with_one_pin() {
    model_within(1, || {
        let (allocator, mut reclaimer) = tiny::allocator(tiny::settings(), 2);
        let _ = reclaimer.step();
        let other = Arc::clone(&allocator);
        let rival = thread::spawn(move || drop(other.try_alloc_sectors(&SectorRequest::new(4))));
        let other = Arc::clone(&allocator);
        let third = thread::spawn(move || drop(other.try_alloc(Reserve::None)));
        drop(allocator.try_alloc_sectors(&SectorRequest::new(4)));
        rival.join().unwrap();
        third.join().unwrap();
        let stats = &allocator.stats().devices[0];
        assert_eq!(stats.foreign_pin_total, 0, "a spare bucket goes back with one pin");
    });
}
