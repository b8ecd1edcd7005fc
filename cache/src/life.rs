//! A bucket while it is being filled, and what number the life of every bucket has.
//!
//! # Problem
//!
//! Records are written to the device many at a time. Until then they are in memory, and whoever
//! looks a key up must find it there; from then on, on the device; in between, in either.
//!
//! # State
//!
//! Per bucket one word ([`Lives`]): the number of its life, and a bit that says that some of it is
//! in memory; beside it the life's gen, and a hint whether anything in it was hit. A [`Life`] holds
//! the *segments* that are in memory: pieces of the bucket, each written with one operation. The last
//! one may still be filled.
//!
//! # Protocol
//!
//! 1. A bucket is opened: its `Life` is entered, then the word is stored, then keys that point into
//!    it enter the index.
//! 2. Records are appended to the last segment. A full segment is submitted; it stays in memory
//!    until the device has confirmed it.
//! 3. When it is confirmed it is dropped, *then* memory for new segments is free. When the bucket
//!    is sealed and its last segment is confirmed, the bit is cleared, the `Life` is forgotten, and
//!    the bucket's pin is dropped: it can be reused.
//!
//! A reader who saw the bit and finds no segment reads the device, where the data is by then.
//!
//! # Progress
//!
//! A life's lock is held for copying one record, and while a full segment is copied for the device;
//! never while waiting. Confirmations run on the device's own thread.

use crate::budget::Permit;
use crate::layout::Layout;
use crate::wakers::{Place, Wakers};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tierce_core::{BucketId, DeviceIndex};
use tierce_io::{Completion, Device, Request};
use tierce_lockfree::{BucketRef, OwnedAllocation};

const BUFFERED: u64 = 1 << 63;
const SHARDS: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lives of all buckets.
pub(crate) struct Lives {
    words: Box<[Box<[AtomicU64]>]>,
    /// The gen of each life.
    gens: Box<[Box<[AtomicU8]>]>,
    /// Whether anything in it was hit: a hint.
    hit: Box<[Box<[AtomicBool]>]>,
    buffered: Box<[Mutex<Buffered>]>,
    /// How many buckets have one.
    count: AtomicU64,
}

type Buffered = HashMap<BucketId, Arc<Life>>;

/// What a bucket's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LifeWord {
    /// 0: it has none.
    pub(crate) number: u64,
    /// Some of it may be in memory.
    pub(crate) buffered: bool,
}

impl std::fmt::Debug for Lives {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lives").field("buffered", &self.buffered()).finish_non_exhaustive()
    }
}

impl Lives {
    /// No lives yet, for devices of so many buckets each.
    pub(crate) fn new(nbuckets: impl Iterator<Item = u32>) -> Self {
        fn all<T: Default>(nbuckets: &[u32]) -> Box<[Box<[T]>]> {
            nbuckets.iter().map(|&n| (0..n).map(|_| T::default()).collect()).collect()
        }
        let nbuckets: Vec<_> = nbuckets.collect();
        let buffered = (0..SHARDS).map(|_| Mutex::default()).collect();
        let count = AtomicU64::new(0);
        Self { words: all(&nbuckets), gens: all(&nbuckets), hit: all(&nbuckets), buffered, count }
    }

    /// Changes the word of a bucket, and the count of those that have a life.
    fn set(&self, id: BucketId, word: u64) {
        // Release: whoever sees the word sees what was done before, see `get` and `number`.
        let before = self.word(id).swap(word, Ordering::Release) & !BUFFERED;
        // Relaxed: a statistic.
        match (before != 0, word & !BUFFERED != 0) {
            (false, true) => drop(self.count.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.count.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    fn word(&self, id: BucketId) -> &AtomicU64 {
        &self.words[id.device().as_usize()][id.bucket().as_usize()]
    }

    fn shard(&self, id: BucketId) -> MutexGuard<'_, Buffered> {
        lock(&self.buffered[id.bucket().as_usize() % SHARDS])
    }

    pub(crate) fn get(&self, id: BucketId) -> LifeWord {
        // Acquire: pairs with the Release in `confirmed`: who finds the bit gone reads a device
        // that has the data.
        let word = self.word(id).load(Ordering::Acquire);
        LifeWord { number: word & !BUFFERED, buffered: word & BUFFERED != 0 }
    }

    fn gen_(&self, id: BucketId) -> &AtomicU8 {
        &self.gens[id.device().as_usize()][id.bucket().as_usize()]
    }

    fn hit(&self, id: BucketId) -> &AtomicBool {
        &self.hit[id.device().as_usize()][id.bucket().as_usize()]
    }

    /// Something in a bucket was hit, or begins with hits. A store only the first time in its life.
    pub(crate) fn note_hit(&self, id: BucketId) {
        let hit = self.hit(id);
        // Relaxed (both): a hint; who misses it loses what was hit just then.
        if !hit.load(Ordering::Relaxed) {
            hit.store(true, Ordering::Relaxed);
        }
    }

    /// Whether anything in the present life of a bucket may have hits.
    pub(crate) fn was_hit(&self, id: BucketId) -> bool {
        // Relaxed: a hint.
        self.hit(id).load(Ordering::Relaxed)
    }

    /// The number of the life of `bucket`, as long as what was in it may come back after a power
    /// loss: until its new gen is durable.
    pub(crate) fn number(&self, bucket: BucketRef) -> Option<u64> {
        // Acquire: the gen is that of the life that the word names, or of a later one; then the
        // life that was asked for has ended.
        let number = self.word(bucket.id()).load(Ordering::Acquire) & !BUFFERED;
        // Relaxed: ordered by the load above.
        let gen_ = self.gen_(bucket.id()).load(Ordering::Relaxed);
        (number != 0 && gen_ == bucket.gen_().get()).then_some(number)
    }

    /// Whether what was in `bucket` may come back after a power loss.
    pub(crate) fn may_come_back(&self, bucket: BucketRef) -> bool {
        self.number(bucket).is_some()
    }

    /// All buckets.
    pub(crate) fn nbuckets(&self) -> u64 {
        self.words.iter().map(|words| words.len() as u64).sum()
    }

    /// How many buckets have a life.
    pub(crate) fn count(&self) -> u64 {
        // Relaxed: a statistic.
        self.count.load(Ordering::Relaxed)
    }

    /// A life that was found on the device.
    pub(crate) fn found(&self, bucket: BucketRef, number: u64) {
        // Relaxed: ordered by what follows.
        self.gen_(bucket.id()).store(bucket.gen_().get(), Ordering::Relaxed);
        self.set(bucket.id(), number);
    }

    /// The life of a bucket has ended for good.
    pub(crate) fn end(&self, id: BucketId) {
        self.set(id, 0);
    }

    /// A bucket is being filled.
    pub(crate) fn open(&self, life: &Arc<Life>) {
        let id = life.bucket.id();
        self.shard(id).insert(id, Arc::clone(life));
        // Relaxed: ordered by what follows.
        self.gen_(id).store(life.bucket.gen_().get(), Ordering::Relaxed);
        // Relaxed: a hint.
        self.hit(id).store(false, Ordering::Relaxed);
        // Whoever sees the bit finds the life.
        self.set(id, life.number | BUFFERED);
    }

    /// The life of `bucket`, if some of it may be in memory.
    pub(crate) fn find(&self, bucket: BucketRef) -> Option<Arc<Life>> {
        let life = self.shard(bucket.id()).get(&bucket.id()).cloned()?;
        (life.bucket == bucket).then_some(life)
    }

    /// All lives of which some is in memory.
    pub(crate) fn buffered(&self) -> Vec<Arc<Life>> {
        self.buffered
            .iter()
            .flat_map(|shard| lock(shard).values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Forgets what is in memory: the cache ends.
    pub(crate) fn clear(&self) {
        self.buffered.iter().for_each(|shard| lock(shard).clear());
    }

    /// All of a life is on the device, or lost with it.
    fn confirmed(&self, life: &Life) {
        let id = life.bucket.id();
        // The bucket is still pinned, so nobody else changes its word.
        self.set(id, life.number);
        self.shard(id).remove(&id);
    }

    /// A life has ended in which nothing was written.
    fn unused(&self, life: &Life) {
        let id = life.bucket.id();
        // As above.
        self.set(id, 0);
        self.shard(id).remove(&id);
    }
}

/// A piece of a bucket in memory.
#[derive(Debug)]
struct Segment {
    number: u64,
    /// From the start of the bucket, in bytes.
    start: u32,
    bytes: Vec<u8>,
    submitted: bool,
    permit: Option<Permit>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

/// A bucket that is being filled, or written.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) bucket: BucketRef,
    pub(crate) number: u64,
    pub(crate) layout: Layout,
    device: Arc<dyn Device>,
    /// Where the bucket starts, in bytes.
    start: u64,
    owner: Arc<dyn Owner>,
    state: Mutex<State>,
}

/// Who is told what became of a life.
pub(crate) trait Owner: Send + Sync + std::fmt::Debug {
    /// Where the lives are.
    fn lives(&self) -> &Lives;
    /// A segment of `bytes` bytes is on the device.
    fn wrote(&self, bytes: u64);
    /// A segment could not be written. Nobody else knows before this returns.
    fn failed(&self, life: &Life, error: tierce_io::Error);
    /// Whether what is written to a device from now on is of any use.
    fn is_in_use(&self, device: DeviceIndex) -> bool;
}

#[derive(Debug)]
struct State {
    /// In the order of the bucket; the last one may be filled.
    segments: Vec<Segment>,
    next_segment: u64,
    allocation: Option<OwnedAllocation>,
    sealed: bool,
    failed: bool,
    /// Who waits for segments to be confirmed.
    waiting: Wakers,
}

impl Life {
    pub(crate) fn new(
        allocation: OwnedAllocation,
        number: u64,
        layout: Layout,
        device: Arc<dyn Device>,
        owner: Arc<dyn Owner>,
    ) -> Arc<Self> {
        let bucket = allocation.bucket_ref();
        let start = layout.start(bucket.bucket());
        let state = State {
            segments: Vec::new(),
            next_segment: 0,
            allocation: Some(allocation),
            sealed: false,
            failed: false,
            waiting: Wakers::default(),
        };
        Arc::new(Self { bucket, number, layout, device, start, owner, state: Mutex::new(state) })
    }

    /// It was not needed: the bucket is free again, nothing was written.
    pub(crate) fn give_back(&self) {
        self.owner.lives().unused(self);
        drop(lock(&self.state).allocation.take());
    }

    /// Begins a segment at `start`, to be filled.
    pub(crate) fn begin(&self, start: u32, capacity: usize, permit: Option<Permit>) {
        let mut state = lock(&self.state);
        let number = state.next_segment;
        state.next_segment += 1;
        let bytes = match &permit {
            Some(permit) => permit.memory(capacity),
            None => Vec::with_capacity(capacity),
        };
        state.segments.push(Segment { number, start, bytes, submitted: false, permit });
    }

    /// Appends to the segment that is being filled.
    ///
    /// # Panics
    ///
    /// If none is.
    pub(crate) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = lock(&self.state);
        let segment = state.segments.last_mut().filter(|segment| !segment.submitted);
        write(&mut segment.expect("a segment is being filled").bytes);
    }

    /// The bytes from `offset` on, up to `bytes` of them, if they are in memory.
    pub(crate) fn copy(&self, offset: u32, bytes: u32) -> Option<Vec<u8>> {
        let state = lock(&self.state);
        let inside = |segment: &&Segment| {
            (segment.start..segment.start + segment.bytes.len() as u32).contains(&offset)
        };
        let segment = state.segments.iter().find(inside)?;
        let from = (offset - segment.start) as usize;
        let to = segment.bytes.len().min(from + bytes as usize);
        Some(segment.bytes[from..to].to_vec())
    }

    /// Sends the segment that is being filled to the device, filled up to a block. Does not wait.
    /// Nobody hears of its end before `submitted` is dropped.
    pub(crate) fn submit(self: &Arc<Self>, submitted: &mut Submitted) {
        let mut state = lock(&self.state);
        let Some(segment) = state.segments.last_mut().filter(|s| !s.submitted) else { return };
        segment.submitted = true;
        let bytes = segment.bytes.len().next_multiple_of(self.layout.block as usize);
        segment.bytes.resize(bytes, 0);
        let mut buffer = self.device.buffer(bytes);
        buffer.copy_from_slice(&segment.bytes);
        let request = Request::write(self.start + u64::from(segment.start), buffer);
        let (life, segment) = (Arc::clone(self), segment.number);
        let completion = Mutex::new(Some(self.device.submit(request)));
        submitted.0.push(Arc::new(Flight { life, segment, bytes: bytes as u64, completion }));
    }

    /// Submits what was appended last: nothing more is.
    pub(crate) fn seal(self: &Arc<Self>, submitted: &mut Submitted) {
        lock(&self.state).sealed = true;
        self.submit(submitted);
        self.settle();
    }

    /// Whether it is of no use any more.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.state).failed || !self.owner.is_in_use(self.bucket.device())
    }

    /// Waits until what was submitted by now is on the device; false if some of it is lost.
    pub(crate) fn written(self: Arc<Self>) -> impl Future<Output = bool> + Send {
        let upto = lock(&self.state).next_segment;
        let life = Arc::clone(&self);
        let mut place = Place::new(move |own| lock(&life.state).waiting.leave(own));
        poll_fn(move |context| {
            let mut state = lock(&self.state);
            if state.failed {
                return Poll::Ready(false);
            }
            if state.segments.iter().all(|s| s.number >= upto || !s.submitted) {
                return Poll::Ready(true);
            }
            let old = place.enter(&mut state.waiting, context.waker());
            drop(state);
            drop(old); // not before: see `Wakers`
            Poll::Pending
        })
    }

    /// A segment came back from the device.
    fn came_back(self: &Arc<Self>, number: u64, bytes: u64, outcome: tierce_io::Outcome) {
        let failed = outcome.is_err();
        // Before anybody can see that it is not under way any more: a flush that does must know
        // what was lost.
        match outcome {
            Ok(_) => self.owner.wrote(bytes),
            Err(error) => self.owner.failed(self, error),
        }
        let (segment, waiting) = {
            let mut state = lock(&self.state);
            let at = state.segments.iter().position(|segment| segment.number == number);
            let segment = at.map(|at| state.segments.remove(at));
            state.failed |= failed;
            (segment, state.waiting.take())
        };
        self.settle();
        drop(segment);
        waiting.for_each(Waker::wake);
    }

    /// Lets go of the bucket if there is nothing left to do for it.
    fn settle(&self) {
        let allocation = {
            let mut state = lock(&self.state);
            if !state.sealed || !state.segments.is_empty() {
                return;
            }
            state.allocation.take()
        };
        let Some(allocation) = allocation else { return };
        self.owner.lives().confirmed(self);
        allocation.written();
    }
}

/// A segment on its way to the device. It is its own waker: what follows a confirmation is short
/// and runs where the confirmation arrives.
struct Flight {
    life: Arc<Life>,
    segment: u64,
    bytes: u64,
    completion: Mutex<Option<Completion>>,
}

/// Segments that were submitted under a stream's lock. When they come back, which may be at once,
/// wakers are called, and those may do anything: so this is dropped when the lock is free.
#[derive(Default)]
pub(crate) struct Submitted(Vec<Arc<Flight>>);

impl Drop for Submitted {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|flight| flight.advance());
    }
}

impl Flight {
    fn advance(self: &Arc<Self>) {
        let outcome = {
            let mut completion = lock(&self.completion);
            let Some(pending) = completion.as_mut() else { return };
            let waker = Waker::from(Arc::clone(self));
            match Pin::new(pending).poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => return,
                Poll::Ready(outcome) => {
                    *completion = None;
                    outcome
                }
            }
        };
        self.life.came_back(self.segment, self.bytes, outcome);
    }
}

impl Wake for Flight {
    fn wake(self: Arc<Self>) {
        self.advance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::formatted;
    use tierce_core::{BucketIndex, Gen, Geometry, Reserve};
    use tierce_io::{DeviceExt, Fault, FaultKind, Operation};
    use tierce_lockfree::{Allocator, Config, DeviceTable};

    /// Looks at a life while it is told of it.
    #[derive(Debug)]
    struct Watcher {
        lives: Lives,
        known_before: AtomicBool,
    }

    impl Owner for Watcher {
        fn lives(&self) -> &Lives {
            &self.lives
        }

        fn wrote(&self, _bytes: u64) {}

        fn failed(&self, life: &Life, _error: tierce_io::Error) {
            // Relaxed: one thread.
            self.known_before.store(life.has_failed(), Ordering::Relaxed);
        }

        fn is_in_use(&self, _device: DeviceIndex) -> bool {
            true
        }
    }

    /// A flush that finds that a segment is not under way any more asks the owner what was lost.
    #[test]
    fn the_owner_knows_of_a_loss_before_anybody_else() {
        let sim = formatted(0, 640, 16 << 10);
        let geometry = Geometry::new(640, 1, 32, 1).expect("a legal shape");
        let tables = vec![DeviceTable::empty(geometry)];
        let (allocator, _reclaimers) =
            Allocator::start(Config::default(), tables).expect("legal settings").finish();
        let allocation = allocator.try_alloc(Reserve::Btree).expect("works").expect("filled");
        let (lives, known_before) = (Lives::new([640].into_iter()), AtomicBool::new(true));
        let owner = Arc::new(Watcher { lives, known_before });
        let layout = Layout::new(16 << 10, 512).expect("room");
        let life = Life::new(
            allocation.into_owned(&allocator),
            7,
            layout,
            Arc::clone(&sim) as Arc<dyn Device>,
            Arc::clone(&owner) as Arc<dyn Owner>,
        );
        life.begin(0, 512, None);
        life.append(|out| out.extend([1; 512]));
        sim.inject(Fault::new(FaultKind::Io, Operation::Write, 0));
        life.submit(&mut Submitted::default());
        assert!(!crate::block::block_on(Arc::clone(&life).written()));
        // Relaxed: as above.
        assert!(!owner.known_before.load(Ordering::Relaxed), "somebody else knew first");
        sim.flush().expect("the device goes on");
    }

    #[test]
    fn lives_are_counted() {
        let lives = Lives::new([10].into_iter());
        let bucket = |number| BucketId::new(DeviceIndex::FIRST, BucketIndex::new(number));
        let found = |number, life| lives.found(BucketRef::new(bucket(number), Gen::new(1)), life);
        found(1, 100);
        found(2, 101);
        found(1, 102);
        assert_eq!(lives.count(), 2);
        lives.end(bucket(2));
        lives.end(bucket(3));
        assert_eq!(lives.count(), 1);
    }
}
