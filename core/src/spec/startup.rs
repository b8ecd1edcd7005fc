//! Starting: from nothing, or from what a device holds after a stop or a crash.
//!
//! 1. [`Set::open`] takes gen and prio of every bucket from the durable table. Marks are not
//!    valid: nothing can be invalidated.
//! 2. The index's owner shows every pointer that its index and its journal hold to
//!    [`Set::observe`]. The gens on the device may lag behind pointers: buckets reused on the
//!    short way, or handed out under a table that did not survive. A pointer *ahead* of its
//!    bucket is therefore valid and raises the gen. It also counts as a garbage collection's
//!    mark.
//! 3. [`Set::start`] finishes that first garbage collection and fills the `prio` and `btree`
//!    reserves with buckets into which nothing points. These need no prio write: there is no
//!    pointer whose gen a crash could bring back.
//!
//! # When nothing is unused
//!
//! A device all of whose buckets hold live data must start too, but has no bucket for its first
//! prio write, and without one nothing can be reused. `start` then refills the prio reserve,
//! only that and only as far as one prio write needs, with buckets that may be thrown away, and
//! *says so* in [`Started::reused`]. These few are about to be overwritten before their new gens
//! are durable, so the crash rule becomes the owner's for them: it holds the prio write back
//! ([`Set::prio_block`]) until it has durably dropped its pointers into them. Nobody else is
//! ever given such a bucket: the prio reserve serves the prio write.

use super::device::{Device, Place};
use super::events::Event;
use super::gc::{Live, Marked};
use super::options::{DeviceOptions, Options};
use super::set::{Pointer, Set};
use crate::bucket::{BucketId, BucketIndex, DeviceIndex, Gen, Mark, Prio};
use crate::error::Error;
use crate::reserve::Reserve;
use crate::word::Snapshot;

/// What the durable table of a device says.
///
/// ```
/// use tierce_core::spec::{DeviceOptions, Options, Set, Table};
/// use tierce_core::{Gen, Geometry, Prio, Sizes};
/// let g = Geometry::new(1024, 1, 128, 8)?;
/// let mut table = Table::new(vec![(Prio::FRESH, Gen::new(7)); 1024]);
/// table.seq = 41;
/// let device = DeviceOptions::new(g, Sizes::bcache(&g, 8));
/// let mut set = Set::open(Options::default(), vec![(device, table)])?;
/// // … observe every pointer …
/// assert!(set.start()?.reused.is_empty());
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Table {
    /// Prio and gen of each bucket, from bucket 0.
    pub records: Vec<(Prio, Gen)>,
    /// The buckets that hold this table, head first.
    pub chain: Vec<BucketIndex>,
    /// The number of the prio write that made it.
    pub seq: u64,
}

impl Table {
    /// A table that no chain holds.
    #[must_use]
    pub fn new(records: Vec<(Prio, Gen)>) -> Self {
        Self { records, chain: Vec::new(), seq: 0 }
    }
}

/// What [`Set::start`] did.
///
/// ```
/// use tierce_core::spec::Started;
/// assert!(Started::default().reused.is_empty(), "nothing to say is the usual case");
/// ```
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
#[must_use = "pointers into the reused buckets have to be dropped durably"]
pub struct Started {
    /// Buckets with live data that the prio reserve had to be refilled with.
    pub reused: Vec<BucketId>,
}

impl Set {
    /// A set of devices that hold something, each with what its durable table says. Nothing can
    /// be allocated until [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// As [`Set::new`]; and [`Error::Limit`] if a table does not have one record per bucket, or
    /// its chain names a bucket that cannot be allocated, is part of the journal, or comes twice.
    pub fn open(options: Options, devices: Vec<(DeviceOptions, Table)>) -> Result<Self, Error> {
        let (devices, tables): (Vec<_>, Vec<_>) = devices.into_iter().unzip();
        let mut set = Self::new(options, devices)?;
        let unmarked = if set.options.invalidate_during_gc { Mark::Metadata } else { Mark::None };
        for (device, table) in set.devices.iter_mut().zip(tables) {
            device.load(table, unmarked)?;
        }
        set.marks_valid = false;
        set.gc_begin_as(true);
        Ok(set)
    }

    /// The set as it is opened again after a power loss: gens are those of the last prio write
    /// (0 where there are none, on a device without `sync`), and everything that was only in
    /// memory is gone. Prios, which a table may show older than they were, are kept.
    ///
    /// # Errors
    ///
    /// None that [`Set::open`] could give for settings that were good before; they are passed on.
    pub fn after_crash(&self) -> Result<Self, Error> {
        let table = |d: &Device| Table {
            records: if d.options.sync {
                d.words.iter().zip(&d.durable).map(|(word, &gen_)| (word.prio(), gen_)).collect()
            } else {
                vec![Default::default(); d.words.len()]
            },
            chain: d.chain.clone(),
            seq: d.prio_seq,
        };
        let devices = self.devices.iter().map(|d| (d.options.clone(), table(d))).collect();
        Self::open(self.options.clone(), devices)
    }

    /// A live key of `sectors` sectors, found in the index or in the journal, before
    /// [`start`](Self::start). Stale ones are skipped, but keep their bucket's last_gc back: as
    /// long as they are in the index, the gen must not run so far ahead that they look valid.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the set is not starting up.
    pub fn observe(&mut self, pointer: Pointer, sectors: u32, live: Live) -> Result<Marked, Error> {
        let word = self.observe_gen(pointer)?;
        let word = match word {
            Ok(word) => word,
            Err(Marked::Stale) => return self.gc_mark(pointer, sectors, live),
            Err(skipped) => return Ok(skipped),
        };
        let prio = match (live, word.prio()) {
            (Live::Metadata, _) => Prio::METADATA,
            (Live::Clean | Live::Dirty, Prio::METADATA) => Prio::FRESH,
            (Live::Clean | Live::Dirty, prio) => prio,
        };
        self.rewrite(pointer.bucket, word.with_gen(pointer.gen_).with_prio(prio));
        self.gc_mark(pointer, sectors, live)
    }

    /// Marks a bucket metadata, and changes nothing else: the bucket of the uuid table, which
    /// the journal names and no key points at.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the set is not starting up.
    pub fn observe_uuids(&mut self, pointer: Pointer) -> Result<Marked, Error> {
        match self.observe_gen(pointer)? {
            Ok(_) | Err(Marked::Stale) => self.gc_mark(pointer, 0, Live::Metadata),
            Err(skipped) => Ok(skipped),
        }
    }

    /// The word of a pointer that is to be observed, or why it is skipped.
    fn observe_gen(&mut self, pointer: Pointer) -> Result<Result<Snapshot, Marked>, Error> {
        if !self.gc.as_ref().is_some_and(|gc| gc.start_up) {
            return Err(Error::state("observe", "no start-up", "between open and start"));
        }
        let Some((device, b)) = self.target(pointer) else { return Ok(Err(Marked::OutOfRange)) };
        let word = device.word(b);
        if pointer.gen_.is_stale(word.gen_()) {
            return Ok(Err(Marked::Stale));
        }
        Ok(Ok(word))
    }

    fn rewrite(&mut self, id: BucketId, word: Snapshot) {
        self.devices[id.device().as_usize()].store(id.bucket(), word);
        if let Some(gc) = &mut self.gc {
            gc.rewrite_start(id, word);
        }
    }

    /// Finishes the start-up: marks become valid, available buckets are counted, and `prio` and
    /// `btree` are filled.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the start-up was abandoned: marks are not valid, a garbage collection
    /// has to come first.
    pub fn start(&mut self) -> Result<Started, Error> {
        if self.gc.is_some() {
            self.gc_finish()?;
        } else if self.marks_valid {
            self.recount();
        } else {
            return Err(Error::state("start", "marks invalid", "marks of a complete walk"));
        }
        let mut started = Started::default();
        for device in self.device_indexes() {
            self.fill(device, &mut started);
        }
        Ok(started)
    }

    fn fill(&mut self, device: DeviceIndex, started: &mut Started) {
        let buckets = self.devices[device.as_usize()].buckets();
        for b in buckets {
            let Some(reserve) = self.has_room(device, &[Reserve::Prio, Reserve::Btree]) else {
                break;
            };
            let word = self.devices[device.as_usize()].word(b);
            if word.can_invalidate() && word.mark() == Mark::None {
                self.release_at_start(device, b, reserve);
            }
        }
        let d = &self.devices[device.as_usize()];
        let mut missing = d.options.geometry.prio_buckets() as usize;
        missing = if d.options.sync { missing.saturating_sub(d.usable(Reserve::Prio)) } else { 0 };
        for b in d.buckets() {
            if missing == 0 {
                break;
            }
            if self.devices[device.as_usize()].word(b).can_invalidate() {
                self.release_at_start(device, b, Reserve::Prio);
                started.reused.push(Self::id(device, b));
                missing -= 1;
            }
        }
    }

    fn has_room(&self, device: DeviceIndex, reserves: &[Reserve]) -> Option<Reserve> {
        let d = &self.devices[device.as_usize()];
        reserves.iter().copied().find(|&r| d.list(r).len() < d.options.sizes.of(r) as usize)
    }

    fn release_at_start(&mut self, device: DeviceIndex, b: BucketIndex, reserve: Reserve) {
        self.advance(device, b);
        self.devices[device.as_usize()].append(b, reserve);
        self.event(Event::Released { bucket: Self::id(device, b), reserve });
    }
}

impl Device {
    /// Takes gens, prios and the chain over from the durable table.
    fn load(&mut self, table: Table, mark: Mark) -> Result<(), Error> {
        if table.records.len() != self.words.len() {
            let wanted = format!("{}, one per bucket", self.words.len());
            return Err(Error::limit("table records", table.records.len() as u64, wanted));
        }
        for (b, (prio, gen_)) in table.records.into_iter().enumerate() {
            let word = Snapshot::default().with_prio(prio).with_gen(gen_).with_last_gc(gen_);
            let usable = self.options.geometry.contains(BucketIndex::new(b as u32));
            self.words[b] = if usable { word.with_mark(mark) } else { word };
            self.durable[b] = gen_;
        }
        let journal_end = self.options.geometry.first_bucket().get() + self.options.journal_buckets;
        for &b in &table.chain {
            let usable = b.get() >= journal_end && self.options.geometry.contains(b);
            if !usable || self.place(b) != Place::Out {
                let last = self.options.geometry.nbuckets() - 1;
                let wanted = format!("{journal_end} to {last}, each once");
                return Err(Error::limit("bucket of the prio chain", b.get(), wanted));
            }
            self.put_in(b, Place::PrioChain);
        }
        self.chain = table.chain;
        self.prio_seq = table.seq;
        Ok(())
    }
}
