//! The one of a few at random that is least likely to be used again soon.
//!
//! How likely that is follows from a bucket's age, see [`super::uses`]; of those that are alike in
//! it the least recently used goes ([`lru_key`](tierce_core::policy::lru_key)), and so do all until
//! enough is known. To choose among a few only costs little, and keeps what is chosen wrongly for a
//! while from being chosen wrongly everywhere.
//!
//! If the first one that is drawn is observed, it goes: those are reused as often as others, but at
//! random.
//!
//! Draws would miss the last buckets that hold nothing, and data would go before the device is full.
//! So at first all buckets are gone through once, and those that hold nothing are taken in order.
//!
//! At most `nbuckets / 2` times `sample` draws a pass; the first passes look at `nbuckets` more, in all.

use super::rank::Keys;
use super::uses::Density;
use super::{Pass, Taken};
use tierce_core::draws::Draws;
use tierce_core::{BucketIndex, Snapshot};

/// A bucket that may be taken, by its place in the order; its word has a prio.
type Candidate = ((u32, u32, BucketIndex), Snapshot);

/// What is known from one pass to the next.
#[derive(Debug, Default)]
pub(crate) struct Sampled {
    density: Density,
    /// Buckets before this one were looked at, whether they hold nothing.
    looked: u32,
}

impl Sampled {
    /// Takes buckets that hold nothing, until all have been looked at.
    fn take_empty<F: FnMut(Taken<'_>)>(&mut self, pass: &mut Pass<'_, F>) {
        self.looked = self.looked.max(pass.geometry.first_bucket().get());
        while pass.wanted > 0 && self.looked < pass.geometry.nbuckets() {
            let bucket = BucketIndex::new(self.looked);
            self.looked += 1;
            if pass.table.peek(bucket).sectors() == 0 && pass.can_take(bucket) {
                pass.take(bucket);
            }
        }
    }
}

/// Runs a pass that takes one of `sample` draws each time.
pub(crate) fn pass<F>(pass: &mut Pass<'_, F>, sample: u32, known: &mut Sampled, draws: &mut Draws)
where
    F: FnMut(Taken<'_>),
{
    known.take_empty(pass);
    let (table, nbuckets) = (pass.table, pass.geometry.nbuckets());
    let density = &mut known.density;
    density.learn(table.uses(), nbuckets);
    let keys = Keys { epoch: table.epoch(), min_prio: pass.min_prio };
    let first = pass.geometry.first_bucket().get();
    let mut left = u64::from(nbuckets / 2) * u64::from(sample);
    while pass.wanted > 0 && left > 0 {
        let mut best: Option<Candidate> = None;
        let mut drawn = 0;
        while drawn < sample && left > 0 {
            left -= 1;
            let bucket = BucketIndex::new(first + draws.below(nbuckets - first));
            let is_observed = table.uses().observes(bucket);
            if is_observed && drawn > 0 || !pass.can_take(bucket) {
                continue;
            }
            let stamped = table.peek(bucket);
            let word = keys.epoch.reveal(stamped);
            let candidate = ((density.key(word), keys.key(stamped), bucket), word);
            if best.is_none_or(|best| candidate.0 < best.0) {
                best = Some(candidate);
            }
            drawn = if is_observed { sample } else { drawn + 1 };
        }
        let Some(((.., bucket), word)) = best else { continue };
        let wanted = pass.wanted;
        pass.take(bucket);
        if pass.wanted < wanted {
            density.reused(word, table.uses().observes(bucket));
        }
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use crate::{Allocator, BucketRef, Config, DeviceTable};
    use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen, Geometry, Mark, Prio};

    /// Which buckets a first pass takes of 1024, those from `full` on being full, alike and old.
    fn taken(lru_sample: u32, full: u32) -> Vec<u32> {
        let geometry = Geometry::new(1024, 1, 128, 8).expect("a legal shape");
        let mut table = DeviceTable::empty(geometry);
        for number in 0..1024 {
            table.gens.set(BucketIndex::new(number), Prio::new(100), Gen::new(1));
        }
        let config = Config::default().lru_sample(lru_sample).seed(7);
        let mut startup = Allocator::start(config, vec![table]).expect("legal settings");
        for number in full..1024 {
            let bucket = BucketId::new(DeviceIndex::FIRST, BucketIndex::new(number));
            startup.observe(BucketRef::new(bucket, Gen::new(1)), 128, Mark::Reclaimable);
        }
        let (_allocator, mut reclaimers) = startup.finish();
        reclaimers[0].record_events();
        let _ = reclaimers[0].step();
        let taken = reclaimers[0].take_events().into_iter().filter_map(|event| match event {
            tierce_core::spec::Event::Invalidated { bucket, .. } => Some(bucket.bucket().get()),
            _ => None,
        });
        taken.collect()
    }

    /// Buckets that are alike rank by their number: the more are drawn for each that is taken, the
    /// smaller those are.
    #[test]
    fn more_draws_take_smaller_ranks() {
        let mean = |lru_sample: u32| {
            let taken = taken(lru_sample, 0);
            assert!(taken.len() > 32, "{taken:?}");
            taken.iter().sum::<u32>() / taken.len() as u32
        };
        let (one, two, eight) = (mean(1), mean(2), mean(8));
        assert!((400..620).contains(&one), "at random: {one}");
        assert!(two * 10 < one * 9, "of two: {two}, at random {one}");
        assert!(eight * 4 < two * 3, "of eight: {eight}, of two {two}");
    }

    #[test]
    fn nothing_is_lost_before_all_is_full() {
        let taken = taken(8, 1000);
        assert!(taken.len() > 32 && taken.is_sorted(), "{taken:?}");
        assert!(taken.iter().all(|&bucket| bucket < 1000), "{taken:?}");
    }
}
