//! Format and open: what is refused, and with which words; that a refusal changes nothing; who
//! may open a device at a time.

mod common;

use common::{Loop, dir, file};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tierce_core::record::superblock;
use tierce_core::{BucketIndex, DeviceIndex, Reserve};
use tierce_io::{
    Access, DeviceExt, DeviceOptions, Error, Fault, FaultKind, FormatOptions, OpenOptions,
    Operation, Owner, Pipeline, Sim, SimOptions, Volume, format, open_device,
};
use tierce_lockfree::{Allocator, Config};

const MIB: u64 = 1 << 20;

fn options() -> FormatOptions {
    FormatOptions::default().bucket(64 << 10)
}

/// `result` is an error, its message one line that names `path` and says all of `words`.
fn assert_refused<T>(result: Result<T, Error>, path: &Path, words: &[&str]) -> Error {
    let Err(error) = result else { panic!("{} must be refused: {words:?}", path.display()) };
    let message = error.to_string();
    assert!(message.starts_with(&*path.display().to_string()), "{message}");
    assert!(!message.contains('\n'), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in: {message}");
    }
    error
}

#[test]
fn known_signatures_are_refused_and_left_alone() {
    let cases: &[(&str, i64, &[u8])] = &[
        ("GPT", 512, b"EFI PART"),
        ("GPT", 4096, b"EFI PART"),
        ("GPT", -512, b"EFI PART"),
        ("partition table or boot sector", 510, b"\x55\xaa"),
        ("ext4", 1080, b"\x53\xef"),
        ("XFS", 0, b"XFSB"),
        ("btrfs", 65600, b"_BHRfS_M"),
        ("swap", 4086, b"SWAPSPACE2"),
        ("swap", 65526, b"SWAPSPACE2"),
        ("LUKS", 0, b"LUKS\xba\xbe"),
        ("LVM", 512, b"LABELONE"),
        ("md array", 4096, b"\xfc\x4e\x2b\xa9"),
        ("md array", 0, b"\xfc\x4e\x2b\xa9"),
        ("md array", -8192, b"\xfc\x4e\x2b\xa9"),
        ("md array", -65536, b"\xfc\x4e\x2b\xa9"),
        ("bcachefs", 4120, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
        ("never used", 4120, &superblock::MAGIC),
    ];
    let dir = dir();
    for &(name, at, magic) in cases {
        let path = file(&dir, "signature", 64 * MIB);
        let mut bytes = vec![0; 64 * MIB as usize];
        let start = if at < 0 { (64 * MIB as i64 + at) as usize } else { at as usize };
        bytes[start..start + magic.len()].copy_from_slice(magic);
        std::fs::write(&path, &bytes).unwrap();
        let refused = format(&path, &options());
        assert_refused(refused, &path, &[name, &format!("(at byte {start})"), "--force"]);
        assert!(std::fs::read(&path).unwrap() == bytes, "{name}: the refusal changed something");
        let opened = Volume::open(&path, &OpenOptions::default());
        if magic == superblock::MAGIC {
            assert_refused(opened, &path, &["superblock"]);
        } else {
            assert_refused(opened, &path, &[name]);
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{name}: the refusal changed something");

        format(&path, &options().force(true)).unwrap();
        Volume::open(&path, &OpenOptions::default()).unwrap();
        let left = std::fs::read(&path).unwrap();
        assert!(&left[start..start + magic.len()] != magic || start == 4120, "{name} is left");
    }
}

/// The versions of a superblock with bcache's magic.
#[test]
fn every_bcache_device_is_told_apart() {
    let dir = dir();
    let cases: [(&str, u64, u64); 6] = [
        ("a formatted cache that was never used", 0, 0),
        ("a cache of tierce or Linux bcache", 3, 0),
        ("a cache of tierce or Linux bcache", 5, 2),
        ("a tierce cache with its index", 5, 1 << 63),
        ("a backing device of Linux bcache", 1, 0),
        ("an unknown version", 9, 0),
    ];
    for (words, version, incompat) in cases {
        let path = file(&dir, "bcache", 64 * MIB);
        let mut bytes = vec![0; 64 * MIB as usize];
        bytes[4096 + 24..][..16].copy_from_slice(&superblock::MAGIC);
        bytes[4096 + 16..][..8].copy_from_slice(&version.to_le_bytes());
        bytes[4096 + 128..][..8].copy_from_slice(&incompat.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert_refused(format(&path, &options()), &path, &[words]);
        let opened = Volume::open(&path, &OpenOptions::default());
        let wanted = if version == 1 { "backing device" } else { "superblock" };
        assert_refused(opened, &path, &[wanted]);
    }
}

/// What real tools make, where they are installed.
#[test]
fn what_mkfs_made_is_refused() {
    let dir = dir();
    let mut tried = 0;
    for (name, tool, args) in [
        ("ext4", "mkfs.ext4", vec!["-q", "-F"]),
        ("XFS", "mkfs.xfs", vec!["-q", "-f"]),
        ("btrfs", "mkfs.btrfs", vec!["-q", "-f"]),
        ("swap", "mkswap", vec!["-q"]),
        ("boot sector", "mkfs.vfat", vec![]),
        ("never used", "make-bcache", vec!["-C", "-b", "64k", "-w", "512"]),
        ("backing device", "make-bcache", vec!["-B"]),
    ] {
        let path = file(&dir, &format!("{name}.img"), 320 * MIB);
        match Command::new(tool).args(&args).arg(&path).output() {
            Ok(output) if output.status.success() => {}
            _ => {
                eprintln!("skipped: {tool} is not there or does not work");
                continue;
            }
        }
        tried += 1;
        assert_refused(format(&path, &options()), &path, &[name]);
    }
    eprintln!("{tried} tools tried");
}

/// A device that Linux's tools formatted opens; what we format, they understand.
#[test]
fn bcache_tools_and_we_understand_each_other() {
    let dir = dir();
    let path = file(&dir, "theirs", 64 * MIB);
    let made =
        Command::new("make-bcache").args(["-C", "-b", "64k", "-w", "512"]).arg(&path).output();
    if !made.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: make-bcache is not there");
    }
    let volume = Volume::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!((volume.superblock().version, volume.superblock().njournal), (3, 8));
    drop(volume);

    let path = dir.path().join("ours");
    format(&path, &options().size(Some(64 * MIB)).label("mine".into())).unwrap();
    let show = |version: &str| {
        let output = Command::new("bcache-super-show").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&format!("sb.version\t\t{version} [cache device]")), "{text}");
        let csum = text.lines().find(|line| line.starts_with("sb.csum"));
        assert!(csum.is_some_and(|line| line.ends_with("[match]")), "{text}");
        assert!(text.contains("dev.label\t\tmine"), "{text}");
    };
    show("0");
    Volume::open(&path, &OpenOptions::default()).unwrap();
    show("3");
}

#[test]
fn an_opened_device_is_ours_alone() {
    let dir = dir();
    let path = dir.path().join("cache");
    format(&path, &options().size(Some(64 * MIB))).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let backing = file(&dir, "backing", 64 * MIB);
    let mut paths = vec![path];
    let device = Loop::new(&backing, 512);
    if let Some(device) = &device {
        format(&device.path, &options()).unwrap();
        paths.push(device.path.clone());
    }
    for path in &paths {
        let volume = Volume::open(path, &OpenOptions::default()).unwrap();
        let again = Volume::open(path, &OpenOptions::default());
        let error = assert_refused(again, path, &["in use by another process"]);
        assert!(matches!(error, Error::InUse { .. }));
        let forced = format(path, &options().force(true));
        assert!(matches!(forced, Err(Error::InUse { .. })));
        // Looking is allowed.
        let looking = DeviceOptions::default().access(Access::ReadOnly);
        assert_eq!(open_device(path, &looking).unwrap().read_at(4096, 4096).unwrap().len(), 4096);
        drop(volume);
        Volume::open(path, &OpenOptions::default()).unwrap();
    }
}

#[test]
fn what_is_not_a_device_is_refused() {
    let dir = dir();
    let open = |path: &Path| Volume::open(path, &OpenOptions::default());
    let missing = dir.path().join("missing");
    assert_refused(open(&missing), &missing, &["cannot be opened", "No such file"]);
    assert_refused(format(&missing, &options()), &missing, &["does not exist", "give a size"]);
    assert_refused(open(dir.path()), dir.path(), &["is a directory"]);
    let null = Path::new("/dev/null");
    assert_refused(open(null), null, &["is a character device"]);
    let target = file(&dir, "target", 64 * MIB);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert_refused(open(&link), &link, &["symbolic link to a file", "name the file itself"]);
    assert_refused(format(&link, &options()), &link, &["symbolic link"]);
    assert_refused(open(&target), &target, &["not formatted", "tierce format"]);
}

/// Block devices have names that are links.
#[test]
fn a_link_to_a_block_device_is_followed() {
    let dir = dir();
    let backing = file(&dir, "backing", 64 * MIB);
    let Some(device) = Loop::new(&backing, 4096) else { return };
    let link = dir.path().join("by-id");
    std::os::unix::fs::symlink(&device.path, &link).unwrap();
    let small = options().block(512);
    assert_refused(format(&link, &small), &link, &["512", "--block 4096"]);
    format(&link, &options()).unwrap();
    Volume::open(&link, &OpenOptions::default()).unwrap();
}

#[test]
fn a_read_only_device_is_refused() {
    let dir = dir();
    let backing = file(&dir, "backing", 64 * MIB);
    format(&backing, &options()).unwrap();
    let Some(device) = Loop::read_only(&backing) else { return };
    let opened = Volume::open(&device.path, &OpenOptions::default());
    let error = assert_refused(opened, &device.path, &["cannot be written"]);
    assert!(matches!(error, Error::ReadOnly { .. }));
}

#[test]
fn sizes_out_of_range_are_refused_and_leave_no_file() {
    let dir = dir();
    let path = dir.path().join("cache");
    let sized = |size| options().size(Some(size));
    let error = assert_refused(format(&path, &sized(32 * MIB)), &path, &["too small", "512"]);
    assert!(matches!(error, Error::TooSmall { .. }));
    for wrong in [
        sized(64 * MIB).bucket(60 << 10),
        sized(64 * MIB).bucket(1000),
        sized(64 * MIB).bucket(0),
        sized(64 * MIB).block(8192),
        sized(64 * MIB).label("x".repeat(33)),
    ] {
        let error = format(&path, &wrong).unwrap_err().to_string();
        assert!(error.contains("wanted"), "{error}");
        assert!(!path.exists(), "{error}");
    }
    let full = format(&path, &sized(1 << 60)).unwrap_err();
    assert!(!path.exists(), "{full}");
    // An empty file is filled up; one that has another size is left alone.
    let empty = file(&dir, "empty", 0);
    assert_eq!(format(&empty, &sized(64 * MIB)).unwrap().geometry().nbuckets(), 1024);
    let other = file(&dir, "other", 48 * MIB);
    assert_refused(
        format(&other, &sized(64 * MIB)),
        &other,
        &["exists with", "leave the size out"],
    );
    assert_eq!(std::fs::metadata(&other).unwrap().size(), 48 * MIB);
}

#[test]
fn a_truncated_device_is_refused() {
    let dir = dir();
    let path = dir.path().join("cache");
    format(&path, &options().size(Some(64 * MIB))).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(64 * MIB - 65536).unwrap();
    let opened = Volume::open(&path, &OpenOptions::default());
    let error = assert_refused(opened, &path, &["truncated", "67108864", "67043328"]);
    assert!(matches!(error, Error::Truncated { .. }));
    file.set_len(1000).unwrap();
    assert_refused(Volume::open(&path, &OpenOptions::default()), &path, &["not formatted"]);
    file.set_len(64 * MIB + 100).unwrap();
    // Its superblock is gone with the cut.
    assert_refused(Volume::open(&path, &OpenOptions::default()), &path, &["not formatted"]);
}

#[test]
fn versions_sequence_numbers_and_owners() {
    let dir = dir();
    let path = dir.path().join("cache");
    format(&path, &options().size(Some(64 * MIB))).unwrap();
    let open = |owner| Volume::open(&path, &OpenOptions::default().owner(owner));
    let seen = |volume: Volume| (volume.superblock().version, volume.superblock().seq);
    assert_eq!(seen(open(Owner::Allocator).unwrap()), (3, 1));
    assert_eq!(seen(open(Owner::Allocator).unwrap()), (3, 2));
    let engine = open(Owner::Engine).unwrap();
    assert!(engine.superblock().has_tierce_index() && engine.superblock().last_mount > 0);
    assert_eq!(seen(engine), (5, 4));
    let refused = open(Owner::Allocator);
    assert!(matches!(refused, Err(Error::EngineIndex { .. })));
    assert_eq!(seen(open(Owner::Engine).unwrap()), (5, 5), "the refusal wrote nothing");
}

/// A scratch device keeps nothing, costs no flush, and is told from a durable one both ways.
#[test]
fn scratch_and_durable_are_told_apart() {
    let open = |device: &Arc<Sim>, owner| Volume::open_on(device.clone(), owner);
    let formatted = || {
        let device = Sim::new(&SimOptions::default());
        let options = FormatOptions::default().bucket(64 << 10);
        tierce_io::format_on(&*device, &options).expect("formats");
        device
    };
    let device = formatted();
    // Nothing is flushed, so all of them may fail.
    device.inject(Fault::new(FaultKind::Io, Operation::Flush, 0).for_good());
    for round in 1..=2 {
        let volume = open(&device, Owner::Scratch).expect("formatted, or scratch already");
        assert!(volume.is_scratch() && !volume.superblock().sync);
        assert_eq!(volume.superblock().seq, round);
        assert!(volume.table().iter().all(|record| record == Default::default()));
        let (table, mut writer) = volume.into_start();
        let published = writer.publish(&[BucketIndex::new(40)], vec![None.into_iter()]);
        assert!(matches!(published, Err(Error::Scratch { .. })), "{published:?}");
        let config = Config::default().sync(false);
        let (allocator, mut reclaimers) = Allocator::start(config, vec![table]).unwrap().finish();
        let pipeline = Pipeline::start(reclaimers.remove(0), writer).unwrap();
        for _ in 0..100 {
            let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None).unwrap();
            bucket.written();
        }
        assert_eq!(pipeline.stats().prio_write_total, 0);
        pipeline.close().unwrap();
        for owner in [Owner::Allocator, Owner::Engine] {
            let refused = open(&device, owner).unwrap_err();
            assert!(matches!(refused, Error::Scratch { .. }), "{refused}");
        }
    }
    let device = formatted();
    drop(open(&device, Owner::Allocator).unwrap());
    let refused = open(&device, Owner::Scratch).unwrap_err();
    assert!(matches!(refused, Error::Durable { .. }), "{refused}");
    drop(open(&device, Owner::Allocator).expect("the refusal changed nothing"));

    // An allocator that relies on gens which nobody keeps, and the other way round.
    for (owner, sync) in [(Owner::Scratch, true), (Owner::Allocator, false)] {
        let (table, writer) = open(&formatted(), owner).unwrap().into_start();
        let config = Config::default().sync(sync);
        let (allocator, mut reclaimers) = Allocator::start(config, vec![table]).unwrap().finish();
        let refused = Pipeline::start(reclaimers.remove(0), writer).unwrap_err();
        assert!(matches!(refused, Error::SyncDiffers { found, .. } if found == sync), "{refused}");
        assert!(allocator.try_alloc(Reserve::None).is_err(), "nobody waits for ever");
    }
}

/// What is left of the last block is not used; sizes are as they were asked for.
#[test]
fn a_size_of_no_whole_blocks() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes = (64 << 20) + 136;
    let options = FormatOptions::default().size(Some(bytes)).bucket(64 << 10);
    let (new, empty) = (dir.path().join("new"), dir.path().join("empty"));
    std::fs::File::create(&empty).expect("an empty file");
    for path in [&new, &empty] {
        let superblock = tierce_io::format(path, &options).expect("room for 1024 buckets");
        assert_eq!(superblock.geometry().nbuckets(), 1024);
        assert_eq!(std::fs::metadata(path).expect("it exists").len(), bytes);
        tierce_io::format(path, &options.clone().force(true)).expect("once more");
        Volume::open(path, &OpenOptions::default()).expect("formatted");
    }
    let other = options.clone().size(Some(bytes + 512)).force(true);
    let refused = tierce_io::format(&new, &other);
    assert!(matches!(refused, Err(Error::SizeDiffers { .. })), "{refused:?}");
    // More than there is anywhere, and more buckets than can be counted.
    for bytes in [1 << 60, u64::MAX] {
        let path = dir.path().join("huge");
        let refused = tierce_io::format(&path, &options.clone().size(Some(bytes)));
        let told = refused.expect_err("too many buckets").to_string();
        let buckets = format!("{bytes} bytes make {} buckets", bytes >> 16);
        assert!(told.contains("huge: too large: ") && told.contains(&buckets), "{told}");
        assert!(!path.exists());
    }
}
