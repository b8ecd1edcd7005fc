//! The operations.

use super::{Disk, Result, Scripted, State, refused, told};
use crate::bucket_ref::BucketRef;
use crate::error::Error;
use crate::gc::{Gc, Marked as Found};
use crate::reclaimer::{Step, WaitFor};
use crate::reserves::Free;
use crate::sectors::{SectorRequest, WritePoint};
use crate::sync::Arc;
use tierce_core::spec::sim::Engine;
use tierce_core::spec::{
    Allocation, Bump, DeviceOptions, Event, Extent, Figure, Gauges, Live, Marked, Options, Pass,
    Place, Pointer, PrioWrite, Slot, Started, Table, Unused, Wait, Write,
};
use tierce_core::word::PIN_LIMIT;
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen, Policy, Prio, Reserve, Snapshot};

fn pointer(bucket: BucketRef) -> Pointer {
    Pointer::new(bucket.id(), bucket.gen_())
}

fn bucket_ref(pointer: Pointer) -> BucketRef {
    BucketRef::new(pointer.bucket, pointer.gen_)
}

/// What an allocation that failed comes to.
fn failed<T>(error: Error) -> Result<Allocation<T>> {
    match error {
        Error::DeviceFailed { .. } | Error::TooFewDevices { .. } => Ok(Allocation::Failed),
        other => Err(told("alloc")(other)),
    }
}

impl Engine for Scripted {
    fn create(options: Options, devices: Vec<DeviceOptions>) -> Result<Self> {
        Self::fresh(options, devices)
    }

    fn after_crash(&self) -> Result<Self> {
        let table = |(device, disk): (&crate::device::Device, &Disk)| {
            let sync = self.allocator().config().sync;
            let words = (0..device.geometry().nbuckets()).map(BucketIndex::new);
            let records = words.zip(&disk.gens).map(|(bucket, &gen_)| match sync {
                true => (device.table().snapshot(bucket).prio(), gen_),
                false => Default::default(),
            });
            let mut table = Table::new(records.collect());
            (table.chain, table.seq) = (disk.chain.clone(), disk.seq);
            table
        };
        let tables = self.allocator().devices().iter().zip(&self.disks).map(table).collect();
        Self::open(self.options.clone(), self.devices.clone(), tables)
    }

    fn start(&mut self) -> Result<Started> {
        self.begin()
    }

    fn observe(&mut self, p: Pointer, sectors: u32, live: Live) -> Result<Marked> {
        let State::Starting(startup) = &mut self.state else {
            return Err(refused("observe", "no start-up", "between open and start"));
        };
        let known = startup.allocator().table_of(bucket_ref(p)).is_some();
        Ok(match startup.observe(bucket_ref(p), sectors, live.mark()) {
            true => Marked::Counted,
            false if known => Marked::Stale,
            false => Marked::OutOfRange,
        })
    }

    fn step(&mut self, device: DeviceIndex) -> Wait {
        loop {
            let Ok(running) = self.running_mut("step") else { return Wait::Gc };
            let reclaimer = &mut running.reclaimers[device.as_usize()];
            let wait = match reclaimer.step() {
                Step::PrioWrite(write) => {
                    self.write(device, write);
                    continue;
                }
                Step::Discard(_) => {
                    reclaimer.discarded();
                    continue;
                }
                Step::Wait(WaitFor::Room) => Wait::Push,
                Step::Wait(WaitFor::Gc) => Wait::Gc,
                Step::Wait(WaitFor::PrioBuckets) => Wait::PrioAlloc,
                Step::Wait(WaitFor::PrioBlock) => Wait::PrioBlocked,
                Step::Ended => Wait::Failed,
            };
            self.drain_events(device);
            return wait;
        }
    }

    fn alloc_on(&mut self, device: DeviceIndex, reserve: Reserve) -> Allocation {
        let Ok(running) = self.running_mut("alloc") else { return Allocation::Empty };
        match running.allocator.try_alloc_on(device, reserve) {
            Ok(Some(allocation)) => {
                let (bucket, home) = allocation.into_parts();
                running.homes.insert(bucket.id(), home);
                Allocation::Ready(pointer(bucket))
            }
            Ok(None) => Allocation::Empty,
            Err(_) => Allocation::Failed,
        }
    }

    fn alloc_set(&mut self, reserve: Reserve, n: usize) -> Result<Allocation<Vec<Pointer>>> {
        let running = self.running_mut("alloc_set")?;
        match running.allocator.try_alloc_set(reserve, n) {
            Ok(Some(copies)) => {
                let parts: Vec<_> = copies.into_iter().map(|copy| copy.into_parts()).collect();
                running.homes.extend(parts.iter().map(|&(bucket, home)| (bucket.id(), home)));
                Ok(Allocation::Ready(parts.iter().map(|&(bucket, _)| pointer(bucket)).collect()))
            }
            Ok(None) => Ok(Allocation::Empty),
            Err(error) => failed(error),
        }
    }

    fn alloc_sectors(&mut self, write: Write) -> Result<Allocation<Extent>> {
        if write.sectors == 0 {
            let wanted = "at least 1".to_owned();
            return Err(tierce_core::Error::Limit { what: "sectors", found: 0, wanted });
        }
        let request = SectorRequest::new(write.sectors)
            .write_point(WritePoint::from(write.write_point))
            .stream(write.inode, write.offset)
            .flash_only(write.flash_only)
            .write_prio(write.write_prio);
        let running = self.running_mut("alloc_sectors")?;
        match running.allocator.try_alloc_sectors(&request) {
            Ok(Some(extent)) => {
                let (bucket, gen_) = (extent.bucket_ref().id(), extent.bucket_ref().gen_());
                let (offset, sectors) = (extent.offset(), extent.sectors());
                // Its pin is returned by number.
                core::mem::forget(extent);
                Ok(Allocation::Ready(Extent { bucket, gen_, offset, sectors }))
            }
            Ok(None) => Ok(Allocation::Empty),
            Err(error) => failed(error),
        }
    }

    fn give_back(&mut self, bucket: BucketId) -> Result<()> {
        let (word, place) = (self.locate(bucket)?, self.place(bucket));
        if place != Place::Out || word.pin_count() != 1 {
            let found = format!("{place:?} with pin {}", word.pin_count());
            return Err(refused(format!("giving back bucket {bucket}"), found, "held, with pin 1"));
        }
        let running = self.running_mut("give_back")?;
        let home = running.homes.get(&bucket).copied().unwrap_or(Reserve::None);
        let device = &running.allocator.devices()[bucket.device().as_usize()];
        device.give_back(Free { bucket: bucket.bucket(), home });
        Ok(())
    }

    fn unused(&mut self, bucket: BucketId) -> Result<Unused> {
        let current = BucketRef::new(bucket, self.locate(bucket)?.gen_());
        let running = self.running_mut("unused")?;
        let unused = match running.allocator.unused(current) {
            crate::Unused::Refused => return Ok(Unused::Refused),
            crate::Unused::Released(reserve) => reserve,
        };
        if let Some(reserve) = unused {
            self.events.push(Event::Released { bucket, reserve });
            return Ok(Unused::Released);
        }
        // The reclaimer was woken, and this is the first that it does.
        running.reclaimers[bucket.device().as_usize()].discard_loose();
        self.drain_events(bucket.device());
        Ok(Unused::Released)
    }

    fn pin(&mut self, pointer: Pointer) -> bool {
        let guard = self.allocator().pin(bucket_ref(pointer));
        let pinned = guard.is_some();
        // It is returned by number.
        core::mem::forget(guard);
        pinned
    }

    fn unpin(&mut self, bucket: BucketId) -> Result<()> {
        let (word, place) = (self.locate(bucket)?, self.place(bucket));
        let own = u16::from(!matches!(place, Place::Out | Place::PrioChain));
        if word.pin_count() <= own {
            let found = format!("{place:?} with pin {}", word.pin_count());
            return Err(refused(format!("unpinning bucket {bucket}"), found, "a pin to return"));
        }
        let running = self.running_mut("unpin")?;
        let device = &running.allocator.devices()[bucket.device().as_usize()];
        device.pin_dropped(device.table().unpin(bucket.bucket(), 1));
        if place == Place::SetAside {
            // The reclaimer was woken, and this is the first that it does.
            running.reclaimers[bucket.device().as_usize()].offer_again();
            self.drain_events(bucket.device());
        }
        Ok(())
    }

    fn touch(&mut self, pointer: Pointer) -> bool {
        let before = self.word(pointer.bucket);
        self.allocator().touch(bucket_ref(pointer));
        self.word(pointer.bucket) != before
    }

    fn mark_dirty(&mut self, bucket: BucketId) -> Result<()> {
        let (word, place) = (self.locate(bucket)?, self.place(bucket));
        if !matches!(place, Place::Out | Place::Open) || word.pin_count() == 0 {
            let found = format!("{place:?} with pin {}", word.pin_count());
            let what = format!("marking bucket {bucket} dirty");
            return Err(refused(what, found, "held, with a pin"));
        }
        self.device(bucket.device()).table().mark_dirty(bucket.bucket());
        Ok(())
    }

    fn free(&mut self, bucket: BucketId) -> Result<()> {
        let word = self.locate(bucket)?;
        if self.place(bucket) == Place::PrioChain {
            let what = format!("freeing bucket {bucket}");
            return Err(refused(what, "in the prio chain", "not in the prio chain"));
        }
        self.allocator().free(BucketRef::new(bucket, word.gen_()));
        Ok(())
    }

    fn bump_gen(&mut self, bucket: BucketId) -> Result<Bump> {
        let (word, place) = (self.locate(bucket)?, self.place(bucket));
        if place == Place::Out {
            match self.allocator().bump_gen(BucketRef::new(bucket, word.gen_())) {
                crate::Bump::Bumped(gen_) => return Ok(Bump::Bumped(gen_)),
                crate::Bump::MustGc => return Ok(Bump::MustGc),
                crate::Bump::Stale => {}
            }
        }
        let what = format!("advancing the gen of bucket {bucket}");
        Err(refused(what, format!("{place:?}"), "with an owner"))
    }

    fn account_io(&mut self, sectors: u64) -> bool {
        let due = self.allocator().ageing().account(sectors);
        if let (true, Some(running)) = (due, self.running()) {
            running.reclaimers[0].age();
        }
        due
    }

    fn gc_begin(&mut self) -> Result<()> {
        let running = self.running_mut("gc_begin")?;
        let begun = Gc::begin(&running.allocator);
        let gc = begun.map_err(|e| refused("gc_begin", e, "none, or gc_abandon first"))?;
        running.gc = Some(gc.suspend());
        Ok(())
    }

    fn gc_mark(&mut self, p: Pointer, sectors: u32, live: Live) -> Result<Marked> {
        let running = self.running_mut("gc_mark")?;
        let Some(suspended) = running.gc.take() else { return Err(not_running("gc_mark")) };
        let gc = Gc::resume(&running.allocator, suspended);
        let found = gc.mark(bucket_ref(p), sectors, live.mark());
        running.gc = Some(gc.suspend());
        Ok(match found {
            Found::Live => Marked::Counted,
            Found::Stale => Marked::Stale,
            Found::OutOfRange => Marked::OutOfRange,
        })
    }

    fn gc_finish(&mut self) -> Result<()> {
        let running = self.running_mut("gc_finish")?;
        let Some(suspended) = running.gc.take() else { return Err(not_running("gc_finish")) };
        Gc::resume(&running.allocator, suspended).finish();
        Ok(())
    }

    fn gc_abandon(&mut self) -> Result<()> {
        let running = self.running_mut("gc_abandon")?;
        let Some(suspended) = running.gc.take() else { return Err(not_running("gc_abandon")) };
        drop(Gc::resume(&running.allocator, suspended));
        Ok(())
    }

    fn moving_candidates(&mut self, device: DeviceIndex) -> Result<Vec<BucketIndex>> {
        let chosen = self.allocator().moving_candidates(device);
        chosen.ok_or_else(|| refused("moving_candidates", "marks invalid", "a finished GC"))
    }

    fn invalidate(&mut self, device: DeviceIndex) -> Pass {
        let Ok(running) = self.running_mut("invalidate") else { return Pass::Refused };
        let pass = running.reclaimers[device.as_usize()].pass_once();
        self.drain_events(device);
        pass
    }

    fn prio_write(&mut self, device: DeviceIndex) -> PrioWrite {
        if self.device(device).check().is_err() {
            return PrioWrite::Failed;
        }
        if !self.allocator().config().sync {
            return PrioWrite::NoSync;
        }
        let Ok(running) = self.running_mut("prio_write") else { return PrioWrite::WouldBlock };
        match running.reclaimers[device.as_usize()].write_now() {
            Step::PrioWrite(write) => PrioWrite::Written { seq: self.write(device, write) },
            Step::Wait(WaitFor::PrioBlock) => PrioWrite::Blocked,
            Step::Wait(_) => PrioWrite::WouldBlock,
            Step::Discard(_) | Step::Ended => PrioWrite::Failed,
        }
    }

    fn prio_block(&mut self) -> u32 {
        self.allocator().prio_blocks().take();
        self.allocator().prio_blocks().holders()
    }

    fn prio_unblock(&mut self) -> Result<u32> {
        if self.allocator().prio_blocks().holders() == 0 {
            return Err(refused("prio_unblock", "nobody", "somebody who blocks"));
        }
        self.allocator().prio_unblock();
        Ok(self.allocator().prio_blocks().holders())
    }

    fn set_policy(&mut self, _device: DeviceIndex, policy: Policy) -> Result<()> {
        if self.devices.len() > 1 {
            return Err(refused("policy", "several devices", "one: the policy is the set's"));
        }
        self.allocator().set_policy(policy);
        self.devices[0].policy = policy;
        Ok(())
    }

    fn fail_device(&mut self, device: DeviceIndex, cause: &str) -> Result<()> {
        let cause: Box<dyn std::error::Error + Send + Sync> = cause.into();
        self.allocator().fail(device, cause.into());
        Ok(())
    }

    fn store(&mut self, bucket: BucketId, word: Snapshot) -> Result<()> {
        let (before, place) = (self.locate(bucket)?, self.place(bucket));
        let what = || format!("storing the state of bucket {bucket}");
        match place {
            _ if word.prio() > Prio::FRESH && word.prio() != Prio::METADATA => {
                return Err(refused(what(), word.prio(), "prio 32768 or less, or 65535"));
            }
            _ if word.pin_count() > PIN_LIMIT => {
                return Err(refused(what(), word.pin_count(), "pin 0xC000 or less"));
            }
            Place::PrioChain if word.mark().is_reclaimable() => {
                return Err(refused(what(), "a reclaimable mark", "metadata or dirty"));
            }
            Place::Out | Place::PrioChain => {}
            _ if word.pin_count() == 0 => {
                return Err(refused(what(), "pin 0", "pin 1 or more on a list or open"));
            }
            _ => {}
        }
        let raw = word.with_pin(word.pin_count() + self.prepaid(bucket));
        self.device(bucket.device()).table().store(bucket.bucket(), raw);
        if before.gen_() != word.gen_() {
            self.store_durable(bucket, word.gen_())?;
        }
        Ok(())
    }

    fn store_durable(&mut self, bucket: BucketId, durable: Gen) -> Result<()> {
        let current = self.locate(bucket)?.gen_();
        let at = bucket.bucket();
        if self.allocator().config().sync {
            self.device(bucket.device()).ahead.lock().settle(at, durable, current);
        }
        self.disks[bucket.device().as_usize()].gens[at.as_usize()] = durable;
        Ok(())
    }

    fn store_figure(&mut self, device: DeviceIndex, figure: Figure) -> Result<()> {
        let running = self.running_mut("set")?;
        let allocator = Arc::clone(&running.allocator);
        let reclaimer = &mut running.reclaimers[device.as_usize()];
        match figure {
            Figure::FifoNext(next) => reclaimer.set_fifo_next(next),
            Figure::NeedsGc(needs) => reclaimer.set_needs_gc(needs),
            Figure::Seed(seed) => reclaimer.set_seed(seed),
            Figure::MinPrio(prio) => allocator.ageing().set(None, Some(prio)),
            Figure::Rescale(left) => allocator.ageing().set(Some(left), None),
            Figure::NeedGc(need_gc) => allocator.gc_state().set_need_gc(need_gc),
        }
        Ok(())
    }

    fn clear_free_inc(&mut self, device: DeviceIndex) -> Result<usize> {
        let running = self.running_mut("clear_inc")?;
        Ok(running.reclaimers[device.as_usize()].clear_free_inc())
    }

    fn word(&self, bucket: BucketId) -> Snapshot {
        self.locate(bucket).unwrap_or_default()
    }

    fn list(&self, device: DeviceIndex, reserve: Reserve) -> Vec<BucketIndex> {
        self.free_list(self.device(device), reserve)
    }

    fn free_inc(&self, device: DeviceIndex) -> Vec<BucketIndex> {
        let reclaimer = self.running().map(|running| &running.reclaimers[device.as_usize()]);
        reclaimer.map(|reclaimer| reclaimer.waiting().collect()).unwrap_or_default()
    }

    fn gauges(&self) -> Gauges {
        let allocator = self.allocator();
        let stats = allocator.stats();
        let nbuckets = stats.devices.iter().map(|d| u64::from(d.nbuckets)).sum::<u64>();
        let available = stats.devices.iter().map(|d| u64::from(d.available)).sum::<u64>();
        Gauges {
            nbuckets,
            available,
            in_use_percent: (nbuckets - available) * 100 / nbuckets,
            min_prio: stats.min_prio,
            need_gc: stats.need_gc as u8,
            marks_valid: self.running().is_some() && allocator.gc_state().marks_valid(),
            rescale_counter: allocator.ageing().left(),
            prio_blocked: stats.prio_blocks,
        }
    }

    fn needs_gc(&self, device: DeviceIndex) -> bool {
        self.running().is_some_and(|running| running.reclaimers[device.as_usize()].needs_gc())
    }

    fn fifo_next(&self, device: DeviceIndex) -> u32 {
        self.running().map_or(0, |running| running.reclaimers[device.as_usize()].fifo_next())
    }

    fn sectors_written(&self, device: DeviceIndex) -> u64 {
        self.allocator().stats().devices[device.as_usize()].sectors_written
    }

    fn discards(&self, device: DeviceIndex) -> u64 {
        self.allocator().stats().devices[device.as_usize()].discard_total
    }

    fn slots(&self) -> Vec<Slot> {
        let slot = |tag: crate::sectors::Tag| {
            let geometry = self.device(tag.bucket.device()).geometry();
            let handed_out = tag.word.off() << geometry.sector_shift();
            let open = tag.word.bucket().is_some();
            Slot {
                bucket: tag.bucket,
                sectors_left: if open { geometry.bucket_sectors() - handed_out } else { 0 },
                write_point: tag.write_point,
                inode: tag.inode,
                next: tag.next,
                flash_only: tag.word.is_flash_only(),
            }
        };
        self.allocator().open_buckets().tags().into_iter().map(slot).collect()
    }

    fn unused_slots(&self) -> usize {
        self.allocator().open_buckets().len() - self.slots().len()
    }

    fn take_events(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.events)
    }

    fn check(&self) -> Result<()> {
        (0..).zip(&self.disks).try_for_each(|(d, _)| self.check_places(DeviceIndex::new(d)))
    }
}

fn not_running(what: &str) -> tierce_core::Error {
    refused(what, "no running GC", "gc_begin first")
}
