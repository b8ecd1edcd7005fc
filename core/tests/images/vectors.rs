//! Vectors of our own, so that the suite says something without the reference: bytes that must
//! never change, because devices carry them. The checksums were computed by a program of its own.

use tierce_core::error::Place;
use tierce_core::record::{
    Format, Jset, Key, Node, PaddedKey, Pointer, PrioSet, SetMagic, Superblock, Uuid,
};
use tierce_core::{Error, Gen, Policy, Prio};

/// A fixed device.
fn superblock() -> Superblock {
    let format = Format {
        uuid: Uuid(*b"0123456789abcdef"),
        set_uuid: Uuid(*b"fedcba9876543210"),
        label: "vector".into(),
        policy: Policy::Random,
        discard: true,
        ..Format::new(1 << 30, 1024, 8)
    };
    Superblock::format(&format).unwrap().first_use(1_234_567_890)
}

#[test]
fn superblock_bytes() {
    let bytes = superblock().encode();
    assert_eq!(bytes[..8], 0x9510_95cd_c1b7_5adcu64.to_le_bytes());
    assert_eq!(
        &bytes[8..32],
        [
            8, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a,
            0x45, 0xca,
        ]
    );
    assert_eq!(&bytes[40..80], b"0123456789abcdeffedcba9876543210vector\0\0");
    assert_eq!(bytes[104], 0b1011, "random, discard, sync");
    assert_eq!(
        &bytes[184..208],
        [0, 8, 0, 0, 0, 0, 0, 0, 8, 0, 0, 4, 1, 0, 0, 0, 0xd2, 2, 0x96, 0x49, 1, 0, 16, 0,]
    );
    assert_eq!(Superblock::decode(&bytes, Some(1 << 30)).unwrap(), superblock());
}

#[test]
fn jset_bytes() -> Result<(), Error> {
    let set = superblock().set_magic();
    assert_eq!(set, SetMagic(u64::from_le_bytes(*b"fedcba98")));
    let root = Key::new(3, 64, 16, &[Pointer::new(0, 4096, Gen::new(9))]);
    let entry = Jset {
        seq: 0x0102_0304_0506_0708,
        last_seq: 1,
        btree_root: PaddedKey::new(&root).expect("one pointer fits"),
        btree_level: 2,
        prio_bucket: [77, 0, 0, 0, 0, 0, 0, 0],
        keys: root.words().collect(),
        ..Jset::default()
    };
    let mut bytes = vec![0xff; 4096];
    assert_eq!(entry.encode(set, 512, &mut bytes)?, 512);
    assert_eq!(bytes[..8], 0x70df_9326_b1c0_86b2u64.to_le_bytes());
    assert_eq!(
        &bytes[16..40],
        [8, 7, 6, 5, 4, 3, 2, 1, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,]
    );
    let words = [3, 0, 0, 1, 0, 0, 0, 0x90, 64, 0, 0, 0, 0, 0, 0, 0, 9, 0, 16, 0, 0, 0, 0, 0];
    assert_eq!(bytes[104..128], words);
    assert_eq!((bytes[168], bytes[176]), (2, 77));
    assert_eq!(bytes[240..264], words);
    assert_eq!(Jset::decode(&bytes, set, Place::device(0))?, entry);
    Ok(())
}

#[test]
fn prio_set_bytes() {
    let mut bytes = [0xff; 56];
    let records = [(Prio::FRESH, Gen::new(1)), (Prio::METADATA, Gen::new(255))];
    PrioSet::encode(&mut bytes, SetMagic(0), 5, 99, records);
    assert_eq!(bytes[..8], 0xa84f_cb8a_83b8_a02bu64.to_le_bytes());
    assert_eq!(
        &bytes[8..],
        [
            0x91, 0x7f, 0x33, 0x87, 0x5f, 0xe1, 0x50, 0x67, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 1, 0xff, 0xff, 255, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0,
        ]
    );
}

#[test]
fn node_bytes() -> Result<(), Error> {
    let (set, at) = (SetMagic(0), Pointer::new(0, 128, Gen::new(2)));
    let mut bytes = vec![0xff; 512];
    Node::encode_bset(&mut bytes, set, at, 6, 512, &[])?;
    assert_eq!(
        &bytes[8..40],
        [
            0xf5, 7, 0x9e, 0xb9, 0x78, 0x5c, 0x13, 0x90, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]
    );
    assert_eq!(bytes[..8], 0x25a7_85cc_66ec_e3eeu64.to_le_bytes());
    Ok(())
}
