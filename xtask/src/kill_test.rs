//! The kill test: a replay is ended by kill −9 in its middle, the cache opened again and every
//! value compared with a log kept outside the cache. It proves process crashes, not power loss.

use crate::place;
use crate::report::Outcome;
use crate::run::{self, Show};
use crate::tally;
use anyhow::{Result, ensure};
use clap::Args;

const BINARY: &str = "tierce-kill-test";

#[derive(Args)]
pub(crate) struct Options {
    /// How often to kill
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: u64,
}

/// Whether the program exists.
pub(crate) fn exists() -> bool {
    let programs = place::root().join("benches/src/bin");
    programs.join(format!("{BINARY}.rs")).is_file() || programs.join(BINARY).is_dir()
}

/// Runs it. The last line in which it says `N rounds` counts, so that a program that did nothing
/// does not pass.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    ensure!(exists(), "{BINARY} is not part of tierce-bench");
    let rounds = options.rounds.to_string();
    let command = run::cargo([
        "run",
        "--release",
        "-p",
        "tierce-bench",
        "--bin",
        BINARY,
        "--",
        "--rounds",
        &rounds,
    ]);
    let output = run::run(command, Show::Live)?;
    if !output.status.success() {
        return Ok(Outcome::broken(output.status.to_string()));
    }
    let done = tally::numbers_before(&output.text, " rounds", "rounds").next_back().unwrap_or(0);
    ensure!(done >= options.rounds, "{done} rounds were run, wanted {rounds}");
    Ok(Outcome::suite(done, 0, "rounds"))
}
