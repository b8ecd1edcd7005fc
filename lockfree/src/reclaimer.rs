//! The reclaimer: from "could be reused" to "free".
//!
//! # Problem
//!
//! A bucket may be handed out again only after its new gen is durable on the device (the crash
//! rule, `tierce_core::bucket`). Making one gen durable costs a flush, so buckets are
//! invalidated in batches and all gens of the device are written at once.
//!
//! # Protocol
//!
//! One reclaimer per device; whoever does the device's I/O owns it and calls
//! [`Reclaimer::step`] until it says [`Step::Wait`], then [`Reclaimer::park`].
//!
//! 1. *Drain*: buckets whose gens are durable go to the free lists, each after its discard if
//!    discards are on. All lists full: keep the bucket in hand and wait for room.
//! 2. *Choose*: one pass of the policy invalidates buckets and *then* puts them into `free_inc`.
//!    Not enough can be invalidated: wait for a garbage collection and choose again. If that was
//!    a pass right after a collection, or somebody found nothing free, go on with what there is.
//! 3. *Write*: allocate the buckets of a prio chain (all or none), drain `free_inc` into a
//!    private batch, and *then* encode the words. For a bucket of the batch the drain happened
//!    after its invalidation, so what is encoded contains its new gen; for others the table may
//!    be newer or older, they are not released by this write.
//! 4. The owner writes the sets, flushes, writes the journal entry that names the head, and says
//!    [`Reclaimer::prio_durable`]. *Only now* the old chain is released, and those of the batch
//!    whose gen is still the encoded one go to 1. A bucket whose gen moved is queued again,
//!    never released.
//!
//! It works one batch ahead: while the lists are full, the next batch is durable already.
//!
//! # Progress
//!
//! A step blocks on nobody. Whoever waits for a bucket is woken by a release, by the device's
//! failure, or when the set is closed.

use crate::allocator::Allocator;
use crate::device::{Device, Hunger};
use crate::error::Cause;
use crate::prio_write::PrioWrite;
use crate::sync::{Arc, Ordering};
use crate::victims::{self, Pass};
use std::collections::VecDeque;
use std::time::Instant;
use tierce_core::draws::Draws;
use tierce_core::{BucketIndex, DeviceIndex, Policy, Reserve};

/// What a reclaimer that cannot go on waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// All free lists are full.
    Room,
    /// A garbage collection has to find more that can be reused.
    Gc,
    /// `none` and `prio` together hold too few buckets for a prio write.
    PrioBuckets,
}

/// What the owner of a reclaimer has to do next.
#[derive(Debug)]
#[must_use = "the reclaimer waits for it"]
pub enum Step {
    /// Nothing: [`Reclaimer::park`], then step again.
    Wait(WaitFor),
    /// Write the table, then [`Reclaimer::prio_durable`] or [`Reclaimer::prio_failed`].
    PrioWrite(PrioWrite),
    /// Discard this bucket, then [`Reclaimer::discarded`].
    Discard(BucketIndex),
    /// Nothing any more: the set was closed or the device has failed.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Drain,
    Choose,
    Write,
    /// A [`PrioWrite`] is in the owner's hands.
    Writing,
}

/// The one thread's worth of work that makes buckets of a device free again.
///
/// ```
/// use tierce_core::{Geometry, Reserve};
/// use tierce_lockfree::{Allocator, Config, DeviceTable, Step, WaitFor};
///
/// let geometry = Geometry::new(1024, 1, 128, 1)?;
/// let (allocator, mut reclaimers) =
///     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// let reclaimer = &mut reclaimers[0];
/// loop {
///     match reclaimer.step() {
///         Step::PrioWrite(mut write) => {
///             for set in (0..write.chain().len()).rev() {
///                 write.encode(set, |_prio, _gen| { /* into the set's buffer */ });
///                 // write the buffer to bucket write.chain()[set] …
///             }
///             // flush, write the journal entry, and when that is durable:
///             reclaimer.prio_durable(write);
///         }
///         Step::Wait(reason) => {
///             assert_eq!(reason, WaitFor::Room);
///             break; // a real owner parks here
///         }
///         other => unreachable!("{other:?}"),
///     }
/// }
/// assert!(allocator.try_alloc(Reserve::None)?.is_some());
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Debug)]
pub struct Reclaimer {
    allocator: Arc<Allocator>,
    device: DeviceIndex,
    phase: Phase,
    /// Popped from `ready`, and whether its discard is done.
    in_hand: Option<(BucketIndex, bool)>,
    /// Durable, on the way to the free lists.
    ready: VecDeque<BucketIndex>,
    /// Invalidated, not durable yet.
    free_inc: VecDeque<BucketIndex>,
    /// Buckets of the batch that is being written.
    in_flight: usize,
    fifo_cursor: u32,
    prio_seq: u64,
    /// After a pass that fell short: the number of collections that must have finished before
    /// the next one.
    short_until: Option<u64>,
    draws: Draws,
}

impl Reclaimer {
    pub(crate) fn new(allocator: Arc<Allocator>, device: DeviceIndex, prio_seq: u64) -> Self {
        Self {
            draws: Draws::new(allocator.config().seed),
            allocator,
            device,
            phase: Phase::Drain,
            in_hand: None,
            ready: VecDeque::new(),
            free_inc: VecDeque::new(),
            in_flight: 0,
            fifo_cursor: 0,
            prio_seq,
            short_until: None,
        }
    }

    /// The device whose buckets it reclaims.
    #[must_use]
    pub fn device(&self) -> DeviceIndex {
        self.device
    }

    /// The allocator that it works for.
    #[must_use]
    pub fn allocator(&self) -> &Arc<Allocator> {
        &self.allocator
    }

    fn dev(&self) -> &Device {
        &self.allocator.devices()[self.device.as_usize()]
    }

    /// Sleeps until there may be something to do, or until `deadline`. `true` if it was woken.
    pub fn park(&self, deadline: Option<Instant>) -> bool {
        self.dev().bell.wait(deadline)
    }

    /// Does what can be done without the device and says what has to be done next.
    pub fn step(&mut self) -> Step {
        loop {
            if self.dev().check().is_err() {
                return Step::Ended;
            }
            self.age();
            self.offer_leftovers();
            let stopped = match self.phase {
                Phase::Drain => self.drain(),
                Phase::Choose => self.choose(),
                Phase::Write => self.begin_write(),
                Phase::Writing => unreachable!("stepped while a prio write is in flight"),
            };
            self.count();
            if let Some(step) = stopped {
                return step;
            }
        }
    }

    /// Everything that is neither full nor free: invalidated, being written, ready, in hand.
    fn count(&self) {
        let in_hand = usize::from(self.in_hand.is_some());
        let count = self.free_inc.len() + self.in_flight + self.ready.len() + in_hand;
        // Relaxed: a statistic.
        self.dev().counters.free_inc.store(count as u64, Ordering::Relaxed);
    }

    fn age(&self) {
        while self.allocator.ageing().take_request() {
            self.allocator.ageing().rescale(self.allocator.devices());
            self.allocator.counters().rescales.add(1);
        }
    }

    /// Phase 1: everything that is ready goes to the free lists.
    fn drain(&mut self) -> Option<Step> {
        loop {
            let next = self.in_hand.take().or_else(|| Some((self.ready.pop_front()?, false)));
            let Some((bucket, discarded)) = next else { break };
            if self.allocator.config().discard && !discarded {
                self.in_hand = Some((bucket, false));
                return Some(Step::Discard(bucket));
            }
            if let Err(bucket) = self.release(bucket) {
                self.in_hand = Some((bucket, true));
                return Some(Step::Wait(WaitFor::Room));
            }
        }
        self.phase = Phase::Choose;
        None
    }

    fn release(&self, bucket: BucketIndex) -> Result<(), BucketIndex> {
        let device = self.dev();
        let Err(bucket) = device.release(bucket) else { return Ok(()) };
        device.stay_hungry(Hunger::Room);
        // Once more: a place may have become free before we said that we wait for one.
        device.release(bucket).map(drop)
    }

    /// Buckets that are free but found no place, or were pinned by somebody else. In every
    /// phase: they may be all that those who wait can get.
    fn offer_leftovers(&self) {
        let device = self.dev();
        for bucket in device.take_leftovers() {
            if device.table().read(bucket).pin_count() != 1 {
                device.set_aside(bucket);
            } else if device.release(bucket).is_err() {
                device.leftovers.lock().push(bucket);
            }
        }
    }

    /// The bucket of [`Step::Discard`] was discarded, or the device would not do it: both are
    /// fine, the bucket goes on.
    pub fn discarded(&mut self) {
        self.dev().counters.discards.add(1);
        let (bucket, done) = self.in_hand.expect("a discard was asked for");
        assert!(!done, "a bucket is discarded once");
        self.in_hand = Some((bucket, true));
    }

    /// Phase 2: one pass of the policy.
    fn choose(&mut self) -> Option<Step> {
        let allocator = Arc::clone(&self.allocator);
        let gc = allocator.gc_state();
        let finished = gc.finished();
        let demand = self.dev().take_demand();
        let after_gc = match self.short_until {
            Some(until) if finished < until => {
                if demand {
                    gc.need_after(until - 1);
                }
                return self.go_on_short(demand && allocator.config().batch_on_demand);
            }
            before => before.is_some(),
        };
        self.pass();
        if self.free_inc.len() >= self.dev().sizes().free_inc as usize {
            self.short_until = None;
            self.phase = Phase::Write;
            return None;
        }
        self.short_until = Some(finished + 1);
        if !after_gc || demand {
            gc.need_after(finished);
        }
        self.go_on_short(after_gc || demand && allocator.config().batch_on_demand)
    }

    /// Too little was found. Goes on with it if `at_once`, or if nothing has to become durable.
    fn go_on_short(&mut self, at_once: bool) -> Option<Step> {
        if self.free_inc.is_empty() || !at_once && self.allocator.config().sync {
            return Some(Step::Wait(WaitFor::Gc));
        }
        self.phase = Phase::Write;
        None
    }

    fn pass(&mut self) {
        let allocator = Arc::clone(&self.allocator);
        let device = &allocator.devices()[self.device.as_usize()];
        let free_inc = &mut self.free_inc;
        let mut pass = Pass {
            table: device.table(),
            geometry: device.geometry(),
            min_prio: allocator.ageing().min_prio(),
            wanted: (device.sizes().free_inc as usize).saturating_sub(free_inc.len()),
            taken: |bucket, invalidated: crate::table::Invalidated| {
                allocator.gc_state().note_gc_gen(invalidated.after.gc_gen());
                device.counters.invalidated.add(1);
                free_inc.push_back(bucket);
            },
        };
        match allocator.policy() {
            Policy::Lru => victims::lru::pass(&mut pass, device.sizes().candidates as usize),
            Policy::Fifo => victims::fifo::pass(&mut pass, &mut self.fifo_cursor),
            Policy::Random => victims::random::pass(&mut pass, &mut self.draws),
        }
        allocator.ring_if_gc_due();
    }

    /// Phase 3: the batch and the chain.
    fn begin_write(&mut self) -> Option<Step> {
        if !self.allocator.config().sync {
            self.ready.append(&mut self.free_inc);
            self.phase = Phase::Drain;
            return None;
        }
        let chain = match self.alloc_chain() {
            Some(chain) => chain,
            None => {
                self.dev().stay_hungry(Hunger::Buckets);
                match self.alloc_chain() {
                    Some(chain) => chain,
                    None => return Some(Step::Wait(WaitFor::PrioBuckets)),
                }
            }
        };
        self.dev().chain.lock().writing.clone_from(&chain);
        self.prio_seq += 1;
        self.phase = Phase::Writing;
        let batch: Vec<_> = self.free_inc.drain(..).collect();
        self.in_flight = batch.len();
        let allocator = Arc::clone(&self.allocator);
        Some(Step::PrioWrite(PrioWrite::new(allocator, self.device, self.prio_seq, chain, batch)))
    }

    /// A bucket for every prio set, or none at all.
    fn alloc_chain(&self) -> Option<Vec<BucketIndex>> {
        let device = self.dev();
        let sets = device.geometry().prio_buckets() as usize;
        if !device.reserves().could_write_prios(sets) {
            return None;
        }
        let mut chain = Vec::with_capacity(sets);
        // The last set is written first, so it gets the first bucket.
        while chain.len() < sets {
            let Some((free, _)) = device.take(Reserve::Prio) else {
                chain.into_iter().rev().for_each(|free| device.give_back(free));
                return None;
            };
            chain.push(free);
        }
        Some(chain.into_iter().rev().map(|free| free.bucket).collect())
    }

    /// The sets, the flush and the journal entry of `write` are durable.
    ///
    /// # Panics
    ///
    /// If a set of it was never encoded, or it belongs to another reclaimer.
    pub fn prio_durable(&mut self, write: PrioWrite) {
        assert_eq!(self.phase, Phase::Writing, "no prio write is in flight");
        assert!(write.is_encoded(), "a set of the chain was never encoded");
        let device = self.dev();
        let mut chain = device.chain.lock();
        let new = core::mem::take(&mut chain.writing);
        assert_eq!(new, write.chain(), "this prio write is another reclaimer's");
        let old = core::mem::replace(&mut chain.live, new);
        for &bucket in &chain.live {
            // Its mark protects it from now on, and its being in `chain` renews the mark.
            device.table().unpin(bucket, 1);
        }
        let recycled: Vec<_> =
            old.into_iter().rev().filter(|&bucket| self.release_old(bucket)).collect();
        drop(chain);
        recycled.into_iter().for_each(|bucket| device.recycle(bucket));
        device.counters.prio_writes.add(1);
        let current = |bucket| device.table().peek(bucket).gen_();
        let (ready, moved): (Vec<_>, Vec<_>) =
            write.into_batch().partition(|&(bucket, encoded)| current(bucket) == encoded);
        self.ready.extend(ready.into_iter().map(|(bucket, _)| bucket));
        self.free_inc.extend(moved.into_iter().map(|(bucket, _)| bucket));
        self.in_flight = 0;
        self.phase = Phase::Drain;
        self.count();
    }

    /// An old prio bucket is dead. `true` if it is pinned for the prio reserve; otherwise it is
    /// left to invalidation.
    fn release_old(&self, bucket: BucketIndex) -> bool {
        let device = self.dev();
        let pinned = self.allocator.config().recycle_prio_chain
            && device.table().pin(bucket, device.table().peek(bucket).gen_()).is_some();
        device.table().free(bucket);
        device.available.change(1);
        pinned
    }

    /// `write` failed: the device is out of use, and everybody who waits for it is told `cause`.
    /// Nothing of the batch is released.
    pub fn prio_failed(&mut self, write: PrioWrite, cause: Cause) {
        drop(write);
        self.dev().fail(cause);
    }
}
