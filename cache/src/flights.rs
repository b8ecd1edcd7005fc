//! One fill at a time per key: whoever asks for a key that is being fetched waits for that.

use crate::index::KeyHash;
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
    waiting: Vec<Waker>,
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
        under_way.insert(hash, Flight { waiting: Vec::new(), blocks });
        Some(Leader { flights: self, hash })
    }

    /// Whether that key is being filled by who blocks this thread: whoever waited for that here
    /// would wait for himself.
    pub(crate) fn is_led_by(&self, hash: KeyHash, thread: ThreadId) -> bool {
        self.lock().get(&hash).is_some_and(|flight| flight.blocks == Some(thread))
    }

    /// Waits until nobody fills that key.
    pub(crate) fn landed(&self, hash: KeyHash) -> impl Future<Output = ()> + Send + '_ {
        poll_fn(move |context| match self.lock().get_mut(&hash) {
            None => Poll::Ready(()),
            Some(Flight { waiting, .. }) => {
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        })
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let landed = self.flights.lock().remove(&self.hash);
        landed.into_iter().flat_map(|flight| flight.waiting).for_each(Waker::wake);
    }
}
