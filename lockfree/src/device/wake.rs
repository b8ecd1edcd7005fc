//! Who is woken when something becomes available: those who wait for buckets, and the reclaimer.
//!
//! Whoever made it available looks at the attention word, and whoever is going to sleep sets his
//! bit there first: [`crate::attention`] says why none is missed.

use super::Device;
use crate::attention::{BUCKETS, DISCARDS, HUNGRY, OFFERED, ROOM, UNBLOCKED, WAITING, WATCHED};
use crate::sync::Ordering;
use tierce_core::broken;

/// What a sleeping reclaimer wants.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Hunger {
    /// Room on the free lists: it has buckets to release.
    Room = ROOM,
    /// Buckets for the prio write.
    Buckets = BUCKETS,
    /// That nobody holds the prio write back.
    Unblocked = UNBLOCKED,
    /// That more discards are allowed; or that space is short, and it does not wait for them.
    Discards = DISCARDS,
}

impl Device {
    /// Nobody holds prio writes back any more.
    pub(crate) fn unblocked(&self) {
        // Pairs with the fence in `stay_hungry`: either the reclaimer's look after it finds no
        // holder, or we see that it is hungry.
        if self.attention().after() & UNBLOCKED != 0 {
            self.ring_if_hungry(UNBLOCKED);
        }
    }

    /// Buckets were put on a list: whoever waits is served, and the prio write goes on if it was
    /// short of buckets.
    pub(super) fn offered(&self) {
        let seen = self.attention().after() & OFFERED;
        if seen != 0 {
            self.noticed(seen);
        }
    }

    #[cold]
    pub(super) fn noticed(&self, seen: u32) {
        if seen & WAITING != 0 && !broken!("offered_unserved") {
            self.serve();
        }
        if seen & BUCKETS != 0 {
            self.ring_if_hungry(BUCKETS);
        }
        if seen & WATCHED != 0 && !broken!("offered_unwatched") {
            self.watches.offered();
        }
    }

    /// Hands what is free to those who wait.
    pub(crate) fn serve(&self) {
        let sleepers = self.waits.serve(|reserve| {
            let found = self.reserves.pop(reserve).ok()?;
            if let Some(spare) = found.spare {
                // Its place was taken while it was carried; the reclaimer offers it again.
                self.keep(spare);
            }
            Some(found.free)
        });
        drop(sleepers);
    }

    /// Somebody found nothing free: the reclaimer should hurry.
    pub(crate) fn feel_demand(&self) {
        // Relaxed: tested first, so that it is rarely written; the bell orders it.
        if self.demand.load(Ordering::Relaxed) == 0 {
            self.demand.store(1, Ordering::Relaxed);
            self.bell.ring();
        } else if self.attention().now() & HUNGRY != 0 {
            // The demand is an old one that the reclaimer has not come to take: it sleeps.
            self.ring_if_hungry(HUNGRY);
        }
    }

    /// Whether somebody found nothing free, or waits, since this was last asked.
    pub(crate) fn take_demand(&self) -> bool {
        // Relaxed: the bell orders it; demand that comes right after is met by the next look.
        let demand = self.demand.swap(0, Ordering::Relaxed) != 0;
        demand || self.waits.len() > 0 || self.watches.len() > 0
    }

    /// The reclaimer is about to sleep until there is `hunger`; it looks once more after this:
    /// either that finds it, or whoever makes it available rings.
    pub(crate) fn stay_hungry(&self, hunger: Hunger) {
        self.attention().clear(HUNGRY);
        if broken!("hungry_no_fence") {
            self.attention().raise(hunger as u32);
        } else {
            self.attention().set(hunger as u32);
        }
    }

    pub(super) fn ring_if_hungry(&self, hunger: u32) {
        if self.attention().now() & hunger != 0 {
            self.attention().clear(hunger);
            self.bell.ring();
        }
    }
}
