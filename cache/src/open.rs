//! Opening: devices, their state, what their buckets say, and the threads.

use crate::budget::Budget;
use crate::cache::Background;
use crate::collector;
use crate::config::Config;
use crate::engine::{Disk, Engine};
use crate::error::Error;
use crate::flights::Flights;
use crate::index::Index;
use crate::layout::Layout;
use crate::life::Lives;
use crate::lineage::Lineage;
use crate::memory::Memory;
use crate::recover::{self, Scan, Source};
use crate::stats::Counters;
use crate::stream::Streams;
use crate::void::{self, Void};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use tierce_core::{BucketIndex, DeviceIndex, Geometry, Mark, Sizes};
use tierce_io::{
    Device, DeviceExt, Evicted, OpenOptions, Owner, Pipeline, StateWriter, Volume, Work,
};
use tierce_lockfree::{Allocator, DeviceTable, Reclaimer, Startup};

/// A device that is open, not yet a cache's.
struct Opened {
    table: DeviceTable,
    writer: StateWriter,
    device: Arc<dyn Device>,
    layout: Layout,
    data_buckets: u64,
}

/// Opens devices at the paths of `config`.
pub(crate) fn open(config: &Config) -> Result<Background, Error> {
    let options = OpenOptions::default().owner(Owner::Engine).device(config.device.clone());
    let open = |path| Volume::open(path, &options).map_err(Error::from);
    open_volumes(config, config.paths.iter().map(open).collect::<Result<_, _>>()?)
}

/// Opens devices that somebody else opened.
pub(crate) fn open_on(config: &Config, devices: Vec<Arc<dyn Device>>) -> Result<Background, Error> {
    let open = |device| Volume::open_on(device, Owner::Engine).map_err(Error::from);
    open_volumes(config, devices.into_iter().map(open).collect::<Result<_, _>>()?)
}

/// Makes a cache of devices that are open.
fn open_volumes(config: &Config, volumes: Vec<Volume>) -> Result<Background, Error> {
    let first = volumes.first().map(Volume::superblock);
    let (policy, discard) = first.map_or((None, false), |s| (Some(s.policy), s.discard));
    let opened = volumes.into_iter().map(|volume| adopt(volume, config));
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    let layout = alike(&opened)?;
    let (scan, clock, void) = found(&opened, &layout)?;
    let settings = tierce_lockfree::Config::default();
    let cpus = config.cpus.unwrap_or(settings.cpus);
    let settings = settings
        .policy(config.policy.or(policy).unwrap_or_default())
        .lru_sample(config.lru_sample)
        .cpus(cpus)
        .discard(discard)
        // Not the same draws in every run: they would fall on what was written last.
        .seed(RandomState::new().hash_one("the seed of the random policy"));
    let (tables, disks): (Vec<_>, Vec<_>) = opened.into_iter().map(Opened::split).unzip();
    let (disks, writers): (Vec<_>, Vec<_>) = disks.into_iter().unzip();
    let streams = streams(config, &tables, settings.cpus);
    let mut startup = Allocator::start(settings, tables)?;
    let engine = Parts { layout, disks, streams, clock, void, scan: &scan };
    engine.observe(&mut startup);
    let (allocator, mut reclaimers) = startup.finish();
    for reclaimer in &mut reclaimers {
        let here = scan.buckets.iter();
        let here = here.filter(|found| found.bucket.device() == reclaimer.device());
        let here = here.map(|found| (found.bucket.bucket().get(), found.header.life)).collect();
        let nbuckets = allocator.geometry(reclaimer.device()).nbuckets();
        reclaimer.set_fifo_next(fifo_next(here, nbuckets));
    }
    let engine = engine.assemble(config, allocator);
    engine.settle(&scan)?;
    start(engine, reclaimers, writers)
}

fn adopt(volume: Volume, config: &Config) -> Result<Opened, Error> {
    let device = Arc::clone(volume.device());
    let geometry = *volume.geometry();
    let journal = u32::from(volume.superblock().njournal);
    let (bucket_bytes, block) = (geometry.bucket_bytes(), geometry.block_bytes());
    let layout = Layout::new(bucket_bytes, block);
    let name = || device.name().to_string();
    let layout = layout.ok_or_else(|| Error::SmallBuckets { device: name(), bucket_bytes })?;
    let mut sizes = Sizes::tierce(&geometry, journal);
    // This engine keeps no index nodes on the device: nobody would ever take from these. Data moves
    // out of a batch that goes.
    sizes.btree = 0;
    sizes.moving_gc = if config.reinsert_after == 0 { 0 } else { sizes.free_inc.div_ceil(4) };
    let (table, writer) = volume.into_start();
    let table = table.with_sizes(sizes);
    let usable_buckets = usable_buckets(&geometry, journal);
    let kept_free = sizes.none + sizes.moving_gc + sizes.free_inc + sizes.prio;
    let data_buckets = usable_buckets.saturating_sub(kept_free.into());
    Ok(Opened { table, writer, device, layout, data_buckets })
}

/// The layout that all have.
fn alike(opened: &[Opened]) -> Result<Layout, Error> {
    let shape = |o: &Opened| (o.layout.bucket_bytes, o.layout.block);
    let Some(first) = opened.first() else {
        return Err(tierce_lockfree::Error::Devices { found: 0 }.into());
    };
    let bucket_bytes = first.layout.bucket_bytes;
    if opened.len() > 1 && bucket_bytes < void::BUCKET_BYTES_MIN {
        let device = first.device.name().to_string();
        return Err(Error::SmallBuckets { device, bucket_bytes });
    }
    match opened.iter().find(|other| shape(other) != shape(first)) {
        None => Ok(first.layout),
        Some(other) => Err(Error::Geometry {
            device: other.device.name().to_string(),
            found: shape(other),
            wanted: shape(first),
        }),
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

/// What is on the devices, where numbers go on, and which lives do not count.
fn found(opened: &[Opened], layout: &Layout) -> Result<(Scan, u64, Void), Error> {
    let has_room = layout.bucket_bytes >= void::BUCKET_BYTES_MIN;
    let mut void = Void::default();
    for opened in opened.iter().filter(|_| has_room) {
        void.merge(&Void::read(&*opened.device)?);
    }
    let sources: Vec<_> = (0..).zip(opened).map(|(n, o)| o.source(n)).collect();
    match recover::scan(&sources, layout) {
        Ok(mut scan) => {
            scan.buckets.retain(|found| !void.contains(found.header.uuid, found.header.life));
            let clock = recover::clock(&sources, &scan);
            Ok((scan, clock, void))
        }
        Err(error) if has_room => {
            log::warn!("{error}: what it held is not known, so the cache starts empty");
            let clock = recover::clock(&sources, &Scan::default());
            for opened in opened {
                // Numbers of earlier runs are below the clock: see `recover.rs`.
                void.insert(opened.writer.superblock().uuid.0, clock - 1);
            }
            for opened in opened {
                void.write(&*opened.device)?;
            }
            Ok((Scan::default(), clock, void))
        }
        Err(error) => Err(error.into()),
    }
}

/// How many buckets are filled at a time: open buckets are half empty, so not too many of them on
/// a small device.
fn streams(config: &Config, tables: &[DeviceTable], cpus: u32) -> usize {
    let buckets: usize = tables.iter().map(|table| table.gens.nbuckets() as usize).sum();
    let most = (buckets / 64).clamp(1, 1024);
    config.streams.unwrap_or(cpus.max(1) as usize).min(most)
}

impl Opened {
    fn source(&self, number: u8) -> Source<'_> {
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
            device: &*self.device,
            uuid: self.writer.superblock().uuid.0,
            seq: self.writer.superblock().seq,
            gens: self.table.gens.iter().map(|(_, gen_)| gen_).collect(),
            buckets: self.table.geometry.buckets().filter(is_data).collect(),
        }
    }

    fn split(self) -> (DeviceTable, (Disk, StateWriter)) {
        let uuid = self.writer.superblock().uuid.0;
        let data_buckets = self.data_buckets;
        let (lost, told) = (AtomicBool::new(false), AtomicBool::new(false));
        let disk = Disk { device: self.device, uuid, data_buckets, lost, told };
        (self.table, (disk, self.writer))
    }
}

/// What an engine is made of.
struct Parts<'a> {
    layout: Layout,
    disks: Vec<Disk>,
    streams: usize,
    clock: u64,
    void: Void,
    scan: &'a Scan,
}

impl Parts<'_> {
    /// Shows the allocator every bucket that holds something. Also one whose records are all
    /// superseded: it may be what keeps an older record from coming back.
    fn observe(&self, startup: &mut Startup) {
        for found in &self.scan.buckets {
            let sectors = self.scan.sectors(found, &self.layout);
            startup.observe(found.bucket, sectors, Mark::Reclaimable);
        }
    }

    fn assemble(self, config: &Config, allocator: Arc<Allocator>) -> Arc<Engine> {
        let index = Index::new(self.layout.grain);
        let (segment, memory) = Engine::buffers(config, &self.layout, self.streams);
        // Four segments, or what the longest record takes and one.
        let survivors = (4 * segment).max(self.layout.bucket_bytes + segment) as usize;
        let streams = Streams::new(self.streams, segment, self.layout.grain);
        let nbuckets = (0..self.disks.len() as u8)
            .map(|number| allocator.geometry(DeviceIndex::new(number)).nbuckets());
        let seed = self.scan.buckets.first().map(|found| found.header.hash_seed);
        let cpus = config.cpus.unwrap_or(tierce_lockfree::Config::default().cpus);
        let engine = Engine {
            memory: Memory::new(config.memory_bytes, cpus as usize),
            lives: Lives::new(nbuckets),
            allocator,
            index,
            lineage: Lineage::new(),
            counters: Counters::default(),
            flights: Flights::default(),
            devices: self.disks,
            layout: self.layout,
            budget: Budget::new(memory),
            hash_seed: seed.unwrap_or_else(|| RandomState::new().hash_one("the seed of a cache")),
            streams,
            clock: AtomicU64::new(self.clock),
            when_full: config.when_full,
            reinsert_after: config.reinsert_after,
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
    /// Enters what was found. Buckets that the start-up has taken for the prio reserve are gone:
    /// what that means for older records is written before anything else is.
    fn settle(&self, scan: &Scan) -> Result<(), Error> {
        for bucket in &scan.buckets {
            self.lives.found(bucket.bucket, bucket.header.life);
            self.lineage.found_dead(bucket.bucket.id(), bucket.dead.clone());
        }
        recover::rebuild(scan, &self.layout, &self.index, |newer, older| {
            let (found, offset) = older;
            self.lineage.note(newer.bucket.id(), (found.bucket.id(), offset), found.header.life);
        });
        let current = |id| self.allocator.snapshot(id).map(|word| word.gen_());
        let gone = scan
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
            // Durable before the headers go, for a cut may come between any two writes.
            disk.device.flush()?;
            // Their new gens are not durable yet. Without a header nothing of them comes back.
            for bucket in &here {
                let start = self.layout.start(*bucket);
                disk.device.write_at(start, &vec![0; self.layout.block as usize])?;
            }
            disk.device.flush()?;
            self.gone(device, &here);
        }
        Ok(())
    }

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
) -> Result<Background, Error> {
    let mut background =
        Background { engine: Arc::clone(&engine), pipelines: Vec::new(), collector: None };
    for (reclaimer, writer) in reclaimers.into_iter().zip(writers) {
        let (device, engine) = (reclaimer.device(), Arc::downgrade(&engine));
        let work = Work::new(reclaimer, writer).with_owner(Hook { device, engine });
        background.pipelines.push(Pipeline::start_work(work)?);
    }
    let collector = std::thread::Builder::new()
        .name("tierce-gc".into())
        .spawn(move || collector::run(&engine))
        .map_err(|cause| Error::Thread { thread: "tierce-gc", cause: Arc::new(cause) })?;
    background.collector = Some(collector);
    Ok(background)
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
    use crate::Cache;
    use crate::testing::formatted;
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
}
