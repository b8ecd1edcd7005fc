//! One request, in the terms that all formats share.

use std::ops::Range;
use std::time::Duration;

/// Bytes of a sector, the unit in which block traces count.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// What a request wants.
///
/// ```
/// use tierce_bench::Op;
/// assert_ne!(Op::Get, Op::Set);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Read; a cache that misses fills itself.
    Get,
    /// Write.
    Set,
    /// Delete, trim, discard: what was there is of no use any more.
    Remove,
}

/// What a request is about.
///
/// ```
/// use tierce_bench::Target;
/// let sector_8 = Target::Extent { volume: 0, offset: 4096 };
/// assert_eq!(sector_8.key(), 8);
/// assert_eq!(Target::Object(8).key(), 8);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// A named object. Names that are not numbers were hashed to 64 bits.
    Object(u64),
    /// Bytes of a volume from `offset` on; volumes are numbered as they appear in the trace.
    Extent {
        /// The volume.
        volume: u16,
        /// In bytes, below [`Target::OFFSET_END`].
        offset: u64,
    },
}

impl Target {
    /// Every extent ends at or below this: the last sector but one that leaves 16 bits of a
    /// sector number for the volume.
    pub const OFFSET_END: u64 = (1 << 57) - SECTOR_BYTES;

    /// A number for the object, or for the sector where the extent starts: equal for equal
    /// objects or sectors, different for different ones of the same trace.
    #[must_use]
    pub const fn key(self) -> u64 {
        match self {
            Self::Object(id) => id,
            Self::Extent { volume, offset } => ((volume as u64) << 48) | (offset / SECTOR_BYTES),
        }
    }

    /// The object with this name: its number, or the 64-bit hash of what is not a number.
    pub(crate) fn named(name: &str) -> Self {
        Self::Object(name.parse().unwrap_or_else(|_| {
            // FNV-1a, then mixed because its high bits are weak for short names.
            let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            crate::value::mix(hash)
        }))
    }
}

/// One recorded or generated request.
///
/// ```
/// use std::time::Duration;
/// use tierce_bench::{Op, Request, Target};
/// let target = Target::Extent { volume: 0, offset: 6 * 1024 };
/// let read = Request { time: Duration::ZERO, op: Op::Get, target, size: 4096 };
/// assert_eq!(read.pages(4096), Some(1..3)); // bytes 6144 to 10240
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// When, since the first request of the trace; zero where the format has no times.
    pub time: Duration,
    /// What for.
    pub op: Op,
    /// What about.
    pub target: Target,
    /// In bytes; at most [`Request::SIZE_MAX`] unless it is a [`Op::Remove`].
    pub size: u64,
}

impl Request {
    /// Reads and writes beyond 1 GiB are taken for a damaged trace.
    pub const SIZE_MAX: u64 = 1 << 30;

    /// The pages of `page_bytes` that an extent covers, numbered through all volumes; `None`
    /// for an object, which has no place.
    ///
    /// `page_bytes` must be a power of two from 512 on.
    #[must_use]
    pub fn pages(&self, page_bytes: u64) -> Option<Range<u64>> {
        assert!(page_bytes.is_power_of_two() && page_bytes >= SECTOR_BYTES);
        match self.target {
            Target::Object(_) => None,
            Target::Extent { volume, offset } => {
                let base = u64::from(volume) << 48;
                let first = base + offset / page_bytes;
                let end = base + (offset + self.size).div_ceil(page_bytes);
                Some(first..if self.size == 0 { first } else { end })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(volume: u16, offset: u64, size: u64) -> Request {
        let target = Target::Extent { volume, offset };
        Request { time: Duration::ZERO, op: Op::Get, target, size }
    }

    #[test]
    fn pages_cover_every_byte_and_no_more() {
        assert_eq!(extent(0, 0, 4096).pages(4096), Some(0..1));
        assert_eq!(extent(0, 4095, 2).pages(4096), Some(0..2));
        assert_eq!(extent(0, 63 * 512, 4096).pages(4096), Some(7..9));
        assert_eq!(extent(0, 8192, 0).pages(4096).map(|p| p.count()), Some(0));
        assert_eq!(extent(2, 512, 512).pages(512), Some((2 << 48) + 1..(2 << 48) + 2));
    }

    #[test]
    fn volumes_do_not_overlap() {
        let last = extent(0, Target::OFFSET_END - 512, 512);
        assert!(last.target.key() < extent(1, 0, 512).target.key());
    }

    #[test]
    fn names_are_numbers_or_hashes() {
        assert_eq!(Target::named("47348207"), Target::Object(47_348_207));
        assert_ne!(Target::named("user:1"), Target::named("user:2"));
        assert_eq!(Target::named("user:1"), Target::named("user:1"));
    }
}
