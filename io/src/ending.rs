//! How threads of ours end.

use std::thread::{self, JoinHandle};

/// Waits until a thread has ended; `None`, without waiting, if it is the calling one. A thread of
/// ours calls wakers, one of which may drop the last handle on it: then it ends by itself.
pub(crate) fn join<T>(thread: JoinHandle<T>) -> Option<thread::Result<T>> {
    (thread.thread().id() != thread::current().id()).then(|| thread.join())
}
