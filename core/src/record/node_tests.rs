//! Nodes: what merging must yield, and what decoding must survive.

use super::*;
use crate::bucket::Gen;
use proptest::prelude::*;
use std::collections::HashMap;

const SET: SetMagic = SetMagic(7);
const HERE: Place = Place::device(0);

fn at() -> Pointer {
    Pointer::new(0, 128, Gen::new(4))
}

fn node_of(bsets: &[Vec<Key>], seqs: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    let mut used = 0;
    for (keys, seq) in bsets.iter().zip(seqs) {
        used += Node::encode_bset(&mut bytes[used..], SET, at(), *seq, 512, keys).unwrap();
    }
    bytes
}

fn decode(bytes: &[u8]) -> Result<Node, Error> {
    Node::decode(bytes, SET, at(), 512, HERE)
}

fn key(inode: u32, end: u64) -> Key {
    Key::new(inode, end, 8, &[Pointer::new(0, end, Gen::new(0))])
}

#[test]
fn a_torn_newest_bset_ends_the_node() {
    let bsets = [vec![key(1, 8)], vec![key(1, 16)], vec![key(1, 24)]];
    let mut bytes = node_of(&bsets, &[5, 5, 5]);
    bytes[1024 + 40] ^= 1;
    assert_eq!(decode(&bytes).unwrap().bsets, bsets[..2]);
    bytes[40] ^= 1;
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.starts_with("index node at byte 0: csum is 0x"), "{error}");
}

#[test]
fn another_seq_ends_the_node() {
    let bsets = [vec![key(1, 8)], vec![key(1, 16)]];
    assert_eq!(decode(&node_of(&bsets, &[5, 4])).unwrap().bsets, bsets[..1]);
}

/// A count of keys beyond the node's end is refused before anything is read by it.
#[test]
fn a_count_beyond_the_node_ends_it() {
    for count in [60, 61, u32::MAX] {
        let mut bytes = node_of(&[vec![key(1, 8)]], &[5]);
        bytes[28..32].copy_from_slice(&count.to_le_bytes());
        let error = decode(&bytes[..512]).unwrap_err().to_string();
        let wanted = if count == 60 {
            "index node at byte 0: csum is 0x".to_owned()
        } else {
            format!(
                "index node at byte 0: keys is {count}, wanted at most the 60 that fit the node"
            )
        };
        assert!(error.starts_with(&wanted), "{error}");
    }
}

/// The same bytes read through another pointer are no node.
#[test]
fn the_pointer_is_part_of_the_checksum() {
    let bytes = node_of(&[vec![key(1, 8)]], &[5]);
    let other = Pointer::new(0, 128, Gen::new(5));
    assert!(Node::decode(&bytes, SET, other, 512, HERE).is_err());
}

#[test]
fn a_node_that_is_full_ends_there() {
    let bytes = node_of(&[vec![key(1, 8)], vec![key(1, 16)]], &[5, 5]);
    assert_eq!(decode(&bytes[..512]).unwrap().bsets.len(), 1);
    assert_eq!(decode(&bytes[..1024]).unwrap().bytes, 1024);
}

#[test]
fn rules_hold_behind_the_checksum() {
    let mut bytes = node_of(&[vec![key(1, 8)]], &[5]);
    bytes[24] = 0;
    let reseal = |bytes: &mut [u8]| {
        let csum = crc::checksum_seeded(at().bits(), &bytes[8..HEADER_BYTES + 24]);
        bytes[..8].copy_from_slice(&csum.to_le_bytes());
    };
    reseal(&mut bytes);
    let error = decode(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "index node at byte 0: version is 0, wanted 1");
    bytes[24] = 1;
    bytes[HEADER_BYTES + 7] |= 0x70;
    reseal(&mut bytes);
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.starts_with("key at byte 32: number of pointers is 7"), "{error}");
}

#[test]
fn inner_keys_replace_by_name() {
    let replaced = Key::new(1, 8, 16, &[Pointer::new(0, 999, Gen::new(1))]);
    let gone = Key::new(2, 8, 0, &[]);
    let bsets = [vec![key(1, 8), key(1, 16), key(2, 8)], vec![replaced, gone]];
    let node = decode(&node_of(&bsets, &[5, 5])).unwrap();
    assert_eq!(node.merged(1), [replaced, key(1, 16)]);
}

#[test]
fn too_small_a_buffer_is_an_error() {
    let error = Node::encode_bset(&mut [0; 511], SET, at(), 1, 512, &[]).unwrap_err();
    let wanted = "bytes of the node buffer is 511, wanted at least the bset's 512";
    assert_eq!(error.to_string(), wanted);
}

/// Small extents of two objects, some of them only taking away.
fn extents() -> impl Strategy<Value = Vec<Vec<Key>>> {
    let key = (0u32..2, 0u64..60, 0u32..20, any::<bool>(), 0u64..1 << 30).prop_map(
        |(inode, end, sectors, takes_away, sector)| {
            let pointers = [Pointer::new(0, sector, Gen::new(1))];
            let pointers = if takes_away { &[] } else { &pointers[..] };
            Key::new(inode, end, sectors.min(end as u32), pointers)
        },
    );
    prop::collection::vec(prop::collection::vec(key, 0..10), 1..6)
}

proptest! {
    /// Merged extents, against a map that knows for every sector of an object where it is.
    #[test]
    fn extents_merge_sector_by_sector(bsets in extents()) {
        let mut wanted = HashMap::new();
        for key in bsets.iter().flatten() {
            let start = key.start().unwrap();
            for sector in start..key.end() {
                match key.pointers() {
                    [p] => wanted.insert((key.inode(), sector), p.sector() + sector - start),
                    _ => wanted.remove(&(key.inode(), sector)),
                };
            }
        }
        let seqs = vec![9; bsets.len()];
        let node = decode(&node_of(&bsets, &seqs)).unwrap();
        prop_assert_eq!(&node.bsets, &bsets);
        let mut found = HashMap::new();
        for key in node.merged(0) {
            let start = key.start().unwrap();
            for sector in start..key.end() {
                let place = key.pointers()[0].sector() + sector - start;
                let twice = found.insert((key.inode(), sector), place);
                prop_assert_eq!(twice, None, "merged extents are disjoint");
            }
        }
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    /// Any words as keys behind a sound header: merging neither panics nor grows without bound.
    #[test]
    fn any_keys_merge(words in prop::collection::vec(any::<u64>(), 0..200), level in 0u16..2) {
        let keys: Vec<Key> =
            Keys::new(words.iter().copied(), HERE).map_while(Result::ok).collect();
        let count = keys.len();
        let merged = Node { seq: 0, bsets: vec![keys], bytes: 0 }.merged(level);
        prop_assert!(merged.len() <= 2 * count);
    }
}
