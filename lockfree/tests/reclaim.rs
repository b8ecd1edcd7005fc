//! The reclaimer, step by step in one thread: the crash rule, failure, and what gets it going
//! again when it sleeps.
//!
//! Checked: no bucket is handed out before a table that contains its new gen was reported
//! durable, or after that failed; a bucket with somebody else's pin is set aside and comes back
//! when the pin is gone, even if everybody sleeps by then.

#![cfg(not(any(tierce_loom, tierce_shuttle)))]

use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tierce_core::{BucketIndex, DeviceIndex, Gen, Geometry, Reserve, Sizes};
use tierce_lockfree::{
    Allocation, Allocator, BucketRef, Bump, Config, DeviceTable, Error, PrioWrite, Reclaimer, Step,
    WaitFor,
};

const NBUCKETS: u32 = 64;
const DEVICE: DeviceIndex = DeviceIndex::FIRST;

fn start(config: Config) -> (Arc<Allocator>, Reclaimer) {
    let geometry = Geometry::new(NBUCKETS, 1, 128, 8).expect("a legal shape");
    let mut sizes = Sizes::tierce(&geometry, 0);
    sizes.none = 8;
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let (allocator, mut reclaimers) =
        Allocator::start(config, vec![table]).expect("legal settings").finish();
    (allocator, reclaimers.remove(0))
}

fn encode(write: &mut PrioWrite) -> Vec<Gen> {
    let mut gens = Vec::new();
    write.encode(0, |_, gen_| gens.push(gen_));
    gens
}

/// Everything that can be had, in the order in which it comes.
fn drain(allocator: &Allocator) -> Vec<Allocation<'_>> {
    let take = |reserve| allocator.try_alloc(reserve).expect("in use");
    std::iter::from_fn(|| Reserve::ALL.into_iter().find_map(take)).collect()
}

/// Gens that are durable, and buckets into which nothing pointed before they were.
struct Record {
    durable: Vec<Gen>,
    never_used: HashSet<BucketIndex>,
    /// The table's own buckets.
    chain: Vec<BucketIndex>,
    handed_out: u32,
}

impl Record {
    fn hand_out(&mut self, pointer: BucketRef) {
        assert!(!self.chain.contains(&pointer.bucket()), "{pointer} holds the durable table");
        let safe = self.durable[pointer.bucket().as_usize()] == pointer.gen_();
        let fresh = self.never_used.remove(&pointer.bucket());
        assert!(
            safe || fresh,
            "{pointer} was handed out, but a crash would bring its old gen back"
        );
        self.handed_out += 1;
    }
}

/// What had no room on the lists is taken there by whoever finds them low.
#[test]
fn whoever_empties_the_stock_wakes_the_reclaimer() {
    let (allocator, mut reclaimer) = start(Config::default().sync(false));
    assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Room)));
    let stats = || allocator.stats().devices[0].clone();
    let (free, in_stock) = (stats().free.iter().sum::<u64>(), stats().free_inc);
    assert_eq!((free, in_stock), (25, 4));
    let woken = || reclaimer.park(Some(Instant::now()));
    while woken() {} // for what the start was
    let mut taken = Vec::new();
    while stats().free_inc > 0 {
        assert!(!woken(), "there is something left");
        taken.push(allocator.try_alloc(Reserve::None).expect("in use").expect("there is more"));
    }
    assert!(woken(), "nobody found nothing, but somebody took the last");
    taken.extend(drain(&allocator));
    let buckets: HashSet<_> = taken.iter().map(|taken| taken.bucket_ref().bucket()).collect();
    assert_eq!((buckets.len(), taken.len()), (29, 29), "each once");
}

#[test]
fn the_stock_is_the_reclaimers_alone_if_that_is_asked_for() {
    let (allocator, mut reclaimer) = start(Config::default().sync(false).refill_on_demand(false));
    assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Room)));
    let taken = drain(&allocator);
    assert_eq!(taken.len(), 25, "those on the lists");
    assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Room)));
    assert!(!drain(&allocator).is_empty(), "it went on");
}

fn never_before_it_is_durable(config: Config) {
    let (allocator, mut reclaimer) = start(config);
    let never_used = (1..NBUCKETS).map(BucketIndex::new).collect();
    let durable = vec![Gen::default(); NBUCKETS as usize];
    let mut record = Record { durable, never_used, chain: Vec::new(), handed_out: 0 };
    for round in 0..1000 {
        match reclaimer.step() {
            Step::PrioWrite(mut write) => {
                for &bucket in write.chain() {
                    record.never_used.remove(&bucket);
                }
                let gens = encode(&mut write);
                // Nothing of this batch is free yet.
                let taken = drain(&allocator);
                taken.iter().for_each(|taken| record.hand_out(taken.bucket_ref()));
                taken.into_iter().for_each(Allocation::written);
                record.durable = gens;
                record.chain = write.chain().to_vec();
                assert!(write.confirm(), "nobody holds it back");
                reclaimer.prio_durable(write);
            }
            Step::Wait(WaitFor::Gc) => allocator.begin_gc().expect("no other").finish(),
            Step::Wait(_) => {
                let mut taken = drain(&allocator);
                assert!(round == 0 || !taken.is_empty(), "the pipeline has stopped");
                taken.iter().for_each(|taken| record.hand_out(taken.bucket_ref()));
                taken.drain(..1).for_each(drop);
                taken.into_iter().for_each(Allocation::written);
            }
            Step::Discard(bucket) => {
                // I18: neither free nor held.
                let free = drain(&allocator);
                assert!(free.iter().all(|free| free.bucket_ref().bucket() != bucket));
                drop(free);
                reclaimer.discarded(bucket);
            }
            Step::Ended => panic!("it goes on"),
        }
    }
    assert!(record.handed_out > 4 * NBUCKETS, "only {} were handed out", record.handed_out);
}

#[test]
fn nothing_is_handed_out_before_its_gen_is_durable() {
    for recycle_prio_chain in [true, false] {
        for discard in [true, false] {
            let cpus = u32::from(discard);
            never_before_it_is_durable(
                Config::default()
                    .cpus(cpus)
                    .recycle_prio_chain(recycle_prio_chain)
                    .discard(discard),
            );
        }
    }
}

#[test]
fn nothing_of_a_failed_prio_write_is_handed_out() {
    let (allocator, mut reclaimer) = start(Config::default().cpus(1));
    let Step::PrioWrite(mut write) = reclaimer.step() else { panic!("the first batch") };
    encode(&mut write);
    let before = drain(&allocator);
    reclaimer.prio_failed(write, Arc::new(std::io::Error::other("no longer there")));
    drop(before);
    let error = allocator.try_alloc(Reserve::None).expect_err("it has failed");
    assert_eq!(error.to_string(), "device 0 has failed: no longer there");
    assert!(matches!(reclaimer.step(), Step::Ended));
    assert!(reclaimer.park(Some(Instant::now())), "whoever sleeps is told");
}

/// Does what is asked for and keeps all that becomes free, until nothing more does. What is for
/// the chain stays: without it there would be an end before everything is used up.
fn use_up<'a>(allocator: &'a Allocator, reclaimer: &mut Reclaimer) -> Vec<Allocation<'a>> {
    let mut held = Vec::new();
    loop {
        let step = reclaimer.step();
        if let Step::PrioWrite(mut write) = step {
            encode(&mut write);
            assert!(write.confirm(), "nobody holds it back");
            reclaimer.prio_durable(write);
            continue;
        }
        let others = || Reserve::ALL.into_iter().filter(|&reserve| reserve != Reserve::Prio);
        let take = |reserve| allocator.try_alloc(reserve).expect("in use");
        let found: Vec<_> = std::iter::from_fn(|| others().find_map(take)).collect();
        if found.is_empty() {
            return held;
        }
        held.extend(found);
    }
}

/// I15: a gen that has run 96 ahead of the durable one goes no further, and a prio write is
/// begun early for its sake.
#[test]
fn a_gen_far_ahead_of_the_durable_one_waits_for_a_prio_write() {
    let (allocator, mut reclaimer) = start(Config::default());
    let node = allocator.try_alloc(Reserve::Btree).expect("in use").expect("filled at start");
    let mut pointer = node.bucket_ref();
    node.written();
    let _held = use_up(&allocator, &mut reclaimer);
    let block = allocator.prio_block();
    // First the last collection limits it, then the durable gen.
    for _ in 0..2 {
        while let Bump::Bumped(gen_) = block.bump_gen(pointer) {
            pointer = BucketRef::new(pointer.id(), gen_);
        }
        assert_eq!(block.bump_gen(pointer), Bump::MustGc);
        allocator.begin_gc().expect("no other").finish(); // meets no key of it: it is dead
    }
    drop(block);
    let gen_now = || allocator.snapshot(pointer.id()).expect("one of its buckets").gen_();
    let Step::PrioWrite(mut write) = reclaimer.step() else { panic!("only that helps") };
    assert_eq!(gen_now(), pointer.gen_(), "it must not run further ahead");
    encode(&mut write);
    assert!(write.confirm(), "nobody holds it back");
    reclaimer.prio_durable(write);
    let _more = use_up(&allocator, &mut reclaimer);
    assert_eq!(gen_now(), pointer.gen_().next(), "now it can be reused");
}

/// A future that is in line for `reserve`.
fn wait_in_line(
    allocator: &Allocator,
    reserve: Reserve,
) -> impl FnMut() -> Option<Result<BucketRef, Error>> + use<'_> {
    let mut future = allocator.alloc_on(DEVICE, reserve);
    move || match pin!(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result.map(|allocation| {
            let pointer = allocation.bucket_ref();
            allocation.written();
            pointer
        })),
        Poll::Pending => None,
    }
}

#[test]
fn a_foreign_pin_sets_a_bucket_aside_until_it_is_gone() {
    let (allocator, mut reclaimer) = start(Config::default().cpus(1).sync(false));
    let now = Instant::now();
    // A pointer that should never have been kept: its bucket was given back unwritten.
    let given_back = allocator.try_alloc(Reserve::Btree).expect("in use").expect("filled at start");
    let kept = given_back.bucket_ref();
    drop(given_back);
    let pin = allocator.pin(kept).expect("its gen has not moved");
    let mut held = Vec::new();
    loop {
        let step = reclaimer.step();
        let found = drain(&allocator);
        if found.is_empty() {
            assert!(matches!(step, Step::Wait(WaitFor::Gc)));
            break;
        }
        held.extend(found);
    }
    let stats = &allocator.stats().devices[0];
    assert_eq!(held.len() as u32, NBUCKETS - 2, "all but the superblock and the pinned one");
    assert!(held.iter().all(|held| held.bucket_ref().bucket() != kept.bucket()));
    assert_eq!((stats.set_aside, stats.foreign_pin_total > 0), (1, true));

    // The reserve that is refilled first.
    let mut waiting = wait_in_line(&allocator, Reserve::Prio);
    assert!(waiting().is_none());
    while reclaimer.park(Some(now)) {
        assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Gc)));
    }
    drop(pin);
    assert!(reclaimer.park(Some(now)), "the end of the foreign pin wakes the reclaimer");
    assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Gc)));
    let got = waiting().expect("the bucket is free again").expect("in use");
    assert_eq!(got, kept);
    assert_eq!(allocator.stats().devices[0].set_aside, 0);
}

/// Also one that is found where an allocation looks first: once, or it would be free twice.
#[test]
fn a_foreign_pin_sets_a_bucket_of_the_cells_aside_once() {
    let (allocator, mut reclaimer) =
        start(Config::default().cpus(1).restartable(false).sync(false));
    while allocator.stats().devices[0].free_of(Reserve::None) == 0 {
        let _ = reclaimer.step();
    }
    let given_back = allocator.try_alloc(Reserve::None).expect("in use").expect("just counted");
    let kept = given_back.bucket_ref();
    drop(given_back);
    let pin = allocator.pin(kept).expect("its gen has not moved");
    let mut held = drain(&allocator);
    let stats = &allocator.stats().devices[0];
    assert_eq!((stats.set_aside, stats.foreign_pin_total), (1, 1));
    drop(pin);
    loop {
        let _ = reclaimer.step();
        let found = drain(&allocator);
        if found.is_empty() {
            break;
        }
        held.extend(found);
    }
    let buckets: HashSet<_> = held.iter().map(|held| held.bucket_ref().bucket()).collect();
    assert!(buckets.contains(&kept.bucket()), "it came back");
    assert_eq!(buckets.len(), held.len(), "each bucket has one holder");
}
