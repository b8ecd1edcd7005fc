//! Choosing what is reused next.
//!
//! A pass looks for buckets that can be invalidated and invalidates them until `free_inc` is
//! full. What it reads are hints, the CAS of [`Table::invalidate`](crate::table::Table)
//! decides; allocation, pins and reads go on all the while and never wait for a pass.

pub(crate) mod fifo;
pub(crate) mod lru;
pub(crate) mod random;

pub(crate) mod sampled;

pub(crate) mod crew;

pub(crate) mod uses;

mod guess;
mod rank;
mod scan;
mod share;
mod threads;

#[cfg_attr(
    not(all(
        target_arch = "x86_64",
        not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))
    )),
    path = "no_vectors.rs"
)]
#[cfg_attr(
    all(target_arch = "x86_64", not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))),
    path = "x86.rs"
)]
mod vectors;

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests;

pub(crate) use scan::Scanner;

use crate::table::Table;
use tierce_core::{BucketIndex, Geometry, Prio, Snapshot};

/// What a pass works on.
#[derive(Debug)]
pub(crate) struct Pass<'a, F> {
    pub(crate) table: &'a Table,
    pub(crate) geometry: &'a Geometry,
    pub(crate) min_prio: Prio,
    /// Buckets whose gen is too far ahead of the durable one, ascending: usually none.
    pub(crate) far: &'a [BucketIndex],
    /// One of these was in the way: a prio write helps.
    pub(crate) write_early: bool,
    /// How many buckets are wanted.
    pub(crate) wanted: usize,
    /// Called with the buckets that were invalidated, in order, one or several at a time.
    pub(crate) taken: F,
}

/// Buckets that were invalidated, in order. Apart from their words, at which few look: helpers
/// write these, and what another processor wrote is slow to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) buckets: &'a [BucketIndex],
    /// The word of each after it, with its stamp.
    pub(crate) words: &'a [Snapshot],
    /// The largest distance of a gen from the oldest one that may be live.
    pub(crate) gc_gen: u8,
}

impl<F: FnMut(Taken<'_>)> Pass<'_, F> {
    /// Whether the bucket may be taken, as far as one can tell.
    fn can_take(&mut self, bucket: BucketIndex) -> bool {
        if !self.table.peek(bucket).can_invalidate() {
            return false;
        }
        let far = !self.far.is_empty() && self.far.binary_search(&bucket).is_ok();
        self.write_early |= far;
        !far
    }

    /// Invalidates `bucket` if that is possible and more are wanted. `false` if enough are.
    fn take(&mut self, bucket: BucketIndex) -> bool {
        if self.wanted == 0 {
            return false;
        }
        if let Some(invalidated) = self.table.invalidate(bucket) {
            let (bucket, word) = (invalidated.bucket, invalidated.after);
            self.took(Taken { buckets: &[bucket], words: &[word], gc_gen: word.gc_gen() });
        }
        self.wanted > 0
    }

    /// These, which are wanted, were invalidated.
    fn took(&mut self, taken: Taken<'_>) {
        self.wanted -= taken.buckets.len();
        (self.taken)(taken);
    }
}
