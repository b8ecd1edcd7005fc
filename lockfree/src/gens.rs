//! Prio and gen of every bucket of a device, as they are read from it.
//!
//! They are kept as the words that the allocator begins with, so that nothing is copied when it
//! starts: a device with many millions of buckets is open as soon as its prio sets are read. They
//! can be read in any order and by several threads ([`GensBuilder`]).
//!
//! A prio between 32768 and 65535 does not arise, and is taken for 32768.

use crate::wide::{Wide, wide};
use crate::words::{Page, Part, Room, Words};
use core::fmt;
use tierce_core::{AgeEpoch, BucketIndex, Gen, Mark, Prio, Snapshot};

/// Prio and gen of every bucket of a device, from bucket 0 on.
///
/// ```
/// use tierce_core::{BucketIndex, Gen, Prio};
/// use tierce_lockfree::Gens;
/// let mut gens = Gens::zeroed(1024);
/// gens.set(BucketIndex::new(9), Prio::FRESH, Gen::new(50));
/// assert_eq!(gens.get(BucketIndex::new(9)), Some((Prio::FRESH, Gen::new(50))));
/// assert_eq!(gens.get(BucketIndex::new(1024)), None);
/// assert_eq!(gens.iter().filter(|&(_, gen_)| gen_ == Gen::new(0)).count(), 1023);
///
/// let same: Gens = gens.iter().collect();
/// assert!(same.iter().eq(gens.iter()));
/// ```
pub struct Gens(Words);

/// A bucket about which nothing is known but this. Until the pointers that survived have been
/// observed it counts as metadata, which nobody takes for reuse.
const fn word(prio: Prio, gen_: Gen) -> Snapshot {
    let word = Snapshot::from_bits(0).with_gen(gen_).with_last_gc(gen_).with_mark(Mark::Metadata);
    AgeEpoch::FIRST.stamped(word.with_prio(prio))
}

impl Gens {
    /// Those of a device on which nothing was ever written.
    #[must_use]
    pub fn zeroed(nbuckets: u32) -> Self {
        let zero = word(Prio::default(), Gen::default());
        Self(Words::new(core::iter::repeat_n(zero, nbuckets as usize)))
    }

    /// How many buckets there are.
    #[must_use]
    pub fn nbuckets(&self) -> u32 {
        self.0.len() as u32
    }

    /// Those of a bucket; `None` if there is no such bucket.
    #[must_use]
    pub fn get(&self, bucket: BucketIndex) -> Option<(Prio, Gen)> {
        self.0.peek(bucket).map(Self::of)
    }

    /// Replaces those of a bucket.
    ///
    /// # Panics
    ///
    /// If there is no such bucket.
    pub fn set(&mut self, bucket: BucketIndex, prio: Prio, gen_: Gen) {
        self.0.set_exclusive(bucket, word(prio, gen_));
    }

    /// Those of every bucket, from bucket 0 on.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Prio, Gen)> + use<'_> {
        self.0.peek_all().map(Self::of)
    }

    fn of(word: Snapshot) -> (Prio, Gen) {
        (AgeEpoch::FIRST.prio_of(word.stamp()), word.gen_())
    }

    /// As words at the first age epoch, all of them metadata.
    pub(crate) fn into_words(self) -> Words {
        self.0
    }
}

impl fmt::Debug for Gens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gens").field("nbuckets", &self.nbuckets()).finish_non_exhaustive()
    }
}

impl Clone for Gens {
    fn clone(&self) -> Self {
        Self(Words::new(self.0.peek_all()))
    }
}

impl PartialEq for Gens {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Gens {}

impl From<Vec<(Prio, Gen)>> for Gens {
    fn from(records: Vec<(Prio, Gen)>) -> Self {
        Self(Words::new(records.into_iter().map(|(prio, gen_)| word(prio, gen_))))
    }
}

impl FromIterator<(Prio, Gen)> for Gens {
    fn from_iter<I: IntoIterator<Item = (Prio, Gen)>>(records: I) -> Self {
        Vec::from_iter(records).into()
    }
}

/// [`Gens`] that are read set by set.
///
/// ```
/// use tierce_core::{BucketIndex, Gen, Prio};
/// use tierce_lockfree::GensBuilder;
/// let mut builder = GensBuilder::new(3000, 1352);
/// std::thread::scope(|threads| {
///     for (number, set) in (0..).zip(builder.sets()) {
///         threads.spawn(move || set.fill((0..1352).map(|_| (Prio::FRESH, Gen::new(number)))));
///     }
/// });
/// let gens = builder.build();
/// assert_eq!(gens.get(BucketIndex::new(1351)), Some((Prio::FRESH, Gen::new(0))));
/// assert_eq!(gens.get(BucketIndex::new(2999)), Some((Prio::FRESH, Gen::new(2))));
/// ```
pub struct GensBuilder(Room);

impl GensBuilder {
    /// For `nbuckets` buckets, of which every `per_set` lie in a set, the last of which may have
    /// fewer.
    ///
    /// # Panics
    ///
    /// If `per_set` is 0.
    #[must_use]
    pub fn new(nbuckets: u32, per_set: u32) -> Self {
        assert_ne!(per_set, 0, "a set holds records");
        Self(Room::new(nbuckets as usize, per_set as usize))
    }

    /// The sets, each of which may be filled on a thread of its own. If it is called again, all
    /// may be filled again.
    pub fn sets(&mut self) -> impl ExactSizeIterator<Item = SetGens<'_>> {
        self.0.parts().map(SetGens)
    }

    /// The memory that the records will lie in, but for some at its ends: in pieces, each of which
    /// may be [provided](GensPage::provide) on a thread of its own. The system clears memory when
    /// it is touched for the first time, which takes longer than filling it; so it can be done
    /// while a device is waited for. All sets have to be filled after it.
    ///
    /// ```
    /// use tierce_core::{Gen, Prio};
    /// use tierce_lockfree::GensBuilder;
    /// let mut builder = GensBuilder::new(1 << 20, 1 << 20);
    /// builder.pages().rev().for_each(|page| page.provide());
    /// let zeros = || (0..1 << 20).map(|_| (Prio::FRESH, Gen::new(0)));
    /// builder.sets().for_each(|set| set.fill(zeros()));
    /// assert!(builder.build().iter().eq(zeros()));
    /// ```
    pub fn pages(&mut self) -> impl ExactSizeIterator<Item = GensPage<'_>> + DoubleEndedIterator {
        self.0.pages().map(GensPage)
    }

    /// All of them.
    ///
    /// # Panics
    ///
    /// If a set was never filled.
    #[must_use]
    pub fn build(self) -> Gens {
        Gens(self.0.finish())
    }
}

impl fmt::Debug for GensBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GensBuilder").finish_non_exhaustive()
    }
}

/// Some of the memory of a [`GensBuilder`], see [`pages`](GensBuilder::pages).
#[must_use = "it is of use only if it is provided"]
pub struct GensPage<'a>(Page<'a>);

impl GensPage<'_> {
    /// Has the system provide it: some 0.2 ms, if it has not been.
    pub fn provide(self) {
        self.0.provide();
    }
}

impl fmt::Debug for GensPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GensPage").finish_non_exhaustive()
    }
}

/// The place of one set's records. [`GensBuilder`] has an example.
#[must_use = "every set has to be filled"]
pub struct SetGens<'a>(Part<'a>);

impl SetGens<'_> {
    /// How many records it takes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Takes the records, in order of bucket: as many as there are buckets for. What is left of
    /// `records` then is not looked at.
    ///
    /// # Panics
    ///
    /// If there are fewer. Then the set counts as not filled.
    #[inline]
    pub fn fill(self, records: impl Iterator<Item = (Prio, Gen)>) {
        wide(Fill(self, records));
    }
}

/// A part and its records.
struct Fill<'a, R>(SetGens<'a>, R);

impl<R: Iterator<Item = (Prio, Gen)>> Wide for Fill<'_, R> {
    #[inline(always)]
    fn work(self) {
        let Self(set, records) = self;
        set.0.fill(records.map(|(prio, gen_)| word(prio, gen_).bits()));
    }
}

impl fmt::Debug for SetGens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetGens").field("count", &self.count()).finish()
    }
}
