//! `tierce bench report`: the page of a run that was kept, or two runs side by side.

use crate::output::Output;
use std::path::PathBuf;
use tierce_bench::report::{Document, compare, comparison_table, render};

/// Render the page of a run again, or compare two runs.
///
/// Of two runs the second is shown, with what differs from the first by more than the noise.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The JSON of a run, as --json writes it.
    run: PathBuf,
    /// That of a later run.
    later: Option<PathBuf>,
    /// Write the page to this file.
    #[arg(long, value_name = "FILE", default_value = super::PAGE)]
    html: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let first = Document::load(&args.run)?;
    let later = args.later.as_deref().map(Document::load).transpose()?;
    let page = match &later {
        None => render(&first, None),
        Some(later) => {
            print!("{}", comparison_table(&compare(&first, later)));
            render(later, Some(&first))
        }
    };
    let inputs = std::iter::once(&args.run).chain(&args.later);
    super::write(Output::open(&args.html, inputs.map(PathBuf::as_path))?, &page)
}
