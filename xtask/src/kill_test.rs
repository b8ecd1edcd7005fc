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
    /// How often to kill, on a file and on a loop device each
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: u64,
}

/// Whether the program exists.
pub(crate) fn exists() -> bool {
    let programs = place::root().join("benches/src/bin");
    programs.join(format!("{BINARY}.rs")).is_file() || programs.join(BINARY).is_dir()
}

/// Runs it. What it says at the end of each medium counts, so that a program that did nothing
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
    let done = |medium| {
        let counts = tally::numbers_before(&output.text, medium, "rounds:");
        counts.last().unwrap_or(0)
    };
    let (on_file, on_loop) = (done("a file: "), done("a loop device: "));
    let skipped = output.text.contains("skipped: no loop device");
    ensure!(on_file >= options.rounds, "{on_file} rounds on a file were run, wanted {rounds}");
    ensure!(
        skipped || on_loop >= options.rounds,
        "{on_loop} rounds on a loop device were run, wanted {rounds}"
    );
    let note = if skipped { "rounds; no loop device" } else { "rounds, half on a loop device" };
    Ok(Outcome::suite(on_file + on_loop, 0, note))
}
