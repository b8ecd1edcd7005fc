//! A thread's own way to a device.
//!
//! # Problem
//!
//! [`Device::submit`] can be called from everywhere: the request is handed to a thread that owns
//! a ring, and its completion back. Who runs one thread per core, each with an event loop of its
//! own, needs none of that: no hand-off, no wake-up, nothing that two threads write.
//!
//! # Protocol
//!
//! 1. [`Queue::new`] makes a ring for the calling thread, on the device's open file. Where the
//!    device has no rings, or the kernel refuses one more, the queue submits to the device
//!    instead ([`Queue::has_own_ring`]); everything else is the same.
//! 2. [`Queue::submit`] takes a request and a number that says which it is. The kernel gets it
//!    with the next [`poll`](Queue::poll) or [`wait`](Queue::wait), together with others.
//! 3. `poll` gives one that is done, or nothing at once; `wait` blocks until one is.
//!
//! What is ordered against what is as for every device: who needs an order waits. A queue that is
//! dropped waits until the kernel is through with what it has.
//!
//! A discard that the kernel does not take as a command is done by a blocking call, inside
//! `submit` or `poll`.

use crate::buffer::{Buffer, Pool};
use crate::completion::{Completion, Outcome};
use crate::device::{Device, Request};
use crate::error::Error;
use crate::uring::{OwnRing, Setup};
use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Buffers that a queue's ring registers, per operation: of 64 KiB.
const BUFFER_BYTES: usize = 64 << 10;
/// At most so many of them.
const BUFFERS_MAX: u32 = 64;

/// A device's queue for the thread that made it; it cannot be sent to another.
///
/// ```
/// use tierce_io::{DeviceOptions, Queue, Request};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// std::fs::write(&path, vec![7; 1 << 20])?;
/// let device = tierce_io::open_device(&path, &DeviceOptions::default())?;
///
/// let mut queue = Queue::new(device, 8);
/// for block in 0..4 {
///     let read = Request::read(block * 4096, queue.buffer(4096));
///     queue.submit(read, block).expect("there is room for 8");
/// }
/// let mut blocks = vec![];
/// while let Some((block, outcome)) = queue.wait() {
///     assert!(outcome?.iter().all(|&byte| byte == 7));
///     blocks.push(block);
/// }
/// blocks.sort();
/// assert_eq!(blocks, [0, 1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Queue {
    device: Arc<dyn Device>,
    depth: usize,
    way: Way,
    /// Refused before they were started.
    refused: VecDeque<(u64, Error)>,
    /// A ring is its thread's.
    not_send: PhantomData<*const ()>,
}

#[derive(Debug)]
enum Way {
    Own(Box<OwnRing>),
    Device {
        under_way: Vec<(u64, Completion)>,
        waker: Waker,
    },
    /// The ring has failed: so does everything.
    Closed,
}

impl Queue {
    /// A queue for the calling thread, with at most `depth` operations under way, at least 1.
    pub fn new(device: Arc<dyn Device>, depth: u32) -> Self {
        Self::with_buffers(device, depth, BUFFER_BYTES)
    }

    /// The same with registered buffers of `buffer_bytes`.
    pub(crate) fn with_buffers(device: Arc<dyn Device>, depth: u32, buffer_bytes: usize) -> Self {
        let depth = depth.max(1);
        let own = device.ring_file().and_then(|open| {
            let pool = Pool::new(buffer_bytes, depth.min(BUFFERS_MAX));
            OwnRing::new(open.file, pool, Setup { depth, sqpoll_idle: None }).ok()
        });
        let mut queue = Self::through_device(device, depth);
        if let Some(own) = own {
            queue.way = Way::Own(Box::new(own));
        }
        queue
    }

    /// One that submits to the device, without a ring.
    pub(crate) fn through_device(device: Arc<dyn Device>, depth: u32) -> Self {
        let (depth, refused) = (depth.max(1) as usize, VecDeque::new());
        Self { device, depth, way: Way::through_device(), refused, not_send: PhantomData }
    }

    /// Whether it has a ring of its own; otherwise it submits to the device.
    #[must_use]
    pub fn has_own_ring(&self) -> bool {
        matches!(self.way, Way::Own(_))
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// A buffer for a request to this queue, registered with its ring if one is free.
    #[must_use]
    pub fn buffer(&self, bytes: usize) -> Buffer {
        match &self.way {
            Way::Own(ring) => ring.buffer(bytes),
            _ => self.device.buffer(bytes),
        }
    }

    /// Operations that were submitted and not given back yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        let started = match &self.way {
            Way::Own(ring) => ring.len(),
            Way::Device { under_way, .. } => under_way.len(),
            Way::Closed => 0,
        };
        started + self.refused.len()
    }

    /// Takes a request in. `token` comes back with its outcome; whoever needs to tell requests
    /// apart gives each its own.
    ///
    /// # Errors
    ///
    /// The request, if as many are under way as the queue is deep: take some back first. What
    /// is wrong with a request is told as its outcome.
    pub fn submit(&mut self, request: Request, token: u64) -> Result<(), Request> {
        let is_full = matches!(&self.way, Way::Own(ring) if ring.is_full());
        if is_full || self.under_way() >= self.depth {
            return Err(request);
        }
        if let Err(error) = request.check(self.device.name(), self.device.capabilities()) {
            self.refused.push_back((token, error));
            return Ok(());
        }
        match &mut self.way {
            Way::Own(ring) => ring.begin(request, token),
            Way::Device { under_way, .. } => {
                under_way.push((token, self.device.submit(request)));
            }
            Way::Closed => {
                let device = self.device.name().clone();
                self.refused.push_back((token, Error::Closed { device }));
            }
        }
        Ok(())
    }

    /// Gives the kernel what was submitted, and gives back one operation that is done, if there
    /// is one. Does not wait.
    pub fn poll(&mut self) -> Option<(u64, Outcome)> {
        self.take(false)
    }

    /// As [`poll`](Self::poll), but waits until one is done; `None` only if none is under way.
    pub fn wait(&mut self) -> Option<(u64, Outcome)> {
        self.take(true)
    }

    fn take(&mut self, wait: bool) -> Option<(u64, Outcome)> {
        if let Some((token, error)) = self.refused.pop_front() {
            return Some((token, Err(error)));
        }
        match &mut self.way {
            Way::Own(ring) => match ring.take(wait) {
                Ok(done) => done,
                Err(cause) => self.close(cause),
            },
            Way::Device { under_way, waker } => take_done(under_way, waker, wait),
            Way::Closed => None,
        }
    }

    /// The kernel takes and gives nothing any more: what it has is answered.
    #[cold]
    fn close(&mut self, cause: std::io::Error) -> Option<(u64, Outcome)> {
        let Way::Own(ring) = std::mem::replace(&mut self.way, Way::Closed) else { return None };
        let (device, what) = (self.device.name().clone(), "entering io_uring");
        let closed = |token| (token, Error::Closed { device: device.clone() });
        self.refused.extend(ring.abandon().map(closed));
        let (token, _) = self.refused.pop_front()?;
        Some((token, Err(Error::Setup { device: self.device.name().clone(), what, cause })))
    }
}

impl Drop for Queue {
    /// Waits until what was submitted is done.
    fn drop(&mut self) {
        while self.wait().is_some() {}
    }
}

impl Way {
    /// This thread sleeps until one of its operations is done.
    fn through_device() -> Self {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        Self::Device { under_way: Vec::new(), waker }
    }
}

fn take_done(
    under_way: &mut Vec<(u64, Completion)>,
    waker: &Waker,
    wait: bool,
) -> Option<(u64, Outcome)> {
    loop {
        let mut context = Context::from_waker(waker);
        for at in 0..under_way.len() {
            let (token, completion) = &mut under_way[at];
            if let Poll::Ready(outcome) = Pin::new(completion).poll(&mut context) {
                let token = *token;
                drop(under_way.remove(at));
                return Some((token, outcome));
            }
        }
        if !wait || under_way.is_empty() {
            return None;
        }
        // Somebody else may have unparked it for reasons of his own: it looks again.
        std::thread::park();
    }
}
