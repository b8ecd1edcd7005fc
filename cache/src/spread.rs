//! A value in parts: the pointers to them.
//!
//! A part's life is named by its whole number, so a pointer to a part whose bucket was reused is
//! found out even if the gen, which has 8 bits only, is the same again.

use crate::index::Location;
use tierce_core::{BucketId, Gen};
use tierce_lockfree::BucketRef;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where a part of a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) location: Location,
    pub(crate) life: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPart {
    life: U64,
    bucket: U32,
    offset: U32,
    bytes: U32,
    gen_: U32,
}

/// Bytes of a pointer.
pub(crate) const BYTES: usize = size_of::<RawPart>();

/// A value has at most so many parts: what their pointers need beside a key is known in advance.
pub(crate) const PARTS_MAX: usize = 64;

/// What is left in a bucket is worth a part if it is at least so long.
pub(crate) const PART_BYTES_MIN: usize = 4096;

/// How long the next part is, after so many: as much as is `left` where the value is being written
/// if that is worth it, or else as much as a `whole` bucket has. Others who write there may take what is
/// left, time and again: the last three parts do not depend on that. (A value is as long as a bucket
/// at most, and a bucket has room for a third of that by far.)
pub(crate) fn next_bytes(parts: usize, left: usize, whole: usize) -> usize {
    if left >= PART_BYTES_MIN && parts < PARTS_MAX - 3 { left } else { whole }
}

impl Part {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let raw = RawPart {
            life: U64::new(self.life),
            bucket: U32::new(self.location.bucket.id().pack()),
            offset: U32::new(self.location.offset),
            bytes: U32::new(self.location.bytes),
            gen_: U32::new(self.location.bucket.gen_().get().into()),
        };
        out.extend_from_slice(raw.as_bytes());
    }
}

/// The pointers in `bytes`; `None` if they are none.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Part>> {
    let raws = <[RawPart]>::ref_from_bytes(bytes).ok()?;
    raws.iter()
        .map(|raw| {
            let id = BucketId::unpack(raw.bucket.get());
            let bucket = BucketRef::new(id, Gen::new(u8::try_from(raw.gen_.get()).ok()?));
            let (offset, bytes) = (raw.offset.get(), raw.bytes.get());
            Some(Part { location: Location { bucket, offset, bytes }, life: raw.life.get() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However little those leave who write to the same bucket.
    #[test]
    fn there_are_never_too_many_parts() {
        for bucket in [16 << 10, 128 << 10, 2 << 20, 64 << 20] {
            let whole = bucket - bucket / 3;
            for left in [0, 1, PART_BYTES_MIN, PART_BYTES_MIN + 1, bucket / 16, whole] {
                let (mut rest, mut parts) = (bucket, 0);
                while rest > 0 {
                    rest = rest.saturating_sub(next_bytes(parts, left, whole));
                    parts += 1;
                }
                assert!(parts <= PARTS_MAX, "{parts} of {bucket} bytes, {left} left each time");
            }
        }
    }
    use tierce_core::{BucketIndex, DeviceIndex};

    #[test]
    fn pointers_come_back() {
        let id = BucketId::new(DeviceIndex::new(3), BucketIndex::new(99));
        let bucket = BucketRef::new(id, Gen::new(200));
        let part = Part { location: Location { bucket, offset: 512, bytes: 4096 }, life: 1 << 60 };
        let mut bytes = Vec::new();
        part.encode(&mut bytes);
        part.encode(&mut bytes);
        assert_eq!(decode(&bytes), Some(vec![part, part]));
        assert_eq!(decode(&bytes[1..]), None);
    }
}
