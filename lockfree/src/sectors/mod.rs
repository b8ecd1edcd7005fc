//! Sectors out of open buckets.
//!
//! # Problem
//!
//! Writers want sectors, not buckets. Streams should not mix (a bucket is thrown away as a
//! whole), a bucket must be filled without gaps, and the data of every extent has to be safe
//! from reuse until its key is in the index. Two writers of one stream meet on one word; nobody
//! should wait for anybody.
//!
//! # State
//!
//! Up to 128 *slots*, each one word (`slot.rs`) plus what it remembers of its last use, in cache
//! lines of its own. Per CPU hint two tables (`tables.rs`), by which a stream finds its slot again
//! without touching anything shared (`choose.rs`).
//!
//! # Protocol
//!
//! 1. Choose the slot (`choose.rs` says how).
//! 2. One change of the slot's word takes the space: a CAS, or where the slot is used by one CPU
//!    a store that is as good (`change.rs`). Whoever leaves less than a block closes the bucket
//!    with the same change.
//! 3. If the slot holds no bucket: allocate one *holding nothing*, take its pins in advance,
//!    publish it. The loser of that race settles to pin 1, *then* gives his back, or
//!    keeps it for another slot if the winner writes data of the other class. A slot that holds
//!    a bucket of the other class, chosen because all do, is closed first.
//! 4. An extent that ends returns its pin to the bucket's word.
//!
//! # Pins
//!
//! A free bucket has pin 1. Opening it adds units − 1: one pin for every unit it has, before the
//! slot is published. The open bucket holds one for itself, every extent one (counted by `cnt` in
//! the change that takes its space), and the slot those that no extent has had. Closing returns
//! these in one subtraction. So taking an extent does not write the bucket's word, and no extent is
//! ever unpinned; ending one is one subtraction, whether its bucket is still open or not.
//!
//! # Memory ordering
//!
//! Publishing a bucket is Release and taking space Acquire: the pins were taken before anybody
//! can hold an extent. The gen in the pointer is the slot's, put there when the bucket was pinned.
//! A store that takes the place of a CAS (`change.rs`) is Release, too, and nothing here needs more
//! of it: where a CAS would be relied upon as a fence there is one.
//!
//! Returning a pin is Release, for invalidation and for garbage collection to acquire: what the
//! holder of the extent did happened before. The bucket's word changes by RMW only, which
//! continues the release sequence.
//!
//! # Ending
//!
//! Nothing is open on a device that has ended. E notes the end, fences (SeqCst), and closes what it
//! finds in the slots. O puts a bucket into a slot, fences (SeqCst), and looks whether its device
//! has ended before it takes space, in which case it closes the bucket. If E's fence comes first,
//! O sees the end; if O's does, E sees the bucket. ∎
//!
//! # Counting
//!
//! Sectors written are counted when a bucket is closed; those of open buckets stand in the slots.
//! So the count costs nothing per write, and is exact when nobody writes.
//!
//! # Progress
//!
//! Taking space is lock-free but for the system call with which `change.rs` takes a slot from the
//! CPU that used it before. Ending an extent is wait-free: one subtraction. Opening a bucket is
//! as [`Allocator::try_alloc`], or blocks as asked, on nobody who holds a slot.

mod change;
mod choose;
mod extent;
mod hand;
mod place;
mod request;
pub(crate) mod slot;
mod tables;

use crate::allocation::Allocation;
use crate::allocator::Allocator;
use crate::bucket_ref::BucketRef;
use crate::config::Config;
use crate::device::Device;
use crate::error::Error;
use crate::section::Section;
use crate::sync::{AtomicU32, Ordering, fence};
use choose::{Chooser, Here};
pub(crate) use choose::{Slot, Tag};
use crossbeam_utils::CachePadded;
pub use extent::Extent;
pub use request::{SectorRequest, WritePoint};
use slot::{SlotWord, Take};
use std::time::Instant;
use tierce_core::{BucketId, DeviceIndex, broken};

/// The open buckets of a set.
#[derive(Debug)]
pub(crate) struct OpenBuckets {
    slots: Box<[CachePadded<Slot>]>,
    chooser: Chooser,
    /// With it slots can be near.
    section: Option<Section>,
    /// 1 from before the first device has ended: saves a look at the device.
    any_ended: AtomicU32,
}

impl OpenBuckets {
    /// As many slots as may be open, with hints for each CPU; without CPUs every choice looks at
    /// all slots.
    pub(crate) fn new(config: &Config) -> Self {
        let (slots, cpus) = (config.open_buckets as usize, config.cpus as usize);
        let section = (config.restartable && cpus > 0).then(|| Section::find(usize::MAX)).flatten();
        Self {
            slots: (0..slots).map(|_| CachePadded::new(Slot::new(section))).collect(),
            chooser: Chooser::new(slots, cpus),
            section,
            any_ended: AtomicU32::new(0),
        }
    }

    /// Space for `request`; `None` if there is none and the caller does not want to wait.
    ///
    /// Always inlined: an extent that is handed on through memory, in other pieces than it is read
    /// in, costs as much as a locked instruction.
    #[inline(always)]
    pub(crate) fn alloc<'a>(
        &'a self,
        allocator: &'a Allocator,
        request: &SectorRequest,
        wait: Wait,
    ) -> Result<Option<Extent<'a>>, Error> {
        let here = self.chooser.here();
        let at = here.choose(&self.slots, request);
        match self.take(allocator, here, at, request) {
            Some(extent) => Ok(Some(extent)),
            None => self.alloc_in_new(allocator, at, request, wait),
        }
    }

    /// As [`alloc`](Self::alloc), when there was no room in slot `at`.
    #[cold]
    fn alloc_in_new<'a>(
        &'a self,
        allocator: &'a Allocator,
        mut at: usize,
        request: &SectorRequest,
        wait: Wait,
    ) -> Result<Option<Extent<'a>>, Error> {
        let here = self.chooser.here();
        loop {
            match self.make_room(allocator, here, at, request, wait)? {
                Some(with_room) => at = with_room,
                None => return Ok(None),
            }
            if let Some(extent) = self.take(allocator, here, at, request) {
                return Ok(Some(extent));
            }
        }
    }

    /// A slot in which there is room for `request`, unless others take it: `at`, in which there
    /// was none, or one chosen anew. `None` if no bucket is free.
    fn make_room(
        &self,
        allocator: &Allocator,
        here: Here<'_>,
        mut at: usize,
        request: &SectorRequest,
        wait: Wait,
    ) -> Result<Option<usize>, Error> {
        let mut spare = None;
        loop {
            let slot = &self.slots[at];
            let word = slot.read();
            if let Some(bucket) = word.bucket().filter(|_| serves(word, request)) {
                if !device_of(allocator, bucket).has_ended() {
                    return Ok(Some(at));
                }
                close(allocator, slot, word, bucket);
                continue;
            }
            if spare.is_none() {
                spare = allocator.bucket_for_sectors(request.reserve(), wait)?;
            }
            let Some(bucket) = spare.take() else { return Ok(None) };
            match open(allocator, slot, word, bucket, request) {
                Ok(()) => return Ok(Some(at)),
                // Somebody else has put his bucket there, of whatever class.
                Err(bucket) => spare = Some(bucket),
            }
            at = here.choose(&self.slots, request);
        }
    }

    /// Takes space out of the bucket that is open in slot `at`. `None` if there is none for this
    /// class, if its device has ended, if somebody was faster, or the thread was interrupted.
    #[inline(always)]
    fn take<'a>(
        &'a self,
        allocator: &'a Allocator,
        here: Here<'_>,
        at: usize,
        request: &SectorRequest,
    ) -> Option<Extent<'a>> {
        let slot = &*self.slots[at];
        let word = slot.read();
        let bucket = word.bucket().filter(|_| serves(word, request))?;
        let device = device_of(allocator, bucket);
        // Relaxed: whoever opened the bucket is ordered by his fence, others need no order.
        if self.any_ended.load(Ordering::Relaxed) != 0 && device.has_ended() {
            return None;
        }
        let unit = device.sector_units();
        let wanted = unit.of(request.sectors);
        let Take::Units { off, units, next, unused_pins, .. } =
            word.take(wanted, unit.bucket, unit.block)
        else {
            return None;
        };
        if broken!("slot_take_by_store") {
            // AcqRel: the deliberate break, whatever the word has become meanwhile.
            slot.word.swap(next.bits(), Ordering::AcqRel);
        } else if !slot.replace(self.section, word, next) {
            return None;
        }
        if let Some(unused) = unused_pins {
            closed(device, bucket, off + units, unused);
        }
        let (off, sectors) = (unit.sectors(off), unit.sectors(units).min(request.sectors));
        here.used(slot, at, request, bucket, sectors);
        Some(Extent::new(device, BucketRef::new(bucket, word.gen_()), off, sectors))
    }

    /// A device is about to end. Comes before the device's own note, which [`seal`](Self::seal)
    /// follows.
    pub(crate) fn note_end(&self) {
        // Relaxed: ordered by the fence of `seal`.
        self.any_ended.store(1, Ordering::Relaxed);
    }

    /// What each slot remembers that was ever used, least recently used first.
    pub(crate) fn tags(&self) -> Vec<Tag> {
        let tags = self.slots.iter().map(|slot| slot.tag());
        let mut used: Vec<_> = tags.filter(|tag| tag.used != 0).collect();
        used.sort_by_key(|tag| tag.used);
        used
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Sectors handed out of the buckets of `device` that are open.
    pub(crate) fn sectors_in_open(&self, device: &Device) -> u64 {
        let words = self.slots.iter().map(|slot| slot.tag().word);
        let mine = |word: &SlotWord| word.bucket().is_some_and(|b| b.device() == device.index());
        let units: u64 = words.filter(mine).map(|word| u64::from(word.off())).sum();
        units << device.sector_units().shift
    }

    /// Closes every open bucket, or those of one device: for shutdown. What remains of them is
    /// lost.
    pub(crate) fn seal(&self, allocator: &Allocator, device: Option<DeviceIndex>) {
        if !broken!("seal_no_fence") {
            // SeqCst: pairs with that of `open`, see *Ending* above.
            fence(Ordering::SeqCst);
        }
        for slot in &self.slots {
            loop {
                let word = slot.read();
                let mine = |bucket: &BucketId| device.is_none_or(|d| d == bucket.device());
                let Some(bucket) = word.bucket().filter(mine) else { break };
                if close(allocator, slot, word, bucket) {
                    break;
                }
            }
        }
    }
}

#[inline]
fn device_of(allocator: &Allocator, bucket: BucketId) -> &Device {
    &allocator.devices()[bucket.device().as_usize()]
}

/// `bucket` was just taken out of its slot, `units` of it handed out and `unused` pins left.
#[cold]
fn closed(device: &Device, bucket: BucketId, units: u32, unused: u16) {
    if unused > 0 && !broken!("slot_unsettled") {
        device.table().unpin(bucket.bucket(), unused);
    }
    let sectors = i64::from(units) << device.sector_units().shift;
    if broken!("closed_uncounted") {
        return;
    }
    device.counters.sectors_written.add(sectors);
}

/// Takes the bucket out of the slot and returns the pins that no extent has; what remains of it
/// is lost. `false` if the slot has to be looked at again.
fn close(allocator: &Allocator, slot: &Slot, word: SlotWord, bucket: BucketId) -> bool {
    let section = allocator.open_buckets().section;
    let is_closed = slot.replace(section, word, word.closed());
    if is_closed {
        let device = device_of(allocator, bucket);
        // The slot's own pin, too.
        let unused = word.prepaid(device.bucket_units()) + 1;
        let unused = u16::try_from(unused).expect("a bucket has ≤ 8191 units");
        closed(device, bucket, word.off(), unused);
    }
    is_closed
}

/// Whether `request` may take from the bucket that is open there.
#[inline]
fn serves(word: SlotWord, request: &SectorRequest) -> bool {
    word.is_flash_only() == request.flash_only
}

/// Puts `bucket` into the slot, closing what is open there; `Err` with it, as it was, if
/// somebody changed the slot.
fn open<'a>(
    allocator: &Allocator,
    slot: &Slot,
    mut word: SlotWord,
    bucket: Allocation<'a>,
    request: &SectorRequest,
) -> Result<(), Allocation<'a>> {
    if let Some(other) = word.bucket() {
        if !close(allocator, slot, word, other) {
            return Err(bucket);
        }
        word = word.closed();
    }
    let pointer = bucket.bucket_ref();
    let id = pointer.id();
    let device = device_of(allocator, id);
    let prepaid = u16::try_from(device.bucket_units() - 1).expect("a bucket has ≤ 8191 units");
    if !broken!("slot_before_prepay") {
        device.table().prepay(id.bucket(), prepaid);
    }
    // Its Release publishes that the pins were taken; pairs with the Acquire in `take`.
    let section = allocator.open_buckets().section;
    let opened = slot.replace(section, word, word.opened(pointer, request.flash_only));
    if broken!("slot_before_prepay") {
        device.table().prepay(id.bucket(), prepaid);
    }
    if !opened {
        if broken!("spare_back_before_settled") {
            device.give_back(crate::reserves::Free::none(bucket.into_bucket().bucket()));
            device.table().unpin(id.bucket(), prepaid);
            return Ok(());
        }
        device.table().unpin(id.bucket(), prepaid);
        if broken!("rollover_loses_spare") {
            let _ = bucket.into_bucket();
            return Ok(());
        }
        return Err(bucket);
    }
    if !broken!("open_bucket_no_fence") {
        // SeqCst: pairs with that of `seal`, see *Ending* above.
        fence(Ordering::SeqCst);
    }
    allocator.note_opened(bucket.into_bucket().device());
    Ok(())
}

/// How long to wait for a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    No,
    Until(Option<Instant>),
}
