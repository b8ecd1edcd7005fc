//! Handing out sectors of open buckets.
//!
//! Writers do not ask for buckets but for sectors. Up to 128 buckets are open at once, each in
//! a *slot* that remembers where its last write ended, by which write point, and of which class.
//! Which slot a write gets:
//!
//! 1. only slots of its *class* come into question: data that lives only on flash never shares a
//!    bucket with cached data;
//! 2. the one whose last write ended exactly where this one begins (same inode and offset):
//!    sequential streams stay together;
//! 3. else the one last used by the same write point (a hash of task, thread, tenant …);
//! 4. else a slot without a bucket: one never used, or closed (the least recently used of them);
//! 5. else the least recently used one of the class: the rest of its bucket serves the new
//!    stream;
//! 6. else the least recently used one of the other class is closed and its slot reused.
//!
//! Of several matches the most recently used wins. If the chosen slot has no sectors left, a new
//! bucket is allocated, from `moving_gc` for what moving GC writes, else from `none`.
//!
//! An extent ends at the bucket's end and may be shorter than asked. When less than a block
//! remains the bucket *closes*: the rest is lost, and the slot's pin passes to the extent just
//! handed out. The slot keeps its place in the order, its position, write point and class, and
//! still takes part in 2 and 3; when chosen, it gets a new bucket.
//!
//! The open bucket holds one pin and every extent one more, until its owner has put it into the
//! index or dropped it. Extents of a bucket are disjoint and leave no gap. In buckets of more
//! than 8191 sectors space is taken in the unit in which the words count, so that there are
//! never more extents than pins.

use super::alloc::Allocation;
use super::device::Place;
use super::set::Set;
use crate::bucket::{BucketId, DeviceIndex, Gen};
use crate::error::Error;
use crate::reserve::Reserve;

/// A request for sectors.
///
/// ```
/// use tierce_core::spec::{DeviceOptions, Options, Set, Write};
/// use tierce_core::{DeviceIndex, Geometry, Sizes};
/// # let g = Geometry::new(1024, 1, 128, 8)?;
/// # let device = DeviceOptions::new(g, Sizes::tierce(&g, 8));
/// # let mut set = Set::new(Options::default(), vec![device])?;
/// # set.start()?;
/// # set.step(DeviceIndex::FIRST);
/// let first = set.alloc_sectors(Write::new(7, 0, 100))?.ready().expect("free lists are full");
/// assert_eq!((first.offset, first.sectors), (0, 100));
/// // The next one continues where the first ended and gets what the bucket has left.
/// let next = set.alloc_sectors(Write::new(7, 100, 100))?.ready().expect("its bucket is open");
/// assert_eq!((next.bucket, next.offset, next.sectors), (first.bucket, 100, 28));
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Write {
    /// Whose data.
    pub inode: u64,
    /// Where in it the write begins, in sectors.
    pub offset: u64,
    /// How much, in sectors, at least 1.
    pub sectors: u32,
    /// Who writes: writes with the same write point go to the same bucket.
    pub write_point: u64,
    /// Whether moving GC writes: it may use its reserve.
    pub write_prio: bool,
    /// Whether the data lives only on flash.
    pub flash_only: bool,
}

impl Write {
    /// Cached data, by write point 0.
    #[must_use]
    pub const fn new(inode: u64, offset: u64, sectors: u32) -> Self {
        Self { inode, offset, sectors, write_point: 0, write_prio: false, flash_only: false }
    }
}

/// Sectors handed out, with a pin of their own.
///
/// ```
/// use tierce_core::spec::Extent;
/// fn is_partial(asked: u32, got: Extent) -> bool {
///     got.sectors < asked
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// In which bucket.
    pub bucket: BucketId,
    /// The gen that a pointer to it carries.
    pub gen_: Gen,
    /// The first sector, counted from the start of the bucket.
    pub offset: u32,
    /// How many.
    pub sectors: u32,
}

/// A slot that was used, as [`Set::slots`] shows it.
///
/// ```
/// # use tierce_core::spec::{DeviceOptions, Options, Set, Write};
/// # use tierce_core::{DeviceIndex, Geometry, Sizes};
/// # let g = Geometry::new(1024, 1, 128, 8)?;
/// # let device = DeviceOptions::new(g, Sizes::tierce(&g, 8));
/// # let mut set = Set::new(Options::default(), vec![device])?;
/// # set.start()?;
/// # set.step(DeviceIndex::FIRST);
/// let extent = set.alloc_sectors(Write::new(7, 10, 5))?.ready().expect("free lists are full");
/// let slot = set.slots().next().expect("the one that was just used");
/// assert_eq!((slot.bucket, slot.sectors_left), (extent.bucket, 123));
/// assert_eq!((slot.inode, slot.next), (7, 15));
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// The bucket that is open here, or was.
    pub bucket: BucketId,
    /// Sectors left; 0 when closed.
    pub sectors_left: u32,
    /// Who wrote last.
    pub write_point: u64,
    /// Whose data the last write was.
    pub inode: u64,
    /// Where the last write ended: the next one of a sequential stream begins here.
    pub next: u64,
    /// The class: data that lives only on flash, or cached data.
    pub flash_only: bool,
}

/// The slots, least recently used first; those never used are not in the list.
#[derive(Clone, Debug)]
pub(super) struct OpenBuckets {
    used: Vec<Slot>,
    most: usize,
}

/// Which slot serves a write.
#[derive(Clone, Copy, Debug)]
enum Choice {
    NeverUsed,
    At(usize),
}

impl OpenBuckets {
    pub(super) fn new(most: u16) -> Self {
        Self { used: Vec::new(), most: usize::from(most) }
    }

    /// The choice described at the top of this file.
    fn choose(&self, write: &Write) -> Choice {
        let class = |s: &Slot| s.flash_only == write.flash_only;
        let follows = |s: &Slot| class(s) && s.inode == write.inode && s.next == write.offset;
        let same_writer = |s: &Slot| class(s) && s.write_point == write.write_point;
        let matching = self.used.iter().rposition(follows);
        if let Some(at) = matching.or_else(|| self.used.iter().rposition(same_writer)) {
            return Choice::At(at);
        }
        if self.used.len() < self.most {
            return Choice::NeverUsed;
        }
        let closed = self.used.iter().position(Slot::is_closed);
        let oldest = closed.or_else(|| self.used.iter().position(class));
        Choice::At(oldest.unwrap_or(0))
    }
}

impl Slot {
    fn is_closed(&self) -> bool {
        self.sectors_left == 0
    }
}

impl Set {
    /// Takes up to `write.sectors` sectors from an open bucket. The extent holds a pin of its
    /// own ([`unpin`](Self::unpin)). A failure changes nothing but the count of failures.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if no sectors are asked for.
    pub fn alloc_sectors(&mut self, write: Write) -> Result<Allocation<Extent>, Error> {
        if write.sectors == 0 {
            return Err(Error::limit("sectors", 0u32, "at least 1".into()));
        }
        let choice = self.open.choose(&write);
        let chosen = match choice {
            Choice::At(at) => Some(self.open.used[at]),
            Choice::NeverUsed => None,
        };
        let slot = match chosen {
            Some(slot) if !slot.is_closed() && slot.flash_only == write.flash_only => slot,
            _ => match self.open_bucket(&write) {
                Allocation::Ready(slot) => {
                    chosen.inspect(|old| self.close(old));
                    slot
                }
                Allocation::Empty => return Ok(Allocation::Empty),
                Allocation::Failed => return Ok(Allocation::Failed),
            },
        };
        if let Choice::At(at) = choice {
            self.open.used.remove(at);
        }
        Ok(Allocation::Ready(self.take_sectors(slot, &write)))
    }

    /// The slots that were used, least recently used first; closed ones show no sectors left.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = Slot> {
        self.open.used.iter().copied()
    }

    /// How many slots were never used.
    #[must_use]
    pub fn unused_slots(&self) -> usize {
        self.open.most - self.open.used.len()
    }

    /// A slot with a new bucket, of the device that has most to give.
    fn open_bucket(&mut self, write: &Write) -> Allocation<Slot> {
        let reserve = if write.write_prio { Reserve::MovingGc } else { Reserve::None };
        match self.alloc(reserve) {
            Allocation::Ready(pointer) => {
                let d = &mut self.devices[pointer.bucket.device().as_usize()];
                d.put_in(pointer.bucket.bucket(), Place::Open);
                Allocation::Ready(Slot {
                    bucket: pointer.bucket,
                    sectors_left: d.options.geometry.bucket_sectors(),
                    write_point: write.write_point,
                    inode: write.inode,
                    next: write.offset,
                    flash_only: write.flash_only,
                })
            }
            Allocation::Empty => Allocation::Empty,
            Allocation::Failed => Allocation::Failed,
        }
    }

    /// Takes the sectors and makes the slot the most recently used.
    fn take_sectors(&mut self, mut slot: Slot, write: &Write) -> Extent {
        let id = slot.bucket;
        let d = &mut self.devices[id.device().as_usize()];
        let geometry = d.options.geometry;
        let word = d.word(id.bucket());
        let sectors = write.sectors.min(slot.sectors_left);
        let unit = 1 << geometry.sector_shift();
        let taken = sectors.next_multiple_of(unit).min(slot.sectors_left);
        let extent = Extent {
            bucket: id,
            gen_: word.gen_(),
            offset: geometry.bucket_sectors() - slot.sectors_left,
            sectors,
        };
        slot.sectors_left -= taken;
        if slot.sectors_left < geometry.block_sectors() {
            slot.sectors_left = 0;
            d.put_in(id.bucket(), Place::Out);
        } else {
            d.store(id.bucket(), word.with_pin(word.pin_count() + 1));
        }
        d.sectors_written += u64::from(taken);
        self.sectors_since_gc += u64::from(sectors);
        slot.inode = write.inode;
        slot.next = write.offset.wrapping_add(u64::from(sectors));
        slot.write_point = write.write_point;
        slot.flash_only = write.flash_only;
        self.open.used.push(slot);
        extent
    }

    /// Closes a bucket whose slot is needed: the slot's pin is returned.
    fn close(&mut self, slot: &Slot) {
        if slot.is_closed() {
            return;
        }
        let d = &mut self.devices[slot.bucket.device().as_usize()];
        let b = slot.bucket.bucket();
        let next = d.word(b).unpin(1).expect("an open bucket is pinned by its slot");
        d.store(b, next);
        d.put_in(b, Place::Out);
    }

    /// Closes all buckets of a device that failed.
    pub(super) fn close_slots_of(&mut self, device: DeviceIndex) {
        for at in 0..self.open.used.len() {
            let slot = self.open.used[at];
            if slot.bucket.device() == device {
                self.close(&slot);
                self.open.used[at].sectors_left = 0;
            }
        }
    }
}
