//! The simulated device: what it must keep, what it must be able to lose, and that its faults
//! reach whoever waits.
//!
//! Checked:
//! 1. What was flushed, or written durably, survives every power loss.
//! 2. What was not can be lost, survive, be torn, and survive in another order, all of it by
//!    some seed; but every sector is one that was written.
//! 3. Without power nothing works, and the operation that was hit may be half done.
//! 4. Every fault × operation ends as its table says; a stall ends with `resume` or the power.
//! 5. The same seed does the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use tierce_core::{DeviceIndex, Reserve};
use tierce_io::{
    CutAt, Device, DeviceExt, Error, Fault, FaultKind, FormatOptions, Operation, Owner, Pipeline,
    Request, Sim, SimOptions, Volume, format_on,
};
use tierce_lockfree::{Allocator, Config};

const SECTOR: usize = 512;

fn sim(seed: u64) -> Arc<Sim> {
    Sim::new(&SimOptions::default().seed(seed).bytes(4 << 20))
}

fn durable(sim: &Sim, offset: u64, byte: u8, bytes: usize) -> Result<(), Error> {
    let mut buffer = sim.buffer(bytes);
    buffer.fill(byte);
    sim.submit(Request::write(offset, buffer).durable()).wait().map(drop)
}

/// The first byte of each of the first `n` sectors; every sector must be of one piece.
fn sectors(sim: &Sim, n: usize) -> Vec<u8> {
    let data = sim.read_at(0, n * SECTOR).expect("reads");
    let one = |sector: &[u8]| {
        assert!(sector.iter().all(|&byte| byte == sector[0]), "a sector is never torn");
        sector[0]
    };
    data.chunks(SECTOR).map(one).collect()
}

#[test]
fn what_is_durable_survives_and_the_rest_may_or_may_not() {
    let mut seen = BTreeSet::new();
    for seed in 0..2000 {
        let sim = sim(seed);
        sim.write_at(0, &[1; 2 * SECTOR]).unwrap();
        sim.flush().unwrap();
        sim.write_at(0, &[2; 2 * SECTOR]).unwrap();
        sim.write_at(0, &[3; 2 * SECTOR]).unwrap();
        sim.write_at(1024, &[4; SECTOR]).unwrap();
        durable(&sim, 1536, 5, SECTOR).unwrap();
        assert_eq!(sectors(&sim, 4), [3, 3, 4, 5], "reads see the cache");
        let after = sim.power_loss();
        let found = sectors(&after, 4);
        assert!(found[..2].iter().all(|byte| [1, 2, 3].contains(byte)), "{found:?}");
        assert!([0, 4].contains(&found[2]) && found[3] == 5, "{found:?}");
        assert_eq!(sectors(&after.power_loss(), 4), found, "what survived is durable");
        seen.insert(found);
    }
    // All 3 · 3 · 2: lost, torn, reordered (the 4 without the 3, the 3 without the 4).
    assert_eq!(seen.len(), 18, "{seen:?}");
}

#[test]
fn an_older_version_never_comes_back_over_a_durable_one() {
    for seed in 0..200 {
        let sim = sim(seed);
        sim.write_at(0, &[1; SECTOR]).unwrap();
        durable(&sim, 0, 2, SECTOR).unwrap();
        assert_eq!(sectors(&sim.power_loss(), 1), [2]);
    }
}

#[test]
fn a_device_that_lies_loses_what_it_called_durable() {
    let lost = (0..50).any(|seed| {
        let sim = Sim::new(&SimOptions::default().seed(seed).lying_flush(true));
        durable(&sim, 0, 1, SECTOR).unwrap();
        sim.flush().unwrap();
        sectors(&sim.power_loss(), 1) == [0]
    });
    assert!(lost);
}

#[test]
fn a_cut_tears_what_it_hits_and_ends_everything() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let sim = sim(seed);
        sim.cut_power(CutAt::DurableWrite, 1);
        durable(&sim, 0, 1, 2 * SECTOR).unwrap();
        sim.write_at(4096, &[9; SECTOR]).unwrap();
        assert_eq!(sim.cut_hit(), None);
        durable(&sim, 0, 2, 2 * SECTOR).unwrap_err();
        assert_eq!(sim.cut_hit(), Some(CutAt::DurableWrite));
        for refused in [sim.flush(), sim.write_at(0, &[3; SECTOR]), sim.discard(0, 512)] {
            assert!(refused.unwrap_err().to_string().contains("the power is off"));
        }
        sim.read_at(0, SECTOR).unwrap_err();
        seen.insert(sectors(&sim.power_loss(), 2));
    }
    assert_eq!(seen.len(), 4, "old, new, and torn at either place: {seen:?}");
}

#[test]
fn every_fault_ends_as_it_is_said_to() {
    for operation in [Operation::Read, Operation::Write, Operation::Flush, Operation::Discard] {
        for kind in [FaultKind::Io, FaultKind::NoSpace, FaultKind::Short, FaultKind::Corrupt] {
            let moves = matches!(operation, Operation::Read | Operation::Write);
            if !moves && matches!(kind, FaultKind::Short | FaultKind::Corrupt) {
                continue; // nothing is transferred
            }
            let sim = sim(1);
            let act = || match operation {
                Operation::Read => sim.read_at(0, 4096).map(|data| data.to_vec()),
                Operation::Write => sim.write_at(0, &[0; 4096]).map(|()| vec![]),
                Operation::Flush => sim.flush().map(|()| vec![]),
                _ => sim.discard(0, 4096).map(|()| vec![]),
            };
            sim.inject(Fault::new(kind, operation, 1));
            act().expect("the first is not hit");
            let outcome = act();
            match (kind, &outcome) {
                (FaultKind::Io, Err(Error::Io { cause, .. })) => {
                    assert_eq!(cause.raw_os_error(), Some(5));
                }
                (FaultKind::NoSpace, Err(Error::Io { cause, .. })) => {
                    assert_eq!(cause.raw_os_error(), Some(28));
                }
                (FaultKind::Short, Err(Error::Short { done, bytes: 4096, .. })) => {
                    assert!(*done < 4096);
                }
                (FaultKind::Corrupt, Ok(_)) => {
                    let data = sim.read_at(0, 4096).unwrap();
                    let wrong =
                        if operation == Operation::Read { outcome.unwrap() } else { data.to_vec() };
                    assert_eq!(wrong.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
                }
                other => panic!("{operation} {other:?}"),
            }
            act().expect("once only");
        }
    }
    let sim = sim(1);
    sim.inject(Fault::new(FaultKind::Io, Operation::Write, 0).for_good());
    assert!((0..10).all(|_| sim.write_at(0, &[0; 4096]).is_err()));
}

#[test]
fn stalled_operations_wait_and_take_place_in_any_order() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let sim = sim(seed);
        sim.inject(Fault::new(FaultKind::Stall, Operation::Write, 0).for_good());
        let write = |byte| {
            let mut buffer = sim.buffer(SECTOR);
            buffer.fill(byte);
            sim.submit(Request::write(0, buffer))
        };
        let writes = [write(1), write(2)];
        sim.flush().unwrap();
        assert_eq!(sectors(&sim, 1), [0]);
        assert!(writes.iter().all(|write| !write.is_done()));
        sim.resume();
        writes.into_iter().for_each(|write| drop(write.wait().unwrap()));
        seen.insert(sectors(&sim, 1));
        let last = write(3);
        let _after = sim.power_loss();
        assert!(matches!(last.wait(), Err(Error::Closed { .. })), "nobody waits for ever");
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn discarded_ranges_read_as_before_or_zeros_or_anything() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let sim = sim(seed);
        durable(&sim, 0, 1, SECTOR).unwrap();
        sim.discard(0, SECTOR as u64).unwrap();
        let now = sim.read_at(0, SECTOR).unwrap();
        let later = sim.power_loss().read_at(0, SECTOR).unwrap();
        let kind = |data: &[u8]| match data {
            data if data == [0; SECTOR] => "zeros",
            data if data == [1; SECTOR] => "as before",
            _ => "anything",
        };
        seen.insert((kind(&now), kind(&later)));
    }
    let wanted = [
        ("anything", "anything"),
        ("as before", "as before"),
        ("zeros", "as before"),
        ("zeros", "zeros"),
    ];
    assert_eq!(seen, BTreeSet::from(wanted));
}

#[test]
fn the_same_seed_does_the_same() {
    let run = |seed| {
        let sim = sim(seed);
        (0..64).for_each(|i| sim.write_at(i % 8 * 512, &[i as u8 + 1; 1024]).unwrap());
        sectors(&sim.power_loss(), 16)
    };
    assert_eq!(run(3), run(3));
    assert!((0..10).any(|seed| run(seed) != run(3)));
}

/// A pipeline whose flush hangs holds nobody up but those who wait for a bucket, and they go on
/// when it ends; when it ends with an error they are told.
#[test]
fn a_pipeline_on_a_stalled_device_goes_on_or_tells() {
    for fails in [false, true] {
        let sim = Sim::new(&SimOptions::default());
        format_on(&*sim, &FormatOptions::default().bucket(64 << 10)).unwrap();
        let (table, writer) = Volume::open_on(sim.clone(), Owner::Allocator).unwrap().into_start();
        let started = Allocator::start(Config::default(), vec![table]).unwrap();
        let (allocator, mut reclaimers) = started.finish();
        sim.inject(Fault::new(FaultKind::Stall, Operation::Flush, 0));
        if fails {
            sim.inject(Fault::new(FaultKind::Io, Operation::Flush, 0).for_good());
        }
        let pipeline = Pipeline::start(reclaimers.remove(0), writer).unwrap();
        let waiter = {
            let allocator = Arc::clone(&allocator);
            std::thread::spawn(move || {
                let got = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None);
                got.map(|bucket| bucket.bucket_ref().gen_().get())
            })
        };
        while allocator.stats().devices[0].waiters == 0 {
            std::thread::yield_now();
        }
        assert!(!waiter.is_finished(), "its gen is not durable");
        // The pipeline may not have come to its flush yet.
        while !waiter.is_finished() {
            sim.resume();
            std::thread::yield_now();
        }
        let got = waiter.join().unwrap();
        if fails {
            assert!(got.unwrap_err().to_string().contains("Input/output error"));
            pipeline.close().unwrap_err();
        } else {
            assert_eq!(got.unwrap(), 1);
            pipeline.close().unwrap();
        }
    }
}
