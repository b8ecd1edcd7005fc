//! P12 and P13: the cache beside the bare disk, and beside another cache.
//!
//! P12: values of one size are inserted under keys that are never met again, on a cache that is
//! full, so that buckets are reclaimed all the time; beside it fio writes the same file size
//! with the same block size and depth, through io_uring with direct I/O, flush included.
//!
//! P13: the same requests for everybody: Zipf-distributed keys, values as web objects, one
//! round to fill the cache. foyer is a program of its own (`benches/foyer`); it is measured if
//! it is built. Both caches get the same disk space and memory tier, and neither writes anew what
//! was hit (tierce does unless told, for more hits and fewer gets). What a cache drops silently
//! shows as misses. Everybody runs at normal priority: of real-time threads foyer's
//! poll of its ring leaves those that write no CPU, and it drops nearly every insert.

use super::fio;
use super::row::{Better, Figure, Goal};
use super::{Bench, Plan};
use crate::backend::{Insertion, Store, Tierce};
use crate::error::Error;
use crate::measure::{NormalPriority, Subject};
use crate::peer::{Job, Peer, Place};
use crate::replay::Outcome;
use crate::value::Derived;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tierce_cache::Config;

/// Threads that use a cache, and the depth of fio.
const THREADS: usize = 4;

/// Memory tier of both caches in P13. Beside it both have what they write from: foyer 16 MiB, its
/// default, tierce this.
const MEMORY_BYTES: u64 = 16 << 20;
const WRITE_BUFFER_BYTES: usize = 4 << 20;

const BUCKET_BYTES: u32 = 512 << 10;

/// Where caches keep their data: `TIERCE_BENCH_DIR`, or the directory for temporary files.
fn directory() -> PathBuf {
    let base = std::env::var_os("TIERCE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    base.join(format!("tierce-bench-{}", std::process::id()))
}

/// A directory of this run, removed when dropped.
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    pub(super) fn make() -> std::io::Result<Self> {
        let place = directory();
        std::fs::create_dir_all(&place)?;
        Ok(Self(place))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} is not removed: {error}", self.0.display());
        }
    }
}

/// A new cache in a file of `bytes` bytes.
pub(super) fn open(path: &Path, bytes: u64, config: Config) -> Result<Tierce, Error> {
    let options = tierce_io::FormatOptions::default().size(Some(bytes)).bucket(BUCKET_BYTES);
    tierce_io::format(path, &options).map_err(Error::store("format a cache"))?;
    Tierce::open(config).map_err(Error::store("open a cache"))
}

fn disk_bytes(plan: &Plan) -> u64 {
    if plan.quick { 320 << 20 } else { 4 << 30 }
}

/// P12.
pub(super) fn writes(bench: &mut Bench<'_>) {
    if let Err(why) = try_writes(bench) {
        bench.results.notes.push(format!("P12 is not measured: {why}"));
    }
}

fn try_writes(bench: &mut Bench<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let directory = Directory::make()?;
    let bytes = disk_bytes(bench.plan);
    let time = bench.plan.sample * 5;
    for value_bytes in [64 << 10, 4 << 10] {
        let path = directory.0.join("tierce");
        let store = open(&path, bytes, Config::new(&path))?;
        let next = AtomicU64::new(0);
        // Once round, so that from now on every bucket is reclaimed before it is written.
        let filled = insert(&store, value_bytes, &next, |done| done * value_bytes as u64 <= bytes)?;
        assert!(filled.bytes >= bytes as f64, "it was filled");
        let setting = format!("{} KiB values, {THREADS} threads", value_bytes >> 10);
        let figures = [
            Figure::new("P12", "inserts", setting.clone(), "MB/s", Better::More)
                .goals(Goal::Times(0.85), Goal::Times(0.95))
                .against("disk"),
            Figure::new("P12", "dropped inserts", setting, "", Better::Less)
                .goals(Goal::AtMost(0.0), Goal::AtMost(0.0))
                .against("disk"),
        ];
        let mut subjects = vec![Subject::new("tierce", || {
            let end = Instant::now() + time;
            let wrote = insert(&store, value_bytes, &next, |_| Instant::now() < end);
            let wrote = wrote.expect("the disk works");
            vec![wrote.bytes / wrote.took.as_secs_f64() / 1e6, wrote.dropped as f64]
        })];
        if fio::is_installed() {
            let file = directory.0.join("fio");
            std::fs::File::create(&file)?.set_len(bytes / 4)?;
            let job = move || {
                let (block, depth) = (value_bytes as u64, THREADS as u32);
                let (path, bytes) = (&file, bytes / 4);
                fio::Job { path, write: true, offset: 0, bytes, block, depth }.run() / 1e6
            };
            subjects.push(Subject::new("disk", move || vec![job(), 0.0]));
        } else {
            bench.results.notes.push("disk (P12): fio is not installed".to_owned());
        }
        bench.measure(&figures, subjects);
        store.close()?;
        std::fs::remove_file(path)?;
    }
    Ok(())
}

pub(super) struct Wrote {
    bytes: f64,
    dropped: u64,
    took: Duration,
}

/// Inserts new keys on all threads while it may go on, and flushes.
pub(super) fn insert(
    store: &Tierce,
    value_bytes: usize,
    next: &AtomicU64,
    go_on: impl Fn(u64) -> bool + Sync,
) -> Result<Wrote, Error> {
    let (began, first) = (Instant::now(), next.load(Ordering::Relaxed)); // Relaxed: a number.
    let dropped = AtomicU64::new(0);
    let work = || {
        let mut value = Vec::new();
        loop {
            // Relaxed: only the number is shared.
            let key = next.fetch_add(1, Ordering::Relaxed);
            if !go_on(key - first) {
                return Ok::<_, Error>(());
            }
            Derived { key, version: 0, size: value_bytes }.fill(&mut value);
            let inserted = store.insert(&key.to_le_bytes(), &value);
            if inserted.map_err(Error::store("insert"))? == Insertion::Dropped {
                dropped.fetch_add(1, Ordering::Relaxed); // Relaxed: as above.
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let results = threads.into_iter().map(|thread| thread.join().expect("it did not panic"));
        results.collect::<Result<Vec<()>, _>>()
    })?;
    store.flush().map_err(Error::store("flush"))?;
    // Relaxed (both): the threads have ended.
    let count = next.load(Ordering::Relaxed) - first - THREADS as u64;
    let dropped = dropped.load(Ordering::Relaxed);
    let bytes = (count - dropped) as f64 * value_bytes as f64;
    Ok(Wrote { bytes, dropped, took: began.elapsed() })
}

/// P13.
pub(super) fn beside_foyer(bench: &mut Bench<'_>) {
    // What is started from here on has it, too.
    let _normal = NormalPriority::begin();
    if let Err(why) = try_beside_foyer(bench) {
        bench.results.notes.push(format!("P13 is not measured: {why}"));
    }
}

/// The program, if it is built: where `TIERCE_FOYER` says, beside this one, or where cargo puts
/// it.
fn foyer() -> Option<PathBuf> {
    let told = std::env::var_os("TIERCE_FOYER").map(PathBuf::from);
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("tierce-foyer"));
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/foyer/target/release/tierce-foyer");
    let places = [told, beside, Some(built.into())];
    places.into_iter().flatten().find(|place| place.is_file())
}

const ENGINES: [(&str, &str); 2] = [("foyer io_uring", "io_uring"), ("foyer psync", "psync")];

fn try_beside_foyer(bench: &mut Bench<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let directory = Directory::make()?;
    let bytes = disk_bytes(bench.plan);
    let (keys, filling, requests) = match bench.plan.quick {
        true => (100_000, 60_000, 36_000),
        false => (1_500_000, 1_200_000, 400_000),
    };
    let fill = Job { keys, requests: filling, round: 0, threads: THREADS };
    let path = directory.0.join("tierce");
    let config = Config::new(&path)
        .write_buffer_bytes(WRITE_BUFFER_BYTES)
        .memory_bytes(MEMORY_BYTES as usize)
        .lru_sample(0)
        .reinsert_after(0);
    let store = open(&path, bytes, config)?;
    fill.run(&store)?;
    bench.results.notes.push(settings(&store, bytes));
    let mut peers = Vec::new();
    match foyer() {
        None => bench.results.notes.push(
            "foyer (P13): not built; cargo build --release --manifest-path \
             benches/foyer/Cargo.toml"
                .to_owned(),
        ),
        Some(program) => {
            for (name, engine) in ENGINES {
                let place = Place {
                    directory: directory.0.join(engine),
                    bytes,
                    memory_bytes: MEMORY_BYTES,
                    engine: engine.to_owned(),
                };
                std::fs::create_dir_all(&place.directory)?;
                bench.tell(&format!("P13 filling {name}"));
                let mut peer = Peer::start(&program, &place)?;
                peer.run(&fill)?;
                bench.results.notes.push(format!("{name}: {}", peer.settings()));
                peers.push((name, peer));
            }
        }
    }
    let first = bench.results.rows.len();
    let setting = format!("Zipf 0.9, {} MiB, {THREADS} threads", bytes >> 20);
    let figures = figures(&setting);
    let job = |round: u64| Job { round, requests, ..fill };
    let mut round = 0;
    let mut subjects = vec![Subject::new("tierce", || {
        round += 1;
        values(&job(round).run(&store).expect("the disk works"))
    })];
    for (name, peer) in &mut peers {
        let mut round = 0;
        subjects.push(Subject::new(name, move || {
            round += 1;
            values(&peer.run(&job(round)).expect("the peer works"))
        }));
    }
    bench.measure(&figures, subjects);
    // Both ways of I/O are to be beaten, not one of them.
    for row in &mut bench.results.rows[first..] {
        if let Some(figure) = figures.iter().find(|figure| figure.name == row.name) {
            row.judge(figure);
        }
    }
    store.close()?;
    Ok(())
}

/// As a peer says them.
fn settings(store: &Tierce, bytes: u64) -> String {
    let stats = store.stats();
    format!(
        "tierce: {} MiB of disk in buckets of {} KiB, {} MiB of memory, write buffers {} MiB, \
         written on insertion, exact LRU, nothing reinserted",
        bytes >> 20,
        BUCKET_BYTES >> 10,
        stats.memory_bytes_max >> 20,
        stats.write_buffer_bytes_max >> 20,
    )
}

fn figures(setting: &str) -> [Figure; 5] {
    let figure =
        |name, unit, better| Figure::new("P13", name, setting, unit, better).against(ENGINES[0].0);
    [
        figure("gets", "k/s", Better::More).goals(Goal::Times(2.0), Goal::Times(5.0)),
        figure("hit ratio", "%", Better::More).goals(Goal::Times(1.0), Goal::Times(1.0)),
        figure("hit, p99.9", "µs", Better::Less).goals(Goal::Times(1.0), Goal::Times(2.0)),
        figure("insert, p99.9", "µs", Better::Less),
        figure("wrong data", "hits", Better::Less).goals(Goal::AtMost(0.0), Goal::AtMost(0.0)),
    ]
}

fn values(outcome: &Outcome) -> Vec<f64> {
    vec![
        outcome.accesses as f64 / outcome.seconds / 1e3,
        outcome.hit_ratio * 100.0,
        outcome.hit_us.p999,
        outcome.insert_us.p999,
        outcome.wrong_data as f64,
    ]
}
