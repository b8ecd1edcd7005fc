//! Discards: how many at a time, and how fast.
//!
//! # Problem
//!
//! A discard tells flash that a bucket's content is not needed any more. A device does a few
//! thousand a second whatever the depth, and what more depth brings is latency, for everybody
//! who reads and writes as well. So discards are spread over time, and nobody waits for them:
//! which bucket goes without one when free space is short is the reclaimer's decision
//! (`tierce_lockfree::Reclaimer::allow_discards`).
//!
//! # Protocol
//!
//! 1. [`DiscardPace`] says how many may begin now: no more than `depth` are under way, and no
//!    more than `per_second` begin in a second, of which `depth` may be made up for at once.
//! 2. The reclaimer claims that many buckets, after their gens became durable; each discard is
//!    submitted, and nobody waits for it.
//! 3. Its completion rings the reclaimer's bell. Only then, also after an error, the bucket goes
//!    on to the free lists. An error is counted, and is nothing else: a bucket is as free
//!    without.
//!
//! How a discard is done is the device's own choice: BLOCK_URING_CMD_DISCARD, `BLKDISCARD`, a
//! hole in a file, or not at all ([`DiscardKind`](crate::DiscardKind)).

use crate::completion::{Completion, Outcome};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tierce_core::BucketIndex;

/// How many discards are under way at a time, and how many begin in a second.
///
/// ```
/// use tierce_io::DiscardPace;
/// let gentle = DiscardPace::default().per_second(Some(500));
/// assert_eq!(gentle.depth, 4);
/// assert_eq!(DiscardPace::unbounded(8).per_second, None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DiscardPace {
    /// Under way at a time. 0: none is ever done, and every bucket waits until free space is
    /// short; whoever wants no discards says so in `Config::discard`.
    pub depth: u32,
    /// Begun in a second; `None`: as fast as the device does them.
    pub per_second: Option<u32>,
}

impl Default for DiscardPace {
    /// 4 at a time, 2000 a second: half of what devices do, and with buckets of 512 KiB enough
    /// for writing 1 GB/s.
    fn default() -> Self {
        Self { depth: 4, per_second: Some(2000) }
    }
}

tierce_core::setters!(DiscardPace { depth: u32, per_second: Option<u32> });

impl DiscardPace {
    /// As fast as the device does them, `depth` at a time.
    #[must_use]
    pub const fn unbounded(depth: u32) -> Self {
        Self { depth, per_second: None }
    }

    /// The time from one to the next.
    fn interval(self) -> Duration {
        let per_second = self.per_second.map(|rate| rate.max(1));
        per_second.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate)
    }
}

/// Those that are under way, and when the next may begin.
#[derive(Debug)]
pub(crate) struct Discards {
    pace: DiscardPace,
    under_way: Vec<(BucketIndex, Completion)>,
    /// When the next one is due. Lies in the past by at most `depth` intervals.
    due: Option<Instant>,
}

impl Discards {
    pub(crate) fn new(pace: DiscardPace) -> Self {
        Self { pace, under_way: Vec::new(), due: None }
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// How many may begin at `now`.
    pub(crate) fn allowed(&self, now: Instant) -> usize {
        let room = (self.pace.depth as usize).saturating_sub(self.len());
        let interval = self.pace.interval();
        match self.due {
            Some(due) if !interval.is_zero() => {
                let Some(behind) = now.checked_duration_since(due) else { return 0 };
                room.min((behind.as_nanos() / interval.as_nanos()) as usize + 1)
            }
            _ => room,
        }
    }

    /// When time alone allows one more; `None` if a completion has to come first.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.due.filter(|_| self.len() < self.pace.depth as usize)
    }

    /// One begins at `now`.
    pub(crate) fn begin(&mut self, bucket: BucketIndex, discard: Completion, now: Instant) {
        self.under_way.push((bucket, discard));
        let interval = self.pace.interval();
        if interval.is_zero() {
            return;
        }
        let behind = interval * self.pace.depth.saturating_sub(1);
        let earliest = now.checked_sub(behind).unwrap_or(now);
        let due = self.due.map_or(now, |due| due.max(earliest));
        self.due = Some(due + interval);
    }

    /// One that is over, and how it ended. The others will wake `waker`.
    pub(crate) fn take_done(&mut self, waker: &Waker) -> Option<(BucketIndex, Outcome)> {
        let mut context = Context::from_waker(waker);
        for at in 0..self.under_way.len() {
            let (bucket, discard) = &mut self.under_way[at];
            if let Poll::Ready(outcome) = Pin::new(discard).poll(&mut context) {
                let bucket = *bucket;
                drop(self.under_way.swap_remove(at));
                return Some((bucket, outcome));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffer;
    use crate::completion::Completer;

    fn begin(discards: &mut Discards, now: Instant) -> Completer {
        let (completer, completion) = Completer::new("dev".into());
        discards.begin(BucketIndex::new(7), completion, now);
        completer
    }

    fn finish(discards: &mut Discards, completer: Completer) {
        completer.complete(Ok(Buffer::empty()));
        let (bucket, outcome) = discards.take_done(Waker::noop()).expect("it is over");
        assert!(outcome.is_ok() && bucket == BucketIndex::new(7));
    }

    #[test]
    fn no_more_are_under_way_than_the_depth() {
        let now = Instant::now();
        let mut discards = Discards::new(DiscardPace::unbounded(2));
        assert_eq!(discards.allowed(now), 2);
        let first = begin(&mut discards, now);
        let _second = begin(&mut discards, now);
        assert_eq!((discards.allowed(now), discards.next_at()), (0, None));
        assert!(discards.take_done(Waker::noop()).is_none());
        finish(&mut discards, first);
        assert_eq!(discards.allowed(now), 1);
    }

    #[test]
    fn no_more_begin_than_the_rate_allows() {
        let pace = DiscardPace::unbounded(4).per_second(Some(100));
        let mut discards = Discards::new(pace);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let one = |discards: &mut Discards, now| {
            let completer = begin(discards, now);
            finish(discards, completer);
        };
        one(&mut discards, at(0));
        assert_eq!((discards.allowed(at(9)), discards.next_at()), (0, Some(at(10))));
        assert_eq!(discards.allowed(at(10)), 1);
        // What was missed is made up for, but no more than the depth.
        assert_eq!(discards.allowed(at(10_000)), 4);
        for left in (0..4).rev() {
            one(&mut discards, at(10_000));
            assert_eq!(discards.allowed(at(10_000)), left);
        }
        // A second of begins whenever it is allowed, looked at every millisecond.
        let begun: usize = (20_000..21_000)
            .map(|ms| {
                let allowed = discards.allowed(at(ms));
                (0..allowed).for_each(|_| one(&mut discards, at(ms)));
                allowed
            })
            .sum();
        assert!((100..=104).contains(&begun), "{begun}");
    }
}
