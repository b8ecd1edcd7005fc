//! The allocator as its users see it: it composes what the other files explain.

use crate::ageing::{AgeClock, Ageing};
use crate::allocation::{Allocation, PinGuard};
use crate::bucket_ref::BucketRef;
use crate::config::{Config, DeviceTable};
use crate::device::Device;
use crate::error::{Cause, Error};
use crate::events::event;
use crate::future::{self, AllocFuture};
use crate::gc::{Gc, GcState};
use crate::no_wait;
use crate::prio_block::PrioBlocks;
use crate::readers::Read;
use crate::sectors::{Extent, OpenBuckets, SectorRequest, Wait};
use crate::start::Startup;
use crate::stats::{Counters, Stats};
use crate::sync::{Arc, AtomicU32, Ordering};
use crate::table::Table;
use crate::victims::Scanner;
use crate::watch::Watches;
use std::cmp::Reverse;
use std::fmt;
use std::time::Instant;
use tierce_core::{BucketId, DeviceIndex, Geometry, Policy, Reserve};

/// The space of a set of 1 to 8 devices, shared by any number of threads.
///
/// ```
/// use tierce_core::{Geometry, Reserve};
/// use tierce_lockfree::{Allocator, Config, DeviceTable, SectorRequest};
///
/// let geometry = Geometry::new(1024, 1, 128, 8)?;
/// let config = Config::default().sync(false);
/// let (allocator, mut reclaimers) =
///     Allocator::start(config, vec![DeviceTable::empty(geometry)])?.finish();
/// // Whoever does the device's I/O drives its reclaimer; here it runs once by hand.
/// let _ = reclaimers[0].step();
///
/// let bucket = allocator.try_alloc(Reserve::None)?.expect("the reclaimer ran");
/// let pointer = bucket.bucket_ref();
/// bucket.written(); // it has content now: it is kept, and reused when its turn comes
/// let pin = allocator.pin(pointer).expect("not reused yet");
/// # drop(pin);
/// let extent = allocator.try_alloc_sectors(&SectorRequest::new(16))?.expect("space");
/// assert_eq!((extent.offset(), extent.sectors()), (0, 16));
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
pub struct Allocator {
    config: Config,
    policy: AtomicU32,
    devices: Box<[Device]>,
    gc: GcState,
    ageing: Ageing,
    open: OpenBuckets,
    counters: Counters,
    prio_blocks: PrioBlocks,
    scanner: Scanner,
}

impl fmt::Debug for Allocator {
    /// Without the tables, which have an entry per bucket.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nbuckets: Vec<_> =
            self.devices.iter().map(|device| device.geometry().nbuckets()).collect();
        f.debug_struct("Allocator")
            .field("policy", &self.policy())
            .field("nbuckets", &nbuckets)
            .finish_non_exhaustive()
    }
}

/// Opening and closing.
impl Allocator {
    /// Begins to start an allocator on devices as they were found.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] or [`Error::Devices`] names the setting that is out of range.
    pub fn start(config: Config, devices: Vec<DeviceTable>) -> Result<Startup, Error> {
        Startup::new(config, devices)
    }

    pub(crate) fn new(config: Config, devices: Box<[Device]>, clock: Arc<AgeClock>) -> Self {
        let cells = config.cpus.max(1) as usize;
        let sectors = |device: &Device| {
            u64::from(device.geometry().nbuckets()) * u64::from(device.geometry().bucket_sectors())
        };
        let total = devices.iter().map(sectors).sum::<u64>();
        let written_limit = total / u64::from(config.gc_written_share);
        Self {
            policy: AtomicU32::new(config.policy.number().into()),
            gc: GcState::new(config.cpus as usize, written_limit),
            ageing: Ageing::new(total / 1024, cells, clock),
            open: OpenBuckets::new(&config),
            counters: Counters::new(config.cpus as usize),
            prio_blocks: PrioBlocks::new(),
            scanner: Scanner::new(&config),
            config,
            devices,
        }
    }

    /// Hands out nothing more. Whoever waits gets [`Error::Closed`], reclaimers get
    /// [`Step::Ended`](crate::Step::Ended), the open buckets are closed. What is held may still be
    /// written and dropped. Takes short locks; waits for nobody who sleeps or does I/O.
    pub fn close(&self) {
        self.open.note_end();
        // First nothing more is handed out; whoever opens a bucket after that closes it himself.
        self.devices.iter().for_each(Device::close);
        self.open.seal(self, None);
        self.gc.bell.ring();
    }

    /// Takes a device out of use: its allocations fail with `cause`, those who wait for it are
    /// told, reclaiming stops. The other devices go on; the first cause is kept. Takes short
    /// locks, as [`close`](Self::close).
    ///
    /// # Panics
    ///
    /// If the set has no such device; as [`try_alloc_on`](Self::try_alloc_on),
    /// [`alloc_on`](Self::alloc_on) when it is polled, and [`alloc_until`](Self::alloc_until) do.
    pub fn fail(&self, device: DeviceIndex, cause: Cause) {
        event!(WARN, "device_failed", device = device, cause = cause);
        self.open.note_end();
        self.devices[device.as_usize()].fail(cause);
        self.open.seal(self, Some(device));
        self.gc.bell.ring();
    }

    /// Whether `device` is in use: the set is open, and it has not [failed](Self::fail). One load.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tierce_core::{DeviceIndex, Geometry};
    /// use tierce_lockfree::{Allocator, Config, DeviceTable, Error};
    /// let table = DeviceTable::empty(Geometry::new(1024, 1, 128, 1)?);
    /// let (allocator, _reclaimers) = Allocator::start(Config::default(), vec![table])?.finish();
    /// allocator.check(DeviceIndex::FIRST)?;
    /// allocator.fail(DeviceIndex::FIRST, Arc::new(std::io::Error::other("no answer")));
    /// assert!(matches!(allocator.check(DeviceIndex::FIRST), Err(Error::DeviceFailed { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`] with the cause, or [`Error::Closed`].
    ///
    /// # Panics
    ///
    /// If the set has no such device.
    pub fn check(&self, device: DeviceIndex) -> Result<(), Error> {
        self.devices[device.as_usize()].check()
    }
}

/// Buckets.
impl Allocator {
    /// A bucket of device 0 of the set, or of the next device that has one: from `none`, else
    /// from `reserve`. `None` if nothing is free.
    ///
    /// Wait-free while this thread's cells hold a bucket and nobody waits in line; otherwise
    /// lock-free, with a short lock if somebody waits: a bucket that is free while they do is
    /// theirs. `None` means that at some instant inside the call nothing was free for the caller,
    /// or that another thread was just then carrying a bucket between lists.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], or [`Error::DeviceFailed`] if every device has failed.
    #[inline]
    pub fn try_alloc(&self, reserve: Reserve) -> Result<Option<Allocation<'_>>, Error> {
        match self.take_from(&self.devices[0], reserve) {
            Ok(Some(allocation)) => Ok(Some(allocation)),
            other => self.try_alloc_on_others(reserve, other),
        }
    }

    /// Device 0 had nothing.
    #[cold]
    fn try_alloc_on_others<'a>(
        &'a self,
        reserve: Reserve,
        first: Result<Option<Allocation<'a>>, Error>,
    ) -> Result<Option<Allocation<'a>>, Error> {
        let mut result = first;
        for device in &self.devices[1..] {
            match self.take_from(device, reserve) {
                Ok(None) => result = Ok(None),
                Err(_) => {}
                found => return found,
            }
        }
        result
    }

    #[inline]
    fn take_from<'a>(
        &'a self,
        device: &'a Device,
        reserve: Reserve,
    ) -> Result<Option<Allocation<'a>>, Error> {
        match device.take(reserve)? {
            Some((free, word)) => Ok(Some(Allocation::new(device, free, word.gen_()))),
            None => {
                device.counters.alloc_fails.add(1);
                event!(DEBUG, "alloc_fail", device = device.index(), reserve = reserve);
                Ok(None)
            }
        }
    }

    /// As [`try_alloc`](Self::try_alloc), on one device.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] or [`Error::DeviceFailed`].
    #[inline]
    pub fn try_alloc_on(
        &self,
        device: DeviceIndex,
        reserve: Reserve,
    ) -> Result<Option<Allocation<'_>>, Error> {
        self.take_from(&self.devices[device.as_usize()], reserve)
    }

    /// A bucket of `device`, as soon as one is free. Fair: those who wait for the same reserve are
    /// served in the order in which they came, and nobody who comes later gets a bucket before
    /// them (except the prio write, which makes buckets free).
    ///
    /// Do not call it holding anything that garbage collection, the walk over the index or the
    /// prio write needs: they are what makes buckets free. [`NoWait`](crate::NoWait) watches over
    /// that in debug builds, [`wait_for`](Self::wait_for) is for who must not wait later.
    ///
    /// # Errors
    ///
    /// The future gives [`Error::Closed`] or [`Error::DeviceFailed`].
    pub fn alloc_on(&self, device: DeviceIndex, reserve: Reserve) -> AllocFuture<'_> {
        AllocFuture::new(self, device, reserve)
    }

    /// As [`alloc_on`](Self::alloc_on), blocking the thread until `deadline` at the latest
    /// (`None`: for as long as it takes).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`], [`Error::Closed`] or [`Error::DeviceFailed`].
    pub fn alloc_until(
        &self,
        device: DeviceIndex,
        reserve: Reserve,
        deadline: Option<Instant>,
    ) -> Result<Allocation<'_>, Error> {
        let mut allocation = self.alloc_on(device, reserve);
        match allocation.at_once() {
            Some(decided) => decided,
            None => future::block_until(allocation, deadline),
        }
    }

    /// Keeps the bucket from being reused for as long as the guard lives. `None` if the pointer
    /// is stale or 49 152 pins are held already. Lock-free.
    #[must_use]
    pub fn pin(&self, pointer: BucketRef) -> Option<PinGuard<'_>> {
        self.table_of(pointer)?.pin(pointer.bucket(), pointer.gen_())?;
        Some(PinGuard::new(self, pointer))
    }

    /// A read hit: the bucket counts as used just now, unless the pointer is stale.
    /// [`OpenRead::validate`](crate::OpenRead::validate) does the same. Wait-free; a store only if
    /// the bucket was not fresh already.
    pub fn touch(&self, pointer: BucketRef) {
        if let Some(table) = self.table_of(pointer) {
            table.touch(pointer.bucket(), pointer.gen_());
        }
    }

    /// Something that `pointer` led to gave way to something newer elsewhere: it was wanted at that
    /// age, which [`Config::lru_sample`](crate::Config) learns from, but will not be looked for there
    /// again, so the bucket does not become fresh. Wait-free; a store only if the bucket is one of
    /// those whose uses are counted.
    pub fn replaced(&self, pointer: BucketRef) {
        if let Some(table) = self.table_of(pointer) {
            table.replaced(pointer.bucket(), pointer.gen_());
        }
    }

    /// The content of `pointer`'s bucket is dead. It is not free at once (old pointers may lead
    /// into it) but can be reused before others. The caller owns the bucket; if it was reused
    /// meanwhile nothing changes. Lock-free.
    pub fn free(&self, pointer: BucketRef) {
        let Some(table) = self.table_of(pointer) else { return };
        if table.free(pointer.bucket(), pointer.gen_()) {
            self.devices[pointer.device().as_usize()].available.change(1);
        }
    }
}

/// Sectors.
impl Allocator {
    /// Up to `request.sectors()` sectors of one bucket; `None` if no bucket is free.
    ///
    /// Lock-free while the write point's open bucket has room; else as
    /// [`try_alloc`](Self::try_alloc).
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] or [`Error::DeviceFailed`].
    #[inline]
    pub fn try_alloc_sectors(&self, request: &SectorRequest) -> Result<Option<Extent<'_>>, Error> {
        self.open.alloc(self, request, Wait::No)
    }

    /// As [`try_alloc_sectors`](Self::try_alloc_sectors), waiting for a bucket until `deadline`
    /// (`None`: for as long as it takes). While it waits it holds nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`], [`Error::Closed`] or [`Error::DeviceFailed`].
    #[inline]
    pub fn alloc_sectors_until(
        &self,
        request: &SectorRequest,
        deadline: Option<Instant>,
    ) -> Result<Extent<'_>, Error> {
        no_wait::check();
        let extent = self.open.alloc(self, request, Wait::Until(deadline))?;
        Ok(extent.expect("a waiting allocation has space or an error"))
    }

    /// A bucket to be opened, on the device that has most to give.
    pub(crate) fn bucket_for_sectors(
        &self,
        reserve: Reserve,
        wait: Wait,
    ) -> Result<Option<Allocation<'_>>, Error> {
        match wait {
            Wait::No => self.try_alloc_any(reserve),
            Wait::Until(deadline) => self.alloc_any_until(reserve, deadline).map(Some),
        }
    }

    /// The devices that work, those first that have most free for a user of `reserve`, equal
    /// ones in device order.
    pub(crate) fn ranked(&self, reserve: Reserve) -> Vec<&Device> {
        let mut ranked: Vec<_> =
            self.devices.iter().filter(|device| device.check().is_ok()).collect();
        if ranked.len() > 1 {
            ranked.sort_by_cached_key(|device| Reverse(device.usable_hint(reserve)));
        }
        ranked
    }

    /// The device that works and has most free for a user of `reserve`, at no particular instant;
    /// `None` if none works. Wait-free.
    #[must_use]
    pub fn most_free(&self, reserve: Reserve) -> Option<DeviceIndex> {
        self.ranked(reserve).first().map(|device| device.index())
    }

    /// A bucket of `device` is being filled, which counts towards the next garbage collection.
    /// Sector allocation does it by itself; who fills whole buckets says so here. It wakes who
    /// sleeps until a collection is due, late by at most 1/512 of what makes one due for each
    /// thread that opens buckets. Wait-free.
    pub fn note_opened(&self, device: DeviceIndex) {
        let sectors = self.geometry(device).bucket_sectors();
        if self.gc.note_written(sectors) {
            self.ring_if_gc_due();
        }
    }
}

/// Reading, ageing, garbage collection.
impl Allocator {
    /// Begins a read. Call it *before* looking the key up. Wait-free.
    #[inline]
    pub fn begin_read(&self) -> Read<'_> {
        Read::begin(self)
    }

    /// Counts I/O (read or written) of `sectors` sectors, by which buckets age. Wait-free.
    pub fn account_io(&self, sectors: u32) {
        if self.ageing.account(sectors.into()) && self.ageing.is_worth_a_look() {
            self.devices[0].bell.ring();
        }
    }

    /// Begins a garbage collection, see [`crate::gc`]: it looks at every bucket once, or, if marks
    /// are kept in place, waits for passes under way and clears every mark. Allocations go on.
    ///
    /// # Errors
    ///
    /// [`Error::GcRunning`] if one is running.
    pub fn begin_gc(&self) -> Result<Gc<'_>, Error> {
        Gc::begin(self)
    }

    /// Whether a collection is due: reclaiming waits for one, some bucket was reused often since
    /// the last, or much was written.
    #[must_use]
    pub fn gc_due(&self) -> bool {
        self.gc.is_needed()
            || self.gc.need_gc() > self.config.gc_gen_trigger.into()
            || self.gc.is_much_written()
    }

    pub(crate) fn ring_if_gc_due(&self) {
        if self.gc_due() {
            self.gc.bell.ring();
        }
    }

    /// Sleeps until a collection is due, the set is closed or `deadline` has passed. One thread
    /// at a time, the one that collects. `true` if a collection is due; `false` also when every
    /// device has ended.
    pub fn wait_gc_due(&self, deadline: Option<Instant>) -> bool {
        loop {
            if self.devices.iter().all(|device| device.check().is_err()) {
                return false;
            }
            if self.gc_due() {
                return true;
            }
            if !self.gc.bell.wait(deadline) {
                return false;
            }
        }
    }
}

/// Looking.
impl Allocator {
    /// The policy in force. Wait-free.
    #[must_use]
    pub fn policy(&self) -> Policy {
        // Relaxed: the next pass follows it.
        Policy::from_number(self.policy.load(Ordering::Relaxed) as u8).unwrap_or_default()
    }

    /// Changes the policy; the next pass follows it, one under way ends as it began. Wait-free.
    pub fn set_policy(&self, policy: Policy) {
        // Relaxed: as above.
        self.policy.store(policy.number().into(), Ordering::Relaxed);
    }

    /// Counters and gauges, summed up over the CPUs: not for a hot path. Takes short locks.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(self)
    }

    /// The shape of a device.
    ///
    /// # Panics
    ///
    /// If the set has no such device.
    #[must_use]
    pub fn geometry(&self, device: DeviceIndex) -> &Geometry {
        self.devices[device.as_usize()].geometry()
    }

    /// The settings that it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The state of a bucket at this instant; `None` if there is no such bucket. While a rescale
    /// is under way the prio of a pinned bucket may be one step off.
    #[must_use]
    pub fn snapshot(&self, bucket: BucketId) -> Option<tierce_core::Snapshot> {
        let device = self.devices.get(bucket.device().as_usize())?;
        let known = bucket.bucket().as_usize() < device.table().len();
        known.then(|| device.table().snapshot(bucket.bucket()))
    }

    /// The table that `pointer` leads into, if it names a bucket that could be allocated.
    #[inline]
    pub(crate) fn table_of(&self, pointer: BucketRef) -> Option<&Table> {
        let device = self.devices.get(pointer.device().as_usize())?;
        device.geometry().contains(pointer.bucket()).then_some(device.table())
    }

    #[inline]
    pub(crate) fn devices(&self) -> &[Device] {
        &self.devices
    }

    pub(crate) fn devices_mut(&mut self) -> &mut [Device] {
        &mut self.devices
    }

    pub(crate) fn watches(&self) -> &Arc<Watches> {
        self.devices[0].watches()
    }

    #[inline]
    pub(crate) fn gc_state(&self) -> &GcState {
        &self.gc
    }

    pub(crate) fn ageing(&self) -> &Ageing {
        &self.ageing
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn prio_blocks(&self) -> &PrioBlocks {
        &self.prio_blocks
    }

    pub(crate) fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    pub(crate) fn open_buckets(&self) -> &OpenBuckets {
        &self.open
    }
}
