//! What an entry of the cache takes in memory, and how long many of them take to come back.
//!
//! The cache is filled with small values, closed and opened again. Memory is what the kernel says
//! the process has more than with an empty cache, once the full one is open again, in the same
//! process: index, lives, notes of what was overwritten, allocator, and what malloc keeps of what
//! was needed meanwhile.

use super::row::{Better, Figure, Goal};
use super::{Bench, cache};
use crate::measure::{Load, Turns, rss_bytes};
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use tierce_cache::{Cache, Config};

/// A record of a value so small takes 128 bytes in its bucket, and its summary 24.
const VALUE_BYTES: usize = 64;
const RECORD_BYTES: u64 = 152;

/// How many entries there are to be, and how full that makes the tables of the index: alike.
const fn entries(quick: bool) -> u64 {
    if quick { 625_000 } else { 10_000_000 }
}

pub(super) fn entries_come_back(bench: &mut Bench<'_>) {
    if let Err(why) = try_entries(bench) {
        bench.results.notes.push(format!("entries of the cache are not measured: {why}"));
    }
}

fn try_entries(bench: &mut Bench<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let directory = cache::Directory::make()?;
    let path = directory.0.join("tierce");
    let entries = entries(bench.plan.quick);
    // What any cache takes, with hardly an entry: threads, buffers, the program itself.
    let store = cache::open(&path, 512 << 20, Config::new(&path))?;
    cache::insert(&store, VALUE_BYTES, &AtomicU64::new(0), |done| done < 1000)?;
    let Some(before) = rss_bytes() else { return Ok(()) };
    store.close()?;
    std::fs::remove_file(&path)?;
    let load = Load::begin();
    // A tenth more than they take, so that nothing is reclaimed.
    let bytes = (entries * RECORD_BYTES * 11 / 10 + (64 << 20)).max(512 << 20);
    let store = cache::open(&path, bytes, Config::new(&path))?;
    cache::insert(&store, VALUE_BYTES, &AtomicU64::new(0), |done| done < entries)?;
    store.close()?;
    let began = Instant::now();
    let store = Cache::open(Config::new(&path))?;
    let took = began.elapsed().as_secs_f64();
    let found = store.stats().entries;
    // Two keys in ten million may share an entry.
    assert!(found >= entries - 100, "{found} of {entries} entries came back");
    let now = rss_bytes().unwrap_or(before);
    let per_entry = now.saturating_sub(before) as f64 / found as f64;
    store.close()?;

    let setting = format!("{:.1} M entries of {VALUE_BYTES} bytes", found as f64 / 1e6);
    let figure = |name, unit| Figure::new("entries", name, setting.clone(), unit, Better::Less);
    let turns = |sample: f64| Turns { name: "tierce", figures: vec![vec![sample]] };
    let mut memory = figure("memory", "B/entry");
    let mut time = figure("open again", "s");
    if !bench.plan.quick {
        memory = memory.goals(Goal::AtMost(24.0), Goal::AtMost(24.0));
        time = time.goals(Goal::AtMost(5.0), Goal::AtMost(5.0));
    }
    bench.add(&[memory], &[turns(per_entry)], load.of_others());
    bench.add(&[time], &[turns(took)], load.of_others());
    Ok(())
}
