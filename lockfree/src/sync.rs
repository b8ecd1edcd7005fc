//! The one file that names atomics, threads, cells or the model checker.
//!
//! Everything else in this crate imports from here, so that `--cfg tierce_loom` swaps the whole
//! crate onto loom's versions and the models in `loom-tests` run the real code; likewise
//! `--cfg tierce_shuttle` and shuttle's, for the random schedules of `shuttle-tests`. Every
//! workaround for the checkers lives here too:
//!
//! * their threads cannot sleep until a deadline: under a checker [`park_until`] sleeps until
//!   it is woken.
//! * loom's `unpark` also wakes a thread that waits for a lock, which then fails to have it: the
//!   model parks on a lock and a condition of its own, which order as much as std's do.
//! * The queue (`ring.rs`) has a model of its own. Everywhere else the model replaces [`Queue`] by
//!   its contract, or there would be too many orders to look at: a bounded list whose push and
//!   pop each are one step, behind a relaxed branch point so that the checker may switch threads
//!   before them. The lock in it orders more than the ring promises, so no model relies on it:
//!   the models of what must be ordered around an empty list use cells.
//! * loom takes sequentially consistent accesses for acquire and release ones. Where such a load
//!   stands in for a fence ([`load_after_rmw`]) the model has the fence.
//! * what chooses an open bucket is a dozen relaxed words that order nothing, but would multiply
//!   the orders to look at: [`unmodelled`] keeps them out.
//! * what is static lives as long as one execution under a checker, so that each begins alike:
//!   [`execution_static`] declares it.

#[cfg(not(any(tierce_loom, tierce_shuttle)))]
mod imp {
    pub(crate) use core::sync::atomic::{
        AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use std::sync::{Arc, MutexGuard, OnceLock};
    pub(crate) use std::thread::{Thread, current, park, yield_now};
    pub(crate) use std::thread_local;

    use std::time::Instant;

    /// Declares a static value.
    macro_rules! execution_static {
        ($name:ident: $type:ty = $value:expr) => {
            static $name: $type = $value;
        };
    }
    pub(crate) use execution_static;

    /// How many threads can own a number at once.
    pub(crate) const OWNERS: usize = 64;

    /// A bounded queue that many may push to and pop from.
    pub(crate) type Queue = crate::ring::Ring;

    /// Loads `word` after a SeqCst read-modify-write of the same thread on *another* word, as if
    /// a SeqCst fence stood between them; [`crate::attention`] has the proof. It pairs with a
    /// SeqCst fence between a write to `word` and reads of the other word.
    #[inline]
    pub(crate) fn load_after_rmw(word: &AtomicU64) -> u64 {
        // SeqCst: a plain load on x86, and after the read-modify-write in the total order.
        word.load(Ordering::SeqCst)
    }

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

        /// The lock, unless somebody else has it.
        pub(crate) fn try_lock(&self) -> Option<std::sync::MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(std::sync::TryLockError::WouldBlock) => None,
            }
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

    /// A break before the next look at what another thread is about to change: short at first.
    /// Who has looked for 0.1 to 0.4 ms sleeps between looks, so that the other one gets a CPU.
    pub(crate) fn look_again(looks: &mut u32) {
        // 15 to 50 ns each, by the processor.
        const SHORT_BREAKS: u32 = 8000;
        if *looks < SHORT_BREAKS {
            *looks += 1;
            core::hint::spin_loop();
        } else {
            std::thread::sleep(std::time::Duration::from_micros(50));
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
        AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use loom::sync::{Arc, MutexGuard};
    pub(crate) use loom::thread::yield_now;
    pub(crate) use loom::thread_local;

    use std::time::Instant;

    macro_rules! execution_static {
        ($name:ident: $type:ty = $value:expr) => {
            loom::lazy_static! {
                static ref $name: $type = $value;
            }
        };
    }
    pub(crate) use execution_static;

    /// A model has at most 5 threads, and each of their counts is an object of it.
    pub(crate) const OWNERS: usize = 4;

    /// See the twin: the checker knows only fences to order that.
    pub(crate) fn load_after_rmw(word: &AtomicU64) -> u64 {
        // SeqCst: stands in for the SeqCst order of the two accesses.
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the fence.
        word.load(Ordering::Relaxed)
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

        pub(crate) fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
            self.0.try_lock().ok()
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

    /// See the twin: to the checker every look is the last for now.
    pub(crate) fn look_again(_looks: &mut u32) {
        yield_now();
    }

    pub(crate) fn cpus() -> usize {
        2
    }
}

#[cfg(tierce_shuttle)]
mod imp {
    pub(crate) use shuttle::sync::MutexGuard;
    pub(crate) use shuttle::sync::atomic::{
        AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use shuttle::thread::{Thread, current, yield_now};
    pub(crate) use shuttle::thread_local;
    pub(crate) use std::sync::Arc;

    use std::time::Instant;

    pub(crate) const OWNERS: usize = 8;

    /// The real thing: its accesses are shuttle's.
    pub(crate) type Queue = crate::ring::Ring;

    /// All accesses are sequentially consistent here.
    pub(crate) fn load_after_rmw(word: &AtomicU64) -> u64 {
        // SeqCst: shuttle knows no other.
        word.load(Ordering::SeqCst)
    }

    macro_rules! execution_static {
        ($name:ident: $type:ty = $value:expr) => {
            shuttle::lazy_static! {
                static ref $name: $type = $value;
            }
        };
    }
    pub(crate) use execution_static;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    pub(crate) fn park_until(_deadline: Option<Instant>) {
        shuttle::thread::park();
    }

    /// See the twin: to the checker every look is the last for now.
    pub(crate) fn look_again(_looks: &mut u32) {
        yield_now();
    }

    pub(crate) fn cpus() -> usize {
        2
    }
}

/// What stands for the queue under the model checker.
#[cfg(tierce_loom)]
mod modelled {
    use super::imp::{AtomicU32, Mutex, Ordering};
    use std::collections::VecDeque;
    use tierce_core::broken;

    #[derive(Debug)]
    pub(crate) struct Queue {
        items: Mutex<(VecDeque<u32>, u64)>,
        capacity: usize,
        branch: AtomicU32,
    }

    impl Queue {
        pub(crate) fn new(capacity: usize) -> Self {
            assert!(capacity > 0);
            let items = Mutex::new((VecDeque::new(), 0));
            Self { items, capacity, branch: AtomicU32::new(0) }
        }

        pub(crate) fn push(&self, item: u32) -> Result<(), u32> {
            // Relaxed: only a point at which the checker may switch threads.
            self.branch.load(Ordering::Relaxed);
            let mut items = self.items.lock();
            if items.0.len() == self.capacity {
                return Err(item);
            }
            items.0.push_back(item);
            if !broken!("insert_uncounted") {
                items.1 += 1;
            }
            Ok(())
        }

        /// Each push is a step of its own, as others may see it.
        pub(crate) fn push_some(&self, items: impl Iterator<Item = u32>) -> usize {
            items.take_while(|&item| self.push(item).is_ok()).count()
        }

        pub(crate) fn pop(&self) -> Option<u32> {
            // Relaxed: only a point at which the checker may switch threads.
            self.branch.load(Ordering::Relaxed);
            self.items.lock().0.pop_front()
        }

        pub(crate) fn inserts(&self) -> u64 {
            self.items.lock().1
        }

        pub(crate) fn len(&self) -> usize {
            self.items.lock().0.len()
        }

        pub(crate) fn capacity(&self) -> usize {
            self.capacity
        }

        pub(crate) fn items(&self) -> Vec<u32> {
            self.items.lock().0.iter().copied().collect()
        }
    }
}

/// Atomics that the checker does not see: for hints and statistics, which are accessed with relaxed
/// orderings only and decide nothing that matters.
pub(crate) mod unmodelled {
    pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64};
}

/// A lock that any number of readers may have at once; as with [`Mutex`], poison is ignored. It is
/// std's under the checkers, too: only the threads of a pass share one, and there a pass has one.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> std::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(crate) use imp::*;
#[cfg(tierce_loom)]
pub(crate) use modelled::Queue;
