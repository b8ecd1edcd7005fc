//! Gens that advance without waiting to become durable: unused buckets, and index nodes that are
//! freed while prio writes are held back.

use super::life::{Life, NODES, NODES_MAX};
use super::model::Entry;
use super::{Kind, Stop};
use crate::pipeline::Worked;
use std::sync::Arc;
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Mark, Reserve};
use tierce_lockfree::{BucketRef, Bump, Unused, WaitFor};

impl Life<'_> {
    /// Buckets into which no durable pointer leads go the short way, whatever the index in memory
    /// holds there.
    pub(super) fn unused(&mut self) {
        for _ in 0..self.world.draws.below(12) {
            let bucket = BucketIndex::new(self.world.draws.below(self.geometry().nbuckets()));
            let id = BucketId::new(DeviceIndex::FIRST, bucket);
            let word = self.allocator.snapshot(id).expect("a bucket of the device");
            let pointer = BucketRef::new(id, word.gen_());
            let leads_there = |entry: &Entry| entry.pointer == pointer;
            let model = &mut self.world.model;
            let is_kept = word.pin_count() > 0
                || matches!(word.mark(), Mark::Dirty | Mark::Metadata)
                || model.durable.values().any(leads_there);
            if is_kept {
                continue;
            }
            model.index.retain(|_, entry| !leads_there(entry));
            if matches!(self.allocator.unused(pointer), Unused::Released(_)) {
                self.world.coverage.add(Kind::Unused);
            }
        }
    }

    /// A node of the index in the place of an older one whose gen advances at once: the older one
    /// must survive every power loss until the new one is durable.
    pub(super) fn replace_node(&mut self) -> Result<(), Stop> {
        let owner = NODES + u64::from(self.world.draws.below(NODES_MAX));
        let Some(&old) = self.world.model.durable.get(&owner) else { return Ok(()) };
        if self.world.model.index.get(&owner) != Some(&old) {
            return Ok(());
        }
        let Some(new) = self.write_apart(owner)? else { return Ok(()) };
        if self.world.model.index.get(&owner) != Some(&old) {
            return Ok(()); // what was reclaimed for the new one took it: it has no place
        }
        let allocator = Arc::clone(&self.allocator);
        let block = allocator.prio_block();
        let Bump::Bumped(gen_) = block.bump_gen(old.pointer) else { return Ok(()) };
        allocator.free(BucketRef::new(old.pointer.id(), gen_));
        self.world.model.index.insert(owner, new);
        self.world.model.replaced = Some(old);
        for _ in 0..self.world.draws.below(40) {
            match self.step()? {
                Worked::Wrote => {
                    let what = "a table became durable although prio writes were held back";
                    return Err(Stop::Wrong(what.into()));
                }
                Worked::Wait(WaitFor::PrioBlock) => {
                    self.world.coverage.add(Kind::PrioBlocked);
                    break;
                }
                _ => {}
            }
        }
        self.commit()?;
        drop(block);
        self.world.coverage.add(Kind::Replace);
        Ok(())
    }

    /// Writes a node that is not in the index yet.
    fn write_apart(&mut self, owner: u64) -> Result<Option<Entry>, Stop> {
        let geometry = self.geometry();
        let mut entry = None;
        self.alloc_or_reclaim(Reserve::Btree, |world, bucket| {
            let stamp = world.model.next_stamp(owner);
            let new = Entry::in_bucket(&bucket, geometry.bucket_sectors(), Mark::Metadata, stamp);
            if world.write_data(&geometry, &new)? {
                entry = Some(new);
                bucket.written();
            }
            Ok(())
        })?;
        Ok(entry)
    }
}
