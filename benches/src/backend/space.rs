//! What an allocator must offer to be measured here.
//!
//! Implement [`Space`] for anything that hands out buckets. Items without a default are needed;
//! the others say "not offered", and rows that need them are left out.
//! `benches/examples/backend.rs` is a whole one.

use std::sync::atomic::AtomicBool;
use tierce_core::draws::Draws;
use tierce_core::{BucketIndex, Geometry, Mark, Prio, Sizes};
use tierce_lockfree::BucketRef;

/// How old the buckets are that a device is full of when it is started.
///
/// ```
/// use tierce_bench::backend::{Full, Order};
/// let full = Full::new(1024, Order::Random);
/// assert_ne!(full.prio(5), full.prio(6));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Each prio equally likely.
    Random,
    /// All the same.
    Equal,
    /// The higher the bucket's number the older it is: each beats all that a scan met before.
    Descending,
    /// As random, but 9 of 10 hold dirty data, which may not be thrown away.
    Ineligible,
}

/// A device full of data, as every backend starts with it: the same shape, the same sizes of
/// the free lists, the same policy (LRU), nothing free yet.
///
/// ```
/// use tierce_bench::backend::{Full, Order};
/// let full = Full { none: 4096, ..Full::new(65536, Order::Random) };
/// assert_eq!(full.sizes().none, 4096);
/// assert_eq!(full.geometry().nbuckets(), 65536);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "built with struct update syntax from `new`")]
pub struct Full {
    /// Buckets of the device.
    pub nbuckets: u32,
    /// Sectors of a bucket, a power of two.
    pub bucket_sectors: u32,
    /// How many free buckets the common list holds; 0 for the default of this size of device.
    pub none: u32,
    /// How old its buckets are.
    pub order: Order,
    /// Whether gens are made durable, by prio writes, before buckets are reused.
    pub sync: bool,
}

impl Full {
    /// Buckets of 512 KiB, default sizes.
    #[must_use]
    pub const fn new(nbuckets: u32, order: Order) -> Self {
        Self { nbuckets, bucket_sectors: 1024, none: 0, order, sync: false }
    }

    /// The device's shape.
    ///
    /// # Panics
    ///
    /// If there is no device of this shape: settings of the harness are constants.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        let shape = Geometry::new(self.nbuckets, 1, self.bucket_sectors, 8);
        shape.expect("the harness asks for shapes that exist")
    }

    /// The sizes of its lists.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let mut sizes = Sizes::tierce(&self.geometry(), 0);
        if self.none > 0 {
            // A pass has to bring what the lists hold, or a refill would take many passes.
            (sizes.none, sizes.free_inc) = (self.none, self.none);
            sizes.candidates = 2 * self.none;
        }
        sizes
    }

    /// The prio of a bucket.
    #[must_use]
    pub fn prio(&self, bucket: u32) -> Prio {
        let span = u32::from(Prio::FRESH.get()) + 1;
        let prio = match self.order {
            Order::Equal => u32::from(Prio::FRESH.get()),
            Order::Descending => {
                let place = u64::from(self.nbuckets - 1 - bucket) * u64::from(span);
                (place / u64::from(self.nbuckets)) as u32
            }
            Order::Random | Order::Ineligible => Draws::new(bucket.into()).below(span),
        };
        Prio::new(prio as u16)
    }

    /// What a bucket holds.
    #[must_use]
    pub fn mark(&self, bucket: u32) -> Mark {
        match self.order {
            Order::Ineligible if !bucket.is_multiple_of(10) => Mark::Dirty,
            _ => Mark::Reclaimable,
        }
    }

    /// All buckets that can be allocated.
    pub fn buckets(&self) -> impl Iterator<Item = BucketIndex> + use<> {
        self.geometry().buckets()
    }
}

/// A request for sectors.
///
/// ```
/// use tierce_bench::backend::SectorWrite;
/// let next = SectorWrite { offset: 8, ..SectorWrite::default() };
/// assert_eq!((next.inode, next.write_point), (0, 0));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[expect(clippy::exhaustive_structs, reason = "built with struct update syntax")]
pub struct SectorWrite {
    /// Whose data. For backends that look at it.
    pub inode: u64,
    /// Where in it, in sectors. For backends that look at it.
    pub offset: u64,
    /// Who writes.
    pub write_point: u32,
}

/// What a backend counted since it was started.
///
/// ```
/// assert_eq!(tierce_bench::backend::SpaceCounts::default().allocated, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[expect(clippy::exhaustive_structs, reason = "every backend fills it")]
pub struct SpaceCounts {
    /// Buckets handed out, those given back included.
    pub allocated: u64,
    /// Buckets invalidated.
    pub invalidated: u64,
    /// Rescale passes.
    pub rescales: u64,
}

/// An allocator under test, of one device that is full of data.
///
/// Backends have [`try_alloc`](Self::try_alloc) and [`sectors`](Self::sectors) always inlined, as
/// where somebody calls their allocators himself: what is handed on through memory, in other
/// pieces than it is read in, costs as much as an atomic operation.
///
/// ```
/// use tierce_bench::backend::{FifoQueue, Full, Order, Space};
/// let space = FifoQueue::start(&Full::new(1024, Order::Random));
/// let bucket = space.try_alloc().expect("full of data that may be overwritten");
/// space.written(bucket);
/// ```
pub trait Space: Sync + Sized {
    /// How tables name it.
    const NAME: &'static str;

    /// Whether it chooses victims by passes, ages buckets, and counts both: P3, P5, P6.
    const PASSES: bool = false;

    /// Whether [`sectors`](Self::sectors) does something: P7.
    const SECTORS: bool = false;

    /// Whether [`pointer`](Self::pointer) and [`read_hit`](Self::read_hit) do something: P8.
    const READS: bool = false;

    /// A bucket in somebody's hands. Dropping it gives it back unwritten.
    type Bucket<'a>
    where
        Self: 'a;

    /// Sectors of an open bucket in somebody's hands. Dropping it lets them go: what was written
    /// is findable, and the bucket may be reused when its turn comes. `Infallible` where there
    /// are none.
    type Extent<'a>
    where
        Self: 'a;

    /// Starts on such a device. Nothing is free before [`reclaim`](Self::reclaim).
    fn start(full: &Full) -> Self;

    /// A free bucket, or nothing.
    fn try_alloc(&self) -> Option<Self::Bucket<'_>>;

    /// A free bucket as soon as there is one; somebody else runs
    /// [`reclaim_until`](Self::reclaim_until).
    fn alloc(&self) -> Self::Bucket<'_>;

    /// The bucket has content: it may be reused when its turn comes.
    fn written<'a>(&'a self, bucket: Self::Bucket<'a>);

    /// Reclaims until the free lists are full.
    fn reclaim(&self) {}

    /// Reclaims whenever the lists run low, until `stop`: one thread's work.
    fn reclaim_until(&self, stop: &AtomicBool) {
        let _ = stop;
    }

    /// Takes 8 sectors of an open bucket; nothing if no bucket is free.
    fn sectors(&self, write: &SectorWrite) -> Option<Self::Extent<'_>> {
        let _ = write;
        None
    }

    /// How many sectors it got.
    fn sectors_of(extent: &Self::Extent<'_>) -> u32 {
        let _ = extent;
        0
    }

    /// The pointer to a bucket, if reads are checked by gens.
    fn pointer(bucket: &Self::Bucket<'_>) -> Option<BucketRef> {
        let _ = bucket;
        None
    }

    /// A read hit: the check before, the check after, the touch. Whether the data may be used.
    fn read_hit(&self, pointer: BucketRef) -> bool {
        let _ = pointer;
        false
    }

    /// Counts I/O, by which buckets age.
    fn account_io(&self, sectors: u32) {
        let _ = sectors;
    }

    /// One garbage collection by which every bucket stays what it is.
    fn collect(&self) {}

    /// What it counted.
    fn counts(&self) -> SpaceCounts {
        SpaceCounts::default()
    }
}
