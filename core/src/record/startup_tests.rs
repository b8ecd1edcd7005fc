//! Start-up on a device made by our own encoders: what it makes of each kind of key, and what it
//! refuses.

use super::*;
use crate::bucket::{DeviceIndex, Mark};
use crate::record::{Format, Jset, Key, Node, PaddedKey, Pointer as Place, PrioSet, Uuid};

const BUCKETS: usize = 600;
const BUCKET: usize = 4096;
/// Where things lie; all gens on the device are 5.
const UUIDS: usize = 20;
const HEAD: usize = 21;
const ROOT: usize = 22;

fn superblock() -> Superblock {
    let uuid = Uuid([1; 16]);
    let format = Format { uuid, set_uuid: uuid, ..Format::new((BUCKETS * BUCKET) as u64, 8, 1) };
    Superblock::format(&format).unwrap().first_use(0)
}

/// A pointer to sector `sector` of bucket `bucket`, made with gen `generation`.
fn at(bucket: usize, sector: u64, generation: u8) -> Place {
    Place::new(0, bucket as u64 * 8 + sector, Gen::new(generation))
}

fn records() -> Vec<(Prio, Gen)> {
    let mut records = vec![(Prio::new(100), Gen::new(5)); BUCKETS];
    records[ROOT].0 = Prio::METADATA;
    records[41].0 = Prio::METADATA;
    records
}

/// A device whose index has these extents, and whose journal these further ones.
fn device(superblock: &Superblock, index: &[Key], journal: &[Key]) -> Vec<u8> {
    let set = superblock.set_magic();
    let mut device = vec![0; BUCKETS * BUCKET];
    let root = at(ROOT, 0, 5);
    Node::encode_bset(&mut device[ROOT * BUCKET..][..BUCKET], set, root, 1, 512, index).unwrap();
    let head = &mut device[HEAD * BUCKET..][..BUCKET];
    PrioSet::encode(head, set, 7, 0, records());
    let padded = |bucket| PaddedKey::new(&Key::new(0, 0, 8, &[at(bucket, 0, 5)])).unwrap();
    let entry = Jset {
        seq: 1,
        last_seq: 1,
        uuid_bucket: padded(UUIDS),
        btree_root: padded(ROOT),
        prio_bucket: [HEAD as u64, 0, 0, 0, 0, 0, 0, 0],
        keys: journal.iter().flat_map(Key::words).collect(),
        ..Jset::default()
    };
    let first = superblock.geometry().first_bucket().as_usize();
    entry.encode(set, 512, &mut device[first * BUCKET..]).unwrap();
    device
}

fn copy(device: &[u8], bucket: BucketIndex, byte: u64, out: &mut [u8]) -> Result<(), Error> {
    let start = bucket.as_usize() * BUCKET + byte as usize;
    out.copy_from_slice(&device[start..][..out.len()]);
    Ok(())
}

fn found(superblock: &Superblock, device: &[u8]) -> (Journal, PrioChain) {
    let read = |b, byte, out: &mut [u8]| copy(device, b, byte, out);
    let journal = Journal::search(superblock, read).unwrap().unwrap();
    let head = journal.prio_head(DeviceIndex::FIRST);
    let (geometry, set) = (superblock.geometry(), superblock.set_magic());
    let chain = PrioChain::follow(geometry, set, head, |b, out| read(b, 0, out), |_| ()).unwrap();
    (journal, chain)
}

#[test]
fn every_kind_of_key() {
    let superblock = superblock();
    let index = [
        Key::new(1, 8, 8, &[at(40, 0, 5)]),
        Key::new(1, 16, 3, &[at(41, 2, 5)]).with_dirty(true),
        Key::new(1, 24, 4, &[at(42, 0, 9)]),
        Key::new(1, 32, 4, &[at(43, 0, 2)]),
        Key::new(1, 40, 4, &[Place::new(4095, 1 << 40, Gen::new(5))]),
    ];
    let journal = [Key::new(2, 8, 2, &[at(40, 0, 5)]), Key::new(2, 9, 1, &[at(44, 0, 5)])];
    let device = device(&superblock, &index, &journal);
    let (newest, chain) = found(&superblock, &device);
    let read = |b, byte, out: &mut [u8]| copy(&device, b, byte, out);
    let (mut set, counts) = observe(&superblock, &newest, &chain, records(), read).unwrap();
    assert_eq!((counts.nodes, counts.bsets, counts.leaf_keys), (1, 1, 5));
    assert!(set.start().unwrap().reused.is_empty());
    set.check().unwrap();
    let journal_bucket = superblock.geometry().first_bucket().as_usize();
    for (bucket, mark, sectors, generation, last_gc, prio) in [
        (40, Mark::Reclaimable, 8 + 2, 5, 5, 100),
        // Data in a bucket that the table calls metadata: it may age again.
        (41, Mark::Dirty, 3, 5, 5, 32768),
        // Ahead of the table: the gen on the device had fallen behind. What the last collection
        // saw is not known to have moved.
        (42, Mark::Reclaimable, 4, 9, 5, 100),
        // Stale: no data of its, but its gen must not come round again.
        (43, Mark::None, 0, 5, 2, 100),
        (44, Mark::Reclaimable, 1, 5, 5, 100),
        // The uuid bucket is only marked.
        (UUIDS, Mark::Metadata, 0, 5, 5, 100),
        (ROOT, Mark::Metadata, 8, 5, 5, 65535),
        (HEAD, Mark::Metadata, 0, 5, 5, 100),
        (journal_bucket, Mark::Metadata, 0, 5, 5, 100),
    ] {
        let id = BucketId::new(DeviceIndex::FIRST, BucketIndex::new(bucket as u32));
        let word = set.word(id).unwrap();
        let shown = (word.mark(), word.sectors(), word.gen_(), word.last_gc(), word.prio());
        let (generation, last_gc) = (Gen::new(generation), Gen::new(last_gc));
        let wanted = (mark, sectors, generation, last_gc, Prio::new(prio));
        assert_eq!(shown, wanted, "bucket {bucket}");
    }
}

#[test]
fn what_start_up_refuses() {
    let superblock = superblock();
    let journal_key = [Key::new(2, 9, 1, &[at(44, 0, 5)])];
    let device = device(&superblock, &[], &journal_key);
    let (newest, chain) = found(&superblock, &device);
    let read = |b, byte, out: &mut [u8]| copy(&device, b, byte, out);

    let mut larger = superblock.clone();
    larger.nr_in_set = 2;
    let error = observe(&larger, &newest, &chain, records(), read).unwrap_err().to_string();
    let wanted = "nr_in_set is 2, wanted 1: the index of a larger set lies on all its devices";
    assert_eq!(error, wanted);

    let few = records()[1..].to_vec();
    let error = observe(&superblock, &newest, &chain, few, read).unwrap_err().to_string();
    assert_eq!(error, "table records is 599, wanted 600, one per bucket");

    let first = superblock.geometry().first_bucket();
    for (unreadable, byte) in [(BucketIndex::new(ROOT as u32), 0), (first, 0)] {
        let failing = |b: BucketIndex, at: u64, out: &mut [u8]| {
            if (b, at) == (unreadable, byte) {
                return Err(Error::limit("bucket", b.get(), "one that can be read".into()));
            }
            read(b, at, out)
        };
        let error = observe(&superblock, &newest, &chain, records(), failing).unwrap_err();
        let wanted = format!("bucket is {unreadable}, wanted one that can be read");
        assert_eq!(error.to_string(), wanted);
    }

    let outside = [Key::new(2, 9, 1, &[at(BUCKETS, 0, 5)])];
    let damaged = self::device(&superblock, &[], &outside);
    let read = |b, byte, out: &mut [u8]| copy(&damaged, b, byte, out);
    let error = observe(&superblock, &newest, &chain, records(), read).unwrap_err().to_string();
    let wanted = format!(
        "key at bucket {first} byte 0: sector of a pointer is 4800, wanted in buckets {first} to 599"
    );
    assert_eq!(error, wanted);
}
