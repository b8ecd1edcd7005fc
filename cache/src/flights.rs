//! One fill at a time per key: whoever asks for a key that is being fetched waits for that.

use crate::index::KeyHash;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The fills under way, and who waits for each.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    waiting: Mutex<HashMap<KeyHash, Vec<Waker>>>,
}

/// The one who fills. However he ends, those who wait go on.
#[derive(Debug)]
pub(crate) struct Leader<'a> {
    flights: &'a Flights,
    hash: KeyHash,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<KeyHash, Vec<Waker>>> {
        // No code that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever is first for a key becomes its leader.
    pub(crate) fn lead(&self, hash: KeyHash) -> Option<Leader<'_>> {
        let mut waiting = self.lock();
        if waiting.contains_key(&hash) {
            return None;
        }
        waiting.insert(hash, Vec::new());
        Some(Leader { flights: self, hash })
    }

    /// Waits until nobody fills that key.
    pub(crate) fn landed(&self, hash: KeyHash) -> impl Future<Output = ()> + Send + '_ {
        poll_fn(move |context| match self.lock().get_mut(&hash) {
            None => Poll::Ready(()),
            Some(waiting) => {
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
        let waiting = self.flights.lock().remove(&self.hash).unwrap_or_default();
        waiting.into_iter().for_each(Waker::wake);
    }
}
