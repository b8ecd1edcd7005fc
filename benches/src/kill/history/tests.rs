//! The checker against caches that keep what they promised and caches that do not.

use super::*;
use crate::backend::{Insertion, Unbounded};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

fn load() -> Load {
    Load { keys: 4, value_bytes_max: 3_000, ..Load::default() }
}

const KEY: u64 = 2;

/// The history of these changes of [`KEY`]: insert 1, 2, flush, insert 3 unacknowledged.
fn history() -> History {
    let started = |version| Record::Started { key: KEY, version, change: Change::Insert };
    let acknowledged = |version| Record::Acknowledged { key: KEY, version };
    let mut history = History::new(&load());
    for record in [
        started(1),
        acknowledged(1),
        started(2),
        acknowledged(2),
        Record::FlushStarted,
        Record::FlushEnded,
        started(3),
    ] {
        history.take(record).unwrap();
    }
    history
}

fn bytes_of(key: u64, version: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    load().value(key, version).fill(&mut bytes);
    bytes
}

/// What the checker says about a cache that serves this for [`KEY`].
fn check(history: &mut History, served: Option<Vec<u8>>) -> Checked {
    let store = Unbounded::default();
    if let Some(bytes) = served {
        let stored = store.insert(&Load::key(KEY), &bytes).unwrap();
        assert_eq!(stored, Insertion::Stored);
    }
    history.check(&store).unwrap()
}

fn wrong(history: &mut History, served: Vec<u8>) -> String {
    let checked = check(history, Some(served));
    assert_eq!((checked.keys, checked.hits, checked.misses, checked.wrong), (4, 0, 3, 1));
    checked.first_wrong.unwrap()
}

#[test]
fn what_was_promised_passes() {
    let checked = check(&mut history(), None);
    assert_eq!((checked.keys, checked.hits, checked.misses, checked.wrong), (4, 0, 4, 0));
    for version in [2, 3] {
        let checked = check(&mut history(), Some(bytes_of(KEY, version)));
        assert_eq!((checked.keys, checked.hits, checked.misses, checked.wrong), (4, 1, 3, 0));
    }
}

#[test]
fn a_version_older_than_the_flushed_one_is_wrong() {
    let message = wrong(&mut history(), bytes_of(KEY, 1));
    assert_eq!(message, "key 2: found version 1, wanted nothing or a version from 2 to 3");
}

#[test]
fn a_version_never_started_is_wrong() {
    assert!(wrong(&mut history(), bytes_of(KEY, 4)).contains("found version 4, wanted"));
    let message = wrong(&mut History::new(&load()), bytes_of(KEY, 1));
    assert_eq!(message, "key 2: found version 1, wanted nothing: it was never written");

    // A version between two of the key's own.
    let mut history = History::new(&load());
    for version in [5, 9] {
        let started = Record::Started { key: KEY, version, change: Change::Insert };
        history.take(started).unwrap();
    }
    assert!(wrong(&mut history, bytes_of(KEY, 7)).contains("version 7, never written"));
}

#[test]
fn torn_bytes_are_wrong() {
    let mut torn = bytes_of(KEY, 3);
    let half = torn.len() / 2;
    torn[half..].fill(0);
    assert!(wrong(&mut history(), torn).contains("found version 3 with other bytes from byte"));
    let mut cut = bytes_of(KEY, 3);
    cut.pop();
    assert!(wrong(&mut history(), cut).contains("found version 3 with "));
    assert!(wrong(&mut history(), vec![1, 2, 3]).contains("no value of this key"));
}

#[test]
fn another_keys_value_is_wrong() {
    assert!(wrong(&mut history(), bytes_of(KEY + 1, 3)).contains("no value of this key"));
}

#[test]
fn a_flushed_remove_voids_what_was_before() {
    let mut history = history();
    history.take(Record::Acknowledged { key: KEY, version: 3 }).unwrap();
    history.take(Record::Started { key: KEY, version: 4, change: Change::Remove }).unwrap();
    history.take(Record::Acknowledged { key: KEY, version: 4 }).unwrap();
    assert_eq!(check(&mut history.clone(), Some(bytes_of(KEY, 3))).wrong, 0, "not flushed yet");
    history.take(Record::FlushStarted).unwrap();
    assert_eq!(check(&mut history.clone(), Some(bytes_of(KEY, 3))).wrong, 0, "nor now");
    history.take(Record::FlushEnded).unwrap();
    assert!(wrong(&mut history.clone(), bytes_of(KEY, 3)).contains("found version 3, wanted"));
    assert!(wrong(&mut history.clone(), bytes_of(KEY, 4)).contains("which was a remove"));
}

/// What a flush covers is what was acknowledged before it began.
#[test]
fn a_flush_covers_what_was_acknowledged_before_it_began() {
    let mut history = history();
    history.take(Record::FlushStarted).unwrap();
    history.take(Record::Acknowledged { key: KEY, version: 3 }).unwrap();
    history.take(Record::FlushEnded).unwrap();
    assert_eq!(check(&mut history.clone(), Some(bytes_of(KEY, 2))).wrong, 0);
    history.take(Record::FlushStarted).unwrap();
    history.take(Record::FlushEnded).unwrap();
    assert!(wrong(&mut history, bytes_of(KEY, 2)).contains("found version 2, wanted"));
}

/// Once an opening served a version, neither an older nor a newer one may come back.
#[test]
fn what_an_opening_served_is_settled() {
    let mut history = history();
    history.keys[KEY as usize].flushed = 1;
    assert_eq!(check(&mut history, Some(bytes_of(KEY, 2))).hits, 1);
    assert!(wrong(&mut history.clone(), bytes_of(KEY, 1)).contains("found version 1"));
    assert!(wrong(&mut history.clone(), bytes_of(KEY, 3)).contains("undone by a crash"));
    assert_eq!(check(&mut history.clone(), Some(bytes_of(KEY, 2))).hits, 1);
    assert_eq!(history.next_version(), 4, "no version is used twice");
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let mut history = history();
    let again = Record::Started { key: KEY, version: 3, change: Change::Insert };
    assert_eq!(history.take(again).unwrap_err(), "version 3 of key 2 begun after 3");
    let early = Record::Acknowledged { key: KEY, version: 2 };
    assert!(history.take(early).unwrap_err().ends_with("3 was started last"));
    let foreign = Record::Started { key: 4, version: 9, change: Change::Insert };
    assert_eq!(history.take(foreign).unwrap_err(), "key 4 of 4 keys");
}

/// Ends the run when so many bytes were logged.
struct Until<'a> {
    bytes: usize,
    log: Vec<u8>,
    done: &'a AtomicBool,
}

impl std::io::Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.log.extend_from_slice(bytes);
        // Relaxed: a request to end, nothing is published by it.
        self.done.store(self.log.len() >= self.bytes, std::sync::atomic::Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a worker on `store` for a while and returns the history that its log tells, and how
/// many gets it found wrong.
fn worked(store: &impl Store, load: &Load) -> (History, usize) {
    let done = AtomicBool::new(false);
    let log = Mutex::new(Until { bytes: 20_000 * Record::BYTES, log: Vec::new(), done: &done });
    super::super::worker::run(store, load, &log, &done).unwrap();
    let (mut history, mut wrong) = (History::new(load), 0);
    for bytes in log.into_inner().unwrap().log.chunks(Record::BYTES) {
        let record = Record::decode(bytes.try_into().unwrap()).unwrap();
        history.take(record).unwrap();
        wrong += usize::from(matches!(record, Record::Wrong { .. }));
    }
    (history, wrong)
}

/// A worker's log tells exactly what is in a store that loses nothing.
#[test]
fn a_workers_log_explains_its_store() {
    let (load, store) = (Load { keys: 100, threads: 1, ..load() }, Unbounded::default());
    let (mut history, wrong) = worked(&store, &load);
    let flushed = history.keys.iter().filter(|key| key.flushed > 0).count();
    assert!(flushed > 50, "only {flushed} of 100 keys were flushed");
    let checked = history.check(&store).unwrap();
    assert_eq!((checked.wrong, wrong), (0, 0), "{checked}");
    assert!(checked.hits > 50, "{checked}");

    let (load, store) = (Load { threads: 3, ..load }, Unbounded::default());
    let (mut history, wrong) = worked(&store, &load);
    let checked = history.check(&store).unwrap();
    assert_eq!((checked.wrong, wrong), (0, 0), "{checked}");
}

/// Every step is in the log before it is taken, and confirmed before the next one.
#[test]
fn a_worker_announces_before_and_confirms_after() {
    struct Watched<'a> {
        log: &'a Mutex<Until<'a>>,
        truth: Unbounded,
    }
    impl Watched<'_> {
        fn last(&self) -> Option<Record> {
            let log = self.log.lock().unwrap();
            let bytes = log.log.last_chunk::<{ Record::BYTES }>()?;
            Some(Record::decode(bytes).unwrap())
        }

        fn assert_announced(&self, key: &[u8], wanted: Change) {
            let last = self.last();
            let announced = matches!(last, Some(Record::Started { key: number, change, .. })
                if Load::key(number) == key && change == wanted);
            assert!(announced, "{wanted:?} of {key:?} begins after {last:?}");
        }
    }
    impl Store for Watched<'_> {
        type Error = std::convert::Infallible;
        fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Self::Error> {
            let last = self.last();
            let unconfirmed = matches!(last, Some(Record::Started { .. } | Record::FlushStarted));
            assert!(!unconfirmed, "a get follows {last:?}");
            self.truth.get(key, value)
        }
        fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Self::Error> {
            self.assert_announced(key, Change::Insert);
            self.truth.insert(key, value)
        }
        fn remove(&self, key: &[u8]) -> Result<bool, Self::Error> {
            self.assert_announced(key, Change::Remove);
            self.truth.remove(key)
        }
        fn flush(&self) -> Result<(), Self::Error> {
            assert_eq!(self.last(), Some(Record::FlushStarted));
            Ok(())
        }
    }
    let done = AtomicBool::new(false);
    let log = Mutex::new(Until { bytes: 5_000 * Record::BYTES, log: Vec::new(), done: &done });
    let store = Watched { log: &log, truth: Unbounded::default() };
    let load = Load { threads: 1, ..load() };
    super::super::worker::run(&store, &load, &log, &done).unwrap();
}

/// The state before the last flush, brought back, is noticed; so is a store that ignores
/// inserts, by the worker itself.
#[test]
fn a_store_that_forgets_is_found_out() {
    let (load, store) = (Load { keys: 100, threads: 1, ..load() }, Unbounded::default());
    let (history, _) = worked(&store, &load);
    let stale = Unbounded::default();
    for (key, keyed) in (0..).zip(&history.keys).filter(|(_, keyed)| keyed.flushed > 1) {
        let older = bytes_of(key, keyed.flushed - 1);
        let _ = stale.insert(&Load::key(key), &older).unwrap();
    }
    let checked = history.clone().check(&stale).unwrap();
    assert!(checked.wrong > 50 && checked.hits == 0, "{checked}");

    struct Deaf(Unbounded);
    impl Store for Deaf {
        type Error = std::convert::Infallible;
        fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Self::Error> {
            self.0.get(key, value)
        }
        fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Self::Error> {
            if !self.0.contains(key)? {
                let _ = self.0.insert(key, value)?;
            }
            Ok(Insertion::Stored)
        }
        fn remove(&self, key: &[u8]) -> Result<bool, Self::Error> {
            self.0.remove(key)
        }
    }
    let (_, wrong) = worked(&Deaf(Unbounded::default()), &load);
    assert!(wrong > 100, "{wrong}");
}
