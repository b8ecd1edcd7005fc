//! Two small devices, their reclaimers, a collector and a few workers, and what must never be
//! seen of them.
//!
//! The invariants that are checked, by the same names as in tierce-lockfree's stress test:
//!
//! * I1: a pin on (bucket, gen) freezes the gen and the data.
//! * I2: exactly one invalidation wins: the gen at hand-out is the one before plus 1, or the
//!   same if the bucket was given back.
//! * I5: what an accepted optimistic read read is the data of its pointer.
//! * I6: what is handed out has a durable gen (all but the first life of a bucket).
//! * I9: a bucket has one owner at a time; in the end the buckets with pin 1 are those on lists.
//! * I10: nobody waits for ever: shuttle fails when all threads wait.
//! * I11, I12: extents do not overlap; the bucket of one in flight is pinned and has its gen.
//! * I13: when all is closed no pin is left.
//! * I14: dirty and metadata buckets, and the live prio chain, are never invalidated.
//! * I18: a bucket being discarded is neither free nor held.
//!
//! What the checks themselves remember is behind std's locks, which are never held over an
//! access that shuttle sees; so they add no schedules.

use shuttle::rand::Rng;
use shuttle::rand::rngs::ThreadRng;
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::thread;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen, Geometry, Mark, Reserve, Sizes};
use tierce_lockfree::{
    Allocation, Allocator, BucketRef, Config, DeviceTable, Extent, Marked, PrioWrite, Reclaimer,
    SectorRequest, Step, WritePoint,
};

/// Buckets of each device.
const NBUCKETS: u32 = 14;
/// Sectors of a bucket, and of a block.
const SECTORS: u32 = 8;
const BLOCK: u32 = 4;
const WHOLE: u16 = (1 << SECTORS) - 1;
/// Keys that are overwritten again and again.
const KEYS: u32 = 12;
/// Dirty and metadata keys kept at a time, at most.
const KEPT: usize = 2;

/// How much is done in one execution.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Devices, each with a reclaimer.
    pub devices: u8,
    /// Threads that allocate, write, read and pin.
    pub workers: u32,
    /// What each of them does.
    pub operations: u32,
}

/// Where the data of a key lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    pointer: BucketRef,
    offset: u32,
    sectors: u32,
    stamp: u64,
    kind: Mark,
}

/// What is known about a bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    gen_: Gen,
    /// The gen in the newest durable table.
    durable: Gen,
    /// How many gens of it were handed out.
    lives: u32,
    /// It was given back with this gen, or never handed out.
    returned: bool,
    /// Who holds the whole of it, or extents.
    holders: u32,
    /// The sectors handed out, one bit each.
    covered: u16,
}

impl Life {
    /// The bucket is handed out, or seen for the first time since it was.
    fn begin(&mut self, pointer: BucketRef) {
        assert_eq!(self.holders, 0, "I9: {pointer} was handed out while held: {self:?}");
        if pointer.gen_() == self.gen_ {
            assert!(self.returned, "I2: {pointer} was handed out twice: {self:?}");
        } else {
            assert_eq!(pointer.gen_(), self.gen_.next(), "I2: {pointer} skipped a gen: {self:?}");
            self.lives += 1;
        }
        let safe = self.lives == 1 || self.durable == pointer.gen_();
        assert!(safe, "I6: {pointer} was handed out and is not durable: {self:?}");
        (self.gen_, self.returned, self.covered) = (pointer.gen_(), false, 0);
    }
}

struct World {
    allocator: Arc<Allocator>,
    /// One stamp per sector: the data.
    data: Vec<AtomicU64>,
    lives: std::sync::Mutex<Vec<Life>>,
    index: Mutex<BTreeMap<u32, Entry>>,
    /// Keys of dirty data and metadata, oldest first.
    kept: std::sync::Mutex<VecDeque<u32>>,
    stamps: std::sync::atomic::AtomicU64,
    done: AtomicBool,
}

/// Runs one execution of `work` on an allocator with these settings, and checks all there is.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn run(config: Config, work: Work) {
    let geometry = Geometry::new(NBUCKETS, 1, SECTORS, BLOCK).expect("a legal shape");
    assert_eq!(geometry.prio_buckets(), 1);
    let mut sizes = Sizes::tierce(&geometry, 0);
    (sizes.btree, sizes.prio, sizes.moving_gc, sizes.none) = (1, 1, 1, 4);
    (sizes.free_inc, sizes.candidates) = (3, 6);
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let tables = vec![table; work.devices.into()];
    let (allocator, reclaimers) = Allocator::start(config, tables).expect("legal").finish();
    let world = World::new(allocator, work.devices);
    thread::scope(|scope| {
        let world = &world;
        let background = reclaimers.into_iter().map(|r| scope.spawn(move || world.reclaim(r)));
        let mut background = background.collect::<Vec<_>>();
        background.push(scope.spawn(|| world.collect()));
        let workers = (0..work.workers).map(|_| {
            scope.spawn(|| {
                let mut rng = shuttle::rand::thread_rng();
                (0..work.operations).for_each(|_| world.operate(&mut rng));
            })
        });
        workers.collect::<Vec<_>>().into_iter().for_each(|worker| worker.join().expect("done"));
        // SeqCst: shuttle knows no other.
        world.done.store(true, Ordering::SeqCst);
        world.allocator.close();
        background.into_iter().for_each(|thread| thread.join().expect("done"));
    });
    world.check_end(work.devices);
}

fn at(bucket: BucketId) -> usize {
    usize::from(bucket.device().get()) * NBUCKETS as usize + bucket.bucket().as_usize()
}

/// The devices and the index.
impl World {
    fn new(allocator: Arc<Allocator>, devices: u8) -> Self {
        let buckets = usize::from(devices) * NBUCKETS as usize;
        let unknown = Life { returned: true, ..Life::default() };
        Self {
            allocator,
            data: (0..buckets * SECTORS as usize).map(|_| AtomicU64::new(0)).collect(),
            lives: std::sync::Mutex::new(vec![unknown; buckets]),
            index: Mutex::default(),
            kept: std::sync::Mutex::default(),
            stamps: std::sync::atomic::AtomicU64::new(1),
            done: AtomicBool::new(false),
        }
    }

    fn sectors(&self, bucket: BucketId, offset: u32, sectors: u32) -> &[AtomicU64] {
        &self.data[at(bucket) * SECTORS as usize + offset as usize..][..sectors as usize]
    }

    fn write(&self, bucket: BucketId, offset: u32, sectors: u32, stamp: u64) {
        for sector in self.sectors(bucket, offset, sectors) {
            // SeqCst: shuttle knows no other.
            sector.store(stamp, Ordering::SeqCst);
        }
    }

    fn holds(&self, entry: &Entry) -> bool {
        let sectors = self.sectors(entry.pointer.id(), entry.offset, entry.sectors);
        // SeqCst: shuttle knows no other.
        sectors.iter().all(|sector| sector.load(Ordering::SeqCst) == entry.stamp)
    }

    fn stamp(&self) -> u64 {
        // Relaxed: only has to differ; one thread runs at a time.
        self.stamps.fetch_add(1, Ordering::Relaxed)
    }

    fn word(&self, bucket: BucketId) -> tierce_core::Snapshot {
        self.allocator.snapshot(bucket).expect("a bucket of the set")
    }

    fn life<T>(&self, bucket: BucketId, change: impl FnOnce(&mut Life) -> T) -> T {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut lives[at(bucket)])
    }

    fn insert(&self, key: u32, entry: Entry) {
        self.index.lock().expect("nobody failed").insert(key, entry);
    }

    fn keys_kept(&self) -> std::sync::MutexGuard<'_, VecDeque<u32>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Inserts a key that is never overwritten.
    fn keep(&self, entry: Entry) {
        let key = KEYS + entry.stamp as u32;
        self.insert(key, entry);
        self.keys_kept().push_back(key);
    }
}

/// What the workers do.
impl World {
    fn operate(&self, rng: &mut ThreadRng) {
        match rng.gen_range(0..20) {
            0..8 => self.write_extent(rng),
            8..11 => self.read(rng),
            11..14 => self.pin(rng),
            14..17 => self.take_whole(rng),
            17 => self.take_node(),
            18 => self.let_go(),
            _ => self.allocator.account_io(SECTORS),
        }
        if self.keys_kept().len() > KEPT {
            self.let_go();
        }
    }

    fn write_extent(&self, rng: &mut ThreadRng) {
        let point = WritePoint::new(rng.gen_range(0..3));
        let request = SectorRequest::new(rng.gen_range(1..=6)).write_point(point);
        let extent = self.allocator.alloc_sectors_until(&request, None).expect("in use");
        let (pointer, offset, sectors) = (extent.bucket_ref(), extent.offset(), extent.sectors());
        self.check_in_flight(&extent);
        let bits = ((1 << sectors) - 1) << offset;
        self.life(pointer.id(), |life| {
            if life.returned || life.gen_ != pointer.gen_() {
                life.begin(pointer);
            }
            assert_eq!(life.covered & bits, 0, "I11: an extent overlaps: {pointer}, {life:?}");
            life.covered |= bits;
            life.holders += 1;
        });
        let stamp = self.stamp();
        self.write(pointer.id(), offset, sectors, stamp);
        let entry = Entry { pointer, offset, sectors, stamp, kind: Mark::Reclaimable };
        if rng.gen_range(0..8) == 0 {
            extent.mark_dirty();
            self.keep(Entry { kind: Mark::Dirty, ..entry });
        } else {
            self.insert(rng.gen_range(0..KEYS), entry);
        }
        self.check_in_flight(&extent);
        self.life(pointer.id(), |life| life.holders -= 1);
        drop(extent);
    }

    fn check_in_flight(&self, extent: &Extent<'_>) {
        let word = self.word(extent.bucket_ref().id());
        let safe = word.pin_count() > 0 && word.gen_() == extent.bucket_ref().gen_();
        assert!(safe, "I12: {extent:?} in flight in {word:?}");
    }

    fn look_up(&self, rng: &mut ThreadRng) -> Option<Entry> {
        self.index.lock().expect("nobody failed").get(&rng.gen_range(0..KEYS)).copied()
    }

    fn read(&self, rng: &mut ThreadRng) {
        let read = self.allocator.begin_read();
        let Some(entry) = self.look_up(rng) else { return };
        let Some(open) = read.open(entry.pointer) else { return };
        let right = self.holds(&entry);
        if open.validate() {
            assert!(right, "I5: a read of {entry:?} was accepted, but read something else");
        }
    }

    fn pin(&self, rng: &mut ThreadRng) {
        let Some(entry) = self.look_up(rng) else { return };
        let Some(pin) = self.allocator.pin(entry.pointer) else { return };
        let word = self.word(entry.pointer.id());
        assert_eq!(word.gen_(), entry.pointer.gen_(), "I1: the gen moved under {pin:?}");
        assert!(self.holds(&entry), "I1: data of {entry:?} changed under a pin");
    }

    fn take_whole(&self, rng: &mut ThreadRng) {
        let reserve = if rng.gen_bool(0.5) { Reserve::None } else { Reserve::MovingGc };
        let devices = self.allocator.stats().devices.len() as u8;
        let device = DeviceIndex::new(rng.gen_range(0..devices));
        let taken = match rng.gen_range(0..4) {
            0 => self.allocator.try_alloc(reserve),
            1 => shuttle::future::block_on(self.allocator.alloc_on(device, reserve)).map(Some),
            _ => self.allocator.alloc_until(device, reserve, None).map(Some),
        };
        let Some(allocation) = taken.expect("in use") else { return };
        self.hold(&allocation);
        let pointer = allocation.bucket_ref();
        if rng.gen_bool(0.3) {
            self.life(pointer.id(), |life| (life.holders, life.returned) = (0, true));
            drop(allocation);
            return;
        }
        let entry = self.fill(pointer, Mark::Reclaimable);
        self.insert(rng.gen_range(0..KEYS), entry);
        self.life(pointer.id(), |life| life.holders = 0);
        allocation.written();
    }

    /// A node of the index: metadata.
    fn take_node(&self) {
        let node = self.allocator.try_alloc(Reserve::Btree).expect("in use");
        let Some(allocation) = node else { return };
        self.hold(&allocation);
        let pointer = allocation.bucket_ref();
        self.keep(self.fill(pointer, Mark::Metadata));
        self.life(pointer.id(), |life| life.holders = 0);
        allocation.written();
    }

    fn hold(&self, allocation: &Allocation<'_>) {
        let pointer = allocation.bucket_ref();
        self.take(pointer);
        assert!(self.word(pointer.id()).pin_count() > 0, "I9: {pointer} is held, not pinned");
    }

    fn take(&self, pointer: BucketRef) {
        self.life(pointer.id(), |life| {
            life.begin(pointer);
            (life.holders, life.covered) = (1, WHOLE);
        });
    }

    fn fill(&self, pointer: BucketRef, kind: Mark) -> Entry {
        let stamp = self.stamp();
        self.write(pointer.id(), 0, SECTORS, stamp);
        Entry { pointer, offset: 0, sectors: SECTORS, stamp, kind }
    }

    /// The oldest of the kept keys is cleaned, or freed.
    fn let_go(&self) {
        let Some(key) = self.keys_kept().pop_front() else { return };
        let mut index = self.index.lock().expect("nobody failed");
        let entry = index[&key];
        self.check_kept(&entry);
        index.remove(&key);
        drop(index);
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

/// The collector and the reclaimers.
impl World {
    fn collect(&self) {
        let mut rng = shuttle::rand::thread_rng();
        // SeqCst: shuttle knows no other.
        while self.allocator.wait_gc_due(None) && !self.done.load(Ordering::SeqCst) {
            let gc = self.allocator.begin_gc().expect("there is one collector");
            self.index.lock().expect("nobody failed").retain(|key, entry| {
                let marked = gc.mark(entry.pointer, entry.sectors, entry.kind);
                assert!(marked == Marked::Live || *key < KEYS, "I14: {entry:?} is {marked:?}");
                marked == Marked::Live
            });
            if rng.gen_range(0..8) != 0 {
                gc.finish();
            } // else it is abandoned, and due again
        }
    }

    fn reclaim(&self, mut reclaimer: Reclaimer) {
        let mut live = None;
        loop {
            match reclaimer.step() {
                Step::Ended => return,
                Step::Wait(_) => {
                    reclaimer.park(None);
                }
                Step::Discard(bucket) => {
                    let bucket = BucketId::new(reclaimer.device(), bucket);
                    let holders = self.life(bucket, |life| life.holders);
                    let pins = self.word(bucket).pin_count();
                    assert_eq!((pins, holders), (1, 0), "I18: {bucket} is in use");
                    self.write(bucket, 0, SECTORS, 0);
                    reclaimer.discarded();
                }
                Step::PrioWrite(write) => self.write_prios(&mut reclaimer, write, &mut live),
            }
        }
    }

    fn write_prios(
        &self,
        reclaimer: &mut Reclaimer,
        mut write: PrioWrite,
        live: &mut Option<BucketRef>,
    ) {
        let device = reclaimer.device();
        let head = BucketId::new(device, write.chain()[0]);
        let head = BucketRef::new(head, self.word(head).gen_());
        self.take(head);
        let mut gens = Vec::new();
        write.encode(0, |_, gen_| gens.push(gen_));
        for (bucket, gen_) in (0..).map(BucketIndex::new).zip(gens) {
            self.life(BucketId::new(device, bucket), |life| life.durable = gen_);
        }
        if let Some(old) = live.replace(head) {
            let word = self.word(old.id());
            // Between a collection's clearing of marks in place and its end it has none.
            let marked =
                word.mark() == Mark::Metadata || !self.allocator.config().invalidate_during_gc;
            let intact = word.gen_() == old.gen_() && marked;
            assert!(intact, "I14: {old} of the live prio chain is {word:?}");
            self.life(old.id(), |life| (life.holders, life.returned) = (0, true));
        }
        assert!(write.confirm(), "nobody holds it back");
        reclaimer.prio_durable(write);
    }

    /// When all threads have ended.
    fn check_end(&self, devices: u8) {
        for &key in self.keys_kept().iter() {
            self.check_kept(&self.index.lock().expect("nobody failed")[&key]);
        }
        for device in (0..devices).map(DeviceIndex::new) {
            let stats = &self.allocator.stats().devices[device.as_usize()];
            let listed = stats.free.iter().sum::<u64>() + stats.free_inc + stats.set_aside;
            let mut pinned = 0;
            for bucket in (1..NBUCKETS).map(|b| BucketId::new(device, BucketIndex::new(b))) {
                let word = self.word(bucket);
                assert!(word.pin_count() <= 1, "I13: a pin is left on {bucket}: {word:?}");
                pinned += u64::from(word.pin_count());
            }
            assert_eq!(pinned, listed, "I9: on a list, and only there, a bucket has pin 1");
        }
    }
}
