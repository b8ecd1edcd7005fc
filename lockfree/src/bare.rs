//! The cells alone, for benchmarks: what of an allocation is finding a bucket and putting it
//! back. Not part of the interface.

use crate::cells;
use tierce_core::BucketIndex;

/// One CPU's row of cells.
#[derive(Debug)]
pub struct Cells(cells::Cells);

impl Default for Cells {
    fn default() -> Self {
        Self::new()
    }
}

impl Cells {
    /// One that is full.
    ///
    /// ```
    /// let cells = tierce_lockfree::bare::Cells::new();
    /// assert!(cells.pop().is_some_and(|bucket| cells.push(bucket)));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        let cells = cells::Cells::new(1, cells::PLACES);
        let full = (0..cells::PLACES as u32).all(|bucket| cells.push(BucketIndex::new(bucket)));
        assert!(full, "nobody else fills it");
        Self(cells)
    }

    /// A bucket from it.
    #[inline]
    #[must_use]
    pub fn pop(&self) -> Option<BucketIndex> {
        self.0.pop()
    }

    /// Whether there was room.
    #[inline]
    #[must_use]
    pub fn push(&self, bucket: BucketIndex) -> bool {
        self.0.push(bucket)
    }
}
