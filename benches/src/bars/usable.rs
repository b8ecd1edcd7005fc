//! P17: how much of a device holds user data while it is written all the time: everything but
//! superblock, journal, prio chain, free lists and what waits to become free.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::measure::Subject;
use tierce_core::{BucketId, DeviceIndex, Geometry, Mark, Reserve};
use tierce_lockfree::{Allocation, Allocator, BucketRef, Config, DeviceTable, Reclaimer};
use tierce_lockfree::{Step, WaitFor};

/// Buckets of 512 KiB, the superblock's included.
const BUCKET_SECTORS: u32 = 1024;

/// How often the device is overwritten before the first look, and during the looks.
const TIMES: u32 = 2;

/// Looks while it is overwritten: the worst counts.
const LOOKS: u32 = 64;

pub(super) fn usable(bench: &mut Bench<'_>) {
    let sizes: &[u32] = if bench.plan.quick { &[64 << 10] } else { &[64 << 10, 1 << 20] };
    for &nbuckets in sizes {
        let setting = format!("{} Ki buckets", nbuckets >> 10);
        let figure = Figure::new("P17", "buckets with user data", setting, "%", Better::More);
        let figure = figure.goals(Goal::AtLeast(97.0), Goal::AtLeast(98.5));
        let subject = Subject::new("lockfree", move || vec![100.0 * share(nbuckets)]);
        bench.measure(&[figure], vec![subject]);
    }
}

/// The smallest share of all buckets that held user data at any look.
fn share(nbuckets: u32) -> f64 {
    let geometry = Geometry::new(nbuckets, 1, BUCKET_SECTORS, 8).expect("a legal shape");
    // As many journal buckets as a format gives a device of this size.
    let journal = (nbuckets >> 7).clamp(2, 256);
    let table = DeviceTable::empty(geometry).with_journal(journal);
    let startup = Allocator::start(Config::default(), vec![table]);
    let (allocator, mut reclaimers) = startup.expect("settings are the defaults").finish();
    let reclaimer = reclaimers.first_mut().expect("one per device");
    write(&allocator, reclaimer, TIMES * nbuckets);
    let shares = (0..LOOKS).map(|_| {
        write(&allocator, reclaimer, TIMES * nbuckets / LOOKS);
        f64::from(holding_data(&allocator, geometry)) / f64::from(nbuckets)
    });
    shares.fold(1.0, f64::min)
}

/// Writes `buckets` buckets, and lets the reclaimer do all it can.
fn write(allocator: &Allocator, reclaimer: &mut Reclaimer, buckets: u32) {
    for _ in 0..buckets {
        let bucket = loop {
            match allocator.try_alloc(Reserve::None).expect("the device works") {
                Some(bucket) => break bucket,
                None => reclaim(allocator, reclaimer),
            }
        };
        Allocation::written(bucket);
    }
    reclaim(allocator, reclaimer);
}

/// Until it has to wait for room. Every prio write is durable at once.
fn reclaim(allocator: &Allocator, reclaimer: &mut Reclaimer) {
    loop {
        match reclaimer.step() {
            Step::PrioWrite(mut write) => {
                for set in (0..write.chain().len()).rev() {
                    write.encode(set, |prio, gen_| {
                        std::hint::black_box((prio, gen_));
                    });
                }
                assert!(write.confirm(), "nobody holds it back");
                reclaimer.prio_durable(write);
            }
            Step::Wait(WaitFor::Gc) => collect(allocator),
            Step::Discard(_) => reclaimer.discarded(),
            Step::Wait(_) | Step::Ended => return,
        }
    }
}

/// A garbage collection by which every bucket stays what it is.
fn collect(allocator: &Allocator) {
    let gc = allocator.begin_gc().expect("one at a time");
    for bucket in allocator.geometry(DeviceIndex::FIRST).buckets() {
        let id = BucketId::new(DeviceIndex::FIRST, bucket);
        let word = allocator.snapshot(id).expect("a bucket of the device");
        if word.pin_count() == 0 && word.mark() != Mark::None {
            let _ = gc.mark(BucketRef::new(id, word.gen_()), BUCKET_SECTORS, word.mark());
        }
    }
    gc.finish();
}

/// How many buckets hold data that a pointer can still lead to.
fn holding_data(allocator: &Allocator, geometry: Geometry) -> u32 {
    let holds = |&bucket: &tierce_core::BucketIndex| {
        let id = BucketId::new(DeviceIndex::FIRST, bucket);
        let word = allocator.snapshot(id).expect("a bucket of the device");
        word.pin_count() == 0 && matches!(word.mark(), Mark::Reclaimable | Mark::Dirty)
    };
    geometry.buckets().filter(holds).count() as u32
}
