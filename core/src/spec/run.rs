//! The background run: how a full bucket becomes a free one.
//!
//! ```text
//!            ┌───────────────────────────────────────────────────────────┐
//!            ▼                                                           │
//!   drain: free_inc → discard → free lists      all lists full → Push    │
//!            │ nothing left to drain                                     │
//!            ▼                                                           │
//!   gc wait: a pass of the policy fills free_inc    needs a GC → Gc      │
//!            │                                                           │
//!            ▼                                                           │
//!   blocked?: nobody holds the prio write back     held → PrioBlocked    │
//!            │                                                           │
//!            ▼                                                           │
//!   prio write: the new gens become durable    no bucket → PrioAlloc     │
//!            └───────────────────────────────────────────────────────────┘
//! ```
//!
//! [`Set::step`] runs it until it can do nothing more and says why; the next call goes on at the
//! same place. Because it drains before it makes the next pass, it works one batch ahead: while
//! the lists are full, the rest of the last batch waits in `free_inc`, already durable.
//!
//! A batch is written when `free_inc` is full. Otherwise the run goes back and waits for a
//! garbage collection, with two exceptions: when the pass came right after one and still could
//! not fill it, waiting for more would starve everybody, so what is there is written and
//! released; and when the pass skipped buckets whose gens are too far ahead of the durable ones,
//! the prio write is what helps. (The start-up does not count as a garbage collection here: the
//! first pass of a run that comes up short waits for a real one.) A device without `sync` has no
//! prio writes and drains at once.
//!
//! The crash rule is checked where it counts: a bucket leaves `free_inc` only if the gen in its
//! word is the gen in the durable table; otherwise it is queued again.

use super::device::Place;
use super::events::Event;
use super::prio::PrioWrite;
use super::reclaim::Pass;
use super::set::Set;
use crate::bucket::DeviceIndex;

/// Where a background run goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Drain,
    GcWait,
    PrioBlocked,
    PrioWrite,
}

/// Why a background run stopped: what it waits for.
///
/// ```
/// use tierce_core::spec::{DeviceOptions, Options, Set, Wait};
/// use tierce_core::{DeviceIndex, Geometry, Sizes};
/// let g = Geometry::new(1024, 1, 128, 8)?;
/// let mut set = Set::new(Options::bcache(), vec![DeviceOptions::new(g, Sizes::bcache(&g, 8))])?;
/// set.start()?;
/// assert_eq!(set.step(DeviceIndex::FIRST), Wait::Push);
/// assert_eq!(Wait::Push.to_string(), "push");
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// All free lists are full.
    Push,
    /// A garbage collection has to finish first.
    Gc,
    /// An index owner holds the prio write back.
    PrioBlocked,
    /// `none` and `prio` together hold too few buckets for the prio write.
    PrioAlloc,
    /// The device was taken out.
    Failed,
}

impl core::fmt::Display for Wait {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Push => "push",
            Self::Gc => "gc",
            Self::PrioBlocked => "prio_blocked",
            Self::PrioAlloc => "prio_alloc",
            Self::Failed => "failed",
        })
    }
}

impl Set {
    /// Background work on a device until nothing more can be done.
    ///
    /// # Panics
    ///
    /// If the set has no such device.
    pub fn step(&mut self, device: DeviceIndex) -> Wait {
        loop {
            if self.devices[device.as_usize()].failed.is_some() {
                return Wait::Failed;
            }
            self.offer_ready(device);
            let next = match self.devices[device.as_usize()].phase {
                Phase::Drain => self.drain(device),
                Phase::GcWait => self.gc_wait(device),
                Phase::PrioBlocked => self.prio_blocked_check(device),
                Phase::PrioWrite => self.prio_phase(device),
            };
            match next {
                Ok(phase) => self.devices[device.as_usize()].phase = phase,
                Err(wait) => return wait,
            }
        }
    }

    /// Whatever the run waits for: what was given back may be all that somebody can get.
    fn offer_ready(&mut self, device: DeviceIndex) {
        let d = &mut self.devices[device.as_usize()];
        let mut offered = Vec::new();
        while let Some(&b) = d.ready.front()
            && let Some(reserve) = d.offer(b)
        {
            d.ready.pop_front();
            offered.push(Event::Released { bucket: Self::id(device, b), reserve });
        }
        offered.into_iter().for_each(|event| self.event(event));
    }

    /// Moves what is durable from `free_inc` to the free lists.
    fn drain(&mut self, device: DeviceIndex) -> Result<Phase, Wait> {
        let mut looks = self.devices[device.as_usize()].free_inc.len();
        loop {
            let d = &mut self.devices[device.as_usize()];
            let b = if let Some(b) = d.ready.pop_front() {
                b
            } else if looks == 0 {
                return Ok(Phase::GcWait);
            } else {
                looks -= 1;
                let Some(b) = d.free_inc.pop_front() else { return Ok(Phase::GcWait) };
                if d.word(b).gen_() != d.durable_gen(b) {
                    d.free_inc.push_back(b);
                    continue;
                }
                self.discard(Self::id(device, b));
                b
            };
            let d = &mut self.devices[device.as_usize()];
            match d.offer(b) {
                Some(reserve) => {
                    self.event(Event::Released { bucket: Self::id(device, b), reserve });
                }
                None => {
                    d.put_in(b, Place::Ready);
                    d.ready.push_front(b);
                    return Err(Wait::Push);
                }
            }
        }
    }

    fn gc_wait(&mut self, device: DeviceIndex) -> Result<Phase, Wait> {
        match self.invalidate(device) {
            Pass::Refused => Err(Wait::Gc),
            Pass::Filled | Pass::Short => Ok(Phase::PrioBlocked),
        }
    }

    fn prio_blocked_check(&mut self, device: DeviceIndex) -> Result<Phase, Wait> {
        if self.prio_blocked > 0 {
            return Err(Wait::PrioBlocked);
        }
        let waits_for_gc = self.needs_gc(device);
        let d = &self.devices[device.as_usize()];
        if !d.options.sync {
            return Ok(Phase::Drain);
        }
        let partial = d.write_partial && waits_for_gc && !d.free_inc.is_empty();
        if d.free_inc_is_full() || partial || d.write_early {
            Ok(Phase::PrioWrite)
        } else {
            Ok(Phase::GcWait)
        }
    }

    fn prio_phase(&mut self, device: DeviceIndex) -> Result<Phase, Wait> {
        match self.prio_write(device) {
            PrioWrite::Written { .. } | PrioWrite::NoSync => Ok(Phase::Drain),
            PrioWrite::WouldBlock => Err(Wait::PrioAlloc),
            PrioWrite::Blocked => Err(Wait::PrioBlocked),
            PrioWrite::Failed => Err(Wait::Failed),
        }
    }
}
