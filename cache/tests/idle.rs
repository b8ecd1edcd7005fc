//! An open cache that nobody uses uses nothing: at most 1 ms of CPU and 10 context switches in
//! 10 s, over all threads that it started.

#![expect(clippy::unwrap_used, reason = "what /proc looks like is the kernel's word")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use tierce_cache::{Cache, Config};
use tierce_io::FormatOptions;

/// What a thread has used: nanoseconds of CPU, context switches of both kinds.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    cpu_ns: u64,
    switches: u64,
    /// It wants to run, though on a busy machine it may not for a while.
    runnable: bool,
}

/// All threads of this process but the caller, by their ids.
fn others() -> HashMap<u32, (String, Used)> {
    let me = rustix::thread::gettid().as_raw_nonzero().get();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let read = |task: PathBuf| {
        let file = |name| std::fs::read_to_string(task.join(name)).unwrap();
        let cpu_ns = file("schedstat").split(' ').next().unwrap().parse().unwrap();
        let status = file("status");
        let runnable = !status.lines().any(|line| line.starts_with("State:\tS"));
        let switches = status
            .lines()
            .filter(|line| line.contains("ctxt_switches"))
            .map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap())
            .sum();
        (file("comm").trim().to_owned(), Used { cpu_ns, switches, runnable })
    };
    let ids = tasks.map(|task| task.unwrap().path());
    ids.map(|path| (path.file_name().unwrap().to_str().unwrap().parse().unwrap(), path))
        .filter(|&(id, _): &(u32, _)| id != me as u32)
        .map(|(id, path)| (id, read(path)))
        .collect()
}

#[test]
fn an_idle_cache_sleeps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(&path, &options).unwrap();
    let before_open = others();
    let cache = Cache::open(Config::new(&path)).unwrap();
    // More than the device holds, so that everything has run.
    for n in 0u32..2000 {
        cache.insert(&n.to_le_bytes(), &[7; 50_000]).unwrap();
    }
    assert!(cache.stats().invalidated > 0, "the reclaimer ran");
    // What was set in motion comes to rest: until nothing runs any more, not for a set time.
    let mut last = others();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = others();
        let moved = now.iter().any(|(id, (_, used))| {
            used.runnable || last.get(id).is_none_or(|(_, before)| before.switches != used.switches)
        });
        last = now;
        if !moved {
            break;
        }
    }

    std::thread::sleep(Duration::from_secs(10));

    let now = others();
    let mut total = Used::default();
    let mut threads = 0;
    for (id, (name, used)) in now.iter().filter(|(id, _)| !before_open.contains_key(id)) {
        let before = last.get(id).map(|(_, used)| *used).unwrap_or_default();
        let cpu_ns = used.cpu_ns - before.cpu_ns;
        let switches = used.switches - before.switches;
        println!("{name}: {cpu_ns} ns, {switches} context switches");
        total.cpu_ns += cpu_ns;
        total.switches += switches;
        threads += 1;
    }
    assert!(threads >= 3, "reclaimer, collector and ring are running");
    assert!(total.cpu_ns <= 1_000_000 && total.switches <= 10, "{total:?} in 10 s");
    cache.close().unwrap();
}
