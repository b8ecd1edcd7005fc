//! Opening a device reads ahead, by guesses. What was guessed never decides anything: whatever
//! becomes of such a read, the device opens with the table that was published, and only what is
//! needed can fail.

use std::ops::Range;
use std::sync::Arc;
use tierce_core::{BucketIndex, Gen, Prio};
use tierce_io::{
    DeviceExt, Error, Fault, FaultKind, FormatOptions, Operation, Owner, Sim, SimOptions, Volume,
    format_on, recover,
};

const NBUCKETS: u32 = 60_000;
const BUCKET: u64 = 4096;
/// Buckets that are read together: windows of 256 KiB.
const WINDOW: u32 = 64;

/// As 45 sets take them: runs in both directions, each of which would go on if it were not for
/// the next one.
fn chain() -> Vec<BucketIndex> {
    let (down, up, apart) = ((2000..2020).rev(), 3000..3020, [9000, 5000, 7000, 8000, 6000]);
    down.chain(up).chain(apart).map(BucketIndex::new).collect()
}

fn record(bucket: u32) -> (Prio, Gen) {
    (Prio::new((bucket % 30_000) as u16), Gen::new((bucket / 7) as u8))
}

/// A device with a published table.
fn used() -> Arc<Sim> {
    let sim = Sim::new(&SimOptions::default().bytes(u64::from(NBUCKETS) * BUCKET));
    format_on(&*sim, &FormatOptions::default().bucket(BUCKET as u32)).expect("formats");
    let volume = Volume::open_on(sim.clone(), Owner::Allocator).expect("opens");
    let per_set = volume.geometry().prios_per_bucket();
    let (_, mut writer) = volume.into_parts();
    let sets = (0..45).map(|set| set * per_set..((set + 1) * per_set).min(NBUCKETS));
    writer.publish(&chain(), sets.map(|set| set.map(record)).collect()).expect("publishes");
    sim
}

/// Whether it opens; if so, with that table.
fn opens(sim: &Arc<Sim>) -> Result<(), Error> {
    let found = recover(sim.clone())?;
    assert_eq!(found.chain.expect("there is one").buckets, chain());
    assert!(found.table.iter().eq((0..NBUCKETS).map(record)), "what was published");
    Ok(())
}

fn buckets(range: Range<u32>) -> Range<u64> {
    u64::from(range.start) * BUCKET..u64::from(range.end) * BUCKET
}

/// What lies around the runs, and is read with them or behind them, cannot be read.
#[test]
fn what_is_not_needed_may_fail() {
    let beside = [1700..2000, 2020..2300, 2700..3000, 3020..3300, 4999..5000, 5001..5100];
    // No window of these has a set of the chain in it.
    let behind = [1700..1984, 2048..2300, 2700..2944, 3072..3300, 4800..4992, 5056..5100];
    for (kind, around) in [
        (FaultKind::Io, beside.clone()),
        (FaultKind::Short, beside.clone()),
        (FaultKind::NoSpace, beside),
        (FaultKind::Corrupt, behind),
    ] {
        let sim = used();
        for range in around {
            sim.inject(Fault::new(kind, Operation::Read, 0).for_good().within(buckets(range)));
        }
        opens(&sim).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let hit = sim.read_at(buckets(1983..1984).start, BUCKET as usize);
        let is_wrong = hit.map_or(true, |bytes| bytes.iter().any(|&byte| byte != 0));
        assert!(is_wrong, "the faults are there");
    }
}

/// Each read once: those that fail the opening are the ones of a single piece, of which the
/// chain's beginning and its jumps have a few. Nothing is accepted that was not published.
#[test]
fn each_read_may_fail_once() {
    let sim = used();
    for kind in [FaultKind::Io, FaultKind::Short] {
        let fails = |read: &u64| {
            sim.inject(Fault::new(kind, Operation::Read, *read));
            let opened = opens(&sim);
            sim.clear_faults();
            opened.is_err()
        };
        let refused: Vec<_> = (0..60).filter(fails).collect();
        assert_eq!(refused[0], 0, "the superblock");
        assert!((6..20).contains(&refused.len()), "{refused:?}");
        opens(&sim).expect("all faults are gone");
    }
}

/// What is needed, and cannot be read even by itself, is told by its place.
#[test]
fn what_is_needed_is_told() {
    let all = chain();
    for bucket in [all[0], all[10], all[19], all[20], all[30], all[44]] {
        let sim = used();
        let place = buckets(bucket.get()..bucket.get() + 1);
        sim.inject(Fault::new(FaultKind::Io, Operation::Read, 0).for_good().within(place.clone()));
        let error = opens(&sim).expect_err("it is needed");
        let Error::Io { offset, bytes, .. } = error else { panic!("{error}") };
        assert_eq!((offset, bytes), (place.start, BUCKET), "nothing else is blamed");
    }
}

/// A guess that hangs is waited for, and does no harm.
#[test]
fn a_guess_that_hangs_is_waited_for() {
    let sim = used();
    // Beyond the window in which the first run ends.
    let below = 2000 / WINDOW * WINDOW;
    let place = buckets(below - WINDOW..below);
    sim.inject(Fault::new(FaultKind::Stall, Operation::Read, 0).within(place));
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| opens(&sim));
        while sim.stalled() == 0 && !opening.is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(sim.stalled(), 1, "it was guessed");
        sim.resume();
        opening.join().expect("no panic").expect("a sound device");
    });
}
