//! The model checks: `tierce-loom-tests` compiled for loom, in a target directory of its own.
//!
//! Models are built in release mode (they run millions of steps) with debug assertions (they
//! check invariants with them). A model reports its iterations in a line
//! `model NAME: N iterations`.

use crate::place;
use crate::report::Outcome;
use crate::run::{self, Show};
use crate::suites::{self, Tests};
use crate::tally;
use anyhow::Result;
use clap::Args;

/// How many preemptions CI explores.
pub(crate) const CI_BOUND: u32 = 3;

#[derive(Args)]
pub(crate) struct Options {
    /// Preemptions per execution, at most
    #[arg(long, default_value_t = CI_BOUND)]
    pub(crate) bound: u32,
}

/// Whether there are any models.
pub(crate) fn exists() -> Result<bool> {
    Ok(!place::rust_files(&place::root().join("loom-tests/tests"))?.is_empty())
}

/// The package that has them.
pub(crate) const PACKAGE: &str = "tierce-loom-tests";

/// The models, with at most `bound` preemptions.
pub(crate) fn models(bound: u32) -> Tests {
    let mut tests = Tests::select(["-p", PACKAGE, "--release"])
        .env("RUSTFLAGS", run::rustflags("--cfg tierce_loom"))
        .env("CARGO_TARGET_DIR", place::target("loom"))
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("LOOM_MAX_PREEMPTIONS", bound.to_string());
    tests.with_output = true;
    tests
}

/// The reports of the models and the runner's word on each.
fn worth_a_line(line: &str) -> bool {
    let line = line.trim_start();
    ["model ", "PASS ", "FAIL ", "SLOW "].iter().any(|word| line.starts_with(word))
}

/// Runs all models.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let (output, tally) = models(options.bound).run(Show::Picked(worth_a_line), None)?;
    let iterations = tally::numbers_before(&output.text, "model ", "iterations").sum::<u64>();
    let note = format!("models; {iterations} iterations, bound {}", options.bound);
    Ok(suites::outcome(&output, &tally, note))
}
