//! Ageing: what is not read becomes old.
//!
//! All I/O, reads and writes, counts down a set-wide counter. When it falls below 0, 1/1024 of
//! the set's size in sectors is added, once, and one *rescale pass* is due: every bucket that is
//! neither pinned nor metadata nor oldest already becomes one older, and `min_prio` becomes the
//! smallest prio that the pass left, or stays as it was if the pass found nothing to age. A
//! counter that is still negative brings the next caller's pass, so a burst of I/O is not
//! answered by a burst of passes.

use super::set::Set;
use crate::bucket::Prio;

impl Set {
    /// Accounts for `sectors` of I/O and makes the pass that it calls for. Returns whether there
    /// was one.
    pub fn account_io(&mut self, sectors: u64) -> bool {
        self.rescale = self.rescale.saturating_sub_unsigned(sectors);
        if self.rescale >= 0 {
            return false;
        }
        self.rescale = self.rescale.saturating_add_unsigned(self.rescale_step());
        self.age();
        true
    }

    /// Sectors of I/O that make everything one older: 1/1024 of the set.
    fn rescale_step(&self) -> u64 {
        let bucket_sectors = self.devices[0].options.geometry.bucket_sectors();
        self.nbuckets() * u64::from(bucket_sectors) / 1024
    }

    /// One rescale pass.
    fn age(&mut self) {
        let mut smallest = None::<Prio>;
        for word in self.devices.iter_mut().flat_map(|d| &mut d.words) {
            if let Some(next) = word.rescale() {
                *word = next;
                smallest = Some(smallest.map_or(next.prio(), |s| s.min(next.prio())));
            }
        }
        self.min_prio = smallest.unwrap_or(self.min_prio);
        self.counters.rescale_total += 1;
    }
}
