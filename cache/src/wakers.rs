//! Who waits for one thing to happen: a waker each, however often he asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

/// Wakers, each with its owner's ticket. A waker may be the last that holds its task, and dropping
/// that may do anything: whoever keeps this under a lock drops what is returned without it.
#[derive(Debug, Default)]
pub(crate) struct Wakers(BTreeMap<u64, Waker>);

/// What a waiter was given when he came: nobody else has the same, wherever he waits.
pub(crate) type Ticket = Option<u64>;

/// A waiter's place among the wakers. Dropped with his future, it takes his waker out, by `leave`,
/// which takes the lock; the waker is dropped without it.
#[derive(Debug)]
pub(crate) struct Place<L: Fn(Ticket) -> Option<Waker>> {
    ticket: Ticket,
    leave: L,
}

impl<L: Fn(Ticket) -> Option<Waker>> Place<L> {
    /// Of who has not come yet.
    pub(crate) fn new(leave: L) -> Self {
        Self { ticket: None, leave }
    }

    /// `waker` will be woken in place of the one that he left before, which is returned.
    pub(crate) fn enter(&mut self, wakers: &mut Wakers, waker: &Waker) -> Option<Waker> {
        wakers.enter(&mut self.ticket, waker)
    }
}

impl<L: Fn(Ticket) -> Option<Waker>> Drop for Place<L> {
    fn drop(&mut self) {
        drop((self.leave)(self.ticket));
    }
}

impl Wakers {
    fn enter(&mut self, ticket: &mut Ticket, waker: &Waker) -> Option<Waker> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: only that they differ matters.
        let own = ticket.get_or_insert_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
        match self.0.get(own) {
            Some(old) if old.will_wake(waker) => None,
            _ => self.0.insert(*own, waker.clone()),
        }
    }

    /// Who has `ticket` waits no more.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<Waker> {
        self.0.remove(&ticket?)
    }

    /// All, to be woken without a lock.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.0).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Task;
    use std::sync::Arc;

    #[test]
    fn everybody_has_one() {
        let (task, other) = (Arc::new(Task), Arc::new(Task));
        let [a, b] = [&task, &other].map(|task| Waker::from(Arc::clone(task)));
        let (mut wakers, mut first, mut second) = (Wakers::default(), None, None);
        for waker in [&a, &a, &b, &a] {
            drop(wakers.enter(&mut first, waker));
            drop(wakers.enter(&mut second, &b));
        }
        assert_eq!((Arc::strong_count(&task), Arc::strong_count(&other)), (3, 3));
        assert!(wakers.leave(second).is_some_and(|waker| waker.will_wake(&b)));
        assert!(wakers.leave(second).is_none() && wakers.leave(None).is_none());
        assert_eq!(wakers.take().count(), 1);
        drop(wakers.enter(&mut first, &b));
        assert_eq!(wakers.take().count(), 1, "also who was woken and waits again");
    }
}
