//! A file that a command writes its figures to.
//!
//! What is in it stays until there is something to write in its stead, and it is none that must
//! not be overwritten: a block device, a cache, or what the command reads.

use anyhow::{Context, bail};
use std::fs::{File, Metadata, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tierce_core::record::superblock::{MAGIC, MAGIC_OFFSET};

/// A file to be written, open.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    file: File,
    is_regular: bool,
}

impl Output {
    /// The file at `path`, which is made if it does not exist. The command reads `inputs`.
    pub(crate) fn open<'a>(
        path: &Path,
        inputs: impl IntoIterator<Item = &'a Path>,
    ) -> anyhow::Result<Self> {
        let name = path.display();
        let is_input = |there: &Metadata, input: &Path| {
            let id = |of: &Metadata| (of.dev(), of.ino());
            std::fs::metadata(input).is_ok_and(|input| id(&input) == id(there))
        };
        if let Ok(there) = std::fs::metadata(path) {
            if there.file_type().is_block_device() {
                bail!("cannot write {name}: it is a block device, wanted a file");
            }
            if inputs.into_iter().any(|input| is_input(&there, input)) {
                bail!("cannot write {name}: it is what is read");
            }
            if there.is_file() && carries_a_cache(path) {
                bail!("cannot write {name}: it carries a cache");
            }
        }
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = opened.with_context(|| format!("cannot write {name}"))?;
        let is_regular = file.metadata().is_ok_and(|there| there.is_file());
        Ok(Self { path: path.into(), file, is_regular })
    }

    /// Writes `bytes` in place of what was there.
    pub(crate) fn write(mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let emptied = if self.is_regular { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(bytes));
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether there is a superblock; not if that cannot be told.
fn carries_a_cache(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut magic, MAGIC_OFFSET));
    read.is_ok() && magic == MAGIC
}
