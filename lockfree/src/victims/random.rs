//! Uniformly at random: at most `nbuckets / 2` draws a pass.

use super::{Pass, Taken};
use tierce_core::BucketIndex;
use tierce_core::draws::Draws;

/// Runs a pass.
pub(crate) fn pass<F>(pass: &mut Pass<'_, F>, draws: &mut Draws)
where
    F: FnMut(Taken<'_>),
{
    let first = pass.geometry.first_bucket().get();
    let usable = pass.geometry.nbuckets() - first;
    let mut left = pass.geometry.nbuckets() / 2;
    while pass.wanted > 0 && left > 0 {
        let bucket = BucketIndex::new(first + draws.below(usable));
        if pass.can_take(bucket) {
            pass.take(bucket);
        }
        left -= 1;
    }
}
