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
//! The table is cut into pieces, of which threads take one after the other: each is a part of what
//! is left, so the first are long and the last ones short. A thread that begins somewhere else has
//! to wait for memory, and what was asked for ahead is another's: in 64 pieces of the same length
//! two threads took a ninth longer. And what takes longer than the rest, because much of it is
//! found, is short if it is last.
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
use tierce_core::{BucketIndex, Geometry, broken};

/// Lines of a piece, at least: 16 KiB, about a microsecond.
const PIECE_LEAST: usize = 256;

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

/// Up to where is looked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// The largest rank that is looked for.
    pub(super) rank: Rank,
    /// Each thread stops when it has found so many: more than are of use.
    pub(super) most: usize,
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan<'a> {
    pub(super) table: &'a Table,
    pub(super) geometry: &'a Geometry,
    pub(super) keys: Keys,
    /// Buckets that are not taken, ascending: usually none.
    pub(super) far: &'a [BucketIndex],
    /// How many threads share it.
    pub(super) threads: usize,
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

    /// The lines of each piece.
    fn cut(&self) -> impl Iterator<Item = Range<usize>> {
        let Range { mut start, end } = self.lines();
        let parts = 2 * self.threads;
        core::iter::from_fn(move || {
            let begin = start;
            start = end.min(start + ((end - start) / parts).max(PIECE_LEAST));
            (begin < start).then_some(begin..start)
        })
    }

    /// How many pieces there are.
    pub(super) fn pieces(&self) -> usize {
        self.cut().count()
    }

    /// Adds to `found` all buckets of a piece up to the limit that can be invalidated, in any
    /// order, unless it has as many as it may.
    pub(super) fn piece(
        &self,
        piece: usize,
        limit: Limit,
        scanner: &Scanner,
        found: &mut Vec<Rank>,
    ) {
        if found.len() >= limit.most {
            return;
        }
        let rank = limit.rank;
        let Some(Range { start: begin, end }) = self.cut().nth(piece) else { return };
        // From the line behind that of the limit's bucket on, the limit's key is too large.
        let early = broken!("lru_ties_split_early");
        let split = rank.bucket().as_usize() / LINE + if early { 0 } else { 1 };
        let split = split.clamp(begin, end);
        let most = if broken!("lru_limit_exclusive") { 0 } else { 1 };
        self.part(begin..split, limit, rank.key() + most, scanner, found);
        self.part(split..end, limit, rank.key(), scanner, found);
    }

    /// The lines of one part, in which estimates below `bound` pass.
    fn part(
        &self,
        lines: Range<usize>,
        limit: Limit,
        bound: u32,
        scanner: &Scanner,
        found: &mut Vec<Rank>,
    ) {
        let first = lines.start * LINE;
        let estimate = self.keys.estimate();
        let lines = &self.table.words().lines()[lines];
        let mut passed = |at: usize| self.passed(first + at, limit, found);
        match scanner.avx2 {
            Some(avx2) => avx2.scan(lines, estimate, bound, &mut passed),
            None => portable(lines, estimate, bound, &mut passed),
        }
    }

    /// Step 3, for one word. Rare, and kept out of the loops.
    #[cold]
    #[inline(never)]
    fn passed(&self, place: usize, limit: Limit, found: &mut Vec<Rank>) {
        if let Some(rank) = self.rank(BucketIndex::new(place as u32))
            && rank <= limit.rank
            && found.len() < limit.most
        {
            found.push(rank);
        }
    }
}

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
