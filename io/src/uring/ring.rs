//! The ring's thread.

use super::flight::{Flight, Flights, Next};
use super::{Message, Shared};
use crate::file::Notice;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// The user data of the eventfd's read; slots are small numbers.
const WAKE: u64 = u64::MAX;
/// The eventfd among the registered files.
const EVENT: types::Fixed = types::Fixed(1);
/// How long the thread lets the kernel recover when it has no memory for a submission.
const OUT_OF_MEMORY_PAUSE: Duration = Duration::from_millis(1);

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

/// The thread: sets the ring up, reports how that went, works until closed.
pub(super) fn run(shared: &Arc<Shared>, depth: u32, report: &SyncSender<io::Result<Ready>>) {
    /// Whatever happens, also a panic: nobody waits for ever.
    struct Close<'a>(&'a Shared);
    impl Drop for Close<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let _close = Close(shared);
    let (mut ring, ready) = match Ring::new(shared, depth) {
        Ok(made) => made,
        Err(cause) => return drop(report.send(Err(cause))),
    };
    // The opener waits for this message, so it cannot be gone.
    let _ = report.send(Ok(ready));
    ring.work();
}

struct Ring<'a> {
    // Dropped in this order: the ring first, then what the kernel may still have, leaked.
    ring: IoUring,
    flights: Flights,
    /// Where the kernel writes the eventfd's counter. Freed when no read is armed any more.
    counter: ManuallyDrop<Box<u64>>,
    armed: bool,
    shared: &'a Arc<Shared>,
    closing: bool,
}

impl<'a> Ring<'a> {
    fn new(shared: &'a Arc<Shared>, depth: u32) -> io::Result<(Self, Ready)> {
        // One entry more than operations, for the eventfd: then a push never fails.
        let entries = depth.saturating_add(1).checked_next_power_of_two().unwrap_or(u32::MAX);
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .build(entries)?;
        let files = [shared.file.as_fd().as_raw_fd(), shared.wake.as_raw_fd()];
        ring.submitter().register_files(&files)?;
        let ready = register_buffers(&ring, shared);
        shared.pool.set_registered(ready.registered);
        let flights = Flights::new(depth);
        let counter = ManuallyDrop::new(Box::new(0));
        let ring = Self { ring, flights, counter, armed: false, shared, closing: false };
        Ok((ring, ready))
    }

    fn work(&mut self) {
        self.arm_wake();
        loop {
            self.take_requests();
            if self.closing && self.flights.is_empty() && !self.armed {
                return self.let_go();
            }
            let may_sleep = self.flights.is_full() || self.closing || self.shared.may_sleep();
            let entered = self.ring.submit_and_wait(usize::from(may_sleep));
            self.shared.awake();
            if let Err(error) = entered
                && !self.passes(&error)
            {
                // The ring is of no use any more. Dropping it answers everybody.
                return;
            }
            if !self.reap() {
                return;
            }
        }
    }

    /// Gives back what the ring holds. The kernel tears a ring down some time after it was
    /// closed, and until then the device would be in use.
    fn let_go(&mut self) {
        // An error here means that there is nothing to give back.
        let _ = self.ring.submitter().unregister_files();
        let _ = self.ring.submitter().unregister_buffers();
    }

    /// Whether the thread can go on after an error of entering the kernel.
    fn passes(&mut self, error: &io::Error) -> bool {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::INTR) => true,
            // Completions must be reaped, or memory become free, before more is submitted.
            Some(Errno::BUSY | Errno::AGAIN) => {
                if self.ring.completion().is_empty() {
                    std::thread::sleep(OUT_OF_MEMORY_PAUSE);
                }
                true
            }
            _ => false,
        }
    }

    fn take_requests(&mut self) {
        while !self.flights.is_full() {
            match self.shared.queue.pop() {
                Some(Message::Request(request, completer)) => {
                    let slot = self.flights.insert(Flight::new(request, completer));
                    self.submit(slot);
                }
                Some(Message::Close) => {
                    self.closing = true;
                    // Its read must not outlive the counter.
                    self.shared.signal();
                }
                None => return,
            }
        }
    }

    fn submit(&mut self, slot: usize) {
        let capabilities = &self.shared.file.capabilities;
        let entry = self.flights.get_mut(slot).entry(&self.shared.pool, capabilities);
        self.push(&entry.user_data(slot as u64));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        let mut submission = self.ring.submission();
        // SAFETY: what the entry points to lives until its completion is reaped: buffers by
        // Invariant 1 of the module above, the counter because it is leaked while it is armed.
        let pushed = unsafe { submission.push(entry) };
        pushed.expect("the ring has an entry for every slot and one for the eventfd");
    }

    /// Lets the ring read the eventfd: a write to it becomes a completion.
    fn arm_wake(&mut self) {
        let counter: *mut u64 = &raw mut **self.counter;
        let read = opcode::Read::new(EVENT, counter.cast(), size_of::<u64>() as u32);
        self.push(&read.build().user_data(WAKE));
        self.armed = true;
    }

    /// Takes all completions. False if the thread could not be woken any more.
    fn reap(&mut self) -> bool {
        while let Some(completion) = {
            let mut queue = self.ring.completion();
            queue.next()
        } {
            let answer = completion.result();
            if completion.user_data() == WAKE {
                let wakes = answer == size_of::<u64>() as i32
                    || answer == -Errno::AGAIN.raw_os_error()
                    || answer == -Errno::INTR.raw_os_error();
                self.armed = false;
                if !wakes {
                    return false;
                }
                if !self.closing {
                    self.arm_wake();
                }
                continue;
            }
            let slot = usize::try_from(completion.user_data()).expect("slots are small numbers");
            let file = &self.shared.file;
            let block = file.capabilities.logical_block;
            match self.flights.get_mut(slot).complete(&file.name, block, answer) {
                Next::Again => self.submit(slot),
                Next::Done(result) => self.flights.remove(slot).finish(result),
            }
        }
        true
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        if !self.armed {
            // SAFETY: dropped once, here, and not used again: no read of the eventfd is armed.
            unsafe { ManuallyDrop::drop(&mut self.counter) }
        }
    }
}

/// Registers as much of the arena as the kernel lets us.
fn register_buffers(ring: &IoUring, shared: &Shared) -> Ready {
    let (start, wanted) = shared.pool.arena();
    let chunk = shared.pool.chunk_bytes();
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
