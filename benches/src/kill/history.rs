//! What may be found after the crash: the last acknowledged, flushed and started version of
//! every key, kept outside the cache.
//!
//! ## State, for each key
//! ```text
//!   versions:   … flushed … acknowledged … started
//!                 └─ inserts among these may be served
//! ```
//! `flushed ≤ acknowledged ≤ started`. 0 is "never written". To find nothing is always allowed.
//!
//! ## Why this range
//! * Below *flushed* would undo what a completed flush promised. The flush covers what was
//!   acknowledged before it began: records are in the order in which they were written, so
//!   exactly the acknowledgements before [`Record::FlushStarted`] count.
//! * Above *flushed*, a crash may keep or lose any insert or remove, acknowledged or not.
//! * After an opening, what was found is what there is: neither an older nor a newer version
//!   may come back later. Where nothing was found, the range stays.

use super::log::{Change, Record};
use super::worker::Load;
use crate::backend::Store;
use crate::error::Error;
use crate::value::{Derived, Mismatch};
use std::collections::BTreeMap;

#[derive(Clone, Default, Debug)]
struct KeyHistory {
    flushed: u64,
    acknowledged: u64,
    /// What the flush under way will make `flushed`.
    flushing: u64,
    started: u64,
    /// What was started, from `flushed` on, less what an opening showed to be lost.
    changes: BTreeMap<u64, Change>,
}

/// The history of all keys.
///
/// ```
/// use tierce_bench::kill::{History, log::{Change, Record}, worker::Load};
/// use tierce_bench::{Insertion, Store, backend::Unbounded};
/// let load = Load::default();
/// let mut history = History::new(&load);
/// history.take(Record::Started { key: 1, version: 1, change: Change::Insert }).unwrap();
///
/// let store = Unbounded::default();
/// let mut value = Vec::new();
/// load.value(1, 1).fill(&mut value);
/// assert_eq!(store.insert(&Load::key(1), &value).unwrap(), Insertion::Stored);
/// let checked = history.check(&store).unwrap();
/// assert_eq!((checked.hits, checked.wrong), (1, 0));
/// ```
#[derive(Clone, Debug)]
pub struct History {
    load: Load,
    keys: Vec<KeyHistory>,
}

impl History {
    /// No key was ever written.
    #[must_use]
    pub fn new(load: &Load) -> Self {
        Self { load: load.clone(), keys: vec![KeyHistory::default(); load.keys as usize] }
    }

    /// A version above all that were started.
    #[must_use]
    pub fn next_version(&self) -> u64 {
        self.keys.iter().map(|key| key.started).max().unwrap_or(0) + 1
    }

    /// Adds an event.
    ///
    /// # Errors
    /// In words, what is wrong with it: the log contradicts itself.
    pub fn take(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Started { key, version, change } => {
                let history = self.key(key)?;
                if version <= history.started {
                    let last = history.started;
                    return Err(format!("version {version} of key {key} begun after {last}"));
                }
                history.started = version;
                history.changes.insert(version, change);
            }
            Record::Acknowledged { key, version } => {
                let history = self.key(key)?;
                if version != history.started {
                    let last = history.started;
                    let found = format!("version {version} of key {key} acknowledged");
                    return Err(format!("{found}, {last} was started last"));
                }
                history.acknowledged = version;
            }
            Record::FlushStarted => {
                self.keys.iter_mut().for_each(|key| key.flushing = key.acknowledged);
            }
            Record::FlushEnded => self.keys.iter_mut().for_each(KeyHistory::end_flush),
            Record::Wrong { key, .. } => drop(self.key(key)?),
        }
        Ok(())
    }

    fn key(&mut self, key: u64) -> Result<&mut KeyHistory, String> {
        let count = self.keys.len();
        let index = usize::try_from(key).unwrap_or(usize::MAX);
        self.keys.get_mut(index).ok_or_else(|| format!("key {key} of {count} keys"))
    }

    /// Gets every key from a cache that was opened after a crash, and makes what was found the
    /// history from which the next run starts.
    ///
    /// # Errors
    /// [`Error::Store`] if a get fails.
    pub fn check<S: Store>(&mut self, store: &S) -> Result<Checked, Error> {
        let mut checked = Checked::default();
        let mut found = Vec::new();
        for (key, history) in (0..).zip(&mut self.keys) {
            checked.keys += 1;
            let hit = store.get(&Load::key(key), &mut found);
            if !hit.map_err(Error::store("get a value from the cache after a crash"))? {
                checked.misses += 1;
                history.settle(None);
                continue;
            }
            match history.judge(key, &found, &self.load) {
                Ok(version) => {
                    checked.hits += 1;
                    history.settle(Some(version));
                }
                Err(wrong) => {
                    checked.count_wrong(|| format!("key {key}: {wrong}"));
                    history.settle(None);
                }
            }
        }
        Ok(checked)
    }
}

impl KeyHistory {
    fn end_flush(&mut self) {
        self.flushed = self.flushing;
        self.changes = self.changes.split_off(&self.flushed);
    }

    /// Which version `bytes` are, or why they must not be served.
    fn judge(&self, key: u64, bytes: &[u8], load: &Load) -> Result<u64, String> {
        let allowed = || match self.started {
            0 => "nothing: it was never written".to_owned(),
            started => format!("nothing or a version from {} to {started}", self.flushed),
        };
        let wrong = |found: String| format!("found {found}, wanted {}", allowed());
        let version = Derived::version_of(key, bytes)
            .filter(|_| bytes.len() >= 8)
            .ok_or_else(|| wrong(Mismatch::Key.to_string()))?;
        if version < self.flushed.max(1) || version > self.started {
            return Err(wrong(format!("version {version}")));
        }
        match self.changes.get(&version) {
            Some(Change::Insert) => {}
            Some(Change::Remove) => {
                return Err(wrong(format!("version {version}, which was a remove")));
            }
            None => {
                let found = format!("version {version}, never written or undone by a crash");
                return Err(wrong(found));
            }
        }
        let exact = load.value(key, version).check(bytes);
        exact.map_err(|mismatch| wrong(format!("version {version} with {mismatch}")))?;
        Ok(version)
    }

    /// Takes what a get found after an opening for what there is.
    fn settle(&mut self, version: Option<u64>) {
        if let Some(version) = version {
            self.flushed = version;
            self.acknowledged = version;
            // `started` counts on, as no version is used twice.
            self.changes = BTreeMap::from([(version, Change::Insert)]);
        }
        self.flushing = self.flushed;
    }
}

/// What was found after crashes.
///
/// ```
/// use tierce_bench::kill::Checked;
/// let checked = Checked { keys: 10, hits: 4, misses: 6, ..Checked::default() };
/// assert_eq!(checked.to_string(), "10 keys checked: 4 hits, 6 misses, 0 wrong");
/// ```
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Checked {
    /// Keys that were asked for.
    pub keys: u64,
    /// Of these, found with an allowed value.
    pub hits: u64,
    /// Not found.
    pub misses: u64,
    /// Values that must not be served, and gets that went wrong in mid-run.
    pub wrong: u64,
    /// What the first of them was.
    pub first_wrong: Option<String>,
}

impl Checked {
    /// Both together.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        Self {
            keys: self.keys + other.keys,
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            wrong: self.wrong + other.wrong,
            first_wrong: self.first_wrong.or(other.first_wrong),
        }
    }

    pub(super) fn count_wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert_with(what);
    }
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { keys, hits, misses, wrong, first_wrong } = self;
        write!(f, "{keys} keys checked: {hits} hits, {misses} misses, {wrong} wrong")?;
        first_wrong.as_ref().map_or(Ok(()), |first| write!(f, " (first: {first})"))
    }
}

#[cfg(test)]
mod tests;
