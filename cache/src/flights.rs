//! One fill at a time per key: whoever asks for a key that is being fetched waits for that.

use crate::index::KeyHash;
use crate::wakers::{Place, Wakers};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::ThreadId;

/// The fills under way, and who waits for each.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    under_way: Mutex<HashMap<KeyHash, Flight>>,
}

#[derive(Debug)]
struct Flight {
    waiting: Wakers,
    /// The thread that does nothing else until it has landed.
    blocks: Option<ThreadId>,
}

/// The one who fills. However he ends, those who wait go on.
#[derive(Debug)]
pub(crate) struct Leader<'a> {
    flights: &'a Flights,
    hash: KeyHash,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<KeyHash, Flight>> {
        // No code that can panic runs under the lock.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever is first for a key becomes its leader; maybe he blocks a thread until he is through.
    pub(crate) fn lead(&self, hash: KeyHash, blocks: Option<ThreadId>) -> Option<Leader<'_>> {
        let mut under_way = self.lock();
        if under_way.contains_key(&hash) {
            return None;
        }
        under_way.insert(hash, Flight { waiting: Wakers::default(), blocks });
        Some(Leader { flights: self, hash })
    }

    /// Whether that key is being filled by who blocks this thread: whoever waited for that here
    /// would wait for himself.
    pub(crate) fn is_led_by(&self, hash: KeyHash, thread: ThreadId) -> bool {
        self.lock().get(&hash).is_some_and(|flight| flight.blocks == Some(thread))
    }

    /// Waits until nobody fills that key.
    pub(crate) fn landed(&self, hash: KeyHash) -> impl Future<Output = ()> + Send + '_ {
        let mut place = Place::new(move |own| self.lock().get_mut(&hash)?.waiting.leave(own));
        poll_fn(move |context| {
            let mut under_way = self.lock();
            let Some(flight) = under_way.get_mut(&hash) else { return Poll::Ready(()) };
            let old = place.enter(&mut flight.waiting, context.waker());
            drop(under_way);
            drop(old); // not before: see `Wakers`
            Poll::Pending
        })
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let landed = self.flights.lock().remove(&self.hash);
        landed.into_iter().flat_map(|mut flight| flight.waiting.take()).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Task;
    use std::sync::Arc;
    use std::task::Context;

    /// Also if somebody else has begun to fill meanwhile.
    #[test]
    fn who_waits_leaves_one_waker_at_most() {
        let (flights, hash, task) = (Flights::default(), KeyHash(7), Arc::new(Task));
        let waker = Waker::from(Arc::clone(&task));
        let context = &mut Context::from_waker(&waker);
        let leader = flights.lead(hash, None).expect("nobody fills it");
        let [mut first, mut second] = [(); 2].map(|()| Box::pin(flights.landed(hash)));
        for _ in 0..2 {
            assert!(first.as_mut().poll(context).is_pending());
            assert!(second.as_mut().poll(context).is_pending());
        }
        assert_eq!(Arc::strong_count(&task), 4, "two wait");
        drop(leader);
        let _leader = flights.lead(hash, None).expect("nobody fills it any more");
        assert!(second.as_mut().poll(context).is_pending());
        assert!(first.as_mut().poll(context).is_pending());
        assert_eq!(Arc::strong_count(&task), 4, "two wait");
        drop((first, second));
        assert_eq!(Arc::strong_count(&task), 2, "nobody does");
    }
}
