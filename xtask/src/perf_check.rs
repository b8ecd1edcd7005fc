//! Instruction counts of the kernels, compared with a checked-in table: they do not change with
//! what else the machine does, so a regression shows on any machine that has valgrind.
//!
//! A kernel is run twice under callgrind, once for a few operations and once for many; the
//! difference, divided by how many more, is what one operation costs, start-up left out. Counts
//! depend on the compiler, on valgrind, and on the processor (its model decides which vector code
//! is chosen), so the table names what it was made with; with anything else the task is skipped,
//! saying so, until somebody makes the table anew (`--bless`).

use crate::place;
use crate::report::Outcome;
use crate::run::{self, Show};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Percent by which a count may differ.
const TOLERANCE: f64 = 3.0;

const TABLE: &str = "benches/results/instructions.toml";

#[derive(Args)]
pub(crate) struct Options {
    /// Make the table anew from what is counted now
    #[arg(long)]
    pub(crate) bless: bool,
}

#[derive(Deserialize, Debug)]
struct Table {
    /// Compiler, valgrind, processor.
    made_with: String,
    /// Instructions per operation.
    kernels: BTreeMap<String, f64>,
}

/// Counts, and compares or blesses.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    if !is_there("valgrind") {
        return Ok(Outcome::skipped("valgrind is not installed"));
    }
    let (table, with) = (read_table()?, made_with()?);
    if !options.bless && table.made_with != with {
        let note = format!("{TABLE} is of {}, this is {with}: --bless", table.made_with);
        return Ok(Outcome::skipped(note));
    }
    let counts = count_all(&build()?)?;
    if options.bless {
        std::fs::write(place::root().join(TABLE), text(&with, &counts))?;
        return Ok(Outcome::clean(format!("{} kernels written to {TABLE}", counts.len())));
    }
    let off = differences(&table.kernels, &counts);
    off.iter().for_each(|line| println!("{line}"));
    let (failed, all) = (off.len() as u64, counts.len() as u64);
    Ok(Outcome::suite(all.saturating_sub(failed), failed, "kernels, ± 3 % of the table"))
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Everything that counts depend on besides the code.
fn made_with() -> Result<String> {
    let version = |program: std::ffi::OsString| {
        let mut command = Command::new(program);
        command.arg("--version");
        run::run(command, Show::Never).map(|output| output.text.trim().to_owned())
    };
    let rustc = version(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))?;
    let valgrind = version("valgrind".into())?;
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |name: &str| {
        let line = cpus.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": ")).map_or("?", |(_, value)| value).to_owned()
    };
    let (vendor, family, model) = (of("vendor_id"), of("cpu family"), of("model\t"));
    Ok(format!("{rustc}, {valgrind}, {vendor} {family}/{model}"))
}

fn read_table() -> Result<Table> {
    let path = place::root().join(TABLE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {TABLE}"))?;
    toml::from_str(&text).with_context(|| format!("{TABLE} is malformed"))
}

fn text(made_with: &str, counts: &BTreeMap<String, f64>) -> String {
    let mut text = format!(
        "# Instructions per operation, by `cargo xtask perf-check --bless`. What an operation is\n\
         # stands in benches/src/kernels.rs.\n\
         made_with = \"{made_with}\"\n\n[kernels]\n"
    );
    for (name, count) in counts {
        let _ = writeln!(text, "{name} = {count:.1}");
    }
    text
}

fn build() -> Result<PathBuf> {
    let bin = ["build", "--release", "-p", "tierce-bench", "--bin", "tierce-instructions"];
    let output = run::run(run::cargo(bin), Show::OnFailure)?;
    ensure!(output.status.success(), "the kernels do not build");
    Ok(place::target("release").join("tierce-instructions"))
}

fn count_all(program: &Path) -> Result<BTreeMap<String, f64>> {
    let list = run::run(Command::new(program), Show::Never)?.text;
    let mut counts = BTreeMap::new();
    for line in list.lines() {
        let mut parts = line.split('\t');
        let (name, times) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let times: u64 = times.parse().with_context(|| format!("a kernel in {line:?}"))?;
        let (few, many) = (times / 10, times);
        let more = instructions(program, name, many)? - instructions(program, name, few)?;
        let each = more as f64 / (many - few) as f64;
        println!("{name:12} {each:12.1} instructions");
        counts.insert(name.to_owned(), each);
    }
    ensure!(!counts.is_empty(), "{} lists no kernels", program.display());
    Ok(counts)
}

fn instructions(program: &Path, kernel: &str, times: u64) -> Result<i64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    command.arg(kernel).arg(times.to_string());
    let output = run::run(command, Show::Never)?;
    ensure!(output.status.success(), "valgrind fails on {kernel}:\n{}", output.text);
    collected(&output.text).with_context(|| format!("valgrind counted nothing:\n{}", output.text))
}

/// The number in `==123== Collected : 456`.
fn collected(text: &str) -> Option<i64> {
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// What differs by more than the tolerance, or is in one of the two alone.
fn differences(table: &BTreeMap<String, f64>, counts: &BTreeMap<String, f64>) -> Vec<String> {
    let mut off = Vec::new();
    for (name, &count) in counts {
        match table.get(name) {
            None => off.push(format!("{name}: {count:.1} instructions, not in {TABLE}")),
            Some(&wanted) => {
                let percent = (count / wanted - 1.0) * 100.0;
                if !(-TOLERANCE..=TOLERANCE).contains(&percent) {
                    off.push(format!(
                        "{name}: {count:.1} instructions, wanted {wanted:.1} ({percent:+.1} %)"
                    ));
                }
            }
        }
    }
    let gone = table.keys().filter(|name| !counts.contains_key(*name));
    off.extend(gone.map(|name| format!("{name}: in {TABLE}, not counted")));
    off
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn more_than_three_percent_differ() {
        let table = counts(&[("a", 100.0), ("b", 100.0), ("c", 100.0), ("gone", 1.0)]);
        let found = counts(&[("a", 102.9), ("b", 103.1), ("c", 96.9), ("new", 1.0)]);
        let off = differences(&table, &found);
        let names: Vec<_> = off.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(names, ["b", "c", "new", "gone"]);
    }

    #[test]
    fn the_table_is_read_as_it_is_written() {
        let all = counts(&[("a", 10.0), ("b", 1234.5)]);
        let table: Table = toml::from_str(&text("rustc 1.2.3", &all)).unwrap();
        assert_eq!((table.made_with.as_str(), table.kernels), ("rustc 1.2.3", all));
        assert!(!read_table().unwrap().kernels.is_empty());
    }

    #[test]
    fn the_count_is_found_in_what_valgrind_says() {
        assert_eq!(collected("==7== Events : Ir\n==7== Collected : 42\n"), Some(42));
        assert_eq!(collected("==7== error"), None);
    }
}
