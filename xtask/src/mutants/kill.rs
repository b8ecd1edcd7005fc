//! Running the test that must notice a break.

use super::build::{Built, fuzz_setting, loom_suite, unit_suite};
use super::list::{Kill, Mutant};
use super::side_by_side::side_by_side;
use crate::fuzz::{self, Target};
use crate::place;
use crate::run::{Output, Show};
use crate::{shuttle, tally};
use anyhow::{Result, bail};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

/// What chooses a break, see `core/src/broken.rs`.
const VARIABLE: &str = "TIERCE_MUTANT";

/// What became of a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The test failed.
    Killed,
    /// The test passed.
    Survived,
    /// The test did not end.
    Hung,
    /// Whatever the test did, it did not come to the place that is broken.
    NotReached,
    /// The test failed without having run.
    NothingRan,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Killed => "killed",
            Self::Survived => "SURVIVED",
            Self::Hung => "hung",
            Self::NotReached => "NOT REACHED",
            Self::NothingRan => "NOTHING RAN",
        })
    }
}

/// Runs every test that is to kill something without any break. Each must pass; how long each
/// may take with a break follows from how long it took without.
pub(crate) fn baseline(
    built: &Built,
    mutants: &[Mutant],
    jobs: usize,
) -> Result<HashMap<Kill, Duration>> {
    let mut seen = HashSet::new();
    let kills = mutants.iter().map(|mutant| &mutant.kill).filter(|kill| seen.insert(*kill));
    let limits = side_by_side(&kills.collect::<Vec<_>>(), jobs, |&kill| {
        let started = Instant::now();
        let (verdict, output) = execute(built, kill, None, None)?;
        let took = started.elapsed();
        if verdict != Verdict::Survived {
            bail!("without any break: {kill}: {verdict}\n{}", output.text);
        }
        println!("{:<18} {:>7.1} s  {kill}", "passes as it is", took.as_secs_f64());
        Ok((kill.clone(), took * 10 + Duration::from_secs(60)))
    })?;
    Ok(limits.into_iter().collect())
}

/// Tries to kill one break.
pub(crate) fn attempt(built: &Built, mutant: &Mutant, limit: Duration) -> Result<Verdict> {
    let (verdict, output) = execute(built, &mutant.kill, Some(&mutant.name), Some(limit))?;
    if matches!(verdict, Verdict::NothingRan | Verdict::NotReached) {
        println!("{}: {}", mutant.name, output.text);
    }
    Ok(verdict)
}

/// Runs the test, with a break if one is given.
fn execute(
    built: &Built,
    kill: &Kill,
    mutant: Option<&str>,
    limit: Option<Duration>,
) -> Result<(Verdict, Output)> {
    let (verdict, output) = match kill {
        Kill::Fuzz { directory, target, seconds } => {
            let output = search(&Target::new(directory, target), *seconds, mutant)?;
            (fuzz_verdict(&output), output)
        }
        _ => run_tests(built, kill, mutant, limit)?,
    };
    let reached = |name| output.text.contains(&format!("deliberate break {name} reached"));
    Ok(match mutant {
        Some(name) if !reached(name) => (Verdict::NotReached, output),
        _ => (verdict, output),
    })
}

fn run_tests(
    built: &Built,
    kill: &Kill,
    mutant: Option<&str>,
    limit: Option<Duration>,
) -> Result<(Verdict, Output)> {
    let (tests, filter) = match kill {
        Kill::Loom { filter, .. } => (loom_suite(), filter),
        Kill::Shuttle { filter, schedules, .. } => (shuttle::scenarios(*schedules), filter),
        Kill::Test { filter, .. } => (unit_suite(), filter),
        Kill::Fuzz { .. } | Kill::Equivalent(_) | Kill::Open(_) => bail!("{kill} is no test"),
    };
    let mut command = built.program(kill)?.command(&tests);
    command.arg(filter);
    // Several run side by side, and where a filter names several tests most fail in the first.
    command.env("RUST_TEST_THREADS", "1");
    if let Ok(reference) = place::reference() {
        command.env("TIERCE_REFERENCE", reference);
    }
    if let Some(mutant) = mutant {
        command.env(VARIABLE, mutant);
    }
    let output = crate::run::run_within(command, Show::Never, limit)?;
    let tally = tally::cargo_test(&output.text);
    let aborted = output.status.code().is_none();
    let verdict = match output.status.success() {
        _ if output.timed_out => Verdict::Hung,
        true if tally.passed > 0 => Verdict::Survived,
        false if tally.failed > 0 || aborted => Verdict::Killed,
        _ => Verdict::NothingRan,
    };
    Ok((verdict, output))
}

/// Lets a fuzz target search, as long as it may if something is broken, else as long as CI does.
fn search(target: &Target, seconds: u64, mutant: Option<&str>) -> Result<Output> {
    let seconds = mutant.map_or(seconds.min(fuzz::CI_SECONDS), |_| seconds);
    let mut setting = fuzz_setting(seconds);
    setting.corpora = place::target("mutants").join("corpus").join(mutant.unwrap_or("unbroken"));
    setting.env.extend(mutant.map(|mutant| (VARIABLE, mutant.into())));
    target.run(&setting, Show::Never)
}

fn fuzz_verdict(output: &Output) -> Verdict {
    let ran = tally::numbers_before(&output.text, "Done ", "runs").sum::<u64>();
    match output.status.success() {
        true if ran > 0 => Verdict::Survived,
        false if output.text.contains("SUMMARY: ") => Verdict::Killed,
        _ => Verdict::NothingRan,
    }
}
