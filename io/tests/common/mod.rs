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

/// Runs `body` with every engine on a file and on loop devices with both sector sizes, each of
/// `bytes` bytes.
pub fn on_every_device(bytes: u64, mut body: impl FnMut(&Path, Engine)) {
    let mut ran = 0;
    for engine in engines() {
        let dir = dir();
        body(&file(&dir, "file", bytes), engine);
        ran += 1;
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
