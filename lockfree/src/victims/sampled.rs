//! The least recently used of a few at random.
//!
//! Between LRU and random: of a loop that is longer than the cache, LRU keeps nothing and random a
//! share, but random throws away what was used just now as likely as anything else. The order among
//! those drawn is that of LRU ([`Rank`](super::rank::Rank)).
//!
//! At most `nbuckets / 2` draws a pass.

use super::Pass;
use super::rank::{Keys, Rank};
use crate::table::Invalidated;
use tierce_core::BucketIndex;
use tierce_core::draws::Draws;

/// Runs a pass that takes the smallest rank of `sample` draws each time.
pub(crate) fn pass<F>(pass: &mut Pass<'_, F>, sample: u32, draws: &mut Draws)
where
    F: FnMut(BucketIndex, Invalidated),
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

    /// Of as many draws as there are buckets, hardly any that are taken are young; of one each,
    /// about half are.
    #[test]
    fn more_draws_take_older_buckets() {
        let young = |lru_sample: u32| {
            let geometry = Geometry::new(1024, 1, 128, 8).expect("a legal shape");
            let mut table = DeviceTable::empty(geometry);
            for number in 0..1024 {
                let prio = Prio::new(if number % 2 == 0 { 100 } else { 30_000 });
                table.gens.set(BucketIndex::new(number), prio, Gen::new(1));
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
            let (young, old): (Vec<_>, Vec<_>) = taken.partition(|bucket| bucket % 2 == 1);
            (young.len(), young.len() + old.len())
        };
        let (one, two, eight) = (young(1), young(2), young(8));
        assert!(one.0 * 3 > one.1, "at random: {one:?}");
        assert!(two.0 < one.0 && two.0 > 0, "of two: {two:?}, at random {one:?}");
        assert!(eight.0 * 16 < eight.1, "of eight: {eight:?}");
    }
}
