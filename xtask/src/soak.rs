//! The long versions of the suites, for a machine that has the night off.

use crate::report::{Outcome, Report, if_there_is};
use crate::{crash, fuzz, kill_test, loom, mutants, suites};
use anyhow::Result;
use clap::Args;

/// Preemptions per model. The time grows steeply with it.
const LOOM_BOUND: u32 = 5;
/// Seconds per fuzz target.
const FUZZ_SECONDS: u64 = 60;
/// Kills of the replay.
const KILL_ROUNDS: u64 = 200;
/// Histories with power losses.
const CRASH_SEEDS: u64 = 20_000;

#[derive(Args)]
pub(crate) struct Options {
    /// How long each stress test runs
    #[arg(long, default_value_t = 10)]
    pub(crate) minutes: u64,
}

/// Runs every suite that exists.
pub(crate) fn run(options: &Options, report: &mut Report) {
    let seconds = options.minutes.saturating_mul(60);
    report.stage("stress", || suites::stress(seconds));
    report.stage("loom", || if_there_is(loom::exists()?, "model", models));
    report.stage("fuzz", || if_there_is(fuzz::exists()?, "target", long_fuzz));
    report.stage("kill-test", || if_there_is(kill_test::exists(), "program", kill));
    report.stage("crash", || if_there_is(crash::exists(), "command", crashes));
    report.stage("mutants", || if_there_is(mutants::exist()?, "mutant", all_mutants));
}

fn models() -> Result<Outcome> {
    loom::run(&loom::Options { bound: LOOM_BOUND })
}

fn long_fuzz() -> Result<Outcome> {
    fuzz::run(&fuzz::Options { seconds: FUZZ_SECONDS, target: None })
}

fn kill() -> Result<Outcome> {
    kill_test::run(&kill_test::Options { rounds: KILL_ROUNDS })
}

fn crashes() -> Result<Outcome> {
    crash::run(&crash::Options { seeds: CRASH_SEEDS })
}

fn all_mutants() -> Result<Outcome> {
    mutants::run(&mutants::Options::default())
}
