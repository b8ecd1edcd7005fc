//! Reading a device or image file, and nothing else.

use anyhow::{Context, bail};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use tierce_core::{BucketIndex, Geometry};

/// A device or image file, opened for reading.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    /// Its size in bytes.
    pub(super) bytes: u64,
}

impl Device {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        // Before opening: opening a pipe would wait for a writer.
        let kind = std::fs::metadata(path).context("cannot be opened")?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            bail!("is neither a file nor a block device");
        }
        let mut file = File::open(path).context("cannot be opened for reading")?;
        let bytes = file.seek(SeekFrom::End(0)).context("its size cannot be found")?;
        Ok(Self { file, bytes })
    }

    /// Fills `out` with the bytes from `byte` on.
    pub(super) fn read(&self, byte: u64, out: &mut [u8]) -> anyhow::Result<()> {
        self.file.read_exact_at(out, byte).with_context(|| {
            let end = byte.saturating_add(out.len() as u64);
            format!("reading bytes {byte} to {end} of {} failed", self.bytes)
        })
    }

    /// Fills `out` with the bytes of `bucket` from `byte` on.
    pub(super) fn read_bucket(
        &self,
        geometry: &Geometry,
        bucket: BucketIndex,
        byte: u64,
        out: &mut [u8],
    ) -> anyhow::Result<()> {
        let start = geometry.first_sector(bucket) * u64::from(tierce_core::geometry::SECTOR_BYTES);
        self.read(start + byte, out).with_context(|| format!("bucket {bucket}"))
    }
}
