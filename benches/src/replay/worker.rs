//! One thread's share of the keys: runs their operations in order and checks what comes back.

use super::outcome::Tally;
use super::watch::Watched;
use super::{Access, Settings};
use crate::backend::{Insertion, Store};
use crate::error::Error;
use crate::trace::Op;
use crate::value::Derived;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// How often the store is asked how much it holds, in operations.
const SAMPLE_OPERATIONS: u64 = 4096;

pub(super) struct Worker<'a, S> {
    store: &'a S,
    verify: bool,
    /// The store's key: namespace and key, little-endian.
    key: [u8; 16],
    /// What a get returned.
    found: Vec<u8>,
    /// What an insert writes.
    value: Vec<u8>,
    /// The version of the next insert.
    version: u64,
    /// For each key that has a value: which one. Kept only to verify.
    latest: HashMap<u64, Derived>,
    tally: Tally,
    watched: Option<Arc<Watched>>,
}

impl<'a, S: Store> Worker<'a, S> {
    pub(super) fn new(store: &'a S, settings: &Settings) -> Self {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&settings.namespace.to_le_bytes());
        Self {
            store,
            verify: settings.verify,
            key,
            found: Vec::new(),
            value: Vec::new(),
            version: settings.first_version,
            latest: HashMap::new(),
            tally: Tally::default(),
            watched: settings.watch.as_ref().map(|watch| watch.thread()),
        }
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }

    pub(super) fn run(&mut self, access: Access) -> Result<(), Error> {
        if self.tally.operations.is_multiple_of(SAMPLE_OPERATIONS) {
            let stats = self.store.stats();
            // Before that it is being filled.
            if stats.invalidated > stats.nbuckets {
                self.tally.held.0 += stats.held_buckets;
                self.tally.held.1 += 1;
            }
        }
        self.tally.operations += 1;
        self.key[8..].copy_from_slice(&access.key.to_le_bytes());
        // A cache has no use for a value without bytes.
        let access = Access { size: access.size.max(1), ..access };
        match access.op {
            Op::Get => {
                if !self.get(access)? {
                    self.insert(access)?;
                }
                Ok(())
            }
            Op::Set => {
                if access.is_page {
                    self.look_up(access)?;
                }
                self.insert(access)
            }
            Op::Remove => self.remove(access.key),
        }
    }

    fn get(&mut self, access: Access) -> Result<bool, Error> {
        let start = Instant::now();
        let hit = self.store.get(&self.key, &mut self.found);
        let elapsed = start.elapsed();
        let hit = hit.map_err(Error::store("get a value from the cache"))?;
        self.count_access(access, hit);
        if let Some(watched) = &self.watched {
            watched.get(elapsed);
        }
        if hit {
            self.tally.hit.record(elapsed);
            self.check(access.key);
        } else {
            self.tally.miss.record(elapsed);
        }
        Ok(hit)
    }

    /// Counts whether a page that is about to be written is there, which is not a read of it.
    fn look_up(&mut self, access: Access) -> Result<(), Error> {
        let hit = self.store.contains(&self.key);
        let hit = hit.map_err(Error::store("look a key up in the cache"))?;
        self.count_access(access, hit);
        Ok(())
    }

    fn count_access(&mut self, access: Access, hit: bool) {
        self.tally.accesses += 1;
        self.tally.access_bytes += access.size;
        self.tally.hits += u64::from(hit);
        if let Some(watched) = &self.watched {
            watched.access(hit);
        }
        self.tally.hit_bytes += if hit { access.size } else { 0 };
    }

    fn insert(&mut self, access: Access) -> Result<(), Error> {
        let size = usize::try_from(access.size).unwrap_or(usize::MAX);
        if size > self.store.value_bytes_max() {
            self.tally.too_large += 1;
            return if access.op == Op::Set { self.forget(access.key) } else { Ok(()) };
        }
        let value = Derived { key: access.key, version: self.version, size };
        self.version += 1;
        value.fill(&mut self.value);

        let start = Instant::now();
        let insertion = self.store.insert(&self.key, &self.value);
        let elapsed = start.elapsed();
        self.tally.insert.record(elapsed);
        if let Some(watched) = &self.watched {
            watched.insert(elapsed);
        }
        self.tally.inserted_bytes += access.size;
        match insertion.map_err(Error::store("insert a value into the cache"))? {
            Insertion::Stored if self.verify => drop(self.latest.insert(access.key, value)),
            Insertion::Stored => {}
            Insertion::Dropped => {
                self.tally.dropped += 1;
                self.latest.remove(&access.key);
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: u64) -> Result<(), Error> {
        self.tally.removes += 1;
        self.forget(key)
    }

    fn forget(&mut self, key: u64) -> Result<(), Error> {
        self.store.remove(&self.key).map_err(Error::store("remove a key from the cache"))?;
        self.latest.remove(&key);
        Ok(())
    }

    /// Checks what a get found.
    fn check(&mut self, key: u64) {
        let wrong = match (self.verify, self.latest.get(&key)) {
            (true, Some(wanted)) => wanted.check(&self.found).err().map(|mismatch| {
                format!(
                    "found {mismatch}, wanted version {} of {} bytes",
                    wanted.version, wanted.size
                )
            }),
            (true, None) => Some(format!("found {} bytes, wanted none", self.found.len())),
            (false, _) => match Derived::version_of(key, &self.found) {
                Some(version) if version < self.version || self.found.len() < 8 => None,
                _ => Some("found bytes that are no value of this key, wanted one".to_owned()),
            },
        };
        if let Some(wrong) = wrong {
            self.tally.wrong_data += 1;
            self.tally.first_wrong.get_or_insert_with(|| format!("key {key}: {wrong}"));
        }
    }
}
