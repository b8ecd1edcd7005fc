//! A device by io_uring: one ring, one thread that alone talks to it.
//!
//! # Problem
//!
//! A ring with `SINGLE_ISSUER` and `DEFER_TASKRUN` is the fastest there is, but belongs to one
//! thread. Requests come from everywhere. The thread must cost nothing while there is nothing to
//! do: no timer, no polling.
//!
//! # State
//!
//! `queue`: requests on their way to the ring's thread. `sleeping`: the thread is about to block
//! in the kernel, or does. `closed`: the thread takes no more requests. An eventfd that the ring
//! itself reads: a write to it completes that read and so wakes the thread.
//!
//! # Protocol
//!
//! 1. A submitter pushes to `queue`, then, if `sleeping`, clears it and writes the eventfd.
//! 2. The thread takes requests while it has slots, then sets `sleeping`, looks at `queue` once
//!    more, and if it is empty enters the kernel until something completes: an operation or the
//!    read of the eventfd (which it then arms again).
//! 3. `Uring`'s drop pushes a last message; the thread finishes what it has and ends. However
//!    the thread ends, it sets `closed` and then empties the queue, and a submitter that sees
//!    `closed` after its push empties it too: a request that is dropped there answers
//!    [`Error::Closed`].
//!
//! # Invariants
//!
//! 1. A buffer given to the kernel is not touched, moved out or freed before its completion was
//!    reaped: it lies in a slot of `flights`, which leaks it rather than drop it early.
//! 2. The ring is used by the thread that made it only.
//!
//! # Memory ordering
//!
//! `sleeping` and `queue` are the two sides of a store-then-load pattern: a submitter pushes and
//! then loads `sleeping`; the thread stores `sleeping` and then looks at `queue`. Both put a
//! `fence(SeqCst)` in between; one of the two fences comes first, so either the submitter sees
//! `sleeping` or the thread sees the request. `closed` and `queue` are the same pattern, with
//! the same fence. What a request contains is published by the queue itself.
//!
//! # Progress
//!
//! `submit` can wait for a peer that was preempted inside crossbeam's `SegQueue`, and never for
//! the device. An eventfd write happens only when the thread sleeps.

use crate::buffer::{Buffer, Pool};
use crate::completion::{Completer, Completion};
use crate::device::{Capabilities, Device, Request, refused};
use crate::error::Error;
use crate::file::{DeviceFile, DeviceOptions};
use crossbeam_queue::SegQueue;
use rustix::event::EventfdFlags;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

mod flight;
mod ring;

/// A device driven by io_uring.
///
/// ```
/// use tierce_io::{DeviceExt, DeviceOptions, Engine};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// std::fs::write(&path, vec![0; 1 << 20])?;
/// let options = DeviceOptions::default().engine(Engine::Uring);
/// match tierce_io::open_device(&path, &options) {
///     Ok(device) => device.write_at(4096, &[5; 4096])?, // a `Uring`
///     Err(tierce_io::Error::Setup { .. }) => println!("the kernel refuses io_uring here"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Uring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Message {
    Request(Request, Completer),
    Close,
}

#[derive(Debug)]
struct Shared {
    file: Arc<DeviceFile>,
    pool: Arc<Pool>,
    queue: SegQueue<Message>,
    sleeping: AtomicBool,
    closed: AtomicBool,
    wake: OwnedFd,
}

impl Shared {
    fn send(&self, message: Message) {
        self.queue.push(message);
        // SeqCst: between our push and our loads; pairs with the fences in `may_sleep` and
        // `close` (see Memory ordering).
        fence(Ordering::SeqCst);
        // Relaxed: the fence orders it; nothing is published by it.
        if self.sleeping.load(Ordering::Relaxed) {
            self.wake();
        }
        // Relaxed: as above.
        if self.closed.load(Ordering::Relaxed) {
            self.empty();
        }
    }

    fn wake(&self) {
        // Relaxed: decides only which of several submitters writes the eventfd.
        if self.sleeping.swap(false, Ordering::Relaxed) {
            self.signal();
        }
    }

    /// Completes the ring's read of the eventfd.
    fn signal(&self) {
        // Any number but 0 will do, in any byte order. The only error of a valid eventfd is a
        // full counter, and then it is readable.
        let _ = rustix::io::write(&self.wake, &1u64.to_le_bytes());
    }

    /// Whether the thread may block: from here on a submitter wakes it.
    fn may_sleep(&self) -> bool {
        // Relaxed: the fence orders it; nothing is published by it.
        self.sleeping.store(true, Ordering::Relaxed);
        // SeqCst: between our store and our look at the queue; pairs with the fence in `send`.
        fence(Ordering::SeqCst);
        self.queue.is_empty()
    }

    fn awake(&self) {
        // Relaxed: a submitter that still sees `true` writes the eventfd once for nothing.
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// The thread takes nothing any more: what is queued, and what will be, is answered.
    fn close(&self) {
        // Relaxed: the fence orders it; nothing is published by it.
        self.closed.store(true, Ordering::Relaxed);
        // SeqCst: between our store and our look at the queue; pairs with the fence in `send`.
        fence(Ordering::SeqCst);
        self.empty();
    }

    /// Dropping a request's completer answers it.
    fn empty(&self) {
        while self.queue.pop().is_some() {}
    }
}

impl Uring {
    /// Starts the ring and its thread for an open file.
    pub(crate) fn start(file: Arc<DeviceFile>, options: &DeviceOptions) -> Result<Self, Error> {
        let device = file.name.clone();
        let failed = |what, cause| Error::Setup { device: device.clone(), what, cause };
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| failed("an eventfd", errno.into()))?;
        let shared = Arc::new(Shared {
            file,
            pool: Pool::new(options.buffer_bytes, options.buffers),
            queue: SegQueue::new(),
            sleeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake,
        });
        let (report, reported) = mpsc::sync_channel::<io::Result<ring::Ready>>(1);
        let (of_thread, depth) = (shared.clone(), options.queue_depth);
        // The ring is made by the thread that uses it (Invariant 2).
        let thread = std::thread::Builder::new()
            .name(options.thread_name.to_string())
            .spawn(move || ring::run(&of_thread, depth, &report))
            .map_err(|cause| failed("the ring's thread", cause))?;
        let ready = reported.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")));
        match ready {
            Ok(ready) => {
                if let Some(notice) = ready.notice(&device) {
                    options.notify(&notice);
                }
                Ok(Self { shared, thread: Some(thread) })
            }
            Err(cause) => {
                let _ = thread.join();
                Err(failed("io_uring", cause))
            }
        }
    }
}

impl Device for Uring {
    fn name(&self) -> &Arc<str> {
        &self.shared.file.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.shared.file.capabilities
    }

    fn buffer(&self, bytes: usize) -> Buffer {
        self.shared.pool.buffer(bytes)
    }

    fn submit(&self, request: Request) -> Completion {
        if let Err(error) = request.check(self.name(), self.capabilities()) {
            return refused(self.name(), error);
        }
        let (completer, completion) = Completer::new(self.name().clone());
        self.shared.send(Message::Request(request, completer));
        completion
    }
}

impl Drop for Uring {
    /// Waits until what was submitted is done.
    fn drop(&mut self) {
        self.shared.send(Message::Close);
        let Some(thread) = self.thread.take() else { return };
        // A waker may drop the last handle on the ring's own thread, which ends by itself.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Access;

    /// Without a thread.
    fn shared() -> Shared {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(1 << 20).expect("a sparse file");
        Shared {
            file: Arc::new(DeviceFile::open(file.path(), Access::Exclusive).expect("opens")),
            pool: Pool::new(4096, 1),
            queue: SegQueue::new(),
            sleeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake: rustix::event::eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd"),
        }
    }

    /// Protocol 1 and 2: a request before `may_sleep` keeps the thread awake, one after it
    /// signals, and only the first of several.
    #[test]
    fn a_request_is_seen_or_signalled() {
        let shared = shared();
        let ask = || {
            let (completer, completion) = Completer::new("dev".into());
            shared.send(Message::Request(Request::Flush, completer));
            drop(completion);
        };
        let mut counter = [0; 8];
        ask();
        assert!(!shared.may_sleep(), "a request is waiting");
        shared.awake();
        assert!(rustix::io::read(&shared.wake, &mut counter).is_err(), "nobody slept");
        shared.empty();
        assert!(shared.may_sleep());
        ask();
        ask();
        assert_eq!(rustix::io::read(&shared.wake, &mut counter), Ok(8), "signalled");
        assert_eq!(u64::from_le_bytes(counter), 1, "once");
    }

    /// What the thread leaves behind, and what comes after it, is answered.
    #[test]
    fn requests_to_a_ring_that_ended_are_answered() {
        let shared = shared();
        let ask = || {
            let (completer, completion) = Completer::new("dev".into());
            shared.send(Message::Request(Request::Flush, completer));
            completion
        };
        let before = ask();
        assert!(!before.is_done());
        shared.close();
        assert!(matches!(before.wait(), Err(Error::Closed { .. })));
        let after = ask();
        assert!(matches!(after.wait(), Err(Error::Closed { .. })));
    }
}
