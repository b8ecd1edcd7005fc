//! Phase 3 of the reclaimer: the prio write, from the batch and the chain to the release of both.

use super::{Phase, Reclaimer, Step, WaitFor};
use crate::device::Hunger;
use crate::error::Cause;
use crate::events::event;
use crate::prio_write::PrioWrite;
use crate::sync::Arc;
use std::time::Instant;
use tierce_core::spec::Event;
use tierce_core::{BucketIndex, Gen, Reserve, broken};

impl Reclaimer {
    /// The state of the blocks if nobody holds prio writes back; else whoever leaves last rings.
    pub(super) fn unblocked(&self) -> Option<u64> {
        let blocks = self.allocator.prio_blocks();
        blocks.free().or_else(|| {
            self.dev().stay_hungry(Hunger::Unblocked);
            blocks.free()
        })
    }

    /// Phase 3: the batch and the chain.
    pub(super) fn begin_write(&mut self) -> Step {
        if broken!("release_before_durable") {
            for bucket in core::mem::take(&mut self.free_inc) {
                let _ = self.dev().release(bucket);
            }
        }
        // What was durable before this write is still waiting in phase 1.
        self.write_batch(true, Phase::Drain)
    }

    /// A prio write at once, without waiting for a full batch: before an orderly stop, so that
    /// the next start finds gens and ages as they are. Otherwise as [`step`](Self::step): do
    /// what it says.
    ///
    /// # Panics
    ///
    /// If the set has no prio writes ([`Config::sync`](crate::Config)), or one is in flight.
    pub fn write_now(&mut self) -> Step {
        assert!(self.allocator.config().sync, "a set without `sync` has no prio writes");
        assert_ne!(self.phase, Phase::Writing, "a prio write is in flight");
        if self.dev().check().is_err() {
            return Step::Ended;
        }
        self.age();
        // Elsewhere than in phase 1 the batch goes on being collected.
        self.write_batch(self.phase == Phase::Drain, self.phase)
    }

    fn write_batch(&mut self, with_batch: bool, then: Phase) -> Step {
        let Some(unblocked) = self.unblocked() else { return Step::Wait(WaitFor::PrioBlock) };
        let chain = self.alloc_chain().or_else(|| {
            self.dev().stay_hungry(Hunger::Buckets);
            self.alloc_chain()
        });
        let Some(chain) = chain else { return Step::Wait(WaitFor::PrioBuckets) };
        if broken!("old_chain_early") {
            let old = core::mem::take(&mut self.dev().chain.lock().live);
            for bucket in old {
                let _ = self.release_old(bucket) && self.dev().recycle(bucket);
            }
        }
        self.dev().chain.lock().writing.clone_from(&chain);
        self.prio_seq += 1;
        self.phase = Phase::Writing;
        self.after_write = then;
        let taken = if with_batch { self.free_inc.len() } else { 0 };
        // Those of them that wait for a later batch go with this write all the same.
        let going = self.free_inc.iter().copied().collect();
        self.free_inc.drain(..taken);
        self.in_flight = taken;
        self.write_began = Some(Instant::now());
        event!(DEBUG, "prio_write", device = self.device, seq = self.prio_seq, batch = taken);
        let (allocator, seq) = (Arc::clone(&self.allocator), self.prio_seq);
        let device = self.device;
        Step::PrioWrite(PrioWrite::new(allocator, device, seq, chain, going, taken, unblocked))
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
            let Some((free, _)) = device.take_first(Reserve::Prio) else {
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
    /// If it was not [confirmed](PrioWrite::confirm), or it belongs to another reclaimer.
    pub fn prio_durable(&mut self, write: PrioWrite) {
        assert_eq!(self.phase, Phase::Writing, "no prio write is in flight");
        assert!(write.is_confirmed(), "it was not confirmed");
        let allocator = Arc::clone(&self.allocator);
        let device = &allocator.devices()[self.device.as_usize()];
        let mut chain = device.chain.lock();
        let new = core::mem::take(&mut chain.writing);
        assert_eq!(new, write.chain(), "this prio write is another reclaimer's");
        let old = core::mem::replace(&mut chain.live, new);
        for &bucket in &chain.live {
            // Its mark protects it from now on, and its being in `chain` renews the mark.
            device.table().unpin(bucket, 1);
        }
        let old: Vec<_> =
            old.into_iter().map(|bucket| (bucket, self.release_old(bucket))).collect();
        drop(chain);
        let old = if broken!("old_chain_kept") { Vec::new() } else { old };
        for (bucket, pinned) in old {
            self.event(|bucket| Event::PrioFreed { bucket }, bucket);
            if pinned && device.recycle(bucket) {
                let reserve = Reserve::Prio;
                self.event(|bucket| Event::Released { bucket, reserve }, bucket);
            }
        }
        device.counters.prio_writes.add(1);
        if let Some(began) = self.write_began.take() {
            device.counters.write_times.add(began.elapsed());
        }
        event!(DEBUG, "prio_durable", device = self.device, seq = write.seq());
        write.settle();
        let encoded_is_current = |&(bucket, encoded): &(BucketIndex, Gen)| {
            broken!("gen_mismatch_released") || device.table().peek(bucket).gen_() == encoded
        };
        let (ready, moved): (Vec<_>, Vec<_>) = write.encoded_batch().partition(encoded_is_current);
        self.ready.extend(ready.into_iter().map(|(bucket, _)| bucket));
        if !broken!("gen_mismatch_dropped") {
            self.free_inc.extend(moved.into_iter().map(|(bucket, _)| bucket));
        }
        self.in_flight = 0;
        self.phase = self.after_write;
        (self.write_partial, self.write_early) = (false, false);
        if let Some(events) = &mut self.events {
            events.push(Event::PrioWritten { device: self.device, seq: write.seq() });
        }
        self.count();
    }

    /// An old prio bucket is dead. `true` if it is pinned for the prio reserve; otherwise it is
    /// left to invalidation.
    fn release_old(&self, bucket: BucketIndex) -> bool {
        let device = self.dev();
        let word = device.table().peek(bucket);
        let pinned = self.allocator.config().recycle_prio_chain
            && word.pin_count() == 0
            && device.table().pin(bucket, word.gen_()).is_some();
        device.table().free(bucket, word.gen_());
        device.available.change(1);
        pinned
    }

    /// `write` failed: the device is out of use, and everybody who waits for it is told `cause`.
    /// Nothing of the batch is released.
    pub fn prio_failed(&mut self, write: PrioWrite, cause: Cause) {
        drop(write);
        self.allocator.fail(self.device, cause);
    }
}
