//! Least recently used, weighted by emptiness.
//!
//! # Problem
//!
//! A pass needs the buckets of the smallest ranks ([`Rank`]) of the whole device in ascending
//! order: about one in 256. It should cost little more than reading the words once.
//!
//! # Protocol
//!
//! 1. *Guess* from what the pass before found a limit up to which there are probably as many
//!    buckets as are wanted, and few more ([`super::guess`]). If that cannot be, or the guess turns
//!    out to be wrong, *sample* the table: one bucket out of each of many ranges of the same
//!    length. From the ranks of those that can be invalidated follows such a limit, too.
//! 2. *Scan* the table for everything up to the limit ([`super::scan`]).
//! 3. *Take* what was found in ascending order until `free_inc` is full. Only as many are
//!    brought into order as are wanted.
//! 4. If that was too little, because the limit misled or because others changed words
//!    meanwhile, begin again at 2 with a limit further up, the last time without one. What has
//!    been taken is pinned, so it is not found twice.
//!
//! A pass tries at most as many buckets as there are *candidates* ([`tierce_core::Sizes`]).
//!
//! Sample, scan and taking are phases of which several threads do pieces ([`super::crew`]). What
//! they find each keeps for himself; nobody has to bring it together before the third phase, whose
//! pieces are shares of ranks that all of them look for in all that was found (`share.rs`).
//! The reclaimer's thread puts the shares one behind the other. What is still missing then,
//! since others were faster with some buckets, it takes alone.
//!
//! # Why it is exact
//!
//! If nobody changes words, a scan finds everything up to its limit, so what is taken are the
//! smallest ranks in ascending order, however good the limit was: it decides about speed only.
//! If others change words, the pass takes each bucket by its rank at some instant during it.
//!
//! Candidates are not kept for the next pass: meanwhile buckets were touched, written, unpinned
//! and collected, and what is smallest then can only be seen by looking at all again.

use super::crew::{Crew, Phase};
use super::guess::Guess;
use super::rank::{Keys, Rank};
use super::scan::{Limit, Scan, Scanner};
use super::share::{self, Share, Shares};
use super::vectors;
use super::{Pass, Taken};
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, RwLock};
use crate::table::Table;
use core::cmp::Reverse;
use crossbeam_utils::CachePadded;
use tierce_core::draws::Draws;
use tierce_core::{BucketIndex, Geometry, broken};

/// Buckets for each that is sampled.
const STRIDE: usize = 64;

/// Buckets sampled, at most. Each is a cache miss; with eight times as many, a pass over 1 Mi
/// buckets spent as much time on the sample as on the scan, and found a third less.
const SAMPLED_MOST: usize = 2 << 10;

/// Buckets sampled, at least: on smaller devices everything is a candidate.
const SAMPLED_LEAST: usize = 64;

/// Buckets of the sample that are a piece.
const SAMPLED_TOGETHER: usize = 128;

/// Where the draws of the sample begin: any number, but the same for every pass.
const SEED: u64 = 0;

/// How many buckets ahead memory is asked for where buckets are visited out of order.
const SOON: usize = 32;

/// Memory of one device's passes, kept from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Lru {
    guess: Guess,
    sample: Vec<Rank>,
    /// Of what was found, to tell where shares begin.
    some: Vec<Rank>,
    /// What each thread finds.
    found: Vec<Found>,
    shares: Vec<CachePadded<Mutex<Share>>>,
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
impl Lru {
    /// The next pass guesses, if it can.
    pub(super) fn forget_wrong_guesses(&mut self) {
        self.guess.forget_wrong();
    }
}

/// What one thread finds; then all read it. In a cache line of its own: it is written to with
/// each bucket that is found.
pub(super) type Found = CachePadded<RwLock<Vec<Rank>>>;

/// Runs a pass that tries at most `candidates` buckets.
pub(crate) fn pass<F>(pass: &mut Pass<'_, F>, candidates: usize, lru: &mut Lru, scanner: &Scanner)
where
    F: FnMut(Taken<'_>),
{
    pass.write_early |= pass.far.iter().any(|&bucket| pass.table.peek(bucket).can_invalidate());
    let (table, geometry, far) = (pass.table, pass.geometry, pass.far);
    let keys = Keys { epoch: table.epoch(), min_prio: pass.min_prio };
    let buckets = geometry.buckets().len();
    let threads = scanner.threads().count(buckets);
    let scan = Scan { table, geometry, keys, far, threads };
    let Lru { guess, sample, some, found, shares } = lru;
    found.resize_with(threads, Found::default);
    shares.resize_with(threads, CachePadded::default);
    let limit = AtomicU64::new(Rank::LAST.bits());
    let most = AtomicUsize::new(usize::MAX);
    let search = Search { scan, scanner, limit, most, found, shares };
    let work = |phase, piece, thread: usize| search.piece(phase, piece, &search.found[thread]);
    scanner.threads().together(buckets, work, |crew| {
        search.lead(crew, pass, candidates, Own { guess, sample, some });
    });
}

/// What nobody but the leader uses.
struct Own<'a> {
    guess: &'a mut Guess,
    sample: &'a mut Vec<Rank>,
    some: &'a mut Vec<Rank>,
}

/// What the threads of a pass share.
#[derive(Debug)]
struct Search<'a> {
    scan: Scan<'a>,
    scanner: &'a Scanner,
    /// The largest rank that is looked for. Set before a scan.
    limit: AtomicU64,
    /// How many each thread may find. Set with it.
    most: AtomicUsize,
    found: &'a [Found],
    shares: &'a Shares,
}

impl Search<'_> {
    /// One piece of a phase, for the thread that keeps in `found` what it finds.
    fn piece(&self, phase: Phase, piece: usize, found: &Found) {
        match phase {
            Phase::Sample => self.sample(piece, &mut found.write()),
            Phase::Scan => {
                // Relaxed (both): published with the phase.
                let rank = Rank::from_bits(self.limit.load(Ordering::Relaxed));
                let limit = Limit { rank, most: self.most.load(Ordering::Relaxed) };
                self.scan.piece(piece, limit, self.scanner, &mut found.write());
            }
            Phase::Take => self.shares[piece].lock().take(self.found, self.scan.table),
            Phase::Idle | Phase::Closed => {}
        }
    }

    /// A phase, in which the reclaimer does its part.
    fn lead_phase(&self, crew: &Crew, phase: Phase, pieces: usize) {
        crew.lead(phase, pieces, |piece| self.piece(phase, piece, &self.found[0]));
    }

    /// Everything found by all threads behind `after`.
    fn all_found(&self, after: Option<Rank>) -> Vec<Rank> {
        let mut all = core::mem::take(&mut *self.found[0].write());
        self.found.iter().for_each(|found| all.append(&mut found.write()));
        if let Some(after) = after {
            all.retain(|&rank| rank > after);
        }
        all
    }

    /// The reclaimer's part of a pass.
    fn lead<F>(&self, crew: &Crew, pass: &mut Pass<'_, F>, candidates: usize, own: Own<'_>)
    where
        F: FnMut(Taken<'_>),
    {
        let Own { guess, sample, some } = own;
        let (mut left, wanted) = (candidates, pass.wanted.min(candidates));
        if let Some(rank) = guess.limit(wanted) {
            let limit = Limit { rank, most: Guess::most(wanted) };
            if self.scan(crew, limit) || broken!("lru_guess_overrun") {
                left -= self.take(crew, pass, left, limit.rank, guess, some);
            }
            if pass.wanted == 0 || left == 0 || broken!("lru_guess_final") {
                return guess.right();
            }
            guess.wrong();
        }
        let buckets = pass.geometry.buckets().len();
        let sampled = sample_size(pass.geometry);
        self.forget();
        self.lead_phase(crew, Phase::Sample, sampled.div_ceil(SAMPLED_TOGETHER));
        sample.clear();
        self.found.iter().for_each(|found| sample.append(&mut found.write()));
        let rank = enough(wanted, sampled, buckets);
        for rank in [rank, 4 * rank, usize::MAX] {
            if pass.wanted == 0 || left == 0 {
                break;
            }
            let limit = limit(sample, rank);
            self.scan(crew, Limit { rank: limit, most: usize::MAX });
            left -= self.take(crew, pass, left, limit, guess, some);
            if limit == Rank::LAST || broken!("lru_one_scan") {
                break;
            }
        }
    }

    /// Finds everything up to a limit. `false` if that is more than it may be: then only a part.
    fn scan(&self, crew: &Crew, limit: Limit) -> bool {
        // Relaxed (both): published with the phase.
        self.limit.store(limit.rank.bits(), Ordering::Relaxed);
        self.most.store(limit.most, Ordering::Relaxed);
        self.forget();
        self.lead_phase(crew, Phase::Scan, self.scan.pieces());
        self.found.iter().all(|found| found.read().len() < limit.most)
    }

    /// Clears what was found before.
    fn forget(&self) {
        self.found.iter().for_each(|found| found.write().clear());
    }

    /// One piece of the sample: the ranks of those that can be invalidated.
    fn sample(&self, piece: usize, ranks: &mut Vec<Rank>) {
        let ask = |&bucket: &BucketIndex| {
            vectors::prefetch(self.scan.table.words().line(bucket));
        };
        let buckets: Vec<_> = sampled(self.scan.geometry, piece).collect();
        buckets.iter().take(SOON).for_each(ask);
        for (at, &bucket) in buckets.iter().enumerate() {
            buckets.get(at + SOON).into_iter().for_each(ask);
            ranks.extend(self.scan.rank(bucket));
        }
    }

    /// Takes the smallest of what was found up to `limit` in ascending order, at most `most`,
    /// until no more are wanted. Returns how many it tried.
    fn take<F>(
        &self,
        crew: &Crew,
        pass: &mut Pass<'_, F>,
        most: usize,
        limit: Rank,
        guess: &mut Guess,
        some: &mut Vec<Rank>,
    ) -> usize
    where
        F: FnMut(Taken<'_>),
    {
        let (mut tried, mut last) = (0, None);
        let found = self.found.iter().map(|found| found.read().len()).sum();
        // One thread shares with nobody.
        if self.found.len() > 1 {
            share::deal(self.found, self.shares, pass.wanted.min(most), some);
            self.lead_phase(crew, Phase::Take, self.shares.len());
            let taken = self.shares.iter().map(|share| share.lock().taken().buckets.len());
            if taken.sum::<usize>() == pass.wanted {
                // The rule. Helpers may leave while what they did is looked at.
                crew.close();
            }
            for share in self.shares {
                let share = share.lock();
                pass.took(share.taken());
                tried += share.tried().len();
                last = share.tried().last().copied().or(last);
            }
        }
        if pass.wanted > 0 && tried < most {
            let mut rest = self.all_found(last);
            let alone = take_alone(pass, &mut rest, most - tried);
            tried += alone;
            last = rest[..alone].last().copied().or(last);
            *self.found[0].write() = rest;
        }
        guess.learn(limit, found, tried, last);
        tried
    }
}

/// How many buckets of such a device are sampled, 0 if it is too small for that.
fn sample_size(geometry: &Geometry) -> usize {
    let size = (geometry.buckets().len() / STRIDE).min(SAMPLED_MOST);
    if size < SAMPLED_LEAST { 0 } else { size }
}

/// The buckets of a piece of the sample: one at random out of each of [`sample_size`] ranges of
/// the same length. A few that remain behind them are never sampled.
fn sampled(geometry: &Geometry, piece: usize) -> impl Iterator<Item = BucketIndex> + use<> {
    let size = sample_size(geometry);
    let length = geometry.buckets().len().checked_div(size).unwrap_or(0) as u32;
    let numbers = piece * SAMPLED_TOGETHER..size.min((piece + 1) * SAMPLED_TOGETHER);
    let first = geometry.first_bucket().get();
    let mut draws = Draws::new(SEED + piece as u64);
    numbers.map(move |n| BucketIndex::new(first + n as u32 * length + draws.below(length)))
}

/// All buckets that are sampled.
#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
pub(super) fn all_sampled(geometry: &Geometry) -> impl Iterator<Item = BucketIndex> {
    let pieces = 0..sample_size(geometry).div_ceil(SAMPLED_TOGETHER);
    pieces.flat_map(|piece| sampled(geometry, piece))
}

/// How many of `sampled` buckets have to be up to a limit for `wanted` of all `nbuckets` to be
/// up to it, too, but for bad luck.
fn enough(wanted: usize, sampled: usize, nbuckets: usize) -> usize {
    but_for_bad_luck((wanted as u64 * sampled as u64 / nbuckets as u64) as usize)
}

/// A share of a sample, and three standard deviations of it.
pub(super) fn but_for_bad_luck(share: usize) -> usize {
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

/// Takes the smallest of `found` in ascending order, at most `most` of them, until no more are
/// wanted. Returns how many it tried.
fn take_alone<F>(pass: &mut Pass<'_, F>, found: &mut [Rank], most: usize) -> usize
where
    F: FnMut(Taken<'_>),
{
    let most = found.len().min(most);
    let (mut rest, mut tried) = (found, 0);
    while pass.wanted > 0 && tried < most {
        let run = pass.wanted.max(RUN).min(most - tried);
        if run < rest.len() {
            rest.select_nth_unstable(run);
        }
        let (now, later) = rest.split_at_mut(run);
        let (table, wanted) = (pass.table, pass.wanted);
        let order = in_order(now, table).inspect(|_| tried += 1);
        table.invalidate_some(order, wanted, |taken| pass.took(taken));
        rest = later;
    }
    tried
}

/// The buckets in ascending order; their words are asked for a while before.
pub(super) fn in_order<'a>(
    ranks: &'a mut [Rank],
    table: &'a Table,
) -> impl Iterator<Item = BucketIndex> + 'a {
    if broken!("lru_ties_by_place") {
        ranks.sort_unstable_by_key(|rank| (rank.key(), Reverse(rank.bucket())));
    } else {
        ranks.sort_unstable();
    }
    let ranks = &*ranks;
    ranks.iter().enumerate().map(move |(at, rank)| {
        if let Some(soon) = ranks.get(at + SOON) {
            vectors::prefetch_to_write(table.words().line(soon.bucket()));
        }
        rank.bucket()
    })
}
