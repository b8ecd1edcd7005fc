//! Crashes by the hundred: what `tierce crash` does, as tests.
//!
//! Checked are the rules that [`tierce_io::explore`] lists, and of the exploration itself:
//! 1. It meets everything that it is meant to meet.
//! 2. It sees: on a device that lies about flushes it finds violations.
//! 3. A seed repeats its run, and a violation can be made smaller.

use tierce_io::explore::{Coverage, Kind, Mode, OPERATIONS, explore};

/// Enough to meet everything, and for every deliberate break to be found.
const SEEDS: u64 = 80;

/// Runs these seeds; panics with the first violation, made small.
fn clean(seeds: std::ops::Range<u64>) -> Coverage {
    let mut sum = Coverage::default();
    for seed in seeds {
        match explore(seed, OPERATIONS, Mode::Normal) {
            Ok(coverage) => sum.merge(&coverage),
            Err(violation) => panic!("{}", violation.minimised()),
        }
    }
    sum
}

#[test]
fn no_power_loss_breaks_a_rule() {
    let coverage = clean(0..SEEDS);
    println!("{coverage}");
    assert_eq!(coverage.missing().collect::<Vec<_>>(), []);
}

#[test]
fn a_device_that_lies_is_found_out() {
    let found = (0..40).filter_map(|seed| explore(seed, 200, Mode::LyingFlush).err());
    let found: Vec<_> = found.collect();
    assert!(found.len() > 10, "{} of 40", found.len());
    let first = found[0].clone();
    let small = first.clone().minimised();
    assert!(small.operations <= first.operations);
    let again = explore(small.seed, small.operations, small.mode).expect_err("it repeats");
    assert_eq!(again.what, small.what);
    let command = format!("--seed {} --operations {}", small.seed, small.operations);
    assert!(small.to_string().contains(&command), "{small}");
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..5 {
        let run = || explore(seed, OPERATIONS, Mode::Normal).expect("no violation");
        assert_eq!(run(), run());
    }
    let lives = explore(0, OPERATIONS, Mode::Normal).expect("no violation").of(Kind::PowerLoss);
    assert!(lives > 0);
}
