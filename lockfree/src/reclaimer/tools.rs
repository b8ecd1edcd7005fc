//! Looking into a reclaimer, and bringing it into a state by hand: for [`crate::sim`].

use super::{Passed, Reclaimer};
use crate::sync::Arc;
use tierce_core::BucketIndex;
use tierce_core::draws::Draws;
use tierce_core::spec::Pass;

impl Reclaimer {
    /// What waits to become durable or free, oldest first; without what is in hand.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = BucketIndex> {
        self.ready.iter().chain(&self.free_inc).copied()
    }

    /// Ready, but all lists were full.
    pub(crate) fn in_hand(&self) -> Option<BucketIndex> {
        self.in_hand.map(|(bucket, _)| bucket)
    }

    /// The next bucket that FIFO looks at.
    pub(crate) fn fifo_next(&self) -> u32 {
        self.fifo_cursor
    }

    /// Does the discards that wait outside the phases, as the next step would.
    pub(crate) fn discard_loose(&mut self) {
        while self.next_loose().is_some() {
            self.discarded();
        }
    }

    /// Offers again what was set aside, as the next step would; what is in hand stays there.
    pub(crate) fn offer_again(&mut self) {
        let in_hand = self.in_hand.take();
        self.offer_leftovers();
        self.in_hand = in_hand;
    }

    /// Where FIFO goes on looking, a bucket's number; beyond the device it starts over. It is not
    /// kept over a restart, and by itself starts at the first bucket: who knows which bucket was
    /// written last says so here, or what was written last goes first.
    pub fn set_fifo_next(&mut self, next: u32) {
        self.fifo_cursor = next;
    }

    /// Makes it wait for a collection, or not.
    pub(crate) fn set_needs_gc(&mut self, needs: bool) {
        self.short_until = needs.then(|| self.allocator.gc_state().finished() + 1);
    }

    /// Where the random policy's draws go on.
    pub(crate) fn set_seed(&mut self, seed: u64) {
        self.draws = Draws::new(seed);
    }

    /// One pass of the policy, and nothing else.
    pub(crate) fn pass_once(&mut self) -> Pass {
        if self.dev().check().is_err() {
            return Pass::Refused;
        }
        match self.pass() {
            Passed::Full => Pass::Filled,
            Passed::Short => Pass::Short,
            Passed::Refused => Pass::Refused,
        }
    }

    /// Empties `free_inc` and unpins what was in it; the gens stay, ahead of the durable ones.
    /// Returns how many there were.
    pub(crate) fn clear_free_inc(&mut self) -> usize {
        let allocator = Arc::clone(&self.allocator);
        let device = &allocator.devices()[self.device.as_usize()];
        let durable = self.ready.len();
        let cleared: Vec<_> = self.ready.drain(..).chain(self.free_inc.drain(..)).collect();
        for (at, &bucket) in cleared.iter().enumerate() {
            let word = device.table().unpin(bucket, 1);
            if at >= durable && allocator.config().sync {
                let before = word.gen_().get().wrapping_sub(1);
                device.ahead.lock().advance(bucket, tierce_core::Gen::new(before));
            }
        }
        self.count();
        cleared.len()
    }
}
