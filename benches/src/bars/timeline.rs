//! P3 as somebody sees it whose requests come when they come: response times under a set rate,
//! instant by instant, while an LRU pass, a rescale and a garbage collection take turns.
//!
//! A request has an instant at which it should start. Its response time counts from there, not
//! from when its thread came round to it, so a pause shows in all requests that it delayed
//! (nothing is omitted because the load politely waited). Two threads: one for the requests,
//! which looks at the clock in between and never sleeps, one for the passes. The former runs at
//! real-time priority where the system permits it.

use super::Bench;
use super::row::{Better, Figure};
use super::shape::{Curve, Pass, Timeline};
use crate::backend::{Full, Locked, Order, Original, Space};
use crate::measure::{Latency, Priority, Subject};
use std::cell::RefCell;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Requests per second: far below what any backend can do, so that what shows are pauses.
const RATE: u32 = 100_000;

/// Passes of each kind in a sample.
const TURNS: u32 = 2;

/// Instants of a sample.
const INSTANTS: usize = 300;

const KINDS: [&str; 3] = ["LRU", "rescale", "collection"];

/// What the samples of one backend leave behind besides their figures.
#[derive(Default)]
struct Kept {
    latency: Latency,
    last: Option<Sample>,
}

pub(super) fn timeline<S: Space>(bench: &mut Bench<'_>) {
    for nbuckets in bench.buckets(&[1 << 20], &[1 << 20, 16 << 20]) {
        let full = Full { none: nbuckets / 64, ..Full::new(nbuckets, Order::Random) };
        let spaces = (S::start(&full), Original::start(&full), Locked::start(&full));
        spaces.0.reclaim();
        spaces.1.reclaim();
        spaces.2.reclaim();
        let rate = RATE / 1000;
        let setting = format!("{} buckets, {rate} k/s", super::buckets_name(nbuckets));
        let figure = |name, unit| Figure::new("P3", name, setting.clone(), unit, Better::Less);
        let figures = [
            figure("response during passes, p50", "ns"),
            figure("response during passes, p99.9", "ns"),
            figure("response during passes, max", "µs"),
        ];
        // A pass of a large device takes long: there should be quiet between two.
        let time = bench.plan.sample * if nbuckets > 1 << 20 { 20 } else { 6 };
        let kept: [RefCell<Kept>; 3] = Default::default();
        let subjects = vec![
            requests_on(&spaces.0, &full, time, &kept[0]),
            requests_on(&spaces.1, &full, time, &kept[1]),
            requests_on(&spaces.2, &full, time, &kept[2]),
        ];
        bench.measure(&figures, subjects);
        for (kept, subject) in kept.into_iter().zip([S::NAME, Original::NAME, Locked::NAME]) {
            let kept = kept.into_inner();
            let curve = Curve::of("response time during passes", &setting, subject, &kept.latency);
            bench.results.curves.push(curve);
            let lines = kept.last.map(|sample| sample.into_timeline(&setting, subject));
            bench.results.timelines.extend(lines);
        }
    }
}

fn requests_on<'a, S: Space>(
    space: &'a S,
    full: &'a Full,
    time: Duration,
    kept: &'a RefCell<Kept>,
) -> Subject<'a> {
    Subject::new(S::NAME, move || {
        let start = Barrier::new(2);
        let sample = std::thread::scope(|scope| {
            let passes = scope.spawn(|| {
                // The process may run at real-time priority itself.
                let _ = Priority::Normal.set();
                start.wait();
                passes(space, full, time)
            });
            let requests = scope.spawn(|| {
                // Where it is not permitted, time slices given to others show as pauses.
                let _ = Priority::RealTime.set();
                start.wait();
                requests(space, time)
            });
            let mut sample = requests.join().expect("it did not panic");
            sample.passes = passes.join().expect("it did not panic");
            sample
        });
        let figures = vec![
            sample.latency.nanos_at(0.5) as f64,
            sample.latency.nanos_at(0.999) as f64,
            sample.latency.nanos_at(1.0) as f64 / 1e3,
        ];
        let mut kept = kept.borrow_mut();
        kept.latency.merge(&sample.latency);
        kept.last = Some(sample);
        figures
    })
}

struct Sample {
    latency: Latency,
    time: Duration,
    slowest_ns: Vec<u64>,
    passes: Vec<Pass>,
}

impl Sample {
    fn into_timeline(self, setting: &str, subject: &'static str) -> Timeline {
        Timeline {
            setting: setting.to_owned(),
            subject: subject.into(),
            instant_us: micros(self.time) / INSTANTS as f64,
            slowest_ns: self.slowest_ns,
            passes: self.passes,
        }
    }
}

fn requests<S: Space>(space: &S, time: Duration) -> Sample {
    let (began, step) = (Instant::now(), Duration::from_secs(1) / RATE);
    let (mut latency, mut slowest_ns) = (Latency::default(), vec![0u64; INSTANTS]);
    let mut intended = Duration::ZERO;
    while intended < time {
        while began.elapsed() < intended {
            std::hint::spin_loop();
        }
        drop(space.try_alloc());
        let response = began.elapsed() - intended;
        latency.record(response);
        // Where it was asked for, not where it ended: a pause is as long as it looks.
        let instant = intended.as_nanos() * INSTANTS as u128 / time.as_nanos();
        let slowest = &mut slowest_ns[instant as usize];
        *slowest = (*slowest).max(u64::try_from(response.as_nanos()).unwrap_or(u64::MAX));
        intended += step;
    }
    Sample { latency, time, slowest_ns, passes: Vec::new() }
}

/// The kinds of passes in turn, evenly over the time; none is begun after it.
fn passes<S: Space>(space: &S, full: &Full, time: Duration) -> Vec<Pass> {
    let began = Instant::now();
    let (count, mut passes) = (TURNS * KINDS.len() as u32, Vec::new());
    for (turn, kind) in (0..count).zip(KINDS.iter().cycle()) {
        if *kind == "LRU" {
            use_up(space, full);
        }
        let due = time / (count + 1) * (turn + 1);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let from = began.elapsed();
        if from >= time {
            break;
        }
        match *kind {
            "LRU" => space.reclaim(),
            "rescale" => {
                let step = full.geometry().rescale_step(1);
                space.account_io(u32::try_from(step).unwrap_or(u32::MAX).saturating_add(1));
                space.reclaim();
            }
            _ => space.collect(),
        }
        let (from_us, to_us) = (micros(from), micros(began.elapsed()));
        passes.push(Pass { kind: (*kind).into(), from_us, to_us });
    }
    passes
}

/// A quarter of the free buckets, so that the reclaimer has to choose new ones.
fn use_up<S: Space>(space: &S, full: &Full) {
    for _ in 0..full.none / 4 {
        if let Some(bucket) = space.try_alloc() {
            space.written(bucket);
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
