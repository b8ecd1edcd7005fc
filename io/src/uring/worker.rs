//! A thread of the pool, and its ring.

use super::Member;
use super::Message;
use super::kernel::{Kernel, Ready, Reaped, Setup};
use crate::completion::Completer;
use io_uring::{opcode, types};
use rustix::io::Errno;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// The eventfd among the registered files.
const EVENT: types::Fixed = types::Fixed(1);

/// The thread: sets the ring up, reports how that went, works until closed.
pub(super) fn run(member: &Member, setup: Setup, report: &SyncSender<io::Result<Ready>>) {
    /// Whatever happens, also a panic: nobody waits for ever.
    struct Close<'a>(&'a Member);
    impl Drop for Close<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let _close = Close(member);
    let (file, pool) = (Arc::clone(&member.file), Arc::clone(&member.pool));
    let (kernel, ready) = match Kernel::new(file, pool, setup, Some(member.wake.as_raw_fd())) {
        Ok(made) => made,
        Err(cause) => return drop(report.send(Err(cause))),
    };
    // The opener waits for this message, so it cannot be gone.
    let _ = report.send(Ok(ready));
    let counter = ManuallyDrop::new(Box::new(0));
    Worker { kernel, counter, armed: false, member, closing: false }.work();
}

struct Worker<'a> {
    kernel: Kernel<Completer>,
    /// Where the kernel writes the eventfd's counter. Freed when no read is armed any more.
    counter: ManuallyDrop<Box<u64>>,
    armed: bool,
    member: &'a Member,
    closing: bool,
}

impl Worker<'_> {
    fn work(&mut self) {
        self.arm_wake();
        loop {
            self.take_requests();
            if self.closing && self.kernel.is_empty() && !self.armed {
                return self.kernel.let_go();
            }
            let may_sleep = self.kernel.is_full() || self.closing || self.member.may_sleep();
            let entered = self.kernel.enter(usize::from(may_sleep));
            self.member.awake();
            // Without its ring, or its eventfd, dropping it answers everybody.
            if entered.is_err() || !self.reap() {
                return;
            }
        }
    }

    fn take_requests(&mut self) {
        while !self.kernel.is_full() {
            match self.member.queue.pop() {
                Some(Message::Request(request, completer)) if self.kernel.does(&request) => {
                    self.kernel.begin(request, completer);
                }
                Some(Message::Request(request, completer)) => {
                    self.kernel.helper().send(request, completer);
                }
                Some(Message::Close) => {
                    self.closing = true;
                    // Its read must not outlive the counter.
                    self.member.signal();
                }
                None => return,
            }
        }
    }

    /// Lets the ring read the eventfd: a write to it becomes a completion.
    fn arm_wake(&mut self) {
        let counter: *mut u64 = &raw mut **self.counter;
        let read = opcode::Read::new(EVENT, counter.cast(), size_of::<u64>() as u32);
        // SAFETY: the counter is leaked while a read of it is armed.
        unsafe { self.kernel.push_own(read.build()) }
        self.armed = true;
    }

    /// Takes all completions. False if the thread could not be woken any more.
    fn reap(&mut self) -> bool {
        while let Some(reaped) = self.kernel.reap(|helper, request, completer| {
            helper.send(request, completer);
        }) {
            match reaped {
                Reaped::Done(completer, outcome) => completer.complete(outcome),
                Reaped::Own(answer) => {
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
                }
            }
        }
        true
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if !self.armed {
            // SAFETY: dropped once, here, and not used again: no read of the eventfd is armed.
            unsafe { ManuallyDrop::drop(&mut self.counter) }
        }
    }
}
