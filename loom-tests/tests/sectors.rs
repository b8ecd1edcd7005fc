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

/// I11 to I13: two writers meet on one slot. What they take out of it is disjoint and gapless,
/// never unpinned, and no pin is left in the end. `before`: how much is taken out of the bucket
/// that is open when they come.
fn two_writers(before: u32) {
    model_within(2, move || {
        let (allocator, mut reclaimer) = tiny::allocator(tiny::settings(), 3);
        let _ = reclaimer.step();
        let taken = Arc::new(Mutex::new(Vec::new()));
        for _ in 0..before {
            assert!(take(&allocator, &taken), "there is enough for both");
        }
        let (other, others_taken) = (Arc::clone(&allocator), Arc::clone(&taken));
        let writer = thread::spawn(move || {
            assert!(take(&other, &others_taken), "there is enough for both");
        });
        assert!(take(&allocator, &taken), "there is enough for both");
        writer.join().unwrap();
        allocator.close();
        let mut taken = taken.lock().unwrap().clone();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len() as u32, before + 2, "extents must be disjoint");
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

/// Both open the bucket.
#[test]
fn i12_extents_of_two_who_open_are_disjoint_and_pinned() {
    two_writers(0);
}

/// One fills the open bucket, the other opens the next.
#[test]
fn i13_extents_of_two_at_the_end_of_a_bucket_are_disjoint_and_pinned() {
    two_writers(1);
}

/// I9: two open the same slot; the bucket of the one who comes second is free again, and the
/// other takes it at once.
#[test]
fn i9_a_spare_bucket_goes_back_with_one_pin() {
    model_within(2, || {
        let (allocator, mut reclaimer) = tiny::allocator(tiny::settings(), 2);
        let _ = reclaimer.step();
        let other = Arc::clone(&allocator);
        let rival = thread::spawn(move || drop(other.try_alloc_sectors(&SectorRequest::new(4))));
        drop(allocator.try_alloc_sectors(&SectorRequest::new(4)));
        drop(allocator.try_alloc(Reserve::None));
        rival.join().unwrap();
        let stats = &allocator.stats().devices[0];
        assert_eq!(stats.foreign_pin_total, 0, "a spare bucket goes back with one pin");
    });
}
