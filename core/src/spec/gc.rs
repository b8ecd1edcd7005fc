//! Garbage collection: learning what still lives in each bucket.
//!
//! The index's owner drives it: [`gc_begin`](Set::gc_begin), [`gc_mark`](Set::gc_mark) for every
//! live key, [`gc_finish`](Set::gc_finish). Nothing is moved or deleted; the result is a mark and
//! a count of live sectors per bucket, and `last_gc`, the oldest gen of any pointer seen, which
//! lets the gens advance further.
//!
//! | | in place | shadow marks |
//! |---|---|---|
//! | begin | marks become invalid; last_gc = gen; unpinned: mark none, sectors 0 | remembers each word; words stay as they are |
//! | meanwhile | no invalidation | invalidation goes on |
//! | mark | in the word | in `{start word, mark, sectors, oldest}` |
//! | finish | marks become valid | one store per bucket ([`Snapshot::gc_publish`]) |
//! | abandon | marks stay invalid until a later one finishes | nothing has changed |
//! | pinned at begin | keeps mark and sectors, live keys are added on top | keeps mark and sectors |
//! | invalidated since begin | cannot happen | keeps mark and sectors |
//! | recycled from the old prio chain since begin | keeps mark and sectors | keeps mark and sectors |
//!
//! With shadow marks, a bucket that was pinned at the beginning or reused since keeps its mark
//! because the walk may have missed keys inserted behind it. It must then be that a writer
//! inserts its key *before* it unpins, and the words are remembered *before* the walk begins.
//!
//! Marking is the same whatever the order of the keys: a bucket ends with the highest mark of
//! its keys (metadata over dirty over reclaimable), so many threads may mark at once.
//!
//! What the owner owes: a key that lives during the whole walk is shown at least once; stale
//! keys that it meets are removed, or `last_gc` stays back and the bucket is lost to reuse when
//! its gen is 96 ahead.

use super::device::Device;
use super::set::{Pointer, Set};
use crate::bucket::{BucketId, BucketIndex, DeviceIndex, Gen, Mark};
use crate::error::Error;
use crate::reserve::Reserve;
use crate::word::{SECTORS_MAX, Snapshot};

/// What a live key says about its bucket.
///
/// ```
/// use tierce_core::Mark;
/// use tierce_core::spec::Live;
/// assert_eq!(Live::Clean.mark(), Mark::Reclaimable);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Live {
    /// Cached data that exists elsewhere too.
    Clean,
    /// The only copy of something.
    Dirty,
    /// An index node.
    Metadata,
}

impl Live {
    /// The mark that the bucket has at least.
    #[must_use]
    pub const fn mark(self) -> Mark {
        match self {
            Self::Clean => Mark::Reclaimable,
            Self::Dirty => Mark::Dirty,
            Self::Metadata => Mark::Metadata,
        }
    }
}

/// What became of a key shown to garbage collection or start-up.
///
/// ```
/// use tierce_core::spec::Marked;
/// assert_ne!(Marked::Counted, Marked::Stale);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marked {
    /// It counts.
    Counted,
    /// Its bucket was reused; the owner should remove it.
    Stale,
    /// It points at nothing that can be allocated.
    OutOfRange,
}

/// A garbage collection under way.
#[derive(Clone, Debug)]
pub(super) struct Gc {
    /// That of the start-up, which may raise gens.
    pub(super) start_up: bool,
    /// Per device and bucket; `None` when marking in place.
    shadows: Option<Vec<Vec<Shadow>>>,
}

/// What the walk found out about a bucket so far.
#[derive(Clone, Copy, Debug)]
struct Shadow {
    start: Snapshot,
    mark: Mark,
    sectors: u16,
    oldest: Gen,
}

impl Shadow {
    fn new(start: Snapshot) -> Self {
        Self { start, mark: Mark::None, sectors: 0, oldest: start.gen_() }
    }
}

impl Set {
    /// Begins a garbage collection.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if one is running.
    pub fn gc_begin(&mut self) -> Result<(), Error> {
        if self.gc.is_some() {
            return Err(Error::state("gc_begin", "a running GC", "none, or gc_abandon first"));
        }
        self.gc_begin_as(false);
        Ok(())
    }

    pub(super) fn gc_begin_as(&mut self, start_up: bool) {
        let shadows = if self.options.invalidate_during_gc {
            let shadow = |d: &Device| d.words.iter().map(|&w| Shadow::new(w)).collect();
            Some(self.devices.iter().map(shadow).collect())
        } else {
            self.marks_valid = false;
            self.devices.iter_mut().for_each(Device::clear_marks);
            None
        };
        self.gc = Some(Gc { start_up, shadows });
    }

    /// A live key of `sectors` sectors.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if no garbage collection is running.
    pub fn gc_mark(&mut self, pointer: Pointer, sectors: u32, live: Live) -> Result<Marked, Error> {
        let Some(gc) = &mut self.gc else { return Err(not_running("gc_mark")) };
        let id = pointer.bucket;
        let Some(device) = self.devices.get_mut(id.device().as_usize()) else {
            return Ok(Marked::OutOfRange);
        };
        if !device.options.geometry.contains(id.bucket()) {
            return Ok(Marked::OutOfRange);
        }
        let word = device.word(id.bucket());
        let stale = pointer.gen_.is_stale(word.gen_());
        self.counters.gc_stale_total += u64::from(stale);
        let sectors = device.units(sectors);
        match gc.shadow(id) {
            Some(shadow) => shadow.mark(pointer.gen_, stale, sectors, live),
            None => {
                let next = word.gc_mark(pointer.gen_, stale, sectors, live);
                device.store(id.bucket(), next);
            }
        }
        Ok(if stale { Marked::Stale } else { Marked::Counted })
    }

    /// Ends a garbage collection: the marks become what it found, `need_gc` and `available` are
    /// counted anew, and passes are made again.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if none is running.
    pub fn gc_finish(&mut self) -> Result<(), Error> {
        let Some(gc) = self.gc.take() else { return Err(not_running("gc_finish")) };
        let start_up = gc.start_up;
        self.gc_epoch += 1;
        if let Some(shadows) = gc.shadows {
            for (device, shadows) in self.devices.iter_mut().zip(shadows) {
                device.publish(&shadows);
            }
        }
        self.gc_finished += u64::from(!start_up);
        self.recount();
        Ok(())
    }

    /// Ends a garbage collection whose walk was not completed. In place, marks stay invalid, so
    /// nothing is invalidated, until another one has finished: half a set of marks is never
    /// treated as valid.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if none is running.
    pub fn gc_abandon(&mut self) -> Result<(), Error> {
        match self.gc.take() {
            Some(_) => Ok(()),
            None => Err(not_running("gc_abandon")),
        }
    }

    /// Whether a garbage collection is running.
    #[must_use]
    pub fn gc_is_running(&self) -> bool {
        self.gc.is_some()
    }

    /// Whether one should be run: a device waits for it, some gen has run far ahead, or 1/16 of
    /// the set's sectors were written since the last.
    #[must_use]
    pub fn gc_is_due(&self) -> bool {
        let bucket_sectors = u64::from(self.devices[0].options.geometry.bucket_sectors());
        self.device_indexes().any(|device| self.needs_gc(device))
            || self.need_gc > self.options.gc_due_gen
            || self.sectors_since_gc >= self.nbuckets() * bucket_sectors / 16
    }

    /// Journal and prio chain are metadata; counts everything anew; marks are valid.
    pub(super) fn recount(&mut self) {
        self.need_gc = 0;
        self.available = 0;
        let gc_finished = self.gc_finished;
        for device in &mut self.devices {
            for b in device.options.journal().chain(device.chain.clone()) {
                device.store(b, device.word(b).with_mark(Mark::Metadata));
            }
            for b in device.buckets() {
                let word = device.word(b);
                self.need_gc = self.need_gc.max(word.gc_gen());
                let available = word.pin_count() == 0 && word.mark().is_reclaimable();
                self.available += u64::from(available);
            }
            device.needs_gc = device.needs_gc.min(gc_finished);
        }
        self.sectors_since_gc = 0;
        self.marks_valid = true;
        self.counters.gc_total += 1;
    }

    /// Chooses the buckets of a device whose live data is worth moving out, flags them, and
    /// returns them, emptiest first, equal ones by number: neither metadata nor pinned, partly
    /// full, their live sectors together at most what the `moving_gc` reserve holds. The owner
    /// rewrites the keys that point into flagged buckets. Flags of an earlier round are cleared
    /// first, so that the flagged never exceed the reserve.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the set has no such device, or marks are not valid.
    pub fn moving_candidates(&mut self, device: DeviceIndex) -> Result<Vec<BucketIndex>, Error> {
        if !self.marks_valid {
            return Err(Error::state("moving_candidates", "marks invalid", "a finished GC"));
        }
        let first = BucketId::new(device, BucketIndex::new(0));
        let (device, _) = self.locate(first)?;
        Ok(device.choose_moving())
    }
}

fn not_running(what: &str) -> Error {
    Error::state(what, "no running GC", "gc_begin first")
}

impl Gc {
    fn shadow(&mut self, id: BucketId) -> Option<&mut Shadow> {
        let shadows = self.shadows.as_mut()?;
        Some(&mut shadows[id.device().as_usize()][id.bucket().as_usize()])
    }

    /// Replaces the word that the walk began with: start-up has raised the gen, or a bucket of
    /// an old prio chain has become free, so pinned, without a new gen.
    pub(super) fn rewrite_start(&mut self, id: BucketId, word: Snapshot) {
        if let Some(shadow) = self.shadow(id) {
            shadow.start = word;
        }
    }
}

/// The rule of marking, once for each place where marks are kept. `oldest` moves before the
/// staleness is looked at: a stale key that the index still holds counts for it.
impl Shadow {
    fn mark(&mut self, gen_: Gen, stale: bool, sectors: u32, live: Live) {
        if self.oldest.is_after(gen_) {
            self.oldest = gen_;
        }
        if !stale {
            self.mark = self.mark.max(live.mark());
            let sum = u32::from(self.sectors).saturating_add(sectors);
            self.sectors = sum.min(u32::from(SECTORS_MAX)) as u16;
        }
    }
}

impl Snapshot {
    /// What marking in place makes of the word.
    fn gc_mark(self, gen_: Gen, stale: bool, sectors: u32, live: Live) -> Self {
        let mut shadow = Shadow {
            start: self,
            mark: self.mark(),
            sectors: self.sectors(),
            oldest: self.last_gc(),
        };
        shadow.mark(gen_, stale, sectors, live);
        self.with_last_gc(shadow.oldest)
            .with_mark(shadow.mark)
            .with_sectors(u32::from(shadow.sectors))
    }
}

impl Device {
    /// The beginning of a garbage collection in place.
    fn clear_marks(&mut self) {
        for b in self.buckets() {
            let word = self.word(b);
            let word = word.with_last_gc(word.gen_());
            self.store(b, if word.pin_count() == 0 { word.free() } else { word });
        }
    }

    /// The end of one with shadow marks. The prio chain, which no key points at, loses its mark
    /// here for as long as it takes to get to [`Set::recount`]; with other threads about, it would
    /// have to be renewed in the same store.
    fn publish(&mut self, shadows: &[Shadow]) {
        for b in self.buckets() {
            let shadow = shadows[b.as_usize()];
            let sectors = u32::from(shadow.sectors);
            let next = self.word(b).gc_publish(shadow.start, shadow.mark, sectors, shadow.oldest);
            self.store(b, next);
        }
    }

    fn choose_moving(&mut self) -> Vec<BucketIndex> {
        let full = self.units(self.options.geometry.bucket_sectors());
        let mut worth = Vec::new();
        for b in self.buckets() {
            let word = self.word(b).with_moving(false);
            self.store(b, word);
            let partly_full = (1..full).contains(&u32::from(word.sectors()));
            if partly_full && word.pin_count() == 0 && word.mark() != Mark::Metadata {
                worth.push((word.sectors(), b));
            }
        }
        worth.sort_unstable();
        let mut room = u64::from(full) * self.list(Reserve::MovingGc).len() as u64;
        let mut chosen = Vec::new();
        for (sectors, b) in worth {
            let Some(left) = room.checked_sub(u64::from(sectors)) else { break };
            room = left;
            chosen.push(b);
        }
        for &b in &chosen {
            self.store(b, self.word(b).with_moving(true));
        }
        chosen
    }
}
