//! Discards on the way from "durable" to "free".
//!
//! # Problem
//!
//! A device takes its time for a discard, and its users feel it when there are many. So they are
//! done a few at a time, at a bounded rate, while everything else goes on; and when free space is
//! short nobody waits for them.
//!
//! # Protocol
//!
//! A bucket whose gen is durable is *claimed* once, for one of two ways, and never for both:
//!
//! * *discarding*: [`Step::Discard`] gave it to the owner. It is released when the owner says that
//!   the discard is over, however it ended, and not before: a discard that is carried out after
//!   the bucket was handed out would destroy its new content.
//! * *released* without a discard, and counted, because somebody waits for a bucket, or found
//!   none and there still is none.
//!
//! The reclaimer is one thread's, and a claim is a move from one list to another: no bucket can
//! be claimed twice.
//!
//! An owner who says nothing discards one bucket at a time, before the next step, and every bucket
//! is discarded. One who calls [`Reclaimer::allow_discards`] has as many under way as he allows.
//!
//! # Progress
//!
//! A discard that hangs keeps its own bucket. The next batch is chosen and written meanwhile, and
//! who waits is served with what is not claimed.

use super::{Phase, Reclaimer, Step, WaitFor};
use crate::allocator::Allocator;
use crate::device::Hunger;
use crate::sync::Arc;
use std::collections::VecDeque;
use std::task::{Wake, Waker};
use tierce_core::spec::Event;
use tierce_core::{BucketIndex, DeviceIndex, broken};

/// Discards of an owner who allows several.
#[derive(Debug, Default)]
pub(super) struct Discards {
    /// How many more he allows.
    allowed: usize,
    /// With the owner.
    under_way: Vec<BucketIndex>,
    /// Over, or skipped: on the way to the free lists.
    settled: VecDeque<BucketIndex>,
}

impl Discards {
    /// Buckets that are neither ready nor free.
    pub(super) fn len(&self) -> usize {
        self.under_way.len() + self.settled.len()
    }
}

impl Reclaimer {
    /// From now on several discards may be under way: [`step`](Self::step) asks for at most
    /// `count` more until this is called again, and the owner says of each when it is
    /// [over](Self::discarded), in any order, and then steps again. Buckets are also released
    /// without a discard while free space is short.
    ///
    /// ```
    /// # use tierce_core::Geometry;
    /// # use tierce_lockfree::{Allocator, Config, DeviceTable, Step, WaitFor};
    /// # let geometry = Geometry::new(1024, 1, 128, 1)?;
    /// # let config = Config::default().sync(false).discard(true);
    /// # let (_allocator, mut reclaimers) =
    /// #     Allocator::start(config, vec![DeviceTable::empty(geometry)])?.finish();
    /// let reclaimer = &mut reclaimers[0];
    /// reclaimer.allow_discards(2);
    /// let Step::Discard(first) = reclaimer.step() else { panic!("one") };
    /// let Step::Discard(second) = reclaimer.step() else { panic!("two") };
    /// assert!(matches!(reclaimer.step(), Step::Wait(WaitFor::Discard)));
    /// reclaimer.discarded(second);
    /// reclaimer.discarded(first);
    /// # Ok::<(), tierce_lockfree::Error>(())
    /// ```
    pub fn allow_discards(&mut self, count: usize) {
        if self.discards.is_none() {
            self.discards = Some(self.taken_over());
        }
        if let Some(discards) = &mut self.discards {
            discards.allowed = count;
        }
    }

    /// What was discarded one at a time so far goes on among several.
    fn taken_over(&mut self) -> Discards {
        let mut discards = Discards::default();
        let in_hand = self.in_hand.take_if(|_| self.allocator.config().discard);
        match in_hand {
            Some((bucket, true)) => discards.settled.push_back(bucket),
            Some((bucket, false)) => discards.under_way.push(bucket),
            None => {}
        }
        discards.under_way.extend(self.loose.take());
        discards
    }

    /// Whether some bucket waits to be discarded: allowing more of it makes a difference.
    #[must_use]
    pub fn wants_discards(&self) -> bool {
        self.allocator.config().discard && (!self.ready.is_empty() || self.dev().any_undiscarded())
    }

    /// The discard of a bucket of [`Step::Discard`] is over, or the device would not do it: both
    /// are fine, the bucket goes on.
    ///
    /// # Panics
    ///
    /// If no discard of this bucket is under way.
    pub fn discarded(&mut self, bucket: BucketIndex) {
        self.dev().counters.discards.add(1);
        if let Some(discards) = &mut self.discards {
            let at = discards.under_way.iter().position(|&other| other == bucket);
            discards.under_way.swap_remove(at.expect("a discard is asked for once, and over once"));
            discards.settled.push_back(bucket);
            self.event(|bucket| Event::Discarded { bucket }, bucket);
            return;
        }
        if self.loose.take() == Some(bucket) {
            self.event(|bucket| Event::Discarded { bucket }, bucket);
            if let Err(bucket) = self.release(bucket) {
                self.dev().keep(bucket);
            }
            return;
        }
        assert_eq!(self.in_hand, Some((bucket, false)), "a discard is asked for once");
        self.in_hand = Some((bucket, true));
        self.event(|bucket| Event::Discarded { bucket }, bucket);
    }

    /// Rings this reclaimer's bell: for whoever performs its discards elsewhere.
    #[must_use]
    pub fn waker(&self) -> Waker {
        let (allocator, device) = (Arc::clone(&self.allocator), self.device);
        Waker::from(std::sync::Arc::new(Ring { allocator, device }))
    }

    /// In every phase: the bucket that is to be discarded next.
    pub(super) fn next_discard(&mut self) -> Option<BucketIndex> {
        if self.discards.is_none() {
            return self.next_loose();
        }
        if !self.allocator.config().discard {
            return None;
        }
        self.release_settled();
        let bucket = self.claim(|discards| discards.allowed > 0)?;
        let discards = self.discards.as_mut()?;
        discards.allowed -= 1;
        discards.under_way.push(bucket);
        if broken!("discard_released_at_once") {
            discards.settled.push_back(bucket);
        }
        Some(bucket)
    }

    /// A bucket that skipped the prio write but not its discard.
    pub(super) fn next_loose(&mut self) -> Option<BucketIndex> {
        if self.allocator.config().discard {
            self.loose = self.dev().next_undiscarded();
        }
        self.loose
    }

    /// A bucket that nobody has claimed: those that skipped the prio write first, who may be all
    /// that those who wait can get.
    fn claim(&mut self, may: impl FnOnce(&Discards) -> bool) -> Option<BucketIndex> {
        if !self.discards.as_ref().is_some_and(may) {
            return None;
        }
        self.dev().next_undiscarded().or_else(|| self.ready.pop_front())
    }

    /// Releases what is discarded, and while free space is short also what is not claimed.
    fn release_settled(&mut self) {
        loop {
            let settled = self.discards.as_mut().and_then(|discards| discards.settled.pop_front());
            let Some(bucket) = settled.or_else(|| self.skip_one()) else { return };
            if let Err(bucket) = self.release(bucket) {
                let discards = self.discards.as_mut().expect("it was there a moment ago");
                return discards.settled.push_front(bucket);
            }
        }
    }

    /// Claims a bucket to be released without its discard, if free space is short.
    fn skip_one(&mut self) -> Option<BucketIndex> {
        if !self.dev().is_short() {
            return None;
        }
        let bucket = self.claim(|_| true)?;
        self.dev().counters.discards_skipped.add(1);
        Some(bucket)
    }

    /// Phase 1 for an owner who allows several discards.
    pub(super) fn drain_discards(&mut self) -> Option<Step> {
        if self.discards.as_ref().is_some_and(|discards| !discards.settled.is_empty()) {
            return Some(Step::Wait(WaitFor::Room));
        }
        if self.ready.is_empty() {
            self.phase = Phase::Choose;
            return None;
        }
        if self.discards.as_ref().is_some_and(|discards| discards.allowed > 0) {
            return None; // what has just become ready
        }
        self.dev().stay_hungry(Hunger::Discards);
        // Once more: somebody may have come to wait before we said that we do.
        if self.dev().is_short() { None } else { Some(Step::Wait(WaitFor::Discard)) }
    }
}

struct Ring {
    allocator: Arc<Allocator>,
    device: DeviceIndex,
}

impl Wake for Ring {
    fn wake(self: std::sync::Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &std::sync::Arc<Self>) {
        self.allocator.devices()[self.device.as_usize()].bell.ring();
    }
}
