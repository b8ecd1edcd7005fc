//! A limit for the next pass, told from what passes before found.
//!
//! # Problem
//!
//! Before a pass can scan it samples, which costs a cache miss for each bucket; and as a sample
//! is small, its limit lets through twice as many as are wanted, each of which costs more than
//! a hundred that it does not. But the pass before has just seen all there is.
//!
//! # Protocol
//!
//! A pass learns how many it found, and how many of them it left: those behind the last one it
//! took, up to its limit. That tells how dense ranks are there. Up to the same limit the next pass
//! will find what was left, and as many more as came in last time, since buckets were
//! emptied, or all the others seem older after a rescale. The limit is set so that half more than
//! are wanted will be found.
//!
//! A guess decides about speed only. Too few are found: all of them are taken, and the
//! pass goes on as if there had been no guess, with a sample. Far too many: the scan is given up
//! and nothing is taken. Either costs up to a scan; then the next passes do without, the more
//! of them, the more guesses in a row were wrong.

use super::lru::but_for_bad_luck;
use super::rank::Rank;

/// Passes without a guess after a wrong one.
const REST: u32 = 16;

/// So many wrong ones in a row make no rest longer.
const WRONG_MOST: u32 = 6;

/// What is known when a pass begins.
#[derive(Debug, Default)]
pub(super) struct Guess {
    /// Up to where the last pass looked, and what it left there. Nothing if it was told too little.
    left: Option<Left>,
    /// Wrong ones in a row.
    wrong: u32,
    /// Passes that do without.
    rest: u32,
}

/// What a pass left behind.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// Its limit.
    limit: u64,
    /// The last rank that it tried.
    tried: u64,
    /// How many it found between them.
    behind: u64,
    /// How many it found more than expected: fewer, if negative.
    came: i64,
}

impl Left {
    /// How many ranks more or fewer make `count` buckets more or fewer.
    fn ranks(self, count: i64) -> i128 {
        i128::from(count) * i128::from(self.limit - self.tried) / i128::from(self.behind)
    }

    /// How many buckets are to be expected up to `limit` if none come in.
    fn expected(self, limit: u64) -> i64 {
        let ranks = i128::from(limit) - i128::from(self.limit);
        let more = ranks * i128::from(self.behind) / i128::from(self.limit - self.tried);
        i64::try_from(more).unwrap_or(i64::MAX).saturating_add_unsigned(self.behind)
    }
}

impl Guess {
    /// A limit up to which there are probably half more than `wanted`.
    pub(super) fn limit(&mut self, wanted: usize) -> Option<Rank> {
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        // Too few would say too little.
        let left = self.left.filter(|left| left.behind >= wanted as u64 / 8)?;
        let enough = but_for_bad_luck(wanted) + wanted / 2;
        let missing = enough as i64 - (left.behind as i64 + left.came);
        let limit = i128::from(left.limit) + left.ranks(missing);
        let limit = u64::try_from(limit.max(left.tried.into())).ok()?;
        (limit < Rank::LAST.bits()).then(|| Rank::from_bits(limit))
    }

    /// How many may be found before a scan is given up.
    pub(super) fn most(wanted: usize) -> usize {
        4 * wanted
    }

    /// A pass found so many up to `limit`, and the last that it tried was that one.
    pub(super) fn learn(&mut self, limit: Rank, found: usize, tried: usize, last: Option<Rank>) {
        let before = self.left.take();
        let Some(last) = last.filter(|&last| last < limit && limit < Rank::LAST) else { return };
        let behind = found.saturating_sub(tried) as u64;
        if behind > 0 {
            let limit = limit.bits();
            let expected = before.map(|before| before.expected(limit));
            let came = expected.map_or(0, |expected| (found as i64).saturating_sub(expected));
            self.left = Some(Left { limit, tried: last.bits(), behind, came });
        }
    }

    /// It was right.
    pub(super) fn right(&mut self) {
        self.wrong = 0;
    }

    /// It was wrong.
    pub(super) fn wrong(&mut self) {
        self.left = None;
        self.rest = REST << self.wrong;
        self.wrong = (self.wrong + 1).min(WRONG_MOST);
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    const WANTED: usize = 1000;

    impl Guess {
        /// As if none had been wrong.
        pub(in crate::victims) fn forget_wrong(&mut self) {
            (self.wrong, self.rest) = (0, 0);
        }
    }

    /// A device whose ranks lie `gap` apart; what is taken has none any more, and before each pass
    /// `come` of all others get a lower one. Returns how many the guess of each pass found.
    fn passes(gap: u64, come: u64) -> Vec<usize> {
        let mut guess = Guess::default();
        // The first rank, and the sample's limit.
        let (mut first, mut limit) = (0, 2 * WANTED as u64 * gap);
        let mut all = Vec::new();
        for _ in 0..30 {
            let found = ((limit - first) / gap) as usize;
            all.push(found);
            let last = Rank::from_bits(first + (WANTED as u64 - 1) * gap);
            guess.learn(Rank::from_bits(limit), found, WANTED, Some(last));
            first += (WANTED as u64 - come) * gap;
            limit = guess.limit(WANTED).expect("it has learned enough").bits();
        }
        all
    }

    /// It finds enough, and not many more, also if all seem older from pass to pass.
    #[test]
    fn half_more_than_wanted_are_found() {
        for (gap, come) in [(1, 0), (1 << 20, 0), (1 << 20, 400), (1 << 20, 1000)] {
            let found = passes(gap, come);
            let right = |&found: &usize| (3 * WANTED / 2..Guess::most(WANTED)).contains(&found);
            assert!(found[1..].iter().all(right), "{gap}, {come}: {found:?}");
            assert!(found[3..].iter().all(|&found| found < 2 * WANTED), "{gap}, {come}: {found:?}");
        }
    }

    #[test]
    fn it_rests_the_longer_the_more_were_wrong() {
        let mut guess = Guess::default();
        let learn = |guess: &mut Guess| {
            let [last, limit] = [1000, 2000].map(Rank::from_bits);
            guess.learn(limit, 2 * WANTED, WANTED, Some(last));
        };
        let rests = |guess: &mut Guess| {
            learn(guess);
            let rest = (0..).take_while(|_| guess.limit(WANTED).is_none()).count();
            guess.wrong();
            rest
        };
        assert_eq!([0; 4].map(|_| rests(&mut guess)), [0, 16, 32, 64]);
        guess.right();
        assert_eq!([0; 3].map(|_| rests(&mut guess)), [128, 16, 32]);
    }

    /// Without enough to tell from there is none.
    #[test]
    fn it_knows_what_it_does_not_know() {
        let mut guess = Guess::default();
        assert_eq!(guess.limit(WANTED), None, "nothing yet");
        let some = Some(Rank::from_bits(1000));
        guess.learn(Rank::LAST, 2 * WANTED, WANTED, some);
        assert_eq!(guess.limit(WANTED), None, "there was no limit");
        guess.learn(Rank::from_bits(2000), WANTED + 9, WANTED, some);
        assert_eq!(guess.limit(WANTED), None, "too few were left");
        guess.learn(Rank::from_bits(2000), WANTED, WANTED, some);
        assert_eq!(guess.limit(WANTED), None, "none were left");
        guess.learn(Rank::from_bits(Rank::LAST.bits() - 1), WANTED + 200, WANTED, some);
        assert_eq!(guess.limit(WANTED), None, "it would be behind all");
    }
}
