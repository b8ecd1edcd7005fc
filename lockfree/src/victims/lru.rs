//! Least recently used, weighted by emptiness.
//!
//! A pass reads every word of the device once and keeps the smallest `candidates` keys
//! ([`lru_key`], ties by bucket number) in a bounded heap; then it invalidates them in ascending
//! order until `free_inc` is full. There are twice as many candidates as wanted, or more: some
//! will have been pinned or marked since they were read.

use super::Pass;
use crate::table::Invalidated;
use std::collections::BinaryHeap;
use tierce_core::BucketIndex;
use tierce_core::policy::lru_key;

/// Runs a pass with a heap of `candidates`.
pub(crate) fn pass<F>(pass: &mut Pass<'_, F>, candidates: usize)
where
    F: FnMut(BucketIndex, Invalidated),
{
    // The worst candidate is on top, to be replaced by a better one.
    let mut heap = BinaryHeap::with_capacity(candidates);
    // Buckets that are used while the pass goes on are fresh at an earlier epoch too.
    let epoch = pass.table.epoch();
    for bucket in pass.geometry.buckets() {
        if !pass.can_take(bucket) {
            continue;
        }
        let word = epoch.reveal(pass.table.peek(bucket));
        let candidate = (lru_key(word, pass.min_prio), bucket);
        if heap.len() < candidates {
            heap.push(candidate);
        } else if let Some(mut worst) = heap.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }
    for (_, bucket) in heap.into_sorted_vec() {
        if !pass.take(bucket) {
            break;
        }
    }
}
