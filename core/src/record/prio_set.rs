//! A prio set: the gens and prios of a range of buckets.
//!
//! # Layout
//!
//! ```text
//!       0       1       2       3       4       5       6       7
//!    ┌───────────────────────────────────────────────────────────────┐
//!   0│ csum, over bytes 8 to the end of the set                      │
//!   8│ magic: set magic ^ 0x6750E15F87337F91                         │
//!  16│ seq: + 1 per prio write, the same in all sets of one write    │
//!  24│ version: 0                    │ padding                       │
//!  32│ next_bucket: the bucket of the next set                       │
//!  40│ prio          │ gen   │ prio          │ gen   │ …             │
//!    └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! A set takes a whole metadata bucket ([`Geometry::meta_bytes`](crate::Geometry::meta_bytes)),
//! also what is left over behind its last record: we fill that with zeros, others may not.
//! Set i of a device holds the buckets from i·prios_per_bucket on, beginning with bucket 0;
//! records of buckets below first_bucket are zero. prios_per_bucket is (bytes of the set − 40) / 3,
//! rounded down: 1352 in 4 KiB, 2717 in 8 KiB, 21832 in 64 KiB, 174749 in 512 KiB.
//!
//! Sets are written last first, so that each can name its successor, without a flush in between;
//! the journal entry that names the first makes them the device's state, and the flush before it
//! makes them durable. The prio that a set shows for the buckets of its own chain may be 32768,
//! from before they were allocated.

use super::{Check, SetMagic, crc};
use crate::bucket::{Gen, Prio};
use crate::error::{Error, Place, RecordKind};
use crate::word::Snapshot;
use core::mem::{offset_of, size_of};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// Bytes of a record.
pub const RECORD_BYTES: usize = size_of::<Entry>();
const VERSION: u32 = 0;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    csum: U64,
    magic: U64,
    seq: U64,
    version: U32,
    padding: U32,
    next_bucket: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Entry {
    prio: U16,
    generation: u8,
}

const _: () = assert!(offset_of!(Header, next_bucket) == 32);
const _: () = assert!(size_of::<Header>() == 40);
const _: () = assert!(offset_of!(Entry, generation) == 2);
const _: () = assert!(size_of::<Entry>() == 3);

/// A record as it lies on the device: prio, low byte first, and gen.
pub type Record = [u8; RECORD_BYTES];

/// The records of neighbouring buckets, which write themselves: one after the other, as those
/// that an iterator gives, or many at a time ([`records_of_eight`]).
///
/// ```
/// use tierce_core::{Gen, Prio, record::prio_set::PrioRecords};
/// let records = [(Prio::new(0x201), Gen::new(3)); 2].into_iter();
/// let mut places = vec![[0; 3]; records.places()];
/// records.write(&mut places);
/// assert_eq!(places, [[1, 2, 3], [1, 2, 3]]);
/// ```
pub trait PrioRecords {
    /// How many there are.
    fn places(&self) -> usize;

    /// Writes each to its place, of which there are as many.
    fn write(self, places: &mut [Record]);
}

impl<I: ExactSizeIterator<Item = (Prio, Gen)>> PrioRecords for I {
    fn places(&self) -> usize {
        self.len()
    }

    fn write(self, places: &mut [Record]) {
        for (place, (prio, generation)) in places.iter_mut().zip(self) {
            *place = record(prio, generation);
        }
    }
}

/// A record as it lies on the device.
///
/// ```
/// use tierce_core::{Gen, Prio, record::prio_set::record};
/// assert_eq!(record(Prio::new(0x201), Gen::new(3)), [1, 2, 3]);
/// ```
#[inline]
#[must_use]
pub const fn record(prio: Prio, generation: Gen) -> Record {
    let [low, high] = prio.get().to_le_bytes();
    [low, high, generation.get()]
}

/// The records of eight neighbouring words that have prios, given the low halves of these words:
/// without a branch, and in three stores.
///
/// ```
/// use tierce_core::{Gen, Prio, Snapshot, record::prio_set::{record, records_of_eight}};
/// let (prio, generation) = (Prio::new(0x201), Gen::new(3));
/// let word = Snapshot::default().with_gen(generation).with_prio(prio);
/// let records = records_of_eight(&[word.bits() as u32; 8]);
/// assert!(records.chunks(3).all(|bytes| bytes == record(prio, generation)));
/// ```
#[inline(always)]
#[must_use]
pub fn records_of_eight(low_halves: &[u32; 8]) -> [u8; 8 * RECORD_BYTES] {
    const _: () = assert!(Snapshot::from_bits(0).with_prio(Prio::new(1)).bits() == 1 << 16);
    const _: () = assert!(Snapshot::from_bits(0).with_gen(Gen::new(1)).bits() == 1);
    let record = |at: usize| u64::from(low_halves[at].rotate_left(16) & 0xff_ffff);
    let first = record(0) | record(1) << 24 | record(2) << 48;
    let second = record(2) >> 16 | record(3) << 8 | record(4) << 32 | record(5) << 56;
    let third = record(5) >> 8 | record(6) << 16 | record(7) << 40;
    let mut records = [0; 8 * RECORD_BYTES];
    let (thirds, _) = records.as_chunks_mut();
    for (place, eight) in thirds.iter_mut().zip([first, second, third]) {
        *place = eight.to_le_bytes();
    }
    records
}

/// A decoded prio set: its header, and its records where they lie.
///
/// ```
/// use tierce_core::{Gen, Prio, error::Place};
/// use tierce_core::record::{PrioSet, SetMagic};
/// let set = SetMagic(42);
/// let mut bucket = vec![0xff; 4096];
/// let table = [(Prio::FRESH, Gen::new(1)), (Prio::new(7), Gen::new(2))];
/// let left = PrioSet::encode(&mut bucket, set, 5, 99, table);
/// assert_eq!(left, 1350, "records that were not given are zero");
///
/// let decoded = PrioSet::decode(&bucket, set, Place::device(0))?;
/// assert_eq!((decoded.seq, decoded.next_bucket), (5, 99));
/// assert!(decoded.records().take(2).eq(table));
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PrioSet<'a> {
    /// The number of the prio write.
    pub seq: u64,
    /// The bucket of the next set; in the last set, of whatever the writer left there.
    pub next_bucket: u64,
    /// The checksum, which is that of the bytes.
    pub csum: u64,
    records: &'a [u8],
}

impl<'a> PrioSet<'a> {
    /// Writes a set that fills all of `out`, which is at least [`HEADER_BYTES`] long: `records`
    /// as far as they go and fit, then zeros. Returns how many more records would have fitted.
    /// No more records are taken from the iterator than fit, so that sets can be encoded one
    /// after the other from one iterator.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than the header.
    pub fn encode(
        out: &mut [u8],
        set: SetMagic,
        seq: u64,
        next_bucket: u64,
        records: impl IntoIterator<Item = (Prio, Gen)>,
    ) -> usize {
        let body = Self::put_header(out, set, seq, next_bucket);
        let (mut records, mut written) = (records.into_iter(), 0);
        let room = body.len() / RECORD_BYTES;
        for place in body.chunks_exact_mut(RECORD_BYTES) {
            let Some((prio, generation)) = records.next() else { break };
            place.copy_from_slice(&record(prio, generation));
            written += 1;
        }
        body[written * RECORD_BYTES..].fill(0);
        Self::put_checksum(out);
        room - written
    }

    /// As [`encode`](Self::encode), of records that all fit, and that write themselves.
    ///
    /// ```
    /// use tierce_core::{Gen, Prio};
    /// use tierce_core::record::{PrioSet, SetMagic};
    /// let table = [(Prio::FRESH, Gen::new(1)), (Prio::new(7), Gen::new(2))];
    /// let mut sets = [vec![0xff; 4096], vec![0xee; 4096]];
    /// PrioSet::encode(&mut sets[0], SetMagic(42), 5, 99, table);
    /// PrioSet::encode_all(&mut sets[1], SetMagic(42), 5, 99, table.into_iter());
    /// assert_eq!(sets[0], sets[1]);
    /// ```
    ///
    /// # Panics
    ///
    /// If they do not fit, or if `out` is shorter than the header.
    pub fn encode_all(
        out: &mut [u8],
        set: SetMagic,
        seq: u64,
        next_bucket: u64,
        records: impl PrioRecords,
    ) {
        let body = Self::put_header(out, set, seq, next_bucket);
        let bytes = records.places() * RECORD_BYTES;
        let room = body.len();
        assert!(bytes <= room, "records of {bytes} bytes in {room}");
        let (used, rest) = body.split_at_mut(bytes);
        rest.fill(0);
        let (places, _) = used.as_chunks_mut();
        records.write(places);
        Self::put_checksum(out);
    }

    /// Writes the header but for its checksum, and gives what is behind it.
    fn put_header(out: &mut [u8], set: SetMagic, seq: u64, next_bucket: u64) -> &mut [u8] {
        let (head, body) = out.split_at_mut(HEADER_BYTES);
        let header = Header {
            csum: U64::ZERO,
            magic: set.prio_set().into(),
            seq: seq.into(),
            version: VERSION.into(),
            padding: U32::ZERO,
            next_bucket: next_bucket.into(),
        };
        head.copy_from_slice(header.as_bytes());
        body
    }

    fn put_checksum(out: &mut [u8]) {
        let csum = crc::checksum(&out[8..]);
        out[..8].copy_from_slice(&csum.to_le_bytes());
    }

    /// The set that fills all of `bytes`; `place` is where it lies.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] for a wrong magic, checksum or version, or if `bytes` is too short for
    /// a header.
    pub fn decode(bytes: &'a [u8], set: SetMagic, place: Place) -> Result<Self, Error> {
        let check = Check::new(RecordKind::PrioSet, place);
        let Ok((header, records)) = Header::ref_from_prefix(bytes) else {
            return Err(check.error("length", bytes.len(), HEADER_BYTES));
        };
        check.same_bits("magic", header.magic.get(), set.prio_set())?;
        check.same_bits("csum", header.csum.get(), crc::checksum(&bytes[8..]))?;
        check.that(header.version.get() == VERSION, "version", header.version, VERSION)?;
        Ok(Self {
            seq: header.seq.get(),
            next_bucket: header.next_bucket.get(),
            csum: header.csum.get(),
            records,
        })
    }

    /// All records for which the set has room, in order of bucket.
    pub fn records(&self) -> impl ExactSizeIterator<Item = (Prio, Gen)> + use<'a> {
        records_of(self.records.as_chunks().0)
    }

    /// The records of a set that was [decoded](Self::decode) before, as they lie in all its
    /// bytes, which are not looked at. [`records_of`] tells what they say.
    ///
    /// ```
    /// use tierce_core::{Gen, Prio, record::{PrioSet, SetMagic}};
    /// let mut bytes = vec![0; 4096];
    /// PrioSet::encode(&mut bytes, SetMagic(42), 5, 99, [(Prio::FRESH, Gen::new(1))]);
    /// assert_eq!(PrioSet::records_in(&bytes).len(), 1352);
    /// assert_eq!(PrioSet::records_in(&bytes)[0], [0, 128, 1]);
    /// ```
    #[must_use]
    pub fn records_in(bytes: &[u8]) -> &[Record] {
        bytes.get(HEADER_BYTES..).unwrap_or_default().as_chunks().0
    }
}

/// What these records say.
///
/// ```
/// use tierce_core::{Gen, Prio, record::prio_set::{record, records_of}};
/// let (prio, generation) = (Prio::FRESH, Gen::new(3));
/// assert!(records_of(&[record(prio, generation)]).eq([(prio, generation)]));
/// ```
#[inline]
pub fn records_of(records: &[Record]) -> impl ExactSizeIterator<Item = (Prio, Gen)> + use<'_> {
    records.iter().copied().map(of_record)
}

/// What a record says.
///
/// ```
/// use tierce_core::{Gen, Prio, record::prio_set::{of_record, record}};
/// assert_eq!(of_record(record(Prio::FRESH, Gen::new(3))), (Prio::FRESH, Gen::new(3)));
/// ```
#[inline]
#[must_use]
pub const fn of_record([low, high, generation]: Record) -> (Prio, Gen) {
    (Prio::new(u16::from_le_bytes([low, high])), Gen::new(generation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SET: SetMagic = SetMagic(7);
    const HERE: Place = Place::device(0);

    proptest! {
        #[test]
        fn round_trip(
            records: Vec<(u16, u8)>,
            seq: u64,
            next: u64,
            size in HEADER_BYTES..2000,
        ) {
            let records: Vec<_> =
                records.iter().map(|&(p, g)| (Prio::new(p), Gen::new(g))).collect();
            let mut out = vec![0xee; size];
            let room = (size - HEADER_BYTES) / RECORD_BYTES;
            let left = PrioSet::encode(&mut out, SET, seq, next, records.iter().copied());
            prop_assert_eq!(left, room.saturating_sub(records.len()));
            let mut rest = records.iter().copied();
            PrioSet::encode(&mut out.clone(), SET, seq, next, rest.by_ref());
            prop_assert_eq!(rest.len(), records.len().saturating_sub(room), "none lost");
            let set = PrioSet::decode(&out, SET, HERE).unwrap();
            prop_assert_eq!((set.seq, set.next_bucket), (seq, next));
            prop_assert_eq!(set.records().len(), room);
            let zero = (Prio::new(0), Gen::new(0));
            let filled = records.into_iter().chain(std::iter::repeat(zero)).take(room);
            prop_assert!(set.records().eq(filled));
            let tail = &out[HEADER_BYTES + RECORD_BYTES * room..];
            prop_assert!(tail.iter().all(|&byte| byte == 0));
        }

        #[test]
        fn damage_is_found(size in HEADER_BYTES..2000, at: prop::sample::Index, bit in 0u8..8) {
            let mut out = vec![0xee; size];
            PrioSet::encode(&mut out, SET, 1, 2, []);
            out[at.index(size)] ^= 1 << bit;
            prop_assert!(PrioSet::decode(&out, SET, HERE).is_err());
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = PrioSet::decode(&bytes, SET, HERE);
        }
    }

    proptest! {
        #[test]
        fn eight_words_are_eight_records(words: [u64; 8]) {
            let packed = records_of_eight(&words.map(|word| word as u32));
            let words = words.map(Snapshot::from_bits);
            let each = words.map(|word| record(word.prio(), word.gen_()));
            prop_assert_eq!(packed.as_slice(), each.as_flattened());
            let decoded = words.map(|word| (word.prio(), word.gen_()));
            prop_assert!(records_of(&each).eq(decoded));
        }
    }

    #[test]
    fn version_is_checked_behind_the_checksum() {
        let mut out = [0; 64];
        PrioSet::encode(&mut out, SET, 1, 2, []);
        out[24] = 1;
        let csum = crc::checksum(&out[8..]);
        out[..8].copy_from_slice(&csum.to_le_bytes());
        let error = PrioSet::decode(&out, SET, HERE).unwrap_err();
        assert_eq!(error.to_string(), "prio set at byte 0: version is 1, wanted 0");
    }
}
