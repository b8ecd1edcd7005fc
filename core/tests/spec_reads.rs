//! Reads without pins, and the questions that owners ask before they act.
//!
//! 1. A read is valid iff the gen is equal and fewer than two collections were published; each
//!    void one is counted.
//! 2. A pin is given iff the gen is equal; it stops invalidation, and a read does not.
//! 3. `can_alloc(reserve, n)` iff n single allocations succeed.
//! 4. A garbage collection is due for each of its three reasons, exactly from its limit on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use tierce_core::spec::{DeviceOptions, Figure, Options, Pass, Place, Pointer, Set, Write};
use tierce_core::word::PIN_LIMIT;
use tierce_core::{
    BucketId, BucketIndex, DeviceIndex, Gen, Geometry, Mark, Prio, Reserve, Sizes, Snapshot,
};

const DEVICE: DeviceIndex = DeviceIndex::FIRST;
const BUCKETS: u32 = 32;

fn id(b: u32) -> BucketId {
    BucketId::new(DEVICE, BucketIndex::new(b))
}

fn set(devices: usize, shadow: bool) -> Set {
    let geometry = Geometry::new(BUCKETS, 1, 64, 8).unwrap();
    let mut sizes = Sizes::bcache(&geometry, 2);
    (sizes.moving_gc, sizes.none, sizes.free_inc, sizes.candidates) = (1, 3, 4, 8);
    let mut options = Options::default();
    options.invalidate_during_gc = shadow;
    Set::new(options, vec![DeviceOptions::new(geometry, sizes); devices]).unwrap()
}

fn started(devices: usize, shadow: bool) -> Set {
    let mut set = set(devices, shadow);
    assert!(set.start().unwrap().reused.is_empty());
    for device in set.device_indexes() {
        set.step(device);
    }
    set
}

proptest! {
    /// Reuse and collections in any order between the beginning and the end of a read.
    #[test]
    fn a_read_is_valid_while_gen_and_epoch_allow_it(
        start: u8, shadow: bool, ops in prop::collection::vec(any::<bool>(), 0..4), wrap: bool,
    ) {
        let mut set = set(1, shadow);
        let word = Snapshot::default().with_last_gc(Gen::new(start)).with_gen(Gen::new(start));
        set.store(id(5), word).unwrap();
        let pointer = Pointer::new(id(5), Gen::new(start));
        let behind = Pointer::new(id(5), Gen::new(start.wrapping_sub(1)));
        let ahead = Pointer::new(id(5), Gen::new(start.wrapping_add(1)));
        prop_assert!(set.begin_read(behind).is_none() && set.begin_read(ahead).is_none());
        let read = set.begin_read(pointer).unwrap();
        let (mut reused, mut published) = (0u32, 0u32);
        for gc in ops {
            if gc {
                set.gc_begin().unwrap();
                prop_assert_eq!(set.gc_is_running(), true);
                set.gc_finish().unwrap();
                published += 1;
            } else {
                let word = set.word(id(5)).unwrap();
                set.store(id(5), word.with_gen(word.gen_().next())).unwrap();
                reused += 1;
            }
        }
        if wrap && published >= 2 {
            // The gen has come round to what it was: only the epoch can tell.
            let word = set.word(id(5)).unwrap();
            set.store(id(5), word.with_gen(pointer.gen_)).unwrap();
            reused = 256;
        }
        let valid = reused % 256 == 0 && published < 2;
        prop_assert_eq!(set.validate(read), valid);
        prop_assert_eq!(set.counters().read_races_total, u64::from(!valid));
        prop_assert!(!set.gc_is_running());
    }

    /// Whatever is handed out, pinned by somebody who should not, or failed: the answer is what
    /// trying gives.
    #[test]
    fn can_alloc_says_what_trying_gives(
        taken in prop::collection::vec(0u8..4, 0..12), foreign in prop::collection::vec(0u32..64, 0..4),
        failed in prop::option::of(0u8..2),
    ) {
        let mut set = started(2, true);
        for reserve in taken {
            let _ = set.alloc(Reserve::ALL[usize::from(reserve)]);
        }
        for b in foreign {
            let bucket = BucketId::new(DeviceIndex::new((b / 32) as u8), BucketIndex::new(b % 32));
            if matches!(set.place(bucket), Some(Place::Free(_))) {
                let gen_ = set.word(bucket).unwrap().gen_();
                prop_assert!(set.pin(Pointer::new(bucket, gen_)));
            }
        }
        if let Some(device) = failed {
            set.fail_device(DeviceIndex::new(device), "test").unwrap();
        }
        for reserve in Reserve::ALL {
            let mut trial = set.clone();
            let served = std::iter::from_fn(|| trial.alloc(reserve).ready()).count();
            prop_assert!(set.can_alloc(reserve, served), "{served} of {reserve}");
            prop_assert!(!set.can_alloc(reserve, served + 1), "{served} of {reserve}");
        }
    }
}

#[test]
fn a_pin_needs_the_gen_and_room() {
    let mut set = set(1, true);
    set.store(id(5), Snapshot::default().with_gen(Gen::new(7)).with_last_gc(Gen::new(7))).unwrap();
    for gen_ in [6, 8, 7 + 128] {
        assert!(!set.pin(Pointer::new(id(5), Gen::new(gen_))));
    }
    let pointer = Pointer::new(id(5), Gen::new(7));
    assert_eq!(pointer.to_string(), "0:5@7");
    assert!(set.pin(pointer));
    let read = set.begin_read(Pointer::new(id(6), Gen::new(0))).unwrap();
    assert_eq!(set.invalidate(DEVICE), Pass::Filled);
    assert!(!set.free_inc(DEVICE).any(|b| b.get() == 5), "a pin stops invalidation");
    while set.place(id(6)) == Some(Place::Out) {
        set.clear_free_inc(DEVICE).unwrap();
        set.store_figure(DEVICE, Figure::NeedsGc(false)).unwrap();
        let spent = set.word(id(1)).unwrap().with_mark(Mark::Dirty);
        for b in 1..5 {
            set.store(id(b), spent).unwrap();
        }
        set.invalidate(DEVICE);
    }
    assert!(!set.validate(read), "a read does not");
    let full = set.word(id(5)).unwrap().with_pin(PIN_LIMIT);
    set.store(id(5), full).unwrap();
    assert!(!set.pin(pointer));
    assert_eq!(set.word(id(5)), Some(full));
}

#[test]
fn a_collection_is_due_from_its_limits_on() {
    let mut set = started(1, true);
    assert!(!set.gc_is_due());
    // A device waits for one.
    set.store_figure(DEVICE, Figure::NeedsGc(true)).unwrap();
    assert!(set.gc_is_due());
    set.store_figure(DEVICE, Figure::NeedsGc(false)).unwrap();
    // Some gen has passed 64.
    set.store_figure(DEVICE, Figure::NeedGc(64)).unwrap();
    assert!(!set.gc_is_due());
    set.store_figure(DEVICE, Figure::NeedGc(65)).unwrap();
    assert_eq!(set.gauges().need_gc, 65);
    assert!(set.gc_is_due());
    set.gc_begin().unwrap();
    set.gc_finish().unwrap();
    assert_eq!(set.gauges().need_gc, 0, "no pointer was seen, so none is behind");
    assert!(!set.gc_is_due());
    // 1/16 of 32 buckets of 64 sectors were written.
    for (sectors, due) in [(64, false), (63, false), (1, true)] {
        let extent = set.alloc_sectors(Write::new(1, 0, sectors)).unwrap().ready().unwrap();
        assert_eq!(extent.sectors, sectors);
        assert_eq!(set.gc_is_due(), due);
    }
    set.gc_begin().unwrap();
    set.gc_finish().unwrap();
    assert!(!set.gc_is_due());
}

/// Ageing, hits and metadata as the owner sees them.
#[test]
fn a_hit_makes_fresh_what_may_age() {
    let mut set = set(1, true);
    for (prio, hit) in [(0, true), (32767, true), (32768, false), (40000, true), (65535, false)] {
        let word = Snapshot::default().with_prio(Prio::new(prio));
        set.store(id(5), word).unwrap();
        assert!(!set.touch(Pointer::new(id(5), Gen::new(1))), "another gen");
        assert_eq!(set.word(id(5)), Some(word));
        assert_eq!(set.touch(Pointer::new(id(5), Gen::new(0))), hit, "{prio}");
        let prio = if hit { Prio::FRESH } else { Prio::new(prio) };
        assert_eq!(set.word(id(5)), Some(word.with_prio(prio)));
    }
}
