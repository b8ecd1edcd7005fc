//! Handles by which the models of `loom-tests` reach the parts that are private otherwise. They
//! add nothing to what they wrap, except [`lives`]; they exist only under `--cfg tierce_loom`.

use crate::ageing::{AgeClock, Ageing};
use crate::allocator::Allocator;
use crate::sync::Arc;
use crate::victims::crew;
use crate::{attention, cells, counter, owner, pile, prio_block, reserves, ring, table};
use tierce_core::word::Purpose;
use tierce_core::{
    AgeEpoch, BucketId, BucketIndex, DeviceIndex, Gen, Mark, Prio, Reserve, Sizes, Snapshot,
};

/// A table of words, and what makes them age.
#[derive(Debug)]
pub struct Table(table::Table, Ageing);

impl Table {
    /// With these words.
    #[must_use]
    pub fn new(words: &[Snapshot]) -> Self {
        Self::at(AgeEpoch::FIRST, words)
    }

    /// With these words at this age epoch.
    #[must_use]
    pub fn at(epoch: AgeEpoch, words: &[Snapshot]) -> Self {
        let clock = Arc::new(AgeClock::at(epoch));
        let table = table::Table::new(words.iter().copied(), Arc::clone(&clock));
        Self(table, Ageing::new(1, 1, clock))
    }

    /// The word, with its prio.
    #[must_use]
    pub fn read(&self, bucket: BucketIndex) -> Snapshot {
        self.0.snapshot(bucket)
    }

    /// As a pass of the policy sees its prio, which has the age epoch from before.
    #[must_use]
    pub fn read_at(&self, epoch: AgeEpoch, bucket: BucketIndex) -> Snapshot {
        epoch.reveal(self.0.peek(bucket))
    }

    /// The age epoch.
    #[must_use]
    pub fn epoch(&self) -> AgeEpoch {
        self.0.epoch()
    }

    /// The word after it, with its stamp, if it could be taken.
    #[must_use]
    pub fn invalidate(&self, bucket: BucketIndex) -> Option<Snapshot> {
        self.0.invalidate(bucket).map(|invalidated| invalidated.after)
    }

    /// Whether the gen was the pointer's.
    #[must_use]
    pub fn pin(&self, bucket: BucketIndex, pointer: Gen) -> bool {
        self.pinned(bucket, pointer).is_some()
    }

    /// As [`pin`](Self::pin): the word that it left.
    #[must_use]
    pub fn pinned(&self, bucket: BucketIndex, pointer: Gen) -> Option<Snapshot> {
        self.0.pin(bucket, pointer)
    }

    /// One pin fewer.
    pub fn unpin(&self, bucket: BucketIndex) {
        self.0.unpin(bucket, 1);
    }

    /// Whether it had exactly one pin.
    #[must_use]
    pub fn allocate(&self, bucket: BucketIndex) -> bool {
        self.0.allocate(bucket, Purpose::Data, 8).is_ok()
    }

    /// Holds the only copy of something.
    pub fn mark_dirty(&self, bucket: BucketIndex) {
        self.0.mark_dirty(bucket);
    }

    /// A read hit.
    pub fn touch(&self, bucket: BucketIndex, pointer: Gen) {
        self.0.touch(bucket, pointer);
    }

    /// Its content is dead; `false` if the gen has moved.
    pub fn free(&self, bucket: BucketIndex, pointer: Gen) -> bool {
        self.0.free(bucket, pointer)
    }

    /// Whether it took the short way.
    #[must_use]
    pub fn unused(&self, bucket: BucketIndex, pointer: Gen) -> bool {
        self.0.unused(bucket, pointer, pointer).is_some()
    }

    /// Whether the gen advanced, as that of an index node that its owner frees.
    #[must_use]
    pub fn bump_gen(&self, bucket: BucketIndex, pointer: Gen) -> bool {
        self.0.bump_gen(bucket, pointer, pointer).is_ok()
    }

    /// The word as a prio write encodes it.
    #[must_use]
    pub fn read_for_prios(&self, bucket: BucketIndex) -> Snapshot {
        self.0.read_for_prios(bucket)
    }

    /// Asks for a rescale.
    pub fn request_rescale(&self) {
        assert!(self.1.account(2), "a step is one sector");
    }

    /// Makes those that are due, unless somebody is making them. Returns how many it made.
    pub fn rescale_due(&self) -> u32 {
        self.1.rescale_due([&self.0].into_iter())
    }

    /// The smallest prio that a rescale left.
    #[must_use]
    pub fn min_prio(&self) -> Prio {
        self.1.min_prio()
    }

    /// What a collection found.
    pub fn gc_publish(&self, bucket: BucketIndex, start: Snapshot, mark: Mark, oldest: Gen) {
        self.0.gc_publish(bucket, start, mark, 8, oldest);
    }
}

/// Who holds prio writes back.
#[derive(Debug)]
pub struct PrioBlocks(prio_block::PrioBlocks);

impl Default for PrioBlocks {
    fn default() -> Self {
        Self(prio_block::PrioBlocks::new())
    }
}

impl PrioBlocks {
    /// One more.
    pub fn take(&self) {
        self.0.take();
    }

    /// One fewer.
    pub fn leave(&self) {
        self.0.leave();
    }

    /// The state, if there is nobody.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        self.0.free()
    }

    /// Whether nobody came since.
    #[must_use]
    pub fn unchanged(&self, before: u64) -> bool {
        self.0.unchanged(before)
    }
}

/// Cells.
#[derive(Debug)]
pub struct Cells(cells::Cells);

impl Cells {
    /// Empty.
    #[must_use]
    pub fn new(rows: usize, per_row: usize) -> Self {
        let attention = Arc::new(attention::Attention::new(None));
        Self(cells::Cells::new(rows, per_row, attention))
    }

    /// From this thread's row, else from any other.
    #[must_use]
    pub fn pop(&self) -> Option<BucketIndex> {
        self.0.pop().or_else(|| self.0.pop_anywhere())
    }

    /// Whether there was room in any row.
    #[must_use]
    pub fn push(&self, bucket: BucketIndex) -> bool {
        self.0.push(bucket).is_done() || self.0.push_anywhere(bucket)
    }
}

/// Cells that can be near, and those who wait for a bucket. Threads get CPUs, and rows, in the
/// order in which they first come.
#[derive(Debug)]
pub struct NearCells(cells::Cells, Arc<attention::Attention>);

impl NearCells {
    /// Empty, and shared.
    #[must_use]
    pub fn new(rows: usize, per_row: usize) -> Self {
        let section = crate::section::Section::modelled();
        let attention = Arc::new(attention::Attention::new(Some(section)));
        Self(cells::Cells::new(rows, per_row, Arc::clone(&attention)), attention)
    }

    /// Makes them near, if nobody objects.
    pub fn open(&self) {
        self.1.open();
    }

    /// From this thread's row.
    #[must_use]
    pub fn pop(&self) -> Option<BucketIndex> {
        self.0.pop()
    }

    /// From any row.
    #[must_use]
    pub fn pop_anywhere(&self) -> Option<BucketIndex> {
        self.0.pop_anywhere()
    }

    /// From any row, as a thread of which the kernel knows nothing.
    #[must_use]
    pub fn pop_as_visitor(&self) -> Option<BucketIndex> {
        self.0.pop_as_visitor()
    }

    /// Whether there was room in this thread's row.
    #[must_use]
    pub fn push(&self, bucket: BucketIndex) -> bool {
        self.0.push(bucket).is_done()
    }

    /// Whether there was room in any row, the first ones first.
    #[must_use]
    pub fn push_anywhere(&self, bucket: BucketIndex) -> bool {
        self.0.push_anywhere(bucket)
    }

    /// Whether there was room in this thread's row; and if so, whether the pusher, who looks as
    /// he must, has seen that somebody waits.
    #[must_use]
    pub fn push_and_look(&self, bucket: BucketIndex) -> Option<bool> {
        match self.0.push(bucket) {
            cells::Pushed::Not => None,
            cells::Pushed::Near => Some(false),
            cells::Pushed::Shared => Some(self.1.after_cell() & attention::WAITING != 0),
        }
    }

    /// Somebody is going to sleep, and looks once more.
    pub fn wait(&self) {
        self.1.set(attention::WAITING);
    }
}

/// The slot of an open bucket, which can be near, and whose word is changed by the real code.
/// Threads get CPUs in the order in which they first come.
#[derive(Debug)]
pub struct NearSlot(crate::sectors::Slot);

impl NearSlot {
    /// With bucket 5 open in it, of which nothing is handed out, and shared.
    #[must_use]
    pub fn new() -> Self {
        let slot = crate::sectors::Slot::new(Self::section());
        let id = BucketId::new(DeviceIndex::FIRST, BucketIndex::new(5));
        let pointer = crate::BucketRef::new(id, tierce_core::Gen::new(0));
        let closed = slot.tag().word;
        assert!(
            slot.replace(Self::section(), closed, closed.opened(pointer, false)),
            "nobody else has it"
        );
        Self(slot)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as slots are told")]
    fn section() -> Option<crate::section::Section> {
        Some(crate::section::Section::modelled())
    }

    /// Makes it near to this thread's CPU, if nobody objects.
    pub fn bring_near(&self) {
        self.0.bring_near();
    }

    /// One of its 16 units: which. As often as it takes.
    #[must_use]
    pub fn take(&self) -> u32 {
        loop {
            let word = self.0.read();
            let crate::sectors::slot::Take::Units { off, next, .. } = word.take(1, 16, 1) else {
                unreachable!("there is room")
            };
            if self.0.replace(Self::section(), word, next) {
                return off;
            }
            crate::sync::yield_now();
        }
    }
}

impl Default for NearSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// The queue behind the cells.
#[derive(Debug)]
pub struct Ring(ring::Ring);

impl Ring {
    /// Empty.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(ring::Ring::new(capacity))
    }

    /// The oldest item.
    #[must_use]
    pub fn pop(&self) -> Option<u32> {
        self.0.pop()
    }

    /// Whether there was room.
    #[must_use]
    pub fn push(&self, item: u32) -> bool {
        self.0.push(item).is_ok()
    }

    /// Several, of which it returns how many there was room for.
    #[must_use]
    pub fn push_some(&self, items: &[u32]) -> usize {
        self.0.push_some(items.iter().copied())
    }

    /// How many were pushed.
    #[must_use]
    pub fn inserts(&self) -> u64 {
        self.0.inserts()
    }
}

/// What is kept from the lists.
#[derive(Debug, Default)]
pub struct Pile(pile::Pile);

impl Pile {
    /// Puts a bucket on top.
    pub fn put(&self, bucket: u32) {
        self.0.put(BucketIndex::new(bucket));
    }

    /// All that was put, the oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<u32> {
        self.0.take().into_iter().map(BucketIndex::get).collect()
    }
}

/// What those who give back must look at.
#[derive(Debug)]
pub struct Attention(attention::Attention);

impl Default for Attention {
    fn default() -> Self {
        Self(attention::Attention::new(None))
    }
}

impl Attention {
    /// Somebody is going to sleep, and looks once more.
    pub fn wait(&self) {
        self.0.set(attention::WAITING);
    }

    /// Whether somebody sleeps, for who inserted into a queue.
    #[must_use]
    pub fn somebody_waits(&self) -> bool {
        self.0.after() & attention::WAITING != 0
    }

    /// Whether somebody sleeps, for who inserted into a cell.
    #[must_use]
    pub fn somebody_waits_for_a_cell(&self) -> bool {
        self.0.after_cell() & attention::WAITING != 0
    }
}

/// A count, and who owns the numbers under which it is kept.
#[derive(Debug)]
pub struct Count(owner::Owners, counter::Counts<1>);

impl Default for Count {
    fn default() -> Self {
        Self(owner::Owners::new(), counter::Counts::new(1))
    }
}

impl Count {
    /// One more, by a thread that lives for just that.
    pub fn add_and_end(&self) {
        let number = self.0.take();
        self.1.add_as(number, 0, 1);
        if let Some(number) = number {
            self.0.give_up(number);
        }
    }

    /// One more, by a thread without a number.
    pub fn add_without_number(&self) {
        self.1.add_as(None, 0, 1);
    }

    /// The sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.1.total(0)
    }
}

/// The free lists of a device.
#[derive(Debug)]
pub struct Reserves(reserves::Reserves);

/// What a pop found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popped {
    /// This one, and maybe one that found no place on its way.
    Bucket(BucketIndex, Option<BucketIndex>),
    /// At some instant nothing was free.
    Empty,
    /// Buckets were being carried.
    MoversSeen,
}

impl Reserves {
    /// Empty.
    #[must_use]
    pub fn new(sizes: &Sizes, cpus: u32) -> Self {
        let attention = Arc::new(attention::Attention::new(None));
        Self(reserves::Reserves::new(sizes, cpus, attention))
    }

    /// A bucket, or why not.
    #[must_use]
    pub fn pop(&self, reserve: Reserve) -> Popped {
        match self.0.pop(reserve) {
            Ok(found) => Popped::Bucket(found.free.bucket, found.spare),
            Err(empty) if empty.movers_seen => Popped::MoversSeen,
            Err(_) => Popped::Empty,
        }
    }

    /// Puts a ready bucket onto a list.
    pub fn release(&self, bucket: BucketIndex) {
        self.0.release(bucket).expect("there is room");
    }

    /// Puts a bucket back where this thread finds it.
    pub fn give_back(&self, bucket: BucketIndex) {
        self.0.give_back(reserves::Free::none(bucket)).expect("there is room");
    }
}

/// Lets `bucket` be invalidated and released up to `n` times in one step: as if nobody else
/// came to run meanwhile. Stops where invalidation refuses. Returns how often it was.
///
/// A gen wraps after 256 lives; step by step no model could go that far.
pub fn lives(allocator: &Allocator, bucket: BucketId, n: u32) -> u32 {
    allocator.devices()[bucket.device().as_usize()].table().lives(bucket.bucket(), n)
}

/// Invalidates `bucket` as the reclaimer does, if it can be.
#[must_use]
pub fn invalidate(allocator: &Allocator, bucket: BucketId) -> bool {
    let device = &allocator.devices()[bucket.device().as_usize()];
    device.table().invalidate(bucket.bucket()).is_some()
}

/// Gives back the pin of an invalidated bucket, as its new owner would.
pub fn unpin(allocator: &Allocator, bucket: BucketId) {
    allocator.devices()[bucket.device().as_usize()].table().unpin(bucket.bucket(), 1);
}

/// Drops the pin of a guard.
pub fn drop_pin(allocator: &Allocator, bucket: BucketId) {
    let device = &allocator.devices()[bucket.device().as_usize()];
    device.pin_dropped(device.table().unpin(bucket.bucket(), 1));
}

/// How many free buckets of the device are kept from its lists.
#[must_use]
pub fn set_aside(allocator: &Allocator, device: DeviceIndex) -> u64 {
    allocator.devices()[device.as_usize()].kept()
}

/// Asks for a collection that begins later than those that have finished. Returns how many have.
pub fn ask_for_collection(allocator: &Allocator) -> u64 {
    let finished = allocator.gc_state().finished();
    allocator.gc_state().need_after(finished);
    finished
}

/// How many collections have finished.
#[must_use]
pub fn collections(allocator: &Allocator) -> u64 {
    allocator.gc_state().finished()
}

/// How far the gen of `bucket` has run ahead of the last collection.
#[must_use]
pub fn lag(allocator: &Allocator, bucket: BucketId) -> u8 {
    let device = &allocator.devices()[bucket.device().as_usize()];
    device.table().peek(bucket.bucket()).gc_gen()
}

/// Makes an invalidated bucket free, as the reclaimer does when its gen is durable.
pub fn release(allocator: &Allocator, bucket: BucketId) {
    let device = &allocator.devices()[bucket.device().as_usize()];
    device.release(bucket.bucket()).expect("there is room");
}

/// As the bucket's owner does before it holds the only copy of something.
pub fn mark_dirty(allocator: &Allocator, bucket: BucketId) {
    allocator.devices()[bucket.device().as_usize()].table().mark_dirty(bucket.bucket());
}

/// The threads of a pass, whose phases all have the same name.
#[derive(Debug)]
pub struct Crew(crew::Crew);

impl Default for Crew {
    fn default() -> Self {
        Self::new()
    }
}

impl Crew {
    /// Nothing to do yet.
    #[must_use]
    pub fn new() -> Self {
        Self(crew::Crew::new())
    }

    /// A phase of so many pieces.
    pub fn lead(&self, pieces: usize, work: impl FnMut(usize)) {
        self.0.lead(crew::Phase::Scan, pieces, work);
    }

    /// Does pieces until the crew is closed.
    pub fn help(&self, mut work: impl FnMut(usize)) {
        self.0.help(|_phase, piece| work(piece));
    }

    /// No phase follows.
    pub fn close(&self) {
        self.0.close();
    }
}
