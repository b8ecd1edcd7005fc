//! In which order buckets are reused: by key, then by number.

use tierce_core::policy::lru_key;
use tierce_core::word::SECTORS_MAX;
use tierce_core::{BucketIndex, Prio, Snapshot};

/// A bucket's place in the order: the key above the bucket's number. No two are the same, so
/// whatever is the smallest of a table does not depend on who looks at it in which order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank(u64);

impl Rank {
    /// After every bucket.
    pub(crate) const LAST: Self = Self((1 << 30) << 32 | u32::MAX as u64);

    pub(crate) fn new(key: u32, bucket: BucketIndex) -> Self {
        debug_assert!(key < 1 << 30, "keys have 30 bits");
        Self(u64::from(key) << 32 | u64::from(bucket.get()))
    }

    pub(crate) fn key(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn bucket(self) -> BucketIndex {
        BucketIndex::new(self.0 as u32)
    }
}

/// What it takes to tell the key of a word, the same throughout a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    /// The smallest prio that the last rescale left.
    pub(crate) min_prio: Prio,
}

impl Keys {
    pub(crate) fn key(self, word: Snapshot) -> u32 {
        lru_key(word, self.min_prio)
    }

    /// The key as a scan computes it.
    pub(crate) fn estimate(self) -> Estimate {
        let min = u32::from(self.min_prio.get());
        let offset = u32::from(Prio::FRESH.get()).saturating_sub(min) / 8;
        Estimate { floor: min, add: offset.wrapping_sub(min) }
    }
}

/// A lower bound of the key in as few instructions as possible, see [`super::scan`]. Whatever
/// looks small enough by it is looked at again with the exact key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    /// A prio below this counts as this.
    pub(crate) floor: u32,
    /// To be added to the prio, modulo 2^32.
    pub(crate) add: u32,
}

impl Estimate {
    /// `(max(prio, min) − min + offset) · sectors`.
    #[inline(always)]
    pub(crate) fn of(self, word: u64) -> u32 {
        let word = Snapshot::from_bits(word);
        let prio = u32::from(word.prio().get()).max(self.floor).wrapping_add(self.add);
        prio.wrapping_mul(u32::from(word.sectors()))
    }
}

const _: () = assert!((u16::MAX as u64 + 4096) * (SECTORS_MAX as u64) < 1 << 30);
