//! The naive lock-free answer: all buckets in one bounded queue, reused in the order in which
//! they were written. No policy, no gens, no reserves, no crash rule, and no fair waiting: what
//! it reaches is a limit for others, not an allocator anybody could use.

use super::space::{Full, Space};
use crossbeam_queue::ArrayQueue;

/// A bare `ArrayQueue` of buckets.
///
/// ```
/// use tierce_bench::backend::{FifoQueue, Full, Order, Space};
/// let space = FifoQueue::start(&Full::new(1024, Order::Equal));
/// drop(space.try_alloc());
/// ```
#[derive(Debug)]
pub struct FifoQueue {
    buckets: ArrayQueue<u32>,
}

/// A bucket of the queue.
#[derive(Debug)]
pub struct Queued<'a> {
    queue: &'a ArrayQueue<u32>,
    bucket: u32,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        // Every bucket has its place: this never finds the queue full.
        let _ = self.queue.push(self.bucket);
    }
}

impl Space for FifoQueue {
    const NAME: &'static str = "fifo-queue";
    type Bucket<'a> = Queued<'a>;
    type Extent<'a> = std::convert::Infallible;

    fn start(full: &Full) -> Self {
        let buckets = ArrayQueue::new(full.nbuckets as usize);
        for bucket in full.buckets() {
            buckets.push(bucket.get()).expect("every bucket has its place");
        }
        Self { buckets }
    }

    #[inline(always)]
    fn try_alloc(&self) -> Option<Queued<'_>> {
        let bucket = self.buckets.pop()?;
        Some(Queued { queue: &self.buckets, bucket })
    }

    fn alloc(&self) -> Queued<'_> {
        loop {
            match self.try_alloc() {
                Some(bucket) => return bucket,
                None => std::thread::yield_now(),
            }
        }
    }

    fn written<'a>(&'a self, bucket: Queued<'a>) {
        drop(bucket);
    }
}
