//! What several threads take of what was found: a share each.
//!
//! A share is everything that was found from one rank on and before another, as far as it is
//! wanted: as many of the smallest as are missing after those before it. Whoever gets it looks
//! through all that was found by all threads, keeps what is in the share, brings it into order and
//! invalidates its buckets. So the shares one behind the other are what one thread would have
//! taken, in its order, if nobody else changes words; and if others do, each bucket is taken by
//! its rank at some instant during the pass, as it is by one thread.
//!
//! To look at what was found is cheap: 8 bytes each, one behind the other, without a branch. To
//! keep it apart by ranks while it is found cost more than twice as much.

use super::Taken;
use super::lru::{Found, but_for_bad_luck, in_order};
use super::rank::Rank;
use crate::sync::Mutex;
use crate::table::Table;
use crossbeam_utils::CachePadded;
use tierce_core::{BucketIndex, Snapshot, broken};

/// Of what was found, so many are looked at to tell where shares of about the same size begin.
const LOOKED_AT: usize = 256;

/// The shares of a pass, in a cache line of its own each.
pub(super) type Shares = [CachePadded<Mutex<Share>>];

/// Some neighbouring ranks.
#[derive(Debug)]
pub(crate) struct Share {
    /// The first rank that may be in it.
    from: Rank,
    /// The first rank behind it.
    to: Rank,
    /// How many are wanted of it and all that is before it.
    wanted: usize,
    /// Begins with its ranks; the rest is of passes before.
    ranks: Vec<Rank>,
    /// How many of `ranks` are its.
    kept: usize,
    buckets: Vec<BucketIndex>,
    words: Vec<Snapshot>,
    gc_gen: u8,
}

impl Default for Share {
    /// Nothing.
    fn default() -> Self {
        let (ranks, buckets, words) = (Vec::new(), Vec::new(), Vec::new());
        let (from, to) = (Rank::FIRST, Rank::FIRST);
        Self { from, to, wanted: 0, ranks, kept: 0, buckets, words, gc_gen: 0 }
    }
}

impl Share {
    /// Invalidates its buckets in ascending order.
    pub(super) fn take(&mut self, found: &[Found], table: &Table) {
        let before = self.collect(found);
        let Self { wanted, ranks, kept, buckets, words, gc_gen, .. } = self;
        let most = wanted.saturating_sub(before);
        if most < *kept {
            ranks[..*kept].select_nth_unstable(most);
            *kept = most;
        }
        let ranks = &mut ranks[..*kept];
        buckets.clear();
        words.clear();
        *gc_gen = 0;
        let most = *kept;
        table.invalidate_some(in_order(ranks, table), most, |taken| {
            buckets.extend_from_slice(taken.buckets);
            words.extend_from_slice(taken.words);
            *gc_gen = taken.gc_gen.max(*gc_gen);
        });
    }

    /// Keeps in `ranks` what is in the share, in any order. Returns how many are before it.
    fn collect(&mut self, found: &[Found]) -> usize {
        let overlap = broken!("lru_shares_overlap");
        let from = if overlap { Rank::FIRST } else { self.from };
        let (ranks, mut kept) = (&mut self.ranks, 0);
        let width = self.to.bits() - from.bits();
        for found in found {
            let found = found.read();
            if ranks.len() < kept + found.len() {
                ranks.resize(kept + found.len(), Rank::LAST);
            }
            for &rank in found.iter() {
                // Without a branch, which nobody could predict: what is before it wraps.
                ranks[kept] = rank;
                kept += usize::from(rank.bits().wrapping_sub(from.bits()) < width);
            }
        }
        self.kept = kept;
        if from == Rank::FIRST {
            return 0;
        }
        let before = |found: &Found| found.read().iter().filter(|&&rank| rank < from).count();
        found.iter().map(before).sum()
    }

    /// Those that could be, in the order of their ranks.
    pub(super) fn taken(&self) -> Taken<'_> {
        Taken { buckets: &self.buckets, words: &self.words, gc_gen: self.gc_gen }
    }

    /// The ranks that were tried, ascending.
    pub(super) fn tried(&self) -> &[Rank] {
        &self.ranks[..self.kept]
    }
}

/// Deals the smallest `wanted` of all that were found, or all, to `shares`, and some more, since
/// where shares begin is told from a sample, `some`: what is behind the last one is hardly ever
/// wanted.
pub(super) fn deal(found: &[Found], shares: &Shares, wanted: usize, some: &mut Vec<Rank>) {
    let all: usize = found.iter().map(|found| found.read().len()).sum();
    let step = all.div_ceil(LOOKED_AT).max(1);
    some.clear();
    found.iter().for_each(|found| some.extend(found.read().iter().step_by(step)));
    let wanted = wanted.min(all);
    // So many of those looked at are wanted up to the end of each share.
    let place = |wanted: usize, number: usize| {
        let end = wanted as u64 * number as u64 / shares.len() as u64;
        (end as usize).div_ceil(step)
    };
    // Who has the last one counts what is before it and selects: in that time he takes so many.
    let extra = all / 32;
    let (mut from, mut rest, mut passed) = (Rank::FIRST, some.as_mut_slice(), 0);
    for (number, share) in (1..).zip(shares) {
        let end = match number < shares.len() {
            true => place(wanted + extra, number),
            false => but_for_bad_luck(place(wanted, number)),
        };
        let at = end.saturating_sub(passed);
        let mut to = Rank::LAST;
        if at < rest.len() {
            to = from.max(*rest.select_nth_unstable(at).1);
            (rest, passed) = (&mut rest[at..], passed + at);
        }
        let share = &mut *share.lock();
        (share.from, share.to, share.wanted) = (from, to, wanted);
        from = to;
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use crate::ageing::AgeClock;
    use crate::sync::Arc;
    use proptest::prelude::*;
    use tierce_core::{Mark, Prio};

    /// What each thread found; ranks are no two the same.
    fn found_by(threads: usize) -> impl Strategy<Value = Vec<Vec<u32>>> {
        let owner = prop_oneof![Just(0), 0..threads];
        proptest::collection::vec(owner, 1..700).prop_map(move |owners| {
            let mut each = vec![Vec::new(); threads];
            (0..).zip(owners).for_each(|(bucket, owner)| each[owner].push(bucket));
            each
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 300 }, ..Default::default()
        })]

        /// The shares one behind the other are the smallest of all, in order, however many threads
        /// there are, whoever found them, and however many are wanted; nothing is left out
        /// that is smaller than what was tried.
        #[test]
        fn shares_are_the_smallest_in_order(
            each in (1usize..6).prop_flat_map(found_by),
            wanted in prop_oneof![0usize..8, 0usize..800],
            keys in 1u32..40,
            again in 1usize..3,
        ) {
            let buckets = each.iter().map(Vec::len).sum::<usize>() as u32;
            let word = Snapshot::default().with_prio(Prio::OLDEST).with_mark(Mark::Reclaimable);
            let rank = |&bucket: &u32| {
                Rank::new(bucket.wrapping_mul(2_654_435_761) % keys, BucketIndex::new(bucket))
            };
            let threads = each.len();
            let found: Vec<_> = (0..threads).map(|_| Found::default()).collect();
            let shares: Vec<_> = (0..threads).map(|_| CachePadded::default()).collect();
            // The memory of the first time is made use of again.
            for _ in 0..again {
                let clock = Arc::new(AgeClock::default());
                let table = Table::new((0..buckets).map(|_| word), clock);
                for (found, each) in found.iter().zip(&each) {
                    *found.write() = each.iter().map(rank).collect();
                }
                deal(&found, &shares, wanted, &mut Vec::new());
                let (mut tried, mut taken) = (Vec::new(), Vec::new());
                for share in &shares {
                    let share = &mut *share.lock();
                    share.take(&found, &table);
                    tried.extend_from_slice(share.tried());
                    taken.extend_from_slice(share.taken().buckets);
                }
                let mut all: Vec<_> = (0..buckets).map(|bucket| rank(&bucket)).collect();
                all.sort_unstable();
                prop_assert!(tried.len() <= wanted);
                prop_assert_eq!(&tried, &all[..tried.len()]);
                prop_assert!(taken.into_iter().eq(tried.iter().map(|rank| rank.bucket())));
                // Hardly ever fewer; with as many as are looked at never.
                let looked_at = all.len() <= LOOKED_AT;
                prop_assert!(!looked_at || tried.len() == wanted.min(all.len()));
            }
        }
    }
}
