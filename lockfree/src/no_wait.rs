//! A mark on a thread that must not wait for buckets now.
//!
//! # Problem
//!
//! Buckets become free by garbage collection, the walk over the index and the prio write. Who
//! waits for a bucket *while holding* something that one of these needs (the lock of an index
//! node, say) waits for ever. It works in all tests in which a bucket happens to be free.
//!
//! # Protocol
//!
//! Whoever takes such a thing takes a [`NoWait`] with it. Debug builds count them per thread, and
//! every call that *may* wait panics while there is one, whether or not it would have waited this
//! time. Release builds do nothing. What is needed under the lock is waited for before:
//! [`Allocator::wait_for`](crate::Allocator::wait_for), then the lock, then
//! [`Allocator::try_alloc`](crate::Allocator::try_alloc).

use core::marker::PhantomData;

/// While it lives, its thread must not wait for buckets: debug builds panic if it tries.
///
/// It belongs to its thread and cannot be sent to another.
///
/// ```
/// use tierce_lockfree::NoWait;
/// let held = NoWait::new("the root's lock");
/// // … what must not wait …
/// drop(held);
/// ```
#[derive(Debug)]
#[must_use = "the thread may wait again when it is dropped"]
pub struct NoWait {
    /// Not `Send`: the count is the thread's.
    here: PhantomData<*const ()>,
}

impl NoWait {
    /// The thread holds `what` from now on. Wait-free.
    pub fn new(what: &'static str) -> Self {
        count::add(what);
        Self { here: PhantomData }
    }
}

impl Drop for NoWait {
    fn drop(&mut self) {
        count::subtract();
    }
}

/// Called by everything that may wait.
///
/// # Panics
///
/// In debug builds, if the thread has a [`NoWait`].
pub(crate) fn check() {
    count::check();
}

#[cfg(debug_assertions)]
mod count {
    use crate::sync::thread_local;
    use core::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<&'static str>> = RefCell::default();
    }

    pub(super) fn add(what: &'static str) {
        HELD.with(|held| held.borrow_mut().push(what));
    }

    pub(super) fn subtract() {
        // Nothing is left to count on a thread that is being torn down.
        let _ = HELD.try_with(|held| held.borrow_mut().pop());
    }

    pub(super) fn check() {
        HELD.with(|held| {
            let held = held.borrow();
            assert!(held.is_empty(), "waiting for a bucket while holding {}", held.join(", "));
        });
    }
}

#[cfg(not(debug_assertions))]
mod count {
    pub(super) fn add(_what: &'static str) {}

    pub(super) fn subtract() {}

    pub(super) fn check() {}
}

#[cfg(all(test, debug_assertions, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_holds_something_may_not_wait() {
        check();
        let (first, second) = (NoWait::new("a node"), NoWait::new("its parent"));
        let panic = std::panic::catch_unwind(check).expect_err("it holds something");
        let text = panic.downcast_ref::<String>().expect("a text");
        assert_eq!(text, "waiting for a bucket while holding a node, its parent");
        std::thread::spawn(check).join().expect("others may");
        drop((first, second));
        check();
    }
}
