//! What users may rely on, apart from which bucket they get: which types may be sent and shared,
//! that no dependency shows, that failing devices and closing are told, that the policy can be
//! switched, and waiting without taking.

#![cfg(not(any(tierce_loom, tierce_shuttle)))]

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tierce_core::spec::Event;
use tierce_core::{DeviceIndex, Geometry, Policy, Reserve, Sizes};
use tierce_lockfree::{
    AllocFuture, Allocation, Allocator, Bell, BucketRef, Bump, Config, DeviceStats, DeviceTable,
    Error, Extent, FreeFuture, Gc, Latencies, NoWait, OpenRead, PinGuard, PrioBlock, PrioWrite,
    Read, Reclaimer, SectorRequest, Startup, Stats, Step, Unused, WaitFor, WritePoint,
};

/// Compiles, or does not.
#[test]
fn what_threads_and_tasks_share_can_be_sent_and_shared() {
    fn both<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    both::<Allocator>();
    both::<Startup>();
    both::<Reclaimer>();
    both::<PrioWrite>();
    both::<Allocation<'_>>();
    both::<Extent<'_>>();
    both::<PinGuard<'_>>();
    both::<PrioBlock<'_>>();
    both::<Read<'_>>();
    both::<OpenRead<'_>>();
    both::<Gc<'_>>();
    both::<Bell>();
    both::<Config>();
    both::<DeviceTable>();
    both::<Error>();
    both::<Stats>();
    both::<DeviceStats>();
    both::<Latencies>();
    both::<(BucketRef, Bump, Unused, SectorRequest, WritePoint, Step, WaitFor)>();
    sent::<AllocFuture<'_>>();
    sent::<FreeFuture<'_>>();
}

/// Whatever is imported from a dependency may be used inside; no public item may name it.
#[test]
fn no_public_signature_names_a_dependencys_type() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&src);
    assert!(files.len() > 20, "these are not the sources: {files:?}");
    let paths: Vec<_> = dependencies().iter().map(|name| format!("{name}::")).collect();
    assert!(paths.iter().any(|path| path == "crossbeam_utils::"), "{paths:?}");
    let mut public = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let code = code.collect::<Vec<_>>().join(" ");
        let mut foreign: Vec<&str> = paths.iter().map(String::as_str).collect();
        let imports = code.split("use ").skip(1).filter_map(|rest| rest.split(';').next());
        for import in imports.filter(|import| paths.iter().any(|path| import.starts_with(path))) {
            let names = import.split(|c: char| !c.is_alphanumeric() && c != '_');
            foreign.extend(names.filter(|name| name.starts_with(char::is_uppercase)));
        }
        for item in code.split("pub ").skip(1) {
            let signature = item.split(['{', ';', '=']).next().expect("a first piece");
            public += 1;
            let named = foreign.iter().find(|name| signature.contains(**name));
            assert!(named.is_none(), "{}: {named:?} in pub {signature}", file.display());
        }
    }
    assert!(public > 100, "only {public} public items were found");
}

fn rust_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = dirs.iter().flat_map(|dir| rust_files(dir));
    files.into_iter().chain(below).collect()
}

/// The crates that ours depends on, as code spells them; tierce-core is part of our own face.
fn dependencies() -> Vec<String> {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    let manifest = manifest.expect("the manifest");
    let sections = manifest.split("\n[").filter(|section| {
        let title = section.split(']').next().unwrap_or_default();
        title.ends_with("dependencies") && !title.contains("dev-")
    });
    let lines = sections.flat_map(|section| section.lines().skip(1));
    let names = lines.filter_map(|line| line.split(['.', ' ', '=']).next());
    let names = names.filter(|name| !name.is_empty() && !name.starts_with('#'));
    names.map(|name| name.replace('-', "_")).filter(|name| name != "tierce_core").collect()
}

const NBUCKETS: u32 = 64;

fn start(devices: usize, config: Config) -> (Arc<Allocator>, Vec<Reclaimer>) {
    let geometry = Geometry::new(NBUCKETS, 1, 128, 8).expect("a legal shape");
    let mut sizes = Sizes::tierce(&geometry, 0);
    sizes.none = 8;
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let config = config.cpus(0).sync(false);
    let started = Allocator::start(config, vec![table; devices]).expect("legal settings");
    let (allocator, mut reclaimers) = started.finish();
    for reclaimer in &mut reclaimers {
        assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Room)));
    }
    (allocator, reclaimers)
}

fn drain(allocator: &Allocator, reserve: Reserve) -> Vec<Allocation<'_>> {
    std::iter::from_fn(|| allocator.try_alloc(reserve).expect("in use")).collect()
}

fn dead(what: &str) -> tierce_lockfree::error::Cause {
    Arc::new(std::io::Error::other(what.to_owned()))
}

#[test]
fn a_device_that_fails_is_left_out_and_the_others_go_on() {
    let (allocator, mut reclaimers) = start(2, Config::default());
    let [first, second] = [0, 1].map(DeviceIndex::new);
    let on_second = |reserve| allocator.try_alloc_on(second, reserve);
    let before = on_second(Reserve::None).expect("in use").expect("a free bucket");
    // One waits for the device that fails.
    let mut held = Vec::new();
    while let Some(allocation) = on_second(Reserve::None).expect("in use") {
        held.push(allocation);
    }
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| allocator.alloc_until(second, Reserve::None, None).map(drop));
        while allocator.stats().devices[1].waiters == 0 {
            std::thread::yield_now();
        }
        allocator.fail(second, dead("a dead cell"));
        let error = waiter.join().expect("no panic").expect_err("the device has failed");
        assert_eq!(error.to_string(), "device 1 has failed: a dead cell");
    });
    allocator.fail(second, dead("something else"));
    let error = on_second(Reserve::None).map(drop).expect_err("nothing is handed out");
    assert_eq!(error.to_string(), "device 1 has failed: a dead cell", "the first cause is kept");
    assert!(matches!(reclaimers[1].step(), Step::Ended));
    assert!(matches!(reclaimers[0].step(), Step::Wait(_)));
    // Whatever was taken before can be written or dropped.
    drop(held);
    before.written();
    let from = |allocation: Allocation<'_>| allocation.bucket_ref().device();
    assert_eq!(allocator.try_alloc(Reserve::None).expect("one works").map(from), Some(first));
    let request = SectorRequest::new(8);
    let extent = allocator.alloc_sectors_until(&request, None).expect("one works");
    assert_eq!(extent.bucket_ref().device(), first);
    let copies = allocator.try_alloc_set(Reserve::None, 2).map(drop);
    assert!(matches!(copies, Err(Error::TooFewDevices { working: 1, wanted: 2 })), "{copies:?}");
    allocator.fail(first, dead("the last"));
    let error = allocator.try_alloc(Reserve::None).map(drop).expect_err("none works");
    assert!(matches!(error, Error::DeviceFailed { .. }), "{error}");
}

/// Buckets in the order in which the next passes take them.
fn victims(allocator: &Allocator, reclaimer: &mut Reclaimer) -> Vec<u32> {
    reclaimer.take_events();
    let mut taken = Vec::new();
    for _ in 0..3 {
        // Emptied lists make room for what the pass finds.
        drain(allocator, Reserve::None).into_iter().for_each(Allocation::written);
        assert!(matches!(reclaimer.step(), Step::Wait(_)));
        let number = |event| match event {
            Event::Invalidated { bucket, .. } => Some(bucket.bucket().get()),
            _ => None,
        };
        taken.extend(reclaimer.take_events().into_iter().filter_map(number));
    }
    taken
}

#[test]
fn the_policy_can_be_switched_at_run_time() {
    let (allocator, mut reclaimers) = start(1, Config::default().policy(Policy::Fifo));
    let reclaimer = &mut reclaimers[0];
    reclaimer.record_events();
    let ascending = |taken: &[u32]| taken.is_sorted() && !taken.is_empty();
    let in_turn = victims(&allocator, reclaimer);
    assert!(ascending(&in_turn), "the cursor goes up: {in_turn:?}");
    allocator.set_policy(Policy::Random);
    assert_eq!(allocator.policy(), Policy::Random);
    // What is ready was chosen before.
    victims(&allocator, reclaimer);
    let drawn = victims(&allocator, reclaimer);
    assert!(!ascending(&drawn), "draws in order are as likely as one in thousands: {drawn:?}");
    allocator.set_policy(Policy::Fifo);
    victims(&allocator, reclaimer);
    let again = victims(&allocator, reclaimer);
    let steps = again.windows(2).filter(|two| two[1] < two[0]).count();
    assert!(steps <= 1, "the cursor goes up and wraps at most once: {again:?}");
}

#[test]
fn clones_of_a_pin_hold_on_their_own() {
    let (allocator, _reclaimers) = start(1, Config::default());
    let allocation = allocator.try_alloc(Reserve::None).expect("in use").expect("free");
    let pointer = allocation.bucket_ref();
    allocation.written();
    let pins = || allocator.snapshot(pointer.id()).expect("a bucket").pin_count();
    let pin = allocator.pin(pointer).expect("not stale");
    let clones: Vec<_> = std::iter::from_fn(|| pin.clone_pin()).collect();
    assert_eq!((pins(), clones.len()), (0xC000, 0xBFFF), "up to the limit");
    assert!(allocator.pin(pointer).is_none() && pin.clone_pin().is_none());
    drop(pin);
    assert_eq!(clones[0].bucket_ref(), pointer);
    assert_eq!(pins(), 0xBFFF);
    drop(clones);
    assert_eq!(pins(), 0);
}

#[test]
fn who_watches_takes_nothing_and_wakes_when_there_is_enough() {
    let (allocator, _reclaimers) = start(2, Config::default());
    let mut all = drain(&allocator, Reserve::None);
    let wait = |n| allocator.wait_for_until(Reserve::None, n, None);
    std::thread::scope(|scope| {
        let three = scope.spawn(move || wait(3));
        while allocator.stats().watchers < 1 {
            std::thread::yield_now();
        }
        let one = scope.spawn(move || wait(1));
        while allocator.stats().watchers < 2 {
            std::thread::yield_now();
        }
        drop(all.pop());
        drop(all.pop());
        assert_eq!(allocator.stats().watchers, 2, "one of three, the other behind it");
        drop(all.pop());
        three.join().expect("no panic").expect("three are free");
        one.join().expect("no panic").expect("the one who is done wakes the next");
    });
    assert_eq!(drain(&allocator, Reserve::None).len(), 3, "nothing was taken");
    assert_eq!(allocator.stats().watchers, 0);
}

#[test]
fn who_watches_in_vain_is_told() {
    let (allocator, _reclaimers) = start(2, Config::default());
    let all = drain(&allocator, Reserve::None);
    let wait = |n, deadline| allocator.wait_for_until(Reserve::None, n, deadline);
    assert!(matches!(wait(0, None), Ok(())));
    assert!(matches!(wait(1, Some(Instant::now())), Err(Error::TimedOut)));
    let error = wait(17, None).expect_err("8 on each device");
    assert!(error.to_string().contains("at most 16"), "{error}");
    std::thread::scope(|scope| {
        // 16 are more than one device holds.
        let many = scope.spawn(|| wait(16, None));
        let closed = scope.spawn(|| wait(1, None));
        while allocator.stats().watchers < 2 {
            std::thread::yield_now();
        }
        allocator.fail(DeviceIndex::FIRST, dead("a dead cell"));
        assert!(matches!(many.join().expect("no panic"), Err(Error::Config(_))));
        allocator.close();
        assert!(matches!(closed.join().expect("no panic"), Err(Error::Closed)));
    });
    drop(all);
    assert!(wait(1, None).is_err());
}

/// Whether or not there is something free.
#[test]
#[cfg(debug_assertions)]
fn a_thread_that_may_not_wait_is_caught() {
    let (allocator, _reclaimers) = start(2, Config::default());
    let held = NoWait::new("the lock of a node");
    let waits: [&dyn Fn(); 5] = [
        &|| drop(allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None)),
        &|| drop(allocator.alloc_set_until(Reserve::None, 2, None)),
        &|| drop(allocator.alloc_sectors_until(&SectorRequest::new(8), None)),
        &|| drop(allocator.wait_for_until(Reserve::None, 1, None)),
        &|| drop(allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, Some(Instant::now()))),
    ];
    for wait in waits {
        let panic = std::panic::catch_unwind(AssertUnwindSafe(wait)).expect_err("it holds a lock");
        let text = panic.downcast_ref::<String>().expect("a text");
        assert_eq!(text, "waiting for a bucket while holding the lock of a node");
    }
    assert!(allocator.try_alloc(Reserve::None).expect("in use").is_some(), "that may be done");
    drop(held);
    assert!(allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None).is_ok());
}

#[test]
fn waits_are_timed() {
    let (allocator, _reclaimers) = start(1, Config::default());
    let all = drain(&allocator, Reserve::None);
    let late = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, Some(Instant::now()));
    assert!(matches!(late, Err(Error::TimedOut)));
    let waits = allocator.stats().devices[0].alloc_wait;
    assert_eq!(waits.count(), 1);
    assert!(waits.quantile(1.0).is_some_and(|longest| longest >= waits.total()));
    drop(all);
}
