//! The engine against stores that behave and stores that lie.

use super::*;
use crate::backend::{Insertion, Unbounded};
use crate::trace::Target;
use crate::workload::{Zipf, ZipfSettings};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

fn object(op: Op, key: u64, size: u64) -> Result<Request, Error> {
    Ok(Request { time: Duration::ZERO, op, target: Target::Object(key), size })
}

fn extent(op: Op, sector: u64, sectors: u64) -> Result<Request, Error> {
    let target = Target::Extent { volume: 0, offset: sector * 512 };
    Ok(Request { time: Duration::ZERO, op, target, size: sectors * 512 })
}

fn verifying(threads: usize) -> Settings {
    Settings { threads, verify: true, ..Settings::default() }
}

fn zipf(requests: u64) -> Zipf {
    let mut settings = ZipfSettings::default();
    (settings.keys, settings.requests, settings.remove_share) = (50, requests, 0.1);
    Zipf::new(&settings).unwrap()
}

#[test]
fn objects_are_counted() {
    let requests = [
        object(Op::Get, 1, 100),
        object(Op::Get, 1, 100),
        object(Op::Set, 1, 50),
        object(Op::Set, 2, 0),
        object(Op::Get, 2, 300),
        object(Op::Remove, 1, 0),
        object(Op::Get, 1, 100),
    ];
    let store = Unbounded::default();
    let outcome = run(&store, requests, &verifying(1), &mut |_| {}).unwrap();
    assert_eq!((outcome.requests, outcome.operations), (7, 7));
    assert_eq!((outcome.accesses, outcome.hits), (4, 2));
    assert_eq!(outcome.byte_hit_ratio, 400.0 / 600.0);
    assert_eq!((outcome.inserts, outcome.removes, outcome.wrong_data), (4, 1, 0));
    assert_eq!(outcome.inserted_bytes, 100 + 50 + 1 + 100);
}

#[test]
fn pages_are_counted() {
    let requests = [
        extent(Op::Get, 7, 8),     // pages 0 and 1: misses
        extent(Op::Set, 8, 1),     // page 1: a hit
        extent(Op::Set, 16, 1),    // page 2: a miss
        extent(Op::Remove, 4, 13), // bytes 2048 to 8704: page 1 whole
        extent(Op::Get, 0, 24),    // page 1 misses, pages 0 and 2 hit
    ];
    let store = Unbounded::default();
    let settings = Settings { page_bytes: Some(4096), ..verifying(1) };
    let outcome = run(&store, requests, &settings, &mut |_| {}).unwrap();
    assert_eq!((outcome.requests, outcome.operations), (5, 8));
    assert_eq!((outcome.accesses, outcome.hits), (7, 3));
    assert_eq!((outcome.inserts, outcome.removes, outcome.wrong_data), (5, 1, 0));
}

#[test]
fn objects_have_no_pages() {
    let settings = Settings { page_bytes: Some(4096), ..verifying(2) };
    let error = run(&Unbounded::default(), zipf(10), &settings, &mut |_| {}).unwrap_err();
    assert!(
        error.to_string().contains("on for requests that name objects, wanted a block trace"),
        "{error}"
    );
}

#[test]
fn threads_do_not_change_what_an_unbounded_store_reaches() {
    let mut progressed = 0;
    let run_on = |threads, progress: &mut dyn FnMut(u64)| {
        run(&Unbounded::default(), zipf(20_000), &verifying(threads), progress).unwrap()
    };
    let (one, four) = (run_on(1, &mut |n| progressed += n), run_on(4, &mut |_| {}));
    assert_eq!(progressed, 20_000);
    assert_eq!((one.hits, one.inserts, one.removes), (four.hits, four.inserts, four.removes));
    assert_eq!((one.wrong_data, four.wrong_data), (0, 0));
    assert_eq!(one.hit_ratio, one.hits as f64 / one.accesses as f64);
}

#[test]
fn a_limit_on_requests_holds_and_namespaces_differ() {
    let store = Unbounded::default();
    let first = Settings { requests: Some(500), ..verifying(1) };
    let outcome = run(&store, zipf(10_000), &first, &mut |_| {}).unwrap();
    assert_eq!(outcome.requests, 500);
    let again = run(&store, zipf(10_000), &first, &mut |_| {}).unwrap();
    assert!(again.wrong_data > 0, "what another run wrote is not this run's");
    let second = Settings { namespace: 1, ..first };
    let apart = run(&store, zipf(10_000), &second, &mut |_| {}).unwrap();
    assert_eq!((apart.wrong_data, apart.hits), (0, outcome.hits));
}

#[test]
fn the_json_has_the_documented_keys() {
    let outcome = run(&Unbounded::default(), zipf(100), &verifying(1), &mut |_| {}).unwrap();
    let json = serde_json::to_string(&outcome).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    for key in [
        "requests",
        "hits",
        "hit_ratio",
        "byte_hit_ratio",
        "ops_per_s",
        "dropped_inserts",
        "wrong_data",
        "read_races",
        "nbuckets",
        "data_buckets",
        "invalidated",
        "prio_writes",
        "discards",
        "gc_runs",
        "rss_bytes",
    ] {
        assert!(value[key].is_number(), "{key} in {json}");
        assert_eq!(json.matches(&format!("\"{key}\":")).count(), 1, "{key} once in {json}");
    }
    for latency in ["hit_us", "miss_us", "insert_us"] {
        for key in ["p50", "p99", "p999", "max"] {
            assert!(value[latency][key].is_number(), "{latency}.{key} in {json}");
        }
    }
}

/// A store that lies in one way on every tenth hit or insert.
#[derive(Default)]
struct Liar {
    truth: Unbounded,
    calls: AtomicU64,
    lie: Lie,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Lie {
    /// Inserts are acknowledged and ignored, so that the old value stays.
    #[default]
    Stale,
    /// One bit of what is read differs.
    Torn,
    /// What is read lacks its last byte.
    Cut,
    /// Another key's value is read.
    Foreign,
    /// Removes are acknowledged and ignored.
    Resurrect,
    /// Inserts are reported as dropped and the old value stays.
    DropAndKeep,
    /// Every tenth operation fails.
    Fail,
}

#[derive(Debug, thiserror::Error)]
#[error("the device is gone")]
struct Gone;

impl Liar {
    fn lies(&self, lie: Lie) -> bool {
        // Relaxed: any order of the calls will do.
        self.lie == lie && self.calls.fetch_add(1, Ordering::Relaxed) % 10 == 9
    }
}

fn told(result: Result<bool, Infallible>) -> Result<bool, Gone> {
    result.map_err(|never| match never {})
}

impl Store for Liar {
    type Error = Gone;

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Gone> {
        if self.lies(Lie::Fail) {
            return Err(Gone);
        }
        let hit = told(self.truth.get(key, value))?;
        if hit && self.lies(Lie::Torn) {
            let middle = value.len() / 2;
            value[middle] ^= 4;
        }
        if hit && self.lies(Lie::Cut) {
            value.pop();
        }
        if hit && self.lies(Lie::Foreign) {
            crate::value::Derived { key: 999, version: 1, size: value.len() }.fill(value);
        }
        Ok(hit)
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Gone> {
        if self.lies(Lie::DropAndKeep) {
            return Ok(Insertion::Dropped);
        }
        if !self.lies(Lie::Stale) {
            let _ = self.truth.insert(key, value);
        }
        Ok(Insertion::Stored)
    }

    fn remove(&self, key: &[u8]) -> Result<bool, Gone> {
        if self.lies(Lie::Resurrect) { Ok(true) } else { told(self.truth.remove(key)) }
    }
}

/// Each lie is found, by the byte-for-byte check at least, and some without it.
#[test]
fn every_lie_is_found() {
    let wrong = |lie, verify| {
        let mut workload = ZipfSettings::default();
        (workload.keys, workload.requests) = (50, 5_000);
        (workload.write_share, workload.remove_share) = (0.4, 0.2);
        let liar = Liar { lie, ..Liar::default() };
        let settings = Settings { verify, ..verifying(2) };
        run(&liar, Zipf::new(&workload).unwrap(), &settings, &mut |_| {}).unwrap()
    };
    for lie in [Lie::Stale, Lie::Torn, Lie::Cut, Lie::Foreign, Lie::Resurrect, Lie::DropAndKeep] {
        let outcome = wrong(lie, true);
        assert!(outcome.wrong_data > 0, "lie {} of the list goes unnoticed", lie as u8);
        assert!(outcome.first_wrong.unwrap().starts_with("key "));
    }
    assert!(wrong(Lie::Foreign, false).wrong_data > 0);
    assert!(wrong(Lie::DropAndKeep, true).store.dropped_inserts > 0);
}

#[test]
fn an_error_of_the_store_ends_the_run() {
    let liar = Liar { lie: Lie::Fail, ..Liar::default() };
    let error = run(&liar, zipf(1_000_000), &verifying(3), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "cannot get a value from the cache: the device is gone");
}

#[test]
fn an_error_of_the_trace_ends_the_run() {
    let setting = || Error::Setting { what: "it", found: "1".to_owned(), wanted: "2".to_owned() };
    let requests = zipf(1000).chain([Err(setting())]).chain(zipf(1000));
    let error = run(&Unbounded::default(), requests, &verifying(2), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), setting().to_string());
}

/// Values beyond the store's limit are not offered, and a write of one voids the old value.
#[test]
fn too_large_values_are_counted() {
    struct Small(Unbounded);
    impl Store for Small {
        type Error = Infallible;
        fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Infallible> {
            self.0.get(key, value)
        }
        fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Infallible> {
            assert!(value.len() <= 1000, "offered {} bytes", value.len());
            self.0.insert(key, value)
        }
        fn remove(&self, key: &[u8]) -> Result<bool, Infallible> {
            self.0.remove(key)
        }
        fn value_bytes_max(&self) -> usize {
            1000
        }
    }
    let requests = [
        object(Op::Set, 1, 1000),
        object(Op::Set, 1, 1001),
        object(Op::Get, 1, 1001),
        object(Op::Get, 2, Request::SIZE_MAX),
    ];
    let outcome = run(&Small(Unbounded::default()), requests, &verifying(1), &mut |_| {}).unwrap();
    assert_eq!((outcome.too_large, outcome.hits, outcome.inserts), (3, 0, 1));
}
