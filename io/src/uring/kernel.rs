//! A ring, and the operations that the kernel has from it. Whoever makes one is the only one to
//! use it: a thread of a [pool](super), or the owner of a [`Queue`](crate::Queue).
//!
//! # Invariants
//!
//! 1. A buffer given to the kernel is not touched, moved out or freed before its completion was
//!    reaped: it lies in a slot of `flights`, which leaks it rather than drop it early.
//! 2. The ring is used by the thread that made it only.

use super::flight::{Flight, Flights, Next};
use super::helper::Helper;
use crate::buffer::Pool;
use crate::completion::Outcome;
use crate::device::{DiscardKind, Operation, Request};
use crate::file::DeviceFile;
use crate::notice::Notice;
use io_uring::{IoUring, squeue};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// The user data of the entry of one's own; slots are small numbers.
const OWN: u64 = u64::MAX;
/// How long a thread lets the kernel recover when it has no memory for a submission.
const OUT_OF_MEMORY_PAUSE: Duration = Duration::from_millis(1);

/// How a ring is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Operations under way at a time.
    pub(crate) depth: u32,
    /// A kernel thread takes submissions, and sleeps when it has found none for so long.
    pub(crate) sqpoll_idle: Option<Duration>,
}

/// What the set-up achieved.
#[derive(Debug)]
pub(super) struct Ready {
    registered: usize,
    wanted: usize,
    cause: Option<io::Error>,
}

impl Ready {
    /// Worth telling?
    pub(super) fn notice(&self, device: &Arc<str>) -> Option<Notice> {
        let cause = self.cause.as_ref()?.to_string().into();
        let (registered, wanted) = (self.registered, self.wanted);
        Some(Notice::FewerBuffers { device: device.clone(), registered, wanted, cause })
    }
}

/// A ring and what the kernel has from it. `T` says whose an operation is.
#[derive(Debug)]
pub(super) struct Kernel<T> {
    // Dropped in this order: the ring first, then what the kernel may still have, leaked.
    ring: Ring,
    flights: Flights<T>,
    file: Arc<DeviceFile>,
    pool: Arc<Pool>,
    /// Discards that the ring does not do.
    helper: Helper,
    blocking_discards: bool,
}

struct Ring(IoUring);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ring").field(&self.0.as_raw_fd()).finish()
    }
}

/// A completion that was reaped.
#[derive(Debug)]
pub(super) enum Reaped<T> {
    /// Of an operation.
    Done(T, Outcome),
    /// Of the entry of one's own: what the kernel answered.
    Own(i32),
}

impl<T> Kernel<T> {
    /// `own` is registered as a second file, for entries of one's own.
    pub(super) fn new(
        file: Arc<DeviceFile>,
        pool: Arc<Pool>,
        setup: Setup,
        own: Option<RawFd>,
    ) -> io::Result<(Self, Ready)> {
        // One entry more than operations, for an entry of one's own: then a push never fails.
        let entries = setup.depth.saturating_add(1).checked_next_power_of_two().unwrap_or(u32::MAX);
        let mut builder = IoUring::builder();
        builder.setup_single_issuer();
        match setup.sqpoll_idle {
            None => builder.setup_defer_taskrun().setup_coop_taskrun().setup_taskrun_flag(),
            Some(idle) => builder.setup_sqpoll(u32::try_from(idle.as_millis()).unwrap_or(u32::MAX)),
        };
        let ring = builder.build(entries)?;
        let files: Vec<_> = [file.as_fd().as_raw_fd()].into_iter().chain(own).collect();
        ring.submitter().register_files(&files)?;
        let ready = register_buffers(&ring, &pool);
        pool.set_registered(ready.registered);
        let flights = Flights::new(setup.depth);
        let blocking_discards = file.capabilities.discard == DiscardKind::Blocking;
        let (ring, helper) = (Ring(ring), Helper::new(file.clone()));
        Ok((Self { ring, flights, file, pool, helper, blocking_discards }, ready))
    }

    pub(super) fn is_full(&self) -> bool {
        self.flights.is_full()
    }

    /// Whether the kernel has none of our operations.
    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether the ring does this itself. If not, it is for the [helper](Self::helper).
    pub(super) fn does(&self, request: &Request) -> bool {
        !(self.blocking_discards && request.operation() == Operation::Discard)
    }

    /// What does the discards that the ring does not do.
    pub(super) fn helper(&mut self) -> &mut Helper {
        &mut self.helper
    }

    /// Takes an operation in, if not [full](Self::is_full). The kernel gets it with the next
    /// [`enter`](Self::enter).
    pub(super) fn begin(&mut self, request: Request, whose: T) {
        let slot = self.flights.insert(Flight::new(request, whose));
        self.submit(slot);
    }

    fn submit(&mut self, slot: usize) {
        let capabilities = &self.file.capabilities;
        let entry = self.flights.get_mut(slot).entry(&self.pool, capabilities);
        let entry = entry.user_data(slot as u64);
        // SAFETY: buffers live until their completion is reaped (Invariant 1).
        unsafe { self.push(&entry) }
    }

    /// Adds an entry of one's own, one at a time.
    ///
    /// # Safety
    ///
    /// What the entry points to lives until its completion is reaped.
    pub(super) unsafe fn push_own(&mut self, entry: squeue::Entry) {
        // SAFETY: the caller's promise.
        unsafe { self.push(&entry.user_data(OWN)) }
    }

    /// # Safety
    ///
    /// What the entry points to lives until its completion is reaped.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        let mut submission = self.ring.0.submission();
        // SAFETY: the caller's promise.
        let pushed = unsafe { submission.push(entry) };
        pushed.expect("the ring has an entry for every slot and one for its owner");
    }

    /// Whether something was begun that the kernel has not got yet.
    pub(super) fn has_begun(&mut self) -> bool {
        !self.ring.0.submission().is_empty()
    }

    /// Gives the kernel what was begun and waits for `completions` of what it has. An error
    /// means that the ring is of no use any more.
    pub(super) fn enter(&mut self, completions: usize) -> io::Result<()> {
        let Err(error) = self.ring.0.submit_and_wait(completions) else { return Ok(()) };
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::INTR) => Ok(()),
            // Completions must be reaped, or memory become free, before more is submitted.
            Some(Errno::BUSY | Errno::AGAIN) => {
                if self.ring.0.completion().is_empty() {
                    std::thread::sleep(OUT_OF_MEMORY_PAUSE);
                }
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// The next operation that is done, or the completion of an entry of one's own. What is not
    /// done is given to the kernel again. `refused` gets a discard that the ring cannot do.
    pub(super) fn reap(
        &mut self,
        mut refused: impl FnMut(&mut Helper, Request, T),
    ) -> Option<Reaped<T>> {
        loop {
            let completion = self.ring.0.completion().next()?;
            let (whose, answer) = (completion.user_data(), completion.result());
            if whose == OWN {
                return Some(Reaped::Own(answer));
            }
            let slot = usize::try_from(whose).expect("slots are small numbers");
            let block = self.file.capabilities.logical_block;
            match self.flights.get_mut(slot).complete(&self.file.name, block, answer) {
                Next::Again => self.submit(slot),
                Next::Done(result) => {
                    let (whose, outcome) = self.flights.remove(slot).finish(result);
                    return Some(Reaped::Done(whose, outcome));
                }
                Next::Elsewhere => {
                    self.blocking_discards = true;
                    let (request, whose) = self.flights.remove(slot).into_parts();
                    refused(&mut self.helper, request, whose);
                }
            }
        }
    }

    /// Whose the operations are that the kernel has, none of which will be answered; their
    /// buffers are leaked.
    pub(super) fn abandon(&mut self) -> Vec<T> {
        self.flights.abandon()
    }

    /// Gives back what the ring holds. The kernel tears a ring down some time after it was
    /// closed, and until then the device would be in use.
    pub(super) fn let_go(&mut self) {
        self.helper.join();
        // An error here means that there is nothing to give back.
        let _ = self.ring.0.submitter().unregister_files();
        let _ = self.ring.0.submitter().unregister_buffers();
    }
}

/// Registers as much of the arena as the kernel lets us. Where it lies in large pages, each that
/// is touched counts as a whole.
fn register_buffers(ring: &IoUring, pool: &Pool) -> Ready {
    let (start, wanted) = pool.arena();
    let chunk = pool.chunk_bytes();
    let mut registered = wanted;
    let mut first_cause = None;
    while registered >= chunk {
        let vector = libc::iovec { iov_base: start.as_ptr().cast(), iov_len: registered };
        // SAFETY: the range is the arena's, which lives as long as any buffer from it; the ring
        // is given no address in it but those of buffers that it owns at the time.
        let result = unsafe { ring.submitter().register_buffers(&[vector]) };
        let Err(cause) = result else {
            return Ready { registered, wanted, cause: first_cause };
        };
        let out_of_memory = cause.raw_os_error() == Some(Errno::NOMEM.raw_os_error());
        first_cause.get_or_insert(cause);
        if !out_of_memory {
            break;
        }
        registered = registered / 2 / chunk * chunk;
    }
    Ready { registered: 0, wanted, cause: first_cause }
}
