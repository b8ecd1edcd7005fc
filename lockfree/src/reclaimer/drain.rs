//! Phase 1 of the reclaimer: durable buckets become free, each after its discard if there are any.

use super::{Phase, Reclaimer, Step, WaitFor};
use crate::device::Hunger;
use crate::events::event;
use crate::sync::Arc;
use tierce_core::spec::Event;
use tierce_core::{BucketId, BucketIndex, broken};

impl Reclaimer {
    /// Phase 1: everything that is ready goes to the free lists.
    pub(super) fn drain(&mut self) -> Option<Step> {
        if !self.allocator.config().sync {
            self.ready.append(&mut self.free_inc);
        }
        match (self.allocator.config().discard, self.discards.is_some()) {
            (true, true) => self.drain_discards(),
            (true, false) => self.drain_discarding(),
            (false, _) => self.drain_at_once(),
        }
    }

    /// One by one, each after its discard.
    fn drain_discarding(&mut self) -> Option<Step> {
        loop {
            let next = self.in_hand.take().or_else(|| Some((self.ready.pop_front()?, false)));
            let Some((bucket, discarded)) = next else { break };
            if !discarded {
                if broken!("release_before_discarded") {
                    let _ = self.dev().release(bucket);
                }
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

    /// As many as there is room for in one go.
    fn drain_at_once(&mut self) -> Option<Step> {
        // Nobody is told of what others release.
        if self.allocator.config().refill_on_demand && self.events.is_none() {
            return self.drain_into_stock();
        }
        if let Some((bucket, _)) = self.in_hand.take() {
            self.ready.push_front(bucket);
        }
        self.release_ready();
        if !self.ready.is_empty() {
            self.dev().stay_hungry(Hunger::Room);
            // Once more: a place may have become free before we said that we wait for one.
            self.release_ready();
        }
        match self.ready.pop_front() {
            Some(bucket) => {
                self.in_hand = Some((bucket, true));
                Some(Step::Wait(WaitFor::Room))
            }
            None => {
                self.phase = Phase::Choose;
                None
            }
        }
    }

    /// The same if what there is no room for may be taken to the lists by others.
    fn drain_into_stock(&mut self) -> Option<Step> {
        let allocator = Arc::clone(&self.allocator);
        let device = &allocator.devices()[self.device.as_usize()];
        if device.stock_up(&mut self.ready) {
            return Some(Step::Wait(WaitFor::Room));
        }
        self.phase = Phase::Choose;
        None
    }

    fn release_ready(&mut self) {
        let (allocator, index) = (Arc::clone(&self.allocator), self.device);
        let device = &allocator.devices()[index.as_usize()];
        let (ready, events) = (&mut self.ready, &mut self.events);
        let sleepers = device.release_all(ready, |bucket, reserve| {
            event!(TRACE, "release", device = index, bucket = bucket, reserve = reserve);
            if let Some(events) = events {
                events.push(Event::Released { bucket: BucketId::new(index, bucket), reserve });
            }
        });
        drop(sleepers);
    }

    pub(super) fn release(&mut self, bucket: BucketIndex) -> Result<(), BucketIndex> {
        let device = self.dev();
        let released = device.release(bucket).or_else(|bucket| {
            device.stay_hungry(Hunger::Room);
            // Once more: a place may have become free before we said that we wait for one.
            device.release(bucket)
        });
        let reserve = released?;
        event!(TRACE, "release", device = self.device, bucket = bucket, reserve = reserve);
        self.event(|bucket| Event::Released { bucket, reserve }, bucket);
        Ok(())
    }
}
