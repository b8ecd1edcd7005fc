//! The table at the end of every task, and its closing line.
//!
//! The closing line `N passed, N failed` counts tests, models, fuzz targets and mutants. A check
//! without tests of its own (format, lints …) adds nothing when it passes and 1 when it fails,
//! so that the line never says `0 failed` after a failure.

use anyhow::Result;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What a stage found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Tests, models, targets or mutants that did what they should.
    pub(crate) passed: u64,
    /// Those that did not.
    pub(crate) failed: u64,
    /// Whether the stage did not take place, for the reason in `note`.
    pub(crate) skipped: bool,
    /// A word for the table.
    pub(crate) note: String,
}

impl Outcome {
    /// A check that passed, without tests of its own.
    pub(crate) fn clean(note: impl Into<String>) -> Self {
        Self { note: note.into(), ..Self::default() }
    }

    /// A check that failed, without tests of its own.
    pub(crate) fn broken(note: impl Into<String>) -> Self {
        Self { failed: 1, note: note.into(), ..Self::default() }
    }

    /// A stage that did not take place.
    pub(crate) fn skipped(note: impl Into<String>) -> Self {
        Self { skipped: true, note: note.into(), ..Self::default() }
    }

    /// A suite: one that ran nothing has failed.
    pub(crate) fn suite(passed: u64, failed: u64, note: impl Into<String>) -> Self {
        if passed + failed == 0 {
            return Self::broken("nothing ran");
        }
        Self { passed, failed, note: note.into(), skipped: false }
    }
}

/// The stage if its suite exists, else a word that it does not.
pub(crate) fn if_there_is(
    exists: bool,
    what: &str,
    stage: impl FnOnce() -> Result<Outcome>,
) -> Result<Outcome> {
    if exists { stage() } else { Ok(Outcome::skipped(format!("there is no {what} yet"))) }
}

struct Row {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// The stages of a task.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Runs a stage and says at once what came of it. An error fails the stage, not the task.
    pub(crate) fn stage(&mut self, name: &'static str, body: impl FnOnce() -> Result<Outcome>) {
        println!("\n== {name}");
        let started = Instant::now();
        let outcome = body().unwrap_or_else(|error| Outcome::broken(format!("{error:#}")));
        let row = Row { name, outcome, took: started.elapsed() };
        println!("{}", row.render());
        self.rows.push(row);
    }

    /// Prints table and closing line.
    pub(crate) fn finish(&self) -> ExitCode {
        print!("{}", self.render());
        if self.failed() == 0 && self.passed() + self.clean() > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn passed(&self) -> u64 {
        self.rows.iter().map(|row| row.outcome.passed).sum()
    }

    fn failed(&self) -> u64 {
        self.rows.iter().map(|row| row.outcome.failed).sum()
    }

    /// Checks without tests that took place.
    fn clean(&self) -> u64 {
        self.rows.iter().map(|row| u64::from(!row.outcome.skipped)).sum()
    }

    fn render(&self) -> String {
        let mut text = format!("\n{HEADER}\n");
        for row in &self.rows {
            text.push_str(&row.render());
            text.push('\n');
        }
        let took = self.rows.iter().map(|row| row.took).sum::<Duration>();
        let (passed, failed) = (self.passed(), self.failed());
        let total = format!("{:<12}{:<9}{passed:>8}{failed:>8}", "total", "");
        let _ = writeln!(text, "{total}{:>10.1}", took.as_secs_f64());
        let _ = writeln!(text, "\n{passed} passed, {failed} failed");
        text
    }
}

const HEADER: &str = "stage       result     passed  failed   seconds";

impl Row {
    fn render(&self) -> String {
        let Outcome { passed, failed, skipped, note } = &self.outcome;
        let result = match (skipped, failed) {
            (true, _) => "skipped",
            (false, 0) => "ok",
            (false, _) => "FAILED",
        };
        let seconds = self.took.as_secs_f64();
        let row = format!("{:<12}{result:<9}{passed:>8}{failed:>8}{seconds:>10.1}", self.name);
        if note.is_empty() { row } else { format!("{row}  {note}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn closing_line(report: &Report) -> String {
        let text = report.render();
        let is_closing = |line: &&str| line.ends_with(" failed") && line.contains(" passed, ");
        let lines = text.lines().filter(is_closing).collect::<Vec<_>>();
        assert_eq!(lines.len(), 1, "{text}");
        assert!(text.ends_with(&format!("{}\n", lines[0])), "it comes last");
        lines[0].to_owned()
    }

    #[test]
    fn closing_line_counts_tests_and_broken_checks() {
        let mut report = Report::default();
        report.stage("fmt", || Ok(Outcome::clean("")));
        report.stage("tests", || Ok(Outcome::suite(12, 0, "")));
        assert_eq!(closing_line(&report), "12 passed, 0 failed");
        assert_eq!(report.finish(), ExitCode::SUCCESS);
        report.stage("clippy", || bail!("a lint"));
        assert_eq!(closing_line(&report), "12 passed, 1 failed");
        assert_eq!(report.finish(), ExitCode::FAILURE);
    }

    #[test]
    fn a_suite_that_ran_nothing_has_failed() {
        let mut report = Report::default();
        report.stage("tests", || Ok(Outcome::suite(0, 0, "")));
        assert_eq!(closing_line(&report), "0 passed, 1 failed");
        assert_eq!(report.finish(), ExitCode::FAILURE);
    }

    #[test]
    fn a_task_of_which_everything_was_skipped_has_failed() {
        let mut report = Report::default();
        report.stage("loom", || Ok(Outcome::skipped("no models")));
        assert_eq!(report.finish(), ExitCode::FAILURE);
    }
}
