//! A journal entry: where everything else on the device is.
//!
//! # Layout
//!
//! ```text
//!       0       1       2       3       4       5       6       7
//!    ┌───────────────────────────────────────────────────────────────┐
//!   0│ csum, over bytes 8 to 240 + 8·keys                            │
//!   8│ magic: set magic ^ 0x245235C1A3625032                         │
//!  16│ seq: + 1 each, the first is 1                                 │
//!  24│ version: 1                    │ keys: words behind the header │
//!  32│ last_seq: the oldest entry still needed                       │
//!  40│ uuid_bucket: a key, filled up to 64 bytes                     │
//! 104│ btree_root: a key, filled up to 64 bytes                      │
//! 168│ btree_level   │ padding                                       │
//! 176│ prio_bucket: of each of 8 devices, the bucket of its first    │
//!    │ prio set                                                      │
//! 240│ keys, 8 bytes per word                                        │
//!    └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! An entry starts at a block boundary, is at most [`MAX_BYTES`] long, never crosses the end of
//! its journal bucket, and occupies whole blocks.

use super::key::{Key, Keys};
use super::{Check, SetMagic, crc};
use crate::broken;
use crate::bucket::DeviceIndex;
use crate::error::{Error, Place, RecordKind};
use core::mem::{offset_of, size_of};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an entry, at most.
pub const MAX_BYTES: usize = 32 << 10;
/// Bytes of an entry without keys.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// Words of keys in an entry, at most.
pub const MAX_KEY_WORDS: usize = (MAX_BYTES - HEADER_BYTES) / 8;
const VERSION: u32 = 1;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    csum: U64,
    magic: U64,
    seq: U64,
    version: U32,
    keys: U32,
    last_seq: U64,
    uuid_bucket: [U64; 8],
    btree_root: [U64; 8],
    btree_level: U16,
    padding: [u8; 6],
    prio_bucket: [U64; 8],
}

const _: () = assert!(offset_of!(Header, last_seq) == 32);
const _: () = assert!(offset_of!(Header, uuid_bucket) == 40);
const _: () = assert!(offset_of!(Header, btree_level) == 168);
const _: () = assert!(offset_of!(Header, prio_bucket) == 176);
const _: () = assert!(size_of::<Header>() == 240);

/// A key as a journal entry's header holds it: its words, filled up to eight.
///
/// ```
/// use tierce_core::record::PaddedKey;
/// # use tierce_core::{error::Place, record::{Key, Pointer}};
/// assert!(PaddedKey::default().is_zero());
/// let key = Key::new(0, 1, 128, &[Pointer::from_bits(7)]);
/// let padded = PaddedKey::new(&key).expect("one pointer fits");
/// assert_eq!(padded.key(Place::device(0))?, Some(key));
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PaddedKey {
    /// The words: high, low, pointers.
    pub words: [u64; 8],
}

impl PaddedKey {
    /// Whether it names nothing, as before the first use.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        let [a, b, c, d, e, f, g, h] = self.words;
        a | b | c | d | e | f | g | h == 0
    }

    /// `key` filled up with zeros, `None` if it has more pointers than there is room for: six.
    #[must_use]
    pub fn new(key: &Key) -> Option<Self> {
        let mut padded = Self::default();
        let room = padded.words.get_mut(..key.word_count())?;
        for (place, word) in room.iter_mut().zip(key.words()) {
            *place = word;
        }
        Some(padded)
    }

    /// The key, `None` if it [is zero](Self::is_zero); `place` is where it lies.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] if it has more pointers than eight words have room for.
    pub fn key(&self, place: Place) -> Result<Option<Key>, Error> {
        if self.is_zero() { Ok(None) } else { Key::decode(&self.words, place).map(Some) }
    }

    fn to_disk(self) -> [U64; 8] {
        self.words.map(U64::new)
    }

    fn from_disk(words: [U64; 8]) -> Self {
        Self { words: words.map(U64::get) }
    }
}

/// A decoded journal entry.
///
/// ```
/// use tierce_core::error::Place;
/// use tierce_core::record::{Jset, SetMagic};
/// let (set, place) = (SetMagic(42), Place::device(0));
/// let entry = Jset { seq: 7, last_seq: 7, keys: vec![1, 2, 3], ..Jset::default() };
/// let mut buffer = [0xff; 4096];
/// let used = entry.encode(set, 512, &mut buffer)?;
/// assert_eq!(used, 512, "whole blocks");
/// assert_eq!(Jset::decode(&buffer, set, place)?, entry);
///
/// buffer[20] ^= 1;
/// let torn = Jset::decode(&buffer, set, place).unwrap_err();
/// assert!(torn.to_string().starts_with("journal entry at byte 0: csum is 0x"), "{torn}");
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Jset {
    /// Its number: + 1 each, the first is 1.
    pub seq: u64,
    /// The number of the oldest entry still needed, at most `seq`.
    pub last_seq: u64,
    /// The pointer to the uuid bucket.
    pub uuid_bucket: PaddedKey,
    /// The pointer to the root of the index.
    pub btree_root: PaddedKey,
    /// The level of the root; leaves have level 0.
    pub btree_level: u16,
    /// By device of the set, the bucket of its first prio set.
    pub prio_bucket: [u64; 8],
    /// The words of the keys that this entry adds to the index.
    pub keys: Vec<u64>,
}

impl Jset {
    /// Bytes that the checksum covers, header and keys.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        HEADER_BYTES + 8 * self.keys.len()
    }

    /// Bytes that the entry occupies: whole blocks of `block_bytes`, a power of two.
    #[must_use]
    pub const fn bytes_on_device(&self, block_bytes: u32) -> usize {
        self.bytes().next_multiple_of(block_bytes as usize)
    }

    /// The bucket of the first prio set of `device`; not yet checked to be one of its buckets.
    #[must_use]
    pub const fn prio_head(&self, device: DeviceIndex) -> u64 {
        self.prio_bucket[device.as_usize()]
    }

    /// The keys that this entry adds to the index; `place` is where it lies. Ends after the
    /// first error, which is an [`Error::Record`].
    pub fn decoded_keys(&self, place: Place) -> impl Iterator<Item = Result<Key, Error>> + use<'_> {
        Keys::new(self.keys.iter().copied(), place.plus(HEADER_BYTES as u64))
    }

    /// Writes the entry to the start of `out`, filled up with zeros to whole blocks of
    /// `block_bytes`, and returns how many bytes that are. What follows in `out` stays.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if the entry is longer than [`MAX_BYTES`] or than `out`.
    pub fn encode(&self, set: SetMagic, block_bytes: u32, out: &mut [u8]) -> Result<usize, Error> {
        if self.keys.len() > MAX_KEY_WORDS {
            let wanted = format!("at most {MAX_KEY_WORDS}");
            return Err(Error::limit("words of keys", self.keys.len() as u64, wanted));
        }
        let (room, used) = (out.len(), self.bytes_on_device(block_bytes));
        let Some(out) = out.get_mut(..used) else {
            let wanted = format!("at least the entry's {used}");
            return Err(Error::limit("bytes of the journal buffer", room as u64, wanted));
        };
        let (record, filling) = out.split_at_mut(self.bytes());
        let (head, keys) = record.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(self.header(set).as_bytes());
        for (room, word) in keys.chunks_exact_mut(8).zip(&self.keys) {
            room.copy_from_slice(&word.to_le_bytes());
        }
        filling.fill(0);
        let csum = crc::checksum(&record[8..]);
        record[..8].copy_from_slice(&csum.to_le_bytes());
        Ok(used)
    }

    fn header(&self, set: SetMagic) -> Header {
        Header {
            csum: U64::ZERO,
            magic: set.jset().into(),
            seq: self.seq.into(),
            version: VERSION.into(),
            keys: (self.keys.len() as u32).into(),
            last_seq: self.last_seq.into(),
            uuid_bucket: self.uuid_bucket.to_disk(),
            btree_root: self.btree_root.to_disk(),
            btree_level: self.btree_level.into(),
            padding: [0; 6],
            prio_bucket: self.prio_bucket.map(U64::new),
        }
    }

    /// The entry at the start of `bytes`, which reach at most to the end of its journal bucket;
    /// `place` is where they lie.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] if there is no entry (wrong magic, too long, wrong checksum: expected
    /// at the end of what was written), or if there is one that breaks a rule;
    /// [`is_no_entry`](Self::is_no_entry) tells them apart.
    pub fn decode(bytes: &[u8], set: SetMagic, place: Place) -> Result<Self, Error> {
        let check = Check::new(RecordKind::Jset, place);
        let Ok((header, rest)) = Header::ref_from_prefix(bytes) else {
            return Err(check.error("length", bytes.len(), HEADER_BYTES));
        };
        check.same_bits("magic", header.magic.get(), set.jset())?;
        let keys = header.keys.get() as usize;
        check.that(keys <= MAX_KEY_WORDS, "keys", keys, format_args!("at most {MAX_KEY_WORDS}"))?;
        if broken!("jset_unchecked_keys") {
            let _ = &rest[..8 * keys];
        }
        let Some(words) = rest.get(..8 * keys) else {
            let wanted = format_args!("at most the {} that fit the bucket", rest.len() / 8);
            return Err(check.error("keys", keys, wanted));
        };
        let covered = &bytes[8..HEADER_BYTES + 8 * keys];
        check.same_bits("csum", header.csum.get(), crc::checksum(covered))?;
        check.that(header.version.get() == VERSION, "version", header.version, VERSION)?;
        let (seq, last_seq) = (header.seq.get(), header.last_seq.get());
        check.that(seq > 0, "seq", seq, "at least 1")?;
        let wanted = format_args!("at most seq, {seq}");
        check.that(last_seq <= seq, "last_seq", last_seq, wanted)?;
        Ok(Self {
            seq,
            last_seq,
            uuid_bucket: PaddedKey::from_disk(header.uuid_bucket),
            btree_root: PaddedKey::from_disk(header.btree_root),
            btree_level: header.btree_level.get(),
            prio_bucket: header.prio_bucket.map(U64::get),
            keys: words.chunks_exact(8).map(le_word).collect(),
        })
    }

    /// Whether an error of [`decode`](Self::decode) says that no entry begins there, so that
    /// what was written ends before, rather than that a whole entry breaks a rule.
    #[must_use]
    pub fn is_no_entry(error: &Error) -> bool {
        matches!(error, Error::Record { field: "length" | "magic" | "keys" | "csum", .. })
    }
}

/// The little-endian word in 8 bytes.
fn le_word(bytes: &[u8]) -> u64 {
    U64::read_from_bytes(bytes).map_or(0, U64::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SET: SetMagic = SetMagic(0x1234_5678_9abc_def0);
    const HERE: Place = Place::device(0);

    fn entries() -> impl Strategy<Value = Jset> {
        let keys = proptest::collection::vec(any::<u64>(), 0..100);
        (1u64.., any::<u64>(), any::<[u64; 8]>(), any::<[u64; 8]>(), keys).prop_map(
            |(seq, last_seq, words, prio_bucket, keys)| Jset {
                seq,
                last_seq: last_seq % (seq.saturating_add(1)),
                uuid_bucket: PaddedKey { words },
                btree_root: PaddedKey { words: words.map(|w| !w) },
                btree_level: words[0] as u16,
                prio_bucket,
                keys,
            },
        )
    }

    /// Eight words hold a key of up to six pointers, and nothing is cut off a longer one.
    #[test]
    fn padded_keys_have_room_for_six_pointers() {
        for count in 0..=crate::record::key::MAX_POINTERS {
            let pointers = vec![crate::record::Pointer::from_bits(7); count];
            let key = Key::new(1, 8, 8, &pointers);
            let padded = PaddedKey::new(&key);
            assert_eq!(padded.is_some(), count <= 6);
            if let Some(padded) = padded {
                assert_eq!(padded.key(Place::device(0)), Ok(Some(key)));
            }
        }
    }

    proptest! {
        #[test]
        fn round_trip(entry in entries(), block in 0u32..4) {
            let block_bytes = 512 << block;
            let mut buffer = vec![0xee; MAX_BYTES];
            let used = entry.encode(SET, block_bytes, &mut buffer).unwrap();
            prop_assert_eq!(used, entry.bytes_on_device(block_bytes));
            prop_assert!(buffer[entry.bytes()..used].iter().all(|&byte| byte == 0));
            prop_assert!(buffer[used..].iter().all(|&byte| byte == 0xee));
            prop_assert_eq!(Jset::decode(&buffer, SET, HERE), Ok(entry));
        }

        /// Any flipped bit under the checksum is found.
        #[test]
        fn damage_is_found(entry in entries(), at: prop::sample::Index, bit in 0u8..8) {
            let mut buffer = vec![0; MAX_BYTES];
            entry.encode(SET, 512, &mut buffer).unwrap();
            buffer[at.index(entry.bytes())] ^= 1 << bit;
            let error = Jset::decode(&buffer, SET, HERE).unwrap_err();
            prop_assert!(Jset::is_no_entry(&error), "{}", error);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Jset::decode(&bytes, SET, HERE);
        }
    }

    /// A sound checksum over fields that break a rule is refused, not skipped.
    #[test]
    fn rules_hold_behind_the_checksum() {
        let sealed = |at: usize, value: u8| {
            let entry = Jset { seq: 5, last_seq: 5, ..Jset::default() };
            let mut buffer = [0; 512];
            entry.encode(SET, 512, &mut buffer).unwrap();
            buffer[at] = value;
            let csum = crc::checksum(&buffer[8..HEADER_BYTES]);
            buffer[..8].copy_from_slice(&csum.to_le_bytes());
            Jset::decode(&buffer, SET, HERE).unwrap_err()
        };
        for (at, value, message) in [
            (24, 2, "version is 2, wanted 1"),
            (16, 0, "seq is 0, wanted at least 1"),
            (32, 6, "last_seq is 6, wanted at most seq, 5"),
        ] {
            let error = sealed(at, value);
            assert!(error.to_string().ends_with(message), "{error}");
            assert!(!Jset::is_no_entry(&error));
        }
    }

    #[test]
    fn too_long_is_refused_both_ways() {
        let mut entry = Jset { seq: 1, keys: vec![0; MAX_KEY_WORDS + 1], ..Jset::default() };
        let mut buffer = vec![0; MAX_BYTES + 4096];
        assert!(entry.encode(SET, 512, &mut buffer).is_err());
        entry.keys.pop();
        assert_eq!(entry.encode(SET, 512, &mut buffer), Ok(MAX_BYTES));
        assert!(entry.encode(SET, 512, &mut buffer[..MAX_BYTES - 1]).is_err());
        let cut = Jset::decode(&buffer[..MAX_BYTES - 8], SET, HERE).unwrap_err();
        assert!(cut.to_string().contains("keys is 4066, wanted at most the 4065"), "{cut}");
        buffer[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
        let long = Jset::decode(&buffer, SET, HERE).unwrap_err();
        assert!(long.to_string().contains("keys is 4294967295, wanted at most 4066"), "{long}");
    }
}
