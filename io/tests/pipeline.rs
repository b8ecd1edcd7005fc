//! The pipeline under a real allocator.
//!
//! Checked:
//! 1. The crash rule: whenever a bucket is handed out, what a power loss would leave on the
//!    device at that instant has its gen.
//! 2. A device that fails, at any write or flush, wakes everybody who waits, with the cause.
//! 3. Closing ends the thread; what was durable is found again.
//! 4. Discards come before a bucket is free, but nobody waits for them; a device that does none,
//!    or hangs, does not stop anything.
//! 5. A waker that drops the pipeline on the pipeline's own thread does not wait for itself.

mod common;

use common::recorder::Recorder;
use common::{dir, file};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use tierce_core::{BucketIndex, DeviceIndex, Gen, Prio, Reserve};
use tierce_io::{
    DeviceExt, DiscardPace, Error, Fault, FaultKind, FormatOptions, OpenOptions, Operation, Owner,
    Pipeline, Sim, SimOptions, Volume, Work, format_on, recover,
};
use tierce_lockfree::{Allocator, Config};

const NBUCKETS: u32 = 1500;
const BUCKET: u32 = 4096;

fn formatted() -> Vec<u8> {
    let device = Recorder::new(vec![0; (NBUCKETS * BUCKET) as usize]);
    let options = FormatOptions::default().bucket(BUCKET).block(512);
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
                let table = recover(survivor.clone()).unwrap().table;
                let durable = table.get(pointer.bucket()).expect("a bucket").1;
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
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(&path, &options).unwrap();
    let mut before: Vec<Gen> = vec![Gen::new(0); 1024];
    for _ in 0..3 {
        let volume = Volume::open(&path, &OpenOptions::default()).unwrap();
        for (bucket, ((_, now), &before)) in volume.table().iter().zip(&before).enumerate() {
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

/// A volume on a file of 64 MiB in which every data bucket holds something.
fn full_volume(dir: &tempfile::TempDir) -> Volume {
    let path = file(dir, "cache", 64 << 20);
    let options = FormatOptions::default().bucket(64 << 10);
    tierce_io::format(&path, &options).expect("works");
    let volume = Volume::open(&path, &OpenOptions::default()).expect("works");
    let device = volume.device();
    let first = u64::from(volume.geometry().first_bucket().get() + 8);
    for bucket in first..1024 {
        device.write_at(bucket << 16, &[0xaa; 4096]).expect("works");
    }
    volume
}

/// Waits until the pipeline has done what it can do ahead.
fn settle(pipeline: &Pipeline) -> tierce_io::PipelineStats {
    let mut before = pipeline.stats();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = pipeline.stats();
        if now == before && now.discards_under_way == 0 {
            return now;
        }
        before = now;
    }
}

#[test]
fn discards_go_before_reuse_unless_space_is_short() {
    let config = Config::default().discard(true);
    let dir = dir();
    let volume = full_volume(&dir);
    let device = volume.device().clone();
    let (allocator, pipeline) = start(volume, config);
    // Without a time: it ends if the lists are filled at all.
    while pipeline.stats().discard_total < 64 {
        std::thread::yield_now();
    }
    let stats = settle(&pipeline);
    assert_eq!(stats.discard_errors_total, 0, "{stats:?}");
    assert_eq!(stats.discard_skipped_total, 0, "nobody asked for anything");
    // What lies on the lists was discarded.
    let (none, mut taken) = (allocator.stats().devices[0].free_of(Reserve::None), 0);
    while taken < none {
        let bucket = allocator.try_alloc(Reserve::None).unwrap().expect("it was counted");
        let offset = u64::from(bucket.bucket_ref().bucket().get()) << 16;
        assert!(device.read_at(offset, 4096).unwrap().iter().all(|&byte| byte == 0));
        bucket.written();
        taken += 1;
    }
    pipeline.close().unwrap();
}

/// A pace of next to nothing: whoever needs buckets gets them undiscarded, and is told how many.
#[test]
fn nobody_waits_for_slow_discards() {
    let dir = dir();
    let (table, writer) = full_volume(&dir).into_start();
    let config = Config::default().discard(true);
    let (allocator, mut reclaimers) = Allocator::start(config, vec![table]).unwrap().finish();
    let pace = DiscardPace::unbounded(1).per_second(Some(1));
    let work = Work::new(reclaimers.remove(0), writer).pace(pace);
    let pipeline = Pipeline::start_work(work).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| collect(&allocator));
        for _ in 0..2000 {
            let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None).unwrap();
            bucket.written();
        }
        let stats = pipeline.stats();
        assert!(stats.discard_skipped_total >= 1000, "{stats:?}");
        pipeline.close().unwrap();
    });
}

/// A discard that hangs keeps its own bucket, and nothing else.
#[test]
fn a_discard_that_hangs_stops_nobody() {
    let device = Sim::new(&SimOptions::default().bytes(1024 << 16));
    let options = FormatOptions::default().bucket(64 << 10);
    format_on(&*device, &options).unwrap();
    let volume = Volume::open_on(device.clone(), Owner::Allocator).unwrap();
    device.inject(Fault::new(FaultKind::Stall, Operation::Discard, 10).for_good());
    let (allocator, pipeline) = start(volume, Config::default().discard(true));
    std::thread::scope(|scope| {
        scope.spawn(|| collect(&allocator));
        for _ in 0..4000 {
            let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None).unwrap();
            bucket.written();
        }
        let stats = pipeline.stats();
        let depth = u64::from(DiscardPace::default().depth);
        assert_eq!((stats.discard_total, stats.discards_under_way), (10, depth), "{stats:?}");
        // One after the other they end, and the buckets are free again.
        device.resume();
        while pipeline.stats().discard_total < 10 + depth {
            std::thread::yield_now();
        }
        pipeline.close().unwrap();
    });
    // Those that were stalled later.
    device.resume();
}

#[test]
fn a_device_without_discards_stops_nothing() {
    let config = Config::default().discard(true);
    let volume = Volume::open_on(Recorder::new(formatted()), Owner::Allocator).unwrap();
    let (allocator, pipeline) = start(volume, config);
    let stats = settle(&pipeline);
    assert!(stats.discard_errors_total >= 64 && stats.discard_total == 0, "{stats:?}");
    for _ in 0..100 {
        let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None).unwrap();
        bucket.written();
    }
    pipeline.close().unwrap();
}

/// They hold tables of all buckets, which nobody wants to see in a log.
#[test]
fn debug_output_is_short() {
    let short = |debug: &dyn std::fmt::Debug| {
        let shown = format!("{debug:?}");
        assert!(shown.len() < 700, "{} bytes: {shown}", shown.len());
    };
    let volume = Volume::open_on(Recorder::new(formatted()), Owner::Allocator).unwrap();
    short(&volume);
    let (table, writer) = volume.into_start();
    short(&writer);
    let startup = Allocator::start(Config::default(), vec![table]).unwrap();
    let (allocator, mut reclaimers) = startup.finish();
    short(&allocator);
    let reclaimer = reclaimers.remove(0);
    short(&reclaimer);
    let work = Work::new(reclaimer, writer);
    short(&work);
    short(&Pipeline::start_work(work).unwrap());
}

/// Drops a pipeline when it is woken, and says on which thread.
struct Last(Mutex<(Option<Pipeline>, Sender<String>)>);

impl Wake for Last {
    fn wake(self: Arc<Self>) {
        let mut last = self.0.lock().expect("no panic under it");
        drop(last.0.take());
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        last.1.send(thread).expect("the test waits for it");
    }
}

#[test]
fn the_last_handle_may_be_dropped_on_the_own_thread() {
    let device = Sim::new(&SimOptions::default().bytes(1024 << 16));
    format_on(&*device, &FormatOptions::default().bucket(64 << 10)).unwrap();
    let volume = Volume::open_on(device.clone(), Owner::Allocator).unwrap();
    // Nothing is free before the first table of gens is durable.
    device.inject(Fault::new(FaultKind::Stall, Operation::Flush, 0).for_good());
    let (allocator, pipeline) = start(volume, Config::default());
    let (dropped, told) = channel();
    let waker = Waker::from(Arc::new(Last(Mutex::new((Some(pipeline), dropped)))));
    let mut waits = Box::pin(allocator.alloc_any(Reserve::None));
    let context = &mut Context::from_waker(&waker);
    assert!(waits.as_mut().poll(context).is_pending(), "nothing is free");
    while device.stalled() == 0 {
        std::thread::yield_now();
    }
    device.clear_faults();
    device.resume();
    let thread = told.recv_timeout(Duration::from_secs(60)).expect("the waker came back");
    assert_eq!(thread, "tierce-reclaim");
    // The thread ends, and with it the last user of the device but us.
    drop(waits);
    while Arc::strong_count(&device) > 1 {
        std::thread::yield_now();
    }
}

/// 776 sets: encoded by several threads, each with a ring of its own where there are rings, read
/// in windows and taken apart by several threads.
#[test]
fn a_long_chain_is_written_by_several_threads_and_read_ahead() {
    const LONG: u32 = 1 << 20;
    let record = |bucket: u32| (Prio::new((bucket % 32749) as u16), Gen::new((bucket / 7) as u8));
    let options = FormatOptions::default().bucket(BUCKET).block(4096);
    let dir = dir();
    for (number, engine) in common::engines().into_iter().enumerate() {
        let path = file(&dir, &format!("long-{number}"), u64::from(LONG) * u64::from(BUCKET));
        tierce_io::format(&path, &options).expect("formats");
        let device = tierce_io::DeviceOptions::default().engine(engine);
        let open = OpenOptions::default().device(device);
        // Side by side downwards and upwards, and all over the device.
        for (from, step) in [(9000, -1i64), (10_000, 1), (20_000, 611)] {
            let (_, mut writer) = Volume::open(&path, &open).expect("opens").into_start();
            let geometry = *writer.superblock().geometry();
            let sets = 0..geometry.prio_buckets();
            let bucket = |set: u32| BucketIndex::new((from + i64::from(set) * step) as u32);
            let chain: Vec<_> = sets.clone().map(bucket).collect();
            let per_set = geometry.prios_per_bucket();
            let records = |set: u32| (set * per_set..((set + 1) * per_set).min(LONG)).map(record);
            writer.publish(&chain, sets.map(records).collect()).expect("publishes");
            drop(writer);
            let volume = Volume::open(&path, &open).expect("opens");
            assert_eq!((chain.len(), volume.prio_chain()), (776, &chain[..]));
            assert!(volume.table().iter().eq((0..LONG).map(record)));
        }
    }
    // An error of one thread stops all, and is told.
    let sim = Sim::new(&SimOptions::default().bytes(256 << 20));
    format_on(&*sim, &options).expect("formats");
    let (_, mut writer) = Volume::open_on(sim.clone(), Owner::Allocator).unwrap().into_start();
    let sets = || (0..49).map(|_| (0..7).map(record)).collect();
    let chain: Vec<_> = (8000..8049).map(BucketIndex::new).collect();
    let before = sim.operations();
    writer.publish(&chain, sets()).expect("publishes");
    assert!(sim.operations() - before < 2 + 49 / 2 + 2, "neighbours are written together");
    sim.inject(Fault::new(FaultKind::Io, Operation::Write, 5));
    let before = sim.operations();
    let chain: Vec<_> = (9000..9049).map(BucketIndex::new).collect();
    let failed = writer.publish(&chain, sets());
    assert!(matches!(failed, Err(Error::Failed { .. })), "{failed:?}");
    assert!(sim.operations() - before < 10, "no set is written in vain");
}
