//! The one file that names atomics, threads, cells or the model checker.
//!
//! Everything else in this crate imports from here, so that `--cfg tierce_loom` swaps the whole
//! crate onto loom's versions and the models in `loom-tests` run the real code. Every
//! workaround for the checker lives here too:
//!
//! * loom's threads cannot sleep until a deadline: under the model [`park_until`] sleeps until
//!   it is woken.
//! * loom's `unpark` also wakes a thread that waits for a lock, which then fails to have it: the
//!   model parks on a lock and a condition of its own, which order as much as std's do.
//! * what chooses an open bucket is a dozen relaxed words that order nothing, but would multiply
//!   the orders to look at: [`unmodelled`] keeps them out.
//! * loom does not see into crossbeam's `ArrayQueue` (it uses atomics of its own), so the model
//!   replaces [`Queue`] by its contract: a bounded list whose push and pop each are one step,
//!   behind a relaxed branch point so that the checker may switch threads before them. The
//!   lock in it orders more than `ArrayQueue` promises, so no model relies on it: what must be
//!   ordered around an empty queue is ordered by fences, and the models of those use cells.

#[cfg(not(tierce_loom))]
mod imp {
    pub(crate) use core::sync::atomic::{
        AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use std::sync::{Arc, MutexGuard, OnceLock};
    pub(crate) use std::thread::{Thread, current, park};
    pub(crate) use std::thread_local;

    use std::time::Instant;

    /// A bounded queue that many may push to and pop from. Not lock-free: an operation can wait
    /// for another thread that was stopped in the middle of its own.
    pub(crate) type Queue = crossbeam_queue::ArrayQueue<u32>;

    /// A lock for the paths that wait anyway. A holder that panicked leaves the data as it was
    /// between two statements, which every user here can live with, so poison is ignored.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    /// Sleeps until unparked or until `deadline`; may also return for no reason.
    pub(crate) fn park_until(deadline: Option<Instant>) {
        match deadline {
            None => park(),
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    std::thread::park_timeout(left);
                }
            }
        }
    }

    /// How many threads can run at once.
    pub(crate) fn cpus() -> usize {
        std::thread::available_parallelism().map_or(1, core::num::NonZero::get)
    }
}

#[cfg(tierce_loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{
        AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use loom::sync::{Arc, MutexGuard};
    pub(crate) use loom::thread_local;

    use std::collections::VecDeque;
    use std::time::Instant;

    #[derive(Debug)]
    pub(crate) struct Queue {
        items: Mutex<VecDeque<u32>>,
        capacity: usize,
        branch: AtomicU32,
    }

    impl Queue {
        pub(crate) fn new(capacity: usize) -> Self {
            assert!(capacity > 0);
            Self { items: Mutex::new(VecDeque::new()), capacity, branch: AtomicU32::new(0) }
        }

        pub(crate) fn push(&self, item: u32) -> Result<(), u32> {
            // Relaxed: only a point at which the checker may switch threads.
            self.branch.load(Ordering::Relaxed);
            let mut items = self.items.lock();
            if items.len() == self.capacity {
                return Err(item);
            }
            items.push_back(item);
            Ok(())
        }

        pub(crate) fn pop(&self) -> Option<u32> {
            // Relaxed: only a point at which the checker may switch threads.
            self.branch.load(Ordering::Relaxed);
            self.items.lock().pop_front()
        }

        pub(crate) fn len(&self) -> usize {
            self.items.lock().len()
        }

        pub(crate) fn capacity(&self) -> usize {
            self.capacity
        }
    }

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("a model does not unwind through a lock")
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    /// A thread that can be parked.
    #[derive(Clone, Debug)]
    pub(crate) struct Thread(Arc<(loom::sync::Mutex<bool>, loom::sync::Condvar)>);

    thread_local! {
        static CURRENT: Thread = Thread(Arc::new((
            loom::sync::Mutex::new(false),
            loom::sync::Condvar::new(),
        )));
    }

    pub(crate) fn current() -> Thread {
        CURRENT.with(Clone::clone)
    }

    impl Thread {
        pub(crate) fn unpark(&self) {
            *self.0.0.lock().expect("nobody unwinds") = true;
            self.0.1.notify_one();
        }
    }

    pub(crate) fn park_until(_deadline: Option<Instant>) {
        let Thread(parker) = current();
        let mut unparked = parker.0.lock().expect("nobody unwinds");
        while !*unparked {
            unparked = parker.1.wait(unparked).expect("nobody unwinds");
        }
        *unparked = false;
    }

    pub(crate) fn cpus() -> usize {
        2
    }
}

/// Atomics that the checker does not see: for hints, which are accessed by relaxed loads and
/// stores only and decide nothing that matters.
pub(crate) mod unmodelled {
    pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64};
}

pub(crate) use imp::*;
