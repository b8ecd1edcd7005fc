//! `tierce inspect` as a user runs it: on devices made by our own encoders, whole and damaged,
//! and on those of the reference that Linux wrote.

#![expect(clippy::unwrap_used, reason = "a failing check ends the test")]

use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tierce_core::record::{
    Format, Jset, Key, Node, PaddedKey, Pointer, PrioSet, Superblock, Uuid, superblock,
};
use tierce_core::{Gen, Prio};

fn inspect(arguments: &[&str], path: &Path) -> Output {
    let program = env!("CARGO_BIN_EXE_tierce");
    Command::new(program).arg("inspect").args(arguments).arg(path).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A device of 600 buckets of 64 KiB with one index node and one extent.
struct Device {
    directory: tempfile::TempDir,
    superblock: Superblock,
    bytes: Vec<u8>,
}

const JOURNAL: usize = 1;
const PRIO: usize = 20;
const NODE: usize = 30;
const DATA: usize = 40;
const BUCKET: usize = 64 << 10;

impl Device {
    fn new() -> Self {
        let format = Format {
            uuid: Uuid([1; 16]),
            set_uuid: Uuid([2; 16]),
            label: "test".into(),
            ..Format::new(600 * BUCKET as u64, 128, 1)
        };
        let superblock = Superblock::format(&format).unwrap().first_use(77);
        let mut bytes = vec![0; 600 * BUCKET];
        let set = superblock.set_magic();
        let at =
            |bucket: usize, generation| Pointer::new(0, bucket as u64 * 128, Gen::new(generation));
        let root = Key::new(0, 0, 128, &[at(NODE, 0)]);
        let entry = Jset {
            seq: 5,
            last_seq: 5,
            btree_root: PaddedKey::new(&root).unwrap(),
            prio_bucket: [PRIO as u64, 0, 0, 0, 0, 0, 0, 0],
            ..Jset::default()
        };
        entry.encode(set, 512, &mut bytes[JOURNAL * BUCKET..]).unwrap();
        let prio = &mut bytes[PRIO * BUCKET..][..BUCKET];
        PrioSet::encode(prio, set, 3, 0, vec![(Prio::FRESH, Gen::new(0)); 600]);
        // One extent behind the bucket's gen and one ahead of it: stale, and raising the gen.
        let keys = [Key::new(1, 8, 8, &[at(DATA, 255)]), Key::new(1, 40, 16, &[at(DATA, 2)])];
        Node::encode_bset(&mut bytes[NODE * BUCKET..], set, at(NODE, 0), 1, 512, &keys).unwrap();
        let mut device = Self { directory: tempfile::tempdir().unwrap(), superblock, bytes };
        device.write_superblock();
        device
    }

    fn write_superblock(&mut self) {
        let start = superblock::OFFSET as usize;
        self.bytes[start..][..superblock::BYTES].copy_from_slice(&self.superblock.encode());
    }

    /// The device as a file.
    fn path(&self) -> PathBuf {
        let path = self.directory.path().join("device");
        std::fs::write(&path, &self.bytes).unwrap();
        path
    }

    /// What `inspect` says of it in JSON, and on standard error; the exit code must fit.
    fn json(&self, arguments: &[&str]) -> (Value, String) {
        let path = self.path();
        let output = inspect(&[&["--json"], arguments].concat(), &path);
        assert_eq!(std::fs::read(&path).unwrap(), self.bytes, "nothing was changed");
        let complaints = text(&output.stderr).to_owned();
        assert_eq!(output.status.code(), Some(i32::from(!complaints.is_empty())));
        (serde_json::from_slice(&output.stdout).unwrap(), complaints)
    }
}

#[test]
fn a_sound_device_is_shown() {
    let device = Device::new();
    let (json, complaints) = device.json(&["--startup"]);
    assert_eq!(complaints, "");
    assert_eq!(json["superblock"]["label"], "test");
    assert_eq!(json["journal"]["newest_seq"], 5);
    assert_eq!(json["prio"]["chain"], serde_json::json!([PRIO]));
    assert_eq!(json["prio"]["gen_hist"], serde_json::json!({"0": 600}));
    let start = &json["startup"];
    assert_eq!((&start["nodes"], &start["stale_pointers"]), (&1.into(), &1.into()));
    assert_eq!(start["marks"]["reclaimable"], 1);
    // The node, the set, and 4 journal buckets.
    assert_eq!(start["marks"]["metadata"], 6);
    let output = inspect(&["--startup"], &device.path());
    let shown = text(&output.stdout);
    for line in ["  newest entry     seq 5 in bucket 1 byte 0\n", "Metadata:\t1%\n"] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[test]
fn the_table_goes_to_a_new_file_only() {
    let device = Device::new();
    let file = device.directory.path().join("table");
    let arguments = ["--buckets", file.to_str().unwrap()];
    assert_eq!(device.json(&arguments).1, "");
    let table = std::fs::read(&file).unwrap();
    assert_eq!(table.len(), 600 * 12);
    let record = &table[DATA * 12..][..12];
    // pin 0, prio fresh, gen 2, last_gc 255, mark 1, 16 sectors.
    assert_eq!(record, [0, 0, 0, 0, 0, 0x80, 2, 255, 1 | 16 << 2, 0, 0, 0]);
    let output = inspect(&arguments, &device.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("exists"), "{}", text(&output.stderr));
    // Even the device itself, named by mistake, stays as it is.
    let path = device.path();
    assert_eq!(inspect(&["--buckets", path.to_str().unwrap()], &path).status.code(), Some(1));
    assert_eq!(std::fs::read(&path).unwrap(), device.bytes);
}

/// A device that was never used has no table; who asked for it is told.
#[test]
fn no_table_is_not_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let (path, table) = (directory.path().join("cache"), directory.path().join("table"));
    let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(&path, &options).unwrap();
    let output = inspect(&["--buckets", table.to_str().unwrap()], &path);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cache: was never used, wanted a table of buckets"), "{said}");
    assert!(!table.exists());
}

#[test]
fn damage_is_named_and_the_rest_shown() {
    let cases: [(usize, &str, &[&str]); 4] = [
        (4096 + 100, "superblock at byte 4096: csum is 0x", &[]),
        (JOURNAL * BUCKET + 200, "no journal entry is whole", &["superblock"]),
        (PRIO * BUCKET + 50, "prio set at bucket 20 byte 0: csum is 0x", &["journal"]),
        (NODE * BUCKET + 40, "index node at bucket 30 byte 0: csum is 0x", &["journal", "prio"]),
    ];
    for (byte, message, shown) in cases {
        let mut device = Device::new();
        device.bytes[byte] ^= 1;
        let (json, complaints) = device.json(&["--startup"]);
        assert!(complaints.contains(message), "{complaints}");
        assert!(complaints.contains("/device: "), "the device is named: {complaints}");
        assert!(json["problems"][0].as_str().unwrap().contains(message));
        for part in shown {
            assert!(json.get(part).is_some(), "{part} is not shown");
        }
        assert!(json.get("startup").is_none());
    }
}

#[test]
fn a_device_cut_short_is_an_error() {
    let mut device = Device::new();
    device.bytes.truncate(500 * BUCKET);
    let (_, complaints) = device.json(&[]);
    let message = "nbuckets is 600, wanted within the device of 32768000 bytes";
    assert!(complaints.contains(message), "{complaints}");
    device.bytes.truncate(100);
    assert!(device.json(&[]).1.contains("reading bytes 4096 to 8192 of 100 failed"));
}

#[test]
fn what_is_no_cache_device_is_named() {
    let mut device = Device::new();
    device.superblock.version = 1;
    device.write_superblock();
    assert!(device.json(&[]).1.contains("version is 1: a backing device"));
    device.bytes[4096 + 24] = 0;
    assert!(device.json(&[]).1.contains("no cache superblock at byte 4096"));
    for path in ["/dev/null", "/", "/no/such/file"] {
        let output = inspect(&[], Path::new(path));
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(path), "{}", text(&output.stderr));
    }
}

#[test]
fn the_index_of_the_engine_is_explained() {
    let mut device = Device::new();
    device.superblock = device.superblock.engine_use();
    device.write_superblock();
    let (json, _) = device.json(&[]);
    assert_eq!(json["superblock"]["feature_incompat"], 1u64 << 63);
    let output = inspect(&[], &device.path());
    assert!(text(&output.stdout).contains("5 (in use by tierce's cache engine)"));
    assert!(device.json(&["--startup"]).1.contains("tierce's own index"));
}

#[test]
fn several_devices_make_a_list() {
    let device = Device::new();
    let path = device.path();
    let program = env!("CARGO_BIN_EXE_tierce");
    let run = |arguments: &[&str]| {
        Command::new(program).arg("inspect").args(arguments).args([&path, &path]).output().unwrap()
    };
    let list: Value = serde_json::from_slice(&run(&["--json"]).stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(run(&["--buckets", "never-written"]).status.code(), Some(1));
}

/// Every key of the images' own JSON that can be derived is there and equal.
#[test]
fn images_of_linux_give_their_json() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let reference = std::env::var("TIERCE_REFERENCE").unwrap_or_else(|_| default.into());
    let images = Path::new(&reference).join("images");
    if !images.is_dir() {
        let required = std::env::var("TIERCE_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
        assert!(!required, "the reference is required, and absent at {reference}");
        eprintln!("skipped: reference absent at {reference}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for entry in std::fs::read_dir(images).unwrap() {
        let packed = entry.unwrap().path();
        let Some(stem) = packed.to_str().unwrap().strip_suffix(".img.xz") else { continue };
        let known = std::fs::read_to_string(format!("{stem}.json")).unwrap();
        let known: Value = serde_json::from_str(&known).unwrap();
        let image = directory.path().join("image");
        unpack(&packed, &image);
        let output = inspect(&["--json", "--startup"], &image);
        // A device that was never used has nothing to start from, and that is no damage.
        assert!(output.status.success(), "{stem}: {}", text(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        for part in ["superblock", "journal", "prio", "uuids"] {
            assert_eq!(found.get(part), known.get(part), "{part} of {stem}");
        }
        for count in ["nodes", "bsets"] {
            assert_eq!(found["startup"][count], known["btree"][count], "{count} of {stem}");
        }
        checked += 1;
    }
    assert_eq!(checked, 7);
}

fn unpack(packed: &Path, image: &Path) {
    let packed = std::io::BufReader::new(std::fs::File::open(packed).unwrap());
    let mut bytes = Vec::new();
    lzma_rust2::XzReader::new(packed, true).read_to_end(&mut bytes).unwrap();
    std::fs::write(image, bytes).unwrap();
}
