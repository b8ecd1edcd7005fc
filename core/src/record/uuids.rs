//! The uuid bucket: which backing devices a cache has known.
//!
//! # Layout
//!
//! An array of entries of 128 bytes in the bucket that the newest journal entry names as
//! `uuid_bucket`; the inode in keys is the place in it, from 0. There is no checksum: any bytes
//! are entries. Numbers are little-endian. The inode of a flash-only volume is a *class* of its
//! own when open buckets are chosen: its data never shares a bucket with cached data.
//!
//! ```text
//!       0       1       2       3       4       5       6       7
//!    ┌───────────────────────────────────────────────────────────────┐
//!   0│ uuid, 16 bytes; all zero: the entry is free                   │
//!  16│ label, 32 bytes                                               │
//!  48│ first_reg, seconds            │ last_reg, seconds             │
//!  56│ invalidated, seconds          │ flags: bit 0 flash only       │
//!  64│ sectors, of a volume that lives on flash only                 │
//!  72│ padding, 56 bytes                                             │
//!    └───────────────────────────────────────────────────────────────┘
//! ```

use super::identity::Uuid;
use core::mem::{offset_of, size_of};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = size_of::<Layout>();
const FLAG_FLASH_ONLY: u32 = 1;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    uuid: [u8; 16],
    label: [u8; 32],
    first_reg: U32,
    last_reg: U32,
    invalidated: U32,
    flags: U32,
    sectors: U64,
    padding: [u8; 56],
}

const _: () = assert!(offset_of!(Layout, first_reg) == 48);
const _: () = assert!(offset_of!(Layout, sectors) == 64);
const _: () = assert!(size_of::<Layout>() == 128);

/// What is known of one backing device. Any bytes are an entry.
///
/// ```
/// use tierce_core::record::{Uuid, UuidEntry};
/// let entry = UuidEntry { uuid: Uuid([7; 16]), flags: 1, ..UuidEntry::default() };
/// assert!(entry.is_flash_only());
/// let mut bucket = vec![0; 1024];
/// bucket[256..384].copy_from_slice(&entry.encode());
/// assert_eq!(UuidEntry::decode_all(&bucket).collect::<Vec<_>>(), [(2, entry)]);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UuidEntry {
    /// The identity of the backing device.
    pub uuid: Uuid,
    /// Its name for people, filled up with zeros.
    pub label: [u8; 32],
    /// When it was seen first: seconds since 1970.
    pub first_reg: u32,
    /// When it was seen last: seconds since 1970.
    pub last_reg: u32,
    /// When what is cached of it became void: seconds since 1970.
    pub invalidated: u32,
    /// Bit 0: a volume that lives on flash only.
    pub flags: u32,
    /// The size of such a volume.
    pub sectors: u64,
}

impl UuidEntry {
    /// Whether it is a volume that lives on flash only.
    #[must_use]
    pub const fn is_flash_only(&self) -> bool {
        self.flags & FLAG_FLASH_ONLY != 0
    }

    /// The entry as on the device.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let layout = Layout {
            uuid: self.uuid.0,
            label: self.label,
            first_reg: self.first_reg.into(),
            last_reg: self.last_reg.into(),
            invalidated: self.invalidated.into(),
            flags: self.flags.into(),
            sectors: self.sectors.into(),
            padding: [0; 56],
        };
        zerocopy::transmute!(layout)
    }

    /// The entries in use among those that `bytes` has room for, each with its inode.
    pub fn decode_all(bytes: &[u8]) -> impl Iterator<Item = (u32, Self)> + use<'_> {
        bytes.chunks_exact(ENTRY_BYTES).zip(0..).filter_map(|(entry, inode)| {
            let layout = Layout::ref_from_bytes(entry).ok()?;
            (layout.uuid != [0; 16]).then(|| (inode, Self::from_layout(layout)))
        })
    }

    fn from_layout(layout: &Layout) -> Self {
        Self {
            uuid: Uuid(layout.uuid),
            label: layout.label,
            first_reg: layout.first_reg.get(),
            last_reg: layout.last_reg.get(),
            invalidated: layout.invalidated.get(),
            flags: layout.flags.get(),
            sectors: layout.sectors.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any bytes decode; what is decoded encodes to the same bytes, padding apart.
        #[test]
        fn any_bytes_decode(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let mut count = 0;
            for (inode, entry) in UuidEntry::decode_all(&bytes) {
                let at = inode as usize * ENTRY_BYTES;
                prop_assert_eq!(&entry.encode()[..72], &bytes[at..at + 72]);
                count += 1;
            }
            prop_assert!(count <= bytes.len() / ENTRY_BYTES);
        }
    }

    /// The layout at the top of this file; the inode is the place, free entries counted.
    #[test]
    fn fields_lie_where_the_layout_says() {
        let mut bytes = [0; 3 * ENTRY_BYTES + 1];
        let bucket = &mut bytes[2 * ENTRY_BYTES..];
        bucket[15] = 1;
        bucket[16..19].copy_from_slice(b"vol");
        for (at, value) in [(48, 10), (52, 20), (56, 30), (64, 50), (68, 60), (72, 99)] {
            bucket[at] = value;
        }
        for (flags, flash_only) in [(0, false), (1, true), (2, false), (3, true)] {
            bytes[2 * ENTRY_BYTES + 60] = flags;
            let entries: Vec<_> = UuidEntry::decode_all(&bytes).collect();
            let [(2, entry)] = &entries[..] else { panic!("{entries:?}") };
            assert_eq!(entry.uuid.to_string(), "00000000-0000-0000-0000-000000000001");
            assert_eq!(entry.label.trim_ascii_end()[..3], *b"vol");
            assert_eq!((entry.first_reg, entry.last_reg, entry.invalidated), (10, 20, 30));
            assert_eq!((entry.flags, entry.sectors), (flags.into(), 60 << 32 | 50));
            assert_eq!(entry.is_flash_only(), flash_only);
        }
    }
}
