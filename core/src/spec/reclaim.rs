//! Choosing what is reused next: one *pass* of the policy.
//!
//! A pass invalidates buckets and appends them to `free_inc` until that is full. It considers
//! the buckets from `first_bucket` on that are unpinned, marked none or reclaimable, and not 96
//! generations ahead of the last garbage collection. It also skips a bucket whose gen is 96
//! ahead of the *durable* one, because after a crash its pointers could no longer be told from
//! stale ones; then a prio write is made early instead of waiting for a garbage collection.
//!
//! No pass is made while marks are not valid, nor, when a pass could not fill `free_inc`, until
//! a garbage collection has finished.

use super::device::{Device, Place};
use super::events::Event;
use super::set::Set;
use crate::bucket::{BucketIndex, DeviceIndex, Prio};
use crate::policy::{Policy, lru_key};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// What a pass came to.
///
/// ```
/// use tierce_core::spec::{DeviceOptions, Options, Pass, Set};
/// use tierce_core::{DeviceIndex, Geometry, Sizes};
/// let g = Geometry::new(1024, 1, 128, 8)?;
/// let device = DeviceOptions::new(g, Sizes::bcache(&g, 8));
/// let mut set = Set::new(Options::default(), vec![device])?;
/// assert_eq!(set.invalidate(DeviceIndex::FIRST), Pass::Filled);
/// assert_eq!(set.free_inc(DeviceIndex::FIRST).len(), 4);
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// `free_inc` is full.
    Filled,
    /// It is not; the device now waits for a garbage collection, or an early prio write comes
    /// first.
    Short,
    /// No pass was made: marks are not valid, the device waits for a garbage collection or has
    /// failed.
    Refused,
}

impl Set {
    /// One pass over a device.
    ///
    /// # Panics
    ///
    /// If the set has no such device.
    pub fn invalidate(&mut self, device: DeviceIndex) -> Pass {
        let gc_finished = self.gc_finished;
        let d = &mut self.devices[device.as_usize()];
        if !self.marks_valid || d.failed.is_some() || d.needs_gc > gc_finished {
            return Pass::Refused;
        }
        let right_after_gc = gc_finished > d.last_pass_gc;
        d.last_pass_gc = gc_finished;
        d.write_early = false;
        match d.options.policy {
            Policy::Lru => self.pass_lru(device),
            Policy::Fifo => self.pass_fifo(device),
            Policy::Random => self.pass_random(device),
        }
        let d = &mut self.devices[device.as_usize()];
        d.write_partial = false;
        if d.free_inc_is_full() {
            return Pass::Filled;
        }
        if !d.write_early {
            d.needs_gc = gc_finished + 1;
            d.write_partial = right_after_gc;
        }
        Pass::Short
    }

    /// The smallest keys of the whole device first, ties by the lowest bucket. A heap bounded
    /// by `candidates`, largest on top, keeps the best seen so far.
    fn pass_lru(&mut self, device: DeviceIndex) {
        let min_prio = self.min_prio;
        let d = &mut self.devices[device.as_usize()];
        let mut heap = Candidates::new(d.options.sizes.candidates);
        for b in d.buckets() {
            if d.can_invalidate(b) {
                heap.offer(d.lru_rank(b, min_prio));
            }
        }
        for (_, b) in heap.into_ascending() {
            if self.devices[device.as_usize()].free_inc_is_full() {
                break;
            }
            self.invalidate_one(device, b);
        }
    }

    /// A cursor that goes on where the last pass stopped, at most `nbuckets` looks.
    fn pass_fifo(&mut self, device: DeviceIndex) {
        let geometry = self.devices[device.as_usize()].options.geometry;
        for _ in 0..geometry.nbuckets() {
            let d = &mut self.devices[device.as_usize()];
            if d.free_inc_is_full() {
                break;
            }
            let next = BucketIndex::new(d.fifo_next);
            let b = if geometry.contains(next) { next } else { geometry.first_bucket() };
            d.fifo_next = b.get() + 1;
            if d.can_invalidate(b) {
                self.invalidate_one(device, b);
            }
        }
    }

    /// Uniform draws, at most `nbuckets / 2` of them.
    fn pass_random(&mut self, device: DeviceIndex) {
        let geometry = self.devices[device.as_usize()].options.geometry;
        let first = geometry.first_bucket().get();
        for _ in 0..geometry.nbuckets() / 2 {
            let d = &mut self.devices[device.as_usize()];
            if d.free_inc_is_full() {
                break;
            }
            let b = BucketIndex::new(first + d.random.below(geometry.nbuckets() - first));
            if d.can_invalidate(b) {
                self.invalidate_one(device, b);
            }
        }
    }

    fn invalidate_one(&mut self, device: DeviceIndex, b: BucketIndex) {
        let sectors = self.advance(device, b);
        let d = &mut self.devices[device.as_usize()];
        d.put_in(b, Place::FreeInc);
        d.free_inc.push_back(b);
        self.counters.invalidate_total += 1;
        self.event(Event::Invalidated { bucket: Self::id(device, b), sectors });
    }

    /// Invalidates the bucket without saying where it goes. Returns its live sectors.
    pub(super) fn advance(&mut self, device: DeviceIndex, b: BucketIndex) -> u32 {
        let d = &mut self.devices[device.as_usize()];
        let word = d.word(b);
        let next = word.invalidate().expect("only what can be invalidated gets here");
        d.store(b, next);
        self.need_gc = self.need_gc.max(next.gc_gen());
        d.live_sectors(word)
    }
}

impl Device {
    /// Whether a pass may take this bucket. Notes when only the durable gen is in the way.
    fn can_invalidate(&mut self, b: BucketIndex) -> bool {
        if !self.word(b).can_invalidate() {
            return false;
        }
        let far_ahead = self.is_far_ahead(b);
        self.write_early |= far_ahead;
        !far_ahead
    }

    fn lru_rank(&self, b: BucketIndex, min_prio: Prio) -> Rank {
        (lru_key(self.word(b), min_prio), b)
    }
}

type Rank = (u32, BucketIndex);

/// The smallest ranks offered so far, at most so many.
struct Candidates {
    heap: BinaryHeap<Rank>,
    most: usize,
}

impl Candidates {
    fn new(most: u32) -> Self {
        Self { heap: BinaryHeap::new(), most: most as usize }
    }

    fn offer(&mut self, rank: Rank) {
        if self.heap.len() < self.most {
            self.heap.push(rank);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && rank < *worst
        {
            *worst = rank;
            // Dropping the guard sifts the new one down.
            drop::<PeekMut<'_, Rank>>(worst);
        }
    }

    fn into_ascending(self) -> impl Iterator<Item = Rank> {
        self.heap.into_sorted_vec().into_iter()
    }
}
