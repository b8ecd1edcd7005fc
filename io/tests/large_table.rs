//! Opening a device whose table takes several huge pages: helpers fill them, or have their memory
//! provided, while the journal and the chain are being read. Whatever that meets, the table is
//! what was published, or there is an error and nobody waits for ever.

use std::sync::Arc;
use tierce_core::{BucketIndex, Gen, Prio};
use tierce_io::{
    DeviceExt, Error, Fault, FaultKind, FormatOptions, Operation, Owner, Sim, SimOptions, Volume,
    format_on, recover,
};

/// Four huge pages of words and some more, in sets that end at no border of pages.
const NBUCKETS: u32 = (4 << 18) + 12_345;
const BUCKET: u64 = 4096;
const PER_SET: u32 = 1352;
const SETS: u32 = NBUCKETS.div_ceil(PER_SET);

/// Long runs that lie apart, in both directions, and single buckets in between.
fn chain() -> Vec<BucketIndex> {
    let runs = (0..SETS).map(|set| {
        let (run, at) = (set / 90, set % 90);
        let start = 100_000 + 7_000 * (run * 5 % 11);
        match (at, run % 2) {
            (44, _) => start + 3_000,
            (_, 0) => start + at,
            _ => start + 90 - at,
        }
    });
    runs.map(BucketIndex::new).collect()
}

fn record(bucket: u32) -> (Prio, Gen) {
    let prio = bucket.wrapping_mul(0x9e37_79b9) >> 16;
    // What lies between the largest prio and that of metadata does not arise.
    let prio = if prio.is_multiple_of(5) { u16::MAX } else { (prio % 32_769) as u16 };
    (Prio::new(prio), Gen::new((bucket / 3) as u8))
}

fn used() -> Arc<Sim> {
    let sim = Sim::new(&SimOptions::default().bytes(u64::from(NBUCKETS) * BUCKET));
    format_on(&*sim, &FormatOptions::default().bucket(BUCKET as u32)).expect("formats");
    let volume = Volume::open_on(sim.clone(), Owner::Allocator).expect("opens");
    assert_eq!(volume.geometry().prios_per_bucket(), PER_SET);
    let (_, mut writer) = volume.into_parts();
    let sets = (0..SETS).map(|set| set * PER_SET..((set + 1) * PER_SET).min(NBUCKETS));
    writer.publish(&chain(), sets.map(|set| set.map(record)).collect()).expect("publishes");
    sim
}

fn place(bucket: BucketIndex) -> std::ops::Range<u64> {
    let start = u64::from(bucket.get()) * BUCKET;
    start..start + BUCKET
}

#[test]
fn it_is_what_was_published() {
    let sim = used();
    for _ in 0..3 {
        let found = recover(sim.clone()).expect("a sound device");
        assert_eq!(found.chain.expect("there is one").buckets, chain());
        assert!(found.table.iter().eq((0..NBUCKETS).map(record)));
    }
}

/// The set at the border of two pages, the first, the last, and a journal bucket.
#[test]
fn what_cannot_be_read_is_told_and_ends_it() {
    let (sim, all) = (used(), chain());
    let border = all[(1 << 18) / PER_SET as usize];
    for bucket in [BucketIndex::new(7), all[0], border, all[500], all[SETS as usize - 1]] {
        let place = place(bucket);
        for kind in [FaultKind::Io, FaultKind::Short] {
            sim.inject(Fault::new(kind, Operation::Read, 0).for_good().within(place.clone()));
            let error = recover(sim.clone()).map(drop).expect_err("it is needed");
            sim.clear_faults();
            let (Error::Io { offset, .. } | Error::Short { offset, .. }) = error else {
                panic!("{error}")
            };
            assert_eq!(offset, place.start, "{kind:?} in {bucket}");
        }
        // On the device: a read may bring what nobody needs, where a wrong bit does no harm.
        let sound = sim.read_at(place.start, BUCKET as usize).expect("reads");
        let mut damaged = sound.to_vec();
        damaged[BUCKET as usize / 2] ^= 1;
        sim.write_at(place.start, &damaged).expect("writes");
        let found = recover(sim.clone());
        sim.write_at(place.start, &sound).expect("writes");
        if bucket.get() == 7 {
            // A journal bucket in which no entry begins, which most of them are.
            found.map(drop).expect("the newest entry lies elsewhere");
        } else {
            let error = found.map(drop).expect_err("its checksum is wrong").to_string();
            assert!(error.contains(&format!("prio set at bucket {}", bucket.get())), "{error}");
        }
    }
    recover(sim).expect("nothing is wrong any more");
}

/// A device without a chain: helpers stop, and the table is that of a new device.
#[test]
fn without_a_chain_all_is_zero() {
    let sim = Sim::new(&SimOptions::default().bytes(u64::from(NBUCKETS) * BUCKET));
    format_on(&*sim, &FormatOptions::default().bucket(BUCKET as u32)).expect("formats");
    drop(Volume::open_on(sim.clone(), Owner::Allocator).expect("opens"));
    let found = recover(sim).expect("a sound device");
    assert!(found.chain.is_none());
    assert!(found.table.iter().all(|(_, generation)| generation == Gen::new(0)));
}

/// Reads that hang, of the journal and of the chain, while helpers have nothing left to do.
#[test]
fn reads_that_hang_are_waited_for() {
    let sim = used();
    for read in [1, 2, 40] {
        sim.inject(Fault::new(FaultKind::Stall, Operation::Read, read));
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| recover(sim.clone()));
            while sim.stalled() == 0 && !opening.is_finished() {
                std::thread::yield_now();
            }
            assert_eq!(sim.stalled(), 1, "there are as many reads");
            sim.resume();
            let found = opening.join().expect("no panic").expect("a sound device");
            assert!(found.table.iter().eq((0..NBUCKETS).map(record)));
        });
    }
}
