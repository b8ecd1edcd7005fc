//! What a bucket of the cache looks like on its device.
//!
//! ```text
//! 0            first_record                        footer      dead            bucket_bytes
//! ├──────────┬──────────────────────────┬─ ─ ─┬─────────┬────────┬──────────────┤
//! │  header  │ records, one behind      │     │ summary │ footer │ dead records │
//! │  1 block │ the other                │     │         │ 1 block│  sectors     │
//! └──────────┴──────────────────────────┴─ ─ ─┴─────────┴────────┴──────────────┘
//! ```
//!
//! * **header**: whose bucket this is and in which life: written first in a life.
//! * **records**: values, tombstones (a key was removed) and parts (of a value that is spread over
//!   several buckets). A record begins at a multiple of [`GRAIN`] bytes; a write that ends early is
//!   filled up to the block, and the next record begins at a block.
//! * **summary** and **footer**: where each record is, its key's hash, its version; and the newest
//!   of these versions, which tells before the summary is read how new its records can be. Written
//!   when the bucket is full. A bucket without one was being written when the cache ended; its records
//!   are found by reading them one after the other.
//! * **dead records**: a bit for every place where a record can begin: its value must not come back
//!   at a restart, see [`crate::lineage`]. Written in place, each sector standing for itself.
//!
//! # Which life
//!
//! Every life of a bucket has a 64-bit number that no other life of any bucket has. Checksums of
//! records, footer and dead sectors start from it, so what an earlier life left behind is never
//! taken for this one's, though the gen has only 8 bits.
//!
//! # Other versions of this format
//!
//! A header of another version, or with a flag that is not known, begins as ours does, up to the
//! life's number. What else is in such a bucket nobody can tell ([`Header::Unknown`]).
//!
//! Everything is little-endian.

use std::collections::BTreeSet;
use tierce_core::{BucketIndex, broken};
use twox_hash::XxHash3_64;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Records begin at multiples of at least this many bytes.
pub(crate) const GRAIN: u32 = 16;
/// Places in a bucket where a record can begin, at most.
pub(crate) const GRAINS_MAX: u32 = 1 << 15;
/// What a device writes whole or not at all: each sector of dead records stands for itself.
pub(crate) const SECTOR: usize = 512;

const HEADER_MAGIC: u64 = 0x6564_6165_6863_7274; // "trcheade"
const FOOTER_MAGIC: u64 = 0x7465_6f6f_6663_7274;
const DEAD_MAGIC: u32 = 0x6461_6564; // "dead"
const RECORD_MAGIC: u16 = 0x6372; // "rc"
/// 2: the footer says which version is the newest.
pub(crate) const VERSION: u32 = 2;

/// A checksum that starts from a life's number.
pub(crate) fn checksum(life: u64, bytes: &[u8]) -> U64 {
    let life = if broken!("lives_alike") { 0 } else { life };
    U64::new(XxHash3_64::oneshot_with_seed(life, bytes))
}

/// Where things are in a bucket. All in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) bucket_bytes: u32,
    pub(crate) block: u32,
    pub(crate) footer: u32,
    pub(crate) dead: u32,
    /// Records begin at multiples of it.
    pub(crate) grain: u32,
}

impl Layout {
    /// The layout of buckets of `bucket_bytes` in blocks of `block` bytes; `None` if so small a
    /// bucket has no room for records.
    pub(crate) fn new(bucket_bytes: u32, block: u32) -> Option<Self> {
        // What the index can say.
        let least = bucket_bytes.div_ceil(GRAINS_MAX).next_power_of_two();
        let grain = least.max(GRAIN);
        let dead_sectors = bucket_bytes.div_ceil(grain).div_ceil(DEAD_PER_SECTOR);
        let dead_bytes = (dead_sectors * SECTOR as u32).next_multiple_of(block);
        let dead = bucket_bytes.checked_sub(dead_bytes)?;
        let footer = dead.checked_sub(block)?;
        let layout = Self { bucket_bytes, block, footer, dead, grain };
        (layout.record_max() >= 1024).then_some(layout)
    }

    /// Where a bucket begins, in bytes from the start of its device.
    pub(crate) fn start(&self, bucket: BucketIndex) -> u64 {
        u64::from(bucket.get()) * u64::from(self.bucket_bytes)
    }

    /// Where the first record begins.
    pub(crate) const fn first_record(&self) -> u32 {
        self.block
    }

    /// Where the summary of `records` records begins.
    pub(crate) const fn summary(&self, records: usize) -> u32 {
        let bytes = (records * SUMMARY_ENTRY_BYTES) as u32;
        self.footer.saturating_sub(bytes.next_multiple_of(self.block))
    }

    /// Bytes of the largest record: alone in its bucket.
    pub(crate) const fn record_max(&self) -> u32 {
        self.summary(1).saturating_sub(self.first_record())
    }

    /// Sectors for dead records.
    pub(crate) const fn dead_sectors(&self) -> usize {
        (self.bucket_bytes - self.dead) as usize / SECTOR
    }
}

/// Whose bucket, in which life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BucketHeader {
    /// Of the device.
    pub(crate) uuid: [u8; 16],
    pub(crate) bucket: u32,
    pub(crate) gen_: u8,
    /// The number of this life.
    pub(crate) life: u64,
    /// Where the hashes of keys start.
    pub(crate) hash_seed: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    checksum: U64,
    magic: U64,
    version: U32,
    incompat: U32,
    uuid: [u8; 16],
    bucket: U32,
    gen_: U32,
    life: U64,
    hash_seed: U64,
}
const _: () = assert!(size_of::<RawHeader>() == 64);

impl BucketHeader {
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let mut raw = RawHeader {
            checksum: U64::ZERO,
            magic: U64::new(HEADER_MAGIC),
            version: U32::new(VERSION),
            incompat: U32::ZERO,
            uuid: self.uuid,
            bucket: U32::new(self.bucket),
            gen_: U32::new(self.gen_.into()),
            life: U64::new(self.life),
            hash_seed: U64::new(self.hash_seed),
        };
        raw.checksum = checksum(self.life, &raw.as_bytes()[8..]);
        out[..64].copy_from_slice(raw.as_bytes());
    }

    /// What the first block of a bucket says.
    pub(crate) fn decode(bytes: &[u8]) -> Header {
        let Ok((raw, _)) = RawHeader::ref_from_prefix(bytes) else { return Header::None };
        let is_whole = raw.magic.get() == HEADER_MAGIC
            && raw.checksum == checksum(raw.life.get(), &raw.as_bytes()[8..]);
        let (true, Ok(gen_)) = (is_whole, u8::try_from(raw.gen_.get())) else {
            return Header::None;
        };
        let header = Self {
            uuid: raw.uuid,
            bucket: raw.bucket.get(),
            gen_,
            life: raw.life.get(),
            hash_seed: raw.hash_seed.get(),
        };
        match (raw.version.get(), raw.incompat.get()) {
            (VERSION, 0) => Header::Known(header),
            (version, incompat) => Header::Unknown { header, version, incompat },
        }
    }
}

/// What the first block of a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// No header, or a damaged one: whatever was in the bucket is not there any more.
    None,
    /// One that this code writes, too.
    Known(BucketHeader),
    /// One of another version, or with flags that this code does not know.
    Unknown {
        /// What all versions say.
        header: BucketHeader,
        /// Ours is 2.
        version: u32,
        /// Ours is 0.
        incompat: u32,
    },
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A key's value.
    Value = 1,
    /// The key was removed.
    Tombstone = 2,
    /// Some bytes of a value whose [`Spread`](Self::Spread) record is elsewhere.
    Part = 3,
    /// A key's value is in parts; these are the pointers to them.
    Spread = 4,
}

impl Kind {
    fn from_bits(bits: u8) -> Option<Self> {
        [Self::Value, Self::Tombstone, Self::Part, Self::Spread]
            .into_iter()
            .find(|&kind| kind as u8 == bits)
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRecord {
    checksum: U64,
    version: U64,
    /// Milliseconds since 1970, 0: never.
    expires: U64,
    key_bytes: U32,
    value_bytes: U32,
    kind: u8,
    unused: u8,
    magic: [u8; 2],
}

/// Bytes of a record before its key.
pub(crate) const RECORD_BYTES: usize = size_of::<RawRecord>();
const _: () = assert!(RECORD_BYTES == 36);

/// What a record says. On the device its key and its value follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) version: u64,
    /// Milliseconds since 1970, 0: never.
    pub(crate) expires: u64,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Bytes of a record in its bucket, a multiple of [`GRAIN`].
pub(crate) fn record_bytes(key: usize, value: usize) -> u64 {
    (RECORD_BYTES as u64 + key as u64 + value as u64).next_multiple_of(GRAIN.into())
}

impl<'a> Record<'a> {
    /// Appends it to `out`, filled up to a multiple of [`GRAIN`].
    pub(crate) fn encode(&self, life: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let raw = RawRecord {
            checksum: U64::ZERO,
            version: U64::new(self.version),
            expires: U64::new(self.expires),
            // Both fit: a record is not longer than a bucket.
            key_bytes: U32::new(self.key.len() as u32),
            value_bytes: U32::new(self.value.len() as u32),
            kind: self.kind as u8,
            unused: 0,
            magic: RECORD_MAGIC.to_le_bytes(),
        };
        out.extend_from_slice(raw.as_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
        let sum = checksum(life, &out[start + 8..]);
        out[start..start + 8].copy_from_slice(sum.as_bytes());
        let bytes = record_bytes(self.key.len(), self.value.len()) as usize;
        out.resize(start + bytes, 0);
    }

    /// The record of that life at the front of `bytes`, if there is one, whole.
    pub(crate) fn decode(life: u64, bytes: &'a [u8]) -> Option<Self> {
        let (raw, rest) = RawRecord::ref_from_prefix(bytes).ok()?;
        let (key_bytes, value_bytes) =
            (raw.key_bytes.get() as usize, raw.value_bytes.get() as usize);
        let data = key_bytes.checked_add(value_bytes)?;
        if raw.magic != RECORD_MAGIC.to_le_bytes() || data > rest.len() {
            return None;
        }
        if raw.checksum != checksum(life, &bytes[8..RECORD_BYTES + data]) {
            return None;
        }
        let (key, value) = rest[..data].split_at(key_bytes);
        let (version, expires) = (raw.version.get(), raw.expires.get());
        Some(Self { kind: Kind::from_bits(raw.kind)?, version, expires, key, value })
    }

    pub(crate) fn bytes(&self) -> u32 {
        record_bytes(self.key.len(), self.value.len()) as u32
    }
}

/// One record in a bucket's summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) hash: u64,
    pub(crate) version: u64,
    /// From the start of the bucket, in bytes.
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) kind: Kind,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    hash: U64,
    version: U64,
    offset: U32,
    bytes: [u8; 3],
    kind: u8,
}

/// Bytes of a summary's entry.
pub(crate) const SUMMARY_ENTRY_BYTES: usize = size_of::<RawEntry>();
const _: () = assert!(SUMMARY_ENTRY_BYTES == 24);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFooter {
    checksum: U64,
    magic: U64,
    life: U64,
    records: U32,
    unused: U32,
    summary_checksum: U64,
    newest: U64,
}

/// Summary and footer of a life, to be written from [`Layout::summary`] on.
pub(crate) fn encode_summary(layout: &Layout, life: u64, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity((layout.dead - layout.summary(entries.len())) as usize);
    // The summary ends where the footer begins.
    let bytes = entries.len() * SUMMARY_ENTRY_BYTES;
    out.resize(bytes.next_multiple_of(layout.block as usize) - bytes, 0);
    let start = out.len();
    for entry in entries {
        let [a, b, c, _] = (entry.bytes / GRAIN).to_le_bytes();
        let raw = RawEntry {
            hash: U64::new(entry.hash),
            version: U64::new(entry.version),
            offset: U32::new(entry.offset),
            bytes: [a, b, c],
            kind: entry.kind as u8,
        };
        out.extend_from_slice(raw.as_bytes());
    }
    let mut footer = RawFooter {
        checksum: U64::ZERO,
        magic: U64::new(FOOTER_MAGIC),
        life: U64::new(life),
        records: U32::new(entries.len() as u32),
        unused: U32::ZERO,
        summary_checksum: checksum(life, &out[start..]),
        newest: U64::new(newest_of(entries)),
    };
    footer.checksum = checksum(life, &footer.as_bytes()[8..]);
    out.extend_from_slice(footer.as_bytes());
    out.resize((layout.dead - layout.summary(entries.len())) as usize, 0);
    out
}

/// The highest version of all.
pub(crate) fn newest_of(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.version).max().unwrap_or(0)
}

/// What a footer says of the summary before it.
pub(crate) fn decode_footer(layout: &Layout, life: u64, block: &[u8]) -> Option<Footer> {
    let (raw, _) = RawFooter::ref_from_prefix(block).ok()?;
    let valid = raw.magic.get() == FOOTER_MAGIC
        && raw.life.get() == life
        && raw.checksum == checksum(life, &raw.as_bytes()[8..]);
    let records = raw.records.get() as usize;
    let fits = records * SUMMARY_ENTRY_BYTES <= layout.footer as usize;
    let (checksum, newest) = (raw.summary_checksum.get(), raw.newest.get());
    (valid && fits).then_some(Footer { records, newest, checksum })
}

/// See [`decode_footer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) records: usize,
    /// The highest version of a record in the bucket.
    pub(crate) newest: u64,
    checksum: u64,
}

impl Footer {
    /// Bytes of the summary, which ends where the footer begins.
    pub(crate) const fn summary_bytes(&self) -> usize {
        self.records * SUMMARY_ENTRY_BYTES
    }

    /// The entries of the summary at the end of `bytes`; `None` if it is damaged.
    pub(crate) fn entries(&self, layout: &Layout, life: u64, bytes: &[u8]) -> Option<Vec<Entry>> {
        let bytes = &bytes[bytes.len().checked_sub(self.summary_bytes())?..];
        if checksum(life, bytes).get() != self.checksum {
            return None;
        }
        let raws = <[RawEntry]>::ref_from_bytes(bytes).ok()?;
        raws.iter().map(|raw| raw.decode(layout)).collect()
    }
}

impl RawEntry {
    fn decode(&self, layout: &Layout) -> Option<Entry> {
        let [a, b, c] = self.bytes;
        let offset = self.offset.get();
        let bytes = u32::from_le_bytes([a, b, c, 0]).checked_mul(GRAIN)?;
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= layout.footer);
        if !inside || !offset.is_multiple_of(GRAIN) {
            return None;
        }
        let (hash, version) = (self.hash.get(), self.version.get());
        Some(Entry { hash, version, offset, bytes, kind: Kind::from_bits(self.kind)? })
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDead {
    checksum: U64,
    magic: U32,
    sector: U32,
    bits: [u8; SECTOR - 16],
}
const _: () = assert!(size_of::<RawDead>() == SECTOR);

/// Places that a sector has a bit for.
const DEAD_PER_SECTOR: u32 = (SECTOR as u32 - 16) * 8;

/// Records that must not come back, by where they begin, in grains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dead(BTreeSet<u32>);

impl Dead {
    pub(crate) fn contains(&self, layout: &Layout, offset: u32) -> bool {
        self.0.contains(&(offset / layout.grain))
    }

    /// False if it was there already.
    pub(crate) fn insert(&mut self, layout: &Layout, offset: u32) -> bool {
        self.0.insert(offset / layout.grain)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The whole area, to be written at [`Layout::dead`].
    pub(crate) fn encode(&self, layout: &Layout, life: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(layout.dead_sectors() * SECTOR);
        for sector in 0..layout.dead_sectors() as u32 {
            let mut raw = RawDead {
                checksum: U64::ZERO,
                magic: U32::new(DEAD_MAGIC),
                sector: U32::new(sector),
                bits: [0; SECTOR - 16],
            };
            let first = sector * DEAD_PER_SECTOR;
            for grain in self.0.range(first..first + DEAD_PER_SECTOR) {
                let bit = grain - first;
                raw.bits[bit as usize / 8] |= 1 << (bit % 8);
            }
            raw.checksum = checksum(life, &raw.as_bytes()[8..]);
            out.extend_from_slice(raw.as_bytes());
        }
        out
    }

    /// What the area says in that life. Sectors of other lives say nothing.
    pub(crate) fn decode(life: u64, area: &[u8]) -> Self {
        let mut dead = BTreeSet::new();
        for (number, sector) in (0..).zip(area.chunks_exact(SECTOR)) {
            let Ok(raw) = RawDead::ref_from_bytes(sector) else { continue };
            let valid = raw.magic.get() == DEAD_MAGIC
                && raw.sector.get() == number
                && raw.checksum == checksum(life, &raw.as_bytes()[8..]);
            if valid {
                let is_set = |bit: &u32| raw.bits[*bit as usize / 8] >> (bit % 8) & 1 == 1;
                let set = (0..DEAD_PER_SECTOR).filter(is_set);
                dead.extend(set.map(|bit| number * DEAD_PER_SECTOR + bit));
            }
        }
        Self(dead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout =
        Layout { bucket_bytes: 65_536, block: 512, footer: 64_000, dead: 64_512, grain: 16 };

    #[test]
    fn places_do_not_overlap() {
        assert_eq!(Layout::new(64 << 10, 512), Some(LAYOUT));
        for (bucket, block) in [(8 << 10, 512), (64 << 10, 4096), (2 << 20, 4096), (32 << 20, 512)]
        {
            let layout = Layout::new(bucket, block).expect("room for records");
            assert!(layout.first_record() < layout.summary(1), "{layout:?}");
            assert!(layout.summary(1) < layout.footer && layout.footer < layout.dead);
            assert_eq!((layout.footer % block, layout.dead % block), (0, 0));
        }
        assert_eq!(Layout::new(4096, 4096), None);
    }

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let record =
            Record { kind: Kind::Value, version: 9, expires: 0, key: b"key", value: b"value" };
        record.encode(7, &mut out);
        assert_eq!(Record::decode(7, &out), Some(record));
        out
    }

    /// Whichever bit flips, wherever it is cut off, and in any other life, it is no record.
    #[test]
    fn damage_is_found() {
        let bytes = sample();
        assert_eq!(bytes.len(), 48);
        assert_eq!(Record::decode(8, &bytes), None, "another life");
        let end = RECORD_BYTES + 8;
        for bit in 0..end * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(7, &bad), None, "bit {bit}");
        }
        for cut in 0..end {
            assert_eq!(Record::decode(7, &bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn headers_come_back() {
        let header =
            BucketHeader { uuid: [3; 16], bucket: 99, gen_: 255, life: 1 << 50, hash_seed: 5 };
        let mut block = [0xFF; 512];
        header.encode(&mut block);
        assert_eq!(BucketHeader::decode(&block), Header::Known(header));
        for bit in 0..64 * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BucketHeader::decode(&bad), Header::None, "bit {bit}");
        }
        assert_eq!(BucketHeader::decode(&block[..63]), Header::None);
    }

    #[test]
    fn summaries_come_back() {
        let entry = |n: u32| Entry {
            hash: u64::from(n) << 40,
            version: 5 + u64::from(n ^ 1),
            offset: 512 + 16 * n,
            bytes: 16,
            kind: Kind::Tombstone,
        };
        let entries: Vec<_> = (0..100).map(entry).collect();
        let bytes = encode_summary(&LAYOUT, 7, &entries);
        assert_eq!(bytes.len() as u32, LAYOUT.dead - LAYOUT.summary(100));
        let (summary, footer) = bytes.split_at(bytes.len() - 512);
        let footer = decode_footer(&LAYOUT, 7, footer).expect("a footer");
        assert_eq!((footer.records, footer.newest), (100, 104));
        assert_eq!(footer.entries(&LAYOUT, 7, summary), Some(entries));
        let mut bad = summary.to_vec();
        *bad.last_mut().expect("it is not empty") ^= 1;
        assert_eq!(footer.entries(&LAYOUT, 7, &bad), None);
        assert_eq!(decode_footer(&LAYOUT, 8, &bytes[bytes.len() - 512..]), None, "another life");
    }

    #[test]
    fn the_dead_are_named() {
        let layout = Layout::new(2 << 20, 4096).expect("room");
        assert_eq!((layout.grain, layout.dead_sectors()), (64, 16));
        let mut dead = Dead::default();
        for offset in (4096..1 << 21).step_by(64 * 331) {
            assert!(dead.insert(&layout, offset));
        }
        assert!(!dead.insert(&layout, 4096));
        let mut area = dead.encode(&layout, 7);
        assert_eq!(Dead::decode(7, &area), dead);
        assert!(dead.contains(&layout, 4096) && !dead.contains(&layout, 4160));
        assert_eq!(Dead::decode(8, &area), Dead::default(), "another life");
        area[600] ^= 1;
        let left = Dead::decode(7, &area);
        assert!(left.contains(&layout, 4096) && left != dead, "the other sectors hold");
        area.copy_within(0..SECTOR, SECTOR);
        assert_eq!(Dead::decode(7, &area), left, "a sector is for its own place");
    }
}
