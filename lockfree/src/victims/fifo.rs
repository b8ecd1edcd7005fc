//! In order of bucket number.
//!
//! A cursor runs over the buckets from `first_bucket` on, wrapping, and takes each that can be
//! invalidated; it gives up after `nbuckets` looks. It persists between passes, not across
//! restarts; outside the device it starts again at `first_bucket`.

use super::{Pass, Taken};
use tierce_core::BucketIndex;

/// Runs a pass from `cursor` on and leaves it at the next bucket to look at.
pub(crate) fn pass<F>(pass: &mut Pass<'_, F>, cursor: &mut u32)
where
    F: FnMut(Taken<'_>),
{
    let nbuckets = pass.geometry.nbuckets();
    let first = pass.geometry.first_bucket().get();
    let mut looks = nbuckets;
    while pass.wanted > 0 && looks > 0 {
        if !(first..nbuckets).contains(cursor) {
            *cursor = first;
        }
        let bucket = BucketIndex::new(*cursor);
        if pass.can_take(bucket) {
            pass.take(bucket);
        }
        *cursor += 1;
        looks -= 1;
    }
}
