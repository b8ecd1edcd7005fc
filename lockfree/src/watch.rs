//! Waiting until so many buckets could be had, without taking them.
//!
//! # Problem
//!
//! Whoever changes an index needs buckets while he holds its locks, and must not wait for them
//! then: what makes buckets free may need those locks. So he waits first, holding nothing, until
//! there is what he needs, takes the locks, and takes the buckets without waiting; if others were
//! faster he lets go of the locks and waits again.
//!
//! # State and protocol
//!
//! For the set one line per reserve of those who watch, under one lock; per device the bit
//! `WATCHED` of its word of attention, set and cleared under that lock. A bucket wakes the first of
//! each line: he counts what is free.
//!
//! 1. A watcher counts; if there is too little he lines up and sets the bits; he counts again; he
//!    sleeps.
//! 2. Whoever made buckets free looks at the word of attention, and if it says so wakes the first
//!    watcher of each line.
//! 3. A watcher who wakes up and finds enough leaves the line and wakes the next in it: he has
//!    taken nothing. One who finds too little goes on sleeping at his place.
//!
//! # Memory ordering
//!
//! As in `attention.rs`: either the watcher's second count finds the bucket or its releaser finds
//! the bit.
//!
//! # Progress
//!
//! With nobody watching: nothing. A watcher waits for buckets, and for those of his line
//! who came before him and want more.

use crate::allocator::Allocator;
use crate::device::Device;
use crate::error::Error;
use crate::future;
use crate::no_wait;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::time::Instant;
use tierce_core::{Reserve, broken};

/// Somebody in line.
#[derive(Debug)]
struct Watcher(Mutex<Waker>);

/// Everybody who watches the free lists of a set.
#[derive(Debug)]
pub(crate) struct Watches {
    lines: Mutex<[VecDeque<Arc<Watcher>>; Reserve::COUNT]>,
    registered: AtomicUsize,
}

impl Watches {
    /// Nobody.
    pub(crate) fn new() -> Self {
        Self { lines: Mutex::new(Default::default()), registered: AtomicUsize::new(0) }
    }

    /// How many watch.
    pub(crate) fn len(&self) -> usize {
        // Relaxed: a hint.
        self.registered.load(Ordering::Relaxed)
    }

    fn line_up(&self, reserve: Reserve, waker: &Waker, devices: &[Device]) -> Arc<Watcher> {
        let watcher = Arc::new(Watcher(Mutex::new(waker.clone())));
        let mut lines = self.lines.lock();
        lines[reserve.as_usize()].push_back(Arc::clone(&watcher));
        // Relaxed: a statistic, written under the lock only.
        self.registered.store(lines.iter().map(VecDeque::len).sum(), Ordering::Relaxed);
        devices.iter().for_each(|device| device.set_watched(true));
        watcher
    }

    /// Leaves the line; the next in it is woken.
    fn leave(&self, reserve: Reserve, watcher: &Arc<Watcher>, devices: &[Device]) {
        let mut lines = self.lines.lock();
        let line = &mut lines[reserve.as_usize()];
        line.retain(|other| !Arc::ptr_eq(other, watcher));
        let next = line.front().cloned();
        let left = lines.iter().map(VecDeque::len).sum();
        // Relaxed: as in `line_up`.
        self.registered.store(left, Ordering::Relaxed);
        if left == 0 {
            devices.iter().for_each(|device| device.set_watched(false));
        }
        drop(lines);
        if !broken!("watch_leaves_silently") {
            wake(next);
        }
    }

    /// Buckets were put on some list, and a device's word of attention says that somebody watches.
    pub(crate) fn offered(&self) {
        let lines = self.lines.lock();
        let firsts: Vec<_> = lines.iter().filter_map(|line| line.front().cloned()).collect();
        drop(lines);
        firsts.into_iter().for_each(|first| wake(Some(first)));
    }

    /// A device has ended: everybody looks.
    pub(crate) fn wake_all(&self) {
        let lines = self.lines.lock();
        let all: Vec<_> = lines.iter().flatten().cloned().collect();
        drop(lines);
        all.into_iter().for_each(|watcher| wake(Some(watcher)));
    }
}

/// Outside of the lines' lock: a waker may do anything.
fn wake(watcher: Option<Arc<Watcher>>) {
    if let Some(watcher) = watcher {
        let waker = watcher.0.lock().clone();
        waker.wake();
    }
}

/// Ready as soon as so many buckets could be had, see [`Allocator::wait_for`]. Dropping it leaves
/// the line.
///
/// ```
/// # use tierce_core::Reserve;
/// # use tierce_lockfree::{Allocator, Error};
/// async fn room_for_a_split(allocator: &Allocator) -> Result<(), Error> {
///     allocator.wait_for(Reserve::Btree, 3).await
/// }
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct FreeFuture<'a> {
    allocator: &'a Allocator,
    reserve: Reserve,
    n: usize,
    watcher: Option<Arc<Watcher>>,
}

impl FreeFuture<'_> {
    /// Whether there is enough; an error if there never will be.
    fn look(&self) -> Result<bool, Error> {
        // Looked at once: a device may end at any time.
        let (mut working, mut ended) = (Vec::new(), None);
        for device in self.allocator.devices() {
            match device.check() {
                Ok(()) => working.push(device),
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => ended = ended.or(Some(error)),
            }
        }
        if let Some(error) = ended.filter(|_| working.is_empty()) {
            return Err(error);
        }
        let own = (self.reserve != Reserve::None).then_some(self.reserve);
        let capacity: u64 = working
            .iter()
            .flat_map(|device| own.into_iter().chain([Reserve::None]).map(|r| device.sizes().of(r)))
            .map(u64::from)
            .sum();
        if self.n as u64 > capacity {
            let wanted = format!("at most {capacity}, what the free lists hold");
            let found = self.n as u64;
            let what = "the number of buckets to wait for";
            return Err(Error::Config(tierce_core::Error::Limit { what, found, wanted }));
        }
        Ok(working.iter().map(|device| device.usable_hint(self.reserve)).sum::<usize>() >= self.n)
    }

    fn leave(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            self.allocator.watches().leave(self.reserve, &watcher, self.allocator.devices());
        }
    }
}

impl future::Decided for FreeFuture<'_> {
    type Output = ();

    fn advance(&mut self, waker: &Waker) -> Option<Result<(), Error>> {
        if let Some(watcher) = &self.watcher {
            watcher.0.lock().clone_from(waker);
        } else {
            no_wait::check();
        }
        loop {
            match self.look() {
                Ok(false) => {}
                decided => {
                    self.leave();
                    return Some(decided.map(drop));
                }
            }
            if self.watcher.is_some() {
                return None;
            }
            let devices = self.allocator.devices();
            self.watcher = Some(self.allocator.watches().line_up(self.reserve, waker, devices));
            devices.iter().for_each(Device::feel_demand);
            if broken!("watch_no_second_look") {
                return None;
            }
        }
    }

    fn give_up(&mut self) -> Option<()> {
        self.leave();
        None
    }
}

impl Future for FreeFuture<'_> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match future::Decided::advance(&mut *self, cx.waker()) {
            Some(decided) => Poll::Ready(decided),
            None => Poll::Pending,
        }
    }
}

impl Drop for FreeFuture<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Allocator {
    /// Ready when `n` buckets could be had by users of `reserve`, on all devices of the set
    /// together. Nothing is taken or set aside: what it saw may be gone when the caller comes to
    /// take it, with [`try_alloc`](Self::try_alloc), and then he waits again. It is for those who
    /// must not wait once they hold their locks, see [`NoWait`](crate::NoWait).
    ///
    /// Those who wait so for the same reserve are served in the order in which they came: one who
    /// wants few waits behind one who wants many.
    ///
    /// ```
    /// # use tierce_core::{Geometry, Reserve};
    /// # use tierce_lockfree::{Allocator, Config, DeviceTable};
    /// # let geometry = Geometry::new(1024, 1, 128, 1)?;
    /// # let (allocator, _reclaimers) =
    /// #     Allocator::start(Config::default(), vec![DeviceTable::empty(geometry)])?.finish();
    /// allocator.wait_for_until(Reserve::Btree, 3, None)?; // the reserve was filled at start
    /// // … take the locks of three nodes …
    /// let node = || allocator.try_alloc(Reserve::Btree).ok().flatten();
    /// let nodes: Vec<_> = std::iter::from_fn(node).take(3).collect();
    /// assert_eq!(nodes.len(), 3, "or let go of the locks and wait again");
    /// # Ok::<(), tierce_lockfree::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The future gives [`Error::Closed`], [`Error::DeviceFailed`] if every device has failed,
    /// [`Error::Config`] if the free lists of those that work do not hold so many.
    ///
    /// # Panics
    ///
    /// In debug builds, if it is polled by a thread that has a [`NoWait`](crate::NoWait).
    pub fn wait_for(&self, reserve: Reserve, n: usize) -> FreeFuture<'_> {
        FreeFuture { allocator: self, reserve, n, watcher: None }
    }

    /// As [`wait_for`](Self::wait_for), blocking the thread until `deadline` at the latest
    /// (`None`: for as long as it takes).
    ///
    /// # Errors
    ///
    /// As there, and [`Error::TimedOut`].
    pub fn wait_for_until(
        &self,
        reserve: Reserve,
        n: usize,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        future::block_until(self.wait_for(reserve, n), deadline)
    }
}
