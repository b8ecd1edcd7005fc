//! One device of a set: its table, its free lists, and who waits for them.

use crate::ageing::AgeClock;
use crate::ahead::Ahead;
use crate::bell::Bell;
use crate::config::{Config, DeviceTable};
use crate::counter::{Available, Counter};
use crate::error::{Cause, Error};
use crate::reserves::{Found, Free, Reserves};
use crate::sync::{Arc, AtomicU32, AtomicU64, Mutex, Ordering, fence};
use crate::table::Table;
use crate::wait::Waits;
use tierce_core::{BucketIndex, DeviceIndex, Geometry, Mark, Reserve, Sizes, Snapshot};

/// The buckets that hold gens and prios on the device, head first.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// Named by the newest durable journal entry.
    pub(crate) live: Vec<BucketIndex>,
    /// Being written.
    pub(crate) writing: Vec<BucketIndex>,
}

/// Why nothing more is handed out.
#[derive(Debug)]
enum End {
    Closed,
    Failed(Cause),
}

/// One device.
#[derive(Debug)]
pub(crate) struct Device {
    index: DeviceIndex,
    geometry: Geometry,
    units: Units,
    sizes: Sizes,
    journal_buckets: u32,
    table: Table,
    reserves: Reserves,
    pub(crate) waits: Waits,
    pub(crate) available: Available,
    pub(crate) chain: Mutex<Chain>,
    /// The reclaimer sleeps on this.
    pub(crate) bell: Bell,
    /// Free buckets that found no place on a list, and buckets set aside because a foreign pin
    /// is on them. The reclaimer offers them again.
    pub(crate) leftovers: Mutex<Vec<BucketIndex>>,
    /// Buckets that skipped the prio write and have to be discarded before they are free.
    undiscarded: Mutex<Vec<BucketIndex>>,
    /// Buckets whose gen runs ahead of the durable one.
    pub(crate) ahead: Ahead,
    /// Held during a pass if garbage collection marks in place, which waits for it.
    pub(crate) pass: Mutex<()>,
    /// 1 while a bucket among the leftovers may be there because of a foreign pin.
    set_aside: AtomicU32,
    /// What the reclaimer sleeps for, see [`Hunger`].
    hunger: AtomicU32,
    /// 1 since somebody found nothing free.
    demand: AtomicU32,
    /// 0 while the device is in use.
    ended: AtomicU32,
    end: Mutex<Option<End>>,
    pub(crate) counters: DeviceCounters,
}

/// The unit in which the words count sectors, and what it makes of the geometry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    /// A unit is `1 << shift` sectors.
    pub(crate) shift: u32,
    /// Units of a bucket.
    pub(crate) bucket: u32,
    /// Units of a block, rounded up.
    pub(crate) block: u32,
}

impl Units {
    fn of(geometry: &Geometry) -> Self {
        Self {
            shift: geometry.sector_shift(),
            bucket: geometry.units(geometry.bucket_sectors()),
            block: geometry.units(geometry.block_sectors()),
        }
    }
}

/// What is counted per device.
#[derive(Debug)]
pub(crate) struct DeviceCounters {
    pub(crate) allocs: [Counter; Reserve::COUNT],
    pub(crate) alloc_fails: Counter,
    pub(crate) alloc_waits: Counter,
    pub(crate) foreign_pins: Counter,
    pub(crate) invalidated: Counter,
    pub(crate) prio_writes: Counter,
    pub(crate) discards: Counter,
    pub(crate) sectors_written: Counter,
    /// Buckets invalidated and not free yet: in free_inc, in a batch, on their way to a list.
    pub(crate) free_inc: AtomicU64,
}

impl DeviceCounters {
    fn new(cells: usize) -> Self {
        let counter = || Counter::new(cells);
        Self {
            allocs: core::array::from_fn(|_| counter()),
            alloc_fails: counter(),
            alloc_waits: counter(),
            foreign_pins: counter(),
            // Only the reclaimer counts these.
            invalidated: Counter::new(1),
            prio_writes: Counter::new(1),
            discards: Counter::new(1),
            sectors_written: counter(),
            free_inc: AtomicU64::new(0),
        }
    }
}

impl Device {
    /// A device in which nothing can be invalidated yet: every bucket is metadata until the
    /// pointers that survived have been observed.
    pub(crate) fn new(
        index: DeviceIndex,
        table: DeviceTable,
        config: &Config,
        clock: Arc<AgeClock>,
    ) -> Self {
        let cells = config.cpus.max(1) as usize;
        let geometry = table.geometry;
        let words = (0..).zip(&table.gens).map(|(b, &(prio, gen_))| {
            let word = Snapshot::default().with_gen(gen_).with_last_gc(gen_).with_prio(prio);
            let usable = geometry.contains(BucketIndex::new(b));
            if usable { word.with_mark(Mark::Metadata) } else { word }
        });
        Self {
            index,
            units: Units::of(&geometry),
            geometry,
            journal_buckets: table.journal_buckets,
            table: Table::new(words, clock),
            reserves: Reserves::new(&table.sizes, config.cpus),
            sizes: table.sizes,
            waits: Waits::new(),
            available: Available::new(cells, geometry.nbuckets()),
            chain: Mutex::new(Chain { live: table.chain, writing: Vec::new() }),
            bell: Bell::new(),
            leftovers: Mutex::new(Vec::new()),
            undiscarded: Mutex::new(Vec::new()),
            ahead: Ahead::new(),
            pass: Mutex::new(()),
            set_aside: AtomicU32::new(0),
            hunger: AtomicU32::new(0),
            demand: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            end: Mutex::new(None),
            counters: DeviceCounters::new(cells),
        }
    }

    pub(crate) fn index(&self) -> DeviceIndex {
        self.index
    }

    #[inline]
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    #[inline]
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    pub(crate) fn reserves(&self) -> &Reserves {
        &self.reserves
    }

    /// Whether `bucket` is one of the journal's.
    pub(crate) fn is_journal(&self, bucket: BucketIndex) -> bool {
        let first = self.geometry.first_bucket().get();
        (first..first + self.journal_buckets).contains(&bucket.get())
    }

    /// `sectors` in the units of the words, rounded up.
    pub(crate) fn units(&self, sectors: u32) -> u32 {
        self.geometry.units(sectors)
    }

    /// A whole bucket in the units of the words.
    pub(crate) fn bucket_units(&self) -> u32 {
        self.units.bucket
    }

    /// The unit in which the words count sectors.
    #[inline]
    pub(crate) fn sector_units(&self) -> Units {
        self.units
    }

    /// Whether nothing more is handed out.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        // Relaxed: the cause is under the lock.
        self.ended.load(Ordering::Relaxed) != 0
    }

    /// The error that everybody gets once the device has ended.
    pub(crate) fn check(&self) -> Result<(), Error> {
        // Relaxed: the cause is under the lock.
        if self.ended.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        match &*self.end.lock() {
            None => Ok(()),
            Some(End::Closed) => Err(Error::Closed),
            Some(End::Failed(cause)) => {
                Err(Error::DeviceFailed { device: self.index, cause: cause.clone() })
            }
        }
    }

    /// Hands out nothing more; everybody who waits is told why. The first end is kept.
    fn end_with(&self, end: End) {
        self.end.lock().get_or_insert(end);
        // Relaxed: the cause is under the lock.
        self.ended.store(1, Ordering::Relaxed);
        self.waits.close();
        self.bell.ring();
    }

    pub(crate) fn fail(&self, cause: Cause) {
        self.end_with(End::Failed(cause));
    }

    pub(crate) fn close(&self) {
        self.end_with(End::Closed);
    }

    /// Takes a free bucket and makes it the caller's. `None` if nothing is free.
    pub(crate) fn take(&self, reserve: Reserve) -> Option<(Free, Snapshot)> {
        loop {
            let Found { free, moved, spare } = match self.reserves.pop(reserve) {
                Ok(found) => found,
                Err(_) => {
                    self.feel_demand();
                    return None;
                }
            };
            if let Some(spare) = spare {
                self.put_back(Free::none(spare));
            }
            if moved {
                self.carried();
            }
            if self.reserves.is_low() {
                self.ring_if_hungry(Hunger::Room);
            }
            if let Some(word) = self.claim(free.bucket, reserve) {
                return Some((free, word));
            }
        }
    }

    /// Turns a bucket from a free list into one in use; sets it aside if it is pinned twice.
    pub(crate) fn claim(&self, bucket: BucketIndex, reserve: Reserve) -> Option<Snapshot> {
        match self.table.allocate(bucket, reserve.purpose(), self.bucket_units()) {
            Ok(word) => {
                self.available.change(-1);
                self.counters.allocs[reserve.as_usize()].add(1);
                Some(word)
            }
            Err(_pinned) => {
                self.counters.foreign_pins.add(1);
                self.set_aside(bucket);
                None
            }
        }
    }

    /// Keeps a free bucket away from the lists until the foreign pin on it is gone.
    pub(crate) fn set_aside(&self, bucket: BucketIndex) {
        self.leftovers.lock().push(bucket);
        // Relaxed: ordered by the fence.
        self.set_aside.store(1, Ordering::Relaxed);
        // SeqCst: of this fence and the one in `pin_dropped` one comes first: either the look
        // below finds the pin gone, or whoever drops it sees that a bucket was set aside.
        fence(Ordering::SeqCst);
        if self.table.peek(bucket).pin_count() == 1 {
            self.bell.ring();
        }
    }

    /// A guard's pin was dropped, and `word` is what that left.
    pub(crate) fn pin_dropped(&self, word: Snapshot) {
        if word.pin_count() != 1 {
            return; // a free bucket with no other foreign pin has exactly its own
        }
        // SeqCst: pairs with the fence in `set_aside`.
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the fence.
        if self.set_aside.load(Ordering::Relaxed) != 0 {
            self.bell.ring();
        }
    }

    /// All leftovers, to be offered again or set aside again.
    pub(crate) fn take_leftovers(&self) -> Vec<BucketIndex> {
        let mut leftovers = self.leftovers.lock();
        // Relaxed: stored under the lock by the one reclaimer; a bucket set aside right now
        // is either taken below or stores 1 after this.
        self.set_aside.store(0, Ordering::Relaxed);
        core::mem::take(&mut *leftovers)
    }

    /// Makes a bucket free that has just become safe to reuse.
    pub(crate) fn release(&self, bucket: BucketIndex) -> Result<Reserve, BucketIndex> {
        // Before those who wait: without its reserve the prio write could make nothing free.
        if self.reserves.refill_prio(bucket) {
            self.offered(Reserve::Prio);
            return Ok(Reserve::Prio);
        }
        if self.waits.hand_over(Free::none(bucket)).is_ok() {
            return Ok(Reserve::None);
        }
        let reserve = self.reserves.release(bucket)?;
        self.offered(reserve);
        Ok(reserve)
    }

    /// Makes a bucket free that was taken in vain; its gen has not moved.
    pub(crate) fn give_back(&self, free: Free) {
        self.table.give_back(free.bucket);
        self.available.change(1);
        self.put_back(free);
    }

    /// Keeps a free bucket that found all lists full; the reclaimer offers it again.
    pub(crate) fn keep(&self, bucket: BucketIndex) {
        self.leftovers.lock().push(bucket);
        self.bell.ring();
    }

    /// A bucket is free but for its discard, which the reclaimer asks for.
    pub(crate) fn discard_later(&self, bucket: BucketIndex) {
        self.undiscarded.lock().push(bucket);
        self.bell.ring();
    }

    /// The next bucket for [`discard_later`](Self::discard_later), oldest first.
    pub(crate) fn next_undiscarded(&self) -> Option<BucketIndex> {
        let mut undiscarded = self.undiscarded.lock();
        if undiscarded.is_empty() { None } else { Some(undiscarded.remove(0)) }
    }

    /// How many buckets a user of `reserve` could be given, at no particular instant: for
    /// ranking devices.
    pub(crate) fn usable_hint(&self, reserve: Reserve) -> usize {
        let own = if reserve == Reserve::None { 0 } else { self.reserves.len_hint(reserve) };
        self.reserves.len_hint(Reserve::None) + own
    }

    /// Puts a bucket from a free list on one again.
    pub(crate) fn put_back(&self, free: Free) {
        if self.waits.hand_over(free).is_ok() {
            return;
        }
        match self.reserves.give_back(free) {
            Ok(reserve) => self.offered(reserve),
            Err(bucket) => self.keep(bucket),
        }
    }

    /// A pinned, dead bucket of the old prio chain refills the prio reserve, or is left to
    /// invalidation if that is full. Returns which.
    pub(crate) fn recycle(&self, bucket: BucketIndex) -> bool {
        if self.reserves.len_hint(Reserve::Prio) < self.sizes.prio as usize {
            self.table.refresh(bucket);
        }
        let refilled = self.reserves.refill_prio(bucket);
        if refilled {
            self.offered(Reserve::Prio);
        } else {
            self.table.unpin(bucket, 1);
        }
        refilled
    }

    /// Nobody holds prio writes back any more.
    pub(crate) fn unblocked(&self) {
        // SeqCst: pairs with the fence in `stay_hungry`: either the reclaimer's look after it
        // finds no holder, or we see that it is hungry.
        fence(Ordering::SeqCst);
        self.ring_if_hungry(Hunger::Unblocked);
    }

    /// A bucket was put on `reserve`'s list: whoever waits is served, and the prio write goes
    /// on if it was short of buckets.
    pub(crate) fn offered(&self, reserve: Reserve) {
        if self.waits.somebody_waits() {
            self.serve(Some(reserve));
        }
        // The fence in `somebody_waits` pairs with the one in `stay_hungry`.
        self.ring_if_hungry(Hunger::Buckets);
    }

    /// Buckets were carried from one place to another: whoever looked meanwhile and found
    /// nothing is served, or looks again. (The spare one may have been handed over, so that
    /// putting it back served nobody else.)
    fn carried(&self) {
        if self.waits.somebody_waits() {
            self.serve(None);
        }
        // Ordered by the fence in `somebody_waits`, as in `offered`.
        self.ring_if_hungry(Hunger::Buckets);
    }

    /// Hands what is free to those who wait.
    pub(crate) fn serve(&self, offered: Option<Reserve>) {
        self.waits.serve(offered, |reserve| {
            let found = self.reserves.pop(reserve).ok()?;
            if let Some(spare) = found.spare {
                // Its place was taken while it was carried; the reclaimer offers it again.
                self.leftovers.lock().push(spare);
                self.bell.ring();
            }
            Some(found.free)
        });
    }

    /// Somebody found nothing free: the reclaimer should hurry.
    pub(crate) fn feel_demand(&self) {
        // Relaxed: tested first, so that it is rarely written; the bell orders it.
        if self.demand.load(Ordering::Relaxed) == 0 {
            self.demand.store(1, Ordering::Relaxed);
            self.bell.ring();
        } else if self.hunger.load(Ordering::Relaxed) != 0 {
            // The demand is an old one that the reclaimer has not come to take: it sleeps.
            self.hunger.store(0, Ordering::Relaxed);
            self.bell.ring();
        }
    }

    /// Whether somebody found nothing free, or waits, since this was last asked.
    pub(crate) fn take_demand(&self) -> bool {
        // Relaxed: the bell orders it; demand that comes right after is met by the next look.
        let demand = self.demand.swap(0, Ordering::Relaxed) != 0;
        demand || self.waits.len() > 0
    }

    /// The reclaimer is about to sleep; it looks once more after this.
    pub(crate) fn stay_hungry(&self, hunger: Hunger) {
        // Relaxed: ordered by the fence.
        self.hunger.store(hunger as u32, Ordering::Relaxed);
        // SeqCst: of this fence and the one in `somebody_waits` one comes first: either the
        // look after this finds the bucket, or whoever put it there sees that we are hungry.
        fence(Ordering::SeqCst);
    }

    fn ring_if_hungry(&self, hunger: Hunger) {
        // Relaxed: ordered by the caller's fence where it matters. A taker has none: it may
        // ring one bucket late, and whoever finds nothing rings in any case.
        if self.hunger.load(Ordering::Relaxed) == hunger as u32 {
            self.hunger.store(0, Ordering::Relaxed);
            self.bell.ring();
        }
    }
}

/// What a sleeping reclaimer wants.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Hunger {
    /// Room on the free lists: it has buckets to release.
    Room = 1,
    /// Buckets for the prio write.
    Buckets = 2,
    /// That nobody holds the prio write back.
    Unblocked = 3,
}

#[cfg(all(test, not(tierce_loom)))]
mod tests {
    use super::*;
    use crate::wait::{PATIENCE, Turn};
    use std::task::Waker;

    /// If they came first and never gave back, no gen could ever become durable again.
    #[test]
    fn the_prio_write_comes_before_waiters_who_are_due() {
        let geometry = Geometry::new(64, 1, 128, 8).expect("a legal shape");
        let table = DeviceTable::empty(geometry);
        let device = Device::new(DeviceIndex::FIRST, table, &Config::default(), Arc::default());
        let waiter = device.waits.line_up(Reserve::None, Waker::noop());
        for _ in 0..PATIENCE {
            device.waits.serve(Some(Reserve::None), |_| None);
        }
        let [first, second] = [1, 2].map(BucketIndex::new);
        assert_eq!(device.release(first), Ok(Reserve::Prio));
        assert_eq!(waiter.poll(Waker::noop()), Turn::Wait);
        assert_eq!(device.release(second), Ok(Reserve::None));
        assert_eq!(waiter.poll(Waker::noop()), Turn::Bucket(Free::none(second)));
    }
}
