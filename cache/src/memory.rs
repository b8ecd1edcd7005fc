//! Copies in memory of records that were inserted or read lately.
//!
//! # Problem
//!
//! A read of the device takes a thousand times as long as a copy. But a copy must never be served
//! once its key has another value, was removed or has expired, although the index and the copies
//! are changed at different times, by different threads, without a lock around both.
//!
//! # State
//!
//! At most one copy per hash of a key, each with the *place* of its record: the number of its
//! bucket's life, and the offset in the bucket. So many bytes at most, keys, values and what it
//! takes to find them together. Which copies stay is `quick_cache`'s to say (Clock-PRO: what is
//! read once does not push out what is read often); what is copied at all once memory is full says
//! [`crate::admission`].
//!
//! # Protocol
//!
//! 1. A get asks the index, always. It says in which bucket, of which gen, and where the newest
//!    record is. The bucket's gen must be that one; then the number of its life is loaded.
//! 2. A copy is used if its place is that life and that offset. Otherwise the record is read from
//!    the write buffer or the device, and copied.
//! 3. The gen is looked at again, as after a read of the device, and only then is the copy the
//!    answer. This makes the get a use of the bucket ([`OpenRead::validate`]): what is read from
//!    memory keeps its bucket from being reused as what is read from the device does.
//! 4. An insert leaves a copy with the new place when the index names it already; that takes the
//!    place of the older copy. A remove takes the copy away. Both only save memory: step 2 would
//!    not use the older copy.
//!
//! # Invariants
//!
//! 1. *The record of a place never changes.* The number of a life is given out once, and in a life
//!    an offset takes one record.
//! 2. A copy is the record of its place: it was made of what an insert wrote there, or of bytes
//!    whose checksum starts from the life's number.
//!
//! # Why nothing old is served
//!
//! What a get may answer is decided by the index alone, exactly as without copies; by the
//! invariants a copy is what the device would have given for that place. However late a slow
//! reader leaves the copy of a record that has been replaced meanwhile, nobody finds it: the index
//! names another place. The same holds for the copy of a record that was removed (the index names
//! none), and for one whose bucket is reused with a record of the same key at the same offset (it
//! is another life). If step 1 loads the number of a later life, because the bucket is reused just
//! then, step 3 notices: a life begins after the gen was advanced.
//!
//! When an entry expires is in its record, so in the copy; the clock is asked at every get.
//!
//! # When a bucket goes
//!
//! Then its entries are gone, though copies of them are held: a get is a miss, counted as
//! [`Stats::stale`](crate::Stats::stale). A copy would still be the newest value, but `contains`,
//! `remove`, a restart and what may come back after a power loss would have to tell apart entries
//! that are only in memory. With LRU it hardly matters, for what is read often is in a bucket that
//! is used often.
//!
//! # Progress
//!
//! A shard's lock is held for one operation of its table, never across I/O or while waiting. No
//! other lock is held meanwhile.
//!
//! [`OpenRead::validate`]: tierce_lockfree::OpenRead::validate

use crate::admission::Admission;
use crate::index::KeyHash;
use crate::layout::{Kind, Record};
use crate::stats::Count;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use tierce_core::broken;

/// Where a record is, of all records there ever are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The number of its bucket's life.
    pub(crate) life: u64,
    /// From the start of the bucket, in bytes.
    pub(crate) offset: u32,
}

impl Place {
    /// What stands for the key of a record that has none: a part of a value.
    pub(crate) fn hash(self) -> KeyHash {
        KeyHash::of(self.life, &self.offset.to_le_bytes())
    }
}

/// A copy of a record.
#[derive(Debug)]
pub(crate) struct Copied {
    place: Place,
    kind: Kind,
    expires: u64,
    key_bytes: usize,
    /// Key and value.
    bytes: Box<[u8]>,
}

/// What a copy takes besides its key and value: its counted allocation, and its place in the
/// table, which holds half as many ghosts as copies, takes 21 bytes for each and is a power of two
/// in size, so a third larger than needed on average. (A test compares.)
const COPY_BYTES: u64 = (size_of::<Copied>() + 2 * size_of::<usize>()) as u64
    + (size_of::<KeyHash>() + size_of::<Arc<Copied>>() + 21) as u64 * 2;

impl Copied {
    fn of(place: Place, record: &Record<'_>) -> Arc<Self> {
        let Record { kind, version: _, expires, key, value } = *record;
        let mut bytes = Vec::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Arc::new(Self { place, kind, expires, key_bytes: key.len(), bytes: bytes.into() })
    }

    /// The record, without its version, which no get looks at.
    pub(crate) fn record(&self) -> Record<'_> {
        let (key, value) = self.bytes.split_at(self.key_bytes);
        Record { kind: self.kind, version: 0, expires: self.expires, key, value }
    }
}

/// What a copy counts for.
#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<KeyHash, Arc<Copied>> for Bytes {
    fn weight(&self, _hash: &KeyHash, copy: &Arc<Copied>) -> u64 {
        copy.bytes.len() as u64 + COPY_BYTES
    }
}

/// Counts copies that give way to others.
#[derive(Clone, Debug)]
struct Evictions(Arc<Count>);

impl Lifecycle<KeyHash, Arc<Copied>> for Evictions {
    type RequestState = [Option<(KeyHash, Arc<Copied>)>; 2];

    fn on_evict(&self, state: &mut Self::RequestState, hash: KeyHash, copy: Arc<Copied>) {
        self.0.add_one();
        // It keeps them, so that they are freed when the shard is unlocked.
        DefaultLifecycle::default().on_evict(state, hash, copy);
    }
}

/// A [`KeyHash`] needs no hashing.
#[derive(Debug, Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, &byte| sum.rotate_left(8) ^ u64::from(byte));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Whether more than a 16th of memory is free: shards that are full have some left.
fn has_room(copies: &Copies) -> bool {
    copies.weight() < copies.capacity() / 16 * 15
}

type Copies = Cache<KeyHash, Arc<Copied>, Bytes, BuildHasherDefault<Hashed>, Evictions>;

/// The copies of a cache, if it was told to keep any.
pub(crate) struct Memory {
    copies: Option<Copies>,
    admission: Admission,
    evictions: Arc<Count>,
    hits: Count,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// A shard has at least so many bytes: it holds no record that is larger than itself.
const SHARD_BYTES_MIN: usize = 1 << 20;

/// A guess at the size of a record, for how many ghosts there may be and how many shards.
const RECORD_BYTES_GUESS: usize = 4096;

impl Memory {
    /// Of `bytes` bytes at most, for so many CPUs.
    pub(crate) fn new(bytes: usize, cpus: usize) -> Self {
        let evictions = Arc::new(Count::default());
        let most = (bytes / SHARD_BYTES_MIN).max(1);
        // A power of two, or it would be rounded up.
        let shards = 1 << (cpus.max(1) * 4).next_power_of_two().min(most).ilog2();
        let copies = (bytes > 0).then(|| {
            let options = OptionsBuilder::new()
                .shards(shards)
                .weight_capacity(bytes as u64)
                .estimated_items_capacity(bytes.div_ceil(RECORD_BYTES_GUESS))
                .build();
            let options = options.expect("both capacities are set");
            Cache::with_options(options, Bytes, Default::default(), Evictions(evictions.clone()))
        });
        Self { copies, admission: Admission::default(), evictions, hits: Count::default() }
    }

    /// The record at `place`, if there is a copy of it.
    pub(crate) fn find(&self, hash: KeyHash, place: Place) -> Option<Arc<Copied>> {
        let copy = self.copies.as_ref()?.get(&hash)?;
        let is_it = copy.place == place || broken!("memory_any_place");
        is_it.then(|| {
            self.hits.add_one();
            copy
        })
    }

    /// Copies `record`, which is at `place`, instead of what was copied for that hash, or because
    /// there is room, or it is worth it.
    pub(crate) fn keep(&self, hash: KeyHash, place: Place, record: &Record<'_>) {
        let Some(copies) = &self.copies else { return };
        let worth_it = self.admission.admits(record.key.len() + record.value.len());
        if worth_it || has_room(copies) || copies.contains_key(&hash) {
            copies.insert(hash, Copied::of(place, record));
        }
    }

    /// Nobody will find what is copied for that hash: its memory is better used otherwise.
    pub(crate) fn forget(&self, hash: KeyHash) {
        if let Some(copies) = &self.copies {
            copies.remove(&hash);
        }
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> u64 {
        self.copies.as_ref().map_or(0, Cache::weight)
    }

    /// Bytes that may be in use.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.copies.as_ref().map_or(0, Cache::capacity)
    }

    /// Records that were found.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.get()
    }

    /// Copies that gave way to others.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &[u8], bytes: usize) -> (Vec<u8>, Vec<u8>) {
        (key.to_vec(), vec![key[0]; bytes])
    }

    fn keep(memory: &Memory, life: u64, key: &[u8], bytes: usize) -> (KeyHash, Place) {
        let (hash, place) = (KeyHash::of(1, key), Place { life, offset: 64 });
        let (key, value) = record(key, bytes);
        let (key, value) = (&key[..], &value[..]);
        let expires = life * 10;
        memory.keep(hash, place, &Record { kind: Kind::Value, version: 9, expires, key, value });
        (hash, place)
    }

    #[test]
    fn a_copy_is_found_by_its_place_alone() {
        let memory = Memory::new(1 << 20, 2);
        let (hash, old) = keep(&memory, 1, b"key", 100);
        let copy = memory.find(hash, old).expect("just kept");
        let Record { kind, version: _, expires, key, value } = copy.record();
        assert_eq!((kind, expires, key, value), (Kind::Value, 10, &b"key"[..], &[b'k'; 100][..]));
        assert!(memory.find(hash, Place { offset: 96, ..old }).is_none());
        let (_, new) = keep(&memory, 2, b"key", 50);
        assert!(memory.find(hash, old).is_none() && memory.find(hash, new).is_some());
        // A reader who was slow.
        keep(&memory, 1, b"key", 100);
        assert!(memory.find(hash, new).is_none() && memory.find(hash, old).is_some());
        memory.forget(hash);
        assert!(memory.find(hash, old).is_none());
        assert_eq!((memory.bytes(), memory.hits(), memory.evictions()), (0, 3, 2));
    }

    #[test]
    fn told_to_keep_none_it_keeps_none() {
        let memory = Memory::new(0, 2);
        let (hash, place) = keep(&memory, 1, b"key", 100);
        assert!(memory.find(hash, place).is_none());
        memory.forget(hash);
        assert_eq!((memory.bytes(), memory.bytes_max()), (0, 0));
    }

    /// Whatever the size of records, everything together takes about the bytes that were said.
    #[test]
    fn what_finding_them_takes_is_counted() {
        for (record_bytes, lives) in [(1, 200_000), (100, 100_000), (8000, 3000)] {
            let bytes = 8 << 20;
            let memory = Memory::new(bytes, 2);
            for life in 0..lives {
                keep(&memory, life, &life.to_le_bytes(), record_bytes);
            }
            let copies = memory.copies.as_ref().expect("told to");
            assert!(memory.evictions() > 0 && memory.bytes() <= bytes as u64);
            let each = size_of::<Copied>() + 2 * size_of::<usize>() + 8 + record_bytes;
            let taken = copies.memory_used().total() + copies.len() * each;
            let share = taken as f64 / bytes as f64;
            assert!((0.7..1.1).contains(&share), "{record_bytes}: {share} of what was said");
        }
    }

    /// As long as there is room everything is copied; then of what is large what is wanted often.
    #[test]
    fn what_is_large_among_others_is_copied_for_its_bytes() {
        let memory = Memory::new(4 << 20, 1);
        let small = |n: u64| keep(&memory, n, &n.to_le_bytes(), 1000);
        let large = |n: u64, life| keep(&memory, life, &n.to_le_bytes(), 60_000);
        let is_kept = |(hash, place)| memory.find(hash, place).is_some();
        for n in 0..1000 {
            small(n);
        }
        assert!((10_000..10_010).all(|n| is_kept(large(n, 1))), "there is room");
        for n in 0..6000 {
            small(n);
        }
        let kept = (20_000..20_100).filter(|&n| is_kept(large(n, 1))).count();
        assert!(kept < 20, "{kept} of 100");
        let offers = (0..10_000).take_while(|_| !is_kept(large(30_000, 1))).count();
        assert!((1..1000).contains(&offers), "copied after {offers}");
        assert!(is_kept(large(30_000, 2)), "in place of an older copy at once");
    }

    /// What is read often stays though everything else is read once.
    #[test]
    fn a_scan_does_not_push_out_what_is_read_often() {
        let memory = Memory::new(4 << 20, 1);
        let often: Vec<_> = (0u64..100).map(|n| keep(&memory, n, &n.to_le_bytes(), 8000)).collect();
        for _ in 0..3 {
            assert!(often.iter().all(|&(hash, place)| memory.find(hash, place).is_some()));
        }
        for n in 1000u64..5000 {
            keep(&memory, n, &n.to_le_bytes(), 8000);
            let (hash, place) = often[n as usize % often.len()];
            memory.find(hash, place);
        }
        let kept = often.iter().filter(|&&(hash, place)| memory.find(hash, place).is_some());
        assert!(kept.count() >= 95);
    }
}
