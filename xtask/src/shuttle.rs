//! Random schedules: `tierce-shuttle-tests` compiled for shuttle, in a target directory of its
//! own.
//!
//! As the models these are built in release mode with debug assertions. A scenario reports in a
//! line `shuttle NAME: N schedules, …`, and one that fails prints the schedule.

use crate::place;
use crate::report::Outcome;
use crate::run::{self, Show};
use crate::suites::{self, Tests};
use crate::tally;
use anyhow::{Result, ensure};
use clap::Args;

/// How many schedules CI tries.
pub(crate) const CI_SCHEDULES: u64 = 600;
/// How many the task tries if it is not told.
const SCHEDULES: u64 = 100_000;

#[derive(Args)]
pub(crate) struct Options {
    /// How many schedules, over all scenarios; each gets the same share
    #[arg(long, default_value_t = SCHEDULES)]
    pub(crate) schedules: u64,
    /// Only the scenarios whose name contains this
    #[arg(long, default_value = "")]
    pub(crate) filter: String,
    /// What the random choices begin from, instead of a seed that is drawn anew
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Run this schedule, as a failing scenario printed it; --filter must name the scenario
    #[arg(long, requires = "filter")]
    pub(crate) replay: Option<String>,
}

impl Options {
    /// So many schedules of all scenarios.
    pub(crate) fn schedules(schedules: u64) -> Self {
        Self { schedules, filter: String::new(), seed: None, replay: None }
    }
}

/// Whether there are any scenarios.
pub(crate) fn exists() -> Result<bool> {
    Ok(!place::rust_files(&place::root().join("shuttle-tests/tests"))?.is_empty())
}

/// The package that has them.
pub(crate) const PACKAGE: &str = "tierce-shuttle-tests";

/// The scenarios, each with so many schedules.
pub(crate) fn scenarios(schedules: u64) -> Tests {
    let mut tests = Tests::select(["-p", PACKAGE, "--release"])
        .env("RUSTFLAGS", run::rustflags("--cfg tierce_shuttle"))
        .env("CARGO_TARGET_DIR", place::target("shuttle"))
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("RUST_BACKTRACE", "0")
        .env("TIERCE_SHUTTLE_SCHEDULES", schedules.to_string());
    tests.with_output = true;
    tests
}

/// The reports of the scenarios.
fn worth_a_line(line: &str) -> bool {
    line.contains("shuttle ") && line.contains("schedules")
}

/// Runs all scenarios.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let count = count_scenarios(&options.filter)?;
    ensure!(count > 0, "no scenario's name contains {:?}", options.filter);
    let each = options.schedules.div_ceil(count);
    let mut tests = scenarios(each);
    tests.filter.clone_from(&options.filter);
    if let Some(seed) = options.seed {
        tests = tests.env("TIERCE_SHUTTLE_SEED", seed.to_string());
    }
    if let Some(schedule) = &options.replay {
        ensure!(
            count == 1,
            "a schedule belongs to one scenario, {:?} names {count}",
            options.filter
        );
        tests = tests.env("TIERCE_SHUTTLE_REPLAY", schedule);
    }
    let (output, tally) = tests.run(Show::Picked(worth_a_line), None)?;
    let ran = tally::numbers_before(&output.text, "shuttle ", "schedules").sum::<u64>();
    if output.status.success() && options.replay.is_none() {
        ensure!(ran >= options.schedules, "{ran} schedules ran, wanted {}", options.schedules);
    }
    Ok(suites::outcome(&output, &tally, format!("scenarios; {ran} schedules")))
}

/// How many scenarios have a name that contains `filter`.
fn count_scenarios(filter: &str) -> Result<u64> {
    let mut count = 0;
    for file in place::rust_files(&place::root().join("shuttle-tests/tests"))? {
        let names = suites::test_names(&file)?;
        count += names.iter().filter(|name| name.contains(filter)).count() as u64;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_counted() {
        assert!(count_scenarios("").unwrap() > 1);
        assert_eq!(count_scenarios("no_such_scenario").unwrap(), 0);
    }
}
