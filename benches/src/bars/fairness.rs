//! P16: 32 threads wait, and one bucket after the other becomes free.
//!
//! Every free bucket is held by one thread, the releaser. He gives them back one at a time, with
//! a pause in which all others come to wait again; whoever gets one hands it back to him. A
//! bucket's way is timed from just before it is given back until a waiter has it in hand.
//!
//! A waiter was *overtaken* by each who asked after him and got a bucket that was given back
//! before his. Who asked first is told by a number drawn just before asking: a thread that is
//! preempted between the two looks overtaken, so that this needs a quiet machine or real-time
//! priority.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::backend::{Full, Locked, Lockfree, Order, Original, Space};
use crate::measure::{Latency, Subject};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const WAITERS: usize = 32;

/// Between two releases: 32 threads find time to line up.
const PAUSE: Duration = Duration::from_micros(200);

const FULL: Full = Full::new(64 << 10, Order::Random);

pub(super) fn fairness(bench: &mut Bench<'_>) {
    let setting = format!("{WAITERS} waiters");
    let figure = |name, unit| Figure::new("P16", name, setting.clone(), unit, Better::Less);
    let figures = [
        figure("release to wake, p99", "µs").goals(Goal::Times(1.0), Goal::Times(1.0)),
        figure("release to wake, p50", "µs"),
        figure("overtaken, at most", "times").goals(Goal::AtMost(8.0), Goal::AtMost(4.0)),
    ];
    let (lockfree, original) = (Lockfree::start(&FULL), Original::start(&FULL));
    let locked = Locked::start(&FULL);
    let time = bench.plan.sample;
    let subjects = vec![
        fairness_of(&lockfree, time),
        fairness_of(&original, time),
        fairness_of(&locked, time),
    ];
    bench.measure(&figures, subjects);
}

/// What a waiter saw: when he asked, and which release served him.
struct Served {
    asked: u64,
    release: u64,
    nanos: u64,
}

fn fairness_of<'a, S: Space>(space: &'a S, time: Duration) -> Subject<'a>
where
    S::Bucket<'a>: Send,
{
    Subject::new(S::NAME, move || {
        space.reclaim();
        let served = serve(space, time);
        let mut latency = Latency::default();
        served.iter().for_each(|served| latency.record_nanos(served.nanos));
        let micros = |quantile| latency.nanos_at(quantile) as f64 / 1e3;
        vec![micros(0.99), micros(0.5), most_overtaken(served) as f64]
    })
}

/// One thread gives back, the others wait, for `time`.
fn serve<'a, S: Space>(space: &'a S, time: Duration) -> Vec<Served>
where
    S::Bucket<'a>: Send,
{
    let mut held: Vec<_> = std::iter::from_fn(|| space.try_alloc()).collect();
    let (begin, stop) = (Instant::now(), AtomicBool::new(false));
    // Of each bucket: which release gave it back last, and when.
    let releases: Vec<_> =
        (0..FULL.nbuckets).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
    let numbers = AtomicU64::new(0);
    let nanos = || begin.elapsed().as_nanos() as u64;
    let place = |bucket: &S::Bucket<'a>| {
        S::pointer(bucket).expect("these backends have pointers").bucket().as_usize()
    };
    let wait = |back: mpsc::Sender<S::Bucket<'a>>| {
        let mut all = Vec::new();
        loop {
            // Relaxed (all): each bucket's way from hand to hand orders them.
            let asked = numbers.fetch_add(1, Ordering::Relaxed);
            let bucket = space.alloc();
            let now = nanos();
            if stop.load(Ordering::Relaxed) {
                drop(bucket); // for the next who waits
                return all;
            }
            let [release, at] = &releases[place(&bucket)];
            let (release, at) = (release.load(Ordering::Relaxed), at.load(Ordering::Relaxed));
            all.push(Served { asked, release, nanos: now.saturating_sub(at) });
            back.send(bucket).expect("the releaser waits for it");
        }
    };
    let wait = &wait;
    std::thread::scope(|scope| {
        let (back, returned) = mpsc::channel();
        let spawn = |_| {
            let back = back.clone();
            scope.spawn(move || wait(back))
        };
        let waiters: Vec<_> = (0..WAITERS).map(spawn).collect();
        for number in 0.. {
            std::thread::sleep(PAUSE);
            if begin.elapsed() > time {
                break;
            }
            let bucket = held.pop().expect("there are more than one");
            let [release, at] = &releases[place(&bucket)];
            // Relaxed (both): as above.
            release.store(number, Ordering::Relaxed);
            at.store(nanos(), Ordering::Relaxed);
            drop(bucket);
            held.push(returned.recv().expect("somebody waits"));
        }
        // Relaxed: as above.
        stop.store(true, Ordering::Relaxed);
        held.clear();
        let served = waiters.into_iter().flat_map(|waiter| waiter.join().expect("no panic"));
        served.collect()
    })
}

/// How often the one was overtaken who was most often.
fn most_overtaken(mut served: Vec<Served>) -> usize {
    served.sort_by_key(|served| served.release);
    let overtakes = |(at, one): (usize, &Served)| {
        // Who asked later cannot be far back: there are few threads.
        served[..at].iter().rev().take(64 * WAITERS).filter(|other| other.asked > one.asked).count()
    };
    served.iter().enumerate().map(overtakes).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overtakes_are_counted() {
        let served = |asked, release| Served { asked, release, nanos: 0 };
        // 0 was served after 1 and 3, which had asked later; 2 after 3.
        let all = vec![served(1, 0), served(3, 1), served(0, 2), served(2, 3)];
        assert_eq!(most_overtaken(all), 2);
        assert_eq!(most_overtaken((0..9).map(|n| served(n, n)).collect()), 0);
    }
}
