//! A life: random operations on an open device until the power goes.

use super::model::{Entry, Seen};
use super::{Kind, Stop, World};
use crate::device::{DeviceExt, Operation};
use crate::pipeline::{Work, Worked};
use crate::sim::{CutAt, Fault, FaultKind};
use std::sync::Arc;
use tierce_core::{BucketId, DeviceIndex, Gen, Geometry, Mark, Reserve};
use tierce_lockfree::{Allocation, Allocator, Marked, SectorRequest, WaitFor, WritePoint};

/// Owners from here on have index nodes.
pub(super) const NODES: u64 = 1 << 32;
/// Index nodes at a time.
pub(super) const NODES_MAX: u32 = 8;
/// Steps of the pipeline within which a bucket must become free.
const STEPS_MAX: u32 = 2000;

#[derive(Debug)]
pub(super) struct Life<'w> {
    pub(super) world: &'w mut World,
    pub(super) allocator: Arc<Allocator>,
    work: Work,
}

impl World {
    /// Opens, works, and ends with a power cut at the latest when the operations are used up.
    pub(super) fn live(&mut self) -> Result<(), Stop> {
        self.maybe_cut_open();
        let operations = 50 + self.draws.below(150);
        let mut life = self.open()?;
        life.start_up()?;
        life.world.plan_trouble();
        for _ in 0..operations {
            if life.world.left == 0 {
                break;
            }
            life.world.left -= 1;
            life.operation()?;
        }
        Ok(())
    }

    /// Where the power goes, and sometimes what fails before.
    fn plan_trouble(&mut self) {
        let (at, places) = match self.draws.below(6) {
            0 => (CutAt::Write, 200),
            1 => (CutAt::DurableWrite, 6),
            2 => (CutAt::Flush, 12),
            3 => (CutAt::Discard, 80),
            _ => (CutAt::Any, 500),
        };
        let after = self.draws.below(places).into();
        self.sim.cut_power(at, after);
        if !self.one_in(6) {
            return;
        }
        self.faulty = true;
        let (operation, places) = match self.draws.below(3) {
            0 => (Operation::Write, 60),
            1 => (Operation::Flush, 6),
            _ => (Operation::Discard, 40),
        };
        let kind = match self.draws.below(3) {
            0 => FaultKind::Io,
            1 => FaultKind::NoSpace,
            _ if operation == Operation::Write => FaultKind::Short,
            _ => FaultKind::Io,
        };
        let after = self.draws.below(places).into();
        self.sim.inject(Fault::new(kind, operation, after));
    }
}

impl Drop for Life<'_> {
    /// The gens outlive it: they say which pointers may be stale.
    fn drop(&mut self) {
        self.world.model.memory = self.gens();
    }
}

impl<'w> Life<'w> {
    pub(super) fn new(world: &'w mut World, allocator: Arc<Allocator>, work: Work) -> Self {
        Self { world, allocator, work }
    }

    /// The gens in memory.
    pub(super) fn gens(&self) -> Vec<Gen> {
        let buckets = 0..self.geometry().nbuckets();
        let word = |bucket| {
            let id = BucketId::new(DeviceIndex::FIRST, tierce_core::BucketIndex::new(bucket));
            self.allocator.snapshot(id).expect("a bucket of the device").gen_()
        };
        buckets.map(word).collect()
    }

    pub(super) fn geometry(&self) -> Geometry {
        *self.allocator.geometry(DeviceIndex::FIRST)
    }

    /// Sometimes the power goes before the first bucket can be had.
    fn start_up(&mut self) -> Result<(), Stop> {
        if self.world.one_in(6) {
            let after = self.world.draws.below(4).into();
            self.world.sim.cut_power(CutAt::Any, after);
        } else {
            self.world.sim.keep_power();
        }
        let usable = self.prove_usable();
        if self.world.sim.cut_hit().is_some() {
            self.world.coverage.add(Kind::StartupCut);
        }
        usable
    }

    /// Rule 5: a bucket can be had.
    pub(super) fn prove_usable(&mut self) -> Result<(), Stop> {
        self.alloc_or_reclaim(Reserve::None, |life, bucket| {
            drop(bucket);
            life.coverage.add(Kind::GiveBack);
            Ok(())
        })
    }

    /// Uses a bucket as soon as one is free.
    pub(super) fn alloc_or_reclaim(
        &mut self,
        reserve: Reserve,
        use_it: impl FnOnce(&mut World, Allocation<'_>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let allocator = Arc::clone(&self.allocator);
        for _ in 0..STEPS_MAX {
            if let Some(bucket) = self.taken(allocator.try_alloc(reserve))? {
                return use_it(self.world, bucket);
            }
            let _: Worked = self.step()?;
        }
        Err(Stop::Wrong(format!("no bucket for {reserve} after {STEPS_MAX} steps")))
    }

    fn taken<T>(&self, result: Result<T, tierce_lockfree::Error>) -> Result<T, Stop> {
        result.map_err(|error| self.world.stop("an allocation fails", &error))
    }

    /// A step of the pipeline, and a collection if it waits for one.
    pub(super) fn step(&mut self) -> Result<Worked, Stop> {
        let invalidated = self.allocator.stats().devices[0].invalidate_total;
        let discarded = self.work.stats().discard_total;
        let worked = self.work.step();
        let stats = &self.allocator.stats().devices[0];
        let count = stats.invalidate_total - invalidated;
        self.world.coverage.add_many(Kind::Invalidate, count);
        let discarded = self.work.stats().discard_total - discarded;
        self.world.coverage.add_many(Kind::Discard, discarded);
        match worked {
            Ok(Worked::Wrote) => {
                let gens = self.gens();
                self.world.model.acknowledge(gens);
                self.world.coverage.add(Kind::PrioWrite);
            }
            Ok(Worked::Wait(WaitFor::Gc)) => self.collect(),
            Ok(_) => {}
            Err(error) => return Err(self.failed(&error)),
        }
        if self.world.sim.cut_hit() == Some(CutAt::Discard) {
            // It costs nothing but the discard, so the pipeline does not stop by itself.
            self.world.coverage.add(Kind::DiscardCut);
            return Err(Stop::Dead);
        }
        worked.map_err(|error| self.world.stop("the pipeline fails", &error))
    }

    /// Rule 7.
    fn failed(&mut self, error: &crate::Error) -> Stop {
        let gens = self.gens();
        self.world.model.may_have(gens);
        self.count_cut(CutAt::Write, Kind::SetCut);
        self.count_cut(CutAt::Flush, Kind::JournalFlushCut);
        self.count_cut(CutAt::DurableWrite, Kind::EntryCut);
        self.world.coverage.add(Kind::Failed);
        if !matches!(self.work.step(), Ok(Worked::Ended)) {
            return Stop::Wrong("the pipeline goes on after the device failed".into());
        }
        let refused = self.allocator.try_alloc(Reserve::None);
        if !matches!(refused, Err(tierce_lockfree::Error::DeviceFailed { .. })) {
            return Stop::Wrong("a failed device still hands out buckets".into());
        }
        self.world.stop("the pipeline fails", error)
    }

    /// Counts the power cut if it hit just this.
    fn count_cut(&mut self, at: CutAt, kind: Kind) {
        if self.world.sim.cut_hit() == Some(at) {
            self.world.coverage.add(kind);
        }
    }

    /// One random operation.
    fn operation(&mut self) -> Result<(), Stop> {
        match self.world.draws.below(100) {
            0..30 => self.write_extent(),
            30..36 => self.fill(),
            36..42 => self.write_node(),
            42..46 => self.move_entry(),
            46..52 => self.read(),
            52..58 => {
                self.delete();
                Ok(())
            }
            58..66 => self.commit(),
            66..69 => {
                self.collect_or_abandon();
                Ok(())
            }
            69..72 => self.give_back(),
            72..75 => {
                self.unused();
                Ok(())
            }
            75..80 => self.replace_node(),
            _ => (0..=self.world.draws.below(20)).try_for_each(|_| self.step().map(drop)),
        }
    }

    /// Some data of a new or known owner, sometimes the only copy of it.
    fn write_extent(&mut self) -> Result<(), Stop> {
        let allocator = Arc::clone(&self.allocator);
        let blocks = self.geometry().bucket_sectors() / self.geometry().block_sectors();
        let sectors = (1 + self.world.draws.below(blocks)) * self.geometry().block_sectors();
        let point = WritePoint::new(self.world.draws.below(3));
        let request = SectorRequest::new(sectors).write_point(point);
        let Some(extent) = self.taken(allocator.try_alloc_sectors(&request))? else {
            return self.step().map(drop);
        };
        let owner = self.world.draws.below(self.geometry().nbuckets()).into();
        let dirty = self.world.model.index.values().filter(|entry| entry.kind == Mark::Dirty);
        let may_be_dirty = dirty.count() < self.geometry().nbuckets() as usize / 16;
        let kind = if may_be_dirty && self.world.one_in(4) {
            extent.mark_dirty();
            self.world.coverage.add(Kind::Dirty);
            Mark::Dirty
        } else {
            Mark::Reclaimable
        };
        let (pointer, offset, sectors) = (extent.bucket_ref(), extent.offset(), extent.sectors());
        let stamp = self.world.model.next_stamp(owner);
        let entry = Entry { pointer, offset, sectors, kind, stamp };
        self.world.write(&self.geometry(), &entry, Kind::Write)?;
        allocator.account_io(sectors);
        drop(extent);
        Ok(())
    }

    /// Many buckets at once, a block in each: what makes a device full.
    fn fill(&mut self) -> Result<(), Stop> {
        let geometry = self.geometry();
        for _ in 0..self.world.draws.below(60) {
            let owner = self.world.draws.below(geometry.nbuckets()).into();
            self.alloc_or_reclaim(Reserve::None, |world, bucket| {
                let stamp = world.model.next_stamp(owner);
                let entry =
                    Entry::in_bucket(&bucket, geometry.block_sectors(), Mark::Reclaimable, stamp);
                world.write(&geometry, &entry, Kind::Fill)?;
                bucket.written();
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A node of the index, in the place of an older one, which is freed.
    fn write_node(&mut self) -> Result<(), Stop> {
        let geometry = self.geometry();
        let owner = NODES + u64::from(self.world.draws.below(NODES_MAX));
        let old = self.world.model.index.get(&owner).copied();
        self.alloc_or_reclaim(Reserve::Btree, |world, bucket| {
            let stamp = world.model.next_stamp(owner);
            let entry = Entry::in_bucket(&bucket, geometry.bucket_sectors(), Mark::Metadata, stamp);
            world.write(&geometry, &entry, Kind::Node)?;
            bucket.written();
            Ok(())
        })?;
        let replaced = old.filter(|old| self.world.model.index.get(&owner) != Some(old));
        if let Some(old) = replaced {
            self.allocator.free(old.pointer);
            self.world.coverage.add(Kind::Free);
        }
        Ok(())
    }

    /// What moving GC does: the same data in another bucket.
    fn move_entry(&mut self) -> Result<(), Stop> {
        let geometry = self.geometry();
        let Some(old) = self.some_entry().filter(|entry| entry.kind == Mark::Reclaimable) else {
            return Ok(());
        };
        self.alloc_or_reclaim(Reserve::MovingGc, |world, bucket| {
            // Reclaiming may have taken its bucket meanwhile, so it is written as new.
            let stamp = world.model.restamp(old.stamp);
            let entry = Entry::in_bucket(&bucket, old.sectors, Mark::Reclaimable, stamp);
            world.write(&geometry, &entry, Kind::Move)?;
            bucket.written();
            Ok(())
        })
    }

    /// A bucket that is written to, but no pointer to it is ever inserted.
    fn give_back(&mut self) -> Result<(), Stop> {
        let geometry = self.geometry();
        self.alloc_or_reclaim(Reserve::None, |world, bucket| {
            let stamp = world.model.next_stamp(u64::MAX);
            let entry = Entry::in_bucket(&bucket, geometry.block_sectors(), Mark::None, stamp);
            world.coverage.add(Kind::GiveBack);
            world.write_data(&geometry, &entry).map(drop)
        })
    }

    fn some_entry(&mut self) -> Option<Entry> {
        let count = u32::try_from(self.world.model.index.len()).expect("far fewer entries");
        let nth = self.world.draws.below(count) as usize;
        self.world.model.index.values().nth(nth).copied()
    }

    /// Rule 1, without a power loss.
    fn read(&mut self) -> Result<(), Stop> {
        let Some(entry) = self.some_entry() else { return Ok(()) };
        let Some(open) = self.allocator.begin_read().open(entry.pointer) else { return Ok(()) };
        let seen = entry.look(&self.world.sim, &self.geometry());
        let seen = seen.map_err(|error| self.world.stop("cannot be read", &error))?;
        let given_up = self.world.model.given_up.contains(&entry.pointer.bucket().get());
        if open.validate() && seen != Seen::Own && !(given_up && seen == Seen::Nothing) {
            return Err(Stop::Wrong(format!("{entry} is accepted, but reads {seen:?}")));
        }
        self.world.coverage.add(Kind::Read);
        Ok(())
    }

    fn delete(&mut self) {
        let Some(entry) = self.some_entry().filter(|entry| entry.kind != Mark::Metadata) else {
            return;
        };
        self.world.model.index.remove(&entry.stamp.owner);
        self.world.coverage.add(Kind::Delete);
    }

    /// The index becomes durable, after its data.
    pub(super) fn commit(&mut self) -> Result<(), Stop> {
        let flushed = self.world.sim.flush();
        self.count_cut(CutAt::Flush, Kind::CommitCut);
        flushed.map_err(|error| {
            self.world.coverage.add(Kind::Fault);
            self.world.stop("the index cannot be flushed", &error)
        })?;
        self.world.model.commit();
        self.world.coverage.add(Kind::Commit);
        Ok(())
    }

    fn collect_or_abandon(&mut self) {
        if self.world.one_in(4) {
            let gc = self.allocator.begin_gc().expect("no other is running");
            if let Some(entry) = self.world.model.index.values().next() {
                let _: Marked = gc.mark(entry.pointer, entry.sectors, entry.kind);
            }
            drop(gc);
            self.world.coverage.add(Kind::GcAbandoned);
        } else {
            self.collect();
        }
    }

    fn collect(&mut self) {
        let gc = self.allocator.begin_gc().expect("no other is running");
        self.world
            .model
            .index
            .retain(|_, entry| gc.mark(entry.pointer, entry.sectors, entry.kind) == Marked::Live);
        gc.finish();
        self.world.coverage.add(Kind::Gc);
    }
}

impl World {
    /// Writes what an entry leads to and inserts it; a write that fails leaves the index as it
    /// was.
    fn write(&mut self, geometry: &Geometry, entry: &Entry, kind: Kind) -> Result<(), Stop> {
        if self.write_data(geometry, entry)? {
            self.model.index.insert(entry.stamp.owner, *entry);
            self.coverage.add(kind);
        }
        Ok(())
    }

    /// Writes what an entry leads to. `false` if it failed because a fault was injected.
    pub(super) fn write_data(&mut self, geometry: &Geometry, entry: &Entry) -> Result<bool, Stop> {
        let data = entry.stamp.content(entry.sectors);
        let written = self.sim.write_at(entry.first_byte(geometry), &data);
        let Err(error) = written else { return Ok(true) };
        if self.sim.cut_hit() == Some(CutAt::Write) {
            self.coverage.add(Kind::DataCut);
        } else if self.faulty {
            self.coverage.add(Kind::Fault);
            return Ok(false);
        }
        Err(self.stop("data cannot be written", &error))
    }
}
