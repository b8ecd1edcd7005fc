//! The deliberate breaks: a test that cannot fail proves nothing, so each is shown to fail.
//!
//! `mutants.toml` lists them and says how one is written; `list.rs` reads it, `hooks.rs` finds
//! the hooks in the sources, `build.rs` builds, `kill.rs` runs.
//!
//! 1. List and hooks are compared: a name on one side only fails the task. So are the list and the
//!    table in `lockfree/README.md` (`table.rs`).
//! 2. Everything that is to kill something is built, once, with all breaks; which one is made is
//!    chosen when a test runs (`core/src/broken.rs`).
//! 3. Each of these tests runs without any break and must pass. Otherwise its failure later would
//!    mean nothing.
//! 4. For each break its test runs. If it fails, the break is killed; if it passes, the break has
//!    survived and the task fails. A test that hangs kills only a break that is said to hang, and
//!    one that never came to the broken place kills nothing.
//!
//! Tests run several at a time (`side_by_side.rs`): most keep one processor busy. What was not
//! killed is tried once more, alone.

mod build;
mod hooks;
mod kill;
mod list;
mod side_by_side;
mod table;

use crate::place;
use crate::report::Outcome;
use crate::run;
use anyhow::{Result, bail, ensure};
use build::Built;
use clap::Args;
use kill::Verdict;
use list::{Kill, Mutant};
use side_by_side::side_by_side;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Try only these
    names: Vec<String>,
    /// How many tests run at a time; as many as there are processors if nothing is said
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Print the list and what kills each, and end
    #[arg(long)]
    pub(crate) list: bool,
    /// Write the table in lockfree/README.md anew, and end
    #[arg(long, conflicts_with = "list")]
    pub(crate) table: bool,
}

/// Whether there are any with a test that is to kill them.
pub(crate) fn exist() -> Result<bool> {
    Ok(list::read()?.iter().any(|mutant| mutant.kill.is_test()))
}

/// Prints the list.
pub(crate) fn print_list() -> ExitCode {
    match checked_list() {
        Ok(mutants) => {
            for mutant in &mutants {
                println!("{}: {}\n    {}", mutant.name, mutant.breaks, mutant.kill);
            }
            println!("{} mutants", mutants.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the table in `lockfree/README.md`.
pub(crate) fn write_table() -> Result<Outcome> {
    let mutants = compared_list()?;
    table::write(&mutants)?;
    Ok(Outcome::clean(format!("{} mutants", mutants.len())))
}

/// Tries the chosen breaks.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let all = checked_list()?;
    let count = all.len();
    let chosen = choose(all, options)?;
    let (tried, others): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|mutant| mutant.kill.is_test());
    let (mut killed, mut argued, mut failed) = (0, 0, Vec::new());
    for Mutant { name, kill, .. } in others {
        println!("{name}: {kill}");
        match kill {
            Kill::Equivalent(_) => argued += 1,
            _ => failed.push(name),
        }
    }
    let tried = without_missing_tools(tried);
    for (mutant, is_killed) in try_all(&tried, options.jobs)? {
        if is_killed {
            killed += 1;
        } else {
            failed.push(mutant.name.clone());
        }
    }
    let mut note = format!("of {count} mutants; {argued} argued equivalent");
    if !failed.is_empty() {
        note = format!("not killed: {}", failed.join(", "));
    }
    Ok(Outcome::suite(killed, failed.len() as u64, note))
}

/// Leaves out those that cannot be tried here, with a word.
fn without_missing_tools(mut mutants: Vec<Mutant>) -> Vec<Mutant> {
    let needs_fuzz = |mutant: &Mutant| matches!(mutant.kill, Kill::Fuzz { .. });
    if mutants.iter().any(needs_fuzz)
        && let Err(error) = run::need_cargo_tool("fuzz")
    {
        let left_out = mutants.extract_if(.., |mutant| needs_fuzz(mutant));
        left_out.for_each(|mutant| println!("{} is not tried: {error}", mutant.name));
    }
    mutants
}

/// Builds and runs; says of each whether it was killed.
fn try_all(mutants: &[Mutant], jobs: Option<NonZeroUsize>) -> Result<Vec<(&Mutant, bool)>> {
    let started = Instant::now();
    let built = Built::new(mutants.iter().map(|mutant| &mutant.kill))?;
    println!("{:<18} {:>7.1} s", "built", started.elapsed().as_secs_f64());
    let jobs = jobs.map_or_else(available_parallelism, Ok).map_or(1, NonZeroUsize::get);
    let limits = kill::baseline(&built, mutants, jobs)?;
    let attempt = |mutant: &Mutant| {
        let started = Instant::now();
        let verdict = kill::attempt(&built, mutant, limits[&mutant.kill])?;
        let seconds = started.elapsed().as_secs_f64();
        println!("{verdict:<18} {seconds:>7.1} s  {}  ({})", mutant.name, mutant.kill);
        Ok(verdict == Verdict::Killed || verdict == Verdict::Hung && mutant.hangs)
    };
    let killed = side_by_side(mutants, jobs, attempt)?;
    let mut verdicts: Vec<_> = mutants.iter().zip(killed).collect();
    // Real threads have to meet, and on a busy machine they seldom do.
    for (mutant, killed) in verdicts.iter_mut().filter(|(_, killed)| !killed) {
        println!("{}: once more, alone", mutant.name);
        *killed = attempt(mutant)?;
    }
    Ok(verdicts)
}

/// The list, after it was compared with the hooks and the table.
fn checked_list() -> Result<Vec<Mutant>> {
    let mutants = compared_list()?;
    table::check(&mutants)?;
    Ok(mutants)
}

/// The list, after it was compared with the hooks.
fn compared_list() -> Result<Vec<Mutant>> {
    let mutants = list::read()?;
    let hooks = hooks::find(place::root())?;
    let problems = hooks::compare(&mutants, &hooks);
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(mutants)
}

/// The mutants that the options ask for.
fn choose(mut all: Vec<Mutant>, options: &Options) -> Result<Vec<Mutant>> {
    for name in &options.names {
        if !all.iter().any(|mutant| mutant.name == *name) {
            bail!("there is no mutant {name}; see --list");
        }
    }
    if !options.names.is_empty() {
        all.retain(|mutant| options.names.contains(&mutant.name));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checked-in list, the sources and the page agree.
    #[test]
    fn list_hooks_and_table_agree() {
        checked_list().unwrap();
    }
}
