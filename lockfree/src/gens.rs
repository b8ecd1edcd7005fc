//! Prio and gen of every bucket of a device, as they are read from it.
//!
//! They are kept as the words that the allocator begins with, so that nothing is copied when it
//! starts: a device with many millions of buckets is open as soon as its prio sets are read. They
//! can be read in any order and by several threads ([`GensBuilder`]).
//!
//! A prio between 32768 and 65535 does not arise, and is taken for 32768.

use crate::wide::{BLOCK, Wide, unpacked, wide};
use crate::words::{Decode, Part, Room, Words};
use core::fmt;
use tierce_core::record::prio_set::{Record, of_record};
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

/// [`Gens`] that are read from records of prio sets, by several threads.
///
/// ```
/// use tierce_core::record::prio_set::record;
/// use tierce_core::{BucketIndex, Gen, Prio};
/// use tierce_lockfree::GensBuilder;
/// let records: Vec<_> = (0..3000).map(|n| record(Prio::FRESH, Gen::new(n as u8))).collect();
/// let mut builder = GensBuilder::new(3000);
/// std::thread::scope(|threads| {
///     let mut first = 0;
///     for mut page in builder.pages() {
///         let records = &records[first..][..page.left()];
///         first += page.left();
///         threads.spawn(move || page.fill(records));
///     }
/// });
/// let gens = builder.build();
/// assert_eq!(gens.get(BucketIndex::new(0)), Some((Prio::FRESH, Gen::new(0))));
/// assert_eq!(gens.get(BucketIndex::new(2999)), Some((Prio::FRESH, Gen::new(183))));
/// ```
pub struct GensBuilder(Room);

impl GensBuilder {
    /// For `nbuckets` buckets.
    #[must_use]
    pub fn new(nbuckets: u32) -> Self {
        Self(Room::new(nbuckets as usize))
    }

    /// The places of the records, in order of bucket, in pieces that lie in one huge page each:
    /// to be filled by one thread each. All of them have to be filled after each call.
    pub fn pages(&mut self) -> impl DoubleEndedIterator<Item = GensPage<'_>> {
        self.0.parts().map(GensPage)
    }

    /// All of them.
    ///
    /// # Panics
    ///
    /// If a page was not filled.
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

/// The place of some neighbouring records. [`GensBuilder`] has an example.
#[must_use = "every page has to be filled"]
pub struct GensPage<'a>(Part<'a>);

impl GensPage<'_> {
    /// How many records it lacks.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.left()
    }

    /// Has the system provide its memory, for who has nothing else to do: some 0.2 ms. Otherwise
    /// filling it does so.
    ///
    /// ```
    /// use tierce_core::{Gen, Prio};
    /// use tierce_lockfree::GensBuilder;
    /// let mut builder = GensBuilder::new(1 << 20);
    /// for mut page in builder.pages() {
    ///     page.provide();
    ///     let left = page.left();
    ///     assert_eq!(page.fill(&vec![[0, 128, 9]; 1 << 20]), left);
    /// }
    /// assert!(builder.build().iter().all(|record| record == (Prio::FRESH, Gen::new(9))));
    /// ```
    pub fn provide(&mut self) {
        self.0.provide();
    }

    /// Takes the next of its records: as many as there are `records`, or as it lacks. How many
    /// it took.
    pub fn fill(&mut self, records: &[Record]) -> usize {
        let mut taken = 0;
        wide(Fill { page: self, records, taken: &mut taken });
        taken
    }
}

impl fmt::Debug for GensPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GensPage").field("left", &self.left()).finish()
    }
}

struct Fill<'a, 'b> {
    page: &'a mut GensPage<'b>,
    records: &'a [Record],
    taken: &'a mut usize,
}

impl Wide for Fill<'_, '_> {
    #[inline(always)]
    fn work(self) {
        *self.taken = self.page.0.fill_from::<Decoded>(self.records);
    }
}

/// Words of what records say.
struct Decoded;

impl Decode for Decoded {
    type Record = Record;

    #[inline(always)]
    fn word(record: Record) -> u64 {
        let (prio, gen_) = of_record(record);
        word(prio, gen_).bits()
    }

    #[inline(always)]
    fn words(records: &[Record; BLOCK]) -> [u64; BLOCK] {
        let numbers = unpacked(records);
        let mut words = [0; BLOCK];
        for (word, number) in words.iter_mut().zip(numbers) {
            let [low, high, generation, _] = number.to_le_bytes();
            *word = Self::word([low, high, generation]);
        }
        words
    }
}
