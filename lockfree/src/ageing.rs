//! Ageing: buckets that are not read grow older as I/O goes by.
//!
//! Every I/O is counted in sectors. Each 1/1024 of the set's size of it, one *rescale* is
//! requested from the reclaimers: every bucket that is not pinned, not metadata and not oldest
//! already ages by one, and `min_prio` becomes the smallest result (unchanged if there is none).
//! A read hit makes a bucket fresh again. Allocation never waits for a rescale.
//!
//! Sectors are gathered per CPU hint and flushed at step / (4·CPUs), so that no line is written
//! by every CPU on every I/O. With one cell they are counted at once.

use crate::device::Device;
use crate::hint;
use crate::sync::{AtomicI64, AtomicU32, Ordering};
use crossbeam_utils::CachePadded;
use tierce_core::Prio;

/// The age of a set.
#[derive(Debug)]
pub(crate) struct Ageing {
    /// Sectors of I/O for one rescale.
    step: i64,
    gathered: Box<[CachePadded<AtomicI64>]>,
    flush_at: i64,
    /// Below 0 a rescale is due.
    left: CachePadded<AtomicI64>,
    requests: AtomicU32,
    min_prio: AtomicU32,
}

impl Ageing {
    pub(crate) fn new(step: u64, cells: usize) -> Self {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let cells = cells.max(1);
        let flush_at = if cells == 1 { 0 } else { (step / (4 * cells as i64)).max(1) };
        Self {
            step,
            gathered: (0..cells).map(|_| CachePadded::new(AtomicI64::new(0))).collect(),
            flush_at,
            left: CachePadded::new(AtomicI64::new(0)),
            requests: AtomicU32::new(0),
            min_prio: AtomicU32::new(0),
        }
    }

    /// Counts I/O. `true` if a rescale became due and a reclaimer should be woken.
    pub(crate) fn account(&self, sectors: u64) -> bool {
        let sectors = i64::try_from(sectors).unwrap_or(i64::MAX);
        let cell = &self.gathered[hint::place(self.gathered.len())];
        // Relaxed (all in this function): counts, nothing is published with them.
        let mine = cell.fetch_add(sectors, Ordering::Relaxed).saturating_add(sectors);
        if mine < self.flush_at {
            return false;
        }
        let flushed = cell.swap(0, Ordering::Relaxed);
        if self.left.fetch_sub(flushed, Ordering::Relaxed) - flushed >= 0 {
            return false;
        }
        self.left.fetch_add(self.step, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Takes one request for a rescale, if there is one.
    pub(crate) fn take_request(&self) -> bool {
        let one_less = |n: u32| n.checked_sub(1);
        // Relaxed (both): the bell orders it.
        self.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// One pass over all devices.
    pub(crate) fn rescale(&self, devices: &[Device]) {
        let mut min: Option<Prio> = None;
        for device in devices {
            for bucket in device.geometry().buckets() {
                if let Some(prio) = device.table().rescale(bucket) {
                    min = Some(min.map_or(prio, |min| min.min(prio)));
                }
            }
        }
        if let Some(min) = min {
            // Relaxed: a hint.
            self.min_prio.store(min.get().into(), Ordering::Relaxed);
        }
    }

    /// Sectors left until the next rescale.
    pub(crate) fn left(&self) -> i64 {
        // Relaxed: a statistic.
        self.left.load(Ordering::Relaxed)
    }

    /// A tool brings the allocator into a state by hand.
    pub(crate) fn set(&self, left: Option<i64>, min_prio: Option<Prio>) {
        // Relaxed (both): hints.
        if let Some(left) = left {
            self.left.store(left, Ordering::Relaxed);
        }
        if let Some(min_prio) = min_prio {
            self.min_prio.store(min_prio.get().into(), Ordering::Relaxed);
        }
    }

    /// The smallest prio that the last rescale left.
    pub(crate) fn min_prio(&self) -> Prio {
        // Relaxed: a hint.
        Prio::new(self.min_prio.load(Ordering::Relaxed) as u16)
    }
}

#[cfg(all(test, not(tierce_loom)))]
mod tests {
    use super::*;

    /// The counter starts at 0 and fires below it, once per call, as the sequential
    /// specification has it: step 4.
    #[test]
    fn fires_once_per_call_below_zero() {
        let ageing = Ageing::new(4, 1);
        let fired: Vec<bool> = [1, 3, 1, 100, 0].map(|sectors| ageing.account(sectors)).into();
        assert_eq!(fired, [true, false, true, true, true]);
        assert_eq!((0..9).filter(|_| ageing.take_request()).count(), 4);
    }
}
