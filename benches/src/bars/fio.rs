//! fio, the peer of what goes to a device: run as a process of its own, its figures read from
//! its JSON.

use serde::Deserialize;
use std::path::Path;
use std::process::Command;

/// A sequential job on a range of a file or device, with direct I/O.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub(super) path: &'a Path,
    pub(super) write: bool,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) block: u64,
    pub(super) depth: u32,
}

#[derive(Deserialize)]
struct Report {
    jobs: Vec<JobReport>,
}

#[derive(Deserialize)]
struct JobReport {
    error: i32,
    read: Direction,
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    io_bytes: u64,
    bw_bytes: u64,
}

/// Whether there is one.
pub(super) fn is_installed() -> bool {
    Command::new("fio").arg("--version").output().is_ok_and(|output| output.status.success())
}

impl Job<'_> {
    /// Bytes per second, from its first operation until the last one is done, and for writes
    /// until the flush at the end is. fio counts in milliseconds.
    ///
    /// # Panics
    ///
    /// If fio fails: then there is nothing to compare with, and no figure to show.
    pub(super) fn run(&self) -> f64 {
        let output = Command::new("fio")
            .args(["--name=peer", "--output-format=json", "--ioengine=io_uring", "--direct=1"])
            .args(["--allow_file_create=0", if self.write { "--rw=write" } else { "--rw=read" }])
            .args(self.write.then_some("--end_fsync=1"))
            .arg(format!("--filename={}", self.path.display()))
            .args([format!("--offset={}", self.offset), format!("--size={}", self.bytes)])
            .args([format!("--bs={}", self.block), format!("--iodepth={}", self.depth)])
            .output()
            .expect("fio runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "fio fails: {said}");
        let report: Report = serde_json::from_slice(&output.stdout).expect("fio writes JSON");
        let job = &report.jobs[0];
        let direction = if self.write { &job.write } else { &job.read };
        assert_eq!((job.error, direction.io_bytes), (0, self.bytes), "fio did less: {said}");
        direction.bw_bytes as f64
    }
}
