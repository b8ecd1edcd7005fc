//! Finding all buckets up to a limit, in one pass over the words.
//!
//! # Problem
//!
//! A pass over a large device takes as long as its memory does, if deciding about a word takes
//! no longer. Nearly all words are above the limit, so what has to be fast is to see that.
//!
//! # Protocol
//!
//! 1. Of every word an *estimate* is computed ([`Estimate`]): a lower bound of its key, from a
//!    handful of instructions without a branch. Words that are pinned, dirty or metadata count
//!    as above the limit.
//! 2. The limit is a key *and* a bucket, or equal keys would let the whole device through. No
//!    numbers of buckets are compared for that: up to the limit's bucket words pass whose
//!    estimate is at most the limit's key, behind it only those below.
//! 3. Words that pass are few. They are read again, and decide with the exact rank and
//!    everything else that counts.
//!
//! The lines before the one that holds the first usable bucket are left out; buckets before that
//! one in its line, and the padding behind the last, do not get through step 3 and 1.
//!
//! Step 1 exists twice: [`portable`], and for processors with AVX2 in [`super::x86`]. Both may
//! let different words pass, but what remains after step 3 is the same, for any split of the
//! table between threads: whatever is up to the limit, if nobody changes words meanwhile.

use super::rank::{Estimate, Keys, Rank};
use super::threads::Threads;
use super::vectors;
use crate::config::Config;
use crate::table::Table;
use crate::words::{LINE, Line};
use core::ops::Range;
use tierce_core::word::BUSY;
use tierce_core::{BucketIndex, Geometry};

/// Lines of a piece, the unit that is given to a thread: 128 KiB, some microseconds.
const PIECE: usize = 2048;

/// What scans: how, and with how many threads. Made once.
#[derive(Debug)]
pub(crate) struct Scanner {
    threads: Threads,
    avx2: Option<vectors::Avx2>,
}

impl Scanner {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            threads: Threads::new(config.pass_threads, &config.pass_thread_name),
            avx2: vectors::Avx2::detect().filter(|_| config.pass_vectors),
        }
    }

    /// The reclaimer's thread and its helpers.
    pub(super) fn threads(&self) -> &Threads {
        &self.threads
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan<'a> {
    pub(super) table: &'a Table,
    pub(super) geometry: &'a Geometry,
    pub(super) keys: Keys,
    /// Buckets that are not taken, ascending: usually none.
    pub(super) far: &'a [BucketIndex],
}

impl Scan<'_> {
    /// The rank of a bucket that can be invalidated.
    pub(super) fn rank(&self, bucket: BucketIndex) -> Option<Rank> {
        let word = self.table.peek(bucket);
        let can = word.can_invalidate()
            && self.geometry.contains(bucket)
            && (self.far.is_empty() || self.far.binary_search(&bucket).is_err());
        can.then(|| Rank::new(self.keys.key(word), bucket))
    }

    /// The first line that is scanned, and that behind the last.
    fn lines(&self) -> Range<usize> {
        self.geometry.first_bucket().as_usize() / LINE..self.table.words().lines().len()
    }

    /// How many pieces there are.
    pub(super) fn pieces(&self) -> usize {
        self.lines().len().div_ceil(PIECE)
    }

    /// Adds to each range of `found` all buckets of a piece that are in it and can be
    /// invalidated, in any order.
    pub(super) fn piece(
        &self,
        piece: usize,
        bounds: &Bounds,
        scanner: &Scanner,
        found: &mut [Vec<Rank>],
    ) {
        let Range { start: first, end: last } = self.lines();
        let limit = bounds.limit;
        let begin = first + piece * PIECE;
        let end = last.min(begin + PIECE);
        // From the line behind that of the limit's bucket on, the limit's key is too large.
        let early = cfg!(tierce_mutant = "lru_ties_split_early");
        let split = limit.bucket().as_usize() / LINE + if early { 0 } else { 1 };
        let split = split.clamp(begin, end);
        let most = if cfg!(tierce_mutant = "lru_limit_exclusive") { 0 } else { 1 };
        self.part(begin..split, bounds, limit.key() + most, scanner, found);
        self.part(split..end, bounds, limit.key(), scanner, found);
    }

    /// The lines of one part, in which estimates below `bound` pass.
    fn part(
        &self,
        lines: Range<usize>,
        bounds: &Bounds,
        bound: u32,
        scanner: &Scanner,
        found: &mut [Vec<Rank>],
    ) {
        let first = lines.start * LINE;
        let estimate = self.keys.estimate();
        let lines = &self.table.words().lines()[lines];
        let mut passed = |at: usize| self.passed(first + at, bounds, found);
        match scanner.avx2 {
            Some(avx2) => avx2.scan(lines, estimate, bound, &mut passed),
            None => portable(lines, estimate, bound, &mut passed),
        }
    }

    /// Step 3, for one word. Rare, and kept out of the loops.
    #[cold]
    #[inline(never)]
    fn passed(&self, place: usize, bounds: &Bounds, found: &mut [Vec<Rank>]) {
        if let Some(rank) = self.rank(BucketIndex::new(place as u32))
            && let Some(range) = bounds.range_of(rank)
        {
            found[range].push(rank);
        }
    }
}

/// Which ranks are looked for: those of some ranges, one behind the other.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Of each range the last rank; those of ranges that are not used are the limit.
    last: [Rank; RANGES_MOST],
    ranges: usize,
    limit: Rank,
}

/// Ranges, at most.
pub(super) const RANGES_MOST: usize = 16;

impl Bounds {
    /// By the last rank of each range, ascending; there is at least one.
    pub(super) fn new(each: impl IntoIterator<Item = Rank>) -> Self {
        let (mut last, mut ranges, mut limit) = ([Rank::LAST; RANGES_MOST], 0, Rank::LAST);
        for rank in each {
            (last[ranges], limit) = (rank, rank);
            ranges += 1;
        }
        last[ranges..].fill(limit);
        Self { last, ranges, limit }
    }

    /// The number of its range, if the rank is not above the limit.
    #[inline]
    fn range_of(&self, rank: Rank) -> Option<usize> {
        if rank > self.limit {
            return None;
        }
        if self.ranges == 1 {
            return Some(0);
        }
        // How many are smaller, without a branch: nobody could predict it.
        let mut smaller = 0;
        for step in [8, 4, 2, 1] {
            smaller += step * usize::from(self.last[smaller + step - 1] < rank);
        }
        Some(smaller)
    }
}

const _: () = assert!(RANGES_MOST == 16, "as many as four steps find");

/// Calls `passed` with the place, counted from that of the first, of every word in `lines` that is
/// not busy and whose estimated key is below `bound`, ascending.
pub(super) fn portable(
    lines: &[Line],
    estimate: Estimate,
    bound: u32,
    passed: &mut impl FnMut(usize),
) {
    for (number, line) in lines.iter().enumerate() {
        vectors::prefetch_behind(line);
        for (at, word) in line.words().enumerate() {
            // What makes a word busy lies above the 30 bits of a key.
            if u64::from(estimate.of(word)) | word & BUSY < u64::from(bound) {
                passed(number * LINE + at);
            }
        }
    }
}

const _: () = assert!(BUSY.trailing_zeros() >= 31);
