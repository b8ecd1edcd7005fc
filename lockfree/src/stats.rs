//! Counters and gauges.

use crate::allocator::Allocator;
use crate::counter::Counter;
use crate::device::Device;
use crate::hint::CpuHint;
use crate::latency::Latencies;
use crate::sync::Ordering;
use tierce_core::{Prio, Reserve};

/// What is counted per set.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) read_races: Counter,
    pub(crate) rescales: Counter,
    pub(crate) gc_runs: Counter,
    pub(crate) gc_stale: Counter,
}

impl Counters {
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            read_races: Counter::new(cpus),
            rescales: Counter::new(0),
            gc_runs: Counter::new(0),
            gc_stale: Counter::new(0),
        }
    }
}

/// How threads change the cells of their CPU, in which most buckets are found and put back.
///
/// ```
/// use tierce_lockfree::CellUse;
/// let is_fastest = |cells: CellUse| cells == CellUse::Near;
/// assert!(!is_fastest(CellUse::Exchanges));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum CellUse {
    /// By exchanges: there are no restartable sequences here, or
    /// [`Config::restartable`](crate::Config::restartable) is off.
    Exchanges,
    /// By exchanges for the time being: somebody waits, or took a bucket from another CPU, not long
    /// ago; or they have not been used often enough to make it worth a change.
    Shared,
    /// By stores in restartable sequences.
    Near,
}

/// One device, at about one instant: each number is right by itself.
///
/// ```
/// # use tierce_lockfree::{Allocator, Config, DeviceTable};
/// # use tierce_core::{Geometry, Reserve};
/// # let geometry = Geometry::new(1024, 1, 128, 1)?;
/// # let (allocator, _reclaimers) =
/// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// let stats = allocator.stats();
/// assert_eq!(stats.devices[0].free_of(Reserve::Prio), 1);
/// assert_eq!(stats.devices[0].invalidate_total, 0);
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceStats {
    /// Buckets of the device.
    pub nbuckets: u32,
    /// Buckets on the free lists, in the order of [`Reserve::ALL`].
    pub free: [u64; Reserve::COUNT],
    /// Buckets invalidated and not free yet.
    pub free_inc: u64,
    /// Buckets that could be reused; approximate under load.
    pub available: u32,
    /// (nbuckets − available) · 100 / nbuckets.
    pub in_use_percent: u32,
    /// Successful allocations, in the order of [`Reserve::ALL`].
    pub alloc_total: [u64; Reserve::COUNT],
    /// Allocations that found nothing free and did not want to wait, or waited in vain.
    pub alloc_fail_total: u64,
    /// Allocations that had to wait.
    pub alloc_wait_total: u64,
    /// Buckets found on a free list with somebody else's pin.
    pub foreign_pin_total: u64,
    /// Free buckets that are on no list: pinned by somebody, or waiting for room.
    pub set_aside: u64,
    /// Buckets invalidated.
    pub invalidate_total: u64,
    /// Prio writes that became durable.
    pub prio_write_total: u64,
    /// Discards that ended, well or not.
    pub discard_total: u64,
    /// Buckets that were released without their discard, because free space was short.
    pub discard_skipped_total: u64,
    /// Sectors handed out of open buckets. In buckets of more than 8191 sectors each extent
    /// counts with the whole units that it takes.
    pub sectors_written: u64,
    /// Waiting allocations.
    pub waiters: u64,
    /// How threads change the cells of their CPU now.
    pub cells: CellUse,
    /// How often that began to change or had changed, modulo 2^32: from shared to near it counts 2,
    /// and 2 from near to shared. Each of these takes one system call `membarrier`, seldom more.
    pub cell_changes_total: u32,
    /// How long the waits took that are over, in vain or not.
    pub alloc_wait: Latencies,
    /// From a table of gens being drawn up to its being durable.
    pub prio_write: Latencies,
    /// The passes that chose what to reuse.
    pub pass: Latencies,
}

impl DeviceStats {
    /// Buckets on one free list.
    #[must_use]
    pub fn free_of(&self, reserve: Reserve) -> u64 {
        self.free[reserve.as_usize()]
    }

    fn of(allocator: &Allocator, device: &Device) -> Self {
        let nbuckets = device.geometry().nbuckets();
        let available = device.available.get();
        let counters = &device.counters;
        let in_open = allocator.open_buckets().sectors_in_open(device);
        Self {
            nbuckets,
            free: Reserve::ALL.map(|reserve| device.reserves().len_hint(reserve) as u64),
            // Relaxed: a statistic.
            free_inc: counters.free_inc.load(Ordering::Relaxed) + device.in_stock() as u64,
            available,
            in_use_percent: (nbuckets - available) * 100 / nbuckets,
            alloc_total: Reserve::ALL.map(|r| device.available.allocations(r)),
            alloc_fail_total: counters.alloc_fails.total(),
            alloc_wait_total: counters.alloc_waits.total(),
            foreign_pin_total: counters.foreign_pins.total(),
            set_aside: device.kept(),
            invalidate_total: counters.invalidated.total(),
            prio_write_total: counters.prio_writes.total(),
            discard_total: counters.discards.total(),
            discard_skipped_total: counters.discards_skipped.total(),
            sectors_written: counters.sectors_written.total() + in_open,
            waiters: device.waits.len() as u64,
            cells: device.attention().cell_use(),
            cell_changes_total: device.attention().turns(),
            alloc_wait: counters.wait_times.read(),
            prio_write: counters.write_times.read(),
            pass: counters.pass_times.read(),
        }
    }
}

/// The whole set, at about one instant.
///
/// ```
/// # use tierce_lockfree::{Allocator, Config, DeviceTable};
/// # let geometry = tierce_core::Geometry::new(1024, 1, 128, 1)?;
/// # let (allocator, _reclaimers) =
/// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// assert_eq!(allocator.stats().read_races_total, 0);
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Per device.
    pub devices: Vec<DeviceStats>,
    /// Reads whose bucket was reused meanwhile.
    pub read_races_total: u64,
    /// Rescale passes.
    pub rescale_total: u64,
    /// Garbage collections that finished.
    pub gc_total: u64,
    /// Stale pointers that they met.
    pub gc_stale_total: u64,
    /// Who waits until so many buckets can be had.
    pub watchers: u64,
    /// How many hold prio writes back.
    pub prio_blocks: u32,
    /// The largest gen − last_gc since the last collection.
    pub need_gc: u32,
    /// The smallest prio that the last rescale left.
    pub min_prio: Prio,
    /// By what threads find their copy of per-CPU data.
    pub cpu_hint: CpuHint,
}

impl Stats {
    pub(crate) fn of(allocator: &Allocator) -> Self {
        let (counters, devices) = (allocator.counters(), allocator.devices().iter());
        Self {
            devices: devices.map(|device| DeviceStats::of(allocator, device)).collect(),
            read_races_total: counters.read_races.total(),
            rescale_total: counters.rescales.total(),
            gc_total: counters.gc_runs.total(),
            gc_stale_total: counters.gc_stale.total(),
            watchers: allocator.watches().len() as u64,
            prio_blocks: allocator.prio_blocks().holders(),
            need_gc: allocator.gc_state().need_gc(),
            min_prio: allocator.ageing().min_prio(),
            cpu_hint: CpuHint::chosen(),
        }
    }
}
