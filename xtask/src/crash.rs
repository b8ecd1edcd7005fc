//! Crash exploration: histories on a simulated device that loses power, by the hundred.

use crate::place;
use crate::report::Outcome;
use crate::run::{self, Show};
use crate::tally;
use anyhow::{Result, ensure};
use clap::Args;

/// Seeds of a run that is not to take long.
pub(crate) const CI_SEEDS: u64 = 500;
/// Seeds on a device that lies about flushes: some of them must find it out.
const LYING_SEEDS: u64 = 40;

#[derive(Args)]
pub(crate) struct Options {
    /// How many seeds, each a history of its own
    #[arg(long, default_value_t = CI_SEEDS)]
    pub(crate) seeds: u64,
}

/// Whether the command exists.
pub(crate) fn exists() -> bool {
    place::root().join("cli/src/crash.rs").is_file()
}

/// Runs so many seeds, all of which must be clean, and some on a device that lies, where the
/// checker must see it. What was met is counted by the command, which fails if anything is
/// missing.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let seeds = options.seeds;
    let output = explore(&["--seeds", &seeds.to_string()])?;
    let counted = |what| tally::numbers_before(&output.text, what, "seeds").next_back();
    let clean = counted(" seeds clean").unwrap_or(0);
    if !output.status.success() {
        let failed = seeds.saturating_sub(clean).max(1);
        return Ok(Outcome::suite(clean, failed, output.status.to_string()));
    }
    ensure!(clean == seeds, "{clean} seeds were clean, wanted {seeds}");
    let lying = LYING_SEEDS.to_string();
    let output = explore(&["--seeds", &lying, "--mode", "lying-flush"])?;
    if !output.status.success() {
        return Ok(Outcome::suite(clean, 1, "a device that lies is not found out"));
    }
    Ok(Outcome::suite(clean, 0, "seeds"))
}

fn explore(options: &[&str]) -> Result<run::Output> {
    let mut command =
        run::cargo(["run", "--release", "-p", "tierce-cli", "--bin", "tierce", "--", "crash"]);
    command.args(options);
    run::run(command, Show::Live)
}
