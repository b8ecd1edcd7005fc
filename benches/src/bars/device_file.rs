//! What device bars are measured on: a sparse file, or a loop device over one in memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where sparse files go: `TIERCE_BENCH_DIR`, or the directory for temporary files.
fn directory() -> PathBuf {
    std::env::var_os("TIERCE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A sparse file, removed when dropped, and maybe a loop device over it.
#[derive(Debug)]
pub(super) struct DeviceFile {
    file: PathBuf,
    device: Option<PathBuf>,
    /// How settings name it.
    pub(super) name: &'static str,
}

impl DeviceFile {
    /// In [`directory`].
    pub(super) fn on_disk(bytes: u64) -> std::io::Result<Self> {
        let file = directory().join(format!("tierce-bars-{}", std::process::id()));
        File::create(&file)?.set_len(bytes)?;
        Ok(Self { file, device: None, name: "file" })
    }

    /// A loop device over a file in memory, which shows what software costs.
    pub(super) fn in_memory(bytes: u64) -> std::io::Result<Self> {
        let file = PathBuf::from(format!("/dev/shm/tierce-bars-{}", std::process::id()));
        File::create(&file)?.set_len(bytes)?;
        let mut own = Self { file, device: None, name: "loop over tmpfs" };
        let losetup = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on", "--sector-size", "4096"])
            .arg(&own.file)
            .output()?;
        if !losetup.status.success() {
            let said = String::from_utf8_lossy(&losetup.stderr);
            return Err(std::io::Error::other(format!("losetup: {}", said.trim())));
        }
        own.device = Some(String::from_utf8_lossy(&losetup.stdout).trim().into());
        Ok(own)
    }

    pub(super) fn path(&self) -> &Path {
        self.device.as_deref().unwrap_or(&self.file)
    }
}

impl Drop for DeviceFile {
    fn drop(&mut self) {
        if let Some(device) = &self.device
            && let Err(error) = Command::new("losetup").arg("-d").arg(device).status()
        {
            eprintln!("{} is not detached: {error}", device.display());
        }
        if let Err(error) = std::fs::remove_file(&self.file) {
            eprintln!("{} is not removed: {error}", self.file.display());
        }
    }
}
