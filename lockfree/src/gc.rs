//! Garbage collection with shadow marks.
//!
//! # Problem
//!
//! GC is the walk in which the owner of the index tells which pointers still live. Clearing the
//! marks of all buckets first and setting them again during the walk needs invalidation to stop
//! meanwhile; without a lock it loses data (an invalidator checks the "marks valid" flag; GC
//! clears *dirty*; the invalidator takes the bucket). So GC keeps its findings beside the words
//! and publishes them with one CAS per bucket at the end. A word's mark is then always valid or
//! conservative, and invalidation goes on during GC.
//!
//! # State
//!
//! Per bucket, in an array that exists only while GC runs, one 32-bit shadow:
//!
//! ```text
//!  31      24 23 22 21         9 8        7       0
//! ┌──────────┬─────┬────────────┬────────┬─────────┐
//! │  oldest  │mark │  sectors   │unpinned│start gen│
//! └──────────┴─────┴────────────┴────────┴─────────┘
//! ```
//!
//! # Protocol
//!
//! 1. Begin: read every word (Acquire). `oldest` starts as its gen.
//! 2. Walk: every live key is [marked](Gc::mark), by any number of threads.
//! 3. Raise the epoch (Release), before the first publish ([`crate::readers`] needs this order).
//! 4. Publish each bucket ([`Snapshot::gc_publish`]): `last_gc` always; mark and sectors unless
//!    the bucket was pinned at the snapshot or reused since.
//!
//! The live prio chain keeps its marks as if it had been pinned at the snapshot: nothing in the
//! index points at it, and a bucket of it may be released, recycled and allocated again with the
//! same gen while GC runs. What joins the chain later was pinned at the snapshot, or reused since.
//!
//! Two orders are required of others: a writer inserts its key **before** it unpins, and the
//! snapshot is taken **before** the walk. So a bucket that was unpinned at the snapshot had all
//! its keys in the index when the walk began, and one that was pinned keeps its mark.
//!
//! # In place
//!
//! With [`Config::invalidate_during_gc`](crate::Config) off there are no shadows: step 1 declares
//! the marks invalid, waits until the passes under way have ended (each holds its device's
//! `pass` lock), and clears the words of unpinned buckets; step 2 marks in the words; step 4
//! renews the marks of journal and prio chain and declares the marks valid again. In between
//! nothing is invalidated, so nothing can be lost by a mark that is not there yet. Abandoned, the
//! marks stay invalid until another collection has finished.
//!
//! # Contract of the owner
//!
//! A key that is live during the whole walk is marked at least once, also when it moves between
//! shards or the index is resized. Stale keys met on the walk are removed: they hold `last_gc`
//! back, and a bucket whose gen runs 96 ahead of it is lost to reuse.
//!
//! # Memory ordering
//!
//! *words*: the snapshot's Acquire pairs with the Release of unpin. *shadow*: Relaxed, whoever
//! finishes owns the [`Gc`] and is ordered after all who marked. *epoch*: see above; Acquire in
//! readers. *finished*: Release, so that a reclaimer that sees the count sees the new marks.
//! *marks_valid*: cleared before, and looked at under, the `pass` locks; set with Release, so that
//! whoever sees it set sees the marks.
//!
//! # Progress
//!
//! Marking is lock-free and never waits. Beginning and finishing look at every bucket once.
//! Beginning holds the lock on the list of prio buckets meanwhile, so a prio write that becomes
//! durable just then waits for that look: about a nanosecond per bucket.

use crate::allocator::Allocator;
use crate::bell::Bell;
use crate::bucket_ref::BucketRef;
use crate::counter::Counter;
use crate::device::Device;
use crate::error::Error;
use crate::events::event;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use tierce_core::word::SECTORS_MAX;
use tierce_core::{BucketIndex, Gen, Mark, Snapshot, broken};

/// The garbage collector's part of an allocator.
#[derive(Debug)]
pub(crate) struct GcState {
    epoch: AtomicU64,
    /// Collections that have finished.
    finished: AtomicU64,
    /// The collection for which reclaiming waits: until `finished` reaches it.
    needed: AtomicU64,
    /// 1 while a [`Gc`] exists.
    running: AtomicU32,
    /// The largest gen − last_gc since the last collection.
    need_gc: AtomicU32,
    /// 0 from the beginning of a collection in place until one has finished.
    marks_valid: AtomicU32,
    /// Sectors of buckets opened for writing since the last collection.
    pub(crate) sectors_written: Counter,
    /// The owner of the index sleeps on this. Apart from what is read all the time: while a
    /// collection is due, all who open buckets ring.
    pub(crate) bell: CachePadded<Bell>,
}

impl GcState {
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            epoch: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            needed: AtomicU64::new(0),
            running: AtomicU32::new(0),
            need_gc: AtomicU32::new(0),
            marks_valid: AtomicU32::new(1),
            sectors_written: Counter::new(cpus),
            bell: CachePadded::new(Bell::new()),
        }
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        let order = if broken!("epoch_load_relaxed") {
            Ordering::Relaxed
        } else {
            // Acquire: a reader looks its key up after this; pairs with the Release in `finish`.
            Ordering::Acquire
        };
        self.epoch.load(order)
    }

    /// How many collections have finished.
    pub(crate) fn finished(&self) -> u64 {
        // Acquire: pairs with the Release in `finish`: the new marks are seen.
        self.finished.load(Ordering::Acquire)
    }

    /// Reclaiming cannot go on until a collection after `finished` has finished.
    pub(crate) fn need_after(&self, finished: u64) {
        // Relaxed: a number that only grows; the bell orders it.
        self.needed.fetch_max(finished + 1, Ordering::Relaxed);
        self.bell.ring();
    }

    /// Whether somebody waits for a collection.
    pub(crate) fn is_needed(&self) -> bool {
        // Relaxed: see `need_after`.
        self.needed.load(Ordering::Relaxed) > self.finished()
    }

    /// A bucket was found to be `gc_gen` generations ahead of its oldest pointer.
    pub(crate) fn note_gc_gen(&self, gc_gen: u8) {
        // Relaxed (both): a hint when to collect. Tested first, so that it is rarely written.
        if u32::from(gc_gen) > self.need_gc.load(Ordering::Relaxed) {
            self.need_gc.fetch_max(u32::from(gc_gen), Ordering::Relaxed);
        }
    }

    pub(crate) fn need_gc(&self) -> u32 {
        // Relaxed: a hint.
        self.need_gc.load(Ordering::Relaxed)
    }

    /// A tool brings the allocator into a state by hand.
    pub(crate) fn set_need_gc(&self, need_gc: u8) {
        // Relaxed: a hint.
        self.need_gc.store(u32::from(need_gc), Ordering::Relaxed);
    }

    /// Whether what is marked may be relied on, so that buckets can be invalidated. Always,
    /// unless collections mark in place.
    pub(crate) fn marks_valid(&self) -> bool {
        // Acquire: pairs with the Release in `set_marks_valid`.
        self.marks_valid.load(Ordering::Acquire) != 0
    }

    fn set_marks_valid(&self, valid: bool) {
        // Release: the marks were made before; pairs with the Acquire in `marks_valid`.
        self.marks_valid.store(u32::from(valid), Ordering::Release);
    }

    fn try_begin(&self) -> bool {
        // Acquire: pairs with the Release in `end`: one collection is over before the next.
        let order = (Ordering::Acquire, Ordering::Relaxed);
        self.running.compare_exchange(0, 1, order.0, order.1).is_ok()
    }

    fn end(&self) {
        // Release: pairs with the Acquire in `try_begin`.
        self.running.store(0, Ordering::Release);
    }
}

/// What GC made of a pointer.
///
/// ```
/// use tierce_lockfree::Marked;
/// let keep_the_key = |marked: Marked| marked == Marked::Live;
/// assert!(!keep_the_key(Marked::Stale));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a stale key has to be removed from the index"]
pub enum Marked {
    /// It lives, its sectors are counted.
    Live,
    /// The bucket has been reused; the key must be removed.
    Stale,
    /// It names no bucket that could have been allocated; the key must be removed.
    OutOfRange,
}

/// A garbage collection under way, see the top of this file for how it is used. Dropping it
/// without [`finish`](Self::finish) abandons it: nothing changes.
///
/// ```
/// # use tierce_lockfree::{Allocator, Config, DeviceTable, Marked};
/// # use tierce_core::{Geometry, Mark, Reserve};
/// # let geometry = Geometry::new(1024, 1, 128, 1)?;
/// # let (allocator, _reclaimers) =
/// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// # let bucket = allocator.try_alloc(Reserve::Btree)?.unwrap();
/// let pointer = bucket.bucket_ref();
/// let gc = allocator.begin_gc()?;
/// // for every key of the index:
/// assert_eq!(gc.mark(pointer, 128, Mark::Reclaimable), Marked::Live);
/// gc.finish();
/// assert_eq!(allocator.stats().gc_total, 1);
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping a collection abandons it"]
pub struct Gc<'a> {
    allocator: &'a Allocator,
    /// Per device; `None`: it marks in place.
    shadows: Option<Vec<Box<[Shadow]>>>,
    finished: bool,
}

/// A collection without its allocator.
#[derive(Debug)]
pub(crate) struct Suspended(Option<Vec<Box<[Shadow]>>>);

impl<'a> Gc<'a> {
    pub(crate) fn begin(allocator: &'a Allocator) -> Result<Self, Error> {
        if !allocator.gc_state().try_begin() {
            return Err(Error::GcRunning);
        }
        event!(DEBUG, "gc_begin", need_gc = allocator.gc_state().need_gc());
        if !allocator.config().invalidate_during_gc {
            allocator.gc_state().set_marks_valid(false);
            allocator.devices().iter().for_each(clear_marks);
            if broken!("gc_in_place_valid_early") {
                allocator.gc_state().set_marks_valid(true);
            }
            return Ok(Self { allocator, shadows: None, finished: false });
        }
        let shadows = allocator.devices().iter().map(snapshot);
        Ok(Self { allocator, shadows: Some(shadows.collect()), finished: false })
    }

    /// Lets go of the allocator, for an owner who keeps both.
    pub(crate) fn suspend(mut self) -> Suspended {
        let suspended = Suspended(self.shadows.take());
        core::mem::forget(self);
        suspended
    }

    /// Goes on with the collection that `allocator` began.
    pub(crate) fn resume(allocator: &'a Allocator, suspended: Suspended) -> Self {
        Self { allocator, shadows: suspended.0, finished: false }
    }

    /// Tells that the index holds `pointer` to `sectors` live sectors, of which `kind` says
    /// whether they are cached data ([`Mark::Reclaimable`]), the only copy ([`Mark::Dirty`]) or
    /// the index's own nodes ([`Mark::Metadata`]). Many threads may mark at once.
    ///
    /// Lock-free.
    pub fn mark(&self, pointer: BucketRef, sectors: u32, kind: Mark) -> Marked {
        let Some(table) = self.allocator.table_of(pointer) else { return Marked::OutOfRange };
        let device = &self.allocator.devices()[pointer.device().as_usize()];
        let Some(shadows) = &self.shadows else {
            let live = table.gc_mark(pointer.bucket(), pointer.gen_(), device.units(sectors), kind);
            return self.marked(live);
        };
        let shadow = &shadows[pointer.device().as_usize()][pointer.bucket().as_usize()];
        shadow.hold_back(pointer.gen_());
        if pointer.gen_().is_stale(table.read(pointer.bucket()).gen_()) {
            return self.marked(false);
        }
        shadow.add(device.units(sectors), kind);
        self.marked(true)
    }

    fn marked(&self, live: bool) -> Marked {
        if live {
            return Marked::Live;
        }
        self.allocator.counters().gc_stale.add(1);
        Marked::Stale
    }

    /// Publishes what the walk found, one bucket after the other, each lock-free; then reclaimers
    /// that waited for it go on, and see all of it.
    pub fn finish(mut self) {
        let gc = self.allocator.gc_state();
        if broken!("gc_epoch_relaxed") {
            // Relaxed: the deliberate break.
            gc.epoch.fetch_add(1, Ordering::Relaxed);
        } else if !broken!("gc_epoch_late") {
            // Release: before the first publish, see `crate::readers`.
            gc.epoch.fetch_add(1, Ordering::Release);
        }
        let mut need_gc = 0;
        for (at, device) in self.allocator.devices().iter().enumerate() {
            need_gc = need_gc.max(match &self.shadows {
                Some(shadows) => publish(device, &shadows[at]),
                None => recount(device),
            });
        }
        if broken!("gc_epoch_late") {
            // Release: the deliberate break, too late.
            gc.epoch.fetch_add(1, Ordering::Release);
        }
        // Relaxed: a hint. What invalidation raised meanwhile is found again by the next pass.
        gc.need_gc.store(u32::from(need_gc), Ordering::Relaxed);
        gc.sectors_written.add(-gc.sectors_written.sum());
        self.allocator.counters().gc_runs.add(1);
        // Release: whoever sees the count sees the published marks.
        gc.finished.fetch_add(1, Ordering::Release);
        gc.set_marks_valid(true);
        self.finished = true;
        event!(DEBUG, "gc_finish", need_gc = need_gc);
        for device in self.allocator.devices() {
            device.bell.ring();
        }
    }
}

impl Drop for Gc<'_> {
    fn drop(&mut self) {
        let gc = self.allocator.gc_state();
        gc.end();
        if broken!("gc_needed_is_a_flag") {
            // Relaxed: the deliberate break, whoever asked, and for whichever collection.
            gc.needed.store(0, Ordering::Relaxed);
        }
        if !self.finished {
            event!(DEBUG, "gc_abandon", need_gc = gc.need_gc());
        }
        if !self.finished && !gc.marks_valid() {
            // Nothing can be reused until another one has finished.
            gc.need_after(gc.finished());
        }
    }
}

/// The beginning of a collection in place. Marks are invalid already: a pass that began before
/// holds the lock, one that begins later sees it.
fn clear_marks(device: &Device) {
    if !broken!("gc_in_place_no_wait") {
        drop(device.pass.lock());
    }
    device.geometry().buckets().for_each(|bucket| device.table().gc_clear(bucket));
}

/// The end of a collection in place. Returns the largest gen − last_gc.
pub(crate) fn recount(device: &Device) -> u8 {
    let before = device.available.raw();
    let chain = device.chain.lock();
    let prios = chain.live.iter().chain(&chain.writing).copied();
    let journal = device.geometry().buckets().filter(|&bucket| device.is_journal(bucket));
    prios.chain(journal).for_each(|bucket| device.table().renew_metadata(bucket));
    drop(chain);
    let mut count = Count::default();
    device.geometry().buckets().for_each(|bucket| count.add(device.table().read(bucket)));
    device.available.rebase(before, count.available);
    count.need_gc
}

/// Looks at every word of one device.
fn snapshot(device: &Device) -> Box<[Shadow]> {
    // Locked, so that no bucket leaves the chain between its word being read and it being found
    // in the list.
    let chain = device.chain.lock();
    let words = (0..device.geometry().nbuckets()).map(BucketIndex::new);
    let shadows: Box<[_]> = words.map(|b| Shadow::new(start_word(device, b))).collect();
    // No key points at a prio bucket. Its mark is set when it is allocated and cleared when it
    // is released; its gen need not move between that and its next allocation, so publishing
    // could not tell the two apart.
    if !broken!("gc_ignores_chain") {
        chain.live.iter().for_each(|bucket| shadows[bucket.as_usize()].keep_mark());
    }
    shadows
}

/// A word at the snapshot, and every key that was inserted before its bucket was unpinned.
fn start_word(device: &Device, bucket: BucketIndex) -> Snapshot {
    if broken!("gc_snapshot_relaxed") {
        return device.table().peek(bucket);
    }
    device.table().read(bucket)
}

/// Publishes the shadows of one device. Returns the largest gen − last_gc afterwards.
fn publish(device: &Device, shadows: &[Shadow]) -> u8 {
    let before = device.available.raw();
    let mut count = Count::default();
    for bucket in device.geometry().buckets() {
        let found = shadows[bucket.as_usize()].read();
        let (mark, sectors) = match device.is_journal(bucket) {
            true => (Mark::Metadata, found.sectors),
            false => (found.mark, found.sectors),
        };
        let table = device.table();
        let start = if broken!("gc_ignores_reuse") {
            found.start.with_gen(table.peek(bucket).gen_())
        } else if broken!("gc_snapshot_late") {
            table.read(bucket)
        } else {
            found.start
        };
        count.add(table.gc_publish(bucket, start, mark, sectors, found.oldest));
    }
    device.available.rebase(before, count.available);
    count.need_gc
}

#[derive(Default)]
struct Count {
    available: u32,
    need_gc: u8,
}

impl Count {
    fn add(&mut self, word: Snapshot) {
        self.available += u32::from(word.pin_count() == 0 && word.mark().is_reclaimable());
        self.need_gc = self.need_gc.max(word.gc_gen());
    }
}

/// What GC found about one bucket so far.
#[derive(Debug)]
struct Shadow(AtomicU32);

const UNPINNED: u32 = 1 << 8;
const SECTORS: u32 = 9;
const MARK: u32 = 22;
const OLDEST: u32 = 24;

/// A shadow, unpacked.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// Gen and pin at the snapshot; the other fields are not kept.
    start: Snapshot,
    mark: Mark,
    sectors: u32,
    oldest: Gen,
}

impl Found {
    fn pack(self) -> u32 {
        u32::from(self.start.gen_().get())
            | if self.start.pin_count() == 0 { UNPINNED } else { 0 }
            | self.sectors << SECTORS
            | u32::from(self.mark.to_bits()) << MARK
            | u32::from(self.oldest.get()) << OLDEST
    }

    fn unpack(bits: u32) -> Self {
        let start = Snapshot::default()
            .with_gen(Gen::new(bits as u8))
            .with_pin(u16::from(bits & UNPINNED == 0));
        Self {
            start,
            mark: Mark::from_bits((bits >> MARK) as u8),
            sectors: bits >> SECTORS & u32::from(SECTORS_MAX),
            oldest: Gen::new((bits >> OLDEST) as u8),
        }
    }
}

impl Shadow {
    fn new(start: Snapshot) -> Self {
        let start = if broken!("gc_ignores_pins") { start.with_pin(0) } else { start };
        let found = Found { start, mark: Mark::None, sectors: 0, oldest: start.gen_() };
        Self(AtomicU32::new(found.pack()))
    }

    fn read(&self) -> Found {
        // Relaxed: the owner of the `Gc` is ordered after all who marked.
        Found::unpack(self.0.load(Ordering::Relaxed))
    }

    fn update(&self, next: impl Fn(Found) -> Found) {
        // Relaxed: a test before the CAS. Shadows publish nothing until `finish`.
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let after = next(Found::unpack(before)).pack();
            if after == before {
                return;
            }
            // Relaxed (both): as above.
            let order = (Ordering::Relaxed, Ordering::Relaxed);
            match self.0.compare_exchange_weak(before, after, order.0, order.1) {
                Ok(_) => return,
                Err(now) => before = now,
            }
        }
    }

    /// A pointer of gen `pointer` exists: `last_gc` may not pass it.
    fn hold_back(&self, pointer: Gen) {
        if broken!("gc_ignores_oldest") {
            return;
        }
        self.update(|found| {
            let older = found.oldest.is_after(pointer);
            Found { oldest: if older { pointer } else { found.oldest }, ..found }
        });
    }

    /// Whatever is found, the word keeps its mark, as if it had been pinned from the start.
    fn keep_mark(&self) {
        self.update(|found| Found { start: found.start.with_pin(1), ..found });
    }

    /// Metadata outranks dirty outranks reclaimable, whatever the order they are met in.
    fn add(&self, units: u32, kind: Mark) {
        self.update(|found| Found {
            mark: found.mark.max(kind),
            sectors: (found.sectors + units).min(u32::from(SECTORS_MAX)),
            ..found
        });
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn shadows_keep_their_fields() {
        let shadow = Shadow::new(Snapshot::default().with_gen(Gen::new(200)).with_pin(3));
        shadow.add(9000, Mark::Reclaimable);
        shadow.add(1, Mark::Metadata);
        shadow.add(1, Mark::Dirty);
        shadow.hold_back(Gen::new(190));
        shadow.hold_back(Gen::new(195));
        shadow.hold_back(Gen::new(201));
        let found = shadow.read();
        assert_eq!((found.mark, found.sectors), (Mark::Metadata, 8191));
        assert_eq!(found.oldest, Gen::new(190));
        assert_eq!((found.start.gen_(), found.start.pin_count()), (Gen::new(200), 1));
        let free = Shadow::new(Snapshot::default());
        assert_eq!(free.read().start.pin_count(), 0);
    }
}
