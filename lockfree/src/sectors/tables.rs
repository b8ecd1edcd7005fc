//! By what a stream finds its slot again: one CPU's tables of hints.
//!
//! An entry is a slot's number + 1, or 0. Nothing else is in it: whether the slot is the one that
//! is looked for, the slot itself says. So an entry may be lost, or be another's, at any time.

use super::choose::{Slot, Slots};
use super::request::{SectorRequest, WritePoint};
use crate::sync::Ordering;
use crate::sync::unmodelled::AtomicU32;
use tierce_core::broken;

/// Entries per slot. A slot is the last one of one write point and of one end, so that at most
/// one entry in so many is in use, and two rarely meet.
const ENTRIES_PER_SLOT: usize = 8;

fn entries(slots: usize) -> Box<[AtomicU32]> {
    let number = (ENTRIES_PER_SLOT * slots).next_power_of_two();
    (0..number).map(|_| AtomicU32::new(0)).collect()
}

/// The slot that an entry names, if it is one of `place`, and the right one. An entry that names
/// another place's is cleared: each look at that slot would cost its CPU the cache line.
#[inline]
fn verified(
    entry: &AtomicU32,
    slots: &Slots,
    place: u32,
    is_right: impl FnOnce(&Slot) -> bool,
) -> Option<usize> {
    // Relaxed: a hint.
    let at = (entry.load(Ordering::Relaxed) as usize).checked_sub(1)?;
    let slot = slots.get(at)?;
    if !slot.is_of(place) {
        forget(entry);
        return None;
    }
    is_right(slot).then_some(at)
}

#[cold]
fn forget(entry: &AtomicU32) {
    // Relaxed: a hint.
    entry.store(0, Ordering::Relaxed);
}

/// Write point → slot. Each write point has two entries to choose from, the first of them for
/// the one that was used last.
#[derive(Debug)]
pub(super) struct Points(Box<[AtomicU32]>);

impl Points {
    pub(super) fn new(slots: usize) -> Self {
        Self(entries(slots))
    }

    #[inline]
    fn pair(&self, point: WritePoint) -> [&AtomicU32; 2] {
        // Hashes differ in all bits, numbers in the low ones: 2^64 divided by the golden ratio
        // spreads both over the high ones.
        let spread = point.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let at = spread as usize & (self.0.len() - 1);
        [&self.0[at], &self.0[at ^ 1]]
    }

    /// The slot of `place` that a write of the same class and write point used last; if that place
    /// `is_crowded`, whoever has used it since.
    #[inline]
    pub(super) fn find(
        &self,
        slots: &Slots,
        request: &SectorRequest,
        place: u32,
        is_crowded: bool,
    ) -> Option<usize> {
        let [first, second] = self.pair(request.write_point);
        let is_crowded = is_crowded && !broken!("crowd_unshared");
        let is_right =
            |slot: &Slot| (is_crowded || slot.is_writer(request)) && slot.is_of_class(request);
        verified(first, slots, place, is_right).or_else(|| verified(second, slots, place, is_right))
    }

    #[inline]
    pub(super) fn remember(&self, point: WritePoint, at: usize) {
        let [first, second] = self.pair(point);
        let entry = at as u32 + 1;
        // Relaxed (all): hints.
        let before = first.load(Ordering::Relaxed);
        if before != entry {
            second.store(before, Ordering::Relaxed);
            first.store(entry, Ordering::Relaxed);
        }
    }
}

/// Where a stream's last write ended → slot.
#[derive(Debug)]
pub(super) struct Ends(Box<[AtomicU32]>);

impl Ends {
    pub(super) fn new(slots: usize) -> Self {
        Self(entries(slots))
    }

    #[inline]
    fn entry(&self, inode: u64, offset: u64) -> &AtomicU32 {
        // Ends of one stream differ in their low bits, inodes by little.
        let place = inode.wrapping_mul(331).wrapping_add(offset);
        &self.0[place as usize & (self.0.len() - 1)]
    }

    #[inline]
    pub(super) fn find(&self, slots: &Slots, request: &SectorRequest, place: u32) -> Option<usize> {
        let entry = self.entry(request.inode, request.offset);
        verified(entry, slots, place, |slot| slot.follows(request))
    }

    #[inline]
    pub(super) fn remember(&self, inode: u64, end: u64, at: usize) {
        // Relaxed: a hint.
        self.entry(inode, end).store(at as u32 + 1, Ordering::Relaxed);
    }
}
