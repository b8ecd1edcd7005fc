//! What a writer asks for.

use tierce_core::Reserve;

/// Whose writes belong together: a hash of task, thread, tenant … as the user likes.
///
/// ```
/// use tierce_lockfree::WritePoint;
/// assert_ne!(WritePoint::new(1), WritePoint::new(2));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct WritePoint(pub(super) u64);

impl From<u64> for WritePoint {
    /// As [`new`](Self::new), for a hash of 64 bits.
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl WritePoint {
    /// The write point with this number.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number as u64)
    }
}

/// Space that was asked for: sectors and whose they are.
///
/// ```
/// use tierce_lockfree::{SectorRequest, WritePoint};
/// let request = SectorRequest::new(8).write_point(WritePoint::new(3)).stream(7, 1000);
/// assert_eq!(request.sectors(), 8);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SectorRequest {
    pub(super) sectors: u32,
    pub(super) write_point: WritePoint,
    pub(super) inode: u64,
    pub(super) offset: u64,
    pub(super) flash_only: bool,
    pub(super) write_prio: bool,
}

impl SectorRequest {
    /// `sectors` sectors, at least 1, of cached data, for write point 0, not continuing
    /// anything.
    ///
    /// # Panics
    ///
    /// If `sectors` is 0.
    #[inline]
    #[must_use]
    pub const fn new(sectors: u32) -> Self {
        assert!(sectors > 0, "at least one sector");
        Self {
            sectors,
            write_point: WritePoint(0),
            inode: 0,
            offset: 0,
            flash_only: false,
            write_prio: false,
        }
    }

    /// What is written begins at sector `offset` of the data of `inode`: a write that begins
    /// where the last one ended goes to the same bucket, whatever its write point.
    #[inline]
    #[must_use]
    pub const fn stream(self, inode: u64, offset: u64) -> Self {
        Self { inode, offset, ..self }
    }

    /// Whether the data lives only on flash. It never shares a bucket with cached data, which can
    /// be thrown away.
    #[inline]
    #[must_use]
    pub const fn flash_only(self, flash_only: bool) -> Self {
        Self { flash_only, ..self }
    }

    /// Whether moving GC writes: then its bucket may come from its reserve.
    #[inline]
    #[must_use]
    pub const fn write_prio(self, write_prio: bool) -> Self {
        Self { write_prio, ..self }
    }

    pub(super) const fn reserve(&self) -> Reserve {
        if self.write_prio { Reserve::MovingGc } else { Reserve::None }
    }

    /// For this write point.
    #[inline]
    #[must_use]
    pub const fn write_point(self, write_point: WritePoint) -> Self {
        Self { write_point, ..self }
    }

    /// How many sectors are asked for.
    #[inline]
    #[must_use]
    pub const fn sectors(&self) -> u32 {
        self.sectors
    }
}
