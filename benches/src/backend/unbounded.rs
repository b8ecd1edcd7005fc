//! A store in memory that never evicts: what a cache of infinite size would reach.

use super::{Insertion, Store};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Values = HashMap<Box<[u8]>, Box<[u8]>>;

/// Keeps everything, in memory, behind one lock. Its hit ratio is the limit for any cache.
///
/// ```
/// use tierce_bench::{Store, backend::Unbounded};
/// let store = Unbounded::default();
/// let _ = store.insert(b"key", b"value").unwrap();
/// assert!(store.contains(b"key").unwrap());
/// ```
#[derive(Default, Debug)]
pub struct Unbounded {
    values: Mutex<Values>,
}

impl Unbounded {
    fn values(&self) -> MutexGuard<'_, Values> {
        // No operation leaves the map half-changed, not even one that panics.
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Unbounded {
    type Error = Infallible;

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Infallible> {
        let values = self.values();
        let Some(found) = values.get(key) else { return Ok(false) };
        value.clear();
        value.extend_from_slice(found);
        Ok(true)
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Infallible> {
        self.values().insert(key.into(), value.into());
        Ok(Insertion::Stored)
    }

    fn remove(&self, key: &[u8]) -> Result<bool, Infallible> {
        Ok(self.values().remove(key).is_some())
    }

    fn contains(&self, key: &[u8]) -> Result<bool, Infallible> {
        Ok(self.values().contains_key(key))
    }
}
