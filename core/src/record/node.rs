//! An index node: sets of keys (bsets) that were appended one after the other.
//!
//! # Layout of a bset
//!
//! ```text
//!       0       1       2       3       4       5       6       7
//!    ┌───────────────────────────────────────────────────────────────┐
//!   0│ csum, over bytes 8 to 32 + 8·keys, seeded with the node's     │
//!    │ first pointer instead of all ones                             │
//!   8│ magic: set magic ^ 0x90135C78B99E07F5                         │
//!  16│ seq: the same in all bsets of a node                          │
//!  24│ version: 1                    │ keys: words behind the header │
//!  32│ keys, 8 bytes per word                                        │
//!    └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Reading
//!
//! A node is as large as the key that points to it says. Its bsets start at block boundaries,
//! one behind the other, until one has another magic, seq or checksum, or the node is full: the
//! newest bset may be torn by a crash. A later bset wins over an earlier one:
//!
//! * above the leaves, of two keys with the same inode and end the later counts;
//! * in leaves, keys are extents, and where two overlap the later counts: the earlier one is
//!   trimmed, split, or gone. A key without pointers only takes away.

use super::key::{Key, Keys, Pointer};
use super::{Check, SetMagic, crc};
use crate::error::{Error, Place, RecordKind};
use core::mem::{offset_of, size_of};
use std::collections::BTreeMap;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a bset without keys.
pub const HEADER_BYTES: usize = size_of::<Header>();
const VERSION: u32 = 1;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    csum: U64,
    magic: U64,
    seq: U64,
    version: U32,
    keys: U32,
}

const _: () = assert!(offset_of!(Header, version) == 24);
const _: () = assert!(size_of::<Header>() == 32);

/// A decoded index node.
///
/// ```
/// use tierce_core::{Gen, error::Place};
/// use tierce_core::record::{Key, Node, Pointer, SetMagic};
/// let (set, at) = (SetMagic(42), Pointer::new(0, 1280, Gen::new(1)));
/// let data = |sector| [Pointer::new(0, sector, Gen::new(0))];
/// let old = Key::new(1, 100, 100, &data(4096));
/// let new = Key::new(1, 50, 20, &data(8192));
///
/// let mut bytes = vec![0; 4096];
/// let used = Node::encode_bset(&mut bytes, set, at, 7, 512, &[old])?;
/// Node::encode_bset(&mut bytes[used..], set, at, 7, 512, &[new])?;
/// let node = Node::decode(&bytes, set, at, 512, Place::device(0))?;
/// assert_eq!((node.seq, node.bsets.len()), (7, 2));
/// assert_eq!(
///     node.merged(0),
///     [Key::new(1, 30, 30, &data(4096)), new, Key::new(1, 100, 50, &data(4146))],
/// );
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Node {
    /// The number that all its bsets carry.
    pub seq: u64,
    /// The keys of each bset, oldest bset first.
    pub bsets: Vec<Vec<Key>>,
    /// Bytes that the bsets occupy: the next one goes there.
    pub bytes: usize,
}

impl Node {
    /// Writes a bset of `keys` to the start of `out`, filled up with zeros to whole blocks of
    /// `block_bytes` (a power of two), and returns how many bytes that are. `first_pointer` is
    /// that of the key which points to the node.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if `out` is too short.
    pub fn encode_bset(
        out: &mut [u8],
        set: SetMagic,
        first_pointer: Pointer,
        seq: u64,
        block_bytes: u32,
        keys: &[Key],
    ) -> Result<usize, Error> {
        let words: usize = keys.iter().map(Key::word_count).sum();
        let end = HEADER_BYTES + 8 * words;
        let (room, used) = (out.len(), end.next_multiple_of(block_bytes as usize));
        let Some(out) = out.get_mut(..used) else {
            let wanted = format!("at least the bset's {used}");
            return Err(Error::limit("bytes of the node buffer", room as u64, wanted));
        };
        let header = Header {
            csum: U64::ZERO,
            magic: set.node().into(),
            seq: seq.into(),
            version: VERSION.into(),
            keys: (words as u32).into(),
        };
        out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        let words = keys.iter().flat_map(Key::words);
        for (place, word) in out[HEADER_BYTES..end].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out[end..].fill(0);
        let csum = crc::checksum_seeded(first_pointer.bits(), &out[8..end]);
        out[..8].copy_from_slice(&csum.to_le_bytes());
        Ok(used)
    }

    /// The node that fills `bytes`, whose bsets start at blocks of `block_bytes` (a power of
    /// two); `first_pointer` is that of the key which points to it, `place` where it lies.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] if there is not even one bset, or if one with a sound checksum has
    /// another version or keys that reach beyond its end.
    pub fn decode(
        bytes: &[u8],
        set: SetMagic,
        first_pointer: Pointer,
        block_bytes: u32,
        place: Place,
    ) -> Result<Self, Error> {
        let mut node = Self { seq: 0, bsets: Vec::new(), bytes: 0 };
        while let Some(rest) = bytes.get(node.bytes..) {
            let here = place.plus(node.bytes as u64);
            let (header, words) = match Self::bset(rest, set, first_pointer, here) {
                Ok(bset) => bset,
                Err(error) if node.bsets.is_empty() => return Err(error),
                Err(_) => break,
            };
            let seq = header.seq.get();
            if node.bsets.is_empty() {
                node.seq = seq;
            } else if seq != node.seq {
                break;
            }
            let check = Check::new(RecordKind::Node, here);
            check.that(header.version.get() == VERSION, "version", header.version, VERSION)?;
            let place = here.plus(HEADER_BYTES as u64);
            let keys = Keys::new(words.iter().map(|word| word.get()), place);
            node.bsets.push(keys.collect::<Result<_, _>>()?);
            let end = HEADER_BYTES + 8 * words.len();
            node.bytes += end.next_multiple_of(block_bytes as usize);
        }
        Ok(node)
    }

    /// The header and words of the bset at the start of `bytes`, if its checksum is sound.
    fn bset(
        bytes: &[u8],
        set: SetMagic,
        first_pointer: Pointer,
        place: Place,
    ) -> Result<(&Header, &[U64]), Error> {
        let check = Check::new(RecordKind::Node, place);
        let Ok((header, rest)) = Header::ref_from_prefix(bytes) else {
            return Err(check.error("length", bytes.len(), HEADER_BYTES));
        };
        check.same_bits("magic", header.magic.get(), set.node())?;
        let keys = header.keys.get() as usize;
        let Ok((words, _)) = <[U64]>::ref_from_prefix_with_elems(rest, keys) else {
            let wanted = format_args!("at most the {} that fit the node", rest.len() / 8);
            return Err(check.error("keys", keys, wanted));
        };
        let sum = crc::checksum_seeded(first_pointer.bits(), &bytes[8..HEADER_BYTES + 8 * keys]);
        check.same_bits("csum", header.csum.get(), sum)?;
        Ok((header, words))
    }

    /// What the node says when later bsets win: in order of inode and end, without keys that
    /// only take away. `level` is 0 for leaves.
    #[must_use]
    pub fn merged(&self, level: u16) -> Vec<Key> {
        let keys = self.bsets.iter().flatten();
        if level > 0 {
            let latest: BTreeMap<_, _> = keys.map(|key| ((key.inode(), key.end()), *key)).collect();
            return latest.into_values().filter(|key| !key.pointers().is_empty()).collect();
        }
        let mut extents = BTreeMap::new();
        for key in keys {
            overwrite(&mut extents, *key);
        }
        extents.into_values().filter(|key| !key.pointers().is_empty()).collect()
    }
}

/// Adds `new` to disjoint `extents` by (inode, end); what it overlaps gives way.
fn overwrite(extents: &mut BTreeMap<(u32, u64), Key>, new: Key) {
    let inode = new.inode();
    // An extent that would start before its object starts with it.
    let start = new.start().unwrap_or(0);
    let end = new.end();
    if start == end {
        return;
    }
    // Each step takes one extent away and puts back at most a head and a tail, which do not
    // overlap, so a key is looked at once for every extent that ends in it, and once more.
    while let Some((&place, &old)) = extents.range((inode, start + 1)..).next() {
        let old_start = old.start().unwrap_or(0);
        if place.0 != inode || old_start >= end {
            break;
        }
        extents.remove(&place);
        if old_start < start {
            extents.insert((inode, start), old.cut(old_start, start));
        }
        if old.end() > end {
            extents.insert(place, old.cut(end, old.end()));
        }
    }
    extents.insert((inode, end), new);
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
