//! Opening: devices and their state at once, then what their buckets say ([`crate::recover`]), and
//! the threads: before the cache is open, or while it is used already.

use crate::budget::Budget;
use crate::cache::{Background, Threads};
use crate::collector;
use crate::config::{Config, Recover};
use crate::engine::{Disk, Engine};
use crate::error::Error;
use crate::events::{event, span};
use crate::flights::Flights;
use crate::index::Index;
use crate::layout::Layout;
use crate::life::Lives;
use crate::lineage::Lineage;
use crate::members::Members;
use crate::memory::Memory;
use crate::recover::new_hash_seed;
use crate::scan::Source;
use crate::stats::Counters;
use crate::stream::Streams;
use crate::void::{self, Void};
use crate::warm::Warm;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use tierce_core::geometry::MAX_DEVICES;
use tierce_core::record::Superblock;
use tierce_core::{BucketIndex, DeviceIndex, Geometry, Sizes};
use tierce_io::{
    Device, Evicted, Owner, Pipeline, StateWriter, Volume, Work, open_device, read_superblock,
};
use tierce_lockfree::{Allocator, DeviceTable, Reclaimer, Startup};

/// A device that is open, not yet a cache's.
struct Opened {
    table: DeviceTable,
    writer: StateWriter,
    device: Arc<dyn Device>,
    data_buckets: u64,
}

/// Opens devices at the paths of `config`.
pub(crate) fn open(config: &Config) -> Result<Background, Error> {
    check_count(config.paths.len())?;
    let mut devices = Vec::new();
    for (number, path) in config.paths.iter().enumerate() {
        let opened = open_device(path, &config.device);
        devices.push(opened.map_err(|error| match error {
            tierce_io::Error::InUse { .. } => twice(path, &config.paths[..number], error),
            error => error.into(),
        })?);
    }
    open_on(config, devices)
}

/// Why a device is in use: maybe we use it.
fn twice(path: &Path, before: &[PathBuf], in_use: tierce_io::Error) -> Error {
    let file = |path: &Path| {
        // A block device may have several names of its own.
        let found = std::fs::metadata(path).ok()?;
        let of_file = (found.rdev() == 0).then_some((found.dev(), found.ino()));
        Some((found.rdev(), of_file))
    };
    let name = |path: &Path| path.display().to_string();
    let this = file(path);
    match before.iter().find(|other| this.is_some() && file(other) == this) {
        Some(other) => Error::Twice { device: name(path), other: name(other) },
        None => in_use.into(),
    }
}

/// Opens devices that somebody else opened.
pub(crate) fn open_on(config: &Config, devices: Vec<Arc<dyn Device>>) -> Result<Background, Error> {
    check_count(devices.len())?;
    // What can be refused is refused before anything is changed.
    let read = |device: &Arc<dyn Device>| read_superblock(&**device);
    let superblocks = devices.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let layout = alike(&devices, &superblocks)?;
    let settings = settings(config, &superblocks[0]);
    settings.validate()?;
    let open = |device| Volume::open_on(device, Owner::Engine);
    let volumes = devices.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
    open_volumes(config, settings, layout, volumes)
}

/// Whether a cache can have so many devices.
fn check_count(found: usize) -> Result<(), Error> {
    match (1..=usize::from(MAX_DEVICES)).contains(&found) {
        true => Ok(()),
        false => Err(tierce_lockfree::Error::Devices { found }.into()),
    }
}

/// What the allocator is told.
fn settings(config: &Config, first: &Superblock) -> tierce_lockfree::Config {
    let settings = tierce_lockfree::Config::default();
    let cpus = config.cpus.unwrap_or(settings.cpus);
    settings
        .policy(config.policy.unwrap_or(first.policy))
        .lru_sample(config.lru_sample)
        .cpus(cpus)
        .discard(first.discard)
        // Not the same draws in every run: they would fall on what was written last.
        .seed(RandomState::new().hash_one("the seed of the random policy"))
}

/// Makes a cache of devices that are open.
fn open_volumes(
    config: &Config,
    settings: tierce_lockfree::Config,
    layout: Layout,
    volumes: Vec<Volume>,
) -> Result<Background, Error> {
    let reinsert_after = config.reinserts_after(settings.policy);
    let opened = volumes.into_iter().map(|volume| adopt(volume, reinsert_after));
    let opened = opened.collect::<Vec<_>>();
    let (mut void, mut sources) = (Void::default(), Vec::new());
    for (number, opened) in (0..).zip(&opened) {
        let said = match layout.bucket_bytes >= void::BUCKET_BYTES_MIN {
            true => Void::read(&*opened.device)?,
            false => Void::default(),
        };
        void.merge(&said);
        sources.push(opened.source(number, said.members));
    }
    let (tables, disks): (Vec<_>, Vec<_>) = opened.into_iter().map(Opened::split).unzip();
    let (disks, writers): (Vec<_>, Vec<_>) = disks.into_iter().unzip();
    let buckets = sources.iter().map(|source| source.buckets.len() as u64).sum();
    let parts = Parts {
        layout,
        disks,
        streams: streams(config, &tables, settings.cpus),
        nbuckets: tables.iter().map(|table| table.gens.nbuckets()).collect(),
        reinsert_after,
        void,
        warm: Warm::new(config.recover, buckets),
    };
    let startup = Allocator::start(settings, tables)?;
    let start = Start { engine: parts.assemble(config), sources, startup, writers };
    start.go(config)
}

/// What is left to do when devices and settings are known to be good.
struct Start {
    engine: Arc<Engine>,
    sources: Vec<Source>,
    startup: Startup,
    writers: Vec<StateWriter>,
}

impl Start {
    /// Now, or meanwhile.
    fn go(self, config: &Config) -> Result<Background, Error> {
        let engine = Arc::clone(&self.engine);
        let (recovery, threads) = match config.recover {
            Recover::First => (None, Some(self.run()?)),
            Recover::MissMeanwhile | Recover::WaitMeanwhile => {
                let thread = std::thread::Builder::new().name("tierce-recover".into());
                let recovery = thread.spawn(move || self.run()).map_err(|cause| Error::Thread {
                    thread: "tierce-recover",
                    cause: Arc::new(cause),
                })?;
                (Some(recovery), None)
            }
        };
        Ok(Background { engine, recovery, threads, space_timeout: config.space_timeout })
    }

    fn run(self) -> Result<Threads, Error> {
        let engine = Arc::clone(&self.engine);
        let _guard = engine.warm.guard();
        let _span = span!(INFO, "recovery");
        let threads = self.finish();
        match &threads {
            Ok(_) => {
                let (entries, buckets) = (engine.index.len(), engine.lives.count());
                event!(INFO, "recovered", entries = entries, buckets = buckets);
                engine.warm.finish();
            }
            Err(error) => {
                event!(WARN, "recovery_failed", cause = error);
                engine.warm.fail(error.clone());
            }
        }
        threads
    }

    fn finish(self) -> Result<Threads, Error> {
        let Self { engine, sources, mut startup, writers } = self;
        let recovered = engine.recover(&sources)?;
        drop(sources);
        recovered.observe(&mut startup);
        let (allocator, mut reclaimers) = startup.finish();
        for reclaimer in &mut reclaimers {
            let here = recovered.buckets.iter();
            let here = here.filter(|found| found.bucket.device() == reclaimer.device());
            let here = here.map(|found| (found.bucket.bucket().get(), found.header.life)).collect();
            let nbuckets = allocator.geometry(reclaimer.device()).nbuckets();
            reclaimer.set_fifo_next(fifo_next(here, nbuckets));
        }
        engine.hash_seed.get_or_init(new_hash_seed);
        engine.allocator.set(allocator).expect("nobody else makes one");
        engine.settle(&recovered)?;
        drop(recovered);
        start(engine, reclaimers, writers)
    }
}

fn adopt(volume: Volume, reinsert_after: u8) -> Opened {
    let device = Arc::clone(volume.device());
    let geometry = *volume.geometry();
    let journal = u32::from(volume.superblock().njournal);
    let mut sizes = Sizes::tierce(&geometry, journal);
    // This engine keeps no index nodes on the device: nobody would ever take from these. Data moves
    // out of a batch that goes.
    sizes.btree = 0;
    sizes.moving_gc = if reinsert_after == 0 { 0 } else { sizes.free_inc.div_ceil(4) };
    let (table, writer) = volume.into_start();
    let table = table.with_sizes(sizes);
    let usable_buckets = usable_buckets(&geometry, journal);
    let kept_free = sizes.none + sizes.moving_gc + sizes.free_inc + sizes.prio;
    let data_buckets = usable_buckets.saturating_sub(kept_free.into());
    Opened { table, writer, device, data_buckets }
}

/// The layout that all have.
fn alike(devices: &[Arc<dyn Device>], superblocks: &[Superblock]) -> Result<Layout, Error> {
    let name = |number: usize| devices[number].name().to_string();
    let shape = |number: usize| {
        let geometry = superblocks[number].geometry();
        (geometry.bucket_bytes(), geometry.block_bytes())
    };
    let mut layouts = Vec::new();
    for number in 0..devices.len() {
        let (bucket_bytes, block) = shape(number);
        let layout = Layout::new(bucket_bytes, block);
        let small = || Error::SmallBuckets { device: name(number), bucket_bytes };
        layouts.push(layout.ok_or_else(small)?);
    }
    let (bucket_bytes, _) = shape(0);
    if devices.len() > 1 && bucket_bytes < void::BUCKET_BYTES_MIN {
        return Err(Error::SmallBuckets { device: name(0), bucket_bytes });
    }
    for number in 1..devices.len() {
        let is_it = |&other: &usize| superblocks[other].uuid == superblocks[number].uuid;
        if let Some(other) = (0..number).find(is_it) {
            return Err(Error::Twice { device: name(number), other: name(other) });
        }
    }
    match (1..devices.len()).find(|&number| shape(number) != shape(0)) {
        None => Ok(layouts[0]),
        Some(other) => {
            let (found, wanted) = (shape(other), shape(0));
            Err(Error::Geometry { device: name(other), found, wanted })
        }
    }
}

/// Where FIFO goes on: where most buckets in a row are empty, or at the oldest if few are. `found`
/// are the buckets that hold something, and their lives.
fn fifo_next(mut found: Vec<(u32, u64)>, nbuckets: u32) -> u32 {
    /// Fewer in a row are what was about to be written.
    const GAP_MIN: u32 = 64;
    found.sort_unstable();
    let Some(&(first, _)) = found.first() else { return 0 };
    let next = found.iter().skip(1).map(|&(bucket, _)| bucket).chain([first + nbuckets]);
    let gaps = found.iter().zip(next).map(|(&(bucket, _), next)| (next - bucket, bucket + 1));
    let oldest = found.iter().min_by_key(|&&(_, life)| life).map_or(0, |&(bucket, _)| bucket);
    gaps.max().filter(|&(gap, _)| gap > GAP_MIN).map_or(oldest, |(_, next)| next)
}

/// How many buckets are filled at a time: open buckets are half empty, so not too many of them on
/// a small device.
fn streams(config: &Config, tables: &[DeviceTable], cpus: u32) -> usize {
    let buckets: usize = tables.iter().map(|table| table.gens.nbuckets() as usize).sum();
    let most = (buckets / 64).clamp(1, 1024);
    config.streams.unwrap_or(cpus.max(1) as usize).min(most)
}

impl Opened {
    fn source(&self, number: u8, members: Members) -> Source {
        let first = self.table.geometry.first_bucket().get();
        let chain: HashSet<_> = self.table.chain.iter().copied().collect();
        // Before the first prio write nothing was handed out. From then on gen 0 says nothing:
        // gens wrap.
        let was_used = !chain.is_empty();
        let is_data = |bucket: &BucketIndex| {
            was_used
                && bucket.get() >= first + self.table.journal_buckets
                && !chain.contains(bucket)
        };
        Source {
            index: DeviceIndex::new(number),
            device: Arc::clone(&self.device),
            uuid: self.writer.superblock().uuid.0,
            members,
            seq: self.writer.superblock().seq,
            gens: self.table.gens.iter().map(|(_, gen_)| gen_).collect(),
            buckets: self.table.geometry.buckets().filter(is_data).collect(),
        }
    }

    fn split(self) -> (DeviceTable, (Disk, StateWriter)) {
        let uuid = self.writer.superblock().uuid.0;
        let data_buckets = self.data_buckets;
        let disk = Disk {
            device: self.device,
            uuid,
            data_buckets,
            losses: AtomicU64::new(0),
            told: AtomicU64::new(0),
            is_unflushed: AtomicBool::new(false),
            is_void: AtomicBool::new(false),
        };
        (self.table, (disk, self.writer))
    }
}

/// What an engine is made of.
struct Parts {
    layout: Layout,
    disks: Vec<Disk>,
    streams: usize,
    nbuckets: Vec<u32>,
    reinsert_after: u8,
    void: Void,
    warm: Warm,
}

impl Parts {
    fn assemble(self, config: &Config) -> Arc<Engine> {
        let (segment, memory) = Engine::buffers(config, &self.layout, self.streams);
        // Four segments, or what the longest record takes and one.
        let survivors = (4 * segment).max(self.layout.bucket_bytes + segment) as usize;
        let cpus = config.cpus.unwrap_or(tierce_lockfree::Config::default().cpus);
        let engine = Engine {
            allocator: OnceLock::new(),
            warm: self.warm,
            memory: Memory::new(config.memory_bytes, cpus as usize),
            lives: Lives::new(self.nbuckets.into_iter()),
            index: Index::new(self.layout.grain),
            lineage: Lineage::new(),
            counters: Counters::default(),
            flights: Flights::default(),
            devices: self.disks,
            layout: self.layout,
            budget: Budget::new(memory),
            hash_seed: OnceLock::new(),
            streams: Streams::new(self.streams, segment, self.layout.grain),
            ticks: AtomicU64::new(1),
            clock: config.clock.clone(),
            when_full: config.when_full,
            reinsert_after: self.reinsert_after,
            survivors: Budget::new(survivors),
            evicting: Mutex::new(()),
            void: Mutex::new(self.void),
            own: OnceLock::new(),
        };
        let engine = Arc::new(engine);
        let own = engine.own.set(Arc::downgrade(&engine));
        own.expect("nobody else has it yet");
        engine
    }
}

impl Engine {
    /// The cache ends: what is in memory is dropped.
    pub(crate) fn forget(&self) {
        self.streams.clear();
        self.lives.clear();
    }
}

/// The pipeline of a device tells the engine what goes.
#[derive(Debug)]
struct Hook {
    device: DeviceIndex,
    engine: Weak<Engine>,
}

impl Evicted for Hook {
    fn before_durable(&mut self, buckets: &[BucketIndex]) -> Result<(), tierce_io::Error> {
        self.engine.upgrade().map_or(Ok(()), |engine| {
            // Before their entries are nobody's: it is an overwrite like any other.
            engine.reinsert(self.device, buckets);
            engine.evict(self.device, buckets)
        })
    }

    fn after_durable(&mut self, buckets: &[BucketIndex]) {
        if let Some(engine) = self.engine.upgrade() {
            engine.gone(self.device, buckets);
        }
    }
}

fn start(
    engine: Arc<Engine>,
    reclaimers: Vec<Reclaimer>,
    writers: Vec<StateWriter>,
) -> Result<Threads, Error> {
    let mut pipelines = Vec::new();
    for (reclaimer, writer) in reclaimers.into_iter().zip(writers) {
        let (device, engine) = (reclaimer.device(), Arc::downgrade(&engine));
        let work = Work::new(reclaimer, writer).with_owner(Hook { device, engine });
        pipelines.push(Pipeline::start_work(work)?);
    }
    let collector = std::thread::Builder::new()
        .name("tierce-gc".into())
        .spawn(move || collector::run(&engine))
        .map_err(|cause| Error::Thread { thread: "tierce-gc", cause: Arc::new(cause) })?;
    Ok(Threads { pipelines, collector })
}

/// Buckets that may hold data: all but those before `first_bucket`, the journal, and the live prio
/// chain. Not all at a time: some are kept free, and some are being made free.
fn usable_buckets(geometry: &Geometry, journal: u32) -> u64 {
    let usable = geometry.buckets().len() as u64;
    usable.saturating_sub(u64::from(journal + geometry.prio_buckets()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::formatted;
    use crate::{Cache, Error};
    use std::time::Duration;
    use tierce_core::Policy;
    use tierce_io::{Fault, FaultKind, Operation};

    #[test]
    fn fifo_goes_on_where_it_was() {
        assert_eq!(fifo_next(vec![], 1000), 0);
        let written = (10..200).map(|bucket| (bucket, 1000 + u64::from(bucket)));
        assert_eq!(fifo_next(written.clone().collect(), 1000), 200, "behind what was written");
        let round = written.filter(|&(bucket, _)| !(100..110).contains(&bucket));
        assert_eq!(fifo_next(round.collect(), 200), 10, "full: at the oldest");
    }

    /// A bucket that cannot be read may hold what took the place of anything that can.
    #[test]
    fn a_bucket_that_cannot_be_read_leaves_the_cache_cold_for_good() {
        let sim = formatted(0, 1024, 64 << 10);
        // FIFO comes to none of these again; LRU hardly knows old from new in so young a cache.
        let config = Config::new("sim").streams(1).policy(Policy::Fifo);
        let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
        let value = |version| vec![version; 60_000];
        cache.insert(b"key", &value(1)).expect("room");
        cache.insert(b"key", &value(2)).expect("room");
        let second = cache.engine().hash(b"key").expect("a key");
        let second = cache.engine().index.get(second).expect("it is there").bucket;
        cache.close().expect("closes");

        let start = u64::from(second.bucket().get()) * (64 << 10);
        let unreadable = Fault::new(FaultKind::Io, Operation::Read, 0).for_good();
        sim.inject(unreadable.within(start..start + 512));
        for _ in 0..2 {
            let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
            assert_eq!(cache.get(b"key").expect("a get never fails"), None);
            cache.insert_durable(b"another", b"value").expect("room");
            cache.close().expect("closes");
            sim.clear_faults(); // also when it can be read again
        }
        let cache = Cache::open_on(&config, vec![sim]).expect("opens");
        assert_eq!(cache.get(b"another").expect("readable").as_deref(), Some(&b"value"[..]));
    }

    /// Who closes a cache, or drops it, does not wait for ever for a device that does not answer.
    #[test]
    fn a_recovery_that_hangs_is_left_alone() {
        let sim = formatted(0, 640, 16 << 10);
        let config = Config::new("sim").policy(Policy::Fifo);
        let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
        cache.insert_durable(b"key", b"value").expect("room");
        let place = cache.engine().index.get(cache.engine().hash(b"key").expect("a key"));
        let start = cache.engine().layout.start(place.expect("it is there").bucket.bucket());
        cache.close().expect("closes");

        let meanwhile =
            config.recover(Recover::MissMeanwhile).space_timeout(Duration::from_millis(20));
        let hangs = || {
            let header =
                Fault::new(FaultKind::Stall, Operation::Read, 0).within(start..start + 512);
            sim.inject(header);
            let cache = Cache::open_on(&meanwhile, vec![sim.clone()]).expect("opens");
            while sim.stalled() == 0 {
                std::thread::yield_now();
            }
            cache
        };
        let let_go = || {
            sim.resume();
            while Arc::strong_count(&sim) > 1 {
                std::thread::yield_now();
            }
        };
        let closed = hangs().close();
        assert!(matches!(closed, Err(Error::Recovering { .. })), "{closed:?}");
        let_go();
        drop(hangs());
        let_go();
        let cache = Cache::open_on(&meanwhile, vec![sim]).expect("opens");
        cache.recovered().expect("it is over");
        assert_eq!(cache.get(b"key").expect("readable").as_deref(), Some(&b"value"[..]));
    }
}
