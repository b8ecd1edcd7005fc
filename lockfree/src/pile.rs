//! A pile of buckets onto which anybody puts and which one thread clears away.
//!
//! # Problem
//!
//! A free bucket that must not or cannot go on a list goes to the reclaimer: one on which there is
//! a foreign pin, and one for which no list has room. Whoever allocates or gives back meets
//! both, and may not wait for a lock there, least of all for one whose holder has no CPU. There
//! is no bound but the number of buckets, and nearly always there are none.
//!
//! # State and protocol
//!
//! The head of a list of nodes on the heap, null if there are none.
//!
//! put: exchange the head for the new node if it still is what the node was linked to; if not, link the
//! node to what it is now and begin again.
//! take: exchange the head for null; all nodes are now the taker's own.
//!
//! Nobody takes single nodes, so a head that came back is the same list again: no ABA, and
//! nobody else reads a node that was taken, so the taker may free them.
//!
//! # Memory ordering
//!
//! Putting is Release, taking Acquire: the taker sees the nodes, and the word of each bucket, as
//! they were put. A putter need not acquire: he does not look into the node below his, and
//! his exchange continues the release sequence of who put it.
//!
//! Whether there is anything is a relaxed look, for those who have a fence in front of it; see
//! `Device::set_aside`. The count is for statistics.
//!
//! # Progress
//!
//! put: lock-free, but for the heap's allocator. take: wait-free.

#![cfg_attr(not(tierce_loom), expect(unsafe_code, reason = "nodes on the heap, see above"))]

use crate::sync::{AtomicPtr, AtomicU64, Ordering};
use core::ptr;
use tierce_core::{BucketIndex, broken};

#[derive(Debug)]
struct Node {
    bucket: BucketIndex,
    below: *mut Node,
}

/// An unbounded pile.
#[derive(Debug)]
pub(crate) struct Pile {
    head: AtomicPtr<Node>,
    count: AtomicU64,
}

impl Default for Pile {
    fn default() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()), count: AtomicU64::new(0) }
    }
}

impl Pile {
    /// Puts a bucket on top.
    #[cold]
    pub(crate) fn put(&self, bucket: BucketIndex) {
        let order = if broken!("pile_put_relaxed") {
            Ordering::Relaxed
        } else {
            // Release: publishes node and word; pairs with the Acquire in `take`.
            Ordering::Release
        };
        // Relaxed: counted before it can be taken, for those who only want to know about how many.
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut below = ptr::null_mut(); // a guess, mostly right
        let node = Box::into_raw(Box::new(Node { bucket, below }));
        // Relaxed (failure): what the head points to is not looked at.
        while let Err(head) = self.head.compare_exchange_weak(below, node, order, Ordering::Relaxed)
        {
            below = head;
            // SAFETY: made above, and nobody else knows of it yet.
            unsafe { (*node).below = below };
        }
    }

    /// All that was put, the oldest first.
    pub(crate) fn take(&self) -> Vec<BucketIndex> {
        let order = if broken!("pile_take_relaxed") {
            Ordering::Relaxed
        } else {
            // Acquire: pairs with the Release in `put`.
            Ordering::Acquire
        };
        let mut buckets = Vec::new();
        if self.is_empty() {
            return buckets; // without a write to a line that all read
        }
        let mut at = self.head.swap(ptr::null_mut(), order);
        while !at.is_null() {
            // SAFETY: `put` made it of a box, and the exchange made it ours alone.
            let node = unsafe { Box::from_raw(at) };
            buckets.push(node.bucket);
            at = node.below;
        }
        // Relaxed: a statistic.
        self.count.fetch_sub(buckets.len() as u64, Ordering::Relaxed);
        buckets.reverse();
        buckets
    }

    /// Whether there was nothing a moment ago.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: who has to know for certain has a fence before it.
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// About how many there are.
    pub(crate) fn len(&self) -> u64 {
        // Relaxed: a statistic.
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Pile {
    fn drop(&mut self) {
        self.take();
    }
}

#[cfg(test)]
#[cfg(not(any(tierce_loom, tierce_shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_comes_first() {
        let pile = Pile::default();
        assert_eq!((pile.take(), pile.is_empty(), pile.len()), (vec![], true, 0));
        let buckets = [3, 1, 2].map(BucketIndex::new);
        buckets.into_iter().for_each(|bucket| pile.put(bucket));
        assert_eq!((pile.is_empty(), pile.len()), (false, 3));
        assert_eq!((pile.take(), pile.is_empty(), pile.len()), (buckets.to_vec(), true, 0));
        pile.put(buckets[0]); // dropped with the pile
    }

    #[test]
    fn what_many_put_comes_out_once() {
        const THREADS: u32 = 4;
        const EACH: u32 = if cfg!(miri) { 50 } else { 5000 };
        let pile = Pile::default();
        let mut taken = Vec::new();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let pile = &pile;
                let put = move |n| pile.put(BucketIndex::new(thread * EACH + n));
                scope.spawn(move || (0..EACH).for_each(put));
            }
            while taken.len() < (THREADS * EACH) as usize {
                taken.extend(pile.take());
                std::thread::yield_now();
            }
        });
        for thread in 0..THREADS {
            let of_thread = |bucket: &&BucketIndex| bucket.get() / EACH == thread;
            let in_order = taken.iter().filter(of_thread).map(|bucket| bucket.get() % EACH);
            assert!(in_order.eq(0..EACH), "of thread {thread}: each once, in order");
        }
        assert!(pile.is_empty());
    }
}
