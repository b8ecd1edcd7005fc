//! Running one scenario and saying how often.

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

/// How many schedules a scenario runs if `TIERCE_SHUTTLE_SCHEDULES` does not say.
const DEFAULT_SCHEDULES: usize = 200;

/// How many preemptions the PCT scheduler plans per execution.
const PCT_DEPTH: usize = 3;

/// Threads of the scenarios run on stacks of this many bytes.
const STACK: usize = 256 << 10;

/// Runs `body` under so many schedules as `TIERCE_SHUTTLE_SCHEDULES` says, half of them drawn
/// step by step, half with a few preemptions at random places ("PCT"), which finds what needs one
/// thread to stand still for long. They begin from `TIERCE_SHUTTLE_SEED`, or from a seed that
/// every run draws anew.
///
/// Prints `shuttle NAME: N schedules, …`, with the name of the test it runs in. With
/// `TIERCE_SHUTTLE_REPLAY` it runs that one schedule instead.
///
/// # Panics
///
/// If `body` panics, or all threads wait, under any schedule.
pub fn check(body: impl Fn() + Send + Sync + Copy + 'static) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    if let Ok(schedule) = std::env::var("TIERCE_SHUTTLE_REPLAY") {
        let replayed = run(ReplayScheduler::new_from_encoded(&schedule), body);
        println!("shuttle {name}: {replayed} schedules, replayed");
        return;
    }
    let number = |name| std::env::var(name).ok().map(|n| n.parse().expect("a number"));
    let schedules = number("TIERCE_SHUTTLE_SCHEDULES").unwrap_or(DEFAULT_SCHEDULES as u64);
    let seed = number("TIERCE_SHUTTLE_SEED").unwrap_or_else(|| RandomState::new().hash_one(name));
    println!("shuttle {name}: begins from seed {seed}");
    let started = Instant::now();
    let by_pct = (schedules / 2) as usize;
    let random = RandomScheduler::new_from_seed(seed, schedules as usize - by_pct);
    let ran = run(random, body) + run(PctScheduler::new_from_seed(seed, PCT_DEPTH, by_pct), body);
    let seconds = started.elapsed().as_secs_f64();
    println!("shuttle {name}: {ran} schedules, half random, half PCT, {seconds:.1} s");
    assert_eq!(ran as u64, schedules, "all that were asked for");
    assert!(ran > 0, "no schedule was run");
}

/// How many executions there were.
fn run(scheduler: impl Scheduler + 'static, body: impl Fn() + Send + Sync + 'static) -> usize {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.failure_persistence = FailurePersistence::Print;
    config.silence_warnings = true; // of orderings: the top of lib.rs says what they mean here
    Runner::new(scheduler, config).run(body)
}
