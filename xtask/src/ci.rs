//! Everything a change must pass.
//!
//! A stage whose suite does not exist yet is left out with a word. With `--require-reference`,
//! which the CI service uses, a missing tool or a missing reference is a failure; without it,
//! the stages that need the tool are skipped, saying so.

use crate::report::{Outcome, Report, if_there_is};
use crate::run;
use crate::{checks, crash, fuzz, kill_test, loom, mutants, perf_check, place, sanitize};
use crate::{shuttle, suites};
use anyhow::Result;
use clap::Args;

/// How often a run kills the replay.
const KILL_ROUNDS: u64 = 3;

#[derive(Args)]
pub(crate) struct Options {
    /// Fail if the reference recordings or a tool are missing, instead of skipping with a word
    #[arg(long)]
    pub(crate) require_reference: bool,
}

/// Runs all stages; a failed one does not stop the others.
pub(crate) fn run(options: &Options, report: &mut Report) {
    let strict = options.require_reference;
    if strict && let Err(error) = place::reference() {
        report.stage("reference", || Err(error));
        return;
    }
    report.stage("fmt", checks::format);
    report.stage("clippy", checks::clippy);
    report.stage("docs", checks::docs);
    report.stage("tests", || suites::workspace(strict));
    report.stage("doctests", suites::doctests);
    report.stage("features", suites::features);
    report.stage("loom", || if_there_is(loom::exists()?, "model", models));
    report.stage("shuttle", || if_there_is(shuttle::exists()?, "scenario", schedules));
    report.stage("miri", miri);
    report.stage("aarch64", sanitize::other_target);
    report.stage("fuzz", || fuzz_stage(strict));
    report.stage("kill-test", || if_there_is(kill_test::exists(), "program", kill));
    report.stage("crash", || if_there_is(crash::exists(), "command", crashes));
    report.stage("perf-check", || perf_check::run(&perf_check::Options { bless: false }));
    report.stage("mutants", || if_there_is(mutants::exist()?, "mutant with a test", all_mutants));
    report.stage("licences", || with("deny", strict, checks::licences));
    report.stage("lean", checks::lean);
}

/// The stage, or a word that its tool is missing: an error if `strict`.
fn with(tool: &str, strict: bool, stage: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    match run::need_cargo_tool(tool) {
        Err(error) if !strict => Ok(Outcome::skipped(error.to_string())),
        Err(error) => Err(error),
        Ok(()) => stage(),
    }
}

fn models() -> Result<Outcome> {
    loom::run(&loom::Options { bound: loom::CI_BOUND })
}

fn schedules() -> Result<Outcome> {
    shuttle::run(&shuttle::Options::schedules(shuttle::CI_SCHEDULES))
}

fn miri() -> Result<Outcome> {
    sanitize::miri(&sanitize::MiriOptions::seeds(sanitize::CI_SEEDS))
}

fn fuzz_stage(strict: bool) -> Result<Outcome> {
    if_there_is(fuzz::exists()?, "target", || with("fuzz", strict, fuzz_smoke))
}

fn fuzz_smoke() -> Result<Outcome> {
    fuzz::run(&fuzz::Options { seconds: fuzz::CI_SECONDS, target: None })
}

fn kill() -> Result<Outcome> {
    kill_test::run(&kill_test::Options { rounds: KILL_ROUNDS })
}

fn crashes() -> Result<Outcome> {
    crash::run(&crash::Options { seeds: crash::CI_SEEDS })
}

fn all_mutants() -> Result<Outcome> {
    mutants::run(&mutants::Options::default())
}
