//! The kill test against the real cache, and against caches that break their promises after
//! the crash: those must be found out, or the test proves nothing.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail them by panicking")]

use std::process::Command;
use tierce_bench::backend::Tierce;
use tierce_bench::kill::worker::Load;
use tierce_bench::kill::{CacheFile, Checked, Settings, Subject, run};
use tierce_bench::{Error, Insertion, Store};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tierce-kill-test");

fn cache_file(directory: &tempfile::TempDir) -> CacheFile {
    let path = directory.path().join("cache.img");
    let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(&path, &options).unwrap();
    CacheFile::new(PROGRAM, path)
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    (settings.rounds, settings.acknowledged) = (2, 1_500..=3_000);
    settings
}

#[test]
fn a_killed_cache_serves_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let mut rounds = Vec::new();
    let subject = cache_file(&directory);
    let checked = run(&subject, &settings(), &mut |round| rounds.push(round.clone())).unwrap();
    assert_eq!((checked.wrong, checked.keys), (0, 4_000), "{checked}");
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        assert!(round.acknowledged >= 1_500, "{round}");
    }
}

/// A cache that, opened after the crash, serves the same version of every key.
struct Liar {
    honest: CacheFile,
    version: u64,
}

struct LyingStore {
    honest: Tierce,
    version: u64,
}

impl Subject for Liar {
    type Store = LyingStore;
    fn worker(&self, load: &Load) -> Command {
        self.honest.worker(load)
    }
    fn open(&self) -> Result<LyingStore, Error> {
        Ok(LyingStore { honest: self.honest.open()?, version: self.version })
    }
    fn close(&self, store: LyingStore) -> Result<(), Error> {
        self.honest.close(store.honest)
    }
}

impl Store for LyingStore {
    type Error = tierce_cache::Error;
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Self::Error> {
        let key = u64::from_le_bytes(key.try_into().unwrap());
        Load::default().value(key, self.version).fill(value);
        Ok(true)
    }
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Self::Error> {
        self.honest.insert(key, value)
    }
    fn remove(&self, key: &[u8]) -> Result<bool, Self::Error> {
        self.honest.remove(key)
    }
}

fn wrong(version: u64) -> Checked {
    let directory = tempfile::tempdir().unwrap();
    let subject = Liar { honest: cache_file(&directory), version };
    run(&subject, &settings(), &mut |_| {}).unwrap()
}

#[test]
fn stale_and_invented_versions_are_found_out() {
    let stale = wrong(1);
    assert!(stale.wrong > 3_900, "{stale}");
    let invented = wrong(1 << 40);
    assert_eq!((invented.wrong, invented.hits), (4_000, 0), "{invented}");
}

/// A worker that cannot work fails the test, which otherwise would check an idle cache.
#[test]
fn a_worker_that_ends_by_itself_fails_the_test() {
    let directory = tempfile::tempdir().unwrap();
    let missing = CacheFile::new(PROGRAM, directory.path().join("missing.img"));
    let error = run(&missing, &settings(), &mut |_| {}).unwrap_err().to_string();
    assert!(
        error.starts_with("kill test, round 1: found a worker that ended by itself"),
        "{error}"
    );
    let missing = CacheFile::new("/no/such/program", "x");
    let error = run(&missing, &settings(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("found cannot start /no/such/program"), "{error}");
}
