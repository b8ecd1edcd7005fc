//! Copies in memory: what is read often is not read from the device, nothing old is ever served
//! however threads race, and a get from memory is a use of the bucket as any other.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tierce_cache::{Cache, Config, Error, Put};
use tierce_core::Policy;
use tierce_io::{Fault, FaultKind, FormatOptions, Operation, Sim, SimOptions};

const BUCKET: u32 = 16 << 10;

fn formatted(bytes: u64) -> Arc<Sim> {
    let sim = Sim::new(&SimOptions::default().bytes(bytes));
    let options = FormatOptions::default().bucket(BUCKET).block(512);
    tierce_io::format_on(&*sim, &options).expect("a new device");
    sim
}

/// Exact, and nothing is read to be written anew.
fn open(sim: &Arc<Sim>, policy: Policy, memory_bytes: usize) -> Cache {
    open_with(sim, Config::new("sim").policy(policy).lru_sample(0), memory_bytes)
}

/// Empty buckets go first, which exact LRU does not promise: few rescales leave many buckets alike.
fn open_keeping(sim: &Arc<Sim>, memory_bytes: usize) -> Cache {
    open_with(sim, Config::new("sim"), memory_bytes)
}

fn open_with(sim: &Arc<Sim>, config: Config, memory_bytes: usize) -> Cache {
    let config = config.reinsert_after(0).cpus(2).memory_bytes(memory_bytes);
    Cache::open_on(&config, vec![sim.clone()]).expect("just formatted")
}

fn no_more_reads(sim: &Sim) {
    sim.inject(Fault::new(FaultKind::Io, Operation::Read, 0).for_good());
}

/// What was inserted, and what was read once, is there although the device cannot be read; also
/// what is stored in parts.
#[test]
fn what_is_in_memory_is_not_read_from_the_device() -> Result<(), Error> {
    let sim = formatted(256 << 20);
    let value = |n: u8| vec![n; 1 + 700 * usize::from(n)];
    let largest = vec![200; BUCKET as usize];
    for run in 0..2 {
        let cache = open_keeping(&sim, 2 << 20);
        if run == 0 {
            cache.insert(b"large", &largest)?;
            (0..20).try_for_each(|n| cache.insert(&[n], &value(n)))?;
            cache.flush()?;
        } else {
            // From the device: the copies of the run before are gone.
            (0..20).for_each(|n| assert_eq!(cache.get(&[n]).expect("read"), Some(value(n))));
            assert_eq!(cache.get(b"large")?, Some(largest.clone()));
            assert_eq!((cache.stats().memory_hits, cache.stats().hits), (0, 21));
        }
        no_more_reads(&sim);
        (0..20).for_each(|n| assert_eq!(cache.get(&[n]).expect("copied"), Some(value(n))));
        assert_eq!(cache.get(b"large")?, Some(largest.clone()));
        let stats = cache.stats();
        // The large one is a record of pointers, and at least two parts.
        assert!(stats.memory_hits >= 23 && stats.read_errors == 0, "{stats:?}");
        assert!(stats.memory_bytes > 10 * 700 * 20 && stats.memory_bytes_max == 2 << 20);
        sim.clear_faults();
        cache.close()?;
    }
    let cache = open_keeping(&sim, 0);
    no_more_reads(&sim);
    assert_eq!(cache.get(&[7])?, None, "without memory it would have to be read");
    assert_eq!((cache.stats().memory_hits, cache.stats().read_errors), (0, 1));
    Ok(())
}

/// The newest value alone is served from memory, nothing that was removed or has expired.
#[test]
fn memory_holds_what_the_index_says() -> Result<(), Error> {
    let sim = formatted(16 << 20);
    let cache = open(&sim, Policy::Lru, 1 << 20);
    no_more_reads(&sim);
    cache.insert(b"key", b"1")?;
    cache.insert(b"key", b"22")?;
    cache.insert_with(b"short", b"3", &Put::new().ttl(Duration::ZERO))?;
    cache.flush()?;
    assert_eq!(cache.get(b"key")?.as_deref(), Some(&b"22"[..]));
    assert_eq!(cache.get(b"short")?, None);
    assert!(cache.remove(b"key")?);
    assert_eq!(cache.get(b"key")?, None);
    cache.insert(b"key", b"4444")?;
    assert_eq!(cache.get(b"key")?.as_deref(), Some(&b"4444"[..]));
    let stats = cache.stats();
    assert_eq!((stats.expired, stats.read_errors, stats.memory_hits), (1, 0, 3), "{stats:?}");
    Ok(())
}

/// A reader has read the value from the device; before he copies it, it is overwritten and
/// removed. What he copies then is found by nobody.
#[test]
fn a_slow_reader_leaves_nothing_old_behind() -> Result<(), Error> {
    let sim = formatted(16 << 20);
    let cache = open(&sim, Policy::Lru, 1 << 20);
    cache.insert(b"overwritten", &[1; 5000])?;
    cache.insert(b"removed", &[1; 5000])?;
    cache.close()?;

    let cache = open(&sim, Policy::Lru, 1 << 20);
    sim.inject(Fault::new(FaultKind::Stall, Operation::Read, 0).for_good());
    let mut context = Context::from_waker(Waker::noop());
    let mut readers = [pin!(cache.get_async(b"overwritten")), pin!(cache.get_async(b"removed"))];
    for reader in &mut readers {
        assert!(reader.as_mut().poll(&mut context).is_pending(), "it reads the device");
    }
    sim.clear_faults();
    cache.insert(b"overwritten", &[2; 5000])?;
    assert!(cache.remove(b"removed")?);
    sim.resume();
    for reader in &mut readers {
        // He began before the change was acknowledged, so he may get the old value.
        let Poll::Ready(found) = reader.as_mut().poll(&mut context) else { panic!("it is read") };
        assert_eq!(found?, Some(vec![1; 5000]));
    }
    assert_eq!(cache.get(b"removed")?, None);
    assert_eq!(cache.get(b"overwritten")?, Some(vec![2; 5000]));
    cache.flush()?;
    assert_eq!(cache.get(b"overwritten")?, Some(vec![2; 5000]), "and from the device");
    Ok(())
}

/// When its bucket is reused an entry is gone, copied or not.
#[test]
fn a_copy_does_not_outlive_its_bucket() -> Result<(), Error> {
    let sim = formatted(16 << 20);
    // Room for everything that is ever written.
    let cache = open(&sim, Policy::Fifo, 128 << 20);
    cache.insert(b"first", &[7; 8000])?;
    for n in 0u32..6000 {
        cache.insert(&n.to_le_bytes(), &[n as u8; 8000])?;
    }
    cache.flush()?;
    assert!(cache.stats().invalidated > 1024, "every bucket was reused");
    no_more_reads(&sim);
    let newest = 5999u32;
    assert_eq!(cache.get(&newest.to_le_bytes())?, Some(vec![newest as u8; 8000]));
    assert!(!cache.contains(b"first")?);
    assert_eq!(cache.get(b"first")?, None);
    let stats = cache.stats();
    assert_eq!((stats.memory_evictions, stats.read_errors), (0, 0), "{stats:?}");
    Ok(())
}

/// What is read from memory all the time keeps its bucket, though the device is never read.
#[test]
fn a_get_from_memory_is_a_use_of_the_bucket() -> Result<(), Error> {
    let sim = formatted(16 << 20);
    let cache = open(&sim, Policy::Lru, 1 << 20);
    no_more_reads(&sim);
    cache.insert(b"hot", &[7; 100])?;
    for n in 0u32..10_000 {
        cache.insert(&n.to_le_bytes(), &[n as u8; 8000])?;
        assert_eq!(cache.get(b"hot")?, Some(vec![7; 100]), "{n}: {:?}", cache.stats());
    }
    let stats = cache.stats();
    assert!(stats.invalidated > 1024, "every other bucket was reused: {stats:?}");
    assert_eq!((stats.memory_hits, stats.read_errors), (10_000, 0), "{stats:?}");
    Ok(())
}

/// Each thread writes and removes keys of its own and reads everybody's. Nobody gets a value that is
/// older than what was acknowledged when he began.
#[test]
fn nobody_gets_what_is_older_than_acknowledged() {
    const THREADS: u64 = 4;
    const KEYS: u64 = 200;
    const OPERATIONS: u64 = 6000;
    let sim = formatted(16 << 20);
    // About half of the values.
    let cache = open(&sim, Policy::Lru, 512 << 10);
    // The operation on each key that was acknowledged last.
    let acknowledged: Vec<_> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let hits = AtomicU64::new(0);
    let value = |operation: u64| operation.to_le_bytes().repeat(1 + (operation % 1500) as usize);
    let mix = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % KEYS;
    let read = |key: u64| {
        // Acquire: what was acknowledged is seen; pairs with the writer's Release.
        let least = acknowledged[key as usize].load(Ordering::Acquire);
        if let Some(found) = cache.get(&key.to_le_bytes()).expect("a key") {
            let operation = u64::from_le_bytes(*found.first_chunk().expect("8 bytes"));
            assert!(found == value(operation), "{key}: not a value that was written");
            assert!(operation >= least, "{key}: {operation}, {least} was acknowledged");
            // Relaxed: a count.
            hits.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cache, acknowledged, read) = (&cache, &acknowledged, &read);
            scope.spawn(move || {
                for operation in 1..=OPERATIONS {
                    let key = mix(operation) / THREADS * THREADS + thread;
                    let name = key.to_le_bytes();
                    match operation % 5 {
                        0 => drop(cache.remove(&name).expect("space")),
                        _ => cache.insert(&name, &value(operation)).expect("space"),
                    }
                    // Release: who sees it begins after the acknowledgement.
                    acknowledged[key as usize].store(operation, Ordering::Release);
                    (0..3).for_each(|n| read(mix(operation * 3 + n + thread)));
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(hits.into_inner() > 0 && stats.memory_hits > 0, "{stats:?}");
    assert!(stats.memory_evictions > 0 && stats.invalidated > 0, "{stats:?}");
    assert_eq!((stats.corrupt, stats.failed_inserts), (0, 0), "{stats:?}");
}
