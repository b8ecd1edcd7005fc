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
//!    discards are on. All lists full: keep the rest and wait for room; without discards others
//!    may fetch it from stock meanwhile (`device/stock.rs`).
//! 2. *Choose*: one pass of the policy invalidates buckets and *then* puts them into `free_inc`.
//!    Not enough can be invalidated: wait for a garbage collection and choose again. If that was
//!    a pass right after a collection, or somebody found nothing free, go on with what there is;
//!    also if buckets were skipped because their gens run too far ahead of the durable ones.
//! 3. *Write*, unless somebody holds prio writes back ([`crate::prio_block`]): allocate the buckets of a prio chain (all or none), drain `free_inc` into a
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

mod discards;
mod drain;
mod tools;
mod write;

use crate::ageing::AT_ONCE;
use crate::allocator::Allocator;
use crate::device::Device;
use crate::events::event;
use crate::prio_write::PrioWrite;
use crate::sync::{Arc, Ordering};
use crate::victims::lru::Lru;
use crate::victims::sampled::Sampled;
use crate::victims::{self, Pass, Taken};
use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;
use tierce_core::draws::Draws;
use tierce_core::spec::Event;
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Policy, Snapshot, broken};

/// What a reclaimer that cannot go on waits for; [`Reclaimer`] has an example.
///
/// ```
/// use tierce_lockfree::WaitFor;
/// let collect_now = |wait: WaitFor| wait == WaitFor::Gc;
/// assert!(!collect_now(WaitFor::Room));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// All free lists are full.
    Room,
    /// A garbage collection has to find more that can be reused.
    Gc,
    /// `none` and `prio` together hold too few buckets for a prio write.
    PrioBuckets,
    /// Somebody holds prio writes back with a [`PrioBlock`](crate::PrioBlock).
    PrioBlock,
    /// Durable buckets wait until more discards are [allowed](Reclaimer::allow_discards).
    Discard,
}

/// What the owner of a reclaimer has to do next; [`Reclaimer`] has an example.
///
/// ```
/// use tierce_lockfree::Step;
/// let goes_on = |step: &Step| !matches!(step, Step::Ended);
/// # assert!(!goes_on(&Step::Ended));
/// ```
#[derive(Debug)]
#[must_use = "the reclaimer waits for it"]
pub enum Step {
    /// Nothing: [`Reclaimer::park`], then step again.
    Wait(WaitFor),
    /// Write the table, then [`Reclaimer::prio_durable`] or [`Reclaimer::prio_failed`].
    PrioWrite(PrioWrite),
    /// Discard this bucket, then [`Reclaimer::discarded`]: before the next step, unless the
    /// owner [allows several](Reclaimer::allow_discards).
    Discard(BucketIndex),
    /// Nothing any more: the set was closed or the device has failed.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Drain,
    Choose,
    /// After a pass: whether to write what there is.
    Decide,
    Write,
    /// A [`PrioWrite`] is in the owner's hands.
    Writing,
}

/// What a pass came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    /// `free_inc` is full.
    Full,
    /// It is not.
    Short,
    /// None was made.
    Refused,
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
///             // Nobody holds prio writes back, or this would be false: encode again.
///             assert!(write.confirm());
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
    /// When the prio write in flight began.
    write_began: Option<Instant>,
    fifo_cursor: u32,
    prio_seq: u64,
    /// After a pass that fell short: the number of collections that must have finished before
    /// the next one.
    short_until: Option<u64>,
    /// How many had finished at the last pass.
    last_pass_gc: u64,
    /// The last pass came right after a collection and still fell short.
    write_partial: bool,
    /// The last pass skipped a bucket whose gen is too far ahead of the durable one.
    write_early: bool,
    /// Somebody found nothing free: what there is will do.
    hurry: bool,
    /// The phase after the prio write that is in flight.
    after_write: Phase,
    /// Skipped the prio write, is being discarded.
    loose: Option<BucketIndex>,
    /// Since the owner allows several discards at a time.
    discards: Option<discards::Discards>,
    /// What happened, if anybody asked for it.
    events: Option<Vec<Event>>,
    draws: Draws,
    lru: Lru,
    sampled: Sampled,
}

impl fmt::Debug for Reclaimer {
    /// Without the buckets on their way, which may be many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reclaimer")
            .field("device", &self.device)
            .field("phase", &self.phase)
            .field("prio_seq", &self.prio_seq)
            .field("free_inc", &self.free_inc.len())
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}

impl Reclaimer {
    pub(crate) fn new(allocator: Arc<Allocator>, device: DeviceIndex, prio_seq: u64) -> Self {
        Self {
            draws: Draws::new(allocator.config().seed.wrapping_add(device.get().into())),
            allocator,
            device,
            phase: Phase::Drain,
            in_hand: None,
            ready: VecDeque::new(),
            free_inc: VecDeque::new(),
            in_flight: 0,
            write_began: None,
            fifo_cursor: 0,
            prio_seq,
            short_until: None,
            last_pass_gc: 0,
            write_partial: false,
            write_early: false,
            hurry: false,
            after_write: Phase::Drain,
            loose: None,
            discards: None,
            events: None,
            lru: Lru::default(),
            sampled: Sampled::default(),
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

    /// From now on it remembers what it does, in order, for [`take_events`](Self::take_events):
    /// for tests and tools. Otherwise nothing is recorded, and that costs a test per bucket.
    pub fn record_events(&mut self) {
        self.events.get_or_insert_default();
    }

    /// What happened since the last call, oldest first; empty if nothing is recorded.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// Sleeps until there may be something to do, or until `deadline`. `true` if it was woken.
    pub fn park(&self, deadline: Option<Instant>) -> bool {
        self.dev().bell.wait(deadline)
    }

    /// Does what can be done without the device and says what has to be done next.
    ///
    /// # Panics
    ///
    /// If a [`PrioWrite`] that it gave out was neither [durable](Self::prio_durable) nor
    /// [failed](Self::prio_failed) since: its batch waits for it, also if it was dropped.
    pub fn step(&mut self) -> Step {
        loop {
            if self.dev().check().is_err() {
                return Step::Ended;
            }
            // Once for all that are due: before they count for something, or when they are many.
            if self.phase != Phase::Drain || self.allocator.ageing().is_worth_a_look() {
                self.age();
            }
            let room = self.offer_leftovers();
            if let Some(bucket) = self.next_discard() {
                self.count();
                return Step::Discard(bucket);
            }
            let stopped = match self.phase {
                Phase::Drain if !room => Some(Step::Wait(WaitFor::Room)),
                Phase::Drain => self.drain(),
                Phase::Choose => self.choose(),
                Phase::Decide => self.decide(),
                Phase::Write => Some(self.begin_write()),
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
        let discards = self.discards.as_ref().map_or(0, discards::Discards::len);
        let count = self.free_inc.len() + self.in_flight + self.ready.len() + in_hand + discards;
        // Relaxed: a statistic.
        self.dev().counters.free_inc.store(count as u64, Ordering::Relaxed);
    }

    /// Makes the rescales that are due by now, a few at most, unless another reclaimer of the set is
    /// making them. [`step`](Self::step) does it before it chooses buckets, and when four are due:
    /// one look at the table serves them all.
    pub fn age(&self) {
        let tables = self.allocator.devices().iter().map(Device::table);
        let made = self.allocator.ageing().rescale_due(tables);
        if made > 0 {
            self.allocator.counters().rescales.add(i64::from(made));
        }
        if made == AT_ONCE {
            // There may be more, which must not keep us from the rest: do not sleep before.
            self.dev().bell.ring();
        }
    }

    /// Records an event of a bucket, if anybody asked for that.
    fn event(&mut self, event: impl FnOnce(BucketId) -> Event, bucket: BucketIndex) {
        if let Some(events) = &mut self.events {
            events.push(event(BucketId::new(self.device, bucket)));
        }
    }

    /// Buckets that are free but found no place, or were pinned by somebody else. In every
    /// phase: they may be all that those who wait can get.
    /// `false` if some still found no room: then others need not be tried.
    fn offer_leftovers(&mut self) -> bool {
        let allocator = Arc::clone(&self.allocator);
        let device = &allocator.devices()[self.device.as_usize()];
        let leftovers = device.take_leftovers();
        if leftovers.is_empty() {
            return true;
        }
        let mut room = true;
        // What is in hand came first.
        if let Some((bucket, true)) = self.in_hand {
            self.in_hand = self.release(bucket).err().map(|bucket| (bucket, true));
        }
        for bucket in leftovers {
            if device.table().read(bucket).pin_count() != 1 {
                device.set_aside(bucket);
            } else if self.release(bucket).is_err() {
                device.leftovers.put(bucket);
                room = false;
            }
        }
        room
    }

    /// Phase 2: one pass of the policy, unless none can be made.
    fn choose(&mut self) -> Option<Step> {
        let allocator = Arc::clone(&self.allocator);
        let gc = allocator.gc_state();
        let demand = self.dev().take_demand();
        let hurries = allocator.config().batch_on_demand && !broken!("no_hurry");
        self.hurry = demand && hurries;
        match self.pass() {
            Passed::Full => {}
            Passed::Short => {
                let at_once = self.write_partial || self.write_early;
                if let Some(until) = self.short_until.filter(|_| !at_once || demand) {
                    gc.need_after(until - 1);
                }
            }
            Passed::Refused => {
                if demand {
                    gc.need_after(self.short_until.map_or(gc.finished(), |until| until - 1));
                }
                if !self.hurry || self.free_inc.is_empty() {
                    return Some(Step::Wait(WaitFor::Gc));
                }
            }
        }
        self.phase = Phase::Decide;
        None
    }

    fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// How many buckets a pass may add: what was written waits in the same place.
    fn room(&self) -> usize {
        let held = self.ready.len() + self.free_inc.len();
        (self.dev().sizes().free_inc as usize).saturating_sub(held)
    }

    /// Whether no further pass is made until a garbage collection has finished.
    pub(crate) fn needs_gc(&self) -> bool {
        self.short_until.is_some_and(|until| self.allocator.gc_state().finished() < until)
    }

    /// One pass, unless a collection has to finish first.
    fn pass(&mut self) -> Passed {
        if self.needs_gc() {
            return Passed::Refused;
        }
        let finished = self.allocator.gc_state().finished();
        let (began, before) = (Instant::now(), self.free_inc.len());
        if !self.take_victims() {
            return Passed::Refused;
        }
        self.dev().counters.pass_times.add(began.elapsed());
        let invalidated = self.free_inc.len() - before;
        event!(DEBUG, "pass", device = self.device, invalidated = invalidated);
        let after_gc = finished > self.last_pass_gc;
        self.last_pass_gc = finished;
        (self.short_until, self.write_partial) = (None, false);
        if self.is_full() {
            return Passed::Full;
        }
        if !self.write_early {
            self.short_until = Some(finished + 1);
            self.write_partial = after_gc;
        }
        Passed::Short
    }

    /// Fills `free_inc` by the policy, unless marks are not valid. Returns whether they are.
    fn take_victims(&mut self) -> bool {
        let allocator = Arc::clone(&self.allocator);
        let device = &allocator.devices()[self.device.as_usize()];
        let in_place = !allocator.config().invalidate_during_gc;
        // A collection in place waits for this lock after it has declared the marks invalid.
        let _pass = in_place.then(|| device.pass.lock());
        let unguarded = broken!("gc_in_place_unguarded");
        if !unguarded && !allocator.gc_state().marks_valid() {
            return false;
        }
        let (room, before) = (self.room(), self.free_inc.len());
        let far =
            if broken!("far_ahead_taken") { Vec::new() } else { device.ahead.far(device.table()) };
        let (free_inc, events) = (&mut self.free_inc, &mut self.events);
        let shift = device.geometry().sector_shift();
        let mut pass = Pass {
            table: device.table(),
            geometry: device.geometry(),
            min_prio: allocator.ageing().min_prio(),
            far: &far,
            write_early: false,
            wanted: room,
            taken: |taken: Taken<'_>| {
                allocator.gc_state().note_gc_gen(taken.gc_gen);
                free_inc.extend(taken.buckets);
                let sectors = |word: Snapshot| u32::from(word.sectors()) << shift;
                let each = || taken.buckets.iter().copied().zip(taken.words.iter().copied());
                for (bucket, word) in each() {
                    event!(
                        TRACE,
                        "invalidate",
                        device = device.index(),
                        bucket = bucket,
                        sectors = sectors(word)
                    );
                }
                if let Some(events) = events {
                    events.extend(each().map(|(bucket, word)| Event::Invalidated {
                        bucket: BucketId::new(device.index(), bucket),
                        sectors: sectors(word),
                    }));
                }
            },
        };
        match allocator.policy() {
            Policy::Lru if allocator.config().lru_sample > 0 => {
                let sample = allocator.config().lru_sample;
                victims::sampled::pass(&mut pass, sample, &mut self.sampled, &mut self.draws);
            }
            Policy::Lru => {
                let candidates = device.sizes().candidates as usize;
                victims::lru::pass(&mut pass, candidates, &mut self.lru, allocator.scanner());
            }
            Policy::Fifo => victims::fifo::pass(&mut pass, &mut self.fifo_cursor),
            Policy::Random => victims::random::pass(&mut pass, &mut self.draws),
        }
        self.write_early = pass.write_early;
        device.counters.invalidated.add((self.free_inc.len() - before) as i64);
        allocator.ring_if_gc_due();
        true
    }

    /// Before phase 3: whether there is to be a prio write, and may be one now.
    fn decide(&mut self) -> Option<Step> {
        if self.unblocked().is_none() {
            return Some(Step::Wait(WaitFor::PrioBlock));
        }
        if !self.allocator.config().sync {
            self.phase = Phase::Drain;
            return None;
        }
        let partial = self.hurry || self.write_partial && self.needs_gc();
        let early = self.write_early && !broken!("no_early_write");
        let write = self.is_full() || early || partial && !self.free_inc.is_empty();
        self.hurry = false;
        self.phase = if write { Phase::Write } else { Phase::Choose };
        None
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use crate::config::{Config, DeviceTable};
    use tierce_core::Geometry;

    /// A gen that moves between being encoded and being durable: nothing in the allocator does
    /// that, so the test does.
    #[test]
    fn a_bucket_whose_gen_moved_is_queued_again() {
        let geometry = Geometry::new(64, 1, 128, 8).expect("a legal shape");
        let table = DeviceTable::empty(geometry);
        let started = Allocator::start(Config::default(), vec![table]).expect("legal settings");
        let (_allocator, mut reclaimers) = started.finish();
        let reclaimer = &mut reclaimers[0];
        let Step::PrioWrite(mut write) = reclaimer.step() else { panic!("the first batch") };
        write.encode(0, |_, _| ());
        let moved = write.batch()[0];
        reclaimer.dev().table().unpin(moved, 1);
        assert!(reclaimer.dev().table().invalidate(moved).is_some());
        assert!(write.confirm(), "nobody holds it back");
        reclaimer.prio_durable(write);
        assert!(!reclaimer.ready.contains(&moved), "its gen is not durable");
        assert!(reclaimer.free_inc.contains(&moved), "it waits for the next write");
    }
}
