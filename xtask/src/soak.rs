//! The long versions of the suites, for a machine that has the night off.
//!
//! Suites that go on for as long as they are let share `--minutes` per suite: the stress test
//! (32 threads) runs so long in all, divided over its settings, one after the other; fuzzing and
//! ThreadSanitizer likewise, over targets and settings. Suites that count (sequences compared
//! with the specification, schedules, models, histories, kills, seeds) do their number however
//! long it takes, and print it.

use crate::report::{Outcome, Report, if_there_is};
use crate::run::Show;
use crate::suites::Tests;
use crate::{crash, fuzz, kill_test, loom, mutants, sanitize, shuttle, suites, tally};
use anyhow::{Result, ensure};
use clap::Args;

/// Sequences of operations on the allocator and its specification.
const SEQUENCES: u64 = 10_000;
/// Random schedules.
const SCHEDULES: u64 = 100_000;
/// Preemptions per model. The time grows steeply with it.
const LOOM_BOUND: u32 = 5;
/// Kills on a file, and as many on a loop device.
const KILL_ROUNDS: u64 = 200;
/// Histories with power losses.
const CRASH_SEEDS: u64 = 20_000;
/// Histories of the cache with power losses.
const CACHE_CRASH_SEEDS: u64 = 5_000;
/// Runs of the small races under Miri.
const MIRI_SEEDS: u32 = 64;

#[derive(Args)]
pub(crate) struct Options {
    /// How long each suite runs that could go on for ever: stress, fuzz, tsan
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) minutes: u64,
    /// Run only these stages, by their names in the table
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
}

type Stage = (&'static str, fn(seconds: u64) -> Result<Outcome>);

/// In this order: what finds most comes first.
const STAGES: [Stage; 11] = [
    ("stress", stress),
    ("equivalence", |_| equivalence()),
    ("shuttle", |_| if_there_is(shuttle::exists()?, "scenario", schedules)),
    ("fuzz", |seconds| if_there_is(fuzz::exists()?, "target", || long_fuzz(seconds))),
    ("kill-test", |_| if_there_is(kill_test::exists(), "program", kill)),
    ("crash", |_| if_there_is(crash::exists(), "command", crashes)),
    ("cache-crash", |_| cache_crashes()),
    ("miri", |_| miri()),
    ("tsan", tsan),
    ("loom", |_| if_there_is(loom::exists()?, "model", models)),
    ("mutants", |_| if_there_is(mutants::exist()?, "mutant", all_mutants)),
];

/// Runs every suite that exists, or those asked for.
pub(crate) fn run(options: &Options, report: &mut Report) {
    let seconds = options.minutes.saturating_mul(60);
    let known = |name: &&String| !STAGES.iter().any(|(stage, _)| stage == name);
    if let Some(unknown) = options.only.iter().find(known) {
        let names = STAGES.map(|(name, _)| name).join(", ");
        report.stage("soak", || Err(anyhow::anyhow!("no stage {unknown}; there are {names}")));
        return;
    }
    for (name, stage) in STAGES {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            report.stage(name, || stage(seconds));
        }
    }
}

fn stress(seconds: u64) -> Result<Outcome> {
    let tests = suites::stress_tests()?.max(1);
    suites::stress((seconds / tests).max(1))
}

/// The comparison with the executable specification, which prints what it met.
fn equivalence() -> Result<Outcome> {
    let mut tests =
        Tests::select(["-p", "tierce-lockfree", "--release", "--test", "spec_equivalence"])
            .env("PROPTEST_CASES", SEQUENCES.to_string());
    tests.with_output = true;
    let (output, tally) = tests.run(Show::Live, None)?;
    let met = tally::numbers_before(&output.text, " sequences,", "sequences").sum::<u64>();
    if output.status.success() {
        ensure!(met >= SEQUENCES, "{met} sequences were compared, wanted {SEQUENCES}");
    }
    Ok(suites::outcome(&output, &tally, format!("tests; {met} sequences")))
}

fn schedules() -> Result<Outcome> {
    shuttle::run(&shuttle::Options::schedules(SCHEDULES))
}

fn models() -> Result<Outcome> {
    loom::run(&loom::Options { bound: LOOM_BOUND })
}

fn long_fuzz(seconds: u64) -> Result<Outcome> {
    let targets = fuzz::count()?.max(1);
    fuzz::run(&fuzz::Options { seconds: (seconds / targets).max(fuzz::CI_SECONDS), target: None })
}

fn miri() -> Result<Outcome> {
    sanitize::miri(&sanitize::MiriOptions::seeds(MIRI_SEEDS))
}

fn tsan(seconds: u64) -> Result<Outcome> {
    let tests = suites::stress_tests()?.max(1);
    sanitize::tsan(&sanitize::TsanOptions { seconds: (seconds / tests).max(1) })
}

fn kill() -> Result<Outcome> {
    kill_test::run(&kill_test::Options { rounds: KILL_ROUNDS })
}

fn crashes() -> Result<Outcome> {
    crash::run(&crash::Options { seeds: CRASH_SEEDS })
}

fn cache_crashes() -> Result<Outcome> {
    let mut tests = Tests::select(["-p", "tierce-cache", "--release", "--test", "crash"])
        .env("TIERCE_CACHE_CRASH_SEEDS", CACHE_CRASH_SEEDS.to_string());
    tests.with_output = true;
    let (output, tally) = tests.run(Show::Live, None)?;
    let tried = tally::numbers_before(&output.text, " seeds from", "seeds").sum::<u64>();
    if output.status.success() {
        ensure!(tried >= CACHE_CRASH_SEEDS, "{tried} seeds, wanted {CACHE_CRASH_SEEDS}");
    }
    Ok(suites::outcome(&output, &tally, format!("tests; {tried} seeds")))
}

fn all_mutants() -> Result<Outcome> {
    mutants::run(&mutants::Options::default())
}
