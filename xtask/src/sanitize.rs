//! Runs of the real thing under tools that see more than it shows: Miri (undefined behaviour,
//! data races, weak memory), ThreadSanitizer (data races at nearly full speed), and a check that
//! the code builds for another processor.
//!
//! Each needs a part of the toolchain that not every machine has; where it is missing the task
//! says which, and how it is installed.

use crate::place;
use crate::report::Outcome;
use crate::run::{self, Show};
use crate::suites;
use crate::tally;
use anyhow::{Result, ensure};
use clap::Args;
use std::process::Command;

/// Seeds that CI gives Miri; each is a run with other interleavings and other stale values.
pub(crate) const CI_SEEDS: u32 = 2;
/// Another processor with 64-bit atomics, and weaker ordering than x86.
const OTHER_TARGET: &str = "aarch64-unknown-linux-gnu";
/// The crates that are to build there.
const OTHER_PACKAGES: [&str; 2] = ["tierce-core", "tierce-lockfree"];

#[derive(Args)]
pub(crate) struct MiriOptions {
    /// How many seeds
    #[arg(long, default_value_t = 16)]
    pub(crate) seeds: u32,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    pub(crate) first_seed: u32,
    /// Only tests whose name contains this
    #[arg(long, default_value = "")]
    pub(crate) filter: String,
}

impl MiriOptions {
    /// So many seeds of all tests.
    pub(crate) fn seeds(seeds: u32) -> Self {
        Self { seeds, first_seed: 0, filter: String::new() }
    }
}

#[derive(Args)]
pub(crate) struct TsanOptions {
    /// How long the stress test runs, with 32 threads
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
}

/// `cargo +nightly …`; the toolchain's own cargo must not be forced upon it.
fn nightly<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly").args(arguments).current_dir(place::root());
    command.env("CARGO_TERM_COLOR", "never").env_remove("CARGO").env_remove("RUSTC");
    // Set by the cargo that runs this program: it would choose the toolchain again.
    command.env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn succeeds(command: Command) -> bool {
    run::run(command, Show::Never).is_ok_and(|output| output.status.success())
}

/// What rustup lists with these arguments.
fn rustup(arguments: &[&str]) -> String {
    let mut command = Command::new("rustup");
    command.args(arguments);
    run::run(command, Show::Never).map(|output| output.text).unwrap_or_default()
}

fn nightly_has(component: &str) -> bool {
    let installed = rustup(&["component", "list", "--installed", "--toolchain", "nightly"]);
    installed.lines().any(|line| line.starts_with(component))
}

/// Runs lockfree's small races under Miri, once per seed.
pub(crate) fn miri(options: &MiriOptions) -> Result<Outcome> {
    if !nightly_has("rust-src") || !succeeds(nightly(["miri", "--version"])) {
        let how = "rustup component add miri rust-src --toolchain nightly";
        return Ok(Outcome::skipped(format!("not available: {how}")));
    }
    ensure!(options.seeds > 0, "at least one seed");
    let (mut passed, mut failed, mut red) = (0, 0, Vec::new());
    for seed in options.first_seed..options.first_seed.saturating_add(options.seeds) {
        let output = run::run(miri_command(seed, &options.filter), Show::OnFailure)?;
        let tally = tally::cargo_test(&output.text);
        let outcome = suites::outcome(&output, &tally, String::new());
        println!("miri seed {seed}: {} passed, {} failed", outcome.passed, outcome.failed);
        (passed, failed) = (passed + outcome.passed, failed + outcome.failed);
        if outcome.failed > 0 {
            red.push(seed.to_string());
        }
    }
    let note = match red.is_empty() {
        true => format!("runs of tests, {} seeds", options.seeds),
        false => format!("seeds that failed: {}", red.join(", ")),
    };
    Ok(Outcome::suite(passed, failed, note))
}

/// One process per seed: what several print at once could not be counted.
fn miri_command(seed: u32, filter: &str) -> Command {
    let mut command =
        nightly(["miri", "test", "-p", "tierce-lockfree", "--test", "small_races", "--"]);
    command.arg(filter).env("CARGO_TARGET_DIR", place::target("miri"));
    // Isolation would take away the clock, by which waits are timed.
    command.env("MIRIFLAGS", format!("-Zmiri-seed={seed} -Zmiri-disable-isolation"));
    command
}

/// Runs the stress test and the small races under ThreadSanitizer. The standard library is built
/// with it too: without, it would miss what std orders and complain of it.
pub(crate) fn tsan(options: &TsanOptions) -> Result<Outcome> {
    if !nightly_has("rust-src") {
        let how = "rustup component add rust-src --toolchain nightly";
        return Ok(Outcome::skipped(format!("not available: {how}")));
    }
    let target = "x86_64-unknown-linux-gnu";
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        return Ok(Outcome::skipped(format!("not available: made for {target}")));
    }
    let mut command = nightly(["test", "-Zbuild-std", "--target", target, "--release"]);
    command.args(["-p", "tierce-lockfree", "--test", "stress", "--test", "small_races"]);
    command.env("CARGO_TARGET_DIR", place::target("tsan"));
    // Portable: it does not see what assembly does, and would complain of what that orders.
    command.env("RUSTFLAGS", run::rustflags("-Zsanitizer=thread --cfg tierce_portable"));
    command.env("TSAN_OPTIONS", "halt_on_error=1");
    command.env("TIERCE_SOAK_SECONDS", options.seconds.to_string());
    let output = run::run(command, Show::OnFailure)?;
    let tally = tally::cargo_test(&output.text);
    Ok(suites::outcome(&output, &tally, format!("tests; stress for {} s each", options.seconds)))
}

/// Checks the allocator for another processor.
pub(crate) fn other_target() -> Result<Outcome> {
    let installed = rustup(&["target", "list", "--installed"]);
    if !installed.lines().any(|line| line.trim() == OTHER_TARGET) {
        let how = format!("rustup target add {OTHER_TARGET}");
        return Ok(Outcome::skipped(format!("not available: {how}")));
    }
    let mut command = run::cargo(["check", "--target", OTHER_TARGET]);
    command.args(OTHER_PACKAGES.iter().flat_map(|package| ["-p", package]));
    let output = run::run(command, Show::OnFailure)?;
    Ok(match output.status.success() {
        true => Outcome::clean(format!("{} for {OTHER_TARGET}", OTHER_PACKAGES.join(" and "))),
        false => Outcome::broken(output.status.to_string()),
    })
}
