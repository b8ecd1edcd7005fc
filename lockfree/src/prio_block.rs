//! Holding prio writes back while an index node is replaced.
//!
//! # Problem
//!
//! The owner of an index frees a node by advancing its bucket's gen: every pointer to it becomes
//! stale at once. If that gen became durable before the node's replacement, a crash would leave
//! neither. So the owner holds prio writes back from before he advances the gen until the
//! replacement is durable.
//!
//! # State
//!
//! One word for the set, `version:32 | holders:32`. Taking a [`PrioBlock`] adds one to both,
//! dropping it subtracts from the holders.
//!
//! # Protocol
//!
//! Owner: 1. take the guard; 2. `fence(SeqCst)`; 3. advance the gen; 4. make the replacement
//! durable; 5. drop the guard.
//! Writer: 1. load the word; wait unless it has no holders; 2. encode every set;
//! 3. `fence(SeqCst)`; 4. load the word again: unless it is *the same* the table may contain
//! a gen that must not become durable yet: wait, and encode and write everything again
//! ([`PrioWrite::confirm`](crate::PrioWrite::confirm)). Only then the journal may name it.
//!
//! Proof sketch. Let a table be published that contains a gen advanced under a guard which was
//! still held then. Of the two fences one comes first. If the owner's, the writer's second load
//! sees the guard's addition; it was not there at the first load (a holder makes the writer wait,
//! and the guard was not dropped since), so the words differ, and the writer starts again: a
//! contradiction. If the writer's, its encoding read the word before the gen advanced: the
//! table does not contain it. ∎ The version makes the words differ also when a guard was taken
//! *and* dropped in between: that table may mix sets from before and after. It wraps after 2³²
//! guards during one prio write.
//!
//! # Memory ordering
//!
//! Taking: Relaxed, the fence orders it. Dropping: Release, pairs with the writer's Acquire load
//! in step 1: a writer that sees no holder writes after the replacement became durable.
//!
//! # Progress
//!
//! Taking and dropping: wait-free. The writer waits for holders, and can be made to start again
//! by each new one; owners hold guards for as long as a journal write takes.

use crate::allocator::Allocator;
use crate::bucket_ref::BucketRef;
use crate::sync::{AtomicU64, Ordering, fence};
use crossbeam_utils::CachePadded;
use tierce_core::{Gen, broken};

/// One holder, and one version further.
const TAKEN: u64 = 1 << 32 | 1;
const HOLDERS: u64 = (1 << 32) - 1;

/// Who holds prio writes back.
#[derive(Debug)]
pub(crate) struct PrioBlocks(CachePadded<AtomicU64>);

impl PrioBlocks {
    /// Nobody.
    pub(crate) fn new() -> Self {
        Self(CachePadded::new(AtomicU64::new(0)))
    }

    /// The state, for [`unchanged`](Self::unchanged), if nobody holds prio writes back.
    pub(crate) fn free(&self) -> Option<u64> {
        // Acquire: pairs with the Release in `leave`.
        let word = self.0.load(Ordering::Acquire);
        (word & HOLDERS == 0 || broken!("prio_block_ignored")).then_some(word)
    }

    /// Whether nobody came since [`free`](Self::free) said `before`: called after the encoding.
    pub(crate) fn unchanged(&self, before: u64) -> bool {
        if !broken!("prio_block_no_writer_fence") {
            // SeqCst: of this fence and the one in `take` one comes first, see above.
            fence(Ordering::SeqCst);
        }
        // Relaxed: ordered by the fence.
        let now = self.0.load(Ordering::Relaxed);
        if broken!("prio_block_no_version") {
            return now & HOLDERS == 0;
        }
        now == before
    }

    /// How many hold prio writes back.
    pub(crate) fn holders(&self) -> u32 {
        // Relaxed: a statistic.
        (self.0.load(Ordering::Relaxed) & HOLDERS) as u32
    }

    /// One more.
    pub(crate) fn take(&self) {
        // Relaxed: ordered by the fence.
        self.0.fetch_add(TAKEN, Ordering::Relaxed);
        if !broken!("prio_block_no_owner_fence") {
            // SeqCst: pairs with the fence in `unchanged`.
            fence(Ordering::SeqCst);
        }
    }

    /// One fewer; `true` if it was the last.
    pub(crate) fn leave(&self) -> bool {
        let order = if broken!("prio_block_leave_relaxed") {
            Ordering::Relaxed
        } else {
            // Release: pairs with the Acquire in `free`.
            Ordering::Release
        };
        let before = self.0.fetch_sub(1, order);
        assert!(before & HOLDERS > 0, "a block is returned once");
        before & HOLDERS == 1
    }
}

/// Holds all prio writes of a set back. Taken before the gen of a node is advanced, dropped when
/// the node's replacement is durable.
///
/// ```
/// # use tierce_core::{Gen, Geometry, Reserve};
/// # use tierce_lockfree::{Allocator, BucketRef, Bump, Config, DeviceTable, Step, WaitFor};
/// # let geometry = Geometry::new(1024, 1, 128, 1)?;
/// # let (allocator, mut reclaimers) =
/// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// let node = allocator.try_alloc(Reserve::Btree)?.expect("filled at start");
/// let pointer = node.bucket_ref();
/// node.written();
/// // … much later the node is replaced by another:
/// let block = allocator.prio_block();
/// assert_eq!(block.bump_gen(pointer), Bump::Bumped(Gen::new(2)));
/// allocator.free(BucketRef::new(pointer.id(), Gen::new(2)));
/// assert!(matches!(reclaimers[0].step(), Step::Wait(WaitFor::PrioBlock)));
/// // … and when what names the other one is durable:
/// drop(block);
/// assert!(matches!(reclaimers[0].step(), Step::PrioWrite(_)));
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "prio writes go on when it is dropped"]
pub struct PrioBlock<'a> {
    allocator: &'a Allocator,
}

/// What became of a request to advance the gen of a node that is being freed.
///
/// ```
/// use tierce_lockfree::Bump;
/// assert_ne!(Bump::MustGc, Bump::Stale);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a node whose gen could not advance stays allocated"]
pub enum Bump {
    /// Done; this is the gen now.
    Bumped(Gen),
    /// The gen has run 96 ahead of the last garbage collection or of the durable gen: one of
    /// these has to come first, and the node stays allocated.
    MustGc,
    /// The pointer is stale: somebody freed the node already.
    Stale,
}

impl Allocator {
    /// Holds all prio writes back until the guard is dropped. Wait-free.
    pub fn prio_block(&self) -> PrioBlock<'_> {
        self.prio_blocks().take();
        PrioBlock { allocator: self }
    }

    /// A [`PrioBlock`] was returned: reclaimers that waited for it go on.
    pub(crate) fn prio_unblock(&self) {
        if self.prio_blocks().leave() {
            self.devices().iter().for_each(crate::device::Device::unblocked);
        }
    }
}

impl PrioBlock<'_> {
    /// Advances the gen of the metadata bucket of `pointer`, which its owner is freeing: every
    /// pointer to it is stale from now on. Takes the short lock of [`Allocator::unused`].
    pub fn bump_gen(&self, pointer: BucketRef) -> Bump {
        self.allocator.bump_gen(pointer)
    }
}

impl Drop for PrioBlock<'_> {
    fn drop(&mut self) {
        self.allocator.prio_unblock();
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn whoever_came_and_went_is_noticed() {
        let blocks = PrioBlocks::new();
        let before = blocks.free().expect("nobody yet");
        assert!(blocks.unchanged(before));
        blocks.take();
        blocks.take();
        assert_eq!((blocks.free(), blocks.holders()), (None, 2));
        assert!(!blocks.leave());
        assert!(!blocks.unchanged(before));
        assert!(blocks.leave());
        assert!(!blocks.unchanged(before), "the version has moved");
        assert!(blocks.free().is_some_and(|now| blocks.unchanged(now)));
    }
}
