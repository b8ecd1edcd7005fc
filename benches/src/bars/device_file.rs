//! What device bars are measured on: a sparse file, or a loop device over one in memory.

use crate::loop_device::LoopDevice;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where sparse files go: `TIERCE_BENCH_DIR`, or the directory for temporary files.
fn directory() -> PathBuf {
    std::env::var_os("TIERCE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A sparse file, removed when dropped, or a loop device.
#[derive(Debug)]
pub(super) struct DeviceFile {
    place: Place,
    /// How settings name it.
    pub(super) name: &'static str,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Loop(LoopDevice),
}

impl DeviceFile {
    /// In [`directory`].
    pub(super) fn on_disk(bytes: u64) -> std::io::Result<Self> {
        let file = directory().join(format!("tierce-bars-{}", std::process::id()));
        File::create(&file)?.set_len(bytes)?;
        Ok(Self { place: Place::File(file), name: "file" })
    }

    /// A loop device over a file in memory, which shows what software costs.
    pub(super) fn in_memory(bytes: u64) -> std::io::Result<Self> {
        let file = PathBuf::from(format!("/dev/shm/tierce-bars-{}", std::process::id()));
        let options = ["--direct-io=on", "--sector-size", "4096"];
        let place = Place::Loop(LoopDevice::new(&file, bytes, &options)?);
        Ok(Self { place, name: "loop over tmpfs" })
    }

    pub(super) fn path(&self) -> &Path {
        match &self.place {
            Place::File(file) => file,
            Place::Loop(device) => device.path(),
        }
    }
}

impl Drop for DeviceFile {
    fn drop(&mut self) {
        if let Place::File(file) = &self.place
            && let Err(error) = std::fs::remove_file(file)
        {
            eprintln!("{} is not removed: {error}", file.display());
        }
    }
}
