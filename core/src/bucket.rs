//! What a bucket is and how it lives.
//!
//! # Problem
//!
//! Flash wants to be written in large pieces and forgotten in large pieces. tierce therefore
//! divides a device into *buckets*, fixed ranges of 64 KiB to a few MiB, which are written once
//! from start to end and later reused as a whole. An index somewhere holds pointers into
//! buckets. Finding and deleting all pointers into a bucket before it is reused would cost more
//! than the reuse itself, so a bucket carries a *generation* instead: a pointer remembers the
//! [`Gen`] it was made with and is valid only while it matches. One increment makes every old
//! pointer stale.
//!
//! # A bucket's life
//!
//! ```text
//!        allocate                 last unpin                invalidate
//!  free ───────────▶ open/held ───────────────▶ full ──────────────────────▶ invalidated
//!   ▲                pin ≥ 1                    pin 0                         gen + 1, pin 1
//!   │                                           GC says what lives in it      in free_inc
//!   │                                                                             │
//!   └──────────── discard (optional) ◀──── the table with the new gen is durable ─┘
//! ```
//!
//! | state | pin | gen | who may touch it |
//! |---|---|---|---|
//! | free: on one of the four free lists | 1 | safe to use | whoever pops it |
//! | open or held: being filled, or its pointers not in the index yet | ≥ 1 | frozen by the pin | the holders of its pins |
//! | full | 0 | moves only by invalidation | readers (optimistically), GC, invalidation |
//! | invalidated: in `free_inc` | 1 | advanced, not durable yet | the reclaimer |
//!
//! # The crash rule
//!
//! If the increment were lost in a crash, old pointers would look valid again and lead to
//! somebody else's data. Hence: *a bucket that may have pointers into it is handed out only
//! after its incremented gen is durable on the device.* Everything in `tierce-io` serves this
//! sentence.
//!
//! To make one write serve many buckets, invalidated ones collect in `free_inc`. When it is full,
//! all gens and prios of the device are written (the *prio write*), in this order:
//!
//! 1. the gens advance in memory;
//! 2. the table that holds them is written to freshly allocated buckets, the *prio chain*;
//! 3. flush;
//! 4. a journal entry that names the head of the chain is written durably;
//! 5. only now the old chain's buckets are released, and those buckets go to the free lists
//!    whose new gen *that table contained*;
//! 6. a pointer may become durable only after the data it names is: the owner's duty.
//!
//! Two short ways lead past the wait. A bucket into which no *durable* record points (or where
//! the record that replaced it is durable and outlives the bucket's old gen) is *unused*: its gen
//! advances and it is free at once, but only while its gen is the durable one, so once per prio
//! write. That nothing in memory points there is not enough: an overwritten key may still be the
//! durable one. And a bucket that was allocated and never written is *given back* with the gen
//! it had.
//!
//! After a crash the durable gen of such a bucket is *behind* its live pointers. Start-up takes
//! the gens from the durable table, then looks at every pointer of the index and the journal: one
//! that is ahead raises its bucket's gen ([`crate::spec`], [`crate::record::startup`]).
//!
//! # Who changes which field
//!
//! | event | gen | prio | mark | live sectors | pin |
//! |---|---|---|---|---|---|
//! | allocated for data | – | 32768 | reclaimable | the whole bucket | stays 1, now the caller's |
//! | allocated for index nodes or a prio set | – | 65535 | metadata | the whole bucket | the same |
//! | becomes the only copy of something | – | – | dirty, unless metadata | – | – |
//! | read hit | – | 32768, unless metadata | – | – | – |
//! | 1/1024 of the set's size was read or written | – | − 1 if unpinned, neither 0 nor 65535 | – | – | – |
//! | garbage collection | – | – | the highest that a live key says | their sum | – |
//! | its content is dead (freed) | – | – | none | 0 | – |
//! | invalidated | + 1 | 32768 | – | – | 1 |
//!
//! The *available* buckets of a set are those that are unpinned and marked none or reclaimable
//! when a garbage collection ends; an allocation takes one off (not below 0), a freed or given
//! back bucket adds one (not above all). `in_use_percent` is
//! (nbuckets − available) · 100 / nbuckets, rounded down.
//!
//! # Wrap-around
//!
//! A gen has 8 bits. Two rules keep a wrapped gen from looking current: a bucket whose gen ran
//! [`GC_GEN_LIMIT`] ahead of the oldest pointer that the last garbage collection saw is not
//! invalidated until the next one, and a pointer counts as stale only up to a distance of 128
//! ([`Gen::is_stale`]). A read that holds no pin compares gens before and after its I/O. It is
//! valid only if they are equal and fewer than two garbage collections ended meanwhile: each lets
//! a gen advance by at most 96, and 2 · 96 increments do not come round to the same value.

use core::fmt;

/// How far a bucket's gen may run ahead of `last_gc`, the oldest gen of any pointer into it
/// that garbage collection saw. A bucket at the limit is skipped by invalidation.
///
/// The number is the original's. It must stay below 128, or a live pointer could look stale,
/// and twice of it below 256, or an optimistic read could take a wrapped gen for its own.
pub const GC_GEN_LIMIT: u8 = 96;
const _: () = assert!(GC_GEN_LIMIT < 128 && 2 * (GC_GEN_LIMIT as u16) < 256);

/// A bucket of one device, counted from the device's first sector.
///
/// ```
/// use tierce_core::BucketIndex;
/// let b = BucketIndex::new(7);
/// assert_eq!(b.get(), 7);
/// assert_eq!(b.to_string(), "7");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketIndex(u32);

impl BucketIndex {
    /// The bucket with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Its place in a table that starts with bucket 0.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for BucketIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for BucketIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

/// A device of a set, 0 to 7.
///
/// ```
/// use tierce_core::DeviceIndex;
/// assert_eq!(DeviceIndex::new(3).get(), 3);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DeviceIndex(u8);

impl DeviceIndex {
    /// The only device of a set of one.
    pub const FIRST: Self = Self(0);

    /// The device with this number.
    ///
    /// # Panics
    ///
    /// If `number` is 8 or more: a set has at most [`MAX_DEVICES`](crate::geometry::MAX_DEVICES).
    #[must_use]
    #[inline]
    pub const fn new(number: u8) -> Self {
        assert!(number < crate::geometry::MAX_DEVICES, "a set has at most 8 devices");
        Self(number)
    }

    /// Its number in the set.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Its place in a list of the set's devices.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for DeviceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for DeviceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dev{}", self.0)
    }
}

/// A bucket of a set: which device, and which bucket of it.
///
/// It packs into 28 bits (3 for the device, 25 for the bucket), which is what the word of an
/// open bucket has room for.
///
/// ```
/// use tierce_core::{BucketId, BucketIndex, DeviceIndex};
/// let id = BucketId::new(DeviceIndex::new(1), BucketIndex::new(5));
/// assert_eq!(BucketId::unpack(id.pack()), id);
/// assert_eq!(id.to_string(), "1:5");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketId {
    device: DeviceIndex,
    bucket: BucketIndex,
}

impl BucketId {
    /// Bits of a packed id.
    pub const BITS: u32 = 28;
    const BUCKET_BITS: u32 = 25;

    /// Bucket `bucket` of device `device`.
    #[must_use]
    pub const fn new(device: DeviceIndex, bucket: BucketIndex) -> Self {
        Self { device, bucket }
    }

    /// The device.
    #[must_use]
    pub const fn device(self) -> DeviceIndex {
        self.device
    }

    /// The bucket on that device.
    #[must_use]
    pub const fn bucket(self) -> BucketIndex {
        self.bucket
    }

    /// The id in [`BucketId::BITS`] bits, device on top.
    #[must_use]
    pub const fn pack(self) -> u32 {
        debug_assert!(self.bucket.0 < 1 << Self::BUCKET_BITS);
        (self.device.0 as u32) << Self::BUCKET_BITS | self.bucket.0
    }

    /// The id that [`pack`](Self::pack) made. Bits above the 28th are ignored.
    #[must_use]
    pub const fn unpack(packed: u32) -> Self {
        Self {
            device: DeviceIndex((packed >> Self::BUCKET_BITS & 7) as u8),
            bucket: BucketIndex(packed & ((1 << Self::BUCKET_BITS) - 1)),
        }
    }
}

const _: () = assert!(crate::geometry::MAX_BUCKETS == 1 << BucketId::BUCKET_BITS);

impl fmt::Display for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.bucket)
    }
}

impl fmt::Debug for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}:{}", self.device, self.bucket)
    }
}

/// A generation: 8 bits that wrap.
///
/// ```
/// use tierce_core::Gen;
/// let bucket = Gen::new(3);
/// assert!(Gen::new(1).is_stale(bucket));
/// assert!(!Gen::new(3).is_stale(bucket));
/// assert!(!Gen::new(4).is_stale(bucket), "ahead of the bucket is not stale");
/// assert_eq!(Gen::new(255).next(), Gen::new(0));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Gen(u8);

impl Gen {
    /// The gen with this value.
    #[must_use]
    pub const fn new(value: u8) -> Self {
        Self(value)
    }

    /// Its value.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The gen after this one, wrapping.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// How many increments lead from `earlier` to this gen, modulo 256.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u8 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Whether a pointer with this gen is stale in a bucket that now has gen `bucket`.
    ///
    /// With `d = bucket − self` modulo 256 it is stale iff 0 < d ≤ 128. A pointer *ahead* of
    /// the bucket (d > 128) is not: after a crash the gens on disk may lag behind pointers.
    #[must_use]
    pub const fn is_stale(self, bucket: Self) -> bool {
        let d = bucket.since(self);
        0 < d && d <= 128
    }

    /// Whether this gen is later than `other`, by the same half-circle rule as
    /// [`is_stale`](Self::is_stale): `other` would be stale in a bucket with this gen.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        other.is_stale(self)
    }
}

impl fmt::Display for Gen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Gen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// The age of a bucket: 65535 is metadata, 32768 is fresh, 0 is the oldest.
///
/// ```
/// use tierce_core::Prio;
/// assert_eq!(Prio::FRESH.aged(), Some(Prio::new(32767)));
/// assert_eq!(Prio::METADATA.aged(), None, "metadata does not age");
/// assert_eq!(Prio::new(0).aged(), None, "age sticks at 0");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Prio(u16);

impl Prio {
    /// Index nodes and prio sets: never ages.
    pub const METADATA: Self = Self(u16::MAX);
    /// Just allocated, just read, or just invalidated.
    pub const FRESH: Self = Self(32768);
    /// The oldest.
    pub const OLDEST: Self = Self(0);

    /// The prio with this value.
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value)
    }

    /// Its value.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// One step older, or `None` for what does not age: metadata, and what is oldest already.
    #[must_use]
    pub const fn aged(self) -> Option<Self> {
        match self {
            Self::METADATA | Self::OLDEST => None,
            Self(p) => Some(Self(p - 1)),
        }
    }
}

impl fmt::Display for Prio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Prio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// What garbage collection found in a bucket, or what its allocation promised.
///
/// The order is the order of precedence: a later mark is never replaced by an earlier one
/// while GC is marking.
///
/// ```
/// use tierce_core::Mark;
/// assert!(Mark::None.is_reclaimable() && Mark::Reclaimable.is_reclaimable());
/// assert!(!Mark::Dirty.is_reclaimable() && !Mark::Metadata.is_reclaimable());
/// assert!(Mark::Dirty < Mark::Metadata);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Mark {
    /// Nothing live.
    #[default]
    None = 0,
    /// Live data that exists elsewhere too: it may be thrown away.
    Reclaimable = 1,
    /// The only copy of something.
    Dirty = 2,
    /// Index nodes, the journal, prio sets.
    Metadata = 3,
}

impl Mark {
    /// Whether a bucket with this mark may be invalidated.
    #[must_use]
    pub const fn is_reclaimable(self) -> bool {
        matches!(self, Self::None | Self::Reclaimable)
    }

    /// The mark in 2 bits, as the bucket word and Linux keep it.
    #[must_use]
    pub const fn to_bits(self) -> u8 {
        self as u8
    }

    /// The mark in the low 2 bits of `bits`.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::None,
            1 => Self::Reclaimable,
            2 => Self::Dirty,
            _ => Self::Metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distances at which staleness changes its mind, at every bucket gen.
    #[test]
    fn staleness_at_the_edges() {
        for bucket in 0..=u8::MAX {
            let bucket = Gen::new(bucket);
            for (distance, stale) in [
                (0, false),
                (1, true),
                (95, true),
                (96, true),
                (97, true),
                (127, true),
                (128, true),
                (129, false),
                (255, false),
            ] {
                let pointer = Gen::new(bucket.get().wrapping_sub(distance));
                assert_eq!(pointer.is_stale(bucket), stale, "{pointer:?} in {bucket:?}");
                assert_eq!(bucket.is_after(pointer), stale);
            }
        }
    }

    /// What failed assertions and logs show.
    #[test]
    fn texts_for_people() {
        let id = BucketId::new(DeviceIndex::new(1), BucketIndex::new(5));
        assert_eq!(format!("{:?} {:?} {:?}", id.device(), id.bucket(), id), "dev1 b5 b1:5");
        assert_eq!(format!("{} {} {}", id.device(), id.bucket(), id), "1 5 1:5");
        assert_eq!(format!("{0:?} {0}", Gen::new(7)), "g7 7");
        assert_eq!(format!("{0:?} {0}", Prio::FRESH), "p32768 32768");
    }

    #[test]
    fn marks_keep_their_bits() {
        for bits in 0..4 {
            assert_eq!(Mark::from_bits(bits).to_bits(), bits);
        }
    }

    #[test]
    fn ids_pack_at_their_limits() {
        let last = BucketId::new(
            DeviceIndex::new(crate::geometry::MAX_DEVICES - 1),
            BucketIndex::new(crate::geometry::MAX_BUCKETS - 1),
        );
        assert_eq!(last.pack(), (1 << BucketId::BITS) - 1);
        assert_eq!(BucketId::unpack(last.pack()), last);
    }
}
