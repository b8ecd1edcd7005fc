//! `cargo bench -p tierce-bench --bench lockfree [-- --quick] [P1 P5 …]`: the allocator beside
//! its baselines, and what it has to reach. See `tierce_bench::bars` for the method.

use clap::Parser;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tierce_bench::bars::{self, Plan, Progress, Verdict};
use tierce_bench::measure::{Environment, Load};
use tierce_bench::report::Document;

/// The allocator beside its baselines.
#[derive(Parser)]
struct Arguments {
    /// The bars to measure, as P4; all by default.
    bars: Vec<String>,
    /// About three minutes: no 16 Mi buckets, fewer thread counts, short samples.
    #[arg(long)]
    quick: bool,
    /// Rounds that count, at least 1.
    #[arg(long)]
    rounds: Option<usize>,
    /// How long a sample takes, in milliseconds.
    #[arg(long)]
    sample_ms: Option<u64>,
    /// Write environment, rows and raw samples here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table here, as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// What cargo says when it benches; without it everything runs once, briefly, as a test.
    #[arg(long, hide = true)]
    bench: bool,
}

fn plan(mut arguments: Arguments) -> Plan {
    // `cargo bench -- lockfree` tells every benchmark its name, this one too.
    arguments.bars.retain(|bar| bar != "lockfree");
    let plan = match (arguments.bench, arguments.quick) {
        (false, _) => Plan::smoke(),
        (true, true) => Plan::quick(),
        (true, false) => Plan::full(),
    };
    Plan {
        only: arguments.bars,
        rounds: arguments.rounds.unwrap_or(plan.rounds).max(1),
        sample: arguments.sample_ms.map_or(plan.sample, Duration::from_millis),
        ..plan
    }
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let (json, markdown) = (arguments.json.clone(), arguments.markdown.clone());
    let plan = plan(arguments);
    let mut environment = Environment::read();
    let began = Instant::now();
    let tell = |progress: Progress<'_>| {
        eprintln!("{:6.1} s  {}", began.elapsed().as_secs_f64(), progress.what);
    };
    let load = Load::begin();
    let results = bars::run(&plan, &tell);
    environment.others = load.of_others();
    let document = Document::new(environment, &plan, results);
    let Document { env, rows, .. } = &document;
    println!("{}", bars::terminal(env, rows));
    for note in &document.notes {
        println!("{note}");
    }
    let short = rows.iter().filter(|row| row.verdict == Verdict::Short).count();
    println!("{short} short, {:.0} s", began.elapsed().as_secs_f64());
    if let Some(path) = json {
        std::fs::write(path, document.to_json())?;
    }
    if let Some(path) = markdown {
        std::fs::write(path, bars::markdown(env, rows))?;
    }
    Ok(())
}
