//! Bad input, and devices and clocks that are not what they were: one test for each row of the
//! table in the crate's documentation that no other suite has.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use tierce_cache::{Cache, Clock, Config, Error, Put, Recover};
use tierce_core::Policy;
use tierce_io::{Device, Fault, FaultKind, FormatOptions, Operation, Sim, SimOptions, format_on};

const BUCKET: u32 = 16 << 10;

fn formatted_as(seed: u64, bucket: u32) -> Arc<Sim> {
    let sim = Sim::new(&SimOptions::default().seed(seed).bytes(640 * u64::from(bucket)));
    let options = FormatOptions::default().bucket(bucket).block(512);
    format_on(&*sim, &options).expect("a new device");
    sim
}

fn formatted(seed: u64) -> Arc<Sim> {
    formatted_as(seed, BUCKET)
}

fn config() -> Config {
    // FIFO comes to none of these again; LRU hardly knows old from new in so young a cache.
    Config::new("sim").streams(1).cpus(2).policy(Policy::Fifo)
}

fn try_open(sims: &[&Arc<Sim>]) -> Result<Cache, Error> {
    let devices = sims.iter().map(|sim| Arc::clone(sim) as Arc<dyn Device>).collect();
    Cache::open_on(&config(), devices)
}

fn open(sims: &[&Arc<Sim>]) -> Cache {
    try_open(sims).expect("in order")
}

fn get(cache: &Cache, key: &[u8]) -> Option<Vec<u8>> {
    cache.get(key).expect("a get never fails")
}

#[test]
fn a_key_may_fill_a_bucket_and_no_more() {
    let sim = formatted(0);
    let cache = open(&[&sim]);
    let mut refused = None;
    for bytes in 14_000..14_400 {
        let key = vec![7; bytes];
        let largest = cache.value_bytes_max(bytes);
        match cache.insert(&key, &vec![1; largest]) {
            Ok(()) => {
                assert_eq!(refused, None, "a longer key than one that was refused");
                assert!(get(&cache, &key) == Some(vec![1; largest]), "{bytes}");
                let longer = cache.insert(&key, &vec![1; largest + 1]);
                assert!(matches!(longer, Err(Error::TooLarge { .. })), "{bytes}: {longer:?}");
                // So short that pointers to it would be longer.
                cache.insert(&key, b"v").or_else(|_| cache.insert(&key, b"")).expect("shorter");
            }
            Err(Error::TooLarge { bytes: found, largest }) => {
                let longest = *refused.get_or_insert(bytes - 1);
                assert_eq!((found, largest), (bytes as u64, longest as u64));
                assert_eq!(get(&cache, &key), None);
                assert!(!cache.remove(&key).expect("nothing is written"));
            }
            Err(error) => panic!("{bytes}: {error}"),
        }
    }
    assert!(refused.is_some_and(|longest| longest > 14_000), "{refused:?}");
}

#[test]
fn a_key_has_a_byte() {
    let cache = open(&[&formatted(0)]);
    let empty: [Result<(), Error>; 4] = [
        cache.get(b"").map(drop),
        cache.insert(b"", b"value"),
        cache.remove(b"").map(drop),
        cache.contains(b"").map(drop),
    ];
    for result in empty {
        assert!(matches!(result, Err(Error::EmptyKey)), "{result:?}");
    }
    cache.insert(b"\0", b"").expect("room");
    assert_eq!(get(&cache, b"\0").as_deref(), Some(&[][..]));
}

/// Threads insert and remove the same keys; what is there in the end is there after any restart,
/// and after the restart of a restart.
#[test]
fn who_races_ends_somewhere_and_stays_there() {
    const KEYS: u64 = 16;
    let sim = formatted(0);
    let mut ends = (0, 0);
    for round in 0..6 {
        let cache = open(&[&sim]);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let cache = &cache;
                scope.spawn(move || {
                    let mut state = round * 4 + thread + 1;
                    for n in 0..800u64 {
                        // xorshift: any spread will do.
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        let key = (state % KEYS).to_le_bytes();
                        match state >> 32 & 3 {
                            0 => drop(cache.remove(&key).expect("room")),
                            _ => cache
                                .insert(&key, &(thread << 32 | n).to_le_bytes().repeat(100))
                                .expect("room"),
                        }
                    }
                });
            }
        });
        let state = |cache: &Cache| -> Vec<_> {
            (0..KEYS).map(|key| get(cache, &key.to_le_bytes())).collect()
        };
        let before = state(&cache);
        cache.close().expect("closes");
        for recover in [Recover::First, Recover::WaitMeanwhile] {
            let cache = Cache::open_on(&config().recover(recover), vec![sim.clone()]);
            let cache = cache.expect("opens");
            assert!(state(&cache) == before, "round {round}, {recover:?}");
            cache.close().expect("closes");
        }
        let there = before.iter().flatten().count();
        ends = (ends.0 + there, ends.1 + before.len() - there);
    }
    assert!(ends.0 > 10 && ends.1 > 3, "{ends:?} are there, are not");
}

/// No bucket becomes free: who waits is told in time, and what was there stays. When one does, all
/// is well.
#[test]
fn who_finds_no_room_in_time_is_told() {
    let sim = formatted(0);
    let timeout = Duration::from_millis(50);
    let config = config().space_timeout(timeout);
    let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
    cache.insert(b"key", b"old").expect("room");
    sim.inject(Fault::new(FaultKind::Stall, Operation::Flush, 0).for_good());
    let full = (0u32..).find_map(|n| cache.insert(&n.to_le_bytes(), &[7; 14_000]).err());
    assert!(matches!(full, Some(Error::TimedOut { waited_ms: 50 })), "{full:?}");
    let refused = cache.insert(b"key", &[7; 14_000]);
    let (found, failed) = (get(&cache, b"key"), cache.stats().failed_inserts);
    // First, so that the cache can end whatever was found.
    sim.clear_faults();
    sim.resume();
    assert!(matches!(refused, Err(Error::TimedOut { .. })), "{refused:?}");
    assert_eq!((found.as_deref(), failed), (Some(&b"old"[..]), 2));
    while cache.insert(b"key", b"new").is_err() {
        std::thread::yield_now();
    }
    assert_eq!(get(&cache, b"key").as_deref(), Some(&b"new"[..]));
    cache.close().expect("closes");
}

/// One of two devices fails for good: its share are misses, the other goes on; and when it is back
/// at the next start it brings back nothing that is old.
#[test]
fn a_device_that_fails_takes_its_share() {
    let (a, b) = (formatted(1), formatted(2));
    let cache = open(&[&a, &b]);
    let value = |n: u32, version: u8| [n as u8, version].repeat(2000);
    // Until both have made buckets free, and take turns.
    (1000..1800u32).for_each(|n| cache.insert(&n.to_le_bytes(), &value(n, 1)).expect("room"));
    (0..200u32).for_each(|n| cache.insert(&n.to_le_bytes(), &value(n, 1)).expect("room"));
    cache.flush().expect("they work");
    for operation in [Operation::Read, Operation::Write, Operation::Flush] {
        b.inject(Fault::new(FaultKind::Io, operation, 0).for_good());
    }
    let found = |cache: &Cache, version: &dyn Fn(u32) -> u8| {
        let is_there = |n: &u32| match get(cache, &n.to_le_bytes()) {
            None => false,
            Some(found) => {
                assert!(found == value(*n, version(*n)), "{n}: another value");
                true
            }
        };
        (0..200).filter(is_there).count()
    };
    let left = found(&cache, &|_| 1);
    assert!((1..200).contains(&left), "{left} of 200 are on the other");
    // Some are lost with their bucket; from then on all go to the other.
    for n in (0..100u32).chain(0..100) {
        let stored = cache.insert(&n.to_le_bytes(), &value(n, 2));
        stored.expect("the other has room");
    }
    let told = cache.flush().expect_err("some could not be written");
    assert!(told.to_string().contains("sim"), "{told}");
    cache.flush().expect("told once");
    let newest = |n| if n < 100 { 2 } else { 1 };
    (0..100u32).for_each(|n| cache.insert(&n.to_le_bytes(), &value(n, 2)).expect("room"));
    assert!(found(&cache, &newest) >= 100);
    let stats = cache.stats();
    assert!(stats.read_errors > 0, "{stats:?}");
    cache.flush().expect("the other works");
    drop(cache);
    b.clear_faults();
    assert!(found(&open(&[&a, &b]), &newest) >= 100);
}

/// A device fails, all it has is overwritten on the other, and that is reused there in its turn:
/// when the device is back at the next start, nothing of what it has counts.
#[test]
fn what_a_failed_device_missed_does_not_come_back() {
    let (a, b) = (formatted(1), formatted(2));
    let cache = open(&[&a, &b]);
    let fill = |keys: Range<u32>, version: u8| {
        keys.for_each(|n| cache.insert(&n.to_le_bytes(), &[version; 4000]).expect("room"));
    };
    // Until both have made buckets free, and take turns.
    fill(1000..1800, 1);
    fill(0..200, 1);
    cache.flush().expect("they work");
    for operation in [Operation::Read, Operation::Write, Operation::Flush] {
        b.inject(Fault::new(FaultKind::Io, operation, 0).for_good());
    }
    // Twice: some are lost with their bucket.
    fill(0..200, 2);
    fill(0..200, 2);
    let is_there = |cache: &Cache, n: &u32| get(cache, &n.to_le_bytes()).is_some();
    assert_eq!((0..200).filter(|n| is_there(&cache, n)).count(), 200);
    // More than the other device holds.
    fill(2000..6000, 1);
    assert_eq!((0..200).filter(|n| is_there(&cache, n)).count(), 0, "all were reused");
    drop(cache);
    b.clear_faults();
    let cache = open(&[&a, &b]);
    assert_eq!((0..200).filter(|n| is_there(&cache, n)).count(), 0, "they were overwritten");
    assert!((2000..6000).any(|n| is_there(&cache, &n)), "the other has what it had");
}

/// Left out, added, exchanged: never an older value, never what was removed.
#[test]
fn devices_that_come_and_go() {
    let (a, b, c) = (formatted(1), formatted(2), formatted(3));
    let fill = |cache: &Cache, version: u8| {
        for n in 0..100u32 {
            cache.insert(&n.to_le_bytes(), &[version; 3000]).expect("room");
        }
    };
    let found = |cache: &Cache| -> Vec<_> {
        (0..100u32).filter_map(|n| get(cache, &n.to_le_bytes())).map(|value| value[0]).collect()
    };
    let cache = open(&[&a, &b]);
    fill(&cache, 1);
    fill(&cache, 2);
    cache.close().expect("closes");
    assert_eq!(found(&open(&[&b, &a])), [2; 100], "in another order");
    // A third one, which belonged to another cache.
    let other = open(&[&c]);
    fill(&other, 9);
    other.close().expect("closes");
    let cache = open(&[&a, &b, &c]);
    assert_eq!(found(&cache), [2; 100], "nothing of the other cache");
    cache.close().expect("closes");
    // Without one: some of the newest are not here, so nothing is.
    let cache = open(&[&a, &c]);
    assert_eq!(found(&cache), []);
    fill(&cache, 3);
    cache.close().expect("closes");
    let cache = open(&[&a, &b, &c]);
    assert_eq!(found(&cache), [3; 100], "nothing of the one that was left out");
    cache.close().expect("closes");
    assert_eq!(found(&open(&[&a, &b, &c])), [3; 100], "also at the next start");
    // A device in a new one's stead.
    let d = formatted(4);
    assert_eq!(found(&open(&[&d, &b, &c])), []);
    // One that is a copy of itself some time ago.
    let cache = open(&[&d, &b, &c]);
    fill(&cache, 4);
    cache.close().expect("closes");
    let copy = b.power_loss();
    let e = formatted(5);
    let copy_of_others = (c.power_loss(), d.power_loss());
    let cache = open(&[&copy_of_others.1, &copy, &copy_of_others.0, &e]);
    assert_eq!(found(&cache), [4; 100]);
    cache.close().expect("closes");
}

#[test]
fn devices_that_do_not_fit() {
    let (a, b) = (formatted(1), formatted_as(2, 32 << 10));
    let refused = try_open(&[&a, &b]).expect_err("other buckets");
    assert!(matches!(refused, Error::Geometry { found: (32_768, 512), .. }), "{refused}");
    let twice = try_open(&[&a, &a]).expect_err("one device");
    assert!(matches!(twice, Error::Twice { .. }), "{twice}");
    let copy = a.power_loss();
    let b = formatted_as(3, 8 << 10);
    let small = try_open(&[&copy, &b]).expect_err("small buckets");
    assert!(matches!(small, Error::Geometry { .. }), "{small}");
    let small = try_open(&[&b, &formatted_as(4, 8 << 10)]).expect_err("small buckets");
    assert!(matches!(small, Error::SmallBuckets { .. }), "{small}");
    let none = try_open(&[]).expect_err("no device");
    assert!(none.to_string().contains("0 devices"), "{none}");
    let cache = open(&[&copy]);
    cache.insert(b"key", b"value").expect("and that one is as it was");
}

/// A device that holds another bucket size than it did, or is shorter, is not the same.
#[test]
fn a_device_that_was_formatted_anew_or_cut_off() {
    let sim = formatted(1);
    let cache = open(&[&sim]);
    cache.insert_durable(b"key", b"value").expect("room");
    cache.close().expect("closes");
    let options = FormatOptions::default().bucket(BUCKET / 2).block(512).force(true);
    format_on(&*sim, &options).expect("by force");
    let cache = open(&[&sim]);
    assert_eq!(get(&cache, b"key"), None);
    cache.insert(b"key", b"new").expect("room");
    cache.close().expect("closes");
    assert_eq!(get(&open(&[&sim]), b"key").as_deref(), Some(&b"new"[..]));
}

/// The clock goes on, jumps, is set back, and to before 1970, with a restart or without one.
#[test]
fn entries_end_by_the_clock() {
    let now = Arc::new(AtomicU64::new(1_000_000));
    let hand = Arc::clone(&now);
    // Relaxed, here and below: a number.
    let clock = Clock::new(move || match hand.load(Ordering::Relaxed) {
        0 => UNIX_EPOCH - Duration::from_secs(1),
        second => UNIX_EPOCH + Duration::from_secs(second),
    });
    let config = config().clock(clock).memory_bytes(1 << 20);
    let sim = formatted(1);
    let open = || Cache::open_on(&config, vec![sim.clone()]).expect("opens");
    let mut cache = open();
    let put = |seconds| Put::new().ttl(Duration::from_secs(seconds));
    cache.insert_with(b"hour", b"1", &put(3600)).expect("room");
    cache.insert_with(b"ever", b"2", &put(u64::MAX / 1000)).expect("room");
    cache.insert_with(b"never", b"3", &put(0)).expect("room");
    let is_there = |cache: &Cache, second: u64| {
        now.store(second, Ordering::Relaxed);
        [&b"hour"[..], b"ever", b"never"].map(|key| get(cache, key).is_some())
    };
    for restarted in [false, true] {
        if restarted {
            cache.close().expect("closes");
            cache = open();
        }
        assert_eq!(is_there(&cache, 1_000_000), [true, true, false]);
        assert_eq!(is_there(&cache, 1_003_599), [true, true, false]);
        assert_eq!(is_there(&cache, 1_003_600), [false, true, false], "its time is over");
        assert_eq!(is_there(&cache, 9_000_000), [false, true, false], "forwards");
        assert_eq!(is_there(&cache, 1_000_001), [true, true, false], "backwards");
        assert_eq!(is_there(&cache, 999_999), [true, true, true], "before it was stored");
        assert_eq!(is_there(&cache, 0), [true, true, true], "before 1970");
    }
    assert_eq!(cache.stats().expired, 8 - 1, "of this run");
    cache.insert_with(b"hour", b"4", &put(3600)).expect("before 1970, too");
    assert_eq!(is_there(&cache, 3_599), [true, true, true]);
    assert_eq!(is_there(&cache, 3_600), [false, true, true]);
    // An expired value that is overwritten or removed does not come back with the time.
    assert!(cache.remove(b"hour").expect("it is still stored"));
    assert_eq!(is_there(&cache, 1), [false, true, true]);
}

/// Who fills waits for room no longer than who inserts, and not for himself at all.
#[test]
fn a_fill_does_not_wait_for_ever() {
    let sim = formatted(0);
    let config = config().space_timeout(Duration::from_millis(20)).write_buffer_bytes(1);
    let cache = Cache::open_on(&config, vec![sim.clone() as Arc<dyn Device>]).expect("in order");
    let value = vec![7; 14_000];
    let filled = || Ok::<_, Error>(value.clone());
    let itself = cache.get_with(b"key", || cache.get_with(b"key", filled));
    assert!(matches!(itself, Err(Error::FillsItself)), "{itself:?}");
    let other = cache.get_with(b"key", || cache.get_with(b"other", filled));
    assert_eq!(other.expect("room"), value);
    assert!(get(&cache, b"key").is_some() && get(&cache, b"other").is_some());

    sim.inject(Fault::new(FaultKind::Stall, Operation::Write, 0).for_good());
    let mut keys = 0_u32..;
    let mut full = || {
        let key = keys.next().expect("one more").to_le_bytes();
        matches!(cache.insert(&key, &value), Err(Error::TimedOut { .. }))
    };
    while !full() {}
    let late = cache.get_with(b"late", filled);
    sim.clear_faults();
    sim.resume();
    assert!(matches!(late, Err(Error::TimedOut { .. })), "{:?}", late.map(|value| value.len()));
    assert_eq!(cache.get_with(b"late", filled).expect("room again"), value);
}
