//! A device by io_uring: a small pool of rings, each with a thread that alone talks to it.
//!
//! # Problem
//!
//! A ring with `SINGLE_ISSUER` and `DEFER_TASKRUN` is the fastest there is, but belongs to one
//! thread. Requests come from everywhere. A ring's thread must cost nothing while there is
//! nothing to do: no timer, no polling. Whoever has a thread of his own to talk to the device
//! from needs no other: [`Queue`](crate::Queue).
//!
//! # State
//!
//! Per ring: `queue`: requests on their way to the ring's thread. `sleeping`: the thread is about
//! to block in the kernel, or does. `closed`: the thread takes no more requests. An eventfd that
//! the ring itself reads: a write to it completes that read and so wakes the thread. Nothing is
//! shared between rings but the buffers. A thread submits always to the same ring; threads are
//! spread over the rings in turn.
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
//! Discards that the kernel does not take as commands go to a helper thread (`helper.rs`), which
//! is started by the first of them.
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
//! the device. An eventfd write happens only when the thread sleeps. Submitters to different
//! rings share no lock and no line that is written.

use crate::buffer::{Buffer, Pool};
use crate::completion::{Completer, Completion, Outcome};
use crate::device::{Capabilities, Device, Request, RingFile, refused};
use crate::ending::join;
use crate::error::Error;
use crate::file::{DeviceFile, DeviceOptions};
use crate::sync_io;
use crossbeam_queue::SegQueue;
use rustix::event::EventfdFlags;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

mod flight;
mod helper;
mod kernel;
mod own;
mod worker;

pub(crate) use kernel::Setup;
pub(crate) use own::OwnRing;

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
    file: Arc<DeviceFile>,
    pool: Arc<Pool>,
    members: Vec<(Arc<Member>, JoinHandle<()>)>,
}

#[derive(Debug)]
enum Message {
    Request(Request, Completer),
    Close,
}

/// A ring of the pool, as its submitters and its thread see it.
#[derive(Debug)]
struct Member {
    file: Arc<DeviceFile>,
    pool: Arc<Pool>,
    queue: SegQueue<Message>,
    sleeping: AtomicBool,
    closed: AtomicBool,
    wake: OwnedFd,
}

impl Member {
    fn new(file: Arc<DeviceFile>, pool: Arc<Pool>, wake: OwnedFd) -> Self {
        let (sleeping, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { file, pool, queue: SegQueue::new(), sleeping, closed, wake }
    }

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
    /// Starts the rings and their threads for an open file.
    pub(crate) fn start(file: Arc<DeviceFile>, options: &DeviceOptions) -> Result<Self, Error> {
        let pool = Pool::new(options.buffer_bytes, options.buffers);
        let mut started = Self { file, pool, members: Vec::new() };
        let mut is_told = false;
        for _ in 0..options.rings {
            let ready = started.start_one(options)?;
            // Once for all: what one of them could not register is registered with none.
            if let Some(notice) = ready.notice(started.name()).filter(|_| !is_told) {
                options.notify(&notice);
                is_told = true;
            }
        }
        Ok(started)
    }

    fn start_one(&mut self, options: &DeviceOptions) -> Result<kernel::Ready, Error> {
        let failed = |what, cause| Error::Setup { device: self.file.name.clone(), what, cause };
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| failed("an eventfd", errno.into()))?;
        let (file, pool) = (self.file.clone(), self.pool.clone());
        let member = Arc::new(Member::new(file, pool, wake));
        let (report, reported) = mpsc::sync_channel::<io::Result<kernel::Ready>>(1);
        let (of_thread, setup) = (member.clone(), options.ring_setup());
        // The ring is made by the thread that uses it.
        let thread = std::thread::Builder::new()
            .name(options.thread_name.to_string())
            .spawn(move || worker::run(&of_thread, setup, &report))
            .map_err(|cause| failed("the ring's thread", cause))?;
        let ready = reported.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")));
        match ready {
            Ok(ready) => {
                self.members.push((member, thread));
                Ok(ready)
            }
            Err(cause) => {
                let _ = thread.join();
                Err(failed("io_uring", cause))
            }
        }
    }

    /// The ring of this thread.
    fn member(&self) -> &Member {
        let (member, _) = &self.members[thread_number() % self.members.len()];
        member
    }
}

/// A number of this thread's own: threads are counted when they first ask.
fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: only the number counts.
        static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

impl Device for Uring {
    fn name(&self) -> &Arc<str> {
        &self.file.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.file.capabilities
    }

    fn buffer(&self, bytes: usize) -> Buffer {
        self.pool.buffer(bytes)
    }

    fn submit(&self, request: Request) -> Completion {
        if let Err(error) = request.check(self.name(), self.capabilities()) {
            return refused(self.name(), error);
        }
        let (completer, completion) = Completer::new(self.name().clone());
        self.member().send(Message::Request(request, completer));
        completion
    }

    fn perform(&self, request: Request) -> Outcome {
        request.check(self.name(), self.capabilities())?;
        sync_io::perform(&self.file, request)
    }

    fn ring_file(&self) -> Option<RingFile> {
        Some(RingFile { file: self.file.clone() })
    }
}

impl Drop for Uring {
    /// Waits until what was submitted is done.
    fn drop(&mut self) {
        self.members.iter().for_each(|(member, _)| member.send(Message::Close));
        self.members.drain(..).for_each(|(_, thread)| drop(join(thread)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Access;

    /// Without a thread.
    fn member() -> Member {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(1 << 20).expect("a sparse file");
        let open = DeviceFile::open(file.path(), Access::Exclusive).expect("opens");
        let wake = rustix::event::eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
        Member::new(Arc::new(open), Pool::new(4096, 1), wake)
    }

    /// Protocol 1 and 2: a request before `may_sleep` keeps the thread awake, one after it
    /// signals, and only the first of several.
    #[test]
    fn a_request_is_seen_or_signalled() {
        let shared = member();
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
        let shared = member();
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
