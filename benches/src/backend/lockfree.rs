//! The product: `tierce_lockfree::Allocator`, driven as its own users drive it.

use super::space::{Full, SectorWrite, Space, SpaceCounts};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tierce_core::{BucketId, DeviceIndex, Gen, Reserve};
use tierce_lockfree::{Allocation, Allocator, BucketRef, Config, DeviceTable, Extent, Gc, Gens};
use tierce_lockfree::{Reclaimer, SectorRequest, Step, WaitFor, WritePoint};

/// How long a reclaimer sleeps before it looks whether the measurement is over.
pub(super) const NAP: Duration = Duration::from_millis(20);

/// The allocator of this project.
///
/// ```
/// use tierce_bench::backend::{Full, Lockfree, Order, Space};
/// let space = Lockfree::start(&Full::new(1024, Order::Random));
/// space.reclaim();
/// space.written(space.try_alloc().expect("it reclaimed"));
/// assert!(space.counts().invalidated > 0);
/// ```
#[derive(Debug)]
pub struct Lockfree {
    allocator: Arc<Allocator>,
    /// One thread drives it at a time; no operation that is measured locks this.
    reclaimer: Mutex<Reclaimer>,
}

impl Lockfree {
    /// The allocator itself.
    #[must_use]
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// As [`Space::start`], with settings of one's own; `sync` is told by `full`.
    #[must_use]
    pub fn start_with(full: &Full, config: Config) -> Self {
        let gens = (0..full.nbuckets).map(|b| (full.prio(b), Gen::default()));
        let table = DeviceTable::empty(full.geometry()).with_sizes(full.sizes());
        let table = table.with_prios(Gens::from_iter(gens), Vec::new(), 0);
        let config = config.sync(full.sync);
        let mut startup = Allocator::start(config, vec![table]).expect("settings are constants");
        for bucket in full.buckets() {
            let id = BucketId::new(DeviceIndex::FIRST, bucket);
            let pointer = BucketRef::new(id, Gen::default());
            startup.observe(pointer, full.bucket_sectors, full.mark(bucket.get()));
        }
        let (allocator, mut reclaimers) = startup.finish();
        let reclaimer = reclaimers.pop().expect("one per device");
        Self { allocator, reclaimer: Mutex::new(reclaimer) }
    }

    /// A garbage collection in which all that is full is live, still to be finished.
    #[must_use]
    pub fn mark_all(&self) -> Option<Gc<'_>> {
        let gc = self.allocator.begin_gc().ok()?;
        let geometry = *self.allocator.geometry(DeviceIndex::FIRST);
        for bucket in geometry.buckets() {
            let id = BucketId::new(DeviceIndex::FIRST, bucket);
            let word = self.allocator.snapshot(id).expect("a bucket of the device");
            if word.pin_count() == 0 {
                let pointer = BucketRef::new(id, word.gen_());
                let _ = gc.mark(pointer, geometry.bucket_sectors(), word.mark());
            }
        }
        Some(gc)
    }

    /// Steps until it has to wait for room, or has ended.
    fn step_until_full(&self, reclaimer: &mut Reclaimer) -> Step {
        loop {
            match reclaimer.step() {
                Step::Wait(WaitFor::Gc) => self.collect(),
                Step::PrioWrite(mut write) => {
                    for set in (0..write.chain().len()).rev() {
                        write.encode(set, |prio, gen_| {
                            std::hint::black_box((prio, gen_));
                        });
                    }
                    assert!(write.confirm(), "nobody holds prio writes back");
                    reclaimer.prio_durable(write);
                }
                Step::Discard(bucket) => reclaimer.discarded(bucket),
                other => return other,
            }
        }
    }
}

impl Space for Lockfree {
    const NAME: &'static str = "lockfree";
    const PASSES: bool = true;
    const SECTORS: bool = true;
    const READS: bool = true;
    type Bucket<'a> = Allocation<'a>;
    type Extent<'a> = Extent<'a>;

    fn start(full: &Full) -> Self {
        Self::start_with(full, Config::default())
    }

    #[inline(always)]
    fn try_alloc(&self) -> Option<Allocation<'_>> {
        self.allocator.try_alloc(Reserve::None).expect("the device works")
    }

    fn alloc(&self) -> Allocation<'_> {
        let bucket = self.allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None);
        bucket.expect("the device works")
    }

    fn written<'a>(&'a self, bucket: Allocation<'a>) {
        bucket.written();
    }

    fn reclaim(&self) {
        let _ = self.step_until_full(&mut self.reclaimer.lock());
    }

    fn reclaim_until(&self, stop: &AtomicBool) {
        let mut reclaimer = self.reclaimer.lock();
        // Relaxed: nothing is published with it.
        while !stop.load(Ordering::Relaxed) {
            let _ = self.step_until_full(&mut reclaimer);
            if self.allocator.gc_due() {
                self.collect();
            }
            reclaimer.park(Some(Instant::now() + NAP));
        }
    }

    #[inline(always)]
    fn sectors(&self, write: &SectorWrite) -> Option<Extent<'_>> {
        let request = SectorRequest::new(8).write_point(WritePoint::new(write.write_point));
        let request = request.stream(write.inode, write.offset);
        self.allocator.try_alloc_sectors(&request).expect("the device works")
    }

    fn sectors_of(extent: &Extent<'_>) -> u32 {
        extent.sectors()
    }

    fn pointer(bucket: &Allocation<'_>) -> Option<BucketRef> {
        Some(bucket.bucket_ref())
    }

    fn read_hit(&self, pointer: BucketRef) -> bool {
        let open = self.allocator.begin_read().open(pointer);
        open.is_some_and(tierce_lockfree::OpenRead::validate)
    }

    fn account_io(&self, sectors: u32) {
        self.allocator.account_io(sectors);
    }

    fn collect(&self) {
        if let Some(gc) = self.mark_all() {
            gc.finish();
        }
    }

    fn counts(&self) -> SpaceCounts {
        let stats = self.allocator.stats();
        let device = &stats.devices[0];
        SpaceCounts {
            allocated: device.alloc_total.iter().sum(),
            invalidated: device.invalidate_total,
            rescales: stats.rescale_total,
        }
    }
}
