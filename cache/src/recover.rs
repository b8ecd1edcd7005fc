//! Coming back warm: the index is made anew from what the buckets say of themselves.
//!
//! # Problem
//!
//! A key may have records in many buckets; the newest counts, and it may be in the bucket that is
//! read last. Still gets are to be answered before all are read ([`crate::warm`]), with nothing that
//! is old.
//!
//! # Protocol
//!
//! 1. *Survey* ([`crate::scan`]): which buckets count, and of each the highest version in it.
//! 2. The buckets are read in the order of these, from the newest on, some at a time. Then the
//!    *horizon* is the highest version that a bucket which has not been read can hold, and what
//!    is above it is *known*: it is entered, by key and from newer to older. What is not waits until
//!    the horizon is low enough, which it is for all in the end.
//! 3. The first record of a key that is entered is its newest. If it is a value and not dead, the
//!    index leads there from now on; otherwise it is noted that there is nothing to be found. Every
//!    other one is noted as the predecessor of the one before ([`crate::lineage`]).
//! 4. All of these buckets are shown to the allocator (`observe`), and only then is there an
//!    allocator at all. What the start-up has taken for the prio reserve is made to go as any other
//!    bucket is, and the threads are started. Only then does anybody write.
//!
//! Versions and numbers of lives go on above everything that was found, and above what earlier runs
//! can have used: the superblock's seq, which every opening makes durable first, says where a run begins.
//!
//! # Invariants
//!
//! 1. When a record is entered, every newer one of its key has been: those above the horizon are in
//!    buckets that were read, and none of them waits.
//! 2. So what the index leads to while the cache recovers is what it leads to when that is over.
//!
//! # Power loss
//!
//! Steps 1 to 3 write nothing, unless the cache is made of other devices than the last time
//! ([`crate::members`]) or everything is cold. Step 4 is as if the buckets that it makes go went in their turn.
//!
//! # What is cold
//!
//! A bucket whose header is damaged, or whose records are of another hash seed, is left as it is: it
//! is reused in its turn.
//!
//! A bucket that the device cannot read, or of another version of the format, or on a device that
//! is missing, might hold the newest record of any key, so nothing that is older may count:
//! everything is cold, for good ([`crate::void`]), also what has been known by then.
//!
//! # Progress
//!
//! Shards of the index are locked while a few records are entered, never across I/O. Memory is needed
//! for the records that wait and of the buckets that were read last: [`RECORDS`] or so.

use crate::engine::{Disk, Engine};
use crate::error::Error;
use crate::index::{Index, KeyHash, Location};
use crate::layout::{Entry, Kind};
use crate::members::{Change, Members, Uuid, compare};
use crate::scan::{self, Cold, Source, Surveyed, Unknown};
use crate::void;
use crate::warm::Met;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use tierce_core::DeviceIndex;
use tierce_core::geometry::SECTOR_BYTES;
use tierce_core::{BucketId, Mark, broken};
use tierce_io::DeviceExt;
use tierce_lockfree::Startup;

/// How many numbers a run has to itself, as a power of two.
const RUN_BITS: u32 = 44;
/// Records that are entered at a time, about: few enough to fit the processor's caches, enough to
/// be worth several threads.
const RECORDS: usize = 1 << 19;
/// A step is at most so much of what there is, so that something is known soon, and at least so
/// many buckets, which are read at a time.
const STEPS: usize = 64;
const BUCKETS_MIN: usize = 16;

/// A record of a key.
#[derive(Clone, Copy)]
struct Record {
    hash: u64,
    version: u64,
    /// The number of its bucket among those that were found.
    bucket: u32,
    offset: u32,
    bytes: u32,
    kind: Kind,
}

/// Memory of all steps: what one does not need any more the next one uses.
#[derive(Default)]
struct Scratch {
    /// Those that were read and not entered yet.
    records: Vec<Record>,
    /// What each thread enters.
    of_threads: Vec<Vec<Record>>,
}

/// What is on the devices, as far as the allocator wants to know.
#[derive(Default)]
pub(crate) struct Recovered {
    pub(crate) buckets: Vec<Surveyed>,
    /// Sectors of records of each that are not dead.
    sectors: Vec<u32>,
}

impl Recovered {
    /// Shows the allocator every bucket that holds something. Also one whose records are all
    /// superseded: it may be what keeps an older record from coming back.
    pub(crate) fn observe(&self, startup: &mut Startup) {
        for (found, &sectors) in self.buckets.iter().zip(&self.sectors) {
            startup.observe(found.bucket, sectors, Mark::Reclaimable);
        }
    }
}

/// The lowest number of the run in which the superblock has that seq. A device that is opened every
/// minute has used up the long runs after half a year.
fn first_of_run(seq: u64) -> u64 {
    const LONG_RUNS: u64 = 1 << (62 - RUN_BITS);
    const SHORT_RUN: u64 = 1 << 26;
    match seq.checked_sub(LONG_RUNS) {
        None => seq << RUN_BITS,
        Some(short_runs) => short_runs.saturating_mul(SHORT_RUN).min(1 << 61) + (1 << 62),
    }
}

/// Where versions and lives go on: above those that were found, `numbers`, and above those of earlier
/// runs.
fn clock(seqs: impl Iterator<Item = u64>, numbers: impl Iterator<Item = u64>) -> u64 {
    let next = numbers.map(|number| number.saturating_add(1));
    // The top bit of a life's number is used for something else.
    seqs.map(first_of_run).chain(next).max().unwrap_or(1).clamp(1, u64::MAX >> 1)
}

impl Engine {
    /// Steps 1 to 3.
    pub(crate) fn recover(&self, sources: &[Source]) -> Result<Recovered, Error> {
        match self.find(sources) {
            Ok(recovered) => Ok(recovered),
            Err(Cold::Stopped) => Err(tierce_lockfree::Error::Closed.into()),
            Err(Cold::Unknown(why)) if self.layout.bucket_bytes >= void::BUCKET_BYTES_MIN => {
                self.start_cold(sources, &why)?;
                Ok(Recovered::default())
            }
            // Nor are several devices so small.
            Err(Cold::Unknown(Unknown::Read(error))) => Err(error.into()),
            Err(Cold::Unknown(why)) => Err(Error::Unknown { why: why.to_string() }),
        }
    }

    fn find(&self, sources: &[Source]) -> Result<Recovered, Cold> {
        let stopped = || self.warm.is_stopped();
        let void = self.void().clone();
        let mut buckets = scan::survey(sources, &self.layout, &void, stopped)?;
        let seqs = sources.iter().map(|source| source.seq);
        let numbers = buckets.iter().flat_map(|found| [found.header.life, found.newest]);
        // Relaxed: nobody else writes before the recovery is over.
        self.ticks.store(clock(seqs, numbers), Ordering::Relaxed);
        self.join(sources, &mut buckets)?;
        if let Some(newest) = buckets.iter().max_by_key(|found| found.header.life) {
            let seed = newest.header.hash_seed;
            buckets.retain(|found| found.header.hash_seed == seed);
            let _ = self.hash_seed.set(seed);
        }
        buckets.sort_unstable_by_key(|found| std::cmp::Reverse(found.newest));
        for found in &buckets {
            self.lives.found(found.bucket, found.header.life);
            self.lineage.found_dead(found.bucket.id(), found.dead.clone());
        }
        let nothing =
            sources.iter().map(|source| source.buckets.len()).sum::<usize>() - buckets.len();
        let mut recovered = Recovered { sectors: vec![0; buckets.len()], buckets };
        let (mut read, mut is_expected) = (0, false);
        let mut scratch = Scratch::default();
        while read < recovered.buckets.len() {
            self.warm.step((nothing + read) as u64);
            let next = self.next(&recovered.buckets, read);
            self.step(sources, &mut recovered, next.clone(), &mut scratch)?;
            read = next.end;
            is_expected =
                is_expected || self.expect(&recovered.buckets, read, scratch.records.len());
        }
        self.index.fit();
        Ok(recovered)
    }

    /// Makes room in the index for what is still to come, if a guess is possible: as many new keys
    /// per record as in those that were entered. That is hardly too few, because older records are
    /// the more often superseded.
    fn expect(&self, buckets: &[Surveyed], read: usize, waiting: usize) -> bool {
        let records = |buckets: &[Surveyed]| buckets.iter().map(Surveyed::records).sum::<usize>();
        let (known, all) = (records(&buckets[..read]).saturating_sub(waiting), records(buckets));
        let keys = self.index.len();
        if known > 0 {
            self.index.expect((keys as f64 / known as f64 * all as f64) as usize);
        }
        known > 0
    }

    /// Compares the devices with those of the last time, see [`crate::members`].
    fn join(&self, sources: &[Source], buckets: &mut Vec<Surveyed>) -> Result<(), Cold> {
        if self.layout.bucket_bytes < void::BUCKET_BYTES_MIN {
            return Ok(()); // one alone, see `open.rs`
        }
        let here: Vec<_> = sources.iter().map(|source| source.uuid).collect();
        let said: Vec<_> = sources.iter().map(|source| source.members.clone()).collect();
        let change = compare(&here, &said, &self.void());
        let name = |number: usize| sources[number].device.name().to_string();
        let strangers = match change {
            _ if broken!("any_members") => return Ok(()),
            Change::Nothing => {
                self.void().members = said[0].clone();
                return Ok(());
            }
            Change::Missing(uuid) => {
                let uuid = tierce_core::record::Uuid(uuid);
                return Err(Cold::Unknown(Unknown::Missing { device: name(0), uuid }));
            }
            Change::Behind(number) => {
                return Err(Cold::Unknown(Unknown::Behind { device: name(number) }));
            }
            Change::Some(strangers) => strangers,
        };
        let strangers: Vec<_> = strangers.into_iter().map(|number| here[number]).collect();
        buckets.retain(|found| !strangers.contains(&found.header.uuid));
        Ok(self.say(sources, &strangers)?)
    }

    /// Has all devices say, durably, that they are used together from now on, and that what is on
    /// some of them does not count.
    fn say(&self, sources: &[Source], strangers: &[Uuid]) -> Result<(), tierce_io::Error> {
        // Relaxed: as in `find`. Numbers of earlier runs are below it.
        let run = self.ticks.load(Ordering::Relaxed);
        let void = {
            let mut void = self.void();
            for &uuid in strangers {
                void.insert(uuid, run - 1);
            }
            let uuids = sources.iter().map(|source| source.uuid).collect();
            void.members = Members { run, uuids };
            void.clone()
        };
        sources.iter().try_for_each(|source| void.write(&*source.device))
    }

    /// Which buckets are read next.
    fn next(&self, buckets: &[Surveyed], from: usize) -> Range<usize> {
        let most = (buckets.len() / STEPS).max(BUCKETS_MIN);
        let mut records = 0;
        let is_enough = |(number, bucket): (usize, &Surveyed)| {
            records += bucket.records();
            records > RECORDS && number > 0
        };
        let left = &buckets[from..];
        let enough = left.iter().take(most).enumerate().position(is_enough);
        from..from + enough.unwrap_or(most.min(left.len()))
    }

    /// Reads some buckets and enters what is known then. The other records stay in `scratch`.
    fn step(
        &self,
        sources: &[Source],
        recovered: &mut Recovered,
        range: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), Cold> {
        let stopped = || self.warm.is_stopped();
        let buckets = &recovered.buckets;
        // The lowest version that is known: one above the horizon.
        let known = buckets.get(range.end).map_or(0, |bucket| bucket.newest.saturating_add(1));
        let known = if broken!("recover_below_horizon") { 0 } else { known };
        let records = Mutex::new(std::mem::take(&mut scratch.records));
        let each = |number: usize, entries: Vec<Entry>| {
            let sectors = self.live_sectors(&buckets[number], &entries);
            let of_keys = entries.into_iter().filter(|entry| entry.kind != Kind::Part);
            let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
            records.extend(of_keys.map(|entry| Record::of(number as u32, entry)));
            (number, sectors)
        };
        let read = scan::records(sources, &self.layout, buckets, range, stopped, each)?;
        scratch.records = records.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.enter_all(scratch, known, buckets);
        scratch.records.retain(|record| record.version < known);
        for (number, sectors) in read {
            recovered.sectors[number] = sectors;
        }
        if stopped() { Err(Cold::Stopped) } else { Ok(()) }
    }

    /// Sectors of records of a bucket that are not dead.
    fn live_sectors(&self, found: &Surveyed, entries: &[Entry]) -> u32 {
        let is_live = |entry: &&Entry| !found.dead.contains(&self.layout, entry.offset);
        let bytes: u64 = entries.iter().filter(is_live).map(|entry| u64::from(entry.bytes)).sum();
        (bytes.div_ceil(u64::from(SECTOR_BYTES)) as u32).max(1)
    }

    /// Enters records from the version `known` on, each thread those of some shards.
    fn enter_all(&self, scratch: &mut Scratch, known: u64, buckets: &[Surveyed]) {
        /// Fewer are not worth another thread.
        const RECORDS_PER_THREAD: usize = 1 << 12;
        let Scratch { records, of_threads } = scratch;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from).min(16);
        let workers = cpus.min(records.len() / RECORDS_PER_THREAD).max(1);
        of_threads.resize_with(workers.max(of_threads.len()), Vec::new);
        let work = |worker: usize, mine: &mut Vec<Record>| {
            let shards = Index::shards();
            let shards = worker * shards / workers..(worker + 1) * shards / workers;
            let is_mine = |record: &&Record| {
                record.version >= known && shards.contains(&KeyHash(record.hash).shard())
            };
            mine.clear();
            mine.extend(records.iter().filter(is_mine));
            mine.sort_unstable_by_key(|record| (record.hash, std::cmp::Reverse(record.version)));
            // The records of a shard lie together.
            for shard in mine.chunk_by(|a, b| KeyHash(a.hash).shard() == KeyHash(b.hash).shard()) {
                self.enter(shard, buckets);
            }
        };
        std::thread::scope(|scope| {
            let work = &work;
            let mut all = (0..workers).zip(of_threads);
            let first = all.next();
            all.for_each(|(worker, mine)| drop(scope.spawn(move || work(worker, mine))));
            first.into_iter().for_each(|(worker, mine)| work(worker, mine));
        });
    }

    /// Enters records of one shard, by key, newest first.
    fn enter(&self, records: &[Record], buckets: &[Surveyed]) {
        let Some(first) = records.first() else { return };
        let mut chains = self.warm.chains(KeyHash(first.hash).shard());
        let mut shard = self.index.shard(KeyHash(first.hash));
        for key in records.chunk_by(|a, b| a.hash == b.hash) {
            let hash = KeyHash(key[0].hash);
            let met = chains.get(hash);
            let in_index = || shard.get(hash).map(|location| location.bucket.id());
            let mut newer = met.map(Met::bucket).or_else(in_index);
            let mut gone = met.is_some_and(|met| met.gone);
            for record in key {
                let found = &buckets[record.bucket as usize];
                let id = found.bucket.id();
                let is_dead = found.dead.contains(&self.layout, record.offset);
                match newer {
                    Some(newer) => {
                        self.lineage.note(newer, (id, record.offset), found.header.life);
                        chains.insert(hash, Met::new(id, gone));
                    }
                    None if matches!(record.kind, Kind::Value | Kind::Spread) && !is_dead => {
                        shard.enter(hash, record.location(found));
                    }
                    None => {
                        gone = true;
                        chains.insert(hash, Met::new(id, gone));
                    }
                }
                newer = Some(id);
            }
        }
    }

    /// Nothing that is on the devices counts, now or at any later start.
    fn start_cold(&self, sources: &[Source], why: &Unknown) -> Result<(), Error> {
        log::warn!("{why}: what it held is not known, so the cache starts empty");
        self.index.retain(|_| false);
        self.lineage.clear();
        for source in sources {
            for &bucket in &source.buckets {
                self.lives.end(BucketId::new(source.index, bucket));
            }
        }
        let seqs = sources.iter().map(|source| source.seq);
        // Relaxed: as in `find`, whose clock is above this one if it came so far.
        self.ticks.fetch_max(clock(seqs, std::iter::empty()), Ordering::Relaxed);
        let all: Vec<_> = sources.iter().map(|source| source.uuid).collect();
        Ok(self.say(sources, &all)?)
    }

    /// Buckets that the start-up has taken for the prio reserve are gone: what that means for older
    /// records is written before anything else is.
    pub(crate) fn settle(&self, recovered: &Recovered) -> Result<(), Error> {
        let current = |id| self.allocator().snapshot(id).map(|word| word.gen_());
        let gone = recovered
            .buckets
            .iter()
            .filter(|found| current(found.bucket.id()) != Some(found.bucket.gen_()));
        let gone: Vec<_> = gone.map(|found| found.bucket.id()).collect();
        for (number, disk) in (0..).zip(&self.devices) {
            let device = DeviceIndex::new(number);
            let here = gone.iter().filter(|id| id.device() == device);
            let here: Vec<_> = here.map(|id| id.bucket()).collect();
            if here.is_empty() {
                continue;
            }
            self.evict(device, &here)?;
            self.behead(disk, &here)?;
            self.gone(device, &here);
        }
        Ok(())
    }

    /// The new gens of `buckets` are not durable yet. Without a header nothing of them comes back.
    fn behead(&self, disk: &Disk, buckets: &[tierce_core::BucketIndex]) -> Result<(), Error> {
        // Durable before the headers go, for a cut may come between any two writes.
        disk.device.flush()?;
        for bucket in buckets {
            let start = self.layout.start(*bucket);
            disk.device.write_at(start, &vec![0; self.layout.block as usize])?;
        }
        Ok(disk.device.flush()?)
    }
}

impl Record {
    fn of(bucket: u32, entry: Entry) -> Self {
        let Entry { hash, version, offset, bytes, kind } = entry;
        Self { hash, version, bucket, offset, bytes, kind }
    }

    fn location(&self, found: &Surveyed) -> Location {
        Location { bucket: found.bucket, offset: self.offset, bytes: self.bytes }
    }
}

/// Where the hashes of keys start in a cache in which nothing is.
pub(crate) fn new_hash_seed() -> u64 {
    RandomState::new().hash_one("the seed of a cache")
}

#[cfg(test)]
mod tests {
    use crate::testing::formatted;
    use crate::{Cache, Config, Error, Put, Recover};
    use std::sync::Arc;
    use tierce_core::Policy;
    use tierce_core::record::{Superblock, superblock};
    use tierce_io::{DeviceExt, Fault, FaultKind, Operation, Sim};

    const BUCKET: u32 = 16 << 10;

    fn config() -> Config {
        // FIFO comes to none of these again; LRU hardly knows old from new in so young a cache.
        Config::new("sim").streams(2).policy(Policy::Fifo)
    }

    fn meanwhile(sim: &Arc<Sim>) -> Cache {
        let config = config().recover(Recover::MissMeanwhile);
        Cache::open_on(&config, vec![sim.clone()]).expect("opens")
    }

    /// Each run has numbers above those of earlier ones, however often a device was opened.
    #[test]
    fn a_device_that_was_opened_often_goes_on() {
        for seq in [1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 1 << 35, 1 << 50, u64::MAX] {
            let (before, first) = (super::first_of_run(seq - 1), super::first_of_run(seq));
            assert!(before < first || (1 << 50) <= seq, "{seq}: {before} {first}");
            let now = super::clock([seq].into_iter(), [first + 5, 3].into_iter());
            assert_eq!(now, first + 6, "above what was found");
        }
        const OFTEN: u64 = (1 << 18) + 5;
        let sim = formatted(0, 640, BUCKET);
        drop(Cache::open_on(&config(), vec![sim.clone()]).expect("opens"));
        let block = sim.read_at(superblock::OFFSET, superblock::BYTES).expect("readable");
        let mut found = Superblock::decode(&block, None).expect("it is in use");
        found.seq = OFTEN;
        sim.write_at(superblock::OFFSET, &found.encode()).expect("writable");
        for run in 0..4_u8 {
            let cache = Cache::open_on(&config(), vec![sim.clone()]).expect("opens");
            let before = cache.get(b"key").expect("readable").map(|value| value[0]);
            assert_eq!(before, run.checked_sub(1), "the newest");
            cache.insert(b"key", &[run; 14_000]).expect("room");
            cache.close().expect("closes");
        }
    }

    /// A slow stream fills a bucket for so long that its summary is read first, and an old value is
    /// in it; the newer one, or that the key was removed, is in one that is read later.
    #[test]
    fn a_value_is_not_known_before_no_newer_one_can_be() {
        let sim = formatted(0, 640, BUCKET);
        let cache = Cache::open_on(&config(), vec![sim.clone()]).expect("opens");
        let insert = |stream, key: &[u8], value: &[u8]| {
            cache.insert_with(key, value, &Put::new().write_point(stream)).expect("room");
        };
        insert(1, b"overwritten", b"old");
        insert(1, b"removed", b"old");
        insert(0, b"overwritten", b"new");
        cache.remove(b"removed").expect("room");
        let newer = cache.engine().index.get(cache.engine().hash(b"overwritten").expect("a key"));
        let newer = newer.expect("it is there").bucket.bucket();
        for n in 0..100_u32 {
            insert(0, &n.to_le_bytes(), &[7; 14_000]);
        }
        insert(1, b"newest", &[7; 14_000]); // in a bucket of its own
        insert(1, b"newest", &[7; 14_000]);
        cache.close().expect("closes");

        // The bucket of the newer value is found, but its summary hangs.
        let layout = crate::layout::Layout::new(BUCKET, 512).expect("room");
        let start = layout.start(newer);
        let summary = start + 1024..start + u64::from(layout.footer);
        sim.inject(Fault::new(FaultKind::Stall, Operation::Read, 0).within(summary));
        let cache = meanwhile(&sim);
        while sim.stalled() == 0 {
            std::thread::yield_now();
        }
        let knows_newest = cache.contains(b"newest").expect("a key");
        let gets = [&b"overwritten"[..], b"removed"].map(|key| cache.get(key).expect("it works"));
        let stats = cache.stats();
        // First, so that the cache can end whatever was found.
        sim.resume();
        assert!(knows_newest, "{stats:?}");
        assert_eq!((gets, stats.misses_recovering), ([None, None], 2));
        cache.recovered().expect("it works");
        assert_eq!(cache.get(b"overwritten").expect("readable").as_deref(), Some(&b"new"[..]));
        assert_eq!(cache.get(b"removed").expect("readable"), None);
    }

    /// A cache whose recovery stands still at a read after so many; another one, if it was over
    /// before it could be caught.
    fn caught(sim: &Arc<Sim>, after: u64) -> Cache {
        for _ in 0..1000 {
            let cache = meanwhile(sim);
            sim.inject(Fault::new(FaultKind::Stall, Operation::Read, after).for_good());
            while sim.stalled() == 0 && !cache.engine().warm.is_over() {
                std::thread::yield_now();
            }
            if !cache.engine().warm.is_over() {
                return cache;
            }
            sim.clear_faults();
            sim.resume();
            cache.close().expect("nothing went wrong");
        }
        panic!("no read came after {after}");
    }

    /// Told to end, it reads hardly anything more, and nothing is lost.
    #[test]
    fn it_gives_up_soon() {
        let sim = formatted(0, 640, BUCKET);
        let cache = Cache::open_on(&config(), vec![sim.clone()]).expect("opens");
        for n in 0..200_u32 {
            cache.insert(&n.to_le_bytes(), &[n as u8; 14_000]).expect("room");
        }
        cache.close().expect("closes");
        for after in [0, 200, 700, 1000] {
            let cache = caught(&sim, after);
            cache.engine().warm.stop();
            sim.clear_faults();
            // If it went on it would come to this one, and then nothing of what is there counted.
            sim.inject(Fault::new(FaultKind::Io, Operation::Read, 100));
            sim.resume();
            let ended = cache.recovered();
            assert!(matches!(ended, Err(Error::Space(_))), "after {after}: {ended:?}");
            sim.clear_faults();
            cache.close().expect("nothing went wrong");
        }
        let cache = Cache::open_on(&config(), vec![sim]).expect("opens");
        for n in 0..200_u32 {
            assert!(cache.contains(&n.to_le_bytes()).expect("a key"), "{n}");
        }
    }

    /// One bucket's header is of another version, or has a flag: it may hold anything.
    #[test]
    fn a_bucket_of_another_version_leaves_the_cache_cold_for_good() {
        const VERSION_AT: usize = 16;
        const INCOMPAT_AT: usize = 20;
        for (at, value) in [(VERSION_AT, 1), (VERSION_AT, 3), (INCOMPAT_AT, 1)] {
            let sim = formatted(0, 640, BUCKET);
            let cache = Cache::open_on(&config(), vec![sim.clone()]).expect("opens");
            cache.insert(b"key", b"value").expect("room");
            let place = cache.engine().index.get(cache.engine().hash(b"key").expect("a key"));
            let bucket = place.expect("it is there").bucket;
            let life = cache.engine().lives.get(bucket.id()).number;
            let start = cache.engine().layout.start(bucket.bucket());
            cache.insert_durable(b"another", &[7; 14_500]).expect("room");
            cache.close().expect("closes");

            let mut block = sim.read_at(start, 512).expect("readable").to_vec();
            block[at] = value;
            let sum = crate::layout::checksum(life, &block[8..64]);
            block[..8].copy_from_slice(&sum.get().to_le_bytes());
            sim.write_at(start, &block).expect("writable");
            let cache = meanwhile(&sim);
            cache.recovered().expect("it starts empty");
            assert!(!cache.contains(b"another").expect("a key"), "byte {at} is {value}");
            cache.insert(b"new", b"value").expect("room");
            cache.close().expect("closes");
            // That bucket is still there, and does not matter any more.
            let cache = Cache::open_on(&config(), vec![sim]).expect("opens");
            assert_eq!(cache.get(b"new").expect("readable").as_deref(), Some(&b"value"[..]));
            assert_eq!(cache.stats().entries, 1);
        }
    }
}
