//! Open buckets, `lockfree/src/sectors/`.
//!
//! I11, I12, I13. Breaks that must turn these red: `slot_before_prepay`, `slot_take_by_store`,
//! `slot_unsettled`, `spare_back_before_settled`, `rollover_loses_spare`, `open_bucket_no_fence`,
//! `seal_no_fence`, `slot_in_any_turn`, `slot_cpu_unvisited`, `slot_of_any_cpu`. How slots become
//! near and shared is the code of `near.rs`, whose breaks the models in `near.rs` turn red.
#![cfg(tierce_loom)]

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;
use tierce_core::{BucketIndex, Reserve};
use tierce_lockfree::model::{self as inside, NearSlot};
use tierce_lockfree::{Allocator, Extent, SectorRequest};
use tierce_loom_tests::{model, model_within, tiny};

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

/// I11, I12, I13: two writers open, fill and close buckets of one slot, of which there are enough.
#[test]
fn extents_are_disjoint_and_pinned() {
    model(|| {
        let config = tiny::settings().refill_on_demand(false);
        let (allocator, mut reclaimer) = tiny::allocator(config, 3);
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
        let mut used: Vec<_> = taken.iter().map(|&(bucket, _)| bucket).collect();
        used.dedup();
        assert_eq!(used.len() as u64 + stats.free_of(Reserve::None), 3, "no bucket may be lost");
        assert_eq!(stats.sectors_written, 3 * 4, "every extent counts, open or closed");
    });
}

/// I12: whoever takes space of a bucket that another has just invalidated and opened gets a pointer
/// into its new life.
#[test]
fn i12_an_extent_has_the_gen_of_its_opening() {
    model(|| {
        let (allocator, _reclaimer) = tiny::of_five(tiny::settings(), 0, 2);
        let full = tiny::full(&allocator);
        let request = SectorRequest::new(4);
        let other = Arc::clone(&allocator);
        let writer = thread::spawn(move || {
            let extent = other.try_alloc_sectors(&request).expect("in use");
            extent.map(|extent| extent.bucket_ref())
        });
        assert!(inside::invalidate(&allocator, full.id()));
        inside::release(&allocator, full.id());
        drop(allocator.try_alloc_sectors(&request).expect("in use"));
        if let Some(pointer) = writer.join().unwrap() {
            let word = allocator.snapshot(pointer.id()).expect("one of its buckets");
            assert_eq!(pointer.gen_(), word.gen_(), "the gen belongs to the opening");
        }
    });
}

/// I9: two open the same slot; the bucket of the one who comes second is free again, and a third
/// takes it at once.
#[test]
fn a_spare_bucket_goes_back_with_one_pin() {
    model_within(2, || {
        let (allocator, mut reclaimer) =
            tiny::allocator(tiny::settings().refill_on_demand(false), 2);
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

/// What the holder of an extent did happened before its bucket is reused, although another thread
/// closed the bucket and returned all other pins.
#[test]
fn what_an_extent_wrote_happens_before_reuse() {
    model(|| {
        let (allocator, mut reclaimer) = tiny::allocator(tiny::settings(), 2);
        let _ = reclaimer.step();
        let data: Arc<Vec<_>> = Arc::new((0..8).map(|_| UnsafeCell::new(0)).collect());
        let (other, others_data) = (Arc::clone(&allocator), Arc::clone(&data));
        let writer = thread::spawn(move || {
            let extent = other.try_alloc_sectors(&SectorRequest::new(4)).expect("in use");
            let extent = extent.expect("there is enough for both");
            let at = extent.bucket_ref().bucket().as_usize();
            // SAFETY: the bucket's other extent writes nothing, and it is not reused meanwhile;
            // loom checks that.
            others_data[at].with_mut(|data| unsafe { *data = 1 });
        });
        let extent = allocator.try_alloc_sectors(&SectorRequest::new(4)).expect("in use");
        let extent = extent.expect("there is enough for both");
        let (id, is_second) = (extent.bucket_ref().id(), extent.offset() > 0);
        drop(extent);
        if inside::invalidate(&allocator, id) {
            // SAFETY: the invalidation must have made it ours; loom checks that.
            let seen = data[id.bucket().as_usize()].with(|data| unsafe { *data });
            assert!(seen == 1 || !is_second, "the holder's write must happen before reuse");
        }
        writer.join().unwrap();
    });
}

/// I13: a bucket that is opened when the allocator is closed does not stay open.
#[test]
fn i13_nothing_is_open_after_the_end() {
    model(|| {
        let (allocator, mut reclaimer) = tiny::allocator(tiny::settings(), 2);
        let _ = reclaimer.step();
        let other = Arc::clone(&allocator);
        let writer = thread::spawn(move || drop(other.try_alloc_sectors(&SectorRequest::new(4))));
        allocator.close();
        writer.join().unwrap();
        for number in 0..8 {
            let word = allocator.snapshot(tiny::bucket(number)).unwrap();
            assert!(word.pin_count() <= 1, "bucket {number} must not be open: {word:?}");
        }
    });
}

/// All units of a slot that were handed out, by two threads that take as many as they say.
fn assert_taken_once(mine: &[u32], others: &[u32]) {
    let mut taken: Vec<_> = mine.iter().chain(others).copied().collect();
    taken.sort_unstable();
    let all: Vec<_> = (0..taken.len() as u32).collect();
    assert_eq!(taken, all, "units must be disjoint and gapless");
}

/// I11: one takes by stores, another makes the slot shared.
#[test]
fn i11_a_visitor_and_the_near_one_take_a_unit_once() {
    model(|| {
        let slot = Arc::new(NearSlot::new());
        slot.bring_near();
        let other = Arc::clone(&slot);
        let visitor = thread::spawn(move || [other.take()]);
        let mine = [slot.take(), slot.take()];
        assert_taken_once(&mine, &visitor.join().unwrap());
    });
}

/// I11: while one takes, the other makes the slot near to himself, from shared or from near.
#[test]
fn i11_a_slot_changes_its_cpu() {
    for is_near in [false, true] {
        model(move || {
            let slot = Arc::new(NearSlot::new());
            if is_near {
                slot.bring_near();
            }
            let other = Arc::clone(&slot);
            let rival = thread::spawn(move || {
                other.bring_near();
                [other.take()]
            });
            let mine = [slot.take()];
            slot.bring_near();
            assert_taken_once(&mine, &rival.join().unwrap());
        });
    }
}

/// I11: three turns: near to the one, to the other, and to the one again.
#[test]
fn i11_a_turn_is_not_taken_for_another() {
    model(|| {
        let slot = Arc::new(NearSlot::new());
        slot.bring_near();
        let other = Arc::clone(&slot);
        let rival = thread::spawn(move || {
            let first = other.take();
            other.bring_near();
            [first, other.take()]
        });
        let mine = [slot.take()];
        assert_taken_once(&mine, &rival.join().unwrap());
    });
}
