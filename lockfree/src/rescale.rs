//! The look at every word that a rescale takes.
//!
//! What a rescale does with a word says [`AgeEpoch::rescale`]; what holds when others change
//! the words meanwhile says [`crate::ageing`]. Here it is done fast. Most words have nothing to be
//! done about them: they are not pinned, and some other bucket is older. Groups of words are
//! asked for that at once, without a branch per word; only where there is more to do each word is
//! looked at by itself. Several places of the table are read by turns: memory answers them faster
//! than one.
//!
//! A word is asked by its *youth*: its stamp minus the stamp of prio 0, modulo 65536. Among what
//! a rescale ages the youth rises with the prio: by 1 each, but for one step of 2 where stamps come
//! round, for they run modulo 65535. What is at prio 0 already has a youth above all that, and
//! what was used since the epoch began has that of the epoch. So only a word with a youth below
//! the smallest so far can lower the smallest prio. (Metadata may look as if it could; looked at by
//! itself it does not.)
//!
//! Several rescales that are due take one look together. Only if no bucket aged by the last of
//! them the earlier ones matter for the smallest prio: it is 0 if any aged by them, for then all
//! of those are oldest now. That takes a second look, word by word; it is rare, since no bucket
//! was used for a long time then.

use crate::sync::Ordering;
use crate::table::Table;
use crate::words::{LINE, Line};
use tierce_core::age::{Rescaled, Stamp};
use tierce_core::word::ONE_PIN;
use tierce_core::{AgeEpoch, BucketIndex, Prio, Snapshot, broken};

/// Words that are asked at once: a line.
const GROUP: usize = LINE;
/// Places of the table that are read by turns.
const LANES: usize = 4;
/// Groups that are read in one place before it is the next one's turn: two cache lines.
const RUN: usize = 2;

impl Table {
    /// The looks at all words in the `steps` rescales with the last of which `epoch` began.
    /// Returns the smallest prio of the buckets that aged by the last of them.
    pub(crate) fn rescale(&self, epoch: AgeEpoch, steps: u16) -> Option<Prio> {
        let mut smallest = Smallest::new(epoch, steps);
        // The last line is looked at word by word if it is not full.
        let groups = &self.words().lines()[..self.len() / GROUP];
        let lane = groups.len() / LANES / RUN * RUN;
        for run in (0..lane).step_by(RUN) {
            for at in (0..LANES).map(|number| number * lane + run) {
                self.ask(at, &groups[at..at + RUN], &mut smallest);
            }
        }
        self.ask(LANES * lane, &groups[LANES * lane..], &mut smallest);
        self.look_at(groups.len() * GROUP, self.len().rem_euclid(GROUP), &mut smallest);
        smallest.prio
    }

    /// Whether a bucket aged by one of these rescales, but not by the last.
    pub(crate) fn aged_before(&self, epoch: AgeEpoch, steps: u16) -> bool {
        let aged = |bucket| epoch.rescale(self.peek(bucket), steps) == Rescaled::AgedBefore;
        let forgotten = broken!("rescale_forgets_earlier");
        steps > 1 && !forgotten && (0..self.len()).any(|at| aged(BucketIndex::new(at as u32)))
    }

    /// Asks groups of words, from group `at` on, whether there is anything to be done.
    fn ask(&self, at: usize, groups: &[Line], smallest: &mut Smallest) {
        for (at, group) in (at..).zip(groups) {
            if smallest.thorough || smallest.may_change(group) {
                self.look_at(at * GROUP, GROUP, smallest);
            }
        }
    }

    /// Looks at the words from `at` on one by one.
    #[inline(never)]
    fn look_at(&self, at: usize, count: usize, smallest: &mut Smallest) {
        for bucket in (at..at + count).map(|at| BucketIndex::new(at as u32)) {
            if let Some(prio) = self.rescale_one(bucket, smallest.epoch, smallest.steps) {
                smallest.add(prio);
            }
        }
    }

    /// Returns the prio after it if the bucket aged.
    fn rescale_one(&self, bucket: BucketIndex, epoch: AgeEpoch, steps: u16) -> Option<Prio> {
        let next = |w: Snapshot| match epoch.rescale(w, steps) {
            Rescaled::Write(next) => Some(next),
            Rescaled::Aged(_) | Rescaled::AgedBefore | Rescaled::Stays => None,
        };
        // Relaxed: prio is a hint.
        match self.update(bucket, Ordering::Relaxed, next).map_err(|w| epoch.rescale(w, steps)) {
            Err(Rescaled::Aged(prio)) => Some(prio),
            Ok(_) | Err(_) => None,
        }
    }
}

/// The smallest prio so far.
struct Smallest {
    epoch: AgeEpoch,
    /// How many rescales are made.
    steps: u16,
    /// Whether every word has to be looked at by itself.
    thorough: bool,
    prio: Option<Prio>,
    /// Of the smallest prio, or of the epoch, in the top bits.
    youth: u64,
    /// Of which the youth is 0, in the top bits.
    zero: u64,
}

/// The stamp's place in [`Smallest`]: that of the top bits.
const fn on_top(stamp: Stamp) -> u64 {
    (stamp.bits() as u64) << 48
}

impl Smallest {
    fn new(epoch: AgeEpoch, steps: u16) -> Self {
        let zero = on_top(epoch.stamp_of(Prio::OLDEST));
        let youth = on_top(epoch.stamp()).wrapping_sub(zero);
        let thorough = epoch.is_thorough(steps);
        Self { epoch, steps, thorough, prio: None, youth, zero }
    }

    /// Whether one of the words may be smaller, or is pinned.
    fn may_change(&self, group: &Line) -> bool {
        let (mut pins, mut youngest) = (0, u64::MAX);
        // Hints; what has to be written is decided by a CAS.
        for word in group.words() {
            pins |= word;
            // Below the youth in the top bits there are others, which change no comparison.
            youngest = youngest.min((word << 32).wrapping_sub(self.zero));
        }
        pins >= ONE_PIN || youngest < self.youth
    }

    fn add(&mut self, prio: Prio) {
        if self.prio.is_none_or(|smallest| prio < smallest) {
            self.prio = Some(prio);
            self.youth = on_top(self.epoch.stamp_of(prio)).wrapping_sub(self.zero);
        }
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use crate::ageing::{AgeClock, Ageing};
    use crate::sync::Arc;
    use tierce_core::Gen;
    use tierce_core::draws::Draws;

    /// Lanes of a run each, a group that is not enough for more, and a rest.
    const BUCKETS: usize = (LANES * RUN + 1) * GROUP + 1;

    /// The same words as the specification has them.
    struct Pair {
        table: Table,
        clock: Arc<AgeClock>,
        spec: Vec<Snapshot>,
    }

    impl Pair {
        fn new(epoch: AgeEpoch, draws: &mut Draws) -> Self {
            let clock = Arc::new(AgeClock::at(epoch));
            let prio = |at: usize| match at % 4 {
                0 => Prio::METADATA,
                _ => Prio::new(draws.below(32769) as u16),
            };
            let word = |prio| Snapshot::default().with_prio(prio);
            let spec: Vec<_> = (0..BUCKETS).map(prio).map(word).collect();
            Self { table: Table::new(spec.iter().copied(), Arc::clone(&clock)), clock, spec }
        }

        /// Something that happens to a bucket between rescales.
        fn live(&mut self, at: usize, draws: &mut Draws) {
            let (bucket, word) = (BucketIndex::new(at as u32), self.spec[at]);
            self.spec[at] = match draws.below(8) {
                0..=3 if word.pin_count() == 0 => {
                    self.table.pin(bucket, Gen::new(0)).expect("its gen is 0");
                    word.with_pin(1)
                }
                0..=3 => {
                    self.table.unpin(bucket, 1);
                    word.with_pin(0)
                }
                4 | 5 => {
                    self.table.touch(bucket, Gen::new(0));
                    word.touch(Gen::new(0)).unwrap_or(word)
                }
                _ => {
                    let prio = [Prio::METADATA, Prio::OLDEST, Prio::new(1), Prio::FRESH];
                    let word = word.with_prio(prio[draws.below(4) as usize]);
                    self.table.store(bucket, word);
                    word
                }
            };
        }

        fn rescale(&mut self, steps: u16) {
            let mut smallest = None;
            for _ in 0..steps {
                let aged = self.spec.iter_mut().filter_map(|word| {
                    *word = word.rescale()?;
                    Some(word.prio())
                });
                smallest = aged.min().or(smallest);
            }
            let epoch = self.clock.advance(steps);
            let aged = self.table.rescale(epoch, steps);
            let before = || self.table.aged_before(epoch, steps).then_some(Prio::OLDEST);
            assert_eq!(aged.or_else(before), smallest, "{epoch:?}");
            if !epoch.stamp().bits().is_multiple_of(31) {
                return; // comparing every word takes longer than ageing it
            }
            for (bucket, &word) in (0..).map(BucketIndex::new).zip(&self.spec) {
                assert_eq!(self.table.snapshot(bucket), word, "{bucket} {epoch:?}");
            }
        }
    }

    /// More than once round; most buckets are left alone for thousands of rescales.
    #[test]
    fn a_table_ages_as_the_specification_says() {
        let mut draws = Draws::new(3);
        let mut pair = Pair::new(AgeEpoch::from_bits(65000).expect("an epoch"), &mut draws);
        for _ in 0..50_000 {
            pair.rescale([1, 1, 2, AgeEpoch::STEPS_MAX][draws.below(4) as usize]);
            if draws.below(16) == 0 {
                pair.live(draws.below(BUCKETS as u32) as usize, &mut draws);
            }
        }
    }

    /// What counts for the smallest prio is the last rescale by which any bucket aged.
    #[test]
    fn earlier_rescales_count_if_the_last_ages_nothing() {
        let smallest = |prios: [u16; 3], steps: u32| {
            let clock = Arc::new(AgeClock::default());
            let words = prios.map(|prio| Snapshot::default().with_prio(Prio::new(prio)));
            let table = Table::new(words.into_iter(), Arc::clone(&clock));
            let ageing = Ageing::new(1, 1, clock);
            ageing.set(None, Some(Prio::new(9)));
            (0..steps).for_each(|_| assert!(ageing.account(2)));
            assert_eq!(ageing.rescale_due([&table].into_iter()), steps);
            ageing.min_prio().get()
        };
        assert_eq!(smallest([5, 1, 0], 3), 2, "of those that aged by the last");
        assert_eq!(smallest([2, 1, 0], 3), 0, "none did, but by the one before");
        assert_eq!(smallest([0, 0, 0], 3), 9, "none did by any: as it was");
        assert_eq!(smallest([1, 0, 0], 1), 0);
    }

    /// From states in which every bucket was used lately, at any place of the turn.
    #[test]
    fn the_smallest_is_found_wherever_stamps_come_round() {
        let mut draws = Draws::new(4);
        for epoch in (0..65535).step_by(197).chain(65500..65535) {
            let mut pair = Pair::new(AgeEpoch::from_bits(epoch).expect("an epoch"), &mut draws);
            for at in 0..BUCKETS {
                pair.live(at, &mut draws);
            }
            [1, 1, 3].into_iter().for_each(|steps| pair.rescale(steps));
        }
    }
}
