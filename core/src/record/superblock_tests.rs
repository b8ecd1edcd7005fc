//! What a superblock must and must not accept.

use super::*;
use crate::record::Format;
use proptest::prelude::*;

/// A change to a sound superblock, and the message it is refused with.
type Refusal = (fn(&mut Layout), &'static str);

const DEVICE_BYTES: u64 = 64 << 20;

fn format() -> Format {
    Format {
        uuid: Uuid([1; 16]),
        set_uuid: Uuid([2; 16]),
        label: "a name".into(),
        ..Format::new(DEVICE_BYTES, 128, 1)
    }
}

fn used() -> Superblock {
    Superblock::format(&format()).unwrap().first_use(1_700_000_000)
}

/// The bytes of `superblock` after `change`, with a sound checksum.
fn changed(superblock: &Superblock, change: impl FnOnce(&mut Layout)) -> [u8; BYTES] {
    let mut bytes = superblock.encode();
    let (layout, _) = Layout::mut_from_prefix(&mut bytes).unwrap();
    change(layout);
    layout.csum = layout.checksum().into();
    bytes
}

#[test]
fn life_of_a_superblock() {
    let fresh = Superblock::format(&format()).unwrap();
    assert_eq!((fresh.version, fresh.njournal, fresh.seq, fresh.flags()), (0, 0, 0, 0));
    assert_eq!(fresh.geometry().first_bucket().get(), 1);
    assert!(fresh.is_unused());
    let first = fresh.first_use(9);
    assert_eq!((first.version, first.njournal, first.seq, first.flags()), (3, 8, 1, 1));
    assert_eq!(first.last_mount, 9);
    assert!(!first.is_unused());
    let later = first.later_use(10);
    assert_eq!((later.version, later.seq, later.last_mount), (3, 2, 10));
    let engine = later.engine_use();
    assert_eq!((engine.version, engine.seq, engine.feature_incompat), (5, 3, 1 << 63));
    assert!(engine.has_tierce_index() && !later.has_tierce_index());
    for superblock in [fresh, first, later, engine] {
        let decoded = Superblock::decode(&superblock.encode(), Some(DEVICE_BYTES)).unwrap();
        assert_eq!(decoded, superblock);
        assert_eq!(decoded.label_text(), "a name");
    }
}

/// nbuckets / 128 journal buckets, 2 to 256; at least 12 KiB before the first bucket.
#[test]
fn derived_numbers() {
    for (bucket_sectors, first) in [(8, 3), (16, 2), (32, 1), (1024, 1)] {
        let f = Format { bucket_sectors, ..format() };
        let f = Format { device_bytes: 1 << 30, ..f };
        assert_eq!(Superblock::format(&f).unwrap().geometry().first_bucket().get(), first);
    }
    for (nbuckets, njournal) in [(513, 4), (1024, 8), (1 << 15, 256), (1 << 20, 256)] {
        let f = Format { device_bytes: nbuckets * 65536, ..format() };
        assert_eq!(Superblock::format(&f).unwrap().first_use(0).njournal, njournal);
    }
}

#[test]
fn large_buckets_are_logarithms() {
    let f = Format { bucket_sectors: 1 << 17, device_bytes: 1 << 40, ..format() };
    let superblock = Superblock::format(&f).unwrap();
    assert_eq!((superblock.version, superblock.feature_incompat), (5, 2));
    assert_eq!(superblock.bucket_size_raw(), (17, 0));
    let first = superblock.first_use(1);
    assert_eq!(first.version, 5);
    assert_eq!(Superblock::decode(&first.encode(), None).unwrap(), first);
}

#[test]
fn the_obsolete_high_half_is_read_and_kept() {
    let bytes = changed(&used().engine_use(), |l| {
        l.feature_incompat = (l.feature_incompat.get() | INCOMPAT_BUCKET_SIZE_HIGH).into();
        l.bucket_size = 0.into();
        l.bucket_size_hi = 1.into();
    });
    let superblock = Superblock::decode(&bytes, None).unwrap();
    assert_eq!(superblock.geometry().bucket_sectors(), 65536);
    assert_eq!(superblock.encode(), bytes);
}

#[test]
fn what_format_refuses() {
    for (change, message) in [
        ((|f| f.device_bytes = 512 * 65536) as fn(&mut Format), "nbuckets is 512, wanted at"),
        (|f| f.device_bytes = 0, "nbuckets is 0, wanted 8 to"),
        (|f| f.device_bytes = u64::MAX, "nbuckets is 4294967295, wanted 8 to"),
        (|f| f.bucket_sectors = 0, "nbuckets is 0, wanted"),
        (|f| f.bucket_sectors = 100, "bucket_sectors is 100, wanted a power of two"),
        (|f| f.block_sectors = 16, "block_sectors is 16, wanted a power of two"),
        (|f| f.uuid = Uuid::default(), "uuid is 0, wanted anything but zero"),
        (|f| f.set_uuid = Uuid::default(), "set_uuid is 0, wanted anything but zero"),
        (|f| f.nr_in_set = 9, "nr_in_set is 9, wanted 1 to 8"),
        (|f| f.nr_this_dev = 1, "nr_this_dev is 1, wanted less than nr_in_set, 1"),
        (|f| f.label = "x".repeat(33), "bytes of the label is 33, wanted at most 32"),
    ] {
        let mut f = format();
        change(&mut f);
        let error = Superblock::format(&f).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

/// Every field, with a sound checksum over it.
#[test]
fn what_decode_refuses() {
    let refused: &[Refusal] = &[
        (|l| l.magic[0] = 0, "no cache superblock at byte 4096: magic is 008573f6"),
        (|l| l.version = 1.into(), "superblock version is 1: a backing device"),
        (|l| l.version = 6.into(), "superblock version is 6: a backing device"),
        (|l| l.version = 7.into(), "superblock at byte 4096: version is 7, wanted 0, 3 or 5"),
        (|l| l.njournal = 257.into(), "njournal is 257, wanted at most 256"),
        (|l| l.njournal = u16::MAX.into(), "njournal is 65535, wanted at most 256"),
        (|l| l.offset = 9.into(), "offset is 9, wanted 8"),
        (|l| l.uuid = [0; 16], "superblock at byte 4096: uuid is 0, wanted anything but zero"),
        (|l| l.set_uuid = [0; 16], "set_uuid is 0, wanted anything but zero"),
        (|l| l.flags = (3 << 2).into(), "policy is 3, wanted 0 lru, 1 fifo or 2 random"),
        (|l| l.nbuckets = 127.into(), "nbuckets is 127, wanted at least 128"),
        (|l| l.nbuckets = 1025.into(), "nbuckets is 1025, wanted within the device of"),
        (|l| l.nbuckets = u64::MAX.into(), "nbuckets is 18446744073709551615, wanted 8 to"),
        (|l| l.block_size = 0.into(), "block_size is 0, wanted a power of two"),
        (|l| l.block_size = 3.into(), "block_size is 3, wanted a power of two"),
        (|l| l.block_size = 16.into(), "block_size is 16, wanted a power of two"),
        (|l| l.bucket_size = 4.into(), "bucket_size is 4, wanted a power of two, 8 to"),
        (|l| l.bucket_size = 0.into(), "bucket_size is 0, wanted a power of two, 8 to"),
        (|l| l.nr_in_set = 0.into(), "nr_in_set is 0, wanted 1 to 8"),
        (|l| l.nr_in_set = 9.into(), "nr_in_set is 9, wanted 1 to 8"),
        (|l| l.nr_this_dev = 1.into(), "nr_this_dev is 1, wanted less than nr_in_set, 1"),
        (|l| l.first_bucket = 0.into(), "first_bucket is 0, wanted"),
        (|l| l.first_bucket = 1024.into(), "first_bucket is 1024, wanted"),
        (|l| l.first_bucket = 1020.into(), "njournal is 8, wanted first_bucket + njournal"),
        (|l| l.bucket_size = 8.into(), "first_bucket is 1, wanted so many that 16 sectors"),
        (|l| l.journal[3] = 5.into(), "journal bucket is 5, wanted 4"),
    ];
    for (change, message) in refused {
        let error = Superblock::decode(&changed(&used(), change), Some(DEVICE_BYTES));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(message), "{error}, not {message}");
    }
    let refused: &[Refusal] = &[
        (|l| l.feature_incompat = 4.into(), "feature_incompat has the unknown bits 0x4:"),
        (|l| l.feature_incompat = 3.into(), "feature_incompat is 3, wanted at most one of"),
        (|l| l.feature_ro_compat = 1.into(), "feature_ro_compat has the unknown bits 0x1:"),
        (
            |l| {
                l.feature_incompat = INCOMPAT_BUCKET_SIZE_LOG2.into();
                l.bucket_size = 200.into();
            },
            "bucket_size is 200, wanted a power of two",
        ),
    ];
    for (change, message) in refused {
        let error = Superblock::decode(&changed(&used().engine_use(), change), None);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(message), "{error}, not {message}");
    }
}

#[test]
fn feature_words_mean_nothing_before_version_5() {
    let bytes = changed(&used(), |l| {
        l.feature_incompat = u64::MAX.into();
        l.feature_ro_compat = u64::MAX.into();
    });
    assert_eq!(Superblock::decode(&bytes, None).unwrap(), used());
}

#[test]
fn usability_is_a_question_of_its_own() {
    let small = changed(&used(), |l| l.nbuckets = 512.into());
    let error = Superblock::decode(&small, None).unwrap().check_usable(512).unwrap_err();
    assert!(error.to_string().contains("nbuckets is 512, wanted at least 513"), "{error}");
    used().check_usable(512).unwrap();
    let error = used().check_usable(4096).unwrap_err().to_string();
    assert!(error.contains("block_size is 1 sectors, wanted at least the device's"), "{error}");
}

#[test]
fn seq_wraps_instead_of_panicking() {
    let last = Superblock { seq: u64::MAX, ..used() };
    assert_eq!((last.later_use(0).seq, last.engine_use().seq), (0, 0));
}

proptest! {
    /// Under the checksum every flipped bit is found; outside, none matters but the magic.
    #[test]
    fn damage_is_found(at in 0usize..208 + 8 * 8, bit in 0u8..8) {
        let mut bytes = used().encode();
        bytes[at] ^= 1 << bit;
        prop_assert!(Superblock::decode(&bytes, None).is_err());
    }

    #[test]
    fn any_bytes_decode_or_fail(mut bytes in prop::collection::vec(any::<u8>(), 0..2600)) {
        let _ = Superblock::decode(&bytes, Some(DEVICE_BYTES));
        // And behind the magic and checksum, where most of the checks are.
        if let Ok((layout, _)) = Layout::mut_from_prefix(&mut bytes) {
            layout.magic = MAGIC;
            layout.version = (layout.version.get() % 8).into();
            layout.njournal = (layout.njournal.get() % 260).into();
            layout.csum = layout.checksum().into();
            let _ = Superblock::decode(&bytes, None);
        }
    }

    /// One damaged field behind a sound checksum: a value or an error.
    #[test]
    fn any_field_decodes_or_fails(at in 8usize..2264, value: [u8; 8]) {
        let bytes = changed(&used().engine_use(), |layout| {
            let bytes = layout.as_mut_bytes();
            let end = bytes.len().min(at + 8);
            bytes[at..end].copy_from_slice(&value[..end - at]);
        });
        if let Ok(superblock) = Superblock::decode(&bytes, None) {
            let again = Superblock::decode(&superblock.encode(), None);
            prop_assert_eq!(again.unwrap(), superblock);
        }
    }
}
