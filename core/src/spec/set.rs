//! The set: what its devices share, and how to look at it.

use super::device::{Device, Place};
use super::events::Event;
use super::gc::Gc;
use super::options::{DeviceOptions, Options, validate_devices};
use super::sectors::OpenBuckets;
use crate::bucket::{BucketId, BucketIndex, DeviceIndex, Gen, Prio};
use crate::error::Error;
use crate::geometry::Geometry;
use crate::policy::Policy;
use crate::reserve::{Reserve, Sizes};
use crate::word::{PIN_LIMIT, Snapshot};
use core::fmt;

/// A bucket together with the gen it had: what an index stores. It is valid while the bucket's
/// gen is the same.
///
/// ```
/// use tierce_core::spec::Pointer;
/// use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen};
/// let id = BucketId::new(DeviceIndex::FIRST, BucketIndex::new(5));
/// assert_eq!(Pointer::new(id, Gen::new(3)).to_string(), "0:5@3");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pointer {
    /// The bucket.
    pub bucket: BucketId,
    /// The gen it was made with. (`gen` alone is a keyword.)
    pub gen_: Gen,
}

impl Pointer {
    /// A pointer into `bucket` while it has gen `gen_`.
    #[must_use]
    pub const fn new(bucket: BucketId, gen_: Gen) -> Self {
        Self { bucket, gen_ }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.bucket, self.gen_)
    }
}

/// Up to 8 devices used together: the sequential allocator. Start with the
/// [module's page](super).
///
/// ```
/// use tierce_core::spec::{DeviceOptions, Options, Set};
/// use tierce_core::{DeviceIndex, Geometry, Reserve, Sizes};
/// let g = Geometry::new(1024, 1, 128, 8)?;
/// let device = DeviceOptions::new(g, Sizes::tierce(&g, 8));
/// let mut set = Set::new(Options::default(), vec![device])?;
/// set.start()?;
/// set.step(DeviceIndex::FIRST);
/// let p = set.alloc(Reserve::None).ready().expect("the free lists are full");
/// set.mark_dirty(p.bucket)?; // before the data may be the only copy
/// set.unpin(p.bucket)?; // its pointer is in the index now
/// set.check()?;
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Set {
    pub(super) options: Options,
    pub(super) devices: Vec<Device>,
    /// Buckets that are reclaimable or free, as far as the last GC and the owner's frees say.
    pub(super) available: u64,
    pub(super) min_prio: Prio,
    /// The largest `gc_gen` seen since the last GC.
    pub(super) need_gc: u8,
    /// Sectors left until the next rescale pass.
    pub(super) rescale: i64,
    /// How many index owners hold the prio write back.
    pub(super) prio_blocked: u32,
    /// False from the start of a GC in place, and of a run, until it has finished.
    pub(super) marks_valid: bool,
    pub(super) gc: Option<Gc>,
    /// GCs that have finished, the start-up's own not counted.
    pub(super) gc_finished: u64,
    /// What optimistic readers watch: advances at each finish before marks are published.
    pub(super) gc_epoch: u64,
    pub(super) sectors_since_gc: u64,
    pub(super) open: OpenBuckets,
    pub(super) events: Vec<Event>,
    pub(super) counters: Counters,
}

/// Totals since the set was made.
///
/// ```
/// use tierce_core::spec::{DeviceOptions, Options, Set};
/// use tierce_core::{Geometry, Reserve, Sizes};
/// let g = Geometry::new(1024, 1, 128, 8)?;
/// let device = DeviceOptions::new(g, Sizes::bcache(&g, 8));
/// let mut set = Set::new(Options::default(), vec![device])?;
/// assert!(set.alloc(Reserve::None).ready().is_none(), "nothing was started");
/// assert_eq!(set.counters().alloc_fail_empty_total, 1);
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Counters {
    /// Buckets handed out, by the reserve that was asked for, in the order of [`Reserve::ALL`].
    pub alloc_total: [u64; Reserve::COUNT],
    /// Allocations that found nothing free.
    pub alloc_fail_empty_total: u64,
    /// Allocations refused because too few devices work.
    pub alloc_fail_failed_total: u64,
    /// Buckets invalidated.
    pub invalidate_total: u64,
    /// Prio writes made durable.
    pub prio_write_total: u64,
    /// Buckets found with a foreign pin when they were about to be handed out.
    pub foreign_pin_total: u64,
    /// Reads void because their bucket was reused meanwhile.
    pub read_races_total: u64,
    /// Rescale passes.
    pub rescale_total: u64,
    /// Garbage collections finished, that of the start-up included.
    pub gc_total: u64,
    /// Stale pointers that garbage collections met.
    pub gc_stale_total: u64,
}

/// The set-wide figures of `stats`.
///
/// ```
/// # use tierce_core::spec::{DeviceOptions, Options, Set};
/// # use tierce_core::{Geometry, Sizes};
/// let g = Geometry::new(1024, 1, 128, 8)?;
/// let device = DeviceOptions::new(g, Sizes::bcache(&g, 8));
/// let mut set = Set::new(Options::default(), vec![device])?;
/// set.start()?;
/// assert_eq!((set.gauges().available, set.gauges().in_use_percent), (1023, 0));
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gauges {
    /// Buckets of all devices.
    pub nbuckets: u64,
    /// Buckets that can be handed out or reclaimed.
    pub available: u64,
    /// (nbuckets − available) · 100 / nbuckets.
    pub in_use_percent: u64,
    /// The smallest prio that the last rescale pass left.
    pub min_prio: Prio,
    /// The largest gc_gen since the last GC.
    pub need_gc: u8,
    /// Whether marks may be relied on.
    pub marks_valid: bool,
    /// Sectors of I/O left until the next rescale pass.
    pub rescale_counter: i64,
    /// How many index owners hold the prio write back.
    pub prio_blocked: u32,
}

impl Set {
    /// A set of devices that hold nothing: all gens 0, all marks none and valid. The free lists
    /// are empty until [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if there are not 1 to 8 devices, their bucket or block sizes differ, or
    /// a setting is out of range.
    pub fn new(options: Options, devices: Vec<DeviceOptions>) -> Result<Self, Error> {
        options.validate()?;
        validate_devices(&devices)?;
        Ok(Self {
            open: OpenBuckets::new(options.open_buckets),
            options,
            devices: devices.into_iter().map(Device::new).collect(),
            available: 0,
            min_prio: Prio::OLDEST,
            need_gc: 0,
            rescale: 0,
            prio_blocked: 0,
            marks_valid: true,
            gc: None,
            gc_finished: 0,
            gc_epoch: 0,
            sectors_since_gc: 0,
            events: Vec::new(),
            counters: Counters::default(),
        })
    }
}

/// Looking at it. What takes a [`DeviceIndex`] and returns no `Option` panics if the set has no
/// such device.
impl Set {
    /// Its devices, in order.
    pub fn device_indexes(&self) -> impl ExactSizeIterator<Item = DeviceIndex> + use<> {
        (0..self.devices.len() as u8).map(DeviceIndex::new)
    }

    /// The shape of a device; `None` if the set has no such device.
    #[must_use]
    pub fn geometry(&self, device: DeviceIndex) -> Option<Geometry> {
        self.devices.get(device.as_usize()).map(|d| d.options.geometry)
    }

    /// How much the lists of a device hold.
    #[must_use]
    pub fn sizes(&self, device: DeviceIndex) -> Option<Sizes> {
        self.devices.get(device.as_usize()).map(|d| d.options.sizes)
    }

    /// The state of every bucket of a device, from bucket 0; empty if there is no such device.
    #[must_use]
    pub fn words(&self, device: DeviceIndex) -> &[Snapshot] {
        self.devices.get(device.as_usize()).map_or(&[], |d| &d.words)
    }

    /// The state of one bucket; `None` if it does not exist.
    #[must_use]
    pub fn word(&self, bucket: BucketId) -> Option<Snapshot> {
        self.words(bucket.device()).get(bucket.bucket().as_usize()).copied()
    }

    /// Where a bucket is; `None` if it does not exist.
    #[must_use]
    pub fn place(&self, bucket: BucketId) -> Option<Place> {
        let device = self.devices.get(bucket.device().as_usize())?;
        device.places.get(bucket.bucket().as_usize()).copied()
    }

    /// The gen of a bucket in the newest durable table, `None` if it does not exist.
    #[must_use]
    pub fn durable_gen(&self, bucket: BucketId) -> Option<Gen> {
        let device = self.devices.get(bucket.device().as_usize())?;
        device.durable.get(bucket.bucket().as_usize()).copied()
    }

    /// A free list, oldest first.
    pub fn list(
        &self,
        device: DeviceIndex,
        reserve: Reserve,
    ) -> impl ExactSizeIterator<Item = BucketIndex> {
        self.devices[device.as_usize()].list(reserve).iter().copied()
    }

    /// What waits to become durable, oldest first.
    pub fn free_inc(&self, device: DeviceIndex) -> impl ExactSizeIterator<Item = BucketIndex> {
        self.devices[device.as_usize()].free_inc.iter().copied()
    }

    /// What is ready but found all lists full, first to go first: at most the bucket *in hand*
    /// of the background run, and what was given back.
    pub fn ready(&self, device: DeviceIndex) -> impl ExactSizeIterator<Item = BucketIndex> {
        self.devices[device.as_usize()].ready.iter().copied()
    }

    /// Buckets set aside because of a foreign pin.
    pub fn set_aside(&self, device: DeviceIndex) -> impl ExactSizeIterator<Item = BucketIndex> {
        self.devices[device.as_usize()].set_aside.iter().copied()
    }

    /// The buckets that hold the durable table, head first.
    pub fn prio_chain(&self, device: DeviceIndex) -> impl ExactSizeIterator<Item = BucketIndex> {
        self.devices[device.as_usize()].chain.iter().copied()
    }

    /// Whether no pass is made on this device until a GC has finished (`invalidate_needs_gc`).
    #[must_use]
    pub fn needs_gc(&self, device: DeviceIndex) -> bool {
        self.devices[device.as_usize()].needs_gc > self.gc_finished
    }

    /// The next bucket that FIFO looks at; `nbuckets` before it wraps.
    #[must_use]
    pub fn fifo_next(&self, device: DeviceIndex) -> u32 {
        self.devices[device.as_usize()].fifo_next
    }

    /// Sectors handed out by `alloc_sectors` on a device.
    #[must_use]
    pub fn sectors_written(&self, device: DeviceIndex) -> u64 {
        self.devices[device.as_usize()].sectors_written
    }

    /// Discards asked for on a device.
    #[must_use]
    pub fn discards(&self, device: DeviceIndex) -> u64 {
        self.devices[device.as_usize()].discards
    }

    /// Set-wide figures.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let nbuckets = self.nbuckets();
        Gauges {
            nbuckets,
            available: self.available,
            in_use_percent: (nbuckets - self.available) * 100 / nbuckets,
            min_prio: self.min_prio,
            need_gc: self.need_gc,
            marks_valid: self.marks_valid,
            rescale_counter: self.rescale,
            prio_blocked: self.prio_blocked,
        }
    }

    /// Totals.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What happened since the last call, oldest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.events)
    }

    pub(super) fn nbuckets(&self) -> u64 {
        self.devices.iter().map(|d| u64::from(d.options.geometry.nbuckets())).sum()
    }

    pub(super) fn event(&mut self, event: Event) {
        if self.options.record_events {
            self.events.push(event);
        }
    }
}

/// Control.
impl Set {
    /// Another policy from the next pass on.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the set has no such device.
    pub fn set_policy(&mut self, device: DeviceIndex, policy: Policy) -> Result<(), Error> {
        self.live_or_failed(device)?.set_policy(policy);
        Ok(())
    }

    /// Takes a device out because of `cause`: it hands nothing out any more and reclaims
    /// nothing, and its open buckets are closed. What it holds can still be read, unpinned and
    /// freed. The other devices go on.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the set has no such device.
    pub fn fail_device(&mut self, device: DeviceIndex, cause: &str) -> Result<(), Error> {
        let d = self.live_or_failed(device)?;
        if d.failed.is_none() {
            d.failed = Some(cause.to_owned());
            self.close_slots_of(device);
        }
        Ok(())
    }

    /// Why a device was taken out, if it was.
    #[must_use]
    pub fn failure(&self, device: DeviceIndex) -> Option<&str> {
        self.devices[device.as_usize()].failed.as_deref()
    }

    fn live_or_failed(&mut self, device: DeviceIndex) -> Result<&mut Device, Error> {
        let count = self.devices.len();
        self.devices.get_mut(device.as_usize()).ok_or_else(|| {
            Error::state(format!("device {device}"), format!("{count} devices"), "one of the set")
        })
    }

    /// The bucket's device and index, or an error that names it.
    pub(super) fn locate(&mut self, bucket: BucketId) -> Result<(&mut Device, BucketIndex), Error> {
        let b = bucket.bucket();
        match self.devices.get_mut(bucket.device().as_usize()) {
            Some(d) if b.as_usize() < d.words.len() => Ok((d, b)),
            _ => Err(Error::state(format!("bucket {bucket}"), "none", "a bucket of the set")),
        }
    }

    /// As [`locate`](Self::locate) for pointers, which may say anything.
    pub(super) fn target(&mut self, pointer: Pointer) -> Option<(&mut Device, BucketIndex)> {
        let b = pointer.bucket.bucket();
        let device = self.devices.get_mut(pointer.bucket.device().as_usize())?;
        device.options.geometry.contains(b).then_some((device, b))
    }
}

/// Direct stores, for setting up tests.
impl Set {
    /// Puts a bucket into any state. A gen that this changes counts as durable, as if a prio
    /// write had happened since.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if there is no such bucket, or the state contradicts the place the
    /// bucket is in: unpinned on a list, set aside without a foreign pin, or neither metadata
    /// nor dirty in the prio chain.
    pub fn store(&mut self, bucket: BucketId, word: Snapshot) -> Result<(), Error> {
        let (device, b) = self.locate(bucket)?;
        let what = || format!("storing the state of bucket {bucket}");
        match device.place(b) {
            _ if word.pin_count() > PIN_LIMIT => {
                return Err(Error::state(what(), word.pin_count(), "pin 0xC000 or less"));
            }
            Place::Out => {}
            Place::PrioChain if word.mark().is_reclaimable() => {
                return Err(Error::state(what(), "a reclaimable mark", "metadata or dirty"));
            }
            Place::PrioChain => {}
            Place::SetAside if word.pin_count() < 2 => {
                let pin = format!("pin {}", word.pin_count());
                return Err(Error::state(what(), pin, "pin 2 or more while set aside"));
            }
            _ if word.pin_count() == 0 => {
                return Err(Error::state(what(), "pin 0", "pin 1 or more on a list or open"));
            }
            _ => {}
        }
        if device.word(b).gen_() != word.gen_() {
            device.durable[b.as_usize()] = word.gen_();
        }
        device.store(b, word);
        Ok(())
    }

    /// Says which gen the durable table has for a bucket.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if there is no such bucket.
    pub fn store_durable(&mut self, bucket: BucketId, durable: Gen) -> Result<(), Error> {
        let (device, b) = self.locate(bucket)?;
        device.durable[b.as_usize()] = durable;
        Ok(())
    }

    /// Sets one of the figures that steer a set.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the set has no such device.
    pub fn store_figure(&mut self, device: DeviceIndex, figure: Figure) -> Result<(), Error> {
        let gc_finished = self.gc_finished;
        let d = self.live_or_failed(device)?;
        match figure {
            Figure::FifoNext(next) => d.fifo_next = next,
            Figure::NeedsGc(needs) => d.needs_gc = gc_finished + u64::from(needs),
            Figure::Seed(seed) => d.random = crate::draws::Draws::new(seed),
            Figure::MinPrio(prio) => self.min_prio = prio,
            Figure::Rescale(counter) => self.rescale = counter,
            Figure::NeedGc(need_gc) => self.need_gc = need_gc,
        }
        Ok(())
    }

    /// Empties `free_inc` and unpins what was in it; the gens stay. Returns how many.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the set has no such device.
    pub fn clear_free_inc(&mut self, device: DeviceIndex) -> Result<usize, Error> {
        let d = self.live_or_failed(device)?;
        let buckets = core::mem::take(&mut d.free_inc);
        for &b in &buckets {
            let word = d.word(b);
            d.put_in(b, Place::Out);
            d.store(b, word.with_pin(word.pin_count() - 1));
        }
        Ok(buckets.len())
    }
}

/// A figure that [`Set::store_figure`] sets.
///
/// ```
/// # use tierce_core::spec::{DeviceOptions, Figure, Options, Set};
/// # use tierce_core::{DeviceIndex, Geometry, Sizes};
/// # let g = Geometry::new(1024, 1, 128, 8)?;
/// # let device = DeviceOptions::new(g, Sizes::bcache(&g, 8));
/// # let mut set = Set::new(Options::default(), vec![device])?;
/// set.store_figure(DeviceIndex::FIRST, Figure::FifoNext(99))?;
/// assert_eq!(set.fifo_next(DeviceIndex::FIRST), 99);
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Figure {
    /// The set's `min_prio`.
    MinPrio(Prio),
    /// The set's rescale counter, in sectors.
    Rescale(i64),
    /// The set's `need_gc`.
    NeedGc(u8),
    /// The next bucket that FIFO looks at.
    FifoNext(u32),
    /// Whether the device waits for a GC.
    NeedsGc(bool),
    /// Where the device's random draws go on.
    Seed(u64),
}
