//! Every legal change of a bucket's word: the table at the top of [`super`].

use super::{BUSY, ONE_PIN, PIN_LIMIT, Purpose, Snapshot};
use crate::broken;
use crate::bucket::{GC_GEN_LIMIT, Gen, Mark, Prio};

/// The transitions.
impl Snapshot {
    /// Whether [`invalidate`](Self::invalidate) would succeed.
    #[must_use]
    pub fn can_invalidate(self) -> bool {
        let busy = if broken!("invalidate_pinned") {
            BUSY & (ONE_PIN - 1)
        } else if broken!("invalidate_dirty") {
            BUSY & !(ONE_PIN - 1)
        } else {
            BUSY
        };
        self.0 & busy == 0 && (self.gc_gen() < GC_GEN_LIMIT || broken!("invalidate_far"))
    }

    /// Takes the bucket for reuse: every pointer into it becomes stale.
    #[must_use]
    pub fn invalidate(self) -> Option<Self> {
        if !self.can_invalidate() {
            return None;
        }
        Some(self.with_gen(self.gen_().next()).with_prio(Prio::FRESH).with_pin(1))
    }

    /// One more pin for a holder of a pointer with gen `pointer`.
    #[must_use]
    pub const fn pin(self, pointer: Gen) -> Option<Self> {
        if self.gen_().get() != pointer.get() || self.pin_count() >= PIN_LIMIT {
            return None;
        }
        Some(Self(self.0 + ONE_PIN))
    }

    /// `n` pins fewer. `None` means somebody returned a pin that he did not hold.
    #[must_use]
    pub const fn unpin(self, n: u16) -> Option<Self> {
        match self.0.checked_sub(n as u64 * ONE_PIN) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// Leaves a free list: `sectors` is the size of the bucket.
    ///
    /// `None` if the pin is not exactly 1: a forged or corrupt pointer has pinned it, and the
    /// bucket has to be set aside until that pin is gone.
    #[must_use]
    pub const fn allocate(self, purpose: Purpose, sectors: u32) -> Option<Self> {
        if self.pin_count() != 1 {
            return None;
        }
        Some(
            self.with_mark(purpose.mark())
                .with_prio(purpose.prio())
                .with_sectors(sectors)
                .with_moving(false),
        )
    }

    /// The bucket is about to hold the only copy of something. `None` if nothing would change.
    #[must_use]
    pub const fn dirty(self) -> Option<Self> {
        match self.mark() {
            Mark::Dirty | Mark::Metadata => None,
            Mark::None | Mark::Reclaimable => Some(self.with_mark(Mark::Dirty)),
        }
    }

    /// A read hit through a pointer with gen `pointer`.
    #[must_use]
    pub const fn touch(self, pointer: Gen) -> Option<Self> {
        match self.prio() {
            Prio::FRESH | Prio::METADATA => None,
            _ if self.gen_().get() == pointer.get() => Some(self.with_prio(Prio::FRESH)),
            _ => None,
        }
    }

    /// One step of ageing.
    #[must_use]
    pub const fn rescale(self) -> Option<Self> {
        if self.pin_count() != 0 {
            return None;
        }
        match self.prio().aged() {
            Some(prio) => Some(self.with_prio(prio)),
            None => None,
        }
    }

    /// Garbage collection's result for a bucket whose word was `start` when its walk began:
    /// `oldest` is the oldest gen of any pointer seen, `mark` and `sectors` what is live.
    ///
    /// A bucket that was pinned then or was reused since keeps its mark: the walk may have
    /// missed keys that were inserted behind it.
    #[must_use]
    pub const fn gc_publish(self, start: Self, mark: Mark, sectors: u32, oldest: Gen) -> Self {
        let next = self.with_last_gc(oldest);
        if start.pin_count() != 0 || start.gen_().get() != self.gen_().get() {
            return next;
        }
        next.with_mark(mark).with_sectors(sectors)
    }

    /// The bucket was taken in vain and goes back to a free list, its gen unchanged.
    ///
    /// What a free bucket's mark and sectors say means nothing: it is pinned, so nobody chooses
    /// it, and allocation sets both. One that was invalidated keeps those of its last content; one
    /// that was taken for data stays as it was taken, so that who takes it next need not change
    /// its word. Only marks that would count as content in statistics are cleared.
    #[must_use]
    pub const fn give_back(self) -> Self {
        match self.mark() {
            Mark::Reclaimable => self,
            Mark::None | Mark::Dirty | Mark::Metadata => self.free().with_prio(Prio::FRESH),
        }
    }

    /// What the bucket holds is dead. The gen stays: reuse goes through invalidation.
    #[must_use]
    pub const fn free(self) -> Self {
        self.with_mark(Mark::None).with_sectors(0)
    }

    /// [`invalidate`](Self::invalidate) for a bucket into which no durable record points, only
    /// while the gen on the device, `durable`, is the gen in memory: so at most once per prio
    /// write.
    #[must_use]
    pub fn unused(self, durable: Gen) -> Option<Self> {
        if self.gen_().get() != durable.get() && !broken!("unused_twice") {
            return None;
        }
        self.invalidate().map(|next| next.with_mark(Mark::None))
    }

    /// The gen of a metadata bucket that its owner frees advances by one; `durable` is its gen
    /// on the device.
    ///
    /// `None`: the gen has run too far ahead, a garbage collection or a prio write has to come
    /// first.
    #[must_use]
    pub fn bump_gen(self, durable: Gen) -> Option<Self> {
        let far = self.gc_gen() >= GC_GEN_LIMIT || self.gen_().since(durable) >= GC_GEN_LIMIT;
        if far && !broken!("bump_gen_far") {
            return None;
        }
        Some(self.with_gen(self.gen_().next()))
    }
}
