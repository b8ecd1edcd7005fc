//! A device of the fuzzer's bytes, started up: journal search, prio chain, walk of the index.
//!
//! Invariants: the end is a value or an error; nothing outside the device is read; a chain has
//! distinct buckets; what is live is complete; no node is read twice, so that no forged device
//! takes long; the allocator that comes of it starts and does a round of work.
//!
//! The first 16 bytes say which checksums to make right; each following 4 KiB are a bucket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;
use tierce_core::record::{Journal, Pointer, PrioChain, startup, walk};
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Error, Gen};
use tierce_core_fuzz::{Device, number, put, seal, seal_node};

fn start_up(bytes: &[u8]) -> Result<(), Error> {
    let device = Device::new(bytes);
    let superblock = device.superblock.clone();
    let (geometry, magic) = (*superblock.geometry(), superblock.set_magic());
    let read = |bucket, byte, out: &mut [u8]| device.read(bucket, byte, out);
    let Some(journal) = Journal::search(&superblock, read)? else { return Ok(()) };
    let seqs: Vec<_> = journal.live.iter().map(|entry| entry.seq).collect();
    let first = journal.newest.last_seq.max(1);
    assert!(seqs.iter().copied().eq(first..=journal.newest.seq));

    // Every node is read once.
    let mut nodes = HashSet::new();
    let newest = (&journal.newest, journal.newest_entry().place());
    let read_node = |at: BucketId, out: &mut [u8]| {
        assert!(nodes.insert(at), "{at} was read twice");
        read(at.bucket(), 0, out)
    };
    let _ = walk::index(&[geometry], magic, newest, read_node, |_| true);

    let mut records = Vec::new();
    let chain = PrioChain::follow(
        &geometry,
        magic,
        journal.prio_head(superblock.nr_this_dev),
        |bucket, out| read(bucket, 0, out),
        |set| records.extend(set.records().map(|(_, prio, generation)| (prio, generation))),
    )?;
    assert_eq!(records.len(), geometry.nbuckets() as usize);
    let distinct: HashSet<_> = chain.buckets.iter().collect();
    assert_eq!(distinct.len(), geometry.prio_buckets() as usize);

    let (mut set, _) = startup::observe(&superblock, &journal, &chain, records, read)?;
    let _ = set.start()?;
    set.step(DeviceIndex::FIRST);
    Ok(())
}

/// Makes the checksum of each bucket right for the record that the head says it is.
fn sealed(head: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    let (first, set) = {
        let superblock = Device::new(&[]).superblock;
        (superblock.geometry().first_bucket().get(), superblock.set_magic())
    };
    for (i, bucket) in bytes.chunks_exact_mut(4096).enumerate() {
        match head[i % head.len()] % 4 {
            0 => {
                put(bucket, 8, set.jset());
                let keys = number(bucket, 28) % 400;
                bucket[24..28].copy_from_slice(&[1, 0, 0, 0]);
                bucket[28..32].copy_from_slice(&(keys as u32).to_le_bytes());
                seal(bucket, 240 + 8 * keys);
            }
            1 => {
                put(bucket, 8, set.prio_set());
                bucket[24..28].fill(0);
                seal(bucket, 4096);
            }
            2 => {
                put(bucket, 8, set.node());
                let words = number(bucket, 28) % 400;
                bucket[24..28].copy_from_slice(&[1, 0, 0, 0]);
                bucket[28..32].copy_from_slice(&(words as u32).to_le_bytes());
                let index = BucketIndex::new(first + i as u32);
                let sector = u64::from(index.get()) * 8;
                seal_node(bucket, 32 + 8 * words, Pointer::new(0, sector, Gen::new(head[15])));
            }
            _ => (),
        }
    }
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let _ = start_up(bytes);
    if let Some((head, rest)) = bytes.split_at_checked(16) {
        let _ = start_up(&sealed(head, rest));
    }
});
