//! Which bucket is reused next.
//!
//! All policies choose among the buckets from `first_bucket` on that can be invalidated
//! ([`Snapshot::can_invalidate`]), one *pass* at a time: a pass invalidates buckets and appends
//! them to `free_inc` until that is full. No pass is made while marks are not valid (before the
//! first garbage collection, or while one in place is under way).
//!
//! A pass that cannot fill `free_inc` wakes garbage collection, and there is no further pass
//! before one has ended. If the pass right after one cannot fill it either, what is there is
//! written and released: waiting for more would starve everybody.
//!
//! * **lru** (default): the smallest [`lru_key`] first, ties by the lowest bucket number. A pass
//!   looks at the whole device, takes the smallest *candidates* (twice what `free_inc` holds,
//!   or more) and invalidates them in ascending order until `free_inc` is full.
//! * **fifo**: a cursor runs over the buckets, wrapping, and takes each that can be
//!   invalidated; a pass gives up after `nbuckets` looks. The cursor persists between passes,
//!   not across restarts; outside first_bucket to nbuckets − 1 it starts over at first_bucket.
//! * **random**: uniform draws from first_bucket to nbuckets − 1 ([`crate::draws`]), at most
//!   `nbuckets / 2` of them in a pass.
//!
//! # Age
//!
//! A prio is 32768 when a bucket is allocated or read and falls by 1 for each 1/1024 of the set's
//! size that is read or written ([`Geometry::rescale_step`](crate::Geometry::rescale_step)); the
//! pass that lowers it leaves pinned buckets, 0 and 65535 alone. `min_prio` is the smallest prio
//! that the last such pass left, 0 before the first.

use crate::bucket::Prio;
use crate::word::Snapshot;
use core::fmt;
use core::str::FromStr;

/// A replacement policy. The numbers are those of the superblock's flags.
///
/// ```
/// use tierce_core::Policy;
/// assert_eq!("fifo".parse(), Ok(Policy::Fifo));
/// assert_eq!(Policy::default().to_string(), "lru");
/// assert_eq!(Policy::from_number(7), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Policy {
    /// Least recently used, weighted by emptiness.
    #[default]
    Lru = 0,
    /// In order of bucket number.
    Fifo = 1,
    /// Uniformly at random.
    Random = 2,
}

impl Policy {
    /// The policy with this number in a superblock.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Lru),
            1 => Some(Self::Fifo),
            2 => Some(Self::Random),
            _ => None,
        }
    }

    /// Its number in a superblock.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lru => "lru",
            Self::Fifo => "fifo",
            Self::Random => "random",
        })
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        match name {
            "lru" => Ok(Self::Lru),
            "fifo" => Ok(Self::Fifo),
            "random" => Ok(Self::Random),
            _ => Err(UnknownPolicy),
        }
    }
}

/// The name is none of lru, fifo, random.
///
/// ```
/// # use tierce_core::{Policy, policy::UnknownPolicy};
/// assert_eq!("mru".parse::<Policy>(), Err(UnknownPolicy));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the policy must be lru, fifo or random")]
pub struct UnknownPolicy;

/// How reluctantly a bucket is reused; smaller goes first.
///
/// `(prio − min_prio + (32768 − min_prio) / 8) · sectors`, where a prio below `min_prio` counts
/// as `min_prio`. The offset makes the least recently used worth 1/8 of the fresh, so that
/// emptiness counts too: a nearly empty fresh bucket goes before a full old one. The product
/// fits 30 bits: at most (65535 + 4096) · 8191.
///
/// ```
/// use tierce_core::{Prio, Snapshot, policy::lru_key};
/// let full_and_old = Snapshot::default().with_prio(Prio::new(100)).with_sectors(1024);
/// let fresh_but_empty = Snapshot::default().with_prio(Prio::FRESH).with_sectors(100);
/// assert_eq!(lru_key(full_and_old, Prio::OLDEST), (100 + 4096) * 1024);
/// assert!(lru_key(fresh_but_empty, Prio::OLDEST) < lru_key(full_and_old, Prio::OLDEST));
/// ```
#[must_use]
pub const fn lru_key(word: Snapshot, min_prio: Prio) -> u32 {
    let min = min_prio.get() as u32;
    let offset = (Prio::FRESH.get() as u32).saturating_sub(min) / 8;
    let age = (word.prio().get() as u32).saturating_sub(min);
    (age + offset) * word.sectors() as u32
}

const _: () =
    assert!((u16::MAX as u64 + 4096) * crate::word::SECTORS_MAX as u64 <= u32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the formula in 128 bits.
        #[test]
        fn key_never_overflows(prio: u16, min in 0u16..=32768, sectors in 0u32..=8191) {
            let w = Snapshot::default().with_prio(Prio::new(prio)).with_sectors(sectors);
            let (prio, min) = (i128::from(prio), i128::from(min));
            let wide = ((prio - min).max(0) + (32768 - min) / 8) * i128::from(sectors);
            prop_assert_eq!(i128::from(lru_key(w, Prio::new(min as u16))), wide);
        }
    }

    #[test]
    fn numbers_round_trip() {
        for n in 0..3 {
            let policy = Policy::from_number(n).unwrap();
            assert_eq!(policy.number(), n);
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
    }
}
