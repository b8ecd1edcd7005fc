//! One prio write on its way to the device.

use crate::allocator::Allocator;
use crate::device::Hunger;
use crate::set_records::SetRecords;
use crate::sync::Arc;
use tierce_core::record::prio_set::{PrioRecords, RECORD_BYTES, records_of};
use tierce_core::{BucketIndex, DeviceIndex, Gen, Prio, broken};

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
    /// In the order of invalidation; the batch comes first.
    going: Vec<BucketIndex>,
    /// How many of them are the batch.
    batch: usize,
    /// Buckets whose gen was ahead of the durable one.
    ahead: Vec<BucketIndex>,
    /// Both in the order of the table, with the gens that were encoded.
    encoded: Vec<(BucketIndex, Option<Gen>)>,
    sets_encoded: Vec<bool>,
    /// What the blocks were before the first encoding.
    unblocked: u64,
    confirmed: bool,
}

impl PrioWrite {
    pub(crate) fn new(
        allocator: Arc<Allocator>,
        device: DeviceIndex,
        seq: u64,
        chain: Vec<BucketIndex>,
        going: Vec<BucketIndex>,
        batch: usize,
        unblocked: u64,
    ) -> Self {
        let ahead = allocator.devices()[device.as_usize()].ahead.buckets();
        let followed = going[..batch].iter().chain(&ahead);
        let mut encoded: Vec<_> = followed.map(|&bucket| (bucket, None)).collect();
        encoded.sort_unstable_by_key(|&(bucket, _)| bucket);
        encoded.dedup_by_key(|&mut (bucket, _)| bucket);
        let sets_encoded = vec![false; chain.len()];
        let confirmed = false;
        Self {
            allocator,
            device,
            seq,
            chain,
            going,
            batch,
            ahead,
            encoded,
            sets_encoded,
            unblocked,
            confirmed,
        }
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
        let records = self.sets().swap_remove(set);
        let mut places = vec![[0; RECORD_BYTES]; records.places()];
        records.write(&mut places);
        records_of(&places).for_each(|(prio, gen_)| record(prio, gen_));
    }

    /// The records of every set, head first, each of which may be written on a thread of its own
    /// and in any order.
    ///
    /// ```
    /// use tierce_core::record::prio_set::PrioRecords;
    /// # use tierce_core::Geometry;
    /// # use tierce_lockfree::{Allocator, Config, DeviceTable, Step};
    /// # let geometry = Geometry::new(65536, 1, 128, 1)?;
    /// # let (_allocator, mut reclaimers) =
    /// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
    /// let Step::PrioWrite(mut write) = reclaimers[0].step() else { panic!("the first batch") };
    /// std::thread::scope(|threads| {
    ///     for (set, records) in write.sets().into_iter().enumerate() {
    ///         threads.spawn(move || {
    ///             let mut places = vec![[0; 3]; records.places()];
    ///             records.write(&mut places);
    ///             println!("set {set} begins with {:?}", places[0]);
    ///         });
    ///     }
    /// });
    /// assert!(write.confirm());
    /// # reclaimers[0].prio_durable(write);
    /// # Ok::<(), tierce_lockfree::Error>(())
    /// ```
    pub fn sets(&mut self) -> Vec<SetRecords<'_>> {
        let device = &self.allocator.devices()[self.device.as_usize()];
        let geometry = device.geometry();
        let mut rest = &mut self.encoded[..];
        let sets = (0..).zip(&mut self.sets_encoded);
        sets.map(|(set, encoded)| {
            let from = set * geometry.prios_per_bucket();
            let end = (from + geometry.prios_per_bucket()).min(geometry.nbuckets());
            let followed = rest.partition_point(|&(bucket, _)| bucket.get() < end);
            let (own, others) = core::mem::take(&mut rest).split_at_mut(followed);
            rest = others;
            SetRecords::new(device, from..end, own.iter_mut(), encoded)
        })
        .collect()
    }

    /// Whether what was encoded may become durable; asked when every set was encoded and written,
    /// before the journal names the chain. `false`: somebody took a
    /// [`PrioBlock`](crate::PrioBlock) meanwhile, and the table may contain a gen that must not
    /// become durable yet. Then [`wait_unblocked`](Self::wait_unblocked), and encode and write
    /// every set again, to the same chain. Wait-free.
    ///
    /// # Panics
    ///
    /// If a set was not encoded.
    #[must_use = "what is not confirmed must not be named by the journal"]
    pub fn confirm(&mut self) -> bool {
        assert!(self.sets_encoded.iter().all(|&done| done), "a set was never encoded");
        self.confirmed =
            self.allocator.prio_blocks().unchanged(self.unblocked) || broken!("prio_block_no_redo");
        if !self.confirmed {
            self.sets_encoded.fill(false);
            self.encoded.iter_mut().for_each(|(_, gen_)| *gen_ = None);
        }
        self.confirmed
    }

    /// Blocks until nobody holds prio writes back, so that encoding can begin again. `false` if
    /// the set was closed or the device has failed: then there is nothing more to write, and this
    /// is to be dropped.
    ///
    /// Only the thread that owns the device's reclaimer may call it: it sleeps on its bell.
    #[must_use = "a set that has ended writes nothing"]
    pub fn wait_unblocked(&mut self) -> bool {
        let device = &self.allocator.devices()[self.device.as_usize()];
        loop {
            if device.check().is_err() {
                return false;
            }
            device.stay_hungry(Hunger::Unblocked);
            if let Some(unblocked) = self.allocator.prio_blocks().free() {
                self.unblocked = unblocked;
                return true;
            }
            device.bell.wait(None);
        }
    }

    /// Whether every set was encoded, and that is still good.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    fn encoded_gen(&self, bucket: BucketIndex) -> Gen {
        let at = self.encoded.binary_search_by_key(&bucket, |&(bucket, _)| bucket);
        let gen_ = at.ok().and_then(|at| self.encoded[at].1);
        gen_.expect("every bucket that is followed was encoded")
    }

    /// The buckets that will be safe to reuse once this is durable, in the order of invalidation.
    #[must_use]
    pub fn batch(&self) -> &[BucketIndex] {
        &self.going[..self.batch]
    }

    /// Every bucket whose content goes for good with this write, in the order of invalidation: the
    /// [batch](Self::batch), and those that were invalidated and wait for the batch of a later write.
    /// The table is written as it is, so their new gens become durable now.
    #[must_use]
    pub fn going(&self) -> &[BucketIndex] {
        &self.going
    }

    /// The batch in the order of invalidation, each with the gen that was encoded.
    pub(crate) fn encoded_batch(&self) -> impl Iterator<Item = (BucketIndex, Gen)> {
        self.batch().iter().map(|&bucket| (bucket, self.encoded_gen(bucket)))
    }

    /// The table is durable: so are the gens of the buckets that were ahead.
    pub(crate) fn settle(&self) {
        if self.ahead.is_empty() {
            return;
        }
        let device = &self.allocator.devices()[self.device.as_usize()];
        let mut entries = device.ahead.lock();
        for &bucket in &self.ahead {
            let current = device.table().peek(bucket).gen_();
            entries.settle(bucket, self.encoded_gen(bucket), current);
        }
    }
}
