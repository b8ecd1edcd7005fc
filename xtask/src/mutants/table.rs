//! The list as a table in `lockfree/README.md`, the page that reviewers read.
//!
//! It lies between two marks and is written by `cargo xtask mutants --table`. A page that does not
//! contain exactly what the list says fails the task and a unit test.

use super::list::Mutant;
use crate::place;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

const BEGIN: &str = "<!-- mutants: written by `cargo xtask mutants --table` -->\n";
const END: &str = "<!-- end of mutants -->\n";

fn page() -> PathBuf {
    place::root().join("lockfree/README.md")
}

/// The table of these.
fn table(mutants: &[Mutant]) -> String {
    let mut text = String::from("\n| break | what goes wrong | noticed by |\n|---|---|---|\n");
    for Mutant { name, breaks, kill, .. } in mutants {
        let cells = [breaks.clone(), kill.to_string()].map(|cell| cell.replace('|', "\\|"));
        writeln!(text, "| `{name}` | {} | {} |", cells[0], cells[1]).expect("into a string");
    }
    text.push('\n');
    text
}

/// `page` with `table` between the marks.
fn with_table(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn read() -> Result<String> {
    fs::read_to_string(page()).with_context(|| format!("reading {}", page().display()))
}

fn wanted(page_now: &str, mutants: &[Mutant]) -> Result<String> {
    with_table(page_now, &table(mutants))
        .with_context(|| format!("{} lacks the marks of the table", page().display()))
}

/// Fails unless the page says what the list says.
pub(crate) fn check(mutants: &[Mutant]) -> Result<()> {
    let now = read()?;
    ensure!(
        wanted(&now, mutants)? == now,
        "the table in {} differs from xtask/mutants.toml: cargo xtask mutants --table writes it",
        page().display()
    );
    Ok(())
}

/// Writes the table into the page.
pub(crate) fn write(mutants: &[Mutant]) -> Result<()> {
    let text = wanted(&read()?, mutants)?;
    fs::write(page(), text).with_context(|| format!("writing {}", page().display()))
}

#[cfg(test)]
mod tests {
    use super::super::list::Kill;
    use super::*;

    #[test]
    fn the_table_is_put_between_its_marks() {
        let mutant = Mutant {
            name: "a".into(),
            breaks: "x | y".into(),
            kill: Kill::Loom { test: "t".into(), filter: "f".into() },
            hangs: false,
        };
        let table = table(&[mutant]);
        assert!(table.contains("| `a` | x \\| y | loom t::f |\n"), "{table}");
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        let wanted = format!("before\n{BEGIN}{table}{END}after\n");
        assert_eq!(with_table(&page, &table), Some(wanted.clone()));
        assert_eq!(with_table(&wanted, &table), Some(wanted), "it is there already");
        assert_eq!(with_table("no marks", &table), None);
    }
}
