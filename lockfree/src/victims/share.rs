//! What several threads take of what was found: a share each.
//!
//! What was found lies in ranges of ranks, every rank of one smaller than every rank of the next.
//! A share is a part of a range: the smallest so many, or those that come behind the shares
//! before it. Whoever gets it collects what the threads have found in the range, selects the
//! share, brings it into order and invalidates its buckets. So the shares one behind the other are
//! what one thread would have taken, in its order, if nobody else changes words; and if others do,
//! each bucket is taken by its rank at some instant during the pass, as it is by one thread.

use super::Taken;
use super::lru::{Found, in_order};
use super::rank::Rank;
use super::scan::RANGES_MOST;
use crate::sync::Mutex;
use crate::table::Table;
use core::ops::Range;
use crossbeam_utils::CachePadded;
use tierce_core::{BucketIndex, Snapshot};

/// About as many shares are dealt: a few for each thread, so that who finishes early takes another.
const ABOUT: usize = 8;

/// No more shares than that are dealt: every range may have one that is small.
pub(super) const MOST: usize = ABOUT + RANGES_MOST;

/// In how many ranges so many threads keep what they find; one thread shares with nobody.
pub(super) fn ranges_for(threads: usize) -> usize {
    if threads == 1 { 1 } else { RANGES_MOST }
}

/// Some neighbouring ranks.
#[derive(Debug, Default)]
pub(crate) struct Share {
    /// The number of its range.
    range: usize,
    /// Its places in the range, if that were in order.
    places: Range<usize>,
    ranks: Vec<Rank>,
    buckets: Vec<BucketIndex>,
    words: Vec<Snapshot>,
    gc_gen: u8,
}

impl Share {
    /// Invalidates its buckets in ascending order.
    pub(super) fn take(&mut self, found: &[Found], table: &Table) {
        let Self { range, places, ranks, buckets, words, gc_gen } = self;
        ranks.clear();
        found.iter().for_each(|found| ranks.extend_from_slice(&found.lock()[*range]));
        if places.end < ranks.len() {
            ranks.select_nth_unstable(places.end);
            ranks.truncate(places.end);
        }
        if places.start > 0 && !cfg!(tierce_mutant = "lru_shares_overlap") {
            ranks.select_nth_unstable(places.start);
            ranks.drain(..places.start);
        }
        buckets.clear();
        words.clear();
        buckets.reserve(ranks.len());
        words.reserve(ranks.len());
        *gc_gen = 0;
        for taken in in_order(ranks, table).filter_map(|bucket| table.invalidate(bucket)) {
            buckets.push(taken.bucket);
            words.push(taken.after);
            *gc_gen = taken.after.gc_gen().max(*gc_gen);
        }
    }

    /// Those that could be, in the order of their ranks.
    pub(super) fn taken(&self) -> Taken<'_> {
        Taken { buckets: &self.buckets, words: &self.words, gc_gen: self.gc_gen }
    }

    /// The largest rank that was tried.
    pub(super) fn last(&self) -> Option<Rank> {
        self.ranks.last().copied()
    }
}

/// Deals the smallest `wanted` of all that were found, or all: into how many of `shares`, and how
/// many buckets. Nothing if there is but one range.
pub(super) fn deal(
    found: &[Found],
    shares: &[CachePadded<Mutex<Share>>],
    wanted: usize,
) -> (usize, usize) {
    let (mut dealt, mut buckets) = (0, 0);
    let ranges = found[0].lock().len();
    if ranges == 1 {
        return (0, 0);
    }
    let size = wanted.div_ceil(ABOUT);
    for range in 0..ranges {
        let found: usize = found.iter().map(|found| found.lock()[range].len()).sum();
        let most = found.min(wanted - buckets);
        buckets += most;
        // Each share looks at all of the range, so there is none for a small rest.
        let parts = (most + size / 2).checked_div(size).map_or(0, |parts| parts.max(1).min(most));
        for part in 0..parts {
            let share = &mut *shares[dealt].lock();
            (share.range, share.places) = (range, most * part / parts..most * (part + 1) / parts);
            dealt += 1;
        }
    }
    (dealt, buckets)
}
