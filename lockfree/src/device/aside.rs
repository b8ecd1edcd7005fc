//! Free buckets that are kept from the free lists, until the reclaimer offers them again: those on
//! which there is a foreign pin, and those for which no list has room. Where they are kept is
//! [`crate::pile`].
//!
//! Who drops the last foreign pin of a bucket that was set aside wakes the reclaimer. Whether one was
//! he and whoever sets it aside find out by a fence each: one of them comes first.

use super::Device;
use crate::sync::{Ordering, fence};
use tierce_core::{BucketIndex, Snapshot, broken};

impl Device {
    #[cold]
    pub(super) fn found_pinned(&self, bucket: BucketIndex) {
        self.counters.foreign_pins.add(1);
        self.set_aside(bucket);
    }

    /// Keeps a free bucket away from the lists until the foreign pin on it is gone.
    pub(crate) fn set_aside(&self, bucket: BucketIndex) {
        self.set_aside.put(bucket);
        if !broken!("set_aside_no_fence") {
            // SeqCst: of this fence and the one in `pin_dropped` one comes first: either the look
            // below finds the pin gone, or whoever drops it sees that a bucket was set aside.
            fence(Ordering::SeqCst);
        }
        if self.table.peek(bucket).pin_count() == 1 {
            self.bell.ring();
        }
    }

    /// A guard's pin was dropped, and `word` is what that left.
    pub(crate) fn pin_dropped(&self, word: Snapshot) {
        if word.pin_count() != 1 {
            return; // a free bucket with no other foreign pin has exactly its own
        }
        if !broken!("pin_dropped_no_fence") {
            // SeqCst: pairs with the fence in `set_aside`.
            fence(Ordering::SeqCst);
        }
        if !self.set_aside.is_empty() {
            self.bell.ring();
        }
    }

    /// All leftovers, and all that was set aside, to be offered again or set aside again.
    pub(crate) fn take_leftovers(&self) -> Vec<BucketIndex> {
        let mut buckets = self.leftovers.take();
        buckets.append(&mut self.set_aside.take());
        buckets
    }

    /// About how many free buckets are kept from the lists.
    pub(crate) fn kept(&self) -> u64 {
        self.leftovers.len() + self.set_aside.len()
    }

    /// Keeps a free bucket that found all lists full; the reclaimer offers it again.
    pub(crate) fn keep(&self, bucket: BucketIndex) {
        self.leftovers.put(bucket);
        self.bell.ring();
    }
}
