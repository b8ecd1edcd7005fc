//! A bucket of whichever device of the set has one.
//!
//! # Problem
//!
//! Who does not care for the device must not depend on one: not on the one that looked best when
//! all had nothing and fails, or hangs, while another has buckets again.
//!
//! # Protocol
//!
//! 1. Look at every device that works, the one that has most free first.
//! 2. Line up at each of them, in device order. What comes first is taken, and the other lines are
//!    left; a bucket that was handed over there meanwhile goes to the next in line.
//! 3. A device that fails is left out. When none is left its error is the answer.
//!
//! # Progress
//!
//! As [`Allocator::alloc_on`], on every device: in each line nobody who comes later is served before.

use crate::allocation::Allocation;
use crate::allocator::Allocator;
use crate::error::Error;
use crate::events::event;
use crate::future::{self, AllocFuture, Decided};
use crate::no_wait;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::time::Instant;
use tierce_core::Reserve;

/// The next free bucket of the set, see [`Allocator::alloc_any`]. Dropping it leaves the lines; a
/// bucket that was handed over already goes to the next.
///
/// ```
/// # use tierce_core::Reserve;
/// # use tierce_lockfree::{Allocation, Allocator, Error};
/// async fn bucket(allocator: &Allocator) -> Result<Allocation<'_>, Error> {
///     allocator.alloc_any(Reserve::None).await
/// }
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct AnyFuture<'a> {
    allocator: &'a Allocator,
    reserve: Reserve,
    /// He has looked, and found nothing.
    looked: bool,
    /// His places in the lines of the devices that work.
    places: Vec<AllocFuture<'a>>,
}

impl<'a> AnyFuture<'a> {
    /// The first look, without lining up if nothing is free.
    fn at_once(&mut self) -> Option<Result<Allocation<'a>, Error>> {
        no_wait::check();
        let decided = self.allocator.most_free_first(self.reserve).transpose();
        self.looked = decided.is_none();
        decided
    }

    /// Looks, and if nothing is free takes a place at every device that works.
    fn line_up(&mut self) -> Option<Result<Allocation<'a>, Error>> {
        if !core::mem::take(&mut self.looked)
            && let Some(decided) = self.at_once()
        {
            return Some(decided);
        }
        let (allocator, reserve) = (self.allocator, self.reserve);
        let working = allocator.devices().iter().filter(|device| device.check().is_ok());
        let place = |index| AllocFuture::new(allocator, index, reserve).looked();
        self.places = working.map(|device| place(device.index())).collect();
        self.places.is_empty().then(|| Err(allocator.why_none_works()))
    }
}

impl<'a> Decided for AnyFuture<'a> {
    type Output = Allocation<'a>;

    fn advance(&mut self, waker: &Waker) -> Option<Result<Allocation<'a>, Error>> {
        if self.places.is_empty()
            && let Some(decided) = self.line_up()
        {
            return Some(decided);
        }
        let (mut at, mut ended) = (0, None);
        while let Some(place) = self.places.get_mut(at) {
            match place.advance(waker) {
                Some(Ok(allocation)) => {
                    self.places.clear();
                    return Some(Ok(allocation));
                }
                Some(Err(error)) => {
                    drop(self.places.remove(at));
                    ended = Some(error);
                }
                None => at += 1,
            }
        }
        ended.filter(|_| self.places.is_empty()).map(Err)
    }

    fn give_up(&mut self) -> Option<Allocation<'a>> {
        let late = self.places.iter_mut().find_map(Decided::give_up);
        self.places.clear();
        late
    }
}

impl<'a> Future for AnyFuture<'a> {
    type Output = Result<Allocation<'a>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.advance(cx.waker()) {
            Some(decided) => Poll::Ready(decided),
            None => Poll::Pending,
        }
    }
}

impl Allocator {
    /// As [`try_alloc`](Self::try_alloc), of the device that has most free, or of the next one that
    /// has any.
    ///
    /// ```
    /// # use tierce_core::{Geometry, Reserve};
    /// # use tierce_lockfree::{Allocator, Config, DeviceTable};
    /// # let geometry = Geometry::new(1024, 1, 128, 1)?;
    /// # let tables = vec![DeviceTable::empty(geometry), DeviceTable::empty(geometry)];
    /// # let (allocator, _reclaimers) = Allocator::start(Config::default(), tables)?.finish();
    /// let next = || allocator.try_alloc_any(Reserve::Btree).map(|found| found.expect("filled"));
    /// let (first, second) = (next()?.bucket_ref(), next()?.bucket_ref());
    /// # let _ = (first, second);
    /// # Ok::<(), tierce_lockfree::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], or [`Error::DeviceFailed`] if every device has failed.
    pub fn try_alloc_any(&self, reserve: Reserve) -> Result<Option<Allocation<'_>>, Error> {
        let found = self.most_free_first(reserve)?;
        if found.is_none()
            && let Some(best) = self.ranked(reserve).first()
        {
            best.counters.alloc_fails.add(1);
            event!(DEBUG, "alloc_fail", device = best.index(), reserve = reserve);
        }
        Ok(found)
    }

    /// A bucket of any device, as soon as one is free: of the one that has most free, or where there
    /// is one first. Who waits stands in line at every device that works, and counts as waiting
    /// at each. Fair, and what its callers must not do, as [`alloc_on`](Self::alloc_on).
    ///
    /// # Errors
    ///
    /// The future gives [`Error::Closed`], or [`Error::DeviceFailed`] when every device has failed.
    pub fn alloc_any(&self, reserve: Reserve) -> AnyFuture<'_> {
        AnyFuture { allocator: self, reserve, looked: false, places: Vec::new() }
    }

    /// As [`alloc_any`](Self::alloc_any), blocking the thread until `deadline` at the latest (`None`:
    /// for as long as it takes).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`], [`Error::Closed`] or [`Error::DeviceFailed`].
    pub fn alloc_any_until(
        &self,
        reserve: Reserve,
        deadline: Option<Instant>,
    ) -> Result<Allocation<'_>, Error> {
        let mut allocation = self.alloc_any(reserve);
        match allocation.at_once() {
            Some(decided) => decided,
            None => future::block_until(allocation, deadline),
        }
    }

    /// A bucket of the device that works and has most free, or of the next one that has any.
    fn most_free_first(&self, reserve: Reserve) -> Result<Option<Allocation<'_>>, Error> {
        if let [only] = self.devices() {
            let taken = only.take(reserve)?;
            return Ok(taken.map(|(free, word)| Allocation::new(only, free, word.gen_())));
        }
        let ranked = self.ranked(reserve);
        if ranked.is_empty() {
            return Err(self.why_none_works());
        }
        // Whatever the ranking said, finding nothing means that nobody had anything.
        Ok(ranked.into_iter().find_map(|device| {
            let (free, word) = device.take(reserve).ok()??;
            Some(Allocation::new(device, free, word.gen_()))
        }))
    }

    /// What the first device ended with, when all have.
    fn why_none_works(&self) -> Error {
        self.devices()[0].check().err().unwrap_or(Error::Closed)
    }
}
