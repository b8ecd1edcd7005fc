//! `tierce sim`: runs a script of allocator operations and prints one line for each.

use anyhow::Context;
use clap::ValueEnum;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use tierce_core::spec::{Set, sim};
use tierce_lockfree::sim::Scripted;

/// Run a script of allocator operations (`new`, `start`, `step`, `alloc`, …; the documentation
/// of tierce-core's `spec::sim` lists them).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which allocator answers.
    #[arg(long, value_enum, default_value_t = EngineName::Spec)]
    engine: EngineName,
    /// The script; standard input if absent or `-`.
    file: Option<PathBuf>,
}

/// The allocators that scripts can drive.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum EngineName {
    /// The executable specification.
    Spec,
    /// The concurrent allocator, through its reclaimer's steps.
    Lockfree,
}

/// Answers each line as soon as it is read, so that a terminal or a pipe can be at either end.
/// A line that is wrong ends the run; what the lines before it printed has been printed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (name, input): (String, Box<dyn BufRead>) = match &args.file {
        Some(path) if path.as_os_str() != "-" => {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
            (name, Box::new(BufReader::new(file)))
        }
        _ => ("standard input".to_owned(), Box::new(io::stdin().lock())),
    };
    let result = match args.engine {
        EngineName::Spec => answer::<Set>(&name, input),
        EngineName::Lockfree => answer::<Scripted>(&name, input),
    };
    match result {
        // Whoever read our output has seen enough.
        Err(e) if is_broken_pipe(&e) => Ok(()),
        other => other,
    }
}

fn answer<E: sim::Engine>(name: &str, input: Box<dyn BufRead>) -> anyhow::Result<()> {
    let mut runner = sim::Runner::<E>::new(sim::Limits::default());
    let mut out = BufWriter::new(io::stdout().lock());
    let mut text = String::new();
    for line in input.lines() {
        let line = line.with_context(|| format!("cannot read {name}"))?;
        text.clear();
        let result = runner.line(&line, &mut text);
        out.write_all(text.as_bytes())?;
        if let Err(e) = result {
            out.flush()?;
            anyhow::bail!("{name}: {e}");
        }
        out.flush()?;
    }
    Ok(())
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}
