//! One device of a set: its table, its free lists, and who waits for them.

mod aside;
mod stock;
mod wake;

use crate::ageing::AgeClock;
use crate::ahead::Ahead;
use crate::attention::{Attention, ENDED, OFFERED, ROOM, WAITING, WATCHED};
use crate::bell::Bell;
use crate::cells::Pushed;
use crate::config::{Config, DeviceTable};
use crate::counter::{Available, Counter};
use crate::error::{Cause, Error};
use crate::events::event;
use crate::latency::Histogram;
use crate::pile::Pile;
use crate::reserves::{Found, Free, Reserves};
use crate::section::Section;
use crate::sync::{Arc, AtomicU32, AtomicU64, Mutex, Ordering};
use crate::table::Table;
use crate::victims::uses::Uses;
use crate::wait::Waits;
use crate::watch::Watches;
use std::collections::VecDeque;
use tierce_core::{BucketIndex, DeviceIndex, Geometry, Mark, Reserve, Sizes, Snapshot, broken};
pub(crate) use wake::Hunger;

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
    attention: Arc<Attention>,
    pub(crate) waits: Waits,
    /// Those of the set.
    watches: Arc<Watches>,
    pub(crate) available: Available,
    pub(crate) chain: Mutex<Chain>,
    /// The reclaimer sleeps on this.
    pub(crate) bell: Bell,
    /// Durable buckets that the lists have no room for, see `stock.rs`.
    stock: Mutex<VecDeque<BucketIndex>>,
    /// Free buckets that found no place on a list. The reclaimer offers them again.
    pub(crate) leftovers: Pile,
    /// Free buckets that no list may have, as a foreign pin was on them; likewise.
    pub(crate) set_aside: Pile,
    /// Buckets that skipped the prio write and have to be discarded before they are free.
    undiscarded: Mutex<VecDeque<BucketIndex>>,
    /// Buckets whose gen runs ahead of the durable one.
    pub(crate) ahead: Ahead,
    /// Held during a pass if garbage collection marks in place, which waits for it.
    pub(crate) pass: Mutex<()>,
    /// 1 since somebody found nothing free.
    demand: AtomicU32,
    /// Why [`ENDED`] is set.
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
    /// So many sectors, rounded up.
    #[inline]
    pub(crate) fn of(self, sectors: u32) -> u32 {
        // Mostly 0, which costs less to ask than to shift.
        if self.shift == 0 { sectors } else { sectors.div_ceil(1 << self.shift) }
    }

    /// The sectors of so many units.
    #[inline]
    pub(crate) fn sectors(self, units: u32) -> u32 {
        if self.shift == 0 { units } else { units << self.shift }
    }

    fn of_device(geometry: &Geometry) -> Self {
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
    pub(crate) alloc_fails: Counter,
    pub(crate) alloc_waits: Counter,
    /// How long they waited.
    pub(crate) wait_times: Histogram,
    /// From a table being encoded to its being durable.
    pub(crate) write_times: Histogram,
    /// Of the policy's passes.
    pub(crate) pass_times: Histogram,
    pub(crate) foreign_pins: Counter,
    pub(crate) invalidated: Counter,
    pub(crate) prio_writes: Counter,
    pub(crate) discards: Counter,
    /// Released without, because free space was short.
    pub(crate) discards_skipped: Counter,
    pub(crate) sectors_written: Counter,
    /// Buckets invalidated and not free yet: in free_inc, in a batch, on their way to a list.
    pub(crate) free_inc: AtomicU64,
}

impl DeviceCounters {
    fn new(cpus: usize) -> Self {
        let counter = || Counter::new(cpus);
        Self {
            alloc_fails: counter(),
            alloc_waits: counter(),
            wait_times: Histogram::new(),
            write_times: Histogram::new(),
            pass_times: Histogram::new(),
            foreign_pins: Counter::new(0),
            // Only the reclaimer counts the others.
            invalidated: Counter::new(0),
            prio_writes: Counter::new(0),
            discards: Counter::new(0),
            discards_skipped: Counter::new(0),
            sectors_written: counter(),
            free_inc: AtomicU64::new(0),
        }
    }
}

impl Device {
    /// A device in which nothing can be invalidated yet: every bucket is metadata until the
    /// pointers that survived have been observed. `clock` is at the first age epoch.
    pub(crate) fn new(
        index: DeviceIndex,
        table: DeviceTable,
        config: &Config,
        watches: Arc<Watches>,
        clock: Arc<AgeClock>,
    ) -> Self {
        let cpus = config.cpus as usize;
        let section = config.restartable.then(|| Section::find(cpus)).flatten();
        let attention = Arc::new(Attention::new(section));
        let geometry = table.geometry;
        let mut words = table.gens.into_words();
        for bucket in (0..geometry.first_bucket().get()).map(BucketIndex::new) {
            let word = words.peek(bucket).unwrap_or_default();
            words.set_exclusive(bucket, word.with_mark(Mark::None));
        }
        // Whatever the policy: it can be changed.
        let uses = match config.lru_sample {
            0 => Uses::none(),
            _ => Uses::of(geometry.nbuckets()),
        };
        Self {
            index,
            units: Units::of_device(&geometry),
            geometry,
            journal_buckets: table.journal_buckets,
            table: Table::of(words, clock).counting(uses),
            reserves: Reserves::new(&table.sizes, config.cpus, Arc::clone(&attention)),
            sizes: table.sizes,
            waits: Waits::new(Arc::clone(&attention)),
            attention,
            watches,
            available: Available::new(cpus, geometry.nbuckets()),
            chain: Mutex::new(Chain { live: table.chain, writing: Vec::new() }),
            bell: Bell::new(),
            stock: Mutex::new(VecDeque::new()),
            leftovers: Pile::default(),
            set_aside: Pile::default(),
            undiscarded: Mutex::new(VecDeque::new()),
            ahead: Ahead::new(),
            pass: Mutex::new(()),
            demand: AtomicU32::new(0),
            end: Mutex::new(None),
            counters: DeviceCounters::new(cpus),
        }
    }

    #[inline]
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

    /// Those of the set.
    pub(crate) fn watches(&self) -> &Arc<Watches> {
        &self.watches
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
        self.attention().now() & ENDED != 0
    }

    #[inline]
    pub(crate) fn attention(&self) -> &Attention {
        &self.attention
    }

    /// Somebody watches the free lists from now on, or nobody any more. Called under the lock of
    /// those who do.
    pub(crate) fn set_watched(&self, watched: bool) {
        if watched {
            self.attention().set(WATCHED);
        } else {
            self.attention().clear(WATCHED);
        }
    }

    /// The error that everybody gets once the device has ended.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.has_ended() { self.why_ended() } else { Ok(()) }
    }

    #[cold]
    fn why_ended(&self) -> Result<(), Error> {
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
        self.attention().raise(ENDED);
        if !broken!("end_unannounced") {
            self.waits.close();
        }
        self.watches.wake_all();
        self.bell.ring();
    }

    pub(crate) fn fail(&self, cause: Cause) {
        self.end_with(End::Failed(cause));
    }

    pub(crate) fn close(&self) {
        self.end_with(End::Closed);
    }

    /// Takes a free bucket and makes it the caller's. `None` if nothing is free; what was free
    /// may have gone to those who wait.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    #[inline]
    pub(crate) fn take(&self, reserve: Reserve) -> Result<Option<(Free, Snapshot)>, Error> {
        // Nobody is in line while cells are near (`near.rs`, Invariant 3), which the section looks
        // at once more.
        if self.attention().is_near_and_open()
            && let Some(bucket) = self.reserves.pop_near_cells()
            && let Some(word) = self.claim(bucket, reserve)
        {
            return Ok(Some((Free::none(bucket), word)));
        }
        self.take_shared(reserve)
    }

    /// As [`take`](Self::take), wherever the bucket comes from.
    #[inline(never)]
    fn take_shared(&self, reserve: Reserve) -> Result<Option<(Free, Snapshot)>, Error> {
        let mut popped = self.reserves.pop_own_cells();
        if self.attention().now() & (WAITING | ENDED) == 0
            // Taken out: what cannot be claimed has been set aside.
            && let Some(bucket) = popped.take()
        {
            if let Some(word) = self.claim(bucket, reserve) {
                return Ok(Some((Free::none(bucket), word)));
            }
            if broken!("handed_on_set_aside") {
                popped = Some(bucket);
            }
        }
        self.take_elsewhere(reserve, popped)
    }

    /// The rest of [`take_shared`](Self::take_shared).
    #[cold]
    fn take_elsewhere(
        &self,
        reserve: Reserve,
        popped: Option<BucketIndex>,
    ) -> Result<Option<(Free, Snapshot)>, Error> {
        let mut popped = popped.map(Free::none);
        loop {
            if popped.is_none() {
                self.check()?;
                popped = self.pop(reserve);
            }
            let Some(free) = popped.take() else {
                if self.restock() {
                    continue;
                }
                self.feel_demand();
                return Ok(None);
            };
            if let Some(free) = self.keep_taken(free)?
                && let Some(word) = self.claim(free.bucket, reserve)
            {
                return Ok(Some((free, word)));
            }
        }
    }

    /// Whether a bucket just popped stays with who popped it: not if somebody is in line for it,
    /// or the device has ended.
    fn keep_taken(&self, free: Free) -> Result<Option<Free>, Error> {
        let seen = self.attention().now();
        if seen & ENDED != 0 {
            self.put_back(free);
            return self.check().map(|()| None);
        }
        if seen & WAITING == 0 || broken!("overtakes") {
            return Ok(Some(free));
        }
        Ok(self.waits.give_way(free).err())
    }

    /// As [`take`](Self::take), for the prio write: before those who wait, for without it nothing
    /// becomes free.
    pub(crate) fn take_first(&self, reserve: Reserve) -> Option<(Free, Snapshot)> {
        loop {
            let Some(free) = self.pop(reserve) else {
                self.feel_demand();
                return None;
            };
            if let Some(word) = self.claim(free.bucket, reserve) {
                return Some((free, word));
            }
        }
    }

    /// A bucket from wherever there is one.
    fn pop(&self, reserve: Reserve) -> Option<Free> {
        let Found { free, moved, spare } = self.reserves.pop(reserve).ok()?;
        if let Some(spare) = spare {
            self.put_back(Free::none(spare));
        }
        if moved {
            // Buckets were carried from one place to another: whoever looked meanwhile and found
            // nothing is served. (The spare one may have been handed over, so that putting it
            // back served nobody else.)
            self.offered();
        }
        if self.attention().now() & ROOM != 0 && self.reserves.is_low() {
            self.restock();
        }
        Some(free)
    }

    /// Turns a bucket from a free list into one in use; sets it aside if it is pinned twice.
    #[inline]
    pub(crate) fn claim(&self, bucket: BucketIndex, reserve: Reserve) -> Option<Snapshot> {
        match self.table.allocate(bucket, reserve.purpose(), self.bucket_units()) {
            Ok(word) => {
                self.available.allocated(reserve);
                event!(TRACE, "alloc", device = self.index, bucket = bucket, reserve = reserve);
                Some(word)
            }
            Err(_pinned) => {
                self.found_pinned(bucket);
                None
            }
        }
    }

    /// Makes a bucket free that was taken in vain; its gen has not moved.
    #[inline]
    pub(crate) fn give_back(&self, free: Free) {
        self.table.give_back(free.bucket);
        self.available.change(1);
        self.put_back(free);
    }

    /// A bucket is free but for its discard, which the reclaimer asks for.
    pub(crate) fn discard_later(&self, bucket: BucketIndex) {
        self.undiscarded.lock().push_back(bucket);
        self.bell.ring();
    }

    /// The next bucket for [`discard_later`](Self::discard_later), oldest first.
    pub(crate) fn next_undiscarded(&self) -> Option<BucketIndex> {
        self.undiscarded.lock().pop_front()
    }

    /// Whether there is one.
    pub(crate) fn any_undiscarded(&self) -> bool {
        !self.undiscarded.lock().is_empty()
    }

    /// Whether free space is short: somebody waits for a bucket, or found none and there still
    /// is none.
    pub(crate) fn is_short(&self) -> bool {
        // Relaxed: a hint; `stay_hungry` and the bell order what must not be missed.
        let felt = self.demand.load(Ordering::Relaxed) != 0;
        let waits = self.waits.len() > 0 || self.watches.len() > 0;
        waits || felt && self.reserves.len_hint(Reserve::None) == 0
    }

    /// How many buckets a user of `reserve` could be given, at no particular instant: for
    /// ranking devices.
    pub(crate) fn usable_hint(&self, reserve: Reserve) -> usize {
        let own = if reserve == Reserve::None { 0 } else { self.reserves.len_hint(reserve) };
        self.reserves.len_hint(Reserve::None) + own
    }

    /// Puts a bucket from a free list on one again.
    #[inline]
    pub(crate) fn put_back(&self, free: Free) {
        let pushed = match free.home {
            Reserve::None => self.reserves.push_own_cells(free.bucket),
            _ => Pushed::Not,
        };
        match pushed {
            Pushed::Near => {}
            Pushed::Shared => {
                let seen = self.attention().after_cell() & OFFERED;
                if seen != 0 {
                    self.noticed(seen);
                }
            }
            Pushed::Not => self.put_back_elsewhere(free),
        }
    }

    #[cold]
    fn put_back_elsewhere(&self, free: Free) {
        match self.reserves.give_back(free) {
            Ok(_) => self.offered(),
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
            self.offered();
        } else {
            self.table.unpin(bucket, 1);
        }
        refilled
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use crate::wait::Turn;
    use std::task::Waker;

    /// If they came first and never gave back, no gen could ever become durable again.
    #[test]
    fn the_prio_write_comes_before_those_who_wait() {
        let geometry = Geometry::new(64, 1, 128, 8).expect("a legal shape");
        let table = DeviceTable::empty(geometry);
        let watches = Arc::new(Watches::new());
        let (index, clock) = (DeviceIndex::FIRST, Arc::default());
        let device = Device::new(index, table, &Config::default(), watches, clock);
        let waiter = device.waits.line_up(Reserve::None, Waker::noop());
        let [first, second] = [1, 2].map(BucketIndex::new);
        assert_eq!(device.release(first), Ok(Reserve::Prio));
        assert_eq!(waiter.poll(Waker::noop()), Turn::Wait);
        assert_eq!(device.release(second), Ok(Reserve::None));
        assert_eq!(waiter.poll(Waker::noop()), Turn::Bucket(Free::none(second)));
    }
}
