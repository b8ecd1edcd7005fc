//! Power losses on simulated devices: whatever comes back is a value that its key had, no older
//! than what the last flush made durable; nothing that was removed durably comes back, in however
//! many lives; what was flushed is there as long as its bucket is, and nothing after its time.
//!
//! Every seed draws settings: policy, reinsertion, memory for copies, sizes of writes; and what the
//! cache does while it comes back. If it is open meanwhile, a read hangs, what is found by then is
//! looked at, and either the power goes again, or all of it must be found when it is back. The clock
//! by which entries expire goes on and jumps as it is told to.
//!
//! What may come back is kept here, apart from the cache. `TIERCE_CACHE_CRASH_SEEDS` sets how many
//! seeds are tried, `TIERCE_CACHE_CRASH_FIRST` the first one. Odd seeds have two devices, of which one
//! loses its power first.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, UNIX_EPOCH};
use tierce_cache::{Cache, Clock, Config, Put, Recover};
use tierce_core::Policy;
use tierce_core::draws::Draws;
use tierce_io::{
    CutAt, Device, Fault, FaultKind, FormatOptions, Operation, Sim, SimOptions, format_on,
};

const BUCKET: u32 = 16 << 10;
const BUCKETS: u64 = 640;
const KEYS: u64 = 60;
const LIVES: u64 = 5;

/// What a key may be found as: its versions from the last durable one on, `None` for removed.
#[derive(Default)]
struct Key {
    /// The version that the last flush covered.
    flushed: u64,
    /// All from `flushed` on.
    versions: BTreeMap<u64, Option<Stored>>,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    /// Of its value.
    bytes: usize,
    /// The second from which on it is not there.
    end: u64,
}

impl Key {
    fn newest(&self) -> (u64, Option<Stored>) {
        self.versions.last_key_value().map_or((0, None), |(&version, &stored)| (version, stored))
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

/// The second that it is, for a test.
#[derive(Clone, Default)]
struct Second(Arc<AtomicU64>);

impl Second {
    fn get(&self) -> u64 {
        // Relaxed: a number.
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, second: u64) {
        // Relaxed: as above.
        self.0.store(second, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let second = self.clone();
        Clock::new(move || UNIX_EPOCH + Duration::from_secs(second.get()))
    }
}

struct Run {
    seed: u64,
    draws: Draws,
    keys: Vec<Key>,
    next_version: u64,
    second: Second,
    /// So much may be written in the first life that no bucket with data is reused.
    bytes_written: u64,
    counts: Counts,
}

#[derive(Default, Debug)]
struct Counts {
    lives: u64,
    policies: [u64; 3],
    sampled: u64,
    hits: u64,
    misses: u64,
    unflushed_kept: u64,
    removed_checked: u64,
    certain_checked: u64,
    durable_inserts: u64,
    durable_removes: u64,
    expired: u64,
    clock_jumps_back: u64,
    dead_lists: u64,
    reused: u64,
    reinserted: u64,
    memory_hits: u64,
    /// Openings by what the cache does meanwhile.
    recoveries: [u64; 3],
    hung: u64,
    known_early: u64,
    unknown_early: u64,
    cut_recovering: u64,
}

impl Counts {
    /// All of them must have been met.
    fn all(&self) -> Vec<(&'static str, u64)> {
        let Self { policies: [lru, fifo, random], recoveries: [first, miss, wait], .. } = *self;
        vec![
            ("lives", self.lives),
            ("fifo", fifo),
            ("random", random),
            ("lru", lru),
            ("sampled", self.sampled),
            ("hits", self.hits),
            ("misses", self.misses),
            ("unflushed_kept", self.unflushed_kept),
            ("removed_checked", self.removed_checked),
            ("certain_checked", self.certain_checked),
            ("durable_inserts", self.durable_inserts),
            ("durable_removes", self.durable_removes),
            ("expired", self.expired),
            ("clock_jumps_back", self.clock_jumps_back),
            ("dead_lists", self.dead_lists),
            ("reused", self.reused),
            ("reinserted", self.reinserted),
            ("memory_hits", self.memory_hits),
            ("recovered first", first),
            ("gets missed meanwhile", miss),
            ("gets waited meanwhile", wait),
            ("hung", self.hung),
            ("known_early", self.known_early),
            ("unknown_early", self.unknown_early),
            ("cut_recovering", self.cut_recovering),
        ]
    }
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
            if self.below(100) == 0 {
                let passed = self.below(20);
                self.second.set(self.second.get() + passed);
            }
            let key = self.below(KEYS);
            let done = match self.below(20) {
                0 => self.flush(cache),
                1..=3 => self.remove(cache, key),
                4..=6 => {
                    let found = cache.get(&key.to_le_bytes()).expect("a get never fails");
                    let (version, stored) = self.keys[key as usize].newest();
                    let stored = stored.filter(|stored| stored.end > self.second.get());
                    if let Some(found) = found {
                        let expected = stored.map(|stored| value(key, version, stored.bytes));
                        let at = format!("seed {}, key {key}", self.seed);
                        let (versions, now) =
                            (&self.keys[key as usize].versions, self.second.get());
                        assert!(Some(found) == expected, "{at} at {now}: {versions:?}");
                    }
                    true
                }
                _ => self.insert(cache, key),
            };
            if !done {
                return;
            }
        }
    }

    fn version(&mut self, key: u64, stored: Option<Stored>) -> u64 {
        let version = self.next_version;
        self.next_version += 1;
        self.keys[key as usize].versions.insert(version, stored);
        version
    }

    fn remove(&mut self, cache: &Cache, key: u64) -> bool {
        let (name, version) = (key.to_le_bytes(), self.version(key, None));
        if self.below(8) > 0 {
            return cache.remove(&name).is_ok();
        }
        let done = cache.remove_durable(&name).is_ok();
        if done {
            self.keys[key as usize].settle(version);
            self.counts.durable_removes += 1;
        }
        done
    }

    fn insert(&mut self, cache: &Cache, key: u64) -> bool {
        let (name, bytes) = (key.to_le_bytes(), self.bytes());
        self.bytes_written += bytes as u64 + 200;
        let ttl = (self.below(5) == 0).then(|| self.below(60));
        let end = ttl.map_or(u64::MAX, |ttl| self.second.get() + ttl);
        let version = self.version(key, Some(Stored { bytes, end }));
        let value = value(key, version, bytes);
        if let Some(ttl) = ttl {
            let put = Put::new().ttl(Duration::from_secs(ttl));
            return cache.insert_with(&name, &value, &put).is_ok();
        }
        if self.below(20) > 0 {
            return cache.insert(&name, &value).is_ok();
        }
        let done = cache.insert_durable(&name, &value).is_ok();
        if done {
            self.keys[key as usize].settle(version);
            self.counts.durable_inserts += 1;
        }
        done
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
    fn check(&mut self, cache: &Cache, certain: bool) {
        for number in 0..KEYS {
            let before = cache.stats();
            let found = cache.get(&number.to_le_bytes()).expect("a get never fails");
            let at = format!("seed {}, life {}, key {number}", self.seed, self.counts.lives);
            if let Some(found) = found {
                self.counts.certain_checked += u64::from(certain);
                self.came_back(number, &found, &at);
                continue;
            }
            let after = cache.stats();
            let key = &self.keys[number as usize];
            self.counts.misses += 1;
            self.counts.expired += after.expired - before.expired;
            let only = key.versions.len() == 1 && key.flushed == key.newest().0;
            let stored = key.newest().1;
            let in_time = stored.is_some_and(|stored| stored.end > self.second.get());
            if only && in_time && certain {
                assert!(after.stale > before.stale, "{at}: it was durable, its bucket not reused");
                self.counts.certain_checked += 1;
            }
            self.counts.removed_checked += u64::from(only && stored.is_none());
        }
    }

    /// A value was found after a power loss: that is what its key has now.
    fn came_back(&mut self, number: u64, found: &[u8], at: &str) {
        let key = &mut self.keys[number as usize];
        self.counts.hits += 1;
        assert!(found.len() >= 16, "{at}: {} bytes", found.len());
        let word = |at: usize| {
            found[at..at + 8].iter().rev().fold(0u64, |word, &b| word << 8 | u64::from(b))
        };
        let (of, version) = (word(0), word(8));
        assert_eq!(of, number, "{at}: another key's value");
        let flushed = key.flushed;
        let Some(stored) = key.versions.get(&version).copied().flatten() else {
            panic!("{at}: version {version}, flushed was {flushed}: {:?}", key.versions)
        };
        assert!(found == value(number, version, stored.bytes), "{at}: other bytes");
        assert!(stored.end > self.second.get(), "{at}: its time is over: {stored:?}");
        self.counts.unflushed_kept += u64::from(version > key.flushed);
        key.versions.retain(|&v, _| v <= version);
        key.settle(version);
    }

    /// Looks at a cache whose recovery hangs: what it knows by then is what it has. False if the
    /// power goes again.
    fn meanwhile(&mut self, cache: &Cache, sims: &[Arc<Sim>]) -> bool {
        let mut over = pin!(cache.recovered_async());
        let mut context = Context::from_waker(Waker::noop());
        let hung = loop {
            if sims.iter().any(|sim| sim.stalled() > 0) {
                break true;
            }
            if over.as_mut().poll(&mut context).is_ready() {
                break false;
            }
            std::thread::yield_now();
        };
        if hung {
            self.counts.hung += 1;
            for number in 0..KEYS {
                let unknown = cache.stats().misses_recovering;
                let found = cache.get(&number.to_le_bytes()).expect("a get never fails");
                let at = format!("seed {}, life {}, key {number}", self.seed, self.counts.lives);
                self.counts.unknown_early += cache.stats().misses_recovering - unknown;
                if let Some(found) = found {
                    self.came_back(number, &found, &at);
                    self.counts.known_early += 1;
                }
            }
        }
        sims.iter().for_each(|sim| sim.clear_faults());
        if hung && self.below(3) == 0 {
            self.counts.cut_recovering += 1;
            return false;
        }
        sims.iter().for_each(|sim| sim.resume());
        true
    }
}

/// Whatever was found, the cache can end: dropped before it.
struct Resume<'a>(&'a [Arc<Sim>]);

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|sim| sim.clear_faults());
        self.0.iter().for_each(|sim| sim.resume());
    }
}

fn formatted(seed: u64) -> Vec<Arc<Sim>> {
    let new = |n| {
        let bytes = BUCKETS * u64::from(BUCKET);
        let sim = Sim::new(&SimOptions::default().seed(seed * 8 + n).bytes(bytes));
        let options = FormatOptions::default().bucket(BUCKET).block(512);
        format_on(&*sim, &options).expect("formats");
        sim
    };
    (0..1 + seed % 2).map(new).collect()
}

fn settings(seed: u64, draws: &mut Draws) -> (Config, Policy, u32) {
    let policy = [Policy::Fifo, Policy::Random, Policy::Lru][draws.below(3) as usize];
    let sample = (seed / 2 % 3) as u32;
    let config = Config::new("sim")
        .policy(policy)
        .cpus(2)
        .streams(1 + seed as usize % 3)
        .reinsert_after((seed / 3 % 4) as u8)
        .lru_sample(sample)
        .segment_bytes(2048 << draws.below(4))
        .memory_bytes([0, 32 << 10, 1 << 20][draws.below(3) as usize])
        .space_timeout(Duration::from_secs(20));
    (config, policy, sample)
}

fn explore(seed: u64, counts: Counts) -> Counts {
    let mut draws = Draws::new(seed);
    let mut sims = formatted(seed);
    let devices = sims.len() as u64;
    let (config, policy, sample) = settings(seed, &mut draws);
    let keys = (0..KEYS).map(|_| Key::default()).collect();
    let second = Second::default();
    second.set(1000);
    let config = config.clock(second.clock());
    let mut run = Run { seed, draws, keys, next_version: 1, second, bytes_written: 0, counts };
    run.counts.policies[policy as usize] += 1;
    run.counts.sampled += u64::from(policy == Policy::Lru && sample > 0);
    for life in 0..LIVES {
        if run.below(6) == 0 {
            run.second.set(run.second.get() - 30);
            run.counts.clock_jumps_back += 1;
        }
        let meanwhile = run.below(3);
        let recover = [Recover::First, Recover::MissMeanwhile, Recover::WaitMeanwhile];
        if meanwhile == 1 {
            let after = 200 + run.below(1800);
            let hang = Fault::new(FaultKind::Stall, Operation::Read, after);
            sims[run.below(devices) as usize].inject(hang);
        }
        run.counts.recoveries[meanwhile as usize] += 1;
        let handles = sims.iter().map(|sim| Arc::clone(sim) as Arc<dyn Device>).collect();
        let config = config.clone().recover(recover[meanwhile as usize]);
        let cache = Cache::open_on(&config, handles).expect("it opens after any power loss");
        run.counts.lives += 1;
        let resume = Resume(&sims);
        if meanwhile != 1 || run.meanwhile(&cache, &sims) {
            // With several devices, the one that lost its power first has failed.
            let roomy = devices == 1 && run.bytes_written < BUCKETS * u64::from(BUCKET) / 4;
            let certain = life == 1 && policy == Policy::Fifo && roomy;
            if meanwhile == 1 {
                cache.recovered().expect("the devices work");
            }
            if life > 0 {
                run.check(&cache, certain);
            }
            cache.recovered().expect("the devices work");
            work(&mut run, &cache, &sims);
        }
        let after = sims.iter().map(|sim| sim.power_loss()).collect();
        drop(resume);
        drop(cache);
        sims = after;
    }
    run.counts
}

/// Until the power goes.
fn work(run: &mut Run, cache: &Cache, sims: &[Arc<Sim>]) {
    let at = [CutAt::Any, CutAt::Write, CutAt::Flush, CutAt::DurableWrite][run.below(4) as usize];
    let after = run.below(if at == CutAt::Any || at == CutAt::Write { 2_000 } else { 100 });
    sims[run.below(sims.len() as u64) as usize].cut_power(at, after);
    let operations = [300, 2_000, 8_000][(run.seed % 3) as usize];
    run.live(cache, operations);
    let stats = cache.stats();
    run.counts.dead_lists += stats.dead_lists_written;
    run.counts.reused += u64::from(stats.invalidated > 64);
    run.counts.reinserted += stats.reinserted;
    run.counts.memory_hits += stats.memory_hits;
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
        counts = explore(seed, counts);
    }
    println!("{seeds} seeds from {first}: {counts:?}");
    for (what, count) in counts.all().into_iter().filter(|_| seeds >= 50) {
        assert!(count > 0, "never met: {what}");
    }
}
