//! The pipeline under a real allocator.
//!
//! Checked:
//! 1. The crash rule: whenever a bucket is handed out, what a power loss would leave on the
//!    device at that instant has its gen.
//! 2. A device that fails, at any write or flush, wakes everybody who waits, with the cause.
//! 3. Closing ends the thread; what was durable is found again.
//! 4. Discards come before a bucket is free; a device that does none does not stop anything.

mod common;

use common::recorder::Recorder;
use common::{dir, file};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tierce_core::{DeviceIndex, Gen, Reserve};
use tierce_io::{
    DeviceExt, Error, FormatOptions, OpenOptions, Operation, Owner, Pipeline, Volume, format_on,
    recover,
};
use tierce_lockfree::{Allocator, Config};

const NBUCKETS: u32 = 1500;
const BUCKET: u32 = 4096;

fn formatted() -> Vec<u8> {
    let device = Recorder::new(vec![0; (NBUCKETS * BUCKET) as usize]);
    let options = FormatOptions { bucket: BUCKET, block: 512, ..FormatOptions::default() };
    format_on(&*device, &options).expect("formats");
    std::mem::take(&mut device.state().image)
}

fn start(volume: Volume, config: Config) -> (Arc<Allocator>, Pipeline) {
    let (table, writer) = volume.into_start();
    let startup = Allocator::start(config, vec![table]).expect("a valid table");
    let (allocator, mut reclaimers) = startup.finish();
    let reclaimer = reclaimers.pop().expect("one per device");
    (allocator, Pipeline::start(reclaimer, writer).expect("a thread"))
}

/// Collects garbage whenever it is due, finding nothing alive, until the allocator is closed.
fn collect(allocator: &Allocator) {
    while allocator.wait_gc_due(None) {
        allocator.begin_gc().expect("the only collector").finish();
    }
}

#[test]
fn what_is_handed_out_has_a_durable_gen() {
    let device = Recorder::new(formatted());
    let volume = Volume::open_on(device.clone(), Owner::Allocator).unwrap();
    let (allocator, pipeline) = start(volume, Config::default());
    std::thread::scope(|scope| {
        scope.spawn(|| collect(&allocator));
        let (mut highest, mut checked) = (0, 0);
        // Every bucket is reused more than twice.
        for round in 0..4000u32 {
            let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None).unwrap();
            let pointer = bucket.bucket_ref();
            if round % 16 == 0 {
                let survivor = Recorder::new(device.state().durable.clone());
                let table = recover(&*survivor).unwrap().table;
                let durable = table[pointer.bucket().as_usize()].1;
                assert_eq!(durable, pointer.gen_(), "round {round}: {pointer:?}");
                checked += 1;
            }
            highest = highest.max(pointer.gen_().get());
            bucket.written();
        }
        assert!(highest >= 3 && checked == 250, "gens up to {highest}");
        assert!(pipeline.stats().prio_write_total >= 20, "{:?}", pipeline.stats());
        pipeline.close().unwrap();
    });
}

#[test]
fn a_failing_device_wakes_everybody_with_the_cause() {
    for operation in [Operation::Write, Operation::Flush] {
        for nth in [0, 1, 2, 7] {
            let device = Recorder::new(formatted());
            let volume = Volume::open_on(device.clone(), Owner::Allocator).unwrap();
            device.state().fail = Some((operation, nth));
            let (allocator, pipeline) = start(volume, Config::default());
            std::thread::scope(|scope| {
                scope.spawn(|| collect(&allocator));
                for _ in 0..3 {
                    scope.spawn(|| {
                        loop {
                            let device = DeviceIndex::FIRST;
                            match allocator.alloc_until(device, Reserve::None, None) {
                                Ok(bucket) => bucket.written(),
                                Err(error) => {
                                    let error = error.to_string();
                                    assert!(error.contains("Input/output error"), "{error}");
                                    return;
                                }
                            }
                        }
                    });
                }
            });
            let error = pipeline.close().unwrap_err();
            let Error::Failed { cause, .. } = error else { panic!("{error}") };
            assert!(matches!(*cause, Error::Failed { .. } | Error::Io { .. }), "{cause}");
            // What is on the device is a whole state, and it can be opened again.
            let image = device.state().image.clone();
            Volume::open_on(Recorder::new(image), Owner::Allocator).unwrap();
        }
    }
}

#[test]
fn closing_ends_the_thread_and_waiters_and_keeps_the_table() {
    let dir = dir();
    let path = dir.path().join("cache");
    let options =
        FormatOptions { size: Some(64 << 20), bucket: 64 << 10, ..FormatOptions::default() };
    tierce_io::format(&path, &options).unwrap();
    let mut before: Vec<Gen> = vec![Gen::new(0); 1024];
    for _ in 0..3 {
        let volume = Volume::open(&path, &OpenOptions::default()).unwrap();
        for (bucket, (&(_, now), &before)) in volume.table().iter().zip(&before).enumerate() {
            assert!(now == before || now.is_after(before), "{bucket}: {before} became {now}");
        }
        let (allocator, pipeline) = start(volume, Config::default());
        // One thread takes all there are, and then waits; closing tells it.
        let taken = AtomicUsize::new(0);
        let held = std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let mut held = vec![];
                loop {
                    match allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None) {
                        Ok(bucket) => held.push(bucket),
                        Err(error) => return (held, error.to_string()),
                    }
                    // Relaxed: only counted.
                    taken.store(held.len(), Ordering::Relaxed);
                }
            });
            // Relaxed: only counted.
            while taken.load(Ordering::Relaxed) < 500 {
                std::thread::yield_now();
            }
            pipeline.close().unwrap();
            let (held, told) = taker.join().unwrap();
            assert_eq!(told, "the allocator is closed");
            held
        });
        for pointer in held.iter().map(|bucket| bucket.bucket_ref()) {
            before[pointer.bucket().as_usize()] = pointer.gen_();
        }
    }
}

#[test]
fn discards_go_before_reuse_and_their_absence_stops_nothing() {
    let config = Config { discard: true, ..Config::default() };
    let dir = dir();
    let path = file(&dir, "cache", 64 << 20);
    let options = FormatOptions { bucket: 64 << 10, ..FormatOptions::default() };
    tierce_io::format(&path, &options).unwrap();
    let volume = Volume::open(&path, &OpenOptions::default()).unwrap();
    let device = volume.device().clone();
    // Every data bucket holds something.
    let first = u64::from(volume.geometry().first_bucket().get() + 8);
    for bucket in first..1024 {
        device.write_at(bucket << 16, &[0xaa; 4096]).unwrap();
    }
    let (allocator, pipeline) = start(volume, config.clone());
    for _ in 0..100 {
        let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None).unwrap();
        let offset = u64::from(bucket.bucket_ref().bucket().get()) << 16;
        assert!(device.read_at(offset, 4096).unwrap().iter().all(|&byte| byte == 0));
        bucket.written();
    }
    let stats = pipeline.stats();
    assert!(stats.discard_total >= 100 && stats.discard_errors_total == 0, "{stats:?}");
    pipeline.close().unwrap();

    let volume = Volume::open_on(Recorder::new(formatted()), Owner::Allocator).unwrap();
    let (allocator, pipeline) = start(volume, config);
    for _ in 0..100 {
        let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None).unwrap();
        bucket.written();
    }
    let stats = pipeline.stats();
    assert!(stats.discard_errors_total >= 100 && stats.discard_total == 0, "{stats:?}");
}
