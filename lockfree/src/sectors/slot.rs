//! The word of an open bucket.
//!
//! ```text
//!  63                       36 35         23 22         10  9  8       0
//! ┌───────────────────────────┬─────────────┬─────────────┬────┬─────────┐
//! │          bucket           │     off     │     cnt     │only│   gen   │
//! └───────────────────────────┴─────────────┴─────────────┴────┴─────────┘
//! ```
//!
//! *bucket*: its packed id, 0 for none (bucket 0 of a device holds the superblock and is never
//! allocated). *off*: units handed out. *cnt*: extents handed out, each with one of its pins.
//! *only*: the class of what is written, data that lives only on flash; kept when the bucket is
//! closed. *gen*: that of the bucket, whose pin freezes it while it is open, so that pointers to
//! extents are made without a look at the bucket's word.
//!
//! Within one opening off only grows, and a bucket is opened once in each of its lives. So a stale
//! change of an open bucket could succeed only if the bucket came back into the same slot 256 lives
//! later with the same off and cnt, while one thread stood still. One of a closed slot puts a
//! bucket where there is none.

use crate::bucket_ref::BucketRef;
use core::fmt;
use tierce_core::{BucketId, Gen};

const CNT: u32 = 10;
const OFF: u32 = 23;
const BUCKET: u32 = 36;
const ONLY: u32 = 9;
const GEN_MASK: u64 = 0xff;
const FIELD_MASK: u64 = (1 << 13) - 1;
const _: () =
    assert!(BUCKET + BucketId::BITS == u64::BITS && OFF - CNT == 13 && BUCKET - OFF == 13);

/// An open bucket at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SlotWord(u64);

/// What taking space leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// The slot holds no bucket.
    NoBucket,
    /// These units of the bucket are the caller's once the CAS to `next` succeeds.
    Units {
        bucket: BucketId,
        off: u32,
        units: u32,
        next: SlotWord,
        /// The bucket is closed with this, and this many prepaid pins are unused.
        unused_pins: Option<u16>,
    },
}

impl SlotWord {
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn bucket(self) -> Option<BucketId> {
        let packed = (self.0 >> BUCKET) as u32;
        (packed != 0).then(|| BucketId::unpack(packed))
    }

    pub(crate) const fn off(self) -> u32 {
        (self.0 >> OFF & FIELD_MASK) as u32
    }

    pub(crate) const fn cnt(self) -> u32 {
        (self.0 >> CNT & FIELD_MASK) as u32
    }

    /// The gen of the bucket.
    #[inline]
    pub(crate) fn gen_(self) -> Gen {
        Gen::new((self.0 & GEN_MASK) as u8)
    }

    /// Whether what is written there lives only on flash.
    pub(crate) const fn is_flash_only(self) -> bool {
        self.0 >> ONLY & 1 != 0
    }

    /// With `bucket`, nothing handed out yet, in place of none.
    pub(crate) fn opened(self, bucket: BucketRef, flash_only: bool) -> Self {
        debug_assert!(self.bucket().is_none() && bucket.id().pack() != 0);
        let class = u64::from(flash_only) << ONLY;
        let id = u64::from(bucket.id().pack()) << BUCKET;
        Self(id | class | u64::from(bucket.gen_().get()))
    }

    /// Without a bucket.
    pub(crate) const fn closed(self) -> Self {
        Self(self.0 & (1 << ONLY | GEN_MASK))
    }

    /// Of the pins taken in advance for a bucket of `units`, those that no extent was given.
    pub(crate) const fn prepaid(self, units: u32) -> u32 {
        units - self.cnt() - 1
    }

    /// Up to `wanted` of the `units` a bucket has. What would remain is lost, and the bucket
    /// closed, if it is less than `block` units.
    #[inline]
    pub(crate) fn take(self, wanted: u32, units: u32, block: u32) -> Take {
        let Some(bucket) = self.bucket() else { return Take::NoBucket };
        let off = self.off();
        let taken = wanted.min(units - off);
        let closes = units - off - taken < block;
        let (next, unused_pins) = if closes {
            // Of `units` pins each extent before has its own, and this one gets the slot's.
            // A bucket has at most 8191 units.
            (self.closed(), Some(self.prepaid(units) as u16))
        } else {
            (Self(self.0 + (u64::from(taken) << OFF) + (1 << CNT)), None)
        };
        Take::Units { bucket, off, units: taken, next, unused_pins }
    }
}

impl fmt::Debug for SlotWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotWord")
            .field("bucket", &self.bucket())
            .field("off", &self.off())
            .field("cnt", &self.cnt())
            .field("flash_only", &self.is_flash_only())
            .field("gen", &self.gen_())
            .finish()
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use tierce_core::{BucketIndex, DeviceIndex};

    /// Whatever is asked for, what is handed out of a bucket is disjoint and gapless, and pins
    /// come out even.
    #[test]
    fn a_bucket_is_handed_out_exactly() {
        let id = BucketId::new(DeviceIndex::new(7), BucketIndex::new((1 << 25) - 1));
        let pointer = BucketRef::new(id, Gen::new(255));
        for units in [8, 100, 8191] {
            for block in [1, 8] {
                for wanted in 1..=units.min(20) {
                    let mut word = SlotWord::default().opened(pointer, true);
                    let mut end = 0;
                    let mut extents = 0;
                    loop {
                        let Take::Units { bucket, off, units: got, next, unused_pins } =
                            word.take(wanted, units, block)
                        else {
                            unreachable!("the bucket is open")
                        };
                        assert_eq!((bucket, off, word.gen_()), (id, end, Gen::new(255)));
                        assert!(0 < got && got <= wanted);
                        end += got;
                        extents += 1;
                        word = next;
                        if let Some(unused) = unused_pins {
                            assert_eq!(u32::from(unused) + extents, units);
                            break;
                        }
                        assert_eq!((word.off(), word.cnt()), (end, extents));
                    }
                    assert!(end <= units && units - end < block);
                    assert_eq!(word.take(1, units, block), Take::NoBucket);
                    assert!(word.is_flash_only(), "its class is remembered");
                }
            }
        }
    }
}
