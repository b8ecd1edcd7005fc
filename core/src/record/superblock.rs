//! The superblock: what a device is, how it is divided, and to which set it belongs.
//!
//! It lies at byte 4096, is 4096 bytes long, and there is one copy.
//!
//! # Layout
//!
//! ```text
//!       0       1       2       3       4       5       6       7
//!    ┌───────────────────────────────────────────────────────────────┐
//!   0│ csum, over bytes 8 to 208 + 8·njournal                        │
//!   8│ offset: its own sector, 8                                     │
//!  16│ version: 0 formatted, 3 in use, 5 with feature words          │
//!  24│ magic, 16 bytes                                               │
//!  40│ uuid of the device, 16 bytes                                  │
//!  56│ set_uuid, 16 bytes; its first 8 are the set magic             │
//!  72│ label, 32 bytes, filled up with zeros                         │
//! 104│ flags: bit 0 sync, bit 1 discard, bits 2–4 policy             │
//! 112│ seq: + 1 at every superblock write                            │
//! 120│ feature_compat                                  (version 5)   │
//! 128│ feature_incompat: bit 0, bit 1 bucket_size; bit 63 tierce     │
//! 136│ feature_ro_compat                                             │
//! 144│ padding, 40 bytes                                             │
//! 184│ nbuckets                                                      │
//! 192│ block_size    │ bucket_size   │ nr_in_set     │ nr_this_dev   │
//! 200│ last_mount, seconds           │ first_bucket  │ njournal      │
//! 208│ journal bucket numbers, 256 of 8 bytes: first_bucket + i      │
//!2256│ bucket_size_hi│ padding                                       │
//!    └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! Sizes are in sectors. `bucket_size` holds the sectors of a bucket; with feature_incompat bit
//! 1 their binary logarithm; with bit 0 (obsolete) the low half of which `bucket_size_hi` is the
//! high one.
//!
//! # What is checked
//!
//! In this order; the first rule that does not hold is the error, naming the field.
//!
//! 1. the magic, or the device is not formatted; version 1, 2, 4 or 6 is a backing device;
//! 2. njournal ≤ 256, then the checksum, then version 0, 3 or 5, offset 8, both uuids not zero;
//! 3. version 5 only: no bit of feature_incompat or feature_ro_compat that is not known, and not
//!    both bit 0 and bit 1; in versions 0 and 3 the three words mean nothing;
//! 4. nbuckets at least 128 and at most 2²⁵; bucket_size a power of two from 8 to 2¹⁸ sectors;
//!    block_size a power of two from 1 to 8; 1 ≤ first_bucket < nbuckets, and at least 16 sectors
//!    before it; all buckets within the device, if its size is known;
//! 5. first_bucket + njournal ≤ nbuckets, journal bucket i = first_bucket + i;
//! 6. policy 0, 1 or 2; nr_in_set 1 to 8; nr_this_dev below it.
//!
//! Usable ([`check_usable`](Superblock::check_usable)) is a device with at least 513 buckets and a
//! block_size not below its own block. Bucket b starts at sector b · bucket_size.
//!
//! # Life
//!
//! | step | version | njournal | seq | flags |
//! |---|---|---|---|---|
//! | [`format`](Superblock::format) | 0 (5 if `bucket_size` needs bit 1) | 0 | 0 | policy, discard |
//! | [`first_use`](Superblock::first_use) | 3 (5 stays) | nbuckets / 128, 2 to 256 | + 1 | + sync |
//! | [`later_use`](Superblock::later_use) | – | – | + 1 | – |
//! | [`engine_use`](Superblock::engine_use) | 5, incompat bit 63 | – | + 1 | – |
//!
//! Bit 63 says that the buckets hold an index which only tierce understands, so that Linux
//! refuses the device instead of taking it for an empty cache.

use super::identity::{SetMagic, Uuid};
use super::{Check, crc};
use crate::bucket::{BucketIndex, DeviceIndex};
use crate::error::{Error, Place, RecordKind};
use crate::geometry::{Geometry, MAX_DEVICES, MIN_DEVICE_BUCKETS, SECTOR_BYTES};
use crate::policy::Policy;
use core::mem::{offset_of, size_of};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a superblock.
pub const BYTES: usize = 4096;
/// Where it lies: bytes from the start of the device.
pub const OFFSET: u64 = 4096;
/// Journal buckets, at most.
pub const MAX_JOURNAL_BUCKETS: usize = 256;
/// Buckets that a superblock must describe, at least; to be usable a device needs
/// [`MIN_DEVICE_BUCKETS`].
pub const MIN_BUCKETS: u64 = 128;
/// The 16 bytes by which a superblock is known.
pub const MAGIC: [u8; 16] = [
    0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81,
];
/// Where these lie: bytes from the start of the device.
pub const MAGIC_OFFSET: u64 = OFFSET + 24;
/// feature_incompat: `bucket_size_hi` is in use.
pub const INCOMPAT_BUCKET_SIZE_HIGH: u64 = 1 << 0;
/// feature_incompat: `bucket_size` holds a binary logarithm.
pub const INCOMPAT_BUCKET_SIZE_LOG2: u64 = 1 << 1;
/// feature_incompat: the buckets hold tierce's own index.
pub const INCOMPAT_TIERCE_INDEX: u64 = 1 << 63;

const INCOMPAT_KNOWN: u64 =
    INCOMPAT_BUCKET_SIZE_HIGH | INCOMPAT_BUCKET_SIZE_LOG2 | INCOMPAT_TIERCE_INDEX;
pub(super) const VERSION_FORMATTED: u64 = 0;
const VERSION_USED: u64 = 3;
pub(super) const VERSION_FEATURES: u64 = 5;
const FLAG_SYNC: u64 = 1 << 0;
const FLAG_DISCARD: u64 = 1 << 1;
const FLAG_POLICY_SHIFT: u32 = 2;
const FLAG_POLICY: u64 = 0b111 << FLAG_POLICY_SHIFT;
const SECTOR: u64 = OFFSET / SECTOR_BYTES as u64;
/// Sectors before the first bucket: everything up to the end of the superblock.
const RESERVED_SECTORS: u64 = 16;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    csum: U64,
    offset: U64,
    version: U64,
    magic: [u8; 16],
    uuid: [u8; 16],
    set_uuid: [u8; 16],
    label: [u8; 32],
    flags: U64,
    seq: U64,
    feature_compat: U64,
    feature_incompat: U64,
    feature_ro_compat: U64,
    padding: [u8; 40],
    nbuckets: U64,
    block_size: U16,
    bucket_size: U16,
    nr_in_set: U16,
    nr_this_dev: U16,
    last_mount: U32,
    first_bucket: U16,
    njournal: U16,
    journal: [U64; MAX_JOURNAL_BUCKETS],
    bucket_size_hi: U16,
    padding_end: [u8; 6],
}

const _: () = assert!(offset_of!(Layout, flags) == 104);
const _: () = assert!(offset_of!(Layout, nbuckets) == 184);
const _: () = assert!(offset_of!(Layout, journal) == 208);
const _: () = assert!(offset_of!(Layout, bucket_size_hi) == 2256);
const _: () = assert!(size_of::<Layout>() == 2264 && size_of::<Layout>() <= BYTES);

/// A decoded superblock. What [`decode`](Self::decode) returns has passed every check of the
/// format, so [`geometry`](Self::geometry) is that of a real device.
///
/// ```
/// use tierce_core::record::{Format, Superblock, Uuid};
/// let fresh = Superblock::format(&Format {
///     uuid: Uuid([1; 16]),
///     set_uuid: Uuid([2; 16]),
///     ..Format::new(64 << 20, 128, 1)
/// })?;
/// assert_eq!((fresh.version, fresh.njournal), (0, 0));
///
/// let used = fresh.first_use(1_700_000_000);
/// assert_eq!((used.version, used.njournal, used.seq, used.sync), (3, 8, 1, true));
/// assert_eq!(used.journal_buckets().next().map(|b| b.get()), Some(1));
/// assert_eq!(Superblock::decode(&used.encode(), Some(64 << 20))?, used);
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Superblock {
    /// 0 formatted, 3 in use, 5 with feature words.
    pub version: u64,
    /// The device's own identity.
    pub uuid: Uuid,
    /// The identity of its set.
    pub set_uuid: Uuid,
    /// A name for people; see [`label_text`](Self::label_text).
    pub label: [u8; 32],
    /// Whether gens and prios on the device are kept up to date. Without, the cache starts
    /// empty every time.
    pub sync: bool,
    /// Whether freed buckets are discarded.
    pub discard: bool,
    /// Which bucket is reused next.
    pub policy: Policy,
    /// Bits of the flags that this version gives no meaning to; kept as they are.
    pub other_flags: u64,
    /// Counts the writes of the superblock.
    pub seq: u64,
    /// Features that readers may ignore (version 5, else 0).
    pub feature_compat: u64,
    /// Features without which the device cannot be read (version 5, else 0).
    pub feature_incompat: u64,
    /// When the device was opened last: seconds since 1970.
    pub last_mount: u32,
    /// Devices of the set, 1 to 8.
    pub nr_in_set: u8,
    /// Which of them this one is.
    pub nr_this_dev: DeviceIndex,
    /// Journal buckets, 0 to 256; 0 before the first use.
    pub njournal: u16,
    pub(super) geometry: Geometry,
}

/// Making superblocks.
impl Superblock {
    /// As it is written when the device is used for the first time, `now` in seconds since
    /// 1970: it gets its journal buckets and becomes `sync`.
    #[must_use]
    pub fn first_use(&self, now: u32) -> Self {
        let mut next = self.later_use(now);
        next.version = self.version.max(VERSION_USED);
        next.njournal = (self.geometry.nbuckets() >> 7).clamp(2, 256) as u16;
        next.sync = true;
        next
    }

    /// As it is written at every later opening, `now` in seconds since 1970.
    #[must_use]
    pub fn later_use(&self, now: u32) -> Self {
        Self { seq: self.seq.wrapping_add(1), last_mount: now, ..self.clone() }
    }

    /// As it is written before the first bucket of tierce's own index is.
    #[must_use]
    pub fn engine_use(&self) -> Self {
        Self {
            version: VERSION_FEATURES,
            feature_incompat: self.feature_incompat | INCOMPAT_TIERCE_INDEX,
            seq: self.seq.wrapping_add(1),
            ..self.clone()
        }
    }

    /// The bytes to write at [`OFFSET`].
    #[must_use]
    pub fn encode(&self) -> [u8; BYTES] {
        let g = &self.geometry;
        let (bucket_size, bucket_size_hi) = self.bucket_size_raw();
        let mut journal = [U64::ZERO; MAX_JOURNAL_BUCKETS];
        for (slot, bucket) in journal.iter_mut().zip(self.journal_buckets()) {
            *slot = u64::from(bucket.get()).into();
        }
        let mut layout = Layout {
            csum: U64::ZERO,
            offset: SECTOR.into(),
            version: self.version.into(),
            magic: MAGIC,
            uuid: self.uuid.0,
            set_uuid: self.set_uuid.0,
            label: self.label,
            flags: self.flags().into(),
            seq: self.seq.into(),
            feature_compat: self.feature_compat.into(),
            feature_incompat: self.feature_incompat.into(),
            feature_ro_compat: U64::ZERO,
            padding: [0; 40],
            nbuckets: u64::from(g.nbuckets()).into(),
            block_size: (g.block_sectors() as u16).into(),
            bucket_size: bucket_size.into(),
            nr_in_set: u16::from(self.nr_in_set).into(),
            nr_this_dev: u16::from(self.nr_this_dev.get()).into(),
            last_mount: self.last_mount.into(),
            first_bucket: (g.first_bucket().get() as u16).into(),
            njournal: self.njournal.into(),
            journal,
            bucket_size_hi: bucket_size_hi.into(),
            padding_end: [0; 6],
        };
        layout.csum = layout.checksum().into();
        let mut bytes = [0; BYTES];
        bytes[..size_of::<Layout>()].copy_from_slice(layout.as_bytes());
        bytes
    }
}

/// Reading superblocks.
impl Superblock {
    /// The superblock in `bytes`, which start at [`OFFSET`] of the device and are at least 2264
    /// long. With `device_bytes` it is also checked that the buckets fit the device.
    ///
    /// # Errors
    ///
    /// [`Error::NotFormatted`], [`Error::BackingDevice`], [`Error::UnknownFeature`], or
    /// [`Error::Record`] for the first field that is not as it should be.
    pub fn decode(bytes: &[u8], device_bytes: Option<u64>) -> Result<Self, Error> {
        let check = Check::new(RecordKind::Superblock, Place::device(OFFSET));
        let Ok((layout, _)) = Layout::ref_from_prefix(bytes) else {
            return Err(check.error("length", bytes.len(), size_of::<Layout>()));
        };
        layout.check_identity(&check)?;
        let feature_incompat = layout.check_features(&check)?;
        let geometry = layout.check_geometry(&check, feature_incompat, device_bytes)?;
        layout.check_journal(&check)?;
        let flags = layout.flags.get();
        let number = ((flags & FLAG_POLICY) >> FLAG_POLICY_SHIFT) as u8;
        let Some(policy) = Policy::from_number(number) else {
            return Err(check.error("policy", number, "0 lru, 1 fifo or 2 random"));
        };
        let (nr_in_set, nr_this_dev) = layout.check_set(&check)?;
        let has_features = layout.version.get() == VERSION_FEATURES;
        Ok(Self {
            version: layout.version.get(),
            uuid: Uuid(layout.uuid),
            set_uuid: Uuid(layout.set_uuid),
            label: layout.label,
            sync: flags & FLAG_SYNC != 0,
            discard: flags & FLAG_DISCARD != 0,
            policy,
            other_flags: flags & !(FLAG_SYNC | FLAG_DISCARD | FLAG_POLICY),
            seq: layout.seq.get(),
            feature_compat: if has_features { layout.feature_compat.get() } else { 0 },
            feature_incompat,
            last_mount: layout.last_mount.get(),
            nr_in_set,
            nr_this_dev,
            njournal: layout.njournal.get(),
            geometry,
        })
    }

    /// Checks what only an owner that wants to use the device needs: that it is large enough,
    /// and that its blocks are not smaller than the device's own of `logical_block_bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] naming `nbuckets` or `block_size`.
    pub fn check_usable(&self, logical_block_bytes: u32) -> Result<(), Error> {
        let check = Check::new(RecordKind::Superblock, Place::device(OFFSET));
        let nbuckets = self.geometry.nbuckets();
        let wanted = format_args!("at least {MIN_DEVICE_BUCKETS} for a usable cache");
        check.that(nbuckets >= MIN_DEVICE_BUCKETS, "nbuckets", nbuckets, wanted)?;
        let block_bytes = self.geometry.block_bytes();
        check.that(
            block_bytes >= logical_block_bytes,
            "block_size",
            format_args!("{} sectors", self.geometry.block_sectors()),
            format_args!("at least the device's block of {logical_block_bytes} bytes"),
        )
    }

    /// How the device is divided.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What the magics of the other records are derived from.
    #[must_use]
    pub fn set_magic(&self) -> SetMagic {
        let [a, b, c, d, e, f, g, h, ..] = self.set_uuid.0;
        SetMagic(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The journal buckets, in ring order.
    pub fn journal_buckets(&self) -> impl DoubleEndedIterator<Item = BucketIndex> + use<> {
        let first = self.geometry.first_bucket().get();
        (first..first + u32::from(self.njournal)).map(BucketIndex::new)
    }

    /// Whether the device was formatted and never used: it has no journal yet.
    #[must_use]
    pub const fn is_unused(&self) -> bool {
        self.version == VERSION_FORMATTED || self.njournal == 0
    }

    /// Whether the buckets hold tierce's own index.
    #[must_use]
    pub const fn has_tierce_index(&self) -> bool {
        self.feature_incompat & INCOMPAT_TIERCE_INDEX != 0
    }

    /// The label without its filling, with what is not UTF-8 replaced.
    #[must_use]
    pub fn label_text(&self) -> String {
        let text = self.label.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// The flags as on the device.
    #[must_use]
    pub const fn flags(&self) -> u64 {
        self.other_flags
            | if self.sync { FLAG_SYNC } else { 0 }
            | if self.discard { FLAG_DISCARD } else { 0 }
            | (self.policy.number() as u64) << FLAG_POLICY_SHIFT
    }

    /// `bucket_size` and `bucket_size_hi` as on the device.
    #[must_use]
    pub const fn bucket_size_raw(&self) -> (u16, u16) {
        let sectors = self.geometry.bucket_sectors();
        if self.feature_incompat & INCOMPAT_BUCKET_SIZE_LOG2 != 0 {
            (sectors.trailing_zeros() as u16, 0)
        } else {
            (sectors as u16, (sectors >> 16) as u16)
        }
    }
}

impl Layout {
    /// The sum of what it covers; `njournal` must be in range, else all 256 are covered.
    fn checksum(&self) -> u64 {
        let keys = usize::from(self.njournal.get()).min(MAX_JOURNAL_BUCKETS);
        let end = offset_of!(Self, journal) + 8 * keys;
        crc::checksum(&self.as_bytes()[8..end])
    }

    /// It is a superblock of a cache device, whole, and of a version we know.
    fn check_identity(&self, check: &Check) -> Result<(), Error> {
        if self.magic != MAGIC {
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
            return Err(Error::NotFormatted { found: hex(&self.magic), wanted: hex(&MAGIC) });
        }
        let version = self.version.get();
        if matches!(version, 1 | 2 | 4 | 6) {
            return Err(Error::BackingDevice { version });
        }
        let njournal = usize::from(self.njournal.get());
        let wanted = format_args!("at most {MAX_JOURNAL_BUCKETS}");
        check.that(njournal <= MAX_JOURNAL_BUCKETS, "njournal", njournal, wanted)?;
        check.same_bits("csum", self.csum.get(), self.checksum())?;
        let known = matches!(version, VERSION_FORMATTED | VERSION_USED | VERSION_FEATURES);
        check.that(known, "version", version, "0, 3 or 5")?;
        check.that(self.offset.get() == SECTOR, "offset", self.offset, SECTOR)?;
        check.that(self.uuid != [0; 16], "uuid", 0, "anything but zero")?;
        check.that(self.set_uuid != [0; 16], "set_uuid", 0, "anything but zero")
    }

    /// feature_incompat, if we know all of it.
    fn check_features(&self, check: &Check) -> Result<u64, Error> {
        if self.version.get() != VERSION_FEATURES {
            return Ok(0);
        }
        let incompat = self.feature_incompat.get();
        for (word, bits) in [
            ("feature_incompat", incompat & !INCOMPAT_KNOWN),
            ("feature_ro_compat", self.feature_ro_compat.get()),
        ] {
            if bits != 0 {
                return Err(Error::UnknownFeature { word, bits });
            }
        }
        let sizes = INCOMPAT_BUCKET_SIZE_HIGH | INCOMPAT_BUCKET_SIZE_LOG2;
        let wanted = "at most one of bit 0 and bit 1";
        check.that(incompat & sizes != sizes, "feature_incompat", incompat, wanted)?;
        Ok(incompat)
    }

    fn bucket_sectors(&self, incompat: u64) -> u64 {
        let low = u64::from(self.bucket_size.get());
        if incompat & INCOMPAT_BUCKET_SIZE_LOG2 != 0 {
            1u64.checked_shl(low as u32).unwrap_or(0)
        } else if incompat & INCOMPAT_BUCKET_SIZE_HIGH != 0 {
            low | u64::from(self.bucket_size_hi.get()) << 16
        } else {
            low
        }
    }

    fn check_geometry(
        &self,
        check: &Check,
        incompat: u64,
        device_bytes: Option<u64>,
    ) -> Result<Geometry, Error> {
        let (nbuckets, sectors) = (self.nbuckets.get(), self.bucket_sectors(incompat));
        let wanted = format_args!("at least {MIN_BUCKETS}");
        check.that(nbuckets >= MIN_BUCKETS, "nbuckets", nbuckets, wanted)?;
        let first = u32::from(self.first_bucket.get());
        let geometry = Geometry::new(
            u32::try_from(nbuckets).unwrap_or(u32::MAX),
            first,
            u32::try_from(sectors).unwrap_or(u32::MAX),
            u32::from(self.block_size.get()),
        )
        .map_err(|error| match error {
            Error::Limit { what: "bucket_sectors", wanted, .. } => {
                check.error("bucket_size", self.bucket_size, format_args!("{wanted} sectors"))
            }
            Error::Limit { what: "block_sectors", wanted, .. } => {
                check.error("block_size", self.block_size, wanted)
            }
            Error::Limit { what: "nbuckets", wanted, .. } => {
                check.error("nbuckets", nbuckets, wanted)
            }
            Error::Limit { what, found, wanted } => check.error(what, found, wanted),
            other => other,
        })?;
        let wanted = format_args!("so many that {RESERVED_SECTORS} sectors lie before it");
        check.that(first as u64 * sectors >= RESERVED_SECTORS, "first_bucket", first, wanted)?;
        if let Some(bytes) = device_bytes {
            let wanted = format_args!("within the device of {bytes} bytes");
            // No overflow: Geometry bounds nbuckets to 2²⁵ and bucket bytes to 2²⁷.
            let fits = nbuckets * u64::from(geometry.bucket_bytes()) <= bytes;
            check.that(fits, "nbuckets", nbuckets, wanted)?;
        }
        Ok(geometry)
    }

    fn check_journal(&self, check: &Check) -> Result<(), Error> {
        let first = u64::from(self.first_bucket.get());
        let njournal = u64::from(self.njournal.get());
        let nbuckets = self.nbuckets.get();
        let wanted = format_args!("first_bucket + njournal at most nbuckets, {nbuckets}");
        check.that(first + njournal <= nbuckets, "njournal", njournal, wanted)?;
        for (found, wanted) in self.journal.iter().zip(first..first + njournal) {
            check.that(found.get() == wanted, "journal bucket", found, wanted)?;
        }
        Ok(())
    }

    fn check_set(&self, check: &Check) -> Result<(u8, DeviceIndex), Error> {
        let (in_set, this_dev) = (self.nr_in_set.get(), self.nr_this_dev.get());
        let in_range = (1..=u16::from(MAX_DEVICES)).contains(&in_set);
        check.that(in_range, "nr_in_set", in_set, "1 to 8")?;
        let wanted = format_args!("less than nr_in_set, {in_set}");
        check.that(this_dev < in_set, "nr_this_dev", this_dev, wanted)?;
        Ok((in_set as u8, DeviceIndex::new(this_dev as u8)))
    }
}

#[cfg(test)]
#[path = "superblock_tests.rs"]
mod tests;
