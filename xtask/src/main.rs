//! Project tasks: `cargo xtask ci` and its parts, each of which runs alone as well.
//!
//! | file | what it does |
//! |---|---|
//! | `ci.rs` | everything a change must pass, in one run |
//! | `soak.rs` | the same suites, for as long as one has time |
//! | `suites.rs` | tests, doctests and stress tests through nextest or cargo test |
//! | `loom.rs` | the model checks |
//! | `shuttle.rs` | random schedules of the composed allocator |
//! | `sanitize.rs` | Miri, ThreadSanitizer, a check for another processor |
//! | `fuzz.rs` | every fuzz target of every crate |
//! | `mutants/` | the deliberate breaks, each of which a test must notice |
//! | `kill_test.rs` | kill −9 in mid-replay, many rounds |
//! | `crash.rs` | power losses on a simulated device, many histories |
//! | `checks.rs` | fmt, clippy, docs, licences, dependencies |
//! | `perf_check.rs` | instruction counts beside a checked-in table |
//! | `coverage.rs` | regions of core that no test runs |
//! | `run.rs`, `tally.rs`, `report.rs`, `place.rs` | commands, counting, the table, where things are |
//!
//! Every task ends with the same table and exits with 1 if a row failed. A suite that ran
//! nothing has failed.

mod checks;
mod ci;
mod coverage;
mod crash;
mod fuzz;
mod kill_test;
mod loom;
mod mutants;
mod perf_check;
mod place;
mod report;
mod run;
mod sanitize;
mod shuttle;
mod soak;
mod suites;
mod tally;

use clap::{Parser, Subcommand};
use report::Report;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Project tasks of tierce", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// All that a change must pass: format, lints, docs, tests, models, fuzz, mutants, licences
    Ci(ci::Options),
    /// The model checks of loom-tests
    Loom(loom::Options),
    /// Random schedules of the composed allocator
    Shuttle(shuttle::Options),
    /// Small races under Miri, many seeds (needs a nightly toolchain with miri and rust-src)
    Miri(sanitize::MiriOptions),
    /// The stress test under ThreadSanitizer (needs a nightly toolchain with rust-src)
    Tsan(sanitize::TsanOptions),
    /// Every fuzz target of every crate
    Fuzz(fuzz::Options),
    /// The deliberate breaks: each must turn its test red
    Mutants(mutants::Options),
    /// Long versions of the suites
    Soak(soak::Options),
    /// Kill −9 in mid-replay, open again, compare with a log kept outside the cache
    KillTest(kill_test::Options),
    /// Power losses on a simulated device, at random operations of random histories
    Crash(crash::Options),
    /// Instruction counts of the kernels beside a checked-in table (needs valgrind)
    PerfCheck(perf_check::Options),
    /// How much of tierce-core the tests run (needs cargo-llvm-cov)
    Coverage(coverage::Options),
}

fn main() -> ExitCode {
    let mut report = Report::default();
    match Arguments::parse().task {
        Task::Ci(options) => ci::run(&options, &mut report),
        Task::Loom(options) => report.stage("loom", || loom::run(&options)),
        Task::Shuttle(options) => report.stage("shuttle", || shuttle::run(&options)),
        Task::Miri(options) => report.stage("miri", || sanitize::miri(&options)),
        Task::Tsan(options) => report.stage("tsan", || sanitize::tsan(&options)),
        Task::Fuzz(options) => report.stage("fuzz", || fuzz::run(&options)),
        Task::Mutants(options) if options.list => return mutants::print_list(),
        Task::Mutants(options) if options.table => report.stage("table", mutants::write_table),
        Task::Mutants(options) => report.stage("mutants", || mutants::run(&options)),
        Task::Soak(options) => soak::run(&options, &mut report),
        Task::KillTest(options) => report.stage("kill-test", || kill_test::run(&options)),
        Task::Crash(options) => report.stage("crash", || crash::run(&options)),
        Task::PerfCheck(options) => report.stage("perf-check", || perf_check::run(&options)),
        Task::Coverage(options) => report.stage("coverage", || coverage::run(&options)),
    }
    report.finish()
}
