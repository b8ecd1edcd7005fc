//! A cache that is used while it comes back: what is found is what will be found when all is known,
//! nobody writes before, and it ends whenever it is told to.
//!
//! Reads of the simulated device are made to hang, so that the recovery stands still while it is
//! looked at, wherever that is.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tierce_cache::{Cache, Config, Error, Put, Recover, WhenFull};
use tierce_core::Policy;
use tierce_core::draws::Draws;
use tierce_io::{Fault, FaultKind, FormatOptions, Operation, Sim, SimOptions, format_on};

const BUCKET: u64 = 16 << 10;
const BUCKETS: u64 = 640;
const KEYS: u64 = 300;
/// Reads before the cache is open, at most, and until all is known, about.
const OPENING: u64 = 150;
const READS: u64 = 1200;

fn config() -> Config {
    // FIFO comes to none of these again; LRU hardly knows old from new in so young a cache.
    Config::new("sim").streams(2).cpus(2).policy(Policy::Fifo)
}

fn open(sim: &Arc<Sim>, config: &Config) -> Cache {
    Cache::open_on(config, vec![sim.clone()]).expect("what is known at once is in order")
}

fn name(key: u64) -> [u8; 8] {
    key.to_le_bytes()
}

fn value(key: u64, version: u64) -> Vec<u8> {
    let bytes = 16 + (key * 31 + version * 97) % 4000;
    (0..bytes).map(|at| (at * 7 + key * 13 + version * 31) as u8).collect()
}

/// What every key has at last, `None`: it was removed.
type Model = HashMap<u64, Option<Vec<u8>>>;

/// A device with more than a thousand records, written by a fast stream and a slow one.
fn filled(seed: u64) -> (Arc<Sim>, Model) {
    let sim = Sim::new(&SimOptions::default().seed(seed).bytes(BUCKETS * BUCKET));
    let options = FormatOptions::default().bucket(BUCKET as u32).block(512);
    format_on(&*sim, &options).expect("a new device");
    let cache = open(&sim, &config());
    let (mut draws, mut model) = (Draws::new(seed), Model::new());
    for version in 1..1200 {
        let key = u64::from(draws.below(KEYS as u32));
        if draws.below(6) == 0 {
            cache.remove(&name(key)).expect("room");
            model.insert(key, None);
        } else {
            let put = Put::new().write_point(u64::from(draws.below(20) == 0));
            let value = value(key, version);
            cache.insert_with(&name(key), &value, &put).expect("room");
            model.insert(key, Some(value));
        }
    }
    cache.close().expect("closes");
    (sim, model)
}

/// The read that comes after so many others hangs.
fn hang(sim: &Sim, after: u64) {
    sim.inject(Fault::new(FaultKind::Stall, Operation::Read, after));
}

/// Whatever was found, the cache can end: dropped before it.
struct Resume<'a>(&'a Sim);

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        self.0.clear_faults();
        self.0.resume();
    }
}

fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Of what waits for nothing but the device and a free bucket.
fn end<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> T {
    loop {
        match poll(future.as_mut()) {
            Some(output) => return output,
            None => std::thread::yield_now(),
        }
    }
}

/// Until the recovery hangs, or is over.
fn until_it_hangs(sim: &Sim, cache: &Cache) -> bool {
    let mut over = pin!(cache.recovered_async());
    loop {
        if sim.stalled() > 0 {
            return true;
        }
        if poll(over.as_mut()).is_some() {
            return false;
        }
        std::thread::yield_now();
    }
}

/// Wherever the recovery is, what is found by then is the newest, what was removed is gone, and
/// nothing is taken back.
#[test]
fn what_is_found_meanwhile_is_what_is_there() {
    let (mut early, mut gone_early, mut late, mut places) = (0, 0, 0, 0);
    for seed in 0..3 {
        let (sim, model) = filled(seed);
        for after in (OPENING + seed * 17..READS).step_by(53) {
            hang(&sim, after);
            let cache = open_meanwhile(&sim);
            let _resume = Resume(&sim);
            let hung = until_it_hangs(&sim, &cache);
            if !hung {
                sim.clear_faults(); // no get is to hang
            }
            places += u64::from(hung);
            for (&key, newest) in &model {
                let unknown = cache.stats().misses_recovering;
                let found = cache.get(&name(key)).expect("a get never fails");
                let is_unknown = cache.stats().misses_recovering > unknown;
                let at = format!("seed {seed}, after {after}, key {key}");
                match (found, is_unknown) {
                    (Some(found), _) => assert!(Some(&found) == newest.as_ref(), "{at}: old"),
                    (None, false) => assert!(newest.is_none(), "{at}: not there"),
                    (None, true) => {}
                }
                assert!(hung || !is_unknown, "{at}: all is known");
                early += u64::from(hung && !is_unknown && newest.is_some());
                gone_early += u64::from(hung && !is_unknown && newest.is_none());
                late += u64::from(hung && is_unknown);
            }
            sim.clear_faults();
            sim.resume();
            cache.recovered().expect("the device works");
            for (&key, newest) in &model {
                assert!(cache.get(&name(key)).expect("a get never fails") == *newest, "{key}");
            }
            cache.close().expect("closes");
        }
    }
    println!("{places} places: {early} values and {gone_early} removed keys known, {late} not");
    assert!(places > 30 && early > 1000 && gone_early > 100 && late > 1000);
}

fn open_meanwhile(sim: &Arc<Sim>) -> Cache {
    open(sim, &config().recover(Recover::MissMeanwhile))
}

/// Nobody writes before all is known, blocking or not, and nothing is written.
#[test]
fn who_writes_waits() {
    let (sim, model) = filled(7);
    hang(&sim, 900);
    let timeout = Duration::from_millis(20);
    let waits = config().recover(Recover::MissMeanwhile).space_timeout(timeout);
    let cache = open(&sim, &waits);
    let _resume = Resume(&sim);
    assert!(until_it_hangs(&sim, &cache));
    let operations = sim.operations();
    let stats = cache.stats();
    assert!(0 < stats.recovered_buckets && stats.recovered_buckets < stats.recovery_buckets);
    assert!(stats.nbuckets == BUCKETS && stats.invalidated == 0, "{stats:?}");

    let largest = cache.value_bytes_max(8);
    let refused = cache.insert(&name(1), &vec![0; largest + 1]);
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "at once: {refused:?}");
    assert!(matches!(cache.remove(b""), Err(Error::EmptyKey)));
    let put = Put::new();
    let (one, two) = (name(1), name(2));
    let mut insert = pin!(cache.insert_async(&one, b"new", &put));
    let mut remove = pin!(cache.remove_async(&two));
    let mut flush = pin!(cache.flush_async());
    for _ in 0..10 {
        assert!(poll(insert.as_mut()).is_none() && poll(remove.as_mut()).is_none());
        assert!(poll(flush.as_mut()).is_none());
    }
    let timed_out = cache.insert(&name(3), b"new");
    assert!(matches!(timed_out, Err(Error::Recovering { .. })), "{timed_out:?}");
    let filled =
        pin!(cache.get_with_async(b"not there".as_slice(), async || {
            Ok::<_, Error>(b"filled".to_vec())
        }));
    let mut filled = filled;
    assert!(poll(filled.as_mut()).is_none());
    assert_eq!(sim.operations(), operations, "nothing was written");

    sim.resume();
    cache.recovered().expect("the device works");
    assert!(end(insert.as_mut()).is_ok());
    assert!(end(filled.as_mut()).expect("filled") == b"filled");
    assert_eq!(end(remove.as_mut()).expect("room"), model[&2].is_some());
    end(flush.as_mut()).expect("the device works");
    assert_eq!(cache.get(&one).expect("readable").as_deref(), Some(&b"new"[..]));
    assert_eq!(cache.get(&two).expect("readable"), None);
    let stats = cache.stats();
    assert_eq!(stats.recovered_buckets, stats.recovery_buckets);
    assert_eq!((stats.inserts, stats.failed_inserts), (2, 2), "{stats:?}");
}

/// Told not to wait, writers are told how far it is.
#[test]
fn who_does_not_wait_is_told() {
    let (sim, _) = filled(8);
    hang(&sim, 900);
    let config = config().recover(Recover::MissMeanwhile).when_full(WhenFull::Fail);
    let cache = open(&sim, &config);
    let _resume = Resume(&sim);
    assert!(until_it_hangs(&sim, &cache));
    let filled =
        cache.get_with(&b"not there"[..], || -> Result<_, Error> { panic!("for nothing") });
    for refused in [
        cache.insert(&name(1), b"new"),
        cache.remove(&name(1)).map(drop),
        cache.flush(),
        filled.map(drop),
    ] {
        let Err(Error::Recovering { known, buckets }) = refused else { panic!("{refused:?}") };
        assert!(known < buckets, "{known} of {buckets}");
    }
    sim.resume();
    cache.recovered().expect("the device works");
    // Until a bucket is free.
    while matches!(cache.insert(&name(1), b"new"), Err(Error::Full)) {
        std::thread::yield_now();
    }
    assert!(cache.contains(&name(1)).expect("a key"));
    cache.close().expect("closes");
}

/// A get that is to wait does, until its key is known, and no longer.
#[test]
fn gets_wait_if_they_are_to() {
    let (sim, model) = filled(9);
    hang(&sim, 900);
    let cache = open(&sim, &config().recover(Recover::WaitMeanwhile));
    let _resume = Resume(&sim);
    assert!(until_it_hangs(&sim, &cache));
    let names: Vec<_> = model.keys().map(|&key| (name(key), &model[&key])).collect();
    let mut known = 0;
    let mut waiting = Vec::new();
    for (name, newest) in &names {
        let mut get = Box::pin(cache.get_async(name.as_slice()));
        match poll(get.as_mut()) {
            Some(found) => {
                assert!(found.expect("a get never fails") == **newest);
                known += 1;
            }
            None => waiting.push((get, newest)),
        }
    }
    assert!(known > 10 && waiting.len() > 10, "{known}, {}", waiting.len());
    sim.resume();
    cache.recovered().expect("the device works");
    for (mut get, newest) in waiting {
        assert!(poll(get.as_mut()).expect("it is known").expect("readable") == **newest);
    }
    assert_eq!(cache.stats().misses_recovering, 0);
}

/// Closed or dropped in the middle, whatever it is doing, nothing is lost.
#[test]
fn it_ends_when_it_is_told_to() {
    let (sim, model) = filled(10);
    for after in (OPENING..1000).step_by(90) {
        hang(&sim, after);
        let cache = open_meanwhile(&sim);
        until_it_hangs(&sim, &cache);
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| match after % 180 {
                0 => cache.close().expect("nothing went wrong"),
                _ => drop(cache),
            });
            while !ending.is_finished() {
                sim.resume();
                std::thread::yield_now();
            }
        });
        sim.clear_faults();
    }
    // And wherever it is, if nothing hangs.
    for _ in 0..10 {
        drop(open_meanwhile(&sim));
    }
    let cache = open(&sim, &config());
    for (&key, newest) in &model {
        assert!(cache.get(&name(key)).expect("a get never fails") == *newest, "{key}");
    }
}

/// A bucket that cannot be read might have held anything: whatever was found before, nothing is
/// there any more, for good, and the cache is of use.
#[test]
fn a_bucket_that_cannot_be_read_leaves_the_cache_cold() {
    for after in [300, 900] {
        let (sim, model) = filled(11);
        let (sim, at) = (&sim, format!("after {after}"));
        sim.inject(Fault::new(FaultKind::Io, Operation::Read, after));
        let cache = open_meanwhile(sim);
        cache.recovered().expect("it starts empty");
        sim.clear_faults();
        for &key in model.keys() {
            assert_eq!(cache.get(&name(key)).expect("a get never fails"), None, "{at}");
        }
        cache.insert(b"new", b"value").expect("room");
        cache.close().expect("closes");
        let cache = open(sim, &config());
        assert_eq!(cache.get(b"new").expect("readable").as_deref(), Some(&b"value"[..]), "{at}");
        assert_eq!(cache.stats().entries, 1, "{at}: it stays so");
    }
}

/// If not even that can be noted, the cache is of no use and says why to everybody who wants more
/// than a miss.
#[test]
fn a_device_that_fails_is_told() {
    let (sim, model) = filled(12);
    hang(&sim, 300);
    let cache = open_meanwhile(&sim);
    let _resume = Resume(&sim);
    assert!(until_it_hangs(&sim, &cache));
    sim.inject(Fault::new(FaultKind::Io, Operation::Read, 0).for_good());
    sim.inject(Fault::new(FaultKind::Io, Operation::Write, 0).for_good());
    sim.resume();
    let failed = cache.recovered().expect_err("the device failed");
    assert!(failed.to_string().contains("failed"), "{failed}");
    for &key in model.keys() {
        assert_eq!(cache.get(&name(key)).expect("a get never fails"), None);
    }
    let stats = cache.stats();
    assert_eq!(stats.misses_recovering, model.len() as u64, "{stats:?}");
    for error in [cache.insert(b"new", b"value"), cache.remove(b"new").map(drop), cache.flush()] {
        let error = error.expect_err("the device failed");
        assert_eq!(error.to_string(), failed.to_string());
    }
    let error = cache.close().expect_err("the device failed");
    assert_eq!(error.to_string(), failed.to_string());
}

/// A task that is dropped when it is woken, and with it the last handle of the cache.
struct Last(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>, Sender<String>);

impl Wake for Last {
    fn wake(self: Arc<Self>) {
        let task = self.0.lock().expect("no panic under it").take();
        drop(task);
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.1.send(thread).expect("the test waits for it");
    }
}

/// Early, and late.
#[test]
fn the_last_handle_may_be_dropped_on_the_own_thread_of_the_recovery() {
    for before in [OPENING, 900] {
        let (sim, _) = filled(7);
        hang(&sim, before);
        let _resume = Resume(&sim);
        let cache = Arc::new(open_meanwhile(&sim));
        assert!(until_it_hangs(&sim, &cache), "so many reads");
        let (dropped, told) = channel();
        let task = Box::pin(async move { drop(cache.recovered_async().await) });
        let last = Arc::new(Last(Mutex::new(Some(task)), dropped));
        let waker = Waker::from(Arc::clone(&last));
        let mut task = last.0.lock().expect("no panic under it");
        let poll = task.as_mut().map(|task| task.as_mut().poll(&mut Context::from_waker(&waker)));
        assert_eq!(poll, Some(Poll::Pending), "it hangs");
        drop(task);
        sim.clear_faults();
        sim.resume();
        // Less than who waits for the recovery waits.
        let thread = told.recv_timeout(Duration::from_secs(10)).expect("the waker came back");
        assert_eq!(thread, "tierce-recover");
    }
}
