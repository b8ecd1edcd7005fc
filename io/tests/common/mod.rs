//! What several test files need: devices of every kind to test on.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod recorder;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tierce_io::{Device, DeviceOptions, Engine};

/// A directory whose files take direct I/O: the target directory's file system.
pub fn dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is writable")
}

/// A sparse file of `bytes` bytes.
pub fn file(dir: &TempDir, name: &str, bytes: u64) -> PathBuf {
    let path = dir.path().join(name);
    let file = std::fs::File::create(&path).expect("a fresh file");
    file.set_len(bytes).expect("a sparse file");
    path
}

/// A loop device over a file, detached when dropped.
pub struct Loop {
    pub path: PathBuf,
}

impl Loop {
    /// `None` where loop devices cannot be made (no root, no module), said on standard error.
    pub fn new(file: &Path, sector: u32) -> Option<Self> {
        Self::with(file, &["--direct-io=on", "--sector-size", &sector.to_string()])
    }

    /// One that cannot be written.
    pub fn read_only(file: &Path) -> Option<Self> {
        Self::with(file, &["--read-only"])
    }

    fn with(file: &Path, args: &[&str]) -> Option<Self> {
        let output =
            Command::new("losetup").args(["--find", "--show"]).args(args).arg(file).output();
        match output {
            Ok(output) if output.status.success() => {
                let path = String::from_utf8(output.stdout).expect("a path");
                Some(Self { path: path.trim().into() })
            }
            Ok(output) => {
                eprintln!("skipped: no loop device: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                eprintln!("skipped: no losetup: {error}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let status = Command::new("losetup").arg("-d").arg(&self.path).status();
        assert!(status.is_ok_and(|s| s.success()), "{} must detach", self.path.display());
    }
}

/// A compressed RAM disk of 4 KiB sectors, removed when dropped.
pub struct Zram {
    pub path: PathBuf,
    id: String,
}

impl Zram {
    /// `None` where none can be made, said on standard error.
    pub fn new(bytes: u64) -> Option<Self> {
        let made = std::fs::read_to_string("/sys/class/zram-control/hot_add").and_then(|id| {
            let id = id.trim().to_owned();
            let own = Self { path: format!("/dev/zram{id}").into(), id };
            std::fs::write(own.control("disksize"), bytes.to_string())?;
            Ok(own)
        });
        made.inspect_err(|error| eprintln!("skipped: no zram: {error}")).ok()
    }

    fn control(&self, name: &str) -> String {
        format!("/sys/block/zram{}/{name}", self.id)
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        // The kernel lets go of it a moment after it was closed.
        for _ in 0..100 {
            let removed = std::fs::write(self.control("reset"), "1")
                .and_then(|()| std::fs::write("/sys/class/zram-control/hot_remove", &self.id));
            if removed.is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("{} cannot be removed", self.path.display());
    }
}

/// A sparse file in memory; `None` where there is no tmpfs, said on standard error.
pub fn in_memory(bytes: u64) -> Option<tempfile::NamedTempFile> {
    let file = tempfile::Builder::new().prefix("tierce-").tempfile_in("/dev/shm");
    let file = file.and_then(|file| file.as_file().set_len(bytes).map(|()| file));
    file.inspect_err(|error| eprintln!("skipped: no tmpfs: {error}")).ok()
}

/// The engines that work here. Without io_uring only one, said on standard error.
pub fn engines() -> Vec<Engine> {
    let dir = dir();
    let probe = file(&dir, "probe", 1 << 20);
    match tierce_io::open_device(&probe, &DeviceOptions::default().engine(Engine::Uring)) {
        Ok(_) => vec![Engine::Uring, Engine::Sync],
        Err(error) => {
            eprintln!("skipped: {error}");
            vec![Engine::Sync]
        }
    }
}

/// Opens `path` with `engine`.
pub fn open(path: &Path, engine: Engine) -> Arc<dyn Device> {
    let options = DeviceOptions::default().engine(engine);
    tierce_io::open_device(path, &options).expect("the device opens")
}

/// Runs `body` with every engine on a file, a file in memory, a compressed RAM disk, and on loop
/// devices with both sector sizes, each of `bytes` bytes.
pub fn on_every_device(bytes: u64, mut body: impl FnMut(&Path, Engine)) {
    let mut ran = 0;
    for engine in engines() {
        let dir = dir();
        body(&file(&dir, "file", bytes), engine);
        ran += 1;
        if let Some(file) = in_memory(bytes) {
            body(file.path(), engine);
        }
        if let Some(zram) = Zram::new(bytes) {
            body(&zram.path, engine);
        }
        for sector in [512, 4096] {
            let backing = file(&dir, &format!("loop{sector}"), bytes);
            if let Some(device) = Loop::new(&backing, sector) {
                body(&device.path, engine);
                ran += 1;
            }
        }
    }
    assert!(ran > 0);
}
