//! One entry of the index in 12 bytes: which key, roughly, and where its record is.
//!
//! ```text
//!  tag:35 of the hash | bucket:28 | gen:8 | grain:15 | length:8 | hits:2
//! ```
//!
//! A place is rounded down to, and a length up to, what the bits can say: somewhat more is read
//! than needed, never less ([`Scale`]).
//!
//! *hits* counts gets and overwrites of the key, up to 3, for [`crate::reinsert`].

use crate::layout::GRAINS_MAX;
use tierce_core::{BucketId, Gen};
use tierce_lockfree::BucketRef;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of a key's hash that an entry has.
pub(crate) const TAG_BITS: u32 = 35;
const BUCKET_BITS: u32 = 28;
const GRAIN_BITS: u32 = GRAINS_MAX.ilog2();
const LENGTH_BITS: u32 = 8;
const HITS_AT: u32 = TAG_BITS + BUCKET_BITS + 8 + GRAIN_BITS + LENGTH_BITS;
/// What an entry counts up to.
pub(crate) const HITS_MAX: u8 = 3;
const _: () = assert!(HITS_AT + 2 == 96);

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) bucket: BucketRef,
    /// From the start of the bucket, in bytes.
    pub(crate) offset: u32,
    /// At least as long as the record, as long as its length fits the bucket.
    pub(crate) bytes: u32,
}

/// How the bits of an entry say offset and length, for buckets of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Bytes of a grain: offsets are multiples of it.
    pub(crate) grain: u32,
}

impl Scale {
    /// A length as 4 bits of exponent and 4 of mantissa, rounded up.
    fn length(self, bytes: u32) -> u64 {
        let grains = bytes.div_ceil(self.grain).max(1);
        for exponent in 0..16 {
            let mantissa = grains.div_ceil(1 << exponent);
            if mantissa <= 16 {
                return u64::from(exponent << 4 | (mantissa - 1));
            }
        }
        unreachable!("a bucket has at most 2^15 grains")
    }

    fn bytes(self, length: u64) -> u32 {
        let length = length as u32;
        (((length & 15) + 1) * self.grain) << (length >> 4)
    }
}

/// One entry: 96 bits in three words, so that it needs no padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Packed([u32; 3]);

impl Packed {
    /// No entry. No key has its tag.
    pub(crate) const EMPTY: Self = Self([0; 3]);

    pub(crate) fn is_empty(self) -> bool {
        self.tag() == 0
    }

    pub(crate) fn new(tag: u64, location: Location, scale: Scale) -> Self {
        debug_assert!(tag > 0, "it would look like no entry");
        let bits = u128::from(tag)
            | u128::from(location.bucket.id().pack()) << TAG_BITS
            | u128::from(location.bucket.gen_().get()) << (TAG_BITS + BUCKET_BITS)
            | u128::from(location.offset / scale.grain) << (TAG_BITS + BUCKET_BITS + 8)
            | u128::from(scale.length(location.bytes)) << (TAG_BITS + BUCKET_BITS + 8 + GRAIN_BITS);
        Self([bits as u32, (bits >> 32) as u32, (bits >> 64) as u32])
    }

    pub(crate) fn hits(self) -> u8 {
        self.field(HITS_AT, 2) as u8
    }

    pub(crate) fn with_hits(self, hits: u8) -> Self {
        let [a, b, c] = self.0;
        let at = HITS_AT - 64;
        Self([a, b, c & !(3 << at) | u32::from(hits.min(HITS_MAX)) << at])
    }

    fn bits(self) -> u128 {
        let [a, b, c] = self.0;
        u128::from(a) | u128::from(b) << 32 | u128::from(c) << 64
    }

    fn field(self, shift: u32, bits: u32) -> u64 {
        (self.bits() >> shift) as u64 & ((1 << bits) - 1)
    }

    pub(crate) fn tag(self) -> u64 {
        self.field(0, TAG_BITS)
    }

    pub(crate) fn location(self, scale: Scale) -> Location {
        let id = BucketId::unpack(self.field(TAG_BITS, BUCKET_BITS) as u32);
        let gen_ = Gen::new(self.field(TAG_BITS + BUCKET_BITS, 8) as u8);
        let grains = self.field(TAG_BITS + BUCKET_BITS + 8, GRAIN_BITS) as u32;
        let length = self.field(TAG_BITS + BUCKET_BITS + 8 + GRAIN_BITS, LENGTH_BITS);
        let bucket = BucketRef::new(id, gen_);
        Location { bucket, offset: grains * scale.grain, bytes: scale.bytes(length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths come back at least as long, and at most a sixteenth longer but for grains.
    #[test]
    fn lengths_are_rounded_up() {
        for bucket in [64 << 10, 512 << 10, 2 << 20, 16 << 20] {
            let scale = Scale { grain: (bucket >> 15).max(16) };
            for bytes in (1..bucket).step_by(997).chain([bucket]) {
                let said = scale.bytes(scale.length(bytes));
                assert!(said >= bytes, "{bytes} became {said}");
                assert!(said - bytes <= bytes / 8 + scale.grain, "{bytes} became {said}");
            }
        }
    }
}
