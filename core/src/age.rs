//! The age of a bucket as a stamp of the last time it was used.
//!
//! # Problem
//!
//! A rescale makes every bucket that is not pinned one step older: its prio falls by 1. Writing
//! that into each word costs an atomic read-modify-write per bucket, and every cache line of the
//! table is taken away from those who use it. But nearly all buckets age alike: what differs
//! between them is only *when* they were last used.
//!
//! # State
//!
//! Rescales are counted: the count is the *age epoch*. In the concurrent table the prio field of
//! a word holds a [`Stamp`]: the age epoch at which the bucket was last fresh. Both run modulo
//! 65535, so that 65535 remains free for metadata.
//!
//! | epoch − stamp, modulo 65535 | age | prio |
//! |---|---|---|
//! | 0 to 32768 | the difference | 32768 − age |
//! | 32769 to 49152 | the difference | 0: the oldest stay there |
//! | 49153 to 65534 | none: the stamp is of an epoch to come | 32768 |
//! | stamp 65535 | metadata, it has none | 65535 |
//!
//! The third row is for whoever holds an epoch that is over: a bucket that was used since is
//! fresh. (One can hold it for 16 382 rescales, sixteen times the I/O that fills the cache.)
//! A prio between 32768 and 65535 does not arise, and a stamp cannot tell it: if a device has
//! one, it counts as 32768.
//!
//! # Protocol
//!
//! A rescale goes on to the next epoch, which makes everything one older at once, and then has
//! a look at each word ([`AgeEpoch::rescale`]). Of several in a row, between which nothing else
//! happens, one look does the work: the epoch goes on by their number, up to 8. Only two kinds of
//! words have to be written:
//!
//! * Pinned buckets do not age: their stamp follows the epoch, by as much as that went on, but
//!   never past it (a bucket used since the epoch began is fresh already). At prio 0 it is
//!   brought forward to 32768 with that.
//! * A stamp 45048 epochs old or more is brought forward to 32768, before it can look like one
//!   to come. It is enough if every 4096th rescale does so ([`AgeEpoch::is_thorough`]): the others
//!   need not ask. A bucket that nobody uses is thus written once in 12 280 rescales or more.
//!
//! # Invariant
//!
//! After a thorough look at a word that is not metadata, its stamp is 0 to 45047 behind the epoch;
//! others bring it nearer, or let it fall behind by as much as the epoch goes on. The next thorough
//! look comes 4096 epochs later, or up to 7 more if it is that of several rescales. So before it
//! the stamp is at most 45047 + 4103 behind, where it still means what it should.

use crate::broken;
use crate::bucket::Prio;
use crate::word::Snapshot;

/// How many epochs there are before they begin again.
const TURN: u16 = u16::MAX;

/// The oldest stamp that has a meaning.
const OLD: u16 = 49152;

/// A stamp that is so old may have to be brought forward, every so many rescales.
const THOROUGH: u16 = 4096;

/// From this age on a thorough look brings a stamp forward.
const FORWARD: u16 = OLD - THOROUGH - AgeEpoch::STEPS_MAX;

const _: () = assert!(Prio::FRESH.get() + AgeEpoch::STEPS_MAX < FORWARD);

/// Where the prio of a bucket in the concurrent table stands: the age epoch when it was last
/// fresh, or [`METADATA`](Self::METADATA).
///
/// ```
/// use tierce_core::{AgeEpoch, Prio, age::Stamp};
/// let epoch = AgeEpoch::FIRST;
/// assert_eq!(epoch.stamp_of(Prio::FRESH), epoch.stamp());
/// assert_eq!(epoch.stamp_of(Prio::METADATA), Stamp::METADATA);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp(u16);

impl Stamp {
    /// Of metadata, which has no age.
    pub const METADATA: Self = Self(u16::MAX);

    /// The stamp with these bits. Every pattern is legal.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// How many epochs lie between `earlier` and this one, going round.
    const fn since(self, earlier: Self) -> u16 {
        let (difference, borrow) = self.0.overflowing_sub(earlier.0);
        difference.wrapping_sub(borrow as u16)
    }

    /// The stamp `n` epochs earlier.
    const fn before(self, n: u16) -> Self {
        Self(self.since(Self(n)))
    }

    /// The stamp `n` epochs later.
    const fn after(self, n: u16) -> Self {
        let (sum, carry) = self.0.overflowing_add(n);
        let sum = sum.wrapping_add(carry as u16);
        Self(if sum == TURN { 0 } else { sum })
    }
}

/// What a rescale has to do with one word, see the top of this file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "some words have to be written"]
#[expect(clippy::exhaustive_enums, reason = "there is nothing else that could happen to a word")]
pub enum Rescaled {
    /// It aged to this prio; nothing has to be written.
    Aged(Prio),
    /// It was oldest before the last of several rescales; nothing has to be written.
    AgedBefore,
    /// It does not age, and nothing has to be written.
    Stays,
    /// It does not age, and for that this has to take its place.
    Write(Snapshot),
}

/// How many rescales there were, modulo 65535: what stamps are compared with.
///
/// ```
/// use tierce_core::{AgeEpoch, Prio, Snapshot, age::Rescaled};
/// let (before, used) = (AgeEpoch::FIRST, AgeEpoch::FIRST.stamp());
/// let now = before.next();
/// assert_eq!(before.prio_of(used), Prio::FRESH);
/// assert_eq!(now.prio_of(used), Prio::new(32767), "it aged, and was not touched");
/// assert_eq!(before.prio_of(now.stamp()), Prio::FRESH, "used since: fresh");
///
/// let word = Snapshot::default().with_stamp(used);
/// assert_eq!(now.rescale(word, 1), Rescaled::Aged(Prio::new(32767)));
/// let pinned = word.with_pin(1);
/// assert_eq!(now.rescale(pinned, 1), Rescaled::Write(pinned.with_stamp(now.stamp())));
///
/// let later = now.after(3);
/// assert_eq!(later.rescale(word, 3), Rescaled::Aged(Prio::new(32764)), "three more at once");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AgeEpoch(Stamp);

impl AgeEpoch {
    /// The one to begin with: at it, the bits of a stamp are those of its prio.
    pub const FIRST: Self = Self(Stamp(Prio::FRESH.get()));

    /// The epoch whose stamp has these bits; `None` for those of metadata.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Option<Self> {
        if bits == Stamp::METADATA.bits() { None } else { Some(Self(Stamp(bits))) }
    }

    /// The stamp of what is fresh at this epoch.
    #[must_use]
    pub const fn stamp(self) -> Stamp {
        self.0
    }

    /// Of so many rescales one look at each word can do the work, at most.
    pub const STEPS_MAX: u16 = 8;

    /// The epoch after one more rescale.
    #[must_use]
    pub const fn next(self) -> Self {
        self.after(1)
    }

    /// The epoch after `steps` more rescales.
    #[must_use]
    pub const fn after(self, steps: u16) -> Self {
        Self(self.0.after(steps))
    }

    /// The earliest stamp that has a meaning at this epoch. In terms of it, what is not metadata
    /// has the prio `min((stamp − earliest mod 65535) ⊖ 16384, 32768)`, ⊖ stopping at 0.
    #[must_use]
    pub const fn earliest(self) -> Stamp {
        self.0.before(OLD)
    }

    /// The prio of a bucket with this stamp.
    #[must_use]
    pub const fn prio_of(self, stamp: Stamp) -> Prio {
        if stamp.0 == Stamp::METADATA.0 {
            return Prio::METADATA;
        }
        let prio = stamp.since(self.earliest()).saturating_sub(OLD - Prio::FRESH.get());
        Prio::new(if prio > Prio::FRESH.get() { Prio::FRESH.get() } else { prio })
    }

    /// The stamp of a bucket with this prio.
    #[must_use]
    pub const fn stamp_of(self, prio: Prio) -> Stamp {
        match prio {
            Prio::METADATA => Stamp::METADATA,
            _ => self.0.before(Prio::FRESH.get().saturating_sub(prio.get())),
        }
    }

    /// A word of the concurrent table as the rest of the world knows it: prio instead of stamp.
    #[must_use]
    pub const fn reveal(self, word: Snapshot) -> Snapshot {
        word.with_prio(self.prio_of(word.stamp()))
    }

    /// As [`reveal`](Self::reveal), of the low halves of many words, without a branch: so a
    /// compiler makes vector instructions of it.
    ///
    /// ```
    /// use tierce_core::{AgeEpoch, Gen, Prio, Snapshot};
    /// let now = AgeEpoch::FIRST.next();
    /// let word = Snapshot::default().with_gen(Gen::new(7)).with_stamp(AgeEpoch::FIRST.stamp());
    /// let mut low_halves = [word.bits() as u32; 4];
    /// now.reveal_low_halves(&mut low_halves);
    /// let prio = Prio::new((low_halves[0] >> 16) as u16);
    /// assert_eq!(prio, now.prio_of(word.stamp()));
    /// assert_eq!(low_halves[0] as u8, 7);
    /// ```
    #[inline(always)]
    pub fn reveal_low_halves(self, words: &mut [u32]) {
        const _: () = assert!(Snapshot::from_bits(0).with_stamp(Stamp(1)).bits() == 1 << 16);
        let earliest = i32::from(self.earliest().bits());
        for word in words {
            let stamp = (*word >> 16) as i32;
            // Modulo 65535: all ones if it is negative, and so TURN.
            let turned = stamp - earliest;
            let since = turned + (turned >> 31 & i32::from(TURN));
            let oldest = i32::from(OLD - Prio::FRESH.get());
            let prio = since.clamp(oldest, i32::from(OLD)) - oldest;
            let metadata = -i32::from(stamp == i32::from(Stamp::METADATA.bits()));
            *word = ((prio | metadata) as u32) << 16 | *word & 0xffff;
        }
    }

    /// The other way round: stamp instead of prio.
    #[must_use]
    #[inline]
    pub const fn stamped(self, word: Snapshot) -> Snapshot {
        word.with_stamp(self.stamp_of(word.prio()))
    }

    /// Whether one of the `steps` rescales with the last of which this epoch began has to bring
    /// old stamps forward. Others need to ask [`rescale`](Self::rescale) only about pinned words,
    /// and about those with a stamp of the last 32768 epochs, for the smallest prio.
    #[must_use]
    pub fn is_thorough(self, steps: u16) -> bool {
        let mut back = 0;
        let steps = if broken!("rescale_thorough_skipped") { 1 } else { steps };
        while back < steps {
            if self.0.before(back).0.is_multiple_of(THOROUGH) {
                return true;
            }
            back += 1;
        }
        false
    }

    /// What the `steps` rescales with the last of which this epoch began do with a word of the
    /// table, one after the other with nothing in between.
    pub fn rescale(self, word: Snapshot, steps: u16) -> Rescaled {
        let stamp = word.stamp();
        let past = broken!("rescale_past_the_epoch");
        if stamp.0 == Stamp::METADATA.0 || stamp.0 == self.0.0 && !past {
            return Rescaled::Stays;
        }
        if word.pin_count() != 0 {
            if past {
                return Rescaled::Write(word.with_stamp(stamp.after(steps)));
            }
            let followed = if broken!("rescales_follow_by_one") { 1 } else { steps };
            let unchanged = self.prio_of(stamp.after(followed));
            return Rescaled::Write(word.with_stamp(self.stamp_of(unchanged)));
        }
        const FRESH: u16 = Prio::FRESH.get();
        match self.0.since(stamp) {
            age if age <= FRESH => Rescaled::Aged(Prio::new(FRESH - age)),
            age if age < FRESH + steps => Rescaled::AgedBefore,
            age if age < FORWARD => Rescaled::Stays,
            _ => Rescaled::Write(word.with_stamp(self.stamp_of(Prio::OLDEST))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::Gen;
    use crate::draws::Draws;

    /// Epochs all round the turn, and each one near its end.
    fn epochs() -> impl Iterator<Item = AgeEpoch> {
        let some = (0..TURN).step_by(509).chain(0..40).chain(TURN - 40..TURN);
        some.chain([16383, 16384, 32767, 32768, 32769, 49151, 49152, 49153])
            .map(|bits| AgeEpoch::from_bits(bits).expect("not metadata"))
    }

    #[test]
    fn every_prio_survives_its_stamp() {
        for epoch in epochs() {
            assert_eq!(epoch.prio_of(epoch.stamp_of(Prio::METADATA)), Prio::METADATA);
            for prio in 0..=Prio::FRESH.get() {
                let stamp = epoch.stamp_of(Prio::new(prio));
                assert_ne!(stamp, Stamp::METADATA, "{epoch:?}");
                assert_eq!(epoch.prio_of(stamp).get(), prio, "{epoch:?}");
            }
            for prio in [32769, 40000, 65534].map(Prio::new) {
                assert_eq!(epoch.prio_of(epoch.stamp_of(prio)), Prio::FRESH, "as near as it goes");
            }
        }
        for bits in 0..=u16::MAX {
            let (stamp, prio) = (Stamp::from_bits(bits), Prio::new(bits));
            if bits <= Prio::FRESH.get() || prio == Prio::METADATA {
                assert_eq!(AgeEpoch::FIRST.stamp_of(prio), stamp, "at first they are the same");
            }
        }
        assert_eq!(AgeEpoch::from_bits(u16::MAX), None);
    }

    /// The table at the top of the file, for every stamp.
    #[test]
    fn every_stamp_has_the_prio_of_the_table() {
        for epoch in epochs() {
            let now = i64::from(epoch.stamp().bits());
            for bits in 0..TURN {
                let prio = match (now - i64::from(bits)).rem_euclid(65535) {
                    age @ 0..=32768 => 32768 - age,
                    32769..=49152 => 0,
                    _ => 32768,
                };
                let got = epoch.prio_of(Stamp::from_bits(bits));
                assert_eq!(i64::from(got.get()), prio, "{bits} at {epoch:?}");
                let from_earliest =
                    (i64::from(bits) - i64::from(epoch.earliest().bits())).rem_euclid(65535);
                assert_eq!((from_earliest - 16384).clamp(0, 32768), prio, "the formula");
            }
        }
    }

    #[test]
    fn many_words_are_revealed_as_each_is() {
        for epoch in epochs() {
            let mut low_halves: Vec<u32> = (0..=u32::from(u16::MAX))
                .map(|stamp| (stamp << 16) | (stamp * 7 % 65536))
                .collect();
            let wanted: Vec<u32> = low_halves
                .iter()
                .map(|&low| epoch.reveal(Snapshot::from_bits(low.into())).bits() as u32)
                .collect();
            epoch.reveal_low_halves(&mut low_halves);
            assert!(low_halves == wanted, "{epoch:?}");
        }
    }

    /// One bucket as the specification has it and as the table has it.
    struct Twins {
        spec: Snapshot,
        ours: Snapshot,
    }

    impl Twins {
        /// Something that happens to the bucket between rescales, or nothing.
        fn live(&mut self, epoch: AgeEpoch, draws: &mut Draws) {
            let Self { spec, ours } = self;
            let gen_ = Gen::new(0);
            match draws.below(4096) {
                0..=400 => (*spec, *ours) = (spec.with_pin(1), ours.with_pin(1)),
                401..=1400 => (*spec, *ours) = (spec.with_pin(0), ours.with_pin(0)),
                1401 => {
                    *spec = spec.touch(gen_).unwrap_or(*spec);
                    if let Some(touched) = epoch.reveal(*ours).touch(gen_) {
                        *ours = epoch.stamped(touched);
                    }
                }
                1402 => {
                    let prio = match draws.below(8) {
                        0 => Prio::METADATA,
                        1 => Prio::OLDEST,
                        _ => Prio::new(draws.below(32769) as u16),
                    };
                    *spec = spec.with_prio(prio);
                    *ours = epoch.stamped(spec.with_prio(prio));
                }
                _ => {}
            }
        }

        /// So many rescales of both. Returns the prio after them if it aged by the last.
        fn rescale(&mut self, now: AgeEpoch, steps: u16) -> Option<Prio> {
            let (mut aged, mut before) = (None, None);
            for _ in 0..steps {
                (before, aged) = (aged.or(before), self.spec.rescale());
                self.spec = aged.unwrap_or(self.spec);
            }
            let rescaled = now.rescale(self.ours, steps);
            let earlier = aged.is_none() && before.is_some();
            assert_eq!(rescaled == Rescaled::AgedBefore, earlier, "{now:?}");
            let ours = match rescaled {
                Rescaled::Aged(prio) => Some(prio),
                Rescaled::Write(word) if word.pin_count() != 0 || now.is_thorough(steps) => {
                    self.ours = word;
                    None
                }
                Rescaled::AgedBefore | Rescaled::Stays | Rescaled::Write(_) => None,
            };
            assert_eq!(ours, aged.map(Snapshot::prio), "{now:?}");
            assert_eq!(now.reveal(self.ours), self.spec, "{now:?}");
            ours
        }
    }

    /// Random pins, hits and stores between 400 000 times that up to 8 rescales are made at once,
    /// which go many times round; each bucket is left alone for longer than the one before it.
    /// Looks that need not be thorough are not.
    #[test]
    fn rescales_mean_what_the_specification_says() {
        let mut epoch = AgeEpoch::FIRST;
        let mut draws = Draws::new(7);
        let mut twins: Vec<_> = (0..8)
            .map(|_| Twins { spec: Snapshot::default(), ours: epoch.stamped(Snapshot::default()) })
            .collect();
        let (mut aged, mut written_old) = (0u32, 0u32);
        for pass in 0..400_000u32 {
            let steps = [1, 1, 1, 2, 5, AgeEpoch::STEPS_MAX][draws.below(6) as usize];
            epoch = epoch.after(steps);
            for (at, twin) in twins.iter_mut().enumerate() {
                let before = twin.ours;
                aged += u32::from(twin.rescale(epoch, steps).is_some());
                written_old += u32::from(before.pin_count() == 0 && before != twin.ours);
                if pass.is_multiple_of(1 << (2 * at)) {
                    twin.live(epoch, &mut draws);
                }
            }
        }
        assert!(aged > 100_000, "{aged} times a bucket aged");
        assert!(written_old > 8, "{written_old} stamps were brought forward");
    }
}
