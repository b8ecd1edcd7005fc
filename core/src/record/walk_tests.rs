//! Walks over indexes made by our own encoders: what is met, in which order, and what ends them.

use super::*;
use crate::bucket::{BucketIndex, Gen};
use crate::record::PaddedKey;
use proptest::prelude::*;
use std::collections::HashMap;

const SET: SetMagic = SetMagic(9);
const HERE: Place = Place::device(8192);

fn geometry() -> Geometry {
    Geometry::new(1024, 1, 8, 1).unwrap()
}

/// A pointer to sector `sector` of bucket `bucket`.
fn at(bucket: u64, sector: u64) -> Pointer {
    Pointer::new(0, bucket * 8 + sector, Gen::new(0))
}

/// A key to the node in `bucket`, whose last key ends at `end`.
fn node_key(end: u64, bucket: u64) -> Key {
    Key::new(1, end, 8, &[at(bucket, 0)])
}

/// An index: by bucket, the bsets of a node.
#[derive(Default)]
struct Index {
    nodes: HashMap<u64, Vec<Vec<Key>>>,
    stale: Vec<u64>,
    /// What was met: bucket and sectors; and which buckets were read.
    met: Vec<(u32, u32)>,
    read: Vec<u32>,
}

impl Index {
    fn node(mut self, bucket: u64, bsets: &[&[Key]]) -> Self {
        self.nodes.insert(bucket, bsets.iter().map(|keys| keys.to_vec()).collect());
        self
    }

    fn walk(&mut self, root: Key, level: u16) -> Result<WalkCounts, Error> {
        let newest = Jset {
            seq: 1,
            btree_root: PaddedKey::new(&root).unwrap(),
            btree_level: level,
            ..Jset::default()
        };
        let Self { nodes, stale, met, read } = self;
        let read_node = |id: BucketId, out: &mut [u8]| -> Result<(), Error> {
            let bucket = u64::from(id.bucket().get());
            read.push(id.bucket().get());
            let mut used = 0;
            for keys in nodes.get(&bucket).into_iter().flatten() {
                let (out, pointer) = (&mut out[used..], at(bucket, 0));
                used += Node::encode_bset(out, SET, pointer, 1, 512, keys)?;
            }
            Ok(())
        };
        index(&[geometry()], SET, (&newest, HERE), read_node, |m| {
            met.push((m.bucket.bucket().get(), m.sectors));
            !stale.contains(&u64::from(m.bucket.bucket().get()))
        })
    }

    fn error(mut self, root: Key, level: u16) -> String {
        self.walk(root, level).unwrap_err().to_string()
    }
}

#[test]
fn order_is_depth_first_and_nodes_below_the_root_come_twice() {
    let mut index = Index::default()
        .node(10, &[&[node_key(50, 20), node_key(99, 30)]])
        .node(20, &[&[Key::new(1, 8, 4, &[at(200, 1)])]])
        .node(30, &[&[Key::new(1, 60, 2, &[at(300, 0)]), Key::new(1, 99, 1, &[at(301, 0)])]]);
    let counts = index.walk(node_key(99, 10), 1).unwrap();
    assert_eq!(counts, WalkCounts { nodes: 3, bsets: 3, leaf_keys: 3 });
    let wanted = [(10, 8), (20, 8), (30, 8), (20, 8), (200, 4), (30, 8), (300, 2), (301, 1)];
    assert_eq!(index.met, wanted);
    assert_eq!(index.read, [10, 20, 30]);
}

#[test]
fn what_a_later_bset_replaced_is_met_but_not_descended() {
    let mut index =
        Index::default().node(10, &[&[node_key(50, 20)], &[node_key(50, 21)]]).node(21, &[&[]]);
    index.walk(node_key(99, 10), 1).unwrap();
    assert_eq!(index.met, [(10, 8), (20, 8), (21, 8), (21, 8)]);
    assert_eq!(index.read, [10, 21]);
}

#[test]
fn tombstones_placeholders_and_stale_nodes_are_passed_over() {
    let tombstone = Key::new(0, 0, 8, &[at(40, 0)]);
    let placeholder = Key::new(1, 9, 1, &[Pointer::new(4095, 1 << 40, Gen::new(7))]);
    let mut index = Index::default()
        .node(10, &[&[tombstone, node_key(50, 20), node_key(99, 30)]])
        .node(20, &[&[placeholder]]);
    index.stale.push(30);
    let counts = index.walk(node_key(99, 10), 1).unwrap();
    assert_eq!(index.met, [(10, 8), (20, 8), (30, 8), (20, 8), (30, 8)]);
    assert_eq!((index.read.as_slice(), counts.leaf_keys), (&[10, 20][..], 1));
}

#[test]
fn no_root_is_an_empty_index_and_a_stale_one_an_error() {
    assert_eq!(Index::default().walk(Key::default(), 0), Ok(WalkCounts::default()));
    let index = Index { stale: vec![10], ..Index::default() };
    let error = index.error(node_key(99, 10), 0);
    let wanted = "journal entry at byte 8192: btree_root is stale, wanted a live node";
    assert_eq!(error, wanted);
}

#[test]
fn damage_ends_the_walk() {
    let leaf = |key: Key| Index::default().node(10, &[&[key]]).error(node_key(99, 10), 0);
    let pointing = |pointer| leaf(Key::new(1, 9, 4, &[pointer]));
    for (error, message) in [
        (pointing(at(1024, 0)), "key at bucket 10 byte 0: sector of a pointer is 8192, wanted"),
        (pointing(at(0, 0)), "sector of a pointer is 0, wanted in buckets 1 to 1023"),
        (pointing(at(5, 5)), "sectors is 4, wanted at most the 3 left in the bucket"),
        (pointing(Pointer::new(1, 99, Gen::new(0))), "device of a pointer is 1, wanted below"),
        (Index::default().error(node_key(99, 10), 0), "index node at bucket 10 byte 0: magic is"),
        (
            Index::default().error(Key::new(1, 9, 7, &[at(10, 1)]), 0),
            "sector of a pointer is 81, wanted the start of a bucket",
        ),
        (
            Index::default().error(Key::new(1, 9, 0, &[at(10, 0)]), 0),
            "index node at bucket 10 byte 0: length is 0, wanted 32",
        ),
    ] {
        assert!(error.contains(message), "{error}, not {message}");
    }
}

/// The keys that the newest journal entry itself holds, and what the device answers.
#[test]
fn a_damaged_journal_entry_names_itself() {
    let far = PaddedKey::new(&Key::new(0, 0, 8, &[at(1024, 0)])).unwrap();
    let inside = PaddedKey::new(&Key::new(0, 0, 8, &[at(7, 1)])).unwrap();
    let mut cut_off = PaddedKey::default();
    cut_off.words[0] = 7 << 60;
    let walk = |newest: Jset| {
        let unreadable = |bucket: BucketId, _: &mut [u8]| -> Result<(), Error> {
            Err(Error::limit("bucket", bucket.bucket().get(), "one that can be read".into()))
        };
        index(&[geometry()], SET, (&newest, HERE), unreadable, |_| true).unwrap_err().to_string()
    };
    let root = |btree_root| walk(Jset { btree_root, ..Jset::default() });
    let uuids = |uuid_bucket| walk(Jset { uuid_bucket, ..Jset::default() });
    let outside = "sector of a pointer is 8192, wanted in buckets 1 to 1023";
    assert_eq!(root(far), format!("key at byte 8192: {outside}"));
    assert_eq!(uuids(far), format!("key at byte 8192: {outside}"));
    let across = "key at byte 8192: sectors is 8, wanted at most the 7 left in the bucket";
    assert_eq!((root(inside), uuids(inside)), (across.to_owned(), across.to_owned()));
    for text in [root(cut_off), uuids(cut_off)] {
        assert!(text.contains("number of pointers is 7"), "{text}");
    }
    let sound = PaddedKey::new(&node_key(9, 10)).unwrap();
    assert_eq!(root(sound), "bucket is 10, wanted one that can be read");
}

#[test]
fn the_uuid_bucket_is_met_first_and_not_read() {
    let newest = Jset { uuid_bucket: PaddedKey::new(&node_key(0, 7)).unwrap(), ..Jset::default() };
    let mut met = Vec::new();
    let read = |_, _: &mut [u8]| Err(Error::limit("reads", 1u32, "0".into()));
    let counts = index(&[geometry()], SET, (&newest, HERE), read, |m| {
        met.push((m.bucket.bucket().get(), m.sectors, m.kind));
        true
    });
    assert_eq!(counts, Ok(WalkCounts::default()));
    assert_eq!(met, [(7, 8, PointerKind::UuidBucket)]);
}

/// Nodes that lead to each other, or to one child many times: read once, then an error.
#[test]
fn forged_indexes_end_soon() {
    let to_itself = Index::default().node(10, &[&[node_key(1, 10)]]);
    assert!(to_itself.error(node_key(99, 10), u16::MAX).contains("in the index twice"));
    let mut shared = Index::default();
    for level in 0..200 {
        let keys = [node_key(1, 11 + level), node_key(2, 11 + level)];
        shared = shared.node(10 + level, &[&keys]);
    }
    shared = shared.node(210, &[&[]]);
    assert!(shared.walk(node_key(9, 10), 200).is_err());
    assert!(shared.read.len() <= 201);
}

#[test]
fn journal_keys_come_in_order() {
    let dirty = Key::new(1, 9, 4, &[at(7, 0)]).with_dirty(true);
    let keys = [dirty, Key::new(1, 20, 3, &[at(8, 1), at(9, 2)])];
    let mut entry = Jset { keys: keys.iter().flat_map(Key::words).collect(), ..Jset::default() };
    let mut met = Vec::new();
    let mut note = |m: &Met| {
        met.push((m.bucket.bucket().get(), m.sectors, m.kind));
        true
    };
    journal_keys(&[geometry()], &entry, HERE, &mut note).unwrap();
    let (dirty, clean) = (PointerKind::Dirty, PointerKind::Clean);
    entry.keys.pop();
    let error = journal_keys(&[geometry()], &entry, HERE, |_| true).unwrap_err().to_string();
    assert!(error.starts_with("key at byte 8456: number of pointers is 2"), "{error}");
    assert_eq!(met, [(7, 4, dirty), (8, 3, clean), (9, 3, clean)]);
}

proptest! {
    /// Whatever keys a root holds: an end, each bucket read at most once, nothing met outside.
    #[test]
    fn any_keys_are_walked(
        words in prop::collection::vec(any::<u64>(), 0..40),
        buckets in prop::collection::vec((0u64..30, 0u64..9), 0..20),
        level in 0u16..3,
    ) {
        let mut keys: Vec<Key> = crate::record::Keys::new(words.into_iter(), HERE)
            .map_while(Result::ok)
            .collect();
        keys.extend(buckets.iter().map(|&(bucket, sector)| {
            Key::new(1, bucket * 7, 8 - sector.min(8) as u32, &[at(bucket, sector)])
        }));
        let mut index = Index::default().node(10, &[&keys]).node(20, &[&keys]);
        let _ = index.walk(node_key(99, 10), level);
        index.read.sort_unstable();
        prop_assert!(index.read.windows(2).all(|two| two[0] < two[1]));
        prop_assert!(index.met.iter().all(|&(b, _)| geometry().contains(BucketIndex::new(b))));
    }
}
