//! Many threads on one allocator, with a device in memory on which every mistake shows.
//!
//! Eight threads write, read, pin, allocate and release on 2048 buckets (cells in use) while
//! one thread collects garbage over a sharded index and one drives the reclaimer and "writes"
//! the table of gens. The invariants that are checked:
//!
//! * I1: a pin on (bucket, gen) freezes the gen and the data.
//! * I2: exactly one invalidation wins: the gen at hand-out is the one before plus 1, or the
//!   same if the bucket was given back.
//! * I5: what an accepted optimistic read read is the data of its pointer.
//! * I6: what is handed out has a durable gen (all but the first life of a bucket, into which
//!   nothing pointed).
//! * I9: a bucket is handed out to one owner at a time; in the end as many words have pin 1 as
//!   there are buckets on lists, and no word has another pin.
//! * I11: the extents of one life are disjoint and gapless, and fill the bucket up to less
//!   than a block.
//! * I12: the bucket of an extent in flight is pinned and has the extent's gen.
//! * I13: when all is closed and all extents are dropped, no pin is left.
//! * I14: dirty and metadata buckets are never invalidated, nor is the live prio chain.
//! * I18: a bucket being discarded is neither free nor held.
//!
//! A run does a fixed number of operations; with `TIERCE_SOAK_SECONDS` in the environment it
//! has 32 threads and goes on for that long. Nothing polls: a lost wake-up hangs the test.

#![cfg(not(any(tierce_loom, tierce_shuttle)))]

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tierce_core::draws::Draws;
use tierce_core::{
    BucketId, BucketIndex, DeviceIndex, Gen, Geometry, Mark, Policy, Reserve, Sizes, Snapshot,
};
use tierce_lockfree::{
    Allocation, Allocator, BucketRef, Config, DeviceTable, Extent, Marked, PrioWrite, Reclaimer,
    SectorRequest, Step, WritePoint,
};

const NBUCKETS: u32 = 2048;
/// Sectors of a bucket: so few that a prio write needs two buckets.
const SECTORS: u32 = 8;
const BLOCK: u32 = 2;
const WHOLE: u16 = (1 << SECTORS) - 1;
const CPUS: u32 = 2;
const OPERATIONS: u32 = 20_000;
/// Keys that are overwritten again and again: twice what fits.
const KEYS: u32 = 8192;
const SHARDS: u32 = 16;
/// Dirty and metadata keys kept at a time, at most.
const KEPT: usize = 256;

/// Where the data of a key lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    pointer: BucketRef,
    offset: u32,
    sectors: u32,
    stamp: u64,
    kind: Mark,
}

/// What the test knows about a bucket.
#[derive(Debug, Default)]
struct Life {
    gen_: Gen,
    /// How many gens of it were handed out.
    lives: u32,
    /// It was handed out with this gen and given back, or never.
    given_back: bool,
    /// Who holds the whole of it, or extents.
    holders: u32,
    /// The sectors handed out, one bit each.
    covered: u16,
}

impl Life {
    /// The bucket is handed out, or seen for the first time since it was.
    fn begin(&mut self, pointer: BucketRef, durable: Gen) {
        assert_eq!(self.holders, 0, "I9: {pointer} was handed out while held: {self:?}");
        if pointer.gen_() == self.gen_ {
            assert!(self.given_back, "I2: {pointer} was handed out twice: {self:?}");
        } else {
            assert_eq!(pointer.gen_(), self.gen_.next(), "I2: {pointer} skipped a gen: {self:?}");
            if !self.given_back {
                self.end();
            }
            self.lives += 1;
        }
        let safe = self.lives == 1 || durable == pointer.gen_();
        assert!(safe, "I6: {pointer} was handed out while {durable} is durable: {self:?}");
        (self.gen_, self.given_back, self.covered) = (pointer.gen_(), false, 0);
    }

    fn end(&self) {
        let gapless = self.covered & (self.covered + 1) == 0;
        let full = self.covered.count_ones() > SECTORS - BLOCK;
        assert!(self.lives == 0 || gapless && full, "I11: a gap, or a lost tail: {self:?}");
    }
}

struct World {
    allocator: Arc<Allocator>,
    /// One stamp per sector: the data.
    device: Vec<AtomicU64>,
    /// The gens in the newest durable table.
    durable: Vec<AtomicU8>,
    lives: Vec<Mutex<Life>>,
    index: Vec<Mutex<HashMap<u32, Entry>>>,
    /// Keys of dirty data and metadata, oldest first.
    kept: Mutex<VecDeque<u32>>,
    next_key: AtomicU64,
    next_stamp: AtomicU64,
    done: AtomicBool,
    reads: AtomicU64,
    pins: AtomicU64,
}

/// Closes the allocator if its thread fails, so that nobody waits for that thread for ever.
struct CloseIfFailed<'a>(&'a Allocator);

impl Drop for CloseIfFailed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that failed has said why; the others may go on or fail as well.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The device and the index.
impl World {
    fn new(allocator: Arc<Allocator>) -> Self {
        let numbers = |n: u32| (0..n).map(|_| AtomicU64::new(0)).collect();
        let unknown = || Mutex::new(Life { given_back: true, ..Life::default() });
        Self {
            allocator,
            device: numbers(NBUCKETS * SECTORS),
            durable: (0..NBUCKETS).map(|_| AtomicU8::new(0)).collect(),
            lives: (0..NBUCKETS).map(|_| unknown()).collect(),
            index: (0..SHARDS).map(|_| Mutex::default()).collect(),
            kept: Mutex::default(),
            next_key: AtomicU64::new(u64::from(KEYS)),
            next_stamp: AtomicU64::new(1),
            done: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            pins: AtomicU64::new(0),
        }
    }

    fn sectors(&self, bucket: BucketIndex, offset: u32, sectors: u32) -> &[AtomicU64] {
        let first = bucket.as_usize() * SECTORS as usize + offset as usize;
        &self.device[first..][..sectors as usize]
    }

    fn write(&self, bucket: BucketIndex, offset: u32, sectors: u32, stamp: u64) {
        // Release: the gen advanced before the data changes; pairs with the fence of readers.
        fence(Ordering::Release);
        for sector in self.sectors(bucket, offset, sectors) {
            // Relaxed: ordered by the fence.
            sector.store(stamp, Ordering::Relaxed);
        }
    }

    fn holds(&self, entry: &Entry) -> bool {
        let sectors = self.sectors(entry.pointer.bucket(), entry.offset, entry.sectors);
        // Relaxed: ordered by the pin, or by the fence in `validate`.
        sectors.iter().all(|sector| sector.load(Ordering::Relaxed) == entry.stamp)
    }

    fn stamp(&self) -> u64 {
        // Relaxed: only has to differ.
        self.next_stamp.fetch_add(1, Ordering::Relaxed)
    }

    fn shard(&self, key: u32) -> MutexGuard<'_, HashMap<u32, Entry>> {
        locked(&self.index[(key % SHARDS) as usize])
    }

    fn word(&self, bucket: BucketId) -> Snapshot {
        self.allocator.snapshot(bucket).expect("a bucket of the device")
    }

    fn life(&self, bucket: BucketIndex) -> MutexGuard<'_, Life> {
        locked(&self.lives[bucket.as_usize()])
    }

    fn begin(&self, life: &mut Life, pointer: BucketRef) {
        // Relaxed: the release of the bucket orders it.
        let durable = self.durable[pointer.bucket().as_usize()].load(Ordering::Relaxed);
        life.begin(pointer, Gen::new(durable));
    }

    /// Inserts a key that is never overwritten.
    fn keep(&self, entry: Entry) {
        // Relaxed: only has to differ.
        let key = self.next_key.fetch_add(1, Ordering::Relaxed) as u32;
        self.shard(key).insert(key, entry);
        locked(&self.kept).push_back(key);
    }
}

/// What the threads do.
impl World {
    fn operate(&self, rng: &mut Draws) {
        match rng.below(100) {
            0..40 => self.write_extent(rng),
            40..75 => self.read(rng),
            75..88 => self.pin(rng),
            88..94 => self.take_whole(rng),
            94..95 => self.take_node(),
            95..97 => self.let_go(),
            _ => self.allocator.account_io(SECTORS),
        }
        if locked(&self.kept).len() > KEPT {
            self.let_go();
        }
    }

    fn write_extent(&self, rng: &mut Draws) {
        let request =
            SectorRequest::new(1 + rng.below(5)).write_point(WritePoint::new(rng.below(12)));
        let extent = match self.allocator.try_alloc_sectors(&request).expect("in use") {
            Some(extent) => extent,
            None => self.allocator.alloc_sectors_until(&request, None).expect("in use"),
        };
        let pointer = extent.bucket_ref();
        self.check_in_flight(&extent);
        let bits = ((1 << extent.sectors()) - 1) << extent.offset();
        {
            let mut life = self.life(pointer.bucket());
            if life.given_back || life.gen_ != pointer.gen_() {
                self.begin(&mut life, pointer);
            }
            assert_eq!(life.covered & bits, 0, "I11: an extent overlaps: {extent:?}, {life:?}");
            life.covered |= bits;
            life.holders += 1;
        }
        let (offset, sectors, stamp) = (extent.offset(), extent.sectors(), self.stamp());
        self.write(pointer.bucket(), offset, sectors, stamp);
        let entry = Entry { pointer, offset, sectors, stamp, kind: Mark::Reclaimable };
        if rng.below(32) == 0 {
            extent.mark_dirty();
            self.keep(Entry { kind: Mark::Dirty, ..entry });
        } else {
            let key = rng.below(KEYS);
            self.shard(key).insert(key, entry);
        }
        self.check_in_flight(&extent);
        self.life(pointer.bucket()).holders -= 1;
        drop(extent);
    }

    fn check_in_flight(&self, extent: &Extent<'_>) {
        let word = self.word(extent.bucket_ref().id());
        let safe = word.pin_count() > 0 && word.gen_() == extent.bucket_ref().gen_();
        assert!(safe, "I12: {extent:?} in flight in {word:?}");
    }

    fn read(&self, rng: &mut Draws) {
        let read = self.allocator.begin_read();
        let Some(entry) = self.look_up(rng) else { return };
        let Some(open) = read.open(entry.pointer) else { return };
        let right = self.holds(&entry);
        if rng.below(4) == 0 {
            std::thread::yield_now();
        }
        if open.validate() {
            assert!(right, "I5: a read of {entry:?} was accepted, but read something else");
            // Relaxed: a count.
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn look_up(&self, rng: &mut Draws) -> Option<Entry> {
        let key = rng.below(KEYS);
        self.shard(key).get(&key).copied()
    }

    fn pin(&self, rng: &mut Draws) {
        let Some(entry) = self.look_up(rng) else { return };
        let Some(pin) = self.allocator.pin(entry.pointer) else { return };
        for _ in 0..3 {
            let word = self.word(entry.pointer.id());
            assert_eq!(word.gen_(), entry.pointer.gen_(), "I1: the gen moved under {pin:?}");
            assert!(self.holds(&entry), "I1: data of {entry:?} changed under a pin");
            std::thread::yield_now();
        }
        // Relaxed: a count.
        self.pins.fetch_add(1, Ordering::Relaxed);
    }

    fn take_whole(&self, rng: &mut Draws) {
        let reserve = if rng.below(2) == 0 { Reserve::None } else { Reserve::MovingGc };
        let taken = match rng.below(4) {
            0 => Some(self.allocator.alloc_until(DeviceIndex::FIRST, reserve, None)),
            _ => self.allocator.try_alloc(reserve).transpose(),
        };
        let Some(allocation) = taken.transpose().expect("in use") else { return };
        self.hold(&allocation);
        let pointer = allocation.bucket_ref();
        if rng.below(2) == 0 {
            let mut life = self.life(pointer.bucket());
            (life.holders, life.given_back) = (0, true);
            drop(allocation);
            return;
        }
        let key = rng.below(KEYS);
        let entry = self.fill(pointer, Mark::Reclaimable);
        self.shard(key).insert(key, entry);
        self.life(pointer.bucket()).holders = 0;
        allocation.written();
    }

    /// A node of the index: metadata.
    fn take_node(&self) {
        let node = self.allocator.try_alloc(Reserve::Btree).expect("in use");
        let Some(allocation) = node else { return };
        self.hold(&allocation);
        let pointer = allocation.bucket_ref();
        self.keep(self.fill(pointer, Mark::Metadata));
        self.life(pointer.bucket()).holders = 0;
        allocation.written();
    }

    fn hold(&self, allocation: &Allocation<'_>) {
        let pointer = allocation.bucket_ref();
        let mut life = self.life(pointer.bucket());
        self.begin(&mut life, pointer);
        (life.holders, life.covered) = (1, WHOLE);
        assert!(self.word(pointer.id()).pin_count() > 0, "I9: {pointer} is held, not pinned");
    }

    fn fill(&self, pointer: BucketRef, kind: Mark) -> Entry {
        let stamp = self.stamp();
        self.write(pointer.bucket(), 0, SECTORS, stamp);
        Entry { pointer, offset: 0, sectors: SECTORS, stamp, kind }
    }

    /// The oldest of the kept keys is cleaned, or freed.
    fn let_go(&self) {
        let Some(key) = locked(&self.kept).pop_front() else { return };
        let mut shard = self.shard(key);
        let entry = shard[&key];
        self.check_kept(&entry);
        shard.remove(&key);
        drop(shard);
        if entry.kind == Mark::Metadata {
            self.allocator.free(entry.pointer);
        }
    }

    fn check_kept(&self, entry: &Entry) {
        let word = self.word(entry.pointer.id());
        assert_eq!(word.gen_(), entry.pointer.gen_(), "I14: {entry:?} was invalidated");
        assert!(self.holds(entry), "I14: {entry:?} was overwritten");
    }
}

/// The garbage collector and the reclaimer.
impl World {
    fn collect(&self, rng: &mut Draws) {
        let _close = CloseIfFailed(&self.allocator);
        // Relaxed: closing the allocator orders it.
        while self.allocator.wait_gc_due(None) && !self.done.load(Ordering::Relaxed) {
            let gc = self.allocator.begin_gc().expect("there is one collector");
            for shard in &self.index {
                locked(shard).retain(|key, entry| {
                    let marked = gc.mark(entry.pointer, entry.sectors, entry.kind);
                    assert!(marked == Marked::Live || *key < KEYS, "I14: {entry:?} is {marked:?}");
                    marked == Marked::Live
                });
            }
            if rng.below(8) != 0 {
                gc.finish();
            } // else it is abandoned, and due again
        }
    }

    fn reclaim(&self, mut reclaimer: Reclaimer) {
        let _close = CloseIfFailed(&self.allocator);
        let mut live = Vec::new();
        loop {
            match reclaimer.step() {
                Step::Ended => return,
                Step::Wait(_) => {
                    reclaimer.park(None);
                }
                Step::Discard(bucket) => {
                    let word = self.word(BucketId::new(DeviceIndex::FIRST, bucket));
                    let holders = self.life(bucket).holders;
                    assert_eq!((word.pin_count(), holders), (1, 0), "I18: {bucket} is in use");
                    self.write(bucket, 0, SECTORS, 0);
                    reclaimer.discarded(bucket);
                }
                Step::PrioWrite(write) => self.write_prios(&mut reclaimer, write, &mut live),
            }
        }
    }

    fn write_prios(
        &self,
        reclaimer: &mut Reclaimer,
        mut write: PrioWrite,
        live: &mut Vec<BucketRef>,
    ) {
        let mut table = vec![Gen::default(); NBUCKETS as usize];
        let per_set = self.allocator.geometry(DeviceIndex::FIRST).prios_per_bucket() as usize;
        let chain: Vec<_> = write.chain().iter().map(|&b| self.begin_set(b)).collect();
        for set in (0..chain.len()).rev() {
            let mut gens = table[set * per_set..].iter_mut();
            write.encode(set, |_, gen_| *gens.next().expect("a bucket of the device") = gen_);
        }
        for (durable, gen_) in self.durable.iter().zip(table) {
            // Relaxed: the release of the bucket orders it.
            durable.store(gen_.get(), Ordering::Relaxed);
        }
        for old in std::mem::replace(live, chain) {
            let word = self.word(old.id());
            let intact = word.gen_() == old.gen_() && word.mark() == Mark::Metadata;
            assert!(intact, "I14: {old} of the live prio chain is {word:?}");
            let mut life = self.life(old.bucket());
            (life.holders, life.given_back) = (0, true);
        }
        assert!(write.confirm(), "nobody holds it back");
        reclaimer.prio_durable(write);
    }

    fn begin_set(&self, bucket: BucketIndex) -> BucketRef {
        let id = BucketId::new(DeviceIndex::FIRST, bucket);
        let pointer = BucketRef::new(id, self.word(id).gen_());
        let mut life = self.life(bucket);
        self.begin(&mut life, pointer);
        (life.holders, life.covered) = (1, WHOLE);
        pointer
    }

    /// When all threads have ended.
    fn check_end(&self) {
        for key in locked(&self.kept).iter() {
            self.check_kept(&self.shard(*key)[key]);
        }
        let stats = self.allocator.stats();
        let device = &stats.devices[0];
        let listed = device.free.iter().sum::<u64>() + device.free_inc + device.set_aside;
        let words = (1..NBUCKETS).map(|b| BucketId::new(DeviceIndex::FIRST, BucketIndex::new(b)));
        let mut pinned = 0;
        for bucket in words {
            let word = self.word(bucket);
            assert!(word.pin_count() <= 1, "I13: a pin is left on {bucket}: {word:?}");
            pinned += u64::from(word.pin_count());
            let held = self.life(bucket.bucket()).holders > 0;
            let protected = word.pin_count() == 0 && word.mark() == Mark::Metadata;
            assert!(!held || protected, "only the live prio chain is still held: {bucket}");
        }
        assert_eq!(pinned, listed, "I9: on a list, and only there, a bucket has pin 1: {device:?}");
        assert!(device.invalidate_total > 2 * u64::from(NBUCKETS), "too little was reused");
        assert!(stats.gc_total > 0, "no collection has finished");
        // Relaxed (both): the threads have ended.
        let (reads, pins) = (self.reads.load(Ordering::Relaxed), self.pins.load(Ordering::Relaxed));
        assert!(reads > 0 && pins > 0, "{reads} reads, {pins} pins");
        eprintln!("{reads} reads, {pins} pins, {} collections, {device:?}", stats.gc_total);
    }
}

fn start(config: Config) -> (Arc<Allocator>, Reclaimer) {
    let geometry = Geometry::new(NBUCKETS, 1, SECTORS, BLOCK).expect("a legal shape");
    let mut sizes = Sizes::tierce(&geometry, 0);
    sizes.none = 256;
    assert!(sizes.cells_per_cpu(CPUS) > 0, "cells are in use");
    assert_eq!(geometry.prio_buckets(), 2);
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let (allocator, mut reclaimers) =
        Allocator::start(config, vec![table]).expect("legal settings").finish();
    (allocator, reclaimers.remove(0))
}

fn stress(config: Config) {
    let soak = std::env::var("TIERCE_SOAK_SECONDS").ok().map(|seconds| {
        Instant::now() + Duration::from_secs(seconds.parse().expect("TIERCE_SOAK_SECONDS"))
    });
    let threads = if soak.is_some() { 32 } else { 8 };
    let (allocator, reclaimer) = start(config);
    let world = World::new(allocator);
    std::thread::scope(|scope| {
        let reclaimer = scope.spawn(|| world.reclaim(reclaimer));
        let collector = scope.spawn(|| world.collect(&mut Draws::new(99)));
        let work = |seed| {
            let mut rng = Draws::new(seed);
            match soak {
                None => (0..OPERATIONS).for_each(|_| world.operate(&mut rng)),
                Some(end) => {
                    while Instant::now() < end {
                        world.operate(&mut rng);
                    }
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|seed| scope.spawn(move || work(seed))).collect();
        // All end, even if one fails.
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        // Relaxed: closing orders it.
        world.done.store(true, Ordering::Relaxed);
        world.allocator.close();
        reclaimer.join().expect("the reclaimer does not fail");
        collector.join().expect("the collector does not fail");
        results.into_iter().for_each(|result| result.expect("no worker fails"));
    });
    world.check_end();
}

#[test]
fn least_recently_used_with_discards() {
    stress(Config::default().cpus(CPUS).discard(true));
}

#[test]
fn first_in_first_out_without_recycling() {
    let policy = Policy::Fifo;
    stress(Config::default().cpus(CPUS).policy(policy).recycle_prio_chain(false));
}

#[test]
fn without_cells_and_few_open_buckets() {
    stress(Config::default().cpus(0).open_buckets(3).policy(Policy::Random));
}
