//! An allocation that waits: as a future, or blocking a thread.
//!
//! What can be waited for in both ways is `Decided` step by step.

use crate::allocation::Allocation;
use crate::allocator::Allocator;
use crate::device::Device;
use crate::error::Error;
use crate::events::event;
use crate::no_wait;
use crate::reserves::Free;
use crate::sync::{Arc, Thread, current, park_until};
use crate::wait::{Turn, Waiter};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::task::Wake;
use std::time::Instant;
use tierce_core::{DeviceIndex, Reserve, Snapshot, broken};

/// The next free bucket, see [`Allocator::alloc_on`]. Dropping it leaves the line; a bucket that
/// was handed over already goes to the next.
///
/// ```
/// # use tierce_core::{DeviceIndex, Geometry, Reserve};
/// # use tierce_lockfree::{Allocation, Allocator, Config, DeviceTable, Error};
/// async fn node(allocator: &Allocator) -> Result<Allocation<'_>, Error> {
///     allocator.alloc_on(DeviceIndex::FIRST, Reserve::Btree).await
/// }
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct AllocFuture<'a> {
    allocator: &'a Allocator,
    device: DeviceIndex,
    reserve: Reserve,
    waiter: Option<Arc<Waiter>>,
    /// He has looked, and found nothing: next he lines up, and looks once more then.
    looked: bool,
    /// When he lined up.
    since: Option<Instant>,
}

/// Something that is waited for.
pub(crate) trait Decided {
    /// What comes of it.
    type Output;

    /// `Some` when it is decided; otherwise `waker` is called when it may be.
    fn advance(&mut self, waker: &Waker) -> Option<Result<Self::Output, Error>>;

    /// The deadline has passed; `Some` if it was decided just now.
    fn give_up(&mut self) -> Option<Self::Output>;
}

/// Blocks the thread until `awaited` is decided, or until `deadline`.
pub(crate) fn block_until<T>(
    mut awaited: impl Decided<Output = T>,
    deadline: Option<Instant>,
) -> Result<T, Error> {
    let waker = Waker::from(std::sync::Arc::new(Unpark(current())));
    loop {
        if let Some(decided) = awaited.advance(&waker) {
            return decided;
        }
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return awaited.give_up().ok_or(Error::TimedOut);
        }
        park_until(deadline);
    }
}

impl<'a> AllocFuture<'a> {
    pub(crate) fn new(allocator: &'a Allocator, device: DeviceIndex, reserve: Reserve) -> Self {
        Self { allocator, device, reserve, waiter: None, looked: false, since: None }
    }

    /// The same, for who has just looked and found nothing.
    pub(crate) fn looked(mut self) -> Self {
        self.looked = true;
        self
    }

    /// The first look, without lining up if nothing is free.
    pub(crate) fn at_once(&mut self) -> Option<Result<Allocation<'a>, Error>> {
        no_wait::check();
        let taken = self.device().take(self.reserve);
        let taken = taken.map(|taken| taken.map(|(free, word)| self.allocation(free, word)));
        let decided = taken.transpose();
        self.looked = decided.is_none();
        decided
    }

    fn device(&self) -> &'a Device {
        &self.allocator.devices()[self.device.as_usize()]
    }

    fn look(&mut self, waker: &Waker) -> Option<Result<Allocation<'a>, Error>> {
        let device = self.device();
        loop {
            let Some(waiter) = &self.waiter else {
                if !core::mem::take(&mut self.looked) {
                    match device.take(self.reserve) {
                        Ok(Some((free, word))) => return Some(Ok(self.allocation(free, word))),
                        Err(error) => return Some(Err(error)),
                        Ok(None) => {}
                    }
                }
                device.counters.alloc_waits.add(1);
                self.since = Some(Instant::now());
                event!(DEBUG, "wait", device = self.device, reserve = self.reserve);
                self.waiter = Some(device.waits.line_up(self.reserve, waker));
                if !broken!("no_second_try") {
                    device.serve();
                }
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
        Allocation::new(self.device(), free, word.gen_())
    }

    /// The wait is over, however it ended.
    fn note_end(&mut self) {
        if let Some(since) = self.since.take() {
            self.device().counters.wait_times.add(since.elapsed());
            event!(DEBUG, "wait_end", device = self.device, reserve = self.reserve);
        }
    }

    /// Leaves the line, maybe with a bucket that was handed over just now.
    fn leave(&mut self) -> Option<Free> {
        let waiter = self.waiter.take()?;
        self.device().waits.leave(self.reserve, &waiter)
    }
}

impl<'a> Decided for AllocFuture<'a> {
    type Output = Allocation<'a>;

    fn advance(&mut self, waker: &Waker) -> Option<Result<Allocation<'a>, Error>> {
        if self.waiter.is_none() {
            no_wait::check();
        }
        let decided = self.look(waker);
        if decided.is_some() {
            self.note_end();
        }
        decided
    }

    fn give_up(&mut self) -> Option<Allocation<'a>> {
        let late = self.leave().and_then(|bucket| self.claim(bucket));
        if late.is_none() {
            self.device().counters.alloc_fails.add(1);
        }
        self.note_end();
        late
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
        if let Some(bucket) = self.leave()
            && !broken!("handed_lost")
        {
            self.device().put_back(bucket);
        }
        self.note_end();
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}
