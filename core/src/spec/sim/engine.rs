//! What the runner needs of an allocator.

use super::super::{
    Allocation, Bump, DeviceOptions, Event, Extent, Figure, Gauges, Live, Marked, Options, Pass,
    Pointer, PrioWrite, Set, Slot, Started, Unused, Wait, Write,
};
use crate::bucket::{BucketId, BucketIndex, DeviceIndex, Gen};
use crate::error::Error;
use crate::policy::Policy;
use crate::reserve::Reserve;
use crate::word::Snapshot;

/// An allocator that scripts can drive. Each method does what the method of the same name of
/// [`Set`] does; devices and buckets that the runner names exist.
///
/// ```
/// use tierce_core::spec::sim::{Engine, Limits, run};
/// fn first_line<E: Engine>(script: &str) -> Option<String> {
///     let out = run::<E>(script, Limits::default()).ok()?;
///     out.lines().next().map(str::to_owned)
/// }
/// use tierce_core::spec::Set;
/// assert_eq!(first_line::<Set>("echo hello"), Some("echo hello".to_owned()));
/// ```
#[expect(clippy::missing_errors_doc, reason = "each as the method of Set that it is named for")]
pub trait Engine: Sized {
    /// A fresh set.
    fn create(options: Options, devices: Vec<DeviceOptions>) -> Result<Self, Error>;
    /// The set as it is opened again after a power loss.
    fn after_crash(&self) -> Result<Self, Error>;
    /// Finishes the start-up.
    fn start(&mut self) -> Result<Started, Error>;
    /// A live key found at start-up.
    fn observe(&mut self, pointer: Pointer, sectors: u32, live: Live) -> Result<Marked, Error>;
    /// Background work on a device until it can do nothing more.
    fn step(&mut self, device: DeviceIndex) -> Wait;

    /// One bucket of a device.
    fn alloc_on(&mut self, device: DeviceIndex, reserve: Reserve) -> Allocation;
    /// One bucket from each of `n` devices.
    fn alloc_set(&mut self, reserve: Reserve, n: usize) -> Result<Allocation<Vec<Pointer>>, Error>;
    /// Sectors of an open bucket.
    fn alloc_sectors(&mut self, write: Write) -> Result<Allocation<Extent>, Error>;
    /// Returns a bucket that was never written.
    fn give_back(&mut self, bucket: BucketId) -> Result<(), Error>;
    /// The short way to the free lists.
    fn unused(&mut self, bucket: BucketId) -> Result<Unused, Error>;

    /// One more pin.
    fn pin(&mut self, pointer: Pointer) -> bool;
    /// One pin fewer.
    fn unpin(&mut self, bucket: BucketId) -> Result<(), Error>;
    /// A read hit.
    fn touch(&mut self, pointer: Pointer) -> bool;
    /// Before the bucket may hold the only copy.
    fn mark_dirty(&mut self, bucket: BucketId) -> Result<(), Error>;
    /// The bucket's content is dead.
    fn free(&mut self, bucket: BucketId) -> Result<(), Error>;
    /// A freed index node's gen advances.
    fn bump_gen(&mut self, bucket: BucketId) -> Result<Bump, Error>;
    /// Accounts for I/O.
    fn account_io(&mut self, sectors: u64) -> bool;

    /// Begins a garbage collection.
    fn gc_begin(&mut self) -> Result<(), Error>;
    /// A live key.
    fn gc_mark(&mut self, pointer: Pointer, sectors: u32, live: Live) -> Result<Marked, Error>;
    /// Ends it.
    fn gc_finish(&mut self) -> Result<(), Error>;
    /// Ends it without a result.
    fn gc_abandon(&mut self) -> Result<(), Error>;
    /// Chooses and flags what moving GC moves.
    fn moving_candidates(&mut self, device: DeviceIndex) -> Result<Vec<BucketIndex>, Error>;

    /// One pass of the policy.
    fn invalidate(&mut self, device: DeviceIndex) -> Pass;
    /// Writes the table of a device.
    fn prio_write(&mut self, device: DeviceIndex) -> PrioWrite;
    /// Holds prio writes back.
    fn prio_block(&mut self) -> u32;
    /// Lets them go on.
    fn prio_unblock(&mut self) -> Result<u32, Error>;
    /// Another policy.
    fn set_policy(&mut self, device: DeviceIndex, policy: Policy) -> Result<(), Error>;
    /// Takes a device out.
    fn fail_device(&mut self, device: DeviceIndex, cause: &str) -> Result<(), Error>;

    /// Direct store of a bucket's state.
    fn store(&mut self, bucket: BucketId, word: Snapshot) -> Result<(), Error>;
    /// Direct store of a durable gen.
    fn store_durable(&mut self, bucket: BucketId, durable: Gen) -> Result<(), Error>;
    /// Direct store of a figure.
    fn store_figure(&mut self, device: DeviceIndex, figure: Figure) -> Result<(), Error>;
    /// Empties `free_inc`.
    fn clear_free_inc(&mut self, device: DeviceIndex) -> Result<usize, Error>;

    /// A bucket's state, its pins as its users see them.
    fn word(&self, bucket: BucketId) -> Snapshot;
    /// A free list, oldest first.
    fn list(&self, device: DeviceIndex, reserve: Reserve) -> Vec<BucketIndex>;
    /// What waits to become durable, oldest first.
    fn free_inc(&self, device: DeviceIndex) -> Vec<BucketIndex>;
    /// Set-wide figures.
    fn gauges(&self) -> Gauges;
    /// Whether the device waits for a garbage collection.
    fn needs_gc(&self, device: DeviceIndex) -> bool;
    /// FIFO's cursor.
    fn fifo_next(&self, device: DeviceIndex) -> u32;
    /// Sectors handed out.
    fn sectors_written(&self, device: DeviceIndex) -> u64;
    /// Discards asked for.
    fn discards(&self, device: DeviceIndex) -> u64;
    /// Slots that were used, least recently used first.
    fn slots(&self) -> Vec<Slot>;
    /// How many slots were never used.
    fn unused_slots(&self) -> usize;
    /// What happened since the last call.
    fn take_events(&mut self) -> Vec<Event>;
    /// Checks the invariants.
    fn check(&self) -> Result<(), Error>;
}

/// Writes the methods that only pass on to the method of the same name.
macro_rules! delegate {
    ($(fn $name:ident(&mut self $(, $arg:ident: $type:ty)*) -> $result:ty;)*) => {
        $(fn $name(&mut self $(, $arg: $type)*) -> $result { Set::$name(self $(, $arg)*) })*
    };
}

impl Engine for Set {
    delegate! {
        fn start(&mut self) -> Result<Started, Error>;
        fn observe(&mut self, p: Pointer, sectors: u32, live: Live) -> Result<Marked, Error>;
        fn step(&mut self, device: DeviceIndex) -> Wait;
        fn alloc_on(&mut self, device: DeviceIndex, reserve: Reserve) -> Allocation;
        fn alloc_set(&mut self, r: Reserve, n: usize) -> Result<Allocation<Vec<Pointer>>, Error>;
        fn alloc_sectors(&mut self, write: Write) -> Result<Allocation<Extent>, Error>;
        fn give_back(&mut self, bucket: BucketId) -> Result<(), Error>;
        fn unused(&mut self, bucket: BucketId) -> Result<Unused, Error>;
        fn pin(&mut self, pointer: Pointer) -> bool;
        fn unpin(&mut self, bucket: BucketId) -> Result<(), Error>;
        fn touch(&mut self, pointer: Pointer) -> bool;
        fn mark_dirty(&mut self, bucket: BucketId) -> Result<(), Error>;
        fn free(&mut self, bucket: BucketId) -> Result<(), Error>;
        fn bump_gen(&mut self, bucket: BucketId) -> Result<Bump, Error>;
        fn account_io(&mut self, sectors: u64) -> bool;
        fn gc_begin(&mut self) -> Result<(), Error>;
        fn gc_mark(&mut self, p: Pointer, sectors: u32, live: Live) -> Result<Marked, Error>;
        fn gc_finish(&mut self) -> Result<(), Error>;
        fn gc_abandon(&mut self) -> Result<(), Error>;
        fn moving_candidates(&mut self, d: DeviceIndex) -> Result<Vec<BucketIndex>, Error>;
        fn invalidate(&mut self, device: DeviceIndex) -> Pass;
        fn prio_write(&mut self, device: DeviceIndex) -> PrioWrite;
        fn prio_block(&mut self) -> u32;
        fn prio_unblock(&mut self) -> Result<u32, Error>;
        fn set_policy(&mut self, device: DeviceIndex, policy: Policy) -> Result<(), Error>;
        fn fail_device(&mut self, device: DeviceIndex, cause: &str) -> Result<(), Error>;
        fn store(&mut self, bucket: BucketId, word: Snapshot) -> Result<(), Error>;
        fn store_durable(&mut self, bucket: BucketId, durable: Gen) -> Result<(), Error>;
        fn store_figure(&mut self, device: DeviceIndex, f: Figure) -> Result<(), Error>;
        fn clear_free_inc(&mut self, device: DeviceIndex) -> Result<usize, Error>;
        fn take_events(&mut self) -> Vec<Event>;
    }

    fn create(options: Options, devices: Vec<DeviceOptions>) -> Result<Self, Error> {
        Self::new(options, devices)
    }

    fn after_crash(&self) -> Result<Self, Error> {
        Self::after_crash(self)
    }

    fn word(&self, bucket: BucketId) -> Snapshot {
        Self::word(self, bucket).unwrap_or_default()
    }

    fn list(&self, device: DeviceIndex, reserve: Reserve) -> Vec<BucketIndex> {
        Self::list(self, device, reserve).collect()
    }

    fn free_inc(&self, device: DeviceIndex) -> Vec<BucketIndex> {
        Self::free_inc(self, device).collect()
    }

    fn gauges(&self) -> Gauges {
        Self::gauges(self)
    }

    fn needs_gc(&self, device: DeviceIndex) -> bool {
        Self::needs_gc(self, device)
    }

    fn fifo_next(&self, device: DeviceIndex) -> u32 {
        Self::fifo_next(self, device)
    }

    fn sectors_written(&self, device: DeviceIndex) -> u64 {
        Self::sectors_written(self, device)
    }

    fn discards(&self, device: DeviceIndex) -> u64 {
        Self::discards(self, device)
    }

    fn slots(&self) -> Vec<Slot> {
        Self::slots(self).collect()
    }

    fn unused_slots(&self) -> usize {
        Self::unused_slots(self)
    }

    fn check(&self) -> Result<(), Error> {
        Self::check(self)
    }
}
