//! Where each key's value is: a sharded table in memory of [entries](crate::packed) of 12 bytes.
//!
//! The shard takes the upper 10 bits of a key's hash, an entry the next 35, its *tag*. Two keys are
//! confused if these 45 bits agree: at ten million keys about one pair. Two such keys share one
//! entry: the later insert wins and the other key misses, because the whole key is compared on the
//! device.
//!
//! A shard is a [`Table`], which takes about 15.5 bytes per entry. Sorted by hash, keys are sorted
//! by shard and tag: entered in this order each goes behind the one before.
//!
//! A shard's lock is held for one operation of its table, never across I/O or while waiting.

pub(crate) use crate::packed::{HITS_MAX, Location};
use crate::packed::{Packed, Scale, TAG_BITS};
use crate::table::Table;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tierce_core::broken;
use twox_hash::XxHash3_64;

const SHARD_BITS: u32 = 10;

/// After so many entries whoever visits all of them lets others go first: some 50 µs.
const VISITS: usize = 1024;

/// The hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyHash(pub(crate) u64);

impl KeyHash {
    pub(crate) fn of(seed: u64, key: &[u8]) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed, key))
    }

    /// The number of its shard.
    pub(crate) const fn shard(self) -> usize {
        (self.0 >> (64 - SHARD_BITS)) as usize
    }

    /// What an entry has of it.
    const fn tag(self) -> u64 {
        let bits = (self.0 >> (64 - SHARD_BITS - TAG_BITS)) & ((1 << TAG_BITS) - 1);
        // 0 is that of an empty place.
        if bits == 0 { 1 } else { bits }
    }
}

/// One part of the index, locked.
pub(crate) struct Shard<'a> {
    table: MutexGuard<'a, Table>,
    scale: Scale,
}

impl Shard<'_> {
    pub(crate) fn get(&self, hash: KeyHash) -> Option<Location> {
        self.get_counted(hash).map(|(location, _)| location)
    }

    /// As [`get`](Self::get), and counts a hit.
    fn hit(&mut self, hash: KeyHash) -> Option<Location> {
        let entry = self.table.find_mut(hash.tag())?;
        if entry.hits() < HITS_MAX {
            *entry = entry.with_hits(entry.hits() + 1);
        }
        Some(entry.location(self.scale))
    }

    /// As [`get`](Self::get), with the hits since the record was written.
    pub(crate) fn get_counted(&self, hash: KeyHash) -> Option<(Location, u8)> {
        let found = self.table.find(hash.tag())?;
        Some((found.location(self.scale), found.hits()))
    }

    /// Puts `new` in place of `old` if that is still there, for one hit of those that it has.
    pub(crate) fn move_if(&mut self, hash: KeyHash, old: Location, new: Location) -> bool {
        let (tag, scale) = (hash.tag(), self.scale);
        if broken!("reinsert_blindly") {
            self.replace(hash, new);
            return true;
        }
        let found = self.table.find_mut(tag);
        let Some(entry) = found.filter(|entry| entry.location(scale) == old) else { return false };
        *entry = Packed::new(tag, new, scale).with_hits(entry.hits().saturating_sub(1));
        true
    }

    /// Puts `location` in place of what was there, which is returned. To be written again is a
    /// use, too: it counts as a hit.
    pub(crate) fn replace(&mut self, hash: KeyHash, location: Location) -> Option<Location> {
        let (tag, scale) = (hash.tag(), self.scale);
        let new = Packed::new(tag, location, scale);
        let with_hits = |old: Packed| new.with_hits(old.hits() + 1);
        let old = self.table.insert(tag, |old| old.map_or(new, with_hits));
        old.map(|old| old.location(scale))
    }

    /// Puts `location` there if there is nothing.
    pub(crate) fn enter(&mut self, hash: KeyHash, location: Location) {
        let tag = hash.tag();
        let new = Packed::new(tag, location, self.scale);
        self.table.insert(tag, |old| old.unwrap_or(new));
    }

    /// Takes the entry away, if it is there and `wanted` says so.
    pub(crate) fn remove_if(
        &mut self,
        hash: KeyHash,
        wanted: impl FnOnce(Location) -> bool,
    ) -> Option<Location> {
        let location = self.get(hash).filter(|&location| wanted(location))?;
        self.table.remove(hash.tag());
        Some(location)
    }
}

/// The index.
pub(crate) struct Index {
    shards: Box<[Mutex<Table>]>,
    scale: Scale,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("entries", &self.len()).finish_non_exhaustive()
    }
}

impl Index {
    /// Empty. Offsets are multiples of `grain`, of which a bucket has at most
    /// [`GRAINS_MAX`](crate::layout::GRAINS_MAX).
    pub(crate) fn new(grain: u32) -> Self {
        let shards = (0..1 << SHARD_BITS).map(|_| Mutex::default()).collect();
        Self { shards, scale: Scale { grain } }
    }

    fn lock(shard: &Mutex<Table>) -> MutexGuard<'_, Table> {
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

    /// Visits every entry, shard by shard, and keeps those for which `keep` says so. Now and then,
    /// holding nothing, it lets others have the CPU.
    pub(crate) fn retain(&self, mut keep: impl FnMut(Location) -> bool) {
        let mut visited = 0;
        for shard in &self.shards {
            Self::lock(shard).retain(|entry| {
                visited += 1;
                keep(entry.location(self.scale))
            });
            if visited >= VISITS {
                visited = 0;
                std::thread::yield_now();
            }
        }
    }

    /// Makes room for `entries` in all. Shards have not all the same number: it varies as that of
    /// throws that hit one of a thousand does, so its square root, three times, is enough for
    /// nearly every one.
    pub(crate) fn expect(&self, entries: usize) {
        let mean = entries.div_ceil(Self::shards());
        for shard in &self.shards {
            Self::lock(shard).expect(mean + 3 * mean.isqrt());
        }
    }

    /// Gives back what [`expect`](Self::expect) made too much room.
    pub(crate) fn fit(&self) {
        self.shards.iter().for_each(|shard| Self::lock(shard).fit());
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| Self::lock(shard).len()).sum()
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let tables = self.shards.iter().map(|shard| Self::lock(shard).bytes());
        tables.sum::<usize>() + size_of_val(&*self.shards)
    }

    pub(crate) const fn shards() -> usize {
        1 << SHARD_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen};
    use tierce_lockfree::BucketRef;

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

    #[test]
    fn an_entry_takes_at_most_18_bytes_from_half_a_million_on() {
        let index = Index::new(32);
        let mut most = 0.0_f64;
        for n in 0..2_000_000_u32 {
            let hash = KeyHash::of(1, &n.to_le_bytes());
            index.shard(hash).replace(hash, location(n, 0, 512));
            if n > 500_000 && n % 50_000 == 0 {
                let bytes = index.bytes() - size_of_val(&*index.shards);
                most = most.max(bytes as f64 / index.len() as f64);
            }
        }
        assert!(most <= 18.0, "{most} bytes per entry");
    }

    #[test]
    fn sorted_by_hash_is_sorted_by_shard_and_tag() {
        let mut hashes: Vec<_> =
            (0..10_000_u32).map(|n| KeyHash::of(1, &n.to_le_bytes())).collect();
        hashes.sort_unstable();
        assert!(hashes.is_sorted_by_key(|hash| (hash.shard(), hash.tag())));
        assert_eq!((hashes[0].shard(), hashes[9999].shard()), (0, Index::shards() - 1));
    }
}
