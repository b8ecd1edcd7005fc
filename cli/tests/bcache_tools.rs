//! Our devices as bcache-tools see them, and theirs as we do.
//!
//! Skipped, saying so, where the tools, or loop devices for `make-bcache`, are missing.

#![expect(clippy::unwrap_used, reason = "a failing check ends the test")]

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use tierce_core::Policy;
use tierce_core::record::{Format, Superblock, Uuid, superblock};

const DEVICE_BYTES: u64 = 64 << 20;

/// What a command printed, `None` (said aloud) if it is not there or failed.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            eprintln!("skipped: {program} failed: {}", message.trim());
            None
        }
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            None
        }
    }
}

fn sparse_file(directory: &Path) -> (std::path::PathBuf, std::fs::File) {
    let path = directory.join("device");
    let file =
        std::fs::File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    file.set_len(DEVICE_BYTES).unwrap();
    (path, file)
}

#[test]
fn bcache_super_show_accepts_ours() {
    let directory = tempfile::tempdir().unwrap();
    let (path, mut file) = sparse_file(directory.path());
    let format = Format {
        uuid: Uuid(*b"\x01\x23\x45\x67\x89\xab\xcd\xef0123abcd"),
        set_uuid: Uuid([0x5a; 16]),
        label: "shown".into(),
        policy: Policy::Fifo,
        ..Format::new(DEVICE_BYTES, 128, 8)
    };
    let fresh = Superblock::format(&format).unwrap();
    for (superblock, version) in
        [(fresh.clone(), "0 [cache device]"), (fresh.first_use(1_700_000_000), "3 [cache device]")]
    {
        file.seek(SeekFrom::Start(superblock::OFFSET)).unwrap();
        file.write_all(&superblock.encode()).unwrap();
        let Some(shown) = run("bcache-super-show", &[path.to_str().unwrap()]) else { return };
        let lines: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let value = |name: &str| {
            let line = lines.iter().find(|words| words.first() == Some(&name));
            line.map(|words| words[1..].join(" ")).unwrap_or_default()
        };
        assert!(value("sb.csum").ends_with(" [match]"), "{shown}");
        assert_eq!(value("sb.first_sector"), "8 [match]", "{shown}");
        assert_eq!(value("sb.version"), version, "{shown}");
        assert_eq!(value("dev.label"), "shown");
        assert_eq!(value("dev.uuid"), superblock.uuid.to_string());
        assert_eq!(value("dev.sectors_per_block"), "8");
        assert_eq!(value("dev.sectors_per_bucket"), "128");
        assert_eq!(value("dev.cache.replacement"), "1 [fifo]");
        assert_eq!(value("cset.uuid"), superblock.set_uuid.to_string());
    }
}

/// A loop device over a file, let go at the end.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn what_make_bcache_made_decodes() {
    let directory = tempfile::tempdir().unwrap();
    let (path, mut file) = sparse_file(directory.path());
    let arguments = ["--find", "--show", path.to_str().unwrap()];
    let Some(device) = run("losetup", &arguments) else { return };
    let device = Loop(device.trim().to_owned());
    let arguments = ["-C", "--bucket", "64k", "--block", "4k", &device.0];
    let Some(_) = run("make-bcache", &arguments) else { return };
    let mut bytes = [0; superblock::BYTES];
    let mut through_loop = std::fs::File::open(&device.0).unwrap();
    through_loop.seek(SeekFrom::Start(superblock::OFFSET)).unwrap();
    through_loop.read_exact(&mut bytes).unwrap();
    let superblock = Superblock::decode(&bytes, Some(DEVICE_BYTES)).unwrap();
    let geometry = superblock.geometry();
    assert_eq!((superblock.version, superblock.njournal), (0, 0));
    assert_eq!((geometry.nbuckets(), geometry.bucket_sectors()), (1024, 128));
    assert_eq!((geometry.block_sectors(), geometry.first_bucket().get()), (8, 1));
    assert_eq!(superblock.encode(), bytes, "encoding gives the same bytes");
    // The same settings give what our own formatting gives.
    let ours = Superblock::format(&Format {
        uuid: superblock.uuid,
        set_uuid: superblock.set_uuid,
        ..Format::new(DEVICE_BYTES, 128, 8)
    });
    assert_eq!(ours.unwrap(), superblock);
    drop((device, through_loop));
    file.seek(SeekFrom::Start(superblock::OFFSET)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(superblock.encode(), bytes, "and the loop device wrote it through");
}
