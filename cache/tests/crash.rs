//! Power losses on simulated devices: whatever comes back is a value that its key had, no older
//! than what the last flush made durable; nothing that was removed durably comes back, in however
//! many lives; and what was flushed is there as long as its bucket is.
//!
//! What may come back is kept here, apart from the cache. `TIERCE_CACHE_CRASH_SEEDS` sets how many
//! seeds are tried, `TIERCE_CACHE_CRASH_FIRST` the first one. Odd seeds have two devices, of which one
//! loses its power first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tierce_cache::{Cache, Config};
use tierce_core::Policy;
use tierce_core::draws::Draws;
use tierce_io::{CutAt, Device, FormatOptions, Sim, SimOptions, format_on};

const BUCKET: u32 = 16 << 10;
const BUCKETS: u64 = 640;
const KEYS: u64 = 60;
const LIVES: u64 = 5;

/// What a key may be found as: its versions from the last durable one on, `None` for removed.
#[derive(Default)]
struct Key {
    /// The version that the last flush covered.
    flushed: u64,
    /// All from `flushed` on, with the bytes of its value.
    versions: BTreeMap<u64, Option<usize>>,
}

impl Key {
    fn newest(&self) -> (u64, Option<usize>) {
        self.versions.last_key_value().map_or((0, None), |(&version, &bytes)| (version, bytes))
    }

    /// What the newest version is now, older ones are gone for good.
    fn settle(&mut self, version: u64) {
        self.flushed = version;
        self.versions.retain(|&v, _| v >= version);
    }
}

fn value(key: u64, version: u64, bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes + 16);
    value.extend_from_slice(&key.to_le_bytes());
    value.extend_from_slice(&version.to_le_bytes());
    value.extend((0..bytes as u64).map(|at| (at * 7 + key * 13 + version * 31) as u8));
    value
}

struct Run {
    seed: u64,
    draws: Draws,
    keys: Vec<Key>,
    next_version: u64,
    /// So much may be written in the first life that no bucket with data is reused.
    bytes_written: u64,
}

#[derive(Default, Debug)]
struct Counts {
    lives: u64,
    hits: u64,
    misses: u64,
    unflushed_kept: u64,
    removed_checked: u64,
    certain_checked: u64,
    dead_lists: u64,
    reused: u64,
    reinserted: u64,
}

impl Run {
    fn below(&mut self, limit: u64) -> u64 {
        self.draws.below(limit as u32).into()
    }

    fn bytes(&mut self) -> usize {
        match self.below(12) {
            0 => 16_300, // more than fits one bucket
            1 => self.below(9_000) as usize,
            2..=5 => self.below(100) as usize,
            _ => self.below(2_500) as usize,
        }
    }

    /// Works until the power goes; an operation that fails was cut.
    fn live(&mut self, cache: &Cache, operations: u64) {
        for _ in 0..operations {
            let (key, version) = (self.below(KEYS), self.next_version);
            self.next_version += 1;
            let name = key.to_le_bytes();
            let done = match self.below(20) {
                0 => self.flush(cache),
                1..=3 => {
                    self.keys[key as usize].versions.insert(version, None);
                    cache.remove(&name).is_ok()
                }
                4..=6 => {
                    let found = cache.get(&name).expect("a get never fails");
                    let (version, bytes) = self.keys[key as usize].newest();
                    if let Some(found) = found {
                        let expected = bytes.map(|bytes| value(key, version, bytes));
                        assert!(Some(found) == expected, "seed {}: key {key}", self.seed);
                    }
                    true
                }
                _ => {
                    let bytes = self.bytes();
                    self.bytes_written += bytes as u64 + 200;
                    self.keys[key as usize].versions.insert(version, Some(bytes));
                    cache.insert(&name, &value(key, version, bytes)).is_ok()
                }
            };
            if !done {
                return;
            }
        }
    }

    fn flush(&mut self, cache: &Cache) -> bool {
        let done = cache.flush().is_ok();
        if done {
            for key in &mut self.keys {
                let (version, _) = key.newest();
                key.settle(version);
            }
        }
        done
    }

    /// What is found after a power loss. `certain`: no bucket with data was reused before it.
    fn check(&mut self, cache: &Cache, certain: bool, counts: &mut Counts) {
        for (number, key) in (0u64..).zip(&mut self.keys) {
            let stale = cache.stats().stale;
            let found = cache.get(&number.to_le_bytes()).expect("a get never fails");
            let at = format!("seed {}, life {}, key {number}", self.seed, counts.lives);
            let Some(found) = found else {
                counts.misses += 1;
                let only = key.versions.len() == 1 && key.flushed == key.newest().0;
                if only && matches!(key.newest(), (_, Some(_))) && certain {
                    let reused = cache.stats().stale > stale;
                    assert!(reused, "{at}: it was durable, and nobody reused its bucket");
                    counts.certain_checked += 1;
                }
                counts.removed_checked += u64::from(only && key.newest().1.is_none());
                continue;
            };
            counts.hits += 1;
            assert!(found.len() >= 16, "{at}: {} bytes", found.len());
            let word = |at: usize| {
                found[at..at + 8].iter().rev().fold(0u64, |word, &b| word << 8 | u64::from(b))
            };
            let (of, version) = (word(0), word(8));
            assert_eq!(of, number, "{at}: another key's value");
            let bytes = key.versions.get(&version).copied().flatten();
            let flushed = key.flushed;
            let bytes = bytes.unwrap_or_else(|| {
                panic!("{at}: version {version}, flushed was {flushed}: {:?}", key.versions)
            });
            assert!(found == value(number, version, bytes), "{at}: other bytes");
            counts.unflushed_kept += u64::from(version > key.flushed);
            counts.certain_checked += u64::from(certain);
            key.versions.retain(|&v, _| v <= version);
            key.settle(version);
        }
    }
}

fn explore(seed: u64, counts: &mut Counts) {
    let mut draws = Draws::new(seed);
    let devices = 1 + seed % 2;
    let mut sims: Vec<Arc<Sim>> = (0..devices)
        .map(|n| {
            let bytes = BUCKETS * u64::from(BUCKET);
            Sim::new(&SimOptions::default().seed(seed * 8 + n).bytes(bytes))
        })
        .collect();
    for sim in &sims {
        let options = FormatOptions::default().bucket(BUCKET).block(512);
        format_on(&**sim, &options).expect("formats");
    }
    let policy = [Policy::Fifo, Policy::Random, Policy::Lru][draws.below(3) as usize];
    let mut config = Config::new("sim").policy(policy).cpus(2).streams(1 + seed as usize % 3);
    config = config.reinsert_after((seed / 3 % 4) as u8).lru_sample((seed / 2 % 3) as u32);
    config = config.segment_bytes(2048 << draws.below(4)).space_timeout(Duration::from_secs(20));
    let keys = (0..KEYS).map(|_| Key::default()).collect();
    let mut run = Run { seed, draws, keys, next_version: 1, bytes_written: 0 };
    for life in 0..LIVES {
        let handles = sims.iter().map(|sim| Arc::clone(sim) as Arc<dyn Device>).collect();
        let cache = Cache::open_on(&config, handles).expect("it opens after any power loss");
        if life > 0 {
            // With several devices, the one that lost its power first has failed.
            let roomy = devices == 1 && run.bytes_written < BUCKETS * u64::from(BUCKET) / 4;
            let certain = life == 1 && policy == Policy::Fifo && roomy;
            run.check(&cache, certain, counts);
        }
        counts.lives += 1;
        let at =
            [CutAt::Any, CutAt::Write, CutAt::Flush, CutAt::DurableWrite][run.below(4) as usize];
        let after = run.below(if at == CutAt::Any || at == CutAt::Write { 2_000 } else { 100 });
        sims[run.below(devices) as usize].cut_power(at, after);
        let operations = [300, 2_000, 8_000][(seed % 3) as usize];
        run.live(&cache, operations);
        let stats = cache.stats();
        counts.dead_lists += stats.dead_lists_written;
        counts.reused += u64::from(stats.invalidated > 64);
        counts.reinserted += stats.reinserted;
        sims = sims.iter().map(|sim| sim.power_loss()).collect();
        drop(cache);
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_comes_back_is_right() {
    let first = number("TIERCE_CACHE_CRASH_FIRST", 0);
    let seeds = number("TIERCE_CACHE_CRASH_SEEDS", 200);
    let mut counts = Counts::default();
    for seed in first..first + seeds {
        explore(seed, &mut counts);
    }
    println!("{seeds} seeds from {first}: {counts:?}");
    if seeds >= 50 {
        let Counts {
            hits,
            unflushed_kept,
            removed_checked,
            certain_checked,
            dead_lists,
            reused,
            reinserted,
            ..
        } = counts;
        for count in
            [hits, unflushed_kept, removed_checked, certain_checked, dead_lists, reused, reinserted]
        {
            assert!(count > 0, "something was never met");
        }
    }
}
