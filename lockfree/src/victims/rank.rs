//! In which order buckets are reused: by key, then by number.

use tierce_core::policy::lru_key;
use tierce_core::word::SECTORS_MAX;
use tierce_core::{AgeEpoch, BucketIndex, Prio, Snapshot, broken};

/// A bucket's place in the order: the key above the bucket's number. No two are the same, so
/// whatever is the smallest of a table does not depend on who looks at it in which order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank(u64);

impl Rank {
    /// No bucket is before it.
    pub(crate) const FIRST: Self = Self(0);

    /// After every bucket.
    pub(crate) const LAST: Self = Self((1 << 30) << 32 | u32::MAX as u64);

    pub(crate) fn new(key: u32, bucket: BucketIndex) -> Self {
        debug_assert!(key < 1 << 30, "keys have 30 bits");
        Self(u64::from(key) << 32 | u64::from(bucket.get()))
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
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
    /// The age epoch when the pass began: what is used after that is fresh at it, too.
    pub(crate) epoch: AgeEpoch,
    /// The smallest prio that the last rescale left.
    pub(crate) min_prio: Prio,
}

impl Keys {
    /// The key of a word as the table keeps it.
    pub(crate) fn key(self, word: Snapshot) -> u32 {
        lru_key(self.epoch.reveal(word), self.min_prio)
    }

    /// The key as a scan computes it.
    pub(crate) fn estimate(self) -> Estimate {
        let oldest = Prio::FRESH.get().saturating_sub(self.min_prio.get());
        let fresh = u32::from(oldest) + u32::from(oldest) / 8;
        Estimate { epoch: self.epoch.stamp().bits(), oldest: oldest.into(), fresh }
    }
}

/// A lower bound of the key in as few instructions as possible, see [`super::scan`]. Whatever
/// looks small enough by it is looked at again with the exact key.
///
/// Of a word that has the age a, counted in epochs, the key is `(fresh − min(a, oldest)) ·
/// sectors`. The age is epoch − stamp modulo 65535, and here modulo 65536, which is one more
/// where it goes round, so that the bucket seems older. Metadata and stamps of epochs that begin
/// during the pass have no age, but keys above all others: they seem older in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    /// The age epoch.
    pub(crate) epoch: u16,
    /// The age of a bucket of `min_prio`; who is older counts as if he were not.
    pub(crate) oldest: u32,
    /// What the sectors of a fresh bucket are multiplied by.
    pub(crate) fresh: u32,
}

impl Estimate {
    /// Of a word as the table keeps it.
    #[inline(always)]
    pub(crate) fn of(self, word: u64) -> u32 {
        let word = Snapshot::from_bits(word);
        let later = u16::from(broken!("lru_estimate_too_high"));
        let age = self.epoch.wrapping_sub(word.stamp().bits()).saturating_sub(later);
        (self.fresh - u32::from(age).min(self.oldest)) * u32::from(word.sectors())
    }
}

const _: () = assert!((u16::MAX as u64 + 4096) * (SECTORS_MAX as u64) < 1 << 30);
