//! The baseline: the sequential specification behind one lock, as the allocator that tierce
//! rebuilds works.
//!
//! Every operation takes the lock. A reclaimer thread holds it for as long as a pass takes,
//! selects victims by a bounded heap, and wakes everybody who waits. Collecting garbage holds it
//! while it begins and finishes, and per 1024 buckets that are marked. It has the same sizes,
//! policy and rules as the other backends and keeps its state in plain memory.

use super::lockfree::NAP;
use super::space::{Full, SectorWrite, Space, SpaceCounts};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use tierce_core::spec::{DeviceOptions, Live, Options, Pointer, Set, Table, Wait, Write};
use tierce_core::{BucketId, DeviceIndex, Gen, Mark, Reserve};
use tierce_lockfree::BucketRef;

/// How many buckets are marked each time that garbage collection takes the lock.
const MARKED_AT_ONCE: usize = 1024;

/// The specification behind one lock.
///
/// ```
/// use tierce_bench::backend::{Full, Order, Original, Space};
/// let space = Original::start(&Full::new(1024, Order::Random));
/// space.reclaim();
/// space.written(space.try_alloc().expect("it reclaimed"));
/// assert!(space.counts().invalidated > 0);
/// ```
#[derive(Debug)]
pub struct Original {
    state: Mutex<State>,
    /// Somebody waits for a bucket.
    freed: Condvar,
    /// The reclaimer waits for room.
    low: Condvar,
    /// The size of the common list.
    none: usize,
    full: Full,
}

#[derive(Debug)]
struct State {
    set: Set,
    /// The reclaimer sleeps.
    hungry: bool,
}

/// A bucket of an [`Original`].
#[derive(Debug)]
pub struct Held<'a> {
    space: &'a Original,
    pointer: Pointer,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.space.state.lock();
        state.set.give_back(self.pointer.bucket).expect("it was held");
        drop(state);
        self.space.freed.notify_all();
    }
}

/// Sectors of an open bucket of an [`Original`]. The lock is not held while they are written.
#[derive(Debug)]
pub struct Written<'a> {
    space: &'a Original,
    bucket: BucketId,
    sectors: u32,
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.space.state.lock().set.unpin(self.bucket).expect("the extent is pinned");
    }
}

impl Original {
    fn take(&self, state: &mut State) -> Option<Held<'_>> {
        let taken = state.set.alloc_on(DeviceIndex::FIRST, Reserve::None).ready();
        let left = state.set.list(DeviceIndex::FIRST, Reserve::None).len();
        if state.hungry && 2 * left <= self.none {
            state.hungry = false;
            self.low.notify_one();
        }
        taken.map(|pointer| Held { space: self, pointer })
    }

    /// Reclaims, holding the lock, until the lists are full.
    fn step_until_full<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.set.step(DeviceIndex::FIRST) == Wait::Gc {
            drop(state);
            self.collect();
            state = self.state.lock();
        }
        self.freed.notify_all();
        state
    }
}

fn live(mark: Mark) -> Live {
    match mark {
        Mark::Dirty => Live::Dirty,
        Mark::Metadata => Live::Metadata,
        _ => Live::Clean,
    }
}

impl Space for Original {
    const NAME: &'static str = "original";
    const PASSES: bool = true;
    const SECTORS: bool = true;
    const READS: bool = true;
    type Bucket<'a> = Held<'a>;
    type Extent<'a> = Written<'a>;

    fn start(full: &Full) -> Self {
        let mut options = Options::bcache();
        options.record_events = false;
        let mut device = DeviceOptions::new(full.geometry(), full.sizes());
        device.sync = full.sync;
        let records = (0..full.nbuckets).map(|b| (full.prio(b), Gen::default())).collect();
        let set = Set::open(options, vec![(device, Table::new(records))]);
        let mut set = set.expect("settings are constants");
        for bucket in full.buckets() {
            let id = BucketId::new(DeviceIndex::FIRST, bucket);
            let pointer = Pointer::new(id, Gen::default());
            let seen = set.observe(pointer, full.bucket_sectors, live(full.mark(bucket.get())));
            seen.expect("it is starting");
        }
        let _ = set.start().expect("it is starting");
        Self {
            state: Mutex::new(State { set, hungry: false }),
            freed: Condvar::new(),
            low: Condvar::new(),
            none: full.sizes().none as usize,
            full: *full,
        }
    }

    #[inline(always)]
    fn try_alloc(&self) -> Option<Held<'_>> {
        self.take(&mut self.state.lock())
    }

    fn alloc(&self) -> Held<'_> {
        let mut state = self.state.lock();
        loop {
            match self.take(&mut state) {
                Some(bucket) => return bucket,
                None => self.freed.wait(&mut state),
            }
        }
    }

    fn written<'a>(&'a self, bucket: Held<'a>) {
        let bucket = ManuallyDrop::new(bucket);
        self.state.lock().set.unpin(bucket.pointer.bucket).expect("it was held");
    }

    fn reclaim(&self) {
        drop(self.step_until_full(self.state.lock()));
    }

    fn reclaim_until(&self, stop: &AtomicBool) {
        let mut state = self.state.lock();
        // Relaxed: nothing is published with it.
        while !stop.load(Ordering::Relaxed) {
            state = self.step_until_full(state);
            if state.set.gc_is_due() {
                drop(state);
                self.collect();
                state = self.state.lock();
            }
            state.hungry = true;
            self.low.wait_for(&mut state, NAP);
        }
    }

    #[inline(always)]
    fn sectors(&self, write: &SectorWrite) -> Option<Written<'_>> {
        let mut request = Write::new(write.inode, write.offset, 8);
        request.write_point = write.write_point.into();
        let mut state = self.state.lock();
        let extent = state.set.alloc_sectors(request).expect("8 sectors are asked for").ready()?;
        Some(Written { space: self, bucket: extent.bucket, sectors: extent.sectors })
    }

    fn sectors_of(extent: &Written<'_>) -> u32 {
        extent.sectors
    }

    fn pointer(bucket: &Held<'_>) -> Option<BucketRef> {
        Some(BucketRef::new(bucket.pointer.bucket, bucket.pointer.gen_))
    }

    /// The lock is not held while the data would be read.
    fn read_hit(&self, pointer: BucketRef) -> bool {
        let pointer = Pointer::new(pointer.id(), pointer.gen_());
        let Some(read) = self.state.lock().set.begin_read(pointer) else { return false };
        let mut state = self.state.lock();
        let valid = state.set.validate(read);
        if valid {
            state.set.touch(pointer);
        }
        valid
    }

    fn account_io(&self, sectors: u32) {
        self.state.lock().set.account_io(sectors.into());
    }

    fn collect(&self) {
        if self.state.lock().set.gc_begin().is_err() {
            return;
        }
        let buckets: Vec<_> = self.full.buckets().collect();
        for some in buckets.chunks(MARKED_AT_ONCE) {
            let mut state = self.state.lock();
            for &bucket in some {
                let id = BucketId::new(DeviceIndex::FIRST, bucket);
                let word = state.set.word(id).expect("a bucket of the device");
                if word.pin_count() == 0 {
                    let pointer = Pointer::new(id, word.gen_());
                    // In place the marks are cleared by now: what is full is cached data,
                    // unless the device began with dirty buckets.
                    let kind = live(self.full.mark(bucket.get()));
                    let seen = state.set.gc_mark(pointer, self.full.bucket_sectors, kind);
                    seen.expect("it is running");
                }
            }
        }
        self.state.lock().set.gc_finish().expect("it is running");
    }

    fn counts(&self) -> SpaceCounts {
        let counters = self.state.lock().set.counters();
        SpaceCounts {
            allocated: counters.alloc_total.iter().sum(),
            invalidated: counters.invalidate_total,
            rescales: counters.rescale_total,
        }
    }
}
