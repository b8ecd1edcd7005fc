//! `tierce crash`: random histories on a simulated device that loses power.

use crate::stdout::print;
use clap::ValueEnum;
use std::process::ExitCode;
use tierce_io::explore::{self, Coverage, OPERATIONS, Violation, explore};

/// From so many seeds on everything that is to be explored must have been met.
const SEEDS_FOR_COVERAGE: u64 = 100;

/// Explore crashes: random histories on a simulated device whose power goes at a random
/// operation, a look at what survived, and on. Needs no device.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds, each a history of its own.
    #[arg(long, default_value_t = 500, conflicts_with = "seed",
        value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    first: u64,
    /// This seed only, as it is printed for a failure.
    #[arg(long)]
    seed: Option<u64>,
    /// Operations of each history, at most.
    #[arg(long, default_value_t = OPERATIONS, value_parser = clap::value_parser!(u32).range(1..))]
    operations: u32,
    /// What kind of device.
    #[arg(long, value_enum, default_value_t = Mode::Normal)]
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Keeps its promises: nothing may be found.
    Normal,
    /// Flushes make nothing durable: something must be found.
    LyingFlush,
}

impl From<Mode> for explore::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Normal => Self::Normal,
            Mode::LyingFlush => Self::LyingFlush,
        }
    }
}

/// Says what was met, and in its last line how many seeds were clean. Violations of a device
/// that keeps its promises are printed with the command that repeats the shortest history found.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (first, count) = args.seed.map_or((args.first, args.seeds), |seed| (seed, 1));
    let mut coverage = Coverage::default();
    let mut violations: Vec<Violation> = Vec::new();
    for seed in (0..count).map(|nth| first.wrapping_add(nth)) {
        match explore(seed, args.operations, args.mode.into()) {
            Ok(met) => coverage.merge(&met),
            Err(violation) => {
                if args.mode == Mode::Normal {
                    print(&format!("{}\n", violation.clone().minimised()))?;
                }
                violations.push(violation);
            }
        }
    }
    let clean = count - violations.len() as u64;
    print(&format!("{coverage}{clean} seeds clean, {} with violations\n", violations.len()))?;
    match args.mode {
        Mode::Normal => {
            anyhow::ensure!(violations.is_empty(), "rules were broken, see above");
            let missing: Vec<_> = coverage.missing().map(|kind| kind.to_string()).collect();
            let is_explored = missing.is_empty() || count < SEEDS_FOR_COVERAGE;
            anyhow::ensure!(is_explored, "never met: {}", missing.join("; "));
        }
        Mode::LyingFlush => {
            let Some(violation) = violations.into_iter().next() else {
                anyhow::bail!("the device lied and nobody noticed: the checker is blind");
            };
            print(&format!("as it must be; the first: {}\n", violation.minimised()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
