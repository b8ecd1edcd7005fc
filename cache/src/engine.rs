//! What requests and background threads share, and every operation once, as a future.
//!
//! # An insert
//!
//! 1. Room for the record is made in a stream ([`crate::stream`]), waiting for memory or for a
//!    bucket if need be. No lock is held while waiting.
//! 2. With the stream locked and room at hand nothing waits any more: under the lock of the key's
//!    shard the record gets its version, the index its place, and the segment its bytes; so whoever
//!    comes later for the same key has the higher version, after a restart the same value wins as
//!    before it, and whoever finds the key in the index can read it.
//! 3. If the segment is full it is submitted. Copies in memory follow ([`crate::memory`]).
//!
//! The bucket is pinned from before the key is in the index until its last byte is on the device.
//!
//! # A read
//!
//! Epoch, index, gen, life; then memory, a write buffer or the device; then the gen again. What was
//! reused meanwhile, is damaged, belongs to another key, or has expired is a miss.

use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::{Config, Put, WhenFull};
use crate::error::Error;
use crate::events::event;
use crate::fetch::Lost;
use crate::flights::Flights;
use crate::index::{Index, KeyHash, Location};
use crate::layout::{BucketHeader, GRAIN, Kind, Layout, Record};
use crate::life::{Life, Lives, Owner};
use crate::lineage::Lineage;
use crate::memory::{Memory, Place};
use crate::spread::{self, Part};
use crate::stats::Counters;
use crate::stream::{Need, Room, Streams, longest_value, space};
use crate::void::Void;
use crate::warm::{Progress, Warm};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use tierce_core::geometry::SECTOR_BYTES;
use tierce_core::{DeviceIndex, Reserve, broken};
use tierce_io::Device;
use tierce_lockfree::Allocator;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Engine {
    /// Not there before it is known what is on the devices: then nothing can be handed out.
    pub(crate) allocator: OnceLock<Arc<Allocator>>,
    pub(crate) warm: Warm,
    pub(crate) index: Index,
    pub(crate) memory: Memory,
    pub(crate) lives: Lives,
    pub(crate) lineage: Lineage,
    pub(crate) counters: Counters,
    pub(crate) flights: Flights,
    pub(crate) devices: Vec<Disk>,
    pub(crate) layout: Layout,
    pub(crate) budget: Arc<Budget>,
    /// Where hashes of keys start; the devices say it if something is on them.
    pub(crate) hash_seed: OnceLock<u64>,
    pub(crate) streams: Streams,
    /// The next version, and the next life's number.
    pub(crate) ticks: AtomicU64,
    /// By which entries expire.
    pub(crate) clock: Clock,
    pub(crate) when_full: WhenFull,
    /// Hits from which on an entry is written anew before its bucket goes; 0: none is.
    pub(crate) reinsert_after: u8,
    /// Memory for that.
    pub(crate) survivors: Arc<Budget>,
    /// Held by the pipeline that writes lists of dead records: two that each wrote what they knew of
    /// one list would undo each other.
    pub(crate) evicting: Mutex<()>,
    /// Devices that failed, now or in an earlier run.
    pub(crate) void: Mutex<Void>,
    pub(crate) own: OnceLock<Weak<Self>>,
}

/// One device of the cache.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) uuid: [u8; 16],
    pub(crate) data_buckets: u64,
    /// How often something that was acknowledged could not be written.
    pub(crate) losses: AtomicU64,
    /// As many of these a flush has told.
    pub(crate) told: AtomicU64,
    /// It could not be flushed, which counts as a loss once: nothing more goes there.
    pub(crate) is_unflushed: AtomicBool,
    /// It is out of use, and the others say so.
    pub(crate) is_void: AtomicBool,
}

/// Who reads the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reads {
    /// The calling thread, which may block.
    Here,
    /// The device's own, the caller awaits it.
    Elsewhere,
}

/// What a look-up found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// The value.
    Hit,
    /// Where the index leads to there is no value of the key.
    Miss,
    /// The index leads nowhere.
    Nothing,
}

/// Whoever writes has waited for it.
const RECOVERED: &str = "the recovery is over";

impl Owner for Engine {
    fn lives(&self) -> &Lives {
        &self.lives
    }

    fn wrote(&self, bytes: u64) {
        self.counters.device_bytes_written.add(bytes);
        self.allocator().account_io((bytes / u64::from(SECTOR_BYTES)) as u32);
    }

    fn failed(&self, life: &Life, error: tierce_io::Error) {
        event!(ERROR, "write_failed", device = life.bucket.device(), cause = error);
        self.counters.write_errors.add_one();
        let device = life.bucket.device();
        self.allocator().fail(device, Arc::new(error));
        self.devices[device.as_usize()].lose();
    }

    fn is_in_use(&self, device: DeviceIndex) -> bool {
        self.allocator.get().is_some_and(|allocator| allocator.check(device).is_ok())
    }
}

impl Engine {
    /// Sizes of the write buffers that `config` asks for, for buckets laid out so.
    pub(crate) fn buffers(config: &Config, layout: &Layout, streams: usize) -> (u32, usize) {
        let segment = config.segment_bytes.min(layout.footer).next_multiple_of(layout.block);
        // Every stream may hold a segment that is not full, and somebody the longest record.
        let least = segment as usize * (streams + 1) + layout.bucket_bytes as usize;
        (segment, config.write_buffer_bytes.max(least))
    }

    fn own(&self) -> Arc<Self> {
        self.own.get().and_then(Weak::upgrade).expect("set when it was made, and we are in it")
    }

    /// A number that no other life and no other version has.
    pub(crate) fn tick(&self) -> u64 {
        // Relaxed: only that they differ and grow matters; the shard's lock orders versions.
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }

    /// The allocator of whoever writes.
    pub(crate) fn allocator(&self) -> &Arc<Allocator> {
        self.allocator.get().expect(RECOVERED)
    }

    /// The hash of a key. An error also as long as it is not known where hashes start.
    pub(crate) fn hash(&self, key: &[u8]) -> Result<KeyHash, Error> {
        if key.is_empty() {
            return Err(Error::EmptyKey);
        }
        let seed = self.hash_seed.get().ok_or_else(|| self.warm.recovering())?;
        Ok(KeyHash::of(*seed, key))
    }

    /// Waits until it is known what is on the devices: before that nothing is written.
    pub(crate) async fn recovered(&self) -> Result<(), Error> {
        match (self.warm.progress(), self.when_full) {
            (Progress::Over, _) => Ok(()),
            (Progress::Step(_), WhenFull::Fail) => Err(self.warm.recovering()),
            _ => self.warm.over().await,
        }
    }

    // ---- reading

    /// Puts the value of `key` into `value`, which is empty.
    pub(crate) async fn get(
        &self,
        key: &[u8],
        value: &mut Vec<u8>,
        reads: Reads,
    ) -> Result<bool, Error> {
        let found = loop {
            // Before the look-up: see `Warm`.
            let progress = self.warm.progress();
            let found = match self.hash(key) {
                Ok(hash) => (self.look_up(hash, key, value, reads).await, Some(hash)),
                Err(Error::Recovering { .. }) => (Found::Nothing, None),
                Err(error) => return Err(error),
            };
            let (Found::Nothing, hash) = found else { break found.0 };
            match progress {
                Progress::Over => break Found::Miss,
                _ if hash.is_some_and(|hash| self.warm.is_gone(hash)) => break Found::Miss,
                Progress::Step(step) if self.warm.gets_wait() => self.warm.after(step).await,
                _ => break Found::Nothing,
            }
        };
        let counters = &self.counters;
        match found {
            Found::Hit => counters.hits.add_one(),
            Found::Miss => counters.misses.add_one(),
            Found::Nothing => {
                counters.misses.add_one();
                counters.misses_recovering.add_one();
            }
        }
        Ok(found == Found::Hit)
    }

    async fn look_up(&self, hash: KeyHash, key: &[u8], value: &mut Vec<u8>, reads: Reads) -> Found {
        let read = self.begin_read();
        let found = match self.reinsert_after {
            0 => self.index.get(hash),
            _ => self.index.hit(hash).inspect(|found| self.lives.note_hit(found.bucket.id())),
        };
        let Some(location) = found else { return Found::Nothing };
        let Some(begun) = self.begin(read, location.bucket) else {
            self.forget_stale(hash, location);
            return self.lost(Lost::Reused);
        };
        let life = self.lives.get(location.bucket.id());
        let fetched = match self.fetch(hash, location, life, reads).await {
            Ok(fetched) => fetched,
            Err(lost) => return self.lost(lost),
        };
        if !self.was_there(begun, location.bucket, life.number) {
            self.forget_stale(hash, location);
            return self.lost(Lost::ReusedMeanwhile);
        }
        let Some(record) = fetched.record(life.number) else { return self.lost(Lost::Damaged) };
        if record.key != key {
            self.counters.other_key.add_one();
            return Found::Miss;
        }
        if self.clock.is_past(record.expires) {
            self.counters.expired.add_one();
            return Found::Miss;
        }
        match record.kind {
            Kind::Value => value.extend_from_slice(record.value),
            Kind::Spread => {
                if let Err(lost) = self.gather(record.value, value, reads).await {
                    value.clear();
                    return self.lost(lost);
                }
            }
            Kind::Tombstone | Kind::Part => return Found::Miss,
        }
        let place = Place { life: life.number, offset: location.offset };
        self.keep(hash, place, &fetched, &record);
        Found::Hit
    }

    /// A miss, counted by its one reason.
    fn lost(&self, why: Lost) -> Found {
        let counters = &self.counters;
        match why {
            Lost::Reused => counters.stale.add_one(),
            Lost::ReusedMeanwhile => counters.read_races.add_one(),
            Lost::Unreadable => counters.read_errors.add_one(),
            Lost::Damaged => counters.corrupt.add_one(),
        }
        Found::Miss
    }

    /// Drops an entry whose bucket was reused, as soon as that is durable. Other entries that lead to
    /// nothing (damaged, expired) stay as long as their record is there: whoever takes its place has
    /// to know of it, see [`crate::lineage`].
    fn forget_stale(&self, hash: KeyHash, location: Location) {
        self.memory.forget(hash);
        if !self.lives.may_come_back(location.bucket) || broken!("index_forgets_early") {
            self.index.remove_if(hash, location);
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, Error> {
        let hash = match self.hash(key) {
            Err(Error::Recovering { .. }) => return Ok(false),
            hash => hash?,
        };
        let read = self.begin_read();
        let location = self.index.get(hash);
        Ok(location.is_some_and(|location| self.begin(read, location.bucket).is_some()))
    }

    // ---- writing

    pub(crate) async fn insert(&self, key: &[u8], value: &[u8], put: &Put) -> Result<(), Error> {
        let result = self.store(key, value, put).await;
        match &result {
            Ok(()) => self.counters.inserts.add_one(),
            Err(_) => self.counters.failed_inserts.add_one(),
        }
        result
    }

    async fn store(&self, key: &[u8], value: &[u8], put: &Put) -> Result<(), Error> {
        let largest = self.value_bytes_max(key.len());
        if largest.is_none_or(|largest| value.len() > largest) {
            let bytes = key.len() as u64 + value.len() as u64;
            let longest_key = self.alone(0).unwrap_or_default();
            let largest = largest.map_or(longest_key, |largest| key.len() + largest) as u64;
            return Err(Error::TooLarge { bytes, largest });
        }
        if key.is_empty() {
            return Err(Error::EmptyKey);
        }
        self.recovered().await?;
        let hash = self.hash(key)?;
        let expires = put.ttl.map_or(0, |ttl| self.clock.end(ttl));
        let stream = self.streams.choose(put.write_point.unwrap_or_else(this_thread));
        let record = Record { kind: Kind::Value, version: 0, expires, key, value };
        self.store_record(stream, hash, record, None).await?;
        self.counters.user_bytes_written.add((key.len() + value.len()) as u64);
        Ok(())
    }

    /// Stores a value's record, in parts if that is better; in place of the one at `moved` alone,
    /// if there is that.
    pub(crate) async fn store_record(
        &self,
        stream: usize,
        hash: KeyHash,
        record: Record<'_>,
        moved: Option<Location>,
    ) -> Result<(), Error> {
        let bytes = space(record.key.len(), record.value.len(), self.layout.grain);
        if self.can_spread(record.key.len()) && self.is_better_spread(stream, bytes) {
            let pointers = self.scatter(stream, record.value).await?;
            let record = Record { kind: Kind::Spread, value: &pointers, ..record };
            return self.put(stream, hash, record, moved).await;
        }
        self.put(stream, hash, record, moved).await
    }

    /// Bytes of the longest value for a key so long; `None` if the key itself is too long.
    pub(crate) fn value_bytes_max(&self, key: usize) -> Option<usize> {
        // A value may be as long as a bucket: it is spread over two or more.
        match self.can_spread(key) {
            true => Some(self.layout.bucket_bytes as usize),
            false => self.alone(key),
        }
    }

    /// Bytes of the longest value that fits one record with a key so long.
    fn alone(&self, key: usize) -> Option<usize> {
        let head = crate::layout::RECORD_BYTES + GRAIN as usize;
        (self.layout.record_max() as usize).checked_sub(head)?.checked_sub(key)
    }

    /// Whether a record has room for a key so long and pointers to the parts of a value.
    fn can_spread(&self, key: usize) -> bool {
        self.alone(key).is_some_and(|room| room >= spread::BYTES * spread::PARTS_MAX)
    }

    /// Whether a record so long does not fit a bucket, or would leave more than an eighth of one
    /// unused.
    fn is_better_spread(&self, stream: usize, bytes: u64) -> bool {
        let longest = self.layout.record_max();
        if bytes > u64::from(longest) {
            return true;
        }
        let left = self.streams.left(stream);
        bytes > u64::from(left) && left > longest / 8 && left as usize > 2 * spread::PART_BYTES_MIN
    }

    /// Writes a value in parts, returns the pointers to them.
    async fn scatter(&self, stream: usize, value: &[u8]) -> Result<Vec<u8>, Error> {
        let mut pointers = Vec::new();
        let mut rest = value;
        let grain = self.layout.grain;
        let whole = longest_value(self.layout.record_max(), 0, grain);
        while !rest.is_empty() {
            let left = longest_value(self.streams.left(stream), 0, grain);
            let piece = spread::next_bytes(pointers.len() / spread::BYTES, left, whole);
            let (piece, behind) = rest.split_at(piece.min(rest.len()));
            let bytes = space(0, piece.len(), grain) as u32;
            let room = self.room(stream, bytes).await?;
            let part = Part { location: room.location(bytes), life: room.life() };
            part.encode(&mut pointers);
            let place = Place { life: part.life, offset: part.location.offset };
            let record = crate::stream::part(self.tick(), piece);
            room.push(KeyHash(0), &record);
            self.memory.keep(place.hash(), place, &record);
            rest = behind;
        }
        Ok(pointers)
    }

    /// Puts a record of a key into a bucket and the key into the index; one that `moved` from
    /// elsewhere if the key is still there.
    async fn put(
        &self,
        stream: usize,
        hash: KeyHash,
        record: Record<'_>,
        moved: Option<Location>,
    ) -> Result<(), Error> {
        let bytes = space(record.key.len(), record.value.len(), self.layout.grain) as u32;
        let mut room = self.room(stream, bytes).await?;
        let location = room.location(record.bytes());
        let place = Place { life: room.life(), offset: location.offset };
        let mut replaced = None;
        {
            let mut shard = self.index.shard(hash);
            // Under the lock: nobody takes this one's place before it is noted whose it took, and
            // nobody finds it before it can be read.
            match moved {
                None => {
                    replaced = shard.replace(hash, location);
                    self.note(location, replaced);
                }
                Some(old) if shard.move_if(hash, old, location) => self.note(location, Some(old)),
                Some(_) => return Ok(()),
            }
            room.append(hash, &Record { version: self.tick(), ..record });
        }
        room.finish();
        if let Some(old) = replaced {
            self.allocator().replaced(old.bucket);
        }
        let bytes = (record.key.len() + record.value.len()) as u64;
        if moved.is_some() {
            self.counters.reinserted.add_one();
            self.counters.reinserted_bytes.add(bytes);
        }
        self.memory.keep(hash, place, &record);
        Ok(())
    }

    /// `old` is not the newest any more.
    fn note(&self, newer: Location, old: Option<Location>) {
        let Some(old) = old else { return };
        self.lives.note_hit(newer.bucket.id());
        if let Some(life) = self.lives.number(old.bucket) {
            self.lineage.note(newer.bucket.id(), (old.bucket.id(), old.offset), life);
        }
    }

    pub(crate) async fn remove(&self, key: &[u8]) -> Result<bool, Error> {
        if key.is_empty() {
            return Err(Error::EmptyKey);
        }
        self.recovered().await?;
        let hash = self.hash(key)?;
        // A tombstone may be among what a device has lost: then another one has to be written.
        let has_lost = self.has_lost() && self.alone(key.len()).is_some();
        if self.index.get(hash).is_none() && !has_lost {
            return Ok(false);
        }
        let bytes = space(key.len(), 0, self.layout.grain) as u32;
        let stream = self.streams.choose(this_thread());
        // Without room for a tombstone the key stays as it is: an index that forgot it could not tell
        // what the next record of the key takes the place of.
        let room = self.room(stream, bytes).await?;
        let location = room.location(bytes);
        let (version, old) = {
            let mut shard = self.index.shard(hash);
            let old = shard.remove_if(hash, |_| true);
            self.note(location, old);
            (self.tick(), old)
        };
        self.memory.forget(hash);
        // Also one whose bucket is just being reused: until that is durable it is found, and may come
        // back after a power loss.
        let was_there = old.is_some_and(|old| self.lives.may_come_back(old.bucket));
        if was_there {
            self.counters.removes.add_one();
        }
        if was_there || has_lost {
            let record = Record { kind: Kind::Tombstone, version, expires: 0, key, value: &[] };
            if !broken!("no_tombstone") {
                room.push(hash, &record);
            }
        }
        Ok(was_there)
    }

    /// A place for a record of `bytes` bytes.
    async fn room(&self, stream: usize, bytes: u32) -> Result<Room<'_>, Error> {
        loop {
            let need = match self.streams.room(stream, bytes) {
                Ok(room) => return Ok(room),
                Err(need) => need,
            };
            match need {
                Need::Bucket => self.open_bucket(stream).await?,
                Need::Memory(wanted) if stream == self.streams.survivors() => {
                    // Of at most one segment that is not on its way to the device already.
                    let permit = self.survivors.take(wanted).await;
                    self.streams.fill(stream, bytes, permit);
                }
                Need::Memory(wanted) => {
                    let permit = match (self.budget.try_take(wanted), self.when_full) {
                        (Some(permit), _) => permit,
                        (None, WhenFull::Fail) => return Err(Error::Full),
                        (None, WhenFull::Wait) => {
                            self.counters.memory_waits.add_one();
                            event!(DEBUG, "memory_wait", bytes = wanted);
                            self.budget.take(wanted).await
                        }
                    };
                    self.streams.fill(stream, bytes, permit);
                }
            }
        }
    }

    async fn open_bucket(&self, stream: usize) -> Result<(), Error> {
        let is_survivor = stream == self.streams.survivors();
        let reserve = if is_survivor { Reserve::MovingGc } else { Reserve::None };
        let allocation = match self.when_full {
            WhenFull::Wait if !is_survivor => self.allocator().alloc_any(reserve).await?,
            _ => self.allocator().try_alloc_any(reserve)?.ok_or(Error::Full)?,
        };
        let allocation = allocation.into_owned(self.allocator());
        let bucket = allocation.bucket_ref();
        let disk = &self.devices[bucket.device().as_usize()];
        let number = self.tick();
        let header = BucketHeader {
            uuid: disk.uuid,
            bucket: bucket.bucket().get(),
            gen_: bucket.gen_().get(),
            life: number,
            hash_seed: *self.hash_seed.get().expect(RECOVERED),
        };
        let owner: Arc<dyn Owner> = self.own();
        let life = Life::new(allocation, number, self.layout, Arc::clone(&disk.device), owner);
        // Entered before it is installed: keys that point into it come only after that.
        self.lives.open(&life);
        if self.streams.install(stream, &life, header) {
            self.allocator().note_opened(bucket.device());
        } else {
            life.give_back();
        }
        Ok(())
    }
}

impl Disk {
    /// Something that was acknowledged is lost, and the device out of use.
    pub(crate) fn lose(&self) {
        // Release: who knows of it finds the device out of use; pairs with the Acquire in
        // `Engine::losses`. A flush that has to tell it finds the life's lock taken and left after
        // this.
        self.losses.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn name(&self) -> String {
        self.device.name().to_string()
    }
}

/// A number by which threads are spread over streams.
fn this_thread() -> u64 {
    thread_local! {
        static NUMBER: u64 = {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            // Relaxed: only that they differ matters.
            NEXT.fetch_add(1, Ordering::Relaxed)
        };
    }
    NUMBER.with(|number| *number)
}
