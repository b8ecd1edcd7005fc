//! The baseline that differs from the product in the locking alone: the product itself behind
//! one lock, which every operation takes and a reclaimer holds during its passes.
//!
//! Its victim selection, rescale and tables therefore *are* the product's, in every version of
//! it. Two things differ from an allocator that somebody would write for a lock: its atomic
//! operations, useless here, cost it about 2 ns each although nobody contends; and whoever waits
//! sleeps on a condition, one wake-up per free bucket, not in the product's line. So where the
//! lock-free parts are compared with a lock over plain memory, look at `original` too.

use super::lockfree::{Lockfree, NAP};
use super::space::{Full, SectorWrite, Space, SpaceCounts};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, Ordering};
use tierce_core::Reserve;
use tierce_lockfree::{Allocation, BucketRef, Extent};

/// The product behind one lock.
///
/// ```
/// use tierce_bench::backend::{Full, Locked, Order, Space};
/// let space = Locked::start(&Full::new(1024, Order::Random));
/// space.reclaim();
/// space.written(space.try_alloc().expect("it reclaimed"));
/// assert!(space.counts().invalidated > 0);
/// ```
#[derive(Debug)]
pub struct Locked {
    inner: Lockfree,
    state: Mutex<State>,
    freed: Condvar,
    low: Condvar,
    /// The size of the common list.
    none: u64,
}

#[derive(Debug)]
struct State {
    /// The reclaimer sleeps.
    hungry: bool,
    /// How many wait for a bucket.
    waiting: u64,
    /// How many free buckets there are: counted here, asking for all counters costs too much.
    free: u64,
}

/// A bucket of a [`Locked`].
#[derive(Debug)]
pub struct Held<'a> {
    space: &'a Locked,
    /// Nothing once it was written.
    bucket: Option<Allocation<'a>>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(bucket) = self.bucket.take() else { return };
        let mut state = self.space.state.lock();
        drop(bucket);
        state.free += 1;
        if state.waiting > 0 {
            self.space.freed.notify_one();
        }
    }
}

/// Sectors of an open bucket of a [`Locked`]. The lock is not held while they are written.
#[derive(Debug)]
pub struct Written<'a> {
    space: &'a Locked,
    /// Nothing once it was dropped.
    extent: Option<Extent<'a>>,
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        let _state = self.space.state.lock();
        self.extent = None;
    }
}

impl Locked {
    fn take(&self, state: &mut State) -> Option<Held<'_>> {
        let bucket = self.inner.try_alloc();
        state.free = state.free.saturating_sub(1);
        if state.hungry && (bucket.is_none() || 2 * state.free <= self.none) {
            state.hungry = false;
            self.low.notify_one();
        }
        bucket.map(|bucket| Held { space: self, bucket: Some(bucket) })
    }

    /// Reclaims, the lock being held, and wakes as many as there are buckets.
    fn step_until_full(&self, state: &mut State) {
        self.inner.reclaim();
        state.free = self.inner.allocator().stats().devices[0].free_of(Reserve::None);
        for _ in 0..state.waiting.min(state.free) {
            self.freed.notify_one();
        }
    }
}

impl Space for Locked {
    const NAME: &'static str = "locked";
    const PASSES: bool = true;
    const SECTORS: bool = true;
    const READS: bool = true;
    type Bucket<'a> = Held<'a>;
    type Extent<'a> = Written<'a>;

    fn start(full: &Full) -> Self {
        Self {
            inner: Lockfree::start(full),
            state: Mutex::new(State { hungry: false, waiting: 0, free: 0 }),
            freed: Condvar::new(),
            low: Condvar::new(),
            none: full.sizes().none.into(),
        }
    }

    #[inline(always)]
    fn try_alloc(&self) -> Option<Held<'_>> {
        self.take(&mut self.state.lock())
    }

    fn alloc(&self) -> Held<'_> {
        let mut state = self.state.lock();
        loop {
            if let Some(bucket) = self.take(&mut state) {
                return bucket;
            }
            state.waiting += 1;
            self.freed.wait(&mut state);
            state.waiting -= 1;
        }
    }

    fn written<'a>(&'a self, mut bucket: Held<'a>) {
        let _state = self.state.lock();
        if let Some(bucket) = bucket.bucket.take() {
            self.inner.written(bucket);
        }
    }

    fn reclaim(&self) {
        self.step_until_full(&mut self.state.lock());
    }

    fn reclaim_until(&self, stop: &AtomicBool) {
        let mut state = self.state.lock();
        // Relaxed: nothing is published with it.
        while !stop.load(Ordering::Relaxed) {
            self.step_until_full(&mut state);
            if self.inner.allocator().gc_due() {
                self.inner.collect();
            }
            state.hungry = true;
            self.low.wait_for(&mut state, NAP);
        }
    }

    #[inline(always)]
    fn sectors(&self, write: &SectorWrite) -> Option<Written<'_>> {
        let _state = self.state.lock();
        Some(Written { space: self, extent: Some(self.inner.sectors(write)?) })
    }

    fn sectors_of(extent: &Written<'_>) -> u32 {
        extent.extent.as_ref().map_or(0, Extent::sectors)
    }

    fn pointer(bucket: &Held<'_>) -> Option<BucketRef> {
        bucket.bucket.as_ref().map(Allocation::bucket_ref)
    }

    fn read_hit(&self, pointer: BucketRef) -> bool {
        let allocator = self.inner.allocator();
        let open = {
            let _state = self.state.lock();
            allocator.begin_read().open(pointer)
        };
        let _state = self.state.lock();
        open.is_some_and(tierce_lockfree::OpenRead::validate)
    }

    fn account_io(&self, sectors: u32) {
        let _state = self.state.lock();
        self.inner.account_io(sectors);
    }

    fn collect(&self) {
        let _state = self.state.lock();
        self.inner.collect();
    }

    fn counts(&self) -> SpaceCounts {
        self.inner.counts()
    }
}
