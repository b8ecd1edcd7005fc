//! Sections as the kernel makes them: threads that move from CPU to CPU, thieves, visitors, and
//! those who begin to wait, while the cells become near and shared again and again.
//!
//! Checked: each bucket is in one place at a time; none is lost; a bucket that is put into a cell and
//! who begins to wait do not miss each other; and that it was sections that did all this.

use super::*;
use crate::attention::WAITING;
use crate::hint::affinity::{Trial, allowed_cpus, apart, run_on};
use crate::sync::yield_now;
use core::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;
use std::time::Duration;

const BUCKETS: u32 = 8;
const TIME: Duration = Duration::from_millis(1500);

/// Cells for all CPUs, and the mode. None where there are no sections.
fn near_cells() -> Option<(Cells, Arc<Attention>)> {
    let cpus = 1 + allowed_cpus().into_iter().max().expect("this thread runs");
    let rows = cpus.max(crate::hint::configured_cpus());
    let Some(section) = Section::find(rows) else {
        eprintln!("skipped: this system has no restartable sequences");
        return None;
    };
    let attention = Arc::new(Attention::new(Some(section)));
    Some((Cells::new(rows, 8, Arc::clone(&attention)), attention))
}

/// Who holds which bucket: a second holder is found out.
struct Held(Vec<AtomicBool>);

impl Held {
    fn take(&self, bucket: BucketIndex) -> BucketIndex {
        // AcqRel: whoever breaks the rule is to be seen.
        let before = self.0[bucket.as_usize()].swap(true, Ordering::AcqRel);
        assert!(!before, "{bucket} is in two places");
        bucket
    }

    fn put(&self, cells: &Cells, bucket: BucketIndex, anywhere: bool) {
        // AcqRel: as in `take`.
        self.0[bucket.as_usize()].swap(false, Ordering::AcqRel);
        if anywhere || !cells.push(bucket).is_done() {
            // There is room, but a scan may find every cell filled in turn.
            while !cells.push_anywhere(bucket) {
                yield_now();
            }
        }
    }
}

/// What one thread does: `way` decides how often it moves, steals and visits.
fn churn(cells: &Cells, attention: &Attention, held: &Held, way: usize, trial: Trial) -> u32 {
    let cpus = allowed_cpus();
    let mut near = 0;
    for turn in way.. {
        if turn.is_multiple_of(64) {
            run_on(cpus[(turn / 64) % cpus.len()]);
            attention.open();
            if trial.is_over(near > 20 && attention.turns() > 10) {
                break;
            }
        }
        near += u32::from(attention.mode() == NEAR);
        let taken = match turn % 97 {
            31 => cells.pop_as_visitor(),
            7 if way.is_multiple_of(2) => cells.pop_anywhere(),
            _ => cells.pop(),
        };
        if let Some(bucket) = taken {
            held.take(bucket);
            if turn.is_multiple_of(5) {
                yield_now();
            }
            held.put(cells, bucket, turn % 89 == 3);
        }
    }
    near
}

#[test]
fn each_bucket_is_in_one_place_however_threads_move() {
    apart(|| {
        let Some((cells, attention)) = near_cells() else { return };
        assert!((0..BUCKETS).all(|bucket| cells.push_anywhere(BucketIndex::new(bucket))));
        let held = Held((0..BUCKETS).map(|_| AtomicBool::new(false)).collect());
        let trial = Trial::new(TIME);
        let near: u32 = thread::scope(|scope| {
            let churn = |way| churn(&cells, &attention, &held, way, trial);
            let threads: Vec<_> = (0..6).map(|way| scope.spawn(move || churn(way))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        let mut left: Vec<_> =
            std::iter::from_fn(|| cells.pop_anywhere()).map(|b| b.get()).collect();
        left.sort_unstable();
        assert!(left.into_iter().eq(0..BUCKETS), "none is lost");
        assert!(near > 100 && attention.turns() > 10, "{near} near, {} turns", attention.turns());
    });
}

/// One on each of two CPUs: the owner stores all the time, and each time that the cells are near
/// the thief takes a bucket out of the owner's row.
#[test]
fn a_thief_and_the_owner_take_a_bucket_once() {
    apart(|| {
        let Some((cells, attention)) = near_cells() else { return };
        let (cpus, trial) = (allowed_cpus(), Trial::new(TIME));
        let is_over = || trial.is_over(cpus.len() < 2 || attention.turns() > 20);
        let held = Held((0..2).map(|_| AtomicBool::new(false)).collect());
        assert!((0..2).all(|bucket| cells.push_anywhere(BucketIndex::new(bucket))));
        thread::scope(|scope| {
            scope.spawn(|| {
                run_on(*cpus.last().expect("there is one"));
                while !is_over() {
                    if attention.mode() == NEAR
                        && let Some(bucket) = cells.pop_anywhere()
                    {
                        held.take(bucket);
                        held.put(&cells, bucket, true);
                    }
                }
            });
            run_on(cpus[0]);
            while !is_over() {
                attention.open();
                for _ in 0..100 {
                    if let Some(bucket) = cells.pop() {
                        held.take(bucket);
                        held.put(&cells, bucket, false);
                    }
                }
            }
        });
        let left = (cells.pop_anywhere(), cells.pop_anywhere(), cells.pop_anywhere());
        assert!(matches!(left, (Some(a), Some(b), None) if a != b), "left: {left:?}");
        assert!(cpus.len() < 2 || attention.turns() > 20, "{} turns", attention.turns());
    });
}

/// Round by round: one puts a bucket into his cells, the other begins to wait for it.
#[test]
fn i10_a_stored_bucket_or_who_waits_is_seen() {
    apart(|| {
        let Some((cells, attention)) = near_cells() else { return };
        let (cpus, trial) = (allowed_cpus(), Trial::new(TIME));
        let (round, done, found) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
        let (mut stored, mut missed) = (0, 0);
        let at = |number: &AtomicU32, wanted| {
            // Acquire: rounds follow each other.
            while number.load(Ordering::Acquire) < wanted {
                if cpus.len() < 2 {
                    yield_now();
                }
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                run_on(*cpus.last().expect("there is one"));
                for number in 1.. {
                    at(&round, number);
                    attention.set(WAITING);
                    // Relaxed, Release: published with the end of the round.
                    found.store(cells.pop_anywhere().is_some(), Ordering::Relaxed);
                    done.store(number, Ordering::Release);
                    // Acquire: the last round.
                    if round.load(Ordering::Acquire) == u32::MAX {
                        break;
                    }
                }
            });
            run_on(cpus[0]);
            for number in 1.. {
                attention.open();
                stored += u32::from(attention.mode() == NEAR);
                let last = trial.is_over(stored > 10);
                // Release: a round begins.
                round.store(if last { u32::MAX } else { number }, Ordering::Release);
                // The other takes a while to see it.
                (0..number % 61 * 4).for_each(|_| std::hint::spin_loop());
                let pushed = cells.push(BucketIndex::new(1));
                let noticed = pushed == Pushed::Shared && attention.after_cell() & WAITING != 0;
                at(&done, number);
                // Relaxed: ordered by the end of the round.
                let seen = noticed || found.load(Ordering::Relaxed);
                missed += u32::from(pushed.is_done() && !seen);
                attention.clear(WAITING);
                let _left = cells.pop_anywhere();
                if last {
                    break;
                }
            }
        });
        assert!(missed == 0 && stored > 10, "both slept {missed} times, {stored} rounds were near");
    });
}

/// Nobody asks for it: rows that are used become near, and are shared when they have to be.
#[test]
fn use_makes_cells_near_and_unrest_shares_them() {
    apart(|| {
        let Some((cells, attention)) = near_cells() else { return };
        run_on(allowed_cpus()[0]);
        assert!(cells.push(BucketIndex::new(3)).is_done());
        let used = |times: u32| {
            for _ in 0..times {
                let bucket = cells.pop().or_else(|| cells.pop());
                let bucket = bucket.expect("it is there");
                assert!(cells.push(bucket).is_done() || cells.push_anywhere(bucket));
            }
        };
        used(1000);
        assert_eq!(attention.mode(), SHARED, "not worth it yet");
        attention.share();
        used(1500);
        assert_eq!(attention.mode(), SHARED, "somebody came between");
        used(4000);
        assert_eq!(attention.mode(), NEAR);
        attention.set(WAITING);
        assert_eq!(attention.mode(), SHARED, "somebody waits");
        used(20_000);
        assert_eq!(attention.mode(), SHARED, "he still does");
        attention.clear(WAITING);
        used(20_000);
        assert_eq!(attention.mode(), NEAR);
    });
}
