//! What the fuzz targets share: checksums made right, so that the checks behind them are
//! reached, and a small device made of the fuzzer's bytes.

use tierce_core::error::Place;
use tierce_core::record::crc::{checksum, checksum_seeded};
use tierce_core::record::{Format, Pointer, SetMagic, Superblock, Uuid};
use tierce_core::{BucketIndex, Error, Gen, Geometry};

/// Where records under test are said to lie.
pub const HERE: Place = Place::device(0);
/// The set that all records under test belong to.
pub const SET: SetMagic = SetMagic(u64::from_le_bytes([1; 8]));
/// The pointer through which nodes under test are read.
pub const AT: Pointer = Pointer::new(0, 128, Gen::new(1));

/// Writes the checksum of `bytes[8..end]`, if they are so long, to their start.
pub fn seal(bytes: &mut [u8], end: usize) {
    if let Some(covered) = bytes.get(8..end) {
        let csum = checksum(covered);
        bytes[..8].copy_from_slice(&csum.to_le_bytes());
    }
}

/// The same, seeded with the pointer `at`.
pub fn seal_node(bytes: &mut [u8], end: usize, at: Pointer) {
    if let Some(covered) = bytes.get(8..end) {
        let csum = checksum_seeded(at.bits(), covered);
        bytes[..8].copy_from_slice(&csum.to_le_bytes());
    }
}

/// The little-endian number in 4 bytes from `at` on.
pub fn number(bytes: &[u8], at: usize) -> usize {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    u32::from_le_bytes(four.unwrap_or_default()) as usize
}

/// Replaces the 8 bytes from `at` on, if there are so many.
pub fn put(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(room) = bytes.get_mut(at..at + 8) {
        room.copy_from_slice(&value.to_le_bytes());
    }
}

/// A device of 4 KiB buckets, of which the first hold the fuzzer's bytes and the rest zeros.
pub struct Device<'a> {
    /// Its superblock.
    pub superblock: Superblock,
    bytes: &'a [u8],
}

impl<'a> Device<'a> {
    /// The device whose first usable bucket begins with `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        let uuid = Uuid([1; 16]);
        let format = Format { uuid, set_uuid: uuid, ..Format::new(1400 * 4096, 8, 1) };
        let superblock = Superblock::format(&format).expect("the format is sound").first_use(0);
        Self { superblock, bytes }
    }

    /// Its shape.
    pub fn geometry(&self) -> Geometry {
        *self.superblock.geometry()
    }

    /// Fills `out` from byte `byte` of `bucket` on, and asserts that this is in the device.
    pub fn read(&self, bucket: BucketIndex, byte: u64, out: &mut [u8]) -> Result<(), Error> {
        let geometry = self.geometry();
        assert!(geometry.contains(bucket), "bucket {bucket} was read");
        assert!(byte + out.len() as u64 <= u64::from(geometry.bucket_bytes()));
        let first = u64::from((bucket.get() - geometry.first_bucket().get()) * 4096);
        let start = (first + byte) as usize;
        let bytes = self.bytes.get(start..).unwrap_or_default();
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        out[count..].fill(0);
        Ok(())
    }
}
