//! The process that is killed: random operations, each announced before and confirmed after.

use super::log::{Change, Record};
use crate::backend::{Insertion, Store};
use crate::error::Error;
use crate::value::{Derived, mix};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The first thread flushes after so many of its operations.
const OPERATIONS_PER_FLUSH: u64 = 256;

/// What a worker does. Values are derived from key and version alone.
///
/// ```
/// use tierce_bench::kill::worker::Load;
/// let load = Load::default();
/// assert_eq!(load.value(7, 1), load.value(7, 1));
/// assert!((8..=load.value_bytes_max).contains(&load.value(7, 2).size));
/// ```
#[derive(Clone, Debug)]
pub struct Load {
    /// How many keys there are: 0 to `keys` − 1.
    pub keys: u64,
    /// How many threads share them.
    pub threads: u64,
    /// The largest value, at least 8 bytes.
    pub value_bytes_max: usize,
    /// The first version to write, at least 1: above those of earlier runs.
    pub first_version: u64,
    /// What the random choices start from.
    pub seed: u64,
}

impl Default for Load {
    /// 2000 keys on 4 threads, values up to 16 KiB.
    fn default() -> Self {
        Self { keys: 2_000, threads: 4, value_bytes_max: 16 << 10, first_version: 1, seed: 1 }
    }
}

impl Load {
    /// The value of this version of `key`.
    #[must_use]
    pub fn value(&self, key: u64, version: u64) -> Derived {
        let sizes = (self.value_bytes_max - 7) as u64;
        let size = 8 + (mix(key ^ mix(version)) % sizes) as usize;
        Derived { key, version, size }
    }

    /// The key as the cache gets it.
    #[must_use]
    pub fn key(key: u64) -> [u8; 8] {
        key.to_le_bytes()
    }
}

/// Runs this load on `store` and logs every step, until the process is killed or `done` is set.
///
/// ```
/// use std::sync::{Mutex, atomic::AtomicBool};
/// use tierce_bench::{backend::Unbounded, kill::worker::{Load, run}};
/// let log = Mutex::new(Vec::new());
/// let done = AtomicBool::new(true); // at once
/// run(&Unbounded::default(), &Load::default(), &log, &done).unwrap();
/// ```
///
/// # Errors
/// [`Error::Store`] if the cache, [`Error::Worker`] if the log fails; then all threads end.
pub fn run<S: Store, W: Write + Send>(
    store: &S,
    load: &Load,
    log: &Mutex<W>,
    done: &AtomicBool,
) -> Result<(), Error> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..load.threads)
            .map(|thread| {
                scope.spawn(move || {
                    let result = Thread::new(store, load, log, thread).run(done);
                    // Relaxed: a request to end, nothing is published by it.
                    done.store(true, Ordering::Relaxed);
                    result
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

struct Thread<'a, S, W> {
    store: &'a S,
    load: &'a Load,
    log: &'a Mutex<W>,
    number: u64,
    random: Xoshiro256PlusPlus,
    version: u64,
    /// What each key that was changed in this run is now: a version, or removed by it.
    latest: HashMap<u64, (u64, Change)>,
    buffer: Vec<u8>,
}

impl<'a, S: Store, W: Write> Thread<'a, S, W> {
    fn new(store: &'a S, load: &'a Load, log: &'a Mutex<W>, number: u64) -> Self {
        Self {
            store,
            load,
            log,
            number,
            random: Xoshiro256PlusPlus::seed_from_u64(mix(load.seed) ^ number),
            version: load.first_version,
            latest: HashMap::new(),
            buffer: Vec::new(),
        }
    }

    fn run(&mut self, done: &AtomicBool) -> Result<(), Error> {
        // A thread has the keys that leave its number as the remainder, if there are any.
        let keys = self.load.keys.saturating_sub(self.number).div_ceil(self.load.threads);
        // Relaxed: a request to end, nothing is published by it.
        for operation in (1u64..).take_while(|_| keys > 0 && !done.load(Ordering::Relaxed)) {
            let key = self.random.next_u64() % keys * self.load.threads + self.number;
            match self.random.next_u64() % 10 {
                0..6 => self.change(key, Change::Insert)?,
                6 => self.change(key, Change::Remove)?,
                _ => self.get(key)?,
            }
            if self.number == 0 && operation.is_multiple_of(OPERATIONS_PER_FLUSH) {
                self.log(Record::FlushStarted)?;
                self.store.flush().map_err(Error::store("flush the cache"))?;
                self.log(Record::FlushEnded)?;
            }
        }
        Ok(())
    }

    fn change(&mut self, key: u64, change: Change) -> Result<(), Error> {
        let version = self.version;
        self.version += 1;
        self.log(Record::Started { key, version, change })?;
        let changed = match change {
            Change::Remove => {
                let removed = self.store.remove(&Load::key(key));
                removed.map_err(Error::store("remove a key from the cache"))?;
                change
            }
            Change::Insert => {
                self.load.value(key, version).fill(&mut self.buffer);
                let inserted = self.store.insert(&Load::key(key), &self.buffer);
                match inserted.map_err(Error::store("insert a value into the cache"))? {
                    Insertion::Stored => change,
                    // Nothing was promised, so nothing is acknowledged.
                    Insertion::Dropped => {
                        self.latest.insert(key, (version, Change::Remove));
                        return Ok(());
                    }
                }
            }
        };
        self.latest.insert(key, (version, changed));
        self.log(Record::Acknowledged { key, version })
    }

    /// Gets a key and checks what comes back as far as this run knows it.
    fn get(&mut self, key: u64) -> Result<(), Error> {
        let hit = self.store.get(&Load::key(key), &mut self.buffer);
        if !hit.map_err(Error::store("get a value from the cache"))? {
            return Ok(());
        }
        let wanted = match self.latest.get(&key) {
            Some(&(version, Change::Insert)) => Some(version),
            Some((_, Change::Remove)) => None,
            // From an earlier run: the parent has checked which one.
            None => Derived::version_of(key, &self.buffer)
                .filter(|v| (1..self.load.first_version).contains(v)),
        };
        let right =
            wanted.is_some_and(|version| self.load.value(key, version).check(&self.buffer).is_ok());
        if right {
            return Ok(());
        }
        let version = self.latest.get(&key).map_or(0, |&(version, _)| version);
        self.log(Record::Wrong { key, version })
    }

    /// Writes a record by one call, before anything else happens in this thread.
    fn log(&self, record: Record) -> Result<(), Error> {
        // A thread that panicked has written its last record whole or not at all.
        let mut log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let written = log.write_all(&record.encode()).and_then(|()| log.flush());
        written.map_err(|error| Error::Worker {
            round: 0,
            found: format!("a log that cannot be written: {error}"),
            wanted: "a parent that reads it".to_owned(),
        })
    }
}
