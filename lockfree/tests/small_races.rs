//! Small races on the whole allocator, as it is in use: with the real queue and std's atomics.
//!
//! What a bucket holds is a plain value here, as a memory device would have it: whoever owns the
//! bucket writes it without any synchronisation of its own, so that every ordering that the
//! allocator owes shows as a data race to who can see those. Miri does (`cargo xtask miri`, many
//! seeds), and it draws among the values that weak memory allows a load to return; under
//! ThreadSanitizer (`cargo xtask tsan`) the same tests run at full speed. In an ordinary run they
//! check the values.

#![cfg(not(any(tierce_loom, tierce_shuttle)))]

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Geometry, Mark, Reserve, Sizes};
use tierce_lockfree::{
    Allocator, BucketRef, Config, DeviceTable, Marked, Reclaimer, SectorRequest, Step, WaitFor,
};

const DEVICE: DeviceIndex = DeviceIndex::FIRST;
const NBUCKETS: u32 = 16;
const SECTORS: u32 = 8;

/// How often each race is run: Miri takes seconds for one.
const ROUNDS: u32 = if cfg!(miri) { 1 } else { 200 };

/// One plain value per bucket, for whoever owns the bucket.
struct Contents(Vec<UnsafeCell<u64>>);

// SAFETY: a value is accessed by the owner of its bucket only (the allocator hands a bucket to one
// owner at a time and orders one after the other); that it is so is what is tested here.
unsafe impl Sync for Contents {}

impl Contents {
    fn new() -> Self {
        Self((0..NBUCKETS).map(|_| UnsafeCell::new(0)).collect())
    }

    fn get(&self, bucket: BucketIndex) -> u64 {
        // SAFETY: the caller owns or pins the bucket, see above.
        unsafe { *self.0[bucket.as_usize()].get() }
    }

    fn set(&self, bucket: BucketIndex, value: u64) {
        // SAFETY: the caller owns the bucket, see above.
        unsafe { *self.0[bucket.as_usize()].get() = value }
    }
}

/// An allocator with full lists, of which `none` holds so many buckets; with reclaiming, buckets
/// are reused at once.
fn start(cpus: u32, none: u32) -> (Arc<Allocator>, Reclaimer) {
    let geometry = Geometry::new(NBUCKETS, 1, SECTORS, 4).expect("a legal shape");
    let mut sizes = Sizes::tierce(&geometry, 0);
    (sizes.btree, sizes.prio, sizes.moving_gc, sizes.none) = (1, 1, 0, none);
    (sizes.free_inc, sizes.candidates) = (4, 8);
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let config = Config::default().cpus(cpus).open_buckets(2).sync(false);
    let (allocator, mut reclaimers) =
        Allocator::start(config, vec![table]).expect("legal settings").finish();
    let mut reclaimer = reclaimers.remove(0);
    assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Room)));
    (allocator, reclaimer)
}

/// Runs both at once, `ROUNDS` times.
fn race(scenario: impl Fn()) {
    (0..ROUNDS).for_each(|_| scenario());
}

/// Cells, queue and waiting: what one owner wrote the next one sees, whichever way the bucket took.
fn owners_follow_each_other(cpus: u32) {
    race(|| {
        let (allocator, _reclaimer) = start(cpus, 4);
        let contents = Contents::new();
        let rounds = if cfg!(miri) { 6 } else { 30 };
        std::thread::scope(|scope| {
            for me in 1..=3 {
                let (allocator, contents) = (&allocator, &contents);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..rounds {
                        let got = match round % 3 {
                            0 => allocator.try_alloc(Reserve::None),
                            // Two each are six: more than there are. But nobody waits with two.
                            _ if held.len() < 2 => {
                                allocator.alloc_until(DEVICE, Reserve::None, None).map(Some)
                            }
                            _ => Ok(None),
                        };
                        held.extend(got.expect("in use"));
                        for allocation in held.drain(..) {
                            let bucket = allocation.bucket_ref().bucket();
                            contents.set(bucket, contents.get(bucket) + me);
                        }
                    }
                });
            }
        });
        let sum: u64 = (0..NBUCKETS).map(|b| contents.get(BucketIndex::new(b))).sum();
        assert!(sum > 0, "nobody got a bucket");
    });
}

#[test]
fn owners_follow_each_other_through_cells() {
    owners_follow_each_other(2);
}

#[test]
fn owners_follow_each_other_through_the_queue() {
    owners_follow_each_other(0);
}

/// The table, reclaiming and pins: the data does not change under a pin, and whoever gets the
/// bucket after it comes after all who read.
#[test]
fn a_pin_keeps_the_next_owner_away() {
    race(|| {
        let (allocator, mut reclaimer) = start(2, 2);
        let contents = Contents::new();
        let newest = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        // Acquire: pairs with the Release below, as an index would.
                        let packed = newest.load(Ordering::Acquire);
                        if packed == 0 {
                            continue;
                        }
                        let pointer = unpack(packed);
                        let Some(pin) = allocator.pin(pointer) else { continue };
                        assert_eq!(contents.get(pointer.bucket()), packed, "under {pin:?}");
                        let clone = pin.clone_pin().expect("far from the limit");
                        drop(pin);
                        assert_eq!(contents.get(pointer.bucket()), packed, "under {clone:?}");
                    }
                });
            }
            for _ in 0..12 {
                if let Some(allocation) = allocator.try_alloc(Reserve::None).expect("in use") {
                    let pointer = allocation.bucket_ref();
                    contents.set(pointer.bucket(), pack(pointer));
                    // Release: the content is found by who finds the pointer.
                    newest.store(pack(pointer), Ordering::Release);
                    allocation.written();
                }
                let _ = reclaimer.step();
                // What is dead is reused first.
                collect(&allocator, &[]);
            }
        });
    });
}

/// Never 0.
fn pack(pointer: BucketRef) -> u64 {
    1 << 40 | u64::from(pointer.bucket().get()) << 8 | u64::from(pointer.gen_().get())
}

fn unpack(packed: u64) -> BucketRef {
    let bucket = BucketIndex::new((packed >> 8 & 0xFFFF) as u32);
    BucketRef::new(BucketId::new(DEVICE, bucket), tierce_core::Gen::new(packed as u8))
}

fn collect(allocator: &Allocator, live: &[BucketRef]) {
    let gc = allocator.begin_gc().expect("there is one collector");
    for &pointer in live {
        assert_eq!(gc.mark(pointer, SECTORS, Mark::Dirty), Marked::Live);
    }
    gc.finish();
}

/// Readers that do not pin, on data that is atomic for them as a device's is.
#[test]
fn an_accepted_read_is_of_its_pointer() {
    race(|| {
        let (allocator, mut reclaimer) = start(2, 2);
        let data: Vec<AtomicU64> = (0..NBUCKETS).map(|_| AtomicU64::new(0)).collect();
        let newest = AtomicU64::new(0);
        let accepted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let read = allocator.begin_read();
                        // Acquire: pairs with the Release below, as an index would.
                        let packed = newest.load(Ordering::Acquire);
                        if packed == 0 {
                            continue;
                        }
                        let pointer = unpack(packed);
                        let Some(open) = read.open(pointer) else { continue };
                        // Relaxed: ordered by the fence in `validate`.
                        let found = data[pointer.bucket().as_usize()].load(Ordering::Relaxed);
                        if open.validate() {
                            assert_eq!(found, packed, "I5: accepted");
                            // Relaxed: a count.
                            accepted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            for _ in 0..12 {
                if let Some(allocation) = allocator.try_alloc(Reserve::None).expect("in use") {
                    let pointer = allocation.bucket_ref();
                    // Release: the gen advanced before the data changes; pairs with the fence in
                    // `validate`.
                    fence(Ordering::Release);
                    // Relaxed: ordered by the fence.
                    data[pointer.bucket().as_usize()].store(pack(pointer), Ordering::Relaxed);
                    // Release: the data is found by who finds the pointer.
                    newest.store(pack(pointer), Ordering::Release);
                    allocation.written();
                }
                let _ = reclaimer.step();
                collect(&allocator, &[]);
            }
        });
    });
}

/// Sectors: extents of one bucket are written by several threads, and its next owner comes after
/// all of them.
#[test]
fn extents_are_everybodys_own() {
    race(|| {
        let (allocator, mut reclaimer) = start(2, 3);
        let sectors: Vec<_> = (0..NBUCKETS * SECTORS).map(|_| UnsafeCell::new(0_u32)).collect();
        struct Disk(Vec<UnsafeCell<u32>>);
        // SAFETY: as for `Contents`, per sector: an extent is its holder's.
        unsafe impl Sync for Disk {}
        let disk = Disk(sectors);
        std::thread::scope(|scope| {
            for me in 1..=2 {
                let (allocator, disk) = (&allocator, &disk);
                scope.spawn(move || {
                    for _ in 0..6 {
                        let request = SectorRequest::new(3);
                        let got = allocator.try_alloc_sectors(&request).expect("in use");
                        let Some(extent) = got else { continue };
                        let first = extent.bucket_ref().bucket().get() * SECTORS + extent.offset();
                        for sector in first..first + extent.sectors() {
                            // SAFETY: the extent is ours until it is dropped, see above.
                            unsafe { *disk.0[sector as usize].get() = me };
                        }
                    }
                });
            }
            for _ in 0..4 {
                let _ = reclaimer.step();
                collect(&allocator, &[]);
            }
        });
        allocator.close();
        for bucket in (1..NBUCKETS).map(BucketIndex::new) {
            let word = allocator.snapshot(BucketId::new(DEVICE, bucket)).expect("a bucket");
            assert!(word.pin_count() <= 1, "I13: a pin is left on {bucket}: {word:?}");
        }
    });
}

/// Garbage collection beside writers: what is dirty stays.
#[test]
fn a_collection_keeps_what_was_dirty_before_it() {
    race(|| {
        let (allocator, mut reclaimer) = start(2, 4);
        let contents = Contents::new();
        let kept = allocator.try_alloc(Reserve::None).expect("in use").expect("free");
        let pointer = kept.bucket_ref();
        std::thread::scope(|scope| {
            let (allocator, contents) = (&allocator, &contents);
            scope.spawn(move || {
                kept.mark_dirty();
                contents.set(pointer.bucket(), 7);
                kept.written();
            });
            for _ in 0..3 {
                // The key is in the index from the start: the walk finds it.
                collect(allocator, &[pointer]);
                let _ = reclaimer.step();
                drop(allocator.try_alloc(Reserve::None).expect("in use"));
            }
        });
        let word = allocator.snapshot(pointer.id()).expect("a bucket");
        assert_eq!((word.gen_(), word.mark()), (pointer.gen_(), Mark::Dirty), "I14: {word:?}");
        assert_eq!(contents.get(pointer.bucket()), 7);
    });
}
