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

    /// A bucket from this CPU's.
    #[inline]
    #[must_use]
    pub fn pop(&self) -> Option<BucketIndex> {
        self.0.pop()
    }

    /// Whether there was room.
    #[inline]
    #[must_use]
    pub fn push(&self, bucket: BucketIndex) -> bool {
        self.0.push(bucket).is_done()
    }
}
