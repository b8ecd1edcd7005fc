//! Writes the seed corpus: for each target some records of our own encoders.
//!
//! `cargo run --example seeds` in this directory writes `corpus/<target>/seed_*`.

use std::path::Path;
use tierce_core::record::{
    Format, Jset, Key, Node, PaddedKey, Pointer, PrioSet, Superblock, Uuid, UuidEntry,
};
use tierce_core::{Error, Gen, Prio};
use tierce_core_fuzz::{AT, Device, SET};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (target, seeds) in [
        ("decode_superblock", superblocks()?),
        ("decode_jset", jsets()?),
        ("decode_prio_set", vec![prio_set()]),
        ("decode_node", vec![node()?]),
        ("decode_uuid", vec![uuids()]),
        ("device", vec![device(false)?, device(true)?]),
    ] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&directory)?;
        for (i, seed) in seeds.iter().enumerate() {
            std::fs::write(directory.join(format!("seed_{i}")), seed)?;
        }
    }
    Ok(())
}

fn superblocks() -> Result<Vec<Vec<u8>>, Error> {
    let uuid = Uuid([1; 16]);
    let format = Format { uuid, set_uuid: uuid, ..Format::new(64 << 20, 128, 1) };
    let fresh = Superblock::format(&format)?;
    let used = fresh.first_use(1);
    let large =
        Superblock::format(&Format { bucket_sectors: 1 << 17, device_bytes: 1 << 40, ..format })?;
    let all = [fresh, used.engine_use(), used, large];
    Ok(all.iter().map(|superblock| superblock.encode()[..2264].to_vec()).collect())
}

fn data(sector: u64) -> [Pointer; 1] {
    [Pointer::new(0, sector, Gen::new(1))]
}

fn jsets() -> Result<Vec<Vec<u8>>, Error> {
    let key = Key::new(1, 64, 16, &data(4096)).with_dirty(true);
    let padded = PaddedKey::new(&key).expect("one pointer fits");
    let empty = Jset { seq: 1, last_seq: 1, ..Jset::default() };
    let full = Jset {
        uuid_bucket: padded,
        btree_root: padded,
        keys: key.words().collect(),
        ..empty.clone()
    };
    [empty, full]
        .iter()
        .map(|entry| {
            let mut bytes = vec![0; 512];
            entry.encode(SET, 512, &mut bytes).map(|_| bytes)
        })
        .collect()
}

fn prio_set() -> Vec<u8> {
    let mut bytes = vec![0; 512];
    PrioSet::encode(&mut bytes, SET, 7, 9, (0..150).map(|i| (Prio::new(i), Gen::new(1))));
    bytes
}

fn node() -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; 1024];
    let old = [Key::new(1, 100, 100, &data(4096)), Key::new(2, 8, 8, &data(8))];
    let new = [Key::new(1, 50, 20, &data(8192)), Key::new(1, 90, 10, &[])];
    let used = Node::encode_bset(&mut bytes, SET, AT, 1, 512, &old)?;
    Node::encode_bset(&mut bytes[used..], SET, AT, 1, 512, &new)?;
    Ok(bytes)
}

fn uuids() -> Vec<u8> {
    let entry = UuidEntry { uuid: Uuid([3; 16]), flags: 1, ..UuidEntry::default() };
    [[0; 128], entry.encode()].concat()
}

/// A journal entry, the prio sets, a root and a leaf, behind the 16 bytes that name them; the
/// root may lead to the leaf twice.
fn device(twice: bool) -> Result<Vec<u8>, Error> {
    let superblock = Device::new(&[]).superblock;
    let (first, set) = (superblock.geometry().first_bucket().get(), superblock.set_magic());
    let njournal = u32::from(superblock.njournal);
    let buckets = njournal as usize + superblock.geometry().prio_buckets() as usize + 2;
    let mut bytes = vec![0; buckets * 4096];
    let after = |n: u32| first + njournal + n;
    let at = |bucket: u32| [Pointer::new(0, u64::from(bucket) * 8, Gen::new(0))];
    let (root, leaf) = (
        after(superblock.geometry().prio_buckets()),
        after(superblock.geometry().prio_buckets()) + 1,
    );
    let place = |bucket: u32| (bucket - first) as usize * 4096;
    let root_key = Key::new(0, 1, 8, &at(root));
    let entry = Jset {
        seq: 1,
        last_seq: 1,
        btree_root: PaddedKey::new(&root_key).expect("one pointer fits"),
        btree_level: 1,
        prio_bucket: [u64::from(after(0)), 0, 0, 0, 0, 0, 0, 0],
        keys: Key::new(1, 8, 8, &at(leaf + 2)).words().collect(),
        ..Jset::default()
    };
    entry.encode(set, 512, &mut bytes)?;
    for i in 0..superblock.geometry().prio_buckets() {
        let bucket = &mut bytes[place(after(i))..][..4096];
        PrioSet::encode(bucket, set, 1, u64::from(after(i + 1)), []);
    }
    let leaf_keys = [Key::new(1, 50, 8, &at(leaf)), Key::new(1, 100, 8, &at(leaf))];
    let leaf_keys = if twice { &leaf_keys[..] } else { &leaf_keys[1..] };
    Node::encode_bset(&mut bytes[place(root)..], set, at(root)[0], 1, 512, leaf_keys)?;
    let extent = Key::new(1, 8, 8, &at(leaf + 2));
    Node::encode_bset(&mut bytes[place(leaf)..], set, at(leaf)[0], 1, 512, &[extent])?;
    let mut head = [3; 16];
    head[15] = 0;
    Ok([&head[..], &bytes].concat())
}
