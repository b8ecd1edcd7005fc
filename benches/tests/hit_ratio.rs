//! The page mode against exact caches in memory, on real traces: the hit ratios are those that
//! other simulators reached on the same traces. Capacities are a 100th and a 10th of the pages.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail them by panicking")]

mod common;

use common::reference;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Mutex;
use tierce_bench::replay::{Settings, run};
use tierce_bench::value::Derived;
use tierce_bench::{Insertion, Store, Trace};

/// What a key is when it comes back from a store: the part behind the namespace.
fn number(key: &[u8]) -> u64 {
    u64::from_le_bytes(key[8..].try_into().unwrap())
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Policy {
    Fifo,
    Lru,
}

/// An exact page cache: `capacity` pages, each evicted on its own. Hits and overwrites make a
/// page the last to go (LRU) or leave it where it is (FIFO).
struct Pages {
    policy: Policy,
    capacity: usize,
    state: Mutex<PagesState>,
}

#[derive(Default)]
struct PagesState {
    now: u64,
    /// Key to its place in the queue and its value.
    pages: HashMap<u64, (u64, Derived)>,
    queue: BTreeMap<u64, u64>,
}

impl Pages {
    fn new(policy: Policy, capacity: usize) -> Self {
        Self { policy, capacity, state: Mutex::default() }
    }
}

impl PagesState {
    fn requeue(&mut self, key: u64) {
        self.now += 1;
        if let Some((place, _)) = self.pages.get_mut(&key) {
            self.queue.remove(place);
            *place = self.now;
            self.queue.insert(self.now, key);
        }
    }
}

impl Store for Pages {
    type Error = Infallible;

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Infallible> {
        let (mut state, key) = (self.state.lock().unwrap(), number(key));
        let Some(&(_, derived)) = state.pages.get(&key) else { return Ok(false) };
        derived.fill(value);
        if self.policy == Policy::Lru {
            state.requeue(key);
        }
        Ok(true)
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Infallible> {
        let (mut state, key) = (self.state.lock().unwrap(), number(key));
        let version = Derived::version_of(key, value).unwrap();
        let derived = Derived { key, version, size: value.len() };
        if let Some((_, old)) = state.pages.get_mut(&key) {
            *old = derived;
            if self.policy == Policy::Lru {
                state.requeue(key);
            }
            return Ok(Insertion::Stored);
        }
        if state.pages.len() == self.capacity {
            let (_, victim) = state.queue.pop_first().unwrap();
            state.pages.remove(&victim);
        }
        state.pages.insert(key, (0, derived));
        state.requeue(key);
        Ok(Insertion::Stored)
    }

    fn remove(&self, key: &[u8]) -> Result<bool, Infallible> {
        let mut state = self.state.lock().unwrap();
        let Some((place, _)) = state.pages.remove(&number(key)) else { return Ok(false) };
        Ok(state.queue.remove(&place).is_some())
    }

    fn contains(&self, key: &[u8]) -> Result<bool, Infallible> {
        Ok(self.state.lock().unwrap().pages.contains_key(&number(key)))
    }
}

/// A log of buckets of 128 pages: pages are appended to an open bucket, and the first filled
/// bucket (FIFO) or the one longest unused (LRU) is evicted as a whole.
struct Buckets {
    policy: Policy,
    capacity: usize,
    state: Mutex<BucketsState>,
}

#[derive(Default)]
struct BucketsState {
    now: u64,
    /// Key to the bucket that holds its newest copy, and its value.
    pages: HashMap<u64, (u64, Derived)>,
    /// Bucket to when it was last used, and what was appended to it.
    buckets: HashMap<u64, (u64, Vec<u64>)>,
    open: u64,
}

const BUCKET_PAGES: usize = 128;

impl Buckets {
    fn new(policy: Policy, pages: usize) -> Self {
        Self { policy, capacity: pages / BUCKET_PAGES, state: Mutex::default() }
    }
}

impl BucketsState {
    fn touch(&mut self, bucket: u64) {
        self.now += 1;
        let now = self.now;
        self.buckets.entry(bucket).and_modify(|(used, _)| *used = now);
    }

    fn evict(&mut self, policy: Policy) {
        let full = self.buckets.iter().filter(|&(&id, _)| id != self.open);
        let oldest = full.min_by_key(|&(&id, &(used, _))| match policy {
            Policy::Fifo => id,
            Policy::Lru => used,
        });
        let victim = *oldest.unwrap().0;
        let (_, keys) = self.buckets.remove(&victim).unwrap();
        for key in keys {
            if self.pages.get(&key).is_some_and(|(bucket, _)| *bucket == victim) {
                self.pages.remove(&key);
            }
        }
    }
}

impl Store for Buckets {
    type Error = Infallible;

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Infallible> {
        let mut state = self.state.lock().unwrap();
        let Some(&(bucket, derived)) = state.pages.get(&number(key)) else { return Ok(false) };
        derived.fill(value);
        state.touch(bucket);
        Ok(true)
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Infallible> {
        let (mut state, key) = (self.state.lock().unwrap(), number(key));
        let version = Derived::version_of(key, value).unwrap();
        let open = state.open;
        if state.buckets.get(&open).is_none_or(|(_, keys)| keys.len() == BUCKET_PAGES) {
            if state.buckets.len() == self.capacity {
                state.evict(self.policy);
            }
            state.open += 1;
            let (open, now) = (state.open, state.now);
            state.buckets.insert(open, (now, Vec::new()));
        }
        let open = state.open;
        state.buckets.get_mut(&open).unwrap().1.push(key);
        state.pages.insert(key, (open, Derived { key, version, size: value.len() }));
        state.touch(open);
        Ok(Insertion::Stored)
    }

    fn remove(&self, key: &[u8]) -> Result<bool, Infallible> {
        Ok(self.state.lock().unwrap().pages.remove(&number(key)).is_some())
    }

    fn contains(&self, key: &[u8]) -> Result<bool, Infallible> {
        Ok(self.state.lock().unwrap().pages.contains_key(&number(key)))
    }
}

/// The hit ratio in percent of 4-KiB pages of a trace; everything read is verified.
fn percent(trace: &std::path::Path, store: &impl Store) -> f64 {
    let mut settings = Settings::default();
    (settings.page_bytes, settings.verify) = (Some(4096), true);
    let outcome = run(store, Trace::open(trace, None).unwrap(), &settings, &mut |_| {}).unwrap();
    assert_eq!(outcome.wrong_data, 0, "{:?}", outcome.first_wrong);
    outcome.hit_ratio * 100.0
}

fn assert_near(what: &str, found: f64, wanted: f64, tolerance: f64) {
    println!("{what}: found {found:.2} %, wanted {wanted:.2} ± {tolerance}");
    assert!((found - wanted).abs() <= tolerance, "{what}: found {found:.2} %, wanted {wanted} %");
}

#[test]
fn pages_of_a_disk() {
    let Some(trace) = reference("traces/cloudphysics.vscsi.zst") else { return };
    for (capacity, fifo, lru) in [(2_692, 10.23, 10.31), (26_921, 12.71, 12.59)] {
        for (policy, wanted) in [(Policy::Fifo, fifo), (Policy::Lru, lru)] {
            let found = percent(&trace, &Pages::new(policy, capacity));
            assert_near(&format!("{policy:?} of {capacity} pages"), found, wanted, 0.006);
        }
    }
}

#[test]
fn buckets_of_a_disk() {
    let Some(trace) = reference("traces/cloudphysics.vscsi.zst") else { return };
    for (capacity, fifo, lru) in [(2_692, 10.20, 10.22), (26_921, 12.58, 14.06)] {
        for (policy, wanted) in [(Policy::Fifo, fifo), (Policy::Lru, lru)] {
            let found = percent(&trace, &Buckets::new(policy, capacity));
            assert_near(&format!("{policy:?} of {capacity} pages"), found, wanted, 0.1);
        }
    }
}

#[test]
fn pages_of_a_workstation() {
    let Some(trace) = reference("traces/arc-P6.lis.zst") else { return };
    for (policy, wanted) in [(Policy::Fifo, 38.97), (Policy::Lru, 35.12)] {
        let found = percent(&trace, &Pages::new(policy, 10_190));
        assert_near(&format!("{policy:?} of 10190 pages"), found, wanted, 0.006);
    }
}
