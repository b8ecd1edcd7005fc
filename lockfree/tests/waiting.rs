//! Waiting for buckets of which there are fewer than threads, and nothing makes new ones: what
//! one thread gives back is all that another can get.
//!
//! Checked: no wake-up is lost (else a test never ends: nothing polls, nothing has a deadline),
//! a bucket has one owner at a time, a dropped future passes its bucket on, and everybody who
//! waits is told when the allocator is closed or the device fails.

#![cfg(not(any(tierce_loom, tierce_shuttle)))]

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;
use tierce_core::{DeviceIndex, Geometry, Reserve, Sizes};
use tierce_lockfree::{
    AllocFuture, Allocation, Allocator, BucketRef, Config, DeviceTable, Error, OwnedAllocation,
    Reclaimer, SectorRequest, Step, Unused, WaitFor,
};

const NBUCKETS: u32 = 64;
const DEVICE: DeviceIndex = DeviceIndex::FIRST;

/// An allocator whose free lists are full; nothing has to become durable.
fn start(cpus: u32) -> (Arc<Allocator>, Reclaimer) {
    let geometry = Geometry::new(NBUCKETS, 1, 128, 8).expect("a legal shape");
    let mut sizes = Sizes::tierce(&geometry, 0);
    sizes.none = 16;
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let config = Config::default().cpus(cpus).sync(false);
    let (allocator, mut reclaimers) =
        Allocator::start(config, vec![table]).expect("legal settings").finish();
    let mut reclaimer = reclaimers.remove(0);
    assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Room)));
    (allocator, reclaimer)
}

/// Everything that is free; the last are those of `none`, which serve everybody.
fn drain(allocator: &Allocator) -> Vec<Allocation<'_>> {
    let next = || {
        let take = |reserve| allocator.try_alloc(reserve).expect("in use");
        Reserve::ALL.into_iter().find_map(take)
    };
    let mut all: Vec<_> = std::iter::from_fn(next).collect();
    all.reverse();
    all
}

/// Counts how often it was woken.
#[derive(Default)]
struct Bells(AtomicU32);

impl Wake for Bells {
    fn wake(self: Arc<Self>) {
        // Relaxed: one thread looks at it.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<'a>(future: &mut AllocFuture<'a>, bells: &Arc<Bells>) -> Poll<Result<BucketRef, Error>> {
    let waker = Waker::from(Arc::clone(bells));
    let polled = pin!(future).poll(&mut Context::from_waker(&waker));
    polled.map_ok(|allocation| {
        let pointer = allocation.bucket_ref();
        allocation.written();
        pointer
    })
}

/// Unparks a thread.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Threads that wait in all ways for `supply` buckets.
fn share(cpus: u32, supply: usize, threads: usize, rounds: u32) {
    let (allocator, _reclaimer) = start(cpus);
    let mut all = drain(&allocator); // held to the end, but for the supply
    let owners: Vec<AtomicU32> = (0..NBUCKETS).map(|_| AtomicU32::new(0)).collect();
    let use_it = |me: u32, allocation: Allocation<'_>| {
        let owner = &owners[allocation.bucket_ref().bucket().as_usize()];
        // Relaxed (both): the lists order it.
        assert_eq!(owner.swap(me, Ordering::Relaxed), 0, "two owners of {allocation:?}");
        std::thread::yield_now();
        assert_eq!(owner.swap(0, Ordering::Relaxed), me, "two owners of {allocation:?}");
        drop(allocation);
    };
    let work = |me: u32| {
        for round in 0..rounds {
            let reserve = Reserve::ALL[(round + me) as usize % Reserve::COUNT];
            let allocation = match (round / 3 + me) % 4 {
                0 | 1 => allocator.alloc_until(DEVICE, reserve, None),
                2 => block_on(allocator.alloc_on(DEVICE, reserve)),
                _ => {
                    let mut given_up = allocator.alloc_on(DEVICE, reserve);
                    if let Poll::Ready(got) = poll_raw(&mut given_up) {
                        got
                    } else {
                        drop(given_up); // maybe a bucket was handed to it just now
                        match allocator.alloc_until(DEVICE, reserve, Some(Instant::now())) {
                            Err(Error::TimedOut) => continue,
                            decided => decided,
                        }
                    }
                }
            };
            use_it(me, allocation.expect("in use"));
        }
    };
    std::thread::scope(|scope| {
        for me in 1..=threads as u32 {
            let work = &work;
            scope.spawn(move || work(me));
        }
        // Nothing is free, so somebody comes to wait; only then there is something to share.
        while allocator.stats().devices[0].waiters == 0 {
            std::thread::yield_now();
        }
        (0..supply).for_each(|_| drop(all.pop()));
    });
    let stats = &allocator.stats().devices[0];
    assert_eq!(stats.free.iter().sum::<u64>() + stats.set_aside, supply as u64, "{stats:?}");
    assert_eq!(stats.waiters, 0);
    assert!(stats.alloc_wait_total > 0, "nobody had to wait");
}

fn poll_raw<'a>(future: &mut AllocFuture<'a>) -> Poll<Result<Allocation<'a>, Error>> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn no_wake_up_is_lost_among_few_buckets_and_cells() {
    share(2, 3, 8, 2000);
}

#[test]
fn no_wake_up_is_lost_over_one_bucket_without_cells() {
    share(0, 1, 6, 1000);
}

#[test]
fn a_dropped_future_passes_its_bucket_on() {
    let (allocator, _reclaimer) = start(2);
    let mut all = drain(&allocator);
    let (first_bells, second_bells) = (Arc::<Bells>::default(), Arc::<Bells>::default());
    let mut first = allocator.alloc_on(DEVICE, Reserve::None);
    let mut second = allocator.alloc_on(DEVICE, Reserve::None);
    assert!(poll(&mut first, &first_bells).is_pending());
    assert!(poll(&mut second, &second_bells).is_pending());
    let given_back = all.pop().expect("a bucket");
    let pointer = given_back.bucket_ref();
    drop(given_back);
    // Relaxed (all): one thread.
    assert_eq!(first_bells.0.load(Ordering::Relaxed), 1, "the first in line is woken");
    assert_eq!(second_bells.0.load(Ordering::Relaxed), 0, "one bucket wakes one waiter");
    assert!(allocator.try_alloc(Reserve::None).expect("in use").is_none(), "it is handed over");
    drop(first);
    assert_eq!(second_bells.0.load(Ordering::Relaxed), 1, "the bucket goes to the next");
    assert_eq!(poll(&mut second, &second_bells).map(Result::ok), Poll::Ready(Some(pointer)));
}

#[test]
fn a_dropped_future_leaves_the_line() {
    let (allocator, _reclaimer) = start(2);
    let mut all = drain(&allocator);
    let mut waiting = allocator.alloc_on(DEVICE, Reserve::None);
    assert!(poll(&mut waiting, &Arc::default()).is_pending());
    assert_eq!(allocator.stats().devices[0].waiters, 1);
    drop(waiting);
    assert_eq!(allocator.stats().devices[0].waiters, 0);
    all.pop();
    assert!(allocator.try_alloc(Reserve::None).expect("in use").is_some(), "it is for anybody");
}

/// Threads and a future wait for ever; `end` ends that.
fn everybody_is_told(end: impl FnOnce(&Allocator), right: impl Fn(&Error) -> bool + Sync) {
    let (allocator, mut reclaimer) = start(2);
    let all = drain(&allocator);
    let bells = Arc::<Bells>::default();
    let mut future = allocator.alloc_on(DEVICE, Reserve::Btree);
    assert!(poll(&mut future, &bells).is_pending());
    std::thread::scope(|scope| {
        for reserve in Reserve::ALL {
            let (allocator, right) = (&allocator, &right);
            scope.spawn(move || {
                let error = allocator.alloc_until(DEVICE, reserve, None).expect_err("it ended");
                assert!(right(&error), "{error}");
            });
        }
        scope.spawn(|| assert!(!allocator.wait_gc_due(None), "no collection is due"));
        end(&allocator);
    });
    // Relaxed: the threads have ended.
    assert_eq!(bells.0.load(Ordering::Relaxed), 1, "the future is woken");
    let told = |result: Result<(), Error>| result.is_err_and(|error| right(&error));
    let Poll::Ready(result) = poll(&mut future, &bells) else { panic!("the future waits on") };
    assert!(told(result.map(drop)));
    drop(all);
    for reserve in Reserve::ALL {
        assert!(told(allocator.try_alloc(reserve).map(drop)), "nothing is handed out any more");
    }
    assert!(matches!(reclaimer.step(), Step::Ended));
}

#[test]
fn closing_tells_everybody() {
    everybody_is_told(Allocator::close, |error| matches!(error, Error::Closed));
}

#[test]
fn failing_tells_everybody_the_cause() {
    let end = |allocator: &Allocator| {
        allocator.fail(DEVICE, Arc::new(std::io::Error::other("a dead cell")));
        allocator.close(); // the first end is kept
    };
    everybody_is_told(end, |error| error.to_string() == "device 0 has failed: a dead cell");
}

const WAITERS: usize = 32;
/// Who comes when somebody is getting in line may not see him yet, once each.
const OVERTAKES: u64 = 4;

/// So many in line, everything being held.
fn line_up(allocator: &Allocator, waiters: usize) -> Vec<AllocFuture<'_>> {
    let mut line: Vec<_> =
        (0..waiters).map(|_| allocator.alloc_on(DEVICE, Reserve::None)).collect();
    for waiter in &mut line {
        assert!(poll_raw(waiter).is_pending(), "everything is held");
    }
    line
}

/// One who comes later: takes what he gets without waiting, counts it, and does `then` with it.
fn take_until<'a>(
    stop: &AtomicBool,
    allocator: &'a Allocator,
    overtakes: &AtomicU64,
    then: impl Fn(Allocation<'a>),
) {
    // Relaxed (all): counts and a request, nothing is published with them.
    while !stop.load(Ordering::Relaxed) {
        if let Some(bucket) = allocator.try_alloc(Reserve::None).expect("in use") {
            overtakes.fetch_add(1, Ordering::Relaxed);
            then(bucket);
        }
    }
}

/// The same of batches that are more than the lists hold: what one of those who come later takes
/// from stock to the lists goes to those in line as well.
#[test]
fn batches_go_to_who_waits_first() {
    let (allocator, mut reclaimer) = start(2);
    for _ in 0..20 {
        let all = drain(&allocator);
        // Behind those who are looked at there is always somebody.
        let mut line = line_up(&allocator, 2 * WAITERS);
        let (overtakes, newcomers) = (AtomicU64::new(0), Barrier::new(3));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    newcomers.wait();
                    take_until(&stop, &allocator, &overtakes, Allocation::written);
                });
            }
            newcomers.wait();
            for (place, waiter) in line.iter_mut().take(WAITERS).enumerate() {
                let got = loop {
                    if let Poll::Ready(got) = poll_raw(waiter) {
                        break got.expect("in use");
                    }
                    match reclaimer.step() {
                        Step::Wait(WaitFor::Gc) => allocator.begin_gc().expect("no other").finish(),
                        step => assert!(matches!(step, Step::Wait(_)), "{step:?}"),
                    }
                };
                let overtaken = overtakes.load(Ordering::Relaxed);
                got.written();
                assert!(overtaken <= OVERTAKES, "number {place} was overtaken {overtaken} times");
            }
            stop.store(true, Ordering::Relaxed);
        });
        drop((line, all));
    }
}

/// P16: 32 wait, others try all the time without waiting, and one bucket goes round. Who waits is
/// served in the order of arrival, and nobody who comes later gets a bucket before.
#[test]
fn nobody_who_waits_is_overtaken() {
    let (allocator, _reclaimer) = start(2);
    let mut all = drain(&allocator);
    for _ in 0..20 {
        let mut line = line_up(&allocator, WAITERS);
        // How many allocations of those who came later succeeded.
        let (overtakes, newcomers) = (AtomicU64::new(0), Barrier::new(3));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    newcomers.wait();
                    take_until(&stop, &allocator, &overtakes, drop);
                });
            }
            newcomers.wait();
            let mut next = all.pop();
            for (place, waiter) in line.iter_mut().enumerate() {
                drop(next.take());
                next = loop {
                    if let Poll::Ready(got) = poll_raw(waiter) {
                        break Some(got.expect("in use"));
                    }
                    std::thread::yield_now(); // a newcomer has it in hand and gives way
                };
                let overtaken = overtakes.load(Ordering::Relaxed);
                assert!(overtaken <= OVERTAKES, "number {place} was overtaken {overtaken} times");
            }
            stop.store(true, Ordering::Relaxed);
            all.extend(next);
        });
        assert_eq!(allocator.stats().devices[0].waiters, 0);
    }
}

/// The last waker of a task takes the task with it, and what that holds may be what is waited for.
#[test]
fn a_waker_may_free_what_it_is_waited_for() {
    struct Task(Mutex<Option<OwnedAllocation>>);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            assert!(self.0.lock().expect("no panic").is_some(), "it has its bucket");
        }
    }
    let (allocator, _reclaimer) = start(1);
    let mut all = drain(&allocator);
    let held = all.pop().expect("the last is of `none`").into_owned(&allocator);
    let bucket = held.bucket_ref();
    let mut waits = allocator.alloc_on(DEVICE, Reserve::None);
    let task = Waker::from(Arc::new(Task(Mutex::new(Some(held)))));
    assert!(pin!(&mut waits).poll(&mut Context::from_waker(&task)).is_pending());
    drop(task);
    let bells = Arc::<Bells>::default();
    // The old waker goes, and its bucket comes.
    assert!(poll(&mut waits, &bells).is_pending());
    // Relaxed: one thread.
    assert_eq!(bells.0.load(Ordering::Relaxed), 1, "woken");
    assert!(matches!(poll(&mut waits, &bells), Poll::Ready(Ok(got)) if got == bucket));
}

/// Who does not care for the device gets a bucket of any, whatever becomes of the others.
#[test]
fn who_takes_any_device_depends_on_none() {
    const SECOND: DeviceIndex = DeviceIndex::new(1);
    for fails in [false, true] {
        let geometry = Geometry::new(NBUCKETS, 1, 128, 8).expect("a legal shape");
        let tables = vec![DeviceTable::empty(geometry); 2];
        let config = Config::default().cpus(2).sync(false);
        let (allocator, mut reclaimers) =
            Allocator::start(config, tables).expect("legal settings").finish();
        reclaimers.iter_mut().for_each(|reclaimer| drop(reclaimer.step()));
        let mut held = drain(&allocator);
        let of_second = held.iter().rposition(|held| held.bucket_ref().device() == SECOND);
        let of_second = held.remove(of_second.expect("it had free buckets"));
        let waiters = |device: DeviceIndex| {
            let stats = allocator.stats();
            stats.devices[device.as_usize()].waiters
        };
        let request = SectorRequest::new(8).write_prio(true);
        std::thread::scope(|threads| {
            let waits = threads.spawn(|| {
                let extent = allocator.alloc_sectors_until(&request, None);
                extent.map(|extent| extent.bucket_ref())
            });
            while waiters(DEVICE) == 0 {
                std::thread::yield_now();
            }
            if fails {
                allocator.fail(DEVICE, Arc::new(std::io::Error::other("out of use")));
            }
            while waiters(SECOND) == 0 {
                assert!(!waits.is_finished(), "{:?}", waits.join());
                std::thread::yield_now();
            }
            let wanted = of_second.bucket_ref();
            drop(of_second);
            assert_eq!(waits.join().expect("no panic").expect("a bucket"), wanted);
        });
        assert_eq!(waiters(SECOND), 0);
    }
}

/// Who is woken may do what the waking thread does just then.
#[test]
fn a_waker_may_release_another_bucket() {
    struct Next(Arc<Allocator>, BucketRef);
    impl Wake for Next {
        fn wake(self: Arc<Self>) {
            assert!(matches!(self.0.unused(self.1), Unused::Released(_)));
        }
    }
    let (allocator, _reclaimer) = start(1);
    let written = || {
        let bucket =
            allocator.try_alloc(Reserve::None).expect("works").expect("the lists are full");
        let pointer = bucket.bucket_ref();
        bucket.written();
        pointer
    };
    let (first, second) = (written(), written());
    let _all = drain(&allocator);
    // What is released goes to this reserve first.
    let mut waits = allocator.alloc_on(DEVICE, Reserve::Prio);
    let waker = Waker::from(Arc::new(Next(Arc::clone(&allocator), second)));
    assert!(pin!(&mut waits).poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(matches!(allocator.unused(first), Unused::Released(_)));
    let bells = Arc::<Bells>::default();
    let Poll::Ready(Ok(got)) = poll(&mut waits, &bells) else { panic!("it was woken") };
    assert_eq!(got.id(), first.id());
    let next = allocator.try_alloc(Reserve::Prio).expect("works").expect("the waker freed it");
    assert_eq!(next.bucket_ref().id(), second.id());
}
