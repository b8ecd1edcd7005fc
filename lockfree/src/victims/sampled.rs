//! The least recently used of a few at random.
//!
//! Between LRU and random: of a loop that is longer than the cache, LRU keeps nothing and random a
//! share, but random throws away what was used just now as likely as anything else. The order among
//! those drawn is that of LRU ([`Rank`](super::rank::Rank)).
//!
//! At most `nbuckets / 2` draws a pass.

use super::rank::{Keys, Rank};
use super::{Pass, Taken};
use tierce_core::BucketIndex;
use tierce_core::draws::Draws;

/// Runs a pass that takes the smallest rank of `sample` draws each time.
pub(crate) fn pass<F>(pass: &mut Pass<'_, F>, sample: u32, draws: &mut Draws)
where
    F: FnMut(Taken<'_>),
{
    let keys = Keys { epoch: pass.table.epoch(), min_prio: pass.min_prio };
    let first = pass.geometry.first_bucket().get();
    let usable = pass.geometry.nbuckets() - first;
    let mut left = pass.geometry.nbuckets() / 2;
    while pass.wanted > 0 && left > 0 {
        let mut best: Option<Rank> = None;
        for _ in 0..sample.min(left) {
            left -= 1;
            let bucket = BucketIndex::new(first + draws.below(usable));
            if pass.can_take(bucket) {
                let rank = Rank::new(keys.key(pass.table.peek(bucket)), bucket);
                best = Some(best.map_or(rank, |best| best.min(rank)));
            }
        }
        if let Some(best) = best {
            pass.take(best.bucket());
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
