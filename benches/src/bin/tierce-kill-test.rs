//! Kills a cache in mid-run, again and again, and checks what it serves afterwards: the rounds,
//! and, started by them, the process that is killed. See [`tierce_bench::kill`].

use clap::{Args, Parser, Subcommand};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use tierce_bench::backend::Tierce;
use tierce_bench::kill::worker::{self, Load};
use tierce_bench::kill::{CacheFile, Settings, run};
use tierce_cache::Config;
use tierce_io::FormatOptions;

/// Kill a cache in mid-run and check what it serves afterwards.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    test: TestArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work on a cache until killed (the test starts this).
    #[command(hide = true)]
    Worker(WorkerArgs),
}

#[derive(Debug, Args)]
struct TestArgs {
    /// How many times to kill.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// What the random choices start from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct WorkerArgs {
    path: PathBuf,
    #[arg(long)]
    keys: u64,
    #[arg(long)]
    threads: u64,
    #[arg(long)]
    value_bytes_max: usize,
    #[arg(long)]
    first_version: u64,
    #[arg(long)]
    seed: u64,
}

/// A file that is removed with this.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is gone already, or there is nobody left to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Worker(args)) => work(&args).map(|()| ExitCode::SUCCESS),
        None => test(&cli.test),
    };
    result.unwrap_or_else(|error| {
        eprintln!("tierce-kill-test: {error}");
        ExitCode::FAILURE
    })
}

/// 1024 buckets of 64 KiB, so that a round reuses buckets.
fn test(args: &TestArgs) -> Result<ExitCode, Failure> {
    let file = Temporary(format!("tierce-kill-test-{}.img", std::process::id()).into());
    let format = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(&file.0, &format)?;
    let subject = CacheFile::new(std::env::current_exe()?, &file.0);
    let mut settings = Settings::default();
    settings.rounds = args.rounds;
    settings.load.seed = args.seed;
    let checked = run(&subject, &settings, &mut |round| println!("{round}"))?;
    println!("{} rounds: {checked}", args.rounds);
    Ok(if checked.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn work(args: &WorkerArgs) -> Result<(), Failure> {
    let load = Load {
        keys: args.keys,
        threads: args.threads,
        value_bytes_max: args.value_bytes_max,
        first_version: args.first_version,
        seed: args.seed,
    };
    // Not `Stdout`, which may split a record into two writes.
    let log = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let store = Tierce::open(Config::new(&args.path))?;
    Ok(worker::run(&store, &load, &Mutex::new(log), &AtomicBool::new(false))?)
}
