//! From "durable" to "free": onto the free lists, as far as they have room, the rest into stock.
//!
//! # Problem
//!
//! A batch is larger than the free lists, and is used up faster than a sleeping reclaimer can be
//! woken to take the next of it there. Meanwhile everybody who allocates would have to line up and
//! be woken, each for one bucket, although there are many.
//!
//! # Protocol
//!
//! What the lists have no room for the reclaimer leaves in the stock, and says that it waits for
//! room ([`ROOM`]). Whoever takes a bucket and leaves few, or finds none, takes from the stock to
//! the lists what they have room for, first to those who wait: he does what the reclaimer
//! would do if it ran. Whoever finds the stock empty rings: the next batch has to be made.
//!
//! Nobody waits for the stock's lock: while somebody has it he is doing just that. Whoever lines
//! up rings the reclaimer in any case, which takes the lock, so nobody waits beside a stock.
//! Buckets in stock are not free: an allocation may fail while there are some.

use super::Device;
use crate::attention::{ROOM, WAITING};
use crate::device::Hunger;
use crate::events::event;
use crate::wait::Sleepers;
use std::collections::VecDeque;
use tierce_core::{BucketIndex, Reserve, broken};

impl Device {
    /// Makes a bucket free that has just become safe to reuse. `Err` if all lists are full.
    pub(crate) fn release(&self, bucket: BucketIndex) -> Result<Reserve, BucketIndex> {
        let mut released = Err(bucket);
        let mut one = VecDeque::from([bucket]);
        drop(self.release_all(&mut one, |_, reserve| released = Ok(reserve)));
        released
    }

    /// As [`release`](Self::release), of as many as there is room for; `released` hears of each.
    /// Those to be woken find something when they are.
    pub(crate) fn release_all(
        &self,
        ready: &mut VecDeque<BucketIndex>,
        mut released: impl FnMut(BucketIndex, Reserve),
    ) -> Sleepers {
        // Before those who wait: without its reserve the prio write could make nothing free.
        while let Some(&bucket) = ready.front()
            && self.reserves.refill_prio(bucket)
        {
            ready.pop_front();
            released(bucket, Reserve::Prio);
        }
        // Those who wait, before anybody else sees what there is.
        let mut sleepers = Sleepers::default();
        if self.attention().now() & WAITING != 0 {
            sleepers = self.waits.hand_out(|| {
                let bucket = ready.pop_front()?;
                released(bucket, Reserve::None);
                Some(bucket)
            });
        }
        self.reserves.release_all(ready, released);
        self.offered();
        sleepers
    }

    /// Makes `ready` free, which becomes empty: what there is no room for is kept in stock, and then
    /// the reclaimer is hungry for room. Returns whether it is.
    pub(crate) fn stock_up(&self, ready: &mut VecDeque<BucketIndex>) -> bool {
        let mut stock = self.stock.lock();
        stock.append(ready);
        let first = self.release_all(&mut stock, |bucket, on| self.note(bucket, on));
        let mut more = Sleepers::default();
        if !stock.is_empty() {
            self.stay_hungry(Hunger::Room);
            // Once more: a place may have become free before we said that we wait for one.
            more = self.release_all(&mut stock, |bucket, on| self.note(bucket, on));
        }
        let left = !stock.is_empty();
        // Whoever is woken may run at once, and want it.
        drop(stock);
        drop((first, more));
        left
    }

    /// Takes from the stock to the lists what they have room for; if that was all, the
    /// reclaimer is told. Whether there was anything.
    #[cold]
    pub(super) fn restock(&self) -> bool {
        let Some(mut stock) = self.stock.try_lock() else { return false };
        let before = stock.len();
        if before == 0 {
            drop(stock);
            self.ring_if_hungry(ROOM);
            return false;
        }
        let sleepers = self.release_all(&mut stock, |bucket, on| self.note(bucket, on));
        let left = stock.len();
        // Whoever is woken may run at once, and want it.
        drop(stock);
        drop(sleepers);
        if left == 0 && !broken!("restock_unrung") {
            self.ring_if_hungry(ROOM);
        }
        left < before
    }

    /// How many are in stock.
    pub(crate) fn in_stock(&self) -> usize {
        self.stock.lock().len()
    }

    fn note(&self, bucket: BucketIndex, reserve: Reserve) {
        event!(TRACE, "release", device = self.index, bucket = bucket, reserve = reserve);
    }
}
