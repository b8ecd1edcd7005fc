//! Starting: from what a device remembers to a running allocator.
//!
//! Until every pointer that survived has been observed nothing can be invalidated, and nothing
//! can be allocated: the type in your hands is not an [`Allocator`] yet.
//!
//! What is observed is kept in the words themselves, which nobody else looks at yet: mark and
//! sectors of a bucket count if it has a pin, which means here that something was observed. The
//! others are metadata, as all words begin.
//!
//! Gens on the device can lag behind pointers (a bucket may have been handed out under a table
//! that did not survive), so observing a pointer raises its bucket's gen to its own.
//!
//! [`Startup::finish`] publishes the marks and fills `prio` and `btree` at once with buckets in
//! which nothing was observed: no pointer leads into them, so their new gens need not be durable
//! first. Everything else goes the ordinary way.

use crate::ageing::AgeClock;
use crate::allocator::Allocator;
use crate::bucket_ref::BucketRef;
use crate::config::{Config, DeviceTable};
use crate::device::Device;
use crate::error::Error;
use crate::reclaimer::Reclaimer;
use crate::sync::Arc;
use crate::watch::Watches;
use tierce_core::geometry::MAX_DEVICES;
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen, Mark, Prio, Reserve, Snapshot};

/// An allocator that is being told which pointers survived.
///
/// ```
/// # use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen, Geometry, Mark};
/// # use tierce_lockfree::{Allocator, BucketRef, Config, DeviceTable};
/// let geometry = Geometry::new(1024, 1, 128, 1)?;
/// let mut startup = Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?;
/// // For every pointer of the index that was found on the device:
/// let bucket = BucketId::new(DeviceIndex::FIRST, BucketIndex::new(17));
/// let pointer = BucketRef::new(bucket, Gen::new(3));
/// assert!(startup.observe(pointer, 128, Mark::Dirty), "it counts");
/// let (allocator, reclaimers) = startup.finish();
/// assert!(allocator.begin_read().open(pointer).is_some(), "the gen was raised");
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing works before `finish`"]
pub struct Startup {
    allocator: Allocator,
    prio_seqs: Vec<u64>,
}

impl Startup {
    pub(crate) fn new(config: Config, tables: Vec<DeviceTable>) -> Result<Self, Error> {
        if tables.is_empty() || tables.len() > usize::from(MAX_DEVICES) {
            return Err(Error::Devices { found: tables.len() });
        }
        tables.iter().try_for_each(|table| table.sizes.validate(&table.geometry))?;
        Self::with_any_sizes(config, tables)
    }

    /// Whose lists may together hold more than a device has: then a pass cannot fill `free_inc`
    /// while they are full, which nobody wants but who tests it.
    pub(crate) fn with_any_sizes(config: Config, tables: Vec<DeviceTable>) -> Result<Self, Error> {
        config.validate()?;
        for table in &tables {
            table.sizes.validate_each(&table.geometry, config.sync)?;
            table.validate()?;
        }
        let prio_seqs = tables.iter().map(|table| table.prio_seq).collect();
        let watches = Arc::new(Watches::new());
        let clock = Arc::<AgeClock>::default();
        let devices = (0..).zip(tables).map(|(number, table)| {
            let index = DeviceIndex::new(number);
            Device::new(index, table, &config, Arc::clone(&watches), Arc::clone(&clock))
        });
        let devices = devices.collect();
        Ok(Self { allocator: Allocator::new(config, devices, clock), prio_seqs })
    }

    /// Tells that the index holds `pointer` to `sectors` sectors, which are what `kind` says.
    /// Every pointer is observed, metadata first. `false` if it is stale or names no bucket: it
    /// must be dropped from the index.
    pub fn observe(&mut self, pointer: BucketRef, sectors: u32, kind: Mark) -> bool {
        if self.allocator.table_of(pointer).is_none() {
            return false;
        }
        let device = &self.allocator.devices()[pointer.device().as_usize()];
        let units = device.units(sectors);
        let mut word = device.table().snapshot(pointer.bucket());
        // The oldest pointer decides `last_gc`, a stale one too: as long as it may still be in
        // the index, the gen must not run so far ahead that it looks valid again.
        if word.last_gc().is_after(pointer.gen_()) {
            word = word.with_last_gc(pointer.gen_());
            let device = &mut self.allocator.devices_mut()[pointer.device().as_usize()];
            device.table_mut().set_exclusive(pointer.bucket(), word);
        }
        if pointer.gen_().is_stale(word.gen_()) {
            self.allocator.counters().gc_stale.add(1);
            return false;
        }
        if self.allocator.config().sync && pointer.gen_() != word.gen_() {
            self.allocator.devices()[pointer.device().as_usize()]
                .ahead
                .lock()
                .advance(pointer.bucket(), word.gen_());
        }
        let prio = match kind {
            Mark::Metadata => Prio::METADATA,
            _ if word.prio() == Prio::METADATA => Prio::FRESH,
            _ => word.prio(),
        };
        let (mark, before) = observed(word);
        let word = word.with_gen(pointer.gen_()).with_prio(prio).with_pin(1);
        let word = word.with_mark(mark.max(kind)).with_sectors(before.saturating_add(units));
        let device = &mut self.allocator.devices_mut()[pointer.device().as_usize()];
        device.table_mut().set_exclusive(pointer.bucket(), word);
        true
    }

    /// Publishes what was observed and fills the reserves that need no durable gens. One
    /// reclaimer per device, in device order: whoever does the I/O of a device drives its.
    #[must_use = "without its reclaimers an allocator runs dry"]
    pub fn finish(self) -> (Arc<Allocator>, Vec<Reclaimer>) {
        let (allocator, reclaimers) = self.publish();
        for device in allocator.devices() {
            let _released = first_fill(&allocator, device);
        }
        (allocator, reclaimers)
    }

    /// Publishes what was observed, and fills nothing.
    pub(crate) fn publish(mut self) -> (Arc<Allocator>, Vec<Reclaimer>) {
        let mut need_gc = 0;
        for device in self.allocator.devices_mut() {
            need_gc = need_gc.max(publish(device));
        }
        self.allocator.gc_state().note_gc_gen(need_gc);
        self.run()
    }

    /// Without publishing and filling anything: whatever the tables say is free of content.
    pub(crate) fn run(self) -> (Arc<Allocator>, Vec<Reclaimer>) {
        let allocator = Arc::new(self.allocator);
        let reclaimers = (0..).zip(self.prio_seqs).map(|(number, seq)| {
            Reclaimer::new(Arc::clone(&allocator), DeviceIndex::new(number), seq)
        });
        let reclaimers = reclaimers.collect();
        (allocator, reclaimers)
    }

    /// Mark and live units of a bucket, as far as they were observed.
    pub(crate) fn found(&self, bucket: BucketId) -> (Mark, u32) {
        self.allocator.snapshot(bucket).map_or((Mark::None, 0), observed)
    }

    /// The allocator as it is so far.
    pub(crate) fn allocator(&self) -> &Allocator {
        &self.allocator
    }
}

/// Mark and live units of a bucket by its word, as far as they were observed.
fn observed(word: Snapshot) -> (Mark, u32) {
    if word.pin_count() == 0 { (Mark::None, 0) } else { (word.mark(), word.sectors().into()) }
}

/// As at the end of a garbage collection, but nobody else is there yet. Returns the largest
/// gen − last_gc.
fn publish(device: &mut Device) -> u8 {
    let chain = device.chain.lock().live.clone();
    for bucket in chain {
        let word = device.table().snapshot(bucket);
        let word = word.with_mark(Mark::Metadata).with_sectors(observed(word).1).with_pin(1);
        device.table_mut().set_exclusive(bucket, word);
    }
    let (mut available, mut need_gc) = (0, 0);
    for bucket in device.geometry().clone().buckets() {
        let word = device.table().snapshot(bucket);
        let (mark, units) = observed(word);
        let mark = if device.is_journal(bucket) { Mark::Metadata } else { mark };
        let word = word.with_mark(mark).with_sectors(units).with_pin(0);
        device.table_mut().set_exclusive(bucket, word);
        available += u32::from(mark.is_reclaimable());
        need_gc = need_gc.max(word.gc_gen());
    }
    device.available.rebase(device.available.raw(), available);
    need_gc
}

/// Buckets into which nothing points go straight to `prio` and `btree`. If that does not give
/// what one prio write needs, cached data is given up for it: those buckets get records that no
/// reader takes for data, and without them no gen could ever become durable again. Returns what
/// was released, in order.
pub(crate) fn first_fill(allocator: &Allocator, device: &Device) -> Vec<(BucketIndex, Reserve)> {
    let sizes = device.sizes();
    let mut released = Vec::new();
    let in_reserves = |reserves: &[Reserve]| {
        reserves.iter().map(|&reserve| device.reserves().len_hint(reserve)).sum::<usize>()
    };
    let fillable = [Reserve::Prio, Reserve::Btree];
    let room = (sizes.prio + sizes.btree) as usize;
    let mut wanted = room.saturating_sub(in_reserves(&fillable));
    for reused in [false, true] {
        for bucket in device.geometry().buckets() {
            if wanted == 0 {
                break;
            }
            if !reused && device.table().peek(bucket).mark() != Mark::None {
                continue;
            }
            let Some(taken) = device.table().invalidate(bucket) else { continue };
            let before = Gen::new(taken.after.gen_().get().wrapping_sub(1));
            if allocator.config().sync {
                device.ahead.lock().advance(bucket, before);
            }
            allocator.gc_state().note_gc_gen(taken.after.gc_gen());
            let reserve = device.reserves().release(bucket).expect("it has room");
            debug_assert!(fillable.contains(&reserve));
            released.push((bucket, reserve));
            wanted -= 1;
        }
        let needed = device.geometry().prio_buckets() as usize;
        let usable = in_reserves(&[Reserve::None, Reserve::Prio]);
        wanted = if allocator.config().sync { needed.saturating_sub(usable) } else { 0 };
    }
    released
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use tierce_core::Geometry;

    /// A key that is met although it is stale may stay in the index a while longer.
    #[test]
    fn a_stale_pointer_holds_last_gc_back() {
        let geometry = Geometry::new(1024, 1, 128, 1).expect("a legal shape");
        let mut table = DeviceTable::empty(geometry);
        table.gens.set(BucketIndex::new(9), Prio::FRESH, Gen::new(50));
        let mut startup = Allocator::start(Config::default(), vec![table]).expect("legal");
        let id = BucketId::new(DeviceIndex::FIRST, BucketIndex::new(9));
        let observe = |startup: &mut Startup, gen_| {
            startup.observe(BucketRef::new(id, Gen::new(gen_)), 8, Mark::Reclaimable)
        };
        assert!(!observe(&mut startup, 40), "stale");
        assert!(observe(&mut startup, 52), "ahead: it raises the gen");
        let word = startup.allocator.snapshot(id).expect("a bucket");
        assert_eq!((word.gen_(), word.last_gc()), (Gen::new(52), Gen::new(40)));
    }
}
