//! The beginning of a life: what is on the device is compared with what was acknowledged.

use super::life::Life;
use super::model::{Entry, Seen};
use super::{Kind, Stop, World};
use crate::pipeline::Work;
use crate::sim::CutAt;
use crate::volume::{Owner, Volume};
use std::collections::BTreeSet;
use std::sync::Arc;
use tierce_core::{Gen, Mark};
use tierce_lockfree::{Allocator, Startup};

impl World {
    /// Opens, observes what the durable index holds, and checks every pointer of it.
    pub(super) fn open(&mut self) -> Result<Life<'_>, Stop> {
        let volume = match Volume::open_on(self.sim.clone(), Owner::Allocator) {
            Ok(volume) => volume,
            Err(error) => return Err(self.refused(&error)),
        };
        self.model.used = true;
        self.cut_at_open = false;
        self.check_table(&volume)?;
        self.check_chain(&volume)?;
        let (table, writer) = volume.into_start();
        let mut startup = Allocator::start(self.config.clone(), vec![table])
            .map_err(|error| Stop::Wrong(format!("the allocator does not start: {error}")))?;
        let observed = self.observe(&mut startup);
        let (allocator, mut reclaimers) = startup.finish();
        let mut life = Life::new(self, allocator, Work::new(reclaimers.remove(0), writer));
        life.take_over(&observed)?;
        Ok(life)
    }

    fn refused(&mut self, error: &crate::Error) -> Stop {
        let stop = self.stop("the device is refused", error);
        if self.sim.cut_hit().is_some() {
            let kind = if self.model.used { Kind::RecoveryCut } else { Kind::FirstUseCut };
            self.coverage.add(kind);
            if std::mem::replace(&mut self.cut_at_open, true) {
                self.coverage.add(Kind::TwoCuts);
            }
        }
        stop
    }

    /// Sometimes the power goes while the device is being opened.
    pub(super) fn maybe_cut_open(&mut self) {
        if self.one_in(4) {
            let places = if self.model.used { 2 } else { 20 };
            let after = self.draws.below(places).into();
            self.sim.cut_power(CutAt::Any, after);
        }
    }

    /// Rule 2.
    fn check_table(&mut self, volume: &Volume) -> Result<(), Stop> {
        let found: Vec<Gen> = volume.table().iter().map(|(_, generation)| generation).collect();
        let known = |(seq, gens): &(u64, Vec<Gen>)| *seq == volume.prio_seq() && *gens == found;
        let Some(at) = self.model.tables.iter().position(known) else {
            let seqs: Vec<_> = self.model.tables.iter().map(|(seq, _)| *seq).collect();
            let seq = volume.prio_seq();
            let what = format!("found table {seq}, which is none of {seqs:?} as they were written");
            return Err(Stop::Wrong(what));
        };
        self.coverage.add_many(Kind::UnacknowledgedTable, at as u64);
        self.model.tables = vec![self.model.tables.swap_remove(at)];
        Ok(())
    }

    /// Rule 4, but for the index, whose pointers are read one by one.
    fn check_chain(&self, volume: &Volume) -> Result<(), Stop> {
        let (geometry, chain) = (volume.geometry(), volume.prio_chain());
        let first = geometry.first_bucket().get() + u32::from(volume.superblock().njournal);
        let distinct: BTreeSet<_> = chain.iter().map(|bucket| bucket.get()).collect();
        let lies_well = distinct.iter().all(|bucket| (first..geometry.nbuckets()).contains(bucket));
        let wanted = if volume.prio_seq() == 0 { 0 } else { geometry.prio_buckets() as usize };
        if lies_well && distinct.len() == chain.len() && chain.len() == wanted {
            return Ok(());
        }
        Err(Stop::Wrong(format!("not a prio chain of {wanted} buckets: {chain:?}")))
    }

    /// The durable entries that were not stale, metadata first.
    fn observe(&self, startup: &mut Startup) -> Vec<Entry> {
        let (nodes, data): (Vec<Entry>, Vec<Entry>) =
            self.model.durable.values().partition(|entry| entry.kind == Mark::Metadata);
        let all = nodes.into_iter().chain(data);
        all.filter(|entry| startup.observe(entry.pointer, entry.sectors, entry.kind)).collect()
    }
}

impl Life<'_> {
    /// Rules 1 and 3: what becomes of each durable pointer.
    fn take_over(&mut self, observed: &[Entry]) -> Result<(), Stop> {
        let before = std::mem::take(&mut self.world.model.index);
        let now = self.gens();
        let memory = std::mem::replace(&mut self.world.model.memory, now);
        let replaced = self.world.model.replaced.take();
        for (owner, entry) in self.world.model.durable.clone() {
            let allocator = Arc::clone(&self.allocator);
            if allocator.begin_read().open(entry.pointer).is_some() {
                self.check_accepted(&entry)?;
                self.world.coverage.add(Kind::Accepted);
                self.world.model.index.insert(owner, entry);
                continue;
            }
            let bucket = entry.pointer.bucket();
            let was_invalidated = entry.pointer.gen_().is_stale(memory[bucket.as_usize()]);
            let was_held = entry.kind != Mark::Reclaimable && before.get(&owner) == Some(&entry);
            let is_kept = was_held || replaced == Some(entry);
            if observed.contains(&entry) {
                self.world.model.given_up.insert(bucket.get());
            } else if !was_invalidated {
                return Err(Stop::Wrong(format!("{entry} is stale, but nobody invalidated it")));
            }
            if is_kept {
                let kind = entry.kind;
                return Err(Stop::Wrong(format!("{entry} is {kind:?} and was given up")));
            }
            self.world.coverage.add(Kind::Stale);
        }
        let filled = self.world.model.memory.iter().zip(&self.world.model.tables[0].1);
        let filled = filled.filter(|(now, found)| now != found).count();
        self.world.coverage.add_many(Kind::StartupFill, u64::from(filled > 0));
        Ok(())
    }

    fn check_accepted(&self, entry: &Entry) -> Result<(), Stop> {
        let geometry = self.allocator.geometry(entry.pointer.device());
        let seen = entry.look(&self.world.sim, geometry);
        match seen.map_err(|error| self.world.stop("cannot be read", &error))? {
            Seen::Own => Ok(()),
            Seen::Nothing if self.world.model.given_up.contains(&entry.pointer.bucket().get()) => {
                Ok(())
            }
            Seen::Nothing => Err(Stop::Wrong(format!("{entry} is accepted, but leads to nothing"))),
            Seen::Foreign(stamp) => {
                Err(Stop::Wrong(format!("{entry} is accepted, but reads what is of {stamp}")))
            }
        }
    }
}
