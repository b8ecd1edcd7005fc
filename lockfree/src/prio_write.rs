//! One prio write on its way to the device.

use crate::allocator::Allocator;
use crate::sync::Arc;
use tierce_core::{BucketIndex, DeviceIndex, Gen, Prio};

/// All gens and prios of a device, to be written to the buckets of a new chain, and the batch
/// of buckets that will be safe to reuse once they are durable.
///
/// The order in which its owner has to do things is told at [`crate::reclaimer`].
#[derive(Debug)]
#[must_use = "a batch of buckets waits for it"]
pub struct PrioWrite {
    allocator: Arc<Allocator>,
    device: DeviceIndex,
    seq: u64,
    /// Head first.
    chain: Vec<BucketIndex>,
    /// In the order of invalidation.
    batch: Vec<BucketIndex>,
    /// The batch in the order of the table, with the gens that were encoded.
    encoded: Vec<(BucketIndex, Option<Gen>)>,
    sets_encoded: Vec<bool>,
}

impl PrioWrite {
    pub(crate) fn new(
        allocator: Arc<Allocator>,
        device: DeviceIndex,
        seq: u64,
        chain: Vec<BucketIndex>,
        batch: Vec<BucketIndex>,
    ) -> Self {
        let mut encoded: Vec<_> = batch.iter().map(|&bucket| (bucket, None)).collect();
        encoded.sort_unstable_by_key(|&(bucket, _)| bucket);
        let sets_encoded = vec![false; chain.len()];
        Self { allocator, device, seq, chain, batch, encoded, sets_encoded }
    }

    /// The seq that every set of this write carries: one more than the last write's.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The bucket of each set; set 0 is the head, which the journal entry names. Set i names the
    /// bucket of set i + 1, so the sets are best written last first.
    #[must_use]
    pub fn chain(&self) -> &[BucketIndex] {
        &self.chain
    }

    /// Calls `record` with prio and gen of every bucket that set `set` holds, in order. Buckets
    /// that are never allocated (below `first_bucket`) are zero.
    ///
    /// # Panics
    ///
    /// If there is no such set.
    pub fn encode(&mut self, set: usize, mut record: impl FnMut(Prio, Gen)) {
        assert!(set < self.chain.len(), "set {set} of {}", self.chain.len());
        let device = &self.allocator.devices()[self.device.as_usize()];
        let geometry = device.geometry();
        let from = set as u32 * geometry.prios_per_bucket();
        let to = (from + geometry.prios_per_bucket()).min(geometry.nbuckets());
        let mut next = self.encoded.partition_point(|&(bucket, _)| bucket.get() < from);
        for bucket in (from..to).map(BucketIndex::new) {
            if !geometry.contains(bucket) {
                record(Prio::default(), Gen::default());
                continue;
            }
            let word = device.table().read(bucket);
            let in_batch = self.encoded.get_mut(next).filter(|(b, _)| *b == bucket);
            if cfg!(tierce_mutant = "encode_before_drain") && in_batch.is_some() {
                // What the word was before this bucket was invalidated.
                record(word.prio(), Gen::new(word.gen_().get().wrapping_sub(1)));
            } else {
                record(word.prio(), word.gen_());
            }
            if let Some((_, gen_)) = in_batch {
                *gen_ = Some(word.gen_());
                next += 1;
            }
        }
        self.sets_encoded[set] = true;
    }

    /// Whether every set was encoded.
    pub(crate) fn is_encoded(&self) -> bool {
        self.sets_encoded.iter().all(|&done| done)
    }

    /// The batch in the order of invalidation.
    #[cfg(any(test, tierce_mutant = "discard_before_durable"))]
    pub fn batch(&self) -> &[BucketIndex] {
        &self.batch
    }

    /// The batch in the order of invalidation, each with the gen that was encoded.
    pub(crate) fn into_batch(self) -> impl Iterator<Item = (BucketIndex, Gen)> {
        let Self { batch, encoded, .. } = self;
        batch.into_iter().map(move |bucket| {
            let at = encoded.binary_search_by_key(&bucket, |&(bucket, _)| bucket);
            let gen_ = at.ok().and_then(|at| encoded[at].1);
            (bucket, gen_.expect("every bucket of the batch was encoded"))
        })
    }
}
