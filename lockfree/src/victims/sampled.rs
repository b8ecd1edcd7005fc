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
//! At most `nbuckets / 2` times `sample` draws a pass.

use super::rank::Keys;
use super::uses::Density;
use super::{Pass, Taken};
use tierce_core::draws::Draws;
use tierce_core::{BucketIndex, Snapshot};

/// A bucket that may be taken, by its place in the order; its word has a prio.
type Candidate = ((u32, u32, BucketIndex), Snapshot);

/// Runs a pass that takes one of `sample` draws each time.
pub(crate) fn pass<F>(pass: &mut Pass<'_, F>, sample: u32, density: &mut Density, draws: &mut Draws)
where
    F: FnMut(Taken<'_>),
{
    let (table, nbuckets) = (pass.table, pass.geometry.nbuckets());
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
    use crate::{Allocator, Config, DeviceTable};
    use tierce_core::{BucketIndex, Gen, Geometry, Prio};

    /// Buckets that hold nothing rank by their number: the more are drawn for each that is taken, the
    /// smaller those are.
    #[test]
    fn more_draws_take_smaller_ranks() {
        let mean = |lru_sample: u32| {
            let geometry = Geometry::new(1024, 1, 128, 8).expect("a legal shape");
            let mut table = DeviceTable::empty(geometry);
            for number in 0..1024 {
                table.gens.set(BucketIndex::new(number), Prio::new(100), Gen::new(1));
            }
            let config = Config::default().lru_sample(lru_sample).seed(7);
            let started = Allocator::start(config, vec![table]).expect("legal settings");
            let (_allocator, mut reclaimers) = started.finish();
            reclaimers[0].record_events();
            let _ = reclaimers[0].step();
            let taken = reclaimers[0].take_events().into_iter().filter_map(|event| match event {
                tierce_core::spec::Event::Invalidated { bucket, .. } => Some(bucket.bucket().get()),
                _ => None,
            });
            let taken: Vec<_> = taken.collect();
            assert!(taken.len() > 32, "{taken:?}");
            taken.iter().sum::<u32>() / taken.len() as u32
        };
        let (one, two, eight) = (mean(1), mean(2), mean(8));
        assert!((400..620).contains(&one), "at random: {one}");
        assert!(two * 10 < one * 9, "of two: {two}, at random {one}");
        assert!(eight * 4 < two * 3, "of eight: {eight}, of two {two}");
    }
}
