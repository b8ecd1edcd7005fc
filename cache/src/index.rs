//! Where each key's value is: a sharded table in memory, 12 bytes per place.
//!
//! ```text
//!  tag:35 of the hash | bucket:28 | gen:8 | grain:15 | length:8 | hits:2
//! ```
//!
//! The shard takes another 10 bits of the hash, about, so two keys are confused if 45 bits of their
//! hashes agree: at ten million keys about one pair. Two such keys share one entry: the later
//! insert wins and the other key misses, because the whole key is compared on the device.
//!
//! Shards are of different sizes: the last gets twice the keys of the first. A table doubles when
//! it is full, so tables that are alike would all double at the same time, and half of the index
//! would be empty then. This way it takes about 20.6 bytes per entry at any time: 13 for a place
//! and its tag in the table, by a load of 63 %, which is the mean from 7/16 to 7/8.
//!
//! An entry's place is rounded down to, and its length up to, what the bits can say: somewhat
//! more is read than needed, never less ([`Scale`]).
//!
//! *hits* counts gets and overwrites of the key, up to 3, for [`crate::reinsert`].
//!
//! A shard's lock is held for one operation of its table, never across I/O or while waiting.

use crate::layout::GRAINS_MAX;
use hashbrown::HashTable;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tierce_core::{BucketId, Gen};
use tierce_lockfree::BucketRef;
use twox_hash::XxHash3_64;

const SHARD_BITS: u32 = 10;
/// 0.343, as a part of 2^16.
const CURVE: u64 = 22_486;
const TAG_BITS: u32 = 35;
const BUCKET_BITS: u32 = 28;
const GRAIN_BITS: u32 = GRAINS_MAX.ilog2();
const LENGTH_BITS: u32 = 8;
const HITS_AT: u32 = TAG_BITS + BUCKET_BITS + 8 + GRAIN_BITS + LENGTH_BITS;
/// What an entry counts up to.
pub(crate) const HITS_MAX: u8 = 3;
const _: () = assert!(HITS_AT + 2 == 96);

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) bucket: BucketRef,
    /// From the start of the bucket, in bytes.
    pub(crate) offset: u32,
    /// At least as long as the record, as long as its length fits the bucket.
    pub(crate) bytes: u32,
}

/// How the bits of an entry say offset and length, for buckets of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Bytes of a grain: offsets are multiples of it.
    pub(crate) grain: u32,
}

impl Scale {
    /// A length as 4 bits of exponent and 4 of mantissa, rounded up.
    fn length(self, bytes: u32) -> u64 {
        let grains = bytes.div_ceil(self.grain).max(1);
        for exponent in 0..16 {
            let mantissa = grains.div_ceil(1 << exponent);
            if mantissa <= 16 {
                return u64::from(exponent << 4 | (mantissa - 1));
            }
        }
        unreachable!("a bucket has at most 2^15 grains")
    }

    fn bytes(self, length: u64) -> u32 {
        let length = length as u32;
        (((length & 15) + 1) * self.grain) << (length >> 4)
    }
}

/// The hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyHash(pub(crate) u64);

impl KeyHash {
    pub(crate) fn of(seed: u64, key: &[u8]) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed, key))
    }

    /// The number of its shard, which grows with the hash: shard s gets a part of the keys that is
    /// proportional to 2^(s / number of shards).
    pub(crate) const fn shard(self) -> usize {
        // As a part of 2^16.
        let part = self.0 >> 48;
        // log2(1 + x) is x + 0.343 x (1 - x), within a hundredth.
        let bulge = (part * ((1 << 16) - part)) >> 16;
        let curved = part + ((bulge * CURVE) >> 16);
        (curved >> (16 - SHARD_BITS)) as usize
    }

    const fn tag(self) -> u64 {
        self.0 & ((1 << TAG_BITS) - 1)
    }
}

/// One entry: 96 bits in three words, so that it needs no padding.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Packed([u32; 3]);

impl Packed {
    fn new(tag: u64, location: Location, scale: Scale) -> Self {
        let bits = u128::from(tag)
            | u128::from(location.bucket.id().pack()) << TAG_BITS
            | u128::from(location.bucket.gen_().get()) << (TAG_BITS + BUCKET_BITS)
            | u128::from(location.offset / scale.grain) << (TAG_BITS + BUCKET_BITS + 8)
            | u128::from(scale.length(location.bytes)) << (TAG_BITS + BUCKET_BITS + 8 + GRAIN_BITS);
        Self([bits as u32, (bits >> 32) as u32, (bits >> 64) as u32])
    }

    fn hits(self) -> u8 {
        self.field(HITS_AT, 2) as u8
    }

    fn with_hits(self, hits: u8) -> Self {
        let [a, b, c] = self.0;
        let at = HITS_AT - 64;
        Self([a, b, c & !(3 << at) | u32::from(hits.min(HITS_MAX)) << at])
    }

    fn bits(self) -> u128 {
        let [a, b, c] = self.0;
        u128::from(a) | u128::from(b) << 32 | u128::from(c) << 64
    }

    fn field(self, shift: u32, bits: u32) -> u64 {
        (self.bits() >> shift) as u64 & ((1 << bits) - 1)
    }

    fn tag(self) -> u64 {
        self.field(0, TAG_BITS)
    }

    fn location(self, scale: Scale) -> Location {
        let id = BucketId::unpack(self.field(TAG_BITS, BUCKET_BITS) as u32);
        let gen_ = Gen::new(self.field(TAG_BITS + BUCKET_BITS, 8) as u8);
        let grains = self.field(TAG_BITS + BUCKET_BITS + 8, GRAIN_BITS) as u32;
        let length = self.field(TAG_BITS + BUCKET_BITS + 8 + GRAIN_BITS, LENGTH_BITS);
        let bucket = BucketRef::new(id, gen_);
        Location { bucket, offset: grains * scale.grain, bytes: scale.bytes(length) }
    }
}

/// What the table hashes: the tag is random already, its bits are spread over the word.
fn spread(tag: u64) -> u64 {
    tag.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// One part of the index, locked.
pub(crate) struct Shard<'a> {
    table: MutexGuard<'a, HashTable<Packed>>,
    scale: Scale,
}

impl Shard<'_> {
    pub(crate) fn get(&self, hash: KeyHash) -> Option<Location> {
        self.get_counted(hash).map(|(location, _)| location)
    }

    /// As [`get`](Self::get), and counts a hit.
    fn hit(&mut self, hash: KeyHash) -> Option<Location> {
        let (tag, scale) = (hash.tag(), self.scale);
        let entry = self.table.find_mut(spread(tag), |entry| entry.tag() == tag)?;
        if entry.hits() < HITS_MAX {
            *entry = entry.with_hits(entry.hits() + 1);
        }
        Some(entry.location(scale))
    }

    /// As [`get`](Self::get), with the hits since the record was written.
    pub(crate) fn get_counted(&self, hash: KeyHash) -> Option<(Location, u8)> {
        let tag = hash.tag();
        let found = self.table.find(spread(tag), |entry| entry.tag() == tag)?;
        Some((found.location(self.scale), found.hits()))
    }

    /// Puts `new` in place of `old` if that is still there, for one hit of those that it has.
    pub(crate) fn move_if(&mut self, hash: KeyHash, old: Location, new: Location) -> bool {
        let (tag, scale) = (hash.tag(), self.scale);
        if cfg!(tierce_mutant = "reinsert_blindly") {
            self.replace(hash, new);
            return true;
        }
        let found = self.table.find_mut(spread(tag), |entry| entry.tag() == tag);
        let Some(entry) = found.filter(|entry| entry.location(scale) == old) else { return false };
        *entry = Packed::new(tag, new, scale).with_hits(entry.hits().saturating_sub(1));
        true
    }

    /// Puts `location` in place of what was there, which is returned. To be written again is a
    /// use, too: it counts as a hit.
    pub(crate) fn replace(&mut self, hash: KeyHash, location: Location) -> Option<Location> {
        let (tag, scale) = (hash.tag(), self.scale);
        let new = Packed::new(tag, location, scale);
        let eq = |entry: &Packed| entry.tag() == tag;
        match self.table.entry(spread(tag), eq, |entry| spread(entry.tag())) {
            hashbrown::hash_table::Entry::Occupied(mut entry) => {
                let old = *entry.get();
                *entry.get_mut() = new.with_hits(old.hits() + 1);
                Some(old.location(scale))
            }
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert(new);
                None
            }
        }
    }

    /// Puts `location` there if there is nothing.
    pub(crate) fn enter(&mut self, hash: KeyHash, location: Location) {
        let (tag, scale) = (hash.tag(), self.scale);
        let eq = |entry: &Packed| entry.tag() == tag;
        let entry = self.table.entry(spread(tag), eq, |entry| spread(entry.tag()));
        entry.or_insert_with(|| Packed::new(tag, location, scale));
    }

    /// Takes the entry away, if it is there and `wanted` says so.
    pub(crate) fn remove_if(
        &mut self,
        hash: KeyHash,
        wanted: impl FnOnce(Location) -> bool,
    ) -> Option<Location> {
        let tag = hash.tag();
        let entry = self.table.find_entry(spread(tag), |entry| entry.tag() == tag).ok()?;
        let location = entry.get().location(self.scale);
        wanted(location).then(|| {
            entry.remove();
            location
        })
    }
}

/// The index.
pub(crate) struct Index {
    shards: Box<[Mutex<HashTable<Packed>>]>,
    scale: Scale,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("entries", &self.len()).finish_non_exhaustive()
    }
}

impl Index {
    /// Empty. Offsets are multiples of `grain`, of which a bucket has at most [`GRAINS_MAX`].
    pub(crate) fn new(grain: u32) -> Self {
        let shards = (0..1 << SHARD_BITS).map(|_| Mutex::default()).collect();
        Self { shards, scale: Scale { grain } }
    }

    fn lock(shard: &Mutex<HashTable<Packed>>) -> MutexGuard<'_, HashTable<Packed>> {
        // No operation of a table panics half-way.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shard(&self, hash: KeyHash) -> Shard<'_> {
        Shard { table: Self::lock(&self.shards[hash.shard()]), scale: self.scale }
    }

    pub(crate) fn get(&self, hash: KeyHash) -> Option<Location> {
        self.shard(hash).get(hash)
    }

    /// As [`get`](Self::get), and counts a hit.
    pub(crate) fn hit(&self, hash: KeyHash) -> Option<Location> {
        self.shard(hash).hit(hash)
    }

    /// Removes the entry if it is still `location`: whoever found it stale must not remove what
    /// was inserted meanwhile.
    pub(crate) fn remove_if(&self, hash: KeyHash, location: Location) {
        self.shard(hash).remove_if(hash, |found| found == location);
    }

    /// Visits every entry, shard by shard, and keeps those for which `keep` says so.
    pub(crate) fn retain(&self, mut keep: impl FnMut(Location) -> bool) {
        for shard in &self.shards {
            Self::lock(shard).retain(|entry| keep(entry.location(self.scale)));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| Self::lock(shard).len()).sum()
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let tables = self.shards.iter().map(|shard| Self::lock(shard).allocation_size());
        tables.sum::<usize>() + size_of_val(&*self.shards)
    }

    pub(crate) const fn shards() -> usize {
        1 << SHARD_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tierce_core::{BucketIndex, DeviceIndex};

    fn location(bucket: u32, offset: u32, bytes: u32) -> Location {
        let id = BucketId::new(DeviceIndex::new(7), BucketIndex::new(bucket));
        Location { bucket: BucketRef::new(id, Gen::new(255)), offset, bytes }
    }

    #[test]
    fn a_stale_finding_removes_only_itself() {
        let index = Index::new(32);
        let key = KeyHash::of(1, b"key");
        let (a, b) = (location(1, 64, 64), location((1 << 25) - 1, 1 << 19, 512));
        assert_eq!(index.shard(key).replace(key, a), None);
        assert_eq!(index.shard(key).replace(key, b), Some(a));
        index.remove_if(key, a);
        assert_eq!(index.get(key), Some(b));
        index.remove_if(key, b);
        assert_eq!((index.get(key), index.len()), (None, 0));
    }

    #[test]
    fn hits_are_counted_and_a_move_costs_one() {
        let index = Index::new(32);
        let key = KeyHash::of(1, b"key");
        let (a, b) = (location((1 << 25) - 1, 1 << 19, 512), location(1, 64, 64));
        index.shard(key).replace(key, a);
        for hits in [1, 2, 3, 3] {
            assert_eq!(index.hit(key), Some(a));
            assert_eq!(index.shard(key).get_counted(key), Some((a, hits)));
        }
        assert!(index.shard(key).move_if(key, a, b));
        assert_eq!(index.shard(key).get_counted(key), Some((b, 2)));
        index.shard(key).replace(key, a);
        assert_eq!(index.shard(key).get_counted(key), Some((a, 3)), "a use like any other");
        index.remove_if(key, a);
        index.shard(key).replace(key, a);
        assert_eq!(index.shard(key).get_counted(key), Some((a, 0)));
    }

    #[test]
    fn what_was_overwritten_or_removed_does_not_move() {
        let index = Index::new(32);
        let key = KeyHash::of(1, b"key");
        let (a, b, c) = (location(1, 64, 64), location(2, 64, 64), location(3, 64, 64));
        index.shard(key).replace(key, b);
        assert!(!index.shard(key).move_if(key, a, c));
        assert_eq!(index.get(key), Some(b));
        index.remove_if(key, b);
        assert!(!index.shard(key).move_if(key, b, c));
        assert_eq!(index.get(key), None);
    }

    /// Lengths come back at least as long, and at most a sixteenth longer but for grains.
    #[test]
    fn lengths_are_rounded_up() {
        for bucket in [64 << 10, 512 << 10, 2 << 20, 16 << 20] {
            let scale = Scale { grain: (bucket >> 15).max(16) };
            for bytes in (1..bucket).step_by(997).chain([bucket]) {
                let said = scale.bytes(scale.length(bytes));
                assert!(said >= bytes, "{bytes} became {said}");
                assert!(said - bytes <= bytes / 8 + scale.grain, "{bytes} became {said}");
            }
        }
    }

    #[test]
    fn an_entry_takes_less_than_24_bytes_however_many_there_are() {
        let index = Index::new(32);
        let mut most = 0.0_f64;
        for n in 0..2_000_000_u32 {
            let hash = KeyHash::of(1, &n.to_le_bytes());
            index.shard(hash).replace(hash, location(n, 0, 512));
            if n > 250_000 && n % 50_000 == 0 {
                let bytes = index.bytes() - size_of_val(&*index.shards);
                most = most.max(bytes as f64 / index.len() as f64);
            }
        }
        assert!(most <= 24.0, "{most} bytes per entry");
    }

    #[test]
    fn shards_grow_with_the_hash_to_twice_the_first() {
        let shards: Vec<_> = (0..1 << 16).map(|part| KeyHash(part << 48).shard()).collect();
        assert!(shards.is_sorted(), "those of a shard lie together when they are sorted");
        assert_eq!((shards[0], shards[0xFFFF]), (0, Index::shards() - 1));
        let of =
            |range: std::ops::Range<usize>| shards.iter().filter(|s| range.contains(s)).count();
        let (first, last) = (of(0..64), of(Index::shards() - 64..Index::shards()));
        assert!((1.9..2.1).contains(&(last as f64 / first as f64)), "{first}, {last}");
    }
}
