//! Coverage of tierce-core by its own tests.

use crate::report::Outcome;
use crate::run::{self, Show};
use anyhow::{Context, Result, bail};
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// Fail below this percentage of regions
    #[arg(long, default_value_t = 0.0)]
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
    let note = format!("{regions:.2} % of core's regions");
    Ok(if regions < options.min { Outcome::broken(note) } else { Outcome::clean(note) })
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
    fn regions_are_the_first_percentage_of_the_total() {
        let text = "Filename  Regions  Missed Regions  Cover  Functions\n\
                    a.rs      10       5               50.00%  3\n\
                    TOTAL     1539     38              97.53%  160  6  96.25%\n";
        assert_eq!(total_regions(text), Some(97.53));
        assert_eq!(total_regions("error"), None);
    }
}
