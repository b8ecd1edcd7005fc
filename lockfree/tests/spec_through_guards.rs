//! The concurrent allocator and the sequential specification, `tierce_core::spec::Set`, side by
//! side: random operations from one thread, after each of which both are in the same state.
//!
//! Compared after every operation: every word, the length of every free list, what is between
//! invalidation and the lists, available buckets, the smallest prio, the counters; and whatever
//! the operation gave (so the order of the lists, for they are popped).
//!
//! Differences that are allowed, and how they are kept out:
//!
//! * Cells change the order within `none`: there are none here (`cpus` 0).
//! * A batch that is not full is written on demand here, not there: `batch_on_demand` is off.
//! * What found no room on the lists is taken there by the reclaimer alone: `refill_on_demand`
//!   is off.
//! * Ageing is left to the reclaimer here, which makes several rescales together, and happens at
//!   once there: after I/O it is told to.
//! * A bucket given back goes to the list it came from here, to the first with room there: none
//!   is given back.
//! * The pins of an open bucket are taken in advance here: its pin count is not compared.
//! * A recycled prio bucket is fresh there, and keeps its prio here until it is allocated: the
//!   prio of what is on the prio list is not compared.
//! * A bucket of the prio chain keeps its live sectors through a collection here, and loses them
//!   there: the sectors of the chain are not compared.
//! * A bucket recycled during a collection and allocated again keeps its mark here, and loses it
//!   there unless it is in the chain: nobody but the prio write allocates from `prio`.
//! * I/O of no sectors counts as a call there, and as nothing here: there is none.
//! * Which open bucket a new stream takes when all are in use: there are fewer streams.
//! * Chains longer than one bucket are recycled in another order: the chain has one.

#![cfg(not(any(tierce_loom, tierce_shuttle)))]

use proptest::prelude::*;
use tierce_core::spec::{self, DeviceOptions, Live, Options, Place, Pointer, Set};
use tierce_core::{
    BucketId, BucketIndex, DeviceIndex, Geometry, Mark, Policy, Prio, Reserve, Sizes,
};
use tierce_lockfree::{
    Allocation, Allocator, BucketRef, Config, DeviceTable, Extent, Gc, PinGuard, Reclaimer,
    SectorRequest, Step, WaitFor, WritePoint,
};

const NBUCKETS: u32 = 64;
const DEVICE: DeviceIndex = DeviceIndex::FIRST;

#[derive(Clone, Copy, Debug)]
enum Operation {
    Step,
    Alloc(Reserve),
    Written(usize),
    Sectors {
        write_point: u32,
        sectors: u32,
    },
    DropExtent(usize),
    Dirty(usize),
    Pin(usize),
    Unpin(usize),
    Touch(usize),
    Free(usize),
    Io(u32),
    GcBegin,
    /// Keys whose number divided by this leaves 0 are dead.
    GcFinish(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        3 => Just(Step),
        6 => prop_oneof![Just(Reserve::Btree), Just(Reserve::MovingGc), Just(Reserve::None)]
            .prop_map(Alloc),
        5 => any::<usize>().prop_map(Written),
        6 => (0..4u32, 1..200u32)
            .prop_map(|(write_point, sectors)| Sectors { write_point, sectors }),
        5 => any::<usize>().prop_map(DropExtent),
        1 => any::<usize>().prop_map(Dirty),
        2 => any::<usize>().prop_map(Pin),
        2 => any::<usize>().prop_map(Unpin),
        2 => any::<usize>().prop_map(Touch),
        1 => any::<usize>().prop_map(Free),
        2 => (1..40u32).prop_map(Io),
        1 => Just(GcBegin),
        2 => (1..9usize).prop_map(GcFinish),
    ]
}

/// Both, and what is held of them.
struct Pair<'a> {
    ours: &'a Allocator,
    reclaimer: Reclaimer,
    spec: Set,
    held: Vec<Allocation<'a>>,
    extents: Vec<Extent<'a>>,
    pins: Vec<PinGuard<'a>>,
    gc: Option<Gc<'a>>,
    /// Pointers that the index would hold.
    keys: Vec<(BucketRef, Mark)>,
    inode: u64,
}

fn theirs(pointer: BucketRef) -> Pointer {
    Pointer::new(pointer.id(), pointer.gen_())
}

/// One of them, if there is any.
fn pick<T>(items: &mut Vec<T>, at: usize) -> Option<T> {
    (!items.is_empty()).then(|| items.swap_remove(at % items.len()))
}

impl<'a> Pair<'a> {
    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Step => self.step(),
            Operation::Alloc(reserve) => self.alloc(reserve),
            Operation::Written(at) => {
                let Some(held) = pick(&mut self.held, at) else { return };
                let pointer = held.bucket_ref();
                self.keys.push((pointer, self.word(pointer).mark()));
                held.written();
                self.spec.unpin(pointer.id()).expect("it was held");
            }
            Operation::Sectors { write_point, sectors } => self.sectors(write_point, sectors),
            Operation::DropExtent(at) => {
                let Some(extent) = pick(&mut self.extents, at) else { return };
                let pointer = extent.bucket_ref();
                self.keys.push((pointer, self.word(pointer).mark()));
                drop(extent);
                self.spec.unpin(pointer.id()).expect("it was held");
            }
            Operation::Dirty(at) => {
                let Some(extent) = self.extents.get(at % self.extents.len().max(1)) else { return };
                extent.mark_dirty();
                self.spec.mark_dirty(extent.bucket_ref().id()).expect("it is held");
            }
            Operation::Pin(at) => {
                let Some(pointer) = self.key(at) else { return };
                let pin = self.ours.pin(pointer);
                assert_eq!(pin.is_some(), self.spec.pin(theirs(pointer)), "pinning {pointer}");
                self.pins.extend(pin);
            }
            Operation::Unpin(at) => {
                let Some(pin) = pick(&mut self.pins, at) else { return };
                self.spec.unpin(pin.bucket_ref().id()).expect("it was pinned");
            }
            Operation::Touch(at) => {
                let Some(pointer) = self.key(at) else { return };
                let read = self.ours.begin_read().open(pointer);
                assert_eq!(read.is_some(), self.spec.begin_read(theirs(pointer)).is_some());
                assert!(read.is_none_or(|read| read.validate()), "nobody else is there");
                self.spec.touch(theirs(pointer));
            }
            Operation::Free(at) => {
                let Some(pointer) = self.key(at) else { return };
                if self.word(pointer).gen_() == pointer.gen_() {
                    self.ours.free(pointer);
                    self.spec.free(pointer.id()).expect("it is no prio bucket");
                }
            }
            Operation::Io(sectors) => {
                self.ours.account_io(sectors);
                self.spec.account_io(sectors.into());
                self.reclaimer.age();
                self.step();
            }
            Operation::GcBegin => {
                if self.gc.is_none() {
                    self.gc = Some(self.ours.begin_gc().expect("none is running"));
                    self.spec.gc_begin().expect("none is running");
                }
            }
            Operation::GcFinish(dead) => self.gc_finish(dead),
        }
    }

    fn key(&self, at: usize) -> Option<BucketRef> {
        self.keys.get(at % self.keys.len().max(1)).map(|&(pointer, _)| pointer)
    }

    fn word(&self, pointer: BucketRef) -> tierce_core::Snapshot {
        self.ours.snapshot(pointer.id()).expect("a bucket of the device")
    }

    fn step(&mut self) {
        let waits = loop {
            match self.reclaimer.step() {
                Step::PrioWrite(mut write) => {
                    write.encode(0, |_, _| ());
                    assert!(write.confirm(), "nobody holds it back");
                    self.reclaimer.prio_durable(write);
                }
                Step::Wait(WaitFor::Room) => break spec::Wait::Push,
                Step::Wait(WaitFor::Gc) => break spec::Wait::Gc,
                Step::Wait(WaitFor::PrioBuckets) => break spec::Wait::PrioAlloc,
                Step::Wait(WaitFor::PrioBlock) => break spec::Wait::PrioBlocked,
                Step::Wait(WaitFor::Discard) | Step::Discard(_) | Step::Ended => {
                    panic!("none was asked for")
                }
            }
        };
        assert_eq!(waits, self.spec.step(DEVICE), "what the reclaimer waits for");
    }

    fn alloc(&mut self, reserve: Reserve) {
        let ours = self.ours.try_alloc(reserve).expect("in use");
        let spec = self.spec.alloc_on(DEVICE, reserve).ready();
        assert_eq!(ours.as_ref().map(|held| theirs(held.bucket_ref())), spec);
        self.held.extend(ours);
    }

    fn sectors(&mut self, write_point: u32, sectors: u32) {
        let request = SectorRequest::new(sectors).write_point(WritePoint::new(write_point));
        let ours = self.ours.try_alloc_sectors(&request).expect("in use");
        self.inode += 1; // no two writes are sequential
        let mut write = spec::Write::new(self.inode, 0, sectors);
        write.write_point = write_point.into();
        let spec = self.spec.alloc_sectors(write).expect("a legal request").ready();
        let place = |e: &Extent<'_>| (theirs(e.bucket_ref()), e.offset(), e.sectors());
        let wanted = spec.map(|e| (Pointer::new(e.bucket, e.gen_), e.offset, e.sectors));
        assert_eq!(ours.as_ref().map(place), wanted);
        self.extents.extend(ours);
    }

    fn gc_finish(&mut self, dead: usize) {
        let Some(gc) = self.gc.take() else { return };
        let mut number = 0;
        self.keys.retain(|&(pointer, mark)| {
            number += 1;
            if number % dead == 0 && dead > 1 {
                return false;
            }
            let live = match mark {
                Mark::Metadata => Live::Metadata,
                Mark::Dirty => Live::Dirty,
                Mark::None | Mark::Reclaimable => Live::Clean,
            };
            let ours = gc.mark(pointer, 50, live.mark()) == tierce_lockfree::Marked::Live;
            let spec = self.spec.gc_mark(theirs(pointer), 50, live).expect("one is running");
            assert_eq!(ours, spec == spec::Marked::Counted, "marking {pointer}");
            ours
        });
        gc.finish();
        self.spec.gc_finish().expect("one is running");
    }

    fn compare(&self) {
        let open: Vec<BucketId> = self.spec.slots().map(|slot| slot.bucket).collect();
        for b in (1..NBUCKETS).map(|b| BucketId::new(DEVICE, BucketIndex::new(b))) {
            let known = "a bucket of the device";
            let mut ours = self.ours.snapshot(b).expect(known);
            let mut spec = self.spec.word(b).expect(known);
            if open.contains(&b) {
                assert!(ours.pin_count() >= spec.pin_count(), "pins of {b}");
                (ours, spec) = (ours.with_pin(0), spec.with_pin(0));
            }
            if self.spec.place(b) == Some(Place::Free(Reserve::Prio)) {
                (ours, spec) = (ours.with_prio(Prio::OLDEST), spec.with_prio(Prio::OLDEST));
            }
            if self.spec.place(b) == Some(Place::PrioChain) {
                (ours, spec) = (ours.with_sectors(0), spec.with_sectors(0));
            }
            assert_eq!(ours, spec, "bucket {b}");
        }
        let (stats, gauges, counters) =
            (self.ours.stats(), self.spec.gauges(), self.spec.counters());
        let ours = &stats.devices[0];
        for reserve in Reserve::ALL {
            let wanted = self.spec.list(DEVICE, reserve).len() as u64;
            assert_eq!(ours.free_of(reserve), wanted, "free{{{reserve}}}");
        }
        let between = self.spec.free_inc(DEVICE).len() + self.spec.ready(DEVICE).len();
        assert_eq!(ours.free_inc, between as u64, "free_inc");
        assert_eq!(u64::from(ours.available), gauges.available, "available");
        assert_eq!(stats.min_prio, gauges.min_prio, "min_prio");
        assert_eq!(ours.alloc_total, counters.alloc_total, "alloc_total");
        assert_eq!(ours.prio_write_total, counters.prio_write_total, "prio_write_total");
        assert_eq!(stats.rescale_total, counters.rescale_total, "rescale_total");
    }
}

fn side_by_side(policy: Policy, recycle_prio_chain: bool, operations: &[Operation]) {
    let geometry = Geometry::new(NBUCKETS, 1, 128, 8).expect("a legal shape");
    let mut sizes = Sizes::tierce(&geometry, 0);
    (sizes.btree, sizes.none, sizes.moving_gc, sizes.free_inc) = (3, 6, 2, 5);
    sizes.candidates = 10;
    let config = Config::default()
        .policy(policy)
        .cpus(0)
        .recycle_prio_chain(recycle_prio_chain)
        .batch_on_demand(false)
        .refill_on_demand(false);
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let started = Allocator::start(config, vec![table]).expect("legal settings");
    let (allocator, mut reclaimers) = started.finish();
    let mut options = Options::default();
    options.recycle_prio_chain = recycle_prio_chain;
    let mut device = DeviceOptions::new(geometry, sizes);
    device.policy = policy;
    let mut spec = Set::new(options, vec![device]).expect("legal settings");
    let _ = spec.start().expect("marks are valid");
    let mut pair = Pair {
        ours: &allocator,
        reclaimer: reclaimers.remove(0),
        spec,
        held: Vec::new(),
        extents: Vec::new(),
        pins: Vec::new(),
        gc: None,
        keys: Vec::new(),
        inode: 0,
    };
    pair.compare();
    for &operation in operations {
        pair.run(operation);
        pair.compare();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn same_operations_same_states(
        fifo: bool,
        recycle_prio_chain: bool,
        operations in proptest::collection::vec(operation(), 1..250),
    ) {
        let policy = if fifo { Policy::Fifo } else { Policy::Lru };
        side_by_side(policy, recycle_prio_chain, &operations);
    }
}

/// Everything is taken and kept, until passes fall short; with a collection before, after and in
/// between, for what is done then depends on whether one has finished since the last pass.
#[test]
fn passes_that_fall_short() {
    use Operation::{Alloc, GcBegin, GcFinish, Step};
    for policy in [Policy::Lru, Policy::Fifo] {
        for collect_at in 0..16 {
            let mut operations = vec![Step];
            for round in 0..16 {
                operations.extend([Alloc(Reserve::None); 5]);
                if round == collect_at {
                    operations.extend([GcBegin, GcFinish(1)]);
                }
                operations.push(Step);
            }
            operations.extend([GcBegin, GcFinish(1), Step, Step]);
            side_by_side(policy, true, &operations);
            side_by_side(policy, false, &operations);
        }
    }
}
