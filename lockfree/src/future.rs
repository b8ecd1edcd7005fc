//! An allocation that waits: as a future, or blocking a thread.

use crate::allocation::Allocation;
use crate::allocator::Allocator;
use crate::device::Device;
use crate::error::Error;
use crate::reserves::Free;
use crate::sync::{Arc, Thread, current, park_until};
use crate::wait::{Turn, Waiter};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::task::Wake;
use std::time::Instant;
use tierce_core::{DeviceIndex, Reserve, Snapshot};

/// The next free bucket, see [`Allocator::alloc_on`]. Dropping it leaves the line; a bucket that
/// was handed over already goes to the next.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct AllocFuture<'a> {
    allocator: &'a Allocator,
    device: DeviceIndex,
    reserve: Reserve,
    waiter: Option<Arc<Waiter>>,
}

impl<'a> AllocFuture<'a> {
    pub(crate) fn new(allocator: &'a Allocator, device: DeviceIndex, reserve: Reserve) -> Self {
        Self { allocator, device, reserve, waiter: None }
    }

    fn device(&self) -> &'a Device {
        &self.allocator.devices()[self.device.as_usize()]
    }

    /// `Some` when it is decided.
    fn advance(&mut self, waker: &Waker) -> Option<Result<Allocation<'a>, Error>> {
        let device = self.device();
        loop {
            let Some(waiter) = &self.waiter else {
                match device.take(self.reserve) {
                    Ok(Some((free, word))) => return Some(Ok(self.allocation(free, word))),
                    Err(error) => return Some(Err(error)),
                    Ok(None) => {}
                }
                device.counters.alloc_waits.add(1);
                self.waiter = Some(device.waits.line_up(self.reserve, waker));
                device.serve();
                device.bell.ring();
                continue;
            };
            match waiter.poll(waker) {
                Turn::Wait => return None,
                Turn::Bucket(bucket) => {
                    self.waiter = None;
                    if let Some(allocation) = self.claim(bucket) {
                        return Some(Ok(allocation));
                    }
                }
                Turn::Closed => {
                    self.waiter = None;
                    return Some(Err(device.check().err().unwrap_or(Error::Closed)));
                }
            }
        }
    }

    fn claim(&self, free: Free) -> Option<Allocation<'a>> {
        let word = self.device().claim(free.bucket, self.reserve)?;
        Some(self.allocation(free, word))
    }

    fn allocation(&self, free: Free, word: Snapshot) -> Allocation<'a> {
        Allocation::new(self.allocator, self.device, free, word.gen_())
    }

    /// Blocks the thread until it is decided, or until `deadline`.
    pub(crate) fn block_until(
        mut self,
        deadline: Option<Instant>,
    ) -> Result<Allocation<'a>, Error> {
        let waker = Waker::from(std::sync::Arc::new(Unpark(current())));
        loop {
            if let Some(decided) = self.advance(&waker) {
                return decided;
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return match self.leave().and_then(|bucket| self.claim(bucket)) {
                    Some(allocation) => Ok(allocation),
                    None => {
                        self.device().counters.alloc_fails.add(1);
                        Err(Error::TimedOut)
                    }
                };
            }
            park_until(deadline);
        }
    }

    /// Leaves the line, maybe with a bucket that was handed over just now.
    fn leave(&mut self) -> Option<Free> {
        let waiter = self.waiter.take()?;
        self.device().waits.leave(self.reserve, &waiter)
    }
}

impl<'a> Future for AllocFuture<'a> {
    type Output = Result<Allocation<'a>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.advance(cx.waker()) {
            Some(decided) => Poll::Ready(decided),
            None => Poll::Pending,
        }
    }
}

impl Drop for AllocFuture<'_> {
    fn drop(&mut self) {
        if let Some(bucket) = self.leave() {
            self.device().put_back(bucket);
        }
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}
