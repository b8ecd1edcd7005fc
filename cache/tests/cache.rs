//! What a cache promises its users, on a real file: values come back to their keys alone, the
//! newest wins, what is removed is gone, space is reused, and after any restart nothing of an
//! earlier run is served.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tierce_cache::{Cache, Config, Error, Put, WhenFull};
use tierce_core::Policy;
use tierce_io::{FormatOptions, Sim, SimOptions, format_on};

const BUCKET: u32 = 64 << 10;

fn formatted(path: &Path) {
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(BUCKET);
    tierce_io::format(path, &options).expect("a new file");
}

/// FIFO: what was written last is reused last. (LRU hardly knows old from new in so young a cache.)
fn open(path: &Path) -> Cache {
    Cache::open(Config::new(path).policy(Policy::Fifo)).expect("just formatted")
}

fn get(cache: &Cache, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = vec![1, 2, 3];
    let hit = cache.get_into(key, &mut value).expect("the device works");
    assert!(hit || value.is_empty(), "a miss leaves nothing behind");
    hit.then_some(value)
}

#[test]
fn the_newest_value_of_each_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let cache = open(&path);
    assert_eq!(get(&cache, b"a"), None);
    cache.insert(b"a", b"1").expect("space");
    cache.insert(b"b", b"").expect("space");
    cache.insert(b"a", b"22").expect("space");
    assert_eq!(get(&cache, b"a").as_deref(), Some(&b"22"[..]));
    assert_eq!(get(&cache, b"b").as_deref(), Some(&b""[..]), "an empty value is a value");
    assert!(cache.contains(b"a").expect("a key") && !cache.contains(b"c").expect("a key"));
    assert!(cache.remove(b"a").expect("a key"));
    assert!(!cache.remove(b"a").expect("a key"), "it is gone already");
    assert_eq!(get(&cache, b"a"), None);
    assert!(!cache.contains(b"a").expect("a key"));
    let stats = cache.stats();
    assert_eq!((stats.inserts, stats.removes, stats.hits, stats.misses), (3, 1, 2, 2));
    cache.close().expect("flushed");
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let cache = open(&path);
    cache.insert(b"k", b"old").expect("space");
    let largest = cache.value_bytes_max(1);
    assert_eq!(largest, BUCKET as usize, "a value may be as long as a bucket");
    let refused = cache.insert(b"k", &vec![7; largest + 1]);
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert_eq!(get(&cache, b"k").as_deref(), Some(&b"old"[..]));
    cache.insert(b"k", &vec![7; largest]).expect("it is spread over two buckets");
    assert!(get(&cache, b"k") == Some(vec![7; largest]));
    for nothing in [cache.insert(b"", b"v"), cache.get(b"").map(drop)] {
        assert!(matches!(nothing, Err(Error::EmptyKey)), "{nothing:?}");
    }
    assert_eq!(cache.stats().failed_inserts, 2);
}

/// What was closed comes back, and so does what was written before the process ended; newest
/// values only, and nothing that was removed.
#[test]
fn a_restart_is_warm() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let value = |run: u32, key: u32| vec![run as u8 ^ key as u8; 100 + 37 * key as usize];
    for run in 0u32..4 {
        let cache = open(&path);
        for key in 0u32..200 {
            let expected = match (run, key) {
                (0, _) => None,
                _ if key % 7 == 0 => None, // removed below
                _ if key % 3 == 0 => Some(value(run - 1, key)),
                _ => Some(value(0, key)),
            };
            let found = get(&cache, &key.to_le_bytes());
            assert!(found == expected, "run {run}, key {key}: {:?}", cache.stats());
        }
        for key in (0u32..200).filter(|key| run == 0 || key % 3 == 0) {
            cache.insert(&key.to_le_bytes(), &value(run, key)).expect("space");
        }
        for key in (0u32..200).step_by(7) {
            let there = cache.remove(&key.to_le_bytes()).expect("space");
            assert!(there || (run > 0 && key % 3 != 0), "{key}");
        }
        if run == 1 {
            cache.flush().expect("durable");
            drop(cache);
        } else {
            cache.close().expect("flushed");
        }
    }
}

/// Values of all sizes, large ones in parts, small ones many to a block; read from memory, from
/// the device, and after a restart.
#[test]
fn values_of_all_sizes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let value = |n: u32| -> Vec<u8> {
        let bytes =
            [0, 1, 63, 64, 500, 512, 4000, 4096, 9000, 30_000, 60_000, BUCKET][n as usize % 12];
        (0..bytes).map(|at| (at * 31 + n * 7) as u8).collect()
    };
    let cache = open(&path);
    for n in 0u32..600 {
        cache.insert(&n.to_le_bytes(), &value(n)).expect("space");
        assert!(get(&cache, &n.to_le_bytes()) == Some(value(n)), "{n} at once");
    }
    for n in 0u32..600 {
        assert!(get(&cache, &n.to_le_bytes()) == Some(value(n)), "{n} later");
    }
    cache.close().expect("flushed");
    let cache = open(&path);
    for n in 0u32..600 {
        assert!(get(&cache, &n.to_le_bytes()) == Some(value(n)), "{n} after a restart");
    }
    assert_eq!(cache.stats().corrupt, 0);
}

#[test]
fn a_cache_is_opened_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let cache = open(&path);
    let second = Cache::open(Config::new(&path)).expect_err("it is open");
    assert!(second.to_string().contains("in use"), "{second}");
    cache.close().expect("flushed");
    open(&path);
}

/// Four threads write and read ten times what fits; every hit is the newest value that was
/// acknowledged, byte for byte.
fn reuse(policy: Policy) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let cache = Cache::open(Config::new(&path).policy(policy)).expect("just formatted");
    let hits = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0u64..4 {
            let (cache, hits) = (&cache, &hits);
            scope.spawn(move || {
                let mut newest = vec![None; 600];
                let mut state = thread + 1;
                for version in 0u64..4000 {
                    // xorshift: any spread will do.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let key = state % 600;
                    let name = (thread << 32 | key).to_le_bytes();
                    let value = |version: u64| {
                        let seed = version.to_le_bytes();
                        seed.repeat(1 + (version % 5000) as usize)
                    };
                    if let Some(found) = get(cache, &name) {
                        let newest: Option<u64> = newest[key as usize];
                        assert_eq!(Some(found), newest.map(value));
                        // Relaxed: a count.
                        hits.fetch_add(1, Ordering::Relaxed);
                    }
                    cache.insert(&name, &value(version)).expect("space");
                    newest[key as usize] = Some(version);
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(hits.into_inner() > 0, "{stats:?}");
    assert!(stats.invalidated >= 2 * stats.nbuckets, "{stats:?}");
    assert_eq!((stats.corrupt, stats.failed_inserts), (0, 0), "{stats:?}");
    cache.close().expect("flushed");
}

#[test]
fn space_is_reused_lru() {
    reuse(Policy::Lru);
}

#[test]
fn space_is_reused_fifo() {
    reuse(Policy::Fifo);
}

#[test]
fn space_is_reused_at_random() {
    reuse(Policy::Random);
}

/// A time to live ends; a write point is a hint.
#[test]
fn entries_expire() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let cache = open(&path);
    let (short, long) = (Duration::ZERO, Duration::from_secs(3600));
    cache.insert_with(b"short", b"1", &Put::new().ttl(short).write_point(7)).expect("space");
    cache.insert_with(b"long", b"2", &Put::new().ttl(long)).expect("space");
    cache.close().expect("flushed");
    let cache = open(&path);
    assert_eq!(get(&cache, b"short"), None);
    assert_eq!(get(&cache, b"long").as_deref(), Some(&b"2"[..]));
    assert_eq!(cache.stats().expired, 1);
}

/// While one fills, others wait for him; if he fails, the next one fills.
#[test]
fn one_fills_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let cache = open(&path);
    let fills = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let value = cache.get_with(&b"key"[..], || {
                    // Relaxed: a count.
                    match fills.fetch_add(1, Ordering::Relaxed) {
                        0 => Err(Error::Full),
                        _ => Ok(b"value".to_vec()),
                    }
                });
                assert!(matches!(value, Err(Error::Full)) || value.expect("filled") == b"value");
            });
        }
    });
    assert_eq!(fills.into_inner(), 2, "the first failed, the second filled");
}

/// Told not to wait, an insert says that there is no room, and nothing is lost by it.
#[test]
fn who_does_not_wait_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cache");
    formatted(&path);
    let config = Config::new(&path).when_full(WhenFull::Fail).policy(Policy::Fifo);
    let cache = Cache::open(config).expect("just formatted");
    let (mut stored, mut full) = (0, 0);
    // More than fit, so that room has to be made.
    for n in 0u32.. {
        match cache.insert(&n.to_le_bytes(), &[n as u8; 8000]) {
            Ok(()) => assert!(cache.contains(&n.to_le_bytes()).expect("a key")),
            Err(Error::Full) => {
                full += 1;
                std::thread::yield_now();
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        stored += 1;
        if stored > 10_000 && full > 0 {
            break;
        }
    }
    let stats = cache.stats();
    assert_eq!((stats.inserts, stats.failed_inserts), (stored, full), "{stats:?}");
}

/// It is derived by whoever has a cache in a struct of his own, and lands in logs.
#[test]
fn debug_output_is_short() -> Result<(), Error> {
    let sim = Sim::new(&SimOptions::default());
    format_on(&*sim, &FormatOptions::default().bucket(64 << 10)).expect("a new device");
    let cache = Cache::open_on(&Config::new("sim"), vec![sim])?;
    cache.insert(b"key", b"value")?;
    let shown = format!("{cache:?}");
    assert!(shown.contains("entries: 1") && shown.len() < 200, "{shown}");
    cache.close()
}
