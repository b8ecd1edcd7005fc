//! What start-up makes of a device: the word of every bucket, from the records alone.
//!
//! # Why
//!
//! Gens on the device can lag behind pointers: a bucket that nothing durable pointed into may
//! be reused without waiting for its gen to become durable, and a bucket may have been handed
//! out under a journal entry that did not survive. So before the first allocation every pointer
//! of the index is observed, and one that is *ahead* of its bucket raises the bucket's gen.
//!
//! # Protocol
//!
//! 1. every word from the prio sets: gen, prio, last_gc = gen, nothing marked ([`loaded`]);
//! 2. every pointer that [`walk`](super::walk) meets ([`observe`]);
//! 3. the journal's buckets and those of the prio chain are marked metadata.
//!
//! Then marks are as valid as after a garbage collection, and the free lists can be filled
//! ([`StartUp::fill`]).

use super::walk::{Met, PointerKind};
use super::{PrioChain, Superblock};
use crate::bucket::{BucketIndex, Gen, Mark, Prio};
use crate::geometry::Geometry;
use crate::policy::{Policy, lru_key};
use crate::reserve::{Reserve, Sizes};
use crate::word::Snapshot;

/// The word of a bucket as a prio set gives it.
///
/// ```
/// use tierce_core::{Gen, Prio, record::startup::loaded};
/// let word = loaded(Prio::new(9), Gen::new(3));
/// assert_eq!((word.gen_(), word.last_gc(), word.gc_gen()), (Gen::new(3), Gen::new(3), 0));
/// ```
#[must_use]
pub const fn loaded(prio: Prio, generation: Gen) -> Snapshot {
    Snapshot::from_bits(0).with_gen(generation).with_last_gc(generation).with_prio(prio)
}

/// The word after a pointer into the bucket with gen `pointer`, to `sectors` sectors (in the
/// word's units), was observed, and whether the pointer is live.
///
/// Of a stale pointer only last_gc takes note. One that is ahead raises the gen. A node makes
/// the bucket metadata, with the prio of metadata; data in a bucket of that prio makes it fresh.
/// The uuid bucket is marked, nothing else.
///
/// ```
/// use tierce_core::{Gen, Mark, Prio};
/// use tierce_core::record::{startup::{loaded, observe}, walk::PointerKind};
/// let word = loaded(Prio::METADATA, Gen::new(3));
/// let (word, live) = observe(word, Gen::new(2), 8, PointerKind::Clean);
/// assert_eq!((live, word.last_gc(), word.mark()), (false, Gen::new(2), Mark::None), "stale");
/// let (word, live) = observe(word, Gen::new(4), 8, PointerKind::Clean);
/// assert_eq!((live, word.gen_(), word.prio()), (true, Gen::new(4), Prio::FRESH), "ahead");
/// assert_eq!((word.mark(), word.sectors()), (Mark::Reclaimable, 8));
/// ```
#[must_use]
pub fn observe(word: Snapshot, pointer: Gen, sectors: u32, kind: PointerKind) -> (Snapshot, bool) {
    let word = if word.last_gc().is_after(pointer) { word.with_last_gc(pointer) } else { word };
    if pointer.is_stale(word.gen_()) {
        return (word, false);
    }
    let (mark, prio) = (word.mark(), word.prio());
    let (mark, prio) = match kind {
        PointerKind::UuidBucket => return (word.with_mark(Mark::Metadata), true),
        PointerKind::Node => (Mark::Metadata, Prio::METADATA),
        PointerKind::Dirty => (Mark::Dirty, prio),
        PointerKind::Clean if mark == Mark::None => (Mark::Reclaimable, prio),
        PointerKind::Clean => (mark, prio),
    };
    let is_data = kind != PointerKind::Node;
    let prio = if is_data && prio == Prio::METADATA { Prio::FRESH } else { prio };
    let sectors = u32::from(word.sectors()).saturating_add(sectors);
    (word.with_gen(pointer).with_mark(mark).with_prio(prio).with_sectors(sectors), true)
}

/// The words of one device while it starts up.
///
/// ```
/// use tierce_core::{BucketIndex, Geometry};
/// use tierce_core::record::StartUp;
/// let geometry = Geometry::new(1024, 1, 128, 1)?;
/// let start_up = StartUp::new(geometry);
/// assert_eq!(start_up.words().len(), 1024);
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StartUp {
    geometry: Geometry,
    words: Vec<Snapshot>,
    stale: u64,
}

impl StartUp {
    /// A device of this shape, whose prio sets were not read yet.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry, words: vec![Snapshot::default(); geometry.nbuckets() as usize], stale: 0 }
    }

    /// Takes the gens and prios of all buckets, from bucket 0 on, as the prio sets give them.
    pub fn load(&mut self, records: impl IntoIterator<Item = (Prio, Gen)>) {
        for (word, (prio, generation)) in self.words.iter_mut().zip(records) {
            *word = loaded(prio, generation);
        }
    }

    /// Observes a pointer into this device; whether it is live.
    pub fn observe(&mut self, met: &Met) -> bool {
        let unit = 1 << self.geometry.sector_shift();
        let Some(word) = self.words.get_mut(met.bucket.bucket().as_usize()) else { return false };
        let sectors = met.sectors.div_ceil(unit);
        let (observed, live) = observe(*word, met.pointer.gen_(), sectors, met.kind);
        *word = observed;
        self.stale += u64::from(!live);
        live
    }

    /// Marks the buckets of the journal and of the prio chain.
    pub fn finish(&mut self, superblock: &Superblock, chain: &PrioChain) {
        let journal = superblock.journal_buckets();
        for bucket in journal.chain(chain.buckets.iter().copied()) {
            if let Some(word) = self.words.get_mut(bucket.as_usize()) {
                *word = word.with_mark(Mark::Metadata);
            }
        }
    }

    /// Fills the reserves `prio` and `btree` as start-up does, with buckets that nothing marked:
    /// in ascending order, prio first. Nothing points into them, so no prio write is needed
    /// before they are used. Returns the buckets taken; they are invalidated.
    ///
    /// Fewer than both reserves hold means that there were no more such buckets.
    pub fn fill(&mut self, sizes: &Sizes) -> Vec<BucketIndex> {
        let wanted = (sizes.of(Reserve::Prio) + sizes.of(Reserve::Btree)) as usize;
        let mut taken = Vec::new();
        for bucket in self.geometry.buckets() {
            if taken.len() == wanted {
                break;
            }
            let word = &mut self.words[bucket.as_usize()];
            if word.mark() == Mark::None
                && let Some(next) = word.invalidate()
            {
                *word = next;
                taken.push(bucket);
            }
        }
        taken
    }

    /// The buckets that the first pass of `policy` would invalidate, in order: as many as
    /// `free_inc` holds, if there are so many. `None` for the random policy.
    #[must_use]
    pub fn first_pass(&self, policy: Policy, sizes: &Sizes) -> Option<Vec<BucketIndex>> {
        let mut candidates: Vec<_> =
            self.usable().filter(|(_, word)| word.can_invalidate()).collect();
        match policy {
            Policy::Fifo => (),
            // The sort is stable: ties go to the lowest bucket.
            Policy::Lru => candidates.sort_by_key(|(_, word)| lru_key(*word, Prio::OLDEST)),
            Policy::Random => return None,
        }
        candidates.truncate(sizes.free_inc as usize);
        Some(candidates.into_iter().map(|(bucket, _)| bucket).collect())
    }

    /// The words, bucket 0 first.
    #[must_use]
    pub fn words(&self) -> &[Snapshot] {
        &self.words
    }

    /// The words of the buckets that can be allocated.
    pub fn usable(&self) -> impl ExactSizeIterator<Item = (BucketIndex, Snapshot)> + use<'_> {
        self.geometry.buckets().map(|bucket| (bucket, self.words[bucket.as_usize()]))
    }

    /// How many of the pointers observed were stale.
    #[must_use]
    pub const fn stale(&self) -> u64 {
        self.stale
    }
}
