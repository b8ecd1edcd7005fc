//! Damage: every corrupt record is refused by name, the journal survives its own ring and a torn
//! entry, a Linux cache is left alone, and Linux's images are read.

mod common;

use common::recorder::Recorder;
use std::sync::Arc;
use tierce_core::error::Place;
use tierce_core::record::{Jset, PaddedKey, PrioSet, SetMagic, Superblock};
use tierce_core::{BucketIndex, Gen, Prio};
use tierce_io::{Error, FormatOptions, Journal, Owner, StateWriter, Volume, format_on};

const NBUCKETS: u32 = 3000;
const BUCKET: usize = 4096;
/// Buckets 0 to 2 hold the superblock.
const JOURNAL: usize = 3;

fn formatted() -> Arc<Recorder> {
    let device = Recorder::new(vec![0; NBUCKETS as usize * BUCKET]);
    let options = FormatOptions::default().bucket(4096).block(512);
    format_on(&*device, &options).expect("formats");
    device
}

fn open(device: &Arc<Recorder>) -> Result<Volume, Error> {
    Volume::open_on(device.clone(), Owner::Allocator)
}

fn publish(writer: &mut StateWriter, round: u64) {
    let first = 200 + 10 * (round % 2) as u32;
    let chain: Vec<_> = [first + 7, first, first + 3].map(BucketIndex::new).into();
    let per_set = writer.superblock().geometry().prios_per_bucket();
    let records = move |set: u32| {
        let range = set * per_set..((set + 1) * per_set).min(NBUCKETS);
        range.map(move |bucket| (Prio::new(bucket as u16), Gen::new(round as u8)))
    };
    writer.publish(&chain, (0..3).map(records).collect()).expect("publishes");
}

/// A device on which tables 1 to `rounds` were published.
fn used(rounds: u64) -> Arc<Recorder> {
    let device = formatted();
    let (_, mut writer) = open(&device).expect("opens").into_parts();
    (1..=rounds).for_each(|round| publish(&mut writer, round));
    device
}

fn gen_of(volume: &Volume) -> u64 {
    let first = volume.table().get(BucketIndex::new(1)).expect("a bucket").1;
    let table = (0..NBUCKETS).map(|bucket| (Prio::new(bucket as u16), first));
    assert!(volume.table().iter().eq(table), "whole");
    first.get().into()
}

/// Byte of the bucket.
fn byte(bucket: usize, byte: usize) -> usize {
    bucket * BUCKET + byte
}

#[test]
fn what_was_published_is_found_again_over_several_turns_of_the_journal() {
    let device = formatted();
    let (_, mut writer) = open(&device).unwrap().into_parts();
    let entries = usize::from(writer.superblock().njournal) * (BUCKET / 512);
    assert_eq!(entries, 23 * 8);
    let mut round = 0;
    // Three turns and a half, reopened at every place in a bucket.
    for batch in (1..14).cycle().take(110) {
        for _ in 0..batch {
            round += 1;
            publish(&mut writer, round);
        }
        drop(writer);
        let volume = open(&device).unwrap();
        assert_eq!(gen_of(&volume), round % 256, "round {round}");
        assert_eq!(volume.prio_seq(), round);
        (_, writer) = volume.into_parts();
    }
    assert!(round as usize > 3 * entries, "{round}");
}

#[test]
fn a_torn_newest_entry_gives_the_one_before() {
    let device = used(5);
    // Entry 1 was the first opening's, entry n + 1 published table n.
    device.state().image[byte(JOURNAL, 5 * 512 + 180)] ^= 1;
    let volume = open(&device).unwrap();
    assert_eq!(gen_of(&volume), 4);
    // The next entry replaces the torn one.
    let (_, mut writer) = volume.into_parts();
    publish(&mut writer, 9);
    drop(writer);
    assert_eq!(gen_of(&open(&device).unwrap()), 9);
}

#[test]
fn a_destroyed_journal_is_refused() {
    let device = used(3);
    for bucket in JOURNAL..JOURNAL + 23 {
        device.state().image[byte(bucket, 16)] ^= 1;
    }
    let before = device.state().log.len();
    let error = open(&device).unwrap_err();
    assert!(matches!(error, Error::NoJournalEntry { .. }), "{error}");
    assert!(error.to_string().contains("in buckets 3 to 25"), "{error}");
    assert_eq!(device.now(), before, "a refusal writes nothing");
}

#[test]
fn a_damaged_prio_chain_is_refused_by_bucket_and_field() {
    // Round 3: head 217, then 210, then 213.
    let damage: [(usize, usize, &str); 5] = [
        (217, 100, "prio set in bucket 217"),
        (210, 8, "magic"),
        (213, 4095, "csum"),
        (210, 32, "csum"),
        (213, 16, "csum"),
    ];
    for (bucket, at, words) in damage {
        let device = used(3);
        device.state().image[byte(bucket, at)] ^= 1;
        let before = device.now();
        let error = open(&device).unwrap_err();
        let Error::Corrupt { cause, .. } = &error else { panic!("{error}") };
        let words = words.replace("in bucket", "at bucket");
        assert!(error.to_string().starts_with("recorder: prio set at bucket"), "{error}");
        assert!(cause.to_string().contains(&words), "{error}");
        assert_eq!(device.now(), before, "a refusal writes nothing");
    }
    // The set of another write in the chain.
    let device = used(3);
    let set = set_magic(&device);
    let at = byte(210, 0);
    PrioSet::encode(&mut device.state().image[at..at + BUCKET], set, 77, 213, []);
    let error = open(&device).unwrap_err().to_string();
    assert!(error.contains("bucket 210 byte 0: seq is 77, wanted 3"), "{error}");
    // A cycle, and a way out of the device.
    for (next, words) in
        [(217, "not in the chain already"), (1 << 40, "next_bucket is 1099511627776")]
    {
        PrioSet::encode(&mut device.state().image[at..at + BUCKET], set, 3, next, []);
        let error = open(&device).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

fn set_magic(device: &Recorder) -> SetMagic {
    let image = &device.state().image;
    Superblock::decode(&image[4096..8192], None).expect("ours").set_magic()
}

/// Writes an entry behind those of `used(3)`.
fn append(device: &Recorder, entry: &Jset) {
    let set = set_magic(device);
    let at = byte(JOURNAL, 4 * 512);
    entry.encode(set, 512, &mut device.state().image[at..at + BUCKET - 4 * 512]).expect("fits");
}

#[test]
fn a_linux_cache_is_left_alone() {
    let root = PaddedKey { words: [1 << 63, 0, 0, 0, 0, 0, 0, 0] };
    let ours = Jset { seq: 5, last_seq: 5, ..Jset::default() };
    for theirs in [
        Jset { btree_root: root, ..ours.clone() },
        Jset { uuid_bucket: root, ..ours.clone() },
        Jset { keys: vec![1, 2, 3], ..ours.clone() },
        Jset { last_seq: 4, ..ours.clone() },
    ] {
        let device = used(3);
        append(&device, &theirs);
        let before = device.now();
        let error = open(&device).unwrap_err();
        assert!(matches!(error, Error::LinuxCache { seq: 5, .. }), "{error}");
        assert_eq!(device.now(), before, "a refusal writes nothing");
    }
}

#[test]
fn numbers_near_their_end_and_heads_outside_are_refused() {
    let device = used(3);
    append(&device, &Jset { seq: u64::MAX, last_seq: u64::MAX, ..Jset::default() });
    let error = open(&device).unwrap_err();
    assert!(matches!(error, Error::NumbersRunOut { seq: u64::MAX, .. }), "{error}");
    for head in [1u64 << 40, u64::from(NBUCKETS)] {
        let device = used(3);
        let prio_bucket = [head, 0, 0, 0, 0, 0, 0, 0];
        append(&device, &Jset { seq: 5, last_seq: 5, prio_bucket, ..Jset::default() });
        let error = open(&device).unwrap_err().to_string();
        assert!(error.contains("bucket 3 byte 2048: prio_bucket is"), "{error}");
    }
}

#[test]
fn a_damaged_superblock_is_refused() {
    for at in [0, 17, 45, 60, 80, 105, 113, 185, 193, 195, 198, 205, 207, 209] {
        let device = used(1);
        device.state().image[4096 + at] ^= 0x40;
        let error = open(&device).unwrap_err().to_string();
        assert!(error.starts_with("recorder: superblock"), "{error}");
    }
}

/// Every byte of the records flipped, one device each: an error or a state that was published,
/// never a panic.
#[test]
fn flipped_bytes_never_panic() {
    let device = used(3);
    let image = device.state().image.clone();
    let places = (4096..4096 + 400)
        .chain((0..5 * 512).step_by(3).map(|at| byte(JOURNAL, at)))
        .chain([217, 210, 213].into_iter().flat_map(|b| (0..60).map(move |at| byte(b, at))));
    let device = Recorder::new(image);
    let (mut opened, mut refused) = (0, 0);
    for place in places {
        device.state().image[place] ^= 0xff;
        match tierce_io::recover(device.clone()) {
            Ok(found) => {
                opened += 1;
                assert!(found.table.iter().all(|(_, gen_)| gen_.get() <= 3));
            }
            Err(_) => refused += 1,
        }
        device.state().image[place] ^= 0xff;
    }
    assert!(opened > 0 && refused > 0, "{opened} {refused}");
}

/// The place of an entry, as the search reports it, is where the journal wrote it.
#[test]
fn a_full_journal_names_the_bucket_that_is_needed() {
    let device = used(1);
    let found = tierce_io::recover(device.clone()).unwrap();
    let mut journal = found.journal.unwrap();
    assert_eq!(journal.newest_entry().place(), Place::bucket(BucketIndex::new(3), 512));
    // As if a later bucket held an entry that is still needed.
    journal.next_byte = BUCKET as u32;
    journal.highest_seq[1] = Some(2);
    let mut journal = Journal::resume(device, &found.superblock, journal);
    let Err(Error::Failed { cause, .. }) = journal.append(BucketIndex::new(300)) else {
        panic!("must be full");
    };
    assert_eq!(
        cause.to_string(),
        "recorder: journal full: bucket 4 holds entry 2, which is still needed"
    );
}

/// Where the devices that Linux wrote are; `None`, said aloud, where they are absent.
fn images() -> Option<std::path::PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let place = std::env::var("TIERCE_REFERENCE").unwrap_or_else(|_| default.into());
    let images = std::path::Path::new(&place).join("images");
    if images.is_dir() {
        return Some(images);
    }
    let required = std::env::var("TIERCE_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(!required, "the reference is required, and absent at {place}");
    eprintln!("skipped: reference absent at {place}");
    None
}

/// What Linux formatted opens; what Linux used is left alone, sector by sector.
#[test]
fn devices_that_linux_wrote() {
    let Some(directory) = images() else { return };
    let mut seen = [0; 2];
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "xz") {
            continue;
        }
        let packed = std::io::BufReader::new(std::fs::File::open(&path).expect("an image"));
        let mut bytes = Vec::new();
        let mut unpacked = lzma_rust2::XzReader::new(packed, true);
        std::io::Read::read_to_end(&mut unpacked, &mut bytes).expect("unpacks");
        let device = Recorder::new(bytes);
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        match open(&device) {
            Ok(volume) => {
                assert!(name.starts_with("A0_formatted"), "{name}");
                assert_eq!((volume.superblock().version, volume.table().nbuckets()), (3, 1024));
                seen[0] += 1;
            }
            Err(error) => {
                assert!(matches!(error, Error::LinuxCache { .. }), "{name}: {error}");
                assert_eq!(device.now(), 0, "a refusal writes nothing");
                seen[1] += 1;
            }
        }
        let options = FormatOptions::default().bucket(64 << 10);
        let formatted = format_on(&*device, &options);
        assert!(matches!(formatted, Err(Error::Foreign { .. })), "{name}");
    }
    assert_eq!(seen, [1, 6], "one formatted, six used");
}
