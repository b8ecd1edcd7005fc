//! `tierce bench`: how the allocator behaves on this machine, beside its baselines.

mod asked;
mod report;

use crate::output::Output;
use crate::stdout::print;
use asked::{Buckets, What};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tierce_bench::bars::{self, Plan, Progress, Row, Verdict};
use tierce_bench::measure::{Environment, Load};
use tierce_bench::report::{Document, render};

/// Where the page goes if nobody says.
const PAGE: &str = "report.html";

/// Measure the allocator beside its baselines, and say what it reaches.
///
/// Without an argument everything is measured quickly, in about three minutes on two cores, and a
/// page is written to report.html. Nobody else should use the machine meanwhile.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    report: Option<Report>,
    /// What to measure, or single figures as P13 or entries [default: all, and then quickly].
    #[arg(ignore_case = true)]
    what: Vec<What>,
    /// About three minutes: no 16 Mi buckets, fewer threads, short samples.
    #[arg(long)]
    quick: bool,
    /// Numbers of threads, instead of each figure's own.
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = asked::threads)]
    threads: Vec<usize>,
    /// Numbers of buckets, instead of each figure's own: 65536, 64Ki, 16Mi.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    buckets: Vec<Buckets>,
    /// How long a sample takes; there are five or seven, and a warm-up, of each figure.
    #[arg(long, value_parser = asked::seconds)]
    seconds: Option<Duration>,
    /// Write environment, figures and samples to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the page to this file [default: report.html if everything is measured].
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Report {
    Report(report::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(Report::Report(args)) = &args.report {
        return report::run(args);
    }
    let plan = plan(args);
    let page = args.html.clone().or_else(|| args.what.is_empty().then(|| PAGE.into()));
    // What cannot be written is found out before minutes are spent.
    let output =
        |path: &Option<PathBuf>| path.as_deref().map(|path| Output::open(path, [])).transpose();
    let (json, page) = (output(&args.json)?, output(&page)?);
    let mut environment = Environment::read();
    let (load, began) = (Load::begin(), Instant::now());
    let results = bars::run(&plan, &told());
    environment.others = load.of_others();
    let document = Document::new(environment, &plan, results);
    let table = bars::terminal(&document.env, &document.rows);
    let printed = print(&format!("{table}\n{}\n", closing(&document, began.elapsed())));
    if let Some(json) = json {
        write(json, &document.to_json())?;
    }
    if let Some(page) = page {
        write(page, &render(&document, None))?;
    }
    printed
}

fn plan(args: &Args) -> Plan {
    let (sections, only) = asked::named(&args.what);
    let everything_quickly = args.what.is_empty() && args.seconds.is_none();
    let plan = if args.quick || everything_quickly { Plan::quick() } else { Plan::full() };
    Plan {
        sample: args.seconds.unwrap_or(plan.sample),
        threads: args.threads.clone(),
        buckets: args.buckets.iter().map(|buckets| buckets.0).collect(),
        sections,
        only,
        ..plan
    }
}

/// A line that moves, on a terminal only.
fn told() -> impl Fn(Progress<'_>) {
    let template = "{bar:24} {elapsed}  {msg}";
    let style = ProgressStyle::with_template(template);
    let bar =
        ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let hidden = bar.is_hidden();
    move |progress| {
        if hidden {
            return;
        }
        bar.set_length(progress.of as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.what.to_owned());
        // No thread draws in the background: it would be measured with the rest.
        bar.tick();
        if progress.done == progress.of {
            bar.finish_and_clear();
        }
    }
}

/// What the table comes to.
fn closing(document: &Document, took: Duration) -> String {
    let rows: &[Row] = &document.rows;
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let mut text = format!(
        "{} reached, {} short, in {:.0} s",
        count(Verdict::Ok),
        count(Verdict::Short),
        took.as_secs_f64()
    );
    for note in &document.notes {
        text += &format!("\n{note}");
    }
    if let Some(disturbed) = bars::disturbed(rows) {
        text += &format!("\n{disturbed}");
    }
    text
}

fn write(output: Output, text: &str) -> anyhow::Result<()> {
    let path = output.path().to_path_buf();
    output.write(text.as_bytes())?;
    print(&format!("written: {}\n", path.display()))
}
