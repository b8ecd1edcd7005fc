//! Least recently used, weighted by emptiness.
//!
//! # Problem
//!
//! A pass needs the buckets of the smallest ranks ([`Rank`]) of the whole device in ascending
//! order: about one in 256. It should cost little more than reading the words once.
//!
//! # Protocol
//!
//! 1. *Sample* the table: one bucket out of each of many ranges of the same length. From the
//!    ranks of those that can be invalidated follows a limit up to which there are probably as
//!    many buckets as are wanted, and few more.
//! 2. *Scan* the table for everything up to the limit ([`super::scan`]).
//! 3. *Take* what was found in ascending order until `free_inc` is full. Only as many are
//!    brought into order as are wanted.
//! 4. If that was too little, because the sample misled or because others changed words
//!    meanwhile, begin again at 2 with a limit further up, the last time without one. What has
//!    been taken is pinned, so it is not found twice.
//!
//! A pass tries at most as many buckets as there are *candidates* ([`tierce_core::Sizes`]).
//!
//! # Why it is exact
//!
//! If nobody changes words, a scan finds everything up to its limit, so what is taken are the
//! smallest ranks in ascending order, however good the sample was: it decides about speed only.
//! If others change words, the pass takes each bucket by its rank at some instant during it.
//!
//! Candidates are not kept for the next pass: meanwhile buckets were touched, written, unpinned
//! and collected, and what is smallest then can only be seen by looking at all again.

use super::Pass;
use super::rank::{Keys, Rank};
use super::scan::{Scan, Scanner};
use super::vectors;
use crate::table::Invalidated;
use core::cmp::Reverse;
use tierce_core::draws::Draws;
use tierce_core::{BucketIndex, Geometry};

/// Buckets for each that is sampled.
const STRIDE: usize = 64;

/// Buckets sampled, at most. Each is a cache miss; with eight times as many, a pass over 1 Mi
/// buckets spent as much time on the sample as on the scan, and found a third less.
const SAMPLED_MOST: usize = 2 << 10;

/// Buckets sampled, at least: on smaller devices everything is a candidate.
const SAMPLED_LEAST: usize = 64;

/// Where the draws of the sample begin: any number, but the same for every pass.
const SEED: u64 = 0;

/// How many buckets ahead memory is asked for where buckets are visited out of order.
const SOON: usize = 32;

/// Memory of one device's passes, kept from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Lru {
    sample: Vec<Rank>,
    found: Vec<Rank>,
}

/// Runs a pass that tries at most `candidates` buckets.
pub(crate) fn pass<F>(pass: &mut Pass<'_, F>, candidates: usize, lru: &mut Lru, scanner: &Scanner)
where
    F: FnMut(BucketIndex, Invalidated),
{
    pass.write_early |= pass.far.iter().any(|&bucket| pass.table.peek(bucket).can_invalidate());
    let (table, geometry, far) = (pass.table, pass.geometry, pass.far);
    let keys = Keys { epoch: table.epoch(), min_prio: pass.min_prio };
    let scan = Scan { table, geometry, keys, far };
    let sampled = sample(&scan, &mut lru.sample);
    let rank = enough(pass.wanted.min(candidates), sampled, geometry.buckets().len());
    let mut left = candidates;
    for rank in [rank, 4 * rank, usize::MAX] {
        if pass.wanted == 0 || left == 0 {
            break;
        }
        let limit = limit(&mut lru.sample, rank);
        lru.found.clear();
        scan.up_to(limit, scanner, &mut lru.found);
        left -= take(pass, &mut lru.found, left);
        if limit == Rank::LAST || cfg!(tierce_mutant = "lru_one_scan") {
            break;
        }
    }
}

/// How many buckets of such a device are sampled, 0 if it is too small for that.
fn sample_size(geometry: &Geometry) -> usize {
    let size = (geometry.buckets().len() / STRIDE).min(SAMPLED_MOST);
    if size < SAMPLED_LEAST { 0 } else { size }
}

/// The buckets that are sampled: one at random out of each of `size` ranges.
pub(super) fn sampled(geometry: &Geometry) -> impl Iterator<Item = BucketIndex> + use<> {
    let (first, size) = (geometry.first_bucket().get(), sample_size(geometry) as u64);
    let length = geometry.buckets().len() as u64;
    let mut draws = Draws::new(SEED);
    (0..size).map(move |number| {
        let [begin, end] = [number, number + 1].map(|n| (n * length / size) as u32);
        BucketIndex::new(first + begin + draws.below(end - begin))
    })
}

/// The ranks of those sampled that can be invalidated. Returns how many were looked at.
fn sample(scan: &Scan<'_>, ranks: &mut Vec<Rank>) -> usize {
    ranks.clear();
    let mut soon = sampled(scan.geometry).skip(SOON);
    for bucket in sampled(scan.geometry) {
        if let Some(soon) = soon.next() {
            vectors::prefetch(scan.table.words().line(soon));
        }
        ranks.extend(scan.rank(bucket));
    }
    sample_size(scan.geometry)
}

/// How many of `sampled` buckets have to be up to a limit for `wanted` of all `nbuckets` to be
/// up to it, too, but for bad luck: their share, and three standard deviations of it.
fn enough(wanted: usize, sampled: usize, nbuckets: usize) -> usize {
    let share = (wanted as u64 * sampled as u64 / nbuckets as u64) as usize;
    share + 3 * share.isqrt() + 3
}

/// The rank up to which there are so many in the sample; the last if there are not.
fn limit(sample: &mut [Rank], rank: usize) -> Rank {
    match rank < sample.len() {
        true => *sample.select_nth_unstable(rank).1,
        false => Rank::LAST,
    }
}

/// Fewer than this are not worth being selected.
const RUN: usize = 64;

/// Takes the smallest of `found` in ascending order, at most `most`, until no more are wanted.
/// Returns how many it tried.
fn take<F>(pass: &mut Pass<'_, F>, found: &mut [Rank], most: usize) -> usize
where
    F: FnMut(BucketIndex, Invalidated),
{
    let most = found.len().min(most);
    let (mut rest, mut tried) = (found, 0);
    while pass.wanted > 0 && tried < most {
        let run = pass.wanted.max(RUN).min(most - tried);
        if run < rest.len() {
            rest.select_nth_unstable(run);
        }
        let (now, later) = rest.split_at_mut(run);
        if cfg!(tierce_mutant = "lru_ties_by_place") {
            now.sort_unstable_by_key(|rank| (rank.key(), Reverse(rank.bucket())));
        } else {
            now.sort_unstable();
        }
        for (at, rank) in now.iter().enumerate() {
            if let Some(soon) = now.get(at + SOON) {
                vectors::prefetch(pass.table.words().line(soon.bucket()));
            }
            tried += 1;
            if !pass.take(rank.bucket()) {
                return tried;
            }
        }
        rest = later;
    }
    tried
}
