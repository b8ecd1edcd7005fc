//! The cells alone, for benchmarks: what of an allocation is finding a bucket and putting it
//! back. Not part of the interface.

use crate::attention::Attention;
use crate::cells;
use crate::section::Section;
use crate::sync::{Arc, cpus};
use tierce_core::BucketIndex;

/// The rows of all CPUs, near if that is possible.
#[derive(Debug)]
pub struct Cells(cells::Cells);

impl Default for Cells {
    fn default() -> Self {
        Self::new()
    }
}

impl Cells {
    /// All full.
    ///
    /// ```
    /// let cells = tierce_lockfree::bare::Cells::new();
    /// assert!(cells.pop().is_some_and(|bucket| cells.push(bucket)));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        let attention = Arc::new(Attention::new(Section::find(cpus())));
        let cells = cells::Cells::new(cpus(), cells::PLACES, Arc::clone(&attention));
        let all = cells.capacity() as u32;
        let full = (0..all).all(|bucket| cells.push_anywhere(BucketIndex::new(bucket)));
        assert!(full, "nobody else fills it");
        attention.open();
        Self(cells)
    }

    /// A bucket from this CPU's; whoever is interrupted meanwhile takes it from wherever there is one.
    /// `None` if there is none.
    #[inline]
    #[must_use]
    pub fn pop(&self) -> Option<BucketIndex> {
        self.0.pop().or_else(|| self.pop_elsewhere())
    }

    #[cold]
    fn pop_elsewhere(&self) -> Option<BucketIndex> {
        self.0.pop_anywhere()
    }

    /// Into this CPU's; whoever came to another one since [`pop`](Self::pop), whose are full, puts it
    /// where there is room. `false` if there is none.
    #[inline]
    #[must_use]
    pub fn push(&self, bucket: BucketIndex) -> bool {
        self.0.push(bucket).is_done() || self.push_elsewhere(bucket)
    }

    #[cold]
    fn push_elsewhere(&self, bucket: BucketIndex) -> bool {
        self.0.push_anywhere(bucket)
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    /// As if the thread came to another CPU each time.
    #[test]
    fn what_is_not_here_and_has_no_room_here_is_elsewhere() {
        let cells = Cells::new();
        let all: Vec<_> = core::iter::from_fn(|| cells.pop()).collect();
        assert_eq!(all.len(), cells.0.capacity());
        assert!(all.iter().all(|&bucket| cells.push(bucket)));
        assert!(!cells.push(all[0]), "all are full");
    }
}
