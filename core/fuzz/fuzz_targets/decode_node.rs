//! Invariants: any bytes give a node or an error; its bsets lie within the bytes; merging at
//! most doubles its keys, keeps leaves disjoint and in order, and is what it is when merged
//! again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tierce_core::record::{Key, Node};
use tierce_core_fuzz::{AT, HERE, SET, number, put, seal_node};

const BLOCK: usize = 512;

fn check(bytes: &[u8]) {
    let Ok(found) = Node::decode(bytes, SET, AT, BLOCK as u32, HERE) else { return };
    let keys: usize = found.bsets.iter().map(Vec::len).sum();
    assert!(!found.bsets.is_empty() && 16 * keys <= bytes.len());
    let inner = found.merged(1);
    assert!(inner.windows(2).all(|two| place(&two[0]) < place(&two[1])));
    let leaf = found.merged(0);
    assert!(leaf.len() <= 2 * keys && leaf.iter().all(|key| !key.pointers().is_empty()));
    for two in leaf.windows(2) {
        let start = two[1].start().unwrap_or(0);
        assert!(two[0].inode() < two[1].inode() || two[0].end() <= start, "{two:?}");
    }
    let mut again = vec![0; 64 << 10];
    if Node::encode_bset(&mut again, SET, AT, 1, BLOCK as u32, &leaf).is_ok() {
        let again = Node::decode(&again, SET, AT, BLOCK as u32, HERE).expect("we encoded it");
        assert_eq!(again.merged(0), leaf);
    }
}

fn place(key: &Key) -> (u32, u64) {
    (key.inode(), key.end())
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // Every block may begin a bset of the same seq.
    let mut sealed = bytes.to_vec();
    let mut start = 0;
    while let Some(rest) = sealed.get_mut(start..).filter(|rest| rest.len() >= 32) {
        put(rest, 8, SET.node());
        put(rest, 16, 1);
        let words = number(rest, 28) % 64;
        rest[24..28].copy_from_slice(&[1, 0, 0, 0]);
        rest[28..32].copy_from_slice(&(words as u32).to_le_bytes());
        let end = 32 + 8 * words;
        seal_node(rest, end, AT);
        start += end.next_multiple_of(BLOCK);
    }
    check(&sealed);
});
