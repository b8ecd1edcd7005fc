//! Reading without pinning.
//!
//! # Problem
//!
//! A read hit must not write a line that other CPUs write, so it takes no pin. The bucket may
//! then be reused while its data is on the way; the reader has to notice, although a gen has
//! only 8 bits and wraps.
//!
//! # Protocol
//!
//! 1. `begin_read`: load the GC epoch (Acquire). *Then* look the key up.
//! 2. [`Read::open`]: the word's gen equals the pointer's (Acquire), else the pointer is stale.
//! 3. Do the I/O.
//! 4. [`OpenRead::validate`]: `fence(Acquire)`; load the gen; load the epoch; accept iff the gen
//!    is *equal* and the epoch advanced by less than 2.
//!
//! GC raises the epoch (Release) after its walk and *before* its first publish.
//!
//! # Why it is enough
//!
//! Let g be the gen that was checked in step 2. Then `last_gc` ≤ g ≤ gen, and a bucket's gen
//! never runs more than 96 ahead of its `last_gc`. Without a publish gen ≤ g + 96. A publish
//! whose snapshot was taken before step 2 sets `last_gc` ≤ g: still gen ≤ g + 96 (this covers a
//! collection half of whose publishes were done when the read began). At most one more publish
//! fits in before the epoch has advanced by 2; its snapshot saw gen ≤ g + 96, so afterwards
//! gen ≤ g + 192 < 256. An equal gen is therefore the same gen, not a wrapped one. ∎
//!
//! # Memory ordering
//!
//! Step 4's fence keeps the loads of the data (when they are plain loads of memory; a device
//! read completes before) above the loads of gen and epoch: a plain `load(Acquire)` of the gen
//! would let them sink below it. It pairs with the writer's order "gen advanced, then data
//! written": submitting the write to a device is such a barrier, memory devices put in a fence.
//!
//! # Progress
//!
//! Wait-free, and nobody waits for a reader: a hung I/O or a leaked guard delays no collection.

use crate::allocator::Allocator;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::table::Table;
use tierce_core::{Gen, Snapshot, broken};

use crate::bucket_ref::BucketRef;

/// A read that has begun: made *before* the key is looked up in the index.
///
/// ```
/// # use tierce_lockfree::{Allocator, Config, DeviceTable};
/// # use tierce_core::{Geometry, Reserve};
/// # let geometry = Geometry::new(1024, 1, 128, 1)?;
/// # let (allocator, mut reclaimers) =
/// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// # let bucket = allocator.try_alloc(Reserve::Btree)?.unwrap();
/// let read = allocator.begin_read();
/// let pointer = bucket.bucket_ref(); // what the index says
/// let open = read.open(pointer).expect("not stale");
/// // … the data is read from the device …
/// assert!(open.validate(), "the bucket was not reused meanwhile");
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a read that is not opened reads nothing"]
pub struct Read<'a> {
    allocator: &'a Allocator,
    epoch: u64,
}

/// A read whose pointer was valid when it was opened.
///
/// ```
/// # use tierce_lockfree::{Allocator, Config, DeviceTable};
/// # use tierce_core::{Geometry, Reserve};
/// # let geometry = Geometry::new(1024, 1, 128, 1)?;
/// # let (allocator, _reclaimers) =
/// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
/// # let bucket = allocator.try_alloc(Reserve::Btree)?.unwrap();
/// let open = allocator.begin_read().open(bucket.bucket_ref()).expect("not stale");
/// let data = [0; 512]; // from the device
/// let found = open.validate().then_some(data);
/// # assert!(found.is_some());
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "data may be used only if `validate` says so"]
pub struct OpenRead<'a> {
    read: Read<'a>,
    table: &'a Table,
    /// The bucket's, found when the read was opened.
    word: &'a AtomicU64,
    pointer: BucketRef,
}

impl<'a> Read<'a> {
    #[inline]
    pub(crate) fn begin(allocator: &'a Allocator) -> Self {
        Self { allocator, epoch: allocator.gc_state().epoch() }
    }

    /// `None` if `pointer` is stale, or names no bucket of this set. Wait-free; what is read after
    /// it is read after the gen.
    /// `None` if `pointer` is stale, or names no bucket of this set.
    #[inline]
    #[must_use]
    pub fn open(self, pointer: BucketRef) -> Option<OpenRead<'a>> {
        let table = self.allocator.table_of(pointer)?;
        let word = table.find(pointer.bucket())?;
        let is_current = Table::read_word(word).gen_() == pointer.gen_();
        let read = if broken!("read_epoch_late") { Self::begin(self.allocator) } else { self };
        is_current.then_some(OpenRead { read, table, word, pointer })
    }
}

impl OpenRead<'_> {
    /// Whether what was read since [`Read::open`] is what the pointer meant. If so the bucket
    /// counts as used just now; if not, the read is a miss and is counted as a read race.
    /// Wait-free. The data was read before the gen is looked at again.
    #[inline]
    #[must_use]
    pub fn validate(self) -> bool {
        let Read { allocator, epoch } = self.read;
        let now = word_after(self.word);
        let too_many = EPOCHS + u64::from(broken!("read_three_epochs"));
        let is_valid = is_same_life(now, self.pointer.gen_())
            && allocator.gc_state().epoch().wrapping_sub(epoch) < too_many;
        if !is_valid {
            self.count_race();
        } else if !self.table.is_fresh(now) {
            self.table.touch(self.pointer.bucket(), self.pointer.gen_());
        }
        is_valid
    }

    #[cold]
    fn count_race(&self) {
        self.read.allocator.counters().read_races.add(1);
    }
}

/// How many steps of the epoch are one too many, see the proof above.
const EPOCHS: u64 = 2;

/// The word after everything that was read before.
#[inline]
fn word_after(word: &AtomicU64) -> Snapshot {
    if !broken!("read_no_fence") {
        // Acquire: the data was read before the word is; pairs with whoever wrote the data of a
        // new life after the Release of `invalidate`.
        fence(Ordering::Acquire);
    }
    Table::read_word(word)
}

/// Whether a bucket with this word is in the life that a pointer with this gen means.
#[inline]
fn is_same_life(now: Snapshot, pointer: Gen) -> bool {
    if broken!("validate_by_staleness") {
        return !pointer.is_stale(now.gen_());
    }
    now.gen_() == pointer
}
