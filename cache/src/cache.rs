//! The cache as its users see it.

use crate::collector;
use crate::config::Config;
use crate::entry::{self, Flaw};
use crate::error::Error;
use crate::index::{Index, KeyHash, Location};
use crate::stats::{Counters, Stats};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tierce_core::geometry::SECTOR_BYTES;
use tierce_core::{DeviceIndex, Geometry, Reserve, Sizes};
use tierce_io::{Device, DeviceExt, OpenOptions, Owner, Pipeline, Request, Volume};
use tierce_lockfree::{Allocator, Extent, SectorRequest, WritePoint};

/// A key-value cache on one device, shared by any number of threads.
///
/// See the [crate] for an example and for what it promises.
#[derive(Debug)]
pub struct Cache {
    shared: Arc<Shared>,
    pipeline: Option<Pipeline>,
    collector: Option<JoinHandle<()>>,
}

/// What requests and background threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) allocator: Arc<Allocator>,
    pub(crate) index: Index,
    device: Arc<dyn Device>,
    geometry: Geometry,
    data_buckets: u64,
    space_timeout: Duration,
    counters: Counters,
}

impl Cache {
    /// Opens the cache at `config.path()`, which must have been formatted. It opens empty.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] says why the device was refused, and nothing on it was changed.
    pub fn open(config: Config) -> Result<Self, Error> {
        let options = OpenOptions { owner: Owner::Engine, device: config.device.clone() };
        let volume = Volume::open(&config.path, &options)?;
        let geometry = *volume.geometry();
        let device = Arc::clone(volume.device());
        let superblock = volume.superblock();
        let policy = config.policy.unwrap_or(superblock.policy);
        let journal = u32::from(superblock.njournal);
        let mut sizes = Sizes::tierce(&geometry, journal);
        // This engine keeps no index nodes on the device and moves no data: nobody would ever
        // take from these.
        (sizes.btree, sizes.moving_gc) = (0, 0);
        let discard = superblock.discard;
        let (table, writer) = volume.into_start();
        let table = table.with_sizes(sizes);
        let defaults = tierce_lockfree::Config::default();
        let settings = tierce_lockfree::Config {
            policy,
            cpus: config.cpus.unwrap_or(defaults.cpus),
            // Open buckets are half empty: not too many of them on a small device.
            open_buckets: (geometry.nbuckets() / 64).clamp(1, defaults.open_buckets),
            discard,
            ..defaults
        };
        let (allocator, mut reclaimers) = Allocator::start(settings, vec![table])?.finish();
        let reclaimer = reclaimers.remove(0);
        let shared = Arc::new(Shared {
            allocator,
            index: Index::new(),
            device,
            data_buckets: data_buckets(&geometry, journal, &sizes),
            geometry,
            space_timeout: config.space_timeout,
            counters: Counters::default(),
        });
        let pipeline = Pipeline::start(reclaimer, writer)?;
        let mut cache = Self { shared, pipeline: Some(pipeline), collector: None };
        let shared = Arc::clone(&cache.shared);
        let collector = std::thread::Builder::new()
            .name("tierce-gc".into())
            .spawn(move || collector::run(&shared))
            .map_err(|cause| Error::Thread { thread: "tierce-gc", cause: Arc::new(cause) })?;
        cache.collector = Some(collector);
        Ok(cache)
    }

    /// Looks `key` up; if it is there, `value` becomes its value, otherwise it is left empty.
    /// Blocks for one read of the device, on nobody else.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the device cannot be read.
    pub fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Error> {
        value.clear();
        let hit = self.shared.get(key, value)?;
        let counters = &self.shared.counters;
        if hit { &counters.hits } else { &counters.misses }.add_one();
        Ok(hit)
    }

    /// Whether the index holds `key` and its bucket has not been reused. Nothing is read from the
    /// device, so another key with the same 64-bit hash counts too, and a following
    /// [`get`](Self::get) can still miss. It does not count as a use of the bucket.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`].
    pub fn contains(&self, key: &[u8]) -> Result<bool, Error> {
        let hash = self.shared.hash(key)?;
        let read = self.shared.allocator.begin_read();
        let location = self.shared.index.get(hash);
        Ok(location.is_some_and(|location| read.open(location.bucket).is_some()))
    }

    /// Stores `value` under `key`, in place of what was there. When it returns, the value can be
    /// read; it is durable after the next [`flush`](Self::flush). Blocks for one write of the
    /// device, and until a bucket is free if none is.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] and [`Error::EmptyKey`], [`Error::Space`] if no bucket became free
    /// in time, [`Error::Io`] if the device cannot be written: it is out of use from then on.
    /// The older value of the key, if there was one, stays.
    pub fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let result = self.shared.insert(key, value);
        let counters = &self.shared.counters;
        if result.is_ok() { &counters.inserts } else { &counters.failed_inserts }.add_one();
        result
    }

    /// Forgets `key`. `true` if it was there.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`].
    pub fn remove(&self, key: &[u8]) -> Result<bool, Error> {
        let hash = self.shared.hash(key)?;
        let removed = self.shared.index.remove(hash);
        if removed {
            self.shared.counters.removes.add_one();
        }
        Ok(removed)
    }

    /// Makes everything durable whose insert has returned.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the device does not confirm it.
    pub fn flush(&self) -> Result<(), Error> {
        Ok(self.shared.device.flush()?)
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Makes everything durable and stops the background threads. Dropping a cache stops them
    /// too, without the flush.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with what a background thread or the flush ran into.
    pub fn close(mut self) -> Result<(), Error> {
        let stopped = self.stop();
        let flushed = self.flush();
        stopped.and(flushed)
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.shared.allocator.close();
        if let Some(collector) = self.collector.take()
            && let Err(panic) = collector.join()
        {
            std::panic::resume_unwind(panic);
        }
        self.pipeline.take().map_or(Ok(()), |pipeline| Ok(pipeline.close()?))
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // What went wrong was told to those who waited; `close` is for those who want to know.
        self.shared.allocator.close();
    }
}

impl Shared {
    fn hash(&self, key: &[u8]) -> Result<KeyHash, Error> {
        if key.is_empty() { Err(Error::EmptyKey) } else { Ok(self.index.hash(key)) }
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Error> {
        let hash = self.hash(key)?;
        // Before the look-up: see `tierce_lockfree::readers`.
        let read = self.allocator.begin_read();
        let Some(location) = self.index.get(hash) else { return Ok(false) };
        let Some(open) = read.open(location.bucket) else {
            self.counters.stale.add_one();
            self.index.remove_if(hash, location);
            return Ok(false);
        };
        let offset = self.byte_offset(location);
        let bytes = location.sectors as usize * SECTOR_BYTES as usize;
        let buffer = self.device.read_at(offset, bytes)?;
        self.allocator.account_io(location.sectors);
        if !open.validate() {
            self.index.remove_if(hash, location);
            return Ok(false);
        }
        match entry::decode(key, &buffer) {
            Ok(found) => {
                value.extend_from_slice(found);
                Ok(true)
            }
            Err(Flaw::OtherKey) => {
                self.counters.other_key.add_one();
                Ok(false)
            }
            Err(Flaw::Corrupt) => {
                self.counters.corrupt.add_one();
                self.index.remove_if(hash, location);
                Ok(false)
            }
        }
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let hash = self.hash(key)?;
        let block = u64::from(self.geometry.block_bytes());
        let bytes = entry::bytes(key, value).next_multiple_of(block);
        let largest = u64::from(self.geometry.bucket_bytes());
        if bytes > largest {
            let bytes = key.len() as u64 + value.len() as u64;
            let largest = largest - entry::HEADER_BYTES as u64;
            return Err(Error::TooLarge { bytes, largest });
        }
        let sectors = (bytes / u64::from(SECTOR_BYTES)) as u32;
        let extent = self.space(sectors)?;
        let mut buffer = self.device.buffer(bytes as usize);
        entry::encode(key, value, &mut buffer);
        let offset = extent.first_sector() * u64::from(SECTOR_BYTES);
        if let Err(error) = self.device.submit(Request::write(offset, buffer)).wait() {
            let error = Arc::new(error);
            self.allocator.fail(extent.bucket_ref().device(), error.clone());
            return Err(Error::Io(error));
        }
        self.allocator.account_io(sectors);
        // Before the extent's pin is dropped: garbage collection relies on it.
        self.index.insert(
            hash,
            Location { bucket: extent.bucket_ref(), offset_sectors: extent.offset(), sectors },
        );
        Ok(())
    }

    /// `sectors` sectors in one piece. What is too short at the end of a bucket is lost.
    fn space(&self, sectors: u32) -> Result<Extent<'_>, Error> {
        let request = SectorRequest::new(sectors).write_point(this_thread());
        let deadline = Instant::now() + self.space_timeout;
        loop {
            let extent = self.allocator.alloc_sectors_until(&request, Some(deadline))?;
            if extent.sectors() == sectors {
                return Ok(extent);
            }
        }
    }

    fn byte_offset(&self, location: Location) -> u64 {
        let bucket = self.geometry.first_sector(location.bucket.bucket());
        (bucket + u64::from(location.offset_sectors)) * u64::from(SECTOR_BYTES)
    }

    fn stats(&self) -> Stats {
        let allocator = self.allocator.stats();
        let device = &allocator.devices[DeviceIndex::FIRST.as_usize()];
        let counters = &self.counters;
        Stats {
            nbuckets: device.nbuckets.into(),
            data_buckets: self.data_buckets,
            bucket_bytes: self.geometry.bucket_bytes().into(),
            entries: self.index.len() as u64,
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            stale: counters.stale.get(),
            read_races: allocator.read_races_total,
            corrupt: counters.corrupt.get(),
            other_key: counters.other_key.get(),
            inserts: counters.inserts.get(),
            failed_inserts: counters.failed_inserts.get(),
            removes: counters.removes.get(),
            invalidated: device.invalidate_total,
            prio_writes: device.prio_write_total,
            discards: device.discard_total,
            gc_runs: allocator.gc_total,
            rescales: allocator.rescale_total,
            space_waits: device.alloc_wait_total,
        }
    }
}

/// Threads write to different open buckets.
fn this_thread() -> WritePoint {
    thread_local! {
        static WRITE_POINT: WritePoint = {
            let mut hasher = DefaultHasher::new();
            std::thread::current().id().hash(&mut hasher);
            WritePoint::new(hasher.finish() as u32)
        };
    }
    WRITE_POINT.with(|write_point| *write_point)
}

/// Buckets that can hold data at a time: all but those before `first_bucket`, the journal, two
/// prio chains (the live one and the next), what is kept free, and what is being made free.
fn data_buckets(geometry: &Geometry, journal: u32, sizes: &Sizes) -> u64 {
    let kept_free = sizes.of(Reserve::None) + sizes.free_inc;
    let metadata = journal + geometry.prio_buckets() + sizes.of(Reserve::Prio);
    let usable = geometry.buckets().len() as u64;
    usable.saturating_sub(u64::from(kept_free + metadata))
}
