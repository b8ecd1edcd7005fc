//! `tierce inspect`: what is on a cache device, ours or of Linux.
//!
//! Devices are opened for reading only. What is damaged is named, and everything that can be
//! read without it is shown all the same; then the exit code is 1.

mod device;
mod json;
mod survey;
mod text;

use crate::stdout::print;
use anyhow::{Context, bail};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use survey::Survey;
use tierce_core::Snapshot;

/// Show what is on a cache device, of tierce or of Linux, without changing it
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Devices or image files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print JSON: one object, or a list of them for several paths
    #[arg(long)]
    json: bool,
    /// Walk the index as start-up would: marks, reserves, what would be reused first
    #[arg(long)]
    startup: bool,
    /// Write the bucket table that start-up ends with to a new file: per bucket pin i32,
    /// prio u16, gen u8, last_gc u8, mark and sectors u16, 2 bytes of padding
    #[arg(long, value_name = "FILE")]
    buckets: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.buckets.is_some() && args.paths.len() > 1 {
        bail!("--buckets writes the table of one device, {} were given", args.paths.len());
    }
    let walk = args.startup || args.buckets.is_some();
    let surveys: Vec<_> = args.paths.iter().map(|path| Survey::new(path, walk)).collect();
    let shown = if args.json { json::render(&surveys) } else { text::render(&surveys) };
    print(&shown)?;
    if let (Some(file), Some(started)) = (&args.buckets, surveys[0].started.as_ref()) {
        write_buckets(file, &started.words)?;
    }
    let mut code = ExitCode::SUCCESS;
    let is_unstarted = surveys[0].started.is_none() && surveys[0].problems.is_empty();
    if args.buckets.is_some() && is_unstarted {
        bail!("{}: was never used, wanted a table of buckets", args.paths[0].display());
    }
    for survey in &surveys {
        for problem in &survey.problems {
            eprintln!("tierce: {}: {problem}", survey.path.display());
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Writes the table to a file that must not exist, so that no device is ever overwritten.
fn write_buckets(path: &PathBuf, words: &[Snapshot]) -> anyhow::Result<()> {
    let mut bytes = Vec::with_capacity(words.len() * 12);
    for word in words {
        let mark = u16::from(word.mark().to_bits());
        let gc_mark = mark | word.sectors() << 2 | u16::from(word.is_moving()) << 15;
        bytes.extend(i32::from(word.pin_count()).to_le_bytes());
        bytes.extend(word.prio().get().to_le_bytes());
        bytes.extend([word.gen_().get(), word.last_gc().get()]);
        bytes.extend(gc_mark.to_le_bytes());
        bytes.extend([0; 2]);
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| format!("--buckets {}", path.display()))?;
    file.write_all(&bytes).with_context(|| format!("writing {}", path.display()))
}
