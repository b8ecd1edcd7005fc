//! The deliberate breaks: a test that cannot fail proves nothing, so each is shown to fail.
//!
//! `mutants.toml` lists them and says how one is written; `list.rs` reads it, `hooks.rs` finds
//! the hooks in the sources, `kill.rs` builds and runs.
//!
//! 1. List and hooks are compared: a name on one side only fails the task. So are the list and the
//!    table in `lockfree/README.md` (`table.rs`).
//! 2. Each test that is to kill something runs on the code as it is and must pass. Otherwise
//!    its failure later would mean nothing.
//! 3. For each break the code is built with it. A break that does not build is no kill.
//! 4. The test runs. If it fails, the break is killed; if it passes, the break has survived and
//!    the task fails. A test that hangs kills only a break that is said to hang.

mod hooks;
mod kill;
mod list;
mod table;

use crate::place;
use crate::report::Outcome;
use anyhow::{Result, bail, ensure};
use clap::Args;
use kill::Verdict;
use list::{Kill, Mutant};
use std::process::ExitCode;
use std::time::Instant;

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Try only these
    names: Vec<String>,
    /// Try only so many, drawn at random among those that have a test
    #[arg(long, conflicts_with = "names")]
    sample: Option<usize>,
    /// What the random draw starts from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the list and what kills each, and end
    #[arg(long)]
    pub(crate) list: bool,
    /// Write the table in lockfree/README.md anew, and end
    #[arg(long, conflicts_with = "list")]
    pub(crate) table: bool,
}

impl Options {
    /// So many, drawn with `seed`.
    pub(crate) fn sample(count: usize, seed: u64) -> Self {
        Self { sample: Some(count), seed, ..Self::default() }
    }
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
    let limits = kill::baseline(&tried)?;
    for mutant in tried {
        let started = Instant::now();
        let verdict = kill::attempt(&mutant, limits[&mutant.kill])?;
        let seconds = started.elapsed().as_secs_f64();
        println!("{verdict:<18} {seconds:>7.1} s  {}  ({})", mutant.name, mutant.kill);
        if verdict == Verdict::Killed || verdict == Verdict::Hung && mutant.hangs {
            killed += 1;
        } else {
            failed.push(mutant.name);
        }
    }
    kill::clean_up()?;
    let mut note = format!("of {count} mutants; {argued} argued equivalent");
    if !failed.is_empty() {
        note = format!("not killed: {}", failed.join(", "));
    }
    Ok(Outcome::suite(killed, failed.len() as u64, note))
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
    if let Some(sample) = options.sample {
        all.retain(|mutant| mutant.kill.is_test());
        draw(&mut all, sample, options.seed);
    }
    Ok(all)
}

/// Keeps `count` items, each choice equally likely, the same for the same seed
/// (Fisher–Yates with SplitMix64).
fn draw<T>(items: &mut Vec<T>, count: usize, seed: u64) {
    let mut state = seed;
    for i in 0..count.min(items.len()) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = state;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        let left = (items.len() - i) as u64;
        items.swap(i, i + (bits % left) as usize);
    }
    items.truncate(count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_sample_has_the_size_asked_for_and_no_repeats() {
        for seed in 0..100 {
            let mut items = (0..10).collect::<Vec<_>>();
            draw(&mut items, 4, seed);
            assert_eq!(items.iter().collect::<BTreeSet<_>>().len(), 4);
            let mut again = (0..10).collect::<Vec<_>>();
            draw(&mut again, 4, seed);
            assert_eq!(items, again, "the seed decides");
        }
        let mut few = vec![1, 2];
        draw(&mut few, 5, 1);
        assert_eq!(few.len(), 2);
    }

    #[test]
    fn every_item_is_drawn_by_some_seed() {
        let drawn = (0..200).flat_map(|seed| {
            let mut items = (0..10).collect::<Vec<_>>();
            draw(&mut items, 1, seed);
            items
        });
        assert_eq!(drawn.collect::<BTreeSet<_>>().len(), 10);
    }

    /// The checked-in list, the sources and the page agree.
    #[test]
    fn list_hooks_and_table_agree() {
        checked_list().unwrap();
    }
}
