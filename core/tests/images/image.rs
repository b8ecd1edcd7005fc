//! One image of the reference, unpacked.

use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use tierce_core::record::{Superblock, superblock};
use tierce_core::{BucketIndex, Error};

/// Where the images are, `None` (said aloud) if they are absent.
pub(crate) fn reference() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let place = std::env::var("TIERCE_REFERENCE").unwrap_or_else(|_| default.into());
    let images = Path::new(&place).join("images");
    if images.is_dir() {
        return Some(images);
    }
    let required = std::env::var("TIERCE_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(!required, "the reference is required, and absent at {place}");
    eprintln!("skipped: reference absent at {place}");
    None
}

/// A device, and what Linux says about it.
pub(crate) struct Image {
    /// What is known of the image.
    pub(crate) json: Value,
    /// All bytes of the device.
    pub(crate) bytes: Vec<u8>,
    directory: PathBuf,
    name: &'static str,
}

/// A bucket as it was in the kernel's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KernelBucket {
    pub(crate) pin: i32,
    pub(crate) prio: u16,
    pub(crate) generation: u8,
    pub(crate) last_gc: u8,
    pub(crate) mark: u8,
    pub(crate) sectors: u16,
}

impl Image {
    pub(crate) fn open(directory: &Path, name: &'static str) -> Self {
        let file = |suffix: &str| directory.join(format!("{name}.{suffix}"));
        let json = std::fs::read_to_string(file("json")).unwrap();
        let packed = std::fs::File::open(file("img.xz")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let size = json["image_bytes"].as_u64().unwrap();
        let mut bytes = Vec::with_capacity(size as usize);
        let packed = std::io::BufReader::new(packed);
        lzma_rust2::XzReader::new(packed, true).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, size);
        Self { json, bytes, directory: directory.into(), name }
    }

    /// An unpacked `.gz` file of this image.
    pub(crate) fn table(&self, suffix: &str) -> Vec<u8> {
        let path = self.directory.join(format!("{}.{suffix}", self.name));
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).unwrap();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn kernel_buckets(&self, suffix: &str) -> Vec<KernelBucket> {
        let table = self.table(suffix);
        let buckets = table.chunks_exact(12).map(|b| {
            let mark = u16::from_le_bytes([b[8], b[9]]);
            KernelBucket {
                pin: i32::from_le_bytes([b[0], b[1], b[2], b[3]]),
                prio: u16::from_le_bytes([b[4], b[5]]),
                generation: b[6],
                last_gc: b[7],
                mark: (mark & 3) as u8,
                sectors: mark >> 2 & 0x1fff,
            }
        });
        buckets.collect()
    }

    pub(crate) fn superblock_bytes(&self) -> &[u8] {
        &self.bytes[superblock::OFFSET as usize..][..superblock::BYTES]
    }

    pub(crate) fn superblock(&self) -> Superblock {
        Superblock::decode(self.superblock_bytes(), Some(self.bytes.len() as u64)).unwrap()
    }

    /// Fills `out` from byte `byte` of `bucket` on.
    pub(crate) fn read(
        &self,
        superblock: &Superblock,
        bucket: BucketIndex,
        byte: u64,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let start = superblock.geometry().first_sector(bucket) * 512 + byte;
        out.copy_from_slice(&self.bytes[start as usize..][..out.len()]);
        Ok(())
    }
}
