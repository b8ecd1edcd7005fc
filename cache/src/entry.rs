//! An entry on the device: header, key, value, zeros up to the next block.
//!
//! ```text
//!   0       8      12      16      20      24
//!  ┌───────┬───────┬───────┬───────┬───────┬─ ─ ─ ─┬─ ─ ─ ─ ─┬─ ─ ─ ─┐
//!  │  crc  │ magic │version│  key  │ value │  key  │  value  │ zeros │
//!  │  u64  │  u32  │  u32  │ bytes │ bytes │       │         │       │
//!  └───────┴───────┴───────┴───────┴───────┴─ ─ ─ ─┴─ ─ ─ ─ ─┴─ ─ ─ ─┘
//! ```
//!
//! Little-endian. *crc* is CRC-64/NVME over everything from *magic* to the end of the value. A
//! reader accepts an entry only if magic, version, lengths, crc and the whole key are right, so
//! bytes of anything else (a torn write, another entry, another life of the bucket) are never
//! taken for the value.

use crc_fast::{CrcAlgorithm, checksum};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: u32 = 0x6574_7263; // "crte" on the device
const VERSION: u32 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    crc: U64,
    magic: U32,
    version: U32,
    key_bytes: U32,
    value_bytes: U32,
}

/// Bytes before the key.
pub(crate) const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(HEADER_BYTES == 24 && core::mem::offset_of!(Header, magic) == 8);

/// What is wrong with the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It is no entry, or a damaged one.
    Corrupt,
    /// It is an entry, of another key with the same hash.
    OtherKey,
}

/// Bytes of an entry, before rounding up to blocks.
pub(crate) fn bytes(key: &[u8], value: &[u8]) -> u64 {
    HEADER_BYTES as u64 + key.len() as u64 + value.len() as u64
}

/// Writes an entry to the front of `out` and zeros behind it. The caller has checked that it
/// fits, so both lengths are below 4 GiB.
pub(crate) fn encode(key: &[u8], value: &[u8], out: &mut [u8]) {
    let (header, rest) = out.split_at_mut(HEADER_BYTES);
    let (key_out, rest) = rest.split_at_mut(key.len());
    let (value_out, slack) = rest.split_at_mut(value.len());
    key_out.copy_from_slice(key);
    value_out.copy_from_slice(value);
    slack.fill(0);
    let mut fields = Header {
        crc: U64::ZERO,
        magic: U32::new(MAGIC),
        version: U32::new(VERSION),
        key_bytes: U32::new(key.len() as u32),
        value_bytes: U32::new(value.len() as u32),
    };
    header.copy_from_slice(fields.as_bytes());
    let end = HEADER_BYTES + key.len() + value.len();
    fields.crc = U64::new(checksum(CrcAlgorithm::Crc64Nvme, &out[8..end]));
    out[..HEADER_BYTES].copy_from_slice(fields.as_bytes());
}

/// The value of `key`, if `bytes` is its entry.
pub(crate) fn decode<'a>(key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], Flaw> {
    let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| Flaw::Corrupt)?;
    let (key_bytes, value_bytes) =
        (header.key_bytes.get() as usize, header.value_bytes.get() as usize);
    let fits = key_bytes.checked_add(value_bytes).is_some_and(|bytes| bytes <= rest.len());
    if header.magic.get() != MAGIC || header.version.get() != VERSION || !fits {
        return Err(Flaw::Corrupt);
    }
    let end = HEADER_BYTES + key_bytes + value_bytes;
    if checksum(CrcAlgorithm::Crc64Nvme, &bytes[8..end]) != header.crc.get() {
        return Err(Flaw::Corrupt);
    }
    let (found, rest) = rest.split_at(key_bytes);
    if found != key {
        return Err(Flaw::OtherKey);
    }
    Ok(&rest[..value_bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut block = vec![0xAA; 512];
        encode(key, value, &mut block);
        block
    }

    #[test]
    fn a_value_comes_back_to_its_key_alone() {
        let block = entry(b"key", b"value");
        assert_eq!(decode(b"key", &block), Ok(&b"value"[..]));
        assert_eq!(decode(b"kex", &block), Err(Flaw::OtherKey));
        assert_eq!(decode(b"keyv", &block), Err(Flaw::OtherKey));
        assert_eq!(decode(b"", &entry(b"", b"")), Ok(&b""[..]));
    }

    /// Whichever bit flips, and wherever the entry is cut off, it is not taken for the value.
    #[test]
    fn damage_is_found() {
        let block = entry(b"key", b"value");
        let end = HEADER_BYTES + 8;
        for bit in 0..end * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(b"key", &bad), Err(Flaw::Corrupt), "bit {bit}");
        }
        for cut in 0..end {
            assert_eq!(decode(b"key", &block[..cut]), Err(Flaw::Corrupt), "cut at {cut}");
        }
        assert_eq!(decode(b"key", &[0; 512]), Err(Flaw::Corrupt));
        assert_eq!(decode(b"key", &[0xFF; 512]), Err(Flaw::Corrupt));
    }
}
