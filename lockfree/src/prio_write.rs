//! One prio write on its way to the device.

use crate::allocator::Allocator;
use crate::device::{Device, Hunger};
use crate::sync::{Arc, AtomicU64};
use crate::table::Table;
use tierce_core::{AgeEpoch, BucketIndex, DeviceIndex, Gen, Prio};

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
        let records = self.sets().into_iter().nth(set).expect("there is such a set");
        records.for_each(|(prio, gen_)| record(prio, gen_));
    }

    /// The records of every set, head first, each of which may be read on a thread of its own
    /// and in any order. A set whose records were all taken is encoded.
    ///
    /// ```
    /// # use tierce_core::Geometry;
    /// # use tierce_lockfree::{Allocator, Config, DeviceTable, Step};
    /// # let geometry = Geometry::new(65536, 1, 128, 1)?;
    /// # let (_allocator, mut reclaimers) =
    /// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
    /// let Step::PrioWrite(mut write) = reclaimers[0].step() else { panic!("the first batch") };
    /// std::thread::scope(|threads| {
    ///     for (set, records) in write.sets().into_iter().enumerate() {
    ///         threads.spawn(move || println!("{set}: {} records", records.count()));
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
            let mut records = SetRecords {
                device,
                epoch: device.table().epoch(),
                run: [].iter(),
                next: from,
                end,
                next_followed: None,
                followed: own.iter_mut(),
                encoded,
            };
            records.next_followed = records.followed.next();
            records
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
        self.confirmed = self.allocator.prio_blocks().unchanged(self.unblocked)
            || cfg!(tierce_mutant = "prio_block_no_redo");
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

/// Words that are read and decoded together, which vector instructions do.
const TOGETHER: usize = 64;

/// The records of one set, in order of bucket, taken from the table as it is when each is read.
///
/// Most of them are words of the table that lie side by side: a *run*, up to the next bucket that
/// needs more than reading, which is one of the batch or one that is never allocated. Who takes
/// all records at once gets those of a run 64 by 64.
///
/// See [`PrioWrite::sets`] for an example.
#[derive(Debug)]
pub struct SetRecords<'a> {
    device: &'a Device,
    /// As it was when the run began.
    epoch: AgeEpoch,
    /// What is left of the run.
    run: core::slice::Iter<'a, AtomicU64>,
    /// Behind the run.
    next: u32,
    end: u32,
    /// The bucket of the batch, or one that is ahead, that comes next; its gen is noted.
    next_followed: Option<&'a mut (BucketIndex, Option<Gen>)>,
    followed: core::slice::IterMut<'a, (BucketIndex, Option<Gen>)>,
    encoded: &'a mut bool,
}

impl<'a> SetRecords<'a> {
    /// Between two runs: the record of the next bucket, and the run behind it.
    #[inline(never)]
    fn next_run(&mut self) -> Option<(Prio, Gen)> {
        if self.next == self.end {
            return None;
        }
        let bucket = BucketIndex::new(self.next);
        self.epoch = self.device.table().epoch();
        let record = if bucket < self.device.geometry().first_bucket() {
            Default::default()
        } else {
            let word = self.device.table().read_for_prios(bucket);
            let is_followed = self.next_followed.as_ref().is_some_and(|next| next.0 == bucket);
            let gen_ = if is_followed { self.follow(word.gen_()) } else { word.gen_() };
            (self.epoch.prio_of(word.stamp()), gen_)
        };
        self.next += 1;
        let followed = self.next_followed.as_ref().map_or(self.end, |next| next.0.get());
        if self.next >= self.device.geometry().first_bucket().get() {
            let device: &'a Device = self.device;
            let run_end = followed.clamp(self.next, self.end);
            self.run =
                device.table().words().atomics()[self.next as usize..run_end as usize].iter();
            self.next = run_end;
        }
        Some(record)
    }

    #[inline]
    fn record(&self, word: &AtomicU64) -> (Prio, Gen) {
        let word = Table::read_word_for_prios(word);
        (self.epoch.prio_of(word.stamp()), word.gen_())
    }

    /// The low halves of many words, with prios.
    #[inline(always)]
    fn revealed(&self, words: &[AtomicU64; TOGETHER]) -> [u32; TOGETHER] {
        let mut low_halves = [0; TOGETHER];
        for (low_half, word) in low_halves.iter_mut().zip(words) {
            *low_half = Table::read_word_for_prios(word).bits() as u32;
        }
        self.epoch.reveal_low_halves(&mut low_halves);
        low_halves
    }

    /// Notes the gen of a followed bucket, and gives what is encoded of it.
    fn follow(&mut self, gen_: Gen) -> Gen {
        if let Some((_, noted)) = self.next_followed.take() {
            *noted = Some(gen_);
        }
        self.next_followed = self.followed.next();
        if cfg!(tierce_mutant = "encode_before_drain") {
            // What the word was before this bucket was invalidated.
            return Gen::new(gen_.get().wrapping_sub(1));
        }
        gen_
    }
}

impl Iterator for SetRecords<'_> {
    type Item = (Prio, Gen);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.run.next() {
            Some(word) => Some(self.record(word)),
            None => self.next_run(),
        }
    }

    /// All at once: a run is a few short loops.
    #[inline]
    fn fold<B, F: FnMut(B, Self::Item) -> B>(mut self, init: B, mut record: F) -> B {
        let mut folded = init;
        loop {
            let run = core::mem::take(&mut self.run).as_slice();
            let (together, rest) = run.as_chunks::<TOGETHER>();
            for words in together {
                for &low_half in &self.revealed(words) {
                    let (prio, gen_) = (low_half >> 16, low_half);
                    folded = record(folded, (Prio::new(prio as u16), Gen::new(gen_ as u8)));
                }
            }
            folded = rest.iter().fold(folded, |folded, word| record(folded, self.record(word)));
            let Some(next) = self.next_run() else { return folded };
            folded = record(folded, next);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.run.len() + (self.end - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for SetRecords<'_> {}

impl Drop for SetRecords<'_> {
    /// Whoever took them all has encoded the set.
    fn drop(&mut self) {
        *self.encoded |= self.len() == 0;
    }
}
