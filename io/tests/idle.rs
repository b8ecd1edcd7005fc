//! Idle threads sleep: no timer, no polling. One test, because it counts for the whole process.

mod common;

use common::dir;
use std::time::Duration;
use tierce_core::{DeviceIndex, Reserve};
use tierce_io::{FormatOptions, OpenOptions, Pipeline, Volume};
use tierce_lockfree::{Allocator, Config};

/// Voluntary context switches of this process's threads with that name.
fn switches(name: &str) -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("procfs") {
        let status = std::fs::read_to_string(task.expect("procfs").path().join("status"));
        let Ok(status) = status else { continue };
        if status.lines().next().is_some_and(|line| line.ends_with(name)) {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
            let count = line.and_then(|line| line.split_whitespace().nth(1));
            sum += count.expect("a count").parse::<u64>().expect("a number");
        }
    }
    sum
}

/// A ring (or blocking threads), a pipeline, an allocator: all of them sleep.
#[test]
fn an_idle_volume_costs_nothing() {
    let dir = dir();
    let path = dir.path().join("cache");
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(&path, &options).unwrap();
    let (table, writer) = Volume::open(&path, &OpenOptions::default()).unwrap().into_start();
    let startup = Allocator::start(Config::default(), vec![table]).unwrap();
    let (allocator, mut reclaimers) = startup.finish();
    let pipeline = Pipeline::start(reclaimers.pop().unwrap(), writer).unwrap();
    let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None).unwrap();
    // Until all lists are full and a prio write ahead is done.
    let mut stats = pipeline.stats();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = pipeline.stats();
        if now == stats {
            break;
        }
        stats = now;
    }
    let count = || switches("tierce-io") + switches("tierce-reclaim");
    let before = count();
    assert!(before > 0, "the threads are found and have slept");
    std::thread::sleep(Duration::from_secs(2));
    let slept = count() - before;
    assert!(slept <= 2, "{slept} context switches in 2 s of idleness");
    bucket.written();
    pipeline.close().unwrap();
}
