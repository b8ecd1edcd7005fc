//! Reinsertion: what is hit outlives its bucket, and nothing that was overwritten or removed comes
//! back by it.

use std::path::Path;
use tierce_cache::{Cache, Config};
use tierce_core::Policy;
use tierce_io::FormatOptions;

const BUCKET: u32 = 64 << 10;

fn formatted(path: &Path) {
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(BUCKET);
    tierce_io::format(path, &options).expect("a new file");
}

fn get(cache: &Cache, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    cache.get_into(key, &mut value).expect("the device works").then_some(value)
}

/// Some keys are read three times, then more is inserted than fits. In order of their buckets
/// they would all be gone.
fn after_a_scan(reinsert_after: u8) -> (usize, Vec<Option<Vec<u8>>>) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let config = Config::new(&path).policy(Policy::Fifo).reinsert_after(reinsert_after);
    let cache = Cache::open(config).expect("just formatted");
    // Some in parts: longer than what is left of a bucket, or than a bucket.
    for n in 0u32..60 {
        cache.insert(&n.to_le_bytes(), &value(n)).expect("space");
    }
    for n in (0u32..60).cycle().take(180) {
        assert!(get(&cache, &n.to_le_bytes()).is_some());
    }
    for n in 1000..1000 + (64 << 20) / 7000 {
        cache.insert(&u32::to_le_bytes(n), &[n as u8; 8000]).expect("space");
    }
    let found: Vec<Option<Vec<u8>>> = (0u32..60).map(|n| get(&cache, &n.to_le_bytes())).collect();
    let stats = cache.stats();
    assert_eq!((stats.corrupt, stats.failed_inserts), (0, 0), "{stats:?}");
    let reinserted = stats.reinserted as usize;
    cache.close().expect("flushed");
    (reinserted, found)
}

fn value(n: u32) -> Vec<u8> {
    (0..[100, 4096, 30_000, BUCKET][n as usize % 4]).map(|at| (at * 31 + n * 7) as u8).collect()
}

#[test]
fn what_is_hit_outlives_a_scan() {
    let (reinserted, found) = after_a_scan(0);
    assert_eq!((reinserted, found.iter().flatten().count()), (0, 0));
    let (reinserted, found) = after_a_scan(1);
    for (n, found) in (0..).zip(&found) {
        assert!(found.as_ref().is_none_or(|found| *found == value(n)), "{n}: another value");
    }
    let found = found.iter().flatten().count();
    // It is given up while no bucket is free, which depends on who is faster.
    assert!(found >= 30 && reinserted >= 30, "{found} are there, {reinserted} times reinserted");
    println!("{found} are there, {reinserted} times reinserted");
}

/// Four threads insert, read and remove while space is reused: what is found is what was inserted
/// last, and what was removed is gone, also after a restart.
#[test]
fn nothing_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let config = || Config::new(&path).reinsert_after(1).lru_sample(2);
    let cache = Cache::open(config()).expect("just formatted");
    let name = |thread: u64, key: u64| (thread << 32 | key).to_le_bytes();
    let content = |version: u64| version.to_le_bytes().repeat(1 + (version * 37 % 3000) as usize);
    let newest: Vec<Vec<Option<u64>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0u64..4)
            .map(|thread| {
                let cache = &cache;
                scope.spawn(move || {
                    let mut newest = vec![None; 500];
                    let mut state = thread + 1;
                    for version in 0u64..6000 {
                        // xorshift: any spread will do.
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        // Some keys much more often than others.
                        let key = (state % 500).min(state >> 32 & 511);
                        let name = name(thread, key);
                        if let Some(found) = get(cache, &name) {
                            assert_eq!(Some(found), newest[key as usize].map(content), "{key}");
                        }
                        if state >> 48 & 7 == 0 {
                            cache.remove(&name).expect("space");
                            newest[key as usize] = None;
                        } else if state >> 48 & 7 < 4 {
                            cache.insert(&name, &content(version)).expect("space");
                            newest[key as usize] = Some(version);
                        }
                    }
                    newest
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no assertion failed")).collect()
    });
    let stats = cache.stats();
    assert!(stats.reinserted > 0 && stats.invalidated > stats.nbuckets / 2, "{stats:?}");
    assert_eq!((stats.corrupt, stats.failed_inserts), (0, 0), "{stats:?}");
    cache.close().expect("flushed");

    let cache = Cache::open(config()).expect("closed in order");
    let mut found = 0;
    for (thread, newest) in (0..).zip(&newest) {
        for (key, newest) in (0..).zip(newest) {
            if let Some(value) = get(&cache, &name(thread, key)) {
                assert_eq!(Some(value), newest.map(content), "{thread}, {key} after a restart");
                found += 1;
            }
        }
    }
    assert!(found > 100, "{found}");
}
