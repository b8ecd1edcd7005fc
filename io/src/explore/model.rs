//! What an owner of an index knows: which pointers he has, which of them are durable, and what
//! was acknowledged to him.
//!
//! # Rules
//!
//! 1. An entry becomes durable by a commit, after the flush that made its data durable; the
//!    whole index does so at once.
//! 2. `tables` are the tables of gens that may be found after a power loss: the acknowledged one
//!    and, while one is being published, that.
//! 3. `memory` are the gens that the allocator had when the power went: a durable pointer may
//!    be stale only if its bucket's was.

use crate::sim::Sim;
use crate::{DeviceExt, Error};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tierce_core::geometry::SECTOR_BYTES;
use tierce_core::{Gen, Geometry, Mark};
use tierce_lockfree::{Allocation, BucketRef};

const SECTOR: usize = SECTOR_BYTES as usize;
const MAGIC: &[u8; 8] = b"explored";

/// Whose data it is; in every sector of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    pub(super) owner: u64,
    pub(super) version: u64,
    pub(super) write: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner {} version {} write {}", self.owner, self.version, self.write)
    }
}

impl Stamp {
    /// The content of the sector with this number.
    fn sector(self, number: u64) -> [u8; SECTOR] {
        let mut sector = [self.write as u8; SECTOR];
        let words = [self.owner, self.version, self.write, number];
        sector[..8].copy_from_slice(MAGIC);
        for (word, place) in words.iter().zip(sector[8..40].chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        sector
    }

    /// Content of so many sectors.
    pub(super) fn content(self, sectors: u32) -> Vec<u8> {
        let mut content = Vec::with_capacity(sectors as usize * SECTOR);
        (0..u64::from(sectors)).for_each(|number| content.extend(&self.sector(number)));
        content
    }

    /// What the stamp of a sector says, if it has one.
    fn of(sector: &[u8]) -> Option<Self> {
        let word = |at: usize| sector[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        if sector[..8] != *MAGIC {
            return None;
        }
        Some(Self { owner: word(8)?, version: word(16)?, write: word(24)? })
    }
}

/// A pointer of the index and what it leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) pointer: BucketRef,
    /// In sectors from the start of the bucket.
    pub(super) offset: u32,
    pub(super) sectors: u32,
    pub(super) kind: Mark,
    pub(super) stamp: Stamp,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bucket, generation) = (self.pointer.bucket(), self.pointer.gen_().get());
        write!(f, "the pointer to bucket {bucket} gen {generation} of {}", self.stamp)
    }
}

/// What reading an entry gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    Own,
    Foreign(Stamp),
    Nothing,
}

impl Entry {
    /// The entry that leads to the first sectors of a bucket.
    pub(super) fn in_bucket(
        bucket: &Allocation<'_>,
        sectors: u32,
        kind: Mark,
        stamp: Stamp,
    ) -> Self {
        Self { pointer: bucket.bucket_ref(), offset: 0, sectors, kind, stamp }
    }

    pub(super) fn first_byte(&self, geometry: &Geometry) -> u64 {
        let sector = geometry.first_sector(self.pointer.bucket()) + u64::from(self.offset);
        sector * SECTOR as u64
    }

    pub(super) fn look(&self, sim: &Sim, geometry: &Geometry) -> Result<Seen, Error> {
        let data = sim.read_at(self.first_byte(geometry), self.sectors as usize * SECTOR)?;
        let content = self.stamp.content(self.sectors);
        let wrong = data.chunks(SECTOR).zip(content.chunks(SECTOR)).find(|(a, b)| a != b);
        Ok(match wrong.map(|(found, _)| Stamp::of(found)) {
            None => Seen::Own,
            Some(Some(stamp)) => Seen::Foreign(stamp),
            Some(None) => Seen::Nothing,
        })
    }
}

#[derive(Debug)]
pub(super) struct Model {
    /// The index in memory, by owner.
    pub(super) index: BTreeMap<u64, Entry>,
    /// The index on the device.
    pub(super) durable: BTreeMap<u64, Entry>,
    /// By rule 2, each with the number of its prio write.
    pub(super) tables: Vec<(u64, Vec<Gen>)>,
    /// By rule 3.
    pub(super) memory: Vec<Gen>,
    /// A durable node that was freed while prio writes are held back, until what is in its place is
    /// durable.
    pub(super) replaced: Option<Entry>,
    /// Buckets that start-up took although cached data was in them, because nothing else was
    /// left: their data may be gone, but not replaced by somebody else's.
    pub(super) given_up: BTreeSet<u32>,
    /// Whether the device was ever open.
    pub(super) used: bool,
    writes: u64,
}

impl Model {
    pub(super) fn new(nbuckets: usize) -> Self {
        let zeros = vec![Gen::new(0); nbuckets];
        Self {
            index: BTreeMap::new(),
            durable: BTreeMap::new(),
            tables: vec![(0, zeros.clone())],
            memory: zeros,
            replaced: None,
            given_up: BTreeSet::new(),
            used: false,
            writes: 0,
        }
    }

    /// The stamp of a new version of what `owner` has.
    pub(super) fn next_stamp(&mut self, owner: u64) -> Stamp {
        self.writes += 1;
        let version = self.index.get(&owner).map_or(1, |entry| entry.stamp.version + 1);
        Stamp { owner, version, write: self.writes }
    }

    /// The same version, written once more.
    pub(super) fn restamp(&mut self, stamp: Stamp) -> Stamp {
        self.writes += 1;
        Stamp { write: self.writes, ..stamp }
    }

    /// Every entry's data was flushed.
    pub(super) fn commit(&mut self) {
        self.durable.clone_from(&self.index);
        self.replaced = None;
    }

    /// A table became durable.
    pub(super) fn acknowledge(&mut self, gens: Vec<Gen>) {
        let seq = self.tables[0].0 + 1;
        self.tables = vec![(seq, gens)];
    }

    /// A table may or may not have become durable.
    pub(super) fn may_have(&mut self, gens: Vec<Gen>) {
        let seq = self.tables[0].0 + 1;
        self.tables.truncate(1);
        self.tables.push((seq, gens));
    }
}
