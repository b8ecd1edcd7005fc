//! The prio sets of a device, followed from one to the next.
//!
//! # Protocol
//!
//! The newest journal entry names the first set; each set names its successor. A device has
//! exactly [`Geometry::prio_buckets`] of them, and the last one's `next_bucket` is whatever the
//! writer left there (usually the head of the chain before), so sets are counted, the chain has
//! no end mark.
//!
//! Sets are written last first and become the device's state together, by the journal entry
//! that names the head. Hence all sets of a chain have one seq; a mixed chain is damage. A
//! bucket number is checked *before* it is read, and a bucket that comes twice is refused: a
//! cyclic chain is an error, not a loop.

use super::{Check, PrioSet, SetMagic};
use crate::broken;
use crate::bucket::{BucketIndex, Gen, Prio};
use crate::error::{Error, Place, RecordKind};
use crate::geometry::Geometry;
use std::collections::HashSet;

/// Where a chain begins, and who says so.
///
/// [`Journal::prio_head`](super::Journal::prio_head) makes it; [`PrioChain`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChainHead {
    /// The bucket of the first set, not yet checked.
    pub bucket: u64,
    /// Where the journal entry lies that names it.
    pub named_at: Place,
}

/// One set of a chain; [`PrioChain`] has an example.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ChainSet<'a> {
    /// Where the set lies.
    pub bucket: BucketIndex,
    /// The first bucket of which it holds the record.
    pub first: BucketIndex,
    /// The set.
    pub set: PrioSet<'a>,
    /// How many buckets it holds records of.
    count: usize,
}

impl ChainSet<'_> {
    /// The records of the device's buckets in this set, those below first_bucket included.
    pub fn records(&self) -> impl Iterator<Item = (BucketIndex, Prio, Gen)> + use<'_> {
        (self.first.get()..)
            .zip(self.set.records().take(self.count))
            .map(|(number, (prio, generation))| (BucketIndex::new(number), prio, generation))
    }
}

/// A chain that was followed to its end.
///
/// ```
/// use tierce_core::{BucketIndex, Gen, Geometry, Prio};
/// use tierce_core::error::Place;
/// use tierce_core::record::{ChainHead, PrioChain, PrioSet, SetMagic};
/// let (geometry, set) = (Geometry::new(2000, 1, 8, 1)?, SetMagic(42));
/// let mut device = vec![vec![0; 4096]; 2000];
/// let record = (Prio::FRESH, Gen::new(3));
/// PrioSet::encode(&mut device[20], set, 1, 0, vec![record; 2000 - 1352]);
/// PrioSet::encode(&mut device[10], set, 1, 20, vec![record; 1352]);
///
/// let mut gens = vec![];
/// let chain = PrioChain::follow(
///     &geometry,
///     set,
///     ChainHead { bucket: 10, named_at: Place::device(8192) },
///     |bucket, out: &mut [u8]| {
///         out.copy_from_slice(&device[bucket.as_usize()]);
///         Ok::<(), tierce_core::Error>(())
///     },
///     |chain_set| gens.extend(chain_set.records().map(|(_, _, generation)| generation)),
/// )?;
/// assert_eq!(chain.buckets, [BucketIndex::new(10), BucketIndex::new(20)]);
/// assert_eq!(gens, [Gen::new(3); 2000]);
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PrioChain {
    /// The buckets of the sets, head first.
    pub buckets: Vec<BucketIndex>,
    /// The number of the prio write that wrote them.
    pub seq: u64,
}

impl PrioChain {
    /// Follows the chain that begins at `head`. `read` fills its buffer, of
    /// [`Geometry::meta_bytes`], with the start of a bucket; `visit` gets each set, in order,
    /// once it has passed every check. The sets visited before an error are sound, but they are
    /// not all.
    ///
    /// # Errors
    ///
    /// What `read` returns, and what [`ChainWalk`] does.
    pub fn follow<E: From<Error>>(
        geometry: &Geometry,
        set: SetMagic,
        head: ChainHead,
        mut read: impl FnMut(BucketIndex, &mut [u8]) -> Result<(), E>,
        mut visit: impl FnMut(&ChainSet<'_>),
    ) -> Result<Self, E> {
        let mut bytes = vec![0; geometry.meta_bytes() as usize];
        let mut walk = ChainWalk::new(geometry, set, head);
        while let Some(bucket) = walk.next_bucket()? {
            read(bucket, &mut bytes)?;
            visit(&walk.accept(bucket, &bytes)?);
        }
        Ok(walk.chain)
    }
}

/// A chain that is being followed, for who reads it in his own way.
///
/// ```
/// use tierce_core::{BucketIndex, Gen, Geometry, Prio};
/// use tierce_core::error::Place;
/// use tierce_core::record::{ChainHead, ChainWalk, PrioSet, SetMagic};
/// let (geometry, set) = (Geometry::new(1024, 1, 8, 1)?, SetMagic(42));
/// let mut bucket = vec![0; 4096];
/// PrioSet::encode(&mut bucket, set, 1, 0, vec![(Prio::FRESH, Gen::new(3)); 1024]);
///
/// let head = ChainHead { bucket: 10, named_at: Place::device(8192) };
/// let mut walk = ChainWalk::new(&geometry, set, head);
/// while let Some(number) = walk.next_bucket()? {
///     let set = walk.accept(number, &bucket)?;
///     assert_eq!(set.records().count(), 1024);
/// }
/// assert_eq!(walk.finish().buckets, [BucketIndex::new(10)]);
/// # Ok::<(), tierce_core::Error>(())
/// ```
///
/// # Errors
///
/// Both steps return [`Error::Record`], which names the bucket and field: for a bucket number
/// outside the device or met before, a wrong magic, checksum or version, or a seq other than the
/// head's.
#[derive(Clone, Debug)]
pub struct ChainWalk {
    geometry: Geometry,
    set: SetMagic,
    head: ChainHead,
    /// As far as it was followed.
    chain: PrioChain,
    /// What the last set, or the head, names.
    next: u64,
    seen: HashSet<u32>,
}

impl ChainWalk {
    /// At the beginning of the chain that begins at `head`.
    #[must_use]
    pub fn new(geometry: &Geometry, set: SetMagic, head: ChainHead) -> Self {
        let chain = PrioChain { buckets: Vec::new(), seq: 0 };
        let (next, seen) = (head.bucket, HashSet::new());
        Self { geometry: *geometry, set, head, chain, next, seen }
    }

    /// How many sets are still to come.
    #[must_use]
    pub const fn sets_left(&self) -> u32 {
        self.geometry.prio_buckets() - self.chain.buckets.len() as u32
    }

    /// The bucket of the next set, which may be read; `None` at the end of the chain.
    ///
    /// # Errors
    ///
    /// See [`ChainWalk`].
    pub fn next_bucket(&self) -> Result<Option<BucketIndex>, Error> {
        if self.sets_left() == 0 {
            return Ok(None);
        }
        self.check_next().map(Some)
    }

    /// Takes the set that was read from `bucket`, which [`next_bucket`](Self::next_bucket) named:
    /// its first [`Geometry::meta_bytes`].
    ///
    /// # Errors
    ///
    /// See [`ChainWalk`].
    ///
    /// # Panics
    ///
    /// If no set is to come any more.
    pub fn accept<'a>(
        &mut self,
        bucket: BucketIndex,
        bytes: &'a [u8],
    ) -> Result<ChainSet<'a>, Error> {
        assert_ne!(self.sets_left(), 0, "the chain is at its end");
        let place = Place::bucket(bucket, 0);
        let decoded = PrioSet::decode(bytes, self.set, place)?;
        let chain = &mut self.chain;
        let index = chain.buckets.len() as u32;
        if index == 0 {
            chain.seq = decoded.seq;
        }
        let check = Check::new(RecordKind::PrioSet, place);
        let wanted = format_args!("{}, as in the first set", chain.seq);
        check.that(decoded.seq == chain.seq, "seq", decoded.seq, wanted)?;
        chain.buckets.push(bucket);
        self.seen.insert(bucket.get());
        self.next = decoded.next_bucket;
        let first = index * self.geometry.prios_per_bucket();
        let count = (self.geometry.nbuckets() - first) as usize;
        Ok(ChainSet { bucket, first: BucketIndex::new(first), set: decoded, count })
    }

    /// The chain, as far as it was followed.
    #[must_use]
    pub fn finish(self) -> PrioChain {
        self.chain
    }

    /// What comes next as a bucket that may be read: in range, and not one of the chain so far.
    fn check_next(&self) -> Result<BucketIndex, Error> {
        let next = self.next;
        // An error is about the record that holds the number.
        let (check, field) = match self.chain.buckets.last() {
            None => (Check::new(RecordKind::Jset, self.head.named_at), "prio_bucket"),
            Some(&last) => (Check::new(RecordKind::PrioSet, Place::bucket(last, 0)), "next_bucket"),
        };
        let bucket = u32::try_from(next).map(BucketIndex::new).ok();
        let in_range = |bucket: &BucketIndex| {
            self.geometry.contains(*bucket) || broken!("chain_unchecked_bucket")
        };
        let Some(bucket) = bucket.filter(in_range) else {
            let (first, end) = (self.geometry.first_bucket(), self.geometry.nbuckets());
            return Err(check.error(field, next, format_args!("{first} to {}", end - 1)));
        };
        let wanted = "a bucket that is not in the chain already";
        check.that(!self.seen.contains(&bucket.get()), field, next, wanted)?;
        Ok(bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SET: SetMagic = SetMagic(7);
    const HEAD: ChainHead = ChainHead { bucket: 10, named_at: Place::device(512) };

    /// The seq and the successor of a set.
    type Set = (u64, u64);

    /// 4096 buckets of 4 KiB: 4 sets.
    fn geometry() -> Geometry {
        Geometry::new(4096, 2, 8, 1).unwrap()
    }

    /// Buckets 10, 11, … whose sets have these seqs and successors.
    fn follow(sets: &[Set]) -> (Result<PrioChain, Error>, Vec<u32>) {
        let mut read = Vec::new();
        let chain = PrioChain::follow(
            &geometry(),
            SET,
            HEAD,
            |bucket, out| {
                read.push(bucket.get());
                out.fill(0);
                if let Some(&(seq, next)) = sets.get(bucket.as_usize().wrapping_sub(10)) {
                    PrioSet::encode(out, SET, seq, next, []);
                }
                Ok::<(), Error>(())
            },
            |_| (),
        );
        (chain, read)
    }

    fn unreadable(bucket: BucketIndex, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::limit("bucket", bucket.get(), "one that can be read".into()))
    }

    #[test]
    fn counts_sets_and_ignores_the_last_successor() {
        for last in [0, 1, 10, 99, u64::MAX] {
            let (chain, _) = follow(&[(5, 11), (5, 12), (5, 13), (5, last)]);
            assert_eq!(chain.unwrap().buckets, [10, 11, 12, 13].map(BucketIndex::new));
        }
    }

    #[test]
    fn damaged_chains_are_errors_that_say_where() {
        let cases: [(&[Set], &str, usize); 6] = [
            (&[(5, 11), (5, 10)], "bucket 11 byte 0: next_bucket is 10, wanted a bucket that", 2),
            (&[(5, 10)], "bucket 10 byte 0: next_bucket is 10, wanted a bucket that is not", 1),
            (&[(5, 1)], "bucket 10 byte 0: next_bucket is 1, wanted 2 to 4095", 1),
            (&[(5, 4096)], "bucket 10 byte 0: next_bucket is 4096, wanted 2 to 4095", 1),
            (&[(5, 1 << 32 | 11)], "next_bucket is 4294967307, wanted 2 to 4095", 1),
            (&[(5, 11), (4, 12)], "bucket 11 byte 0: seq is 4, wanted 5, as in the first set", 2),
        ];
        for (sets, message, reads) in cases {
            let (chain, read) = follow(sets);
            let error = chain.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            assert_eq!(read.len(), reads, "nothing is read through a number not checked");
        }
        let (chain, _) = follow(&[(5, 11)]);
        let error = chain.unwrap_err().to_string();
        assert!(error.starts_with("prio set at bucket 11 byte 0: magic is 0x0000"), "{error}");
    }

    #[test]
    fn a_head_outside_the_device_names_the_journal_entry() {
        let head = ChainHead { bucket: 0, ..HEAD };
        // The reader's error would be another one.
        let read = unreadable;
        let error = PrioChain::follow(&geometry(), SET, head, read, |_| ()).unwrap_err();
        let wanted = "journal entry at byte 512: prio_bucket is 0, wanted 2 to 4095";
        assert_eq!(error.to_string(), wanted);
    }

    /// The record of every bucket comes once, in order, and none of what lies behind the last.
    #[test]
    fn sets_give_the_table_that_was_written() {
        let geometry = geometry();
        let per_set = geometry.prios_per_bucket() as usize;
        let record = |b: u32| (Prio::new(b as u16 ^ 0x5555), Gen::new((b / 7) as u8));
        let table: Vec<_> = (0..geometry.nbuckets()).map(record).collect();
        let mut got = Vec::new();
        PrioChain::follow(
            &geometry,
            SET,
            HEAD,
            |bucket, out| {
                let part = table.chunks(per_set).nth(bucket.as_usize() - 10).unwrap_or_default();
                // What is left over behind the last record belongs to nobody.
                let left_over = core::iter::repeat((Prio::METADATA, Gen::new(99)));
                let next = u64::from(bucket.get()) + 1;
                PrioSet::encode(out, SET, 5, next, part.iter().copied().chain(left_over));
                Ok::<(), Error>(())
            },
            |set| got.extend(set.records()),
        )
        .unwrap();
        let numbers = (0..).map(BucketIndex::new);
        let wanted: Vec<_> =
            numbers.zip(&table).map(|(b, &(prio, gen_))| (b, prio, gen_)).collect();
        assert_eq!(got, wanted);
    }

    #[test]
    fn an_error_of_the_reader_is_passed_on() {
        let error = PrioChain::follow(&geometry(), SET, HEAD, unreadable, |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "bucket is 10, wanted one that can be read");
    }

    proptest! {
        /// Whatever the successors are: an end after at most 4 reads, and a chain only of
        /// distinct buckets of the device.
        #[test]
        fn always_ends(sets in prop::collection::vec((0u64..2, 0u64..20), 0..8)) {
            let (chain, read) = follow(&sets);
            prop_assert!(read.len() <= 4);
            if let Ok(chain) = chain {
                let distinct: HashSet<_> = chain.buckets.iter().collect();
                prop_assert_eq!(distinct.len(), 4);
            }
        }
    }
}
