//! Coverage of tierce-core by its own tests: at least [`LEAST`] percent of its regions.
//! `core/COVERAGE.md` lists those that no test runs, with the reason of each.

use crate::report::Outcome;
use crate::run::{self, Show};
use anyhow::{Context, Result, bail};
use clap::Args;

/// Percent of regions without which the task fails.
const LEAST: f64 = 95.0;
/// The list of what no test runs.
const LIST: &str = "core/COVERAGE.md";

#[derive(Args)]
pub(crate) struct Options {
    /// Fail below this percentage of regions
    #[arg(long, default_value_t = LEAST)]
    pub(crate) min: f64,
}

/// Runs core's tests instrumented and prints files and the total of regions.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    run::need_cargo_tool("llvm-cov")?;
    let mut command = run::cargo(["llvm-cov", "-p", "tierce-core", "--summary-only"]);
    command.env("CARGO_LLVM_COV_SETUP", "no"); // it would install components by itself
    let output = run::run(command, Show::Live)?;
    if !output.status.success() {
        if output.text.contains("llvm-tools") {
            bail!("the compiler's llvm-tools are missing: rustup component add llvm-tools");
        }
        return Ok(Outcome::broken(output.status.to_string()));
    }
    let regions = total_regions(&output.text).context("cargo llvm-cov printed no total")?;
    Ok(verdict(regions, options.min))
}

fn verdict(regions: f64, least: f64) -> Outcome {
    let note = format!("{regions:.2} % of core's regions");
    if regions < least {
        return Outcome::broken(format!("{note}, wanted {least} %; {LIST} lists the known rest"));
    }
    Outcome::clean(format!("{note}; {LIST} lists the rest"))
}

/// The first percentage of the line `TOTAL  regions missed 97.53% …`.
fn total_regions(text: &str) -> Option<f64> {
    let total = text.lines().find(|line| line.starts_with("TOTAL"))?;
    total.split_whitespace().find_map(|word| word.strip_suffix('%')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_fails_and_names_the_list() {
        let (less, enough) = (verdict(94.99, LEAST), verdict(95.0, LEAST));
        assert_eq!((less.failed, enough.failed), (1, 0));
        assert!(less.note.contains(LIST) && enough.note.contains(LIST));
        assert!(crate::place::root().join(LIST).is_file());
    }

    #[test]
    fn regions_are_the_first_percentage_of_the_total() {
        let text = "Filename  Regions  Missed Regions  Cover  Functions\n\
                    a.rs      10       5               50.00%  3\n\
                    TOTAL     1539     38              97.53%  160  6  96.25%\n";
        assert_eq!(total_regions(text), Some(97.53));
        assert_eq!(total_regions("error"), None);
    }
}
