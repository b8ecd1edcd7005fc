//! P3: how long allocations take while one thread does nothing but passes: LRU, rescale,
//! garbage collection, prio writes, again and again.
//!
//! The free lists are large and the allocating threads give back what they take, so that nobody
//! waits for a bucket: what is measured is what the passes do to the others. Prio writes encode
//! and publish the whole table; bytes go nowhere.
//!
//! It is a closed loop: each thread allocates and gives back, which is timed, then sleeps. All of
//! them together ask [`PER_SECOND`] times per second, so that the passes have most of the machine
//! however many threads there are. They run at real-time priority, the passes at normal priority:
//! whoever allocates waits for nobody but for locks, and for other allocating threads. (Where the
//! system does not permit that, the setting says so, and the largest values are time slices.)
//!
//! The largest value is the longest interrupt that happened to come within a pair, with passes or
//! without. Some come so seldom that half of all windows of 160 ms have none, and then the ratio
//! of two such windows says which of them had one. So a round has several windows of either kind
//! in turn, and compares the largest value of all with passes with that of all without: long
//! enough for both to meet what there is.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::backend::{Full, Locked, Order, Original, Space};
use crate::measure::{Latency, Priority, Subject, run_for};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Pairs that all threads together try to make.
const PER_SECOND: u32 = 20_000;

pub(super) fn tail<S: Space>(bench: &mut Bench<'_>) {
    let permitted = std::thread::spawn(|| Priority::RealTime.set()).join().unwrap_or(false);
    for nbuckets in bench.buckets(&[1 << 20], &[1 << 20, 16 << 20]) {
        let name = super::buckets_name(nbuckets);
        let full = Full::new(nbuckets, Order::Random);
        let full = Full { none: nbuckets / 64, sync: true, ..full };
        let subject = S::start(&full);
        let (original, locked) = (Original::start(&full), Locked::start(&full));
        subject.reclaim();
        original.reclaim();
        locked.reclaim();
        for threads in bench.threads(&[2, 32], &[1, 2, 32]) {
            let priority = if permitted { "" } else { ", normal priority" };
            let setting = format!("{name} buckets, {}{priority}", super::threads_name(threads));
            let figure =
                |name, unit, better| Figure::new("P3", name, setting.clone(), unit, better);
            let p999 = figure("pair during passes, p99.9", "ns", Better::Less);
            let want = if threads == 2 { Goal::AtMost(2000.0) } else { Goal::Shown };
            let figures = [
                p999.goals(Goal::Times(100.0), want),
                figure("pair during passes, max", "µs", Better::Less),
                figure("pair without passes, max", "µs", Better::Less),
                figure("max with passes / max without", "×", Better::Less)
                    .goals(Goal::AtMost(2.0), Goal::Shown),
                figure("passes meanwhile", "", Better::More),
            ];
            // At least one pass of each kind of a large device should fit into a window.
            let (windows, samples) = if nbuckets > 1 << 20 { (2, 10) } else { (4, 4) };
            let time = (windows, bench.plan.sample * samples);
            let subjects = vec![
                tail_on(&subject, &full, threads, time),
                tail_on(&original, &full, threads, time),
                tail_on(&locked, &full, threads, time),
            ];
            bench.measure(&figures, subjects);
        }
    }
}

fn tail_on<'a, S: Space>(
    space: &'a S,
    full: &'a Full,
    threads: usize,
    (windows, time): (u32, Duration),
) -> Subject<'a> {
    Subject::new(S::NAME, move || {
        let (mut quiet, mut busy, mut passes) = (Latency::default(), Latency::default(), 0);
        for _ in 0..windows {
            quiet.merge(&closed_loop(space, threads, time));
            let (latency, made) = during_passes(space, full, threads, time);
            busy.merge(&latency);
            passes += made;
        }
        let most = |latency: &Latency| latency.nanos_at(1.0) as f64 / 1e3;
        vec![
            busy.nanos_at(0.999) as f64,
            most(&busy),
            most(&quiet),
            most(&busy) / most(&quiet),
            f64::from(passes),
        ]
    })
}

/// How long pairs take while another thread makes passes, and how many of each kind it made.
fn during_passes<S: Space>(
    space: &S,
    full: &Full,
    threads: usize,
    time: Duration,
) -> (Latency, u32) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let passes = scope.spawn(|| {
            // The process may run at real-time priority itself.
            assert!(Priority::Normal.set(), "everybody may do without priority");
            let mut made = 0;
            // Relaxed: nothing is published with it.
            while !stop.load(Ordering::Relaxed) {
                one_of_each(space, full);
                made += 1;
            }
            made
        });
        let latency = closed_loop(space, threads, time);
        // Relaxed: as above.
        stop.store(true, Ordering::Relaxed);
        (latency, passes.join().expect("it did not panic"))
    })
}

/// How long each pair took, one look at the clock included.
fn closed_loop<S: Space>(space: &S, threads: usize, time: Duration) -> Latency {
    let pause = Duration::from_secs(1) * u32::try_from(threads).unwrap_or(u32::MAX) / PER_SECOND;
    let run = run_for(threads, time, |_, go_on| {
        // Said in the setting if it is not permitted.
        let _ = Priority::RealTime.set();
        let mut latency = Latency::default();
        while go_on() {
            let before = Instant::now();
            drop(space.try_alloc());
            latency.record(before.elapsed());
            std::thread::sleep(pause);
        }
        latency
    });
    let mut all = Latency::default();
    run.results.iter().for_each(|latency| all.merge(latency));
    all
}

/// A quarter of the free buckets is used up, so that an LRU pass follows, and with it a prio
/// write; a rescale; a collection.
fn one_of_each<S: Space>(space: &S, full: &Full) {
    for _ in 0..full.none / 4 {
        if let Some(bucket) = space.try_alloc() {
            space.written(bucket);
        }
    }
    let step = full.geometry().rescale_step(1);
    space.account_io(u32::try_from(step).unwrap_or(u32::MAX).saturating_add(1));
    space.reclaim();
    space.collect();
}
